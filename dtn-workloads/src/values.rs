//! What may stand in a template's gaps: the declarations of `values.toml`, and the reading of
//! given texts by them. Pure; every wrong value is named at once.

use crate::Problem;
use dtn_api::{IfName, Name, Size};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Component, Path},
};

/// Version of `values.toml` that this build reads; a newer one is refused.
pub const VERSION: u32 = 1;

/// A `values.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declarations {
    /// [`VERSION`].
    pub version: u32,
    /// One line about the template.
    pub description: String,
    /// Program in the image, with arguments, that makes folders (`--folder DIR`) and copies keys
    /// (`--key FROM=TO`) where no supervisor does it: in Kubernetes.
    #[serde(default)]
    pub lay_out: Vec<String>,
    /// By name.
    pub values: BTreeMap<String, Declaration>,
}

/// One value.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declaration {
    /// How its text is read.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What it is when nothing is given; `{name}` is the pod's name. Without one it must be given.
    #[serde(default)]
    pub default: Option<String>,
    /// What it is, for people.
    pub help: String,
    /// Least number (bytes for a size).
    #[serde(default)]
    pub min: Option<u64>,
    /// Largest number (bytes for a size).
    #[serde(default)]
    pub max: Option<u64>,
    /// What a choice may be.
    #[serde(default)]
    pub choices: Vec<String>,
    /// Folders that are made in a folder before the pod starts.
    #[serde(default)]
    pub make: Vec<String>,
    /// Name of the transfer key's file in a folder, which is made where none is.
    #[serde(default)]
    pub transfer_key: Option<String>,
}

/// How a text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A DNS label, as pods have; empty only as a default.
    Name,
    /// Name of a network interface.
    Interface,
    /// A whole number.
    Integer,
    /// Bytes, as `32MiB`.
    Size,
    /// One of `choices`.
    Choice,
    /// An absolute path on the host.
    Folder,
    /// Reference of a container image.
    Image,
}

/// A value that has been read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// Integer or size in bytes.
    Number(u64),
    /// Any other.
    Text(String),
}

impl Declaration {
    /// Reads a text.
    pub fn read(&self, text: &str) -> Result<Value, String> {
        let text_of = |text: &str| Value::Text(text.to_owned());
        match self.kind {
            // what is left out is left out in words of the template's own
            Kind::Name if text.is_empty() && self.default.as_deref() == Some("") => Ok(text_of("")),
            Kind::Name => text
                .parse::<Name>()
                .map(|_| text_of(text))
                .map_err(|e| e.to_string()),
            Kind::Interface => text
                .parse::<IfName>()
                .map(|_| text_of(text))
                .map_err(|e| e.to_string()),
            Kind::Integer => match text.parse::<u64>() {
                Ok(number) => self.within(number, &number.to_string()),
                Err(_) => Err(format!(
                    "{text:?} is not a whole number{}",
                    self.range(u64::to_string)
                )),
            },
            Kind::Size => match text.parse::<Size>() {
                Ok(size) => self.within(size.bytes(), &size.to_string()),
                Err(error) => Err(error.to_string()),
            },
            Kind::Choice if self.choices.iter().any(|choice| choice == text) => Ok(text_of(text)),
            Kind::Choice => Err(format!("{text:?} is none of {}", self.choices.join(", "))),
            Kind::Folder => folder(text).map(|()| text_of(text)),
            Kind::Image => image(text).map(|()| text_of(text)),
        }
    }

    fn within(&self, number: u64, shown: &str) -> Result<Value, String> {
        if self.min.is_some_and(|min| number < min) || self.max.is_some_and(|max| number > max) {
            let unit = |bytes: &u64| match self.kind {
                Kind::Size => Size::from_bytes(*bytes).to_string(),
                _ => bytes.to_string(),
            };
            return Err(format!("{shown} is out of range{}", self.range(unit)));
        }
        Ok(Value::Number(number))
    }

    fn range(&self, shown: impl Fn(&u64) -> String) -> String {
        match (&self.min, &self.max) {
            (Some(min), Some(max)) => format!("; {} to {} can be had", shown(min), shown(max)),
            (Some(min), None) => format!("; {} is the least", shown(min)),
            (None, Some(max)) => format!("; {} is the most", shown(max)),
            (None, None) => String::new(),
        }
    }
}

fn folder(text: &str) -> Result<(), String> {
    let path = Path::new(text);
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || !path.components().all(plain) || path.components().count() < 2 {
        return Err(format!(
            "{text:?} is not an absolute path of a folder without . and .. in it"
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(format!(
            "{text:?} has a control character, which no mount can have"
        ));
    }
    // podman splits a mount at the colon
    if text.contains(':') {
        return Err(format!(
            "{text:?} has a colon, which podman takes for a mount option; choose another folder"
        ));
    }
    Ok(())
}

fn image(text: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    if text.is_empty()
        || text.len() > 255
        || !text.chars().all(plain)
        || text.starts_with(['-', '/'])
    {
        return Err(format!(
            "{text:?} is not an image, as localhost/dtn-transfer:latest"
        ));
    }
    Ok(())
}

impl Declarations {
    /// What is wrong with the file itself.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.version > VERSION {
            let why = format!(
                "{} is newer than {VERSION}, which this build reads",
                self.version
            );
            problems.push(Problem::new("version", why));
        }
        if !self.values.contains_key("name") {
            problems.push(Problem::new(
                "values.name",
                "every template has a value name: the pod's",
            ));
        }
        for (name, declaration) in &self.values {
            let mut wrong = |field: &str, why: &str| {
                problems.push(Problem::new(format!("values.{name}.{field}"), why));
            };
            if declaration.help.trim().is_empty() {
                wrong("help", "say what it is");
            }
            if (declaration.kind == Kind::Choice) == declaration.choices.is_empty() {
                wrong("choices", "a choice has some, and nothing else has");
            }
            let folder = declaration.kind == Kind::Folder;
            if !folder && (!declaration.make.is_empty() || declaration.transfer_key.is_some()) {
                wrong(
                    "make",
                    "only a folder can have folders and a key made in it",
                );
            }
            let plain = |name: &String| name.parse::<Name>().is_ok();
            if !declaration.make.iter().all(plain) {
                wrong(
                    "make",
                    "names of folders are lower-case letters, digits and hyphens",
                );
            }
            if declaration
                .transfer_key
                .as_ref()
                .is_some_and(|key| key.contains('/') || key.starts_with('.'))
            {
                wrong("transfer_key", "it is a file name without a slash");
            }
            if let Some(default) = &declaration.default
                && let Err(why) = declaration.read(&default.replace("{name}", "a"))
            {
                wrong("default", &why);
            }
        }
        problems
    }

    /// Every value of a pod: the given texts over the defaults.
    pub fn resolve(
        &self,
        given: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, Value>, Vec<Problem>> {
        let mut problems = Vec::new();
        for name in given.keys().filter(|name| !self.values.contains_key(*name)) {
            let known: Vec<_> = self.values.keys().map(String::as_str).collect();
            let why = format!(
                "the template has no such value; it has {}",
                known.join(", ")
            );
            problems.push(Problem::new(format!("values.{name}"), why));
        }
        let pod = given.get("name").map_or("", String::as_str);
        let mut values = BTreeMap::new();
        for (name, declaration) in &self.values {
            let default = || {
                declaration
                    .default
                    .as_ref()
                    .map(|text| text.replace("{name}", pod))
            };
            let read = match given.get(name).cloned().or_else(default) {
                Some(text) => declaration.read(&text),
                None => Err(format!(
                    "it has no default and must be given: {}",
                    declaration.help
                )),
            };
            match read {
                Ok(value) => {
                    values.insert(name.clone(), value);
                }
                Err(why) => problems.push(Problem::new(format!("values.{name}"), why)),
            }
        }
        if problems.is_empty() {
            Ok(values)
        } else {
            Err(problems)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declaration(kind: Kind) -> Declaration {
        Declaration {
            kind,
            default: None,
            help: "x".into(),
            min: None,
            max: None,
            choices: vec!["a".into(), "b".into()],
            make: vec![],
            transfer_key: None,
        }
    }

    #[test]
    fn texts_are_read_by_their_kind() {
        let bad = [
            (Kind::Name, "A"),
            (Kind::Name, ""),
            (Kind::Interface, "much-too-long-for-linux"),
            (Kind::Integer, "1.5"),
            (Kind::Integer, "-1"),
            (Kind::Size, "32"),
            (Kind::Choice, "c"),
            (Kind::Folder, "relative"),
            (Kind::Folder, "/"),
            (Kind::Folder, "/a/../b"),
            (Kind::Folder, "/a:rw"),
            (Kind::Folder, "/a\nb"),
            (Kind::Image, ""),
            (Kind::Image, "x\ny"),
            (Kind::Image, "--privileged"),
            (Kind::Image, "a b"),
        ];
        for (kind, text) in bad {
            assert!(declaration(kind).read(text).is_err(), "{kind:?} {text:?}");
        }
        assert_eq!(
            declaration(Kind::Size).read("32MiB"),
            Ok(Value::Number(32 << 20))
        );
        assert_eq!(
            declaration(Kind::Choice).read("b"),
            Ok(Value::Text("b".into()))
        );
        let port = Declaration {
            min: Some(1024),
            max: Some(65535),
            ..declaration(Kind::Integer)
        };
        let error = port.read("80").unwrap_err();
        assert!(error.contains("1024 to 65535"), "{error}");
    }
}
