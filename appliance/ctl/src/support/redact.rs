//! What must not leave the host is taken out of every text of a support bundle, in three ways that do
//! not rely on each other: secrets that are known (the files of this host that hold some were read),
//! fields and variables whose name says that they hold one, and forms that secrets have (private
//! keys, invitations, bearer tokens, passwords in addresses). Pure.
//!
//! Rather too much is taken out than too little.

use serde_json::Value;
use std::collections::BTreeSet;

/// What stands in place of what was taken out.
pub(crate) const REMOVED: &str = "[removed]";
/// Known secrets shorter than this are not looked for: they would be found in every word.
const SHORTEST: usize = 8;
/// Parts of names that say: here is a secret.
const NAMES: [&str; 15] = [
    "secret",
    "token",
    "password",
    "passwd",
    "passphrase",
    "credential",
    "private",
    "bearer",
    "authorization",
    "cookie",
    "apikey",
    "accesskey",
    "keypem",
    "keydata",
    "psk",
];
/// Names that end so hold the place of a secret and not the secret.
const PLACES: [&str; 5] = ["file", "path", "dir", "socket", "url"];
/// Other names that have such a part and are none.
const HARMLESS: [&str; 3] = ["tokens", "nextpagetoken", "secretref"];

/// Secrets of this host that are known, longest first, so that a part never uncovers the whole.
#[derive(Debug, Clone, Default)]
pub(crate) struct Redactor {
    known: Vec<String>,
}

impl Redactor {
    /// Of the texts of files that hold secrets: all of each, each line and each word of it.
    pub(crate) fn knowing<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut known = BTreeSet::new();
        for text in texts {
            let parts = std::iter::once(text)
                .chain(text.lines())
                .chain(text.split(|c: char| c.is_whitespace() || "\"'=,:;{}[]".contains(c)));
            for part in parts {
                // escaped as in JSON it is another text
                for part in part.split("\\n") {
                    let part = part.trim();
                    if part.len() >= SHORTEST && !is_common(part) {
                        known.insert(part.to_owned());
                    }
                }
            }
        }
        let mut known: Vec<String> = known.into_iter().collect();
        known.sort_by_key(|part| std::cmp::Reverse(part.len()));
        Self { known }
    }

    /// A text of whatever form without its secrets.
    pub(crate) fn text(&self, text: &str) -> String {
        if let Ok(mut value @ (Value::Object(_) | Value::Array(_))) =
            serde_json::from_str::<Value>(text)
        {
            // its strings as texts of their own: the whole would not be JSON any more
            self.value(&mut value);
            let text = serde_json::to_string_pretty(&value).unwrap_or_default() + "\n";
            return self.without_known(&text);
        }
        self.plain(text)
    }

    fn plain(&self, text: &str) -> String {
        let text = self.without_known(&without_keys(text));
        let mut clean = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            clean.push_str(&line_of(line));
        }
        clean
    }

    fn without_known(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.known {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), REMOVED);
            }
        }
        text
    }

    /// A structure: by the names of its fields.
    fn value(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    if is_secret(name) && !field.is_null() {
                        *field = Value::String(REMOVED.into());
                    } else if simple(name) == "env" {
                        self.environment(field);
                    } else {
                        self.value(field);
                    }
                }
            }
            Value::Array(items) => {
                // ["--token", "x"]
                let mut next = false;
                for item in items {
                    let flag = item.as_str().is_some_and(|text| {
                        text.starts_with('-') && is_secret(text) && !text.contains('=')
                    });
                    if next && item.is_string() {
                        *item = Value::String(REMOVED.into());
                    }
                    next = flag;
                    self.value(item);
                }
            }
            Value::String(text) => *text = self.plain(text),
            _ => {}
        }
    }

    /// Of an environment only the names are kept.
    fn environment(&self, value: &mut Value) {
        match value {
            Value::Array(items) => {
                for item in items {
                    match item {
                        Value::Object(fields) => {
                            if let Some(value) = fields.get_mut("value") {
                                *value = Value::String(REMOVED.into());
                            }
                        }
                        Value::String(text) => {
                            let name = text.split_once('=').map_or(text.as_str(), |(name, _)| name);
                            *text = format!("{name}={REMOVED}");
                        }
                        other => self.value(other),
                    }
                }
            }
            Value::Object(fields) => {
                for field in fields.values_mut() {
                    *field = Value::String(REMOVED.into());
                }
            }
            other => *other = Value::String(REMOVED.into()),
        }
    }
}

/// Words of every PEM and configuration file, which are no secrets although they stand beside some.
fn is_common(part: &str) -> bool {
    part.starts_with("-----")
        || part.starts_with('/')
        || part.starts_with("http")
        || part
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || b"-_.".contains(&byte))
        || matches!(
            part,
            "CERTIFICATE" | "PRIVATE" | "apiVersion" | "certificate-authority-data"
        )
}

/// A name without what different styles put between its words.
fn simple(name: &str) -> String {
    name.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

/// Whether a field or variable of this name holds a secret.
pub(crate) fn is_secret(name: &str) -> bool {
    let name = simple(name);
    let named = NAMES.iter().any(|part| name.contains(part));
    named && !PLACES.iter().any(|end| name.ends_with(end)) && !HARMLESS.contains(&name.as_str())
}

/// Private keys, whole or cut off, as lines or escaped into one.
fn without_keys(text: &str) -> String {
    const BEGIN: &str = "-----BEGIN ";
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        let (before, block) = rest.split_at(at);
        clean.push_str(before);
        let label = block[BEGIN.len()..]
            .split("-----")
            .next()
            .unwrap_or_default();
        if !label.contains("PRIVATE KEY") {
            clean.push_str(BEGIN);
            rest = &block[BEGIN.len()..];
            continue;
        }
        clean.push_str(REMOVED);
        let end = format!("-----END {label}-----");
        // of one that is cut off nothing is kept
        rest = block.find(&end).map_or("", |at| &block[at + end.len()..]);
    }
    clean.push_str(rest);
    clean
}

/// One line of a log or of a file: pairs of a name and a value, and the forms of secrets.
fn line_of(line: &str) -> String {
    let line = pairs(line);
    let mut clean = String::with_capacity(line.len());
    let mut word = String::new();
    let mut was_scheme = false;
    for c in line.chars().chain(['\n']) {
        if c.is_whitespace() || "\"'`,;()<>[]{}|".contains(c) {
            let shown = if was_scheme && word.len() >= SHORTEST {
                REMOVED.to_owned()
            } else {
                word_of(&word)
            };
            if !word.is_empty() {
                let lower = word.to_ascii_lowercase();
                was_scheme = matches!(lower.as_str(), "bearer" | "basic");
            }
            clean.push_str(&shown);
            clean.push(c);
            word.clear();
        } else {
            word.push(c);
        }
    }
    // the end that was added
    clean.pop();
    clean
}

fn word_of(word: &str) -> String {
    if let Some(at) = word.find("dtn-invitation.") {
        return format!("{}dtn-invitation.{REMOVED}", &word[..at]);
    }
    // https://user:password@host
    if let Some((scheme, rest)) = word.split_once("://")
        && let Some((_, host)) = rest
            .split('/')
            .next()
            .and_then(|authority| authority.rsplit_once('@'))
    {
        let path = rest.find('/').map_or("", |at| &rest[at..]);
        return format!("{scheme}://{REMOVED}@{host}{path}");
    }
    let is_word = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    // a JSON web token: three parts of base64url
    if word.starts_with("eyJ") && word.len() > 20 && word.split('.').all(is_word) {
        return REMOVED.to_owned();
    }
    // an invitation's secret: an id and 32 random bytes
    if let Some((id, secret)) = word.split_once('.')
        && id.len() == 32
        && id.bytes().all(|b| b.is_ascii_hexdigit())
        && secret.len() >= 40
        && is_word(secret)
    {
        return REMOVED.to_owned();
    }
    word.to_owned()
}

/// `name = "value"`, `name: value`, `NAME=value`: where the name says so, the value goes, to the end
/// of the line.
fn pairs(line: &str) -> String {
    let body = line.trim_end_matches('\n');
    for (at, c) in body.char_indices().filter(|(_, c)| matches!(c, '=' | ':')) {
        let name = body[..at]
            .trim_end_matches(|c: char| c.is_whitespace() || c == '"' || c == '\'')
            .rsplit(|c: char| c.is_whitespace() || "\"'{,[(&?".contains(c))
            .next()
            .unwrap_or_default();
        let rest = body[at + c.len_utf8()..].trim();
        let structured = rest.starts_with(['{', '[']) && rest.len() == 1;
        if is_secret(name) && !rest.is_empty() && !structured && !rest.contains(REMOVED) {
            let end = if line.ends_with('\n') { "\n" } else { "" };
            return format!("{}{c} \"{REMOVED}\"{end}", &body[..at]);
        }
    }
    line.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(text: &str) -> String {
        Redactor::default().text(text)
    }

    #[test]
    fn forms_of_secrets_are_found_without_knowing_them() {
        for (text, left) in [
            (
                "join dtn-invitation.eyJraW5kIjoiaG9zdCJ9 now",
                "join dtn-invitation.[removed] now",
            ),
            (
                "GET / Authorization: Bearer abcdefghijkl",
                "GET / Authorization: \"[removed]\"",
            ),
            (
                "sent Bearer abcdefghijkl to x",
                "sent Bearer [removed] to x",
            ),
            (
                "url https://onos:rocks123@192.0.2.1:8181/x y",
                "url https://[removed]@192.0.2.1:8181/x y",
            ),
            (
                "  client-key-data: LS0tLS1CRUdJTiBQ",
                "  client-key-data: \"[removed]\"",
            ),
            ("token = \"hunter2hunter2\"", "token = \"[removed]\""),
            (
                "RCLONE_PASSWORD=hunter2hunter2",
                "RCLONE_PASSWORD= \"[removed]\"",
            ),
            (
                "msg=\"x\" secret=hunter2 more",
                "msg=\"x\" secret= \"[removed]\"",
            ),
            (
                "got eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl end",
                "got [removed] end",
            ),
            (
                "a 0192f0c1e6d87aa0b1c2d3e4f5a6b7c8.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA b",
                "a [removed] b",
            ),
            (
                "token-file = \"/etc/dtn/token\"",
                "token-file = \"/etc/dtn/token\"",
            ),
            (
                "at 2027-01-10T06:00:00Z: fine",
                "at 2027-01-10T06:00:00Z: fine",
            ),
            ("slice lhc.bulk is up", "slice lhc.bulk is up"),
        ] {
            assert_eq!(clean(text), left);
        }
    }

    #[test]
    fn private_keys_go_whole_cut_off_and_escaped() {
        let key = "-----BEGIN PRIVATE KEY-----\nMIGHAgEA\nMBMGByqG\n-----END PRIVATE KEY-----\n";
        let text = clean(&format!("before\n{key}after\n"));
        assert_eq!(text, "before\n[removed]\nafter\n");
        assert_eq!(clean(&key[..40]), "[removed]");
        let escaped = key.replace('\n', "\\n");
        assert!(!clean(&format!("x \"{escaped}\" y")).contains("MIGHAgEA"));
        let public = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        assert_eq!(clean(public), public);
        let rsa = key.replace("PRIVATE", "RSA PRIVATE");
        assert!(!clean(&rsa).contains("MIGHAgEA"));
    }

    #[test]
    fn fields_and_environments_go_by_their_names() {
        let text = serde_json::json!({
            "key": "pod-1", "ca_pin": "ab12", "key_pem": "x", "secret": {"a": "b"},
            "next_page_token": "n", "next": null,
            "container": {"env": [{"name": "MODE", "value": "plain-value"}, {"name": "X"}],
                "args": ["--token", "in-an-argument", "--port", "2811", "--password=also-there"]},
        })
        .to_string();
        let left = clean(&text);
        for kept in ["pod-1", "ab12", "MODE", "2811", "\"n\""] {
            assert!(left.contains(kept), "{kept}: {left}");
        }
        for gone in [
            "plain-value",
            "in-an-argument",
            "also-there",
            "\"b\"",
            "\"x\"",
        ] {
            assert!(!left.contains(gone), "{gone}: {left}");
        }
    }

    #[test]
    fn known_secrets_go_wherever_they_stand_and_longest_first() {
        let redactor = Redactor::knowing(["operator-Token-1\n", "user:pa55word99\n", "short"]);
        let left = redactor.text("log operator-Token-1x pa55word99 short user");
        assert_eq!(left, "log [removed]x [removed] short user");
    }
}
