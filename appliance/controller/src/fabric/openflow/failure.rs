//! Why a switch did not do what it was asked.

use super::session::ANSWER;
use dtn_openflow::{Message, refusal};
use std::fmt;

/// An error that a switch sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) kind: u16,
    pub(super) code: u16,
}
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&refusal(self.kind, self.code))
    }
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// The connection ended.
    #[error("the connection to the switch ended: {0}")]
    Lost(String),
    /// The switch took too long.
    #[error("no answer to {0} within {seconds} s", seconds = ANSWER.as_secs())]
    Late(&'static str),
    /// The switch said no.
    #[error("{asked}: {cause}")]
    Refused {
        /// What it was asked.
        asked: &'static str,
        /// What it said.
        cause: Cause,
    },
    /// It answered something else.
    #[error("the switch answered {asked} with {got}")]
    Unexpected {
        /// What it was asked.
        asked: &'static str,
        /// What came.
        got: String,
    },
}

/// Of an answer to something else.
pub(super) fn unexpected(asked: &'static str, got: &Message) -> Failure {
    let mut got = format!("{got:?}");
    got.truncate(got.floor_char_boundary(80));
    Failure::Unexpected { asked, got }
}
