//! Access rules in real switches: a gateway that forwards between a slice and hosts outside, and who
//! gets through.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod switch;
mod wish;

use dtn_api::gateway::Count;
use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};
use switch::{
    fabric,
    host::{arrives, talk},
    outside::{ALL, NEVER, NO_WEB, Outside, SOON, WEB, both, forwards, gated},
    with_switches,
};
use tokio_util::sync::CancellationToken;
use vdnd::fabric::{Border, BorderEnd, Fabric, Intent, network::Place, openflow::OpenFlow};
use wish::{MUCH, TWO, happened, network, programmed, slice, start, until};

const FOUR: [&str; 4] = ["edge1", "edge2", "edge3", "edge4"];
fn counted(fabric: &OpenFlow, of: &Intent, number: u16) -> Count {
    let decided = fabric.decided();
    decided
        .get(&(of.slice, number))
        .copied()
        .unwrap_or_default()
}

#[test]
fn what_is_allowed_passes_and_each_rule_counts() {
    with_switches("access", async |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &TWO, &stop).await;
        let (a, b) = (rig.host("edge1", "ha", 1), rig.host("edge2", "hb", 2));
        let Outside { gateway, host } = &{
            let outside = Outside::at(&rig, "edge2");
            outside.route(&a);
            outside
        };
        let members = vec![
            a.member("edge1"),
            b.member("edge2"),
            gateway.member("edge2"),
        ];
        let shut = gated(slice(7, MUCH, members, &TWO), gateway, &[]);
        fabric.intend(vec![shut.clone()]);
        programmed(&fabric, &[&shut]).await;
        assert!(talk(&a, &b), "members among themselves");
        assert!(talk(&a, gateway), "the gateway itself");
        assert_eq!(both(&a, host, 443, NEVER), [false; 2], "nothing is allowed");

        let open = gated(shut.clone(), gateway, &[WEB]);
        fabric.intend(vec![open.clone()]);
        programmed(&fabric, &[&open]).await;
        assert_eq!(fabric.check().await, [], "masks on ports are read back");
        for port in [443, 50_000, 50_500, 51_000] {
            assert_eq!(both(&a, host, port, SOON), [true; 2], "port {port}");
        }
        for port in [442, 49_999, 51_001] {
            assert_eq!(both(&a, host, port, NEVER), [false; 2], "port {port}");
        }
        assert_eq!(
            both(host, &a, 443, NEVER),
            [false; 2],
            "no answer is asked for"
        );
        let (from, at) = (a.socket(a.v4), host.socket(host.v4));
        assert!(!arrives(&from, &at), "UDP outwards");
        assert!(!arrives(&at, &from), "UDP inwards");
        until("the rule has counted", || {
            // seven packets make the shortest conversation
            counted(&fabric, &open, 100).packets >= 8 * 7
        })
        .await;
        let denied = || counted(&fabric, &open, 0).packets;
        until("what no rule allowed is counted", || denied() > 10).await;
        assert!(counted(&fabric, &open, 100).bytes > 8 * 7 * 54);
        // somebody else counts the same
        let flows = rig.ofctl("dump-flows", "edge1");
        let cookie = "cookie=0x647400640007000d";
        let own = flows.lines().filter(|line| line.contains(cookie));
        assert!(own.count() > 2, "{flows}");
        assert_eq!(happened(&fabric), []);
    });
}

/// A schedule's edge is another list: a rule comes, the others and their conversations stay.
#[test]
fn a_rule_that_comes_takes_effect_and_interrupts_nobody() {
    with_switches("access_change", async |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &TWO, &stop).await;
        let a = rig.host("edge1", "ha", 1);
        let outside = Outside::at(&rig, "edge2");
        outside.route(&a);
        let members = vec![a.member("edge1"), outside.gateway.member("edge2")];
        let before = gated(slice(7, MUCH, members, &TWO), &outside.gateway, &[WEB]);
        fabric.intend(vec![before.clone()]);
        programmed(&fabric, &[&before]).await;
        let host = &outside.host;
        let at = SocketAddr::new(host.v4.into(), 50_001);
        let listener = host.within(|| TcpListener::bind(at).unwrap());
        let mut here = a.within(|| TcpStream::connect_timeout(&at, SOON)).unwrap();
        let (mut there, _) = listener.accept().unwrap();
        there.set_read_timeout(Some(SOON)).unwrap();
        let talking = std::thread::spawn(move || {
            let mut word = [0; 1];
            let mut heard = 0;
            while there.read(&mut word).unwrap() == 1 {
                heard += 1;
            }
            heard
        });
        let mut said = 0;
        let mut say = |times: usize| {
            for _ in 0..times {
                here.write_all(b"x").unwrap();
                said += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            said
        };
        say(20);
        assert_eq!(both(&a, host, 443, SOON), [true; 2]);
        let after = gated(before.clone(), &outside.gateway, &[NO_WEB, WEB]);
        fabric.intend(vec![after.clone()]);
        say(100);
        programmed(&fabric, &[&after]).await;
        until("443 is denied", || both(&a, host, 443, NEVER) == [false; 2]).await;
        until("and counted", || counted(&fabric, &after, 50).packets > 0).await;
        fabric.intend(vec![before.clone()]);
        programmed(&fabric, &[&before]).await;
        assert_eq!(both(&a, host, 443, SOON), [true; 2]);
        let said = say(20);
        drop(here);
        assert_eq!(talking.join().unwrap(), said);
        assert_eq!(happened(&fabric), []);
    });
}

/// Whatever is allowed, nobody outside has an address of inside.
#[test]
fn an_address_of_inside_does_not_come_from_outside() {
    with_switches("access_posed", async |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &TWO, &stop).await;
        let a = rig.host("edge1", "ha", 1);
        let outside = Outside::at(&rig, "edge2");
        outside.route(&a);
        let members = vec![a.member("edge1"), outside.gateway.member("edge2")];
        let wanted = gated(slice(7, MUCH, members, &TWO), &outside.gateway, &[ALL]);
        fabric.intend(vec![wanted.clone()]);
        programmed(&fabric, &[&wanted]).await;
        let host = &outside.host;
        assert_eq!(both(host, &a, 7777, SOON), [true; 2], "it is allowed");
        for (posed, prefix, at) in [
            ("10.0.0.66", 32, IpAddr::from(a.v4)),
            ("fd00::66", 128, a.v6.into()),
        ] {
            let more = if prefix == 128 { " nodad" } else { "" };
            host.run(&format!("ip addr add {posed}/{prefix} dev eth0{more}"));
            let from = host.socket(posed.parse::<IpAddr>().unwrap());
            assert!(!arrives(&from, &a.socket(at)), "{posed}");
        }
        let flows = rig.ofctl("dump-flows", "edge2");
        let posed = flows.lines().filter(|l| l.contains("priority=20100,"));
        let met = posed.filter(|l| !l.contains("n_packets=0,")).count();
        assert_eq!(met, 2, "they came as far as the switch: {flows}");
    });
}

/// A router outside that cannot pass a packet on says so, and the sender hears it.
#[test]
fn the_mtu_of_a_path_outside_is_learnt() {
    with_switches("access_mtu", async |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &TWO, &stop).await;
        let a = rig.host("edge1", "ha", 1);
        let outside = Outside::at(&rig, "edge2");
        outside.route(&a);
        // a narrow network behind the host outside
        let far = rig.unplugged("hf", 8);
        let host = &outside.host;
        host.plugs(&far);
        forwards(host);
        host.run("ip addr add 198.51.100.1/24 dev hf");
        host.run("ip addr add 2001:db8:1::1/64 dev hf nodad");
        host.run("ip link set hf mtu 1300");
        for net in [
            "198.51.100.0/24 via 192.0.2.9",
            "2001:db8:1::/64 via 2001:db8::9",
        ] {
            outside.gateway.run(&format!("ip route add {net}"));
        }
        let members = vec![a.member("edge1"), outside.gateway.member("edge2")];
        let wanted = gated(
            slice(7, MUCH, members, &TWO),
            &outside.gateway,
            &[
                WEB,
                r#"{"priority":300,"action":"allow","direction":"outbound","match":{"proto":"udp","dst_ports":["5000-5001"]}}"#,
            ],
        );
        fabric.intend(vec![wanted.clone()]);
        programmed(&fabric, &[&wanted]).await;
        for (own, far) in [
            (IpAddr::from(a.v4), "198.51.100.8"),
            (a.v6.into(), "2001:db8:1::8"),
        ] {
            let socket = a.socket(own);
            let far: IpAddr = far.parse().unwrap();
            until("the path's MTU is known", || {
                // too long for the far network; the kernel learns from what comes back
                let _ = socket.send_to(&[0; 1400], SocketAddr::new(far, 5000));
                a.run(&format!("ip route get {far}")).contains("mtu 1300")
            })
            .await;
        }
    });
}

/// Everything is judged where it enters, however far the gateway is.
#[test]
fn over_four_switches_each_packet_is_judged_once() {
    with_switches("access_four", async |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &FOUR, &stop).await;
        let (a, c) = (rig.host("edge1", "ha", 1), rig.host("edge3", "hc", 3));
        let outside = Outside::at(&rig, "edge4");
        let mut members = vec![outside.gateway.member("edge4")];
        for (host, at) in [(&a, "edge1"), (&c, "edge3")] {
            outside.route(host);
            members.push(host.member(at));
        }
        let wanted = gated(slice(7, MUCH, members, &FOUR), &outside.gateway, &[WEB]);
        let (x, y) = (rig.host("edge1", "hx", 5), rig.host("edge4", "hy", 6));
        let other = slice(8, MUCH, vec![x.member("edge1"), y.member("edge4")], &FOUR);
        fabric.intend(vec![wanted.clone(), other.clone()]);
        programmed(&fabric, &[&wanted, &other]).await;
        let host = &outside.host;
        for member in [&a, &c] {
            assert_eq!(both(member, host, 50_999, SOON), [true; 2]);
            assert_eq!(both(member, host, 22, NEVER), [false; 2]);
        }
        assert!(talk(&a, &c));
        assert!(talk(&x, &y), "a slice without gateway is as it was");
        let table = |switch: &str| {
            let flows = rig.ofctl("dump-flows", switch);
            flows.lines().filter(|l| l.contains("table=10,")).count()
        };
        assert_eq!(table("edge2"), 2, "nothing enters there: it passes on");
        // of the gateway's slice nothing goes to another, though the gateway sends for strangers
        outside.gateway.knows(&y);
        let (from, to) = (outside.gateway.socket(outside.gateway.v4), y.socket(y.v4));
        assert!(!arrives(&from, &to));
        fabric.intend(vec![other.clone()]);
        programmed(&fabric, &[&other]).await;
        until("its rules are gone", || {
            table("edge1") == 1 && table("edge4") == 1
        })
        .await;
        assert_eq!(happened(&fabric), []);
    });
}

/// Members of another domain come over the border to the gateway of this one, and are judged as its own.
#[test]
fn who_comes_over_a_border_is_judged_there() {
    with_switches("access_border", async |rig| {
        for (name, id) in TWO.iter().zip(1..) {
            rig.switch(name, id);
        }
        rig.cable("edge1", "edge2");
        let stop = CancellationToken::new();
        let outside = Outside::at(&rig, "edge1");
        let b = rig.host("edge2", "hb", 2);
        outside.route(&b);
        let mut domains = Vec::new();
        for (at, member, tag) in [("edge1", &outside.gateway, 7), ("edge2", &b, 9)] {
            let other = if at == "edge1" { "edge2" } else { "edge1" };
            let place: Place = format!("{at}/{at}-{other}").parse().unwrap();
            let link: dtn_api::Name = "border".parse().unwrap();
            let mut own = network(&TWO);
            own.switches.retain(|switch| switch.name.as_str() == at);
            own.cables.clear();
            own.borders = vec![Border {
                name: link.clone(),
                peer_domain: other.parse().unwrap(),
                peer_ref: link.clone(),
                capacity_bps: MUCH,
                latency_us: 0,
                mtu: 1500,
                labels: Default::default(),
                at: Some(place.clone()),
            }];
            let fabric = start(own, "127.0.0.1:0".parse().unwrap(), &stop).await;
            rig.connect(at, &format!("tcp:{}", fabric.address()));
            let mut wanted = slice(tag, MUCH, vec![member.member(at)], &[at]);
            wanted.border = Some(BorderEnd {
                link,
                at: place,
                label: 1234,
            });
            if at == "edge1" {
                wanted = gated(wanted, &outside.gateway, &[WEB]);
            }
            fabric.intend(vec![wanted.clone()]);
            programmed(&fabric, &[&wanted]).await;
            domains.push((fabric, wanted));
        }
        assert!(talk(&b, &outside.gateway), "the gateway itself");
        let host = &outside.host;
        assert_eq!(both(&b, host, 443, SOON), [true; 2]);
        assert_eq!(both(&b, host, 22, NEVER), [false; 2]);
        assert_eq!(both(host, &b, 443, NEVER), [false; 2]);
        let (fabric, wanted) = &domains[0];
        until("both are counted", || {
            counted(fabric, wanted, 100).packets > 0 && counted(fabric, wanted, 0).packets > 2
        })
        .await;
        assert!(domains[1].0.decided().is_empty(), "it has no gateway");
    });
}
