//! `dtnctl lease`: the addresses that vDHCP gave, on this host or in the whole domain.

use crate::{
    answer::{items, json},
    cli::Context,
    failure::{Done, Outcome, while_doing},
    place::{Daemon, LOOK_UP},
    table::Table,
    wording::distance,
};
use dtn_api::lease::{Lease, LeaseState};
use jiff::Timestamp;

/// Options of `lease`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List them (the default)
    List(List),
}

#[derive(Debug, Clone, Copy, clap::Args)]
struct List {
    /// Those of the whole domain, asked of its controller on this host
    #[arg(long)]
    domain: bool,
}

/// Asks the supervisor, or the controller for the domain.
pub(crate) async fn run(args: &Args, context: &Context) -> Outcome {
    let list = match &args.verb {
        Some(Verb::List(list)) => *list,
        None => args.list,
    };
    let daemon = match list.domain {
        true => Daemon::Vdnd,
        false => Daemon::Dtnd,
    };
    let link = context.place.connect(daemon, LOOK_UP)?;
    let answer = link
        .list("/leases")
        .await
        .map_err(|error| while_doing("asking for the leases", error))?;
    if context.json {
        return json(&answer);
    }
    let leases: Vec<Lease> = items(&answer, "the leases")?;
    Ok(Done::text(shown(&leases, context.now)))
}

fn shown(leases: &[Lease], now: Timestamp) -> String {
    let mut table = Table::new(&[
        "CLIENT",
        "ADDRESSES",
        "MTU",
        "STATE",
        "RENEWED",
        "EXPIRES",
        "SLICE",
    ]);
    for lease in leases {
        let ips: Vec<String> = lease.ips.iter().map(ToString::to_string).collect();
        let state = match lease.state {
            LeaseState::Bound => "bound",
            LeaseState::Quarantined => "quarantined",
            LeaseState::Released => "released",
        };
        table.row([
            lease.client_id.clone(),
            ips.join(" "),
            lease.mtu.to_string(),
            state.into(),
            // T1: from here on the client renews (RFC 2131 §4.4.5)
            distance(lease.t1, now),
            distance(lease.expires_at, now),
            lease.slice_id.to_string(),
        ]);
    }
    table.print("no leases")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_families_stand_in_one_line() {
        let leases: Vec<Lease> = serde_json::from_value(json!([{
            "id": "01930000-0000-7000-8000-000000000001",
            "slice_id": "01930000-0000-7000-8000-000000000002",
            "client_id": "podman:dtn1/3f9c/net1", "mac": "02:00:5e:10:00:01",
            "ips": ["10.64.0.2/24", "fd64::2/64"], "mtu": 9000,
            "t1": "2027-01-10T06:30:00Z", "t2": "2027-01-10T06:52:30Z",
            "expires_at": "2027-01-10T07:00:00Z", "state": "bound", "version": 1,
        }]))
        .unwrap();
        let now = "2027-01-10T06:00:00Z".parse().unwrap();
        insta::assert_snapshot!(shown(&leases, now));
    }
}
