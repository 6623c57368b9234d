//! Slices: asked for, acted on, joined and left, and what their senders report.

use super::{Answered, Decision, Engine, Once, check_version, not_found};
use crate::{
    addresses,
    admission::{Ledger, Share, later_by},
    auth::Principal,
    slices::{self, Action, Booking},
    state::{Change, State},
    topology::{self, Graph, Link},
};
use dtn_api::{
    HostId, Name, Problem,
    host::{Enforcement, HostKind},
    problem::Kind,
    slice::{
        Addressing, Availability, AvailabilityQuery, Class, Member, Mode, RemoteEnd, Schedule,
        Slice, SliceSpec,
    },
};
use jiff::Timestamp;
use uuid::Uuid;

/// How far ahead a first fitting window is looked for, in seconds: 30 days.
const LOOK_AHEAD: u32 = 30 * 86_400;

/// How often the two domains are asked for a window that both have.
const MOST_ROUNDS: usize = 8;

impl Engine {
    /// Asks for a slice: held, or committed in the same call.
    pub async fn ask(
        &self,
        who: &Principal,
        once: &Once,
        spec: SliceSpec,
    ) -> Result<Answered<Slice>, Problem> {
        self.decide_once(who, once, |state, now| {
            own_slice(state, who, &spec.members)?;
            let booking = self.book(state, spec, None, now)?;
            let slice = booking.slice.clone();
            Ok(Decision::only(slice.clone())
                .event(
                    "slice.held",
                    Some(slice.id),
                    format!("slice {}", slice.spec.name),
                )
                .change(Change::Booking(booking)))
        })
        .await
    }
    /// The same without booking anything.
    pub async fn would_ask(&self, spec: SliceSpec) -> Result<Slice, Problem> {
        self.look(|state, now| self.book(state, spec, None, now).map(|b| b.slice))
            .await
    }

    /// Admission: everything that can be wrong, the tree, the addresses, and the hold.
    pub(super) fn book(
        &self,
        state: &State,
        mut spec: SliceSpec,
        stitch: Option<Uuid>,
        now: Timestamp,
    ) -> Result<Booking, Problem> {
        slices::check(&spec, self.config.longest_window, now)?;
        let taken = state.bookings.values().find(|booking| {
            let other = &booking.slice.spec;
            other.name == spec.name && other.tenant == spec.tenant && booking.slice.booked_at(now)
        });
        if let Some(taken) = taken {
            let problem = format!(
                "tenant {} has a slice {} already ({}): choose another name or end that one",
                spec.tenant, spec.name, taken.slice.id
            );
            return Err(Problem::new(Kind::NameTaken, problem).at("/name", "is taken"));
        }
        if let Some(problem) = self.fabric.refuses(&spec) {
            return Err(problem);
        }
        self.known(state, &spec.members)?;
        let ledger = Self::ledger(state, None, now);
        let graph = self.fabric.topology(&state.hosts);
        let (shares, mtu) = self.fitting(
            &ledger,
            &graph,
            spec.qos.mode,
            spec.qos.class,
            &spec.members,
            spec.qos.rate_bps,
            &spec.schedule,
        )?;
        ledger.admit(
            &shares,
            spec.qos.class,
            spec.qos.rate_bps,
            &spec.schedule,
            None,
        )?;
        let used = state.subnets_in_use(now);
        match &spec.addressing {
            None => spec.addressing = Some(addresses::choose(&self.config.addresses, &used, mtu)?),
            Some(given) => check_addressing(given, &used, mtu)?,
        }
        let commit = spec.commit;
        let mut booking = slices::hold(Uuid::now_v7(), spec, shares, now);
        booking.slice.stitch = stitch;
        if commit {
            booking = slices::act(&booking, Action::Commit, &ledger, now)?;
        }
        Ok(self.observed(state, booking, now))
    }

    /// Members that are declared.
    fn known(&self, state: &State, members: &[Member]) -> Result<(), Problem> {
        let mut problem = Problem::new(Kind::NotFound, "a member of the slice is not known here");
        for (n, member) in members.iter().enumerate() {
            if let Some(host) = &member.host
                && !state.hosts.contains_key(host)
            {
                let why =
                    format!("host {host} is not declared: is its node's dtnd joined and running?");
                problem = problem.at(format!("/members/{n}/host"), why);
            }
            if let Some(link) = &member.border_link
                && !self
                    .config
                    .borders
                    .iter()
                    .any(|border| border.name == *link)
            {
                let why = format!("border link {link} is not in the configuration");
                problem = problem.at(format!("/members/{n}/border_link"), why);
            }
        }
        if problem.errors.is_empty() {
            Ok(())
        } else {
            Err(problem)
        }
    }

    /// What a slice takes of every link of its tree: around full links where there is a way.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of a wish, each with its own source"
    )]
    fn fitting(
        &self,
        ledger: &Ledger,
        graph: &Graph,
        mode: Mode,
        class: Class,
        members: &[Member],
        rate_bps: u64,
        window: &Schedule,
    ) -> Result<(Vec<Share>, u32), Problem> {
        let usable = |link: &Link| {
            let one = Share {
                link: link.name(),
                capacity_bps: link.capacity_bps,
                times: 1,
            };
            ledger.max_rate(&[one], class, window, None).0 >= rate_bps.max(1)
        };
        topology::shares(self.fabric(), graph, mode, members, &usable)
    }

    /// The booking with its data plane as it follows from what was reported.
    pub(super) fn observed(&self, state: &State, booking: Booking, now: Timestamp) -> Booking {
        let verdict = self
            .fabric
            .verify(&booking.slice, &state.hosts, &booking.reports);
        let silent = self.silent_peer(state, booking.slice.stitch, now);
        let silent = silent.as_ref().map(Name::as_str);
        slices::observe(&booking, &verdict, silent, now).unwrap_or(booking)
    }

    /// Acts on a slice that is not stitched.
    pub async fn act(
        &self,
        who: &Principal,
        id: Uuid,
        action: Action,
        if_match: Option<u64>,
    ) -> Result<Slice, Problem> {
        self.decide(who, |state, now| {
            let booking = state
                .bookings
                .get(&id)
                .ok_or_else(|| not_found("slice", &id))?;
            own_slice(state, who, &booking.slice.spec.members)?;
            check_version(if_match, booking.slice.version, "the slice")?;
            if let (Some(stitch), Action::Commit | Action::Abort) = (booking.slice.stitch, action) {
                let problem = format!(
                    "slice {} is one end of stitch {stitch}: act on the stitch",
                    booking.slice.spec.name
                );
                return Err(Problem::new(Kind::StateConflict, problem));
            }
            self.acted(state, booking, action, now)
        })
        .await
    }

    /// The decision of an action on one booking.
    pub(super) fn acted(
        &self,
        state: &State,
        booking: &Booking,
        action: Action,
        now: Timestamp,
    ) -> Result<Decision<Slice>, Problem> {
        let others = Self::ledger(state, Some(booking.slice.id), now);
        let next = slices::act(booking, action, &others, now)?;
        if next == *booking {
            return Ok(Decision::only(next.slice));
        }
        let next = self.observed(state, next, now);
        let (what, id) = (event_of(action), next.slice.id);
        let detail = format!("slice {}", next.slice.spec.name);
        Ok(Decision::only(next.slice.clone())
            .event(what, Some(id), detail)
            .change(Change::Booking(next)))
    }

    /// Which stitch a slice is an end of.
    pub async fn stitch_of(&self, id: Uuid) -> Result<Option<Uuid>, Problem> {
        self.look(|state, _| {
            let booking = state
                .bookings
                .get(&id)
                .ok_or_else(|| not_found("slice", &id))?;
            Ok(booking.slice.stitch)
        })
        .await
    }

    /// Lets a pod's interface in under the same booking, or changes what a member is.
    pub async fn join(
        &self,
        who: &Principal,
        id: Uuid,
        host: &HostId,
        member: Member,
    ) -> Result<Slice, Problem> {
        self.decide(who, |state, now| {
            let booking = state.bookings.get(&id).ok_or_else(|| not_found("slice", &id))?;
            let slice = &booking.slice;
            if member.host.as_ref().is_some_and(|named| named != host) || member.border_link.is_some()
            {
                let problem = Problem::new(Kind::InvalidRequest, "the member is not valid");
                return Err(problem.at("/host", format!("the path names {host}")));
            }
            if slice.spec.members.iter().any(|m| m.host.as_ref() == Some(host)) {
                return Ok(Decision::only(slice.clone()));
            }
            let known = state.hosts.get(host).ok_or_else(|| not_found("host", host))?;
            // only what sits on a NIC that is booked: another NIC would be another tree
            let sits_on_member = known.spec.kind == HostKind::Pod
                && slice.spec.members.iter().filter_map(|m| m.host.as_ref()).any(|member| {
                    state.hosts.get(member).is_some_and(|nic| {
                        nic.spec.kind == HostKind::Nic
                            && nic.spec.node == known.spec.node
                            && nic.spec.nic == known.spec.nic
                    })
                });
            if !sits_on_member || !slice.booked_at(now) {
                let problem = format!(
                    "{host} cannot join slice {}: it is no pod on a NIC of the slice, or the slice has ended",
                    slice.spec.name
                );
                return Err(Problem::new(Kind::StateConflict, problem));
            }
            let mut next = booking.clone();
            let member = Member { host: Some(host.clone()), ..member.clone() };
            next.slice.spec.members.push(member);
            next.slice.version += 1;
            let next = self.observed(state, next, now);
            Ok(Decision::only(next.slice.clone()).change(Change::Booking(next)))
        })
        .await
    }

    /// Takes a pod's interface out; a NIC that the booking rests on stays, its report goes.
    pub async fn leave(&self, who: &Principal, id: Uuid, host: &HostId) -> Result<(), Problem> {
        self.decide(who, |state, now| {
            let Some(booking) = state.bookings.get(&id) else {
                return Ok(Decision::only(()));
            };
            let mut next = booking.clone();
            next.reports.remove(host);
            let is_nic = state
                .hosts
                .get(host)
                .is_some_and(|h| h.spec.kind == HostKind::Nic);
            if !is_nic {
                next.slice
                    .spec
                    .members
                    .retain(|m| m.host.as_ref() != Some(host));
            }
            if next == *booking {
                return Ok(Decision::only(()));
            }
            next.slice.version += 1;
            let next = self.observed(state, next, now);
            Ok(Decision::only(()).change(Change::Booking(next)))
        })
        .await
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
            Ok(Decision::only(next.slice.clone()).change(Change::Booking(next)))
        })
        .await
    }

    /// The most that could be had on this domain's own links.
    pub(super) fn available_here(
        &self,
        state: &State,
        query: &AvailabilityQuery,
        members: &[Member],
        now: Timestamp,
    ) -> Result<Availability, Problem> {
        let Schedule { start, end } = query.schedule;
        if end <= start.max(now) {
            let problem = Problem::new(Kind::InvalidRequest, "the window is not valid");
            return Err(problem.at(
                "/schedule/end",
                format!("{end} is not after {}", start.max(now)),
            ));
        }
        self.known(state, members)?;
        let ledger = Self::ledger(state, None, now);
        let graph = self.fabric.topology(&state.hosts);
        let window = &query.schedule;
        let wanted = query.rate_bps.unwrap_or(1);
        let (shares, _) = self.fitting(
            &ledger,
            &graph,
            query.mode,
            query.class,
            members,
            wanted,
            window,
        )?;
        let (max_rate_bps, link) = ledger.max_rate(&shares, query.class, window, None);
        let first_fit = query.rate_bps.and_then(|rate| {
            let asked = Schedule {
                start: start.max(now),
                end,
            };
            ledger.first_fit(
                &shares,
                query.class,
                rate,
                &asked,
                later_by(now, LOOK_AHEAD),
                None,
            )
        });
        Ok(Availability {
            max_rate_bps,
            limited_by: format!("{}:{link}", self.config.domain),
            first_fit,
        })
    }

    /// The most that could be had, the other domain asked too when the slice leaves this one.
    pub async fn available(&self, query: &AvailabilityQuery) -> Result<Availability, Problem> {
        let Some(remote) = &query.remote else {
            return self
                .look(|state, now| self.available_here(state, query, &query.members, now))
                .await;
        };
        let (border, peer, host) = self.far_end(remote).await?;
        let mut near = AvailabilityQuery {
            remote: None,
            ..query.clone()
        };
        near.members.push(border_member(&border.name));
        let mut far = AvailabilityQuery {
            members: vec![
                border_member(&border.peer_ref),
                Member {
                    host: Some(host),
                    border_link: None,
                    role: Default::default(),
                },
            ],
            ..near.clone()
        };
        let mut both = self.available_on_both(&peer, &near, &far).await?;
        // the first window that fits here may not fit there: what each names is tried on the other
        // until both name the same
        for _ in 0..MOST_ROUNDS {
            let Some(window) = both.first_fit else { break };
            // "now" is a moment later there than here
            let from = near.schedule.start.max(Timestamp::now());
            if window.start <= later_by(from, 1) {
                return Ok(both);
            }
            near.schedule = window;
            far.schedule = window;
            let next = self.available_on_both(&peer, &near, &far).await?;
            if next.first_fit == Some(window) {
                return Ok(both);
            }
            both.first_fit = next.first_fit;
        }
        both.first_fit = None;
        Ok(both)
    }

    async fn available_on_both(
        &self,
        peer: &Name,
        near: &AvailabilityQuery,
        far: &AvailabilityQuery,
    ) -> Result<Availability, Problem> {
        let here = self
            .look(|state, now| self.available_here(state, near, &near.members, now))
            .await?;
        let there: Availability = self
            .call(peer, |client| async move {
                client
                    .post(&format!("{}/availability", dtn_api::VDN_BASE), far)
                    .await
            })
            .await?;
        Ok(narrower(here, there))
    }

    /// Refuses another domain that asks about more than what is offered to it: its border links,
    /// and the hosts that others may ask for.
    pub async fn offered_to(&self, peer: &Name, members: &[Member]) -> Result<(), Problem> {
        self.look(|state, _| {
            let mut problem = Problem::new(Kind::NotFound, "a member is not offered to you");
            for (n, member) in members.iter().enumerate() {
                let offered = match (&member.host, &member.border_link) {
                    (Some(host), None) => state
                        .hosts
                        .get(host)
                        .is_some_and(|host| host.spec.permitted && host.spec.kind == HostKind::Nic),
                    (None, Some(link)) => self
                        .config
                        .borders
                        .iter()
                        .any(|border| border.name == *link && border.peer_domain == *peer),
                    _ => false,
                };
                if !offered {
                    problem = problem.at(format!("/members/{n}"), "is not in our document");
                }
            }
            if problem.errors.is_empty() {
                Ok(())
            } else {
                Err(problem)
            }
        })
        .await
    }

    /// The border link to another domain, the domain, and the host at the far end. A host that the
    /// domain's last document does not have may have been declared since: the document is read anew.
    pub(super) async fn far_end(
        &self,
        remote: &RemoteEnd,
    ) -> Result<(topology::Border, Name, HostId), Problem> {
        match self.known_far_end(remote).await {
            Err(problem) if problem.is(Kind::NotFound) => {
                self.refresh(&remote.domain).await?;
                self.known_far_end(remote).await
            }
            known => known,
        }
    }

    async fn known_far_end(
        &self,
        remote: &RemoteEnd,
    ) -> Result<(topology::Border, Name, HostId), Problem> {
        let border = self.border_to(remote)?;
        let peer = remote.domain.clone();
        let wanted = remote.endpoint.clone();
        let host = self
            .look(|state, _| {
                let row = state.peers.get(&peer).ok_or_else(|| not_federated(&peer))?;
                let shared = row.document.as_ref().map(|d| d.shared_hosts.as_slice());
                let shared = shared.unwrap_or_default();
                let names: Vec<_> = shared.iter().map(|h| h.endpoint.as_str()).collect();
                let found = match &wanted {
                    Some(name) => shared.iter().find(|h| h.endpoint == *name),
                    None if shared.len() == 1 => shared.first(),
                    None => None,
                };
                found.map(|h| h.host.clone()).ok_or_else(|| {
                    let why = format!(
                        "domain {peer} offers [{}]: name one of them",
                        names.join(" ")
                    );
                    Problem::new(Kind::NotFound, "the far end of the slice is not known")
                        .at("/remote/endpoint", why)
                })
            })
            .await?;
        Ok((border, peer, host))
    }

    pub(super) fn border_to(&self, remote: &RemoteEnd) -> Result<topology::Border, Problem> {
        let mut borders = self.config.borders.iter().filter(|border| {
            border.peer_domain == remote.domain
                && remote
                    .border_link
                    .as_ref()
                    .is_none_or(|name| border.name == *name)
        });
        match (borders.next(), borders.next()) {
            (Some(border), None) => Ok(border.clone()),
            (first, _) => {
                let why = match first {
                    None => format!("no border link leads to domain {}", remote.domain),
                    Some(_) => format!("several lead to domain {}: name one", remote.domain),
                };
                let problem = Problem::new(Kind::NoPath, "the slice cannot leave this domain");
                Err(problem.at("/remote/border_link", why))
            }
        }
    }
}

/// Refuses a node that acts on a slice of which no member is its own.
pub(super) fn own_slice(state: &State, who: &Principal, members: &[Member]) -> Result<(), Problem> {
    let Principal::Node(name) = who else {
        return Ok(());
    };
    let mut nodes = members
        .iter()
        .filter_map(|member| state.hosts.get(member.host.as_ref()?))
        .map(|host| &host.spec.node);
    if nodes.any(|node| node == name) {
        return Ok(());
    }
    Err(Problem::new(
        Kind::Forbidden,
        format!("no member of this slice is on node {name}"),
    ))
}

pub(super) fn not_federated(peer: &Name) -> Problem {
    Problem::new(
        Kind::NotFound,
        format!(
            "domain {peer} is not federated with this one: see dtnctl domain invite and accept"
        ),
    )
}

pub(super) fn border_member(name: &Name) -> Member {
    Member {
        host: None,
        border_link: Some(name.clone()),
        role: Default::default(),
    }
}

/// Both must admit it: the lower rate, and a first window only where both name one.
fn narrower(a: Availability, b: Availability) -> Availability {
    let first_fit = match (a.first_fit, b.first_fit) {
        (Some(a), Some(b)) => Some(if a.start >= b.start { a } else { b }),
        _ => None,
    };
    let least = if b.max_rate_bps < a.max_rate_bps {
        b
    } else {
        a
    };
    Availability { first_fit, ..least }
}

fn check_addressing(given: &Addressing, used: &[ipnet::IpNet], mtu: u32) -> Result<(), Problem> {
    if let Some(net) = addresses::clash(given, used) {
        let problem = format!("another slice or lease has addresses of {net}");
        return Err(Problem::new(Kind::AddressInConflict, problem).at("/addressing", "overlaps"));
    }
    if given.mtu > mtu {
        let why = format!(
            "{} is above the {mtu} bytes of the narrowest link",
            given.mtu
        );
        let problem = Problem::new(Kind::InvalidRequest, "the addressing is not valid");
        return Err(problem.at("/addressing/mtu", why));
    }
    Ok(())
}

fn event_of(action: Action) -> &'static str {
    match action {
        Action::Commit => "slice.committed",
        Action::Abort => "slice.aborted",
        Action::Provision => "slice.provisioned",
        Action::Release => "slice.released",
        Action::Terminate => "slice.terminated",
        Action::Extend(_) => "slice.extended",
    }
}
