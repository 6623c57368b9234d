//! Access rules on their way into a double of ONOS that does at once what it is told, in the worst
//! order that a call leaves open.

use crate::fabric::{
    Access, Attached, Intent,
    network::{Network, Switch},
    onos::{
        plan::{Memory, Plan, plan},
        rules::{self, Key},
        survey::{Device, Survey},
    },
    program::{ACCESS, FORWARD},
};
use dtn_api::{MacAddress, slice::Class};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;
use uuid::Uuid;

const GATEWAY: MacAddress = MacAddress::new([2, 0, 0, 0, 0, 9]);
const DENY: &str =
    r#"{"priority":10,"action":"deny","direction":"outbound","match":{"dst":"192.0.2.66/32"}}"#;
const WEB: &str = r#"{"priority":20,"action":"allow","direction":"outbound","match":{"proto":"tcp","dst_ports":["443"]}}"#;
const DENY_UDP: &str =
    r#"{"priority":5,"action":"deny","direction":"outbound","match":{"proto":"udp"}}"#;
const NAMES: &str = r#"{"priority":30,"action":"allow","direction":"outbound","match":{"proto":"udp","dst":"2001:db8::/32","dst_ports":["53"]}}"#;
const RANGE: &str = r#"{"priority":40,"action":"allow","direction":"outbound","match":{"proto":"udp","dst_ports":["53-99"]}}"#;

fn network() -> Network {
    Network {
        switches: vec![Switch {
            name: "edge1".parse().unwrap(),
            datapath_id: 1,
            single_table: false,
        }],
        ..Network::default()
    }
}
fn wish(rules: Option<&[&str]>) -> Intent {
    let member = |n: u8| Attached {
        mac: MacAddress::new([2, 0, 0, 0, 0, n]),
        ips: vec![[10, 0, 0, n].into(), format!("fd00::{n}").parse().unwrap()],
        at: format!("edge1/p{n}").parse().unwrap(),
    };
    let mut members = vec![member(1), member(2)];
    let access = rules.map(|rules| {
        members.push(member(9));
        let rules = rules.iter().map(|text| serde_json::from_str(text).unwrap());
        Access {
            gateway: GATEWAY,
            subnets: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
            rules: rules.collect(),
        }
    });
    Intent {
        slice: Uuid::from_u128(1),
        name: "red".parse().unwrap(),
        tag: 7,
        class: Class::BestEffort,
        rate_bps: 0,
        burst_ms: 10,
        members,
        border: None,
        cables: BTreeSet::new(),
        access,
    }
}

#[derive(Default)]
struct Double {
    flows: BTreeMap<Key, Value>,
    memory: Memory,
    last: u64,
}
impl Double {
    fn survey(&self) -> Survey {
        let ports = [("p1", 1), ("p2", 2), ("p9", 9)].map(|(name, n)| (name.to_owned(), n));
        let device = Device {
            available: true,
            description: String::new(),
            ports: ports.into(),
        };
        let flows: Vec<&Value> = self.flows.values().collect();
        Survey {
            devices: [("edge1".parse().unwrap(), device)].into(),
            flows: rules::read(&json!({ "flows": flows })),
            ..Survey::default()
        }
    }
    /// One pass, with a look after each deed.
    fn pass(&mut self, wanted: &Intent, look: &mut dyn FnMut(&Self)) -> Plan {
        let (survey, now) = (self.survey(), Instant::now());
        let wanted = std::slice::from_ref(wanted);
        let plan = plan(&network(), wanted, &survey, &mut self.memory, 5, now);
        let mut clear: Vec<_> = plan.shut.iter().chain(&plan.clear).collect();
        clear.sort_by_key(|held| !held.treatment.is_empty());
        for held in clear {
            self.flows.remove(&held.key);
            look(self);
        }
        let mut make: Vec<_> = plan.forward.iter().collect();
        make.sort_by_key(|(key, rule)| (key.table == ACCESS, rule.treatment().is_empty()));
        for (key, rule) in make.into_iter().chain(&plan.admit) {
            self.last += 1;
            let mut flow = rule.body(key);
            flow["id"] = json!(self.last.to_string());
            flow["state"] = json!("ADDED");
            flow["packets"] = json!(3);
            flow["bytes"] = json!(300);
            self.flows.insert(key.clone(), flow);
            look(self);
        }
        plan
    }
    /// What stands in the access table: whether it drops, by priority.
    fn judged(&self) -> BTreeSet<(u16, bool)> {
        let survey = self.survey();
        let of = survey.flows.iter().filter(|held| held.key.table == ACCESS);
        of.map(|held| (held.key.priority, held.treatment.is_empty()))
            .collect()
    }
    fn way(&self) -> bool {
        let to = format!("ETH_DST mac={GATEWAY}");
        let to = to.to_lowercase();
        let mut flows = self.flows.keys().filter(|key| key.table == FORWARD);
        flows.any(|key| key.criteria.iter().any(|c| c.to_lowercase() == to))
    }
    /// Passes until nothing is left; looks after each.
    fn settle(&mut self, wanted: &Intent, mut look: impl FnMut(&Self)) -> Plan {
        for _ in 0..20 {
            let plan = self.pass(wanted, &mut look);
            if plan.settled() {
                return plan;
            }
        }
        panic!(
            "it does not end: {:?}",
            self.pass(wanted, &mut look).differences
        );
    }
}

#[test]
fn what_drops_comes_first_and_goes_last() {
    let mut double = Double::default();
    // without a gateway nothing waits for anything
    double.settle(&wish(None), |_| ());
    let before: Vec<Key> = double.flows.keys().cloned().collect();
    double.settle(&wish(Some(&[DENY, WEB])), |now| {
        let judged = now.judged();
        assert!(!now.way() || judged.contains(&(2000, true)), "{judged:?}");
        let web = judged.contains(&(19_980, false));
        assert!(!web || judged.contains(&(19_990, true)), "{judged:?}");
    });
    assert!(double.way());
    double.settle(&wish(Some(&[DENY_UDP, NAMES])), |now| {
        let judged = now.judged();
        let (old, new) = ((19_980, false), (19_970, false));
        assert!(!judged.contains(&new) || judged.contains(&(19_995, true)));
        assert!(!judged.contains(&old) || judged.contains(&(19_990, true)));
        assert!(judged.contains(&(2000, true)));
    });
    assert!(!double.judged().contains(&(19_990, true)));
    double.settle(&wish(None), |now| {
        assert!(!now.way() || now.judged().contains(&(2000, true)));
    });
    let after: Vec<Key> = double.flows.keys().cloned().collect();
    assert_eq!(before, after);
}

#[test]
fn each_rule_counts() {
    let mut double = Double::default();
    let plan = double.settle(&wish(Some(&[DENY, WEB])), |_| ());
    let of = |number| plan.decided[&(Uuid::from_u128(1), number)].packets;
    // one rule in the switch; two ways of two families; whatever comes and goes
    assert_eq!([of(10), of(20), of(0)], [3, 12, 6]);
}

#[test]
fn a_range_of_ports_shuts_the_gateway_and_says_so() {
    let mut double = Double::default();
    let refused = double.settle(&wish(Some(&[WEB, RANGE])), |_| ());
    let why: Vec<&str> = refused
        .errors
        .iter()
        .map(|(_, _, why)| why.as_str())
        .collect();
    assert!(
        why.len() == 1 && why[0].starts_with("access rule 40 has a range of ports"),
        "{why:?}"
    );
    let mut empty = Double::default();
    empty.settle(&wish(Some(&[])), |_| ());
    assert_eq!(double.judged(), empty.judged());
}
