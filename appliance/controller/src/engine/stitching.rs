//! Stitches, made: both ends are held, the own one first. What becomes of a held stitch is in
//! [`super::coordination`].

use super::{
    Answered, Decision, Engine, Once,
    bookings::{border_member, not_federated, own_slice},
    coordination::Own,
    not_found,
};
use crate::{
    addresses,
    auth::Principal,
    document,
    fabric::Border,
    failpoint, gateways,
    labels::Labels,
    slices::Action,
    state::{Change, State},
    stitches::{self, Owed, StitchRow},
};
use dtn_api::{
    Name, Problem, VDN_BASE,
    host::HostKind,
    problem::Kind,
    slice::{Addressing, Member, Role, SliceSpec},
    stitch::{Stitch, StitchProposal, StitchSpec, StitchState},
};
use ipnet::IpNet;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Subnets that are tried until one is free in both domains.
const MOST_SUBNETS_TRIED: usize = 16;

impl Engine {
    /// Holds both ends of an end-to-end slice.
    pub async fn stitch(
        &self,
        who: &Principal,
        once: &Once,
        spec: StitchSpec,
    ) -> Result<Answered<Stitch>, Problem> {
        let (border, peer, _) = self.far_end(&spec.remote).await?;
        let offer = self
            .look(|state, _| {
                let used = labels_in_use(state, &border.name);
                border.labels.offer(&used, &self.config().domain, &peer)
            })
            .await;
        if offer.is_empty() {
            return Err(no_label(&border.name));
        }
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
        // what goes without saying is not said: a controller that knows no labels takes the rest
        let all = Labels::half(&self.config().domain, &peer);
        let labels = (offer != all).then(|| offer.to_string());
        let told: Result<Stitch, Problem> = loop {
            let proposal = StitchProposal {
                stitch_id: id,
                initiator: self.config().domain.clone(),
                name: spec.name.clone(),
                tenant: spec.tenant.clone(),
                qos: spec.qos.clone(),
                schedule: spec.schedule,
                border_link: border.peer_ref.clone(),
                endpoint: spec.remote.endpoint.clone(),
                labels: labels.clone(),
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
            Ok(Stitch {
                label: Some(label), ..
            }) if !offer.has(label) => {
                let problem = Problem::new(
                    Kind::BackendError,
                    format!(
                        "domain {peer} chose VLAN {label} on border link {}, which was not offered",
                        border.name
                    ),
                );
                self.give_up(who, id, &problem, true).await?;
                Err(problem)
            }
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
                    addresses::choose(&self.config().addresses, &state.subnets_in_use(now), mtu)?
                }
            };
            let (near, far) = stitches::deal(&whole)?;
            // the gateway is this end's: the other one knows no way out
            let far = gateways::beyond(far)?;
            let mut members = spec.members.clone();
            members.push(border_member(&border.name));
            let own = SliceSpec {
                name: spec.name.clone(),
                tenant: spec.tenant.clone(),
                qos: spec.qos.clone(),
                members,
                open: false,
                schedule: spec.schedule,
                path: None,
                addressing: Some(near),
                auto_provision: true,
                commit: false,
                hold_seconds: spec.hold_seconds,
                labels: BTreeMap::new(),
            };
            let booking = self.book(state, own, Some(id), now)?;
            let config = self.config();
            let domain = &config.domain;
            let row = stitches::propose(id, domain, peer, &border.name, &booking.slice);
            let detail = format!("slice {} with domain {peer}", spec.name);
            Ok(Decision::only((row.clone(), far, false))
                .event("stitch.proposed", Some(id), detail)
                .change(once.keep(&row.stitch, Some(id), now))
                .change(Change::Stitch(row))
                .change(Change::Booking(Box::new(booking))))
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
            let whole = addresses::choose(&self.config().addresses, &used, mtu)?;
            let (mut near, far) = stitches::deal(&whole)?;
            if gateways::of_slice(&state.gateways, &booking.slice.spec).is_some() {
                addresses::set_gateways(&mut near);
            }
            booking.slice.spec.addressing = Some(near);
            booking.slice.version += 1;
            Ok(Decision::only(far).change(Change::Booking(Box::new(booking))))
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
            let peer = state.peers.get(&proposal.initiator);
            if peer.is_none_or(|row| row.revoked.is_some()) {
                return Err(not_federated(&proposal.initiator));
            }
            let config = self.config();
            let border = config.borders.iter().find(|border| {
                border.name == proposal.border_link && border.peer_domain == proposal.initiator
            });
            let border = border.ok_or_else(|| {
                let problem = Problem::new(Kind::NoPath, "the slice cannot enter this domain");
                problem.at(
                    "/border_link",
                    format!("no link {} leads to you", proposal.border_link),
                )
            })?;
            let label = label(state, border, &self.config().domain, &proposal)?;
            let host = offered(state, proposal.endpoint.as_deref())?;
            let own = SliceSpec {
                name: proposal.name.clone(),
                tenant: proposal.tenant.clone(),
                qos: proposal.qos.clone(),
                members: vec![
                    Member::of_host(host, Role::Endpoint),
                    border_member(&border.name),
                ],
                open: false,
                schedule: proposal.schedule,
                path: None,
                addressing: Some(proposal.addressing.clone()),
                auto_provision: true,
                commit: false,
                hold_seconds: proposal.hold_seconds,
                labels: BTreeMap::new(),
            };
            let booking = self.book(state, own, Some(proposal.stitch_id), now)?;
            let row = stitches::accept(&proposal, &border.name, label, &booking.slice);
            let detail = format!("slice {} for domain {}", proposal.name, proposal.initiator);
            Ok(Decision::only(row.stitch.clone())
                .event("stitch.held", Some(proposal.stitch_id), detail)
                .change(Change::Stitch(row))
                .change(Change::Booking(Box::new(booking))))
        });
        let held = held.await?;
        failpoint::reach("held-for-peer").await;
        Ok(held)
    }
}

/// VLANs that stitches have on a border link.
fn labels_in_use(state: &State, border: &Name) -> BTreeSet<u16> {
    state
        .stitches
        .values()
        .filter(|row| row.stitch.border_link == *border && !row.over())
        .filter_map(|row| row.stitch.label)
        .collect()
}

/// The VLAN of a slice that comes in, out of those that the other domain offers.
fn label(
    state: &State,
    border: &Border,
    own: &Name,
    proposal: &StitchProposal,
) -> Result<Option<u16>, Problem> {
    let offered = match &proposal.labels {
        None => Labels::half(&proposal.initiator, own),
        Some(text) => text.parse().map_err(|why| {
            Problem::new(Kind::InvalidRequest, "the proposal is not valid").at("/labels", why)
        })?,
    };
    let used = labels_in_use(state, &border.name);
    match border.labels.choose(&offered, &used) {
        Some(label) => Ok(Some(label)),
        None => Err(no_label(&border.name).at("/labels", "none of these is free here")),
    }
}

fn no_label(border: &Name) -> Problem {
    Problem::new(
        Kind::PoolExhausted,
        format!(
            "no VLAN is free on both sides of border link {border} for this direction: end a slice, or allow more (labels of [[border]] in appliance.toml)"
        ),
    )
}

/// The host at this end: the one that is named, or the only one that is offered.
fn offered(state: &State, endpoint: Option<&str>) -> Result<dtn_api::HostId, Problem> {
    let mut hosts = state
        .hosts
        .values()
        .filter(|host| host.spec.permitted && host.spec.kind == HostKind::Nic)
        // a gateway's NIC is an end of no slice, unless it is named
        .filter(|host| {
            let gateways = || state.gateways.values();
            endpoint.is_some() || !gateways().any(|row| row.spec.host == host.id)
        })
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
