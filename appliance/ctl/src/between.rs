//! `dtnctl slice reserve --between`: a slice between NICs of this domain, asked of the controller on this
//! host. Who does so is the domain's admin and says everything; there is nothing to negotiate.

use crate::{
    answer::{items, json, read},
    cli::Context,
    failure::{Done, Failure, Outcome, while_doing},
    place::{CARRY_OUT, Daemon, Link},
    slice::promise,
    table::pairs,
};
use dtn_api::{
    Name, Rate,
    gateway::Gateway,
    host::{Host, HostKind},
    slice::{Class, Excess, Member, Mode, Qos, Role, Schedule, Slice, SliceSpec},
};

/// One end, as `NODE/NIC`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End(String);

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for End {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((node, nic)) if !node.is_empty() && !nic.is_empty() && !nic.contains('/') => {
                Ok(Self(text.to_owned()))
            }
            _ => Err("an end is written NODE/NIC, as dtn1/data0".into()),
        }
    }
}

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Wish<'a> {
    /// Name of the slice.
    pub(crate) name: &'a Name,
    /// Who pays.
    pub(crate) tenant: &'a Name,
    /// What is promised.
    pub(crate) class: Class,
    /// How much of it.
    pub(crate) rate: Rate,
    /// When.
    pub(crate) schedule: Schedule,
    /// Between which NICs.
    pub(crate) ends: &'a [End],
    /// With a gateway.
    pub(crate) gateway: Option<&'a Name>,
    /// Whether hosts may let NICs of theirs join for pods.
    pub(crate) open: bool,
}

/// Asks the controller on this host.
pub(crate) async fn run(wish: &Wish<'_>, context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Vdnd, CARRY_OUT)?;
    let hosts = link
        .list("/hosts")
        .await
        .map_err(|error| while_doing("asking for the hosts", error))?;
    let hosts: Vec<Host> = items(&hosts, "the hosts")?;
    let found = chosen(wish.ends, &hosts).map_err(|strange| unknown(&strange, context))?;
    let mut members: Vec<Member> = found
        .iter()
        .map(|host| Member::of_host(host.id.clone(), Role::Endpoint))
        .collect();
    if let Some(name) = wish.gateway {
        let gateway = gateway(name, &link).await?;
        let inside = hosts.iter().find(|host| host.id == gateway.spec.host);
        let inside = inside.ok_or_else(|| {
            let why = format!("the NIC of gateway {name} towards the slices is not declared");
            Failure::because(why)
        })?;
        members.push(Member::of_host(inside.id.clone(), Role::Gateway));
    }
    let answer = link
        .post_once("/slices", &spec(wish, members))
        .await
        .map_err(|error| while_doing(format!("reserving slice {}", wish.name), error))?;
    if context.json {
        return json(&answer);
    }
    let slice: Slice = read(&answer, "the slice")?;
    Ok(
        Done::text(pairs(&promise(&slice, context.now))).next(format!(
            "its hosts see it within seconds; on one of them: {} slice show {}",
            context.place.command(),
            wish.name
        )),
    )
}

/// The NICs that are meant; otherwise all names that none has.
pub(crate) fn chosen<'a>(ends: &[End], hosts: &'a [Host]) -> Result<Vec<&'a Host>, Vec<String>> {
    let (mut found, mut strange) = (Vec::new(), Vec::new());
    for end in ends {
        let is_it = |host: &&Host| {
            let spec = &host.spec;
            spec.kind == HostKind::Nic && format!("{}/{}", spec.node, spec.nic) == end.0
        };
        match hosts.iter().find(is_it) {
            Some(host) => found.push(host),
            None => strange.push(end.0.clone()),
        }
    }
    if strange.is_empty() {
        Ok(found)
    } else {
        Err(strange)
    }
}

pub(crate) fn unknown(strange: &[String], context: &Context) -> Failure {
    let why = format!("this domain has no NIC {}", strange.join(" and no NIC "));
    Failure::because(why).or_next(format!(
        "see which there are: {} host list",
        context.place.command()
    ))
}

async fn gateway(name: &Name, link: &Link) -> Result<Gateway, Failure> {
    let answer = link
        .get(&format!("/gateways/{name}"))
        .await
        .map_err(|error| while_doing(format!("asking for gateway {name}"), error))?;
    read(&answer, "the gateway")
}

/// What is sent. Subnets and MTU are the controller's to choose, by what its ends can do.
fn spec(wish: &Wish<'_>, members: Vec<Member>) -> SliceSpec {
    SliceSpec {
        name: wish.name.clone(),
        tenant: wish.tenant.clone(),
        qos: Qos {
            class: wish.class,
            rate_bps: wish.rate.bps(),
            // any number of ends, and each may send to each
            mode: Mode::Hose,
            excess: Excess::default(),
            burst_ms: 10,
        },
        members,
        open: wish.open,
        schedule: wish.schedule,
        path: None,
        addressing: None,
        auto_provision: true,
        commit: true,
        hold_seconds: 120,
        labels: Default::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_node_and_a_nic() {
        for bad in ["", "dtn1", "/data0", "dtn1/", "busan/dtn1/data0"] {
            assert!(bad.parse::<End>().is_err(), "{bad:?}");
        }
        assert_eq!("dtn1/data0".parse(), Ok(End("dtn1/data0".into())));
    }

    #[test]
    fn every_strange_name_is_told_and_pods_are_no_ends() {
        let host = |kind: &str, node: &str| -> Host {
            serde_json::from_value(serde_json::json!({
                "id": "02:00:00:00:00:01-none",
                "spec": {"kind": kind, "node": node, "nic": "data0", "capacity_bps": 1, "mtu": 9000},
                "location": {"device": "edge", "port": 1}, "seen_at": "2027-01-10T06:00:00Z", "version": 1,
            }))
            .unwrap()
        };
        let hosts = [host("nic", "n1"), host("pod", "n2")];
        let ends =
            |names: &[&str]| -> Vec<End> { names.iter().map(|n| n.parse().unwrap()).collect() };
        assert_eq!(chosen(&ends(&["n1/data0"]), &hosts).unwrap(), [&hosts[0]]);
        assert_eq!(
            chosen(&ends(&["n1/data0", "n2/data0", "n1/data9"]), &hosts),
            Err(vec!["n2/data0".to_owned(), "n1/data9".to_owned()])
        );
    }
}
