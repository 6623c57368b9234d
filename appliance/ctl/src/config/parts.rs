//! A configuration as both daemons read it: which parts it has, every problem of them, and its
//! values field by field. What is read here is what the daemons' own code reads.

use crate::failure::Failure;
use dtn_api::{
    layered::{self, ConfigError, ConfigProblem, Parts, Severity, Sources, Table},
    running::Values,
};
use std::path::Path;

/// A daemon and the tables that it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The host's, of dtnd.
    Host,
    /// The domain's, of vdnd.
    Domain,
}

impl Part {
    /// Its tables.
    pub(crate) fn tables(self) -> &'static [Table] {
        match self {
            Self::Host => dtnd::config::TABLES,
            Self::Domain => vdnd::config::TABLES,
        }
    }
    /// The values of it that a configuration has.
    pub(crate) fn values(self, sources: &Sources) -> Result<Values, ConfigError> {
        match self {
            Self::Host => dtnd::config::load_from(sources).map(|loaded| loaded.values),
            Self::Domain => vdnd::config::load_from(sources).map(|loaded| loaded.values),
        }
    }
}

/// Every table of the file, each once.
pub(crate) fn tables() -> Vec<Table> {
    let mut all: Vec<Table> = Part::Host.tables().to_vec();
    for table in Part::Domain.tables() {
        if !all.iter().any(|other| other.name == table.name) {
            all.push(*table);
        }
    }
    all
}

/// Which parts there are.
pub(crate) fn of(sources: &Sources) -> Result<Vec<Part>, Failure> {
    let Parts { host, domain } =
        layered::parts(sources).map_err(|error| checking(sources.file(), error))?;
    let mut parts = Vec::new();
    // with neither part the supervisor says what is missing
    if host || !domain {
        parts.push(Part::Host);
    }
    if domain {
        parts.push(Part::Domain);
    }
    Ok(parts)
}

/// A failure to read a configuration at all.
pub(crate) fn checking(file: &Path, error: ConfigError) -> Failure {
    let doing = format!("checking {}", file.display());
    anyhow::Error::new(error).context(doing).into()
}

/// Every problem of these parts, each once: of what both share, both tell.
pub(crate) fn problems(sources: &Sources, parts: &[Part]) -> Result<Vec<ConfigProblem>, Failure> {
    let file = sources.file();
    let mut told: Vec<ConfigProblem> = Vec::new();
    for part in parts {
        let found = match part {
            Part::Host => dtnd::config::check(sources),
            Part::Domain => vdnd::config::check(sources),
        };
        for mut problem in found.map_err(|error| checking(file, error))? {
            let own = || file.display().to_string();
            problem.file.get_or_insert_with(own);
            if !told.contains(&problem) {
                told.push(problem);
            }
        }
    }
    Ok(told)
}

/// Refuses what a daemon would refuse, with every problem.
pub(crate) fn valid(sources: &Sources, shown: &Path) -> Result<Vec<Part>, Failure> {
    let parts = of(sources)?;
    let problems = problems(sources, &parts)?;
    let errors = problems
        .iter()
        .filter(|one| one.severity == Severity::Error)
        .count();
    if errors > 0 {
        let name = shown.display().to_string();
        return Err(super::check::refused(&problems, &name));
    }
    Ok(parts)
}
