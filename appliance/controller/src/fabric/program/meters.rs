//! The guards: a meter for every member of a slice that promises a rate, at the member's own switch
//! and nowhere else, and which meter of a switch is whose.

use super::{COOKIE, COOKIE_MASK, tag_of};
use crate::fabric::Intent;
use dtn_api::{MacAddress, slice::Class};
use dtn_openflow::{
    Band, Field, FlowStats, Instruction, METER_BURST, METER_KBPS, METER_MAX, METER_STATS,
    MeterConfig,
};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The rate of a guard, percent of what is promised. The hosts keep to the rate themselves; a guard
/// at the same rate would drop for the jitter of their clocks, and a drop costs TCP more than the
/// 5 % that links keep free.
const RATE_PERCENT: u64 = 105;
/// Smallest burst: a large send of a host comes at the speed of its NIC, 64 kB at a time and a few
/// in a row, however low the rate.
const SMALLEST_BURST_BYTES: u64 = 256 * 1000;
/// Shortest burst: a meter of Open vSwitch takes in tokens once per millisecond
/// (`lib/dpif-netdev.c`), and a bucket of a few ticks still passes its rate.
const SHORTEST_BURST_MS: u64 = 5;
/// The burst counts, which would be one second of the rate otherwise; units are kilobits.
const FLAGS: u16 = METER_KBPS | METER_BURST | METER_STATS;

/// What a meter does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeterSpec {
    /// Above this many kbit/s of frames it drops.
    pub rate_kbit: u32,
    /// This many kbit may pass at once.
    pub burst_kbit: u32,
}
impl MeterSpec {
    /// The guard of each member of a slice; none where nothing is promised.
    pub fn of(intent: &Intent) -> Option<Self> {
        (intent.class != Class::BestEffort)
            .then(|| Self::guarding(intent.rate_bps, intent.burst_ms))
    }
    /// The guard of a sender that was promised a rate, with a burst of so many milliseconds of it.
    pub fn guarding(rate_bps: u64, burst_ms: u32) -> Self {
        let kbit = |value: u128| u32::try_from(value).unwrap_or(u32::MAX);
        let rate = u128::from(rate_bps);
        let burst = rate * u128::from(u64::from(burst_ms).max(SHORTEST_BURST_MS)) / 1000;
        let burst = burst.max(u128::from(SMALLEST_BURST_BYTES * 8));
        Self {
            rate_kbit: kbit((rate * u128::from(RATE_PERCENT)).div_ceil(100 * 1000)),
            burst_kbit: kbit(burst.div_ceil(1000)),
        }
    }
    /// What a meter in a switch does; none when it is not one of this kind.
    pub fn read(meter: &MeterConfig) -> Option<Self> {
        let counted = METER_KBPS | METER_BURST;
        match meter.bands.as_slice() {
            [Band::Drop { rate, burst_size }] if meter.flags & counted == counted => Some(Self {
                rate_kbit: *rate,
                burst_kbit: *burst_size,
            }),
            _ => None,
        }
    }
    /// As OpenFlow has it.
    pub fn meter(self) -> (u16, Vec<Band>) {
        let band = Band::Drop {
            rate: self.rate_kbit,
            burst_size: self.burst_kbit,
        };
        (FLAGS, vec![band])
    }
}

/// Whose a guard is: a member is in a slice once, and enters by one switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuardKey {
    /// The slice's tag.
    pub tag: u16,
    /// The member's hardware address.
    pub mac: MacAddress,
}

/// A guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// The slice.
    pub slice: Uuid,
    /// What it lets pass.
    pub spec: MeterSpec,
}

/// Which meters a switch's flows of ours hand their frames to, by member; this is how ids live on
/// when the controller starts anew. Two while a meter is being changed.
pub fn guards_of(flows: &[FlowStats]) -> BTreeMap<GuardKey, BTreeSet<u32>> {
    let mut guards: BTreeMap<GuardKey, BTreeSet<u32>> = BTreeMap::new();
    for flow in flows.iter().filter(|f| f.cookie & COOKIE_MASK == COOKIE) {
        let mac = flow.matches.0.iter().find_map(|field| match field {
            Field::EthSrc { value, mask: None } => Some(MacAddress::new(*value)),
            _ => None,
        });
        let meter = flow.instructions.iter().find_map(|i| match i {
            Instruction::Meter(id) => Some(*id),
            _ => None,
        });
        if let (Some(tag), Some(mac), Some(id)) = (tag_of(flow.cookie), mac, meter) {
            guards.entry(GuardKey { tag, mac }).or_default().insert(id);
        }
    }
    guards
}

/// Gives every guard its meter: the one that it has, if that does what is wanted; otherwise the
/// lowest id that nothing has. A guard whose rate changes so gets a new meter, its flows are put on
/// it and only then does the old one go: changed in place, or deleted first, it would take flows or
/// frames with it. `existing` is what the switch's flows use ([`guards_of`]), `meters` what meters
/// it has, `max_meter` the highest id that it takes. Guards for which none is left come second.
pub fn assign(
    existing: &BTreeMap<GuardKey, BTreeSet<u32>>,
    meters: &[MeterConfig],
    wanted: &BTreeMap<GuardKey, Guard>,
    max_meter: u32,
) -> (BTreeMap<GuardKey, u32>, Vec<GuardKey>) {
    let meters: BTreeMap<u32, Option<MeterSpec>> = meters
        .iter()
        .map(|meter| (meter.meter_id, MeterSpec::read(meter)))
        .collect();
    let mut given = BTreeSet::new();
    let mut ids = BTreeMap::new();
    for (key, guard) in wanted {
        let has = existing.get(key).into_iter().flatten();
        let mut has = has.filter(|id| (1..=max_meter).contains(*id) && !given.contains(*id));
        // one that is not there is made under its id
        let kept = has
            .clone()
            .find(|id| meters.get(id) == Some(&Some(guard.spec)))
            .or_else(|| has.find(|id| !meters.contains_key(id)))
            .copied();
        if let Some(id) = kept {
            given.insert(id);
            ids.insert(*key, id);
        }
    }
    let used = |id: &u32| meters.contains_key(id) || existing.values().any(|ids| ids.contains(id));
    let mut free = (1..=max_meter.min(METER_MAX)).filter(|id| !used(id) && !given.contains(id));
    let mut without = Vec::new();
    for key in wanted.keys() {
        if ids.contains_key(key) {
            continue;
        }
        match free.next() {
            Some(id) => {
                ids.insert(*key, id);
            }
            None => without.push(*key),
        }
    }
    (ids, without)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> GuardKey {
        GuardKey {
            tag: 1,
            mac: MacAddress::new([2, 0, 0, 0, 0, n]),
        }
    }
    fn guard(rate_bps: u64) -> Guard {
        Guard {
            slice: Uuid::nil(),
            spec: MeterSpec::guarding(rate_bps, 10),
        }
    }
    fn meter(id: u32, spec: MeterSpec) -> MeterConfig {
        let (flags, bands) = spec.meter();
        MeterConfig {
            flags,
            meter_id: id,
            bands,
        }
    }
    fn used(of: &BTreeMap<GuardKey, u32>) -> BTreeMap<GuardKey, BTreeSet<u32>> {
        of.iter().map(|(k, id)| (*k, [*id].into())).collect()
    }

    #[test]
    fn a_guard_lets_a_twentieth_more_pass_and_a_burst() {
        let spec = |rate, burst| {
            let MeterSpec {
                rate_kbit,
                burst_kbit,
            } = MeterSpec::guarding(rate, burst);
            (rate_kbit, burst_kbit)
        };
        assert_eq!(spec(10_000_000_000, 10), (10_500_000, 100_000));
        assert_eq!(spec(200_000_000, 10), (210_000, 2048), "256 kB at least");
        assert_eq!(spec(10_000_000_000, 1), (10_500_000, 50_000));
        assert_eq!(spec(1, 10), (1, 2048), "rounded up");
        assert_eq!(spec(u64::MAX, u32::MAX), (u32::MAX, u32::MAX));
    }

    #[test]
    fn ids_are_kept_and_the_lowest_free_is_taken() {
        let wanted: BTreeMap<_, _> = (1..=3).map(|n| (key(n), guard(1_000_000))).collect();
        let (first, none) = assign(&BTreeMap::new(), &[], &wanted, 10);
        assert_eq!(first.values().copied().collect::<Vec<_>>(), [1, 2, 3]);
        assert!(none.is_empty());
        let meters: Vec<_> = first
            .values()
            .map(|id| meter(*id, guard(1_000_000).spec))
            .collect();
        // the first member goes, another comes: nobody else's meter changes
        let mut later = wanted.clone();
        later.remove(&key(1));
        later.insert(key(9), guard(1_000_000));
        let (second, _) = assign(&used(&first), &meters, &later, 10);
        assert_eq!(second[&key(2)], 2);
        assert_eq!(second[&key(3)], 3);
        assert_eq!(second[&key(9)], 4, "1 is still on the switch");
        let (third, _) = assign(&used(&second), &meters[1..], &later, 10);
        assert_eq!(third, second, "4 is not there yet and keeps its id");
        let (fourth, _) = assign(&used(&first), &meters[1..], &later, 10);
        assert_eq!(fourth[&key(9)], 4, "a flow still uses 1");
    }

    #[test]
    fn another_rate_is_another_meter() {
        let wanted = BTreeMap::from([(key(1), guard(2_000_000))]);
        let meters = [meter(1, guard(1_000_000).spec)];
        let existing = BTreeMap::from([(key(1), [1].into())]);
        let (ids, _) = assign(&existing, &meters, &wanted, 10);
        assert_eq!(ids[&key(1)], 2);
        // half done: some flows on the new one already
        let meters = [meters[0].clone(), meter(2, guard(2_000_000).spec)];
        let existing = BTreeMap::from([(key(1), [1, 2].into())]);
        let (ids, _) = assign(&existing, &meters, &wanted, 10);
        assert_eq!(ids[&key(1)], 2);
    }

    #[test]
    fn a_switch_without_meters_left_says_for_whom() {
        let wanted: BTreeMap<_, _> = (1..=3).map(|n| (key(n), guard(1_000_000))).collect();
        let (ids, without) = assign(&BTreeMap::new(), &[], &wanted, 2);
        assert_eq!((ids.len(), without), (2, vec![key(3)]));
        let (ids, without) = assign(&BTreeMap::new(), &[], &wanted, 0);
        assert_eq!((ids.len(), without.len()), (0, 3));
        let others = [meter(1, guard(7).spec)];
        let (ids, without) = assign(&BTreeMap::new(), &others, &wanted, 2);
        assert_eq!(ids.values().copied().collect::<Vec<_>>(), [2]);
        assert_eq!(without.len(), 2);
    }
}
