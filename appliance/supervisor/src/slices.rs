//! Slices as this host sees them: with what TCP can carry, what is paced, and what to be warned of.
//!
//! A slice that ends is told beforehand: in the log, in its `warning`, and as a metric. At its end
//! the promise is over and nothing is cut off: the pacing falls to best effort.

use crate::SliceView;
use dtn_api::{
    Rate,
    local::{LocalSlice, Paced},
    slice::{Class, DataPlane, Lifecycle, Reservation, Schedule, Slice},
};
use jiff::{SignedDuration, Timestamp};
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The longest time before its end that a slice is warned of.
const LONGEST_NOTICE: SignedDuration = SignedDuration::from_mins(10);
/// A view that is older than this is said to be old.
const STALE: SignedDuration = SignedDuration::from_secs(60);
/// MTU of a slice that states none.
const ETHERNET: u32 = 1500;

/// From when on its end is warned of: a tenth of its window before, at most 10 minutes.
pub fn warn_from(schedule: &Schedule) -> Timestamp {
    let whole = schedule.end.duration_since(schedule.start);
    let notice = (whole / 10).min(LONGEST_NOTICE).max(SignedDuration::ZERO);
    schedule.end.checked_sub(notice).unwrap_or(schedule.start)
}

/// Whether its end is near.
pub fn ends_soon(slice: &Slice, now: Timestamp) -> bool {
    slice.booked_at(now)
        && slice.status.reservation == Reservation::Committed
        && now >= warn_from(&slice.spec.schedule)
}

/// What there is to be warned of.
pub fn warning(slice: &Slice, view: &SliceView, now: Timestamp) -> Option<String> {
    let spec = &slice.spec;
    let mut all = Vec::new();
    let over = slice.status.lifecycle != Lifecycle::Created || now >= spec.schedule.end;
    if over {
        all.push(format!(
            "its promise is over since {}: what still runs in it is best effort",
            spec.schedule.end.min(now)
        ));
    } else if ends_soon(slice, now) {
        let left = spec.schedule.end.duration_since(now).as_secs();
        all.push(format!(
            "it ends in {left} s, at {}, and falls to best effort then: dtnctl slice extend {} \
             --by SPAN keeps it",
            spec.schedule.end, spec.name
        ));
    }
    if !over && slice.status.data_plane == DataPlane::Degraded {
        let why: Vec<&str> = slice
            .status
            .conditions
            .iter()
            .filter(|condition| !condition.status && !condition.reason.is_empty())
            .map(|condition| condition.reason.as_str())
            .collect();
        all.push(format!("its promise does not hold: {}", why.join("; ")));
    }
    if let Some(read_at) = view.read_at
        && now.duration_since(read_at) > STALE
    {
        all.push(format!(
            "as read at {read_at}: {}",
            if view.trouble.is_empty() {
                "the controller was silent since"
            } else {
                &view.trouble
            }
        ));
    }
    (!all.is_empty()).then(|| all.join("; "))
}

/// A slice with all of that.
pub fn local(
    slice: Slice,
    paced: &[(Uuid, Paced)],
    view: &SliceView,
    now: Timestamp,
) -> LocalSlice {
    let mtu = slice.spec.addressing.as_ref().map_or(ETHERNET, |a| a.mtu);
    LocalSlice {
        ceiling: match slice.spec.qos.class {
            Class::BestEffort => Rate::from_bps(0),
            _ => Rate::from_bps(slice.spec.qos.rate_bps).tcp_ceiling(mtu, false),
        },
        paced: paced
            .iter()
            .filter(|(id, _)| *id == slice.id)
            .map(|(_, paced)| paced.clone())
            .collect(),
        warning: warning(&slice, view, now),
        slice,
    }
}

/// Says in the log when a slice ends soon, and when it has ended; once for each end.
pub async fn watch_ends(mut view: watch::Receiver<SliceView>, stop: CancellationToken) {
    let mut told: BTreeMap<(Uuid, Timestamp), bool> = BTreeMap::new();
    loop {
        let now = Timestamp::now();
        let slices = view.borrow_and_update().slices.clone();
        tell(&slices, &mut told, now);
        tokio::select! {
            () = stop.cancelled() => return,
            changed = view.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

/// `told` has for each end whether it was told that it is over; absent: nothing was told.
fn tell(slices: &[Slice], told: &mut BTreeMap<(Uuid, Timestamp), bool>, now: Timestamp) {
    for slice in slices {
        if slice.status.reservation != Reservation::Committed {
            continue;
        }
        let end = slice.spec.schedule.end;
        let key = (slice.id, end);
        if now >= end {
            // a slice that was over before this process saw it is no news
            if told.insert(key, true) == Some(false) {
                tracing::warn!(slice = %slice.spec.name, %end, "the slice has ended: its traffic is best effort from now on");
            }
        } else if ends_soon(slice, now) && !told.contains_key(&key) {
            told.insert(key, false);
            tracing::warn!(slice = %slice.spec.name, %end, "the slice ends soon: dtnctl slice extend keeps it");
        }
    }
    told.retain(|(id, _), _| slices.iter().any(|slice| slice.id == *id));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }
    fn slice(start: i64, end: i64) -> Slice {
        serde_json::from_value(serde_json::json!({
            "id": Uuid::from_u128(1),
            "spec": {
                "name": "lhc",
                "qos": {"class": "guaranteed", "rate_bps": 600_000_000_u64},
                "members": [],
                "schedule": {"start": at(start), "end": at(end)},
                "addressing": {"mtu": 9000},
            },
            "status": {
                "reservation": "committed", "provision": "provisioned", "lifecycle": "created",
                "data_plane": "active", "generation": 1, "observed_generation": 1,
            },
            "version": 1,
            "created_at": at(0),
        }))
        .unwrap()
    }
    fn fresh(now: i64) -> SliceView {
        SliceView {
            slices: vec![],
            read_at: Some(at(now)),
            trouble: String::new(),
        }
    }

    #[test]
    fn the_notice_is_a_tenth_and_at_most_ten_minutes() {
        for (length, before) in [(100, 10), (6_000, 600), (86_400, 600), (5, 0)] {
            let schedule = slice(0, length).spec.schedule;
            let from = warn_from(&schedule);
            assert!(
                from >= at(length - before - 1) && from <= at(length),
                "{length}"
            );
            assert!(from <= at(length - before), "{length}");
        }
    }

    #[test]
    fn warnings_say_what_is_and_what_helps() {
        let slice = slice(0, 1000);
        assert_eq!(warning(&slice, &fresh(10), at(10)), None);
        let soon = warning(&slice, &fresh(950), at(950)).unwrap();
        assert!(
            soon.contains("in 50 s") && soon.contains("slice extend lhc"),
            "{soon}"
        );
        let over = warning(&slice, &fresh(1000), at(1000)).unwrap();
        assert!(over.contains("best effort"), "{over}");
        let mut degraded = slice.clone();
        degraded.status.data_plane = DataPlane::Degraded;
        degraded.status.conditions = vec![dtn_api::slice::Condition {
            kind: "SenderShaped".into(),
            status: false,
            reason: "nobody shapes".into(),
        }];
        let warned = warning(&degraded, &fresh(10), at(10)).unwrap();
        assert!(warned.contains("nobody shapes"), "{warned}");
        let stale = warning(&slice, &fresh(10), at(100)).unwrap();
        assert!(stale.contains("silent"), "{stale}");
    }

    #[test]
    fn each_end_is_told_once_and_an_extension_has_a_new_end() {
        let mut told = BTreeMap::new();
        tell(&[slice(0, 1000)], &mut told, at(10));
        assert!(told.is_empty());
        tell(&[slice(0, 1000)], &mut told, at(950));
        assert_eq!(told.len(), 1);
        tell(&[slice(0, 2000)], &mut told, at(1000));
        assert!(!told.contains_key(&(Uuid::from_u128(1), at(2000))));
        tell(&[slice(0, 2000)], &mut told, at(1900));
        tell(&[slice(0, 2000)], &mut told, at(2000));
        assert!(told[&(Uuid::from_u128(1), at(2000))]);
        tell(&[], &mut told, at(2001));
        assert!(told.is_empty());
    }

    #[test]
    fn the_ceiling_is_that_of_the_slices_mtu() {
        let paced = Paced {
            pod: "p".into(),
            ifname: "data".parse().unwrap(),
            rate: Some(Rate::from_bps(600_000_000)),
            by: "htb".into(),
        };
        let all = [
            (Uuid::from_u128(1), paced.clone()),
            (Uuid::from_u128(2), paced),
        ];
        let local = local(slice(0, 1000), &all, &fresh(0), at(0));
        // 600 Mb/s × (9000 − 52) / (9000 + 14)
        assert_eq!(local.ceiling.bps(), 595_606_833);
        assert_eq!(local.paced.len(), 1);
    }
}
