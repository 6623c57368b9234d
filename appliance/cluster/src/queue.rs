//! Who gets what is left of a slice: the oldest first, and nobody waits for ever. Pure.
//!
//! A slice's rate is counted where it is kept: per NIC (`pair`, `hose`: each member has the whole
//! rate), or once for all (`aggregate`). Who does not fit waits, and **who asked later may pass only
//! if who waits would still fit without everything that was given to later ones**. So small ones use
//! what a large one cannot, and a large one waits for nobody but those that were there before it.

use crate::claim::NicKey;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Where a rate is counted: a slice, on one NIC or in all.
pub type Place = (Uuid, Option<NicKey>);

/// When somebody asked: time of the oldest claim and its UID, so that no two are the same.
pub type Turn = (jiff::Timestamp, String);

/// What one place has, gave, and owes.
#[derive(Debug, Clone, Default)]
struct Shelf {
    rate: u64,
    given: Vec<(Turn, u64)>,
    owed: Vec<(Turn, u64)>,
}
impl Shelf {
    fn left(&self) -> u64 {
        let given = self
            .given
            .iter()
            .fold(0, |sum: u64, (_, bps)| sum.saturating_add(*bps));
        self.rate.saturating_sub(given)
    }
    /// What may be given to this turn, and who is in the way when that is less than what is left.
    fn room(&self, turn: &Turn) -> (u64, Option<(&Turn, u64)>) {
        let mut room = (self.left(), None);
        let by_turn = |of: &'_ [(Turn, u64)]| {
            let mut sorted: Vec<usize> = (0..of.len()).collect();
            sorted.sort_by(|a, b| of[*a].0.cmp(&of[*b].0));
            sorted
        };
        let given = by_turn(&self.given);
        let mut given = given.iter().map(|at| &self.given[*at]).peekable();
        let mut later = self.rate.saturating_sub(self.left());
        let mut owed: u64 = 0;
        for (waits, need) in by_turn(&self.owed).iter().map(|at| &self.owed[*at]) {
            if waits >= turn {
                break;
            }
            owed = owed.saturating_add(*need);
            while let Some((_, bps)) = given.next_if(|(whose, _)| whose <= waits) {
                later = later.saturating_sub(*bps);
            }
            let bound = self.rate.saturating_sub(owed.saturating_add(later));
            if bound < room.0 {
                room = (bound, Some((waits, *need)));
            }
        }
        room
    }
}

/// All places.
#[derive(Debug, Clone, Default)]
pub struct Queue(BTreeMap<Place, Shelf>);

/// Why nothing, or not enough, can be had now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// What may be given, bits per second.
    pub bps: u64,
    /// What is left, whoever may have it.
    pub left: u64,
    /// Who waits since before and is owed, and how much.
    pub before: Option<(Turn, u64)>,
}

impl Queue {
    /// A place with its rate; known ones keep what they gave.
    pub fn place(&mut self, place: &Place, rate: u64) {
        self.0.entry(place.clone()).or_default().rate = rate;
    }
    /// What may be given here to whoever asked then.
    pub fn room(&self, place: &Place, turn: &Turn) -> Room {
        let nothing = Shelf::default();
        let shelf = self.0.get(place).unwrap_or(&nothing);
        let (bps, before) = shelf.room(turn);
        Room {
            bps,
            left: shelf.left(),
            before: before.map(|(turn, need)| (turn.clone(), need)),
        }
    }
    /// Gives.
    pub fn give(&mut self, place: &Place, turn: &Turn, bps: u64) {
        let shelf = self.0.entry(place.clone()).or_default();
        shelf.given.push((turn.clone(), bps));
    }
    /// Takes back the last of what was given here to this turn, because the rest did not fit.
    pub fn take_back(&mut self, place: &Place, turn: &Turn) {
        let Some(shelf) = self.0.get_mut(place) else {
            return;
        };
        if let Some(last) = shelf.given.iter().rposition(|(whose, _)| whose == turn) {
            shelf.given.remove(last);
        }
    }
    /// Remembers who waits, and for how much at least.
    pub fn owe(&mut self, place: &Place, turn: &Turn, need: u64) {
        let shelf = self.0.entry(place.clone()).or_default();
        shelf.owed.push((turn.clone(), need));
    }
    /// Rate of a place.
    pub fn rate(&self, place: &Place) -> u64 {
        self.0.get(place).map_or(0, |shelf| shelf.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn turn(n: i64) -> Turn {
        (jiff::Timestamp::from_second(n).unwrap(), n.to_string())
    }
    const PLACE: Place = (Uuid::nil(), None);

    #[test]
    fn a_small_one_passes_a_large_one_only_where_that_delays_nobody() {
        let mut queue = Queue::default();
        queue.place(&PLACE, 10);
        queue.give(&PLACE, &turn(1), 8);
        // the second wants 9: it waits for the first
        assert_eq!(queue.room(&PLACE, &turn(2)).bps, 2);
        queue.owe(&PLACE, &turn(2), 9);
        // 1 is what the second would not need when the first has ended
        assert_eq!(queue.room(&PLACE, &turn(3)).bps, 1);
        queue.give(&PLACE, &turn(3), 1);
        let room = queue.room(&PLACE, &turn(4));
        assert_eq!((room.bps, room.left), (0, 1));
        assert_eq!(room.before, Some((turn(2), 9)));
        // one that asked before the one that waits is not held up by it
        assert_eq!(queue.room(&PLACE, &turn(1)).bps, 1);
    }

    proptest! {
        #[test]
        fn who_waits_waits_for_older_ones_alone(
            rate in 1_u64..50,
            asks in prop::collection::vec((0_i64..40, 1_u64..40), 0..30),
            old in prop::collection::vec(1_u64..10, 0..5),
        ) {
            let mut queue = Queue::default();
            queue.place(&PLACE, rate);
            // what was given before everybody here asked
            for (n, bps) in old.iter().enumerate() {
                let bps = (*bps).min(queue.room(&PLACE, &turn(-9)).left);
                queue.give(&PLACE, &turn(i64::try_from(n).unwrap() - 9), bps);
            }
            let mut asks = asks;
            asks.sort();
            asks.dedup_by_key(|(at, _)| *at);
            let mut waits = Vec::new();
            let mut given = Vec::new();
            for (at, bps) in asks.into_iter().filter(|(_, bps)| *bps <= rate) {
                match queue.room(&PLACE, &turn(at)).bps >= bps {
                    true => {
                        queue.give(&PLACE, &turn(at), bps);
                        given.push((at, bps));
                    }
                    false => {
                        queue.owe(&PLACE, &turn(at), bps);
                        waits.push((at, bps));
                    }
                }
            }
            let sum: u64 = given.iter().map(|(_, bps)| bps).sum();
            prop_assert!(sum + queue.room(&PLACE, &turn(99)).left <= rate);
            // the first that waits fits as soon as those before it have ended, whatever was given later
            if let Some((at, need)) = waits.first() {
                let later: u64 = given.iter().filter(|(of, _)| of > at).map(|(_, bps)| bps).sum();
                prop_assert!(need + later <= rate);
            }
        }
    }
}
