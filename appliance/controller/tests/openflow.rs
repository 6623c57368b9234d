//! The fabric `openflow` with real switches: what gets through, what does not, and what happens
//! when a switch, a rule or the controller is lost. What the switches hold is also asked by
//! `ovs-ofctl`, which knows nothing of us.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod switch;
mod wish;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};
use switch::{Host, Rig, apart, arrives, fabric, flow_ages, send, talk, with_switches};
use tokio_util::sync::CancellationToken;
use vdnd::fabric::{Border, BorderEnd, Fabric, Intent, network::Network, openflow::OpenFlow};
use wish::{network, programmed, slice, start, until};

/// A rate that nothing here comes near.
const MUCH: u64 = 500_000_000;
const TWO: [&str; 2] = ["edge1", "edge2"];
const ONE: [&str; 1] = ["edge1"];

/// A host at each of two switches, in one slice.
fn pair(rig: &Rig) -> (Host, Host, Intent) {
    let (a, b) = (rig.host("edge1", "ha", 1), rig.host("edge2", "hb", 2));
    let wanted = slice(7, MUCH, vec![a.member("edge1"), b.member("edge2")], &TWO);
    (a, b, wanted)
}
/// What happened, without the switches' coming.
fn happened(fabric: &OpenFlow) -> Vec<(&'static str, String)> {
    let all = fabric.happened().into_iter();
    all.filter(|(what, ..)| *what != "switch.connected")
        .map(|(what, _, detail)| (what, detail))
        .collect()
}

#[test]
fn two_members_talk_over_two_switches_and_nothing_is_left_behind() {
    with_switches("members_talk", async |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &TWO, &stop).await;
        let (a, b, wanted) = pair(&rig);
        assert!(apart(&a, &b), "nobody has asked for it yet");
        fabric.intend(vec![wanted.clone()]);
        let took = programmed(&fabric, &[&wanted]).await;
        println!("programmed after {took:?}");
        assert!(talk(&a, &b));
        assert_eq!(fabric.check().await, []);
        for status in fabric.switches() {
            assert!(status.connected && status.trouble.is_none(), "{status:?}");
            assert_eq!(status.meters, 1, "each switch guards its own member alone");
            let held = rig.dump(status.name.as_str());
            // a rule each, a group and a meter
            assert_eq!(status.rules + 2, held.len() as u64, "{held:#?}");
        }
        let meters = rig.ofctl("dump-meters", "edge1");
        assert!(
            meters.contains("rate=525000 burst_size=5000"),
            "1.05 of the rate and 10 ms of it: {meters}"
        );

        fabric.intend(Vec::new());
        until("the switches are empty", || {
            TWO.iter().all(|name| rig.dump(name).is_empty())
        })
        .await;
        until("nothing gets through", || apart(&a, &b)).await;
        assert_eq!(fabric.trouble(), None);
        assert_eq!(happened(&fabric), []);
    });
}

#[test]
fn a_stolen_address_gets_nothing_through() {
    with_switches("spoofing", async |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &TWO, &stop).await;
        let (a, b, wanted) = pair(&rig);
        fabric.intend(vec![wanted.clone()]);
        programmed(&fabric, &[&wanted]).await;
        assert!(talk(&a, &b));
        // it need not ask for the other's hardware address, and answers are not waited for
        a.knows(&b);
        let (at4, at6) = (b.socket(b.v4), b.socket(b.v6));

        for (stolen, prefix) in [("10.0.0.9", 24), ("fd00::9", 64)] {
            let more = if prefix == 64 { " nodad" } else { "" };
            a.run(&format!("ip addr add {stolen}/{prefix} dev eth0{more}"));
            let from = a.socket(stolen.parse::<std::net::IpAddr>().unwrap());
            let at = if prefix == 64 { &at6 } else { &at4 };
            assert!(!arrives(&from, at), "{stolen} is not its address");
        }
        assert!(talk(&a, &b), "its own still does");

        a.run("ip link set eth0 address 02:00:00:00:00:99");
        a.knows(&b);
        let from = a.socket(a.v4);
        assert!(!arrives(&from, &at4), "a stolen hardware address");
        let closed = rig.ofctl("dump-flows", "edge1");
        let closed = closed.lines().find(|line| {
            line.contains("priority=10,") && line.contains("in_port=\"ha\"")
                || line.contains("priority=10,") && line.contains("actions=drop")
        });
        let counted = closed.unwrap();
        assert!(
            !counted.contains("n_packets=0,"),
            "dropped and counted: {counted}"
        );
    });
}

#[test]
fn two_slices_do_not_hear_each_other() {
    with_switches("isolation", async |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &TWO, &stop).await;
        let (a, b, red) = pair(&rig);
        let (c, d) = (rig.host("edge1", "hc", 3), rig.host("edge2", "hd", 4));
        let blue = slice(8, MUCH, vec![c.member("edge1"), d.member("edge2")], &TWO);
        fabric.intend(vec![red.clone(), blue.clone()]);
        programmed(&fabric, &[&red, &blue]).await;
        assert!(talk(&a, &b));
        assert!(talk(&c, &d));
        // nothing is kept from them: each knows where the other would be
        for (from, to) in [(&a, &d), (&a, &c), (&d, &b)] {
            from.knows(to);
            let (sender, receiver) = (from.socket(from.v4), to.socket(to.v4));
            let names = (from.name, to.name);
            assert!(!arrives(&sender, &receiver), "{names:?}");
        }
        // one goes, the other stays as it is
        let before = rig.dump("edge1").len();
        fabric.intend(vec![blue.clone()]);
        programmed(&fabric, &[&blue]).await;
        until("the slice is gone", || rig.dump("edge1").len() < before).await;
        until("nothing gets through", || apart(&a, &b)).await;
        assert!(talk(&c, &d));
    });
}

#[test]
fn a_rogue_is_cut_and_who_keeps_to_the_rate_is_not() {
    with_switches("rogue", async |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &TWO, &stop).await;
        let rate = 20_000_000;
        let (a, b, mut wanted) = pair(&rig);
        wanted.rate_bps = rate;
        fabric.intend(vec![wanted.clone()]);
        programmed(&fabric, &[&wanted]).await;
        assert!(talk(&a, &b));
        let counters = || fabric.counters().get(&wanted.slice).copied();

        let paced = send(&a, &b, rate * 9 / 10, Duration::from_secs(2));
        until("the guards have counted it", || {
            counters().is_some_and(|c| c.packets >= paced.received)
        })
        .await;
        assert_eq!(counters().unwrap().dropped_packets, 0, "{paced:?}");
        assert!(paced.received > 0);

        let rogue = send(&a, &b, rate * 4, Duration::from_secs(3));
        until("the guards have dropped", || {
            counters().is_some_and(|c| c.dropped_packets > 0)
        })
        .await;
        let (seconds, bits) = (rogue.lasted.as_secs_f64(), rogue.received_bits());
        let burst = 2_048_000.0;
        let most = rate as f64 * 1.10 * seconds + burst;
        assert!(bits <= most, "{bits} of {most} bits: {rogue:?}");
        assert!(rogue.received > 0, "cut and not off");
        let own = rig.ofctl("meter-stats", "edge1");
        assert!(!own.contains("packet_count:0 "), "{own}");
        // it has met one guard, not one at every switch
        let far = rig.ofctl("meter-stats", "edge2");
        let dropped = far.split("packet_count:").nth(1).unwrap_or("0 ");
        assert!(dropped.starts_with("0 "), "{far}");
    });
}

#[test]
fn another_rate_is_a_new_guard_before_the_old_one_goes() {
    with_switches("rate_change", async |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &TWO, &stop).await;
        let (a, b, mut wanted) = pair(&rig);
        fabric.intend(vec![wanted.clone()]);
        programmed(&fabric, &[&wanted]).await;
        assert!(talk(&a, &b));
        let packets = |line: &&String| !line.contains("n_packets=0,");
        let used = rig.dump("edge1").iter().filter(packets).count();
        wanted.rate_bps = MUCH / 2;
        fabric.intend(vec![wanted.clone()]);
        programmed(&fabric, &[&wanted]).await;
        let meters = rig.ofctl("dump-meters", "edge1");
        assert!(meters.contains("rate=262500 "), "{meters}");
        assert_eq!(meters.matches("meter=").count(), 1, "{meters}");
        let flows = rig.dump("edge1");
        let still = flows.iter().filter(packets).count();
        assert_eq!(still, used, "rules were replaced and not taken away");
        assert!(talk(&a, &b));
        assert_eq!(happened(&fabric), []);
    });
}

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
            fabric.programmed(wanted.slice).is_err()
        })
        .await;
        let why = fabric.programmed(wanted.slice).unwrap_err();
        assert!(why.contains("edge1 is not connected"), "{why}");
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
        // the group and the meter stay
        rig.ofctl("del-flows", "edge2");
        rig.ofctl(
            "add-flow metadata=0x7,table=20,priority=9,cookie=0x6474000000079999,actions=drop",
            "edge1",
        );
        let differences = fabric.check().await;
        let extra = differences.iter().filter(|d| d.kind == "extra").count();
        let missing = differences.iter().filter(|d| d.kind == "missing").count();
        assert_eq!((extra, missing), (1, before - 2), "{differences:#?}");
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
fn a_port_that_comes_later_is_found() {
    with_switches("late_port", async |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &ONE, &stop).await;
        let (a, b) = (rig.host("edge1", "ha", 1), rig.unplugged("hb", 2));
        let wanted = slice(7, MUCH, vec![a.member("edge1"), b.member("edge1")], &ONE);
        fabric.intend(vec![wanted.clone()]);
        until("it says what is missing", || {
            fabric
                .programmed(wanted.slice)
                .is_err_and(|why| why.contains("no port hb"))
        })
        .await;
        rig.vsctl("add-port edge1 hb");
        programmed(&fabric, &[&wanted]).await;
        assert!(talk(&a, &b));
        // and under another number again
        rig.vsctl("del-port edge1 hb");
        until("it says what is missing", || {
            fabric
                .programmed(wanted.slice)
                .is_err_and(|why| why.contains("no port hb"))
        })
        .await;
        rig.vsctl("add-port edge1 hb -- set interface hb ofport_request=41");
        programmed(&fabric, &[&wanted]).await;
        assert!(talk(&a, &b));
    });
}

#[test]
fn two_domains_meet_at_a_border() {
    with_switches("border", async |rig| {
        for (name, id) in TWO.iter().zip(1..) {
            rig.switch(name, id);
        }
        rig.cable("edge1", "edge2");
        let (a, b) = (rig.host("edge1", "ha", 1), rig.host("edge2", "hb", 2));
        let stop = CancellationToken::new();
        let mut domains = Vec::new();
        for (at, host, tag) in [("edge1", &a, 7), ("edge2", &b, 9)] {
            let other = if at == "edge1" { "edge2" } else { "edge1" };
            let place: vdnd::fabric::network::Place = format!("{at}/{at}-{other}").parse().unwrap();
            let whole = network(&TWO);
            let link: dtn_api::Name = "border".parse().unwrap();
            let network = Network {
                switches: whole
                    .switches
                    .into_iter()
                    .filter(|s| s.name.as_str() == at)
                    .collect(),
                borders: vec![Border {
                    name: link.clone(),
                    peer_domain: other.parse().unwrap(),
                    peer_ref: link.clone(),
                    capacity_bps: MUCH,
                    latency_us: 0,
                    mtu: 1500,
                    labels: Default::default(),
                    at: Some(place.clone()),
                }],
                ..Network::default()
            };
            let fabric = start(network, "127.0.0.1:0".parse().unwrap(), &stop).await;
            rig.connect(at, &format!("tcp:{}", fabric.address()));
            let mut wanted = slice(tag, MUCH, vec![host.member(at)], &[at]);
            wanted.border = Some(BorderEnd {
                link,
                at: place,
                label: 1234,
            });
            fabric.intend(vec![wanted.clone()]);
            programmed(&fabric, &[&wanted]).await;
            domains.push((fabric, wanted));
        }
        assert!(talk(&a, &b));
        // two labels that are not the same are two slices
        let (fabric, mut wanted) = domains.pop().unwrap();
        wanted.border.as_mut().unwrap().label = 1235;
        fabric.intend(vec![wanted.clone()]);
        programmed(&fabric, &[&wanted]).await;
        // what the switch remembers of a decision goes a moment after the rule
        until("nothing gets through", || apart(&a, &b)).await;
    });
}

#[test]
fn over_tls_a_switch_is_who_its_certificate_names() {
    with_switches("tls", async |mut rig| {
        for (name, id) in TWO.iter().zip(1..) {
            rig.switch(name, id);
        }
        rig.cable("edge1", "edge2");
        let file = rig.path("vdnd.toml");
        let toml = r#"
version = 1
[domain]
name = "daejeon"
[listen]
address = "127.0.0.1:0"
[fabric]
kind = "openflow"
listen = "127.0.0.1:6653"
[[switch]]
name = "edge1"
datapath-id = "0000000000000001"
[[switch]]
name = "edge2"
datapath-id = "0000000000000002"
[[cable]]
ends = "edge1/edge1-edge2 edge2/edge2-edge1"
capacity = "1Gbit"
mtu = 1500
[addresses]
ipv4 = "10.0.0.0/16"
"#;
        std::fs::write(&file, toml).unwrap();
        let config = vdnd::config::load(&file).unwrap().config;
        let stop = CancellationToken::new();
        let root = rig.path("root");
        let running = vdnd::serve::start(config, &root, stop.clone())
            .await
            .unwrap();
        let authority = running.engine.authority();
        let key = rcgen::KeyPair::generate().unwrap();
        let wish = rcgen::CertificateParams::new(Vec::new()).unwrap();
        let csr = wish.serialize_request(&key).unwrap().pem().unwrap();
        let now = jiff::Timestamp::now();
        let own = |rig: &Rig, role: &str| {
            let name = "edge1".parse().unwrap();
            let pem = authority.certify(role, &name, &csr, now).unwrap();
            std::fs::write(rig.path("switch.pem"), pem).unwrap();
            let [key, own, ca] = ["key.pem", "switch.pem", "ca.pem"].map(|n| rig.path(n));
            let files = [key, own, ca].map(|path| path.display().to_string());
            rig.vsctl(&format!("--no-wait set-ssl {}", files.join(" ")));
        };
        std::fs::write(rig.path("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(rig.path("ca.pem"), authority.ca_pem()).unwrap();
        let there = || -> Vec<bool> {
            let all = running.engine.fabric().switches();
            all.iter().map(|switch| switch.connected).collect()
        };
        own(&rig, "switch");
        rig.connect("edge1", "ssl:127.0.0.1:6653");
        until("it is there", || there()[0]).await;
        // the other one comes with the certificate of the first
        rig.connect("edge2", "ssl:127.0.0.1:6653");
        until("it is refused", || {
            rig.log().contains("edge2<->ssl:127.0.0.1:6653: connection")
        })
        .await;
        assert_eq!(there(), [true, false]);
        // a host's certificate is no switch's; a switch reads its own once
        rig.kill();
        own(&rig, "node-agent");
        let before = rig.log().len();
        rig.forward();
        until("it is refused", || {
            rig.log()[before..].contains("edge1<->ssl:127.0.0.1:6653: connection")
        })
        .await;
        assert_eq!(there(), [false, false]);
        stop.cancel();
        running.ended().await.unwrap();
    });
}
