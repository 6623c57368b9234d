//! What both daemons say of the configuration that they run with: what it is, what reading it again
//! has changed, and a configuration that is being tried.
//!
//! | path | verbs |
//! | --- | --- |
//! | `/config` | GET ([`Running`]) |
//! | `/config/reload` | POST (→ [`Reloaded`]) |
//! | `/config/trial` | POST ([`Try`] → [`Trial`]), DELETE (goes back now); of `dtnd` alone |
//! | `/config/confirm` | POST (the trial becomes what is); of `dtnd` alone |

use crate::Span;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// When a difference is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "effect", content = "why")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Effect {
    /// Once the configuration is read again.
    Live,
    /// Only once the daemon was started again, or something else has ended, as is said here.
    Waits(String),
}

/// A field of which two configurations say something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Difference {
    /// The field, as `log.level` or `nic["ens1f0"].class`.
    pub path: String,
    /// What was there, as TOML; nothing when it is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// What is there; nothing when it was taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
    /// When it is in force.
    #[serde(flatten)]
    pub effect: Effect,
}
impl Difference {
    /// Whether it is in force once the configuration is read again.
    pub fn is_live(&self) -> bool {
        self.effect == Effect::Live
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (old, new) = (self.old.as_deref(), self.new.as_deref());
        let (old, new) = (old.unwrap_or("nothing"), new.unwrap_or("nothing"));
        match &self.effect {
            Effect::Live => write!(f, "{}: {old} is now {new}", self.path),
            Effect::Waits(why) => write!(
                f,
                "{}: {old} stays, {new} is not in force: {why}",
                self.path
            ),
        }
    }
}

/// Every field of a configuration that is not its default, as TOML, by its path.
pub type Values = BTreeMap<String, String>;

/// The configuration that a daemon runs with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Running {
    /// The file that it comes from.
    pub file: String,
    /// What is set over all files, as its command line has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<String>,
    /// When it was read last and taken.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub read_at: Timestamp,
    /// Every field that is in force and not its default.
    pub values: Values,
    /// What the files say and is not in force yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Difference>,
    /// Why the files were refused when they were last read; what was in force stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    /// A configuration that is being tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
}

/// What reading the configuration again has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reloaded {
    /// What is in force now.
    pub applied: Vec<Difference>,
    /// What is not, each with what it waits for.
    pub waiting: Vec<Difference>,
    /// What may surprise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl std::fmt::Display for Reloaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.applied.is_empty() && self.waiting.is_empty() {
            return f.write_str("the configuration is as it was");
        }
        let paths = |all: &[Difference]| -> String {
            let paths: Vec<&str> = all.iter().map(|one| one.path.as_str()).collect();
            paths.join(", ")
        };
        if !self.applied.is_empty() {
            write!(f, "in force now: {}", paths(&self.applied))?;
        }
        for (n, one) in self.waiting.iter().enumerate() {
            let comma = if n + self.applied.len() > 0 { "; " } else { "" };
            if let Effect::Waits(why) = &one.effect {
                write!(f, "{comma}{} is not in force: {why}", one.path)?;
            }
        }
        Ok(())
    }
}

/// Body of `POST /config/trial`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Try {
    /// The file as it shall be.
    pub text: String,
    /// How long it stays without a word.
    pub timeout: Span,
}

/// A configuration that goes back by itself unless it is confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Trial {
    /// The file that it stands in.
    pub file: String,
    /// How long it still stays.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub left: Span,
    /// What it has changed.
    pub changed: Reloaded,
    /// What the domain's controller said of it, where this host has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<String>,
}
