//! What happens when a switch refuses an access rule that drops, since it is full or takes no masks
//! on ports: the gateway is shut at that switch. What the rules below it would let pass is not what
//! the list allows.

use super::work::{Refused, Task, Told};
use crate::fabric::{
    difference::Step,
    program::{ACCESS, Purpose, Resolved, tag_of},
};
use dtn_openflow::{Field, Match, Message};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Shuts the gateways of which a switch has refused a rule that drops, before it is told what lets
/// pass.
pub(super) fn shut<S>(parts: &mut [Task<S>], refused: &[Refused], slices: &BTreeMap<u16, Uuid>) {
    for (name, tag, _) in refused {
        let task = parts.iter_mut().find(|task| task.name == *name);
        if let (Some(task), Some(slice)) = (task, slices.get(tag)) {
            close(&task.wanted, &mut task.steps, *tag, *slice);
        }
    }
}

/// Instead of the rules that let strangers pass the gateway of a slice, their removal; and no new way
/// to it.
fn close(wanted: &Resolved, steps: &mut Told, tag: u16, slice: Uuid) {
    let of_slice = || {
        let flows = wanted.flows.iter();
        flows.filter(|(id, flow)| id.table == ACCESS && flow.slice == Some(slice))
    };
    let is = |cookie: u64, purpose: Purpose| cookie as u16 == purpose as u16;
    let open = of_slice()
        .filter(|(_, flow)| is(flow.cookie, Purpose::Allow) || is(flow.cookie, Purpose::Error));
    let open: BTreeSet<_> = open.map(|(id, _)| id).collect();
    let gateway = of_slice()
        .filter(|(_, flow)| is(flow.cookie, Purpose::Denied))
        .find_map(|(id, flow)| Some((tag_of(flow.cookie)?, target(&id.matches)?)));
    let [allow, forward] = [Step::Allow, Step::Forward].map(|step| step as usize);
    if let Some(messages) = steps.get_mut(allow) {
        messages.retain(|(_, message)| {
            let Message::FlowMod(flow) = message else {
                return true;
            };
            !open.iter().any(|id| {
                (id.table, id.priority, &id.matches)
                    == (flow.table_id, flow.priority, &flow.matches)
            })
        });
        messages.extend(open.iter().map(|id| (tag, id.delete())));
    }
    if let Some(messages) = steps.get_mut(forward) {
        messages.retain(|(_, message)| match message {
            Message::FlowMod(flow) => {
                let to = target(&flow.matches);
                gateway.is_none() || tag_of(flow.cookie).zip(to) != gateway
            }
            _ => true,
        });
    }
}

/// The one station that frames go to.
fn target(matches: &Match) -> Option<[u8; 6]> {
    matches.0.iter().find_map(|field| match field {
        Field::EthDst { value, mask: None } => Some(*value),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::work::steps, *};
    use crate::fabric::{
        Access,
        difference::{STEPS, difference},
        program::walk::{
            held::Held,
            site::{Site, Wish, switch},
        },
    };
    use dtn_api::slice::Class;

    #[test]
    fn a_rule_that_is_refused_shuts_the_gateway_and_nothing_else() {
        let site = Site::of(&[]);
        let mut intent = site.intent(&Wish {
            slice: 1,
            tag: 5,
            class: Class::BestEffort,
            rate_bps: 0,
            hosts: [0, 1, 2].into(),
            label: None,
        });
        let gateway = intent.members[2].mac;
        let rules = [
            r#"{"priority":1,"action":"deny","direction":"outbound","match":{"proto":"tcp","dst_ports":["80-99"]}}"#,
            r#"{"priority":2,"action":"allow","direction":"outbound","match":{}}"#,
        ];
        intent.access = Some(Access {
            gateway,
            subnets: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
            rules: rules.map(|text| serde_json::from_str(text).unwrap()).into(),
        });
        let name = switch(0);
        let (wanted, _) = site.wanted(&[intent], &BTreeMap::new());
        let wanted = &wanted[&name];
        let program = |refusing: bool, held: &mut Held| {
            let changes = difference("s0", wanted, &held.say().found());
            let mut steps = steps(&changes, &changes.parts.keys().copied().collect());
            for step in STEPS {
                for (_, message) in std::mem::take(&mut steps[step as usize]) {
                    let numbered = match &message {
                        Message::FlowMod(flow) => flow.cookie as u16 == Purpose::Deny as u16,
                        _ => false,
                    };
                    if !(refusing && numbered) {
                        held.apply(&message);
                    }
                }
                if step == Step::Deny && refusing {
                    close(wanted, &mut steps, 5, Uuid::from_u128(1));
                }
            }
        };
        let count = |held: &Held, purpose: Purpose| {
            let all = held.flows.values();
            all.filter(|f| f.cookie as u16 == purpose as u16).count()
        };
        let mut held = Held::default();
        program(true, &mut held);
        assert_eq!(
            count(&held, Purpose::Allow) + count(&held, Purpose::Error),
            0
        );
        assert_eq!(count(&held, Purpose::Denied), 2);
        assert_eq!(count(&held, Purpose::Deliver), 2, "members find each other");
        // when it takes them again, all is there; when it loses one and refuses it, all is shut
        program(false, &mut held);
        assert_eq!(difference("s0", wanted, &held.say().found()).len(), 0);
        assert_eq!(count(&held, Purpose::Deliver), 3);
        held.flows
            .retain(|_, flow| flow.cookie as u16 != Purpose::Deny as u16);
        program(true, &mut held);
        assert_eq!(count(&held, Purpose::Allow), 0);
    }
}
