//! What runs pods, as the supervisor needs it: few verbs, each of them safe to repeat. The one
//! engine is podman; the trait is the seam at which tests put another.

use dtn_api::{Problem, problem::Kind};
use futures_util::future::BoxFuture;
use std::{collections::BTreeMap, path::Path};

/// Label of every pod that the supervisor made, with the pod's UID as its value.
pub const UID_LABEL: &str = "dtn.uid";

/// An answer of an engine.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, EngineError>>;

/// Why an engine did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// It cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// It answered no.
    #[error("{doing}: {why}")]
    Refused {
        /// What was being done, to what.
        doing: String,
        /// In the engine's own words.
        why: String,
    },
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        let kind = match error {
            EngineError::Unreachable(_) => Kind::BackendUnavailable,
            EngineError::Refused { .. } => Kind::BackendError,
        };
        Problem::new(kind, error.to_string())
    }
}

/// A container of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Given by the engine.
    pub id: String,
    /// Its name in the engine, which is its name in the template behind the pod's.
    pub name: String,
    /// The engine's word: `created`, `running`, `exited`…
    pub state: String,
}

impl Container {
    /// Whether it runs.
    pub fn runs(&self) -> bool {
        self.state == "running"
    }
}

/// A pod as its engine has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnginePod {
    /// Given by the engine.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The UID that the supervisor gave it.
    pub uid: String,
    /// The container that holds its sandbox.
    pub infra: Option<Container>,
    /// The others.
    pub containers: Vec<Container>,
}

/// Runs pods.
pub trait Engine: Send + Sync + std::fmt::Debug {
    /// Its name and version; an error when it does not answer.
    fn version(&self) -> Answer<'_, String>;
    /// Every pod with [`UID_LABEL`].
    fn pods(&self) -> Answer<'_, Vec<EnginePod>>;
    /// Makes a pod without a network and starts nothing. Its id.
    fn create<'a>(&'a self, manifest: &'a str) -> Answer<'a, String>;
    /// Starts one container; success when it runs.
    fn start_container<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// The process of a container that runs, and how often it was started again.
    fn process<'a>(&'a self, container: &'a str) -> Answer<'a, Option<Process>>;
    /// Starts what of a pod does not run.
    fn start<'a>(&'a self, pod: &'a str) -> Answer<'a, ()>;
    /// Stops a pod; success when there is none.
    fn stop<'a>(&'a self, pod: &'a str) -> Answer<'a, ()>;
    /// Removes a pod, running or not; success when there is none.
    fn remove<'a>(&'a self, pod: &'a str) -> Answer<'a, ()>;
    /// The last lines that a container wrote.
    fn logs<'a>(&'a self, container: &'a str, tail: u32) -> Answer<'a, String>;
}

/// The process of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// In the supervisor's own process namespace.
    pub pid: u32,
    /// How often the engine started it again.
    pub restarts: u64,
}

impl Process {
    /// Its network namespace.
    pub fn netns(&self) -> std::path::PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join("ns/net")
    }
}

/// The containers of a pod by their names in the template, with the engine's words.
pub fn states(pod: &EnginePod) -> BTreeMap<String, String> {
    named(pod, |container| container.state.clone())
}

/// The containers of a pod by their names in the template, with the engine's names.
pub fn names(pod: &EnginePod) -> BTreeMap<String, String> {
    named(pod, |container| container.name.clone())
}

fn named(pod: &EnginePod, of: impl Fn(&Container) -> String) -> BTreeMap<String, String> {
    let prefix = format!("{}-", pod.name);
    pod.containers
        .iter()
        .map(|container| {
            let name = container.name.strip_prefix(&prefix);
            (name.unwrap_or(&container.name).to_owned(), of(container))
        })
        .collect()
}
