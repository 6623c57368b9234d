//! What counts as counted.

#![allow(clippy::unwrap_used, reason = "a test fails with what it could not do")]

use super::*;
use crate::gateway::{
    NAME,
    doors::{SERVICE, rule},
};
use dtn_api::gateway::Direction;

#[test]
fn what_nobody_has_counted_is_named() {
    let gateway: Gateway = serde_json::from_value(serde_json::json!({
        "name": NAME,
        "spec": {
            "node": "dtn1", "host": "02:00:5e:10:00:01-none", "networks": ["0.0.0.0/0"],
            "outside": ["198.51.100.2/24"]
        },
        "rules_version": 2,
        "report": { "rules_version": 2, "slices": [], "read_at": "2026-01-01T00:00:00Z" },
        "seen_at": "2026-01-01T00:00:00Z",
        "version": 1
    }))
    .unwrap();
    let count = |packets| serde_json::json!({ "packets": packets, "bytes": 60 * packets });
    let standing = |packets: u64| -> StandingRules {
        let items: Vec<_> = [
            rule(OUT, Direction::Outbound, &["443".to_owned()]).unwrap(),
            rule(IN, Direction::Inbound, &[SERVICE.to_string()]).unwrap(),
        ]
        .into_iter()
        .map(|rule| {
            let mut item = serde_json::to_value(rule).unwrap();
            item["in_force"] = true.into();
            item["host"] = count(packets);
            item["switches"] = count(packets);
            item
        })
        .collect();
        serde_json::from_value(serde_json::json!({
            "items": items, "version": 2, "denied_host": count(packets),
            "denied_switches": count(packets)
        }))
        .unwrap()
    };
    let none: Vec<String> = Vec::new();
    // without switches the host drops both ways; with some it sees nothing that leaves unallowed
    assert_eq!(missing(&gateway, &standing(1), 1, 1, None), none);
    assert_eq!(missing(&gateway, &standing(1), 0, 1, Some(3)), none);
    assert_eq!(missing(&gateway, &standing(1), 0, 1, None).len(), 1);
    assert_eq!(missing(&gateway, &standing(1), 1, 0, Some(0)).len(), 2);
    assert_eq!(missing(&gateway, &standing(0), 1, 1, Some(1)).len(), 5);
    let mut old = gateway.clone();
    old.report.as_mut().unwrap().rules_version = 1;
    let said = missing(&old, &standing(1), 1, 1, None);
    assert!(said[0].contains("version Some(1)"), "{said:?}");
}
