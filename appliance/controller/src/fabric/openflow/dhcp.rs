//! What hosts ask by DHCP, handed over by the switches and on to who has the leases; and the answer to
//! who asks for the hardware address that they ask it of.
//!
//! A host that asks all the time uses up the share of its own port, before anything is looked at or
//! written down for it; what waits for an answer is bounded, and who comes later asks again.

use super::{
    Shared, discovery, neighbours,
    session::{Session, lock},
};
use crate::{
    dhcp::{SERVER, SERVER_MAC, wire},
    fabric::{Asked, network::PortRef},
};
use dtn_openflow::PacketIn;
use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
};
use tokio::time::Instant;

/// Questions that wait to be answered.
pub(super) const QUEUE: usize = 64;
/// Questions of a port per second, and at once: a host needs four for an address, and sends one
/// again after 4 s at the earliest (RFC 2131 §4.1); some do after one.
pub(super) const RATE: u32 = 1;
pub(super) const BURST: u32 = 16;

impl Shared {
    /// A host's DHCP came in, or its question for the server's hardware address.
    pub(super) async fn lease_asked(&self, session: &Arc<Session>, port: u32, packet: &PacketIn) {
        if let Some(asks) = neighbours::question(&packet.data) {
            let ours = asks.target == IpAddr::V4(SERVER);
            let told = ours.then(|| neighbours::answer(&asks, SERVER_MAC, false));
            if let Some(told) = told.flatten() {
                // a switch whose queue is full has nobody else wait; who asks does so again
                let reply = discovery::out(told, port);
                session.emit(reply, Instant::now()).await;
            }
            return;
        }
        if !lock(&session.questions).take(port, Instant::now()) {
            self.flooded();
            return;
        }
        let Some((question, nic)) = wire::read(&packet.data).zip(self.nic_at(session, port)) else {
            return;
        };
        let back = session.clone();
        let asked = Asked {
            nic,
            question,
            answer: Box::new(move |frame| {
                Box::pin(async move {
                    let reply = discovery::out(frame, port);
                    back.emit(reply, Instant::now()).await;
                })
            }),
        };
        if self.questions.try_send(asked).is_err() {
            self.flooded();
        }
    }
    fn flooded(&self) {
        self.dropped.flooded.fetch_add(1, Ordering::Relaxed);
    }
    /// The NIC that the site has written down for a port.
    fn nic_at(&self, session: &Arc<Session>, port: u32) -> Option<String> {
        let switch = self.switch_of(session)?;
        let (numbers, _) = session.ports();
        let mut all = self.network.ports.iter();
        let found = all.find(|(_, place)| {
            place.switch == switch
                && match &place.port {
                    PortRef::Name(name) => numbers.get(name) == Some(&port),
                    PortRef::Number(number) => *number == port,
                }
        });
        found.map(|(nic, _)| nic.clone())
    }
}
