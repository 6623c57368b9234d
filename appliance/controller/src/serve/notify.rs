//! What the service manager is told (sd_notify(3)): READY when the sockets listen, STOPPING, and
//! WATCHDOG, fed only after the state and the store have answered. Without one it does nothing.

use crate::engine::Engine;
use std::time::Duration;
use systemd::daemon;
use tokio::time::timeout;

/// How long state and store may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

fn tell(pairs: &[(&str, &str)]) {
    if let Err(e) = daemon::notify(pairs.iter()) {
        tracing::warn!("telling the service manager {pairs:?}: {e}");
    }
}
pub(super) fn ready(status: &str) {
    tell(&[(daemon::STATE_READY, "1"), (daemon::STATE_STATUS, status)]);
}
pub(super) fn stopping() {
    tell(&[(daemon::STATE_STOPPING, "1")]);
}

/// Feeds the watchdog, when there is one; never ends.
pub(super) async fn watchdog(engine: &Engine) {
    let period = match daemon::watchdog_enabled() {
        Ok(0) => return std::future::pending().await,
        Ok(micros) => Duration::from_micros(micros) / 3,
        Err(e) => {
            tracing::warn!("asking for the watchdog's period: {e}");
            return std::future::pending().await;
        }
    };
    loop {
        let answers = async {
            engine.look(|_, _| ()).await;
            engine.probe().await
        };
        match timeout(PATIENCE, answers).await {
            Ok(Ok(())) => tell(&[(daemon::STATE_WATCHDOG, "1")]),
            Ok(Err(problem)) => tracing::error!("{problem}: the watchdog is not fed"),
            Err(_) => tracing::error!("no answer in time: the watchdog is not fed"),
        }
        tokio::time::sleep(period).await;
    }
}
