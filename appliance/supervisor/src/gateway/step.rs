//! Pure: which slices a gateway shall serve, what is there, and so what to do, in an order in which
//! nothing is forwarded that should not be: the filter knows a slice before its interface comes and
//! forgets it before that goes.

use super::rules;
use crate::SliceView;
use dtn_api::{
    HostId, IfName, Name,
    attachment::SliceBinding,
    slice::{Class, Pool, Role, Slice},
};
use ipnet::IpNet;
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use uuid::Uuid;

/// A slice that a gateway shall serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SliceWanted {
    /// The gateway's interface in it.
    pub(super) ifname: IfName,
    /// The gateway's addresses in it, where the controller told them.
    pub(super) requested: Vec<IpAddr>,
    /// Its subnets.
    pub(super) subnets: Vec<IpNet>,
    /// Which slice it is, and what it gives.
    pub(super) binding: SliceBinding,
    /// Its tenant; unknown of one that only was prepared.
    pub(super) tenant: Option<Name>,
}

impl SliceWanted {
    fn of(slice: &Slice) -> Option<Self> {
        let addressing = slice.spec.addressing.as_ref()?;
        let pools = || [&addressing.ipv4, &addressing.ipv6].into_iter().flatten();
        let rate_bps = match slice.spec.qos.class {
            Class::BestEffort => 0,
            _ => slice.spec.qos.rate_bps,
        };
        Some(Self {
            ifname: rules::ifname(slice.id)?,
            requested: pools().filter_map(|pool: &Pool| pool.gateway).collect(),
            subnets: pools().map(|pool| pool.cidr.trunc()).collect(),
            binding: SliceBinding {
                id: slice.id,
                name: slice.spec.name.clone(),
                class: slice.spec.qos.class,
                rate_bps,
                ends_at: slice.spec.schedule.end,
                share_bps: None,
            },
            tenant: Some(slice.spec.tenant.clone()),
        })
    }
}

/// The slices that a gateway shall serve now, and what is to be said of others. `held` are those
/// that it was prepared for: a controller that is silent takes none of them away before its end.
pub(super) fn wanted(
    inside: Option<&HostId>,
    outside: &[IpNet],
    view: &SliceView,
    held: &[(SliceBinding, Vec<IpNet>)],
    now: Timestamp,
) -> (Vec<SliceWanted>, Vec<String>) {
    let has = |slice: &&Slice| {
        let members = slice.spec.members.iter();
        slice.carries_at(now)
            && members
                .filter(|member| member.role == Role::Gateway)
                .any(|member| member.host.is_some() && member.host.as_ref() == inside)
    };
    let mut all: Vec<SliceWanted> = view
        .slices
        .iter()
        .filter(has)
        .filter_map(SliceWanted::of)
        .collect();
    let silent = view.read_at.is_none() || !view.trouble.is_empty() || inside.is_none();
    for (binding, addresses) in held.iter().filter(|_| silent) {
        let known = view.slices.iter().any(|slice| slice.id == binding.id);
        if known && inside.is_some() || now >= binding.ends_at {
            continue;
        }
        let Some(ifname) = rules::ifname(binding.id) else {
            continue;
        };
        all.push(SliceWanted {
            ifname,
            requested: addresses.iter().map(IpNet::addr).collect(),
            subnets: addresses.iter().map(IpNet::trunc).collect(),
            binding: binding.clone(),
            tenant: None,
        });
    }
    all.sort_by_key(|slice| slice.binding.id);
    apart(all, outside, held)
}

/// Those whose subnets another has already, or the external network itself, cannot be served:
/// nobody could say where a packet belongs. Who is served stays so.
fn apart(
    all: Vec<SliceWanted>,
    outside: &[IpNet],
    held: &[(SliceBinding, Vec<IpNet>)],
) -> (Vec<SliceWanted>, Vec<String>) {
    let is_held = |slice: &SliceWanted| held.iter().any(|(b, _)| b.id == slice.binding.id);
    let (first, then): (Vec<_>, Vec<_>) = all.into_iter().partition(is_held);
    let mut taken: Vec<(IpNet, String)> = outside
        .iter()
        .map(|net| (net.trunc(), "the external network".to_owned()))
        .collect();
    let (mut served, mut said) = (Vec::new(), Vec::new());
    for slice in first.into_iter().chain(then) {
        let clash = slice.subnets.iter().find_map(|net| {
            let meets = |other: &&(IpNet, String)| other.0.contains(net) || net.contains(&other.0);
            taken.iter().find(meets).map(|(_, whose)| (net, whose))
        });
        if let Some((net, whose)) = clash {
            said.push(format!(
                "slice {} is not forwarded for: its subnet {net} overlaps with that of {whose}; \
                 reserve it with other addresses",
                slice.binding.name
            ));
            continue;
        }
        let name = format!("slice {}", slice.binding.name);
        taken.extend(slice.subnets.iter().map(|net| (*net, name.clone())));
        served.push(slice);
    }
    served.sort_by_key(|slice| slice.binding.id);
    (served, said)
}

/// What is there of a gateway.
#[derive(Debug, Clone, Default)]
pub(super) struct There {
    /// Its namespace is pinned.
    pub(super) namespace: bool,
    /// Interfaces that are in that namespace, whole.
    pub(super) attached: BTreeSet<IfName>,
    /// Interfaces that are on record, in whatever state.
    pub(super) recorded: BTreeSet<IfName>,
    /// Interfaces that are prepared, and whether on the NIC that is configured now.
    pub(super) prepared: BTreeMap<IfName, bool>,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Everything that is on record comes home: its namespace is gone.
    TakeHome,
    /// The namespace is made, with a filter that drops everything.
    Namespace,
    /// The interface outside is prepared.
    PrepareOutside,
    /// The lease in a slice is had, and its interface prepared.
    Prepare(Uuid),
    /// The filter is made as it shall be.
    Filter,
    /// An interface goes home, its lease back.
    Leave(IfName),
    /// An interface comes in.
    Attach(IfName),
}

/// What to do, in this order. An action that fails stops none but those that need it.
pub(super) fn actions(wanted: &[SliceWanted], outside: &IfName, there: &There) -> Vec<Action> {
    let mut todo = Vec::new();
    if !there.namespace {
        if !there.recorded.is_empty() {
            todo.push(Action::TakeHome);
        }
        todo.push(Action::Namespace);
    }
    if !there.prepared.contains_key(outside) {
        todo.push(Action::PrepareOutside);
    }
    let fresh = |slice: &&SliceWanted| !there.prepared.contains_key(&slice.ifname);
    let ids = wanted.iter().filter(fresh).map(|slice| slice.binding.id);
    todo.extend(ids.map(Action::Prepare));
    todo.push(Action::Filter);
    let wants =
        |ifname: &IfName| ifname == outside || wanted.iter().any(|slice| slice.ifname == *ifname);
    let stays =
        |ifname: &IfName| wants(ifname) && there.prepared.get(ifname).copied().unwrap_or(true);
    let known: BTreeSet<&IfName> = there.prepared.keys().chain(&there.recorded).collect();
    let leaving = known.iter().filter(|ifname| !stays(ifname));
    todo.extend(leaving.map(|ifname| Action::Leave((*ifname).clone())));
    let inner = wanted.iter().map(|slice| &slice.ifname);
    for ifname in std::iter::once(outside).chain(inner) {
        let attached = there.namespace && there.attached.contains(ifname);
        if !attached && stays(ifname) {
            todo.push(Action::Attach(ifname.clone()));
        }
    }
    todo
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }
    fn inside() -> HostId {
        HostId::untagged("02:00:00:00:00:01".parse().unwrap())
    }
    fn slice(id: u128, third: u8, role: &str) -> Slice {
        serde_json::from_value(serde_json::json!({
            "id": Uuid::from_u128(id),
            "spec": {
                "name": format!("s{id}"), "qos": {"class": "guaranteed", "rate_bps": 1_000_000_u64},
                "members": [{"host": inside(), "role": role}],
                "schedule": {"start": at(0), "end": at(100)},
                "addressing": {"ipv4": {"cidr": format!("10.20.{third}.0/24"),
                                        "gateway": format!("10.20.{third}.1")}},
            },
            "status": {
                "reservation": "committed", "provision": "provisioned", "lifecycle": "created",
                "data_plane": "active", "generation": 1, "observed_generation": 1,
            },
            "version": 1, "created_at": at(0),
        }))
        .unwrap()
    }
    fn view(slices: Vec<Slice>, trouble: &str) -> SliceView {
        SliceView {
            slices,
            read_at: Some(at(0)),
            trouble: trouble.into(),
        }
    }
    fn held(slice: &Slice) -> (SliceBinding, Vec<IpNet>) {
        let wanted = SliceWanted::of(slice).unwrap();
        (wanted.binding, vec!["10.20.7.1/24".parse().unwrap()])
    }
    fn ids(found: &[SliceWanted]) -> Vec<u128> {
        found.iter().map(|s| s.binding.id.as_u128()).collect()
    }

    #[test]
    fn a_slice_is_served_while_it_carries_and_a_silent_controller_takes_none_away() {
        let outside = ["192.0.2.2/24".parse().unwrap()];
        let host = inside();
        let one = slice(1, 7, "gateway");
        let of = |view: &SliceView, held: &[_], now| {
            ids(&wanted(Some(&host), &outside, view, held, at(now)).0)
        };
        let both = view(vec![one.clone(), slice(2, 8, "endpoint")], "");
        assert_eq!(
            of(&both, &[], 50),
            [1],
            "a member of another role is none of ours"
        );
        assert_eq!(of(&both, &[], 100), [0_u128; 0], "it has ended");
        let known = [held(&one)];
        assert_eq!(of(&view(vec![], ""), &known, 50), [0_u128; 0], "it is lost");
        assert_eq!(of(&view(vec![], "no answer"), &known, 50), [1]);
        assert_eq!(of(&SliceView::default(), &known, 50), [1], "just started");
        assert_eq!(of(&SliceView::default(), &known, 100), [0_u128; 0]);
        let lost = wanted(None, &outside, &both, &known, at(50)).0;
        assert_eq!(ids(&lost), [1], "the NIC cannot be seen just now");
    }

    #[test]
    fn subnets_that_overlap_are_served_once_and_the_other_is_told() {
        let host = inside();
        let all = view(vec![slice(1, 7, "gateway"), slice(2, 7, "gateway")], "");
        let (served, said) = wanted(Some(&host), &[], &all, &[], at(50));
        assert_eq!(ids(&served), [1]);
        assert!(
            said[0].contains("slice s2") && said[0].contains("slice s1"),
            "{said:?}"
        );
        let first = [held(&slice(2, 7, "gateway"))];
        let (served, _) = wanted(Some(&host), &[], &all, &first, at(50));
        assert_eq!(ids(&served), [2], "who is served stays so");
        let outside = ["10.20.0.9/16".parse().unwrap()];
        let (served, said) = wanted(Some(&host), &outside, &all, &[], at(50));
        assert!(served.is_empty() && said.len() == 2);
    }

    #[test]
    fn the_filter_comes_before_an_interface_and_changes_before_one_goes() {
        let host = inside();
        let all = view(vec![slice(1, 7, "gateway")], "");
        let (slices, _) = wanted(Some(&host), &[], &all, &[], at(50));
        let outside: IfName = "outside".parse().unwrap();
        let own = slices[0].ifname.clone();
        let attach = |ifname: &IfName| Action::Attach(ifname.clone());
        assert_eq!(
            actions(&slices, &outside, &There::default()),
            [
                Action::Namespace,
                Action::PrepareOutside,
                Action::Prepare(Uuid::from_u128(1)),
                Action::Filter,
                attach(&outside),
                attach(&own),
            ]
        );
        let names = BTreeSet::from([outside.clone(), own.clone()]);
        let there = There {
            namespace: true,
            attached: names.clone(),
            recorded: names.clone(),
            prepared: names.iter().map(|name| (name.clone(), true)).collect(),
        };
        assert_eq!(actions(&slices, &outside, &there), [Action::Filter]);
        assert_eq!(
            actions(&[], &outside, &there),
            [Action::Filter, Action::Leave(own.clone())]
        );
        let lost = There {
            namespace: false,
            ..there.clone()
        };
        assert_eq!(
            actions(&slices, &outside, &lost),
            [
                Action::TakeHome,
                Action::Namespace,
                Action::Filter,
                attach(&outside),
                attach(&own)
            ]
        );
        let mut moved = there;
        moved.prepared.insert(outside.clone(), false);
        assert_eq!(
            actions(&slices, &outside, &moved),
            [Action::Filter, Action::Leave(outside.clone())],
            "another NIC is configured: the old one leaves first"
        );
    }
}
