//! What takes a change back: a stack of steps, each pushed *before* its change is made.
//!
//! Invariant: a rollback runs every step, the last first, whatever the others said. Nothing runs
//! on drop: an asynchronous step has no runtime there. A process that dies in between is what the
//! record on disk is for.

use std::{fmt, future::Future, pin::Pin};

type Boxed = Box<dyn std::error::Error + Send + Sync>;
type Step = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = Result<(), Boxed>> + Send>> + Send>;

/// The stack.
#[derive(Default)]
pub struct Undo {
    steps: Vec<(String, Step)>,
}

/// A step that could not be taken back.
#[derive(Debug)]
pub struct UndoFailure {
    /// What the step was to do.
    pub step: String,
    /// Why it could not.
    pub error: Boxed,
}

impl fmt::Display for UndoFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.error)
    }
}
impl std::error::Error for UndoFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // the text above has it already
        None
    }
}

impl Undo {
    /// Nothing to take back.
    pub fn new() -> Self {
        Self::default()
    }

    /// Pushes a step, before the change that it takes back. It must succeed when the change was
    /// not made. `what` is in the words of a report: `deleting the macvlan net1`.
    pub fn push<F, R, E>(&mut self, what: impl Into<String>, step: F)
    where
        F: FnOnce() -> R + Send + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Boxed>,
    {
        let step: Step = Box::new(move || {
            let running = step();
            Box::pin(async move { running.await.map_err(Into::into) })
        });
        self.steps.push((what.into(), step));
    }

    /// How many steps there are.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Nothing to take back.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The changes stay.
    pub fn commit(mut self) {
        self.steps.clear();
    }

    /// Takes everything back, the last first; returns what could not be.
    pub async fn rollback(mut self) -> Vec<UndoFailure> {
        let mut failures = Vec::new();
        while let Some((what, step)) = self.steps.pop() {
            tracing::debug!(step = what, "undo");
            if let Err(error) = step().await {
                tracing::warn!(step = what, %error, "undo failed");
                failures.push(UndoFailure { step: what, error });
            }
        }
        failures
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if !self.steps.is_empty() {
            let steps: Vec<&str> = self.steps.iter().map(|(what, _)| what.as_str()).collect();
            tracing::error!(
                ?steps,
                "an undo stack was dropped without commit or rollback"
            );
        }
    }
}

impl fmt::Debug for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.steps.iter().map(|(what, _)| what))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    fn noting(log: &Arc<Mutex<Vec<u32>>>, undo: &mut Undo, number: u32, fails: bool) {
        let log = Arc::clone(log);
        undo.push(format!("step {number}"), move || async move {
            log.lock().unwrap().push(number);
            if fails { Err("no") } else { Ok(()) }
        });
    }

    #[tokio::test]
    async fn a_rollback_runs_all_steps_in_reverse_and_tells_all_failures() {
        let (log, mut undo) = (Arc::default(), Undo::new());
        for (number, fails) in [(1, false), (2, true), (3, true), (4, false)] {
            noting(&log, &mut undo, number, fails);
        }
        assert_eq!(undo.len(), 4);
        let failures: Vec<String> = undo
            .rollback()
            .await
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(*log.lock().unwrap(), [4, 3, 2, 1]);
        assert_eq!(failures, ["step 3: no", "step 2: no"]);
    }

    #[tokio::test]
    async fn a_commit_runs_none() {
        let (log, mut undo) = (Arc::default(), Undo::new());
        noting(&log, &mut undo, 1, false);
        undo.commit();
        assert!(log.lock().unwrap().is_empty());
        assert!(Undo::new().is_empty());
    }
}
