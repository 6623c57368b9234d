//! `dtnctl doctor` on this machine, with no daemon: what it says of a host that has nothing, and of one
//! with a NIC.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use serde_json::Value;
use std::{fs, path::Path, process::Command};

fn doctor(root: &Path, words: &[&str]) -> (Option<i32>, String, String) {
    let ran = Command::new(env!("CARGO_BIN_EXE_dtnctl"))
        .arg("--root")
        .arg(root)
        .args(["doctor", "--look", "100ms"])
        .args(words)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (ran.status.code(), text(ran.stdout), text(ran.stderr))
}

#[test]
fn a_host_without_anything_is_an_alarm_that_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let (code, out, err) = doctor(dir.path(), &[]);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(out.lines().nth(1).unwrap().starts_with("ALARM"), "{out}");
    assert!(out.contains("mend: "), "{out}");
    assert!(
        err.starts_with("dtnctl: ") && err.contains("\nnext: "),
        "{err}"
    );
    let (code, out, _) = doctor(dir.path(), &["--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, report["worst"].as_str()), (Some(1), Some("alarm")));
    let findings = report["findings"].as_array().unwrap();
    assert!(
        findings
            .iter()
            .any(|one| one["check"] == "config" && one["level"] == "alarm")
    );
    assert!(findings.iter().any(|one| one["check"] == "memory"), "{out}");
    assert!(report["host"]["machine"]["processors"].as_u64().unwrap() > 0);
}

#[test]
fn a_nic_that_is_configured_is_looked_at_and_a_missing_one_is_an_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir
        .path()
        .join(dtnd::config::DEFAULT_FILE.trim_start_matches('/'));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let text = format!(
        "version = 1\n[host]\nname = \"dtn1\"\n[data]\ndir = \"{}\"\n\
         [[nic]]\nname = \"nosuch0\"\nclass = \"dedicated\"\n",
        data.display()
    );
    fs::write(&file, text).unwrap();
    let (code, out, err) = doctor(dir.path(), &["--json"]);
    assert_eq!(code, Some(1), "{out}{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let find = |check: &str, subject: &str| {
        let is = |one: &&Value| {
            one["check"] == check && one["subject"].as_str().unwrap().contains(subject)
        };
        findings.iter().find(is)
    };
    assert_eq!(find("link", "nosuch0").unwrap()["level"], "alarm", "{out}");
    // it is configured here, and nobody answers
    assert_eq!(find("dtnd", "host").unwrap()["level"], "alarm", "{out}");
    assert!(
        find("room", "host").is_some() && find("clock", "host").is_some(),
        "{out}"
    );
}
