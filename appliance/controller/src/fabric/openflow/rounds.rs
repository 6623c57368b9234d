//! Work that is done again and again, each round some time after the last one.

use std::{future::Future, time::Duration};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Works at once and then every so often, until `stop`. A round that takes longer is not caught up.
pub(super) async fn every<Round: Future<Output = ()>>(
    pause: Duration,
    stop: CancellationToken,
    work: impl Fn() -> Round,
) {
    let mut turns = interval(pause);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let rounds = async {
        loop {
            turns.tick().await;
            work().await;
        }
    };
    tokio::select! {
        () = rounds => {}
        () = stop.cancelled() => {}
    }
}
