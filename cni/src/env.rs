//! The environment of a call: which verb, for which container, and what a verb needs of it.

use crate::error::{CniError, Code};
use dtn_api::IfName;
use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

/// The verbs of the specification 1.1.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Attach.
    Add,
    /// Detach.
    Del,
    /// Is it as it should be?
    Check,
    /// Could an ADD be served?
    Status,
    /// Detach everything that is not named.
    Gc,
    /// Which versions are spoken?
    Version,
}

impl Verb {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "STATUS" => Self::Status,
            "GC" => Self::Gc,
            "VERSION" => Self::Version,
            _ => return None,
        })
    }
    /// Its word in `CNI_COMMAND`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
            Self::Version => "VERSION",
        }
    }
    const fn of_a_container(self) -> bool {
        matches!(self, Self::Add | Self::Del | Self::Check)
    }
    const fn needs_netns(self) -> bool {
        matches!(self, Self::Add | Self::Check)
    }
}

/// The environment of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Which verb.
    pub verb: Verb,
    /// `CNI_CONTAINERID`; empty where the verb has none.
    pub container_id: String,
    /// `CNI_NETNS`.
    pub netns: Option<PathBuf>,
    /// `CNI_IFNAME`; `None` where the verb has none.
    pub ifname: Option<IfName>,
    /// `CNI_ARGS`, pair by pair.
    pub args: BTreeMap<String, String>,
    /// Folders of `CNI_PATH`.
    pub path: Vec<PathBuf>,
    /// `CNI_NETNS_OVERRIDE`: the sandbox may be the caller's own namespace.
    pub netns_override: bool,
}

impl Environment {
    /// From the variables of a process; `None` when there is no `CNI_COMMAND`.
    pub fn read(get: impl Fn(&str) -> Option<OsString>) -> Option<Result<Self, CniError>> {
        let text = |name: &str| get(name).map(|v| v.to_string_lossy().into_owned());
        let command = text("CNI_COMMAND").filter(|command| !command.is_empty())?;
        Some(Self::parse(&command, &text))
    }

    fn parse(command: &str, text: &impl Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        let wrong = |message: String| CniError::new(Code::InvalidEnvironment, message, "");
        let verb =
            Verb::parse(command).ok_or_else(|| wrong(format!("unknown CNI_COMMAND: {command}")))?;
        let given = |name: &str| text(name).filter(|value| !value.is_empty());

        let mut needed = Vec::new();
        if verb.of_a_container() {
            needed.extend(["CNI_CONTAINERID", "CNI_IFNAME"]);
        }
        if verb.needs_netns() {
            needed.push("CNI_NETNS");
        }
        if verb != Verb::Version {
            needed.push("CNI_PATH");
        }
        let missing: Vec<_> = needed
            .into_iter()
            .filter(|name| given(name).is_none())
            .collect();
        if !missing.is_empty() {
            let names = missing.join(",");
            return Err(wrong(format!("required env variables [{names}] missing")));
        }
        let container_id = given("CNI_CONTAINERID").unwrap_or_default();
        let mut ifname = None;
        if verb.of_a_container() {
            if !dtn_api::attachment::key_is_valid(&container_id) {
                return Err(wrong(format!(
                    "CNI_CONTAINERID {container_id:?} must be letters, digits, '.', '_' and '-', a letter or digit first"
                )));
            }
            let name = given("CNI_IFNAME").unwrap_or_default();
            ifname = Some(
                name.parse()
                    .map_err(|e| wrong(format!("CNI_IFNAME: {e}")))?,
            );
        }
        let overridden = given("CNI_NETNS_OVERRIDE")
            .unwrap_or_default()
            .to_ascii_lowercase();
        Ok(Self {
            verb,
            container_id,
            netns: given("CNI_NETNS").map(PathBuf::from),
            ifname,
            args: parse_args(&given("CNI_ARGS").unwrap_or_default())?,
            path: std::env::split_paths(&given("CNI_PATH").unwrap_or_default()).collect(),
            netns_override: matches!(overridden.as_str(), "1" | "true"),
        })
    }

    /// The pod's UID where the runtime gives it, else the container's ID: the key of everything
    /// that belongs to the pod.
    pub fn key(&self) -> &str {
        let uid = self.args.get("K8S_POD_UID").map(String::as_str);
        uid.filter(|uid| dtn_api::attachment::key_is_valid(uid))
            .unwrap_or(&self.container_id)
    }
}

fn parse_args(text: &str) -> Result<BTreeMap<String, String>, CniError> {
    let mut args = BTreeMap::new();
    for pair in text.split(';').filter(|pair| !pair.is_empty()) {
        let Some((name, value)) = pair.split_once('=') else {
            let message = format!("CNI_ARGS: invalid pair {pair:?}");
            return Err(CniError::new(
                Code::InvalidEnvironment,
                message,
                "write NAME=VALUE;…",
            ));
        };
        args.insert(name.to_owned(), value.to_owned());
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Option<Result<Environment, CniError>> {
        Environment::read(|name| {
            pairs
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn all_that_is_missing_is_named_at_once() {
        let error = read(&[("CNI_COMMAND", "ADD")]).unwrap().unwrap_err();
        assert_eq!(error.code, Code::InvalidEnvironment);
        let names = "[CNI_CONTAINERID,CNI_IFNAME,CNI_NETNS,CNI_PATH]";
        assert_eq!(
            error.message,
            format!("required env variables {names} missing")
        );
        assert!(read(&[]).is_none());
        assert!(read(&[("CNI_COMMAND", "VERSION")]).unwrap().is_ok());
        assert!(
            read(&[("CNI_COMMAND", "STATUS"), ("CNI_PATH", "/x")])
                .unwrap()
                .is_ok()
        );
    }

    #[test]
    fn names_that_would_be_paths_are_refused() {
        let base = [("CNI_COMMAND", "DEL"), ("CNI_PATH", "/x")];
        for (id, ifname) in [
            ("../x", "net1"),
            ("a", "a/b"),
            ("a", "sixteen-bytes-xx"),
            ("-a", "x"),
        ] {
            let mut pairs = base.to_vec();
            pairs.extend([("CNI_CONTAINERID", id), ("CNI_IFNAME", ifname)]);
            assert!(read(&pairs).unwrap().is_err(), "{id} {ifname}");
        }
    }

    #[test]
    fn the_key_is_the_pods_where_the_runtime_tells_it() {
        let mut pairs = vec![
            ("CNI_COMMAND", "DEL"),
            ("CNI_PATH", "/x"),
            ("CNI_CONTAINERID", "abc"),
            ("CNI_IFNAME", "net1"),
        ];
        assert_eq!(read(&pairs).unwrap().unwrap().key(), "abc");
        pairs.push(("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_UID=u-1"));
        assert_eq!(read(&pairs).unwrap().unwrap().key(), "u-1");
        pairs[4].1 = "K8S_POD_UID=../../etc";
        assert_eq!(read(&pairs).unwrap().unwrap().key(), "abc");
        pairs[4].1 = "novalue";
        assert!(read(&pairs).unwrap().is_err());
    }
}
