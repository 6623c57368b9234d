//! A small step in front of runc, for machines where a process may not raise its limits (containers
//! and sandboxes without CAP_SYS_RESOURCE): it takes `process.rlimits` and `process.oomScoreAdj` out
//! of the bundle's `config.json`, and out of the file that `exec --process` names, and becomes runc.
//!
//! It is used only where it is needed and is named in the report; the appliance's daemons do not know
//! it.

use anyhow::{Context, Result};
use serde_json::Value;
use std::{
    ffi::{OsStr, OsString},
    fs,
    path::PathBuf,
};

/// The files among runc's arguments that hold a process: a bundle's `config.json` (runc-run(8)) or a
/// process of its own (runc-exec(8)).
pub fn process_files(arguments: &[OsString]) -> Vec<PathBuf> {
    let executes = arguments.iter().any(|argument| argument == "exec");
    let mut found = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        // what comes after is the container's own command line
        if argument == "--" {
            break;
        }
        let text = argument.to_string_lossy();
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(OsString::from(value))),
            None => (text.into_owned(), None),
        };
        let is_bundle = matches!(name.as_str(), "--bundle" | "-b");
        let is_process = executes && matches!(name.as_str(), "--process" | "-p");
        if !is_bundle && !is_process {
            continue;
        }
        if let Some(value) = value.or_else(|| arguments.next().cloned()) {
            let path = PathBuf::from(value);
            found.push(if is_bundle {
                path.join("config.json")
            } else {
                path
            });
        }
    }
    found
}

/// Takes the limits out of a configuration or of a process alone; whether anything changed.
pub fn strip(document: &mut Value) -> bool {
    let process = match document.get("process") {
        Some(_) => document.get_mut("process"),
        None => Some(document),
    };
    let Some(process) = process.and_then(Value::as_object_mut) else {
        return false;
    };
    let limits = process.remove("rlimits").is_some();
    process.remove("oomScoreAdj").is_some() || limits
}

/// Changes the files and becomes runc; returns only when that fails.
pub fn become_runc(runc: &OsStr, arguments: &[OsString]) -> Result<std::convert::Infallible> {
    use std::os::unix::process::CommandExt;
    for file in process_files(arguments) {
        let text = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let mut document: Value =
            serde_json::from_slice(&text).with_context(|| format!("reading {}", file.display()))?;
        if strip(&mut document) {
            let text = serde_json::to_vec(&document)
                .with_context(|| format!("changing {}", file.display()))?;
            fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        }
    }
    let error = std::process::Command::new(runc).args(arguments).exec();
    Err(error).with_context(|| format!("starting {}", runc.display()))
}

/// Whether this process may raise its limits: CAP_SYS_RESOURCE (bit 24 of capabilities(7)) in the
/// effective set of a `/proc/PID/status`.
pub fn may_raise_limits(status: &str) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .is_some_and(|set| set >> 24 & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn arguments(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_files_are_found_as_podman_names_them() {
        let create = arguments(
            "--root /r --systemd-cgroup create --bundle /b/x --pid-file /p --no-pivot id",
        );
        assert_eq!(process_files(&create), [PathBuf::from("/b/x/config.json")]);
        let exec = arguments("exec --pid-file /p --process /tmp/exec-process-1 --detach id");
        assert_eq!(process_files(&exec), [PathBuf::from("/tmp/exec-process-1")]);
        assert_eq!(
            process_files(&arguments("exec --process=/q id")),
            [PathBuf::from("/q")]
        );
        assert!(process_files(&arguments("exec id -- tool --process /etc/passwd")).is_empty());
        assert!(process_files(&arguments("kill id -p 9")).is_empty());
    }

    #[test]
    fn limits_go_and_the_rest_stays() {
        let mut bundle = json!({"ociVersion": "1", "process": {"args": ["x"], "rlimits": [1], "oomScoreAdj": -5}});
        assert!(strip(&mut bundle));
        assert_eq!(
            bundle,
            json!({"ociVersion": "1", "process": {"args": ["x"]}})
        );
        assert!(!strip(&mut bundle));
        let mut process = json!({"args": ["x"], "rlimits": [{"type": "RLIMIT_NOFILE"}]});
        assert!(strip(&mut process));
        assert_eq!(process, json!({"args": ["x"]}));
        assert!(!strip(&mut json!([1])));
    }

    #[test]
    fn the_capability_is_read_from_the_kernel_s_own_words() {
        assert!(may_raise_limits("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        assert!(!may_raise_limits("CapEff:\t000001fffeffffff\n"));
        assert!(!may_raise_limits(""));
    }
}
