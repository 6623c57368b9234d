//! The shape of the workspace: dependencies point one way, heavy stacks stay where they belong, and
//! no file has a name that says nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use serde_json::Value;
use std::{collections::BTreeMap, path::Path, process::Command};

/// A crate may depend on crates before it, never on one after it.
const ORDER: [&str; 15] = [
    "dtn-mover",
    "dtn-openflow",
    "dtn-api",
    "dtn-measure",
    "dtn-workloads",
    "dtn-service",
    "vdnd",
    "dtn-cluster",
    "dtn-link",
    "dtn-tuning",
    "dtn-cni",
    "dtnd",
    "dtn-install",
    "dtn-lab",
    "dtnctl",
];

/// What must not get in, and whom it must stay out of: the plugins start in milliseconds and need
/// no network stack; the controller needs no kernel access; the vocabulary and the wire need nothing.
const KEPT_OUT: [(&str, &[&str]); 6] = [
    (
        "dtn-cni",
        &[
            "reqwest", "rustls", "kube", "systemd", "axum", "figment", "vdnd",
        ],
    ),
    ("vdnd", &["rtnetlink", "kube", "dtn-link"]),
    ("dtn-cluster", &["rtnetlink", "dtn-link", "vdnd", "dtnd"]),
    ("dtn-link", &["reqwest", "axum", "kube"]),
    ("dtn-mover", &["tokio", "kube", "reqwest"]),
    ("dtn-openflow", &["tokio", "serde", "dtn-api"]),
];

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn workspace() -> BTreeMap<String, Vec<String>> {
    let json = cargo(&[
        "metadata",
        "--no-deps",
        "--offline",
        "--locked",
        "--format-version",
        "1",
    ]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let packages = json["packages"].as_array().unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let needs = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap();
        all.iter()
            .filter(|d| d["kind"].is_null())
            .map(name)
            .collect()
    };
    packages
        .iter()
        .map(|package| (name(package), needs(package)))
        .collect()
}

#[test]
fn dependencies_point_one_way() {
    let rank = |name: &str| ORDER.iter().position(|known| *known == name);
    let workspace = workspace();
    assert_eq!(
        workspace.len(),
        ORDER.len(),
        "a crate is missing in ORDER: {workspace:?}"
    );
    for (name, needs) in workspace {
        let own = rank(&name).unwrap_or_else(|| panic!("{name} is missing in ORDER"));
        for other in needs.iter().filter_map(|other| rank(other)) {
            assert!(other < own, "{name} must not depend on {}", ORDER[other]);
        }
    }
}

#[test]
fn heavy_stacks_stay_where_they_belong() {
    for (name, kept_out) in KEPT_OUT {
        let tree = cargo(&[
            "tree",
            "--offline",
            "--locked",
            "-p",
            name,
            "-e",
            "normal",
            "--prefix",
            "none",
        ]);
        for line in tree.lines() {
            let dependency = line.split(' ').next().unwrap();
            assert!(
                !kept_out.contains(&dependency),
                "{name} must do without {dependency}"
            );
        }
    }
}

#[test]
fn one_tls_provider_and_one_clock() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
    let lock = std::fs::read_to_string(lock).unwrap();
    for refused in [
        "aws-lc-sys",
        "openssl-sys",
        "native-tls",
        "chrono",
        "serde_yaml",
        "async-std",
    ] {
        let entry = format!("name = \"{refused}\"");
        assert!(!lock.contains(&entry), "{refused} came in: see deny.toml");
    }
}

#[test]
fn every_name_says_something() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let listed = Command::new("git")
        .args(["ls-files"])
        .current_dir(&root)
        .output();
    let Some(listed) = listed.ok().filter(|output| output.status.success()) else {
        // a source archive has no index to ask
        return;
    };
    for path in String::from_utf8(listed.stdout).unwrap().lines() {
        let stem = Path::new(path)
            .file_stem()
            .and_then(|s| s.to_str())
            .unwrap_or_default();
        let empty = [
            "util", "utils", "common", "manager", "helper", "helpers", "misc",
        ];
        assert!(!empty.contains(&stem), "{path}: a name that says nothing");
    }
}
