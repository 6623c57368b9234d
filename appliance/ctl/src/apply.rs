//! `dtnctl access apply`: a whole file of access rules in place of those that a gateway has. All of
//! it or nothing, and only if nobody else has changed them meanwhile.

use crate::{
    answer::{self, read},
    cli::Context,
    failure::{Done, Failure, Outcome, while_doing},
    place::{CARRY_OUT, Daemon},
    rule_file::{self, Wrong},
    rules::line,
    table::Table,
    wording::{count, quoted},
};
use dtn_api::{
    Name,
    client::ClientError,
    gateway::{AccessRule, AccessRules, StandingRules},
    problem::Kind,
};
use std::{collections::BTreeMap, io::Read};

/// Options of `access apply`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the gateway
    gateway: Name,
    /// The file of rules, TOML; - is stdin
    file: String,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    /// Only in place of the rules of this version, as access list says it
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
}

/// Asks the controller on this host.
pub(crate) async fn run(args: &Args, context: &Context) -> Outcome {
    let Args { gateway, file, .. } = args;
    let name = if file == "-" { "stdin" } else { file };
    let text = text(file)?;
    let wanted = rule_file::read(&text).map_err(|wrong| invalid(&wrong, name, context))?;

    let link = context.place.connect(Daemon::Vdnd, CARRY_OUT)?;
    let path = format!("/gateways/{gateway}/access_rules");
    let answer = link.get(&path).await.map_err(|error| {
        let command = context.place.command();
        while_doing(
            format!("asking for the access rules of gateway {gateway}"),
            error,
        )
        .or_next(format!("see which there are: {command} gateway list"))
    })?;
    let now: StandingRules = read(&answer, "the access rules")?;
    let body = AccessRules {
        items: wanted,
        version: now.version,
    };
    let query = if args.dry_run { "?dry_run=true" } else { "" };
    let answer = link
        .put(
            &format!("{path}{query}"),
            Some(args.if_version.unwrap_or(now.version)),
            &body,
        )
        .await
        .map_err(|error| refused(error, body.items.len(), name, args, context))?;
    if context.json {
        return answer::json(&answer);
    }
    let had: Vec<AccessRule> = now.items.into_iter().map(|item| item.rule).collect();
    let changes = changes(&had, &body.items);
    let command = context.place.command();
    let done = Done::text(changes.text);
    Ok(match (changes.any, args.dry_run) {
        (false, _) => done,
        // what was looked at is what is replaced
        (true, true) => done.next(format!(
            "nothing was changed; to change it: {command} access apply {gateway} {} --if-version {}",
            quoted(file),
            now.version
        )),
        (true, false) => done.next(format!(
            "see whether its host has them: {command} gateway show {gateway}"
        )),
    })
}

fn text(file: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read = match file {
        "-" => std::io::stdin().read_to_string(&mut text).map(|_| text),
        _ => std::fs::read_to_string(file),
    };
    read.map_err(|error| {
        anyhow::Error::new(error)
            .context(format!("reading access rules from {file}"))
            .into()
    })
}

/// A file that is wrong, with every problem.
fn invalid(wrong: &[Wrong], name: &str, context: &Context) -> Failure {
    let out = if context.json {
        serde_json::to_string_pretty(wrong).map(|text| text + "\n")
    } else {
        let mut table = Table::new(&["FIELD", "PROBLEM"]);
        for one in wrong {
            // what the parser of TOML says has several lines
            let mut lines = one.why.lines();
            table.row([
                one.path.clone(),
                lines.next().unwrap_or_default().to_owned(),
            ]);
            for line in lines {
                table.row([" ".to_owned(), line.to_owned()]);
            }
        }
        Ok(table.print(""))
    };
    match out {
        Ok(out) => Failure::Invalid {
            out,
            summary: format!(
                "{name}: {}; nothing was changed",
                count(wrong.len(), "problem")
            ),
        },
        Err(error) => anyhow::Error::new(error)
            .context("writing the problems as json")
            .into(),
    }
}

/// What the controller alone can find, as what its fabric cannot do, is told by the file's words.
fn refused(
    error: ClientError,
    rules: usize,
    name: &str,
    args: &Args,
    context: &Context,
) -> Failure {
    let gateway = &args.gateway;
    if let Some(problem) = error.problem() {
        if problem
            .errors
            .iter()
            .any(|e| e.pointer.starts_with("/items"))
        {
            let places: Vec<usize> = (0..rules).collect();
            return invalid(&rule_file::of_problem(problem, &places), name, context);
        }
        if problem.is(Kind::VersionMismatch) {
            return while_doing(
                format!("replacing the access rules of gateway {gateway}"),
                error,
            )
            .or_next(format!(
                "somebody else changed them meanwhile: look at them, then apply again: {} access \
                 list {gateway}",
                context.place.command()
            ));
        }
    }
    while_doing(
        format!("replacing the access rules of gateway {gateway}"),
        error,
    )
}

/// What differs between two lists, for eyes.
struct Changes {
    text: String,
    any: bool,
}

fn changes(had: &[AccessRule], wanted: &[AccessRule]) -> Changes {
    let by_number = |rules: &[AccessRule]| -> BTreeMap<u16, AccessRule> {
        rules.iter().map(|r| (r.priority, r.clone())).collect()
    };
    let (had, wanted) = (by_number(had), by_number(wanted));
    let mut numbers: Vec<u16> = had.keys().chain(wanted.keys()).copied().collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut table = Table::new(&["NUMBER", "IS", "RULE"]);
    let mut same = 0;
    for number in numbers {
        let mut row = |is: &str, rule: &AccessRule| {
            table.row([number.to_string(), is.into(), line(rule)]);
        };
        match (had.get(&number), wanted.get(&number)) {
            (Some(old), Some(new)) if old == new => same += 1,
            (Some(old), Some(new)) => {
                row("changed from", old);
                row("to", new);
            }
            (None, Some(new)) => row("added", new),
            (Some(old), None) => row("removed", old),
            (None, None) => {}
        }
    }
    let any = had != wanted;
    let mut text = table.print("nothing changes");
    text += &format!("{} as before\n", count(same, "rule"));
    Changes { text, any }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(number: u16, to: &str) -> AccessRule {
        serde_json::from_value(serde_json::json!({
            "priority": number, "action": "allow", "direction": "outbound", "match": {"dst": to},
        }))
        .unwrap()
    }

    #[test]
    fn what_changes_is_told_rule_by_rule() {
        let had = [
            rule(10, "192.0.2.0/24"),
            rule(20, "192.0.2.0/24"),
            rule(40, "::/0"),
        ];
        let wanted = [
            rule(30, "::/0"),
            rule(20, "198.51.100.0/24"),
            rule(10, "192.0.2.0/24"),
        ];
        let changed = changes(&had, &wanted);
        assert!(changed.any);
        insta::assert_snapshot!("access_changes", changed.text);
        let same = changes(&had, &had);
        assert_eq!(
            (same.any, same.text.as_str()),
            (false, "nothing changes\n3 rules as before\n")
        );
    }
}
