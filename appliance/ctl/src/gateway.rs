//! `dtnctl gateway`: where slices meet an external network, and whether the gateway's host has the
//! access rules that it should.

use crate::{
    answer::{items, json, read},
    cli::Context,
    failure::{Done, Outcome, while_doing},
    place::{Daemon, LOOK_UP},
    table::{Table, pairs},
    wording::{distance, packets},
};
use dtn_api::{
    Name,
    gateway::{Gateway, GatewayReport},
};
use jiff::Timestamp;
use std::fmt::Display;

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
}

/// Asks the controller on this host.
pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    match args.verb.unwrap_or(Verb::List) {
        Verb::List => list(context).await,
        Verb::Show { name } => show(&name, context).await,
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
            "make one: a [[gateway]] in /etc/dtn/dtnd.toml of a host with two NICs, then restart \
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
    Ok(Done::text(shown(&gateway, context.now)).next(next))
}

fn shown(gateway: &Gateway, now: Timestamp) -> String {
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
        lines.extend(reported(report, now));
    }
    pairs(&lines)
}

fn reported(report: &GatewayReport, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        (
            "slices",
            match report.slices.is_empty() {
                true => "none".into(),
                false => words(&report.slices, "\n"),
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

    fn gateways() -> Vec<Gateway> {
        let spec = json!({
            "node": "dtn2", "host": "02:00:5e:10:00:01-none",
            "networks": ["0.0.0.0/0", "::/0"],
            "outside": ["192.0.2.2/24", "2001:db8::2/64"], "nat": true,
        });
        let report = |version: u64| {
            json!({
                "rules_version": version,
                "slices": ["01930000-0000-7000-8000-000000000002"],
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
        let text = [&all[0], &all[2], &all[3]].map(|gateway| shown(gateway, now));
        insta::assert_snapshot!("gateway", text.join("\n"));
    }
}
