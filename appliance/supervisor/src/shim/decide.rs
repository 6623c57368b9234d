//! What the host's own children of NICs shall be, and what is to do until they are: pure.

use super::alone;
use dtn_api::{
    IfName, MacAddress,
    attachment::SliceBinding,
    cluster,
    lease::Lease,
    nic::{NicClass, NicIdentity},
};
use dtn_cni::record::{AttachmentRecord, InterfaceRecord, Phase};
use dtn_link::inventory::LinkState;
use ipnet::IpNet;
use std::{collections::BTreeSet, net::IpAddr};

/// What their names begin with; the rest is made of NIC and slice.
pub const PREFIX: &str = "vdnshim";
/// A pod's own network, by the Kubernetes runtime interface: what the kubelet probes.
const PRIMARY: &str = "eth0";

/// One that shall be.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Its name, the same each time.
    pub name: IfName,
    /// The NIC's index on the host.
    pub nic: u32,
    /// The NIC's name.
    pub nic_name: IfName,
    /// What the NIC is.
    pub identity: NicIdentity,
    /// The pods' slice.
    pub slice: SliceBinding,
    /// Smallest MTU of the pods on it.
    pub mtu: u32,
    /// Addresses of the pods.
    pub pods: BTreeSet<IpAddr>,
}

/// One that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its index.
    pub index: u32,
    /// Index of the NIC that it is on.
    pub lower: Option<u32>,
    /// Its hardware address.
    pub mac: Option<MacAddress>,
    /// Whether it is up.
    pub up: bool,
    /// Its addresses, without link-local ones.
    pub addresses: Vec<IpNet>,
    /// Where its routes lead, without those that the kernel makes.
    pub routes: Vec<IpNet>,
}

/// A thing to do, with the link's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// It is on the wrong NIC or is another's.
    Remove(u32),
    /// It is not there.
    Make,
    /// It is down.
    Up(u32),
    /// It has no such address.
    AddAddress(u32, IpNet),
    /// It has one that is not its.
    RemoveAddress(u32, IpNet),
    /// A way to a pod, and the address to speak from.
    AddRoute(u32, IpNet, IpAddr),
    /// A way to a pod that is not there any more.
    RemoveRoute(u32, IpNet),
}

/// One for each NIC and slice on which pods of a cluster have their own network.
pub fn wanted(records: &[AttachmentRecord], links: &[LinkState], own: u64) -> Vec<Wanted> {
    let mut found: Vec<Wanted> = Vec::new();
    let of_cluster = records.iter().filter(|record| {
        let pod = record.pod.as_ref();
        record.is_of_this_boot() && pod.is_some_and(|pod| pod.engine == cluster::ENGINE)
    });
    for interface in of_cluster
        .flat_map(|r| &r.interfaces)
        .filter(|i| is_primary(i))
    {
        let Some(nic) = interface
            .before
            .find(links)
            .filter(|_| interface.before.netns_inode == own)
        else {
            continue;
        };
        let (Some(slice), Ok(nic_name)) = (interface.slices.first(), nic.name.parse()) else {
            continue;
        };
        let Some(name) = name(nic.index, slice) else {
            continue;
        };
        let pods = interface.ips.iter().map(IpNet::addr);
        match found.iter_mut().find(|w| w.name == name) {
            Some(same) => {
                same.mtu = same.mtu.min(interface.mtu);
                same.pods.extend(pods);
            }
            None => found.push(Wanted {
                name,
                nic: nic.index,
                nic_name,
                identity: NicIdentity {
                    pci: nic.pci(),
                    permanent_mac: nic.permanent_mac,
                    netns_inode: Some(own),
                    ifindex: Some(nic.index),
                },
                slice: slice.clone(),
                mtu: interface.mtu,
                pods: pods.collect(),
            }),
        }
    }
    found
}

fn is_primary(interface: &InterfaceRecord) -> bool {
    interface.class == NicClass::Shared
        && interface.phase == Phase::Attached
        && interface.ifname.as_str() == PRIMARY
        && interface.behind.is_none()
}

/// `vdnshim` and eight digits: as long as a link's name may be.
fn name(nic: u32, slice: &SliceBinding) -> Option<IfName> {
    let hash = MacAddress::local_from(&format!("{nic}/{}", slice.id)).bytes();
    let digits: String = hash[2..].iter().map(|b| format!("{b:02x}")).collect();
    format!("{PREFIX}{digits}").parse().ok()
}

/// What is to do, in this order.
pub fn deeds(wanted: &Wanted, lease: &Lease, seen: Option<&Seen>) -> Vec<Deed> {
    let Some(seen) = seen else {
        return vec![Deed::Make];
    };
    if seen.lower != Some(wanted.nic) || seen.mac != Some(lease.mac) {
        return vec![Deed::Remove(seen.index), Deed::Make];
    }
    let index = seen.index;
    let own: Vec<IpNet> = lease.ips.iter().copied().map(alone).collect();
    let mut deeds = Vec::new();
    let stale = |net: &&IpNet| !own.contains(*net);
    deeds.extend(
        seen.addresses
            .iter()
            .filter(stale)
            .map(|net| Deed::RemoveAddress(index, *net)),
    );
    let lacks = |net: &&IpNet| !seen.addresses.contains(*net);
    deeds.extend(
        own.iter()
            .filter(lacks)
            .map(|net| Deed::AddAddress(index, *net)),
    );
    if !seen.up {
        deeds.push(Deed::Up(index));
    }
    let ways: Vec<(IpNet, IpAddr)> = wanted
        .pods
        .iter()
        .filter_map(|pod| {
            let from = own
                .iter()
                .find(|net| net.addr().is_ipv4() == pod.is_ipv4())?;
            Some((IpNet::from(*pod), from.addr()))
        })
        .collect();
    let stale = |to: &&IpNet| !ways.iter().any(|(way, _)| way == *to);
    deeds.extend(
        seen.routes
            .iter()
            .filter(stale)
            .map(|to| Deed::RemoveRoute(index, *to)),
    );
    let lacks = |way: &&(IpNet, IpAddr)| !seen.up || !seen.routes.contains(&way.0);
    deeds.extend(
        ways.iter()
            .filter(lacks)
            .map(|(to, from)| Deed::AddRoute(index, *to, *from)),
    );
    deeds
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn interface(ifname: &str, address: &str, slice: u128) -> serde_json::Value {
        let time = "2030-01-01T00:00:00Z";
        json!({
            "ifname": ifname, "network": "pods", "container_id": "c", "class": "shared",
            "phase": "attached", "netns": "/run/netns/x", "netns_inode": 9,
            "before": {"netns_inode": 1, "index": 4, "name": "ens1", "mac": "02:00:00:00:00:a1",
                "mtu": 9000, "tx_queue_len": 1000, "up": true, "kind": "veth"},
            "mac": null, "mtu": 1500, "ips": [address], "rate_bps": 0,
            "slices": [{"id": uuid::Uuid::from_u128(slice), "name": "pods", "class": "best_effort",
                "rate_bps": 1, "ends_at": time}]
        })
    }
    fn record(key: &str, engine: &str, interfaces: &[serde_json::Value]) -> AttachmentRecord {
        let mut record = AttachmentRecord::new(key, None);
        record.pod = serde_json::from_value(
            json!({"uid": key, "name": "p", "namespace": "d", "engine": engine}),
        )
        .unwrap();
        record.interfaces = serde_json::from_value(json!(interfaces)).unwrap();
        record
    }
    fn links() -> Vec<LinkState> {
        vec![LinkState {
            index: 4,
            name: "ens1".into(),
            mac: "02:00:00:00:00:a1".parse().ok(),
            kind: Some("veth".into()),
            ..LinkState::default()
        }]
    }
    fn lease() -> Lease {
        let time = "2030-01-01T00:00:00Z";
        serde_json::from_value(json!({
            "id": uuid::Uuid::from_u128(7), "slice_id": uuid::Uuid::from_u128(1), "client_id": "c",
            "mac": "02:00:00:00:00:05", "ips": ["10.20.0.9/24", "fd00::9/64"], "mtu": 1500,
            "routes": [], "t1": time, "t2": time, "expires_at": time, "state": "bound", "version": 1
        }))
        .unwrap()
    }

    #[test]
    fn only_a_pod_s_own_network_needs_one_and_pods_of_one_slice_share_it() {
        let records = [
            record(
                "a",
                "kubernetes",
                &[
                    interface("eth0", "10.20.0.1/24", 1),
                    interface("data0", "10.20.0.8/24", 1),
                ],
            ),
            record("b", "kubernetes", &[interface("eth0", "10.20.0.2/24", 1)]),
            record("c", "kubernetes", &[interface("eth0", "10.30.0.2/24", 2)]),
            record("d", "podman", &[interface("eth0", "10.20.0.3/24", 1)]),
        ];
        let wanted = wanted(&records, &links(), 1);
        assert_eq!(wanted.len(), 2);
        let pods: Vec<String> = wanted[0].pods.iter().map(ToString::to_string).collect();
        assert_eq!(pods, ["10.20.0.1", "10.20.0.2"]);
        assert_ne!(wanted[0].name, wanted[1].name);
        assert_eq!(wanted[0].name.as_str().len(), 15);
        assert!(
            super::wanted(&records, &links(), 2).is_empty(),
            "another namespace's NIC"
        );
        assert!(super::wanted(&records, &[], 1).is_empty());
    }

    #[test]
    fn what_is_there_is_kept_and_what_is_not_its_own_goes() {
        let records = [record(
            "a",
            "kubernetes",
            &[interface("eth0", "10.20.0.1/24", 1)],
        )];
        let wanted = &wanted(&records, &links(), 1)[0];
        let lease = lease();
        assert_eq!(deeds(wanted, &lease, None), [Deed::Make]);
        let own = |text: &str| text.parse::<IpNet>().unwrap();
        let fresh = Seen {
            index: 8,
            lower: Some(4),
            mac: Some(lease.mac),
            up: false,
            addresses: vec![],
            routes: vec![],
        };
        let (v4, v6, pod) = (own("10.20.0.9/32"), own("fd00::9/128"), own("10.20.0.1/32"));
        let todo = deeds(wanted, &lease, Some(&fresh));
        let way = Deed::AddRoute(8, pod, v4.addr());
        assert_eq!(
            todo,
            [
                Deed::AddAddress(8, v4),
                Deed::AddAddress(8, v6),
                Deed::Up(8),
                way
            ]
        );
        let done = Seen {
            up: true,
            addresses: vec![v4, v6],
            routes: vec![pod],
            ..fresh.clone()
        };
        assert_eq!(deeds(wanted, &lease, Some(&done)), []);
        let odd = Seen {
            addresses: vec![v4, v6, own("192.0.2.1/32")],
            routes: vec![pod, own("10.20.0.77/32")],
            ..done.clone()
        };
        let todo = deeds(wanted, &lease, Some(&odd));
        assert_eq!(
            todo,
            [
                Deed::RemoveAddress(8, own("192.0.2.1/32")),
                Deed::RemoveRoute(8, own("10.20.0.77/32"))
            ]
        );
        let elsewhere = Seen {
            lower: Some(5),
            ..done
        };
        assert_eq!(
            deeds(wanted, &lease, Some(&elsewhere)),
            [Deed::Remove(8), Deed::Make]
        );
    }
}
