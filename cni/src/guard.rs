//! Which NICs must never be taken, and why: pure rules over facts that were read before. The daemon
//! judges by them, and the installer before there is a daemon.
//!
//! A NIC that is *moved* takes its addresses, its VLANs and its place in a bridge away from the
//! host; one that is *shared* stays, so some of that is only worth a warning. What the host itself
//! lives on (default route, storage) is refused in both cases.

use dtn_api::nic::NicClass;
use dtn_link::{
    inventory::{Inventory, LinkState},
    owner::Owner,
    storage::StorageLinks,
};

/// Everything that the rules ask about one link.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// All links, addresses and routes of the host.
    pub host: &'a Inventory,
    /// The link in question.
    pub link: &'a LinkState,
    /// How the site gave it; `None` where it did not.
    pub class: Option<NicClass>,
    /// Tools that manage it.
    pub owners: &'a [Owner],
    /// Storage that comes over the network.
    pub storage: &'a StorageLinks,
    /// Indices of links that the appliance made itself.
    pub ours: &'a [u32],
}

/// What the rules say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why it must not be taken, each with its remedy; empty when it may.
    pub refusals: Vec<String>,
    /// What is worth knowing although it may be taken.
    pub warnings: Vec<String>,
}

/// Judges one link. All reasons are found, not only the first.
pub fn judge(facts: &Facts<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let moved = facts.class != Some(NicClass::Shared);
    let dependents = facts.host.dependents_of(facts.link.index);
    let defaults = facts.host.default_route_links();
    if let Some(over) = dependents.iter().find(|index| defaults.contains(index)) {
        verdict.refusals.push(format!(
            "it carries the host's default route{}: give the appliance another NIC, or move the \
             route first",
            over_which(facts, *over)
        ));
    }
    if let Some(master) = facts.host.master_of(facts.link.index) {
        verdict.refusals.push(format!(
            "it is a port of {} ({}): take it out with ip link set {} nomaster",
            master.name,
            master.kind.as_deref().unwrap_or("bridge or bond"),
            facts.link.name
        ));
    }
    children(facts, moved, &mut verdict);
    storage(facts, &dependents, &mut verdict);
    addresses(facts, moved, &dependents, &mut verdict);
    for owner in facts.owners {
        let remedy = match owner {
            Owner::NetworkManager => format!("nmcli device set {} managed no", facts.link.name),
            Owner::SystemdNetworkd => {
                "a .network file that matches it with [Link] Unmanaged=yes".to_owned()
            }
            _ => "its stanza removed from /etc/network/interfaces, after ifdown".to_owned(),
        };
        verdict.refusals.push(format!(
            "it is managed by {owner}, which would set it back: {remedy}"
        ));
    }
    if !facts.link.carrier && facts.link.up {
        verdict
            .warnings
            .push("it has no carrier: check the cable and the switch's port".into());
    }
    verdict
}

/// ` over bond0`, when it is not the link itself.
fn over_which(facts: &Facts<'_>, index: u32) -> String {
    match facts.host.link(index) {
        Some(link) if index != facts.link.index => format!(" (over {})", link.name),
        _ => String::new(),
    }
}

fn children(facts: &Facts<'_>, moved: bool, verdict: &mut Verdict) {
    for child in facts.host.children_of(facts.link.index) {
        if facts.ours.contains(&child.index) {
            continue;
        }
        let kind = child.kind.as_deref().unwrap_or("virtual");
        if moved {
            verdict.refusals.push(format!(
                "{} ({kind}) stands on it and would be lost: remove it with ip link del {}, or \
                 give this NIC as shared",
                child.name, child.name
            ));
        } else {
            verdict.warnings.push(format!(
                "{} ({kind}) stands on it too: its traffic is not part of any slice",
                child.name
            ));
        }
    }
}

fn storage(facts: &Facts<'_>, dependents: &[u32], verdict: &mut Verdict) {
    for link in &facts.storage.found {
        if dependents.contains(&link.index) {
            verdict.refusals.push(format!(
                "the {} storage {} (from {}) is reached over it: unmount it, or reach it over \
                 another NIC",
                link.storage.kind, link.storage.what, link.storage.source
            ));
        }
    }
    for unknown in &facts.storage.unknown {
        verdict.warnings.push(format!(
            "the {} storage {} (from {}) comes from a server that the kernel does not name: make \
             sure that it is not behind this NIC",
            unknown.kind, unknown.what, unknown.source
        ));
    }
}

fn addresses(facts: &Facts<'_>, moved: bool, dependents: &[u32], verdict: &mut Verdict) {
    let used: Vec<String> = dependents
        .iter()
        .filter(|index| !facts.ours.contains(index))
        .flat_map(|index| facts.host.addresses_of(*index))
        .filter(|address| !address.is_link_local())
        .map(|address| address.net.to_string())
        .collect();
    if used.is_empty() {
        return;
    }
    let used = used.join(", ");
    if moved {
        verdict.refusals.push(format!(
            "the host uses {used} on it: remove the address from the host, or give this NIC as \
             shared"
        ));
    } else {
        verdict.warnings.push(format!(
            "the host uses {used} on it: that traffic is not part of any slice"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtn_link::{
        address::AddressState,
        route::RouteState,
        storage::{NetworkStorage, StorageLink},
    };

    fn link(index: u32, name: &str) -> LinkState {
        LinkState {
            index,
            name: name.into(),
            up: true,
            carrier: true,
            ..LinkState::default()
        }
    }
    fn route(to: &str, index: u32) -> RouteState {
        RouteState::new(to.parse().unwrap(), index, None)
    }
    fn address(index: u32, net: &str) -> AddressState {
        AddressState {
            index,
            net: net.parse().unwrap(),
            scope: if net.starts_with("fe80") { 253 } else { 0 },
            permanent: true,
            tentative: false,
            duplicate: false,
            no_prefix_route: false,
            label: None,
            peer: None,
        }
    }
    /// eth0 with the default route, data0 free, p0 in br0, vlan parent v0, macvlan parent m0.
    fn host() -> Inventory {
        let port = LinkState {
            master: Some(11),
            ..link(4, "p0")
        };
        let bridge = LinkState {
            kind: Some("bridge".into()),
            ..link(11, "br0")
        };
        let child = |index, name: &str, kind: &str, lower| LinkState {
            kind: Some(kind.into()),
            lower: Some(lower),
            ..link(index, name)
        };
        Inventory {
            links: vec![
                link(2, "eth0"),
                link(3, "data0"),
                port,
                link(5, "v0"),
                link(6, "m0"),
                link(7, "a0"),
                LinkState {
                    carrier: false,
                    ..link(8, "dead0")
                },
                bridge,
                child(12, "v0.100", "vlan", 5),
                child(13, "mv0", "macvlan", 6),
            ],
            addresses: vec![
                address(3, "fe80::1/64"),
                address(7, "192.0.2.7/24"),
                address(12, "2001:db8::1/64"),
            ],
            routes: vec![route("0.0.0.0/0", 2), route("192.0.2.0/24", 7)],
        }
    }
    fn refused(name: &str, class: Option<NicClass>, ours: &[u32]) -> Verdict {
        let host = host();
        let storage = StorageLinks {
            found: vec![StorageLink {
                index: 7,
                storage: NetworkStorage {
                    what: "/data".into(),
                    kind: "nfs4".into(),
                    source: "192.0.2.1:/x".into(),
                    servers: vec![],
                },
            }],
            unknown: vec![],
        };
        judge(&Facts {
            host: &host,
            link: host.by_name(name).unwrap(),
            class,
            owners: &[],
            storage: &storage,
            ours,
        })
    }

    #[test]
    fn each_reason_is_found() {
        use NicClass::{Dedicated, Shared};
        let table: [(&str, NicClass, &[&str]); 9] = [
            ("eth0", Dedicated, &["default route"]),
            ("eth0", Shared, &["default route"]),
            ("data0", Dedicated, &[]),
            ("p0", Dedicated, &["port of br0 (bridge)"]),
            ("v0", Dedicated, &["v0.100 (vlan)", "2001:db8::1/64"]),
            ("v0", Shared, &[]),
            ("m0", Dedicated, &["mv0 (macvlan)"]),
            ("a0", Dedicated, &["/data", "192.0.2.7/24"]),
            ("a0", Shared, &["/data"]),
        ];
        for (name, class, expected) in table {
            let found = refused(name, Some(class), &[]).refusals;
            assert_eq!(found.len(), expected.len(), "{name} {class}: {found:?}");
            for (reason, words) in found.iter().zip(expected) {
                assert!(reason.contains(words), "{name} {class}: {reason}");
                assert!(reason.contains(": "), "a reason has its remedy: {reason}");
            }
        }
    }

    #[test]
    fn a_default_route_over_a_bridge_or_a_vlan_guards_what_is_below() {
        for (name, over) in [("p0", 11), ("v0", 12)] {
            let mut host = host();
            host.routes.push(route("::/0", over));
            let storage = StorageLinks::default();
            let verdict = judge(&Facts {
                host: &host,
                link: host.by_name(name).unwrap(),
                class: Some(NicClass::Shared),
                owners: &[],
                storage: &storage,
                ours: &[],
            });
            let first = &verdict.refusals[0];
            assert!(first.contains("default route (over "), "{first}");
        }
    }

    #[test]
    fn our_own_macvlan_and_a_missing_carrier_do_not_refuse() {
        assert_eq!(refused("m0", None, &[13]).refusals, Vec::<String>::new());
        let dead = refused("dead0", None, &[]);
        assert!(dead.refusals.is_empty());
        assert!(dead.warnings[0].contains("carrier"));
    }

    #[test]
    fn every_tool_is_named_with_a_remedy_of_its_own() {
        let host = host();
        let storage = StorageLinks::default();
        let verdict = judge(&Facts {
            host: &host,
            link: host.by_name("data0").unwrap(),
            class: None,
            owners: &[
                Owner::NetworkManager,
                Owner::SystemdNetworkd,
                Owner::Ifupdown,
            ],
            storage: &storage,
            ours: &[],
        });
        assert_eq!(verdict.refusals.len(), 3);
        assert!(verdict.refusals[0].contains("nmcli device set data0 managed no"));
    }
}
