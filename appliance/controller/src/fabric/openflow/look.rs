//! A look at a switch: what it has now, held against what it shall have.

use super::{failure::Failure, session::Session, switches::Ports};
use crate::fabric::{
    difference::{Changes, Found, difference},
    program::{Meter, Program, Refusal, Resolved, assign, guards_of, resolve},
};
use dtn_api::{Name, fabric::Counters};
use dtn_openflow::{
    FlowStatsRequest, GroupDesc, METER_ALL, MeterConfig, MultipartReply, MultipartRequest,
};
use std::{collections::BTreeMap, sync::Arc};
use uuid::Uuid;

/// What a look at a switch has shown.
pub(super) struct Look {
    pub(super) name: Name,
    pub(super) session: Arc<Session>,
    pub(super) ports: Ports,
    pub(super) wanted: Resolved,
    /// What of the program the switch cannot have.
    pub(super) refused: Vec<Refusal>,
    pub(super) changes: Changes,
}

/// What is looked at.
pub(super) struct Connection {
    pub(super) name: Name,
    pub(super) session: Arc<Session>,
    pub(super) max_meter: u32,
    /// The meters of ours that it had at the last look.
    pub(super) meters: BTreeMap<u32, Meter>,
}

/// Looks at a switch and says what is to be done there.
pub(super) async fn look(
    Connection {
        name,
        session,
        max_meter,
        meters: known,
    }: Connection,
    program: &Program,
) -> Result<Look, (Name, Arc<Session>, Failure)> {
    let ports = session.ports();
    let (flows, meters, groups) = match read(&session, max_meter).await {
        Ok(found) => found,
        Err(failure) => return Err((name, session, failure)),
    };
    // the ids live in the switch: a controller that starts again finds them there
    let mut guards = guards_of(&flows);
    for (id, meter) in known {
        // a meter whose rules were taken away by somebody keeps its owner
        guards.entry(meter.guard).or_insert_with(|| [id].into());
    }
    let (ids, _) = assign(&guards, &meters, &program.guards, max_meter);
    let (wanted, refused) = resolve(program, &ports, &ids);
    let found = Found {
        flows: &flows,
        meters: &meters,
        groups: &groups,
    };
    let changes = difference(name.as_str(), &wanted, &found);
    Ok(Look {
        name,
        session,
        ports,
        wanted,
        refused,
        changes,
    })
}

type Has = (
    Vec<dtn_openflow::FlowStats>,
    Vec<MeterConfig>,
    Vec<GroupDesc>,
);

/// Reads all that a switch has.
pub(super) async fn read(session: &Session, max_meter: u32) -> Result<Has, Failure> {
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
    Ok((flows.collect(), meters.collect(), groups.collect()))
}

/// What the meters of a switch have counted, added to their slices.
pub(super) async fn count(
    session: &Session,
    ours: &BTreeMap<u32, Meter>,
) -> Result<BTreeMap<Uuid, Counters>, Failure> {
    let mut counted: BTreeMap<Uuid, Counters> = BTreeMap::new();
    let asked = "a request for its meters' counters";
    let all = MultipartRequest::Meter { id: METER_ALL };
    for part in session.multipart(all, asked).await? {
        let MultipartReply::Meter(meters) = part else {
            continue;
        };
        for meter in meters {
            let Some(Meter { slice, .. }) = ours.get(&meter.meter_id) else {
                continue;
            };
            let of = counted.entry(*slice).or_default();
            of.packets += meter.packet_in_count;
            of.bytes += meter.byte_in_count;
            for band in meter.bands {
                of.dropped_packets += band.packet_count;
                of.dropped_bytes += band.byte_count;
            }
        }
    }
    Ok(counted)
}
