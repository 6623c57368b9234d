//! How a call to a daemon goes wrong.

use crate::problem::{Kind, Problem};

/// How a call went wrong: no answer at all, or an answer that says no.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The client could not be made.
    #[error("making a client for {target}: {reason}")]
    Setup {
        /// Address or socket.
        target: String,
        /// Why.
        reason: String,
    },
    /// Nobody answered.
    #[error("{method} {target}{path}: no answer: {reason}")]
    Unreachable {
        /// Verb.
        method: String,
        /// Address or socket.
        target: String,
        /// Path.
        path: String,
        /// Why.
        reason: String,
    },
    /// The answer is not what the contract says.
    #[error("{method} {target}{path}: the answer is not understood: {reason}")]
    Malformed {
        /// Verb.
        method: String,
        /// Address or socket.
        target: String,
        /// Path.
        path: String,
        /// Why.
        reason: String,
    },
    /// The answer is no.
    #[error(transparent)]
    Refused(#[from] Box<Problem>),
}

impl ClientError {
    /// The problem document, when there was an answer.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }
    /// Whether the answer was a problem of this kind.
    pub fn is(&self, kind: Kind) -> bool {
        self.problem().is_some_and(|problem| problem.is(kind))
    }
    /// Whether the same call can succeed later without a change.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused(problem) => problem.retryable,
            Self::Setup { .. } | Self::Malformed { .. } => false,
        }
    }
    /// As a problem document, to be handed on.
    pub fn into_problem(self) -> Problem {
        match self {
            Self::Refused(problem) => *problem,
            Self::Unreachable { .. } => Problem::new(Kind::BackendUnavailable, self.to_string()),
            Self::Malformed { .. } => Problem::new(Kind::BackendError, self.to_string()),
            Self::Setup { .. } => Problem::new(Kind::Internal, self.to_string()),
        }
    }
}
