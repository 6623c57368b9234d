//! What the slices need of the network now, told to the fabric whenever it changes.

use super::{Engine, gateways::leased};
use crate::{
    addresses,
    fabric::{
        Access, Attached, BorderEnd, Intent,
        network::{Network, Place},
    },
    gateways::{self, GatewayRow},
    leases::LeaseRow,
    members::{NIC_LABEL, sits_on},
    slices::Booking,
    state::State,
};
use dtn_api::{
    HostId, Name,
    host::{Host, HostKind},
    lease::LeaseState,
};
use jiff::Timestamp;
use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

impl Engine {
    /// Tells the fabric the whole of what is wanted, when it has switches and it is not the same as
    /// before.
    pub(super) async fn tell_fabric(&self) {
        let Some(network) = self.fabric.network() else {
            return;
        };
        let wanted = self.look(|state, now| intents(state, network, now)).await;
        let mut told = lock(&self.told);
        if told.as_ref() != Some(&wanted) {
            *told = Some(wanted.clone());
            drop(told);
            self.fabric.intend(wanted);
        }
    }
    /// Why the switches cannot have been told of a slice as it is now; `None` when they were.
    pub(super) fn untold(
        &self,
        state: &State,
        booking: &Booking,
        now: Timestamp,
    ) -> Option<String> {
        let network = self.fabric.network()?;
        let wish = wish(state, network, booking, now);
        if let Some(lack) = wish.lacks.into_iter().next() {
            return Some(lack);
        }
        let told = lock(&self.told);
        let same = told
            .iter()
            .flatten()
            .any(|one| Some(one) == wish.intent.as_ref());
        (!same).then(|| "the switches are being told of it".to_owned())
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every slice that carries traffic now, with the interfaces that hold a lease in it.
fn intents(state: &State, network: &Network, now: Timestamp) -> Vec<Intent> {
    state
        .bookings
        .values()
        .filter(|booking| booking.slice.carries_at(now))
        .filter_map(|booking| wish(state, network, booking, now).intent)
        .collect()
}

/// What a slice needs of the switches, and what of it cannot be said to them.
struct Wish {
    intent: Option<Intent>,
    lacks: Vec<String>,
}

fn wish(state: &State, network: &Network, booking: &Booking, now: Timestamp) -> Wish {
    let (slice, spec) = (&booking.slice, &booking.slice.spec);
    let mut lacks = Vec::new();
    let nics: Vec<&Host> = spec
        .members
        .iter()
        .filter_map(|member| state.hosts.get(member.host.as_ref()?))
        .filter(|host| host.spec.kind == HostKind::Nic)
        .collect();
    let gateway = gateways::of_slice(&state.gateways, spec);
    let mut members = Vec::new();
    for row in state.leases_of(slice.id) {
        if row.lease.state != LeaseState::Bound {
            continue;
        }
        match place(network, state, &nics, gateway, row) {
            Ok(at) => members.push(Attached {
                mac: row.lease.mac,
                ips: row.lease.ips.iter().map(|net| net.addr()).collect(),
                at: at.clone(),
            }),
            Err(why) => lacks.push(format!("{} cannot send: {why}", row.lease.client_id)),
        }
    }
    members.sort();
    // nothing passes a gateway that has no port
    let access = gateway
        .and_then(|row| access(state, row, booking, now))
        .filter(|access| members.iter().any(|one| one.mac == access.gateway));
    let link = spec.members.iter().find_map(|m| m.border_link.as_ref());
    let border = link.and_then(|link| match border(state, network, booking, link) {
        Ok(border) => Some(border),
        Err(why) => {
            lacks.push(why);
            None
        }
    });
    if booking.tag.is_none() {
        lacks.push(
            "it was booked when the domain had no switches: end it and reserve it again".into(),
        );
    }
    let intent = booking.tag.map(|tag| Intent {
        slice: slice.id,
        name: spec.name.clone(),
        tag,
        class: spec.qos.class,
        rate_bps: spec.qos.rate_bps,
        burst_ms: spec.qos.burst_ms,
        members,
        border,
        cables: cables(network, booking),
        access,
    });
    Wish { intent, lacks }
}

/// Who may pass a slice's gateway now; none before the gateway is there.
fn access(
    state: &State,
    gateway: &GatewayRow,
    booking: &Booking,
    now: Timestamp,
) -> Option<Access> {
    let spec = &booking.slice.spec;
    let lease = &leased(state, gateway, booking)?.lease;
    let rules = state.access.get(&gateway.name);
    Some(Access {
        gateway: lease.mac,
        subnets: spec
            .addressing
            .as_ref()
            .map(|addressing| addresses::subnets(addressing).collect())
            .unwrap_or_default(),
        rules: rules
            .map(|row| row.standing(&spec.tenant, &spec.name, now))
            .unwrap_or_default(),
    })
}

/// Where a slice leaves the domain.
fn border(
    state: &State,
    network: &Network,
    booking: &Booking,
    link: &Name,
) -> Result<BorderEnd, String> {
    let known = network.borders.iter().find(|border| border.name == *link);
    let at = known.and_then(|border| border.at.clone()).ok_or_else(|| {
        format!("border link {link} has no port: write at = \"SWITCH/PORT\" in its [[border]] of appliance.toml")
    })?;
    let stitch = booking.slice.stitch.and_then(|id| state.stitches.get(&id));
    let label = match stitch {
        None => Err(format!(
            "it has no VLAN on border link {link}, since no other domain is in it: ask for it as a stitch"
        )),
        Some(row) => row.stitch.label.ok_or_else(|| {
            format!(
                "domain {} has agreed on no VLAN on border link {link}: its controller is older, or the stitch is; reserve it again",
                row.stitch.peer
            )
        }),
    }?;
    Ok(BorderEnd {
        link: link.clone(),
        at,
        label,
    })
}

/// Where a lease's interface enters the fabric: at the port of the NIC that it is, or of the NIC of
/// its node that its label says, or of the only one that is in the slice. A gateway has a NIC for
/// itself.
fn place<'a>(
    network: &'a Network,
    state: &State,
    nics: &[&Host],
    gateway: Option<&GatewayRow>,
    row: &LeaseRow,
) -> Result<&'a Place, String> {
    let passes = gateway.is_some_and(|gateway| gateway.client() == row.lease.client_id);
    let theirs = |nic: &Host| gateway.is_some_and(|gateway| gateway.spec.host == nic.id);
    let own = HostId::untagged(row.lease.mac);
    let of_node = || {
        let mut found = nics
            .iter()
            .filter(|nic| sits_on(row, nic, &state.hosts) && theirs(nic) == passes);
        match (found.next(), found.next()) {
            (Some(only), None) => Ok(*only),
            (None, _) => Err("its node has no NIC in the slice".to_owned()),
            (Some(_), Some(_)) => Err(format!(
                "its node has several NICs in the slice, and it does not say on which it sits: ask \
                 with the label {NIC_LABEL}, or use one NIC per node"
            )),
        }
    };
    let nic = match nics.iter().find(|nic| nic.id == own) {
        Some(whole) => *whole,
        None => of_node()?,
    };
    network.place(nic).ok_or_else(|| {
        format!(
            "where {}/{} is plugged in is not known: add a [[port]] to appliance.toml",
            nic.spec.node, nic.spec.nic
        )
    })
}

/// The cables among the links that the slice is booked on.
fn cables(network: &Network, booking: &Booking) -> BTreeSet<[Name; 2]> {
    let switch = |text: &str| {
        let name = text.parse::<Name>().ok()?;
        network.switch(&name).map(|switch| switch.name.clone())
    };
    booking
        .shares
        .iter()
        .filter_map(|share| {
            let (from, to) = share.link.split_once('>')?;
            let mut pair = [switch(from)?, switch(to)?];
            pair.sort();
            Some(pair)
        })
        .collect()
}

#[cfg(test)]
mod tests;
