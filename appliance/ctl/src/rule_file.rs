//! Files of access rules: `[[rule]]` tables in TOML, read whole, with everything that is wrong with
//! them told at once by the words of the file. Pure.

use crate::rules::schedule;
use dtn_api::{
    Name, Problem,
    gateway::{AccessMatch, AccessRule, PortRange},
    slice::default_tenant,
};
use ipnet::IpNet;
use jiff::Timestamp;
use std::{fmt::Display, net::IpAddr, str::FromStr};
use toml::{Table, Value};

/// What may stand in a `[[rule]]`.
const FIELDS: [&str; 15] = [
    "number",
    "action",
    "direction",
    "slice",
    "tenant",
    "from",
    "to",
    "proto",
    "from-ports",
    "to-ports",
    "stateful",
    "start",
    "end",
    "log",
    "note",
];

/// Fields of the contract by the names that the file has for them.
const POINTERS: [(&str, &str); 8] = [
    ("priority", "number"),
    ("match/src", "from"),
    ("match/dst", "to"),
    ("match/proto", "proto"),
    ("match/src_ports", "from-ports"),
    ("match/dst_ports", "to-ports"),
    ("schedule/start", "start"),
    ("schedule/end", "end"),
];

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Wrong {
    /// The field, as `rule[2].to`; empty for the file as a whole.
    pub(crate) path: String,
    /// What is wrong with it, and what to write instead.
    pub(crate) why: String,
}

/// The rules of a file, or everything that is wrong with it.
pub(crate) fn read(text: &str) -> Result<Vec<AccessRule>, Vec<Wrong>> {
    let mut wrong = Vec::new();
    let file: Table = text.parse().map_err(|error: toml::de::Error| {
        vec![Wrong {
            path: String::new(),
            why: error.to_string().trim_end().to_owned(),
        }]
    })?;
    for key in file.keys().filter(|key| *key != "rule") {
        wrong.push(Wrong {
            path: key.clone(),
            why: "is not known: a file of access rules has [[rule]] tables and nothing else".into(),
        });
    }
    let tables = match file.get("rule") {
        None => &[][..],
        Some(Value::Array(tables)) => tables,
        Some(_) => {
            wrong.push(Wrong {
                path: "rule".into(),
                why: "is one table: write [[rule]] for each rule".into(),
            });
            &[]
        }
    };
    // what can be read is held against the controller's own checks too, each under its own place
    let (mut rules, mut places) = (Vec::new(), Vec::new());
    for (index, value) in tables.iter().enumerate() {
        let Value::Table(table) = value else {
            wrong.push(Wrong {
                path: format!("rule[{index}]"),
                why: "is no table: write [[rule]] for each rule".into(),
            });
            continue;
        };
        let mut fields = Fields {
            table,
            at: format!("rule[{index}]"),
            wrong: Vec::new(),
        };
        match fields.rule() {
            Some(rule) if fields.wrong.is_empty() => {
                rules.push(rule);
                places.push(index);
            }
            _ => wrong.append(&mut fields.wrong),
        }
    }
    if let Err(problem) = vdnd::access::check_list(&rules) {
        wrong.extend(of_problem(&problem, &places));
    }
    match wrong.is_empty() {
        true => Ok(rules),
        false => {
            wrong.sort_by_key(|one| place(&one.path));
            Err(wrong)
        }
    }
}

/// Faults that the controller found in a list, by the words of the file; `places` are the indices
/// that the list's rules have in it.
pub(crate) fn of_problem(problem: &Problem, places: &[usize]) -> Vec<Wrong> {
    let of = |pointer: &str| -> Option<String> {
        let rest = pointer.strip_prefix("/items/")?;
        let (index, field) = rest.split_once('/').unwrap_or((rest, ""));
        let index = places.get(index.parse::<usize>().ok()?)?;
        let known = POINTERS.iter().find(|(ours, _)| *ours == field);
        let field = known.map_or(field, |(_, theirs)| theirs).replace('/', ".");
        Some(match field.is_empty() {
            true => format!("rule[{index}]"),
            false => format!("rule[{index}].{field}"),
        })
    };
    let faults = problem.errors.iter().map(|fault| Wrong {
        path: of(&fault.pointer).unwrap_or_else(|| "rule".into()),
        why: in_words_of_the_file(&fault.detail, places),
    });
    faults.collect()
}

/// A rule that the words name is named as the file has it.
fn in_words_of_the_file(why: &str, places: &[usize]) -> String {
    let mut text = String::new();
    let mut rest = why;
    while let Some((before, after)) = rest.split_once("/items/") {
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let (index, behind) = after.split_at(digits);
        let index = index.parse::<usize>().ok().and_then(|n| places.get(n));
        text += before;
        text += &index.map_or_else(|| "rule".into(), |index| format!("rule[{index}]"));
        rest = behind;
    }
    text + rest
}

/// The order of the file: the file as a whole first.
fn place(path: &str) -> Option<usize> {
    let (_, rest) = path.split_once('[')?;
    rest.split(']').next()?.parse().ok()
}

/// A network, or one address.
pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    let net = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.map_err(|_| {
        format!(
            "{text:?} is no network: write one as \"192.0.2.0/24\" or \"2001:db8::/32\", or an \
             address"
        )
    })
}

/// The fields of one `[[rule]]`.
struct Fields<'a> {
    table: &'a Table,
    at: String,
    wrong: Vec<Wrong>,
}

impl Fields<'_> {
    fn rule(&mut self) -> Option<AccessRule> {
        for key in self.table.keys() {
            if !FIELDS.contains(&key.as_str()) {
                let known = FIELDS.join(", ");
                self.fault(key, format!("is not known: a rule has {known}"));
            }
        }
        let number = self.number();
        let action = self.needed("action", "write \"allow\" or \"deny\"");
        let direction = self.needed("direction", "write \"outbound\" or \"inbound\"");
        let packets = AccessMatch {
            src: self.read("from", network),
            dst: self.read("to", network),
            proto: self.parsed("proto"),
            src_ports: self.ports("from-ports"),
            dst_ports: self.ports("to-ports"),
        };
        let (start, end) = (self.instant("start"), self.instant("end"));
        let (slice, tenant) = (self.parsed::<Name>("slice"), self.parsed("tenant"));
        let (stateful, log) = (self.flag("stateful"), self.flag("log"));
        let note = self.read("note", |text| Ok(text.to_owned()));
        Some(AccessRule {
            priority: number?,
            action: action?,
            direction: direction?,
            slice,
            tenant: tenant.unwrap_or_else(default_tenant),
            packets,
            stateful,
            schedule: schedule(start, end),
            log,
            note: note.unwrap_or_default(),
        })
    }

    fn fault(&mut self, field: &str, why: impl Into<String>) {
        self.wrong.push(Wrong {
            path: format!("{}.{field}", self.at),
            why: why.into(),
        });
    }
    fn number(&mut self) -> Option<u16> {
        match self.table.get("number") {
            None => self.fault("number", "is missing: write its place in the order, as 100"),
            Some(Value::Integer(number)) => match u16::try_from(*number) {
                Ok(number) => return Some(number),
                Err(_) => self.fault("number", format!("{number} is not from 1 to 9999")),
            },
            Some(other) => self.fault("number", format!("{other} is no whole number: write 100")),
        }
        None
    }
    /// A text that is read by `read`.
    fn read<T>(&mut self, field: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match self.table.get(field)? {
            Value::String(text) => match read(text) {
                Ok(value) => return Some(value),
                Err(why) => self.fault(field, why),
            },
            other => self.fault(field, format!("{other} is no text: write it in quotes")),
        }
        None
    }
    fn parsed<T: FromStr<Err: Display>>(&mut self, field: &str) -> Option<T> {
        self.read(field, |text| {
            text.parse().map_err(|error: T::Err| error.to_string())
        })
    }
    fn needed<T: FromStr<Err: Display>>(&mut self, field: &str, remedy: &str) -> Option<T> {
        if !self.table.contains_key(field) {
            self.fault(field, format!("is missing: {remedy}"));
        }
        self.parsed(field)
    }
    fn flag(&mut self, field: &str) -> bool {
        match self.table.get(field) {
            None => false,
            Some(Value::Boolean(yes)) => *yes,
            Some(other) => {
                self.fault(
                    field,
                    format!("{other} is no yes or no: write true or false"),
                );
                false
            }
        }
    }
    /// An instant, as text or as TOML writes one.
    fn instant(&mut self, field: &str) -> Option<Timestamp> {
        let text = match self.table.get(field)? {
            Value::String(text) => text.clone(),
            Value::Datetime(instant) => instant.to_string(),
            other => other.to_string(),
        };
        let instant = text.parse().ok();
        if instant.is_none() {
            let why = format!("{text} is no instant: write one as 2027-01-10T06:00:00Z");
            self.fault(field, why);
        }
        instant
    }
    /// A port, a range, or a list of both.
    fn ports(&mut self, field: &str) -> Vec<PortRange> {
        let one;
        let values = match self.table.get(field) {
            None => return Vec::new(),
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => {
                one = [value.clone()];
                &one
            }
        };
        let mut ports = Vec::new();
        for value in values {
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            for range in text.split(',') {
                match range.trim().parse() {
                    Ok(range) => ports.push(range),
                    Err(why) => self.fault(field, why),
                }
            }
        }
        ports
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_operators_begin_with_is_valid() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/access.toml");
        let text = std::fs::read_to_string(file).unwrap();
        let rules = read(&text).unwrap();
        assert!(rules.len() > 2, "{rules:?}");
        // every field stands in it
        for field in FIELDS {
            let written = |line: &str| {
                let line = line.trim_start_matches("# ");
                line.split_once('=')
                    .is_some_and(|(key, _)| key.trim() == field)
            };
            assert!(text.lines().any(written), "{field} is not explained");
        }
    }

    #[test]
    fn a_rule_is_read_with_every_field() {
        let rules = read(
            r#"
            [[rule]]
            number = 200
            action = "allow"
            direction = "inbound"
            slice = "web"
            tenant = "hep"
            from = "198.51.100.7"
            to = "10.20.0.0/24"
            proto = "tcp"
            from-ports = "1024-65535"
            to-ports = [443, "50000-51000"]
            stateful = true
            start = 2027-01-10T06:00:00Z
            end = "2027-01-11T06:00:00Z"
            log = true
            note = "mirrors"
            "#,
        )
        .unwrap();
        insta::assert_json_snapshot!("access_rule", rules);
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_with_its_place() {
        let wrong = read(
            r#"
            version = 1
            [[rule]]
            number = 100
            action = "permit"
            direction = "outbound"
            to = "192.0.2.0/33"
            [[rule]]
            number = 200
            action = "allow"
            direction = "outbound"
            to = "192.0.2.7/24"
            to-ports = [443]
            [[rule]]
            action = "deny"
            port = 1
            stateful = "yes"
            to-ports = "2-1"
            start = "tomorrow"
            [[rule]]
            number = 200
            action = "deny"
            direction = "inbound"
            start = "2027-01-10T06:00:00Z"
            end = "2027-01-10T06:00:00Z"
            "#,
        )
        .unwrap_err();
        let lines: Vec<String> = wrong
            .iter()
            .map(|one| format!("{}: {}", one.path, one.why))
            .collect();
        insta::assert_snapshot!("access_file_problems", lines.join("\n"));
    }

    #[test]
    fn what_is_no_toml_says_where() {
        let wrong = read("[[rule]\n").unwrap_err();
        assert!(wrong[0].why.contains("line 1"), "{wrong:?}");
        assert_eq!(read(""), Ok(Vec::new()));
    }
}
