//! `dtnctl config check`: what a daemon would say of its configuration, without the daemon. The
//! checks are the daemons' own; here they are only called and shown.

use crate::{
    answer,
    cli::Context,
    failure::{Done, Failure, Outcome},
    table::Table,
    wording::count,
};
use dtnd::config::{ConfigProblem, Severity};
use std::path::{Path, PathBuf};

/// Options of `config`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List every problem of a configuration, with its field
    Check(Check),
}

#[derive(Debug, clap::Args)]
struct Check {
    /// The file; drop-ins are read from FILE.d/. Both of this host when absent
    file: Option<PathBuf>,
    /// Whose it is, where the file's name does not say
    #[arg(long, requires = "file")]
    kind: Option<Kind>,
    /// Warnings are errors
    #[arg(long)]
    strict: bool,
}

/// Whose configuration it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// The supervisor of a host
    Dtnd,
    /// The controller of a domain
    Vdnd,
}

impl Kind {
    fn of(file: &Path) -> Option<Self> {
        let name = file.file_name()?.to_str()?;
        match (name.contains("dtnd"), name.contains("vdnd")) {
            (true, false) => Some(Self::Dtnd),
            (false, true) => Some(Self::Vdnd),
            _ => None,
        }
    }
}

/// Calls the daemons' own checks.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let Verb::Check(check) = &args.verb;
    let files = files(check, context)?;
    let mut problems = Vec::new();
    for (kind, file) in &files {
        problems.extend(checked(*kind, file)?);
    }
    let names: Vec<String> = files
        .iter()
        .map(|(_, file)| file.display().to_string())
        .collect();
    verdict(&problems, &names.join(" and "), check.strict, context.json)
}

fn files(check: &Check, context: &Context) -> Result<Vec<(Kind, PathBuf)>, Failure> {
    if let Some(file) = &check.file {
        let kind = check.kind.or_else(|| Kind::of(file)).ok_or_else(|| {
            Failure::Usage(format!(
                "whose configuration {} is cannot be told from its name: add --kind dtnd or \
                 --kind vdnd",
                file.display()
            ))
        })?;
        return Ok(vec![(kind, file.clone())]);
    }
    let places = [
        (Kind::Dtnd, context.place.below(dtnd::config::DEFAULT_FILE)),
        (Kind::Vdnd, context.place.below(vdnd::config::DEFAULT_FILE)),
    ];
    let (wanted, shown): (Vec<_>, Vec<_>) = places
        .into_iter()
        .map(|(kind, file)| (kind, file.clone(), file.display().to_string()))
        .map(|(kind, file, shown)| ((kind, file), shown))
        .unzip();
    let there: Vec<_> = wanted
        .into_iter()
        .filter(|(_, file)| file.exists())
        .collect();
    if there.is_empty() {
        return Err(Failure::because(format!(
            "there is no configuration: neither {}",
            shown.join(" nor ")
        ))
        .or_next("copy the annotated default there and edit it, or name another file"));
    }
    Ok(there)
}

fn checked(kind: Kind, file: &Path) -> Result<Vec<ConfigProblem>, Failure> {
    let found = match kind {
        Kind::Dtnd => dtnd::config::check_file(file),
        Kind::Vdnd => vdnd::config::check_file(file),
    };
    let mut problems = found.map_err(|error| {
        anyhow::Error::new(error).context(format!("checking {}", file.display()))
    })?;
    for problem in &mut problems {
        let own = || file.display().to_string();
        problem.file.get_or_insert_with(own);
    }
    Ok(problems)
}

fn verdict(problems: &[ConfigProblem], names: &str, strict: bool, json: bool) -> Outcome {
    let errors = problems
        .iter()
        .filter(|one| one.severity == Severity::Error)
        .count();
    let warnings = problems.len() - errors;
    let text = if json {
        let problems = serde_json::to_value(problems).map_err(anyhow::Error::new)?;
        answer::json(&problems)?.out
    } else {
        shown(problems, names)
    };
    if errors > 0 || (strict && warnings > 0) {
        let mut summary = format!("{names}: {}", count(errors, "error"));
        if warnings > 0 {
            summary.push_str(&format!(" and {}", count(warnings, "warning")));
        }
        return Err(Failure::Invalid { summary, out: text });
    }
    let done = Done::text(text);
    Ok(match warnings {
        0 => done,
        number => done.next(format!(
            "{} can be left as it is; --strict refuses it",
            count(number, "warning")
        )),
    })
}

fn shown(problems: &[ConfigProblem], names: &str) -> String {
    let mut table = Table::new(&["", "FIELD", "PROBLEM", "FILE"]);
    for one in problems {
        table.row([
            match one.severity {
                Severity::Error => "error".into(),
                Severity::Warning => "warning".into(),
            },
            one.path.clone(),
            one.why.clone(),
            one.file.clone().unwrap_or_default(),
        ]);
    }
    table.print(&format!("{names}: valid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(severity: Severity) -> ConfigProblem {
        ConfigProblem {
            file: Some("/etc/dtn/dtnd.toml".into()),
            path: "nic[1].speed".into(),
            why: "rate \"10\" is not valid".into(),
            severity,
        }
    }

    #[test]
    fn warnings_pass_unless_they_are_not_wanted() {
        let warning = [problem(Severity::Warning)];
        assert!(verdict(&warning, "x", false, false).is_ok());
        assert_eq!(verdict(&warning, "x", true, false).unwrap_err().code(), 78);
        let both = [problem(Severity::Warning), problem(Severity::Error)];
        let failure = verdict(&both, "x", false, false).unwrap_err();
        assert_eq!(failure.message(), "dtnctl: x: 1 error and 1 warning\n");
        insta::assert_snapshot!("config_problems", failure.out());
        assert_eq!(verdict(&[], "x", true, false).unwrap().out, "x: valid\n");
    }

    #[test]
    fn a_name_says_whose_it_is() {
        for (name, kind) in [
            ("/etc/dtn/dtnd.toml", Some(Kind::Dtnd)),
            ("busan-vdnd.toml", Some(Kind::Vdnd)),
            ("dtnd-vdnd.toml", None),
            ("site.toml", None),
        ] {
            assert_eq!(Kind::of(Path::new(name)), kind, "{name}");
        }
    }
}
