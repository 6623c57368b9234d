//! Which switches were sent away, so that each is told of now and then and not at every try.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};
use tokio::time::Instant;

/// For how long a switch that was sent away is not spoken of again; it tries again all the time.
const QUIET: Duration = Duration::from_secs(600);
/// Switches of one address that are spoken of within [`QUIET`]: on a plain listener anybody can
/// make up datapath ids.
const EACH: usize = 64;
/// Switches that are remembered; the oldest are forgotten first.
const MOST: usize = 1024;

/// What was sent away, and when that was said last. Who was gone before it said its datapath id
/// is known by its address alone.
#[derive(Debug, Default)]
pub(super) struct Refused(BTreeMap<(IpAddr, Option<u64>), Instant>);

impl Refused {
    /// Whether it is to be said now that this one was sent away.
    pub(super) fn say(&mut self, from: IpAddr, id: Option<u64>, now: Instant) -> bool {
        let said = |at: &Instant| now.saturating_duration_since(*at) < QUIET;
        self.0.retain(|_, at| said(at));
        let near = self.0.keys().filter(|(address, _)| *address == from);
        if self.0.contains_key(&(from, id)) || near.count() >= EACH {
            return false;
        }
        if self.0.len() >= MOST {
            let oldest = self.0.iter().min_by_key(|(_, at)| **at);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.0.remove(&oldest);
            }
        }
        self.0.insert((from, id), now);
        true
    }
    /// A switch was taken in: when it is sent away again, that is news.
    pub(super) fn forget(&mut self, id: u64) {
        self.0.retain(|(_, known), _| *known != Some(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_said_now_and_then() {
        let mut refused = Refused::default();
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let now = Instant::now();
        assert!(refused.say(a, Some(1), now));
        assert!(!refused.say(a, Some(1), now));
        assert!(refused.say(a, None, now));
        assert!(refused.say(b, Some(1), now));
        let later = now + QUIET;
        assert!(refused.say(a, Some(1), later), "it lasts");
        refused.forget(1);
        assert!(refused.say(a, Some(1), later), "it was well between");
    }

    #[test]
    fn who_makes_up_ids_keeps_nobody_else_from_being_said() {
        let mut refused = Refused::default();
        let now = Instant::now();
        let mut said = 0;
        for host in 0..=255 {
            for id in 0..100 {
                let from = IpAddr::from([10, 0, 0, host]);
                said += usize::from(refused.say(from, Some(id), now));
            }
        }
        assert_eq!(said, 256 * EACH);
        assert_eq!(refused.0.len(), MOST);
        assert!(refused.say(IpAddr::from([10, 0, 1, 0]), Some(7), now));
        let first = IpAddr::from([10, 0, 0, 0]);
        assert!(refused.say(first, Some(100), now + QUIET));
        assert_eq!(refused.0.len(), 1);
    }
}
