//! Notices between two looks that rules have come or gone behind our back: every two seconds a
//! switch says how many of ours it has, which costs it little and us one short message. Open
//! vSwitch takes the rules away with a meter or a group that they use, so these are noticed too. A
//! rule that was only changed is found by the next look.

use super::{Shared, failure::Failure, lock, rounds::every, session::Session, switches::Settled};
use crate::fabric::program::{COOKIE, COOKIE_MASK};
use dtn_api::Name;
use dtn_openflow::{FlowStatsRequest, MultipartReply, MultipartRequest};
use futures_util::future::join_all;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// How often a switch is asked.
const ASK: Duration = Duration::from_secs(2);

/// Asks until `stop`. A switch that is slow is waited for by itself.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    every(ASK, stop, || ask(&shared)).await;
}

async fn ask(shared: &Shared) {
    let settled: Vec<(Name, Arc<Session>, Settled)> = lock(&shared.state)
        .switches
        .iter()
        .filter_map(|(name, switch)| Some((name.clone(), switch.session.clone(), switch.settled?)))
        .collect();
    let asked = settled.iter().map(async |(name, session, settled)| {
        if doubt(shared, name, session, *settled).await {
            shared.wake.notify_one();
        }
    });
    join_all(asked).await;
}

/// Whether a switch is to be looked at, as it does not have as many rules of ours as were read back.
async fn doubt(shared: &Shared, name: &Name, session: &Arc<Session>, settled: Settled) -> bool {
    let has = match count(session).await {
        Ok(has) => has,
        // a switch without this question is looked at in its time, as before
        Err(failure) => {
            tracing::debug!("the rules of the switch {name} were not counted: {failure}");
            return false;
        }
    };
    let mut state = lock(&shared.state);
    let Some(switch) = state.switches.get_mut(name) else {
        return false;
    };
    // what was read back when this was asked is of no use when somebody has been there since
    if !Arc::ptr_eq(&switch.session, session) || switch.settled != Some(settled) {
        return false;
    }
    let doubted = Some(has).filter(|has| *has != settled.held);
    // a switch that counts otherwise than we do is not looked at all the time
    let again = doubted.is_some() && doubted == switch.doubted;
    switch.doubted = doubted;
    switch.stale = doubted.is_some() && !again;
    switch.stale
}

async fn count(session: &Session) -> Result<u64, Failure> {
    let ours = FlowStatsRequest {
        cookie: COOKIE,
        cookie_mask: COOKIE_MASK,
        ..FlowStatsRequest::default()
    };
    let asked = "a request for the number of its rules";
    let parts = session
        .multipart(MultipartRequest::Aggregate(ours), asked)
        .await?;
    let counts = parts.iter().map(|part| match part {
        MultipartReply::Aggregate(sum) => u64::from(sum.flow_count),
        _ => 0,
    });
    Ok(counts.sum())
}
