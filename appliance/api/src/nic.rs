//! A host's NICs as the appliance sees them: what each is, and whether it may be given to a pod.

use crate::{IfName, MacAddress, PciAddress, Rate};
use serde::{Deserialize, Serialize};

/// How a NIC is given to pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum NicClass {
    /// Moved whole into one pod (`vdn-host-device`).
    Dedicated,
    /// Stays on the host; pods get macvlan children (`vdn-macvlan`).
    Shared,
}
impl std::fmt::Display for NicClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Dedicated => "dedicated",
            Self::Shared => "shared",
        })
    }
}
impl std::str::FromStr for NicClass {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "dedicated" => Ok(Self::Dedicated),
            "shared" => Ok(Self::Shared),
            _ => Err(format!(
                "NIC class {text:?} is not known: write dedicated or shared"
            )),
        }
    }
}

/// What tells one NIC from another, whatever a pod did to its name (names and aliases can be
/// changed in a pod; these cannot).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicIdentity {
    /// Where it sits, for hardware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci: Option<PciAddress>,
    /// The address burnt in, where the driver tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permanent_mac: Option<MacAddress>,
    /// Without hardware (veth): the inode of the namespace it was found in…
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns_inode: Option<u64>,
    /// …and its index there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ifindex: Option<u32>,
}

/// One NIC of the inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Its name on the host now.
    pub name: IfName,
    /// What it is, whatever its name.
    pub identity: NicIdentity,
    /// Its current hardware address.
    pub mac: MacAddress,
    /// How the site gave it; `None` where the site did not give it.
    pub class: Option<NicClass>,
    /// `true` when it is switched on (`IFF_UP`); one that is off has no carrier either.
    #[serde(default = "on")]
    pub up: bool,
    /// `true` when the link has a carrier.
    pub carrier: bool,
    /// Speed as trained, or as the site's configuration states it where the driver tells none.
    pub speed: Option<Rate>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Driver, or the kind of a virtual link (`veth`).
    pub driver: Option<String>,
    /// NUMA node, on machines that have several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
    /// Keys of the attachments that hold it.
    #[serde(default)]
    pub used_by: Vec<String>,
    /// Why it may not be taken, each reason with its remedy; empty when it may.
    #[serde(default)]
    pub guarded: Vec<String>,
}
impl Nic {
    /// Why nothing can pass over it, with the remedy; `None` where it has a carrier.
    pub fn dark(&self) -> Option<String> {
        match (self.carrier, self.up) {
            (true, _) => None,
            (false, true) => Some("no carrier: check the cable".into()),
            (false, false)
                if self.class == Some(NicClass::Dedicated) && !self.used_by.is_empty() =>
            {
                Some("switched off in its sandbox".into())
            }
            (false, false) => Some(format!("switched off: ip link set {} up", self.name)),
        }
    }
}
fn on() -> bool {
    true
}
