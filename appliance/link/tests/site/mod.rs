//! A host, a sandbox and a wire, each a network namespace of its own without a name, so that tests
//! run side by side and the kernel clears everything up when the handles are dropped, whatever
//! failed. A veth end stands for the NIC.

#![allow(dead_code, reason = "each test file uses a part of it")]

use dtn_link::{Conn, Netns, link, link::VethEnd};
use serde_json::Value;
use std::process::Command;

/// The three namespaces.
pub(crate) struct Site {
    /// Where the NIC belongs.
    pub(crate) host: Netns,
    pub(crate) host_conn: Conn,
    /// The pod's.
    pub(crate) pod: Netns,
    pub(crate) pod_conn: Conn,
    /// What is at the far end.
    pub(crate) wire: Netns,
    pub(crate) wire_conn: Conn,
    /// Index of the NIC `ens1`.
    pub(crate) nic: u32,
}

/// A host with one NIC, `ens1`, that is up and has a carrier.
pub(crate) async fn site() -> Site {
    let host = Netns::create_unnamed().unwrap();
    let pod = Netns::create_unnamed().unwrap();
    let wire = Netns::create_unnamed().unwrap();
    let host_conn = host.connect().await.unwrap();
    let pod_conn = pod.connect().await.unwrap();
    let wire_conn = wire.connect().await.unwrap();
    let nic = plug(&host, &host_conn, "ens1", &wire, &wire_conn, "far1").await;
    Site {
        host,
        host_conn,
        pod,
        pod_conn,
        wire,
        wire_conn,
        nic,
    }
}

/// Another NIC with its far end; returns its index. Both are up.
pub(crate) async fn plug(
    host: &Netns,
    host_conn: &Conn,
    name: &str,
    wire: &Netns,
    wire_conn: &Conn,
    far: &str,
) -> u32 {
    let end = |netns, name: &str| VethEnd {
        netns,
        name: name.parse().unwrap(),
        mac: None,
    };
    link::create_veth(host_conn, end(host, name), end(wire, far), 9000)
        .await
        .unwrap();
    let nic = dtn_link::inventory::link_by_name(host_conn, name)
        .await
        .unwrap()
        .index;
    let far = dtn_link::inventory::link_by_name(wire_conn, far)
        .await
        .unwrap()
        .index;
    link::set_up(host_conn, nic).await.unwrap();
    link::set_up(wire_conn, far).await.unwrap();
    nic
}

/// What `ip` or `tc` of iproute2 says in a namespace: an independent witness.
pub(crate) fn witness(netns: &Netns, command: &str) -> Value {
    let output = run(netns, command);
    serde_json::from_str(if output.trim().is_empty() {
        "[]"
    } else {
        &output
    })
    .unwrap()
}

/// Runs a command in a namespace; returns what it printed.
pub(crate) fn run(netns: &Netns, command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new("nsenter")
        .arg(format!("--net={}", netns.proc_path().display()))
        .arg(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}
