//! The life of a slice: hold, commit, abort, extend, provision, release, terminate, and what time
//! does to it. Pure: a booking, what is asked and the time in; a booking or a problem out.
//!
//! Four states stand apart (reservation, provision, lifecycle, data plane), because each changes
//! for its own reasons; none is derived from another in storage.

use crate::{
    addresses,
    admission::{Ledger, Share, later_by},
    fabric::Verdict,
    gateways,
};
use dtn_api::{
    HostId, Problem,
    host::Enforcement,
    problem::Kind,
    slice::{
        Class, Condition, DataPlane, Lifecycle, Mode, Provision, Reservation, Role, Schedule,
        Slice, SliceSpec, SliceStatus,
    },
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Longest hold, in seconds.
pub const LONGEST_HOLD: u32 = 900;
/// How long an ended slice can be looked up, in seconds: 30 days.
pub const KEPT_SECONDS: u32 = 30 * 86_400;
/// Greatest tag: it is a VLAN on the fabric's own cables (IEEE 802.1Q).
const LAST_TAG: u16 = 4094;
/// Most members of a slice.
pub const MOST_MEMBERS: usize = 4096;
/// Most labels of a slice, and longest key or value of one, in bytes.
const MOST_LABELS: usize = 64;
const LONGEST_LABEL: usize = 256;

/// A slice with what is booked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booking {
    /// As everybody sees it.
    pub slice: Slice,
    /// What it takes of which link. Kept, so that a NIC that changes its speed later does not
    /// change what was promised.
    pub shares: Vec<Share>,
    /// 1 to 4094, unique among the slices that are booked: what the fabric tells its packets by.
    #[serde(default)]
    pub tag: Option<u16>,
    /// What its senders are paced to, as read back by their nodes.
    #[serde(default)]
    pub reports: BTreeMap<HostId, Enforcement>,
    /// When it ended.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
    /// NICs that joined by themselves and have nothing on them, and since when.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub idle: BTreeMap<HostId, Timestamp>,
}

/// What can be asked of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make the booking last for its window.
    Commit,
    /// Give it back before commit.
    Abort,
    /// Want the data plane.
    Provision,
    /// Want it no more.
    Release,
    /// End it now.
    Terminate,
    /// Give it a later end.
    Extend(Timestamp),
}

/// Everything that is wrong with a request for a slice, as far as it can be said without the state.
pub fn check(spec: &SliceSpec, longest_window: u64, now: Timestamp) -> Result<(), Problem> {
    let mut wrong = Problem::new(
        Kind::InvalidRequest,
        format!("slice {} cannot be asked for so", spec.name),
    );
    let mut not_built = Problem::new(
        Kind::NotBuilt,
        format!(
            "slice {} asks for what this build does not carry out",
            spec.name
        ),
    );
    let Schedule { start, end } = spec.schedule;
    if end <= start {
        wrong = wrong.at("/schedule/end", format!("{end} is not after {start}"));
    } else if end <= now {
        wrong = wrong.at("/schedule/end", format!("{end} is past: it is {now}"));
    } else if end.duration_since(start.max(now)) > SignedDuration::from_secs(longest_window as i64)
    {
        wrong = wrong.at(
            "/schedule/end",
            format!("the window is longer than {longest_window} s, which this domain allows"),
        );
    }
    if spec.qos.rate_bps == 0 && spec.qos.class != Class::BestEffort {
        wrong = wrong.at("/qos/rate_bps", "must be above 0");
    }
    if !(1..=1000).contains(&spec.qos.burst_ms) {
        wrong = wrong.at("/qos/burst_ms", "must be from 1 to 1000");
    }
    if !(1..=LONGEST_HOLD).contains(&spec.hold_seconds) {
        wrong = wrong.at("/hold_seconds", format!("must be from 1 to {LONGEST_HOLD}"));
    }
    if spec.members.len() < 2 || spec.members.len() > MOST_MEMBERS {
        wrong = wrong.at("/members", format!("must be 2 to {MOST_MEMBERS}"));
    } else if spec.qos.mode == Mode::Pair && spec.members.len() != 2 {
        wrong = wrong.at(
            "/members",
            "mode pair has exactly two: mode hose takes more",
        );
    }
    if spec.open && spec.qos.mode == Mode::Pair {
        wrong = wrong.at("/open", "mode pair has exactly two: mode hose takes more");
    } else if spec.open && spec.members.iter().any(|m| m.border_link.is_some()) {
        let why = "its members are agreed with the domain beyond the border link";
        wrong = wrong.at("/open", why);
    }
    let mut seen = BTreeSet::new();
    let mut gateway = None;
    for (n, member) in spec.members.iter().enumerate() {
        if member.joined {
            let why = "is the controller's to say: leave it out";
            wrong = wrong.at(format!("/members/{n}/joined"), why);
        }
        match (&member.host, &member.border_link) {
            (Some(host), None) if !seen.insert(host.to_string()) => {
                wrong = wrong.at(format!("/members/{n}"), format!("{host} is named twice"));
            }
            (None, Some(link)) if !seen.insert(link.to_string()) => {
                wrong = wrong.at(format!("/members/{n}"), format!("{link} is named twice"));
            }
            (Some(_), None) | (None, Some(_)) => {}
            _ => {
                wrong = wrong.at(
                    format!("/members/{n}"),
                    "give host or border_link, and one of them only",
                );
            }
        }
        if member.role != Role::Gateway {
            continue;
        }
        let at = format!("/members/{n}/role");
        if member.border_link.is_some() {
            wrong = wrong.at(at, "a border link is no gateway: leave the role out");
        } else if let Some(first) = gateway {
            wrong = wrong.at(
                at,
                format!("a slice has one gateway at most, and /members/{first} is one"),
            );
        } else {
            gateway = Some(n);
        }
    }
    if let Some(path) = &spec.path {
        let wishes = [
            (
                "strategy",
                path.strategy.as_deref().is_some_and(|s| s != "tree"),
            ),
            ("max_latency_us", path.max_latency_us.is_some()),
            ("avoid", !path.avoid.is_empty()),
            (
                "protection",
                path.protection.as_deref().is_some_and(|p| p != "none"),
            ),
        ];
        for (field, _) in wishes.into_iter().filter(|(_, wished)| *wished) {
            not_built = not_built.at(
                format!("/path/{field}"),
                "only the tree without protection is built: leave the field out",
            );
        }
    }
    if let Some(addressing) = &spec.addressing {
        for (field, why) in addresses::faults(addressing) {
            wrong = wrong.at(format!("/addressing/{field}"), why);
        }
        let pools = [("ipv4", &addressing.ipv4), ("ipv6", &addressing.ipv6)];
        for (family, pool) in pools {
            if gateway.is_none() && pool.as_ref().is_some_and(|pool| pool.gateway.is_some()) {
                wrong = wrong.at(
                    format!("/addressing/{family}/gateway"),
                    "the slice has no gateway: add one to its members with role gateway, or leave \
                     the field out",
                );
            }
        }
    }
    let long = |text: &String| text.len() > LONGEST_LABEL;
    if spec.labels.len() > MOST_LABELS || spec.labels.iter().any(|(k, v)| long(k) || long(v)) {
        wrong = wrong.at(
            "/labels",
            format!("at most {MOST_LABELS} labels of {LONGEST_LABEL} bytes"),
        );
    }
    if !wrong.errors.is_empty() {
        return Err(wrong);
    }
    match not_built.errors.is_empty() {
        true => Ok(()),
        false => Err(not_built),
    }
}

/// A new slice, held. Whether it fits was decided before.
pub fn hold(id: Uuid, spec: SliceSpec, shares: Vec<Share>, now: Timestamp) -> Booking {
    let expires = later_by(now, spec.hold_seconds);
    let links = shares.iter().map(|share| share.link.clone()).collect();
    Booking {
        slice: Slice {
            id,
            spec,
            status: SliceStatus {
                reservation: Reservation::Held,
                provision: Provision::Released,
                lifecycle: Lifecycle::Created,
                data_plane: DataPlane::Deactivated,
                generation: 1,
                observed_generation: 0,
                hold_expires_at: Some(expires),
                links,
                conditions: vec![Condition {
                    kind: "Admitted".into(),
                    status: true,
                    reason: "every link of its tree admits it for the whole window".into(),
                }],
            },
            stitch: None,
            version: 1,
            created_at: now,
        },
        shares,
        tag: None,
        reports: BTreeMap::new(),
        ended_at: None,
        idle: BTreeMap::new(),
    }
}

/// A tag for a new slice: the next one after the youngest slice's that no booked slice has, so that
/// one is not given again soon after its slice has ended.
pub fn free_tag<'a>(bookings: impl Iterator<Item = &'a Booking>, now: Timestamp) -> Option<u16> {
    let (mut used, mut youngest) = (BTreeSet::new(), None);
    for booking in bookings {
        let Some(tag) = booking.tag else { continue };
        youngest = youngest.max(Some((booking.slice.created_at, tag)));
        if booking.slice.booked_at(now) {
            used.insert(tag);
        }
    }
    let last = youngest.map_or(0, |(_, tag)| tag);
    (last + 1..=LAST_TAG)
        .chain(1..=last)
        .find(|tag| !used.contains(tag))
}

/// Everything that is booked now, but for one slice.
pub fn ledger<'a>(
    bookings: impl Iterator<Item = &'a Booking>,
    except: Option<Uuid>,
    now: Timestamp,
) -> Ledger {
    let mut ledger = Ledger::default();
    for booking in bookings.filter(|b| Some(b.slice.id) != except && b.slice.booked_at(now)) {
        let spec = &booking.slice.spec;
        ledger.book(
            booking.slice.id,
            spec.qos.class,
            spec.qos.rate_bps,
            spec.schedule,
            &booking.shares,
        );
    }
    ledger
}

fn conflict(slice: &Slice, what: &str, remedy: &str) -> Problem {
    Problem::new(
        Kind::StateConflict,
        format!("slice {} {what}: {remedy}", slice.spec.name),
    )
}

fn ended(slice: &Slice, now: Timestamp) -> bool {
    slice.status.lifecycle != Lifecycle::Created
        || (slice.status.reservation == Reservation::Committed && now >= slice.spec.schedule.end)
}

/// Carries out an action. `others` is the ledger without this slice. An action whose result is
/// there already changes nothing and is success.
pub fn act(
    booking: &Booking,
    action: Action,
    others: &Ledger,
    now: Timestamp,
) -> Result<Booking, Problem> {
    let slice = &booking.slice;
    let status = &slice.status;
    let mut next = booking.clone();
    match action {
        Action::Commit => match status.reservation {
            Reservation::Committed => return Ok(next),
            Reservation::Held if slice.booked_at(now) => commit(&mut next),
            Reservation::Held | Reservation::TimedOut => {
                return Err(Problem::new(
                    Kind::HoldExpired,
                    format!(
                        "the hold of slice {} ran out{}: reserve it again",
                        slice.spec.name,
                        status
                            .hold_expires_at
                            .map_or_else(String::new, |at| format!(" at {at}"))
                    ),
                ));
            }
            Reservation::Aborted => {
                return Err(conflict(slice, "was aborted", "reserve it again"));
            }
        },
        Action::Abort => match status.reservation {
            Reservation::Aborted | Reservation::TimedOut => return Ok(next),
            Reservation::Held => end(&mut next, Reservation::Aborted, Lifecycle::Created, now),
            Reservation::Committed => {
                return Err(conflict(slice, "is committed", "terminate ends it"));
            }
        },
        Action::Terminate => match (status.lifecycle, status.reservation) {
            (Lifecycle::Terminated | Lifecycle::PassedEndTime, _)
            | (_, Reservation::Aborted | Reservation::TimedOut) => return Ok(next),
            (_, Reservation::Held) => {
                end(&mut next, Reservation::Aborted, Lifecycle::Terminated, now);
            }
            (_, Reservation::Committed) => {
                end(
                    &mut next,
                    Reservation::Committed,
                    Lifecycle::Terminated,
                    now,
                );
            }
        },
        Action::Provision | Action::Release => {
            if status.reservation != Reservation::Committed || ended(slice, now) {
                return Err(conflict(
                    slice,
                    "is not committed or has ended",
                    "only a committed slice has a data plane",
                ));
            }
            let wish = match action {
                Action::Provision => Provision::Provisioned,
                _ => Provision::Released,
            };
            if status.provision == wish {
                return Ok(next);
            }
            next.slice.status.provision = wish;
            next.slice.status.generation += 1;
        }
        Action::Extend(end) => {
            if end == slice.spec.schedule.end {
                return Ok(next);
            }
            if !slice.booked_at(now) {
                return Err(conflict(slice, "has ended", "reserve another one"));
            }
            if end < slice.spec.schedule.end {
                return Err(Problem::new(
                    Kind::InvalidRequest,
                    format!(
                        "slice {} ends at {} and can be given a later end only: terminate ends it now",
                        slice.spec.name, slice.spec.schedule.end
                    ),
                )
                .at("/end", format!("{end} is earlier")));
            }
            let window = Schedule {
                start: slice.spec.schedule.start.max(now),
                end,
            };
            let qos = &slice.spec.qos;
            others.admit(&booking.shares, qos.class, qos.rate_bps, &window, None)?;
            next.slice.spec.schedule.end = end;
            next.slice.status.generation += 1;
        }
    }
    next.slice.version += 1;
    Ok(next)
}

/// Held to committed.
fn commit(booking: &mut Booking) {
    let status = &mut booking.slice.status;
    status.reservation = Reservation::Committed;
    status.hold_expires_at = None;
    if booking.slice.spec.auto_provision {
        status.provision = Provision::Provisioned;
    }
}

fn end(booking: &mut Booking, reservation: Reservation, lifecycle: Lifecycle, now: Timestamp) {
    let status = &mut booking.slice.status;
    status.reservation = reservation;
    status.lifecycle = lifecycle;
    status.provision = Provision::Released;
    status.data_plane = DataPlane::Deactivated;
    status.hold_expires_at = None;
    booking.reports.clear();
    booking.idle.clear();
    booking.ended_at = Some(now);
}

/// Sets another end without asking anybody: what a stitch's coordinator does when the other side
/// refused the longer window that this side had booked already.
pub fn set_end(booking: &Booking, at: Timestamp) -> Booking {
    let mut next = booking.clone();
    next.slice.spec.schedule.end = at;
    next.slice.status.generation += 1;
    next.slice.version += 1;
    next
}

/// What time has done to a slice, if anything.
pub fn age(booking: &Booking, now: Timestamp) -> Option<(Booking, &'static str)> {
    let slice = &booking.slice;
    if slice.status.lifecycle != Lifecycle::Created || slice.booked_at(now) {
        return None;
    }
    let mut next = booking.clone();
    let what = match slice.status.reservation {
        Reservation::Held => {
            end(&mut next, Reservation::TimedOut, Lifecycle::Created, now);
            "slice.timed-out"
        }
        Reservation::Committed => {
            end(
                &mut next,
                Reservation::Committed,
                Lifecycle::PassedEndTime,
                now,
            );
            "slice.passed-end-time"
        }
        Reservation::TimedOut | Reservation::Aborted => return None,
    };
    next.slice.version += 1;
    Some((next, what))
}

/// Whether an ended slice need not be remembered any more.
pub fn forgotten(booking: &Booking, now: Timestamp) -> bool {
    booking
        .ended_at
        .is_some_and(|ended| now >= later_by(ended, KEPT_SECONDS))
}

/// The booking with what is said of its gateway, in place of what was said before; nothing where
/// it has none, or carries nothing.
pub fn gateway_said(booking: &Booking, said: Option<Condition>, now: Timestamp) -> Booking {
    let mut next = booking.clone();
    let said = said.filter(|_| booking.slice.carries_at(now));
    let kind = gateways::SERVES;
    next.slice.status.conditions.retain(|c| c.kind != kind);
    next.slice.status.conditions.extend(said);
    next
}

/// The data plane as it follows from the wish, the window and what was read back.
/// `peer_silent` names the other domain of a stitched slice when it is not heard.
pub fn observe(
    booking: &Booking,
    verdict: &Verdict,
    peer_silent: Option<&str>,
    now: Timestamp,
) -> Option<Booking> {
    let slice = &booking.slice;
    if slice.status.lifecycle != Lifecycle::Created {
        return None;
    }
    let carries = slice.carries_at(now);
    let was = slice.status.data_plane;
    let before = matches!(was, DataPlane::Active | DataPlane::Degraded);
    let (data_plane, holds, reason) = match (carries, verdict.enforced, peer_silent) {
        (false, ..) => (
            DataPlane::Deactivated,
            false,
            "not committed, not provisioned or not in its window".to_owned(),
        ),
        (true, true, None) => (DataPlane::Active, true, verdict.reason.clone()),
        (true, true, Some(peer)) => (
            if before {
                DataPlane::Degraded
            } else {
                DataPlane::Activating
            },
            true,
            format!("{}; domain {peer} is not heard", verdict.reason),
        ),
        (true, false, _) if before && verdict.present => {
            (DataPlane::Degraded, false, verdict.reason.clone())
        }
        (true, false, _) => (DataPlane::Activating, false, verdict.reason.clone()),
    };
    let mut conditions = vec![Condition {
        kind: "SenderShaped".into(),
        status: holds,
        reason,
    }];
    if let Some(peer) = peer_silent.filter(|_| slice.stitch.is_some()) {
        conditions.push(Condition {
            kind: "PeerHeard".into(),
            status: false,
            reason: format!("domain {peer} is not heard; its side is as it was last"),
        });
    }
    let mut next = booking.clone();
    let status = &mut next.slice.status;
    status
        .conditions
        .retain(|c| c.kind != "SenderShaped" && c.kind != "PeerHeard");
    status.conditions.extend(conditions);
    status.data_plane = data_plane;
    if data_plane == DataPlane::Active {
        status.observed_generation = status.generation;
    }
    (next != *booking).then(|| {
        next.slice.version += 1;
        next
    })
}
