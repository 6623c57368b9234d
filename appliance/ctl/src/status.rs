//! `dtnctl status`: how this host stands, check by check, and what to do next.

use crate::{
    answer::{json, read},
    cli::Context,
    failure::{Done, Failure, Outcome, while_doing},
    place::{Daemon, LOOK_UP},
    table::{Table, pairs},
    wording::{count, distance},
};
use dtn_api::local::Status;
use jiff::Timestamp;

/// Options of `status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Exit with 1 unless every check holds, for scripts
    #[arg(long)]
    check: bool,
}

/// Asks the supervisor.
pub(crate) async fn run(args: &Args, context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Dtnd, LOOK_UP)?;
    let answer = link
        .get("/status")
        .await
        .map_err(|error| while_doing("asking for the status", error))?;
    let mut status: Status = read(&answer, "the status")?;
    // the daemon does not know by which options it is reached
    status.next = status
        .next
        .replace("dtnctl ", &format!("{} ", context.place.command()));
    if args.check && !status.ready {
        let failing: Vec<&str> = status
            .checks
            .iter()
            .filter(|check| !check.ok)
            .map(|check| check.name.as_str())
            .collect();
        return Err(Failure::because(format!(
            "host {} is not ready: {}",
            status.host,
            failing.join(", ")
        ))
        .or_next(status.next));
    }
    if context.json {
        return json(&answer);
    }
    let done = Done::text(shown(&status, context.now));
    Ok(if status.next.is_empty() {
        done
    } else {
        done.next(status.next)
    })
}

fn shown(status: &Status, now: Timestamp) -> String {
    let domain = status
        .domain
        .as_ref()
        .map_or_else(|| "none yet".to_owned(), |domain| domain.to_string());
    let failing = status.checks.iter().filter(|check| !check.ok).count();
    let ready = match (status.ready, failing) {
        (true, _) => "yes".to_owned(),
        (false, 0) => "no".to_owned(),
        (false, failing) => format!("no: {} below", count(failing, "failing check")),
    };
    let counts: Vec<String> = status
        .counts
        .iter()
        .map(|(noun, number)| match noun.replace('_', " ") {
            // the contract's names are plurals
            noun if *number == 1 => format!("1 {}", noun.trim_end_matches('s')),
            noun => format!("{number} {noun}"),
        })
        .collect();
    let mut text = pairs(&[
        ("host", status.host.to_string()),
        ("domain", domain),
        ("ready", ready),
        (
            "dtnd",
            format!(
                "{}, started {}",
                status.version,
                distance(status.started_at, now)
            ),
        ),
        ("has", counts.join(", ")),
    ]);
    let mut table = Table::new(&["CHECK", "WELL", "DETAIL"]);
    for check in &status.checks {
        let well = if check.ok { "yes" } else { "NO" };
        table.row([check.name.clone(), well.into(), check.detail.clone()]);
    }
    text.push('\n');
    text.push_str(&table.print("no checks"));
    text
}
