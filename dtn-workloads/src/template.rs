//! Loading a template's folder and rendering it. Every value is written into the text as JSON,
//! which YAML contains, so no value can change the structure around its gap; a gap without a value
//! is an error.

use crate::{
    Problem, TEMPLATE, check,
    rendered::RenderedPod,
    values::{Declarations, Value},
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use minijinja::{Environment, Error as JinjaError, ErrorKind, UndefinedBehavior, value::ValueKind};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// The pod with its gaps.
pub const POD_FILE: &str = "pod.yaml.j2";
/// What may stand in them.
pub const VALUES_FILE: &str = "values.toml";

/// Why a folder is no template.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// A file of it cannot be read.
    #[error("reading {}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The declarations are no TOML, or not of this form.
    #[error("{}: {message}", .path.display())]
    Declarations {
        /// Which file.
        path: PathBuf,
        /// Where and what, in the parser's words.
        message: String,
    },
    /// The declarations contradict themselves.
    #[error("{}:{}", .path.display(), shown(.problems))]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// All of them.
        problems: Vec<Problem>,
    },
}

fn shown(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("\n  {problem}"))
        .collect()
}

/// A template.
#[derive(Debug, Clone)]
pub struct Template {
    /// Its folder's name.
    pub name: String,
    /// What may stand in its gaps.
    pub declarations: Declarations,
    source: String,
}

/// Every template below a folder, by name. Folders without a [`POD_FILE`] are none.
pub fn list(dir: &Path) -> Result<Vec<Template>, TemplateError> {
    let read = |source| TemplateError::Read {
        path: dir.to_owned(),
        source,
    };
    let mut templates = Vec::new();
    for item in fs::read_dir(dir).map_err(read)? {
        let path = item.map_err(read)?.path();
        if path.join(POD_FILE).is_file() {
            templates.push(Template::load(&path)?);
        }
    }
    templates.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(templates)
}

impl Template {
    /// Loads a template's folder.
    pub fn load(dir: &Path) -> Result<Self, TemplateError> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(|source| TemplateError::Read { path, source })
        };
        let (source, text) = (read(POD_FILE)?, read(VALUES_FILE)?);
        let path = dir.join(VALUES_FILE);
        let declarations: Declarations = match toml::from_str(&text) {
            Ok(declarations) => declarations,
            Err(error) => {
                let message = error.to_string().trim_end().to_owned();
                return Err(TemplateError::Declarations { path, message });
            }
        };
        let problems = declarations.problems();
        if !problems.is_empty() {
            return Err(TemplateError::Invalid { path, problems });
        }
        let name = dir
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Ok(Self {
            name,
            declarations,
            source,
        })
    }

    /// The pod with these values over the template's own, checked; or everything that is wrong.
    pub fn render(&self, given: &BTreeMap<String, String>) -> Result<RenderedPod, Vec<Problem>> {
        let values = self.declarations.resolve(given)?;
        let text = fill(&self.source, &values).map_err(|error| vec![self.in_template(&error)])?;
        let at_pod = |why: String| vec![Problem::new(POD_FILE, why)];
        let written: serde_json::Value =
            serde_saphyr::from_str(&text).map_err(|e| at_pod(format!("it is no YAML: {e}")))?;
        let pod: Pod = serde_json::from_value(written.clone())
            .map_err(|e| at_pod(format!("it is no Kubernetes v1 Pod: {e}")))?;
        let mut problems = check(&pod);
        let understood = serde_json::to_value(&pod).map_err(|e| at_pod(e.to_string()))?;
        check::unknown_fields(&written, &understood, "", &mut problems);
        let name = values
            .get("name")
            .cloned()
            .unwrap_or(Value::Text(String::new()));
        if name != Value::Text(pod.name_any()) {
            problems.push(Problem::new(
                "metadata.name",
                "it is not the value name; write {{ name }}",
            ));
        }
        if pod.annotations().get(TEMPLATE) != Some(&self.name) {
            let why = format!("annotation {TEMPLATE} has to be {}", self.name);
            problems.push(Problem::new("metadata.annotations", why));
        }
        if problems.is_empty() {
            Ok(RenderedPod::new(pod, values))
        } else {
            Err(problems)
        }
    }

    fn in_template(&self, error: &JinjaError) -> Problem {
        let line = error
            .line()
            .map_or(String::new(), |line| format!(" line {line}"));
        let detail = error
            .detail()
            .map_or(String::new(), |detail| format!(": {detail}"));
        Problem::new(
            format!("{POD_FILE}{line}"),
            format!("{}{detail}", error.kind()),
        )
    }
}

fn fill(source: &str, values: &BTreeMap<String, Value>) -> Result<String, JinjaError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_formatter(|out, _state, value| {
        let text = match (value.kind(), value.as_str()) {
            (ValueKind::String, Some(text)) => serde_json::Value::from(text).to_string(),
            (ValueKind::Number | ValueKind::Bool, _) => value.to_string(),
            (ValueKind::Undefined, _) => return Err(JinjaError::from(ErrorKind::UndefinedError)),
            (kind, _) => {
                let detail = format!("a gap takes a text or a number, not a {kind}");
                return Err(JinjaError::new(ErrorKind::InvalidOperation, detail));
            }
        };
        out.write_str(&text).map_err(JinjaError::from)
    });
    let context: BTreeMap<&str, minijinja::Value> = values
        .iter()
        .map(|(name, value)| match value {
            Value::Number(number) => (name.as_str(), (*number).into()),
            Value::Text(text) => (name.as_str(), text.as_str().into()),
        })
        .collect();
    environment.render_named_str(POD_FILE, source, context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_value_changes_the_structure(text in "\\PC*|[\"'\\\\\n:{}#& *!|>%@`-]{0,12}") {
            let values = BTreeMap::from([("x".to_owned(), Value::Text(text.clone()))]);
            let filled = fill("a: {{ x }}\nb: 1\n", &values).unwrap();
            let read: serde_json::Value = serde_saphyr::from_str(&filled).unwrap();
            prop_assert_eq!(read, serde_json::json!({"a": text, "b": 1}));
        }
    }

    #[test]
    fn a_gap_without_a_value_is_an_error() {
        assert!(fill("a: {{ x }}", &BTreeMap::new()).is_err());
        assert!(fill("{% if x %}a{% endif %}", &BTreeMap::new()).is_err());
        assert!(fill("a: {{ x", &BTreeMap::new()).is_err());
    }
}
