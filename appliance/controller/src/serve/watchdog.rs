//! The service manager's watchdog: fed only after the state and the store have answered since the last
//! time.

use crate::engine::Engine;
use dtn_service::notify;
use std::time::Duration;
use tokio::time::timeout;

/// How long state and store may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Feeds it, when there is one; never ends.
pub(super) async fn feed(engine: &Engine) {
    let Some(period) = notify::watchdog() else {
        return std::future::pending().await;
    };
    loop {
        let answers = async {
            engine.look(|_, _| ()).await;
            engine.probe().await
        };
        match timeout(PATIENCE, answers).await {
            Ok(Ok(())) => notify::alive(),
            Ok(Err(problem)) => tracing::error!("{problem}: the watchdog is not fed"),
            Err(_) => tracing::error!("no answer in time: the watchdog is not fed"),
        }
        tokio::time::sleep(period).await;
    }
}
