//! Members of a slice that was reserved before: who joins it and leaves it, what its senders report.
//!
//! A pod sits on a NIC of the slice, so the booking stays as it is. Another NIC is another tree: the
//! slice is booked anew, under the same admission as at first, on the links that it did not have.

use super::{Decision, Engine, not_found};
use crate::{
    admission::Share,
    auth::Principal,
    members::{self, IDLE_SECONDS},
    slices::Booking,
    state::{Change, State},
};
use dtn_api::{
    HostId, Problem,
    host::{Enforcement, Host, HostKind},
    problem::Kind,
    slice::{Member, Role, Schedule, Slice},
};
use jiff::Timestamp;
use uuid::Uuid;

impl Engine {
    /// Lets a pod's interface in, or another NIC of the domain.
    pub async fn join(
        &self,
        who: &Principal,
        id: Uuid,
        host: &HostId,
        member: Member,
    ) -> Result<Slice, Problem> {
        self.decide(who, |state, now| {
            let booking = state
                .bookings
                .get(&id)
                .ok_or_else(|| not_found("slice", &id))?;
            let slice = &booking.slice;
            members::check(host, &member)?;
            let there = slice.spec.members.iter();
            if there.into_iter().any(|m| m.host.as_ref() == Some(host)) {
                return Ok(Decision::only(slice.clone()));
            }
            let known = state
                .hosts
                .get(host)
                .ok_or_else(|| not_found("host", host))?;
            let (next, what) = match known.spec.kind {
                HostKind::Pod => (pod_joins(state, booking, known, now)?, None),
                HostKind::Nic => {
                    let next = self.nic_joins(state, who, booking, known, now)?;
                    (next, Some("slice.joined"))
                }
            };
            Ok(self.changed_members(state, next, what.map(|what| (what, known)), now))
        })
        .await
    }

    /// Takes a pod's interface out, or a NIC. Of a NIC that its own host takes out the report goes:
    /// what the booking rests on is not the host's to say.
    pub async fn leave(&self, who: &Principal, id: Uuid, host: &HostId) -> Result<(), Problem> {
        self.decide(who, |state, now| {
            let Some(booking) = state.bookings.get(&id) else {
                return Ok(Decision::only(()));
            };
            let mut next = booking.clone();
            let mut left = None;
            match state.hosts.get(host) {
                Some(nic) if nic.spec.kind == HostKind::Nic => {
                    let is_member = |m: &Member| m.host.as_ref() == Some(host);
                    if !matches!(who, Principal::Node(_))
                        && booking.slice.booked_at(now)
                        && booking.slice.spec.members.iter().any(is_member)
                    {
                        let leases = state.leases_of(id);
                        members::may_leave(booking, nic, leases.iter().copied())?;
                        next = self.without(state, booking, host, now)?;
                        left = Some(("slice.left", nic));
                    }
                }
                _ => {
                    let members = &mut next.slice.spec.members;
                    members.retain(|m| m.host.as_ref() != Some(host));
                }
            }
            next.reports.remove(host);
            if next == *booking {
                return Ok(Decision::only(()));
            }
            let changed = self.changed_members(state, next, left, now);
            Ok(changed.answering(()))
        })
        .await
    }

    fn changed_members(
        &self,
        state: &State,
        mut next: Booking,
        what: Option<(&'static str, &Host)>,
        now: Timestamp,
    ) -> Decision<Slice> {
        next.slice.version += 1;
        let next = self.observed(state, next, now);
        let mut decision = Decision::only(next.slice.clone());
        if let Some((what, host)) = what {
            let name = &next.slice.spec.name;
            let detail = format!("slice {name}: {}", members::name_of(host));
            decision = decision.event(what, Some(next.slice.id), detail);
        }
        decision.change(Change::Booking(Box::new(next)))
    }

    fn nic_joins(
        &self,
        state: &State,
        who: &Principal,
        booking: &Booking,
        nic: &Host,
        now: Timestamp,
    ) -> Result<Booking, Problem> {
        let itself = matches!(who, Principal::Node(_));
        members::may_join(booking, nic, itself, now)?;
        let mut next = booking.clone();
        next.slice.spec.members.push(Member {
            joined: itself,
            ..Member::of_host(nic.id.clone(), Role::Endpoint)
        });
        if let Some(problem) = self.fabric.refuses(&next.slice.spec, &state.hosts) {
            return Err(problem);
        }
        let mtu = self.book_anew(state, &mut next, now)?;
        let wanted = next.slice.spec.addressing.as_ref().map_or(0, |a| a.mtu);
        if wanted > mtu {
            let problem = format!(
                "slice {} has an MTU of {wanted}, and the way to {} carries {mtu}: ip link set {} mtu \
                 {wanted}",
                next.slice.spec.name,
                members::name_of(nic),
                nic.spec.nic
            );
            return Err(Problem::new(Kind::StateConflict, problem));
        }
        if itself {
            next.idle.insert(nic.id.clone(), now);
        }
        Ok(next)
    }

    /// The booking without a NIC, and with what it takes of the links then.
    fn without(
        &self,
        state: &State,
        booking: &Booking,
        host: &HostId,
        now: Timestamp,
    ) -> Result<Booking, Problem> {
        let mut next = booking.clone();
        let members = &mut next.slice.spec.members;
        members.retain(|m| m.host.as_ref() != Some(host));
        next.idle.remove(host);
        next.reports.remove(host);
        self.book_anew(state, &mut next, now)?;
        Ok(next)
    }

    /// Books a slice for the members that it has now. What it has of a link already stays as it was
    /// booked; what it takes more is admitted. Returns the MTU of its narrowest link.
    fn book_anew(&self, state: &State, next: &mut Booking, now: Timestamp) -> Result<u32, Problem> {
        let (spec, id) = (&next.slice.spec, next.slice.id);
        let of_tree = |member: &&Member| {
            let host = member.host.as_ref().and_then(|host| state.hosts.get(host));
            host.is_none_or(|host| host.spec.kind == HostKind::Nic)
        };
        let members: Vec<Member> = spec.members.iter().filter(of_tree).cloned().collect();
        let window = Schedule {
            start: spec.schedule.start.max(now),
            end: spec.schedule.end,
        };
        let ledger = Self::ledger(state, Some(id), now);
        let graph = self.fabric.topology(&state.hosts);
        let (qos, rate_bps) = (&spec.qos, spec.qos.rate_bps);
        let (mut shares, mtu) = self.fitting(
            &ledger, &graph, qos.mode, qos.class, &members, rate_bps, &window,
        )?;
        let mut more: Vec<Share> = Vec::new();
        for share in &mut shares {
            match next.shares.iter().find(|had| had.link == share.link) {
                // a NIC that changes its speed later does not change what was promised
                Some(had) => {
                    share.capacity_bps = had.capacity_bps;
                    if share.times > had.times {
                        more.push(share.clone());
                    }
                }
                None => more.push(share.clone()),
            }
        }
        ledger.admit(&more, qos.class, rate_bps, &window, None)?;
        next.slice.status.links = shares.iter().map(|share| share.link.clone()).collect();
        next.slice.status.generation += 1;
        next.shares = shares;
        Ok(mtu)
    }

    /// What time does to NICs that joined: the booking as it is then, and who left. One at a time.
    pub(super) fn age_members(
        &self,
        state: &State,
        booking: &Booking,
        now: Timestamp,
    ) -> Option<(Booking, Option<String>)> {
        if !booking.slice.booked_at(now) {
            return None;
        }
        let leases = state.leases_of(booking.slice.id);
        let idle = members::idle(booking, &state.hosts, &leases, now);
        let over = idle
            .iter()
            .find(|(_, since)| now >= crate::admission::later_by(**since, IDLE_SECONDS));
        if let Some((host, _)) = over {
            match self.without(state, booking, host, now) {
                Ok(next) => {
                    let name = state
                        .hosts
                        .get(host)
                        .map_or(host.to_string(), members::name_of);
                    return Some((next, Some(name)));
                }
                // its links cannot be told anew now: the next look tries again
                Err(problem) => tracing::debug!(%host, "an idle member stays: {problem}"),
            }
        }
        (idle != booking.idle).then(|| {
            let mut next = booking.clone();
            next.idle = idle;
            (next, None)
        })
    }

    /// What a node read back of its own shaping.
    pub async fn enforce(
        &self,
        who: &Principal,
        id: Uuid,
        host: &HostId,
        report: Enforcement,
    ) -> Result<Slice, Problem> {
        self.decide(who, |state, now| {
            let booking = state
                .bookings
                .get(&id)
                .ok_or_else(|| not_found("slice", &id))?;
            if !booking
                .slice
                .spec
                .members
                .iter()
                .any(|m| m.host.as_ref() == Some(host))
            {
                return Err(not_found("member", host));
            }
            let mut next = booking.clone();
            let before = next.reports.insert(host.clone(), report.clone());
            let next = self.observed(state, next, now);
            let same = |old: &Enforcement| old.rate_bps == report.rate_bps && old.by == report.by;
            if next.slice == booking.slice && before.as_ref().is_some_and(same) {
                // only the time of reading is new: not worth a commit
                return Ok(Decision::only(next.slice));
            }
            Ok(Decision::only(next.slice.clone()).change(Change::Booking(Box::new(next))))
        })
        .await
    }
}

fn pod_joins(
    state: &State,
    booking: &Booking,
    pod: &Host,
    now: Timestamp,
) -> Result<Booking, Problem> {
    let slice = &booking.slice;
    let mut of_slice = slice.spec.members.iter().filter_map(|m| m.host.as_ref());
    let sits_on_member = of_slice.any(|member| {
        state.hosts.get(member).is_some_and(|nic| {
            nic.spec.kind == HostKind::Nic
                && nic.spec.node == pod.spec.node
                && nic.spec.nic == pod.spec.nic
        })
    });
    if !sits_on_member || !slice.booked_at(now) {
        let problem = format!(
            "{} cannot join slice {}: it is no pod on a NIC of the slice, or the slice has ended",
            pod.id, slice.spec.name
        );
        return Err(Problem::new(Kind::StateConflict, problem));
    }
    let mut next = booking.clone();
    let member = Member::of_host(pod.id.clone(), Role::Endpoint);
    next.slice.spec.members.push(member);
    Ok(next)
}
