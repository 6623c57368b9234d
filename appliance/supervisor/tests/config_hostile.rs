//! What no folder of test data can hold: files of the wrong kind, size, owner or encoding, and files
//! that chance has changed. Each is answered with words and never with half a configuration.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use dtnd::config::{self, ConfigError, Severity, Sources};
use proptest::prelude::*;
use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
};

const GOOD: &str =
    "version = 1\n[host]\nname = \"dtn1\"\n[[nic]]\nname = \"data0\"\nclass = \"dedicated\"\n";

struct Site {
    folder: tempfile::TempDir,
}
impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("appliance.toml"), GOOD).unwrap();
        fs::create_dir(folder.path().join("appliance.d")).unwrap();
        Self { folder }
    }
    fn file(&self) -> PathBuf {
        self.folder.path().join("appliance.toml")
    }
    fn drop_in(&self, name: &str) -> PathBuf {
        self.folder.path().join("appliance.d").join(name)
    }
    /// Every problem, warnings too, without the folder's own name.
    fn told(&self) -> Vec<String> {
        let own = format!("{}/", self.folder.path().display());
        match config::check_file(&self.file()) {
            Ok(problems) => problems
                .iter()
                .map(|one| one.to_string().replace(&own, ""))
                .collect(),
            Err(error) => vec![error.to_string().replace(&own, "")],
        }
    }
    fn refused(&self) -> bool {
        config::load(&self.file()).is_err()
    }
}

/// A file that is spoiled in a way of its own, and the words for it.
type Case = (&'static str, fn(&Path), &'static str);

const SPOILED: &[Case] = &[
    (
        "not UTF-8",
        |file| fs::write(file, b"version = 1\n[host]\nname = \"d\xfftn\"\n").unwrap(),
        "is not UTF-8 text: line 3",
    ),
    (
        "UTF-16",
        |file| fs::write(file, b"\xff\xfev\0e\0r\0").unwrap(),
        "is not UTF-8 text: line 1",
    ),
    (
        "a NUL",
        |file| fs::write(file, "version = 1\n[host]\nname = \"d\0tn\"\n").unwrap(),
        "not TOML: ",
    ),
    (
        "10 MiB",
        |file| fs::write(file, "# x\n".repeat(10 << 18)).unwrap(),
        "is larger than 1024 KiB",
    ),
    (
        "a folder",
        |file| {
            fs::remove_file(file).unwrap();
            fs::create_dir(file).unwrap();
        },
        "is a folder: a TOML file must be there",
    ),
    (
        "a loop of links",
        |file| {
            fs::remove_file(file).unwrap();
            symlink(file, file).unwrap();
        },
        "cannot be opened: ",
    ),
    (
        "a pipe",
        |file| {
            fs::remove_file(file).unwrap();
            nix::unistd::mkfifo(file, nix::sys::stat::Mode::S_IRUSR).unwrap();
        },
        "is a pipe: a TOML file must be there",
    ),
    (
        "a device without an end",
        |file| {
            fs::remove_file(file).unwrap();
            symlink("/dev/zero", file).unwrap();
        },
        "is no regular file",
    ),
    (
        "writable by all",
        |file| fs::set_permissions(file, fs::Permissions::from_mode(0o666)).unwrap(),
        "can be written by every user of this machine: chmod o-w",
    ),
];

#[test]
fn a_spoiled_file_is_refused_with_its_reason() {
    for (what, spoil, words) in SPOILED {
        let site = Site::new();
        spoil(&site.file());
        let told = site.told();
        assert!(site.refused(), "{what}");
        assert!(
            told.iter().any(|one| one.contains(words)),
            "{what}: {told:?}"
        );
    }
}

#[test]
fn a_spoiled_drop_in_is_refused_and_hides_no_other_fault() {
    for (what, spoil, words) in SPOILED {
        let site = Site::new();
        let drop_in = site.drop_in("20-spoiled.toml");
        fs::write(&drop_in, GOOD).unwrap();
        spoil(&drop_in);
        fs::write(site.drop_in("10-other.toml"), "[log]\nlevel = 3\n").unwrap();
        let told = site.told();
        assert!(site.refused(), "{what}");
        let both = [
            *words,
            "log.level: must be text in quotes (from appliance.d/10-other.toml:2)",
        ];
        for words in both {
            assert!(
                told.iter().any(|one| one.contains(words)),
                "{what}: {told:?}"
            );
        }
    }
}

#[test]
fn a_folder_that_all_can_write_to_is_none_for_a_configuration() {
    let site = Site::new();
    for folder in [site.folder.path().to_owned(), site.drop_in("")] {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let told = site.told();
        assert!(site.refused());
        assert!(
            told[0].contains("every user of this machine can write to"),
            "{told:?}"
        );
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(!site.refused());
    }
}

#[test]
fn a_file_of_another_user_is_warned_of() {
    let site = Site::new();
    // only root can give a file away
    if chown(site.file(), Some(4242), None).is_err() {
        return;
    }
    let told = site.told();
    assert!(
        told[0].starts_with("warning: belongs to user 4242"),
        "{told:?}"
    );
    assert!(!site.refused());
}

#[test]
fn drop_ins_come_in_the_order_of_their_names_and_only_those_that_are_ones() {
    let site = Site::new();
    let levels = [
        ("20-b.toml", "warn"),
        ("10-a.toml", "error"),
        (".30-hidden.toml", "trace"),
        ("40-copy.toml~", "trace"),
        ("50-other.conf", "trace"),
    ];
    for (name, level) in levels {
        fs::write(site.drop_in(name), format!("[log]\nlevel = \"{level}\"\n")).unwrap();
    }
    let loaded = config::load(&site.file()).unwrap();
    assert_eq!(
        (loaded.config.log.as_str(), loaded.warnings.len()),
        ("warn", 0)
    );
    // what is set goes before all of them; the maker's defaults after all
    let sources = Sources::new(site.file()).with(&["log.level=info".parse().unwrap()]);
    assert_eq!(config::load_from(&sources).unwrap().config.log, "info");
    // the folder of another file's drop-ins is no folder of this one's
    fs::create_dir(site.folder.path().join("appliance.toml.d")).unwrap();
    let told = site.told();
    assert!(
        told[0].contains("is not read: drop-ins belong into"),
        "{told:?}"
    );
}

#[test]
fn the_makers_defaults_are_below_everything_and_make_no_host_a_dtn() {
    let root = tempfile::tempdir().unwrap();
    let own = root.path().join("etc/dtn/appliance.toml");
    let makers = root.path().join("usr/share/dtn/appliance.toml");
    for file in [&own, &makers] {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
    }
    fs::write(
        &makers,
        "version = 1\n[tuning]\nrtt = \"20ms\"\n[log]\nlevel = \"warn\"\n",
    )
    .unwrap();
    fs::write(&own, format!("{GOOD}[log]\nlevel = \"error\"\n")).unwrap();
    let config = config::load(&own).unwrap().config;
    assert_eq!((config.rtt.millis(), config.log.as_str()), (20, "error"));
    fs::write(&own, "version = 1\n[domain]\nname = \"a\"\n").unwrap();
    let error = config::load(&own).unwrap_err().to_string();
    assert!(error.contains("host: is missing"), "{error}");
}

#[test]
fn too_many_drop_ins_are_refused() {
    let site = Site::new();
    for n in 0..=100 {
        fs::write(site.drop_in(&format!("{n:03}.toml")), "").unwrap();
    }
    let told = site.told();
    assert!(told[0].contains("more than 100 drop-ins"), "{told:?}");
}

#[test]
fn a_list_without_an_end_is_refused_before_it_is_compared() {
    let site = Site::new();
    let nic = "[[nic]]\nname = \"a\"\nclass = \"shared\"\n";
    fs::write(site.file(), format!("{GOOD}{}", nic.repeat(5000))).unwrap();
    let told = site.told();
    assert!(
        told.iter()
            .any(|one| one.starts_with("nic: has 5001 entries")),
        "{told:?}"
    );
}

/// The whole reference, so that every field is among what is changed.
fn reference() -> Vec<u8> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/appliance.toml");
    let text = fs::read_to_string(file).unwrap();
    // what is commented out is a field too
    text.lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(field) if field.contains(" = ") && !field.contains(", ") => field,
            _ => line,
        })
        .filter(|line| !line.starts_with('#'))
        .collect::<Vec<_>>()
        .join("\n")
        .into_bytes()
}

#[derive(Debug, Clone)]
enum Change {
    Set(usize, u8),
    Cut(usize, usize),
    Copy(usize, usize, usize),
    Insert(usize, &'static str),
}
fn change() -> impl Strategy<Value = Change> {
    let at = || 0..8192_usize;
    let words = prop::sample::select(vec![
        "[",
        "]",
        "[[",
        "\"",
        "=",
        "\n",
        "\0",
        "\u{feff}",
        "'''",
        "{",
        "}",
        ".",
        "-1",
        "1e999",
        "[[nic]]\n",
        "nan",
        "0x",
        "2026-01-01",
        "\\u0000",
        "\r",
    ]);
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (at(), 0..64_usize).prop_map(|(at, length)| Change::Cut(at, length)),
        (at(), 0..200_usize, at()).prop_map(|(from, length, to)| Change::Copy(from, length, to)),
        (at(), words).prop_map(|(at, word)| Change::Insert(at, word)),
    ]
}
fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for one in changes {
        let place = |at: usize| at % (bytes.len() + 1);
        match one {
            Change::Set(at, byte) => {
                if let Some(old) = bytes.get_mut(at % 8192) {
                    *old = *byte;
                }
            }
            Change::Cut(at, length) => {
                let from = place(*at);
                let to = (from + length).min(bytes.len());
                bytes.drain(from..to);
            }
            Change::Copy(from, length, to) => {
                let from = place(*from);
                let piece = bytes[from..(from + length).min(bytes.len())].to_vec();
                let to = place(*to);
                bytes.splice(to..to, piece);
            }
            Change::Insert(at, word) => {
                let at = place(*at);
                bytes.splice(at..at, word.bytes());
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_chance_makes_of_a_file_is_read_or_refused_and_never_both(
        changes in prop::collection::vec(change(), 1..6)
    ) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("appliance.toml");
        fs::write(&file, changed(reference(), &changes)).unwrap();
        let sources = Sources::new(&file);
        let outcomes = [
            (config::load_from(&sources).map(|_| ()), config::check(&sources)),
            (
                vdnd::config::load_from(&sources).map(|_| ()),
                vdnd::config::check(&sources),
            ),
        ];
        for (loaded, checked) in outcomes {
            let checked = checked.unwrap();
            let errors = checked.iter().filter(|one| one.severity == Severity::Error).count();
            match loaded {
                Ok(()) => prop_assert_eq!(errors, 0),
                Err(ConfigError::Invalid(problems)) => {
                    prop_assert!(errors > 0);
                    prop_assert!(!problems.is_empty());
                }
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }
}
