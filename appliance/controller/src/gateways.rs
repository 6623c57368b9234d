//! Gateways as the controller keeps them: what may be declared, which slice has which, and what
//! follows for a slice's addresses and routes. Pure. Who may pass is decided in [`crate::access`].

use crate::{
    addresses::{self, Plan},
    auth,
};
use dtn_api::{
    Name, Problem,
    gateway::{Gateway, GatewayReport, GatewaySpec, LAST_RULE, LONGEST_TROUBLE, MOST_NETWORKS},
    lease::Route,
    problem::Kind,
    slice::{Addressing, Role, SliceSpec},
};
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Most addresses of a gateway on its external network.
const MOST_OUTSIDE: usize = 16;
/// Most slices in a report: as many as there are tags.
const MOST_SLICES: usize = 4094;

/// A gateway as it is kept. Its rules are a row of their own: they change for other reasons, and
/// by other hands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayRow {
    /// Its name.
    pub name: Name,
    /// What was declared.
    pub spec: GatewaySpec,
    /// When it was last declared, as far as that was written down.
    pub seen_at: Timestamp,
    /// Counts changes of what was declared.
    pub version: u64,
}
impl GatewayRow {
    /// As everybody sees it.
    pub fn seen(&self, rules_version: u64, report: Option<GatewayReport>) -> Gateway {
        Gateway {
            name: self.name.clone(),
            spec: self.spec.clone(),
            rules_version,
            report,
            seen_at: self.seen_at,
            version: self.version,
        }
    }
    /// Who it is among the clients of a slice's leases.
    pub fn client(&self) -> String {
        client(&self.name)
    }
}

/// Who a gateway is among the clients of a slice's leases.
pub fn client(name: &Name) -> String {
    format!("{CLIENT}{name}")
}
/// What begins the client id of a gateway, and of nobody else.
pub const CLIENT: &str = "gateway:";

/// Everything that is wrong with what a node declares, as far as it can be said without the state.
pub fn check(name: &Name, spec: &GatewaySpec, plan: &Plan) -> Result<(), Problem> {
    let mut wrong = Problem::new(
        Kind::InvalidRequest,
        format!("gateway {name} cannot be declared so"),
    );
    if auth::reserved_name(name) {
        wrong = wrong.at(
            "",
            format!("the name {name} stands for a part of the network: choose another one"),
        );
    }
    if spec.networks.is_empty() || spec.networks.len() > MOST_NETWORKS {
        wrong = wrong.at(
            "/networks",
            format!("must be 1 to {MOST_NETWORKS}: what members of its slices reach through it"),
        );
    }
    let mut seen = BTreeSet::new();
    for (n, net) in spec.networks.iter().enumerate() {
        let at = format!("/networks/{n}");
        if net.trunc() != *net {
            let whole = net.trunc();
            wrong = wrong.at(
                at,
                format!("{net} has bits below its prefix: write {whole}"),
            );
        } else if !seen.insert(net) {
            wrong = wrong.at(at, format!("{net} is given twice"));
        }
    }
    if spec.outside.is_empty() || spec.outside.len() > MOST_OUTSIDE {
        wrong = wrong.at(
            "/outside",
            format!("must be 1 to {MOST_OUTSIDE}: its own addresses on the external network"),
        );
    }
    let mut seen = BTreeSet::new();
    for (n, net) in spec.outside.iter().enumerate() {
        if let Some(why) = outside_fault(net, plan) {
            wrong = wrong.at(format!("/outside/{n}"), why);
        } else if !seen.insert(net.addr()) {
            wrong = wrong.at(
                format!("/outside/{n}"),
                format!("{} is given twice", net.addr()),
            );
        }
    }
    match wrong.errors.is_empty() {
        true => Ok(()),
        false => Err(wrong),
    }
}

/// Why an address cannot be a gateway's own on the external network.
fn outside_fault(net: &IpNet, plan: &Plan) -> Option<String> {
    let ip = net.addr();
    if net.prefix_len() == 0 {
        return Some(format!(
            "{net} makes every address a neighbour: write the external network's prefix length"
        ));
    }
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() {
        return Some(format!("{ip} is no host's address"));
    }
    // RFC 3021 and RFC 6164: a point-to-point link has neither of the two
    let edges = net.prefix_len() + 1 < net.max_prefix_len();
    let broadcast = net.addr().is_ipv4() && ip == net.broadcast();
    if edges && (ip == net.network() || broadcast) {
        return Some(format!(
            "{ip} is the first or last address of its network: write a host's"
        ));
    }
    let pools = [plan.ipv4.map(IpNet::V4), plan.ipv6.map(IpNet::V6)];
    let overlapped = pools
        .into_iter()
        .flatten()
        .find(|pool| pool.contains(&net.trunc()) || net.contains(pool));
    overlapped.map(|pool| {
        format!(
            "{} overlaps the domain's own addresses {pool} ([addresses] of appliance.toml): the \
             external network must be another one",
            net.trunc()
        )
    })
}

/// Everything that is wrong with what a gateway's host reports.
pub fn check_report(report: &GatewayReport) -> Result<(), Problem> {
    let mut wrong = Problem::new(Kind::InvalidRequest, "the gateway's report is not valid");
    if let Some(number) = report.rules.keys().find(|n| !(1..=LAST_RULE).contains(*n)) {
        wrong = wrong.at(
            format!("/rules/{number}"),
            format!("numbers of rules are 1 to {LAST_RULE}"),
        );
    }
    if report.slices.len() > MOST_SLICES {
        wrong = wrong.at("/slices", format!("at most {MOST_SLICES}"));
    }
    let long = |text: &String| text.len() > LONGEST_TROUBLE;
    if report.trouble.as_ref().is_some_and(long) {
        wrong = wrong.at("/trouble", format!("at most {LONGEST_TROUBLE} bytes"));
    }
    match wrong.errors.is_empty() {
        true => Ok(()),
        false => Err(wrong),
    }
}

/// The host by which a slice's gateway is a member, where the slice has one.
pub fn member(spec: &SliceSpec) -> Option<&dtn_api::HostId> {
    let mut gateways = spec.members.iter().filter(|m| m.role == Role::Gateway);
    gateways.next()?.host.as_ref()
}

/// The gateway of a slice, where the slice has one that is declared.
pub fn of_slice<'a>(
    gateways: &'a BTreeMap<Name, GatewayRow>,
    spec: &SliceSpec,
) -> Option<&'a GatewayRow> {
    let host = member(spec)?;
    gateways.values().find(|row| row.spec.host == *host)
}

/// What a slice's gateway is called among its conditions.
pub const SERVES: &str = "GatewayServes";
/// A host that has reported nothing for longer is silent, in seconds.
const SILENT: i64 = 120;

/// Whether a slice's gateway forwards for it, from what its host has read back. `silence` is how
/// long ago that came.
pub fn serving(
    seen: &Gateway,
    slice: uuid::Uuid,
    leased: bool,
    silence: Option<SignedDuration>,
) -> dtn_api::slice::Condition {
    let Gateway { name, spec, .. } = seen;
    let missing = match &seen.report {
        _ if !leased => Some(format!(
            "gateway {name} holds no lease in it: is dtnd running on node {}?",
            spec.node
        )),
        None => Some(format!("the host of gateway {name} has reported nothing")),
        Some(report) if silence.is_none_or(|past| past.as_secs() > SILENT) => Some(format!(
            "the host of gateway {name} has reported nothing since {}",
            report.read_at
        )),
        Some(GatewayReport {
            trouble: Some(trouble),
            ..
        }) => Some(format!("gateway {name}: {trouble}")),
        Some(report) if !report.slices.contains(&slice) => {
            Some(format!("gateway {name} does not forward for it yet"))
        }
        Some(report) if report.rules_version != seen.rules_version => Some(format!(
            "gateway {name} has access rules of version {}, not {} yet",
            report.rules_version, seen.rules_version
        )),
        Some(_) => None,
    };
    let well = || {
        format!(
            "gateway {name} forwards for it by access rules of version {}",
            seen.rules_version
        )
    };
    dtn_api::slice::Condition {
        kind: SERVES.to_owned(),
        status: missing.is_none(),
        reason: missing.unwrap_or_else(well),
    }
}

/// The addressing of the far side of a stitched slice whose gateway is on this side: without the
/// gateway, which must not be an address that the far side hands out.
pub fn beyond(mut far: Addressing) -> Result<Addressing, Problem> {
    for (family, pool) in [("ipv4", &mut far.ipv4), ("ipv6", &mut far.ipv6)] {
        let Some(pool) = pool else { continue };
        let Some(gateway) = pool.gateway.take() else {
            continue;
        };
        let own = addresses::ranges(pool).unwrap_or_default();
        let own = own
            .iter()
            .find(|range| (range.first..=range.last).contains(&addresses::number(gateway)));
        if own.is_some() {
            let problem = Problem::new(Kind::InvalidRequest, "the addressing is not valid");
            return Err(problem.at(
                format!("/addressing/{family}/gateway"),
                format!(
                    "{gateway} is in the half that the other domain hands out: choose a lower one"
                ),
            ));
        }
    }
    Ok(far)
}

/// The routes of a slice's members to what lies behind its gateway.
pub fn routes(spec: &GatewaySpec, addressing: &Addressing) -> Vec<Route> {
    let pools = [&addressing.ipv4, &addressing.ipv6].into_iter().flatten();
    let through = |pool: &dtn_api::slice::Pool| -> Option<(IpNet, IpAddr)> {
        Some((pool.cidr, pool.gateway?))
    };
    pools
        .filter_map(through)
        .flat_map(|(subnet, gateway)| {
            let family = move |net: &&IpNet| net.addr().is_ipv4() == gateway.is_ipv4();
            // what is on link is never reached through a gateway
            let beyond = move |net: &&IpNet| !subnet.contains(*net);
            let nets = spec.networks.iter().filter(family).filter(beyond);
            nets.map(move |net| Route {
                dst: *net,
                gw: Some(gateway),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plan() -> Plan {
        Plan {
            ipv4: Some("10.20.0.0/16".parse().unwrap()),
            ipv6: None,
            lease_seconds: 3600,
        }
    }
    fn spec(networks: &[&str], outside: &[&str]) -> GatewaySpec {
        let spec = json!({"node": "dtn", "host": "02:00:00:00:00:01-none",
            "networks": networks, "outside": outside});
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn every_fault_of_a_declaration_is_named_at_once() {
        let name: Name = "internet".parse().unwrap();
        let good = spec(
            &["0.0.0.0/0", "::/0"],
            &["192.0.2.2/24", "2001:db8::2/64", "198.51.100.0/31"],
        );
        check(&name, &good, &plan()).unwrap();
        let bad = spec(
            &["192.0.2.1/24", "::/0", "::/0"],
            &[
                "192.0.2.2/0",
                "127.0.0.1/8",
                "192.0.2.255/24",
                "10.20.3.1/24",
                "192.0.2.2/24",
                "192.0.2.2/25",
            ],
        );
        let problem = check(&"nic-x".parse().unwrap(), &bad, &plan()).unwrap_err();
        let pointers: Vec<&str> = problem.errors.iter().map(|e| e.pointer.as_str()).collect();
        assert_eq!(
            pointers,
            [
                "",
                "/networks/0",
                "/networks/2",
                "/outside/0",
                "/outside/1",
                "/outside/2",
                "/outside/3",
                "/outside/5"
            ],
            "{problem}"
        );
        let empty = check(&name, &spec(&[], &[]), &plan()).unwrap_err();
        assert_eq!(empty.errors.len(), 2, "{empty}");
    }

    #[test]
    fn a_gateway_serves_when_its_host_has_read_back_all_of_it() {
        let id = uuid::Uuid::from_u128(1);
        let row = GatewayRow {
            name: "internet".parse().unwrap(),
            spec: spec(&["0.0.0.0/0"], &["192.0.2.2/24"]),
            seen_at: Timestamp::UNIX_EPOCH,
            version: 1,
        };
        let report: GatewayReport = serde_json::from_value(json!({
            "rules_version": 5, "slices": [id], "read_at": Timestamp::UNIX_EPOCH,
        }))
        .unwrap();
        let other = |change: &dyn Fn(&mut GatewayReport)| {
            let mut other = report.clone();
            change(&mut other);
            Some(other)
        };
        let soon = Some(SignedDuration::from_secs(120));
        let late = Some(SignedDuration::from_secs(121));
        let cases = [
            (Some(report.clone()), true, soon, "forwards for it"),
            (Some(report.clone()), false, soon, "holds no lease"),
            (Some(report.clone()), true, late, "nothing since"),
            (None, true, None, "has reported nothing"),
            (
                other(&|r| r.slices.clear()),
                true,
                soon,
                "not forward for it yet",
            ),
            (
                other(&|r| r.rules_version = 4),
                true,
                soon,
                "version 4, not 5",
            ),
            (
                other(&|r| r.trouble = Some("no NIC".into())),
                true,
                soon,
                "no NIC",
            ),
        ];
        for (n, (report, leased, silence, why)) in cases.into_iter().enumerate() {
            let said = serving(&row.seen(5, report), id, leased, silence);
            assert_eq!(said.status, n == 0, "{}", said.reason);
            assert!(said.reason.contains(why), "{} for {why}", said.reason);
        }
    }

    #[test]
    fn members_reach_each_network_of_their_family_through_the_gateway() {
        let addressing: Addressing = serde_json::from_value(json!({
            "ipv4": {"cidr": "10.20.0.0/24", "gateway": "10.20.0.1"},
            "ipv6": {"cidr": "fd00::/64"},
        }))
        .unwrap();
        let spec = spec(
            &["0.0.0.0/0", "198.51.100.0/24", "10.20.0.0/25", "::/0"],
            &["192.0.2.2/24"],
        );
        let routes: Vec<String> = routes(&spec, &addressing)
            .iter()
            .map(|route| format!("{} via {}", route.dst, route.gw.unwrap()))
            .collect();
        assert_eq!(
            routes,
            ["0.0.0.0/0 via 10.20.0.1", "198.51.100.0/24 via 10.20.0.1"]
        );
    }
}
