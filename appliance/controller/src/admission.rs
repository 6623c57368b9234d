//! Who gets how much of which link, and when: an integer ledger per directed link. Pure.
//!
//! Every booked slice claims its rate on every directed link of its tree over its half-open window.
//! A question is answered by a sweep over the instants at which something starts: between two of
//! them nothing changes, so the highest sum over those instants is the highest of the window.

use dtn_api::{
    Problem, Rate,
    problem::{Fault, Kind},
    slice::{Class, Schedule},
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Part of a link that guaranteed slices may book, percent: the rest carries what nobody reserved
/// (ARP, neighbour discovery, the guard's tolerance).
pub const RESERVABLE_PERCENT: u64 = 95;

/// What a slice takes of one directed link, per bit per second of its rate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The link, as `nic-02:00:5e:10:00:01>site-switch`.
    pub link: String,
    /// What the link carries, bits per second.
    pub capacity_bps: u64,
    /// How many times the slice's rate crosses it.
    pub times: u64,
}

#[derive(Debug, Clone)]
struct Claim {
    owner: Uuid,
    rate_bps: u64,
    class: Class,
    window: Schedule,
}

/// Everything that is booked, by link.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    claims: BTreeMap<String, Vec<Claim>>,
}

fn overlap(a: &Schedule, b: &Schedule) -> bool {
    a.start < b.end && b.start < a.end
}

impl Ledger {
    /// Books a slice.
    pub fn book(
        &mut self,
        owner: Uuid,
        class: Class,
        rate_bps: u64,
        window: Schedule,
        shares: &[Share],
    ) {
        for share in shares {
            // no promise is no claim on the rate, but it is somebody on the link
            let rate_bps = match class {
                Class::BestEffort => 0,
                Class::Dedicated | Class::Guaranteed => rate_bps.saturating_mul(share.times),
            };
            self.claims
                .entry(share.link.clone())
                .or_default()
                .push(Claim {
                    owner,
                    rate_bps,
                    class,
                    window,
                });
        }
    }

    /// Gives back everything that this slice has booked.
    pub fn release(&mut self, owner: Uuid) {
        for claims in self.claims.values_mut() {
            claims.retain(|claim| claim.owner != owner);
        }
        self.claims.retain(|_, claims| !claims.is_empty());
    }

    /// The most that is booked of a link at any instant of the window, bits per second.
    pub fn peak(&self, link: &str, window: &Schedule) -> u64 {
        self.peak_without(link, window, None)
    }

    fn others<'a>(
        &'a self,
        link: &str,
        window: &'a Schedule,
        except: Option<Uuid>,
    ) -> impl Iterator<Item = &'a Claim> + Clone {
        self.claims
            .get(link)
            .into_iter()
            .flatten()
            .filter(move |c| Some(c.owner) != except && overlap(&c.window, window))
    }

    fn peak_without(&self, link: &str, window: &Schedule, except: Option<Uuid>) -> u64 {
        let others = self.others(link, window, except);
        let instants = others
            .clone()
            .map(|claim| claim.window.start.max(window.start));
        instants
            .map(|at| {
                others
                    .clone()
                    .filter(|c| c.window.start <= at && at < c.window.end)
                    .fold(0_u64, |sum, c| sum.saturating_add(c.rate_bps))
            })
            .max()
            .unwrap_or(0)
    }

    /// What one link still admits for a class over the whole window, as a rate of the slice.
    fn residual(
        &self,
        share: &Share,
        class: Class,
        window: &Schedule,
        except: Option<Uuid>,
    ) -> u64 {
        let mut others = self.others(&share.link, window, except);
        let left = match class {
            Class::Dedicated => match others.next() {
                Some(_) => 0,
                None => share.capacity_bps,
            },
            _ if others.any(|claim| claim.class == Class::Dedicated) => 0,
            Class::BestEffort => share.capacity_bps,
            Class::Guaranteed => Rate::from_bps(share.capacity_bps)
                .fraction(RESERVABLE_PERCENT, 100)
                .bps()
                .saturating_sub(self.peak_without(&share.link, window, except)),
        };
        left / share.times.max(1)
    }

    /// The most that every link admits over the whole window, and the link that sets it. The slice
    /// `except` does not count: it is the one that would change.
    pub fn max_rate(
        &self,
        shares: &[Share],
        class: Class,
        window: &Schedule,
        except: Option<Uuid>,
    ) -> (u64, String) {
        shares
            .iter()
            .map(|share| {
                (
                    self.residual(share, class, window, except),
                    share.link.clone(),
                )
            })
            // the first of equals in the order of names, so that two controllers agree
            .min()
            .unwrap_or_default()
    }

    /// Whether the rate fits on every link; otherwise every link on which it does not, with the
    /// number that would fit.
    pub fn admit(
        &self,
        shares: &[Share],
        class: Class,
        rate_bps: u64,
        window: &Schedule,
        except: Option<Uuid>,
    ) -> Result<(), Problem> {
        let tight: Vec<(u64, &Share)> = shares
            .iter()
            .map(|share| (self.residual(share, class, window, except), share))
            .filter(|(left, _)| *left < rate_bps)
            .collect();
        let Some((least, narrowest)) = tight
            .iter()
            .min_by_key(|(left, share)| (*left, &share.link))
        else {
            return Ok(());
        };
        let remedy = match (least, class) {
            (0, Class::Dedicated) => {
                "another slice is on it, and a dedicated slice is alone: ask for another window or \
                 for class guaranteed"
                    .to_owned()
            }
            (0, _) => "nothing is left in this window: ask for another one".to_owned(),
            (left, _) => format!("ask for at most {}", Rate::from_bps(*left)),
        };
        let asked = Rate::from_bps(rate_bps);
        let mut problem = Problem::new(
            Kind::InsufficientBandwidth,
            format!(
                "link {} has {} left for class {class} from {} to {}, asked was {asked}: {remedy}",
                narrowest.link,
                Rate::from_bps(*least),
                window.start,
                window.end
            ),
        );
        for (left, share) in tight {
            problem = problem.with(Fault {
                pointer: "/qos/rate_bps".into(),
                detail: format!("{} has {} left", share.link, Rate::from_bps(left)),
                link: Some(share.link.clone()),
                available_bps: Some(left),
                requested_bps: Some(rate_bps),
            });
        }
        Err(problem)
    }

    /// The first window as long as `window`, not before it and not starting later than `horizon`,
    /// in which the rate fits.
    pub fn first_fit(
        &self,
        shares: &[Share],
        class: Class,
        rate_bps: u64,
        window: &Schedule,
        horizon: Timestamp,
        except: Option<Uuid>,
    ) -> Option<Schedule> {
        let length = window.end.duration_since(window.start);
        // room appears only where something ends
        let mut starts: Vec<Timestamp> = shares
            .iter()
            .filter_map(|share| self.claims.get(&share.link))
            .flatten()
            .map(|claim| claim.window.end)
            .filter(|end| *end > window.start && *end <= horizon)
            .collect();
        starts.push(window.start);
        starts.sort();
        starts.dedup();
        starts.into_iter().find_map(|start| {
            let window = Schedule {
                start,
                end: later(start, length),
            };
            let (most, _) = self.max_rate(shares, class, &window, except);
            (most >= rate_bps && window.end > start).then_some(window)
        })
    }
}

/// An instant later, or the end of time.
pub fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}
/// An instant some seconds later, or the end of time.
pub fn later_by(at: Timestamp, seconds: u32) -> Timestamp {
    later(at, SignedDuration::from_secs(i64::from(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }
    fn window(start: i64, end: i64) -> Schedule {
        Schedule {
            start: at(start),
            end: at(end),
        }
    }
    fn share(link: &str, capacity_bps: u64) -> Share {
        Share {
            link: link.into(),
            capacity_bps,
            times: 1,
        }
    }

    #[test]
    fn a_refusal_names_the_number_that_would_fit() {
        let wan = [share("nic>switch", 10_000), share("switch>wan", 1000)];
        let mut ledger = Ledger::default();
        ledger.book(
            Uuid::from_u128(1),
            Class::Guaranteed,
            600,
            window(0, 10),
            &wan,
        );
        let problem = ledger
            .admit(&wan, Class::Guaranteed, 600, &window(9, 20), None)
            .unwrap_err();
        assert!(problem.is(Kind::InsufficientBandwidth));
        assert_eq!(problem.available_bps(), Some(350));
        assert_eq!(problem.errors[0].link.as_deref(), Some("switch>wan"));
        assert_eq!(problem.errors[0].requested_bps, Some(600));
        // half-open: the next second is free again
        ledger
            .admit(&wan, Class::Guaranteed, 950, &window(10, 20), None)
            .unwrap();
        let found = ledger.first_fit(&wan, Class::Guaranteed, 600, &window(2, 5), at(100), None);
        assert_eq!(found, Some(window(10, 13)));
        assert_eq!(
            ledger.first_fit(&wan, Class::Guaranteed, 951, &window(2, 5), at(100), None),
            None
        );
    }

    #[test]
    fn dedicated_is_alone_and_may_take_all() {
        let wan = [share("switch>wan", 1000)];
        let mut ledger = Ledger::default();
        let (most, link) = ledger.max_rate(&wan, Class::Dedicated, &window(0, 10), None);
        assert_eq!((most, link.as_str()), (1000, "switch>wan"));
        ledger.book(
            Uuid::from_u128(1),
            Class::Dedicated,
            1000,
            window(0, 10),
            &wan,
        );
        for class in [Class::Dedicated, Class::Guaranteed, Class::BestEffort] {
            assert_eq!(ledger.max_rate(&wan, class, &window(9, 11), None).0, 0);
        }
        ledger.release(Uuid::from_u128(1));
        ledger.book(
            Uuid::from_u128(2),
            Class::BestEffort,
            1000,
            window(0, 10),
            &wan,
        );
        assert_eq!(
            ledger
                .max_rate(&wan, Class::Dedicated, &window(0, 1), None)
                .0,
            0
        );
        assert_eq!(
            ledger
                .max_rate(&wan, Class::Guaranteed, &window(0, 1), None)
                .0,
            950
        );
    }

    #[derive(Debug, Clone)]
    struct Wish {
        class: Class,
        rate: u64,
        window: Schedule,
        links: Vec<Share>,
    }
    fn wish() -> impl Strategy<Value = Wish> {
        let class = prop_oneof![
            1 => Just(Class::Dedicated),
            5 => Just(Class::Guaranteed),
            1 => Just(Class::BestEffort),
        ];
        let links = proptest::sample::subsequence(vec![0_u64, 1, 2], 1..=3);
        (class, 1_u64..600, 0_i64..50, 1_i64..30, links, 1_u64..3).prop_map(
            |(class, rate, start, length, links, times)| Wish {
                class,
                rate,
                window: window(start, start + length),
                links: links
                    .into_iter()
                    .map(|n| Share {
                        times,
                        ..share(&format!("l{n}"), 1000 + n)
                    })
                    .collect(),
            },
        )
    }

    proptest! {
        /// Second by second, as a clock would see it: the sum never exceeds the link, a dedicated
        /// slice is alone, and what the ledger says is left is exactly what is left.
        #[test]
        fn never_over_booked(wishes in proptest::collection::vec(wish(), 1..30)) {
            let mut ledger = Ledger::default();
            let mut taken: Vec<Wish> = Vec::new();
            for (n, wish) in wishes.into_iter().enumerate() {
                let most = ledger.max_rate(&wish.links, wish.class, &wish.window, None).0;
                let admitted = ledger.admit(&wish.links, wish.class, wish.rate, &wish.window, None);
                prop_assert_eq!(admitted.is_ok(), wish.rate <= most);
                if let Err(problem) = admitted {
                    prop_assert_eq!(problem.available_bps(), Some(most));
                    continue;
                }
                ledger.book(Uuid::from_u128(n as u128), wish.class, wish.rate, wish.window, &wish.links);
                taken.push(wish);
            }
            for second in 0..80 {
                for link in 0..3_u64 {
                    let name = format!("l{link}");
                    let on: Vec<(&Wish, u64)> = taken.iter()
                        .filter(|w| w.window.start <= at(second) && at(second) < w.window.end)
                        .filter_map(|w| w.links.iter().find(|s| s.link == name).map(|s| (w, s.times)))
                        .collect();
                    let sum: u64 = on.iter().filter(|(w, _)| w.class != Class::BestEffort)
                        .map(|(w, times)| w.rate * times).sum();
                    let alone = on.iter().any(|(w, _)| w.class == Class::Dedicated);
                    prop_assert!(!alone || on.len() == 1);
                    let most = if alone { 1000 + link } else { (1000 + link) * 95 / 100 };
                    prop_assert!(sum <= most);
                    prop_assert_eq!(ledger.peak(&name, &window(second, second + 1)), sum);
                }
            }
        }

        #[test]
        fn release_restores(wishes in proptest::collection::vec(wish(), 1..12), which in 0_usize..12) {
            let mut ledger = Ledger::default();
            let mut without = Ledger::default();
            let which = which % wishes.len();
            for (n, wish) in wishes.iter().enumerate() {
                let id = Uuid::from_u128(n as u128);
                ledger.book(id, wish.class, wish.rate, wish.window, &wish.links);
                if n != which {
                    without.book(id, wish.class, wish.rate, wish.window, &wish.links);
                }
            }
            let changing = Some(Uuid::from_u128(which as u128));
            let probe = &wishes[which];
            for class in [Class::Dedicated, Class::Guaranteed, Class::BestEffort] {
                prop_assert_eq!(
                    ledger.max_rate(&probe.links, class, &probe.window, changing),
                    without.max_rate(&probe.links, class, &probe.window, None)
                );
            }
            ledger.release(Uuid::from_u128(which as u128));
            for second in 0..80 {
                for link in ["l0", "l1", "l2"] {
                    let now = window(second, second + 1);
                    prop_assert_eq!(ledger.peak(link, &now), without.peak(link, &now));
                }
            }
        }
    }
}
