//! What is published of NICs, and what is not.

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
        function: FunctionFacts {
            pcie_root: Some("pci0000:3a".into()),
            ..FunctionFacts::default()
        },
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
                "rdma": {"bool": false},
                "virtualFunction": {"bool": false},
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
fn rdma_and_virtual_functions_can_be_chosen_by() {
    let nic = nic("ens1f0", Some(NicClass::Dedicated), 1);
    let of = |function: FunctionFacts| {
        let offered = Offered {
            function,
            ..offered(&nic)
        };
        let (devices, _) = devices(&[offered], &[], Keeps::ALL, now());
        serde_json::to_value(devices[0].attributes.as_ref().unwrap()).unwrap()
    };
    let physical = of(FunctionFacts {
        rdma: vec!["mlx5_0".into(), "mlx5_1".into()],
        sriov: Some(dtn_link::sysfs::Sriov {
            total: 8,
            configured: 2,
        }),
        ..FunctionFacts::default()
    });
    assert_eq!(physical["rdma"], json!({"bool": true}));
    assert_eq!(physical["rdmaDevice"], json!({"string": "mlx5_0"}));
    assert_eq!(physical["virtualFunction"], json!({"bool": false}));
    assert_eq!(physical["sriovVfs"], json!({"int": 2}));
    assert_eq!(physical["sriovVfsTotal"], json!({"int": 8}));
    assert_eq!(physical.get("physicalFunction"), None);
    let virtual_one = of(FunctionFacts {
        physical_function: "0000:3b:00.0".parse().ok(),
        ..FunctionFacts::default()
    });
    assert_eq!(virtual_one["virtualFunction"], json!({"bool": true}));
    assert_eq!(
        virtual_one["physicalFunction"],
        json!({"string": "0000:3b:00.0"})
    );
    assert_eq!(virtual_one["rdma"], json!({"bool": false}));
    for absent in ["rdmaDevice", "sriovVfs", "sriovVfsTotal"] {
        assert_eq!(virtual_one.get(absent), None, "{absent}");
    }
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
