//! `dtnctl domain`: other domains, and how two come to trust each other.

use crate::{
    answer::{items, json, read},
    cli::Context,
    failure::{Done, Failure, Outcome, while_doing},
    invitation::{InvitationArg, InviteArgs, given, invite},
    place::{CARRY_OUT, Daemon, LOOK_UP},
    revocation::{RevokeArgs, revoke},
    table::{Table, pairs},
    wording::{distance, instant, rate},
};
use base64::Engine;
use dtn_api::{
    Name, Rate,
    domain::{Accept, Domain, DomainDocument, InviteKind, PeerState, SignedDocument},
    node::{Keys, Rotate},
};
use jiff::Timestamp;

/// Options of `domain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List them (the default)
    List,
    /// What is known of one: its links and the hosts it lets others talk to
    Show {
        /// Its name
        name: Name,
    },
    /// Invite another domain: prints one word for its admin
    Invite(InviteArgs),
    /// Accept another domain's invitation; both trust each other from then on
    Accept(InvitationArg),
    /// What this domain says of itself to others, signed
    Document,
    /// End the federation with a domain: nothing of it is believed from then on
    ///
    /// The slices that are stitched with it end on both sides: it is told until it has answered. It is
    /// listed as revoked for a day. The same twice is success. On the other side its admin does the
    /// same; until then it sees this domain as degraded.
    Revoke(RevokeArgs),
    /// Change the keys of this domain without a break: its authority and the key of its documents
    ///
    /// New keys are made and told to hosts and federated domains over the ways that they believe
    /// already. Once all of them know the new keys, the old ones are dropped by themselves. Asked
    /// again meanwhile it says who is still waited for. Clusters of Kubernetes and switches over TLS
    /// are given new certificates by hand before that.
    RotateKey {
        /// Do not wait any longer: who does not know the new keys has to join anew
        #[arg(long)]
        finish: bool,
    },
}

/// Asks the controller on this host.
pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    match args.verb.unwrap_or(Verb::List) {
        Verb::List => list(context).await,
        Verb::Show { name } => show(&name, context).await,
        Verb::Invite(args) => invite(InviteKind::Domain, &args, context).await,
        Verb::Accept(arg) => accept(&arg, context).await,
        Verb::Document => document(context).await,
        Verb::Revoke(args) => revoked(&args, context).await,
        Verb::RotateKey { finish } => rotate(finish, context).await,
    }
}

async fn revoked(args: &RevokeArgs, context: &Context) -> Outcome {
    let name = &args.name;
    let doing = format!("ending the federation with {name}");
    let again = format!(
        "tell its admin to do the same there; to federate again: {} domain invite {name}",
        context.place.command()
    );
    revoke("domain", "/domains", args, doing, again, context).await
}

async fn rotate(finish: bool, context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Vdnd, CARRY_OUT)?;
    let answer = link
        .post("/keys/actions/rotate", &Rotate { finish })
        .await
        .map_err(|error| while_doing("changing the keys of the domain", error))?;
    if context.json {
        return json(&answer);
    }
    let keys: Keys = read(&answer, "the keys")?;
    let command = context.place.command();
    let done = Done::text(shown_keys(&keys));
    Ok(match (keys.is_turning(), keys.is_known()) {
        (false, _) => done.next(format!("see who is in the domain: {command} host list")),
        (true, true) => done.next(format!("the old keys go within a moment: {command} domain document")),
        (true, false) => done.next(format!(
            "hosts and domains learn the new keys by themselves; see how far it is: {command} domain \
             rotate-key (--finish waits for nobody)"
        )),
    })
}

fn shown_keys(keys: &Keys) -> String {
    let list = |names: &[Name]| {
        let names: Vec<&str> = names.iter().map(Name::as_str).collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(" ")
        }
    };
    let state = match keys.is_turning() {
        true => format!("generation {} beside {}", keys.signing, keys.shown),
        false => format!("generation {}", keys.shown),
    };
    let mut rows = vec![("keys", state), ("ca pin", keys.ca_pin.clone())];
    if keys.is_turning() {
        rows.push(("hosts to come", list(&keys.hosts)));
        rows.push(("domains to come", list(&keys.domains)));
        rows.push(("clusters to invite", list(&keys.clusters)));
        rows.push(("switches to certify", list(&keys.switches)));
        rows.push(("open invitations", keys.invitations.to_string()));
    }
    pairs(&rows)
}

async fn list(context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Vdnd, LOOK_UP)?;
    let answer = link
        .list("/domains")
        .await
        .map_err(|error| while_doing("asking for the domains", error))?;
    if context.json {
        return json(&answer);
    }
    let domains: Vec<Domain> = items(&answer, "the domains")?;
    let done = Done::text(shown_list(&domains, context.now));
    Ok(if domains.is_empty() {
        done.next(format!(
            "federate with another domain: {} domain invite NAME",
            context.place.command()
        ))
    } else {
        done
    })
}

async fn show(name: &Name, context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Vdnd, LOOK_UP)?;
    let answer = link
        .get(&format!("/domains/{name}"))
        .await
        .map_err(|error| {
            while_doing(format!("asking for domain {name}"), error).or_next(format!(
                "see which there are: {} domain list",
                context.place.command()
            ))
        })?;
    if context.json {
        return json(&answer);
    }
    let domain: Domain = read(&answer, "the domain")?;
    Ok(Done::text(shown(&domain, context.now)))
}

async fn accept(arg: &InvitationArg, context: &Context) -> Outcome {
    let invitation = given(arg, InviteKind::Domain, context)?;
    let by = invitation.domain.clone();
    let link = context.place.connect(Daemon::Vdnd, CARRY_OUT)?;
    context.progress(format_args!("federating with {by} at {}", invitation.url));
    let answer = link
        .post_once("/domains", &Accept { invitation })
        .await
        .map_err(|error| while_doing(format!("accepting the invitation of {by}"), error))?;
    if context.json {
        return json(&answer);
    }
    let domain: Domain = read(&answer, "the domain")?;
    let command = context.place.command();
    Ok(Done::text(shown(&domain, context.now)).next(format!(
        "reserve bandwidth to it: {command} slice reserve NAME --to {by} --for 1h"
    )))
}

async fn document(context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Vdnd, LOOK_UP)?;
    let answer = link
        .get("/domain_document")
        .await
        .map_err(|error| while_doing("asking for the domain document", error))?;
    if context.json {
        return json(&answer);
    }
    let signed: SignedDocument = read(&answer, "the signed document")?;
    let document = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(&signed.payload)
        .map_err(anyhow::Error::new)
        .and_then(|bytes| serde_json::from_slice(&bytes).map_err(anyhow::Error::new))
        .map_err(|error| Failure::from(error.context("reading the signed document")))?;
    Ok(Done::text(shown_document(&document, context.now)))
}

fn state(domain: &Domain) -> &'static str {
    match domain.state {
        PeerState::Up => "up",
        PeerState::Degraded => "DEGRADED",
        PeerState::Revoked => "revoked",
    }
}

fn heard(domain: &Domain, now: Timestamp) -> String {
    domain
        .heard_at
        .map_or_else(|| "never".into(), |at| distance(at, now))
}

fn shown_list(domains: &[Domain], now: Timestamp) -> String {
    let mut table = Table::new(&["DOMAIN", "STATE", "HEARD", "LINKS", "HOSTS", "CONTROLLER"]);
    for domain in domains {
        let document = domain.document.as_ref();
        let number = |count: Option<usize>| count.map(|n| n.to_string()).unwrap_or_default();
        table.row([
            domain.name.to_string(),
            state(domain).into(),
            heard(domain, now),
            number(document.map(|document| document.border_links.len())),
            number(document.map(|document| document.shared_hosts.len())),
            domain.url.clone(),
        ]);
    }
    table.print("no other domain is known")
}

fn shown(domain: &Domain, now: Timestamp) -> String {
    let mut text = pairs(&[
        ("domain", domain.name.to_string()),
        ("controller", domain.url.clone()),
        (
            "state",
            format!("{}, heard {}", state(domain), heard(domain, now)),
        ),
        ("ca pin", domain.ca_pin.clone()),
    ]);
    match &domain.document {
        Some(document) => {
            text.push('\n');
            text.push_str(&shown_document(document, now));
        }
        None => text.push_str("\nno document of it has come yet\n"),
    }
    text
}

fn shown_document(document: &DomainDocument, now: Timestamp) -> String {
    let mut text = pairs(&[
        (
            "document of",
            format!("{}, version {}", document.domain, document.version),
        ),
        ("valid until", instant(document.expires_at, now)),
    ]);
    let mut links = Table::new(&[
        "LINK", "TO", "CARRIES", "FREE OUT", "FREE IN", "LATENCY", "MTU",
    ]);
    for link in &document.border_links {
        links.row([
            link.id.to_string(),
            format!("{} ({} there)", link.peer_domain, link.peer_ref),
            rate(Rate::from_bps(link.capacity_bps)),
            rate(Rate::from_bps(link.reservable_tx_bps)),
            rate(Rate::from_bps(link.reservable_rx_bps)),
            format!("{:.1}ms", link.latency_us as f64 / 1000.0),
            link.mtu.to_string(),
        ]);
    }
    text.push('\n');
    text.push_str(&links.print("no border links"));
    let mut hosts = Table::new(&["ENDPOINT", "SPEED", "MTU", "BEHIND", "HOST"]);
    for host in &document.shared_hosts {
        let behind: Vec<&str> = host.behind.iter().map(Name::as_str).collect();
        hosts.row([
            host.endpoint.clone(),
            rate(Rate::from_bps(host.capacity_bps)),
            host.mtu.to_string(),
            behind.join(" "),
            host.host.to_string(),
        ]);
    }
    text.push('\n');
    text.push_str(&hosts.print("no hosts that others may talk to"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_shown_with_its_links_and_hosts() {
        let domain: Domain = serde_json::from_value(serde_json::json!({
            "name": "busan", "url": "https://192.0.2.2:7443", "ca_pin": "ab".repeat(32),
            "state": "up", "heard_at": "2027-01-10T05:59:52Z", "version": 3,
            "document": {
                "domain": "busan", "version": 7, "issued_at": "2027-01-10T05:50:00Z",
                "expires_at": "2027-01-10T07:00:00Z", "abstraction": "border",
                "border_links": [{
                    "id": "wan", "peer_domain": "daejeon", "peer_ref": "wan",
                    "capacity_bps": 1_000_000_000, "reservable_tx_bps": 950_000_000,
                    "reservable_rx_bps": 350_000_000, "latency_us": 5000, "mtu": 9000
                }],
                "shared_hosts": [{
                    "host": "02:00:5e:10:00:01-none", "endpoint": "dtn-busan/data0",
                    "capacity_bps": 10_000_000_000_u64, "mtu": 9000, "ips": [],
                    "behind": ["wan"]
                }]
            }
        }))
        .unwrap();
        let now = "2027-01-10T06:00:00Z".parse().unwrap();
        insta::assert_snapshot!("domain_show", shown(&domain, now));
        insta::assert_snapshot!("domain_list", shown_list(&[domain], now));
    }

    #[test]
    fn who_is_waited_for_is_named() {
        let keys: Keys = serde_json::from_value(serde_json::json!({
            "shown": 1, "signing": 2, "ca_pin": "ab".repeat(32), "hosts": ["dtn1", "dtn2"],
            "clusters": [], "switches": ["edge1"], "domains": ["busan"], "invitations": 1,
        }))
        .unwrap();
        assert!(!keys.is_known());
        insta::assert_snapshot!("domain_keys", shown_keys(&keys));
    }
}
