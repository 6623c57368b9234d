//! The contract of the process: variables, standard input, output and exit code.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;

use serde_json::Value;
use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

fn run(plugin: &str, pairs: &[(&str, &str)], input: &str) -> Output {
    let mut command = Command::new(bench::plugin(plugin));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CNI_")) {
        command.env_remove(name);
    }
    command.envs(pairs.iter().copied());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn version_is_answered_without_reading_and_every_version_is_named() {
    for plugin in ["vdn-host-device", "vdn-macvlan", "vdn-ipam", "vdn-chain"] {
        let output = run(plugin, &[("CNI_COMMAND", "VERSION")], "");
        let json = stdout(&output);
        assert_eq!(json["cniVersion"], "1.1.0");
        assert_eq!(json["supportedVersions"].as_array().unwrap().len(), 7);
    }
}

#[test]
fn without_a_command_a_person_learns_what_it_is() {
    let output = run("vdn-macvlan", &[], "");
    assert!(output.status.success() && output.stdout.is_empty());
    let about = String::from_utf8_lossy(&output.stderr);
    assert!(
        about.contains("shared NIC") && about.contains("1.1.0"),
        "{about}"
    );
}

#[test]
fn an_error_is_json_on_standard_output() {
    let output = run("vdn-host-device", &[("CNI_COMMAND", "ADD")], "{}");
    assert!(!output.status.success());
    let json = stdout(&output);
    assert_eq!(json["code"], 4);
    let all = "required env variables [CNI_CONTAINERID,CNI_IFNAME,CNI_NETNS,CNI_PATH] missing";
    assert_eq!(json["msg"], all);
    let base = [("CNI_COMMAND", "STATUS"), ("CNI_PATH", "/x")];
    for (input, code) in [
        ("", 6),
        ("null", 6),
        ("{}", 7),
        (r#"{"name":"n","cniVersion":"7.0.0"}"#, 1),
        (r#"{"name":"n","cniVersion":"0.4.0"}"#, 1),
        (r#"{"name":"n","cniVersion":"1.1.0","mtu":7}"#, 7),
    ] {
        assert_eq!(
            stdout(&run("vdn-host-device", &base, input))["code"],
            code,
            "{input}"
        );
    }
    let unknown = run("vdn-host-device", &[("CNI_COMMAND", "FLY")], "{}");
    assert_eq!(stdout(&unknown)["msg"], "unknown CNI_COMMAND: FLY");
}

#[cfg(not(feature = "failpoints"))]
#[test]
fn a_build_without_failpoints_knows_none() {
    for plugin in ["vdn-host-device", "vdn-macvlan", "vdn-ipam", "vdn-chain"] {
        let binary = std::fs::read(bench::plugin(plugin)).unwrap();
        // the standard library's search is fast in a debug build too
        let text = String::from_utf8_lossy(&binary);
        for word in ["DTN_FAILPOINT", "add-after-record", "del-after-link"] {
            let there = text.contains(word);
            assert!(!there, "{plugin} has {word}");
        }
    }
}
