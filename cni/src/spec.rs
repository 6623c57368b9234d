//! Results of the CNI specification, 0.1.0 to 1.1.0: one shape inside, seven outside.

use dtn_api::MacAddress;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// The versions that are spoken, oldest first.
pub const VERSIONS: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];

/// Whether a version has a verb that came later than 0.1.0.
pub fn has_verb(version: &str, since: &str) -> bool {
    let place = |wanted: &str| VERSIONS.iter().position(|known| *known == wanted);
    place(version) >= place(since)
}

/// An interface of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    #[serde(default)]
    pub mac: Option<MacAddress>,
    /// MTU in bytes (1.1.0).
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Path of the sandbox; none on the host.
    #[serde(default)]
    pub sandbox: Option<String>,
    /// PCI address (1.1.0).
    #[serde(default, rename = "pciID")]
    pub pci_id: Option<String>,
}

/// An address of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// With the subnet's prefix length.
    pub address: IpNet,
    /// The way out.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// Which of the interfaces has it.
    #[serde(default)]
    pub interface: Option<usize>,
}

/// A route of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Next hop; the first gateway of the family when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// MTU of the route (1.1.0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Largest segment to offer (1.1.0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// Metric (1.1.0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// Table (1.1.0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
}

/// What an ADD came to, in the shape of 1.1.0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddResult {
    /// Interfaces.
    pub interfaces: Vec<Interface>,
    /// Addresses.
    pub ips: Vec<Address>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Name service, as it came.
    pub dns: Option<Value>,
}

impl AddResult {
    /// Reads a result of any version, by what is in it.
    pub fn parse(json: &Value) -> Result<Self, String> {
        let Some(object) = json.as_object() else {
            // libcni takes `null` for an empty result
            return if json.is_null() {
                Ok(Self::default())
            } else {
                Err("not an object".into())
            };
        };
        fn list<T: serde::de::DeserializeOwned>(
            object: &Map<String, Value>,
            field: &str,
        ) -> Result<Vec<T>, String> {
            match object.get(field) {
                None | Some(Value::Null) => Ok(Vec::new()),
                Some(value) => {
                    serde_json::from_value(value.clone()).map_err(|e| format!("{field}: {e}"))
                }
            }
        }
        let mut result = Self {
            interfaces: list(object, "interfaces")?,
            ips: list(object, "ips")?,
            routes: list(object, "routes")?,
            dns: object
                .get("dns")
                .filter(|dns| dns.as_object().is_some_and(|d| !d.is_empty()))
                .cloned(),
        };
        #[derive(Deserialize)]
        struct Old {
            ip: IpNet,
            #[serde(default)]
            gateway: Option<IpAddr>,
            #[serde(default)]
            routes: Vec<Route>,
        }
        for family in ["ip4", "ip6"] {
            let Some(value) = object.get(family).filter(|value| !value.is_null()) else {
                continue;
            };
            let old: Old =
                serde_json::from_value(value.clone()).map_err(|e| format!("{family}: {e}"))?;
            result.ips.push(Address {
                address: old.ip,
                gateway: old.gateway,
                interface: None,
            });
            result.routes.extend(old.routes);
        }
        Ok(result)
    }

    /// The result in the shape of this version.
    pub fn to_json(&self, version: &str) -> Result<Value, String> {
        let mut object = Map::new();
        object.insert("cniVersion".into(), json!(version));
        match version {
            "0.1.0" | "0.2.0" => self.old_shape(&mut object)?,
            _ => self.new_shape(&mut object, version),
        }
        Ok(Value::Object(object))
    }

    /// 0.1.0 and 0.2.0: at most one address of each family, and at least one of either.
    fn old_shape(&self, object: &mut Map<String, Value>) -> Result<(), String> {
        if self.ips.is_empty() {
            return Err("cannot convert: no valid IP addresses".into());
        }
        for (field, v4) in [("ip4", true), ("ip6", false)] {
            let of_family = |net: &IpNet| matches!(net, IpNet::V4(_)) == v4;
            let Some(ip) = self.ips.iter().find(|ip| of_family(&ip.address)) else {
                continue;
            };
            let routes: Vec<_> = self
                .routes
                .iter()
                .filter(|route| of_family(&route.dst))
                .map(|route| match route.gw {
                    Some(gw) => json!({"dst": route.dst, "gw": gw}),
                    None => json!({"dst": route.dst}),
                })
                .collect();
            let mut old = json!({"ip": ip.address});
            if let Some(gateway) = ip.gateway {
                old["gateway"] = json!(gateway);
            }
            if !routes.is_empty() {
                old["routes"] = json!(routes);
            }
            object.insert(field.into(), old);
        }
        object.insert("dns".into(), self.dns.clone().unwrap_or_else(|| json!({})));
        Ok(())
    }

    fn new_shape(&self, object: &mut Map<String, Value>, version: &str) {
        let newest = version == "1.1.0";
        let family_is_told = !matches!(version, "1.0.0" | "1.1.0");
        let interfaces = self.interfaces.iter().map(|interface| {
            let mut shown = json!({"name": interface.name});
            if let Some(mac) = interface.mac {
                shown["mac"] = json!(mac);
            }
            if let Some(sandbox) = &interface.sandbox {
                shown["sandbox"] = json!(sandbox);
            }
            if let (true, Some(mtu)) = (newest, interface.mtu) {
                shown["mtu"] = json!(mtu);
            }
            if let (true, Some(pci)) = (newest, &interface.pci_id) {
                shown["pciID"] = json!(pci);
            }
            shown
        });
        let ips = self.ips.iter().map(|ip| {
            let mut shown = json!({"address": ip.address});
            if family_is_told {
                let v4 = matches!(ip.address, IpNet::V4(_));
                shown["version"] = json!(if v4 { "4" } else { "6" });
            }
            if let Some(gateway) = ip.gateway {
                shown["gateway"] = json!(gateway);
            }
            if let Some(interface) = ip.interface {
                shown["interface"] = json!(interface);
            }
            shown
        });
        let interfaces: Vec<_> = interfaces.collect();
        if !interfaces.is_empty() {
            object.insert("interfaces".into(), json!(interfaces));
        }
        let ips: Vec<_> = ips.collect();
        if !ips.is_empty() {
            object.insert("ips".into(), json!(ips));
        }
        if !self.routes.is_empty() {
            object.insert("routes".into(), json!(self.routes));
        }
        match &self.dns {
            Some(dns) => object.insert("dns".into(), dns.clone()),
            None if family_is_told => object.insert("dns".into(), json!({})),
            None => None,
        };
    }
}

/// The answer to VERSION.
pub fn version_json() -> String {
    json!({"cniVersion": "1.1.0", "supportedVersions": VERSIONS}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> AddResult {
        AddResult {
            interfaces: vec![Interface {
                name: "net1".into(),
                mac: Some("02:00:00:00:00:01".parse().unwrap()),
                mtu: Some(9000),
                sandbox: Some("/run/netns/x".into()),
                pci_id: None,
            }],
            ips: vec![
                Address {
                    address: "10.1.2.3/24".parse().unwrap(),
                    gateway: Some("10.1.2.1".parse().unwrap()),
                    interface: Some(0),
                },
                Address {
                    address: "fd00::3/64".parse().unwrap(),
                    gateway: None,
                    interface: Some(0),
                },
            ],
            routes: vec![],
            dns: None,
        }
    }

    #[test]
    fn each_version_has_its_own_shape() {
        let of = |version: &str| result().to_json(version).unwrap();
        assert_eq!(of("0.2.0")["ip4"]["ip"], "10.1.2.3/24");
        assert_eq!(of("0.2.0")["ip6"]["ip"], "fd00::3/64");
        assert_eq!(of("0.3.1")["ips"][1]["version"], "6");
        assert_eq!(of("0.4.0")["dns"], json!({}));
        assert!(of("0.4.0")["interfaces"][0].get("mtu").is_none());
        assert!(of("1.0.0")["ips"][0].get("version").is_none());
        assert!(of("1.0.0").get("dns").is_none());
        assert_eq!(of("1.1.0")["interfaces"][0]["mtu"], 9000);
        assert_eq!(of("1.1.0")["ips"][0]["interface"], 0);
        let bare = AddResult {
            ips: vec![],
            ..result()
        };
        assert!(bare.to_json("0.2.0").unwrap_err().contains("no valid IP"));
        assert!(bare.to_json("1.1.0").unwrap().get("ips").is_none());
    }

    #[test]
    fn what_is_printed_is_parsed() {
        for version in VERSIONS {
            let back = AddResult::parse(&result().to_json(version).unwrap()).unwrap();
            let nets = |r: &AddResult| r.ips.iter().map(|ip| ip.address).collect::<Vec<_>>();
            assert_eq!(nets(&back), nets(&result()), "{version}");
        }
        assert_eq!(
            AddResult::parse(&Value::Null).unwrap(),
            AddResult::default()
        );
        assert!(AddResult::parse(&json!([])).is_err());
        assert!(AddResult::parse(&json!({"ips": [{"address": "x"}]})).is_err());
    }

    #[test]
    fn verbs_came_with_versions() {
        assert!(has_verb("0.4.0", "0.4.0") && !has_verb("0.3.1", "0.4.0"));
        assert!(has_verb("1.1.0", "1.1.0") && !has_verb("1.0.0", "1.1.0"));
    }
}
