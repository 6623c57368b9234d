//! What the controllers are told fits what is cabled.

#![allow(clippy::unwrap_used, reason = "a test fails with what it could not do")]

use super::*;

fn told(fabric: &str) -> toml::Table {
    let options = serde_json::json!({
        "state": "/s", "fabric": fabric, "wan": "200Mbit", "rtt": "10ms", "mtu": 9000, "nics": 2,
        "nic": "dedicated", "rate": null, "min_rate": null, "class": "guaranteed",
        "data": "/usr/share/doc", "large": "1MiB", "both": false, "interrupt": false,
        "until": null, "keep": false, "report": null, "svg": null,
        "bin_dir": "/nowhere", "share": "/nowhere", "image": "/nowhere"
    });
    let options: Options = serde_json::from_value(options).unwrap();
    vdnd_toml(&options, 1).parse().unwrap()
}

#[test]
fn hosts_alone_need_no_wiring() {
    let file = told("edge");
    for table in ["fabric", "switch", "cable", "port"] {
        assert!(!file.contains_key(table), "{table}");
    }
    assert!(file["border"][0].get("at").is_none());
}

#[test]
fn a_host_is_a_node_of_its_site_s_cluster_or_has_podman() {
    let toml = |engine: &str| -> toml::Table {
        let options = serde_json::json!({
            "state": "/s", "engine": engine, "wan": "200Mbit", "rtt": "10ms", "mtu": 9000, "nics": 1,
            "nic": "dedicated", "rate": null, "min_rate": null, "class": "guaranteed",
            "data": "/usr/share/doc", "large": "1MiB", "both": false, "interrupt": false,
            "until": null, "keep": false, "report": null, "svg": null,
            "bin_dir": "/nowhere", "share": "/nowhere", "image": "/nowhere"
        });
        let options: Options = serde_json::from_value(options).unwrap();
        dtnd_toml(&options, 1, Path::new("/s/sites/busan"))
            .parse()
            .unwrap()
    };
    let (podman, node) = (toml("podman"), toml("kubernetes"));
    assert_eq!(
        podman["podman"]["socket"].as_str(),
        Some("/s/sites/busan/run/podman/podman.sock")
    );
    assert!(!podman.contains_key("kubernetes") && !node.contains_key("podman"));
    assert_eq!(
        node["kubernetes"]["kubeconfig"].as_str(),
        Some("/s/sites/busan/var/lib/kubernetes/dtnd.kubeconfig")
    );
    assert_eq!(podman["nic"], node["nic"]);
}

#[test]
fn the_wiring_of_switches_names_every_port_once() {
    let file = told("openflow");
    assert_eq!(file["fabric"]["listen"].as_str(), Some("10.254.0.12:6653"));
    assert_eq!(file["fabric"]["plain"].as_bool(), Some(true));
    let names: Vec<_> = file["switch"]
        .as_array()
        .unwrap()
        .iter()
        .map(|switch| switch["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, switches::BRIDGES);
    let mut places = vec![file["border"][0]["at"].as_str().unwrap()];
    for cable in file["cable"].as_array().unwrap() {
        assert_eq!(cable["mtu"].as_integer(), Some(9000));
        places.extend(cable["ends"].as_str().unwrap().split(' '));
    }
    for port in file["port"].as_array().unwrap() {
        places.push(port["at"].as_str().unwrap());
    }
    places.sort_unstable();
    assert_eq!(
        places,
        [
            "core/core-edge1",
            "core/core-edge2",
            "edge1/edge1-core",
            "edge1/port-door0",
            "edge1/port-visit0",
            "edge1/port0",
            "edge1/port1",
            "edge2/border",
            "edge2/edge2-core",
        ]
    );
    assert_eq!(file["port"][1]["nic"].as_str(), Some("dtn1/data1"));
}

#[test]
fn an_onos_is_named_with_the_same_wiring() {
    let (openflow, mut onos) = (told("openflow"), told("onos"));
    let fabric = onos.remove("fabric").unwrap();
    assert_eq!(fabric["url"].as_str(), Some("http://127.0.0.1:8181"));
    assert_eq!(
        fabric["credentials-file"].as_str(),
        Some("/s/run/busan-onos/credentials")
    );
    // no two controllers have the same
    assert_eq!(fabric["app-id"].as_str(), Some("org.dtn.vdn.busan"));
    for table in ["switch", "cable", "port", "border"] {
        assert_eq!(onos[table], openflow[table], "{table}");
    }
}
