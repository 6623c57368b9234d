//! Configuration in layers: the maker's defaults, the admin's TOML file, its drop-ins (in the order
//! of their names) and the command line; tables are merged, lists are appended to. Merged by
//! figment, read value by value with a list of problems at hand. Serde stops at the first fault of a
//! file; an admin wants them all, each with its line.
//!
//! Both daemons read theirs so, from one file: each reads its own tables, and knows those of the
//! other by name. Feature `config`.

mod compare;
pub mod fields;
mod place;
mod problem;
mod reader;
mod schema;
mod sources;
mod text;

pub use compare::{differences, held_back};
pub use fields::Table;
pub use problem::{ConfigError, ConfigProblem, Severity};
pub use reader::{MOST_ITEMS, Reader};
pub use schema::schema;
pub use sources::{DEFAULT_FILE, MAKERS_FILE, MOST_DROP_INS, Setting, Sources};
pub use text::LARGEST;

use crate::running::Values;
use figment::{
    Figment,
    providers::{Format, Toml},
    value::Dict,
};
use place::Rank;

/// Most problems that are listed; what is more is counted.
const MOST_PROBLEMS: usize = 100;

/// What both parts of the file have.
pub const SHARED: &[&str] = &["version", "log"];
/// Tables of the file that the supervisor of a host reads.
pub const HOST_TABLES: &[&str] = &[
    "host",
    "nic",
    "gateway",
    "podman",
    "kubernetes",
    "cni",
    "workloads",
    "data",
    "tuning",
    "metrics",
];
/// Tables of the file that the controller of a domain reads.
pub const DOMAIN_TABLES: &[&str] = &[
    "domain",
    "listen",
    "border",
    "fabric",
    "switch",
    "cable",
    "port",
    "addresses",
    "limits",
    "operator",
];

/// Every name that may stand at the top of a file, whichever daemon reads it.
pub fn top_level() -> Vec<&'static str> {
    [SHARED, HOST_TABLES, DOMAIN_TABLES].concat()
}

/// Which parts a configuration has, by the tables that its admin wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parts {
    /// A table of the supervisor is there.
    pub host: bool,
    /// A table of the controller is there.
    pub domain: bool,
}

/// A configuration with what may surprise its author.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded<T> {
    /// The configuration.
    pub config: T,
    /// Warnings.
    pub warnings: Vec<ConfigProblem>,
    /// Its values field by field, to compare it with another.
    pub values: Values,
}

/// Reads a configuration.
pub fn load<T>(
    sources: &Sources,
    tables: &[Table],
    parse: impl FnOnce(&mut Reader<'_>) -> Option<T>,
) -> Result<Loaded<T>, ConfigError> {
    let (found, warnings, values) = read(sources, tables, parse)?;
    found
        .map(|config| Loaded {
            config,
            warnings,
            values,
        })
        .ok_or_else(|| ConfigError::Invalid(Vec::new()))
}

/// Every problem of a configuration, warnings too. An absent file is an error still.
pub fn check<T>(
    sources: &Sources,
    parse: impl FnOnce(&mut Reader<'_>) -> Option<T>,
) -> Result<Vec<ConfigProblem>, ConfigError> {
    match read(sources, &[], parse) {
        Ok((_, warnings, _)) => Ok(warnings),
        Err(ConfigError::Invalid(problems)) => Ok(problems),
        Err(other) => Err(other),
    }
}

/// Which parts there are; what cannot be parsed has none.
pub fn parts(sources: &Sources) -> Result<Parts, ConfigError> {
    let layers = sources.read(&mut Vec::new())?;
    let own = |tables: &[&str]| {
        layers
            .iter()
            .filter(|layer| layer.rank == Rank::Own)
            .any(|layer| tables.iter().any(|table| layer.has(table)))
    };
    Ok(Parts {
        host: own(HOST_TABLES),
        domain: own(DOMAIN_TABLES),
    })
}

/// What was read, warnings, and its values.
type Found<T> = (Option<T>, Vec<ConfigProblem>, Values);

fn read<T>(
    sources: &Sources,
    known: &[Table],
    parse: impl FnOnce(&mut Reader<'_>) -> Option<T>,
) -> Result<Found<T>, ConfigError> {
    let mut problems = Vec::new();
    let layers = sources.read(&mut problems)?;
    let torn = problems.iter().any(|p| p.severity == Severity::Error);
    let mut merged = Figment::new();
    for layer in &layers {
        merged = merged.admerge(Toml::string(layer.text()));
    }
    let tables = match merged.extract::<Dict>() {
        Ok(tables) => tables,
        Err(errors) => {
            problems.extend(errors.into_iter().map(|e| ConfigProblem {
                path: e.path.join("."),
                why: e.kind.to_string(),
                file: None,
                line: None,
                severity: Severity::Error,
            }));
            return Err(ConfigError::Invalid(bounded(problems)));
        }
    };
    let mut reader = Reader::new(&tables, &layers, problems, torn);
    let config = parse(&mut reader);
    let problems = bounded(reader.into_problems());
    if problems.iter().any(|p| p.severity == Severity::Error) {
        return Err(ConfigError::Invalid(problems));
    }
    Ok((config, problems, compare::values(&tables, known)))
}

/// The first of them and how many more there are: a file of rubbish fills no log.
fn bounded(mut problems: Vec<ConfigProblem>) -> Vec<ConfigProblem> {
    if problems.len() > MOST_PROBLEMS {
        // what is refused goes before what is only told
        problems.sort_by_key(|p| std::cmp::Reverse(p.severity));
        let more = problems.len() - MOST_PROBLEMS;
        problems.truncate(MOST_PROBLEMS);
        problems.push(ConfigProblem {
            path: String::new(),
            why: format!("{more} more problems: mend these first"),
            file: None,
            line: None,
            severity: Severity::Error,
        });
    }
    problems
}
