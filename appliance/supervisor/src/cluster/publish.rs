//! What of a NIC is published in the cluster: a device with attributes that a claim can choose by,
//! and its bandwidth as capacity. Pure: NICs and slices in, devices out.
//!
//! Published is what a pod could be given: NICs with a class that nothing guards and that no gateway
//! has whole. One that is inside a pod stays published as it was, because the scheduler counts what
//! is allocated against what is published, and because inside of a pod a NIC shows less of itself.

use dtn_api::{
    Rate,
    cluster::{DRIVER, attribute, slice_attribute},
    nic::{Nic, NicClass},
    slice::{Reservation, Slice},
};
use dtn_link::sysfs::FunctionFacts;
use jiff::Timestamp;
use k8s_openapi::{
    api::resource::v1::{
        CapacityRequestPolicy, CapacityRequestPolicyRange, Device, DeviceAttribute, DeviceCapacity,
        DeviceTaint,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use std::collections::BTreeMap;

/// Key of the taint of a NIC without carrier.
pub const NO_CARRIER: &str = "dtn.appliance/no-carrier";
/// Most devices of one ResourceSlice when some have taints (resource.k8s.io/v1).
pub const MOST: usize = 64;
/// Most attributes and capacities of one device (resource.k8s.io/v1).
const MOST_ATTRIBUTES: usize = 32;
/// Longest text of an attribute (resource.k8s.io/v1).
const LONGEST_TEXT: usize = 64;
/// Longest DNS label (RFC 1123).
const LONGEST_LABEL: usize = 63;

/// What the API server keeps of what is written. An older release, or one with a feature switched
/// off, drops such a field silently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeps {
    /// `allowMultipleAllocations` and request policies (Kubernetes 1.36, else a feature gate).
    pub multiple: bool,
    /// Taints of devices (Kubernetes 1.36, else a feature gate).
    pub taints: bool,
}
impl Keeps {
    /// All of it.
    pub const ALL: Self = Self {
        multiple: true,
        taints: true,
    };
}

/// A NIC, and what is known of it beyond the inventory.
#[derive(Debug, Clone)]
pub struct Offered<'a> {
    /// The NIC.
    pub nic: &'a Nic,
    /// What its PCI function is beside a NIC.
    pub function: FunctionFacts,
    /// A gateway of this host has it whole.
    pub of_gateway: bool,
    /// A claim has it; nobody else does.
    pub of_claim: bool,
    /// It was published as this when it was given for that claim.
    pub given_as: Option<Device>,
}

/// The devices, and in words what is left out and why.
pub fn devices(
    nics: &[Offered<'_>],
    slices: &[Slice],
    keeps: Keeps,
    now: Timestamp,
) -> (Vec<Device>, Vec<String>) {
    let (mut devices, mut left_out) = (Vec::new(), Vec::new());
    for offered in nics {
        let nic = offered.nic;
        let Some(class) = nic.class else { continue };
        if offered.of_gateway {
            continue;
        }
        let held = !nic.used_by.is_empty();
        let whole = class == NicClass::Dedicated;
        if let Some(as_given) = offered.given_as.as_ref().filter(|_| held && whole) {
            devices.push(as_given.clone());
        } else if held && whole && !offered.of_claim {
            left_out.push(format!("{}: {} has it", nic.name, nic.used_by.join(", ")));
        } else if let Some(why) = nic.guarded.first() {
            left_out.push(format!("{}: {why}", nic.name));
        } else if class == NicClass::Shared && !keeps.multiple {
            left_out.push(format!(
                "{}: a shared NIC is given to several pods, which this API server does not keep \
                 (DRAConsumableCapacity: Kubernetes 1.36, or switch the feature on)",
                nic.name
            ));
        } else if let Some(why) = nic.dark().filter(|_| !keeps.taints && !held) {
            left_out.push(format!("{}: {why}", nic.name));
        } else {
            devices.push(device(offered, class, slices, keeps, now));
        }
    }
    if devices.len() > MOST {
        left_out.push(format!(
            "{} of {} NICs: a node publishes {MOST} at most",
            devices.len() - MOST,
            devices.len()
        ));
        devices.truncate(MOST);
    }
    (devices, left_out)
}

fn device(
    offered: &Offered<'_>,
    class: NicClass,
    slices: &[Slice],
    keeps: Keeps,
    now: Timestamp,
) -> Device {
    let nic = offered.nic;
    let mut capacity = BTreeMap::new();
    if let Some(speed) = nic.speed.filter(|speed| speed.bps() > 0) {
        let shared = class == NicClass::Shared;
        capacity.insert(
            attribute::BANDWIDTH.to_owned(),
            bandwidth(speed, shared && keeps.multiple),
        );
    }
    let mut attributes = attributes(offered, class);
    let mut of_slices: Vec<String> = slices
        .iter()
        .filter(|slice| is_member(slice, nic, now))
        .filter_map(|slice| slice_attribute(&slice.spec.name))
        .collect();
    of_slices.sort();
    of_slices.dedup();
    for name in of_slices {
        if attributes.len() + capacity.len() < MOST_ATTRIBUTES {
            attributes.insert(format!("{}/{name}", attribute::SLICES), flag(true));
        }
    }
    let tainted = !nic.carrier && keeps.taints;
    Device {
        name: name_of(nic.name.as_str()),
        attributes: Some(attributes),
        capacity: (!capacity.is_empty()).then_some(capacity),
        allow_multiple_allocations: (class == NicClass::Shared && keeps.multiple).then_some(true),
        // pods that have it go on: a cable that is out for a moment must not end transfers
        taints: tainted.then(|| {
            vec![DeviceTaint {
                key: NO_CARRIER.to_owned(),
                effect: "NoSchedule".to_owned(),
                ..DeviceTaint::default()
            }]
        }),
        ..Device::default()
    }
}

fn attributes(offered: &Offered<'_>, class: NicClass) -> BTreeMap<String, DeviceAttribute> {
    let nic = offered.nic;
    let pci = nic.identity.pci.as_ref().map(ToString::to_string);
    let mut all = BTreeMap::from([
        (attribute::CLASS.to_owned(), text(&class.to_string())),
        (attribute::IFNAME.to_owned(), text(nic.name.as_str())),
        (attribute::MAC.to_owned(), text(&nic.mac.to_string())),
        (attribute::CARRIER.to_owned(), flag(nic.carrier)),
        (attribute::MTU.to_owned(), number(i64::from(nic.mtu))),
        // of every NIC: a selector that names what is absent ends the scheduler's search
        (
            attribute::RDMA.to_owned(),
            flag(!offered.function.rdma.is_empty()),
        ),
        (
            attribute::VIRTUAL_FUNCTION.to_owned(),
            flag(offered.function.physical_function.is_some()),
        ),
        (
            attribute::MULTUS_DEVICE_ID.to_owned(),
            text(pci.as_deref().unwrap_or(nic.name.as_str())),
        ),
        (
            attribute::MULTUS_RESOURCE.to_owned(),
            text(&format!("{DRIVER}/{class}")),
        ),
    ]);
    let mut put = |name: &str, value: Option<DeviceAttribute>| {
        if let Some(value) = value {
            all.insert(name.to_owned(), value);
        }
    };
    put(attribute::DRIVER, nic.driver.as_deref().map(text));
    put(
        attribute::NUMA_NODE,
        nic.numa_node.map(|node| number(i64::from(node))),
    );
    put(
        attribute::SPEED_MBIT,
        nic.speed
            .and_then(|speed| i64::try_from(speed.bps() / 1_000_000).ok())
            .map(number),
    );
    put(attribute::PCI_ADDRESS, pci.as_deref().map(text));
    put(attribute::PCI_BUS_ID, pci.as_deref().map(text));
    let function = &offered.function;
    put(
        attribute::PCIE_ROOT,
        function.pcie_root.as_deref().map(text),
    );
    put(
        attribute::RDMA_DEVICE,
        function.rdma.first().map(|name| text(name)),
    );
    put(
        attribute::PHYSICAL_FUNCTION,
        function
            .physical_function
            .as_ref()
            .map(|above| text(above.as_str())),
    );
    let count = |count: u32| number(i64::from(count));
    put(
        attribute::SRIOV_VFS,
        function.sriov.map(|sriov| count(sriov.configured)),
    );
    put(
        attribute::SRIOV_VFS_TOTAL,
        function.sriov.map(|sriov| count(sriov.total)),
    );
    all
}

/// Speed; of a shared NIC with what one allocation may take of it. Who asks for nothing takes
/// nothing: it is best effort.
fn bandwidth(speed: Rate, in_parts: bool) -> DeviceCapacity {
    DeviceCapacity {
        value: quantity(speed.bps()),
        request_policy: in_parts.then(|| CapacityRequestPolicy {
            default: Some(quantity(0)),
            valid_range: Some(CapacityRequestPolicyRange {
                min: quantity(0),
                max: Some(quantity(speed.bps())),
                step: None,
            }),
            valid_values: None,
        }),
    }
}

/// A number as the API server writes it back: with the largest suffix that leaves it whole.
fn quantity(bps: u64) -> Quantity {
    let mut left = bps;
    for suffix in ["", "k", "M", "G", "T", "P"] {
        if left == 0 || !left.is_multiple_of(1000) || suffix == "P" {
            return Quantity(format!("{left}{suffix}"));
        }
        left /= 1000;
    }
    Quantity(bps.to_string())
}

fn is_member(slice: &Slice, nic: &Nic, now: Timestamp) -> bool {
    let id = dtn_api::HostId::untagged(nic.mac);
    slice.status.reservation == Reservation::Committed
        && slice.booked_at(now)
        && slice
            .spec
            .members
            .iter()
            .any(|member| member.host.as_ref() == Some(&id))
}

/// Name of a device, a DNS label, from the name of its NIC: the same one where it is a label already,
/// else what of it may stand in a label and a digest, so that two NICs never have one name.
pub fn name_of(nic: &str) -> String {
    let plain: String = nic
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let plain = plain.trim_matches('-');
    if plain == nic && plain.len() <= LONGEST_LABEL {
        return plain.to_owned();
    }
    // FNV-1a, 32 bits (draft-eastlake-fnv): short, and the same in each build
    let digest = nic.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("nic-{plain}-{digest:08x}").replace("--", "-")
}

fn text(value: &str) -> DeviceAttribute {
    DeviceAttribute {
        string: Some(value.chars().take(LONGEST_TEXT).collect()),
        ..DeviceAttribute::default()
    }
}
fn flag(value: bool) -> DeviceAttribute {
    DeviceAttribute {
        bool: Some(value),
        ..DeviceAttribute::default()
    }
}
fn number(value: i64) -> DeviceAttribute {
    DeviceAttribute {
        int: Some(value),
        ..DeviceAttribute::default()
    }
}

#[cfg(test)]
mod tests;
