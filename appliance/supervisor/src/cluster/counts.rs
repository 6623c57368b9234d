//! What the driver has counted since the daemon started, for metrics: what the kubelet asked for, how
//! that went and how long it took, and what was asked of the API server, and what for.

use dtn_api::{Problem, problem::Kind};
use prometheus_client::metrics::{counter::Counter, family::Family, histogram::Histogram};
use std::time::Duration;

/// Upper ends of the counted durations, in seconds: what is prepared already is answered from the
/// disk, and the kubelet gives up after 45 s.
const SECONDS: [f64; 10] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 45.0];
/// How a call is counted that went well.
const OK: &str = "ok";

/// Names and values of a series.
pub type Labels = Vec<(&'static str, String)>;

/// What the kubelet asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// To have everything of a claim.
    Prepare,
    /// To give it back.
    Unprepare,
}

/// A call of the API server, by what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Reads a claim that the kubelet wants prepared.
    ToPrepare,
    /// Reads a claim to find out whether it is gone.
    ToSweep,
    /// Writes a claim's status.
    ToTell,
    /// Reads the node that owns the ResourceSlice.
    NodeToPublish,
    /// Writes the ResourceSlice.
    ToPublish,
    /// Lists the ResourceSlice and hears of it from then on.
    ToWatch,
}
impl Call {
    fn labels(self) -> [(&'static str, &'static str); 2] {
        let (purpose, verb) = match self {
            Self::ToPrepare => ("prepare", "get"),
            Self::ToSweep => ("sweep", "get"),
            Self::ToTell => ("status", "patch"),
            Self::NodeToPublish => ("publish", "get"),
            Self::ToPublish => ("publish", "patch"),
            Self::ToWatch => ("publish", "watch"),
        };
        [("purpose", purpose), ("verb", verb)]
    }
}

/// The counters. A clone counts into the same.
#[derive(Debug, Clone)]
pub struct Counts {
    /// What the kubelet asked for, one observation for each claim.
    pub kubelet: Family<Labels, Histogram, fn() -> Histogram>,
    /// What was asked of the API server.
    pub api: Family<Labels, Counter>,
}

impl Default for Counts {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(SECONDS);
        let counts = Self {
            kubelet: Family::new_with_constructor(histogram),
            api: Family::default(),
        };
        // a series that begins with its first event has no rate for it
        for asked in [Asked::Prepare, Asked::Unprepare] {
            drop(counts.kubelet.get_or_create(&asked_labels(asked, OK)));
        }
        counts
    }
}

impl Counts {
    /// The kubelet was answered.
    pub fn answered<T>(&self, asked: Asked, outcome: &Result<T, Problem>, took: Duration) {
        let labels = asked_labels(asked, &result(outcome));
        let series = self.kubelet.get_or_create(&labels);
        series.observe(took.as_secs_f64());
    }
    /// The API server was asked.
    pub fn called<T>(&self, call: Call, outcome: &Result<T, Problem>) {
        let mut labels: Labels = call
            .labels()
            .map(|(name, value)| (name, value.to_owned()))
            .to_vec();
        labels.push(("result", result(outcome)));
        self.api.get_or_create(&labels).inc();
    }
}

fn asked_labels(asked: Asked, result: &str) -> Labels {
    let verb = match asked {
        Asked::Prepare => "prepare",
        Asked::Unprepare => "unprepare",
    };
    vec![("verb", verb.to_owned()), ("result", result.to_owned())]
}

/// `ok`, or the kind of the problem: there are few, and none holds a name.
fn result<T>(outcome: &Result<T, Problem>) -> String {
    let Err(problem) = outcome else {
        return OK.to_owned();
    };
    let kind = problem.known_kind().unwrap_or(Kind::Internal);
    let name = serde_json::to_value(kind).unwrap_or_default();
    name.as_str().unwrap_or("internal").to_owned()
}
