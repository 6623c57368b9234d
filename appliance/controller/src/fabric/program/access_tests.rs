//! Access rules in a switch, to the letter.

use super::{MOST, priority, weight};
use crate::fabric::{
    Access, Intent,
    program::{
        COOKIE, Purpose, cookie, cookie_of, number_of, programs, tag_of, text,
        walk::site::{Site, Wish, switch},
    },
};
use dtn_api::{gateway::AccessRule, slice::Class};
use std::collections::BTreeMap;

/// Two pods and a gateway at two switches, with a border at the first.
fn gated(site: &Site, rules: &[&str]) -> Intent {
    let mut intent = site.intent(&Wish {
        slice: 1,
        tag: 5,
        class: Class::BestEffort,
        rate_bps: 0,
        hosts: [0, 1, 5].into(),
        label: Some(200),
    });
    let rules = rules.iter().map(|text| serde_json::from_str(text).unwrap());
    intent.access = Some(Access {
        gateway: intent.members[2].mac,
        subnets: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
        rules: rules.collect(),
    });
    intent
}
fn rule(text: &str) -> AccessRule {
    serde_json::from_str(text).unwrap()
}
const DENY: &str =
    r#"{"priority":10,"action":"deny","direction":"inbound","match":{"src":"192.0.2.66/32"}}"#;
const ALLOW: &str = r#"{"priority":100,"action":"allow","direction":"outbound","match":{"src":"10.0.0.0/24","dst":"192.0.2.0/24","proto":"tcp","dst_ports":["443","50000-51000","50500-51007"]}}"#;
const PING: &str =
    r#"{"priority":200,"action":"allow","direction":"outbound","match":{"proto":"icmp"}}"#;

/// What is judged at the gateway's switch and what at the others.
#[test]
fn the_rules_of_a_gateway() {
    let site = Site::of(&[0]);
    let (wanted, refused) = site.wanted(&[gated(&site, &[DENY, ALLOW, PING])], &BTreeMap::new());
    assert_eq!(refused, []);
    let mut lines = Vec::new();
    for (name, resolved) in &wanted {
        lines.push(name.to_string());
        let flows = resolved.flows.iter().rev();
        let judged = flows.filter(|(id, flow)| {
            id.table == super::super::ACCESS
                || flow.cookie == cookie(5, Purpose::Stranger)
                || flow.cookie == cookie(5, Purpose::Arrive)
        });
        lines.extend(judged.map(|(id, flow)| {
            let number = (flow.cookie >> 32) as u16;
            format!("{number:>3}: {}", text::flow(id, &flow.instructions))
        }));
    }
    insta::assert_snapshot!("gateway", lines.join("\n"));
}

#[test]
fn a_cookie_names_the_access_rule() {
    let of = cookie_of(5, Purpose::Allow, 9999);
    assert_eq!(of, COOKIE | 0x270f_0005_000d);
    assert_eq!((tag_of(of), number_of(of)), (Some(5), Some(9999)));
    assert_eq!(number_of(cookie(5, Purpose::Denied)), Some(0));
    assert_eq!(number_of(cookie(5, Purpose::Pass)), None);
    assert_eq!(number_of(of & !COOKIE), None, "somebody else's");
}

#[test]
fn rules_keep_their_order_between_what_is_fixed() {
    let (first, last) = (priority(1), priority(9999));
    assert!(Purpose::Posed.place().1 > first && first > last);
    assert!(last > Purpose::Error.place().1);
    assert!(Purpose::Denied.place().1 > Purpose::Pass.place().1);
    assert!(Purpose::Stranger.place().1 < Purpose::Admit.place().1);
}

#[test]
fn ranges_that_touch_are_one() {
    let ports = |list: &str| {
        rule(&format!(
            r#"{{"priority":1,"action":"deny","direction":"outbound","match":{{"proto":"udp","dst_ports":{list}}}}}"#
        ))
    };
    assert_eq!(weight(&ports(r#"["0-1","2-3","1-2"]"#)), 1);
    assert_eq!(weight(&ports(r#"["0-65534","65535"]"#)), 1);
    assert_eq!(weight(&ports(r#"["1-65534"]"#)), 30);
}

/// More rules than a switch may have room for shut the gateway, and nothing else.
#[test]
fn too_many_rules_shut_the_gateway_alone() {
    let site = Site::of(&[0]);
    let many = r#"{"priority":7,"action":"allow","direction":"outbound","match":{"proto":"tcp","src_ports":["1-65534"],"dst_ports":["1-65534"]}}"#;
    let each = weight(&rule(many));
    assert_eq!(each, 2 * 30 * 30);
    let rules = vec![many; MOST / each + 1];
    let shut = programs(&site.network, &[gated(&site, &rules)]);
    let empty = programs(&site.network, &[gated(&site, &[])]);
    assert_eq!(shut.switches, empty.switches);
    let why = &shut.refused[0].reason;
    assert!(why.contains("its gateway is shut"), "{why}");
    assert!(!shut.switches[&switch(1)].flows.is_empty());
}
