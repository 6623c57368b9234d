//! Slices: asked for and acted on.

use super::{Answered, Decision, Engine, Once, check_version, not_found};
use crate::{
    addresses,
    admission::{Ledger, Share},
    auth::Principal,
    gateways,
    slices::{self, Action, Booking},
    state::{Change, State},
    topology::{self, Graph, Link},
};
use dtn_api::{
    Name, Problem,
    problem::Kind,
    slice::{Addressing, Class, Member, Mode, Role, Schedule, Slice, SliceSpec},
};
use jiff::Timestamp;
use uuid::Uuid;

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
                .change(Change::Booking(Box::new(booking))))
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
        slices::check(&spec, self.config().longest_window, now)?;
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
        if let Some(problem) = self.fabric.refuses(&spec, &state.hosts) {
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
            None => {
                spec.addressing = Some(addresses::choose(&self.config().addresses, &used, mtu)?)
            }
            Some(given) => check_addressing(given, &used, mtu)?,
        }
        if let Some(gateway) = gateways::of_slice(&state.gateways, &spec)
            && let Some(addressing) = &mut spec.addressing
        {
            addresses::set_gateways(addressing);
            if let Some(net) = addresses::clash(addressing, &gateway.spec.outside) {
                let problem = format!("gateway {} has {net} on its outside", gateway.name);
                let problem = Problem::new(Kind::AddressInConflict, problem);
                return Err(problem.at("/addressing", "overlaps: choose other subnets"));
            }
        }
        let commit = spec.commit;
        let mut booking = slices::hold(Uuid::now_v7(), spec, shares, now);
        booking.slice.stitch = stitch;
        booking.tag = slices::free_tag(state.bookings.values(), now);
        if booking.tag.is_none() && self.fabric.network().is_some() {
            return Err(Problem::new(
                Kind::PoolExhausted,
                "every tag that the switches tell slices by is in use: end a slice",
            ));
        }
        if commit {
            booking = slices::act(&booking, Action::Commit, &ledger, now)?;
        }
        Ok(self.observed(state, booking, now))
    }

    /// Members that are declared.
    pub(super) fn known(&self, state: &State, members: &[Member]) -> Result<(), Problem> {
        let mut problem = Problem::new(Kind::NotFound, "a member of the slice is not known here");
        for (n, member) in members.iter().enumerate() {
            if let Some(host) = &member.host
                && !state.hosts.contains_key(host)
            {
                let why =
                    format!("host {host} is not declared: is its node's dtnd joined and running?");
                problem = problem.at(format!("/members/{n}/host"), why);
            } else if member.role == Role::Gateway
                && let Some(host) = &member.host
                && !state.gateways.values().any(|row| row.spec.host == *host)
            {
                let why = format!(
                    "host {host} is no gateway's: see dtnctl gateway list, and [[gateway]] in \
                     appliance.toml of its node"
                );
                problem = problem.at(format!("/members/{n}/role"), why);
            }
            if let Some(link) = &member.border_link
                && !self
                    .config()
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
    pub(super) fn fitting(
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
        let version = booking.slice.version;
        let mut verdict = self
            .fabric
            .verify(&booking.slice, &state.hosts, &booking.reports);
        if verdict.enforced
            && let Some(why) = self.untold(state, &booking, now)
        {
            (verdict.enforced, verdict.reason) = (false, why);
        }
        let silent = self.silent_peer(state, booking.slice.stitch, now);
        let silent = silent.as_ref().map(Name::as_str);
        let next = slices::observe(&booking, &verdict, silent, now);
        let next = next.as_ref().unwrap_or(&booking);
        let mut said = slices::gateway_said(next, self.gateway_of(state, next, now), now);
        // the order of what is said is no change
        said.slice.version = version;
        said.slice.version += u64::from(said != booking);
        said
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
            .change(Change::Booking(Box::new(next))))
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
}

/// Refuses a node that acts on a slice which was not reserved for it. A NIC that its host let join
/// later makes nobody an owner: the others' slice is not its to end.
pub(super) fn own_slice(state: &State, who: &Principal, members: &[Member]) -> Result<(), Problem> {
    match who {
        Principal::Node(name) if !is_in(state, name, members.iter().filter(|m| !m.joined)) => {
            let problem = format!("this slice was not reserved for node {name}");
            Err(Problem::new(Kind::Forbidden, problem))
        }
        _ => Ok(()),
    }
}

/// Refuses a node that has no member in a slice, of whatever kind.
pub(super) fn in_slice(state: &State, who: &Principal, members: &[Member]) -> Result<(), Problem> {
    match who {
        Principal::Node(name) if !is_in(state, name, members.iter()) => {
            let problem = format!("no member of this slice is on node {name}");
            Err(Problem::new(Kind::Forbidden, problem))
        }
        _ => Ok(()),
    }
}

fn is_in<'a>(state: &State, node: &Name, mut members: impl Iterator<Item = &'a Member>) -> bool {
    members.any(|member| {
        let host = member.host.as_ref().and_then(|host| state.hosts.get(host));
        host.is_some_and(|host| host.spec.node == *node)
    })
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
    Member::of_border(name.clone())
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
