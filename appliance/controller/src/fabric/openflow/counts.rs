//! What the guards have counted: apart from all work on the switches, so that one that does not answer
//! holds up no slice.

use super::{Shared, failure::Failure, rounds::every, session::Session, session::lock};
use crate::fabric::program::Meter;
use dtn_api::fabric::Counters;
use dtn_openflow::{METER_ALL, MultipartReply, MultipartRequest};
use futures_util::future::join_all;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often it is read.
const COUNT: Duration = Duration::from_secs(2);

/// Counts until `stop`.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    every(COUNT, stop, || count(&shared)).await;
}

async fn count(shared: &Shared) {
    let metered: Vec<_> = lock(&shared.state)
        .switches
        .values()
        .filter(|switch| !switch.guards.is_empty())
        .map(|switch| (switch.session.clone(), switch.guards.clone()))
        .collect();
    let counts = metered.iter().map(|(session, ours)| read(session, ours));
    let mut all: BTreeMap<Uuid, Counters> = BTreeMap::new();
    for counted in join_all(counts).await {
        let counted = match counted {
            Ok(counted) => counted,
            // every two seconds: a connection that ended is told elsewhere
            Err(failure) => {
                tracing::debug!("counters were not read: {failure}");
                continue;
            }
        };
        for (slice, of) in counted {
            let sum = all.entry(slice).or_default();
            sum.packets += of.packets;
            sum.bytes += of.bytes;
            sum.dropped_packets += of.dropped_packets;
            sum.dropped_bytes += of.dropped_bytes;
        }
    }
    lock(&shared.state).counters = all;
}

/// What the meters of a switch have counted, added to their slices.
async fn read(
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
