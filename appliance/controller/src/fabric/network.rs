//! Switches, cables and ports as the site wired them, and the graph that slices are booked on there.

use super::{Border, edge::nic_node};
use crate::topology::Graph;
use dtn_api::{
    HostId, Name,
    host::{Host, HostKind},
};
use serde::Serialize;
use std::{collections::BTreeMap, fmt, str::FromStr};

/// A port of a switch, by the name that the switch gives it or by its OpenFlow number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(untagged)]
pub enum PortRef {
    /// By name.
    Name(String),
    /// By number.
    Number(u32),
}
impl fmt::Display for PortRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// A port of the fabric, written `SWITCH/PORT`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// The switch.
    pub switch: Name,
    /// Its port.
    pub port: PortRef,
}
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.switch, self.port)
    }
}
/// Longest name of a port (OFP_MAX_PORT_NAME_LEN of 16 with its end, OpenFlow 1.3.5 §7.2.1).
const LONGEST_PORT: usize = 15;
/// First number that no physical port has (OFPP_MAX, OpenFlow 1.3.5 §7.2.1).
const PORT_MAX: u32 = 0xffff_ff00;
impl FromStr for Place {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no port of the fabric: write SWITCH/PORT, as edge1/port0 or edge1/3"
            )
        };
        let (switch, port) = text.split_once('/').ok_or_else(wrong)?;
        let switch = switch.parse().map_err(|_| wrong())?;
        let port = match port.parse::<u32>() {
            Ok(number) if (1..PORT_MAX).contains(&number) => PortRef::Number(number),
            Ok(number) => {
                return Err(format!(
                    "{text:?}: {number} is no port's number (1 to {})",
                    PORT_MAX - 1
                ));
            }
            Err(_)
                if (1..=LONGEST_PORT).contains(&port.len())
                    && port.bytes().all(|b| b.is_ascii_graphic() && b != b'/') =>
            {
                PortRef::Name(port.to_owned())
            }
            Err(_) => return Err(wrong()),
        };
        Ok(Self { switch, port })
    }
}

/// A switch that connects to this controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// Its name here.
    pub name: Name,
    /// Its datapath id.
    pub datapath_id: u64,
    /// It has one table, and everything is in there.
    pub single_table: bool,
}

/// A cable between two switches. There is at most one between any two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cable {
    /// Its two ends.
    pub ends: [Place; 2],
    /// Bits per second of frames.
    pub capacity_bps: u64,
    /// MTU in bytes.
    pub mtu: u32,
}

/// The fabric as it is wired.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// The switches.
    pub switches: Vec<Switch>,
    /// What joins them.
    pub cables: Vec<Cable>,
    /// Where NICs are, by `node/nic`.
    pub ports: BTreeMap<String, Place>,
    /// Links to other domains.
    pub borders: Vec<Border>,
}

impl Network {
    /// The port of `from` on the cable to `to`.
    pub fn towards(&self, from: &Name, to: &Name) -> Option<&Place> {
        self.cables.iter().find_map(|cable| match &cable.ends {
            [a, b] if a.switch == *from && b.switch == *to => Some(a),
            [a, b] if b.switch == *from && a.switch == *to => Some(b),
            _ => None,
        })
    }
    /// Where a NIC is.
    pub fn place(&self, host: &Host) -> Option<&Place> {
        self.ports
            .get(&format!("{}/{}", host.spec.node, host.spec.nic))
    }
    /// A switch by its name.
    pub fn switch(&self, name: &Name) -> Option<&Switch> {
        self.switches.iter().find(|switch| switch.name == *name)
    }
    /// The graph that slices are booked on: NICs whose port is not known are in it, joined to
    /// nothing, so that a slice to them is refused with that reason.
    pub fn graph(&self, hosts: &BTreeMap<HostId, Host>) -> Graph {
        let mut graph = Graph::default();
        for cable in &self.cables {
            let [a, b] = &cable.ends;
            graph.join(
                a.switch.as_str(),
                b.switch.as_str(),
                cable.capacity_bps,
                cable.mtu,
            );
        }
        for host in hosts.values().filter(|h| h.spec.kind == HostKind::Nic) {
            if let Some(place) = self.place(host) {
                let node = nic_node(&host.id);
                graph.join(
                    &node,
                    place.switch.as_str(),
                    host.spec.capacity_bps,
                    host.spec.mtu,
                );
                graph.leaf(&node);
            }
        }
        for border in &self.borders {
            if let Some(place) = &border.at {
                graph.join(
                    border.name.as_str(),
                    place.switch.as_str(),
                    border.capacity_bps,
                    border.mtu,
                );
                graph.leaf(border.name.as_str());
            }
        }
        graph
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        for text in ["edge1/port0", "edge1/3", "core/to-edge1"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "edge1",
            "edge1/",
            "/1",
            "edge1/0",
            "edge1/4294967040",
            "Edge/1",
            "a/b/c",
            "a/0123456789abcdef",
        ] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cable_has_a_port_at_either_end() {
        let cable = Cable {
            ends: ["edge1/2", "core/1"].map(|end| end.parse().unwrap()),
            capacity_bps: 1,
            mtu: 1500,
        };
        let network = Network {
            cables: vec![cable],
            ..Default::default()
        };
        let name = |text: &str| text.parse::<Name>().unwrap();
        let port = |from: &str, to: &str| {
            network
                .towards(&name(from), &name(to))
                .map(|p| p.to_string())
        };
        assert_eq!(port("edge1", "core"), Some("edge1/2".into()));
        assert_eq!(port("core", "edge1"), Some("core/1".into()));
        assert_eq!(port("edge1", "edge2"), None);
    }
}
