//! Configuration in layers: a TOML file and its drop-ins (`FILE.d/*.toml`, in the order of their
//! names; tables are merged, lists are appended to), merged by figment, read value by value with a
//! list of problems at hand. Serde stops at the first fault of a file; an admin wants them all.
//!
//! Both daemons read theirs so. Feature `config`.

use figment::{
    Figment, Source,
    providers::{Format, Toml},
    value::{Dict, Value},
};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    fmt::{self, Display},
    path::{Path, PathBuf},
    str::FromStr,
};

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
        match &self.file {
            Some(file) => write!(f, " (from {file})"),
            None => Ok(()),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is not there.
    #[error("no configuration at {}: copy the annotated default there, or name another file with --config", .path.display())]
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

/// A configuration with what may surprise its author.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded<T> {
    /// The configuration.
    pub config: T,
    /// Warnings.
    pub warnings: Vec<ConfigProblem>,
}

/// Reads the configuration at `file` with its drop-ins from `file.d/`.
pub fn load<T>(
    file: &Path,
    parse: impl FnOnce(&mut Reader<'_>) -> Option<T>,
) -> Result<Loaded<T>, ConfigError> {
    let (found, warnings) = read(file, parse)?;
    found
        .map(|config| Loaded { config, warnings })
        .ok_or_else(|| ConfigError::Invalid(Vec::new()))
}

/// Every problem of the configuration at `file`, warnings too. An absent file is an error still.
pub fn check_file<T>(
    file: &Path,
    parse: impl FnOnce(&mut Reader<'_>) -> Option<T>,
) -> Result<Vec<ConfigProblem>, ConfigError> {
    match read(file, parse) {
        Ok((_, warnings)) => Ok(warnings),
        Err(ConfigError::Invalid(problems)) => Ok(problems),
        Err(other) => Err(other),
    }
}

fn read<T>(
    file: &Path,
    parse: impl FnOnce(&mut Reader<'_>) -> Option<T>,
) -> Result<(Option<T>, Vec<ConfigProblem>), ConfigError> {
    let mut problems = Vec::new();
    let mut merged = Figment::new();
    for path in layers(file)? {
        let text = std::fs::read_to_string(&path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => ConfigError::Absent { path: path.clone() },
            _ => ConfigError::Unreadable {
                path: path.clone(),
                source,
            },
        })?;
        // each file alone first: a fault of syntax in one does not hide the others' faults
        if let Err(e) = toml::from_str::<toml::Table>(&text) {
            problems.push(ConfigProblem {
                path: String::new(),
                why: format!("not TOML: {}", e.to_string().trim_end()),
                file: Some(path.display().to_string()),
                severity: Severity::Error,
            });
            continue;
        }
        merged = merged.admerge(Toml::file_exact(&path));
    }
    let tables = match merged.extract::<Dict>() {
        Ok(tables) => tables,
        Err(errors) => {
            problems.extend(errors.into_iter().map(|e| ConfigProblem {
                path: e.path.join("."),
                why: e.kind.to_string(),
                file: e.metadata.map(|m| m.name.to_string()),
                severity: Severity::Error,
            }));
            return Err(ConfigError::Invalid(problems));
        }
    };
    let torn = !problems.is_empty();
    let mut reader = Reader {
        merged: &merged,
        tables: &tables,
        problems,
        torn,
    };
    let config = parse(&mut reader);
    let problems = reader.problems;
    if problems.iter().any(|p| p.severity == Severity::Error) {
        return Err(ConfigError::Invalid(problems));
    }
    Ok((config, problems))
}

/// The file and its drop-ins, in order. Names that start with a dot or do not end in `.toml` (an
/// editor's copies) are no drop-ins.
fn layers(file: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let mut folder = file.as_os_str().to_owned();
    folder.push(".d");
    let folder = PathBuf::from(folder);
    let unreadable = |source| ConfigError::Unreadable {
        path: folder.clone(),
        source,
    };
    let mut drop_ins = Vec::new();
    match std::fs::read_dir(&folder) {
        Ok(entries) => {
            for entry in entries {
                let path = entry.map_err(unreadable)?.path();
                let name = path.file_name().and_then(|n| n.to_str()).unwrap_or(".");
                if name.ends_with(".toml") && !name.starts_with('.') {
                    drop_ins.push(path);
                }
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(unreadable(e)),
    }
    drop_ins.sort();
    Ok([file.to_owned()].into_iter().chain(drop_ins).collect())
}

/// The merged tables with the list of what is wrong with them.
pub struct Reader<'a> {
    merged: &'a Figment,
    tables: &'a Dict,
    problems: Vec<ConfigProblem>,
    /// A file could not be parsed: what is missing may stand in it.
    torn: bool,
}

impl Reader<'_> {
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
        let file = self.file_of(path);
        self.problems.push(ConfigProblem {
            path: path.to_owned(),
            why,
            file,
            severity,
        });
    }
    /// The file that a value stands in; of a missing one, the file of the table it should be in.
    fn file_of(&self, path: &str) -> Option<String> {
        let mut path = path;
        loop {
            if let Some(value) = self.value(path) {
                let metadata = self.merged.get_metadata(first_tag(value))?;
                return metadata.source.as_ref().map(|source| match source {
                    Source::File(path) => path.display().to_string(),
                    other => other.to_string(),
                });
            }
            path = path.rsplit_once('.')?.0;
        }
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
            let full = match path {
                "" => key.clone(),
                _ => format!("{path}.{key}"),
            };
            self.error(&full, format!("is not known here: use {}", keys.join(", ")));
        }
    }
    /// Number of tables in an array of tables; reports a value that is something else.
    pub fn tables(&mut self, path: &str) -> usize {
        match self.value(path) {
            None => 0,
            Some(Value::Array(_, items)) => items.len(),
            Some(_) => {
                self.error(
                    path,
                    format!("must be an array of tables: write [[{path}]]"),
                );
                0
            }
        }
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
            Some(Value::Array(_, items)) => items.len(),
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

/// A table has no place of its own once it was merged; what stands first in it has.
fn first_tag(value: &Value) -> figment::value::Tag {
    match value {
        Value::Dict(_, table) => table.values().next().map_or(value.tag(), first_tag),
        _ => value.tag(),
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
