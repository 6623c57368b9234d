//! What happens when a switch refuses an access rule that drops, since it is full or takes no masks
//! on ports: the gateway is shut at that switch. What the rules below it would let pass is not what
//! the list allows.

use super::look::Look;
use crate::fabric::{
    difference::{Changes, Step},
    program::{ACCESS, Purpose, Resolved, tag_of},
};
use dtn_api::Name;
use dtn_openflow::{Field, Match, Message};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Shuts the gateways of which a switch has refused a rule that drops, before it is told what lets
/// pass. `refused` is by switch and slice.
pub(super) fn shut(seen: &mut [Look], refused: &[(Name, Option<Uuid>, String)]) {
    for (name, slice, _) in refused {
        let look = seen.iter_mut().find(|look| look.name == *name);
        if let (Some(look), Some(slice)) = (look, slice) {
            close(&look.wanted, &mut look.changes, *slice);
        }
    }
}

/// Instead of the rules that let strangers pass the gateway of a slice, their removal; and no new way
/// to it.
fn close(wanted: &Resolved, changes: &mut Changes, slice: Uuid) {
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
    if let Some(messages) = changes.steps.get_mut(allow) {
        messages.retain(|message| {
            let Message::FlowMod(flow) = message else {
                return true;
            };
            !open.iter().any(|id| {
                (id.table, id.priority, &id.matches)
                    == (flow.table_id, flow.priority, &flow.matches)
            })
        });
        messages.extend(open.iter().map(|id| id.delete()));
    }
    if let Some(messages) = changes.steps.get_mut(forward) {
        messages.retain(|message| match message {
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
    use super::*;
    use crate::fabric::{
        Access,
        difference::{STEPS, difference},
        program::walk::{
            held::Held,
            site::{Site, Wish, switch},
        },
    };
    use dtn_api::slice::Class;
    use std::collections::BTreeMap;

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
            let mut changes = difference("s0", wanted, &held.say().found());
            for step in STEPS {
                for message in std::mem::take(&mut changes.steps[step as usize]) {
                    let numbered = match &message {
                        Message::FlowMod(flow) => flow.cookie as u16 == Purpose::Deny as u16,
                        _ => false,
                    };
                    if !(refusing && numbered) {
                        held.apply(&message);
                    }
                }
                if step == Step::Deny && refusing {
                    close(wanted, &mut changes, Uuid::from_u128(1));
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
