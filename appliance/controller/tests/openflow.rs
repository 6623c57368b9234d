//! The fabric `openflow` with real switches: what gets through and what does not. What the switches
//! hold is also asked by `ovs-ofctl`, which knows nothing of us.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod switch;
mod wish;

use std::time::Duration;
use switch::{
    fabric,
    host::{apart, arrives, send, talk},
    pair, with_switches,
};
use tokio_util::sync::CancellationToken;
use vdnd::fabric::{Border, BorderEnd, Fabric, network::Network};
use wish::{MUCH, ONE, TWO, happened, network, programmed, slice, start, until};

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
        let meters = rig.guards("dump-meters", "edge1");
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
        let own = rig.guards("meter-stats", "edge1");
        assert!(!own.contains("packet_count:0 "), "{own}");
        // it has met one guard, not one at every switch
        let far = rig.guards("meter-stats", "edge2");
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
        let meters = rig.guards("dump-meters", "edge1");
        assert!(meters.contains("rate=262500 "), "{meters}");
        assert_eq!(meters.matches("meter=").count(), 1, "{meters}");
        let flows = rig.dump("edge1");
        let still = flows.iter().filter(packets).count();
        // a switch brings up its counters late, so that more may have met a frame by now
        assert!(still >= used, "rules were replaced and not taken away");
        assert!(talk(&a, &b));
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
