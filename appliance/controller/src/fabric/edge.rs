//! The fabric whose hosts enforce: every sender paces itself, and says to what.

use super::{Border, Fabric, Verdict};
use crate::topology::Graph;
use dtn_api::{
    HostId, Problem,
    host::{Enforcement, Host, HostKind},
    problem::Kind,
    slice::{Class, Member, Mode, Slice, SliceSpec},
};
use std::{collections::BTreeMap, sync::RwLock};

/// The one switch that this fabric sees.
pub const SITE_SWITCH: &str = "site-switch";

/// The fabric whose hosts enforce: one switch, every declared NIC a port, every border link a port.
#[derive(Debug)]
pub struct Edge {
    borders: RwLock<Vec<Border>>,
}

impl Edge {
    /// With these border links.
    pub fn new(borders: Vec<Border>) -> Self {
        Self {
            borders: RwLock::new(borders),
        }
    }
}

pub(super) fn nic_node(id: &HostId) -> String {
    let id = id.as_str();
    format!("nic-{}", id.strip_suffix("-none").unwrap_or(id))
}

impl Fabric for Edge {
    fn name(&self) -> &'static str {
        "edge"
    }
    fn topology(&self, hosts: &BTreeMap<HostId, Host>) -> Graph {
        let mut graph = Graph::default();
        for host in hosts.values().filter(|h| h.spec.kind == HostKind::Nic) {
            let node = nic_node(&host.id);
            graph.join(&node, SITE_SWITCH, host.spec.capacity_bps, host.spec.mtu);
            graph.leaf(&node);
        }
        let borders = self.borders.read().unwrap_or_else(|e| e.into_inner());
        for border in borders.iter() {
            graph.join(
                border.name.as_str(),
                SITE_SWITCH,
                border.capacity_bps,
                border.mtu,
            );
            graph.leaf(border.name.as_str());
        }
        graph
    }
    fn reborder(&self, borders: &[Border]) -> bool {
        *self.borders.write().unwrap_or_else(|e| e.into_inner()) = borders.to_vec();
        true
    }
    fn node(&self, member: &Member) -> Option<String> {
        match (&member.host, &member.border_link) {
            (Some(host), None) => Some(nic_node(host)),
            (None, Some(border)) => Some(border.to_string()),
            _ => None,
        }
    }
    fn refuses(&self, spec: &SliceSpec, _: &BTreeMap<HostId, Host>) -> Option<Problem> {
        (spec.qos.mode == Mode::Aggregate).then(|| {
            Problem::new(
                Kind::UnenforceableQos,
                "the hosts pace each sender for itself, so a total over several senders cannot be \
                 kept: ask for mode pair or hose",
            )
            .at("/qos/mode", "aggregate is not enforced by the fabric edge")
        })
    }
    fn verify(
        &self,
        slice: &Slice,
        hosts: &BTreeMap<HostId, Host>,
        reports: &BTreeMap<HostId, Enforcement>,
    ) -> Verdict {
        let best_effort = slice.spec.qos.class == Class::BestEffort;
        let members = slice.spec.members.iter().filter_map(|m| m.host.as_ref());
        // a pod must be paced; a NIC only once a node has said that something on it sends
        let senders: Vec<&HostId> = members
            .filter(|id| {
                let pod = hosts.get(*id).is_some_and(|h| h.spec.kind == HostKind::Pod);
                pod || reports.contains_key(*id)
            })
            .collect();
        let unpaced = senders.iter().find_map(|id| match reports.get(*id) {
            None => Some(format!("no node has reported how {id} is paced")),
            Some(_) if best_effort => None,
            Some(report) if report.rate_bps == 0 => {
                Some(format!("{id} is not paced ({})", report.by))
            }
            Some(report) if report.rate_bps > slice.spec.qos.rate_bps => Some(format!(
                "{id} is paced to {} bit/s, above the slice's {} bit/s",
                report.rate_bps, slice.spec.qos.rate_bps
            )),
            Some(_) => None,
        });
        match (senders.is_empty(), unpaced) {
            (true, _) => Verdict {
                enforced: false,
                present: false,
                reason: "no pod is in the slice yet: there is nothing to pace".into(),
            },
            (false, Some(reason)) => Verdict {
                enforced: false,
                present: true,
                reason,
            },
            (false, None) => Verdict {
                enforced: true,
                present: true,
                reason: format!(
                    "{} sender(s) paced, read back from the kernel",
                    senders.len()
                ),
            },
        }
    }
    fn trouble(&self) -> Option<String> {
        None
    }
}
