//! The fabric `openflow` with real switches: frames that switches hand over, and frames that are sent
//! through them. How they are joined is found out so, and a host cannot lie about it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod switch;
mod wish;

use dtn_api::fabric::FabricLink;
use std::time::Duration;
use switch::{Rig, fabric, host::talk, pair, skipped, with_switches};
use tokio_util::sync::CancellationToken;
use vdnd::fabric::{Fabric, openflow::OpenFlow};
use wish::{TWO, programmed, until};

const CABLE: [&str; 2] = ["edge1/edge1-edge2", "edge2/edge2-edge1"];

fn cable(fabric: &OpenFlow) -> FabricLink {
    let links = fabric.links();
    links.into_iter().find(|link| link.ends == CABLE).unwrap()
}
async fn seen(fabric: &OpenFlow) {
    until("the cable is seen", || cable(fabric).seen_s.is_some()).await;
}
/// Equipment at a port of a switch that sends whatever it likes; both ends have this name.
fn rogue(rig: &Rig, switch: &str, name: &str) {
    rig.vsctl(
        "--may-exist add-br rogue -- set bridge rogue datapath_type=netdev fail_mode=secure \
         protocols=OpenFlow13 other-config:disable-in-band=true",
    );
    rig.vsctl(&format!(
        "add-port {switch} {name} -- set interface {name} type=patch options:peer=r{name}"
    ));
    rig.vsctl(&format!(
        "add-port rogue r{name} -- set interface r{name} type=patch options:peer={name}"
    ));
}
/// Sends a frame out of a port of the rogue so many times.
fn sends(rig: &Rig, name: &str, frame: &[u8], times: usize) {
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    let outputs = vec![format!("output:r{name}"); times].join(",");
    rig.ofctl(
        &format!("packet-out in_port=controller,packet={hex},actions={outputs}"),
        "rogue",
    );
}
/// What a host would have to send to pass for a port of a switch, but for the seal.
fn forged(datapath_id: u64, port: u32) -> Vec<u8> {
    let mut frame = vec![1, 0x80, 0xc2, 0, 0, 0x0e, 2, 0, 0, 0, 0, 1, 0x88, 0xcc];
    let id = format!("{datapath_id:016x}");
    frame.extend([0x02, 17, 7]);
    frame.extend(id.as_bytes());
    frame.extend([0x04, 2, 7, b'0' + port as u8, 0x06, 2, 0, 20]);
    frame.extend([0xfe, 56, 0x02, 0x64, 0x74, 1]);
    frame.extend(datapath_id.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend([0; 8 + 32 + 2]);
    frame
}

#[test]
fn cables_are_seen_and_what_is_plugged_in_otherwise_is_said() {
    with_switches("links", async |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &TWO, &stop).await;
        assert_eq!(cable(&fabric).seen_s, None, "nobody has asked for anything");
        fabric.intend(Vec::new());
        let began = std::time::Instant::now();
        seen(&fabric).await;
        println!("seen after {:?}", began.elapsed());
        assert_eq!(fabric.trouble(), None);
        assert_eq!(fabric.check().await, [], "the rule for it is wanted");
        let meters = rig.ofctl("dump-meters", "edge1");
        assert!(
            meters.contains("meter=controller pktps burst"),
            "what it hands over is limited: {meters}"
        );

        // one more cable, of which nobody has told
        for (switch, port, peer) in [("edge1", "x1", "x2"), ("edge2", "x2", "x1")] {
            rig.vsctl(&format!(
                "add-port {switch} {port} -- set interface {port} type=patch options:peer={peer}"
            ));
        }
        let other = || {
            let links = fabric.links();
            links.into_iter().find(|link| !link.cable)
        };
        until("the other one is seen", || other().is_some()).await;
        let link = other().unwrap();
        assert_eq!(link.ends, ["edge1/x1", "edge2/x2"]);
        assert!(link.trouble.unwrap().contains("no [[cable]]"));
        assert_eq!(fabric.trouble(), None, "no slice is the worse for it");

        // the cable is plugged over into that port
        rig.vsctl("set interface edge1-edge2 options:peer=x2");
        rig.vsctl("set interface x2 options:peer=edge1-edge2");
        until("it is said", || {
            fabric
                .trouble()
                .is_some_and(|why| why.contains("edge1/edge1-edge2 is joined to edge2/x2"))
        })
        .await;
        let told = fabric.happened();
        assert!(
            told.iter().any(|(what, ..)| *what == "link.trouble"),
            "{told:?}"
        );
        // and back
        rig.vsctl("set interface x2 options:peer=x1");
        rig.vsctl("set interface edge1-edge2 options:peer=edge2-edge1");
        until("all is well", || fabric.trouble().is_none()).await;
        seen(&fabric).await;

        // cut in the middle, where no port notices
        rig.vsctl("add-br between -- set bridge between datapath_type=netdev fail_mode=secure");
        for (port, peer) in [("b1", "edge1-edge2"), ("b2", "edge2-edge1")] {
            rig.vsctl(&format!(
                "add-port between {port} -- set interface {port} type=patch options:peer={peer} \
                 -- set interface {peer} options:peer={port}"
            ));
        }
        until("it is said", || {
            fabric
                .trouble()
                .is_some_and(|why| why.contains("is not seen"))
        })
        .await;
        assert_eq!(cable(&fabric).seen_s, None);
        // one way alone
        rig.vsctl("set bridge between protocols=OpenFlow13");
        rig.ofctl("add-flow in_port=b1,actions=output:b2", "between");
        until("it is said", || {
            fabric.trouble().is_some_and(|why| {
                why.contains("one way only: nothing that leaves edge2/edge2-edge1 arrives")
            })
        })
        .await;
        rig.ofctl("add-flow in_port=b2,actions=output:b1", "between");
        until("all is well", || fabric.trouble().is_none()).await;
    });
}

#[test]
fn a_host_can_make_up_no_link_and_a_flood_keeps_nobody_out() {
    with_switches("forged_links", async |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &TWO, &stop).await;
        let (a, b, wanted) = pair(&rig);
        rogue(&rig, "edge1", "p9");
        fabric.intend(vec![wanted.clone()]);
        programmed(&fabric, &[&wanted]).await;
        seen(&fabric).await;
        sends(&rig, "p9", &forged(2, 1), 1);
        // whatever the rogue hears goes back to where it came from
        rig.ofctl("add-flow actions=in_port", "rogue");
        for _ in 0..20 {
            sends(&rig, "p9", &forged(2, 1), 1000);
        }
        let stats = rig.ofctl("meter-stats", "edge1");
        let own = stats.split("meter:controller").nth(1).unwrap();
        let dropped = own.split("packet_count:").nth(1).unwrap();
        assert!(!dropped.starts_with("0 "), "cut in the switch: {own}");
        tokio::time::sleep(Duration::from_secs(8)).await;
        let links = fabric.links();
        assert_eq!(links.len(), 1, "{links:?}");
        assert!(links[0].seen_s.is_some_and(|age| age < 8), "{links:?}");
        assert_eq!(fabric.trouble(), None);
        assert!(talk(&a, &b));
        let told = fabric.happened();
        let lost = told.iter().find(|(what, ..)| *what == "switch.lost");
        assert_eq!(lost, None, "the session has lived through it");
    });
}

#[test]
fn others_can_read_what_says_where_a_port_is() {
    if std::process::Command::new("tshark")
        .arg("--version")
        .output()
        .is_err()
    {
        return skipped("lldp_decoded", "needs Debian's tshark");
    }
    with_switches("lldp_decoded", async |rig| {
        let stop = CancellationToken::new();
        let fabric = fabric(&rig, &TWO, &stop).await;
        let host = rig.host("edge1", "ha", 1);
        fabric.intend(Vec::new());
        seen(&fabric).await;
        let told = tokio::task::block_in_place(|| {
            host.run("tshark -n -l -i eth0 -a duration:30 -c 1 -V -f ether[12:2]==0x88cc")
        });
        for part in [
            "Destination: 01:80:c2:00:00:0e",
            "0000000000000001",
            "20 sec",
            "Port Description: ha",
            "System Name: edge1",
            "End of LLDPDU",
        ] {
            assert!(told.contains(part), "{part} is not in {told}");
        }
        assert!(!told.contains("Malformed"), "{told}");
    });
}
