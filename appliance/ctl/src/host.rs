//! `dtnctl host`: the hosts of this domain, and how a host joins it.

use crate::{
    answer::{items, json, read},
    cli::Context,
    enrolled,
    failure::{Done, Outcome, while_doing},
    invitation::{InvitationArg, InviteArgs, given, invite},
    place::{CARRY_OUT, Daemon, LOOK_UP},
    revocation::{RevokeArgs, revoke},
    table::Table,
    wording::{distance, instant, rate},
};
use dtn_api::{
    Rate,
    domain::InviteKind,
    host::{Host, HostKind},
    local::Join,
    node::Node,
    problem::Kind,
};
use jiff::Timestamp;

/// Options of `host`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the NICs and pods that hosts have declared to the controller here (the default)
    List,
    /// Invite a host into this domain: prints one word for its admin
    Invite(InviteArgs),
    /// Join this host to the domain of an invitation
    Join(InvitationArg),
    /// Renew this host's certificate now; it renews itself long before it ends
    Renew,
    /// Take a host out of the domain: its certificate opens nothing from then on
    ///
    /// Its slices end (those that have two other ends go on without it), its addresses are taken back,
    /// its NICs and gateways are forgotten. What its own kernel does with a cable that is still in it
    /// is out of reach: shut its port. To let it in again, invite it anew. The same twice is success.
    Revoke(RevokeArgs),
}

/// Asks the controller on this host; a host joins through its own supervisor.
pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    match args.verb.unwrap_or(Verb::List) {
        Verb::List => list(context).await,
        Verb::Invite(args) => invite(InviteKind::Host, &args, context).await,
        Verb::Join(arg) => join(&arg, context).await,
        Verb::Renew => renew(context).await,
        Verb::Revoke(args) => revoked(&args, context).await,
    }
}

async fn renew(context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Dtnd, CARRY_OUT)?;
    let answer = link
        .post("/renew", &serde_json::json!({}))
        .await
        .map_err(|error| while_doing("renewing this host's certificate", error))?;
    if context.json {
        return json(&answer);
    }
    let node: Node = read(&answer, "the host")?;
    let until = node.certificate_until;
    let until = until.map_or_else(String::new, |at| {
        format!(", good until {}", instant(at, context.now))
    });
    Ok(Done::text(format!(
        "host {} has a new key and certificate{until}\n",
        node.name
    )))
}

async fn revoked(args: &RevokeArgs, context: &Context) -> Outcome {
    let doing = format!("revoking host {}", args.name);
    let again = format!(
        "shut its port where no switch keeps it out; to let it in again: {} host invite {}",
        context.place.command(),
        args.name
    );
    revoke("host", "/nodes", args, doing, again, context).await
}

async fn list(context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Vdnd, LOOK_UP)?;
    let answer = link
        .list("/hosts")
        .await
        .map_err(|error| while_doing("asking for the hosts", error))?;
    if context.json {
        return json(&answer);
    }
    let hosts: Vec<Host> = items(&answer, "the hosts")?;
    let nodes: Vec<Node> = match link.list("/nodes").await {
        Ok(nodes) => items(&nodes, "the certificates of the hosts")?,
        // a controller of before it knew
        Err(error) if error.is(Kind::NotFound) => Vec::new(),
        Err(error) => {
            return Err(while_doing(
                "asking for the certificates of the hosts",
                error,
            ));
        }
    };
    let mut text = shown(&hosts, context.now);
    if !nodes.is_empty() {
        text.push('\n');
        text.push_str(&enrolled::shown("host", &nodes, context.now));
    }
    let done = Done::text(text);
    Ok(if hosts.is_empty() {
        done.next(format!(
            "invite a host: {} host invite NAME",
            context.place.command()
        ))
    } else {
        done
    })
}

async fn join(arg: &InvitationArg, context: &Context) -> Outcome {
    let invitation = given(arg, InviteKind::Host, context)?;
    let (domain, name) = (invitation.domain.clone(), invitation.name.clone());
    let link = context.place.connect(Daemon::Dtnd, CARRY_OUT)?;
    context.progress(format_args!("joining {domain} at {}", invitation.url));
    let answer = link
        .post("/join", &Join { invitation })
        .await
        .map_err(|error| while_doing(format!("joining domain {domain}"), error))?;
    if context.json {
        return json(&answer);
    }
    let command = context.place.command();
    Ok(Done::text(format!("host {name} is in domain {domain}\n"))
        .next(format!("see how it stands: {command} status")))
}

fn shown(hosts: &[Host], now: Timestamp) -> String {
    let mut table = Table::new(&[
        "ENDPOINT",
        "KIND",
        "SPEED",
        "MTU",
        "PORT",
        "OTHERS",
        "SEEN",
        "ADDRESSES",
        "HOST",
    ]);
    for host in hosts {
        let ips: Vec<String> = host.spec.ips.iter().map(ToString::to_string).collect();
        let kind = match host.spec.kind {
            HostKind::Nic => "nic",
            HostKind::Pod => "pod",
        };
        let others = if host.spec.permitted { "may ask" } else { "no" };
        table.row([
            format!("{}/{}", host.spec.node, host.spec.nic),
            kind.into(),
            rate(Rate::from_bps(host.spec.capacity_bps)),
            host.spec.mtu.to_string(),
            format!("{}/{}", host.location.device, host.location.port),
            others.into(),
            distance(host.seen_at, now),
            ips.join(" "),
            host.id.to_string(),
        ]);
    }
    table.print("no hosts have joined")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nics_and_pods_are_told_apart() {
        let host = |kind: &str, mac: &str, ips: &[&str]| {
            serde_json::json!({
                "id": format!("{mac}-none"),
                "spec": {
                    "kind": kind, "node": "dtn1", "nic": "data0",
                    "capacity_bps": 10_000_000_000_u64, "mtu": 9000, "ips": ips,
                    "permitted": kind == "nic",
                },
                "location": {"device": "site-switch", "port": 1},
                "seen_at": "2027-01-10T05:59:52Z", "version": 1,
            })
        };
        let hosts: Vec<Host> = serde_json::from_value(serde_json::json!([
            host("nic", "02:00:5e:10:00:01", &[]),
            host("pod", "02:00:5e:10:00:02", &["10.64.0.2", "fd64::2"]),
        ]))
        .unwrap();
        let now = "2027-01-10T06:00:00Z".parse().unwrap();
        insta::assert_snapshot!(shown(&hosts, now));
    }

    #[test]
    fn revoked_hosts_are_listed_as_that() {
        let now = "2027-01-10T06:00:00Z".parse().unwrap();
        let node = |name: &str, until: Option<&str>, revoked: bool| {
            let mut node = serde_json::json!({
                "name": name, "enrolled_at": "2027-01-01T06:00:00Z",
                "renewed_at": "2027-01-01T06:00:00Z", "certificate_until": until,
                "generation": 1, "authorities": "ab", "now": "2027-01-10T06:00:00Z",
            });
            if revoked {
                node["revoked"] = serde_json::json!({
                    "at": "2027-01-10T05:00:00Z", "by": "admin", "reason": "stolen",
                });
            }
            serde_json::from_value::<Node>(node).unwrap()
        };
        let nodes = [
            node("dtn1", Some("2027-04-01T06:00:00Z"), false),
            node("dtn2", None, true),
            node("dtn3", Some("2027-01-09T06:00:00Z"), false),
            node("dtn4", None, false),
        ];
        insta::assert_snapshot!("host_nodes", enrolled::shown("host", &nodes, now));
    }
}
