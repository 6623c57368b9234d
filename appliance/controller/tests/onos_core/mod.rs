//! The real ONOS core that a test is given: `DTN_ONOS_URL` names it, `DTN_ONOS_CREDENTIALS` the file with
//! its user. Both are run in the core's network namespace, where switches connect to port 6653 of the
//! loopback. `tests/onos` puts such a core together and runs the tests with it.

#![allow(dead_code, reason = "each test file uses a part of it")]

use crate::switch;
use std::{path::PathBuf, process::Command};
use vdnd::fabric::onos::OnosConfig;

/// Where switches connect to the core.
pub(crate) const CHANNEL: &str = "tcp:127.0.0.1:6653";
/// The application of all that tests put into the core.
pub(crate) const APP: &str = "org.example.dtn";

/// Whether there is a core; says so where there is none.
pub(crate) fn there(test: &str) -> bool {
    if std::env::var("DTN_ONOS").is_ok_and(|when| when == "later") {
        println!("tests/onos runs this with a core of its own");
        return false;
    }
    let missing = ["DTN_ONOS_URL", "DTN_ONOS_CREDENTIALS"]
        .into_iter()
        .find(|name| std::env::var_os(name).is_none());
    if let Some(name) = missing {
        switch::skipped(test, &format!("needs an ONOS core, named by {name}"));
    }
    missing.is_none()
}

/// How a controller of this name finds it.
pub(crate) fn config(owner: &str) -> OnosConfig {
    let env = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is needed"));
    let credentials_file = PathBuf::from(env("DTN_ONOS_CREDENTIALS"));
    let meters = format!("{}-meters.json", owner.replace('/', "-"));
    OnosConfig {
        url: env("DTN_ONOS_URL"),
        meters_file: credentials_file.with_file_name(meters),
        settling: OnosConfig::SETTLING,
        credentials_file,
        app_id: APP.into(),
        owner: owner.into(),
        plain: false,
        ca_file: None,
    }
}

/// The core's own answer, asked without the fabric.
pub(crate) fn ask(path: &str, more: &[&str]) -> String {
    let config = config("x");
    let user = std::fs::read_to_string(&config.credentials_file).unwrap();
    let url = format!("{}/onos/v1{path}", config.url);
    switch::run(
        Command::new("curl")
            .args(["--silent", "--max-time", "10", "--user", user.trim(), &url])
            .args(more),
    )
}
/// The same with a body.
pub(crate) fn post(path: &str, kind: &str, body: &str) -> String {
    let kind = format!("Content-Type: {kind}");
    ask(path, &["--header", &kind, "--data", body])
}
