//! What is in the cluster against what would be: field by field. Pure.

use serde::Serialize;
use serde_json::{Map, Value};

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Field {
    /// Where: `spec.containers[0].image`.
    pub(crate) path: String,
    /// What is there.
    pub(crate) was: Option<Value>,
    /// What would be.
    pub(crate) would_be: Option<Value>,
}

/// How an object stands to what is asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "change", content = "fields", rename_all = "lowercase")]
pub(crate) enum State {
    /// It is not there.
    New,
    /// It is there as it is asked for.
    Same,
    /// It is there and is other in these.
    Differs(Vec<Field>),
}

/// One object.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Change {
    /// `Pod`.
    pub(crate) kind: &'static str,
    /// Its name.
    pub(crate) name: String,
    /// How it stands.
    #[serde(flatten)]
    pub(crate) state: State,
}

/// What the API server and the scheduler write, and nobody asks for.
const THEIRS: [&str; 7] = [
    "creationTimestamp",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// An object without what nobody asks for.
pub(crate) fn bare(object: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(object) = value.as_object_mut() {
        object.remove("status");
    }
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| !THEIRS.contains(&name.as_str()));
    }
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("nodeName");
    }
    value
}

/// Every field in which two bare objects differ.
pub(crate) fn between(was: &Value, would_be: &Value) -> Vec<Field> {
    let mut fields = Vec::new();
    walk(String::new(), Some(was), Some(would_be), &mut fields);
    fields
}

fn walk(path: String, was: Option<&Value>, would_be: Option<&Value>, fields: &mut Vec<Field>) {
    match (was, would_be) {
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            for name in names(one, other) {
                let path = match path.as_str() {
                    "" => name.clone(),
                    _ => format!("{path}.{name}"),
                };
                walk(path, one.get(name), other.get(name), fields);
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => {
            for index in 0..one.len().max(other.len()) {
                let path = format!("{path}[{index}]");
                walk(path, one.get(index), other.get(index), fields);
            }
        }
        (one, other) if one == other => {}
        (one, other) => fields.push(Field {
            path,
            was: one.cloned(),
            would_be: other.cloned(),
        }),
    }
}

fn names<'a>(one: &'a Map<String, Value>, other: &'a Map<String, Value>) -> Vec<&'a String> {
    let mut names: Vec<&String> = one.keys().chain(other.keys()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What others wrote beside what was asked for is no difference: notes on the object.
pub(crate) fn without_notes(mut fields: Vec<Field>) -> Vec<Field> {
    fields.retain(|field| {
        let note = field.path.starts_with("metadata.annotations")
            || field.path.starts_with("metadata.labels");
        !(note && field.would_be.is_none())
    });
    fields
}

/// The changes in words, a line for each object and each field.
pub(crate) fn shown(changes: &[Change]) -> String {
    let mut text = String::new();
    for change in changes {
        let (kind, name) = (change.kind, &change.name);
        match &change.state {
            State::New => text.push_str(&format!("{kind} {name}: would be made\n")),
            State::Same => text.push_str(&format!("{kind} {name}: as it is\n")),
            State::Differs(fields) => {
                text.push_str(&format!("{kind} {name}: differs\n"));
                text.push_str(&lines(fields));
            }
        }
    }
    text
}

/// Fields in words.
pub(crate) fn lines(fields: &[Field]) -> String {
    let value = |value: &Option<Value>| match value {
        None => "nothing".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    fields
        .iter()
        .map(|field| {
            let (was, would_be) = (value(&field.was), value(&field.would_be));
            format!("  {}: {was} -> {would_be}\n", field.path)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_cluster_adds_is_no_difference() {
        let mine = json!({"metadata": {"name": "a"}, "spec": {"x": 1}});
        let live = json!({"metadata": {"name": "a", "uid": "u", "managedFields": []},
            "spec": {"x": 1, "nodeName": "n1"}, "status": {"phase": "Running"}});
        assert_eq!(between(&bare(&live), &bare(&mine)), []);
    }

    #[test]
    fn every_field_is_told_with_its_path() {
        let one = json!({"a": {"b": [1, {"c": "x"}]}, "only": true});
        let other = json!({"a": {"b": [1, {"c": "y"}, 3]}});
        let change = Change {
            kind: "Pod",
            name: "t1".into(),
            state: State::Differs(between(&one, &other)),
        };
        assert_eq!(
            shown(std::slice::from_ref(&change)),
            "Pod t1: differs\n  a.b[1].c: x -> y\n  a.b[2]: nothing -> 3\n  only: true -> nothing\n"
        );
        let written = serde_json::to_value(change).unwrap();
        assert_eq!(written["change"], "differs");
        assert_eq!(written["fields"][0]["would_be"], "y");
    }

    #[test]
    fn notes_of_others_are_theirs() {
        let was = json!({"metadata": {"annotations": {"k8s.v1.cni.cncf.io/network-status": "x", "a": "1"}}});
        let would_be = json!({"metadata": {"annotations": {"a": "2"}}});
        let fields = without_notes(between(&was, &would_be));
        assert_eq!(fields.len(), 1);
        assert_eq!(fields[0].path, "metadata.annotations.a");
    }
}
