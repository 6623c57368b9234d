//! Whether the daemon is well, which the service manager's watchdog is told: only after the main loop
//! and the state folder have answered since the last time. Without a watchdog nothing is asked.

use crate::Places;
use dtn_api::{Problem, problem::Kind};
use dtn_link::atomic_file;
use dtn_service::notify;
use std::time::Duration;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// How long the main loop and the store may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question to the main loop: it answers when it gets to it.
pub type Ping = oneshot::Sender<()>;

/// Writes to the state folder, flushes and reads back: what every record relies on.
pub async fn probe(places: &Places) -> Result<(), Problem> {
    /// Two at once would read what the other wrote.
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let file = places.state().join("probe");
    let path = file.clone();
    let probe = tokio::task::spawn_blocking(move || {
        let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
        let token = uuid::Uuid::new_v4();
        atomic_file::write(&file, token.as_bytes(), 0o600)?;
        let back = atomic_file::read(&file, 64)?;
        Ok::<bool, dtn_link::Error>(back.as_deref() == Some(token.as_bytes()))
    });
    let failed = |why: String| {
        Problem::new(
            Kind::Internal,
            format!(
                "the state folder does not keep what is written ({}): {why}",
                path.display()
            ),
        )
    };
    match timeout(PATIENCE, probe).await {
        Err(_) => Err(failed(format!("no answer within {} s", PATIENCE.as_secs()))),
        Ok(Err(e)) => Err(failed(e.to_string())),
        Ok(Ok(Err(e))) => Err(failed(e.to_string())),
        Ok(Ok(Ok(false))) => Err(failed("what was read back is not what was written".into())),
        Ok(Ok(Ok(true))) => Ok(()),
    }
}

/// Whether the main loop answers.
async fn alive(main_loop: &mpsc::Sender<Ping>) -> bool {
    let (ping, pong) = oneshot::channel();
    let asked = async { main_loop.send(ping).await.is_ok() && pong.await.is_ok() };
    timeout(PATIENCE, asked).await.unwrap_or(false)
}

/// Feeds the watchdog, when the service manager has one for us.
pub async fn feed(places: Places, main_loop: mpsc::Sender<Ping>, stop: CancellationToken) {
    let Some(period) = notify::watchdog() else {
        return;
    };
    while !stop.is_cancelled() {
        if !alive(&main_loop).await {
            tracing::error!("the main loop does not answer: the watchdog is not fed");
        } else if let Err(problem) = probe(&places).await {
            tracing::error!("{problem}: the watchdog is not fed");
        } else {
            notify::alive();
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(period) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_store_is_well_only_when_it_keeps_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::new(dir.path());
        places.create().unwrap();
        probe(&places).await.unwrap();
        let gone = Places::new(dir.path().join("none"));
        let problem = probe(&gone).await.unwrap_err();
        assert!(problem.detail.contains("probe"), "{problem}");
    }

    #[tokio::test]
    async fn a_main_loop_that_is_gone_is_not_alive() {
        let (sender, mut receiver) = mpsc::channel::<Ping>(1);
        let answering = tokio::spawn(async move {
            let ping = receiver.recv().await.unwrap();
            ping.send(()).unwrap();
        });
        assert!(alive(&sender).await);
        answering.await.unwrap();
        assert!(!alive(&sender).await);
    }
}
