//! What ONOS has now: devices, rules, meters, hosts, links, applications.

use super::{
    client::{Client, Failure},
    rules::{Held, meter_id, number, read},
};
use crate::fabric::{
    network::{Network, PortRef},
    program::MeterSpec,
};
use dtn_api::{MacAddress, Name, fabric::Counters};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Applications of ONOS that would carry traffic around slices.
const BYPASSES: [&str; 2] = ["org.onosproject.fwd", "org.onosproject.ifwd"];
const PROXYARP: &str = "org.onosproject.proxyarp";

/// The device of a switch.
pub(super) fn device(datapath_id: u64) -> String {
    format!("of:{datapath_id:016x}")
}

/// A device of a switch of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) available: bool,
    pub(super) description: String,
    pub(super) ports: BTreeMap<String, u32>,
}

/// A meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meter {
    /// None where it is not of the kind that we make.
    pub(super) spec: Option<MeterSpec>,
    pub(super) added: bool,
    /// Rules of the switch that use it.
    pub(super) references: u64,
    pub(super) counters: Counters,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) mac: MacAddress,
    pub(super) vlan: String,
    pub(super) ips: BTreeSet<IpAddr>,
    pub(super) locations: BTreeSet<(String, String)>,
    pub(super) annotations: BTreeMap<String, String>,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// Those that ONOS knows.
    pub(super) devices: BTreeMap<Name, Device>,
    /// The application's.
    pub(super) flows: Vec<Held>,
    pub(super) meters: BTreeMap<(String, u32), Meter>,
    pub(super) hosts: Vec<Host>,
    /// Whether ONOS answers ARP itself.
    pub(super) proxyarp: bool,
    /// What is not as it should be, in words.
    pub(super) warnings: Vec<String>,
}

fn list<'a>(answer: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    answer
        .get(name)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}
fn text(value: &Value, name: &str) -> String {
    value
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}
fn count(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(number).unwrap_or_default()
}

/// Reads all that is needed.
pub(super) async fn survey(
    client: &Client,
    network: &Network,
    app: &str,
) -> Result<Survey, Failure> {
    let mut survey = Survey::default();
    let answer = client.get("/devices").await?;
    for switch in &network.switches {
        let id = device(switch.datapath_id);
        let Some(found) = list(&answer, "devices").find(|d| text(d, "id") == id) else {
            continue;
        };
        let ports = client.get(&format!("/devices/{id}/ports")).await?;
        survey
            .devices
            .insert(switch.name.clone(), read_device(found, &ports));
    }
    survey.flows = match client.get(&format!("/flows/application/{app}")).await {
        // an application is known from its first rule on
        Err(failure) if failure.status == Some(404) => Vec::new(),
        flows => read(&flows?),
    };
    survey.meters = read_meters(&client.get("/meters").await?);
    survey.hosts = read_hosts(&client.get("/hosts").await?);
    let active = active(&client.get("/applications").await?);
    survey.proxyarp = active.contains(PROXYARP);
    for name in BYPASSES.iter().filter(|name| active.contains(**name)) {
        survey.warnings.push(format!(
            "the application {name} is active in ONOS: it carries traffic around slices; \
             deactivate it"
        ));
    }
    survey.warnings.extend(wrong_cables(
        network,
        &client.get("/links").await?,
        &survey.devices,
    ));
    Ok(survey)
}

pub(super) fn read_device(device: &Value, ports: &Value) -> Device {
    let port = |port: &Value| {
        let number = port.get("port").and_then(number)?.try_into().ok()?;
        let name = port.get("annotations").map(|a| text(a, "portName"));
        // a port without a name is known by its number
        let name = name
            .filter(|n| !n.is_empty())
            .unwrap_or_else(|| format!("{number}"));
        Some((name, number))
    };
    Device {
        available: device.get("available") == Some(&Value::Bool(true)),
        description: ["mfr", "hw", "sw"]
            .map(|name| text(device, name))
            .join(" ")
            .trim()
            .to_owned(),
        ports: list(ports, "ports").filter_map(port).collect(),
    }
}

pub(super) fn read_meters(answer: &Value) -> BTreeMap<(String, u32), Meter> {
    let one = |meter: &Value| {
        let id = meter.get("id").and_then(meter_id)?;
        let state = text(meter, "state");
        // one that goes is as good as gone: its id may be another's next time
        if !matches!(state.as_str(), "PENDING_ADD" | "ADDED") {
            return None;
        }
        let bands: Vec<&Value> = list(meter, "bands").collect();
        let guard =
            text(meter, "unit") == "KB_PER_SEC" && meter.get("burst") == Some(&Value::Bool(true));
        let spec = match bands.as_slice() {
            [band] if guard && text(band, "type") == "DROP" => Some(MeterSpec {
                rate_kbit: count(band, "rate").try_into().ok()?,
                burst_kbit: count(band, "burstSize").try_into().ok()?,
            }),
            _ => None,
        };
        let all = |name: &str| bands.iter().map(|band| count(band, name)).sum();
        let meter = Meter {
            spec,
            added: state == "ADDED",
            references: count(meter, "referenceCount"),
            counters: Counters {
                packets: count(meter, "packets"),
                bytes: count(meter, "bytes"),
                dropped_packets: all("packets"),
                dropped_bytes: all("bytes"),
            },
        };
        Some((id, meter))
    };
    list(answer, "meters")
        .filter_map(|value| one(value).map(|(id, meter)| ((text(value, "deviceId"), id), meter)))
        .collect()
}

pub(super) fn read_hosts(answer: &Value) -> Vec<Host> {
    let one = |host: &Value| {
        let annotations = host.get("annotations").and_then(Value::as_object);
        Some(Host {
            mac: text(host, "mac").to_ascii_lowercase().parse().ok()?,
            vlan: text(host, "vlan"),
            ips: list(host, "ipAddresses")
                .filter_map(|ip| ip.as_str()?.parse().ok())
                .collect(),
            locations: list(host, "locations")
                .map(|l| (text(l, "elementId"), text(l, "port")))
                .collect(),
            annotations: annotations
                .into_iter()
                .flatten()
                .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                .collect(),
        })
    };
    list(answer, "hosts").filter_map(one).collect()
}

fn active(answer: &Value) -> BTreeSet<String> {
    let active = list(answer, "applications").filter(|app| text(app, "state") == "ACTIVE");
    active.map(|app| text(app, "name")).collect()
}

/// The configuration says what is wired how. Where ONOS has seen it otherwise, one of them is wrong.
fn wrong_cables(
    network: &Network,
    answer: &Value,
    devices: &BTreeMap<Name, Device>,
) -> Vec<String> {
    let end = |link: &Value, side: &str| {
        let end = link.get(side)?;
        let id = text(end, "device");
        let switch = network
            .switches
            .iter()
            .find(|s| device(s.datapath_id) == id)?;
        let port: u32 = end.get("port").and_then(number)?.try_into().ok()?;
        Some((switch.name.clone(), port))
    };
    let seen: BTreeSet<[(Name, u32); 2]> = list(answer, "links")
        .filter_map(|link| {
            let mut ends = [end(link, "src")?, end(link, "dst")?];
            ends.sort();
            Some(ends)
        })
        .collect();
    if seen.is_empty() {
        return Vec::new();
    }
    let wired: BTreeSet<[(Name, u32); 2]> = network
        .cables
        .iter()
        .filter_map(|cable| {
            let mut found = Vec::new();
            for place in &cable.ends {
                let number = match &place.port {
                    PortRef::Number(number) => *number,
                    PortRef::Name(name) => *devices.get(&place.switch)?.ports.get(name)?,
                };
                found.push((place.switch.clone(), number));
            }
            found.sort();
            found.try_into().ok()
        })
        .collect();
    let words = |ends: &[(Name, u32); 2]| {
        let [a, b] = ends;
        format!("{}/{} to {}/{}", a.0, a.1, b.0, b.1)
    };
    let unwired = seen.difference(&wired).map(|ends| {
        format!(
            "ONOS sees a link {} that is no cable of the configuration",
            words(ends)
        )
    });
    let unseen = wired.difference(&seen).map(|ends| {
        format!(
            "ONOS sees no link where the configuration has a cable, {}",
            words(ends)
        )
    });
    unwired.chain(unseen).collect()
}

#[cfg(test)]
#[path = "survey_tests.rs"]
mod tests;
