//! An uninstallation: pods end, NICs come home, and every byte is put back as the journal has it.

use crate::{
    Failure, UninstallOptions, consent, held,
    host::Host,
    image::Image,
    install::{bare_look, host},
    journal::{self, Journal, Record},
    podman,
    recovery::recover,
    root,
    undo::{Stays, take_back},
};
use anyhow::anyhow;
use std::path::Path;

/// Takes the appliance off the host.
pub(crate) fn run(options: &UninstallOptions) -> Result<(), Failure> {
    let root = root(&options.root)?;
    let _lock = journal::lock(&root)?;
    let facts = bare_look(&root)?;
    let host = host(&root, &facts);
    let mut journal = Journal::open(&root)?;
    let cut_off = journal.run.is_some() || journal.removal.is_some();
    if cut_off && !options.dry_run {
        recover(&host, &mut journal)?;
    }
    let Some(base) = journal.base.clone() else {
        if options.dry_run && cut_off {
            println!("A run before this one was cut off; it would be mended.");
        } else {
            // empty folders may be left of one that was cut off at its very end
            journal.vanish(&[])?;
            println!("Nothing is installed.");
            if journal.kept.is_some() {
                println!(
                    "State of an installation before is in /etc/dtn and /var/lib/dtn: the next one takes it up."
                );
            }
        }
        return Ok(());
    };
    let holders = held::holders(&host);
    println!("Version {} will be taken off this host:", base.version);
    for record in base.records.iter().rev() {
        if let Some(line) = described(record, options) {
            println!("  {line}");
        }
    }
    for holder in &holders {
        println!("  end: {holder}");
    }
    if !options.keep_state {
        println!("{}", fate(&host, &base.records));
    }
    if facts.kubelet.is_some() && !holders.is_empty() {
        return Err(Failure::Refused(
            "pods of a Kubernetes cluster hold NICs: drain the node first (kubectl drain); nothing was changed"
                .into(),
        ));
    }
    if options.dry_run {
        println!("\nNothing was changed (--dry-run).");
        return Ok(());
    }
    consent::ask("Take all of this back?", options.yes)?;
    // some may have ended when it fails
    held::end_pods(&host).map_err(|e| between(vec![format!("{e:#}")]))?;
    journal.begin_removal(options.keep_state, options.packages)?;
    complete(&host, &mut journal)?;
    println!("The host is as it was before the first installation.");
    Ok(())
}

/// Completes an uninstallation that has begun.
pub(crate) fn complete(host: &Host, journal: &mut Journal) -> Result<(), Failure> {
    let Some(removal) = journal.removal else {
        return Ok(());
    };
    // when it was cut off, a boot may have started them again
    let notes = held::end_pods(host).map_err(|e| between(vec![format!("{e:#}")]))?;
    notes.iter().for_each(|note| println!("{note}"));
    let records = journal.base.as_ref().map(|base| base.records.clone());
    let records = records.unwrap_or_default();
    let stays = Stays {
        state: removal.keep_state,
        packages: !removal.packages,
    };
    held::stop_and_bring_home(host, &records).map_err(between)?;
    let outcome = take_back(host, journal, &records, stays);
    for note in outcome.notes {
        println!("note: {note}");
    }
    if !outcome.failures.is_empty() {
        return Err(between(outcome.failures));
    }
    journal
        .end_removal()
        .map_err(|e| between(vec![format!("{e:#}")]))
}

/// What becomes of configuration and state: a folder that was there before the first installation stays.
fn fate(host: &Host, records: &[Record]) -> String {
    let came = |folder: &&str| {
        records.iter().any(|record| {
            matches!(record, Record::Path { path, before: Image::Absent, .. } if path == Path::new(folder))
        })
    };
    let (lost, stay): (Vec<&str>, Vec<&str>) = ["/etc/dtn", "/var/lib/dtn"]
        .iter()
        .partition(|folder| came(folder));
    let mut lines = Vec::new();
    if !lost.is_empty() {
        let authority = host.at("/var/lib/dtn/vdn").exists() && lost.contains(&"/var/lib/dtn");
        lines.push(format!(
            "What is in {} is lost: configuration, the host's identity{} (--keep-state keeps it)",
            lost.join(" and "),
            if authority {
                ", and the domain's authority and store"
            } else {
                ""
            }
        ));
    }
    if !stay.is_empty() {
        lines.push(format!(
            "There was a {} before the first installation: what is in it stays, credentials too",
            stay.join(" and a ")
        ));
    }
    lines.join("\n")
}

fn between(left: Vec<String>) -> Failure {
    Failure::Between(anyhow!("the uninstallation is not complete"), left)
}

fn described(record: &Record, options: &UninstallOptions) -> Option<String> {
    Some(match record {
        Record::Path { path, before, .. } => match before {
            Image::Absent => format!("remove   {}", path.display()),
            _ => format!("put back {}", path.display()),
        },
        Record::Accounts { added } if !added.is_empty() => format!(
            "remove   {}",
            added
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        ),
        Record::Packages { added, traces } if !added.is_empty() => {
            let mut line = format!(
                "{} packages {}",
                if options.packages {
                    "remove  "
                } else {
                    "leave   "
                },
                added.join(" ")
            );
            for trace in traces.iter().filter(|_| options.packages) {
                line.push_str(&format!(
                    "\n  remove   {} with what {} in it, unless podman has something of somebody else",
                    trace.display(),
                    if podman::is_shared(trace) {
                        "podman has put"
                    } else {
                        "is"
                    }
                ));
            }
            line
        }
        Record::Setting { key, before } => format!("set back {key} = {before}"),
        Record::Run { unit, ran: false } => format!("stop     {unit}"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_with_packages_is_listed() {
        let record = Record::Packages {
            added: vec!["podman".into()],
            traces: podman::TRACES.iter().map(Into::into).collect(),
        };
        let options = |packages| UninstallOptions {
            root: "/".into(),
            yes: false,
            dry_run: true,
            packages,
            keep_state: false,
        };
        let line = described(&record, &options(true)).unwrap();
        for trace in podman::TRACES {
            assert!(line.contains(trace), "{line}");
        }
        let line = described(&record, &options(false)).unwrap();
        assert!(!line.contains("/var/lib/containers"), "{line}");
    }
}
