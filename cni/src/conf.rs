//! The configuration of a network, as the runtime hands it over on standard input.

use crate::{
    env::Verb,
    error::{CniError, Code},
    spec::{self, AddResult},
};
use dtn_api::{IfName, MacAddress, Name, PciAddress, nic::NicClass};
use dtn_link::macvlan::Mode;
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// `ipam.type` that means vDHCP: the prepared file, or the supervisor.
pub const OWN_IPAM: &str = "vdn-ipam";

/// Where the plugins and the supervisor meet on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Records and queued releases; survives a reboot.
    pub state: PathBuf,
    /// Prepared files; gone with a reboot.
    pub run: PathBuf,
    /// The supervisor's socket.
    pub socket: PathBuf,
}

impl Places {
    /// Of a host with this root.
    pub fn below(root: &Path) -> Self {
        let at = |place: &str| root.join(place.trim_start_matches('/'));
        Self {
            state: at(dtn_api::STATE_DIR),
            run: at(dtn_api::RUN_DIR),
            socket: at(dtn_api::DTND_SOCKET),
        }
    }
    /// Folder of the records.
    pub fn attachments(&self) -> PathBuf {
        self.state.join("attachments")
    }
    /// Folder of the queued releases.
    pub fn releases(&self) -> PathBuf {
        self.state.join("releases")
    }
    /// Folder of the pinned sandboxes.
    pub fn pins(&self) -> PathBuf {
        self.run.join("netns")
    }
    /// Folder of the supervisor's book of claims.
    pub fn claims(&self) -> PathBuf {
        self.state.join("claims")
    }
    /// Folder of the prepared files.
    pub fn prepared(&self) -> PathBuf {
        self.run.join("prepared")
    }
}

/// The keys that mean something to us. The runtime's others are let through: other tools put
/// theirs in.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    cni_version: Option<String>,
    name: Option<String>,
    ipam: Option<RawIpam>,
    device: Option<String>,
    hwaddr: Option<String>,
    #[serde(rename = "pciBusID")]
    pci_bus_id: Option<String>,
    master: Option<String>,
    mode: Option<String>,
    mtu: Option<u32>,
    mac: Option<String>,
    slice: Option<String>,
    state_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    socket: Option<PathBuf>,
    kernelpath: Option<Value>,
    link_in_container: Option<Value>,
    runtime_config: Option<RawRuntime>,
    prev_result: Option<Value>,
    #[serde(
        rename = "cni.dev/valid-attachments",
        default,
        deserialize_with = "present"
    )]
    valid_attachments: Option<Value>,
}
#[derive(Debug, Clone, Default, Deserialize)]
struct RawIpam {
    #[serde(rename = "type")]
    kind: Option<String>,
}
#[derive(Debug, Clone, Default, Deserialize)]
struct RawRuntime {
    mac: Option<String>,
    #[serde(rename = "deviceID")]
    device_id: Option<String>,
}

/// `null` is something else than absent: a runtime with no attachments says `null`.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

/// Which NIC the network names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NicChoice {
    /// By its name.
    pub name: Option<IfName>,
    /// By its hardware address.
    pub mac: Option<MacAddress>,
    /// By its PCI address.
    pub pci: Option<PciAddress>,
}
impl NicChoice {
    /// Nothing was named.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Where addresses come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ipam {
    /// No `ipam`: a link without addresses, unless some were prepared.
    None,
    /// vDHCP, by what was prepared.
    Own,
    /// Another plugin of this name.
    Delegate(String),
}

/// An attachment that the runtime says is valid.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Valid {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Its interface.
    pub ifname: String,
}

/// A configuration that can be acted on.
#[derive(Debug, Clone)]
pub struct Conf {
    /// `cniVersion`, one that we speak.
    pub version: String,
    /// `name`.
    pub name: String,
    /// What the plugin's binary attaches.
    pub class: NicClass,
    /// Which NIC.
    pub nic: NicChoice,
    /// macvlan mode.
    pub mode: Mode,
    /// Wished MTU.
    pub mtu: Option<u32>,
    /// Wished hardware address.
    pub mac: Option<MacAddress>,
    /// The hardware address that the runtime wishes, over any other.
    pub runtime_mac: Option<MacAddress>,
    /// Wished slice.
    pub slice: Option<Name>,
    /// Where addresses come from.
    pub ipam: Ipam,
    /// Where to meet the supervisor.
    pub places: Places,
    /// The cluster's own network, where this one is attached behind it.
    pub behind: Option<String>,
    /// Result of the ADD, or of the plugins before.
    pub previous: Option<AddResult>,
    /// `cni.dev/valid-attachments`: absent, or a list (`null` is the empty one).
    pub valid: Option<Vec<Valid>>,
    /// All of it, for a delegate.
    pub whole: Value,
}

impl Conf {
    /// Reads a configuration, in the order of checks that runtimes rely on: JSON, name, version,
    /// and then all faults of the rest at once. DEL needs the name and the places alone: a
    /// configuration that was spoilt after the ADD must not keep a pod from ending.
    pub fn parse(text: &[u8], class: NicClass, verb: Verb) -> Result<Self, CniError> {
        let decode = |e: serde_json::Error| {
            CniError::new(
                Code::Decode,
                "reading the network configuration",
                e.to_string(),
            )
        };
        let whole: Value = serde_json::from_slice(text).map_err(decode)?;
        let raw: Raw = serde_json::from_value(whole.clone()).map_err(decode)?;
        let name = raw.name.clone().unwrap_or_default();
        if !dtn_api::attachment::key_is_valid(&name) {
            let message = if name.is_empty() {
                "missing network name".to_owned()
            } else {
                format!("network name {name:?} must be letters, digits, '.', '_' and '-'")
            };
            return Err(CniError::new(Code::InvalidConfig, message, ""));
        }
        let version = raw
            .cni_version
            .clone()
            .unwrap_or_else(|| "0.1.0".to_owned());
        if !spec::VERSIONS.contains(&version.as_str()) {
            let spoken = spec::VERSIONS.join(" ");
            return Err(CniError::new(
                Code::IncompatibleVersion,
                "incompatible CNI versions",
                format!("config is {version:?}, plugin supports [{spoken}]"),
            ));
        }
        Self::validate(raw, name, version, class, verb, whole)
    }

    fn validate(
        raw: Raw,
        name: String,
        version: String,
        class: NicClass,
        verb: Verb,
        whole: Value,
    ) -> Result<Self, CniError> {
        let mut faults = Vec::new();
        let runtime = raw.runtime_config.unwrap_or_default();
        let device = if class == NicClass::Shared {
            &raw.master
        } else {
            &raw.device
        };
        // a NIC without a PCI address is told by its name
        let is_name = |id: &&str| id.parse::<PciAddress>().is_err() && id.parse::<IfName>().is_ok();
        let device_id = runtime.device_id.as_deref();
        let by_name = device_id.filter(is_name);
        let nic = NicChoice {
            name: parsed(
                by_name.or(device.as_deref()),
                "device or master",
                &mut faults,
            ),
            mac: parsed(raw.hwaddr.as_deref(), "hwaddr", &mut faults),
            pci: match by_name {
                Some(_) => None,
                None => parsed(
                    device_id.or(raw.pci_bus_id.as_deref()),
                    "pciBusID or deviceID",
                    &mut faults,
                ),
            },
        };
        let mac = parsed(raw.mac.as_deref(), "mac", &mut faults);
        let runtime_mac = parsed(runtime.mac.as_deref(), "runtimeConfig.mac", &mut faults);
        let is_set =
            |value: &Option<Value>| !matches!(value, None | Some(Value::Null | Value::Bool(false)));
        let unsupported = [
            (
                "kernelpath",
                &raw.kernelpath,
                "name the NIC by pciBusID or device",
            ),
            (
                "linkInContainer",
                &raw.link_in_container,
                "the NIC must be on the host",
            ),
        ];
        for (key, value, remedy) in unsupported {
            if let (Some(value), Verb::Add | Verb::Status, true) = (value, verb, is_set(value)) {
                let message = format!("unsupported field {key} with value {value}");
                return Err(CniError::new(Code::UnsupportedField, message, remedy));
            }
        }
        let mode = parsed(raw.mode.as_deref(), "mode", &mut faults).unwrap_or_default();
        let slice = parsed(raw.slice.as_deref(), "slice", &mut faults);
        // 68: the least that IPv4 allows (RFC 791)
        if raw
            .mtu
            .is_some_and(|mtu| mtu != 0 && !(68..=65_535).contains(&mtu))
        {
            faults.push("mtu: must be 68 to 65535 bytes".to_owned());
        }
        let ipam = match raw.ipam.map(|ipam| ipam.kind.unwrap_or_default()) {
            None => Ipam::None,
            Some(kind) if kind == OWN_IPAM => Ipam::Own,
            Some(kind) if kind.is_empty() || kind.contains('/') => {
                faults.push(format!("ipam.type {kind:?}: write the name of a plugin"));
                Ipam::None
            }
            Some(kind) => Ipam::Delegate(kind),
        };
        let previous = match raw.prev_result.as_ref().map(AddResult::parse) {
            Some(Err(e)) => {
                faults.push(format!("prevResult: {e}"));
                None
            }
            Some(Ok(result)) => Some(result),
            None => None,
        };
        let valid = match raw.valid_attachments {
            None => None,
            Some(Value::Null) => Some(Vec::new()),
            Some(list) => match serde_json::from_value(list) {
                Ok(list) => Some(list),
                Err(e) => {
                    faults.push(format!("cni.dev/valid-attachments: {e}"));
                    None
                }
            },
        };
        if verb == Verb::Del {
            for fault in faults.drain(..) {
                tracing::warn!("{fault}");
            }
        }
        if !faults.is_empty() {
            let message = format!("network configuration {name:?} is not valid");
            return Err(CniError::new(
                Code::InvalidConfig,
                message,
                faults.join("; "),
            ));
        }
        let usual = Places::below(Path::new("/"));
        let places = Places {
            state: raw.state_dir.unwrap_or(usual.state),
            run: raw.run_dir.unwrap_or(usual.run),
            socket: raw.socket.unwrap_or(usual.socket),
        };
        Ok(Self {
            version,
            name,
            class,
            nic,
            mode,
            mtu: raw.mtu.filter(|mtu| *mtu != 0),
            mac,
            runtime_mac,
            slice,
            ipam,
            places,
            behind: None,
            previous,
            valid,
            whole,
        })
    }
}

fn parsed<T: std::str::FromStr>(
    text: Option<&str>,
    field: &str,
    faults: &mut Vec<String>,
) -> Option<T>
where
    T::Err: std::fmt::Display,
{
    match text.filter(|text| !text.is_empty())?.parse() {
        Ok(value) => Some(value),
        Err(e) => {
            faults.push(format!("{field}: {e}"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(json: &str) -> Result<Conf, CniError> {
        Conf::parse(json.as_bytes(), NicClass::Dedicated, Verb::Add)
    }

    #[test]
    fn checks_come_in_the_order_of_the_specification() {
        let code = |json: &str| parse(json).unwrap_err().code;
        assert_eq!(code("{"), Code::Decode);
        assert_eq!(code("[]"), Code::Decode);
        assert_eq!(code("{}"), Code::InvalidConfig);
        assert_eq!(code(r#"{"name":"../x"}"#), Code::InvalidConfig);
        assert_eq!(
            code(r#"{"name":"a","cniVersion":"9"}"#),
            Code::IncompatibleVersion
        );
        assert_eq!(parse(r#"{"name":"a"}"#).unwrap().version, "0.1.0");
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let json = r#"{"name":"a","cniVersion":"1.1.0","device":"a/b","mac":"x","mtu":5,
            "ipam":{"type":"a/b"},"mode":"x"}"#;
        let details = parse(json).unwrap_err().details;
        for field in ["device", "mac", "mtu", "ipam.type", "mode"] {
            assert!(details.contains(field), "{field} is not in {details}");
        }
    }

    #[test]
    fn no_valid_attachments_is_not_the_same_as_none_given() {
        let valid = |json: &str| parse(json).unwrap().valid;
        assert_eq!(valid(r#"{"name":"a"}"#), None);
        assert_eq!(
            valid(r#"{"name":"a","cni.dev/valid-attachments":null}"#),
            Some(vec![])
        );
        assert_eq!(
            valid(r#"{"name":"a","cni.dev/valid-attachments":[]}"#),
            Some(vec![])
        );
        let one =
            valid(r#"{"name":"a","cni.dev/valid-attachments":[{"containerID":"c","ifname":"i"}]}"#);
        assert_eq!(one.unwrap()[0].container_id, "c");
    }

    #[test]
    fn a_device_id_of_the_runtime_wins() {
        let conf = parse(
            r#"{"name":"a","pciBusID":"0000:01:00.0","runtimeConfig":{"deviceID":"0000:02:00.0"}}"#,
        );
        assert_eq!(conf.unwrap().nic.pci.unwrap().as_str(), "0000:02:00.0");
        let named = parse(r#"{"name":"a","device":"ens1","runtimeConfig":{"deviceID":"ens2"}}"#);
        let nic = named.unwrap().nic;
        assert_eq!((nic.name.unwrap().as_str(), nic.pci), ("ens2", None));
        assert!(parse(r#"{"name":"a","runtimeConfig":{"deviceID":"a/b"}}"#).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let _ = parse(&text);
        }
        #[test]
        fn no_json_makes_it_panic(key in "[a-zA-Z./-]{1,20}", value in ".{0,20}", number: i64) {
            let json = serde_json::json!({"name": "a", "cniVersion": "1.1.0", key: value,
                "mtu": number, "prevResult": {"ips": number}});
            let _ = parse(&json.to_string());
        }
    }
}
