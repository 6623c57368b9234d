//! The doors that are knocked at, the rules that open them, and which are open under which rules.

use super::{SERVICES, trial::SLICE};
use crate::{options::Fabric, scenario};
use anyhow::Result;
use dtn_api::gateway::{AccessAction, AccessMatch, AccessRule, Direction, Protocol};
use std::net::{IpAddr, SocketAddr};

/// TCP port that the pod answers on.
pub(super) const SERVICE: u16 = 8443;
/// The ports outside that a rule allows, from one to another: all but the last that is answered on, so
/// that the range has an end that matters.
pub(super) const ALLOWED: (u16, u16) = (SERVICES[0], SERVICES[SERVICES.len() - 2]);
/// Number of the rule for what goes out.
pub(super) const OUT: u16 = 10;
/// And of the one for what comes in.
pub(super) const IN: u16 = 20;

/// Where a knock goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Door {
    /// Which way.
    pub(super) direction: Direction,
    /// Who knocks.
    pub(super) from: IpAddr,
    /// At whose.
    pub(super) to: SocketAddr,
}

/// Which rules there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Standing {
    /// The one for what goes out.
    pub(super) out: bool,
    /// The one for what comes in.
    pub(super) into: bool,
}

impl Standing {
    /// No rule at all.
    pub(super) const NONE: Self = Self {
        out: false,
        into: false,
    };
    /// Only what goes out.
    pub(super) const OUT: Self = Self {
        out: true,
        into: false,
    };
    /// Both.
    pub(super) const BOTH: Self = Self {
        out: true,
        into: true,
    };

    /// In words.
    pub(super) fn words(self) -> &'static str {
        match (self.out, self.into) {
            (false, false) => "no rule",
            (true, false) => "outbound allowed",
            (false, true) => "inbound allowed",
            (true, true) => "both ways allowed",
        }
    }
    /// Whether a knock is to be heard under these rules.
    pub(super) fn lets(self, door: &Door) -> bool {
        match door.direction {
            Direction::Outbound => self.out && (ALLOWED.0..=ALLOWED.1).contains(&door.to.port()),
            Direction::Inbound => self.into,
        }
    }
}

/// Ports from one to another as rules name them: as a range, or one by one where the fabric's switches
/// are told by a controller that has no word for a range.
pub(super) fn ports(fabric: Fabric, (first, last): (u16, u16)) -> Vec<String> {
    match fabric {
        Fabric::Edge | Fabric::Openflow => vec![format!("{first}-{last}")],
        Fabric::Onos => (first..=last).map(|port| port.to_string()).collect(),
    }
}

/// Allows TCP one way, to some ports.
pub(super) fn rule(number: u16, direction: Direction, ports: &[String]) -> Result<AccessRule> {
    let ports = ports
        .iter()
        .map(|range| range.parse().map_err(anyhow::Error::msg))
        .collect::<Result<_>>()?;
    Ok(AccessRule {
        priority: number,
        action: AccessAction::Allow,
        direction,
        slice: Some(scenario::name(SLICE)?),
        tenant: dtn_api::slice::default_tenant(),
        packets: AccessMatch {
            proto: Some(Protocol::Tcp),
            dst_ports: ports,
            ..AccessMatch::default()
        },
        // one of each kind
        stateful: direction == Direction::Inbound,
        schedule: None,
        log: false,
        note: String::new(),
    })
}

/// Every knock of a trial: from each address of the pod to each service outside, and back.
pub(super) fn doors(inside: &[IpAddr], outside: &[IpAddr]) -> Vec<Door> {
    let mut doors = Vec::new();
    for from in inside {
        for to in outside.iter().filter(|to| to.is_ipv6() == from.is_ipv6()) {
            doors.extend(SERVICES.iter().map(|port| Door {
                direction: Direction::Outbound,
                from: *from,
                to: SocketAddr::new(*to, *port),
            }));
            doors.push(Door {
                direction: Direction::Inbound,
                from: *to,
                to: SocketAddr::new(*from, SERVICE),
            });
        }
    }
    doors
}

#[cfg(test)]
mod tests;
