//! `dtnctl config reload`, `try`, `confirm` and `rollback`: the daemons read again, or try, what
//! stands in the files. A trial is the supervisor's to end: it goes back whether or not this program,
//! its terminal or the way to the machine are still there.

use super::{diff, parts};
use crate::{
    answer::{json, read},
    cli::Context,
    failure::{Done, Failure, Outcome, while_doing},
    place::{CARRY_OUT, Daemon},
    wording::count,
};
use dtn_api::{
    Span,
    layered::{LARGEST, Sources},
    running::{Reloaded, Trial, Try},
};
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

/// Options of `config try`.
#[derive(Debug, clap::Args)]
pub(super) struct Attempt {
    /// The whole file, as it shall stand at /etc/dtn/appliance.toml
    file: PathBuf,
    /// How long it stays without a word: 5s to 1d
    #[arg(long, value_name = "SPAN", default_value = "60s")]
    timeout: Span,
}

const READING: &str = "having the configuration read again";

/// Has both daemons read their configuration again, as far as they run here.
pub(super) async fn reload(context: &Context) -> Outcome {
    let file = super::own_file(context)?;
    let mut text = String::new();
    let mut whole = serde_json::Map::new();
    for part in parts::valid(&Sources::new(&file), &file)? {
        let (name, daemon) = match part {
            parts::Part::Host => ("dtnd", Daemon::Dtnd),
            parts::Part::Domain => ("vdnd", Daemon::Vdnd),
        };
        let link = context.place.connect(daemon, CARRY_OUT)?;
        let answer = link
            .post("/config/reload", &serde_json::json!({}))
            .await
            .map_err(|error| while_doing(format!("{READING} by {name}"), error))?;
        let changed: Reloaded = read(&answer, "what has changed")?;
        text.push_str(&shown(name, &changed));
        whole.insert(name.into(), answer);
    }
    if context.json {
        return json(&whole.into());
    }
    Ok(Done::text(text))
}

fn shown(name: &str, changed: &Reloaded) -> String {
    let all: Vec<_> = changed.applied.iter().chain(&changed.waiting).collect();
    if all.is_empty() {
        return format!("{name}: nothing has changed\n");
    }
    let mut text = format!(
        "{name}: {} in force, {} not yet\n",
        count(changed.applied.len(), "change"),
        changed.waiting.len()
    );
    let mut table = crate::table::Table::new(&["FIELD", "BEFORE", "NOW", "IN FORCE"]);
    for one in all {
        table.row([
            one.path.clone(),
            one.old.clone().unwrap_or_default(),
            one.new.clone().unwrap_or_default(),
            match &one.effect {
                dtn_api::running::Effect::Live => "yes".into(),
                dtn_api::running::Effect::Waits(why) => format!("not yet: {why}"),
            },
        ]);
    }
    text.push_str(&table.print(""));
    for warning in &changed.warnings {
        text.push_str(&format!("{warning}\n"));
    }
    text
}

/// Has the supervisor try a file.
pub(super) async fn attempt(args: &Attempt, context: &Context) -> Outcome {
    let own = super::own_file(context)?;
    let text = text_of(&args.file)?;
    let sources = Sources::new(&own).with_candidate(&args.file);
    parts::valid(&sources, &args.file)?;
    let link = context.place.connect(Daemon::Dtnd, CARRY_OUT)?;
    let body = Try {
        text,
        timeout: args.timeout,
    };
    let answer = link
        .post("/config/trial", &body)
        .await
        .map_err(|error| while_doing(format!("trying {}", args.file.display()), error))?;
    if context.json {
        return json(&answer);
    }
    let trial: Trial = read(&answer, "the trial")?;
    let mut text = shown("dtnd", &trial.changed);
    if let Some(controller) = &trial.controller {
        text.push_str(&format!("vdnd: {controller}\n"));
    }
    let command = context.place.command();
    Ok(Done::text(text).next(format!(
        "{command} config confirm keeps it; without it the file before comes back in {}",
        trial.left
    )))
}

fn text_of(file: &Path) -> Result<String, Failure> {
    let reading = |error: std::io::Error| {
        Failure::from(anyhow::Error::new(error).context(format!("reading {}", file.display())))
    };
    let opened = File::open(file).map_err(reading)?;
    let mut text = String::new();
    opened
        .take(LARGEST + 1)
        .read_to_string(&mut text)
        .map_err(reading)?;
    Ok(text)
}

/// What is tried stays.
pub(super) async fn confirm(context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Dtnd, CARRY_OUT)?;
    let answer = link
        .post("/config/confirm", &serde_json::json!({}))
        .await
        .map_err(|error| while_doing("confirming the configuration on trial", error))?;
    if context.json {
        return json(&answer);
    }
    Ok(Done::text("the configuration that was tried stays\n"))
}

/// What was before comes back now.
pub(super) async fn rollback(context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Dtnd, CARRY_OUT)?;
    link.delete("/config/trial")
        .await
        .map_err(|error| while_doing("taking back the configuration on trial", error))?;
    let status = diff::running(context, parts::Part::Host).await?;
    Ok(Done::text(format!("{} is as it was before\n", status.file)))
}
