//! Reading the configuration again while everything runs: what can be in force at once is, what
//! cannot is told with what it waits for, and a configuration that is wrong changes nothing.

use super::Engine;
use crate::config::{self, Config, ConfigError, Sources};
use dtn_api::{
    Problem,
    layered::{differences, held_back},
    problem::Kind,
    running::{Difference, Effect, Reloaded, Running, Values},
};
use dtn_service::reload::Reading;
use jiff::Timestamp;
use std::sync::Arc;

/// Where reading it again stands.
#[derive(Debug)]
pub(super) struct State {
    from: Arc<Reading>,
    read_at: Timestamp,
    values: Values,
    waiting: Vec<Difference>,
    refused: Vec<String>,
}
impl Default for State {
    fn default() -> Self {
        Self {
            from: Arc::default(),
            read_at: Timestamp::now(),
            values: Values::new(),
            waiting: Vec::new(),
            refused: Vec::new(),
        }
    }
}

/// What of a new configuration can be in force at once (pure). `edge`: the hosts enforce, and the
/// border links are this controller's own to count.
fn decide(
    running: &Config,
    wanted: &Config,
    mut found: Vec<Difference>,
    edge: bool,
    log_fixed: Option<&str>,
) -> (Config, Vec<Difference>) {
    let mut next = running.clone();
    next.addresses = wanted.addresses.clone();
    next.longest_window = wanted.longest_window;
    next.token_file.clone_from(&wanted.token_file);
    let wait = |found: &mut [Difference], why: &str, of: &dyn Fn(&str) -> bool| {
        for one in found.iter_mut().filter(|one| of(&one.path)) {
            one.effect = Effect::Waits(why.into());
        }
    };
    match log_fixed {
        None => next.log.clone_from(&wanted.log),
        Some(why) => wait(&mut found, why, &|path| path == "log.level"),
    }
    if edge {
        for border in &mut next.borders {
            let same = wanted
                .borders
                .iter()
                .find(|other| other.name == border.name);
            if let Some(same) = same.filter(|other| other.peer_domain == border.peer_domain) {
                border.capacity_bps = same.capacity_bps;
                border.latency_us = same.latency_us;
                border.labels.clone_from(&same.labels);
            }
        }
    } else {
        let why = "the fabric is taken up at start: restart vdnd";
        wait(&mut found, why, &|path| path.starts_with("border["));
    }
    (next, found)
}

impl Engine {
    /// From where it is read again from now on.
    pub fn read_from(&self, reading: Reading) {
        let mut state = self.reading();
        state.values.clone_from(&reading.values);
        state.from = Arc::new(reading);
    }
    fn reading(&self) -> std::sync::MutexGuard<'_, State> {
        self.reading.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// What is in force, what waits, and why the files were refused when that is so.
    pub fn running(&self) -> Running {
        let state = self.reading();
        Running {
            file: state
                .from
                .file
                .as_ref()
                .map(|file| file.display().to_string())
                .unwrap_or_default(),
            settings: state
                .from
                .settings
                .iter()
                .map(ToString::to_string)
                .collect(),
            read_at: state.read_at,
            values: state.values.clone(),
            waiting: state.waiting.clone(),
            refused: state.refused.clone(),
            trial: None,
        }
    }

    /// Reads it again. What is wrong with it is the problem, and nothing has changed then.
    pub async fn reload(&self) -> Result<Reloaded, Problem> {
        let _turn = self.reading_turn.lock().await;
        let (from, was) = {
            let state = self.reading();
            (state.from.clone(), state.values.clone())
        };
        let file = from.file.as_ref().ok_or_else(|| {
            let why = "this vdnd was not started with a file: there is nothing to read again";
            Problem::new(Kind::StateConflict, why)
        })?;
        let sources = Sources::new(file).with(&from.settings);
        let loaded = match config::load_from(&sources) {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!("the configuration is as it was: {error}");
                let problem = refusal(&error);
                self.reading().refused = told(&problem);
                return Err(problem);
            }
        };
        let running = self.config();
        let found = differences(&was, &loaded.values, config::TABLES);
        let mut log_fixed = None;
        if loaded.config.log != running.log {
            log_fixed = match &from.log {
                None => Some("DTN_LOG in the environment goes before it".to_owned()),
                Some(set) => set(&loaded.config.log).err(),
            };
        }
        let edge = self.fabric.name() == "edge" && loaded.config.fabric == running.fabric;
        let (next, found) = decide(&running, &loaded.config, found, edge, log_fixed.as_deref());
        if next.borders != running.borders {
            self.fabric.reborder(&next.borders);
        }
        {
            let mut config = self.config.write().unwrap_or_else(|e| e.into_inner());
            *config = Arc::new(next);
        }
        let (applied, waiting): (Vec<_>, Vec<_>) = found.into_iter().partition(Difference::is_live);
        let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        for one in applied.iter().chain(&waiting) {
            tracing::info!("configuration: {}", one);
        }
        let mut state = self.reading();
        state.values = held_back(&was, &loaded.values, &waiting);
        state.read_at = Timestamp::now();
        state.refused = Vec::new();
        state.waiting.clone_from(&waiting);
        tracing::info!(
            applied = applied.len(),
            waiting = waiting.len(),
            "the configuration was read again"
        );
        Ok(Reloaded {
            applied,
            waiting,
            warnings,
        })
    }
}

fn refusal(error: &ConfigError) -> Problem {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Config, Values) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vdnd.toml");
        let whole = format!(
            "version = 1\n[domain]\nname = \"a\"\n[addresses]\nipv4 = \"10.0.0.0/16\"\n{text}"
        );
        std::fs::write(&file, whole).unwrap();
        let loaded = config::load(&file).unwrap();
        (loaded.config, loaded.values)
    }

    #[test]
    fn what_slices_can_live_with_is_in_force_and_the_rest_waits() {
        let (running, was) = read(
            "[listen]\naddress = \"192.0.2.1:1\"\n[[border]]\nname = \"wan\"\npeer-domain = \"b\"\n\
             capacity = \"1Gbit\"\n",
        );
        let (wanted, is) = read(
            "[listen]\naddress = \"192.0.2.1:2\"\n[limits]\nwindow = \"9d\"\n[[border]]\n\
             name = \"wan\"\npeer-domain = \"b\"\ncapacity = \"2Gbit\"\nmtu = 9000\n[[border]]\n\
             name = \"new\"\npeer-domain = \"c\"\ncapacity = \"1Gbit\"\n",
        );
        let live = |edge| {
            let found = differences(&was, &is, config::TABLES);
            let (next, found) = decide(&running, &wanted, found, edge, None);
            assert_eq!(next.listen, running.listen);
            assert_eq!(next.longest_window, 9 * 86_400);
            assert_eq!((next.borders.len(), next.borders[0].mtu), (1, 1500));
            let live = found.iter().filter(|one| one.is_live());
            (
                next.borders[0].capacity_bps,
                live.map(|one| one.path.clone()).collect::<Vec<_>>(),
            )
        };
        let border = "border[\"wan\"].capacity".to_owned();
        assert_eq!(
            live(true),
            (2_000_000_000, vec![border, "limits.window".into()])
        );
        assert_eq!(live(false), (1_000_000_000, vec!["limits.window".into()]));
    }
}
