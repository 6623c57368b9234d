//! The units of the services, as files: whatever a sandbox could withhold is withheld, or the unit says
//! why not; systemd itself takes them, and its figure of exposure is not above what the documentation
//! says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// What a service can be withheld (systemd.exec(5)), and the word that withholds most of it.
const WITHHELD: [(&str, &str); 25] = [
    ("User", "dtn-vdn"),
    ("CapabilityBoundingSet", ""),
    ("NoNewPrivileges", "yes"),
    ("ProtectSystem", "strict"),
    ("ProtectHome", "yes"),
    ("PrivateTmp", "yes"),
    ("PrivateDevices", "yes"),
    ("PrivateNetwork", "yes"),
    ("PrivateUsers", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectClock", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectProc", "invisible"),
    ("ProcSubset", "pid"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("LockPersonality", "yes"),
    ("MemoryDenyWriteExecute", "yes"),
    ("SystemCallArchitectures", "native"),
    ("IPAddressDeny", "any"),
    ("RootDirectory", "/run/dtn/root"),
];
/// Highest exposure that systemd may see, in tenths, as docs/admin.md says.
const EXPOSURE: [(&str, u32); 2] = [("dtnd", 45), ("vdnd", 15)];

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../units")
}
fn text(file: &str) -> String {
    fs::read_to_string(units().join(file)).unwrap()
}
/// The value of a directive, and the comment above it.
fn directive<'a>(unit: &'a str, name: &str) -> Option<(&'a str, String)> {
    let lines: Vec<&str> = unit.lines().collect();
    let at = lines.iter().position(|line| {
        line.split_once('=')
            .is_some_and(|(directive, _)| directive == name)
    })?;
    let above = lines[..at].iter().rev();
    let comment: Vec<&str> = above.take_while(|l| l.starts_with('#')).copied().collect();
    Some((lines[at].split_once('=').unwrap().1, comment.join("\n")))
}
/// A directive that is not there and the reason, from the end of the unit.
fn reasons(unit: &str) -> Vec<&str> {
    let (_, end) = unit.split_once("# Not here, and why:\n").unwrap();
    let lines = end.lines().take_while(|line| line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(": "))
        .flat_map(|(names, _)| names.trim_start_matches("# ").split(", "))
        .collect()
}

#[test]
fn what_is_not_withheld_has_its_reason() {
    for file in ["dtnd.service", "vdnd.service"] {
        let unit = text(file);
        let reasons = reasons(&unit);
        for (name, most) in WITHHELD {
            match directive(&unit, name) {
                Some((value, _)) if value == most => {
                    assert!(!reasons.contains(&name), "{file}: {name} is there");
                }
                Some((value, comment)) => {
                    assert!(!comment.is_empty(), "{file}: why {name}={value}?");
                }
                None => assert!(reasons.contains(&name), "{file}: why no {name}?"),
            }
        }
        for name in reasons {
            let known = WITHHELD.iter().any(|(known, _)| *known == name);
            assert!(known, "{file}: {name} is nothing that is withheld");
        }
    }
}

#[test]
fn what_the_daemons_rely_on_is_in_the_units() {
    for (daemon, socket) in [
        ("dtnd", "/run/dtn/dtnd.sock"),
        ("vdnd", "/run/dtn/vdnd.sock"),
    ] {
        let service = text(&format!("{daemon}.service"));
        let of = |name| directive(&service, name).unwrap().0.to_owned();
        assert_eq!(of("Type"), "notify", "known to systemd 252 too");
        assert_eq!(of("ExecStart"), format!("/usr/sbin/{daemon}"));
        assert_eq!(
            of("ExecReload"),
            format!("/usr/sbin/{daemon} --reload $MAINPID")
        );
        assert!(of("RestartPreventExitStatus").contains("78"));
        assert!(of("WatchdogSec").ends_with('s'));
        let unit = text(&format!("{daemon}.socket"));
        let of = |name| directive(&unit, name).unwrap().0.to_owned();
        assert_eq!(of("ListenStream"), socket);
        assert_eq!(
            (of("SocketMode"), of("SocketGroup")),
            ("0660".into(), "dtn".into())
        );
        assert_eq!(
            of("FlushPending"),
            "yes",
            "else a wrong configuration loops"
        );
    }
    assert!(directive(&text("notify-reload.conf"), "Type").unwrap().0 == "notify-reload");
    let pins = directive(&text("dtnd.service"), "Environment").map(|(v, _)| v.to_owned());
    assert_eq!(pins.as_deref(), Some("DTN_PINS=/proc/1/ns/mnt"));
}

/// Says in the list of what a run has skipped that systemd is not here.
fn analyze(test: &str) -> Option<Command> {
    let command = || Command::new("systemd-analyze");
    if command().arg("--version").output().is_ok() {
        return Some(command());
    }
    eprintln!("skipped {test}: no systemd-analyze on this machine");
    if let Some(list) = std::env::var_os("DTN_SKIPS") {
        let mut list = fs::File::options()
            .append(true)
            .create(true)
            .open(list)
            .unwrap();
        writeln!(list, "{test}: no systemd-analyze on this machine").unwrap();
    }
    None
}

#[test]
fn systemd_takes_the_units() {
    let Some(mut command) = analyze("systemd_takes_the_units") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for file in ["dtnd.service", "dtnd.socket", "vdnd.service", "vdnd.socket"] {
        let mut unit = text(file);
        for daemon in ["dtnd", "vdnd"] {
            // verify looks whether the programs are there
            unit = unit.replace(&format!("/usr/sbin/{daemon}"), "/bin/true");
        }
        files.push(folder.path().join(file));
        fs::write(files.last().unwrap(), unit).unwrap();
    }
    let output = command
        .args(["verify", "--man=no"])
        .args(&files)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // what the machine's other units lack is not ours
    let ours: Vec<_> = said
        .lines()
        .filter(|l| l.contains("dtnd") || l.contains("vdnd"))
        .collect();
    assert!(ours.is_empty(), "{ours:#?}");
}

#[test]
fn exposure_is_no_higher_than_documented() {
    for (daemon, most) in EXPOSURE {
        let Some(mut command) = analyze("exposure_is_no_higher_than_documented") else {
            return;
        };
        let output = command
            .args(["security", "--no-pager", "--offline=true"])
            .arg(format!("--threshold={most}"))
            .arg(units().join(format!("{daemon}.service")))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let figure = said.lines().find(|line| line.contains("Overall")).unwrap();
        println!("{figure}");
        assert!(output.status.success(), "{daemon}: {figure}");
    }
}
