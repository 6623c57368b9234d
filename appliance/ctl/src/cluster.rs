//! `dtnctl cluster`: the controllers of Kubernetes clusters in this domain: list, invite, revoke.

use crate::{
    answer::{items, json},
    cli::Context,
    enrolled,
    failure::{Done, Outcome, while_doing},
    invitation::{InviteArgs, invite},
    place::{Daemon, LOOK_UP},
    revocation::{RevokeArgs, revoke},
};
use dtn_api::{domain::InviteKind, node::Node};

/// Options of `cluster`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the clusters whose controllers have joined, with their certificates (the default)
    List,
    /// Invite a cluster's controller into this domain: prints one word for dtn-cluster join
    // it may read what slices there are, and change nothing: NICs and leases are had by the hosts,
    // each with its own certificate
    Invite(InviteArgs),
    /// Keep a cluster's controller out: its certificate opens nothing from then on
    ///
    /// Pods that run go on, and so do their leases: these are the hosts'. New claims are agreed on no
    /// more. To let it in again, invite it anew. The same twice is success.
    Revoke(RevokeArgs),
}

/// Asks the controller on this host.
pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    match args.verb.unwrap_or(Verb::List) {
        Verb::List => list(context).await,
        Verb::Invite(args) => invite(InviteKind::Cluster, &args, context).await,
        Verb::Revoke(args) => revoked(&args, context).await,
    }
}

async fn list(context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Vdnd, LOOK_UP)?;
    let answer = link
        .list("/clusters")
        .await
        .map_err(|error| while_doing("asking for the clusters", error))?;
    if context.json {
        return json(&answer);
    }
    let clusters: Vec<Node> = items(&answer, "the clusters")?;
    let done = Done::text(enrolled::shown("cluster", &clusters, context.now));
    Ok(match clusters.is_empty() {
        true => done.next(format!(
            "invite one: {} cluster invite NAME",
            context.place.command()
        )),
        false => done,
    })
}

async fn revoked(args: &RevokeArgs, context: &Context) -> Outcome {
    let doing = format!("revoking cluster {}", args.name);
    let again = format!(
        "to let it in again: {} cluster invite {}",
        context.place.command(),
        args.name
    );
    revoke("cluster", "/clusters", args, doing, again, context).await
}
