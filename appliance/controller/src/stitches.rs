//! Stitches: one slice per domain, joined over a border link. The rules, without I/O.
//!
//! The initiator coordinates. It holds its own part and asks the other domain to hold; it writes
//! down that it commits before it says so to anybody; a participant honours a commit that comes
//! before its hold runs out and refuses one that comes later, and then nothing is booked anywhere.
//! Whatever was written down and not yet answered is asked again until it is.

use crate::admission::later_by;
use dtn_api::{
    Name, Problem,
    problem::Kind,
    slice::{Addressing, Lifecycle, Reservation, Slice},
    stitch::{Stitch, StitchProposal, StitchState},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A stitch as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StitchRow {
    /// As everybody sees it.
    pub stitch: Stitch,
    /// Whether this domain coordinates.
    pub coordinator: bool,
    /// What the other domain has still to be told.
    #[serde(default)]
    pub owed: Option<Owed>,
    /// What the other domain said when it last refused, for whoever had asked.
    #[serde(default)]
    pub refused: Option<Problem>,
    /// When it ended.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
}

/// What the other domain has still to be told, until it has answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owed {
    /// Commit; on a refusal nothing stays booked.
    Commit,
    /// Give the hold back. Not worth a call any more after this instant: the hold is over.
    Abort(Timestamp),
    /// End.
    Terminate,
    /// Extend to `to`; on a refusal go back to `from`.
    Extend {
        /// The end before.
        from: Timestamp,
        /// The end that this side has booked.
        to: Timestamp,
    },
}

/// A stitch whose own part is held, before the other domain is asked.
pub fn propose(
    id: Uuid,
    initiator: &Name,
    peer: &Name,
    border_link: &Name,
    slice: &Slice,
) -> StitchRow {
    StitchRow {
        stitch: Stitch {
            id,
            initiator: initiator.clone(),
            peer: peer.clone(),
            slice_id: slice.id,
            peer_slice_id: None,
            border_link: border_link.clone(),
            label: None,
            state: StitchState::Proposed,
            hold_expires_at: slice.status.hold_expires_at,
            reason: None,
            version: 1,
        },
        coordinator: true,
        owed: None,
        refused: None,
        ended_at: None,
    }
}

/// The participant's part, held, with the label that it chose.
pub fn accept(
    proposal: &StitchProposal,
    border_link: &Name,
    label: Option<u16>,
    slice: &Slice,
) -> StitchRow {
    StitchRow {
        stitch: Stitch {
            id: proposal.stitch_id,
            initiator: proposal.initiator.clone(),
            peer: proposal.initiator.clone(),
            slice_id: slice.id,
            peer_slice_id: None,
            border_link: border_link.clone(),
            label,
            state: StitchState::Held,
            hold_expires_at: slice.status.hold_expires_at,
            reason: None,
            version: 1,
        },
        coordinator: false,
        owed: None,
        refused: None,
        ended_at: None,
    }
}

impl StitchRow {
    /// The same in another state.
    pub fn to(&self, state: StitchState) -> Self {
        let mut next = self.clone();
        next.stitch.state = state;
        next.stitch.version += 1;
        next
    }
    /// The same with the reason why.
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.stitch.reason = Some(reason.into());
        self
    }
    /// The same with something that the other domain must be told, or nothing.
    pub fn owing(mut self, owed: Option<Owed>) -> Self {
        self.owed = owed;
        self
    }
    /// The same with the refusal of the other domain, or none any more.
    pub fn refused_with(mut self, problem: Option<Problem>) -> Self {
        self.refused = problem;
        self
    }
    /// The same, over.
    pub fn ended(mut self, now: Timestamp) -> Self {
        self.ended_at = Some(now);
        self.stitch.hold_expires_at = None;
        self
    }
    /// Whether it is over on this side.
    pub fn over(&self) -> bool {
        matches!(
            self.stitch.state,
            StitchState::Terminated
                | StitchState::Rejected
                | StitchState::TimedOut
                | StitchState::Aborted
        )
    }
}

/// Both parts are held: the earlier of the two holds counts.
pub fn both_held(row: &StitchRow, theirs: &Stitch) -> StitchRow {
    let mut next = row.to(StitchState::Held);
    next.stitch.peer_slice_id = Some(theirs.slice_id);
    next.stitch.label = theirs.label;
    next.stitch.hold_expires_at = match (row.stitch.hold_expires_at, theirs.hold_expires_at) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    };
    next
}

/// Whether the coordinator may decide to commit now.
pub fn may_commit(row: &StitchRow, now: Timestamp) -> Result<(), Problem> {
    let stitch = &row.stitch;
    match stitch.state {
        StitchState::Held if stitch.hold_expires_at.is_some_and(|at| now < at) => Ok(()),
        StitchState::Committing | StitchState::Committed => Ok(()),
        StitchState::Held | StitchState::TimedOut => Err(Problem::new(
            Kind::HoldExpired,
            format!(
                "the holds of stitch {} ran out: reserve it again",
                stitch.id
            ),
        )),
        other => Err(Problem::new(
            Kind::StateConflict,
            format!("stitch {} is {other:?} and cannot be committed", stitch.id),
        )),
    }
}

/// The state of a stitch that follows from its own slice, where time or an action on the slice has
/// changed that.
pub fn follow(row: &StitchRow, slice: &Slice, now: Timestamp) -> Option<StitchRow> {
    if row.over() {
        return None;
    }
    let status = &slice.status;
    match (row.stitch.state, status.reservation, status.lifecycle) {
        (StitchState::Proposed | StitchState::Held, Reservation::TimedOut, _) => Some(
            row.to(StitchState::TimedOut)
                .because("the hold ran out before commit")
                .ended(now),
        ),
        (StitchState::Committed, _, Lifecycle::PassedEndTime) => Some(
            row.to(StitchState::Terminated)
                .because("its window is over")
                .owing(None)
                .ended(now),
        ),
        _ => None,
    }
}

/// Whether nobody needs to know it any more.
pub fn forgotten(row: &StitchRow, now: Timestamp) -> bool {
    row.ended_at
        .is_some_and(|at| now >= later_by(at, crate::slices::KEPT_SECONDS))
}

/// The addresses of both sides, or what is wrong with them.
pub fn deal(addressing: &Addressing) -> Result<(Addressing, Addressing), Problem> {
    crate::addresses::halves(addressing).map_err(|why| {
        Problem::new(
            Kind::InvalidRequest,
            "the addresses of the slice cannot be dealt to two sides",
        )
        .at("/addressing", why)
    })
}
