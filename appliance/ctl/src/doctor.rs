//! `dtnctl doctor`: is this host, and is each of its NICs, what the site paid for?
//!
//! It needs neither daemon nor root: what cannot be looked at is said. Facts are collected by
//! `dtn-tuning` and by the files beside this one, judged there, and only shown here.
//!
//! * [`daemons`]: who answers, and what it says of itself.
//! * [`files`]: configuration, certificates, records.
//! * [`hardware`]: which NICs, and where each is.

mod daemons;
mod files;
mod hardware;

use crate::{
    cli::Context,
    failure::{Done, Failure, Outcome},
    table::Table,
    wording::count,
};
use dtn_api::Span;
use dtn_tuning::health::{Finding, Findings, Level, by_severity, host::HostHealth, nic::NicHealth};
use jiff::Timestamp;
use serde::Serialize;

/// Options of `doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long counters are watched; 0s takes them as they stand
    #[arg(long, value_name = "SPAN", default_value = "2s")]
    look: Span,
    /// Show what is well, too
    #[arg(long)]
    all: bool,
    /// Warnings make the exit code 1, as alarms do
    #[arg(long)]
    strict: bool,
}

/// Longest look: a person waits for it.
const LONGEST_LOOK: Span = Span::from_secs(3600);

/// Everything that was found, and the facts that it rests on.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Version of this form.
    pub(crate) version: u32,
    /// When.
    pub(crate) at: Timestamp,
    /// Version of `dtnctl`.
    pub(crate) dtnctl: &'static str,
    /// Whether root looked.
    pub(crate) root: bool,
    /// The loudest level.
    pub(crate) worst: Level,
    /// The findings, the loudest first.
    pub(crate) findings: Vec<Finding>,
    /// The NICs as they were seen.
    pub(crate) nics: Vec<NicHealth>,
    /// The machine as it was seen; none of a site of the lab.
    pub(crate) host: Option<HostHealth>,
}

/// Looks and says.
pub(crate) async fn run(args: &Args, context: &Context) -> Outcome {
    if args.look > LONGEST_LOOK {
        return Err(Failure::Usage(format!(
            "--look {}: at most {LONGEST_LOOK}",
            args.look
        )));
    }
    if args.look.millis() > 0 {
        context.progress(format_args!("looking for {}", args.look));
    }
    let report = examine(context, args.look).await;
    let out = if context.json {
        serde_json::to_string_pretty(&report).map_err(anyhow::Error::new)? + "\n"
    } else {
        shown(&report, args.all)
    };
    verdict(&report, out, args.strict)
}

/// Looks at everything; nothing is changed, and nothing that fails ends it.
pub(crate) async fn examine(context: &Context, look: Span) -> Report {
    let mut say = Findings::of("host");
    let configured = files::configuration(&context.place, &mut say);
    let answers = daemons::ask(context, &configured, &mut say).await;
    files::certificates(&context.place, context.now, &mut say);
    files::leftovers(&context.place, answers.dtnd, context.now, &mut say);
    let mut findings = say.done();
    let (mut nics, mut host) = (Vec::new(), None);
    // a site of the lab has a network of its own that this process is not in
    if let Some(site) = &context.place.site {
        let mut say = Findings::of("host");
        say.say(
            Level::Note,
            "not looked at",
            format!(
                "NICs and machine: site {} of the lab has none of its own",
                site.name
            ),
        );
        findings.extend(say.done());
    } else {
        let seen = hardware::look(context, configured.host.as_ref(), look).await;
        findings.extend(seen.findings);
        (nics, host) = (seen.nics, Some(seen.host));
    }
    by_severity(&mut findings);
    Report {
        version: 1,
        at: context.now,
        dtnctl: env!("CARGO_PKG_VERSION"),
        root: is_root(),
        worst: findings.first().map_or(Level::Ok, |first| first.level),
        findings,
        nics,
        host,
    }
}

/// `/proc/self` belongs to the effective user.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|found| found.uid() == 0)
}

fn number(report: &Report, level: Level) -> usize {
    let of = |finding: &&Finding| finding.level == level;
    report.findings.iter().filter(of).count()
}

fn verdict(report: &Report, out: String, strict: bool) -> Outcome {
    let (alarms, warnings) = (number(report, Level::Alarm), number(report, Level::Warning));
    if alarms == 0 && (warnings == 0 || !strict) {
        return Ok(Done::text(out));
    }
    let mut text = count(alarms, "alarm");
    if warnings > 0 {
        text.push_str(&format!(" and {}", count(warnings, "warning")));
    }
    let first = report.findings.iter().find_map(|one| one.next.clone());
    let failure = Failure::because(text).showing(out);
    Err(match first {
        Some(next) => failure.or_next(next),
        None => failure,
    })
}

fn shown(report: &Report, all: bool) -> String {
    let mut table = Table::new(&["LEVEL", "OF", "CHECK", "FOUND"]);
    let quiet = number(report, Level::Ok);
    for one in &report.findings {
        if one.level == Level::Ok && !all {
            continue;
        }
        table.row([
            one.level.to_string(),
            one.subject.clone(),
            one.check.clone(),
            one.text.clone(),
        ]);
        for (word, text) in [("mend", &one.remedy), ("next", &one.next)] {
            if let Some(text) = text {
                let blank = " ".to_owned();
                table.row([
                    blank.clone(),
                    blank.clone(),
                    blank,
                    format!("{word}: {text}"),
                ]);
            }
        }
    }
    let mut text = table.print("nothing is wrong");
    text.push_str(&format!(
        "\n{}, {}, {}, {} well{}\n",
        count(number(report, Level::Alarm), "alarm"),
        count(number(report, Level::Warning), "warning"),
        count(number(report, Level::Note), "note"),
        count(quiet, "check"),
        if all || quiet == 0 {
            ""
        } else {
            " (--all shows them)"
        },
    ));
    if !report.root {
        text.push_str("not all could be looked at: root sees more\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(levels: &[Level]) -> Report {
        let mut say = Findings::of("data0");
        for level in levels {
            match level {
                Level::Ok => say.ok("mtu", "9000"),
                Level::Note => drop(
                    say.say(Level::Note, "neighbour", "no switch told")
                        .text
                        .len(),
                ),
                level => say.mend(
                    *level,
                    "speed",
                    "trained to 1Gbit, the card can 10Gbit",
                    "change the cable",
                    "ethtool data0",
                ),
            }
        }
        let mut findings = say.done();
        by_severity(&mut findings);
        Report {
            version: 1,
            at: "2027-01-10T06:00:00Z".parse().unwrap(),
            dtnctl: "0.1.0",
            root: true,
            worst: findings[0].level,
            findings,
            nics: Vec::new(),
            host: None,
        }
    }

    #[test]
    fn the_loudest_comes_first_with_remedy_and_next_step() {
        let report = report(&[Level::Ok, Level::Note, Level::Warning, Level::Alarm]);
        insta::assert_snapshot!("doctor", shown(&report, false));
        insta::assert_snapshot!("doctor_all", shown(&report, true));
    }

    #[test]
    fn alarms_are_1_and_warnings_where_they_are_not_wanted() {
        let code = |levels: &[Level], strict| {
            verdict(&report(levels), String::new(), strict)
                .map_or_else(|failure| failure.code(), |_| 0)
        };
        assert_eq!(code(&[Level::Ok], true), 0);
        assert_eq!(code(&[Level::Warning], false), 0);
        assert_eq!(code(&[Level::Warning], true), 1);
        assert_eq!(code(&[Level::Alarm], false), 1);
        let failure = verdict(&report(&[Level::Alarm]), "x\n".into(), false).unwrap_err();
        assert_eq!(failure.out(), "x\n");
        assert_eq!(failure.message(), "dtnctl: 1 alarm\nnext: ethtool data0\n");
    }
}
