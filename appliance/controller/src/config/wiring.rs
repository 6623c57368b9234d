//! `[fabric]`, `[[switch]]`, `[[cable]]` and `[[port]]`: which switches enforce slices, and how the
//! site wired them.

use super::fields;
use crate::{
    auth,
    fabric::{
        Border,
        network::{Cable, Network, Place, Switch},
        program::Neighbours,
    },
};
use dtn_api::{IfName, Name, Rate, layered::Reader};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
};

/// What enforces slices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FabricConfig {
    /// The hosts.
    Edge,
    /// Switches that this controller programs.
    OpenFlow {
        /// Where they connect.
        listen: SocketAddr,
        /// TCP without TLS.
        plain: bool,
        /// Who answers a member that asks for a neighbour.
        neighbours: Neighbours,
        /// Whether hosts that speak DHCP get their addresses from here.
        dhcp: bool,
        /// The switches and their wiring.
        network: Network,
    },
    /// Switches that an ONOS programs for this controller.
    Onos {
        /// `http://HOST:8181`.
        url: String,
        /// File with `USER:PASSWORD`.
        credentials_file: PathBuf,
        /// Name of the application that the rules belong to in ONOS.
        app_id: String,
        /// Whether the password may cross a network without TLS.
        plain: bool,
        /// Authority of ONOS's certificate, for https.
        ca_file: Option<PathBuf>,
        /// The switches and their wiring.
        network: Network,
    },
}

/// The application's name in ONOS when none is given.
const APP_ID: &str = "org.dtn.vdn";

/// Reads the fabric and its wiring. Borders are read before.
pub(super) fn read(reader: &mut Reader<'_>, borders: &[Border]) -> Option<FabricConfig> {
    reader.known("fabric", &fields("fabric"));
    let kind = reader.text("fabric.kind").unwrap_or_else(|| "edge".into());
    match kind.as_str() {
        "edge" => {
            nothing_handed(reader, "no switch hands anything to this controller");
            for table in ["switch", "cable", "port"] {
                if reader.tables(table) > 0 {
                    let why = "is not used by the fabric edge: write kind = \"openflow\" or \"onos\" below [fabric], or take it away";
                    reader.warning(table, why.into());
                }
            }
            Some(FabricConfig::Edge)
        }
        "openflow" => openflow(reader, borders),
        "onos" => onos(reader, borders),
        other => {
            reader.error(
                "fabric.kind",
                format!("{other:?} is no fabric of this build: write edge, openflow or onos"),
            );
            None
        }
    }
}

fn openflow(reader: &mut Reader<'_>, borders: &[Border]) -> Option<FabricConfig> {
    let listen = reader.parse::<SocketAddr>("fabric.listen");
    reader.missing(
        "fabric.listen",
        "write ADDRESS:PORT where switches connect, as \"192.0.2.10:6653\"",
    );
    let plain = reader.flag("fabric.plain").unwrap_or(false);
    let neighbours = neighbours(reader);
    let dhcp = reader.flag("fabric.dhcp").unwrap_or(false);
    let network = network(reader, borders);
    Some(FabricConfig::OpenFlow {
        listen: listen?,
        plain,
        neighbours,
        dhcp,
        network,
    })
}

fn neighbours(reader: &mut Reader<'_>) -> Neighbours {
    let text = reader.text("fabric.neighbours");
    match text.as_deref() {
        None | Some("flood") => Neighbours::Flood,
        Some("proxy") => Neighbours::Proxy,
        Some(other) => {
            let why = format!("{other:?} is no way to find neighbours: write flood or proxy");
            reader.error("fabric.neighbours", why);
            Neighbours::Flood
        }
    }
}
/// For a fabric whose switches hand no frames to this controller.
fn nothing_handed(reader: &mut Reader<'_>, why: &str) {
    if reader.flag("fabric.dhcp") == Some(true) {
        let why = format!(
            "is for the fabric openflow alone: {why}; take it away, and give addresses over REST or \
             by hand"
        );
        reader.error("fabric.dhcp", why);
    }
    if neighbours(reader) == Neighbours::Proxy {
        let why = format!("\"proxy\" is for the fabric openflow alone: {why}; write flood");
        reader.error("fabric.neighbours", why);
    }
}

fn onos(reader: &mut Reader<'_>, borders: &[Border]) -> Option<FabricConfig> {
    nothing_handed(
        reader,
        "what an ONOS is handed does not come to this controller",
    );
    let url = reader.text("fabric.url");
    reader.missing(
        "fabric.url",
        "write where ONOS serves REST, as \"http://127.0.0.1:8181\"",
    );
    let credentials = reader.text("fabric.credentials-file").map(PathBuf::from);
    reader.missing(
        "fabric.credentials-file",
        "name a file of mode 0600 with one line USER:PASSWORD",
    );
    let ca_file = reader.text("fabric.ca-file").map(PathBuf::from);
    for (field, file) in [
        ("fabric.credentials-file", &credentials),
        ("fabric.ca-file", &ca_file),
    ] {
        // an authority is no secret: the service manager keeps none of them
        let secret = field == "fabric.credentials-file";
        let named = |file: &PathBuf| match secret {
            true => super::names_a_secret(file),
            false => file.is_absolute(),
        };
        if file.as_ref().is_some_and(|file| !named(file)) {
            reader.error(field, "must be an absolute path".into());
        }
    }
    let app_id = reader
        .text("fabric.app-id")
        .unwrap_or_else(|| APP_ID.into());
    let plain = reader.flag("fabric.plain").unwrap_or(false);
    for n in 0..reader.tables("switch") {
        let path = format!("switch[{n}].tables");
        if reader.integer(&path) == Some(1) {
            let why = "the fabric onos needs three tables: take this away, and have switches of one \
                       table on a fabric of kind openflow";
            reader.error(&path, why.into());
        }
    }
    let network = network(reader, borders);
    Some(FabricConfig::Onos {
        url: url?,
        credentials_file: credentials?,
        app_id,
        plain,
        ca_file,
        network,
    })
}

/// The switches and their wiring.
fn network(reader: &mut Reader<'_>, borders: &[Border]) -> Network {
    let switches = (0..reader.tables("switch"))
        .filter_map(|n| switch(reader, n, borders))
        .collect::<Vec<_>>();
    if reader.tables("switch") == 0 {
        let why = "this fabric needs the switches that it is made of: add [[switch]] tables";
        reader.error("switch", why.into());
    }
    for (n, one) in switches.iter().enumerate() {
        for other in &switches[..n] {
            if one.name == other.name {
                let why = format!("{} is named twice", one.name);
                reader.error(&format!("switch[{n}].name"), why);
            }
            if one.datapath_id == other.datapath_id {
                let why = format!("is {}'s already", other.name);
                reader.error(&format!("switch[{n}].datapath-id"), why);
            }
        }
    }
    let mut wiring = Wiring {
        switches: switches.iter().map(|s| s.name.clone()).collect(),
        used: BTreeMap::new(),
    };
    let cables = cables(reader, &mut wiring);
    let ports = ports(reader, &mut wiring);
    for (n, border) in borders.iter().enumerate() {
        let path = format!("border[{n}].at");
        match &border.at {
            None => reader.missing(&path, "write the port of the fabric that it starts at"),
            Some(place) => wiring.take(reader, &path, place),
        }
    }
    Network {
        switches,
        cables,
        ports,
        borders: borders.to_vec(),
    }
}

/// Which ports are spoken for.
struct Wiring {
    switches: BTreeSet<Name>,
    used: BTreeMap<Place, String>,
}
impl Wiring {
    fn take(&mut self, reader: &mut Reader<'_>, path: &str, place: &Place) {
        if !self.switches.contains(&place.switch) {
            let why = format!("{}: there is no [[switch]] of this name", place.switch);
            reader.error(path, why);
        }
        if let Some(other) = self.used.insert(place.clone(), path.to_owned()) {
            reader.error(path, format!("port {place} is used by {other} already"));
        }
    }
}

fn switch(reader: &mut Reader<'_>, n: usize, borders: &[Border]) -> Option<Switch> {
    let at = |field: &str| format!("switch[{n}].{field}");
    reader.known(&format!("switch[{n}]"), &fields("switch"));
    let name = reader.parse::<Name>(&at("name"));
    reader.missing(&at("name"), "name the switch, as \"edge1\"");
    if name.as_ref().is_some_and(auth::reserved_name) {
        reader.error(
            &at("name"),
            "stands for something else: choose another".into(),
        );
    }
    if borders
        .iter()
        .any(|border| Some(&border.name) == name.as_ref())
    {
        reader.error(
            &at("name"),
            "is a border link's name: choose another".into(),
        );
    }
    let text = reader.text(&at("datapath-id"));
    reader.missing(
        &at("datapath-id"),
        "write the switch's datapath id in 16 hexadecimal digits, as \"0000000000000001\"",
    );
    let datapath_id = text.and_then(|text| {
        let digits = text.replace(':', "");
        let found = (digits.len() == 16)
            .then(|| u64::from_str_radix(&digits, 16).ok())
            .flatten();
        if found.is_none() {
            let why = format!("{text:?} is no datapath id: write its 16 hexadecimal digits");
            reader.error(&at("datapath-id"), why);
        }
        found
    });
    let tables = reader.integer(&at("tables")).unwrap_or(3);
    if !matches!(tables, 1 | 3) {
        let why = format!(
            "is {tables}: write 3, or 1 for a switch in which everything has to be in one table"
        );
        reader.error(&at("tables"), why);
    }
    Some(Switch {
        name: name?,
        datapath_id: datapath_id?,
        single_table: tables == 1,
    })
}

fn cables(reader: &mut Reader<'_>, wiring: &mut Wiring) -> Vec<Cable> {
    let mut cables: Vec<Cable> = Vec::new();
    for n in 0..reader.tables("cable") {
        let at = |field: &str| format!("cable[{n}].{field}");
        reader.known(&format!("cable[{n}]"), &fields("cable"));
        let text = reader.text(&at("ends"));
        reader.missing(&at("ends"), "write its two ends, as \"edge1/2 core/1\"");
        let ends = text.and_then(|text| ends(reader, &at("ends"), &text));
        let capacity = reader.parse::<Rate>(&at("capacity"));
        reader.missing(&at("capacity"), "write what it carries, as \"100Gbit\"");
        if capacity.is_some_and(|rate| rate.bps() == 0) {
            reader.error(&at("capacity"), "must be above 0bit".into());
        }
        let mtu = super::mtu(reader, &at("mtu"));
        for end in ends.iter().flatten() {
            wiring.take(reader, &at("ends"), end);
        }
        let (Some(ends), Some(capacity), Some(mtu)) = (ends, capacity, mtu) else {
            continue;
        };
        let [a, b] = [&ends[0].switch, &ends[1].switch];
        let same = |cable: &Cable| {
            let [c, d] = [&cable.ends[0].switch, &cable.ends[1].switch];
            (a, b) == (c, d) || (a, b) == (d, c)
        };
        if a == b {
            reader.error(&at("ends"), format!("both are on {a}"));
        } else if cables.iter().any(same) {
            let why = format!(
                "{a} and {b} are joined already: bundle cables into one port (LAG), or leave one out"
            );
            reader.error(&at("ends"), why);
        }
        cables.push(Cable {
            ends,
            capacity_bps: capacity.bps(),
            mtu,
        });
    }
    cables
}

fn ends(reader: &mut Reader<'_>, path: &str, text: &str) -> Option<[Place; 2]> {
    let mut found = Vec::new();
    for word in text.split_whitespace() {
        match word.parse::<Place>() {
            Ok(place) => found.push(place),
            Err(why) => reader.error(path, why),
        }
    }
    let count = found.len();
    let both = <[Place; 2]>::try_from(found).ok();
    if both.is_none() && count == text.split_whitespace().count() {
        let why = format!("has {count} ends: write two, as \"edge1/2 core/1\"");
        reader.error(path, why);
    }
    both
}

fn ports(reader: &mut Reader<'_>, wiring: &mut Wiring) -> BTreeMap<String, Place> {
    let mut ports = BTreeMap::new();
    for n in 0..reader.tables("port") {
        let at = |field: &str| format!("port[{n}].{field}");
        reader.known(&format!("port[{n}]"), &fields("port"));
        let nic = reader.text(&at("nic"));
        reader.missing(&at("nic"), "name the NIC, as \"dtn1/data0\"");
        let place = reader.parse::<Place>(&at("at"));
        reader.missing(
            &at("at"),
            "write the port that it is plugged into, as \"edge1/3\"",
        );
        let (Some(nic), Some(place)) = (nic, place) else {
            continue;
        };
        let named = nic.split_once('/').is_some_and(|(node, nic)| {
            node.parse::<Name>().is_ok() && nic.parse::<IfName>().is_ok()
        });
        if !named {
            let why = format!("{nic:?} is no NIC of a node: write NODE/NIC, as \"dtn1/data0\"");
            reader.error(&at("nic"), why);
        }
        wiring.take(reader, &at("at"), &place);
        if ports.insert(nic.clone(), place).is_some() {
            reader.error(&at("nic"), format!("{nic} is plugged in twice"));
        }
    }
    ports
}

#[cfg(test)]
mod tests;
