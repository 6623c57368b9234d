//! What the access rules have decided about: the packets that their rules in table 10 have met, by
//! the numbers in the cookies. A rule's parts at all switches are one sum; a frame is judged at one
//! switch. What is counted is lost with the rule that counted it.

use super::{Shared, failure::Failure, rounds::every, session::Session, session::lock};
use crate::fabric::program::{ACCESS, COOKIE, COOKIE_MASK, number_of, tag_of};
use dtn_api::gateway::Count;
use dtn_openflow::{FlowStats, FlowStatsRequest, MultipartReply, MultipartRequest};
use futures_util::future::join_all;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often it is read. Open vSwitch itself brings up its counters about once a second.
const COUNT: Duration = Duration::from_secs(2);

/// Counts until `stop`.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    every(COUNT, stop, || count(&shared)).await;
}

async fn count(shared: &Shared) {
    // slices with a gateway alone have something to count, at their switches alone
    let (slices, sessions) = {
        let state = lock(&shared.state);
        let gated = state.wanted.iter().flat_map(|wanted| wanted.intents.iter());
        let gated: Vec<_> = gated.filter(|intent| intent.access.is_some()).collect();
        let names: BTreeSet<_> = gated.iter().flat_map(|intent| intent.switches()).collect();
        let slices: BTreeMap<u16, Uuid> = gated.iter().map(|i| (i.tag, i.slice)).collect();
        let there = names
            .into_iter()
            .filter_map(|name| state.switches.get(name));
        let sessions: Vec<Arc<Session>> = there.map(|switch| switch.session.clone()).collect();
        (slices, sessions)
    };
    let mut sums = BTreeMap::new();
    for read in join_all(sessions.iter().map(|session| read(session))).await {
        match read {
            Ok(flows) => sum(&flows, &slices, &mut sums),
            // every two seconds: a connection that ended is told elsewhere
            Err(failure) => tracing::debug!("access rules were not counted: {failure}"),
        }
    }
    lock(&shared.state).decided = sums;
}

async fn read(session: &Session) -> Result<Vec<FlowStats>, Failure> {
    let ours = FlowStatsRequest {
        table_id: ACCESS,
        cookie: COOKIE,
        cookie_mask: COOKIE_MASK,
        ..FlowStatsRequest::default()
    };
    let asked = "a request for what its access rules have counted";
    let parts = session
        .multipart(MultipartRequest::Flow(ours), asked)
        .await?;
    let flows = parts.into_iter().flat_map(|part| match part {
        MultipartReply::Flow(flows) => flows,
        _ => Vec::new(),
    });
    Ok(flows.collect())
}

/// Adds what rules have met to their slices and numbers.
fn sum(flows: &[FlowStats], slices: &BTreeMap<u16, Uuid>, sums: &mut BTreeMap<(Uuid, u16), Count>) {
    for flow in flows {
        let slice = tag_of(flow.cookie).and_then(|tag| slices.get(&tag));
        if let (Some(slice), Some(number)) = (slice, number_of(flow.cookie)) {
            *sums.entry((*slice, number)).or_default() += Count {
                packets: flow.packet_count,
                bytes: flow.byte_count,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::program::{Purpose, cookie_of};

    #[test]
    fn a_rule_is_the_sum_of_its_parts() {
        let flow = |tag, purpose, number, packets| FlowStats {
            cookie: cookie_of(tag, purpose, number),
            packet_count: packets,
            byte_count: packets * 100,
            ..FlowStats::default()
        };
        let slices = [(5, Uuid::from_u128(1)), (6, Uuid::from_u128(2))].into();
        let mut sums = BTreeMap::new();
        let one = [
            flow(5, Purpose::Allow, 10, 1),
            flow(5, Purpose::Allow, 10, 2),
            flow(5, Purpose::Denied, 0, 4),
            flow(5, Purpose::Pass, 0, 1000),
            flow(7, Purpose::Allow, 10, 1000),
        ];
        let other = [
            flow(5, Purpose::Allow, 10, 8),
            flow(6, Purpose::Deny, 10, 16),
        ];
        sum(&one, &slices, &mut sums);
        sum(&other, &slices, &mut sums);
        let of = |slice, number| sums[&(Uuid::from_u128(slice), number)].packets;
        assert_eq!((of(1, 10), of(1, 0), of(2, 10)), (11, 4, 16));
        assert_eq!(sums.len(), 3);
    }
}
