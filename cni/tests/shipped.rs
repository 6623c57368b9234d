//! The network lists that are shipped are ones that the plugins take.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use dtn_api::nic::NicClass;
use dtn_cni::conf::{Conf, Ipam};
use serde_json::{Value, json};
use std::path::Path;

#[test]
fn shipped_networks_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/cni");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let list: Value =
            serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
        for plugin in list["plugins"].as_array().unwrap() {
            // the runtime derives each plugin's configuration so
            let mut conf = plugin.clone();
            conf["name"] = list["name"].clone();
            conf["cniVersion"] = list["cniVersion"].clone();
            conf["runtimeConfig"] = json!({});
            let class = match plugin["type"].as_str().unwrap() {
                "vdn-host-device" => NicClass::Dedicated,
                "vdn-macvlan" => NicClass::Shared,
                other => panic!("no such plugin: {other}"),
            };
            let conf =
                Conf::parse(conf.to_string().as_bytes(), class, dtn_cni::env::Verb::Add).unwrap();
            assert_eq!(conf.ipam, Ipam::Own);
            seen += 1;
        }
    }
    assert_eq!(seen, 2);
}
