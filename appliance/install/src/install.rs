//! An installation or upgrade from its first look at the host to its last word.

use crate::{
    Failure, InstallOptions,
    configured::{self, Configured, FILE},
    consent,
    deed::Site,
    facts::{self, Facts},
    failpoint::reach,
    host::Host,
    image::Image,
    journal::{self, Journal, Record},
    packages,
    plan::{self, Wanted},
    preflight::{self, Asked},
    propose::{self, Wishes},
    recovery::{recover, roll_back},
    release::Release,
    root, show,
    step::Step,
    tuning,
};
use anyhow::{Context, Result, anyhow};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Only looks.
pub(crate) fn check(options: &InstallOptions) -> Result<(), Failure> {
    let release = Release::open(&options.release)?;
    let facts = look(&root(&options.root)?)?;
    judge(&facts, &release, options)
}

/// Installs or upgrades.
pub(crate) fn run(options: &InstallOptions) -> Result<(), Failure> {
    let root = root(&options.root)?;
    let _lock = journal::lock(&root)?;
    let mut journal = Journal::open(&root)?;
    // first of all: no refusal may be in the way of what a call before this one left
    if journal.run.is_some() || journal.removal.is_some() {
        if options.dry_run {
            println!("A run before this one was cut off; it would first be mended.");
        } else {
            recover(&host(&root, &bare_look(&root)?), &mut journal)?;
        }
    }
    let release = Release::open(&options.release)?;
    let facts = look(&root)?;
    judge(&facts, &release, options)?;
    let host = host(&root, &facts);

    let proposal = propose::configuration(&facts, &wishes(options));
    let configuration = match &facts.configured {
        Some(configured) => configured.clone(),
        None => Configured::of(&proposal).context("reading what is proposed")?,
    };
    let fresh = facts.configured.is_none();
    let wanted = Wanted {
        configuration,
        proposal: fresh.then(|| proposal.clone()),
        tune: options.tune || journal.knows(Path::new(tuning::FILE)),
        no_packages: options.no_packages,
        known: added_paths(&journal),
    };
    let site = Site {
        host: &host,
        release: &release.folder,
    };
    let steps = differences(&site, &journal, &facts, &release, &wanted)?;
    if steps.is_empty() {
        println!(
            "Version {} is installed, and nothing has to be changed.",
            release.version
        );
        return Ok(());
    }
    announce(&journal, &release, &steps);
    if fresh {
        println!("\n{FILE} will be:\n");
        for line in proposal.lines() {
            println!("    {line}");
        }
    }
    if wanted.tune {
        for note in tuning::steps(&facts).1 {
            println!("note: {note}");
        }
    }
    if options.dry_run {
        println!("\nNothing was changed (--dry-run).");
        return Ok(());
    }
    consent::ask("Make these changes?", options.yes)?;
    let added = options.added_packages.as_deref();
    let done = journal
        .begin(&release.version)
        .and_then(|()| carry_out(&site, &mut journal, &steps, added, &interrupted()));
    match done {
        Ok(()) => {
            last_word(&facts, &release);
            Ok(())
        }
        Err(error) => {
            eprintln!("dtn-install: {error:#}");
            eprintln!("dtn-install: taking back what this run has done");
            let version = release.version.clone();
            roll_back(&host, &mut journal).map_err(|failure| match failure {
                Failure::Between(_, left) => {
                    Failure::Between(anyhow!("installing version {version} failed"), left)
                }
                other => other,
            })?;
            Err(Failure::Failed(anyhow!(
                "installing version {version} failed: {error:#}; the host is as it was before"
            )))
        }
    }
}

fn look(root: &Path) -> Result<Facts> {
    let mut facts = bare_look(root)?;
    facts.configured = configured::read(root)?;
    Ok(facts)
}

/// The host without its configuration.
pub(crate) fn bare_look(root: &Path) -> Result<Facts> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(facts::read(root))
}

fn judge(facts: &Facts, release: &Release, options: &InstallOptions) -> Result<(), Failure> {
    let findings = preflight::judge(
        facts,
        &Asked {
            wishes: wishes(options),
            release_machine: release.machine.clone(),
            release_bytes: release.bytes(),
        },
    );
    print!("{}", show::findings(&findings));
    if preflight::refused(&findings) {
        return Err(Failure::Refused(
            "this host cannot take the appliance as it is (see REFUSED above): nothing was changed"
                .into(),
        ));
    }
    Ok(())
}

fn wishes(options: &InstallOptions) -> Wishes {
    Wishes {
        name: options.name.clone(),
        nics: options.nic.clone(),
        domain: options.domain.clone(),
        no_nics: options.no_nics,
    }
}

/// The host as its facts say.
pub(crate) fn host(root: &Path, facts: &Facts) -> Host {
    Host {
        root: root.to_owned(),
        live: facts.live,
        apt: ["debian", "ubuntu"].contains(&facts.distribution.id.as_str()),
    }
}

/// Paths that were added by an installation, and were nobody's before.
fn added_paths(journal: &Journal) -> Vec<PathBuf> {
    let records = journal.base.iter().flat_map(|base| &base.records);
    records
        .filter_map(|record| match record {
            Record::Path {
                path,
                before: Image::Absent,
                ..
            } => Some(path.clone()),
            _ => None,
        })
        .collect()
}

/// The steps of which something has to be done. None where all is as it should be.
fn differences(
    site: &Site<'_>,
    journal: &Journal,
    facts: &Facts,
    release: &Release,
    wanted: &Wanted,
) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for step in plan::files(facts, release, wanted)? {
        if matches!(step, Step::Services { .. }) || !site.holds(&step, journal)? {
            steps.push(step);
        }
    }
    let mut enabled = plan::enabled(facts, release, &wanted.configuration)?;
    // those that the admin took from the boot stay as they are
    enabled.retain(|enabled| {
        enabled.links.iter().any(|(path, _)| {
            let absent = Image::of(&site.host.at(path)).is_ok_and(|image| image == Image::Absent);
            !(absent && journal.knows(path))
        })
    });
    let after = plan::services(facts, release, &enabled, &steps);
    steps.extend(after);
    let version = journal.base.as_ref().map(|base| base.version.as_str());
    // the note of what runs is no change
    if steps.len() == 1 && version == Some(release.version.as_str()) {
        steps.clear();
    }
    Ok(steps)
}

fn announce(journal: &Journal, release: &Release, steps: &[Step]) {
    match &journal.base {
        None => println!("\nVersion {} will be installed:", release.version),
        Some(base) => println!(
            "\nVersion {} is installed and will be brought to {}:",
            base.version, release.version
        ),
    }
    for step in steps.iter().skip(1) {
        println!("  {step}");
    }
}

/// Each step is noted before it is done.
fn carry_out(
    site: &Site<'_>,
    journal: &mut Journal,
    steps: &[Step],
    added_packages: Option<&Path>,
    interrupted: &AtomicBool,
) -> Result<()> {
    if let Some(file) = added_packages {
        let text =
            fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let mut added: Vec<String> = text.lines().map(str::to_owned).collect();
        added.sort();
        added.dedup();
        // only what is there was added
        let missing = packages::missing(site.host, &added)?;
        added.retain(|name| !missing.contains(name));
        if !added.is_empty() {
            journal.note(Record::Packages {
                added,
                traces: Vec::new(),
            })?;
        }
    }
    for step in steps {
        if interrupted.load(Ordering::Relaxed) {
            return Err(anyhow!("it was asked to stop"));
        }
        // a step before it may have done it: a package brings links of its own
        let notes = matches!(step, Step::Services { .. });
        if !notes && site.holds(step, journal)? {
            continue;
        }
        reach("before record")?;
        if let Some(record) = site.record(step, journal)? {
            journal.note(record)?;
        }
        reach("before deed")?;
        site.act(step).with_context(|| format!("step \"{step}\""))?;
        reach("after deed")?;
    }
    journal.commit()?;
    // the journal has it now; read again it would say the same
    if let Some(file) = added_packages
        && let Err(e) = fs::remove_file(file)
    {
        eprintln!("dtn-install: removing {}: {e}", file.display());
    }
    Ok(())
}

/// Set once somebody asks to stop: what is under way is done, and then taken back.
fn interrupted() -> Arc<AtomicBool> {
    let asked = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&asked);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut first), Ok(mut second), Ok(mut third)) = (
                signal(SignalKind::interrupt()),
                signal(SignalKind::terminate()),
                signal(SignalKind::hangup()),
            ) else {
                return;
            };
            loop {
                tokio::select! {
                    _ = first.recv() => {}
                    _ = second.recv() => {}
                    _ = third.recv() => {}
                }
                eprintln!("dtn-install: stopping after this step, and taking back what was done");
                set.store(true, Ordering::Relaxed);
            }
        });
    });
    asked
}

fn last_word(facts: &Facts, release: &Release) {
    println!("\nVersion {} is installed.", release.version);
    if !facts.live {
        return;
    }
    if let Ok(status) = crate::answer::status() {
        println!("dtnd answers as {} on {}:", status.version, status.host);
        for check in &status.checks {
            println!(
                "  {}  {}{}",
                if check.ok { "ok     " } else { "not yet" },
                check.name,
                if check.detail.is_empty() {
                    String::new()
                } else {
                    format!(": {}", check.detail)
                }
            );
        }
        if !status.next.is_empty() {
            println!("next: {}", status.next);
        }
    }
    println!(
        "{FILE} is yours to change; dtnctl status shows how it stands.\n\
         To take everything back: /usr/libexec/dtn/dtn-install uninstall"
    );
}
