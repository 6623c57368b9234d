//! What enforces slices in the network. A fabric is told the whole of what is wanted, again and
//! again, and makes it so in its own time; what it says of a slice it has read back.
//!
//! * [`edge`]: the hosts pace themselves; the switches are not touched.
//! * [`network`]: switches, cables and ports as the site wired them.
//! * [`onos`]: switches that an ONOS programs for us.
//! * [`openflow`]: switches that are programmed from here.
//! * [`program`]: what every switch shall hold for the slices that live.
//! * [`difference`]: what a switch has, held against that.

pub mod difference;
pub mod edge;
pub mod network;
pub mod onos;
pub mod openflow;
pub mod program;
mod watch;

use crate::{dhcp, labels::Labels, topology::Graph};
pub use dtn_api::fabric::{Counters, Difference};
use dtn_api::{
    HostId, MacAddress, Name, Problem,
    fabric::{FabricLink, SwitchStatus},
    gateway::{AccessRule, Count},
    host::{Enforcement, Host},
    slice::{Class, Member, Slice, SliceSpec},
};
use futures_util::future::BoxFuture;
use ipnet::IpNet;
use network::Place;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use uuid::Uuid;

/// What the fabric says of a slice, with its ground.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether what was promised is enforced.
    pub enforced: bool,
    /// Whether something is there to be enforced.
    pub present: bool,
    /// In words.
    pub reason: String,
}

/// A border link of this domain, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Border {
    /// Its name here.
    pub name: Name,
    /// The domain at its other end.
    pub peer_domain: Name,
    /// Its name there.
    pub peer_ref: Name,
    /// Bits per second of frames.
    pub capacity_bps: u64,
    /// One-way latency in microseconds.
    pub latency_us: u64,
    /// MTU in bytes.
    pub mtu: u32,
    /// VLANs that slices may have on it.
    pub labels: Labels,
    /// Where it enters the fabric; `edge` has no ports.
    pub at: Option<Place>,
}

/// What a slice needs of the network now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The slice.
    pub slice: Uuid,
    /// Its name.
    pub name: Name,
    /// 1 to 4094, unique among the slices that live: the metadata of its packets, and its VLAN on
    /// the domain's own cables.
    pub tag: u16,
    /// What is promised.
    pub class: Class,
    /// Bits per second of frames, per member.
    pub rate_bps: u64,
    /// Burst of the guard, milliseconds of the rate.
    pub burst_ms: u32,
    /// The interfaces that are there now.
    pub members: Vec<Attached>,
    /// Where it leaves the domain.
    pub border: Option<BorderEnd>,
    /// The cables of its tree, each as the two switches that it joins, the lower name first.
    pub cables: BTreeSet<[Name; 2]>,
    /// Who may pass its gateway, where it has one that is there.
    pub access: Option<Access>,
}

/// Who may pass the gateway of a slice (vNAC). What no rule allows is dropped, both ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The gateway's hardware address in the slice; it is one of the members.
    pub gateway: MacAddress,
    /// The slice's subnets: nothing from outside may claim to be from there.
    pub subnets: Vec<IpNet>,
    /// The rules that are for this slice and in force now, in their order.
    pub rules: Vec<AccessRule>,
}

/// A pod's interface in a slice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attached {
    /// Its hardware address.
    pub mac: MacAddress,
    /// The addresses that it was given.
    pub ips: Vec<IpAddr>,
    /// Where it enters the fabric.
    pub at: Place,
}

/// A slice's end at a border link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BorderEnd {
    /// The border link.
    pub link: Name,
    /// Where it enters the fabric.
    pub at: Place,
    /// VLAN of the slice on the link, agreed with the other domain.
    pub label: u16,
}

/// What a host has asked by DHCP.
pub struct Asked {
    /// The NIC whose port it came in by, as `node/nic`.
    pub nic: String,
    /// What it asks.
    pub question: dhcp::Question,
    /// Has a frame leave by that port, without waiting; one that cannot is lost, and the host asks
    /// again.
    pub answer: Box<dyn FnOnce(Vec<u8>) -> BoxFuture<'static, ()> + Send>,
}

/// What enforces slices. A fabric holds nothing that the store does not have.
pub trait Fabric: Send + Sync {
    /// Its name, for `/topology`.
    fn name(&self) -> &'static str;
    /// The graph that slices are booked on.
    fn topology(&self, hosts: &BTreeMap<HostId, Host>) -> Graph;
    /// The node of a member in that graph.
    fn node(&self, member: &Member) -> Option<String>;
    /// Why this quality of service cannot be enforced here; empty when it can.
    fn refuses(&self, spec: &SliceSpec, hosts: &BTreeMap<HostId, Host>) -> Option<Problem>;
    /// Why this access rule cannot be had here; empty when it can.
    fn refuses_rule(&self, _rule: &AccessRule) -> Option<String> {
        None
    }
    /// Whether a slice is enforced, from what was read back.
    fn verify(
        &self,
        slice: &Slice,
        hosts: &BTreeMap<HostId, Host>,
        reports: &BTreeMap<HostId, Enforcement>,
    ) -> Verdict;
    /// What the fabric needs and does not have; empty when it is well.
    fn trouble(&self) -> Option<String>;
    /// Takes what may change of the border links while slices are on them (capacity, latency,
    /// labels); whether it could.
    fn reborder(&self, _borders: &[Border]) -> bool {
        false
    }
    /// The switches and their wiring, where slices are programmed into them.
    fn network(&self) -> Option<&network::Network> {
        None
    }
    /// How the switches stand.
    fn switches(&self) -> Vec<SwitchStatus> {
        Vec::new()
    }
    /// SHA-256 (hexadecimal) of the certificate that each switch came with last; `None` where switches
    /// do not come with certificates of the domain.
    fn proofs(&self) -> Option<BTreeMap<Name, String>> {
        None
    }
    /// How the switches are joined, as they see it, and the cables of the configuration.
    fn links(&self) -> Vec<FabricLink> {
        Vec::new()
    }
    /// The whole of what is wanted now; the fabric makes it so.
    fn intend(&self, _intents: Vec<Intent>) {}
    /// Waits until what [`Fabric::verify`] says may have changed.
    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
    /// Waits for what a host asks by DHCP; for ever where nothing of that comes here.
    fn asked(&self) -> BoxFuture<'_, Asked> {
        Box::pin(std::future::pending())
    }
    /// What has happened since it was asked last: name, slice, in words.
    fn happened(&self) -> Vec<(&'static str, Option<Uuid>, String)> {
        Vec::new()
    }
    /// What the guards have counted, by slice.
    fn counters(&self) -> BTreeMap<Uuid, Counters> {
        BTreeMap::new()
    }
    /// What the access rules have decided about in the switches, by slice and the rule's number; 0 is
    /// what no rule allowed.
    fn decided(&self) -> BTreeMap<(Uuid, u16), Count> {
        BTreeMap::new()
    }
    /// Holds what is wanted against what the switches have, rule by rule.
    fn check(&self) -> BoxFuture<'_, Vec<Difference>> {
        Box::pin(std::future::ready(Vec::new()))
    }
}
