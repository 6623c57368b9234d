//! Reading the configuration again while everything runs (SIGHUP, `dtnctl config`, a trial's end):
//! what can be in force at once is, what cannot is told with what it waits for, and a configuration
//! that is wrong changes nothing. [`decide`] says which is which.

mod decide;

use crate::{
    Config, Host, config,
    config::{ConfigError, Loaded, NicSelector, Sources},
    gateway,
};
use decide::Facts;
use dtn_api::{
    Problem,
    layered::{differences, held_back},
    problem::Kind,
    running::{Difference, Reloaded, Running, Values},
};
use dtn_service::reload::Reading;
use jiff::Timestamp;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, sync::mpsc};

/// The reader of the configuration of a running daemon.
#[derive(Debug, Clone)]
pub struct Reload(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    host: Arc<Host>,
    reading: Reading,
    /// New listeners for metrics, or none.
    metrics: mpsc::Sender<Option<TcpListener>>,
    /// One at a time.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    read_at: Timestamp,
    values: Values,
    waiting: Vec<Difference>,
    refused: Vec<String>,
    /// What the files say, for what waits until a pod is gone.
    wanted: Option<(Config, Values)>,
}

impl Reload {
    /// For this host. What is sent to `metrics` is served from then on.
    pub fn new(
        host: Arc<Host>,
        reading: Reading,
        metrics: mpsc::Sender<Option<TcpListener>>,
    ) -> Self {
        let state = State {
            read_at: Timestamp::now(),
            values: reading.values.clone(),
            waiting: Vec::new(),
            refused: Vec::new(),
            wanted: None,
        };
        Self(Arc::new(Inner {
            host,
            reading,
            metrics,
            turn: tokio::sync::Mutex::new(()),
            state: Mutex::new(state),
        }))
    }
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(|e| e.into_inner())
    }
    /// The layers that it is read from; an error where it was put together otherwise.
    pub fn sources(&self) -> Result<Sources, Problem> {
        let reading = &self.0.reading;
        let file = reading.file.as_ref().ok_or_else(|| {
            let why = "this dtnd was not started with a file: there is nothing to read again";
            Problem::new(Kind::StateConflict, why)
        })?;
        Ok(Sources::new(file).with(&reading.settings))
    }

    /// What is in force, what waits, and why the files were refused when that is so.
    pub fn running(&self) -> Running {
        let reading = &self.0.reading;
        let state = self.state();
        Running {
            file: reading
                .file
                .as_ref()
                .map(|file| file.display().to_string())
                .unwrap_or_default(),
            settings: reading.settings.iter().map(ToString::to_string).collect(),
            read_at: state.read_at,
            values: state.values.clone(),
            waiting: state.waiting.clone(),
            refused: state.refused.clone(),
            trial: None,
        }
    }

    /// Reads it again, to the end also when whoever asked for it goes away. What is wrong with it is the
    /// problem, and nothing has changed then.
    pub async fn now(&self) -> Result<Reloaded, Problem> {
        let own = self.clone();
        let failed =
            |e: tokio::task::JoinError| Problem::new(Kind::Internal, format!("the reload: {e}"));
        tokio::spawn(async move { own.read_and_apply().await })
            .await
            .map_err(failed)?
    }

    async fn read_and_apply(&self) -> Result<Reloaded, Problem> {
        let _turn = self.0.turn.lock().await;
        let sources = self.sources()?;
        let loaded = match config::load_from(&sources) {
            Ok(loaded) => loaded,
            Err(error) => {
                let problem = refusal(&error);
                tracing::error!("the configuration is as it was: {error}");
                self.state().refused = told(&problem);
                return Err(problem);
            }
        };
        let Loaded {
            config,
            warnings,
            values,
        } = loaded;
        let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        let mut answer = self.apply(&config, &values).await;
        answer.warnings = warnings;
        for one in &answer.applied {
            tracing::info!("configuration: {one}");
        }
        for one in &answer.waiting {
            tracing::warn!("configuration: {one}");
        }
        tracing::info!(
            applied = answer.applied.len(),
            waiting = answer.waiting.len(),
            "the configuration was read again"
        );
        Ok(answer)
    }

    /// Looks again at what waits: a pod may be gone.
    pub async fn again(&self) {
        let _turn = self.0.turn.lock().await;
        // not before it is our turn: what was wanted then may be taken back by now
        let wanted = self.state().wanted.clone();
        let Some((config, values)) = wanted else {
            return;
        };
        for one in self.apply(&config, &values).await.applied {
            tracing::info!("configuration: {one}");
        }
    }

    async fn apply(&self, wanted: &Config, values: &Values) -> Reloaded {
        let host = &self.0.host;
        let running = host.config();
        let was = self.state().values.clone();
        let found = differences(&was, values, config::TABLES);
        let mut facts = Facts {
            held: self.held(&running).await,
            ..Facts::default()
        };
        if wanted.log != running.log {
            facts.log_fixed = match &self.0.reading.log {
                None => Some("DTN_LOG in the environment goes before it".into()),
                Some(set) => set(&wanted.log).err(),
            };
        }
        if wanted.metrics_listen != running.metrics_listen {
            facts.metrics_refused = self.serve_metrics(wanted).await.err();
        }
        let (next, found) = decide::decide(&running, wanted, found, &facts);
        if next != *running {
            host.set(next);
        }
        let (applied, waiting): (Vec<_>, Vec<_>) = found.into_iter().partition(Difference::is_live);
        let mut state = self.state();
        state.values = held_back(&was, values, &waiting);
        state.read_at = Timestamp::now();
        state.refused = Vec::new();
        state.wanted = (!facts.held.is_empty() && !waiting.is_empty())
            .then(|| (wanted.clone(), values.clone()));
        state.waiting.clone_from(&waiting);
        Reloaded {
            applied,
            waiting,
            warnings: Vec::new(),
        }
    }

    async fn serve_metrics(&self, wanted: &Config) -> Result<(), String> {
        let listener = match wanted.metrics_listen {
            None => None,
            Some(address) => Some(
                TcpListener::bind(address)
                    .await
                    .map_err(|e| format!("listening on {address}: {e}"))?,
            ),
        };
        let sent = self.0.metrics.send(listener).await;
        sent.map_err(|_| "nothing serves metrics any more: restart dtnd".to_owned())
    }

    /// The NICs of the running configuration that pods hold. A gateway lets go by itself.
    async fn held(&self, running: &Config) -> Vec<(NicSelector, Vec<String>)> {
        let inventory = &self.0.host.inventory;
        let nics = match inventory.nics().await {
            Ok(nics) => nics,
            Err(problem) => {
                // who holds what is not known: then everything is held
                tracing::warn!("{problem}");
                let all = running.nics.iter().map(|nic| nic.selector.clone());
                let by = "what could not be looked at".to_owned();
                return all.map(|selector| (selector, vec![by.clone()])).collect();
            }
        };
        let mut held: BTreeMap<NicSelector, Vec<String>> = BTreeMap::new();
        for nic in nics {
            let by: Vec<String> = nic
                .used_by
                .iter()
                .filter(|key| !gateway::is_key(key))
                .map(|key| format!("pod {key}"))
                .collect();
            if !by.is_empty()
                && let Some(config) = inventory.configured(&nic)
            {
                held.entry(config.selector).or_default().extend(by);
            }
        }
        held.into_iter().collect()
    }
}

/// A configuration that is refused, each problem with its line.
pub fn refusal(error: &ConfigError) -> Problem {
    match error {
        ConfigError::Invalid(problems) => {
            let what = "the configuration is not valid: nothing was changed";
            let mut problem = Problem::new(Kind::InvalidRequest, what);
            for one in problems {
                problem = problem.at("", one.to_string());
            }
            problem
        }
        other => Problem::new(Kind::InvalidRequest, other.to_string()),
    }
}

fn told(problem: &Problem) -> Vec<String> {
    if problem.errors.is_empty() {
        return vec![problem.detail.clone()];
    }
    problem.errors.iter().map(|e| e.detail.clone()).collect()
}
