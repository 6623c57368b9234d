//! `dtnctl cluster`: how a Kubernetes cluster's controller joins this domain.

use crate::{
    cli::Context,
    failure::Outcome,
    invitation::{InviteArgs, invite},
};
use dtn_api::domain::InviteKind;

/// Options of `cluster`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Invite a cluster's controller into this domain: prints one word for dtn-cluster join
    // it may read what slices there are, and change nothing: NICs and leases are had by the hosts,
    // each with its own certificate
    Invite(InviteArgs),
}

/// Asks the controller on this host.
pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    match args.verb {
        Verb::Invite(args) => invite(InviteKind::Cluster, &args, context).await,
    }
}
