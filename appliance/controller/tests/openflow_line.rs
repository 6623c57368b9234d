//! The fabric `openflow` with real switches whose line to the controller is cut without anybody being
//! told.

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
use wish::{MUCH, TWO, happened, network, programmed, slice, start, until};

const PROMPT: [Duration; 1] = [Duration::ZERO];
/// How long the line is cut.
const CUT: Duration = Duration::from_secs(60);

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
