//! What an installation has to do: facts, a release and the admin's wishes in, steps out, in order.
//! Pure. Which of the steps hold already, and are left out, is seen on the host ([`crate::deed`]).

use crate::{
    accounts::{self, Account},
    configured::{Configured, FILE},
    facts::Facts,
    handover,
    journal::STATE,
    release::{INSTALLER, NOTIFY_RELOAD, PLUGINS, Release, SYSUSERS, TMPFILES, place},
    step::{Content, Holds, Keeper, Reader, Step},
    tuning,
};
use anyhow::Result;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// What is wanted, besides the release.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// The configuration: the admin's, or what is proposed.
    pub(crate) configuration: Configured,
    /// Text of the proposal, where there is no file yet.
    pub(crate) proposal: Option<String>,
    /// Settings of the host are made.
    pub(crate) tune: bool,
    /// Packages are left to the admin.
    pub(crate) no_packages: bool,
    /// Paths at which an installation before this one put something.
    pub(crate) known: Vec<PathBuf>,
}

/// A unit that is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Enabled {
    pub(crate) unit: String,
    /// The links that start it at boot: those of its `[Install]` section.
    pub(crate) links: Vec<(PathBuf, PathBuf)>,
}

/// The steps that put files in place, and everything that these need.
pub(crate) fn files(facts: &Facts, release: &Release, wanted: &Wanted) -> Result<Vec<Step>> {
    let mut steps = vec![Step::Services {
        units: units(release),
    }];
    // first in, last out: an uninstallation that was cut off finds it
    add(&mut steps, release_file(release, INSTALLER));
    if facts.live && !wanted.no_packages {
        steps.push(Step::Packages {
            names: packages(facts),
        });
    }
    let wanted_accounts = accounts::parse(&release.text(SYSUSERS)?)?;
    if !wanted_accounts.is_empty() {
        steps.push(Step::Accounts {
            wanted: wanted_accounts.clone(),
        });
    }
    for folder in folders(&release.text(TMPFILES)?, &wanted_accounts) {
        add(&mut steps, Some(folder));
    }
    for path in release.files.keys().filter(|path| *path != INSTALLER) {
        if path == NOTIFY_RELOAD {
            for step in notify_reload(facts, release) {
                add(&mut steps, Some(step));
            }
            continue;
        }
        add(&mut steps, release_file(release, path));
        if let Some(name) = path.strip_prefix("cni/") {
            for folder in plugin_folders(facts) {
                add(&mut steps, plugin(release, path, &folder.join(name)));
            }
        }
    }
    if let Some(text) = &wanted.proposal {
        add(
            &mut steps,
            Some(Step::File {
                path: FILE.into(),
                mode: 0o644,
                owner: "root".into(),
                group: "root".into(),
                content: Content::Text(text.clone()),
                keeper: Keeper::Admin,
            }),
        );
    }
    for step in handover::files(facts, &wanted.configuration.nics, wanted.tune) {
        add(&mut steps, Some(step));
    }
    if wanted.tune {
        for step in tuning::steps(facts).0 {
            add(&mut steps, Some(step));
        }
    }
    for enabled in enabled(facts, release, &wanted.configuration)? {
        for (path, target) in enabled.links {
            let keeper = Keeper::Admin;
            add(
                &mut steps,
                Some(Step::Link {
                    path,
                    target,
                    keeper,
                }),
            );
        }
    }
    let kept: BTreeSet<PathBuf> = steps
        .iter()
        .filter_map(Step::path)
        .map(Path::to_owned)
        .collect();
    let gone = wanted
        .known
        .iter()
        .filter(|path| !kept.contains(*path) && is_ours(path))
        .filter(|path| !handover::may_be_of_a_pod(facts, &wanted.configuration.nics, path));
    steps.extend(gone.map(|path| Step::Gone { path: path.clone() }));
    Ok(steps)
}

/// The steps after the files, given those that will be done: who is told, what runs anew, and whether
/// it answers.
pub(crate) fn services(
    facts: &Facts,
    release: &Release,
    enabled: &[Enabled],
    done: &[Step],
) -> Vec<Step> {
    if !facts.live {
        return Vec::new();
    }
    let whom: Vec<Reader> = Reader::ALL
        .into_iter()
        .filter(|reader| {
            done.iter()
                .filter_map(Step::path)
                .any(|path| reader.reads(path))
        })
        .collect();
    let anew = done.iter().any(Step::concerns_daemons);
    let mut steps = Vec::new();
    if !whom.is_empty() {
        steps.push(Step::Reload { whom });
    }
    for enabled in enabled {
        let runs = facts.running.contains(&enabled.unit);
        // somebody else's socket goes on as it is
        let ours = release
            .files
            .contains_key(&format!("units/{}", enabled.unit));
        // clients go on waiting at a socket while its service starts anew
        let changed = if enabled.unit.ends_with(".socket") {
            done.iter().filter_map(Step::path).any(|path| {
                path.starts_with("/usr/lib/systemd/system") && path.ends_with(&enabled.unit)
            })
        } else {
            anew
        };
        if !runs || (changed && ours) {
            steps.push(Step::Run {
                unit: enabled.unit.clone(),
            });
        }
    }
    let daemon = |step: &Step| matches!(step, Step::Run { unit } if unit.starts_with("dtnd."));
    if steps.iter().any(daemon) {
        steps.push(Step::Answer {
            version: release.version.clone(),
        });
    }
    steps
}

/// The units that are to run: those of the daemons that the configuration has a table for, and podman's
/// socket where pods run without Kubernetes. Sockets come before their services.
pub(crate) fn enabled(
    facts: &Facts,
    release: &Release,
    configuration: &Configured,
) -> Result<Vec<Enabled>> {
    let mut found = Vec::new();
    if configuration.host && facts.kubelet.is_none() {
        found.push(Enabled {
            unit: "podman.socket".into(),
            links: vec![(
                "/etc/systemd/system/sockets.target.wants/podman.socket".into(),
                "/usr/lib/systemd/system/podman.socket".into(),
            )],
        });
    }
    for (daemon, wanted) in [("vdnd", configuration.domain), ("dtnd", configuration.host)] {
        for kind in ["socket", "service"] {
            let unit = format!("{daemon}.{kind}");
            let text = release.text(&format!("units/{unit}"))?;
            let links = boot_links(&unit, &text);
            if wanted && !text.is_empty() && !links.is_empty() {
                found.push(Enabled { unit, links });
            }
        }
    }
    Ok(found)
}

/// The links that `systemctl enable` makes for a unit, from its `[Install]` section.
fn boot_links(unit: &str, text: &str) -> Vec<(PathBuf, PathBuf)> {
    let target = Path::new("/usr/lib/systemd/system").join(unit);
    let base = Path::new("/etc/systemd/system");
    let install = text
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "[Install]")
        .skip(1)
        .take_while(|line| !line.starts_with('['));
    let mut links = Vec::new();
    for line in install {
        let Some((key, values)) = line.split_once('=') else {
            continue;
        };
        for value in values.split_whitespace() {
            let path = match key.trim() {
                "WantedBy" => base.join(format!("{value}.wants")).join(unit),
                "RequiredBy" => base.join(format!("{value}.requires")).join(unit),
                "Alias" => base.join(value),
                _ => continue,
            };
            links.push((path, target.clone()));
        }
    }
    links
}

/// Units of ours.
pub(crate) fn units(release: &Release) -> Vec<String> {
    release
        .files
        .keys()
        .filter_map(|path| path.strip_prefix("units/"))
        .filter(|name| name.ends_with(".service") || name.ends_with(".socket"))
        .map(str::to_owned)
        .collect()
}

/// The distribution's packages that run pods and gateways.
fn packages(facts: &Facts) -> Vec<String> {
    let enterprise = facts.distribution.id != "debian" && facts.distribution.id != "ubuntu";
    let mut names = vec!["nftables", if enterprise { "iproute" } else { "iproute2" }];
    if facts.kubelet.is_none() {
        names.push("podman");
        // the first process of a pod; of Enterprise Linux podman has it in itself
        if !enterprise {
            names.push("catatonit");
        }
    }
    names.into_iter().map(str::to_owned).collect()
}

/// Folders of tmpfiles.d(5).
fn folders(text: &str, accounts: &[Account]) -> Vec<Step> {
    let known = |name: &str| {
        name == "root"
            || accounts.iter().any(|account| match account {
                Account::User { name: other, .. } | Account::Group { name: other } => other == name,
                Account::Member { .. } => false,
            })
    };
    let mut steps = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [kind, path, mode, owner, group, ..] = words[..] else {
            continue;
        };
        let folder = matches!(
            kind.trim_end_matches(['!', '-', '=']),
            "d" | "D" | "v" | "q" | "Q"
        );
        let named = |name: &str| if known(name) { name } else { "root" }.to_owned();
        if !folder || path.contains('%') {
            continue;
        }
        steps.push(Step::Folder {
            path: path.into(),
            mode: u32::from_str_radix(mode.trim_start_matches(['~', ':']), 8).unwrap_or(0o755),
            owner: named(owner),
            group: named(group),
            holds: holds(Path::new(path)),
            as_found: false,
        });
    }
    steps
}

/// State goes with its folder; what pods have written does not.
fn holds(path: &Path) -> Holds {
    let state = [STATE, "/run/dtn", "/etc/dtn"];
    if state.iter().any(|folder| path.starts_with(folder)) {
        Holds::State
    } else {
        Holds::Steps
    }
}

/// Where plugins go besides their own place: where this host's runtime looks for them.
fn plugin_folders(facts: &Facts) -> impl Iterator<Item = &PathBuf> {
    let folders = facts.kubelet.iter().flat_map(|kubelet| &kubelet.bin_dirs);
    folders.filter(|folder| folder.as_path() != Path::new(PLUGINS))
}

fn release_file(release: &Release, path: &str) -> Option<Step> {
    let (place, mode) = place(path)?;
    let content = Content::Release {
        path: path.to_owned(),
        sha256: release.files.get(path)?.clone(),
    };
    Some(Step::file(place, mode, content))
}

/// Drop-ins of the units, for a systemd that knows what is in them.
fn notify_reload(facts: &Facts, release: &Release) -> Vec<Step> {
    if facts.systemd_version < 253 {
        return Vec::new();
    }
    let Some(sha256) = release.files.get(NOTIFY_RELOAD) else {
        return Vec::new();
    };
    let drop_in = |unit: &str| {
        let content = Content::Release {
            path: NOTIFY_RELOAD.to_owned(),
            sha256: sha256.clone(),
        };
        let path = format!("/usr/lib/systemd/system/{unit}.d/notify-reload.conf");
        Step::file(path, 0o644, content)
    };
    vec![drop_in("dtnd.service"), drop_in("vdnd.service")]
}

fn plugin(release: &Release, path: &str, place: &Path) -> Option<Step> {
    let content = Content::Release {
        path: path.to_owned(),
        sha256: release.files.get(path)?.clone(),
    };
    Some(Step::file(place, 0o755, content))
}

/// Adds a step, after the folders that it needs.
fn add(steps: &mut Vec<Step>, step: Option<Step>) {
    let Some(step) = step else { return };
    let mut above: Vec<PathBuf> = step
        .path()
        .into_iter()
        .flat_map(Path::ancestors)
        .skip(1)
        .filter(|folder| folder.components().count() > 1)
        .map(Path::to_owned)
        .collect();
    above.reverse();
    for path in above {
        if steps.iter().any(|step| step.path() == Some(&path)) {
            continue;
        }
        let holds = holds(&path);
        steps.push(Step::Folder {
            path,
            mode: 0o755,
            owner: "root".into(),
            group: "root".into(),
            holds,
            as_found: true,
        });
    }
    if step.path().is_none() || !steps.iter().any(|other| other.path() == step.path()) {
        steps.push(step);
    }
}

/// Whether what lies at a path can only be of an older release, or of a NIC that is no longer given.
/// Folders stay until an uninstallation.
fn is_ours(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().unwrap_or(Path::new("/"));
    path.starts_with("/usr/share/dtn")
        || path.starts_with("/usr/share/doc/dtn")
        || [
            "/usr/bin",
            "/usr/sbin",
            "/usr/libexec/dtn",
            "/usr/lib/systemd/system",
        ]
        .iter()
        .any(|place| folder == Path::new(place))
        || name.starts_with("vdn-")
        || (path.starts_with("/etc/systemd/network") && name.starts_with("10-dtn-"))
        || path == Path::new("/etc/NetworkManager/conf.d/dtn.conf")
}

#[cfg(test)]
mod tests;
