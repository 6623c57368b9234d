//! `dtnctl config diff`: what the files say beside what a daemon runs with, or beside the defaults,
//! field by field, and when it would be in force.

use super::parts::{self, Part};
use crate::{
    answer::{self, read},
    cli::Context,
    failure::{Done, Failure, Outcome, while_doing},
    place::{Daemon, LOOK_UP},
    table::Table,
};
use dtn_api::{
    layered::{Sources, differences},
    running::{Difference, Effect, Running, Values},
};
use std::path::PathBuf;

/// Options of `config diff`.
#[derive(Debug, clap::Args)]
pub(super) struct Diff {
    /// A file to look at in the place of this host's /etc/dtn/appliance.toml
    file: Option<PathBuf>,
    /// Beside the defaults, and not beside what the daemons run with
    #[arg(long)]
    defaults: bool,
}

pub(super) async fn run(args: &Diff, context: &Context) -> Outcome {
    compared(args, context)
        .await
        .map_err(Failure::in_a_comparison)
}

async fn compared(args: &Diff, context: &Context) -> Outcome {
    let file = super::own_file(context)?;
    let candidate = |sources: Sources| match &args.file {
        Some(candidate) => sources.with_candidate(candidate),
        None => sources,
    };
    let sources = candidate(Sources::new(&file));
    let shown = args.file.as_ref().unwrap_or(&file);
    let mut found: Vec<Difference> = Vec::new();
    let mut refused = Vec::new();
    for part in parts::valid(&sources, shown)? {
        let (old, sources, waiting) = match args.defaults {
            true => (Values::new(), sources.clone(), Vec::new()),
            false => {
                let running = running(context, part).await?;
                // the daemon has its own command line
                let mut own = candidate(Sources::new(&running.file));
                for setting in &running.settings {
                    let setting = setting.parse().map_err(|why: String| {
                        Failure::because(format!("reading the daemon's command line: {why}"))
                    })?;
                    own = own.with(&[setting]);
                }
                refused.extend(running.refused);
                (running.values, own, running.waiting)
            }
        };
        let new = part
            .values(&sources)
            .map_err(|error| parts::checking(shown, error))?;
        for mut one in differences(&old, &new, part.tables()) {
            // the daemon knows more: what a pod holds
            if let Some(known) = waiting.iter().find(|known| known.path == one.path) {
                one.effect.clone_from(&known.effect);
            }
            if !found.contains(&one) {
                found.push(one);
            }
        }
    }
    if context.json {
        let value = serde_json::to_value(&found).map_err(anyhow::Error::new)?;
        let done = answer::json(&value)?;
        return match found.is_empty() {
            true => Ok(done),
            false => Err(Failure::Differs { out: done.out }),
        };
    }
    if found.is_empty() {
        let beside = match args.defaults {
            true => "the defaults",
            false => "what runs",
        };
        return Ok(Done::text(format!("{} says {beside}\n", shown.display())));
    }
    let heads = match args.defaults {
        true => ["FIELD", "DEFAULT", "FILES", "IN FORCE"],
        false => ["FIELD", "RUNS", "FILES", "IN FORCE"],
    };
    Err(Failure::Differs {
        out: table(&found, heads),
    })
}

/// What a daemon runs with.
pub(super) async fn running(context: &Context, part: Part) -> Result<Running, Failure> {
    let daemon = match part {
        Part::Host => Daemon::Dtnd,
        Part::Domain => Daemon::Vdnd,
    };
    let link = context.place.connect(daemon, LOOK_UP)?;
    let answer = link
        .get("/config")
        .await
        .map_err(|error| while_doing("asking for the configuration that runs", error))?;
    read(&answer, "the configuration that runs")
}

/// Differences for eyes.
pub(super) fn table(found: &[Difference], heads: [&str; 4]) -> String {
    let mut table = Table::new(&heads);
    for one in found {
        table.row([
            one.path.clone(),
            one.old.clone().unwrap_or_default(),
            one.new.clone().unwrap_or_default(),
            match &one.effect {
                Effect::Live => "once read again".into(),
                Effect::Waits(why) => format!("not yet: {why}"),
            },
        ]);
    }
    table.print("no difference")
}
