//! The fabric `openflow` with real switches when something is lost or wrong: a switch, a rule, the
//! controller, the connection. What the switches hold is also asked by `ovs-ofctl`, which knows
//! nothing of us.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod switch;
mod wish;

use dtn_openflow::{
    Band, Frame, METER_KBPS, METER_MAX, Message, MeterCommand, MeterMod, frame_length, refusal,
};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};
use switch::{
    Rig, fabric, flow_ages,
    host::{arrives, talk},
    pair, with_switches,
};
use tokio_util::sync::CancellationToken;
use vdnd::fabric::Fabric;
use wish::{MUCH, ONE, TWO, happened, network, programmed, slice, start, until};

#[test]
fn a_switch_that_starts_again_gets_its_rules_again() {
    with_switches("switch_restart", async |mut rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &TWO, &stop).await;
        let (a, b, wanted) = pair(&rig);
        fabric.intend(vec![wanted.clone()]);
        programmed(&fabric, &[&wanted]).await;
        assert!(talk(&a, &b));
        rig.kill();
        until("the fabric notices", || {
            fabric.switches().iter().all(|switch| !switch.connected)
        })
        .await;
        let why = fabric.programmed(wanted.slice).unwrap_err();
        assert!(why.contains("is not connected"), "{why}");
        let trouble = fabric.trouble().unwrap();
        assert!(trouble.contains("edge2"), "{trouble}");
        let checked = fabric.check().await;
        let kinds: Vec<&str> = checked.iter().map(|d| d.kind.as_str()).collect();
        assert_eq!(kinds, ["unreachable", "unreachable"]);
        rig.forward();
        programmed(&fabric, &[&wanted]).await;
        assert!(talk(&a, &b));
        let lost = happened(&fabric);
        let names: Vec<&str> = lost.iter().map(|(what, _)| *what).collect();
        assert_eq!(
            names,
            ["switch.lost", "switch.lost"],
            "and no drift: {lost:?}"
        );
    });
}

#[test]
fn what_is_changed_by_hand_is_made_good_and_told() {
    with_switches("drift", async |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &TWO, &stop).await;
        let (a, b, wanted) = pair(&rig);
        fabric.intend(vec![wanted.clone()]);
        programmed(&fabric, &[&wanted]).await;
        let before = rig.dump("edge2").len();
        // the group and the meter stay, and the rule by which the switches find each other goes too
        let wanted_differences = (1, before - 2 + 1);
        let mut seen = Vec::new();
        // what is deleted is made good by itself soon, and may be so before it is asked for
        for _ in 0..20 {
            rig.ofctl("del-flows", "edge2");
            rig.ofctl(
                "add-flow metadata=0x7,table=20,priority=9,cookie=0x6474000000079999,actions=drop",
                "edge1",
            );
            let differences = fabric.check().await;
            let of = |kind| differences.iter().filter(|d| d.kind == kind).count();
            seen.push((of("extra"), of("missing")));
            if seen.last() == Some(&wanted_differences) {
                break;
            }
        }
        assert_eq!(seen.last(), Some(&wanted_differences), "{seen:?}");
        until("it is made good", || rig.dump("edge2").len() == before).await;
        until("what is too much goes", || {
            !rig.ofctl("dump-flows", "edge1").contains("9999")
        })
        .await;
        programmed(&fabric, &[&wanted]).await;
        assert!(talk(&a, &b));
        let told = happened(&fabric);
        assert!(
            told.len() > 2 && told.iter().all(|(what, _)| *what == "switch.drift"),
            "{told:?}"
        );
        assert_eq!(fabric.check().await, []);
        // what is somebody else's is left alone, and said
        rig.ofctl(
            "add-flow table=0,priority=40000,in_port=99,actions=NORMAL",
            "edge1",
        );
        let differences = fabric.check().await;
        assert_eq!(differences.len(), 1);
        assert_eq!(differences[0].kind, "foreign");
        until("it is told", || {
            let told = happened(&fabric);
            told.iter().any(|(what, _)| *what == "switch.foreign")
        })
        .await;
        let trouble = fabric.switches()[0].trouble.clone().unwrap();
        assert!(trouble.contains("somebody else"), "{trouble}");
        assert!(fabric.trouble().unwrap().contains(&trouble));
        assert!(rig.ofctl("dump-flows", "edge1").contains("NORMAL"));
    });
}

#[test]
fn what_is_deleted_by_hand_is_put_back() {
    with_switches("deleted", async |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &TWO, &stop).await;
        let (a, b, wanted) = pair(&rig);
        fabric.intend(vec![wanted.clone()]);
        programmed(&fabric, &[&wanted]).await;
        let before = rig.dump("edge1").len();
        // how soon it is noticed is counted in `openflow_peer`
        for what in ["del-flows", "del-groups", "del-meters", "del-flows"] {
            until("it is settled", || rig.dump("edge1").len() == before).await;
            tokio::time::sleep(Duration::from_millis(2500)).await;
            rig.ofctl(what, "edge1");
            let began = Instant::now();
            until("it is made good", || rig.dump("edge1").len() == before).await;
            println!("{what}: made good after {:?}", began.elapsed());
            programmed(&fabric, &[&wanted]).await;
        }
        assert!(talk(&a, &b));
        let told = happened(&fabric);
        assert!(
            !told.is_empty() && told.iter().all(|(what, _)| *what == "switch.drift"),
            "{told:?}"
        );
    });
}

#[test]
fn a_port_that_is_down_is_said() {
    with_switches("port_down", async |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &TWO, &stop).await;
        let (_a, b, wanted) = pair(&rig);
        let (c, d) = (rig.host("edge1", "hc", 3), rig.host("edge1", "hd", 4));
        let members = vec![c.member("edge1"), d.member("edge1")];
        let other = slice(8, MUCH, members, &ONE);
        fabric.intend(vec![wanted.clone(), other.clone()]);
        programmed(&fabric, &[&wanted, &other]).await;
        for switch in fabric.switches() {
            let name = switch.name.as_str();
            let held = rig.dump(name);
            let rules = held.iter().filter(|line| line.contains("cookie=")).count();
            assert_eq!(switch.rules as usize, rules, "as the switch says");
            let meters = rig.guards("dump-meters", name).matches("meter=").count();
            assert_eq!(switch.meters as usize, meters, "as the switch says");
        }
        b.run("ip link set eth0 down");
        until("it is said", || {
            let why = fabric.programmed(wanted.slice);
            why.is_err_and(|why| why == format!("the port {} of the switch edge2 is down", b.name))
        })
        .await;
        programmed(&fabric, &[&other]).await;
        assert_eq!(fabric.check().await, [], "the rules are as they were");
        b.run("ip link set eth0 up");
        programmed(&fabric, &[&wanted]).await;
        rig.ofctl("mod-port ha down", "edge1");
        until("it is said of what was switched off", || {
            let why = fabric.programmed(wanted.slice);
            why.is_err_and(|why| why.contains("port ha of the switch edge1 is down"))
        })
        .await;
        rig.ofctl("mod-port ha up", "edge1");
        programmed(&fabric, &[&wanted, &other]).await;
        assert!(talk(&c, &d));
        assert_eq!(happened(&fabric), []);
    });
}

#[test]
fn a_controller_that_starts_again_changes_nothing() {
    with_switches("controller_restart", async |rig| {
        let stop = CancellationToken::new();
        let first = fabric(&rig, &TWO, &stop).await;
        let (a, b, wanted) = pair(&rig);
        // a guard that is not the first one, so that its id is not the one that comes first
        let (c, other) = (rig.host("edge1", "hc", 3), rig.host("edge2", "hd", 4));
        let gone = slice(
            3,
            MUCH,
            vec![c.member("edge1"), other.member("edge2")],
            &TWO,
        );
        first.intend(vec![gone.clone()]);
        programmed(&first, &[&gone]).await;
        first.intend(vec![gone.clone(), wanted.clone()]);
        programmed(&first, &[&gone, &wanted]).await;
        first.intend(vec![wanted.clone()]);
        programmed(&first, &[&wanted]).await;
        until("the first guard is gone", || {
            !rig.ofctl("dump-meters", "edge1").contains("meter=1 ")
        })
        .await;
        until("rules have an age that can be told", || {
            flow_ages(&rig, "edge1").values().all(|age| *age > 2.0)
        })
        .await;
        let address = first.address();
        stop.cancel();
        drop(first);
        until("the port is free", || {
            std::net::TcpListener::bind(address).is_ok()
        })
        .await;
        assert!(talk(&a, &b), "without a controller it goes on");
        let (before, meters) = (flow_ages(&rig, "edge1"), rig.ofctl("dump-meters", "edge1"));

        let stop = CancellationToken::new();
        let second = start(network(&TWO), address, &stop).await;
        until("the switches have come", || second.trouble().is_none()).await;
        assert_eq!(
            flow_ages(&rig, "edge1").len(),
            before.len(),
            "it was told nothing yet"
        );
        second.intend(vec![wanted.clone()]);
        programmed(&second, &[&wanted]).await;
        let after = flow_ages(&rig, "edge1");
        for (flow, age) in &before {
            assert!(after.get(flow).is_some_and(|now| now >= age), "{flow}");
        }
        assert_eq!(after.len(), before.len());
        assert_eq!(rig.ofctl("dump-meters", "edge1"), meters);
        assert_eq!(happened(&second), []);
    });
}

#[test]
fn of_two_switches_with_one_id_the_first_is_kept() {
    with_switches("duplicate_id", async |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &TWO, &stop).await;
        let (a, b, wanted) = pair(&rig);
        fabric.intend(vec![wanted.clone()]);
        programmed(&fabric, &[&wanted]).await;
        rig.switch("twin", 1);
        rig.connect("twin", &format!("tcp:{}", fabric.address()));
        rig.switch("stranger", 77);
        rig.connect("stranger", &format!("tcp:{}", fabric.address()));
        until("it is said", || {
            fabric
                .trouble()
                .is_some_and(|t| t.contains("a second switch"))
        })
        .await;
        programmed(&fabric, &[&wanted]).await;
        assert!(talk(&a, &b));
        assert_eq!(rig.dump("twin"), [""; 0]);
        let mut told = BTreeMap::new();
        until("both are told", || {
            told.extend(happened(&fabric));
            told.len() == 2
        })
        .await;
        assert!(told["switch.duplicate"].contains("edge1"), "{told:?}");
        assert!(
            told["switch.refused"].contains("000000000000004d"),
            "{told:?}"
        );
    });
}

/// Takes up every meter but one of what forwards for all switches here, by a switch that is nobody's.
fn fill(rig: &Rig, switch: &str) {
    const AT_ONCE: u32 = 1000;
    let mut stream = UnixStream::connect(rig.path(&format!("{switch}.mgmt"))).unwrap();
    stream.set_read_timeout(Some(wish::LONG)).unwrap();
    let mut said = stream.try_clone().unwrap();
    let mut next = move || {
        let mut head = [0; 8];
        said.read_exact(&mut head).unwrap();
        let mut bytes = head.to_vec();
        bytes.resize(frame_length(head).unwrap(), 0);
        said.read_exact(&mut bytes[8..]).unwrap();
        Frame::decode(&bytes).unwrap()
    };
    let frame = |xid, message| Frame { xid, message }.encode();
    let meter = |command, meter_id| {
        let message = Message::MeterMod(MeterMod {
            command,
            flags: METER_KBPS,
            meter_id,
            bands: vec![Band::Drop {
                rate: 1000,
                burst_size: 0,
            }],
        });
        frame(meter_id, message)
    };
    let versions = vec![dtn_openflow::VERSION];
    let mut out = frame(METER_MAX, Message::Hello { versions });
    for first in (1..).step_by(AT_ONCE as usize) {
        out.extend((first..first + AT_ONCE).flat_map(|id| meter(MeterCommand::Add, id)));
        out.extend(frame(METER_MAX, Message::BarrierRequest));
        stream.write_all(&out).unwrap();
        out.clear();
        let mut full = None;
        loop {
            let Frame { xid, message } = next();
            match message {
                Message::BarrierReply => break,
                Message::EchoRequest(data) => {
                    let reply = frame(xid, Message::EchoReply(data));
                    stream.write_all(&reply).unwrap();
                }
                Message::Error { kind, code, .. } => {
                    let why = refusal(kind, code);
                    assert!(why.contains("no room for more meters"), "{why}");
                    full.get_or_insert(xid);
                }
                _ => {}
            }
        }
        if let Some(full) = full {
            println!("no room for the meter {full} of the switch {switch}");
            let last = meter(MeterCommand::Delete, full - 1);
            let done = frame(METER_MAX, Message::BarrierRequest);
            stream.write_all(&[last, done].concat()).unwrap();
            while next().message != Message::BarrierReply {}
            return;
        }
    }
}

#[test]
fn without_room_for_a_guard_nobody_is_let_in_unguarded_and_it_is_said_why() {
    with_switches("full_of_meters", async |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &["edge1"], &stop).await;
        rig.switch("crowd", 99);
        let hosts = [("ha", 1), ("hb", 2), ("hc", 3), ("hd", 4)];
        let [a, b, c, d] = hosts.map(|(name, n)| rig.host("edge1", name, n));
        let other = slice(8, MUCH, vec![c.member("edge1"), d.member("edge1")], &ONE);
        fabric.intend(vec![other.clone()]);
        programmed(&fabric, &[&other]).await;
        let before = rig.dump("edge1").len();
        fill(&rig, "crowd");

        let wanted = slice(7, MUCH, vec![a.member("edge1"), b.member("edge1")], &ONE);
        fabric.intend(vec![other.clone(), wanted.clone()]);
        const WHY: &str =
            "the switch edge1 refused meters and groups: meter refused: no room for more meters";
        until("it says why not", || {
            let why = fabric.programmed(wanted.slice);
            why.is_err_and(|why| why == WHY)
        })
        .await;
        let told = fabric.happened();
        let said = ("switch.error", Some(wanted.slice), WHY.to_owned());
        assert!(told.contains(&said), "{told:?}");
        programmed(&fabric, &[&other]).await;
        assert!(talk(&c, &d), "the other slice has its guards");
        // what is refused is told at once; whose guard had room is let in by a later step
        until("one is let in, with a guard", || {
            let rules = rig.ofctl("dump-flows", "edge1");
            let lets_in = |line: &&str| line.contains("table=0,") && line.contains("metadata:0x7");
            let lets_in: Vec<&str> = rules.lines().filter(lets_in).collect();
            assert!(
                lets_in.iter().all(|line| line.contains("meter:")),
                "{lets_in:#?}"
            );
            !lets_in.is_empty()
        })
        .await;
        a.knows(&b);
        b.knows(&a);
        let (from, at) = (a.socket(a.v4), b.socket(b.v4));
        assert!(arrives(&from, &at), "the one guard that had room");
        assert!(!arrives(&at, &from), "who has no guard gets nothing in");

        // it ends: nothing of it is left
        fabric.intend(vec![other.clone()]);
        until("all of it is gone", || rig.dump("edge1").len() == before).await;
        assert_eq!(fabric.check().await, []);
        fabric.intend(vec![other.clone(), wanted.clone()]);
        until("it says so again", || {
            fabric.programmed(wanted.slice).is_err_and(|why| why == WHY)
        })
        .await;
        // there is room: nobody has to ask again
        rig.ofctl("del-meters", "crowd");
        programmed(&fabric, &[&wanted, &other]).await;
        assert!(talk(&a, &b));
        assert_eq!(fabric.check().await, []);
    });
}

#[test]
fn garbage_does_no_harm() {
    with_switches("garbage", async |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &TWO, &stop).await;
        let (a, b, wanted) = pair(&rig);
        fabric.intend(vec![wanted.clone()]);
        programmed(&fabric, &[&wanted]).await;
        let patience = Some(Duration::from_secs(20));
        let hello = [4, 0, 0, 8, 0, 0, 0, 1];
        let garbage: [&[u8]; 6] = [
            b"GET / HTTP/1.1\r\n\r\n",
            &[0xff; 4096],
            &[4, 0, 0, 3, 0, 0, 0, 1],
            // OpenFlow 1.0
            &[1, 0, 0, 8, 0, 0, 0, 1],
            // a hello, and then features that are cut short
            &[hello.as_slice(), &[4, 6, 0, 9, 0, 0, 0, 1, 0]].concat(),
            // a hello, and then the longest frame there can be
            &[
                hello.as_slice(),
                &[4, 19, 0xff, 0xff, 0, 0, 0, 1],
                &[0; 65527],
            ]
            .concat(),
        ];
        let mut silent = Vec::new();
        for bytes in garbage {
            let mut stream = TcpStream::connect(fabric.address()).unwrap();
            stream.set_read_timeout(patience).unwrap();
            // it may be cut off while it still sends
            let _ = stream.write_all(bytes);
            silent.push(stream);
        }
        for (mut stream, bytes) in silent.into_iter().zip(garbage) {
            let mut answer = Vec::new();
            // reset or closed: either way it is let go
            let _ = stream.read_to_end(&mut answer);
            assert_eq!(answer[..2], [4, 0], "a hello comes first");
            if bytes[0] == 1 {
                assert_eq!(answer[16..18], [4, 1], "and HELLO_FAILED: {answer:?}");
            }
        }
        assert!(talk(&a, &b));
        fabric.intend(Vec::new());
        until("the fabric works on", || rig.dump("edge1").is_empty()).await;
        assert_eq!(happened(&fabric), []);
    });
}

#[test]
fn a_slice_goes_on_while_its_switch_is_not_connected() {
    with_switches("connection_cut", async |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &TWO, &stop).await;
        let (a, b, wanted) = pair(&rig);
        let (c, d) = (rig.host("edge1", "hc", 3), rig.host("edge2", "hd", 4));
        let members = vec![c.member("edge1"), d.member("edge2")];
        let other = slice(8, MUCH, members, &TWO);
        fabric.intend(vec![wanted.clone(), other.clone()]);
        programmed(&fabric, &[&wanted, &other]).await;
        assert!(talk(&a, &b));
        // without any controller a switch would forget its rules
        rig.connect("edge2", "tcp:127.0.0.1:1");
        until("the fabric notices", || fabric.trouble().is_some()).await;
        let why = fabric.programmed(wanted.slice).unwrap_err();
        assert!(why.contains("edge2 is not connected"), "{why}");
        assert!(talk(&a, &b), "by the rules that it has");
        // meanwhile one slice ends
        fabric.intend(vec![wanted.clone()]);
        until("who is there does it", || {
            rig.guards("dump-meters", "edge1").matches("meter=").count() == 1
        })
        .await;
        assert_eq!(
            rig.guards("dump-meters", "edge2").matches("meter=").count(),
            2
        );
        let before = flow_ages(&rig, "edge2");
        rig.connect("edge2", &format!("tcp:{}", fabric.address()));
        programmed(&fabric, &[&wanted]).await;
        // nobody says when a slice that ended is gone, and it is no part of the other
        until("what ended meanwhile is taken away", || {
            rig.guards("dump-meters", "edge2").matches("meter=").count() == 1
        })
        .await;
        let after = flow_ages(&rig, "edge2");
        assert!(after.len() < before.len());
        for (flow, age) in &after {
            assert!(before[flow] <= *age, "it stayed as it was: {flow}");
        }
        assert!(talk(&a, &b));
        let told = happened(&fabric);
        assert!(
            told.iter().all(|(what, _)| *what == "switch.lost"),
            "{told:?}"
        );
    });
}
