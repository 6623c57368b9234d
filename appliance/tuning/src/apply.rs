//! Settings applied to a sandbox, read back, watched for drift, and taken back.
//!
//! Invariant: every setting is tried, and each has an outcome of its own; none is reported as set
//! unless the kernel shows it.

use crate::profile::Setting;
use dtn_link::{Netns, sysctl};
use serde::{Deserialize, Serialize};

/// What became of one setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which one.
    pub key: String,
    /// What was there before; none when it could not be read.
    pub before: Option<String>,
    /// What was written.
    pub wanted: String,
    /// What the kernel shows afterwards.
    pub actual: Option<String>,
    /// Why it is not as wanted.
    pub error: Option<String>,
}

impl Outcome {
    /// The kernel shows what was wanted.
    pub fn is_set(&self) -> bool {
        self.error.is_none()
    }
}

/// Applies settings to a sandbox, in order, and reads each back.
pub async fn apply(netns: &Netns, settings: &[Setting]) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(settings.len());
    for setting in settings {
        outcomes.push(set(netns, &setting.key, &setting.value).await);
    }
    outcomes
}

pub(crate) async fn set(netns: &Netns, key: &str, value: &str) -> Outcome {
    let wanted = sysctl::plain(value);
    let mut outcome = Outcome {
        key: key.to_owned(),
        before: None,
        wanted: wanted.clone(),
        actual: None,
        error: None,
    };
    match sysctl::read(netns, key).await {
        Ok(Some(before)) => outcome.before = Some(before),
        Ok(None) => {
            outcome.error = Some(format!("{key} is not there: this kernel has it not"));
            return outcome;
        }
        Err(e) => {
            outcome.error = Some(e.to_string());
            return outcome;
        }
    }
    let written = sysctl::write(netns, key, &wanted).await;
    match sysctl::read(netns, key).await {
        Ok(actual) => outcome.actual = actual,
        Err(e) => outcome.error = Some(e.to_string()),
    }
    if let Err(e) = written {
        outcome.error = Some(e.to_string());
    } else if outcome.error.is_none() && outcome.actual.as_deref() != Some(&wanted) {
        outcome.error = Some(format!(
            "the kernel took {wanted:?} and shows {:?}",
            outcome.actual.as_deref().unwrap_or("nothing")
        ));
    }
    outcome
}

/// Writes back what was there before, the last first; returns the outcomes of that.
pub async fn restore(netns: &Netns, outcomes: &[Outcome]) -> Vec<Outcome> {
    let mut restored = Vec::new();
    for outcome in outcomes.iter().rev() {
        if let Some(before) = &outcome.before {
            restored.push(set(netns, &outcome.key, before).await);
        }
    }
    restored
}

/// Reads settings and returns those that are not as wanted. Nothing is changed; `before` is what
/// the kernel shows.
pub async fn drift(netns: &Netns, settings: &[Setting]) -> Vec<Outcome> {
    let mut drifted = Vec::new();
    for setting in settings {
        let wanted = sysctl::plain(&setting.value);
        let (actual, error) = match sysctl::read(netns, &setting.key).await {
            Ok(Some(actual)) if actual == wanted => continue,
            Ok(Some(actual)) => {
                let error = format!("it is {actual:?}");
                (Some(actual), error)
            }
            Ok(None) => (None, "this kernel has it not".to_owned()),
            Err(e) => (None, e.to_string()),
        };
        drifted.push(Outcome {
            key: setting.key.clone(),
            before: actual.clone(),
            wanted,
            actual,
            error: Some(error),
        });
    }
    drifted
}
