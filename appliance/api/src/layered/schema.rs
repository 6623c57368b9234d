//! The JSON Schema (draft 2020-12) of the file, made of the same tables that the readers go by.
//! Editors complete and check with it; what only the daemons can tell (a NIC that is given twice) is
//! theirs to refuse.

use super::fields::{Field, Kind, Table};
use serde_json::{Map, Value, json};

/// The schema of a file with these tables; the first of `parts` that a file has makes it one.
pub fn schema(tables: &[Table], parts: &[&str]) -> Value {
    let mut properties = Map::new();
    let mut needed = Vec::new();
    for table in tables {
        if table.name.is_empty() {
            for field in table.fields {
                properties.insert(field.key.into(), of_field(field));
                needed.extend(field.needed.then_some(field.key));
            }
            continue;
        }
        let one = of_table(table);
        let whole = match table.many() {
            true => json!({"type": "array", "maxItems": super::MOST_ITEMS, "items": one}),
            false => one,
        };
        properties.insert(table.name.into(), whole);
    }
    let parts: Vec<Value> = parts
        .iter()
        .map(|part| json!({"required": [part]}))
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:dtn:appliance.schema.json",
        "title": "appliance.toml",
        "description": "The configuration of a DTN (dtnd) and its domain (vdnd)",
        "type": "object",
        "additionalProperties": false,
        "required": needed,
        "anyOf": parts,
        "properties": properties,
    })
}

fn of_table(table: &Table) -> Value {
    let mut properties = Map::new();
    let mut needed = Vec::new();
    for field in table.fields {
        properties.insert(field.key.into(), of_field(field));
        needed.extend(field.needed.then_some(field.key));
    }
    let mut schema = json!({
        "type": "object",
        "description": table.what,
        "additionalProperties": false,
        "properties": properties,
    });
    if !needed.is_empty() {
        schema["required"] = json!(needed);
    }
    // one of several keys that each tell it alone
    if table.told_by.len() > 1 {
        let one = |key: &&str| json!({"required": [key]});
        schema["oneOf"] = table.told_by.iter().map(one).collect();
    }
    schema
}

fn of_field(field: &Field) -> Value {
    let text = |form: &str| match form {
        "" => json!({"type": "string"}),
        form => json!({"type": "string", "pattern": form}),
    };
    let mut schema = match field.kind {
        Kind::Text(form) => text(form),
        Kind::Choice(words) => json!({"type": "string", "enum": words}),
        Kind::Integer(least, most) if least == most => json!({"const": least}),
        Kind::Integer(least, most) => {
            json!({"type": "integer", "minimum": least, "maximum": most})
        }
        Kind::Flag => json!({"type": "boolean"}),
        Kind::List(form) => {
            json!({"type": "array", "maxItems": super::MOST_ITEMS, "items": text(form)})
        }
    };
    schema["description"] = json!(field.what);
    if let Some(default) = field.default.and_then(value_of) {
        schema["default"] = default;
    }
    schema
}

/// A TOML literal as JSON.
fn value_of(literal: &str) -> Option<Value> {
    let table: toml::Table = format!("x = {literal}").parse().ok()?;
    serde_json::to_value(table.get("x")?).ok()
}
