//! What somebody else has in the podman that came with an installation. It goes only when that is
//! nothing for sure: a podman that does not say so keeps everything.

use crate::{
    command::{SHORT, must},
    host::Host,
};
use anyhow::{Context, Result};
use std::{fs, io, path::Path};

/// What podman makes once it runs, and its package leaves when it goes: images, and what networks leave.
pub(crate) const TRACES: [&str; 3] = ["/var/lib/containers", "/var/lib/cni", NETWORKS];
/// Other tools have their networks here too.
const NETWORKS: &str = "/etc/cni";
const STORAGE: &str = "/var/lib/containers/storage";

/// Why podman and what it has stay; none where nobody else has anything in it.
pub(crate) fn why_it_stays(host: &Host) -> Option<String> {
    if !host.at("/usr/bin/podman").exists() {
        // removed by a call that was cut off, or by somebody who may have left something
        return left_behind(&host.at(STORAGE));
    }
    let questions: [(&str, &[&str]); 3] = [
        ("containers", &["ps", "--all", "--quiet"]),
        ("volumes", &["volume", "ls", "--quiet"]),
        (
            "images",
            &["images", "--format", "{{.Repository}}:{{.Tag}}"],
        ),
    ];
    for (what, words) in questions {
        let said = match must("podman", words, SHORT) {
            Ok(said) => said,
            Err(e) => {
                return Some(format!(
                    "podman does not say whether it has {what} of somebody else ({e:#})"
                ));
            }
        };
        let others = of_others(what, &said);
        if let Some(first) = others.first() {
            return Some(format!(
                "podman has {what} of somebody else ({first}{}; podman {} lists them)",
                if others.len() > 1 { ", ..." } else { "" },
                words.join(" ")
            ));
        }
    }
    None
}

/// Of what podman lists, what is not the appliance's. Its images are its own by their names, and so is
/// the one that podman makes for the first process of a pod.
fn of_others<'a>(what: &str, said: &'a str) -> Vec<&'a str> {
    let own = ["localhost/dtn-", "localhost/podman-pause:"];
    said.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .filter(|line| what != "images" || !own.iter().any(|start| line.starts_with(start)))
        .collect()
}

/// What lies in a storage without the program that could be asked.
fn left_behind(storage: &Path) -> Option<String> {
    for entry in fs::read_dir(storage).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let filled = if name == "volumes" {
            fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some())
        } else if name.ends_with("-containers") {
            fs::read(path.join("containers.json")).is_ok_and(|text| {
                !serde_json::from_slice::<Vec<serde_json::Value>>(&text)
                    .is_ok_and(|list| list.is_empty())
            })
        } else {
            false
        };
        if filled {
            return Some(format!(
                "there is no podman to ask, and {} is not empty",
                path.display()
            ));
        }
    }
    None
}

/// Whether others put files into this trace too; else it goes with all that is in it.
pub(crate) fn is_shared(trace: &Path) -> bool {
    trace == Path::new(NETWORKS)
}

/// Removes what podman has put into the folder of networks; what others have there stays.
pub(crate) fn leave_networks(folder: &Path) -> Result<()> {
    let networks = folder.join("net.d");
    let doing = || format!("removing podman's files of {}", networks.display());
    let entries = match fs::read_dir(&networks) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.with_context(doing)?,
    };
    for entry in entries {
        let entry = entry.with_context(doing)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "cni.lock" || (name.starts_with("87-podman") && name.ends_with(".conflist")) {
            fs::remove_file(entry.path()).with_context(doing)?;
        }
    }
    match fs::remove_dir(&networks) {
        Err(e) if e.kind() != io::ErrorKind::DirectoryNotEmpty => Err(e).with_context(doing),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_as_ours_is_ours() {
        let said = "localhost/dtn-transfer:latest\nlocalhost/podman-pause:4.3.1-0\n";
        assert!(of_others("images", said).is_empty());
        let said = format!("{said}docker.io/library/postgres:16\n<none>:<none>\n");
        assert_eq!(
            of_others("images", &said),
            ["docker.io/library/postgres:16", "<none>:<none>"]
        );
        assert_eq!(
            of_others("volumes", "localhost/dtn-x\n\n"),
            ["localhost/dtn-x"]
        );
    }

    #[test]
    fn a_storage_without_its_program_is_looked_into() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(left_behind(&dir.path().join("none")), None);
        let containers = dir.path().join("overlay-containers");
        fs::create_dir_all(&containers).unwrap();
        fs::create_dir_all(dir.path().join("volumes")).unwrap();
        fs::write(containers.join("containers.json"), "[]").unwrap();
        assert_eq!(left_behind(dir.path()), None);
        fs::write(containers.join("containers.json"), "[{\"id\":\"1\"}]").unwrap();
        assert!(left_behind(dir.path()).is_some());
        fs::remove_file(containers.join("containers.json")).unwrap();
        fs::create_dir(dir.path().join("volumes/data")).unwrap();
        let said = left_behind(dir.path()).unwrap();
        assert!(said.contains("volumes"), "{said}");
    }

    #[test]
    fn networks_of_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        leave_networks(dir.path()).unwrap();
        let networks = dir.path().join("net.d");
        fs::create_dir(&networks).unwrap();
        fs::write(networks.join("cni.lock"), "").unwrap();
        fs::write(networks.join("87-podman-bridge.conflist"), "").unwrap();
        fs::write(networks.join("10-flannel.conflist"), "").unwrap();
        leave_networks(dir.path()).unwrap();
        assert!(networks.join("10-flannel.conflist").exists());
        assert_eq!(fs::read_dir(&networks).unwrap().count(), 1);
        fs::remove_file(networks.join("10-flannel.conflist")).unwrap();
        leave_networks(dir.path()).unwrap();
        assert!(!networks.exists());
    }
}
