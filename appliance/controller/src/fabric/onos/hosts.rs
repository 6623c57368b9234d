//! Members as ONOS's hosts, so that its own list shows who is where: which to post, which to take
//! away. Pure.

use super::survey::{Host, Survey, device};
use crate::fabric::{
    Intent,
    network::{Network, PortRef},
};
use dtn_api::MacAddress;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// The annotation that says whose a host is.
pub(super) const OWNER: &str = "dtnOwner";
/// The annotations that a person sees.
const NAME: &str = "name";
const SLICE: &str = "dtnSlice";

/// What is to be done to ONOS's hosts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Paths to delete, first.
    pub(super) delete: Vec<String>,
    /// Bodies to post, one after another.
    pub(super) post: Vec<Value>,
}

/// A post of an address adds to what is there, so one that has changed is deleted before.
pub(super) fn changes(
    network: &Network,
    intents: &[Intent],
    survey: &Survey,
    owner: &str,
) -> Changes {
    let mut wanted: BTreeMap<MacAddress, Host> = BTreeMap::new();
    for intent in intents {
        for member in &intent.members {
            let place = &member.at;
            let Some(seen) = survey.devices.get(&place.switch) else {
                continue;
            };
            let Some(switch) = network.switch(&place.switch) else {
                continue;
            };
            let port = match &place.port {
                PortRef::Number(number) => Some(*number),
                PortRef::Name(name) => seen.ports.get(name).copied(),
            };
            let Some(port) = port else { continue };
            let location = (device(switch.datapath_id), port.to_string());
            let host = wanted.entry(member.mac).or_insert_with(|| Host {
                mac: member.mac,
                vlan: "None".into(),
                ips: BTreeSet::new(),
                locations: BTreeSet::new(),
                annotations: BTreeMap::from([
                    (NAME.into(), format!("{}-{}", intent.name, member.mac)),
                    (SLICE.into(), intent.name.to_string()),
                    (OWNER.into(), owner.to_owned()),
                ]),
            });
            host.ips.extend(&member.ips);
            host.locations.insert(location);
        }
    }
    let mut changes = Changes::default();
    let mut have = BTreeSet::new();
    for host in &survey.hosts {
        let want = wanted.get(&host.mac).filter(|_| host.vlan == "None");
        let own = host.annotations.get(OWNER).is_some_and(|of| of == owner);
        let same = want.is_some_and(|want| {
            (&want.ips, &want.locations, &want.annotations)
                == (&host.ips, &host.locations, &host.annotations)
        });
        if same {
            have.insert(host.mac);
        } else if own {
            changes
                .delete
                .push(format!("/hosts/{}/{}", host.mac, host.vlan));
        }
    }
    changes.post = wanted
        .values()
        .filter(|host| !have.contains(&host.mac))
        .map(body)
        .collect();
    changes
}

fn body(host: &Host) -> Value {
    let locations: Vec<Value> = host
        .locations
        .iter()
        .map(|(element, port)| json!({"elementId": element, "port": port}))
        .collect();
    let ips: Vec<&IpAddr> = host.ips.iter().collect();
    json!({
        "mac": host.mac.to_string(),
        "vlan": "-1",
        // nothing that ONOS hears moves or removes it
        "configured": true,
        "ipAddresses": ips,
        "locations": locations,
        "annotations": host.annotations,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::{Attached, network::Switch, onos::survey::Device};
    use dtn_api::slice::Class;

    #[test]
    fn who_comes_is_posted_who_changes_is_deleted_before_and_who_leaves_goes() {
        let network = Network {
            switches: vec![Switch {
                name: "edge1".parse().unwrap(),
                datapath_id: 1,
                single_table: false,
            }],
            ..Network::default()
        };
        let mac = MacAddress::new([2, 0, 0, 0, 0, 1]);
        let mut intent = Intent {
            slice: uuid::Uuid::from_u128(1),
            name: "red".parse().unwrap(),
            tag: 1,
            class: Class::BestEffort,
            rate_bps: 0,
            burst_ms: 10,
            members: vec![Attached {
                mac,
                ips: vec!["10.0.0.1".parse().unwrap()],
                at: "edge1/p1".parse().unwrap(),
            }],
            border: None,
            cables: BTreeSet::new(),
            access: None,
        };
        let seen = Device {
            ports: [("p1".to_owned(), 3)].into(),
            ..Device::default()
        };
        let mut survey = Survey::default();
        survey.devices.insert("edge1".parse().unwrap(), seen);
        let of = |intent: &Intent, survey: &Survey| {
            changes(&network, std::slice::from_ref(intent), survey, "me")
        };
        let first = of(&intent, &survey);
        assert!(first.delete.is_empty());
        let posted = &first.post[0];
        assert_eq!(
            posted["locations"][0],
            json!({"elementId": "of:0000000000000001", "port": "3"})
        );

        let back = json!({"hosts": [{
            "id": "02:00:00:00:00:01/None", "mac": "02:00:00:00:00:01", "vlan": "None",
            "ipAddresses": posted["ipAddresses"], "locations": posted["locations"],
            "annotations": posted["annotations"],
        }]});
        survey.hosts = super::super::survey::read_hosts(&back);
        assert_eq!(of(&intent, &survey), Changes::default());

        intent.members[0].ips = vec!["10.0.0.2".parse().unwrap()];
        let changed = of(&intent, &survey);
        assert_eq!(changed.delete, ["/hosts/02:00:00:00:00:01/None"]);
        assert_eq!(changed.post.len(), 1);

        intent.members.clear();
        let left = of(&intent, &survey);
        assert_eq!((left.delete.len(), left.post.len()), (1, 0));
        assert_eq!(
            changes(&network, &[], &survey, "another"),
            Changes::default(),
            "only our own"
        );
    }
}
