//! Hosts that ask for an address by DHCP: which slice such a host is in, and its lease in the same
//! store as everybody's. What it is told is durable before.

use super::{Decision, Engine, leasing};
use crate::{
    auth::Principal,
    dhcp::{
        Question, Reply, Silence,
        answer::{self, Deed, Known},
        offers::Offers,
        wire,
    },
    gateways,
    leases::Asker,
    slices::Booking,
    state::{Change, State},
};
use dtn_api::{
    HostId, MacAddress,
    host::{Host, HostKind},
};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, MutexGuard, PoisonError},
};
use uuid::Uuid;

/// What is known of hosts that ask, and not written down.
#[derive(Debug, Default)]
pub(super) struct Asking {
    /// What they were offered.
    offers: Offers,
    /// Why hosts at a NIC's port were told nothing, as far as it was said. Ports are as many as the
    /// site has written.
    said: BTreeMap<String, BTreeSet<u8>>,
}

/// Answers hosts as they ask; one after another, since their leases are written down so anyway.
pub async fn run(engine: Arc<Engine>) {
    loop {
        let asked = engine.fabric.asked().await;
        let Some(reply) = engine.asked(&asked.nic, &asked.question).await else {
            continue;
        };
        let Some(written) = wire::write(&asked.question, &reply) else {
            continue;
        };
        if written.left_out > 0 {
            let (mac, nic) = (asked.question.mac, &asked.nic);
            tracing::warn!(
                "{mac} at {nic} was told of all but {} routes: it takes no longer message by DHCP",
                written.left_out
            );
        }
        (asked.answer)(written.frame).await;
    }
}

impl Engine {
    /// What is told to a host that asks at the port of a NIC (`node/nic`); nothing to who gets
    /// nothing, which is said in the log once for each reason.
    pub async fn asked(&self, nic: &str, question: &Question) -> Option<Reply> {
        let done = self
            .decide(&Principal::Itself, |state, now| {
                let deed = match whose(state, nic, question.mac, now) {
                    Ok((host, booking)) => self.deed(state, question, host, booking, now),
                    Err(silence) => Deed::Silent(silence),
                };
                Ok(decision(question.mac, deed))
            })
            .await;
        let told = match done {
            Ok(told) => told,
            // it asks again
            Err(problem) => {
                tracing::error!("answering {} at {nic} by DHCP: {problem}", question.mac);
                return None;
            }
        };
        let mut asking = self.asking();
        match told {
            Ok(reply) => {
                // others may be behind the same port
                let others = [Silence::Unknown, Silence::Elsewhere(String::new())];
                if let Some(said) = asking.said.get_mut(nic) {
                    said.retain(|kind| others.iter().any(|other| other.kind() == *kind));
                }
                reply
            }
            Err(silence) => {
                let said = asking.said.entry(nic.to_owned()).or_default();
                if said.insert(silence.kind()) {
                    let mac = question.mac;
                    tracing::warn!("{mac} at {nic} asks for an address and gets none: {silence}");
                }
                None
            }
        }
    }

    fn asking(&self) -> MutexGuard<'_, Asking> {
        // every critical section here leaves whole values behind
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Addresses of a slice that are offered by DHCP to others than this hardware address.
    pub(super) fn offered(&self, slice: Uuid, except: MacAddress, now: Timestamp) -> Vec<IpAddr> {
        let asking = self.asking();
        asking.offers.of_others(slice, except, now).collect()
    }

    fn deed(
        &self,
        state: &State,
        question: &Question,
        host: &Host,
        booking: &Booking,
        now: Timestamp,
    ) -> Deed {
        let (slice, mac) = (booking.slice.id, question.mac);
        let mut taken = leasing::foreign_addresses(state, mac);
        taken.extend(self.offered(slice, mac, now));
        let mut asking = self.asking();
        let offered = asking.offers.of(slice, mac, now);
        let offered = offered.and_then(|ips| {
            ips.iter().find_map(|ip| match ip {
                IpAddr::V4(ip) => Some(*ip),
                IpAddr::V6(_) => None,
            })
        });
        let asker = Asker {
            id: Uuid::now_v7(),
            node: Some(host.spec.node.clone()),
            gateway: false,
            routes: leasing::routes(state, slice),
        };
        let known = Known {
            slice: &booking.slice,
            rows: &state.leases_of(slice),
            taken: &taken,
            offered,
            asker: &asker,
            location: Some(&host.location),
        };
        let deed = answer::decide(question, &known, now);
        match &deed {
            Deed::Offer(_, ips) => asking.offers.keep(slice, mac, ips.iter().copied(), now),
            Deed::Lease { .. } | Deed::Nothing => asking.offers.forget(slice, mac),
            _ => {}
        }
        deed
    }
}

/// The host that asks, and the one slice that it is in.
fn whose<'a>(
    state: &'a State,
    nic: &str,
    mac: MacAddress,
    now: Timestamp,
) -> Result<(&'a Host, &'a Booking), Silence> {
    let host = state.hosts.get(&HostId::untagged(mac));
    let host = host.filter(|host| host.spec.kind == HostKind::Nic);
    let host = host.ok_or(Silence::Unknown)?;
    let declared = format!("{}/{}", host.spec.node, host.spec.nic);
    if declared != nic {
        return Err(Silence::Elsewhere(declared));
    }
    let all = state.bookings.values();
    let carrying: Vec<&Booking> = all
        .filter(|booking| booking.slice.carries_at(now))
        .filter(|booking| {
            let mut members = booking.slice.spec.members.iter();
            members.any(|member| member.host.as_ref() == Some(&host.id))
        })
        .collect();
    let booking = match carrying.as_slice() {
        [] => return Err(Silence::NoSlice),
        [one] => *one,
        several => {
            let name = |booking: &&Booking| booking.slice.spec.name.to_string();
            return Err(Silence::Several(several.iter().map(name).collect()));
        }
    };
    let spec = &booking.slice.spec;
    if gateways::member(spec) == Some(&host.id) {
        return Err(Silence::Gateway(spec.name.to_string()));
    }
    Ok((host, booking))
}

/// A deed with what is written down for it.
fn decision(mac: MacAddress, deed: Deed) -> Decision<Result<Option<Reply>, Silence>> {
    let who = crate::dhcp::client(mac);
    match deed {
        Deed::Tell(reply) | Deed::Offer(reply, _) => Decision::only(Ok(Some(reply))),
        Deed::Nothing => Decision::only(Ok(None)),
        Deed::Silent(silence) => Decision::only(Err(silence)),
        Deed::Lease {
            reply,
            row,
            fresh,
            replaces,
        } => {
            let mut decision = Decision::only(Ok(Some(reply)));
            decision.changes.extend(replaces.map(Change::NoLease));
            if fresh {
                let ips: Vec<_> = row.lease.ips.iter().map(ToString::to_string).collect();
                let detail = format!("{} to {who}", ips.join(" "));
                decision = decision.event("lease.bound", Some(row.lease.id), detail);
            }
            decision.change(Change::Lease(*row))
        }
        Deed::Release(row) => Decision::only(Ok(None))
            .event("lease.released", Some(row.lease.id), format!("of {who}"))
            .change(Change::Lease(*row)),
        Deed::Decline(row) => {
            let ips: Vec<_> = row.lease.ips.iter().map(|net| net.addr()).collect();
            let detail = format!("{ips:?} of {who}: somebody else has it");
            tracing::warn!("{who} has found its address with somebody else: {ips:?}");
            Decision::only(Ok(None))
                .event("lease.declined", Some(row.lease.id), detail)
                .change(Change::Lease(*row))
        }
    }
}
