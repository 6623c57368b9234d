//! Two configurations side by side, field by field. Tables of which there are several are told by
//! what they are of (`nic["ens1f0"]`), so that a changed order is no change.

use super::fields::{Change, Field, Table};
use crate::running::{Difference, Effect, Values};
use figment::value::{Dict, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The values of the merged tables, of those tables that are asked for.
pub(super) fn values(merged: &Dict, tables: &[Table]) -> Values {
    let mut found = Values::new();
    for table in tables {
        if table.name.is_empty() {
            for field in table.fields {
                add(&mut found, field.key.into(), merged.get(field.key), field);
            }
            continue;
        }
        match merged.get(table.name) {
            Some(Value::Dict(_, one)) if !table.many() => {
                for field in table.fields {
                    let path = format!("{}.{}", table.name, field.key);
                    add(&mut found, path, one.get(field.key), field);
                }
                if one.is_empty() {
                    found.insert(table.name.into(), String::new());
                }
            }
            Some(Value::Array(_, items)) if table.many() => {
                for (index, item) in items.iter().enumerate() {
                    let Some(one) = item.as_dict() else { continue };
                    let told = table.told_by.iter().find_map(|key| one.get(*key)?.as_str());
                    let told = told.map_or_else(|| index.to_string(), |name| format!("{name:?}"));
                    for field in table.fields {
                        let path = format!("{}[{told}].{}", table.name, field.key);
                        add(&mut found, path, one.get(field.key), field);
                    }
                }
            }
            _ => {}
        }
    }
    found
}

fn add(found: &mut Values, path: String, value: Option<&Value>, field: &Field) {
    let Some(value) = value else { return };
    let literal = literal(value);
    if Some(literal.as_str()) != field.default {
        found.insert(path, literal);
    }
}

/// A value as TOML.
fn literal(value: &Value) -> String {
    match value {
        Value::String(_, text) => toml::Value::String(text.clone()).to_string(),
        Value::Bool(_, flag) => flag.to_string(),
        Value::Num(_, number) => {
            let signed = number.to_i128().map(|n| n.to_string());
            let unsigned = || number.to_u128().map(|n| n.to_string());
            let float = || number.to_f64().map(|n| n.to_string());
            signed.or_else(unsigned).or_else(float).unwrap_or_default()
        }
        Value::Array(_, items) => {
            let items: Vec<String> = items.iter().map(literal).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Dict(_, table) => {
            let fields = table
                .iter()
                .map(|(key, value)| format!("{key} = {}", literal(value)));
            format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::Char(_, c) => toml::Value::String(c.to_string()).to_string(),
        Value::Empty(..) => String::new(),
    }
}
/// What two configurations differ in. What is new or gone of an array of tables is one difference
/// each.
pub fn differences(old: &Values, new: &Values, tables: &[Table]) -> Vec<Difference> {
    let mut found: BTreeMap<String, Difference> = BTreeMap::new();
    let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for path in paths {
        let (was, is) = (old.get(path), new.get(path));
        if was == is {
            continue;
        }
        let (table, entry, key) = taken_apart(path);
        let table = tables.iter().find(|one| one.name == table);
        let field = table.and_then(|table| table.fields.iter().find(|f| f.key == key));
        let there = |values: &Values| {
            let before = format!("{entry}.");
            values.keys().any(|path| path.starts_with(&before))
        };
        let (in_old, in_new) = (there(old), there(new));
        // an empty table has no field that could say it: its first one does
        let whole = tables
            .iter()
            .find(|one| !one.name.is_empty() && one.name == path);
        let first = whole.and_then(|table| table.fields.first());
        let effect = match field.or(first).map_or(Change::Live, |field| field.change) {
            Change::Live => Effect::Live,
            Change::Restart(why) => Effect::Waits(why.into()),
        };
        if entry.ends_with(']') && in_old != in_new {
            let whole = |values: &Values| {
                let before = format!("{entry}.");
                let fields = values
                    .iter()
                    .filter_map(|(path, value)| Some((path.strip_prefix(&before)?, value)))
                    .map(|(key, value)| format!("{key} = {value}"));
                Some(fields.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
            };
            let one = found.entry(entry.to_owned()).or_insert_with(|| Difference {
                path: entry.to_owned(),
                old: whole(old),
                new: whole(new),
                effect: Effect::Live,
            });
            if one.effect == Effect::Live {
                one.effect = effect;
            }
            continue;
        }
        // what is left out is what its default says
        let default = || {
            field
                .and_then(|field| field.default)
                .map(|value| format!("{value} (default)"))
        };
        found.insert(
            path.clone(),
            Difference {
                path: path.clone(),
                old: was.cloned().or_else(default),
                new: is.cloned().or_else(default),
                effect,
            },
        );
    }
    found.into_values().collect()
}

/// The values that are in force when these differences wait.
pub fn held_back(old: &Values, new: &Values, waiting: &[Difference]) -> Values {
    let mut values = new.clone();
    for one in waiting {
        let below = format!("{}.", one.path);
        let of = |path: &String| *path == one.path || path.starts_with(&below);
        values.retain(|path, _| !of(path));
        let kept = old.iter().filter(|(path, _)| of(path));
        values.extend(kept.map(|(path, value)| (path.clone(), value.clone())));
    }
    values
}

/// Table, entry and key of a path: `nic["a"].class` is of `nic`, `nic["a"]`, `class`. A name can
/// hold anything, so it is read from both ends.
fn taken_apart(path: &str) -> (&str, &str, &str) {
    let (entry, key) = path.rsplit_once('.').unwrap_or(("", path));
    let table = entry.split('[').next().unwrap_or(entry);
    (table, entry, key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layered::fields::{self, field};
    use figment::{
        Figment,
        providers::{Format, Toml},
    };

    const TABLES: &[Table] = &[
        fields::FILE,
        fields::LOG,
        Table {
            name: "nic",
            what: "",
            told_by: &["name"],
            fields: &[
                field("name", fields::NAME, "").needed(),
                field("class", fields::NAME, ""),
                field("mtu", fields::Kind::Integer(0, 9), "").or("9"),
                field("host", fields::NAME, "").at_start("it is bound once"),
            ],
        },
    ];
    fn of(text: &str) -> Values {
        let merged: Dict = Figment::from(Toml::string(text)).extract().unwrap();
        values(&merged, TABLES)
    }
    fn told(old: &str, new: &str) -> Vec<String> {
        let show = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        differences(&of(old), &of(new), TABLES)
            .into_iter()
            .map(|one| {
                let waits = match one.effect {
                    Effect::Live => String::new(),
                    Effect::Waits(why) => format!(" ({why})"),
                };
                format!("{}: {} > {}{waits}", one.path, show(one.old), show(one.new))
            })
            .collect()
    }

    #[test]
    fn order_and_defaults_are_no_difference() {
        let one =
            "[[nic]]\nname = \"a\"\n[[nic]]\nname = \"b.c\"\nmtu = 9\n[log]\nlevel = \"info\"\n";
        let other = "[[nic]]\nname = \"b.c\"\n[[nic]]\nname = \"a\"\n";
        assert_eq!(told(one, other), Vec::<String>::new());
    }

    #[test]
    fn what_is_new_gone_and_changed_is_told() {
        let old = "[[nic]]\nname = \"a\"\nclass = \"x\"\n[[nic]]\nname = \"b.c\"\nclass = \"x\"\n[log]\nlevel = \"warn\"\n";
        let new = "[[nic]]\nname = \"b.c\"\nclass = \"y\"\nmtu = 3\n[[nic]]\nname = \"d\"\nhost = \"h\"\n";
        assert_eq!(
            told(old, new),
            [
                "log.level: \"warn\" > \"info\" (default)",
                "nic[\"a\"]: class = \"x\", name = \"a\" > -",
                "nic[\"b.c\"].class: \"x\" > \"y\"",
                "nic[\"b.c\"].mtu: 9 (default) > 3",
                "nic[\"d\"]: - > host = \"h\", name = \"d\" (it is bound once)",
            ]
        );
        // what waits stays as it was, and is told again
        let (old, new) = (of(old), of(new));
        let waiting: Vec<Difference> = differences(&old, &new, TABLES)
            .into_iter()
            .filter(|one| !one.is_live())
            .collect();
        let now = held_back(&old, &new, &waiting);
        assert_eq!(differences(&now, &new, TABLES), waiting);
    }
}
