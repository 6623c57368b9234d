//! `dtnctl gateway`: where slices meet an external network, and whether the gateway's host has the
//! access rules that it should.

use crate::{
    answer::{items, json, read},
    cli::Context,
    failure::{Done, Outcome, while_doing},
    place::{CARRY_OUT, Daemon, LOOK_UP},
    table::{Table, pairs},
    wording::{distance, packets},
};
use dtn_api::{
    Name,
    gateway::{Gateway, GatewayReport},
    problem::Kind,
    slice::Slice,
};
use jiff::Timestamp;
use std::{collections::BTreeMap, fmt::Display};
use uuid::Uuid;

/// A host that declares its gateway still has said so within this time, in seconds: it is written
/// down once a minute.
const DECLARED: i64 = 120;

/// Options of `gateway`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List them (the default)
    List,
    /// One gateway: what it reaches, its slices, its rules, what it dropped
    Show {
        /// Its name
        name: Name,
    },
    /// Forget one that no slice has, with its access rules
    #[command(alias = "remove")]
    Delete {
        /// Its name
        name: Name,
    },
}

/// Asks the controller on this host.
pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    match args.verb.unwrap_or(Verb::List) {
        Verb::List => list(context).await,
        Verb::Show { name } => show(&name, context).await,
        Verb::Delete { name } => delete(&name, context).await,
    }
}

async fn list(context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Vdnd, LOOK_UP)?;
    let answer = link
        .list("/gateways")
        .await
        .map_err(|error| while_doing("asking for the gateways", error))?;
    if context.json {
        return json(&answer);
    }
    let gateways: Vec<Gateway> = items(&answer, "the gateways")?;
    let done = Done::text(shown_list(&gateways));
    let command = context.place.command();
    let unwell = gateways
        .iter()
        .find(|gateway| gateway.report.as_ref().is_none_or(|r| r.trouble.is_some()));
    Ok(match (gateways.first(), unwell) {
        (None, _) => done.next(
            "make one: a [[gateway]] in /etc/dtn/appliance.toml of a host with two NICs, then restart \
             its dtnd",
        ),
        (_, Some(unwell)) => done.next(format!(
            "see what keeps it: {command} gateway show {}",
            unwell.name
        )),
        (Some(first), None) => done.next(format!(
            "see who may pass: {command} access list {}",
            first.name
        )),
    })
}

fn shown_list(gateways: &[Gateway]) -> String {
    let mut table = Table::new(&["GATEWAY", "NODE", "NETWORKS", "NAT", "SLICES", "RULES"]);
    for gateway in gateways {
        let report = gateway.report.as_ref();
        table.row([
            gateway.name.to_string(),
            gateway.spec.node.to_string(),
            words(&gateway.spec.networks, " "),
            if gateway.spec.nat { "yes" } else { "no" }.into(),
            report.map_or_else(
                || "not reported".into(),
                |report| report.slices.len().to_string(),
            ),
            standing(gateway),
        ]);
    }
    table.print("no gateways: slices of this domain reach no external network")
}

async fn show(name: &Name, context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Vdnd, LOOK_UP)?;
    let command = context.place.command();
    let answer = link
        .get(&format!("/gateways/{name}"))
        .await
        .map_err(|error| {
            while_doing(format!("asking for gateway {name}"), error)
                .or_next(format!("see which there are: {command} gateway list"))
        })?;
    if context.json {
        return json(&answer);
    }
    let gateway: Gateway = read(&answer, "the gateway")?;
    let mut named = Named::new();
    if gateway
        .report
        .as_ref()
        .is_some_and(|r| !r.slices.is_empty())
    {
        let answer = link.list("/slices").await;
        let answer = answer.map_err(|error| while_doing("asking for the slices", error))?;
        let slices: Vec<Slice> = items(&answer, "the slices")?;
        named.extend(slices.into_iter().map(|slice| (slice.id, slice.spec.name)));
    }
    let next = match &gateway.report {
        None => format!(
            "its host {node} says nothing of it: on {node}, dtnctl status",
            node = gateway.spec.node
        ),
        Some(report) => match &report.trouble {
            Some(trouble) => format!("on {}: {trouble}", gateway.spec.node),
            None if report.slices.is_empty() => {
                format!("reserve a slice with it: {command} slice reserve NAME --gateway {name}")
            }
            None => format!("see who may pass: {command} access list {name}"),
        },
    };
    Ok(Done::text(shown(&gateway, &named, context.now)).next(next))
}

async fn delete(name: &Name, context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Vdnd, CARRY_OUT)?;
    let command = context.place.command();
    let path = format!("/gateways/{name}");
    // who declares it is not known any more once it is gone
    let gateway: Gateway = match link.get(&path).await {
        Ok(answer) => read(&answer, "the gateway")?,
        Err(error) if error.is(Kind::NotFound) => {
            return Ok(Done::text(format!(
                "there is no gateway {name}: nothing was left to delete\n"
            )));
        }
        Err(error) => return Err(while_doing(format!("asking for gateway {name}"), error)),
    };
    link.delete(&path).await.map_err(|error| {
        let has_slices = error.is(Kind::StateConflict);
        let failure = while_doing(format!("deleting gateway {name}"), error);
        match has_slices {
            true => failure.or_next(format!(
                "end a slice where it was reserved: {command} slice release NAME"
            )),
            false => failure,
        }
    })?;
    let done = Done::text(format!(
        "gateway {name} is deleted, and its access rules with it\n"
    ));
    Ok(match comes_back(&gateway, context.now) {
        Some(next) => done.next(next),
        None => done,
    })
}

/// What is to be done about a host that will declare a deleted gateway again.
fn comes_back(gateway: &Gateway, now: Timestamp) -> Option<String> {
    let Gateway { name, spec, .. } = gateway;
    (now.duration_since(gateway.seen_at).as_secs() <= DECLARED).then(|| {
        format!(
            "its host declared it {}, and makes it again, without access rules, as long as it has \
             it: on {}, take the [[gateway]] {name} out of /etc/dtn/appliance.toml and reload dtnd, \
             then delete it once more",
            distance(gateway.seen_at, now),
            spec.node
        )
    })
}

/// The names of slices by their ids.
type Named = BTreeMap<Uuid, Name>;

fn shown(gateway: &Gateway, named: &Named, now: Timestamp) -> String {
    let spec = &gateway.spec;
    let mut lines = vec![
        ("gateway", gateway.name.to_string()),
        ("node", spec.node.to_string()),
        ("host", spec.host.to_string()),
        ("networks", words(&spec.networks, "\n")),
        ("addresses", words(&spec.outside, "\n")),
        (
            "nat",
            match spec.nat {
                true => "yes: members are seen from outside with its addresses".into(),
                false => "no: members are seen from outside with their own addresses".into(),
            },
        ),
        ("seen", distance(gateway.seen_at, now)),
        ("rules", standing(gateway)),
    ];
    if let Some(report) = &gateway.report {
        lines.extend(reported(report, named, now));
    }
    pairs(&lines)
}

fn reported(report: &GatewayReport, named: &Named, now: Timestamp) -> Vec<(&'static str, String)> {
    let slice = |id: &Uuid| match named.get(id) {
        Some(name) => format!("{name} ({id})"),
        None => format!("{id}, which the controller does not know"),
    };
    let slices: Vec<String> = report.slices.iter().map(slice).collect();
    let mut lines = vec![
        (
            "slices",
            match slices.as_slice() {
                [] => "none".into(),
                slices => slices.join("\n"),
            },
        ),
        ("denied out", packets(report.denied_outbound)),
        ("denied in", packets(report.denied_inbound)),
        ("read", distance(report.read_at, now)),
    ];
    if let Some(trouble) = &report.trouble {
        lines.push(("trouble", trouble.clone()));
    }
    lines
}

/// The version of the rules, and whether the kernel of its host has it.
fn standing(gateway: &Gateway) -> String {
    let version = gateway.rules_version;
    match &gateway.report {
        None => format!("version {version}, not reported by its host"),
        Some(report) if report.trouble.is_some() => {
            format!(
                "version {version}, its host has {}: IN TROUBLE",
                report.rules_version
            )
        }
        Some(report) if report.rules_version == version => {
            format!("version {version}, as its host has")
        }
        Some(report) => format!(
            "version {version}, its host still has {}",
            report.rules_version
        ),
    }
}

fn words(items: &[impl Display], between: &str) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(between)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const WEB: &str = "01930000-0000-7000-8000-000000000002";

    fn gateways() -> Vec<Gateway> {
        let spec = json!({
            "node": "dtn2", "host": "02:00:5e:10:00:01-none",
            "networks": ["0.0.0.0/0", "::/0"],
            "outside": ["192.0.2.2/24", "2001:db8::2/64"], "nat": true,
        });
        let report = |version: u64| {
            json!({
                "rules_version": version,
                "slices": [WEB, "01930000-0000-7000-8000-000000000003"],
                "rules": {"100": {"packets": 7, "bytes": 700}},
                "denied_outbound": {"packets": 2, "bytes": 120},
                "denied_inbound": {"packets": 1, "bytes": 60},
                "read_at": "2027-01-10T05:59:58Z",
            })
        };
        let gateway = |name: &str, report: serde_json::Value| {
            json!({
                "name": name, "spec": spec, "rules_version": 4, "report": report,
                "seen_at": "2027-01-10T05:59:50Z", "version": 2,
            })
        };
        let mut unwell = report(4);
        unwell["trouble"] = json!("NIC ext0 has no carrier");
        serde_json::from_value(json!([
            gateway("internet", report(4)),
            gateway("late", report(3)),
            gateway("new", json!(null)),
            gateway("unwell", unwell),
        ]))
        .unwrap()
    }

    #[test]
    fn a_list_says_whether_each_host_has_the_newest_rules() {
        insta::assert_snapshot!("gateways", shown_list(&gateways()));
    }

    #[test]
    fn one_gateway_is_shown_with_what_it_dropped() {
        let now = "2027-01-10T06:00:00Z".parse().unwrap();
        let all = gateways();
        let named = Named::from([(WEB.parse().unwrap(), "web".parse().unwrap())]);
        let text = [&all[0], &all[2], &all[3]].map(|gateway| shown(gateway, &named, now));
        insta::assert_snapshot!("gateway", text.join("\n"));
    }

    #[test]
    fn a_gateway_that_its_host_has_not_declared_for_long_does_not_come_back() {
        let all = gateways();
        let soon = all[0].seen_at + jiff::SignedDuration::from_secs(119);
        let next = comes_back(&all[0], soon).unwrap();
        for words in ["1m59s ago", "on dtn2", "[[gateway]] internet"] {
            assert!(next.contains(words), "{words}: {next}");
        }
        let late = soon + jiff::SignedDuration::from_secs(2);
        assert_eq!(comes_back(&all[0], late), None);
    }
}
