//! A look at a switch: what it has now, held against what it shall have.

use super::{failure::Failure, session::Session, switches::Ports};
use crate::fabric::{
    difference::{Changes, Found, difference},
    network::PortRef,
    program::{
        COOKIE, COOKIE_MASK, Exit, GuardKey, Meter, Program, Purpose, Refusal, Resolved, assign,
        cookie, guards_of, resolve,
    },
};
use dtn_api::Name;
use dtn_openflow::{
    FlowStats, FlowStatsRequest, GroupDesc, METER_ALL, MeterConfig, MultipartReply,
    MultipartRequest,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What a switch has.
#[derive(Debug, Default)]
pub(super) struct Has {
    pub(super) ports: Ports,
    /// The ports that are down.
    pub(super) off: BTreeSet<u32>,
    pub(super) flows: Vec<FlowStats>,
    pub(super) meters: Vec<MeterConfig>,
    pub(super) groups: Vec<GroupDesc>,
}

/// What a look at a switch has shown.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) ports: Ports,
    /// The ports that are down.
    pub(super) off: BTreeSet<u32>,
    /// The guards that it shall have, by their meters.
    pub(super) guards: BTreeMap<u32, Meter>,
    /// All that it shall have, where something is to be done.
    pub(super) wanted: Option<Arc<Resolved>>,
    /// What of the program the switch cannot have.
    pub(super) refused: Vec<Refusal>,
    /// Which slices have a port here that is down.
    pub(super) down: Vec<Refusal>,
    pub(super) changes: Changes,
    /// Rules and meters of slices that it has.
    pub(super) ours: (u64, u64),
    /// Rules of ours that it has, also those that are no slice's.
    pub(super) held: u64,
    /// It hands over link discovery.
    pub(super) listens: bool,
}

/// Whose meters are, beyond what the switch's rules say.
#[derive(Debug, Default)]
pub(super) struct Owners<'a> {
    /// As it was to be at the last look.
    pub(super) before: Option<&'a BTreeMap<u32, Meter>>,
    /// Of work that is under way.
    pub(super) busy: Vec<(u32, GuardKey)>,
}

impl Look {
    /// What is to be done at a switch that has this.
    pub(super) fn of(
        name: &Name,
        has: Has,
        max_meter: u32,
        owners: Owners<'_>,
        program: &Program,
    ) -> Self {
        let Has {
            ports,
            off,
            flows,
            meters,
            groups,
        } = has;
        // the ids live in the switch: a controller that starts again finds them there
        let mut guards = guards_of(&flows);
        for (id, meter) in owners.before.into_iter().flatten() {
            // a meter whose rules were taken away by somebody keeps its owner
            guards.entry(meter.guard).or_insert_with(|| [*id].into());
        }
        for (id, guard) in owners.busy {
            guards.entry(guard).or_default().insert(id);
        }
        const DISCOVERS: u64 = cookie(0, Purpose::Discover);
        let held = flows
            .iter()
            .filter(|flow| flow.cookie & COOKIE_MASK == COOKIE);
        let rules = held.clone().filter(|flow| flow.cookie != DISCOVERS).count();
        let held = held.count() as u64;
        let listens = flows.iter().any(|flow| flow.cookie == DISCOVERS);
        let mut of_ours: BTreeSet<u32> = guards.values().flatten().copied().collect();
        let (ids, _) = assign(&guards, &meters, &program.guards, max_meter);
        let (wanted, refused) = resolve(program, &ports, &ids);
        let found = Found {
            flows: &flows,
            meters: &meters,
            groups: &groups,
        };
        let changes = difference(name.as_str(), &wanted, &found);
        of_ours.extend(wanted.meters.keys());
        let metered = meters.iter().filter(|m| of_ours.contains(&m.meter_id));
        let ours = (rules as u64, metered.count() as u64);
        let down = down(name, program, &ports, &off);
        Self {
            ports,
            off,
            guards: wanted.meters.clone(),
            wanted: (!changes.is_empty()).then(|| Arc::new(wanted)),
            refused,
            down,
            changes,
            ours,
            held,
            listens,
        }
    }
}

/// The slices that leave the switch by a port that is down. The rules are as they should be, and
/// nothing goes there.
fn down(name: &Name, program: &Program, ports: &Ports, off: &BTreeSet<u32>) -> Vec<Refusal> {
    let mut all = Vec::new();
    for group in program.groups.values() {
        for Exit { port, .. } in &group.exits {
            let number = match port {
                PortRef::Name(name) => ports.get(name).copied(),
                PortRef::Number(number) => Some(*number),
            };
            if number.is_some_and(|number| off.contains(&number)) {
                all.push(Refusal {
                    slice: group.slice,
                    reason: format!("the port {port} of the switch {name} is down"),
                });
            }
        }
    }
    all
}

/// Reads all that a switch has.
pub(super) async fn read(session: &Session, max_meter: u32) -> Result<Has, Failure> {
    let (ports, off) = session.ports();
    let flows = session.multipart(
        MultipartRequest::Flow(FlowStatsRequest::default()),
        "a request for its rules",
    );
    let meters = async {
        if max_meter == 0 {
            // it would refuse the question
            return Ok(Vec::new());
        }
        let all = MultipartRequest::MeterConfig { id: METER_ALL };
        session.multipart(all, "a request for its meters").await
    };
    let groups = session.multipart(MultipartRequest::GroupDesc, "a request for its groups");
    let (flows, meters, groups) = futures_util::try_join!(flows, meters, groups)?;
    let flows = flows.into_iter().flat_map(|part| match part {
        MultipartReply::Flow(flows) => flows,
        _ => Vec::new(),
    });
    let meters = meters.into_iter().flat_map(|part| match part {
        MultipartReply::MeterConfig(meters) => meters,
        _ => Vec::new(),
    });
    let groups = groups.into_iter().flat_map(|part| match part {
        MultipartReply::GroupDesc(groups) => groups,
        _ => Vec::new(),
    });
    Ok(Has {
        ports,
        off,
        flows: flows.collect(),
        meters: meters.collect(),
        groups: groups.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::program::GroupSpec;
    use uuid::Uuid;

    #[test]
    fn who_goes_by_a_port_that_is_down_is_told() {
        let exit = |port, label| Exit { port, label };
        let cable = exit(PortRef::Name("to-core".into()), Some(5));
        let border = exit(PortRef::Number(2), Some(200));
        let group = |slice, exits: &[&Exit]| GroupSpec {
            slice: Uuid::from_u128(slice),
            exits: exits.iter().map(|exit| (*exit).clone()).collect(),
        };
        let groups = [
            (5, group(1, &[&cable])),
            (6, group(2, &[&border])),
            (7, group(3, &[&cable, &border])),
        ];
        let program = Program {
            groups: groups.into(),
            ..Program::default()
        };
        let ports = [("to-core".to_owned(), 1), ("wan".to_owned(), 2)].into();
        let said = |off: &[u32]| {
            let off = off.iter().copied().collect();
            let all = down(&"edge1".parse().unwrap(), &program, &ports, &off);
            let all = all.into_iter().map(|r| (r.slice.as_u128(), r.reason));
            all.collect::<Vec<_>>()
        };
        assert_eq!(said(&[]), []);
        let why = |port| format!("the port {port} of the switch edge1 is down");
        assert_eq!(said(&[1]), [(1, why("to-core")), (3, why("to-core"))]);
        assert_eq!(said(&[2, 9]), [(2, why("2")), (3, why("2"))]);
    }
}
