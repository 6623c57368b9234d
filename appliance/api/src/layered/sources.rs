//! Which files a configuration is made of, and in which order: the maker's defaults, the admin's
//! file, its drop-ins, and what the command line sets. The later wins.

use super::{
    place::{Layer, Rank},
    problem::{ConfigError, ConfigProblem, Severity},
    text::{self, Unusable},
};
use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Where the configuration of an installed host is.
pub const DEFAULT_FILE: &str = crate::CONFIG_FILE;
/// The maker's defaults, which an update replaces; may be absent.
pub const MAKERS_FILE: &str = "/usr/share/dtn/appliance.toml";
/// Name of the file that holds both parts.
const NAME: &str = "appliance.toml";
/// Most drop-ins that are read.
pub const MOST_DROP_INS: usize = 100;

/// The layers of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// The admin's file.
    file: PathBuf,
    /// Read in its place: a candidate that is looked at before it is put there.
    candidate: Option<PathBuf>,
    /// What the command line sets.
    settings: Vec<Setting>,
}

impl Sources {
    /// The layers around this file. A host's own `etc/dtn/appliance.toml` has the maker's defaults
    /// below it, under the same root; a file elsewhere stands for itself.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            candidate: None,
            settings: Vec::new(),
        }
    }
    /// The same with what the command line sets.
    #[must_use]
    pub fn with(mut self, settings: &[Setting]) -> Self {
        self.settings.extend_from_slice(settings);
        self
    }
    /// The same as they would be with another file in the place of the admin's.
    #[must_use]
    pub fn with_candidate(mut self, candidate: impl Into<PathBuf>) -> Self {
        self.candidate = Some(candidate.into());
        self
    }
    /// The admin's file.
    pub fn file(&self) -> &Path {
        &self.file
    }
    /// Folder of its drop-ins: `appliance.d` beside `appliance.toml`, `FILE.d` beside another.
    pub fn drop_ins(&self) -> PathBuf {
        if self.file.file_name().is_some_and(|name| name == NAME) {
            return self.file.with_extension("d");
        }
        doubled(&self.file)
    }
    /// The maker's defaults that belong to it.
    pub fn makers(&self) -> Option<PathBuf> {
        let relative = |path: &str| path.trim_start_matches('/').to_owned();
        let own = Path::new(DEFAULT_FILE).components().skip(1);
        let depth = own.clone().count();
        let root = self.file.ancestors().nth(depth)?;
        let is_own = self.file.strip_prefix(root).ok()?.components().eq(own);
        is_own.then(|| root.join(relative(MAKERS_FILE)))
    }

    /// Reads all layers, each once. What is wrong with one does not hide the others.
    pub(super) fn read(
        &self,
        problems: &mut Vec<ConfigProblem>,
    ) -> Result<Vec<Layer>, ConfigError> {
        let mut layers = Vec::new();
        if let Some(makers) = self.makers().filter(|file| file.exists()) {
            add(&makers, Rank::Makers, problems, &mut layers)?;
        }
        let own = self.candidate.as_ref().unwrap_or(&self.file);
        match add(own, Rank::Own, problems, &mut layers) {
            Err(ConfigError::Unreadable { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                return Err(ConfigError::Absent { path: own.clone() });
            }
            other => other?,
        }
        let folder = self.drop_ins();
        for path in drop_ins(&folder, problems)? {
            add(&path, Rank::Own, problems, &mut layers)?;
        }
        let unread = doubled(&self.file);
        if unread != folder && unread.is_dir() {
            let why = format!("is not read: drop-ins belong into {}", folder.display());
            problems.push(of_file(&unread, why, Severity::Warning));
        }
        for setting in &self.settings {
            let shown = "the command line".to_owned();
            match Layer::parse(shown, setting.0.clone(), Rank::Own) {
                Ok(layer) => layers.push(layer),
                Err(problem) => problems.push(problem),
            }
        }
        Ok(layers)
    }
}

fn doubled(file: &Path) -> PathBuf {
    let mut folder = file.as_os_str().to_owned();
    folder.push(".d");
    PathBuf::from(folder)
}

fn add(
    path: &Path,
    rank: Rank,
    problems: &mut Vec<ConfigProblem>,
    layers: &mut Vec<Layer>,
) -> Result<(), ConfigError> {
    match text::read(path) {
        Ok(found) => {
            for (severity, why) in found.remarks {
                problems.push(of_file(path, why, severity));
            }
            match Layer::parse(path.display().to_string(), found.text, rank) {
                Ok(layer) => layers.push(layer),
                Err(problem) => problems.push(problem),
            }
        }
        Err(Unusable::Wrong(why)) => problems.push(of_file(path, why, Severity::Error)),
        Err(Unusable::Unreadable(source)) => {
            return Err(ConfigError::Unreadable {
                path: path.to_owned(),
                source,
            });
        }
    }
    Ok(())
}

fn of_file(path: &Path, why: String, severity: Severity) -> ConfigProblem {
    ConfigProblem {
        path: String::new(),
        why,
        file: Some(path.display().to_string()),
        line: None,
        severity,
    }
}

/// The drop-ins in the order of their names. Names that start with a dot or do not end in `.toml`
/// (an editor's copies) are none.
fn drop_ins(folder: &Path, problems: &mut Vec<ConfigProblem>) -> Result<Vec<PathBuf>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable {
        path: folder.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) if text::is_lasting(&e) => {
            let why = format!("must be a folder of drop-ins: {e}");
            problems.push(of_file(folder, why, Severity::Error));
            return Ok(Vec::new());
        }
        Err(e) => return Err(unreadable(e)),
    };
    if let Some(why) = text::open_to_all(folder) {
        problems.push(of_file(folder, why, Severity::Error));
    }
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or(".");
        if name.ends_with(".toml") && !name.starts_with('.') {
            found.push(path);
        }
        if found.len() > MOST_DROP_INS {
            let why = format!("has more than {MOST_DROP_INS} drop-ins: put them together");
            problems.push(of_file(folder, why, Severity::Error));
            return Ok(Vec::new());
        }
    }
    found.sort();
    Ok(found)
}

/// What the command line sets: `PATH=VALUE`, a layer of one line. The value is TOML, or a text
/// without quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting(String);

impl FromStr for Setting {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} sets nothing: write PATH=VALUE, as log.level=debug");
        let (path, value) = text.split_once('=').ok_or_else(wrong)?;
        let (path, value) = (path.trim(), value.trim());
        let key = |key: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            !key.is_empty() && key.chars().all(fits)
        };
        if !path.split('.').all(key) {
            return Err(wrong());
        }
        let line = format!("{path} = {value}\n");
        // one line and one value: what follows a line break would be more than was asked for
        if !value.contains('\n') && line.parse::<toml::Table>().is_ok() {
            return Ok(Self(line));
        }
        Ok(Self(format!(
            "{path} = {}\n",
            toml::Value::String(value.to_owned())
        )))
    }
}
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_makers_defaults_belong_to_a_hosts_own_file_alone() {
        let of = |file: &str| Sources::new(file).makers();
        assert_eq!(of(DEFAULT_FILE), Some(MAKERS_FILE.into()));
        assert_eq!(
            of("/srv/a/etc/dtn/appliance.toml"),
            Some("/srv/a/usr/share/dtn/appliance.toml".into())
        );
        for other in [
            "/etc/dtn/dtnd.toml",
            "/tmp/appliance.toml",
            "appliance.toml",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn drop_ins_are_beside_their_file() {
        let of = |file: &str| Sources::new(file).drop_ins();
        assert_eq!(of(DEFAULT_FILE), Path::new("/etc/dtn/appliance.d"));
        assert_eq!(of("/x/dtnd.toml"), Path::new("/x/dtnd.toml.d"));
    }

    #[test]
    fn a_setting_is_one_value() {
        let of = |text: &str| text.parse::<Setting>().map(|one| one.to_string());
        assert_eq!(of("log.level=debug").unwrap(), "log.level = \"debug\"");
        assert_eq!(of("log.level=\"debug\"").unwrap(), "log.level = \"debug\"");
        assert_eq!(of("version=2").unwrap(), "version = 2");
        assert_eq!(of("tuning.rtt = 20ms").unwrap(), "tuning.rtt = \"20ms\"");
        let two = of("a.b=1\n[c]\nd = 2").unwrap();
        assert_eq!(two.parse::<toml::Table>().unwrap().len(), 1, "{two}");
        for wrong in ["log.level", "=x", ".a=1", "a..b=1", "a[0].b=1", "a b=1"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
