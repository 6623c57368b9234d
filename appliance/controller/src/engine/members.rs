//! Members of a slice that was reserved before: who joins it and leaves it, what its senders report.
//!
//! A pod sits on a NIC of the slice, so the booking stays as it is. Another NIC is another branch of the
//! tree, booked under the same admission as at first on the links that it adds.

use super::{Decision, Engine, not_found};
use crate::{
    admission::Share,
    auth::Principal,
    members::{self, IDLE_SECONDS},
    slices::Booking,
    state::{Change, State},
    topology::{self, Graph, Link},
};
use dtn_api::{
    HostId, Problem,
    host::{Enforcement, Host, HostKind},
    problem::Kind,
    slice::{Member, Role, Schedule, Slice},
};
use jiff::Timestamp;
use std::collections::BTreeSet;
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
            let mut there = slice.spec.members.iter();
            if let Some(there) = there.find(|m| m.host.as_ref() == Some(host)) {
                let answer = Decision::only(slice.clone());
                if !there.joined || !matches!(who, Principal::Node(_)) {
                    return Ok(answer);
                }
                // who asks again is about to have a lease on it: the time begins anew
                let mut next = booking.clone();
                next.idle.insert(host.clone(), now);
                return Ok(answer.change(Change::Booking(Box::new(next))));
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
                        let leases = leases.iter().copied();
                        members::may_leave(booking, nic, leases, &state.hosts)?;
                        next = self.without(state, booking, host)?;
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
        let narrowest = self
            .book_also(state, &mut next, &nic.id, now)
            .map_err(|problem| members::too_full(booking, nic, problem))?;
        let wanted = next.slice.spec.addressing.as_ref().map_or(0, |a| a.mtu);
        if let Some(link) = narrowest.filter(|link| link.mtu < wanted) {
            let problem = format!(
                "NIC {} cannot join slice {}: its MTU is {wanted}, and link {} carries {}: raise that, \
                 or use another NIC",
                members::name_of(nic),
                next.slice.spec.name,
                link.name(),
                link.mtu
            );
            return Err(Problem::new(Kind::StateConflict, problem));
        }
        if itself {
            next.idle.insert(nic.id.clone(), now);
        }
        Ok(next)
    }

    /// The booking without a NIC, and with what it takes of the links then.
    fn without(&self, state: &State, booking: &Booking, host: &HostId) -> Result<Booking, Problem> {
        let mut next = booking.clone();
        let members = &mut next.slice.spec.members;
        members.retain(|m| m.host.as_ref() != Some(host));
        next.idle.remove(host);
        next.reports.remove(host);
        self.book_less(state, &mut next)?;
        Ok(next)
    }

    /// Books a slice for one more of its members. What it has of a link stays as it was booked, and
    /// the tree where it was; what it takes more is admitted. Returns the narrowest of the new links.
    fn book_also(
        &self,
        state: &State,
        next: &mut Booking,
        host: &HostId,
        now: Timestamp,
    ) -> Result<Option<Link>, Problem> {
        let (spec, id) = (&next.slice.spec, next.slice.id);
        let window = Schedule {
            start: spec.schedule.start.max(now),
            end: spec.schedule.end,
        };
        let (class, rate_bps) = (spec.qos.class, spec.qos.rate_bps);
        let ledger = Self::ledger(state, Some(id), now);
        let graph = self.fabric.topology(&state.hosts);
        let had: BTreeSet<String> = next.shares.iter().map(|had| had.link.clone()).collect();
        let member = Member::of_host(host.clone(), Role::Endpoint);
        let fits = |link: &Link| {
            let one = Share {
                link: link.name(),
                capacity_bps: link.capacity_bps,
                times: 1,
            };
            ledger.max_rate(&[one], class, &window, None).0 >= rate_bps.max(1)
        };
        let way = self.fabric.node(&member).and_then(|node| {
            let way = graph.way_to(&node, &had, &fits);
            // where nothing fits, the link and the figure are named below
            way.or_else(|| graph.way_to(&node, &had, &|_| true))
        });
        let way = way.unwrap_or_default();
        let shares = self.shares_over(state, next, &graph, &|link: &Link| {
            had.contains(&link.name()) || way.contains(&link.name())
        })?;
        let times = |link: &str| next.shares.iter().find(|had| had.link == link);
        let more: Vec<Share> = shares
            .iter()
            .filter(|share| times(&share.link).is_none_or(|had| share.times > had.times))
            .cloned()
            .collect();
        ledger.admit(&more, class, rate_bps, &window, None)?;
        let new = graph.links().filter(|link| {
            let name = link.name();
            !had.contains(&name) && shares.iter().any(|share| share.link == name)
        });
        let narrowest = new.min_by_key(|link| link.mtu).cloned();
        rebooked(next, shares);
        Ok(narrowest)
    }

    /// Books a slice for the members that are left: less of what it has, so nobody is asked.
    pub(super) fn book_less(&self, state: &State, next: &mut Booking) -> Result<(), Problem> {
        let graph = self.fabric.topology(&state.hosts);
        let had: BTreeSet<String> = next.shares.iter().map(|had| had.link.clone()).collect();
        let shares = self.shares_over(state, next, &graph, &|link: &Link| {
            had.contains(&link.name())
        })?;
        rebooked(next, shares);
        Ok(())
    }

    /// What its members take of these links; of one that it had already with the capacity that it was
    /// booked with: a NIC that changes its speed later does not change what was promised.
    fn shares_over(
        &self,
        state: &State,
        booking: &Booking,
        graph: &Graph,
        usable: &dyn Fn(&Link) -> bool,
    ) -> Result<Vec<Share>, Problem> {
        let of_tree = |member: &&Member| {
            let host = member.host.as_ref().and_then(|host| state.hosts.get(host));
            host.is_none_or(|host| host.spec.kind == HostKind::Nic)
        };
        let spec = &booking.slice.spec;
        let members: Vec<Member> = spec.members.iter().filter(of_tree).cloned().collect();
        let (mut shares, _) =
            topology::shares(self.fabric(), graph, spec.qos.mode, &members, usable)?;
        for share in &mut shares {
            if let Some(had) = booking.shares.iter().find(|had| had.link == share.link) {
                share.capacity_bps = had.capacity_bps;
            }
        }
        Ok(shares)
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
            match self.without(state, booking, host) {
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

fn rebooked(next: &mut Booking, shares: Vec<Share>) {
    next.slice.status.links = shares.iter().map(|share| share.link.clone()).collect();
    next.slice.status.generation += 1;
    next.shares = shares;
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
