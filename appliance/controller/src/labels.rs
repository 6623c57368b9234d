//! VLANs of slices on a border link: which are free, and which one the two domains take. Pure.
//!
//! The domain that initiates offers what is free on its side; the other one chooses. Two stitches
//! in opposite directions at the same time must not choose the same one, so the domain whose name
//! comes first initiates with even labels, and the other with odd ones.

use dtn_api::Name;
use std::{collections::BTreeSet, fmt::Write, str::FromStr};

/// First and last VLAN that may be one (IEEE 802.1Q: 0 and 4095 are reserved; 1 is the default of
/// most switches).
const ALL: (u16, u16) = (2, 4094);
/// Most ranges in one text: more than a wish has in good faith.
const MOST_RANGES: usize = 2048;

/// A set of VLANs, written as `2-4094` or `100,200-299`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels(BTreeSet<u16>);

impl Default for Labels {
    fn default() -> Self {
        Self((ALL.0..=ALL.1).collect())
    }
}
impl FromStr for Labels {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |part: &str| {
            format!(
                "{part:?} is no VLAN from {} to {} and no range of them: write \"1000-1999\" or \"100,200-299\"",
                ALL.0, ALL.1
            )
        };
        let mut found = BTreeSet::new();
        for (n, part) in text.split(',').map(str::trim).enumerate() {
            if n >= MOST_RANGES {
                return Err(format!("has more than {MOST_RANGES} ranges"));
            }
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong(part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last || first < ALL.0 || last > ALL.1 {
                return Err(wrong(part));
            }
            found.extend(first..=last);
        }
        Ok(Self(found))
    }
}
impl std::fmt::Display for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        let mut rest = self.0.iter().copied().peekable();
        while let Some(first) = rest.next() {
            let mut last = first;
            while rest.peek() == Some(&(last + 1)) {
                last += 1;
                rest.next();
            }
            let comma = if text.is_empty() { "" } else { "," };
            write!(text, "{comma}{first}")?;
            if last > first {
                write!(text, "-{last}")?;
            }
        }
        f.write_str(&text)
    }
}

impl Labels {
    /// All that an initiator may ever offer.
    pub fn half(initiator: &Name, peer: &Name) -> Self {
        Self::default().offer(&BTreeSet::new(), initiator, peer)
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Whether this one is among them.
    pub fn has(&self, label: u16) -> bool {
        self.0.contains(&label)
    }
    /// What an initiator offers of these: those that are not used, and are of its half.
    pub fn offer(&self, used: &BTreeSet<u16>, initiator: &Name, peer: &Name) -> Self {
        let odd = u16::from(initiator > peer);
        let free = self.0.difference(used).copied();
        Self(free.filter(|label| label % 2 == odd).collect())
    }
    /// What the other domain chooses: the lowest that is free on both sides.
    pub fn choose(&self, offered: &Self, used: &BTreeSet<u16>) -> Option<u16> {
        let both = self.0.intersection(&offered.0);
        both.copied().find(|label| !used.contains(label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn labels_are_read_as_they_are_written() {
        for text in ["2-4094", "100", "100,200-299", "2-3,5"] {
            assert_eq!(text.parse::<Labels>().unwrap().to_string(), text);
        }
        for bad in ["", "0", "1-5", "5-4095", "9-3", "x", "2-", "70000"] {
            assert!(bad.parse::<Labels>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_chosen_is_free_on_both_sides_and_of_one_direction(
            near in proptest::collection::btree_set(2_u16..60, 0..40),
            far in proptest::collection::btree_set(2_u16..60, 0..40),
            busy_near in proptest::collection::btree_set(2_u16..60, 0..40),
            busy_far in proptest::collection::btree_set(2_u16..60, 0..40),
        ) {
            let (a, b) = (name("busan"), name("daejeon"));
            let (near, far) = (Labels(near), Labels(far));
            let there = far.choose(&near.offer(&busy_near, &a, &b), &busy_far);
            let back = near.choose(&far.offer(&busy_far, &b, &a), &busy_near);
            for label in [there, back].into_iter().flatten() {
                prop_assert!(near.0.contains(&label) && far.0.contains(&label));
                prop_assert!(!busy_near.contains(&label) && !busy_far.contains(&label));
            }
            prop_assert!(there.is_none() || there != back);
        }
    }
}
