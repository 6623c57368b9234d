//! `dtnctl config check`: what the daemons would say of a configuration, without them. The checks
//! are their own; here they are only called and shown.

use super::parts::{self, Part};
use crate::{
    answer,
    cli::Context,
    failure::{Done, Failure, Outcome},
    table::Table,
    wording::count,
};
use dtn_api::layered::{ConfigProblem, Severity, Sources};
use std::path::PathBuf;

/// Options of `config check`.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The file; this host's /etc/dtn/appliance.toml when absent. Drop-ins are read too: FILE.d/*.toml,
    /// of appliance.toml appliance.d/*.toml
    file: Option<PathBuf>,
    /// The part that has to be in it, instead of those that are
    #[arg(long)]
    kind: Option<Kind>,
    /// Warnings are errors
    #[arg(long)]
    strict: bool,
}

/// Whose part of a configuration it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// The host's, which its supervisor dtnd reads
    Dtnd,
    /// The domain's, which its controller vdnd reads
    Vdnd,
}

pub(super) fn run(check: &Check, context: &Context) -> Outcome {
    let file = match &check.file {
        Some(file) => file.clone(),
        None => super::own_file(context)?,
    };
    let sources = Sources::new(&file);
    let parts = match check.kind {
        Some(Kind::Dtnd) => vec![Part::Host],
        Some(Kind::Vdnd) => vec![Part::Domain],
        None => parts::of(&sources)?,
    };
    let problems = parts::problems(&sources, &parts)?;
    let name = file.display().to_string();
    verdict(&problems, &name, check.strict, context.json)
}

fn verdict(problems: &[ConfigProblem], name: &str, strict: bool, json: bool) -> Outcome {
    let errors = errors(problems);
    let warnings = problems.len() - errors;
    let text = if json {
        let problems = serde_json::to_value(problems).map_err(anyhow::Error::new)?;
        answer::json(&problems)?.out
    } else {
        shown(problems, name)
    };
    if errors > 0 || (strict && warnings > 0) {
        return Err(refused(problems, name).showing(text));
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

fn errors(problems: &[ConfigProblem]) -> usize {
    problems
        .iter()
        .filter(|one| one.severity == Severity::Error)
        .count()
}

/// A configuration that is not taken.
pub(super) fn refused(problems: &[ConfigProblem], name: &str) -> Failure {
    let errors = errors(problems);
    let mut summary = format!("{name}: {}", count(errors, "error"));
    if problems.len() > errors {
        let warnings = count(problems.len() - errors, "warning");
        summary.push_str(&format!(" and {warnings}"));
    }
    Failure::Invalid {
        summary,
        out: shown(problems, name),
    }
}

fn shown(problems: &[ConfigProblem], name: &str) -> String {
    let mut table = Table::new(&["", "FIELD", "PROBLEM", "WHERE"]);
    for one in problems {
        table.row([
            match one.severity {
                Severity::Error => "error".into(),
                Severity::Warning => "warning".into(),
            },
            one.path.clone(),
            one.why.clone(),
            one.place().unwrap_or_default(),
        ]);
    }
    table.print(&format!("{name}: valid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(severity: Severity) -> ConfigProblem {
        ConfigProblem {
            file: Some("/etc/dtn/appliance.toml".into()),
            line: Some(12),
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
    fn a_fault_of_what_both_parts_share_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("appliance.toml");
        let text = "[host]\nname = \"dtn1\"\n[domain]\nname = \"a\"\nnmae = 1\n[surprise]\n";
        std::fs::write(&file, text).unwrap();
        let sources = Sources::new(&file);
        let parts = parts::of(&sources).unwrap();
        assert_eq!(parts, [Part::Host, Part::Domain]);
        let paths: Vec<String> = parts::problems(&sources, &parts)
            .unwrap()
            .into_iter()
            .filter(|one| one.severity == Severity::Error)
            .map(|one| format!("{}:{}", one.path, one.line.unwrap_or(0)))
            .collect();
        assert_eq!(
            paths,
            [
                "surprise:6",
                "version:0",
                "domain.nmae:5",
                "listen.address:0"
            ]
        );
    }
}
