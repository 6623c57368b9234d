//! What a test wants of the network, and waiting for it.

#![allow(dead_code, reason = "each test file uses a part of it")]

use dtn_api::{Name, slice::Class};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use vdnd::fabric::{
    Attached, Fabric, Intent,
    network::{Cable, Network, Switch},
    openflow::{Listen, OpenFlow},
};

/// How long something that must happen may take on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A rate that nothing here comes near.
pub(crate) const MUCH: u64 = 500_000_000;
pub(crate) const ONE: [&str; 1] = ["edge1"];
pub(crate) const TWO: [&str; 2] = ["edge1", "edge2"];

/// Switches that are joined in a row.
pub(crate) fn network(names: &[&str]) -> Network {
    let switch = |(name, id): (&&str, u64)| Switch {
        name: name.parse().unwrap(),
        datapath_id: id,
        single_table: false,
    };
    let cable = |pair: &[&str]| {
        let (a, b) = (pair[0], pair[1]);
        Cable {
            ends: [format!("{a}/{a}-{b}"), format!("{b}/{b}-{a}")].map(|end| end.parse().unwrap()),
            capacity_bps: 1_000_000_000,
            mtu: 1500,
        }
    };
    Network {
        switches: names.iter().zip(1..).map(switch).collect(),
        cables: names.windows(2).map(cable).collect(),
        ports: BTreeMap::new(),
        borders: Vec::new(),
    }
}
/// A fabric.
pub(crate) async fn start(
    network: Network,
    address: SocketAddr,
    stop: &CancellationToken,
) -> Arc<OpenFlow> {
    let listen = Listen { address, tls: None };
    OpenFlow::start(network, listen, stop.clone())
        .await
        .unwrap()
}

/// A slice over these switches in a row.
pub(crate) fn slice(tag: u16, rate_bps: u64, members: Vec<Attached>, names: &[&str]) -> Intent {
    let name = |text: &str| text.parse::<Name>().unwrap();
    Intent {
        slice: Uuid::from_u128(tag.into()),
        name: name(&format!("slice-{tag}")),
        tag,
        class: Class::Guaranteed,
        rate_bps,
        burst_ms: 10,
        members,
        border: None,
        cables: names
            .windows(2)
            .map(|pair| [name(pair[0]), name(pair[1])])
            .collect(),
        access: None,
    }
}

/// Waits until all of these slices are programmed; how long it took.
pub(crate) async fn programmed(fabric: &OpenFlow, slices: &[&Intent]) -> Duration {
    let began = Instant::now();
    loop {
        let open = slices.iter().find_map(|slice| {
            let why = fabric.programmed(slice.slice).err()?;
            Some(format!("{}: {why}", slice.name))
        });
        let Some(open) = open else {
            return began.elapsed();
        };
        assert!(began.elapsed() < LONG, "not within {LONG:?}: {open}");
        // a notice may have gone to somebody else
        let _ = tokio::time::timeout(Duration::from_millis(200), fabric.changed()).await;
    }
}
/// Asks until it is so.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LONG, "not within {LONG:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
/// What happened, without the switches' coming.
pub(crate) fn happened(fabric: &OpenFlow) -> Vec<(&'static str, String)> {
    let all = fabric.happened().into_iter();
    all.filter(|(what, ..)| *what != "switch.connected")
        .map(|(what, _, detail)| (what, detail))
        .collect()
}
