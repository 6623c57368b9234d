//! `dtnctl config`: the admin's file, looked at, compared, tried, and made of the files of before.

mod check;
mod diff;
mod migrate;
mod parts;
mod trial;

use crate::{
    answer,
    cli::Context,
    failure::{Failure, Outcome},
};
use dtn_api::layered;
use std::path::PathBuf;

/// Options of `config`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List every problem of a configuration, with its field and line
    Check(check::Check),
    /// Show what the files say beside what the daemons run with
    Diff(diff::Diff),
    /// Have the daemons read the files again; what can be in force at once is
    Reload,
    /// Put a file in place for a time; what was before comes back unless it is confirmed
    Try(trial::Attempt),
    /// Keep what is on trial
    Confirm,
    /// Take back what is on trial now
    Rollback,
    /// Print the JSON Schema of the file, for editors
    Schema,
    /// Make the one file of the two that there were before
    Migrate,
}

/// Carries out a verb that needs no daemon, or hands back what does.
pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    match args.verb {
        Verb::Check(check) => check::run(&check, context),
        Verb::Diff(diff) => diff::run(&diff, context).await,
        Verb::Reload => trial::reload(context).await,
        Verb::Try(attempt) => trial::attempt(&attempt, context).await,
        Verb::Confirm => trial::confirm(context).await,
        Verb::Rollback => trial::rollback(context).await,
        Verb::Schema => answer::json(&layered::schema(&parts::tables(), &["host", "domain"])),
        Verb::Migrate => migrate::run(context),
    }
}

/// The configuration of this host.
fn own_file(context: &Context) -> Result<PathBuf, Failure> {
    let file = context.place.below(layered::DEFAULT_FILE);
    if file.exists() {
        return Ok(file);
    }
    let folder = context.place.below("/etc/dtn");
    let old = ["dtnd.toml", "vdnd.toml"].map(|name| folder.join(name));
    let next = match old.iter().any(|file| file.exists()) {
        true => "there are files of before it was one: dtnctl config migrate makes it of them",
        false => "copy the annotated reference there and edit it, or name another file",
    };
    Err(Failure::because(format!("there is no configuration at {}", file.display())).or_next(next))
}

/// Every problem of a file, of the parts that it has.
#[cfg(test)]
pub(crate) fn every_problem(
    file: &std::path::Path,
) -> Result<Vec<layered::ConfigProblem>, Failure> {
    let sources = layered::Sources::new(file);
    let parts = parts::of(&sources)?;
    parts::problems(&sources, &parts)
}
