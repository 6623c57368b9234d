//! A switch in which everything is in one table, beside an ordinary one: what gets through and what
//! does not, on real Open vSwitch.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod switch;
mod wish;

use std::{sync::Arc, time::Duration};
use switch::{
    Rig,
    host::{apart, arrives, send, talk},
    pair, with_switches,
};
use tokio_util::sync::CancellationToken;
use vdnd::fabric::{Fabric, openflow::OpenFlow};
use wish::{MUCH, TWO, happened, network, programmed, slice, start, until};

/// Two switches, of which the first has one table.
async fn fabric(rig: &Rig, stop: &CancellationToken) -> Arc<OpenFlow> {
    for (name, id) in TWO.iter().zip(1..) {
        rig.switch(name, id);
    }
    rig.cable("edge1", "edge2");
    let mut network = network(&TWO);
    network.switches[0].single_table = true;
    let fabric = start(network, "127.0.0.1:0".parse().unwrap(), stop).await;
    for name in TWO {
        rig.connect(name, &format!("tcp:{}", fabric.address()));
    }
    fabric
}
/// The rules of slices that a switch has behind its first table.
fn behind(rig: &Rig, switch: &str) -> usize {
    let flows = rig.ofctl("dump-flows", switch);
    let ours = flows.lines().filter(|line| line.contains("cookie=0x6474"));
    ours.filter(|line| !line.contains("table=0,")).count()
}

#[test]
fn members_talk_and_slices_are_apart() {
    with_switches("single_table", async |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &stop).await;
        let (a, b, red) = pair(&rig);
        let (c, d) = (rig.host("edge1", "hc", 3), rig.host("edge2", "hd", 4));
        // a third of the red ones is beside the first
        let e = rig.host("edge1", "he", 5);
        let mut red = red;
        red.members.push(e.member("edge1"));
        let blue = slice(8, MUCH, vec![c.member("edge1"), d.member("edge2")], &TWO);
        fabric.intend(vec![red.clone(), blue.clone()]);
        programmed(&fabric, &[&red, &blue]).await;
        assert!(talk(&a, &b) && talk(&c, &d) && talk(&a, &e) && talk(&e, &b));
        assert_eq!(fabric.check().await, []);
        assert_eq!(
            (behind(&rig, "edge1"), behind(&rig, "edge2") > 0),
            (0, true)
        );
        for status in fabric.switches() {
            assert!(status.connected && status.trouble.is_none(), "{status:?}");
        }

        // nothing is kept from them: each knows where the other would be
        for (from, to) in [(&a, &d), (&a, &c), (&c, &e), (&d, &b), (&b, &c)] {
            from.knows(to);
            let (sender, receiver) = (from.socket(from.v4), to.socket(to.v4));
            let names = (from.name, to.name);
            assert!(!arrives(&sender, &receiver), "{names:?}");
        }
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
        assert!(!arrives(&a.socket(a.v4), &at4), "a stolen hardware address");

        // one goes, the other stays as it is
        fabric.intend(vec![blue.clone()]);
        programmed(&fabric, &[&blue]).await;
        until("nothing gets through", || apart(&e, &b)).await;
        assert!(talk(&c, &d));
        fabric.intend(Vec::new());
        until("the switches are empty", || {
            TWO.iter().all(|name| rig.dump(name).is_empty())
        })
        .await;
        assert_eq!(fabric.trouble(), None);
        assert_eq!(happened(&fabric), []);
    });
}

#[test]
fn a_rogue_is_cut_and_a_rule_that_is_gone_comes_back() {
    with_switches("single_table_rogue", async |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &stop).await;
        let rate = 20_000_000;
        let (a, b, mut wanted) = pair(&rig);
        wanted.rate_bps = rate;
        fabric.intend(vec![wanted.clone()]);
        programmed(&fabric, &[&wanted]).await;
        assert!(talk(&a, &b));
        let dropped = || {
            let counters = fabric.counters();
            counters.get(&wanted.slice).map_or(0, |c| c.dropped_packets)
        };
        assert_eq!(dropped(), 0);
        let rogue = send(&a, &b, rate * 4, Duration::from_secs(3));
        until("the guard has dropped", || dropped() > 0).await;
        // 1.05 of the rate, the burst and what the clock of a busy machine may be off
        let most = rogue.lasted.as_secs_f64() * rate as f64 * 1.25 + 2_048_000.0;
        assert!(
            rogue.received > 0 && rogue.received_bits() < most,
            "{rogue:?} is more than {most}"
        );

        let before = rig.dump("edge1").len();
        rig.ofctl("del-flows", "edge1");
        assert!(rig.dump("edge1").len() < before);
        until("the rules are back", || rig.dump("edge1").len() == before).await;
        until("it is whole", || fabric.programmed(wanted.slice).is_ok()).await;
        assert!(talk(&a, &b));
        let drift = happened(&fabric);
        assert!(drift.iter().all(|(what, _)| *what == "switch.drift") && !drift.is_empty());
    });
}
