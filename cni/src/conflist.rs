//! A list of plugins (`*.conflist`) with our entry in it, or without it again: the text of others is
//! changed nowhere else, so that taking the entry out brings back what was there, byte for byte.

use serde_json::Value;
use std::ops::Range;

/// Why a list cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is no JSON.
    #[error("it is not JSON: {0}")]
    NotJson(String),
    /// There is no list of plugins in it.
    #[error("it has no list \"plugins\": a single plugin has to be put into a .conflist first")]
    NoList,
    /// There is nothing to be behind.
    #[error("its list \"plugins\" is empty: there is no network to be behind")]
    Empty,
}

/// The text with an entry for `plugin` behind the others; `None` when there is one already.
pub fn with(text: &str, plugin: &str) -> Result<Option<String>, Fault> {
    let entries = entries(text)?;
    let Some(last) = entries.last() else {
        return Err(Fault::Empty);
    };
    if entries
        .iter()
        .any(|span| is_of(&text[span.clone()], plugin))
    {
        return Ok(None);
    }
    // the space before the last entry stands before ours as well, so it is laid out alike
    let before = text[..last.start].trim_end_matches(is_space);
    let space = &text[before.len()..last.start];
    let entry = serde_json::json!({ "type": plugin });
    let (head, tail) = text.split_at(last.end);
    Ok(Some(format!("{head},{space}{entry}{tail}")))
}

/// The text without the entries for `plugin`; `None` when there is none.
pub fn without(text: &str, plugin: &str) -> Result<Option<String>, Fault> {
    let entries = entries(text)?;
    let mut left = text.to_owned();
    let mut found = false;
    for (n, span) in entries.iter().enumerate().rev() {
        if !is_of(&text[span.clone()], plugin) {
            continue;
        }
        found = true;
        // with the comma and the space before it, or behind it when it is the first
        let cut = match (n.checked_sub(1).map(|n| &entries[n]), entries.get(n + 1)) {
            (Some(before), _) => before.end..span.end,
            (None, Some(after)) => span.start..after.start,
            (None, None) => span.clone(),
        };
        left.replace_range(cut, "");
    }
    Ok(found.then_some(left))
}

const fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

fn is_of(entry: &str, plugin: &str) -> bool {
    let read: Result<Value, _> = serde_json::from_str(entry);
    read.is_ok_and(|entry| entry["type"] == plugin)
}

/// Where the entries of the list of plugins are in a text.
fn entries(text: &str) -> Result<Vec<Range<usize>>, Fault> {
    let whole: Value = serde_json::from_str(text).map_err(|e| Fault::NotJson(e.to_string()))?;
    if !whole["plugins"].is_array() {
        return Err(Fault::NoList);
    }
    // it is JSON, so this only has to find its way in it
    let mut at = Scanner { text, place: 0 };
    let mut found = Vec::new();
    at.open();
    while let Some(key) = at.value() {
        let key: String = serde_json::from_str(&text[key]).unwrap_or_default();
        at.separator();
        let Some(value) = at.value() else { break };
        // of two with the same name every reader takes the last
        if key == "plugins" {
            let mut inside = Scanner {
                text,
                place: value.start,
            };
            inside.open();
            found.clear();
            while let Some(entry) = inside.value() {
                found.push(entry);
                inside.separator();
            }
        }
        at.separator();
    }
    Ok(found)
}

/// Walks over the values of a text that is known to be JSON.
struct Scanner<'a> {
    text: &'a str,
    place: usize,
}

impl Scanner<'_> {
    fn skip_space(&mut self) {
        let rest = &self.text[self.place..];
        self.place += rest.len() - rest.trim_start_matches(is_space).len();
    }
    /// Past the bracket that opens an object or a list.
    fn open(&mut self) {
        self.skip_space();
        self.place += 1;
    }
    /// Past a comma or colon, when there is one.
    fn separator(&mut self) {
        self.skip_space();
        if self.text[self.place..].starts_with([',', ':']) {
            self.place += 1;
        }
    }
    /// The next value; `None` at the bracket that closes, and at the end.
    fn value(&mut self) -> Option<Range<usize>> {
        self.skip_space();
        let start = self.place;
        let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
        for (n, c) in self.text[start..].char_indices() {
            let end = start + n;
            if in_text {
                (in_text, escaped) = match (escaped, c) {
                    (true, _) => (true, false),
                    (false, '\\') => (true, true),
                    (false, '"') => (false, false),
                    (false, _) => (true, false),
                };
                if !in_text && depth == 0 {
                    return self.found(start, end + 1);
                }
                continue;
            }
            match c {
                '"' => in_text = true,
                '{' | '[' => depth += 1,
                '}' | ']' if depth == 0 => return self.found(start, end),
                '}' | ']' => {
                    depth -= 1;
                    if depth == 0 {
                        return self.found(start, end + 1);
                    }
                }
                ',' | ':' if depth == 0 => return self.found(start, end),
                c if is_space(c) && depth == 0 => return self.found(start, end),
                _ => {}
            }
        }
        None
    }
    fn found(&mut self, start: usize, end: usize) -> Option<Range<usize>> {
        self.place = end;
        (end > start).then_some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLUGIN: &str = "vdn-chain";

    #[test]
    fn an_entry_is_laid_out_like_those_before_it() {
        let text = "{\n  \"name\": \"cbr0\",\n  \"plugins\": [\n    {\n      \"type\": \"flannel\"\n    },\n    {\"type\": \"portmap\"}\n  ],\n  \"x\": 1.50\n}\n";
        let with = with(text, PLUGIN).unwrap().unwrap();
        let wanted = text.replace(
            "{\"type\": \"portmap\"}",
            "{\"type\": \"portmap\"},\n    {\"type\":\"vdn-chain\"}",
        );
        assert_eq!(with, wanted);
        assert_eq!(super::with(&with, PLUGIN).unwrap(), None, "twice is once");
        assert_eq!(without(&with, PLUGIN).unwrap().unwrap(), text);
        assert_eq!(without(text, PLUGIN).unwrap(), None);
    }

    #[test]
    fn what_only_looks_like_a_list_is_not_taken_for_one() {
        let text = r#"{"a":"\"plugins\":[{","b":{"plugins":[1]},"plugins":[{"type":"a","plugins":[]}],"c":["]"]}"#;
        let with = with(text, PLUGIN).unwrap().unwrap();
        let wanted = text.replace(
            r#""plugins":[]}]"#,
            r#""plugins":[]},{"type":"vdn-chain"}]"#,
        );
        assert_eq!(with, wanted);
    }

    #[test]
    fn an_entry_of_any_place_and_shape_is_taken_out() {
        for (text, left) in [
            (
                r#"{"plugins":[{"type":"vdn-chain","x":1}, {"type":"a"}]}"#,
                r#"{"plugins":[{"type":"a"}]}"#,
            ),
            (
                r#"{"plugins":[{"type":"a"} , {"type":"vdn-chain"},{"type":"b"}]}"#,
                r#"{"plugins":[{"type":"a"},{"type":"b"}]}"#,
            ),
            (r#"{"plugins":[{"type":"vdn-chain"}]}"#, r#"{"plugins":[]}"#),
        ] {
            assert_eq!(without(text, PLUGIN).unwrap().unwrap(), left);
        }
    }

    #[test]
    fn what_is_no_list_is_refused_with_the_reason() {
        assert!(matches!(with("{", PLUGIN), Err(Fault::NotJson(_))));
        for text in ["[]", "7", "{}", r#"{"type":"bridge"}"#, r#"{"plugins":{}}"#] {
            assert_eq!(with(text, PLUGIN), Err(Fault::NoList), "{text}");
        }
        assert_eq!(with(r#"{"plugins":[]}"#, PLUGIN), Err(Fault::Empty));
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z\"\\\\{}\\[\\],: é]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z\"\\\\]{0,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn in_and_out_again_is_as_it_was(
            others in prop::collection::btree_map("[a-z\"]{0,7}", json(), 0..4),
            plugins in prop::collection::vec(json(), 1..4),
            pretty: bool,
        ) {
            let mut whole = Value::Object(others.into_iter().collect());
            whole["plugins"] = Value::from(plugins.clone());
            let text = match pretty {
                true => serde_json::to_string_pretty(&whole).unwrap(),
                false => whole.to_string(),
            };
            prop_assume!(!plugins.iter().any(|p| p["type"] == PLUGIN));
            let patched = with(&text, PLUGIN).unwrap().unwrap();
            let mut wanted = whole;
            wanted["plugins"].as_array_mut().unwrap().push(serde_json::json!({"type": PLUGIN}));
            prop_assert_eq!(&serde_json::from_str::<Value>(&patched).unwrap(), &wanted);
            prop_assert_eq!(with(&patched, PLUGIN).unwrap(), None);
            prop_assert_eq!(without(&patched, PLUGIN).unwrap().unwrap(), text);
        }
        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}") {
            let _ = (with(&text, PLUGIN), without(&text, PLUGIN));
        }
    }
}
