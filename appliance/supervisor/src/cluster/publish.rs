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
    /// Root of its PCIe hierarchy, as `pci0000:00`.
    pub pcie_root: Option<String>,
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
        } else if !nic.carrier && !keeps.taints && !held {
            left_out.push(format!("{}: no carrier: check the cable", nic.name));
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
    put(attribute::PCIE_ROOT, offered.pcie_root.as_deref().map(text));
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
mod tests {
    use super::*;
    use dtn_api::MacAddress;
    use serde_json::json;

    fn nic(name: &str, class: Option<NicClass>, last: u8) -> Nic {
        serde_json::from_value(json!({
            "name": name, "identity": {"pci": "0000:3b:00.0"}, "numa_node": 1,
            "mac": MacAddress::new([2, 0, 0, 0, 0, last]), "class": class, "carrier": true,
            "speed": "10Gbit", "mtu": 9000, "driver": "mlx5_core",
        }))
        .unwrap()
    }
    fn offered(nic: &Nic) -> Offered<'_> {
        Offered {
            nic,
            pcie_root: Some("pci0000:3a".into()),
            of_gateway: false,
            of_claim: false,
            given_as: None,
        }
    }
    fn slice(name: &str, last: u8) -> Slice {
        serde_json::from_value(json!({
            "id": uuid::Uuid::from_u128(1),
            "spec": {
                "name": name, "qos": {"class": "guaranteed", "rate_bps": 600_000_000_u64},
                "members": [{"host": dtn_api::HostId::untagged(MacAddress::new([2, 0, 0, 0, 0, last]))}],
                "schedule": {"start": "2030-01-01T00:00:00Z", "end": "2030-01-02T00:00:00Z"},
            },
            "status": {
                "reservation": "committed", "provision": "provisioned", "lifecycle": "created",
                "data_plane": "active", "generation": 1, "observed_generation": 1,
            },
            "version": 1, "created_at": "2030-01-01T00:00:00Z",
        }))
        .unwrap()
    }
    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }
    fn now() -> Timestamp {
        at("2030-01-01T12:00:00Z")
    }

    #[test]
    fn a_nic_is_published_with_what_a_claim_chooses_by() {
        let nic = nic("data0", Some(NicClass::Shared), 1);
        let slices = [slice("lhc-run3", 1), slice("other", 2)];
        let (devices, left_out) = devices(&[offered(&nic)], &slices, Keeps::ALL, now());
        assert_eq!(left_out, Vec::<String>::new());
        let shown = serde_json::to_value(&devices[0]).unwrap();
        assert_eq!(
            shown,
            json!({
                "name": "data0",
                "allowMultipleAllocations": true,
                "attributes": {
                    "class": {"string": "shared"},
                    "ifName": {"string": "data0"},
                    "mac": {"string": "02:00:00:00:00:01"},
                    "carrier": {"bool": true},
                    "driver": {"string": "mlx5_core"},
                    "mtu": {"int": 9000},
                    "numaNode": {"int": 1},
                    "pciAddress": {"string": "0000:3b:00.0"},
                    "speedMbit": {"int": 10_000},
                    "resource.kubernetes.io/pciBusID": {"string": "0000:3b:00.0"},
                    "resource.kubernetes.io/pcieRoot": {"string": "pci0000:3a"},
                    "k8s.cni.cncf.io/deviceID": {"string": "0000:3b:00.0"},
                    "k8s.cni.cncf.io/resourceName": {"string": "dtn.appliance/shared"},
                    "slices.dtn.appliance/lhc_run3": {"bool": true},
                },
                "capacity": {"bandwidth": {
                    "value": "10G",
                    "requestPolicy": {
                        "default": "0",
                        "validRange": {"min": "0", "max": "10G"},
                    },
                }},
            })
        );
        let (after, _) = super::devices(
            &[offered(&nic)],
            &slices,
            Keeps::ALL,
            at("2030-01-03T00:00:00Z"),
        );
        let attributes = after[0].attributes.as_ref().unwrap();
        assert!(!attributes.keys().any(|name| name.starts_with("slices.")));
    }

    #[test]
    fn what_no_pod_could_have_is_left_out_and_what_one_has_stays() {
        use NicClass::{Dedicated, Shared};
        let not_given = nic("a", None, 1);
        let mut guarded = nic("b", Some(Dedicated), 2);
        guarded.guarded = vec!["it carries the default route".into()];
        let gateway = nic("c", Some(Dedicated), 3);
        let mut dark = nic("d", Some(Dedicated), 4);
        dark.carrier = false;
        let shared = nic("e", Some(Shared), 5);
        let mut inside = nic("f", Some(Dedicated), 6);
        (inside.carrier, inside.used_by) = (false, vec!["pod".into()]);
        let mut elsewhere = nic("g", Some(Dedicated), 7);
        elsewhere.used_by = vec!["podman-pod".into()];
        let before = Device {
            name: "f".into(),
            ..Device::default()
        };
        let all = [
            offered(&not_given),
            offered(&guarded),
            Offered {
                of_gateway: true,
                ..offered(&gateway)
            },
            offered(&dark),
            offered(&shared),
            Offered {
                of_claim: true,
                given_as: Some(before.clone()),
                ..offered(&inside)
            },
            offered(&elsewhere),
        ];
        let (newest, left_out) = devices(&all, &[], Keeps::ALL, now());
        let names: Vec<&str> = newest.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["d", "e", "f"]);
        assert_eq!(newest[2], before);
        let taint = &newest[0].taints.as_ref().unwrap()[0];
        assert_eq!(
            (taint.key.as_str(), taint.effect.as_str()),
            (NO_CARRIER, "NoSchedule")
        );
        assert_eq!(
            left_out,
            ["b: it carries the default route", "g: podman-pod has it"]
        );

        let old = Keeps {
            multiple: false,
            taints: false,
        };
        let (oldest, left_out) = devices(&all, &[], old, now());
        let names: Vec<&str> = oldest.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["f"]);
        let told = left_out.join("; ");
        for words in ["d: no carrier", "e: a shared NIC", "DRAConsumableCapacity"] {
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn quantities_are_written_as_they_are_read_back() {
        for (bps, text) in [
            (0, "0"),
            (1_500, "1500"),
            (10_000_000_000, "10G"),
            (1_250_000_000, "1250M"),
            (3_000_000_000_000_000_000, "3000P"),
        ] {
            assert_eq!(quantity(bps).0, text);
        }
    }

    #[test]
    fn names_of_devices_are_labels_and_never_the_same() {
        assert_eq!(name_of("data0"), "data0");
        assert_eq!(name_of("enp59s0f0np0"), "enp59s0f0np0");
        let odd: Vec<String> = ["Data0", "data.0", "data_0", "-", "ens1f0.100"]
            .iter()
            .map(|name| name_of(name))
            .collect();
        for name in &odd {
            assert!(
                name.len() <= LONGEST_LABEL && !name.ends_with('-'),
                "{name}"
            );
            assert!(
                name.chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'),
                "{name}"
            );
        }
        let distinct: std::collections::BTreeSet<&String> = odd.iter().collect();
        assert_eq!(distinct.len(), odd.len());
    }
}
