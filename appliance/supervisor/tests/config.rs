//! The configuration against its golden files, and the annotated default against the fields.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use dtn_api::nic::NicClass;
use dtnd::config::{self, ConfigError, NicSelector, Severity, TABLES};
use std::path::{Path, PathBuf};

fn config_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config")
}
fn cases(kind: &str) -> (tempfile::TempDir, Vec<PathBuf>) {
    let copied = copied(&config_dir().join("testdata/dtnd").join(kind));
    let mut cases: Vec<PathBuf> = std::fs::read_dir(copied.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && path.extension().is_some_and(|e| e == "toml"))
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    (copied, cases)
}
/// A folder of cases as root would have written it: a checkout can be anybody's.
fn copied(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let from = entry.unwrap().path();
        let to = copy.path().join(from.file_name().unwrap());
        if from.is_dir() {
            std::fs::rename(copied(&from).keep(), &to).unwrap();
        } else {
            std::fs::write(&to, std::fs::read(&from).unwrap()).unwrap();
        }
    }
    copy
}

#[test]
fn the_good_are_taken() {
    let (_copied, cases) = cases("good");
    for case in cases {
        config::load(&case).unwrap_or_else(|e| panic!("{}: {e}", case.display()));
    }
}

#[test]
fn the_bad_are_refused_with_every_problem() {
    let (copied, cases) = cases("bad");
    for case in cases {
        let Err(ConfigError::Invalid(problems)) = config::load(&case) else {
            panic!("{} was taken", case.display());
        };
        let folder = format!("{}/", copied.path().display());
        let lines: Vec<String> = problems
            .iter()
            .map(|problem| problem.to_string().replace(&folder, ""))
            .collect();
        let name = case.with_extension("problems");
        let golden = config_dir()
            .join("testdata/dtnd/bad")
            .join(name.file_name().unwrap());
        let told = lines.join("\n") + "\n";
        if std::env::var_os("DTN_UPDATE").is_some() {
            std::fs::write(&golden, &told).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(expected, told, "{}", golden.display());
        let listed = config::check_file(&case).unwrap();
        assert_eq!(listed, problems);
    }
}

#[test]
fn absent_is_not_invalid() {
    let none = config_dir().join("testdata/dtnd/none.toml");
    let error = config::load(&none).unwrap_err();
    assert!(matches!(error, ConfigError::Absent { .. }), "{error}");
    assert!(error.to_string().contains("none.toml"));
    let folder = config::load(&config_dir()).unwrap_err();
    assert!(matches!(folder, ConfigError::Invalid(_)), "{folder}");
    assert!(folder.to_string().contains("is a folder"), "{folder}");
}

#[test]
fn drop_ins_add_nics_and_change_values() {
    let file = config_dir().join("testdata/dtnd/good/with-drop-in.toml");
    let config = config::load(&file).unwrap().config;
    let names: Vec<String> = config.nics.iter().map(|n| n.selector.to_string()).collect();
    assert_eq!(names, ["name data0", "name data1"]);
    assert_eq!(config.podman_socket, Path::new("/run/b.sock"));
}

#[test]
fn gateways_name_nics_of_the_same_file() {
    let file = config_dir().join("testdata/dtnd/good/gateways.toml");
    let config = config::load(&file).unwrap().config;
    let [internet, campus] = &config.gateways[..] else {
        panic!("{:?}", config.gateways);
    };
    assert_eq!(internet.outside.to_string(), "PCI address 0000:3b:00.0");
    assert_eq!(internet.outside_class, NicClass::Dedicated);
    assert_eq!(internet.routers.len(), 2);
    assert_eq!(campus.outside_class, NicClass::Shared);
    assert!(campus.nat && !internet.nat && campus.routers.is_empty());
}

#[test]
fn a_host_is_a_node_of_kubernetes_when_it_says_so() {
    let good = config_dir().join("testdata/dtnd/good");
    let read = |name: &str| config::load(&good.join(name)).unwrap().config.kubernetes;
    assert_eq!(read("least.toml"), None);
    let named = read("kubernetes.toml").unwrap();
    assert_eq!(named.node, "dtn1.example.org");
    assert_eq!(named.kubelet_dir, Path::new("/srv/kubelet"));
    let bare = read("kubernetes-bare.toml").unwrap();
    assert_eq!((bare.node.as_str(), bare.kubeconfig), ("dtn1", None));
    assert_eq!(bare.kubelet_dir, Path::new("/var/lib/kubelet"));
}

#[test]
fn a_host_without_a_nic_is_warned_of() {
    let file = config_dir().join("testdata/dtnd/good/least.toml");
    let warnings = config::load(&file).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!(
        (warnings[0].path.as_str(), warnings[0].severity),
        ("nic", Severity::Warning)
    );
}

#[test]
fn the_annotated_default_shows_every_field_and_every_default() {
    let file = config_dir().join("appliance.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.toml");
    std::fs::write(&copy, &text).unwrap();
    let shown = config::load(&copy).unwrap();
    assert_eq!(shown.warnings, []);
    for table in TABLES {
        let section = section(&text, table.name);
        let head = format!("[{}]", table.name);
        assert!(
            table.name.is_empty() || text.contains(&head),
            "{head} is not in config/appliance.toml"
        );
        for key in table.keys() {
            assert!(
                is_explained(&section, key),
                "{}.{key} has no comment in config/appliance.toml",
                table.name
            );
        }
    }
    // what it shows for a field that has a default is that default
    let least = config::load(&config_dir().join("testdata/dtnd/good/least.toml"))
        .unwrap()
        .config;
    let mut same = shown.config.clone();
    assert_eq!(
        same.nics[0].selector,
        NicSelector::Name("data0".parse().unwrap())
    );
    same.nics.clear();
    assert_eq!(same, least);
}

/// The lines of a table, up to the next.
fn section(text: &str, table: &str) -> Vec<String> {
    let starts = |line: &str| line.trim_start_matches("# ").starts_with('[');
    let lines = text.lines().map(str::to_owned);
    if table.is_empty() {
        return lines.take_while(|line| !starts(line)).collect();
    }
    let heads = [
        format!("[{table}]"),
        format!("[[{table}]]"),
        format!("# [{table}]"),
        format!("# [[{table}]]"),
    ];
    lines
        .skip_while(|line| !heads.contains(line))
        .skip(1)
        .take_while(|line| !starts(line))
        .collect()
}

/// Whether the key stands there, set or commented out, with words before it in its paragraph.
fn is_explained(section: &[String], key: &str) -> bool {
    let sets = |line: &str| {
        let line = line.trim_start_matches("# ");
        line.split_once(" = ").is_some_and(|(name, _)| name == key)
    };
    let Some(at) = section.iter().position(|line| sets(line)) else {
        return false;
    };
    section[..at]
        .iter()
        .rev()
        .take_while(|line| !line.is_empty())
        .any(|line| line.starts_with("# ") && !line.contains(" = \""))
}
