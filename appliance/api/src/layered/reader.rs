//! Reads the merged values one by one and keeps the list of what is wrong with them.

use super::{
    place::{self, Layer, Rank},
    problem::{ConfigProblem, Severity},
};
use figment::value::{Dict, Value};
use std::{collections::BTreeSet, fmt::Display, path::PathBuf, str::FromStr};

/// Most tables in an array of tables, and most values in a list.
pub const MOST_ITEMS: usize = 1024;

/// The merged tables with the list of what is wrong with them.
pub struct Reader<'a> {
    tables: &'a Dict,
    layers: &'a [Layer],
    problems: Vec<ConfigProblem>,
    /// A file could not be parsed: what is missing may stand in it.
    torn: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        tables: &'a Dict,
        layers: &'a [Layer],
        problems: Vec<ConfigProblem>,
        torn: bool,
    ) -> Self {
        Self {
            tables,
            layers,
            problems,
            torn,
        }
    }
    pub(super) fn into_problems(self) -> Vec<ConfigProblem> {
        self.problems
    }
}

impl Reader<'_> {
    /// Whether the admin wrote one of these tables or keys; the maker's defaults do not count. A
    /// file that could not be parsed may have them.
    pub fn has_any(&self, tables: &[&str]) -> bool {
        let own =
            |layer: &Layer| layer.rank == Rank::Own && tables.iter().any(|table| layer.has(table));
        self.torn || self.layers.iter().any(own)
    }
    fn value(&self, path: &str) -> Option<&Value> {
        let mut parts = path.split('.').filter(|part| !part.is_empty());
        let first = parts.next()?;
        let mut value = step(self.tables, first)?;
        for part in parts {
            value = step(value.as_dict()?, part)?;
        }
        Some(value)
    }
    fn push(&mut self, path: &str, why: String, severity: Severity) {
        let (file, line) = match place::locate(self.layers, path) {
            Some((file, line)) => (Some(file), line),
            None => (None, None),
        };
        self.problems.push(ConfigProblem {
            path: path.to_owned(),
            why,
            file,
            line,
            severity,
        });
    }
    /// Reports a value that is refused.
    pub fn error(&mut self, path: &str, why: String) {
        self.push(path, why, Severity::Error);
    }
    /// Reports a value that may surprise.
    pub fn warning(&mut self, path: &str, why: String) {
        if self.torn {
            return;
        }
        self.push(path, why, Severity::Warning);
    }
    /// How many errors there are so far.
    pub fn errors(&self) -> usize {
        self.problems
            .iter()
            .filter(|p| p.severity == Severity::Error)
            .count()
    }
    /// Reports a value that has to be there, unless it is there and was reported as wrong.
    pub fn missing(&mut self, path: &str, remedy: &str) {
        if self.value(path).is_none() && !self.torn {
            self.error(path, format!("is missing: {remedy}"));
        }
    }
    /// Reports the keys of a table that are not among the known, and a value that is no table.
    pub fn known(&mut self, path: &str, keys: &[&str]) {
        let table = match path {
            "" => Some(self.tables),
            _ => match self.value(path) {
                None => return,
                Some(value) => value.as_dict(),
            },
        };
        let Some(table) = table else {
            self.error(path, "must be a table".into());
            return;
        };
        let unknown: BTreeSet<String> = table
            .keys()
            .filter(|key| !keys.contains(&key.as_str()))
            .cloned()
            .collect();
        for key in unknown {
            // what a terminal would obey is shown and not sent to it
            let shown = key.escape_debug();
            let full = match path {
                "" => shown.to_string(),
                _ => format!("{path}.{shown}"),
            };
            let why = match nearest(&key, keys) {
                Some(near) => format!("is not known here: did you mean {near}?"),
                None => format!("is not known here: use {}", keys.join(", ")),
            };
            self.error(&full, why);
        }
    }
    /// Number of tables in an array of tables; reports a value that is something else.
    pub fn tables(&mut self, path: &str) -> usize {
        match self.value(path) {
            None => 0,
            Some(Value::Array(_, items)) => self.bounded(path, items.len()),
            Some(_) => {
                self.error(
                    path,
                    format!("must be an array of tables: write [[{path}]]"),
                );
                0
            }
        }
    }
    /// Whether a text is written there of which this holds.
    pub fn is_text(&self, path: &str, holds: impl FnOnce(&str) -> bool) -> bool {
        self.value(path).and_then(Value::as_str).is_some_and(holds)
    }
    fn bounded(&mut self, path: &str, count: usize) -> usize {
        if count <= MOST_ITEMS {
            return count;
        }
        self.error(path, format!("has {count} entries, more than {MOST_ITEMS}"));
        0
    }
    /// Whether something is written there.
    pub fn is_there(&self, path: &str) -> bool {
        self.value(path).is_some()
    }
    /// Number of values in a list, each of which is read as `path[0]` and so on; reports a value
    /// that is no list.
    pub fn items(&mut self, path: &str) -> usize {
        match self.value(path) {
            None => 0,
            Some(Value::Array(_, items)) => self.bounded(path, items.len()),
            Some(_) => {
                self.error(path, "must be a list: write it in [ ]".into());
                0
            }
        }
    }
    /// A whole number; a value that is none is reported.
    pub fn integer(&mut self, path: &str) -> Option<i64> {
        let value = self.value(path)?;
        let number = match value {
            Value::Num(_, number) => number
                .to_i128()
                .or_else(|| number.to_u128().and_then(|n| i128::try_from(n).ok()))
                .and_then(|n| i64::try_from(n).ok()),
            _ => None,
        };
        if number.is_none() {
            self.error(path, "must be a whole number".into());
        }
        number
    }
    /// The version of the format, which has to be there and to be the one that this build reads.
    pub fn version(&mut self, known: i64) {
        match self.integer("version") {
            Some(version) if version == known => {}
            Some(newer) if newer > known => self.error(
                "version",
                format!(
                    "is {newer}, newer than the {known} that this build reads: update the \
                     appliance, or go back to the file that it wrote"
                ),
            ),
            Some(other) => self.error(
                "version",
                format!("is {other}, which there never was: write version = {known}"),
            ),
            None => self.missing("version", &format!("write version = {known} first")),
        }
    }
    /// A yes or no; a value that is none is reported.
    pub fn flag(&mut self, path: &str) -> Option<bool> {
        let value = self.value(path)?;
        let flag = value.to_bool();
        if flag.is_none() {
            self.error(path, "must be true or false, without quotes".into());
        }
        flag
    }
    /// A text; a value that is none is reported.
    pub fn text(&mut self, path: &str) -> Option<String> {
        let value = self.value(path)?;
        let text = value.as_str().map(str::to_owned);
        if text.is_none() {
            self.error(path, "must be text in quotes".into());
        }
        text
    }
    /// A text that is read as a `T`; what is wrong with it is reported.
    pub fn parse<T: FromStr<Err: Display>>(&mut self, path: &str) -> Option<T> {
        let text = self.text(path)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(e) => {
                let why = e.to_string();
                let shown = format!("{text:?}");
                self.error(
                    path,
                    if why.contains(&shown) {
                        why
                    } else {
                        format!("{shown}: {why}")
                    },
                );
                None
            }
        }
    }
    /// An absolute path; the default when there is none.
    pub fn path(&mut self, path: &str, default: &str) -> PathBuf {
        let text = self.text(path).unwrap_or_else(|| default.to_owned());
        if !text.starts_with('/') {
            self.error(path, format!("{text:?} must be an absolute path"));
        }
        PathBuf::from(text)
    }
}

/// One step into a table: `key`, or `key[3]` into an array.
fn step<'a>(table: &'a Dict, part: &str) -> Option<&'a Value> {
    let Some((key, index)) = part.strip_suffix(']').and_then(|p| p.split_once('[')) else {
        return table.get(part);
    };
    match table.get(key)? {
        Value::Array(_, items) => items.get(index.parse::<usize>().ok()?),
        _ => None,
    }
}

/// The known key that was probably meant.
fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let far = |known: &str| strsim::osa_distance(key, known);
    let nearest = known.iter().min_by_key(|known| far(known))?;
    // a third of it may be wrong; of a word of two letters that is none
    (key.len() <= 64 && far(nearest) <= nearest.len().max(3) / 3).then_some(*nearest)
}
