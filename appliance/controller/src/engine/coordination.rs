//! A stitch from its hold to its end: the own side's wish is written down before it is told, what is
//! owed to the other domain is told again until it is answered, and what the other domain asks of
//! this end is done here.

use super::{Decision, Engine, bookings::own_slice, check_version, not_found};
use crate::{
    auth::Principal,
    failpoint,
    slices::{self, Action, Booking},
    state::Change,
    stitches::{self, Owed, StitchRow},
};
use dtn_api::{
    Problem, VDN_BASE,
    problem::Kind,
    slice::Extend,
    stitch::{Stitch, StitchState},
};
use jiff::Timestamp;
use uuid::Uuid;

/// What becomes of the own end, with a change of the stitch.
pub(super) enum Own {
    /// It stays as it is.
    Same,
    /// An action, with all its rules.
    Act(Action),
    /// Its window is set back, since the other end refused a longer one.
    SetBack(Box<Booking>),
}

impl Engine {
    /// Acts on a stitch: for the own side's people on both ends, for the other domain on this one.
    pub async fn act_on_stitch(
        &self,
        who: &Principal,
        id: Uuid,
        action: Action,
        if_match: Option<u64>,
    ) -> Result<Stitch, Problem> {
        let row = self.stitch_row(who, id).await?;
        check_version(if_match, row.stitch.version, "the stitch")?;
        if let Principal::Peer(_) = who {
            let done = self.act_for_peer(who, id, action).await?;
            failpoint::reach("done-for-peer").await;
            return Ok(done);
        }
        if action == Action::Commit && !row.coordinator {
            let problem = format!(
                "domain {} coordinates this stitch: commit it there",
                row.stitch.peer
            );
            return Err(Problem::new(Kind::StateConflict, problem));
        }
        if action == Action::Commit && row.stitch.state == StitchState::Committed {
            return Ok(row.stitch);
        }
        self.own_stitch(who, &row).await?;
        let recorded = self.record_wish(who, id, action).await?;
        failpoint::reach("decided").await;
        if self.tell(id).await {
            return self
                .stitch_row(who, id)
                .await
                .and_then(|row| outcome(row, action));
        }
        self.owed.notify_one();
        Err(Problem::new(
            Kind::PeerTimeout,
            format!(
                "domain {} did not answer; this side has recorded it and goes on asking: see stitch {id}",
                recorded.peer
            ),
        ))
    }

    async fn own_stitch(&self, who: &Principal, row: &StitchRow) -> Result<(), Problem> {
        self.look(|state, _| match state.bookings.get(&row.stitch.slice_id) {
            Some(booking) => own_slice(state, who, &booking.slice.spec.members),
            None => Err(not_found("slice", &row.stitch.slice_id)),
        })
        .await
    }

    /// The own end and what is owed, in one commit, before anything is said.
    async fn record_wish(
        &self,
        who: &Principal,
        id: Uuid,
        action: Action,
    ) -> Result<Stitch, Problem> {
        self.change_stitch(who, id, |row, booking, now| {
            let end = booking.slice.spec.schedule.end;
            let next = match action {
                Action::Commit => {
                    stitches::may_commit(row, now)?;
                    row.to(StitchState::Committing)
                        .owing(Some(Owed::Commit))
                        .refused_with(None)
                }
                Action::Abort if row.over() => return Ok((row.clone(), Own::Same)),
                Action::Abort => {
                    let until = row.stitch.hold_expires_at.unwrap_or(now);
                    row.to(StitchState::Aborted)
                        .because("given back before commit")
                        .owing(Some(Owed::Abort(until)))
                        .ended(now)
                }
                Action::Terminate if row.over() => return Ok((row.clone(), Own::Same)),
                Action::Terminate => row
                    .to(StitchState::Terminating)
                    .because("ended by request")
                    .owing(Some(Owed::Terminate)),
                Action::Extend(to) if to == end => return Ok((row.clone(), Own::Same)),
                // two longer windows in the air at once could not both be taken back
                Action::Extend(_) if row.owed.is_some() || row.over() => {
                    let problem = format!(
                        "stitch {id} is {:?} and has not been told to domain {} yet: try again",
                        row.stitch.state, row.stitch.peer
                    );
                    return Err(Problem::new(Kind::StateConflict, problem));
                }
                Action::Extend(to) => row
                    .to(row.stitch.state)
                    .owing(Some(Owed::Extend { from: end, to }))
                    .refused_with(None),
                Action::Provision | Action::Release => row.clone(),
            };
            Ok((next, Own::Act(action)))
        })
        .await
    }

    /// What the other domain asks of this end.
    async fn act_for_peer(
        &self,
        who: &Principal,
        id: Uuid,
        action: Action,
    ) -> Result<Stitch, Problem> {
        self.change_stitch(who, id, |row, _, now| {
            let next = match action {
                Action::Commit if row.stitch.state == StitchState::Committed => row.clone(),
                Action::Commit if row.over() && row.stitch.state != StitchState::TimedOut => {
                    let problem = format!("stitch {id} is {:?} here", row.stitch.state);
                    return Err(Problem::new(Kind::StateConflict, problem));
                }
                // whether the hold still stands is the slice's to say
                Action::Commit => row.to(StitchState::Committed),
                Action::Abort if row.over() => return Ok((row.clone(), Own::Same)),
                Action::Abort => row
                    .to(StitchState::Aborted)
                    .because(format!("given back by domain {}", row.stitch.peer))
                    .ended(now),
                Action::Terminate if row.over() => return Ok((row.clone(), Own::Same)),
                Action::Terminate => row
                    .to(StitchState::Terminated)
                    .because(format!("ended by domain {}", row.stitch.peer))
                    .ended(now),
                Action::Extend(_) => row.clone(),
                Action::Provision | Action::Release => {
                    let problem = "another domain may not switch this one's data plane";
                    return Err(Problem::new(Kind::Forbidden, problem));
                }
            };
            Ok((next, Own::Act(action)))
        })
        .await
    }

    /// Tells the other domain what it has still to be told; `true` when nothing is owed any more.
    pub(super) async fn tell(&self, id: Uuid) -> bool {
        let row = self.look(|state, _| state.stitches.get(&id).cloned()).await;
        let Some((row, owed)) = row.and_then(|row| row.owed.clone().map(|owed| (row, owed))) else {
            return true;
        };
        if let Owed::Abort(until) = owed
            && Timestamp::now() >= until
        {
            // their hold is over by now
            return self.settle(id, &owed, Ok(())).await;
        }
        let verb = match &owed {
            Owed::Commit => "commit",
            Owed::Abort(_) => "abort",
            Owed::Terminate => "terminate",
            Owed::Extend { .. } => "extend",
        };
        let path = format!("{VDN_BASE}/stitches/{id}/actions/{verb}");
        let extend = match &owed {
            Owed::Extend { to, .. } => Some(Extend { end: *to }),
            _ => None,
        };
        let told = self
            .call(&row.stitch.peer, |client| async move {
                match extend {
                    Some(extend) => client.post::<_, Stitch>(&path, &extend).await.map(|_| ()),
                    None => client
                        .post::<_, Stitch>(&path, &serde_json::json!({}))
                        .await
                        .map(|_| ()),
                }
            })
            .await;
        failpoint::reach("told").await;
        match told {
            Err(problem) if problem.retryable => false,
            answered => self.settle(id, &owed, answered).await,
        }
    }

    /// What the other domain's answer means for this side.
    async fn settle(&self, id: Uuid, owed: &Owed, answer: Result<(), Problem>) -> bool {
        let done = self
            .change_stitch(&Principal::Itself, id, |row, booking, now| {
                if row.owed.as_ref() != Some(owed) {
                    return Ok((row.clone(), Own::Same));
                }
                let paid = row.clone().owing(None);
                Ok(match (owed, &answer) {
                    (Owed::Commit, Ok(())) => (paid.to(StitchState::Committed), Own::Same),
                    (Owed::Commit, Err(problem)) => {
                        // on any refusal nothing stays booked
                        let next = paid
                            .to(StitchState::Aborted)
                            .because(problem.to_string())
                            .refused_with(Some(problem.clone()));
                        (next.ended(now), Own::Act(Action::Terminate))
                    }
                    (Owed::Terminate, _) => {
                        (paid.to(StitchState::Terminated).ended(now), Own::Same)
                    }
                    (Owed::Extend { from, .. }, Err(problem)) => {
                        let back = slices::set_end(booking, *from);
                        let next = paid
                            .to(row.stitch.state)
                            .refused_with(Some(problem.clone()));
                        (next, Own::SetBack(Box::new(back)))
                    }
                    (Owed::Abort(_) | Owed::Extend { .. }, _) => (paid, Own::Same),
                })
            })
            .await;
        done.inspect_err(|e| tracing::warn!("stitch {id}: {e}"))
            .is_ok()
    }

    /// One change of a stitch and, with it, of its slice.
    pub(super) async fn change_stitch(
        &self,
        who: &Principal,
        id: Uuid,
        change: impl FnOnce(&StitchRow, &Booking, Timestamp) -> Result<(StitchRow, Own), Problem>,
    ) -> Result<Stitch, Problem> {
        self.decide(who, |state, now| {
            let row = state
                .stitches
                .get(&id)
                .ok_or_else(|| not_found("stitch", &id))?;
            let slice = row.stitch.slice_id;
            let booking = state
                .bookings
                .get(&slice)
                .ok_or_else(|| not_found("slice", &slice))?;
            let (next, own) = change(row, booking, now)?;
            let mut decision = match own {
                Own::Same => Decision::only(booking.slice.clone()),
                Own::Act(action) => self.acted(state, booking, action, now)?,
                Own::SetBack(back) => {
                    Decision::only(back.slice.clone()).change(Change::Booking(back))
                }
            };
            if next != *row {
                let what = event_of(next.stitch.state);
                let detail = next.stitch.reason.clone().unwrap_or_default();
                decision = decision.event(what, Some(id), detail);
                decision = decision.change(Change::Stitch(next.clone()));
            }
            Ok(Decision {
                answer: next.stitch,
                changes: decision.changes,
                events: decision.events,
            })
        })
        .await
    }

    /// A stitch that the caller may see.
    pub async fn stitch_row(&self, who: &Principal, id: Uuid) -> Result<StitchRow, Problem> {
        self.look(|state, _| {
            let row = state
                .stitches
                .get(&id)
                .ok_or_else(|| not_found("stitch", &id))?;
            match who {
                Principal::Peer(name) if row.stitch.peer != *name => Err(not_found("stitch", &id)),
                _ => Ok(row.clone()),
            }
        })
        .await
    }

    /// Stitches that owe the other domain something.
    pub(super) async fn debts(&self) -> Vec<Uuid> {
        self.look(|state, _| {
            let owing = state.stitches.values().filter(|row| row.owed.is_some());
            owing.map(|row| row.stitch.id).collect()
        })
        .await
    }
}

/// What an action came to once the other domain has answered: its refusal is the caller's.
fn outcome(row: StitchRow, action: Action) -> Result<Stitch, Problem> {
    match (action, row.refused) {
        (Action::Commit | Action::Extend(_), Some(problem)) => Err(problem),
        _ => Ok(row.stitch),
    }
}

fn event_of(state: StitchState) -> &'static str {
    match state {
        StitchState::Proposed => "stitch.proposed",
        StitchState::Held => "stitch.held",
        StitchState::Committing => "stitch.committing",
        StitchState::Committed => "stitch.committed",
        StitchState::Terminating => "stitch.terminating",
        StitchState::Terminated => "stitch.terminated",
        StitchState::Rejected => "stitch.rejected",
        StitchState::TimedOut => "stitch.timed-out",
        StitchState::Aborted => "stitch.aborted",
    }
}
