//! What the slices need of the network now, told to the fabric whenever it changes; and who may
//! connect as a switch.

use super::{Decision, Engine, not_found};
use crate::{
    auth::{self, Principal},
    fabric::{
        Attached, BorderEnd, Intent,
        network::{Network, Place},
    },
    leases::LeaseRow,
    slices::Booking,
    state::State,
};
use dtn_api::{
    HostId, Name, Problem,
    fabric::SwitchCertificate,
    host::{Host, HostKind},
    lease::LeaseState,
};
use jiff::Timestamp;
use std::collections::BTreeSet;

impl Engine {
    /// A certificate for a switch of the configuration.
    pub async fn certify_switch(
        &self,
        who: &Principal,
        name: &Name,
        csr_pem: &str,
    ) -> Result<SwitchCertificate, Problem> {
        let known = self.fabric.network().and_then(|net| net.switch(name));
        if known.is_none() {
            return Err(not_found("switch", name));
        }
        self.decide(who, |_, now| {
            let certificate_pem = self
                .authority
                .certify(auth::SWITCH_ROLE, name, csr_pem, now)?;
            let made = SwitchCertificate {
                certificate_pem,
                ca_pem: self.authority.ca_pem().to_owned(),
            };
            let detail = format!("switch {name}");
            Ok(Decision::only(made).event("switch.certified", None, detail))
        })
        .await
    }
    /// Tells the fabric the whole of what is wanted, when it has switches and it is not the same as
    /// before.
    pub(super) async fn tell_fabric(&self) {
        let Some(network) = self.fabric.network() else {
            return;
        };
        let wanted = self.look(|state, now| intents(state, network, now)).await;
        let mut told = self.told.lock().await;
        if told.as_ref() != Some(&wanted) {
            *told = Some(wanted.clone());
            self.fabric.intend(wanted);
        }
    }
}

/// Every slice that carries traffic now, with the interfaces that hold a lease in it.
fn intents(state: &State, network: &Network, now: Timestamp) -> Vec<Intent> {
    state
        .bookings
        .values()
        .filter(|booking| booking.slice.carries_at(now))
        .filter_map(|booking| intent(state, network, booking))
        .collect()
}

fn intent(state: &State, network: &Network, booking: &Booking) -> Option<Intent> {
    let (slice, spec) = (&booking.slice, &booking.slice.spec);
    let nics: Vec<&Host> = spec
        .members
        .iter()
        .filter_map(|member| state.hosts.get(member.host.as_ref()?))
        .filter(|host| host.spec.kind == HostKind::Nic)
        .collect();
    let mut members: Vec<Attached> = state
        .leases_of(slice.id)
        .into_iter()
        .filter(|row| row.lease.state == LeaseState::Bound)
        .filter_map(|row| {
            Some(Attached {
                mac: row.lease.mac,
                ips: row.lease.ips.iter().map(|net| net.addr()).collect(),
                at: place(network, &nics, row)?.clone(),
            })
        })
        .collect();
    members.sort();
    let border = spec.members.iter().find_map(|member| {
        let link = member.border_link.as_ref()?;
        let at = network
            .borders
            .iter()
            .find(|border| border.name == *link)?
            .at
            .clone()?;
        let label = state.stitches.get(&slice.stitch?)?.stitch.label?;
        Some(BorderEnd {
            link: link.clone(),
            at,
            label,
        })
    });
    Some(Intent {
        slice: slice.id,
        name: spec.name.clone(),
        tag: booking.tag?,
        class: spec.qos.class,
        rate_bps: spec.qos.rate_bps,
        burst_ms: spec.qos.burst_ms,
        members,
        border,
        cables: cables(network, booking),
    })
}

/// Where a lease's interface enters the fabric: at the port of the NIC that it is, or of the only
/// NIC of its node that is in the slice.
fn place<'a>(network: &'a Network, nics: &[&Host], row: &LeaseRow) -> Option<&'a Place> {
    let own = HostId::untagged(row.lease.mac);
    if let Some(whole) = nics.iter().find(|nic| nic.id == own) {
        return network.place(whole);
    }
    let mut of_node = nics
        .iter()
        .filter(|nic| Some(&nic.spec.node) == row.node.as_ref());
    match (of_node.next(), of_node.next()) {
        (Some(only), None) => network.place(only),
        _ => None,
    }
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
