//! How many frames a port may have handed to the controller: pure. A host that floods uses up the
//! share of its own port, and nobody else's.

use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// Frames of a port per second: a cable brings one probe in five, and a member asks for a few
/// neighbours when it starts.
const RATE: u32 = 50;
/// Frames of a port at once.
const BURST: u32 = 100;
/// Ports that are kept account of; a switch with more is refused the rest.
const PORTS: usize = 4096;

/// What each port has left.
#[derive(Debug)]
pub(super) struct Turns {
    /// What one costs, and the most that a port can have.
    each: Duration,
    most: Duration,
    left: BTreeMap<u32, (Duration, Instant)>,
}

/// Of all frames that are handed over.
pub(super) fn frames() -> Turns {
    Turns::new(RATE, BURST)
}

impl Turns {
    /// As many a second, and as many at once.
    pub(super) fn new(rate: u32, burst: u32) -> Self {
        let each = Duration::from_secs(1) / rate.max(1);
        Self {
            each,
            most: each * burst,
            left: BTreeMap::new(),
        }
    }
    /// Whether a frame of this port is taken.
    pub(super) fn take(&mut self, port: u32, now: Instant) -> bool {
        let (each, most) = (self.each, self.most);
        if self.left.len() >= PORTS && !self.left.contains_key(&port) {
            return false;
        }
        let (left, at) = self.left.entry(port).or_insert((most, now));
        *left = (*left + now.saturating_duration_since(*at)).min(most);
        *at = now;
        match left.checked_sub(each) {
            Some(rest) => {
                *left = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_floods_keeps_nobody_else_out() {
        let mut turns = frames();
        let began = Instant::now();
        let mut taken = 0;
        for ms in 0..10_000 {
            for _ in 0..10 {
                let now = began + Duration::from_millis(ms);
                taken += u32::from(turns.take(1, now));
            }
        }
        let fair = BURST + 10 * RATE;
        assert!(
            (fair - 1..=fair).contains(&taken),
            "{taken} of 100000, {fair} are fair"
        );
        assert!(turns.take(2, began + Duration::from_secs(10)));
    }

    #[test]
    fn ports_without_end_take_no_room_without_end() {
        let mut turns = frames();
        let now = Instant::now();
        let taken = (0..100_000).filter(|port| turns.take(*port, now)).count();
        assert_eq!((taken, turns.left.len()), (PORTS, PORTS));
    }
}
