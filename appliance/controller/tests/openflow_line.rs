//! The fabric `openflow` with real switches whose line to the controller is slow, or is cut without
//! anybody being told.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod switch;
mod wish;

use std::time::{Duration, Instant};
use switch::{
    flow_ages,
    host::{send, talk},
    pair,
    relay::Relay,
    with_switches,
};
use tokio_util::sync::CancellationToken;
use vdnd::fabric::Fabric;
use wish::{MUCH, ONE, TWO, happened, network, programmed, slice, start, until};

/// How long what the switch says is held back in turn. A switch is asked some five things before it is
/// taken, within 10 s.
const SLOW: [Duration; 6] = [
    Duration::from_millis(200),
    Duration::from_millis(900),
    Duration::from_millis(350),
    Duration::from_millis(2000),
    Duration::from_millis(500),
    Duration::from_millis(1400),
];
const PROMPT: [Duration; 1] = [Duration::ZERO];
/// How long the line is cut.
const CUT: Duration = Duration::from_secs(60);

#[test]
fn what_is_on_a_slow_switch_comes_late_and_right_and_traffic_elsewhere_goes_on() {
    with_switches("slow_switch", async |rig| {
        let stop = CancellationToken::new();
        for (name, id) in TWO.iter().zip(1..) {
            rig.switch(name, id);
        }
        rig.cable("edge1", "edge2");
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let fabric = start(network(&TWO), anywhere, &stop).await;
        let line = Relay::to(fabric.address(), &SLOW).await;
        rig.connect("edge1", &format!("tcp:{}", fabric.address()));
        rig.connect("edge2", &line.target());
        until("both have come", || fabric.trouble().is_none()).await;

        let (a, b, wanted) = pair(&rig);
        let (c, d) = (rig.host("edge1", "hc", 3), rig.host("edge1", "hd", 4));
        let near = slice(8, MUCH, vec![c.member("edge1"), d.member("edge1")], &ONE);
        let began = Instant::now();
        fabric.intend(vec![near.clone(), wanted.clone()]);
        programmed(&fabric, &[&near]).await;
        let elsewhere = began.elapsed();
        programmed(&fabric, &[&wanted]).await;
        println!(
            "{elsewhere:?} until it is programmed where no slow switch is, {:?} where one is",
            began.elapsed()
        );
        assert!(talk(&a, &b) && talk(&c, &d));

        // another rate there, and the other slice ends
        let mut faster = wanted.clone();
        faster.rate_bps = MUCH * 2;
        fabric.intend(vec![near.clone(), faster.clone()]);
        // the line is in use for all this time
        let paced = send(&c, &d, MUCH / 100, Duration::from_secs(5));
        assert!(paced.received * 100 >= paced.sent * 95, "{paced:?}");
        programmed(&fabric, &[&faster]).await;
        fabric.intend(vec![faster.clone()]);
        until("what has ended is gone", || {
            rig.guards("dump-meters", "edge1").matches("meter=").count() == 1
        })
        .await;
        programmed(&fabric, &[&faster]).await;
        let mut found = fabric.check().await;
        // a pass over a slow switch may go on for longer than a question waits
        for _ in 0..5 {
            if found.is_empty() {
                break;
            }
            found = fabric.check().await;
        }
        assert_eq!(found, []);
        assert!(talk(&a, &b));
        println!("{} messages were held back", line.carried());
        assert_eq!(happened(&fabric), [], "and nobody was let go");
    });
}

#[test]
#[ignore = "takes more than a minute: ./test.sh --long"]
fn traffic_goes_on_for_a_minute_without_the_controller_and_then_all_is_as_wanted() {
    with_switches("cut_line", async |rig| {
        let stop = CancellationToken::new();
        for (name, id) in TWO.iter().zip(1..) {
            rig.switch(name, id);
        }
        rig.cable("edge1", "edge2");
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let fabric = start(network(&TWO), anywhere, &stop).await;
        let line = Relay::to(fabric.address(), &PROMPT).await;
        for name in TWO {
            rig.connect(name, &line.target());
        }
        let (a, b, wanted) = pair(&rig);
        let (c, d) = (rig.host("edge1", "hc", 3), rig.host("edge2", "hd", 4));
        let members = || vec![c.member("edge1"), d.member("edge2")];
        let ends = slice(8, MUCH, members(), &TWO);
        fabric.intend(vec![wanted.clone(), ends.clone()]);
        programmed(&fabric, &[&wanted, &ends]).await;
        assert!(talk(&a, &b) && talk(&c, &d));

        line.cut(true);
        let began = Instant::now();
        let before = flow_ages(&rig, "edge2");
        // meanwhile one slice ends and another one begins, and somebody is at a switch
        let begins = slice(9, MUCH / 2, members(), &TWO);
        fabric.intend(vec![wanted.clone(), begins.clone()]);
        rig.ofctl(
            "add-flow metadata=0x7,table=20,priority=9,cookie=0x6474000000079999,actions=drop",
            "edge2",
        );
        let carried = line.carried();
        let sent = send(&a, &b, 2_000_000, CUT);
        println!("{sent:?} while the line was cut");
        assert!(sent.received * 100 >= sent.sent * 95, "{sent:?}");
        assert!(sent.lasted > CUT - Duration::from_secs(2), "{sent:?}");
        assert_eq!(line.carried(), carried, "nothing came through");
        let why = fabric.programmed(begins.slice).unwrap_err();
        assert!(why.contains("not connected"), "{why}");
        let trouble = fabric.trouble().unwrap();
        assert!(TWO.iter().all(|name| trouble.contains(name)), "{trouble}");

        line.cut(false);
        let healed = Instant::now();
        programmed(&fabric, &[&wanted, &begins]).await;
        println!(
            "as wanted {:?} after the line was whole again, {:?} after the cut",
            healed.elapsed(),
            began.elapsed()
        );
        until("what somebody did is undone", || {
            !rig.ofctl("dump-flows", "edge2").contains("9999")
        })
        .await;
        assert_eq!(fabric.check().await, []);
        let after = flow_ages(&rig, "edge2");
        let stayed = before.iter().filter(|(flow, _)| flow.contains("0x7"));
        for (flow, age) in stayed {
            let now = after.get(flow);
            assert!(now.is_some_and(|now| now > age), "it stayed: {flow}");
        }
        assert!(talk(&a, &b) && talk(&c, &d));
        let told = happened(&fabric);
        println!("{told:#?}");
        assert!(
            told.iter().all(|(what, _)| *what == "switch.lost"),
            "{told:?}"
        );
    });
}
