//! A release as it is unpacked: a folder with `release.json`, which names every file with its digest.
//! Where each file goes on a host is decided here, by its place in the release.

use crate::image;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Of this format; a newer one is refused.
pub(crate) const FORMAT: u32 = 1;
/// The list of a release.
pub(crate) const LIST: &str = "release.json";

/// What `release.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Release {
    pub(crate) format: u32,
    pub(crate) version: String,
    /// The architecture, as `uname -m` says it.
    pub(crate) machine: String,
    /// Every file by its path in the release, with its SHA-256.
    pub(crate) files: BTreeMap<String, String>,
    /// Where it is unpacked.
    #[serde(skip)]
    pub(crate) folder: PathBuf,
}

/// Folders of a release, where what is in them goes on a host, and with which mode.
const PLACES: [(&str, &str, u32); 9] = [
    ("bin/", "/usr/bin", 0o755),
    ("sbin/", "/usr/sbin", 0o755),
    ("libexec/", "/usr/libexec/dtn", 0o755),
    ("cni/", PLUGINS, 0o755),
    ("units/", "/usr/lib/systemd/system", 0o644),
    ("share/", "/usr/share/dtn", 0o644),
    ("workloads/", "/usr/share/dtn/workloads", 0o644),
    ("images/", "/usr/share/dtn/images", 0o644),
    ("doc/", "/usr/share/doc/dtn", 0o644),
];

/// Where plugins go, on a host without another place for them.
pub(crate) const PLUGINS: &str = "/opt/cni/bin";
/// Lists of accounts and folders, for systemd and for us.
pub(crate) const SYSUSERS: &str = "units/dtn.sysusers.conf";
/// See [`SYSUSERS`].
pub(crate) const TMPFILES: &str = "units/dtn.tmpfiles.conf";
/// For the units of both daemons, where systemd knows a reload by notification (253).
pub(crate) const NOTIFY_RELOAD: &str = "units/notify-reload.conf";
/// The installer itself.
pub(crate) const INSTALLER: &str = "libexec/dtn-install";

impl Release {
    /// Reads the list of an unpacked release, and checks every file against it: none may be missing,
    /// different or too many.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let list = folder.join(LIST);
        let text = fs::read_to_string(&list).with_context(|| {
            format!(
                "reading {}: this is no release; install.sh makes and unpacks one",
                list.display()
            )
        })?;
        let mut release: Self =
            serde_json::from_str(&text).with_context(|| format!("reading {}", list.display()))?;
        if release.format > FORMAT {
            bail!(
                "the release is of format {}, and this program knows up to {FORMAT}: use the \
                 dtn-install of the release",
                release.format
            );
        }
        release.folder = folder.to_owned();
        let mut problems = Vec::new();
        for (path, wanted) in &release.files {
            match image::digest(&folder.join(path)) {
                Ok(found) if found == *wanted => {}
                Ok(_) => problems.push(format!("{path} is not what the list says")),
                Err(_) => problems.push(format!("{path} is missing")),
            }
            if place(path).is_none() {
                problems.push(format!("{path} has no place on a host"));
            }
        }
        for path in listed(folder)? {
            if path != LIST && !release.files.contains_key(&path) {
                problems.push(format!("{path} is not in the list"));
            }
        }
        if !problems.is_empty() {
            bail!(
                "the release in {}: {}",
                folder.display(),
                problems.join("; ")
            );
        }
        Ok(release)
    }

    /// The text of one of its files; empty when it has none of this name.
    pub(crate) fn text(&self, path: &str) -> Result<String> {
        if !self.files.contains_key(path) {
            return Ok(String::new());
        }
        let file = self.folder.join(path);
        fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))
    }

    /// Bytes of all its files together.
    pub(crate) fn bytes(&self) -> u64 {
        let length = |path: &String| Some(fs::metadata(self.folder.join(path)).ok()?.len());
        self.files.keys().filter_map(length).sum()
    }
}

/// Where a file of a release goes on a host, and its mode there. A file of one word more than its
/// folder is a program or a unit; templates have folders of their own.
pub(crate) fn place(path: &str) -> Option<(PathBuf, u32)> {
    match path {
        SYSUSERS => return Some(("/usr/lib/sysusers.d/dtn.conf".into(), 0o644)),
        TMPFILES => return Some(("/usr/lib/tmpfiles.d/dtn.conf".into(), 0o644)),
        _ => {}
    }
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    if !path.split('/').all(plain) {
        return None;
    }
    PLACES.iter().find_map(|(folder, place, mode)| {
        let rest = path.strip_prefix(folder)?;
        Some((Path::new(place).join(rest), *mode))
    })
}

/// The paths of all files below a folder.
pub(crate) fn listed(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        let doing = || format!("listing {}", current.display());
        for entry in fs::read_dir(&current).with_context(doing)? {
            let path = entry.with_context(doing)?.path();
            let meta = fs::symlink_metadata(&path).with_context(doing)?;
            if meta.is_dir() {
                folders.push(path);
            } else {
                let below = path.strip_prefix(folder).with_context(doing)?;
                found.push(below.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_file_has_its_place_and_nothing_leaves_it() {
        for (path, expected, mode) in [
            ("sbin/dtnd", "/usr/sbin/dtnd", 0o755),
            ("cni/vdn-ipam", "/opt/cni/bin/vdn-ipam", 0o755),
            (
                "units/dtnd.service",
                "/usr/lib/systemd/system/dtnd.service",
                0o644,
            ),
            (SYSUSERS, "/usr/lib/sysusers.d/dtn.conf", 0o644),
            (
                "workloads/xrootd/pod.yaml",
                "/usr/share/dtn/workloads/xrootd/pod.yaml",
                0o644,
            ),
        ] {
            assert_eq!(place(path), Some((expected.into(), mode)), "{path}");
        }
        for path in [
            "passwd",
            "bin/../../etc/passwd",
            "bin//x",
            "/bin/x",
            "bin/",
            "",
        ] {
            assert_eq!(place(path), None, "{path}");
        }
    }

    #[test]
    fn a_file_that_is_missing_different_or_too_many_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        for name in ["same", "other", "more"] {
            fs::write(dir.path().join("bin").join(name), name).unwrap();
        }
        let release = Release {
            format: FORMAT,
            version: "1".into(),
            machine: "x".into(),
            files: [
                ("bin/same", image::digest_of(b"same")),
                ("bin/other", image::digest_of(b"something")),
                ("bin/gone", image::digest_of(b"")),
                ("etc/x", image::digest_of(b"")),
            ]
            .map(|(path, digest)| (path.to_owned(), digest))
            .into(),
            folder: PathBuf::new(),
        };
        fs::write(
            dir.path().join(LIST),
            serde_json::to_string(&release).unwrap(),
        )
        .unwrap();
        let error = Release::open(dir.path()).unwrap_err().to_string();
        for problem in [
            "bin/other is not what",
            "bin/gone is missing",
            "etc/x has no place",
            "bin/more is not in",
        ] {
            assert!(error.contains(problem), "{problem}: {error}");
        }
        assert!(!error.contains("bin/same"));
    }
}
