//! `dtnctl slice`: slices as this host sees them, and their life: reserve, extend, release.

use crate::{
    answer::{items, json, read},
    cli::Context,
    failure::{Done, Failure, Outcome, while_doing},
    joining,
    place::{CARRY_OUT, Daemon, LOOK_UP},
    reserve,
    table::{Table, pairs},
    wording::{distance, instant, rate},
};
use dtn_api::{
    Name, Rate, Span,
    client::ClientError,
    local::{ExtendRequest, LocalSlice},
    problem::Kind,
    slice::{DataPlane, Lifecycle, Provision, Reservation, Slice},
};
use jiff::Timestamp;
use uuid::Uuid;

/// Options of `slice`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List them (the default)
    List,
    /// One slice: its promise, its window, what enforces it
    Show {
        /// Its name
        name: Name,
    },
    /// Ask for one; what was offered and taken is shown
    Reserve(Box<reserve::Args>),
    /// Where a negotiation stands that was not followed
    Negotiation {
        /// As `slice reserve --detach` showed it
        id: Uuid,
    },
    /// Let it end later, on both sides when it is stitched
    Extend {
        /// Its name
        name: Name,
        /// How much longer
        #[arg(long, value_name = "SPAN")]
        by: Span,
    },
    /// Let another NIC of the domain in, under the same booking; asked on the controller's host
    Join(joining::Args),
    /// Take a NIC out that has no pod in it; asked on the controller's host
    Leave(joining::Args),
    /// End it now, on both sides when it is stitched
    #[command(alias = "delete")]
    Release {
        /// Its name
        name: Name,
    },
}

/// Asks the supervisor.
pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    match args.verb.unwrap_or(Verb::List) {
        Verb::List => list(context).await,
        Verb::Show { name } => show(&name, context).await,
        Verb::Reserve(args) => reserve::run(&args, context).await,
        Verb::Negotiation { id } => reserve::negotiation(id, context).await,
        Verb::Extend { name, by } => extend(&name, by, context).await,
        Verb::Join(args) => joining::join(&args, context).await,
        Verb::Leave(args) => joining::leave(&args, context).await,
        Verb::Release { name } => release(&name, context).await,
    }
}

async fn list(context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Dtnd, LOOK_UP)?;
    let answer = link
        .list("/slices")
        .await
        .map_err(|error| while_doing("asking for the slices", error))?;
    if context.json {
        return json(&answer);
    }
    let slices: Vec<LocalSlice> = items(&answer, "the slices")?;
    let command = context.place.command();
    let done = Done::text(shown_list(&slices, context.now));
    Ok(
        match slices
            .iter()
            .find_map(|local| Some((local, local.warning.as_ref()?)))
        {
            None if slices.is_empty() => done.next(format!(
                "reserve one: {command} slice reserve NAME --to DOMAIN --for 1h"
            )),
            None => done,
            Some((local, warning)) => done.next(format!(
                "slice {}: {warning}; to extend it: {command} slice extend {} --by 1h",
                local.slice.spec.name, local.slice.spec.name
            )),
        },
    )
}

async fn show(name: &Name, context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Dtnd, LOOK_UP)?;
    let answer = link
        .get(&format!("/slices/{name}"))
        .await
        .map_err(|error| unknown(format!("asking for slice {name}"), error, context))?;
    if context.json {
        return json(&answer);
    }
    let slice: LocalSlice = read(&answer, "the slice")?;
    Ok(Done::text(shown(&slice, context.now)))
}

async fn extend(name: &Name, by: Span, context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Dtnd, CARRY_OUT)?;
    link.post(&format!("/slices/{name}/extend"), &ExtendRequest { by })
        .await
        .map_err(|error| unknown(format!("extending slice {name} by {by}"), error, context))?;
    // read back, so that the new end is the controller's word and not ours
    show(name, context).await
}

async fn release(name: &Name, context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Dtnd, CARRY_OUT)?;
    match link.delete(&format!("/slices/{name}")).await {
        Ok(()) => Ok(Done::text(format!("slice {name} is released\n"))),
        Err(error) if error.is(Kind::NotFound) => Ok(Done::text(format!(
            "there is no slice {name}: nothing was left to release\n"
        ))),
        Err(error) => Err(while_doing(format!("releasing slice {name}"), error)),
    }
}

fn unknown(doing: String, error: ClientError, context: &Context) -> Failure {
    let missing = error.is(Kind::NotFound);
    let failure = while_doing(doing, error);
    match missing {
        true => failure.or_next(format!(
            "see which there are: {} slice list",
            context.place.command()
        )),
        false => failure,
    }
}

/// How a slice stands, in one word and, where it is not well, the reason.
pub(crate) fn standing(slice: &Slice) -> String {
    let status = &slice.status;
    let word = match (status.lifecycle, status.reservation, status.provision) {
        (Lifecycle::Terminated, ..) => "ended",
        (Lifecycle::PassedEndTime, ..) => "over",
        (_, Reservation::Held, _) => "held",
        (_, Reservation::TimedOut, _) => "timed out",
        (_, Reservation::Aborted, _) => "aborted",
        (_, Reservation::Committed, Provision::Released) => "committed",
        (_, Reservation::Committed, Provision::Provisioned) => match status.data_plane {
            DataPlane::Deactivated => "committed",
            DataPlane::Activating => "activating",
            DataPlane::Active => "active",
            DataPlane::Degraded => "DEGRADED",
            DataPlane::ActivateFailed => "FAILED",
        },
    };
    let unwell = matches!(word, "activating" | "DEGRADED" | "FAILED");
    let reason = status
        .conditions
        .iter()
        .find(|condition| unwell && !condition.status && !condition.reason.is_empty());
    match reason {
        Some(condition) => format!("{word}: {}", condition.reason),
        None => word.to_owned(),
    }
}

fn shown_list(slices: &[LocalSlice], now: Timestamp) -> String {
    let mut table = Table::new(&[
        "SLICE",
        "CLASS",
        "RATE",
        "TCP",
        "STARTS",
        "ENDS",
        "PACED HERE",
        "STANDS",
    ]);
    for local in slices {
        let spec = &local.slice.spec;
        let paced: Vec<String> = local
            .paced
            .iter()
            .map(|one| format!("{}:{}", one.pod, one.ifname))
            .collect();
        table.row([
            spec.name.to_string(),
            spec.qos.class.to_string(),
            rate(Rate::from_bps(spec.qos.rate_bps)),
            rate(local.ceiling),
            distance(spec.schedule.start, now),
            distance(spec.schedule.end, now),
            paced.join(" "),
            standing(&local.slice),
        ]);
    }
    table.print("no slices")
}

/// What a slice promises and how it stands.
pub(crate) fn promise(slice: &Slice, now: Timestamp) -> Vec<(&'static str, String)> {
    let spec = &slice.spec;
    let addresses = spec.addressing.as_ref().map(|all| {
        let pools = [all.ipv4.as_ref(), all.ipv6.as_ref()];
        let nets = pools
            .into_iter()
            .flatten()
            .map(|pool| pool.cidr.to_string());
        format!(
            "{}, MTU {}",
            nets.collect::<Vec<_>>().join(" and "),
            all.mtu
        )
    });
    vec![
        ("slice", spec.name.to_string()),
        ("id", slice.id.to_string()),
        ("tenant", spec.tenant.to_string()),
        ("class", spec.qos.class.to_string()),
        ("rate", Rate::from_bps(spec.qos.rate_bps).to_string()),
        ("starts", instant(spec.schedule.start, now)),
        ("ends", instant(spec.schedule.end, now)),
        ("stands", standing(slice)),
        ("addresses", addresses.unwrap_or_else(|| "-".into())),
        ("links", slice.status.links.join("\n")),
    ]
}

fn shown(local: &LocalSlice, now: Timestamp) -> String {
    let slice = &local.slice;
    let mut rows = promise(slice, now);
    let carries = format!("{} of TCP payload over IPv4", rate(local.ceiling));
    rows.insert(5, ("carries", carries));
    if let Some(stitch) = slice.stitch {
        rows.push(("stitch", stitch.to_string()));
    }
    if let Some(warning) = &local.warning {
        rows.push(("WARNING", warning.clone()));
    }
    let mut text = pairs(&rows);
    let mut paced = Table::new(&["POD", "INTERFACE", "PACED TO", "BY"]);
    for one in &local.paced {
        paced.row([
            one.pod.clone(),
            one.ifname.to_string(),
            one.rate.map_or_else(|| "NOT PACED".into(), rate),
            one.by.clone(),
        ]);
    }
    text.push('\n');
    text.push_str(&paced.print("no pod of this host is in it"));
    if !slice.status.conditions.is_empty() {
        let mut table = Table::new(&["CONDITION", "HOLDS", "REASON"]);
        for condition in &slice.status.conditions {
            let holds = if condition.status { "yes" } else { "NO" };
            table.row([
                condition.kind.clone(),
                holds.into(),
                condition.reason.clone(),
            ]);
        }
        text.push('\n');
        text.push_str(&table.print(""));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn local() -> LocalSlice {
        serde_json::from_value(json!({
            "slice": {
                "id": "01930000-0000-7000-8000-000000000002",
                "spec": {
                    "name": "lhc", "tenant": "default",
                    "qos": {"class": "guaranteed", "rate_bps": 600_000_000},
                    "members": [], "hold_seconds": 120,
                    "schedule": {"start": "2027-01-10T06:00:00Z", "end": "2027-01-10T08:00:00Z"},
                    "addressing": {
                        "ipv4": {"cidr": "10.64.0.0/24"}, "ipv6": {"cidr": "fd64::/64"},
                        "mtu": 9000,
                    },
                },
                "status": {
                    "reservation": "committed", "provision": "provisioned",
                    "lifecycle": "created", "data_plane": "activating", "generation": 1,
                    "observed_generation": 0,
                    "links": ["nic-02:00:5e:10:00:01>site-switch", "site-switch>wan"],
                    "conditions": [
                        {"type": "Admitted", "status": true},
                        {"type": "SenderShaped", "status": false, "reason": "no pod yet"},
                    ],
                },
                "stitch": "01930000-0000-7000-8000-000000000003",
                "version": 3, "created_at": "2027-01-10T05:59:00Z",
            },
            "ceiling": "595606833bit",
            "paced": [{"pod": "mover", "ifname": "net1", "rate": "600Mbit", "by": "htb, pfifo"}],
            "warning": "it ends in 5m",
        }))
        .unwrap()
    }

    #[test]
    fn a_slice_is_shown_with_what_enforces_it() {
        let now = "2027-01-10T07:55:00Z".parse().unwrap();
        insta::assert_snapshot!("slice_show", shown(&local(), now));
        insta::assert_snapshot!("slice_list", shown_list(&[local()], now));
    }

    #[test]
    fn standing_is_one_word_when_all_is_well() {
        let mut slice = local().slice;
        assert_eq!(standing(&slice), "activating: no pod yet");
        slice.status.data_plane = DataPlane::Active;
        assert_eq!(standing(&slice), "active");
        slice.status.lifecycle = Lifecycle::PassedEndTime;
        assert_eq!(standing(&slice), "over");
    }
}
