use super::*;
use crate::fabric::network::{Cable, Switch};
use serde_json::json;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

#[test]
fn links_that_are_not_as_configured_are_named() {
    let end = |text: &str| text.parse().unwrap();
    let network = Network {
        switches: [("edge1", 1), ("edge2", 2)]
            .map(|(n, datapath_id)| Switch {
                name: name(n),
                datapath_id,
                single_table: false,
            })
            .into(),
        cables: vec![Cable {
            ends: [end("edge1/up"), end("edge2/7")],
            capacity_bps: 1,
            mtu: 1500,
        }],
        ..Network::default()
    };
    let ports = [("up".to_owned(), 3)].into();
    let devices = BTreeMap::from([(
        name("edge1"),
        Device {
            ports,
            ..Device::default()
        },
    )]);
    let link = |from: u32, to: u32| {
        json!({
            "src": {"device": "of:0000000000000001", "port": from.to_string()},
            "dst": {"device": "of:0000000000000002", "port": to.to_string()},
            "type": "DIRECT", "state": "ACTIVE",
        })
    };
    let seen = |links: Vec<Value>| wrong_cables(&network, &json!({"links": links}), &devices);
    assert!(
        seen(vec![]).is_empty(),
        "an ONOS without discovery says nothing"
    );
    assert!(seen(vec![link(3, 7)]).is_empty());
    let wrong = seen(vec![link(3, 8)]);
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(wrong[0].contains("edge1/3 to edge2/8"), "{wrong:?}");
}

#[test]
fn a_meter_without_burst_is_none_of_ours() {
    let meter = |burst: bool, unit: &str| {
        let answer = json!({"meters": [{
            "id": "4", "unit": unit, "burst": burst, "deviceId": "of:01", "state": "PENDING_ADD",
            "bands": [{"type": "DROP", "rate": 525_000, "burstSize": 5000, "packets": 2, "bytes": 9}],
        }]});
        read_meters(&answer)[&("of:01".to_owned(), 4)].clone()
    };
    let ours = meter(true, "KB_PER_SEC");
    assert_eq!(
        ours.spec,
        Some(MeterSpec {
            rate_kbit: 525_000,
            burst_kbit: 5000
        })
    );
    assert_eq!((ours.added, ours.counters.dropped_packets), (false, 2));
    assert_eq!(meter(false, "KB_PER_SEC").spec, None);
    assert_eq!(meter(true, "PKTS_PER_SEC").spec, None);
}

#[test]
fn the_id_of_a_meter_is_written_in_hexadecimal_and_one_that_goes_is_gone() {
    let read = |id: &str, state: &str| {
        let answer = json!({"meters": [{
            "id": id, "unit": "KB_PER_SEC", "burst": true, "deviceId": "of:01", "state": state,
            "bands": [{"type": "DROP", "rate": 525_000, "burstSize": 5000}],
        }]});
        let ids: Vec<u32> = read_meters(&answer).into_keys().map(|(_, id)| id).collect();
        ids
    };
    assert_eq!(read("9", "ADDED"), [9]);
    assert_eq!(read("10", "PENDING_ADD"), [16]);
    assert_eq!(read("1a", "ADDED"), [26]);
    assert_eq!(read("1a", "PENDING_REMOVE"), [0; 0]);
    // a cell of a pipeline
    assert_eq!(read("ingress.meter:3", "ADDED"), [0; 0]);
}

#[test]
fn applications_that_bypass_slices_and_answer_arp_are_known() {
    let answer = json!({"applications": [
        {"name": "org.onosproject.fwd", "state": "ACTIVE"},
        {"name": "org.onosproject.proxyarp", "state": "INSTALLED"},
    ]});
    assert_eq!(
        active(&answer),
        BTreeSet::from(["org.onosproject.fwd".to_owned()])
    );
}
