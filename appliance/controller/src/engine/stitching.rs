//! Stitches, carried out: what [`crate::stitches`] decides, made durable here and told to the other
//! domain. Whatever was written down as owed is told again until it is answered.

use super::{
    Answered, Decision, Engine, Once,
    bookings::{border_member, not_federated, own_slice},
    check_version, not_found,
};
use crate::{
    addresses,
    auth::Principal,
    document, failpoint,
    slices::{self, Action, Booking},
    state::{Change, State},
    stitches::{self, Owed, StitchRow},
    topology::Border,
};
use dtn_api::{
    Name, Problem, VDN_BASE,
    host::HostKind,
    problem::Kind,
    slice::{Addressing, Extend, Member, SliceSpec},
    stitch::{Stitch, StitchProposal, StitchSpec, StitchState},
};
use ipnet::IpNet;
use jiff::Timestamp;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Subnets that are tried until one is free in both domains.
const MOST_SUBNETS_TRIED: usize = 16;

/// What becomes of the own end, with a change of the stitch.
enum Own {
    /// It stays as it is.
    Same,
    /// An action, with all its rules.
    Act(Action),
    /// Its window is set back, since the other end refused a longer one.
    SetBack(Box<Booking>),
}

impl Engine {
    /// Holds both ends of an end-to-end slice.
    pub async fn stitch(
        &self,
        who: &Principal,
        once: &Once,
        spec: StitchSpec,
    ) -> Result<Answered<Stitch>, Problem> {
        let (border, peer, _) = self.far_end(&spec.remote).await?;
        let (row, mut far, replayed) = self.propose(who, once, &spec, &border, &peer).await?;
        if replayed {
            return Ok(Answered {
                body: row.stitch,
                replayed,
            });
        }
        failpoint::reach("held-here").await;
        let id = row.stitch.id;
        let mut taken = Vec::new();
        let told: Result<Stitch, Problem> = loop {
            let proposal = StitchProposal {
                stitch_id: id,
                initiator: self.config.domain.clone(),
                name: spec.name.clone(),
                tenant: spec.tenant.clone(),
                qos: spec.qos.clone(),
                schedule: spec.schedule,
                border_link: border.peer_ref.clone(),
                endpoint: spec.remote.endpoint.clone(),
                addressing: far.clone(),
                hold_seconds: spec.hold_seconds,
                now: Timestamp::now(),
            };
            let told = self
                .call(&peer, |client| async move {
                    let path = format!("{VDN_BASE}/stitches/inbound");
                    client.post_once(&path, &id.to_string(), &proposal).await
                })
                .await;
            match told {
                // the subnet was our choice and is in use there: another one
                Err(problem)
                    if problem.is(Kind::AddressInConflict)
                        && spec.addressing.is_none()
                        && taken.len() < 2 * MOST_SUBNETS_TRIED =>
                {
                    taken.extend(addresses::subnets(&far));
                    match self.choose_again(who, id, &taken).await {
                        Ok(other) => far = other,
                        Err(problem) => break Err(problem),
                    }
                }
                other => break other,
            }
        };
        failpoint::reach("held-there").await;
        match told {
            Ok(theirs) => {
                let held = self
                    .change_stitch(who, id, |row, _, _| {
                        Ok((stitches::both_held(row, &theirs), Own::Same))
                    })
                    .await?;
                Ok(Answered {
                    body: held,
                    replayed: false,
                })
            }
            Err(problem) => {
                // an answer may have been lost: what they hold is given back, or runs out
                let lost = problem.retryable;
                self.give_up(who, id, &problem, lost).await?;
                Err(problem)
            }
        }
    }

    /// Holds the own end, in the same commit as the key.
    async fn propose(
        &self,
        who: &Principal,
        once: &Once,
        spec: &StitchSpec,
        border: &Border,
        peer: &Name,
    ) -> Result<(StitchRow, Addressing, bool), Problem> {
        self.decide(who, |state, now| {
            if let Some(kept) = once.find(state)? {
                let row = kept.stitch.and_then(|id| state.stitches.get(&id));
                let row = row.ok_or_else(|| not_found("stitch of this Idempotency-Key", &""))?;
                let booking = state.bookings.get(&row.stitch.slice_id);
                let near = booking.and_then(|b| b.slice.spec.addressing.clone());
                let near = near.ok_or_else(|| not_found("slice", &row.stitch.slice_id))?;
                return Ok(Decision::only((row.clone(), near, true)));
            }
            own_slice(state, who, &spec.members)?;
            let id = Uuid::now_v7();
            let whole = match &spec.addressing {
                Some(given) => given.clone(),
                None => {
                    let mtu = narrowest(state, &spec.members, border);
                    addresses::choose(&self.config.addresses, &state.subnets_in_use(now), mtu)?
                }
            };
            let (near, far) = stitches::deal(&whole)?;
            let mut members = spec.members.clone();
            members.push(border_member(&border.name));
            let own = SliceSpec {
                name: spec.name.clone(),
                tenant: spec.tenant.clone(),
                qos: spec.qos.clone(),
                members,
                schedule: spec.schedule,
                path: None,
                addressing: Some(near),
                auto_provision: true,
                commit: false,
                hold_seconds: spec.hold_seconds,
                labels: BTreeMap::new(),
            };
            let booking = self.book(state, own, Some(id), now)?;
            let domain = &self.config.domain;
            let row = stitches::propose(id, domain, peer, &border.name, &booking.slice);
            let detail = format!("slice {} with domain {peer}", spec.name);
            Ok(Decision::only((row.clone(), far, false))
                .event("stitch.proposed", Some(id), detail)
                .change(once.keep(&row.stitch, Some(id), now))
                .change(Change::Stitch(row))
                .change(Change::Booking(booking)))
        })
        .await
    }

    /// Gives a stitch whose own end is held another subnet; the addresses of the other side.
    async fn choose_again(
        &self,
        who: &Principal,
        id: Uuid,
        taken: &[IpNet],
    ) -> Result<Addressing, Problem> {
        self.decide(who, |state, now| {
            let row = state
                .stitches
                .get(&id)
                .ok_or_else(|| not_found("stitch", &id))?;
            let slice = row.stitch.slice_id;
            let mut booking = state
                .bookings
                .get(&slice)
                .cloned()
                .ok_or_else(|| not_found("slice", &slice))?;
            let before = booking.slice.spec.addressing.as_ref();
            let mtu = before.map_or(1500, |addressing| addressing.mtu);
            let mut used = state.subnets_in_use(now);
            used.extend(taken);
            let whole = addresses::choose(&self.config.addresses, &used, mtu)?;
            let (near, far) = stitches::deal(&whole)?;
            booking.slice.spec.addressing = Some(near);
            booking.slice.version += 1;
            Ok(Decision::only(far).change(Change::Booking(booking)))
        })
        .await
    }

    /// Ends a stitch that the other domain refused, or whose answer was lost.
    async fn give_up(
        &self,
        who: &Principal,
        id: Uuid,
        why: &Problem,
        lost: bool,
    ) -> Result<(), Problem> {
        self.change_stitch(who, id, |row, _, now| {
            let state = if lost {
                StitchState::Aborted
            } else {
                StitchState::Rejected
            };
            let until = row.stitch.hold_expires_at.unwrap_or(now);
            let owed = lost.then_some(Owed::Abort(until));
            let next = row
                .to(state)
                .because(why.to_string())
                .owing(owed)
                .ended(now);
            Ok((next, Own::Act(Action::Abort)))
        })
        .await?;
        self.owed.notify_one();
        Ok(())
    }

    /// The other domain's wish: held here.
    pub async fn inbound(
        &self,
        who: &Principal,
        once: &Once,
        proposal: StitchProposal,
    ) -> Result<Answered<Stitch>, Problem> {
        if let Principal::Peer(name) = who
            && *name != proposal.initiator
        {
            let problem = format!("domain {name} cannot propose for {}", proposal.initiator);
            return Err(Problem::new(Kind::Forbidden, problem));
        }
        let skew = document::check_clock(&proposal.initiator, proposal.now, Timestamp::now())?;
        if let document::Skew::Warn(seconds) = skew {
            tracing::warn!(
                "the clock of domain {} is {seconds} s from ours",
                proposal.initiator
            );
        }
        let held = self.decide_once(who, once, |state, now| {
            if let Some(known) = state.stitches.get(&proposal.stitch_id) {
                if known.stitch.peer != proposal.initiator || known.coordinator {
                    let problem = "this stitch is another one's";
                    return Err(
                        Problem::new(Kind::StateConflict, problem).at("/stitch_id", "is taken")
                    );
                }
                return Ok(Decision::only(known.stitch.clone()));
            }
            if !state.peers.contains_key(&proposal.initiator) {
                return Err(not_federated(&proposal.initiator));
            }
            let border = self.config.borders.iter().find(|border| {
                border.name == proposal.border_link && border.peer_domain == proposal.initiator
            });
            let border = border.ok_or_else(|| {
                let problem = Problem::new(Kind::NoPath, "the slice cannot enter this domain");
                problem.at(
                    "/border_link",
                    format!("no link {} leads to you", proposal.border_link),
                )
            })?;
            let host = offered(state, proposal.endpoint.as_deref())?;
            let own = SliceSpec {
                name: proposal.name.clone(),
                tenant: proposal.tenant.clone(),
                qos: proposal.qos.clone(),
                members: vec![
                    Member {
                        host: Some(host),
                        border_link: None,
                        role: Default::default(),
                    },
                    border_member(&border.name),
                ],
                schedule: proposal.schedule,
                path: None,
                addressing: Some(proposal.addressing.clone()),
                auto_provision: true,
                commit: false,
                hold_seconds: proposal.hold_seconds,
                labels: BTreeMap::new(),
            };
            let booking = self.book(state, own, Some(proposal.stitch_id), now)?;
            let row = stitches::accept(&proposal, &border.name, &booking.slice);
            let detail = format!("slice {} for domain {}", proposal.name, proposal.initiator);
            Ok(Decision::only(row.stitch.clone())
                .event("stitch.held", Some(proposal.stitch_id), detail)
                .change(Change::Stitch(row))
                .change(Change::Booking(booking)))
        });
        let held = held.await?;
        failpoint::reach("held-for-peer").await;
        Ok(held)
    }

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
    async fn change_stitch(
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
                    Decision::only(back.slice.clone()).change(Change::Booking(*back))
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

/// The host at this end: the one that is named, or the only one that is offered.
fn offered(state: &State, endpoint: Option<&str>) -> Result<dtn_api::HostId, Problem> {
    let mut hosts = state
        .hosts
        .values()
        .filter(|host| host.spec.permitted && host.spec.kind == HostKind::Nic)
        .filter(|host| {
            endpoint.is_none_or(|name| name == format!("{}/{}", host.spec.node, host.spec.nic))
        });
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Ok(host.id.clone()),
        (first, _) => {
            let why = match first {
                None => "no host of this name is offered to other domains",
                Some(_) => "several hosts are offered: name one",
            };
            let problem = Problem::new(Kind::NotFound, "the far end of the slice is not known");
            Err(problem.at("/endpoint", why))
        }
    }
}

/// The MTU of the narrowest link of the own end.
fn narrowest(state: &State, members: &[Member], border: &Border) -> u32 {
    let hosts = members
        .iter()
        .filter_map(|member| state.hosts.get(member.host.as_ref()?));
    hosts
        .map(|host| host.spec.mtu)
        .chain([border.mtu])
        .min()
        .unwrap_or(border.mtu)
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
