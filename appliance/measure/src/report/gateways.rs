//! What the gateways let pass and what they did not: each connection that was tried, how soon the
//! rules were in force, and what was counted.

use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// One connection that was tried through a gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Knock {
    /// Which rules there were, in words.
    pub rules: String,
    /// `outbound` or `inbound`.
    pub direction: String,
    /// Where it came from.
    pub from: String,
    /// Address and TCP port that it went to.
    pub to: String,
    /// Whether it was to pass.
    pub wanted: bool,
    /// What was seen: `open` when a byte went there and came back, `silent` when nothing was heard, or
    /// what was heard instead.
    pub seen: String,
    /// What the controller had said beforehand: `allow` or `deny`.
    pub explained: String,
}

impl Knock {
    /// Whether it went as the rules say, and as the controller had said.
    pub fn ok(&self) -> bool {
        let (seen, explained) = match self.wanted {
            true => ("open", "allow"),
            false => ("silent", "deny"),
        };
        self.seen == seen && self.explained == explained
    }
}

/// A change of a gateway's rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleChange {
    /// What was changed, in words.
    pub what: String,
    /// From asking for it until every connection went as the new rules say, milliseconds; `None` when
    /// that was not seen.
    pub in_force_ms: Option<f64>,
}

/// What a site's gateway let pass and what it did not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GatewayEvidence {
    /// The site.
    pub site: String,
    /// Its name.
    pub name: String,
    /// Everything went as the rules say, and was counted.
    pub ok: bool,
    /// What did not, in words.
    #[serde(default)]
    pub wrong: Vec<String>,
    /// Connection by connection.
    pub knocks: Vec<Knock>,
    /// How soon the rules were in force.
    pub changes: Vec<RuleChange>,
    /// Packets that its host dropped because no rule allowed them, on their way out.
    pub denied_outbound: u64,
    /// And on their way in.
    pub denied_inbound: u64,
    /// What the switches have dropped before it came to the host; `None` without switches.
    pub denied_by_switches: Option<u64>,
}

/// How much of what went wrong is said in a line; all of it is in the report.
const SAID: usize = 3;

impl GatewayEvidence {
    /// What went wrong, shortly.
    pub fn said(&self) -> String {
        let mut said = self.wrong[..self.wrong.len().min(SAID)].join("; ");
        if let Some(more) = self.wrong.len().checked_sub(SAID).filter(|more| *more > 0) {
            let _ = write!(said, "; and {more} more");
        }
        said
    }
    /// The line for people.
    pub(super) fn line(&self) -> String {
        let well = self.knocks.iter().filter(|knock| knock.ok()).count();
        let mut line = format!(
            "{} of {}: {well} of {} connections went as its rules say",
            self.name,
            self.site,
            self.knocks.len()
        );
        for change in &self.changes {
            let _ = match change.in_force_ms {
                Some(ms) => write!(line, ", {} in force after {ms:.0} ms", change.what),
                None => write!(line, ", {} NOT IN FORCE", change.what),
            };
        }
        let _ = write!(
            line,
            ", {} packets dropped by its host",
            self.denied_outbound + self.denied_inbound
        );
        if let Some(packets) = self.denied_by_switches {
            let _ = write!(line, " and {packets} by the switches");
        }
        if !self.ok {
            let _ = write!(line, "; WRONG: {}", self.said());
        }
        line
    }
}
