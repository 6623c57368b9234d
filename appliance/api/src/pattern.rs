//! Patterns that tell several NICs at once: `ens*`, `0000:3b:00.?`.

use std::{fmt, str::FromStr};

/// Longest pattern.
const LONGEST: usize = 64;

/// A pattern: `*` stands for any number of characters, `?` for one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(String);

impl Pattern {
    /// Whether a text is meant as one.
    pub fn is_meant(text: &str) -> bool {
        text.contains(['*', '?'])
    }
    /// Whether it matches the whole text.
    pub fn matches(&self, text: &str) -> bool {
        matches(self.0.as_bytes(), text.as_bytes())
    }
    /// The same in lower case, for what is written in either.
    #[must_use]
    pub fn in_lower_case(&self) -> Self {
        Self(self.0.to_ascii_lowercase())
    }
    /// What stands before its first `*` or `?`.
    pub fn start(&self) -> &str {
        self.0.split(['*', '?']).next().unwrap_or_default()
    }
    /// Whether some text could match both: what stands before the first wildcard decides.
    pub fn may_meet(&self, other: &Self) -> bool {
        let (a, b) = (self.start(), other.start());
        a.starts_with(b) || b.starts_with(a)
    }
}
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl FromStr for Pattern {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_graphic() && c != '/';
        if text.len() > LONGEST || !text.chars().all(fits) {
            return Err(format!(
                "{text:?} is no pattern of a NIC: up to {LONGEST} visible characters with * and ?"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Goes back to the last `*` only, so that it ends after at most the product of both lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_match_what_a_shell_would() {
        for (pattern, yes, no) in [
            ("ens*", "ens1f0", "eno1"),
            ("ens*", "ens", "en"),
            ("ens?f0", "ens1f0", "ens12f0"),
            ("0000:3b:*.0", "0000:3b:00.0", "0000:3b:00.1"),
            ("a*b*c", "axxbxxbc", "axxbxxb"),
            ("a**", "a", "b"),
        ] {
            let pattern: Pattern = pattern.parse().unwrap();
            assert!(pattern.matches(yes), "{pattern} {yes}");
            assert!(!pattern.matches(no), "{pattern} {no}");
        }
        let long: Pattern = format!("{}b", "a*".repeat(30)).parse().unwrap();
        assert!(!long.matches(&"a".repeat(4000)));
    }

    #[test]
    fn two_that_cannot_meet_are_told_apart() {
        let of = |text: &str| text.parse::<Pattern>().unwrap();
        assert!(of("ens*").may_meet(&of("ens1*")));
        assert!(!of("ens1*").may_meet(&of("ens2*")));
    }
}
