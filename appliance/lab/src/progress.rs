//! What the capsule tells the terminal: one JSON line per event over a pipe, printed by the outer
//! process, so that a capsule that is kept needs no terminal.

use serde::{Deserialize, Serialize};
use std::{
    io::Write,
    sync::Mutex,
    time::{Duration, Instant},
};

/// Something to be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A step begins.
    Step {
        /// What it does.
        name: String,
        /// It is ended after this many seconds.
        deadline_s: u64,
        /// Where its log is, when it has one.
        log: Option<String>,
    },
    /// The step is done.
    Done {
        /// What came of it, in words.
        detail: String,
    },
    /// Something to know.
    Note(String),
    /// The evidence.
    Table(String),
    /// Report and plot lie in the state folder, ready to be put where they were asked for.
    Reported,
    /// The sites are up and stay.
    Kept,
    /// It failed, with the whole chain of reasons.
    Failed(String),
}

/// Tells an event to the outer process.
pub fn tell(event: &Event) {
    if let Ok(mut line) = serde_json::to_string(event) {
        line.push('\n');
        // the outer process of a kept lab is gone; then nobody listens, and that is no failure
        let _ = std::io::stdout().lock().write_all(line.as_bytes());
        let _ = std::io::stdout().lock().flush();
    }
    tracing::info!(?event);
}

/// Prints events for people; a step that takes long shows that it lives.
pub struct Printer {
    step: Mutex<Option<(String, Instant, Instant)>>,
}

impl Default for Printer {
    fn default() -> Self {
        Self {
            step: Mutex::new(None),
        }
    }
}

/// A step that takes longer than this says so again and again.
const HEARTBEAT: Duration = Duration::from_secs(10);

impl Printer {
    /// The line for an event, if it has one.
    pub fn line(&self, event: &Event, now: Instant) -> Option<String> {
        let mut step = self
            .step
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match event {
            Event::Step {
                name,
                deadline_s,
                log,
            } => {
                *step = Some((name.clone(), now, now));
                let log = log
                    .as_ref()
                    .map(|log| format!(", log {log}"))
                    .unwrap_or_default();
                Some(format!("lab: {name} … (at most {deadline_s} s{log})"))
            }
            Event::Done { detail } => {
                let (name, since, _) = step.take()?;
                let detail = if detail.is_empty() {
                    String::new()
                } else {
                    format!(": {detail}")
                };
                Some(format!(
                    "lab: {name}: {:.1} s{detail}",
                    now.duration_since(since).as_secs_f64()
                ))
            }
            Event::Note(text) => Some(format!("lab: {text}")),
            Event::Table(text) => Some(format!("\n{text}")),
            Event::Kept | Event::Reported => None,
            Event::Failed(why) => {
                let during = step
                    .take()
                    .map(|(name, ..)| format!("{name}: "))
                    .unwrap_or_default();
                Some(format!("lab: {during}{why}"))
            }
        }
    }
    /// A sign of life of a long step, when one is due.
    pub fn heartbeat(&self, now: Instant) -> Option<String> {
        let mut step = self
            .step
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (name, since, last) = step.as_mut()?;
        if now.duration_since(*last) < HEARTBEAT {
            return None;
        }
        *last = now;
        Some(format!(
            "lab: {name}: {} s",
            now.duration_since(*since).as_secs()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_step_shows_that_it_lives_and_names_itself_when_it_fails() {
        let (printer, start) = (Printer::default(), Instant::now());
        let step = Event::Step {
            name: "import".into(),
            deadline_s: 60,
            log: Some("/l".into()),
        };
        let line = printer.line(&step, start).unwrap();
        assert!(
            line.contains("at most 60 s") && line.contains("log /l"),
            "{line}"
        );
        assert_eq!(printer.heartbeat(start + Duration::from_secs(9)), None);
        let later = start + Duration::from_secs(11);
        assert_eq!(printer.heartbeat(later).unwrap(), "lab: import: 11 s");
        assert_eq!(printer.heartbeat(later), None);
        let failed = printer
            .line(&Event::Failed("no room".into()), later)
            .unwrap();
        assert_eq!(failed, "lab: import: no room");
        assert_eq!(printer.heartbeat(later + HEARTBEAT), None);
    }

    #[test]
    fn events_cross_the_pipe_as_they_are() {
        for event in [
            Event::Kept,
            Event::Note("x\ny".into()),
            Event::Done {
                detail: "ok".into(),
            },
        ] {
            let line = serde_json::to_string(&event).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        }
    }
}
