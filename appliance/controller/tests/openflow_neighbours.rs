//! The fabric `openflow` with real switches: how members find each other, by asking everyone or by
//! asking the controller.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod switch;
mod wish;

use std::{thread, time::Duration};
use switch::{
    fabric,
    host::{apart, arrives, talk},
    pair, skipped, with_switches,
};
use tokio_util::sync::CancellationToken;
use vdnd::fabric::{Fabric, program::Neighbours};
use wish::{MUCH, TWO, programmed, slice};

/// Two members talk while a third listens; who is in another slice and who is nobody is looked for
/// too. Returns what the third has heard of all that.
fn heard_by_a_third(test: &'static str, neighbours: Neighbours, then: fn(String)) {
    let tshark = std::process::Command::new("tshark").arg("-v").output();
    if tshark.is_err() {
        return skipped(test, "needs Debian's tshark");
    }
    with_switches(test, async move |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &TWO, &stop).await;
        fabric.answer(neighbours);
        let (a, b, mut wanted) = pair(&rig);
        let third = rig.host("edge1", "hc", 3);
        let other = rig.host("edge1", "hd", 4);
        wanted.members.push(third.member("edge1"));
        let apart_from = slice(8, MUCH, vec![other.member("edge1")], &["edge1"]);
        fabric.intend(vec![wanted.clone(), apart_from.clone()]);
        programmed(&fabric, &[&wanted, &apart_from]).await;
        assert_eq!(fabric.check().await, [], "the rules for it are wanted");
        // that the link-local addresses are free is asked of everyone
        tokio::time::sleep(Duration::from_secs(3)).await;
        let heard = tokio::task::block_in_place(|| {
            thread::scope(|scope| {
                let listens = scope.spawn(|| {
                    third.run(
                        "tshark -n -l -i eth0 -a duration:12 -f \
                         (arp||(ip6[6]==58&&ip6[40]==135))&&ether[11]!=3",
                    )
                });
                thread::sleep(Duration::from_secs(3));
                assert!(talk(&a, &b));
                assert!(apart(&a, &other));
                let nobody = "10.0.0.99:9".parse::<std::net::SocketAddr>().unwrap();
                let from = a.socket(a.v4);
                // no neighbour is an error of the host
                let _ = from.send_to(b"is there anybody", nobody);
                listens.join().unwrap()
            })
        });
        let known = a.run("ip neigh show");
        for (host, is) in [(&b, true), (&other, false)] {
            let mac = host.mac.to_string();
            assert_eq!(known.contains(&mac), is, "{mac} in {known}");
        }
        let nobody = known.lines().find(|line| line.starts_with("10.0.0.99 "));
        assert!(!nobody.unwrap_or_default().contains("lladdr"), "{known}");
        then(heard);
        // the third finds them as well
        let [from, at] = [(&third, third.v4), (&b, b.v4)].map(|(host, ip)| host.socket(ip));
        assert!(arrives(&from, &at));
    });
}

#[test]
fn the_controller_answers_and_nobody_else_hears_the_question() {
    heard_by_a_third("proxied_neighbours", Neighbours::Proxy, |heard| {
        assert_eq!(heard.trim(), "");
    });
}

#[test]
fn everyone_in_the_slice_hears_a_question() {
    heard_by_a_third("flooded_neighbours", Neighbours::Flood, |heard| {
        assert!(heard.contains("Who has 10.0.0.2?"), "{heard}");
        assert!(
            heard.contains("Neighbor Solicitation for fd00::2"),
            "{heard}"
        );
    });
}
