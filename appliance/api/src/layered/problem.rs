//! What is wrong with a configuration, and why there is none.

use serde::Serialize;
use std::{fmt, path::PathBuf};

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It works, but not as one may think.
    Warning,
    /// It is refused.
    Error,
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigProblem {
    /// The field, as `nic[1].speed`; empty for the file as a whole.
    pub path: String,
    /// What is wrong with it, and what to write instead.
    pub why: String,
    /// The file it stands in, where that is known.
    pub file: Option<String>,
    /// The line of that file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// How bad it is.
    pub severity: Severity,
}
impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.why)?;
        match self.place() {
            Some(place) => write!(f, " (from {place})"),
            None => Ok(()),
        }
    }
}
impl ConfigProblem {
    /// `FILE:LINE`, as far as it is known.
    pub fn place(&self) -> Option<String> {
        let file = self.file.as_ref()?;
        Some(match self.line {
            Some(line) => format!("{file}:{line}"),
            None => file.clone(),
        })
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is not there.
    #[error("no configuration at {}: copy the annotated reference there (/usr/share/doc/dtn/appliance.toml), or name another file with --config", .path.display())]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file or a drop-in cannot be read.
    #[error("reading {}: {source}", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is there and wrong.
    #[error("{}", list(.0))]
    Invalid(
        /// Every problem.
        Vec<ConfigProblem>,
    ),
}
fn list(problems: &[ConfigProblem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    format!(
        "the configuration is not valid, {} problem{}:\n  {}",
        problems.len(),
        if problems.len() == 1 { "" } else { "s" },
        lines.join("\n  ")
    )
}
