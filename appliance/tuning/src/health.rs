//! Whether a host and its NICs are what the site paid for: facts in, findings out.
//!
//! * [`Finding`], [`Level`]: what is said, and how loud.
//! * [`nic`]: one NIC: what it was trained to, its slot, its counters, its settings.
//! * [`host`]: the machine: clock, processors, cgroups, kernel, settings, disks.
//! * [`plan`]: the settings of the machine that a DTN wants, each with its reason and source.
//! * [`mod@look`]: collects the facts; everything else here is pure.
//!
//! Law of the levels: an **alarm** costs what was paid for or loses data; a **warning** costs some
//! of it under load; a **note** is worth knowing; **ok** was looked at and is well. What could not be
//! looked at is told as that and never as ok.

pub mod host;
pub mod look;
pub mod nic;
pub mod plan;

use serde::{Deserialize, Serialize};
use std::fmt;

/// How loud a finding is; the loudest is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Looked at, and well.
    Ok,
    /// Worth knowing.
    Note,
    /// It costs something under load, or soon.
    Warning,
    /// What was paid for is not had, or data is lost.
    Alarm,
}
impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Alarm => "ALARM",
        })
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How loud.
    pub level: Level,
    /// Of what: `host`, or the name of a NIC.
    pub subject: String,
    /// Which check; the same word for the same check in every version.
    pub check: String,
    /// What was found, with the figures.
    pub text: String,
    /// What would mend it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The next step, as a command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Finding {
    /// Says what would mend it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
    /// Says what to type next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

/// Findings of one subject while they are gathered.
#[derive(Debug)]
pub struct Findings {
    subject: String,
    found: Vec<Finding>,
}

impl Findings {
    /// Of this subject.
    pub fn of(subject: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            found: Vec::new(),
        }
    }
    /// One more.
    pub fn say(&mut self, level: Level, check: &str, text: impl Into<String>) -> &mut Finding {
        self.found.push(Finding {
            level,
            subject: self.subject.clone(),
            check: check.to_owned(),
            text: text.into(),
            remedy: None,
            next: None,
        });
        let last = self.found.len() - 1;
        &mut self.found[last]
    }
    /// One more that is well.
    pub fn ok(&mut self, check: &str, text: impl Into<String>) {
        self.say(Level::Ok, check, text);
    }
    /// One more with what would mend it and the next step.
    pub fn mend(
        &mut self,
        level: Level,
        check: &str,
        text: impl Into<String>,
        remedy: impl Into<String>,
        next: impl Into<String>,
    ) {
        let finding = self.say(level, check, text);
        finding.remedy = Some(remedy.into());
        finding.next = Some(next.into());
    }
    /// All of them.
    pub fn done(self) -> Vec<Finding> {
        self.found
    }
}

/// The loudest first; of equal ones in the order in which they were found.
pub fn by_severity(findings: &mut [Finding]) {
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
}
