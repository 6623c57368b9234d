//! Keeps a trial while the daemon runs: begins it, ends it when its time is over, and has both
//! daemons of this host read their configuration again each time.

use super::{back, begin, confirm, running};
use crate::{
    Host,
    reload::{Reload, refusal},
};
use dtn_api::{
    Problem,
    client::Client,
    layered::{ConfigError, ConfigProblem, LARGEST, Severity, parts},
    problem::Kind,
    running::{Reloaded, Running, Trial, Try},
};
use dtn_link::atomic_file;
use std::{path::Path, sync::Arc, time::Duration};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

/// Between two looks at the clock while a trial runs: the machine can sleep meanwhile.
const LOOK: Duration = Duration::from_secs(1);
/// How long the controller may take to read its configuration.
const CONTROLLER: Duration = Duration::from_secs(10);

/// The configuration of the running daemon, read again and tried.
#[derive(Debug, Clone)]
pub struct Trials(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    host: Arc<Host>,
    reload: Reload,
    /// One at a time.
    turn: Mutex<()>,
    begun: Notify,
}

impl Trials {
    /// Of this host.
    pub fn new(host: Arc<Host>, reload: Reload) -> Self {
        Self(Arc::new(Inner {
            host,
            reload,
            turn: Mutex::new(()),
            begun: Notify::new(),
        }))
    }
    /// Reading it again.
    pub fn reload(&self) -> &Reload {
        &self.0.reload
    }
    /// What runs, with the trial where there is one.
    pub fn running(&self) -> Running {
        let mut found = self.0.reload.running();
        match running(&self.0.host.places) {
            Ok(Some(record)) => {
                found.trial = Some(Trial {
                    file: record.file().display().to_string(),
                    left: record.left().unwrap_or_default(),
                    changed: Reloaded::default(),
                    controller: None,
                });
            }
            Ok(None) => {}
            Err(problem) => tracing::warn!("{problem}"),
        }
        found
    }

    /// Begins one. A candidate that a daemon would refuse changes nothing.
    pub async fn begin(&self, asked: &Try) -> Result<Trial, Problem> {
        let (own, asked) = (self.clone(), asked.clone());
        unbroken(async move { own.begin_now(&asked).await }).await
    }

    async fn begin_now(&self, asked: &Try) -> Result<Trial, Problem> {
        let _turn = self.0.turn.lock().await;
        let places = &self.0.host.places;
        let sources = self.0.reload.sources()?;
        self.check(asked)?;
        let record = begin(places, sources.file(), &asked.text, asked.timeout).await?;
        // from here on its time runs
        self.0.begun.notify_one();
        let changed = match self.0.reload.now().await {
            Ok(changed) => changed,
            // what was fine a moment ago is not: a drop-in was changed meanwhile
            Err(problem) => {
                self.go_back().await?;
                return Err(problem);
            }
        };
        let controller = self.tell_controller(record.file()).await;
        let controller = controller.map(|told| told.unwrap_or_else(not_read));
        tracing::warn!(
            file = %record.file().display(),
            "a configuration is on trial: it goes back in {} unless it is confirmed",
            record.left().unwrap_or_default()
        );
        Ok(Trial {
            file: record.file().display().to_string(),
            left: record.left().unwrap_or_default(),
            changed,
            controller,
        })
    }

    /// Refuses what either daemon of this host would refuse.
    fn check(&self, asked: &Try) -> Result<(), Problem> {
        let places = &self.0.host.places;
        if asked.text.len() as u64 > LARGEST {
            let why = format!("a configuration is at most {} KiB", LARGEST / 1024);
            return Err(Problem::new(Kind::InvalidRequest, why));
        }
        let file = places.state().join("trial-candidate.toml");
        atomic_file::write(&file, asked.text.as_bytes(), 0o600)
            .map_err(|e| Problem::new(Kind::Internal, format!("writing the candidate: {e}")))?;
        let sources = self.0.reload.sources()?.with_candidate(&file);
        let told = || -> Result<Vec<ConfigProblem>, ConfigError> {
            let mut problems = crate::config::check(&sources)?;
            if parts(&sources)?.domain {
                problems.extend(vdnd::config::check(&sources)?);
            }
            problems.retain(|one| one.severity == Severity::Error);
            problems.dedup();
            Ok(problems)
        };
        let outcome = match told() {
            Ok(problems) if problems.is_empty() => Ok(()),
            Ok(problems) => Err(refusal(&ConfigError::Invalid(problems))),
            Err(error) => Err(refusal(&error)),
        };
        if let Err(e) = atomic_file::remove(&file) {
            tracing::warn!("{e}");
        }
        outcome
    }

    /// Keeps it.
    pub async fn confirm(&self) -> Result<(), Problem> {
        let _turn = self.0.turn.lock().await;
        let record = confirm(&self.0.host.places)?;
        tracing::info!(file = %record.file().display(), "the configuration on trial was confirmed");
        Ok(())
    }

    /// Takes it back now.
    pub async fn back(&self) -> Result<(), Problem> {
        let own = self.clone();
        unbroken(async move {
            let _turn = own.0.turn.lock().await;
            own.go_back().await
        })
        .await
    }

    async fn go_back(&self) -> Result<(), Problem> {
        let record = back(&self.0.host.places).await?;
        tracing::warn!(
            file = %record.file().display(),
            kept = %super::taken_back(&self.0.host.places).display(),
            "the configuration on trial went back"
        );
        // what was there before was taken before
        if let Err(problem) = self.0.reload.now().await {
            tracing::error!("{problem}");
        }
        self.pay().await;
        Ok(())
    }

    /// Has the controller read what is there again, where it has not yet: after a trial that went back,
    /// in this process or in one before it. Whether it has.
    async fn pay(&self) -> bool {
        let owed = super::owed(&self.0.host.places);
        if !owed.exists() {
            return true;
        }
        let Ok(sources) = self.0.reload.sources() else {
            return false;
        };
        match self.tell_controller(sources.file()).await {
            Some(Err(why)) => {
                tracing::debug!("vdnd: {}", not_read(why));
                return false;
            }
            Some(Ok(said)) => tracing::info!("vdnd: {said}"),
            None => {}
        }
        if let Err(e) = atomic_file::remove(&owed) {
            tracing::warn!("{e}");
        }
        true
    }

    /// Has the controller of this host read the file too; what it said, where there is one.
    async fn tell_controller(&self, file: &Path) -> Option<Result<String, String>> {
        let socket = self
            .0
            .host
            .places
            .root()
            .join(dtn_api::VDND_SOCKET.trim_start_matches('/'));
        let sources = dtn_api::layered::Sources::new(file);
        if !parts(&sources).is_ok_and(|parts| parts.domain) && !socket.exists() {
            return None;
        }
        let path = format!("{}/config/reload", dtn_api::VDN_BASE);
        let asked = async {
            let client = Client::unix(&socket, CONTROLLER).map_err(|e| e.to_string())?;
            let empty = serde_json::json!({});
            let answer = client.post::<_, Reloaded>(&path, &empty);
            answer.await.map_err(|e| e.to_string())
        };
        Some(asked.await.map(|changed| {
            format!(
                "{} in force, {} not yet",
                changed.applied.len(),
                changed.waiting.len()
            )
        }))
    }

    /// Ends trials whose time is over, for as long as the daemon runs.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let record = running(&self.0.host.places);
            let over = matches!(&record, Ok(Some(record)) if record.left().is_none());
            if over && let Err(problem) = self.back().await {
                tracing::error!("{problem}: tried again");
            }
            let told = self.pay().await;
            let rests = matches!(record, Ok(None)) && told;
            let pause = if told { LOOK } else { CONTROLLER };
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.0.begun.notified() => {}
                () = tokio::time::sleep(pause), if !rests => {}
            }
        }
    }
}

fn not_read(why: String) -> String {
    format!("it has not read the configuration again: {why}")
}

/// Carried to its end, also when whoever asked for it goes away.
async fn unbroken<T: Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    let failed =
        |e: tokio::task::JoinError| Problem::new(Kind::Internal, format!("the trial: {e}"));
    tokio::spawn(work).await.map_err(failed)?
}
