//! What is wanted, and for whom it is news: pure. A switch through which nothing changes is not read
//! for a new wish.

use super::Wanted;
use crate::fabric::{Intent, program::Refusal};
use dtn_api::Name;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use uuid::Uuid;

/// A slice as it was first wanted with this wish's number; and whether it cannot be had.
type Version = (Uuid, u64, bool);

/// A wish.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) number: u64,
    pub(super) intents: Arc<[Intent]>,
    /// Of the slices, what cannot be had anywhere.
    pub(super) refused: Vec<Refusal>,
    /// By their tags.
    pub(super) slices: BTreeMap<u16, Uuid>,
    /// The switches of every slice, by its tag.
    pub(super) trees: BTreeMap<u16, BTreeSet<Name>>,
    /// Since which wish each slice is as it is now.
    versions: BTreeMap<Uuid, u64>,
    /// What goes through each switch.
    through: BTreeMap<Name, BTreeSet<Version>>,
}

impl Wish {
    /// What is wanted now. `refused` is what of it cannot be had.
    pub(super) fn new(wanted: &Wanted, refused: Vec<Refusal>, before: Option<&Self>) -> Self {
        let mut wish = Self {
            number: wanted.number,
            intents: wanted.intents.clone(),
            refused,
            slices: BTreeMap::new(),
            trees: BTreeMap::new(),
            versions: BTreeMap::new(),
            through: BTreeMap::new(),
        };
        let known: BTreeMap<Uuid, &Intent> = before
            .into_iter()
            .flat_map(|before| before.intents.iter().map(|i| (i.slice, i)))
            .collect();
        let no: BTreeSet<Uuid> = wish.refused.iter().map(|r| r.slice).collect();
        for intent in wanted.intents.iter() {
            let slice = intent.slice;
            let same = known.get(&slice).is_some_and(|known| *known == intent);
            let since = before.and_then(|before| before.versions.get(&slice));
            let version = since.copied().filter(|_| same).unwrap_or(wanted.number);
            wish.versions.insert(slice, version);
            // of two with one tag it is the first one's
            let first = wish.slices.entry(intent.tag).or_insert(slice);
            *first = slice.min(*first);
            let tree = wish.trees.entry(intent.tag).or_default();
            for name in intent.switches() {
                tree.insert(name.clone());
                let through = wish.through.entry(name.clone()).or_default();
                through.insert((slice, version, no.contains(&slice)));
            }
        }
        wish
    }
    /// Whether a switch shall hold something else than before.
    pub(super) fn differs_at(&self, name: &Name, before: Option<&Self>) -> bool {
        before.is_none_or(|before| self.through.get(name) != before.through.get(name))
    }
    /// The tags of which something else is wanted than before.
    pub(super) fn news(&self, before: &Self) -> BTreeSet<u16> {
        let of = |wish: &Self| -> BTreeSet<(u16, Uuid, Option<u64>)> {
            let intents = wish.intents.iter();
            let version = |slice| wish.versions.get(slice).copied();
            intents
                .map(|i| (i.tag, i.slice, version(&i.slice)))
                .collect()
        };
        let (now, then) = (of(self), of(before));
        let news = now.symmetric_difference(&then);
        news.map(|(tag, ..)| *tag).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::program::walk::site::{Site, Wish as Asked, switch};
    use dtn_api::slice::Class;

    #[test]
    fn a_wish_is_news_where_something_changes() {
        let site = Site::of(&[0, 0, 0]);
        let slice = |slice, hosts: [u8; 2]| {
            site.intent(&Asked {
                slice,
                tag: u16::try_from(slice).unwrap() + 10,
                class: Class::Guaranteed,
                rate_bps: 1000,
                hosts: hosts.into(),
                label: None,
            })
        };
        let wanted = |number, intents: &[Intent]| Wanted {
            number,
            intents: intents.to_vec().into(),
        };
        // of host n the switch is n modulo 4; the first is in the middle
        let (red, blue) = (slice(1, [1, 2]), slice(2, [3, 7]));
        let first = Wish::new(&wanted(1, std::slice::from_ref(&red)), Vec::new(), None);
        let at = |wish: &Wish, before: Option<&Wish>| -> Vec<usize> {
            let all = (0..4).filter(|n| wish.differs_at(&switch(*n), before));
            all.collect()
        };
        assert_eq!(at(&first, None), [0, 1, 2, 3]);
        let both = wanted(2, &[red.clone(), blue.clone()]);
        let second = Wish::new(&both, Vec::new(), Some(&first));
        assert_eq!(at(&second, Some(&first)), [3]);
        assert_eq!(second.news(&first), [12].into());
        let again = Wish::new(
            &wanted(3, &[blue.clone(), red.clone()]),
            Vec::new(),
            Some(&second),
        );
        assert_eq!(at(&again, Some(&second)), [0; 0]);
        assert_eq!(again.news(&second), [].into());
        let mut faster = red;
        faster.rate_bps = 2000;
        let refused = vec![Refusal {
            slice: blue.slice,
            reason: "no".to_owned(),
        }];
        let fourth = Wish::new(&wanted(4, &[faster, blue]), refused, Some(&again));
        assert_eq!(at(&fourth, Some(&again)), [0, 1, 2, 3]);
        assert_eq!(fourth.news(&again), [11].into());
    }
}
