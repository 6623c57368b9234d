//! Answers to members that ask who has an address: ARP (RFC 826) and neighbour discovery (RFC 4861),
//! out of what is known of a slice's members instead of by asking all of them.
//!
//! What comes here has been let in by a rule of the slice that its cookie names
//! ([`crate::fabric::program::asks`]), and as many of it as of whatever else is handed over
//! ([`super::discovery`]).

use super::{
    Shared,
    session::{Session, lock},
};
use crate::fabric::{
    Attached, Intent,
    program::{
        GROUP,
        frames::{ADVERTISEMENT, ARP, IPV4, IPV6, SOLICITATION, link_local},
        tag_of,
    },
};
use dtn_api::MacAddress;
use dtn_openflow::{Action, PacketIn, PacketOut};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};
use tokio::time::Instant;

const ICMPV6: u8 = 58;
/// Hops left, so that it is known to come from the same link (RFC 4861 §7.1).
const HOPS: u8 = 255;
/// Ethernet as ARP's kind of hardware, and the lengths of its addresses (RFC 826).
const HARDWARE: [u8; 2] = [0, 1];
const LENGTHS: [u8; 2] = [6, 4];
const ASKS: [u8; 2] = [0, 1];
const ANSWERS: [u8; 2] = [0, 2];
/// In an advertisement: it is a router; it was asked for; it counts more than what was known
/// (RFC 4861 §4.4).
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// The option with the hardware address of who is asked for, in units of eight bytes
/// (RFC 4861 §4.6.1).
const TARGET_ADDRESS: [u8; 2] = [2, 1];

/// What a member wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    /// Who asks: its hardware address and the address that the answer goes to.
    pub(super) asker: (MacAddress, IpAddr),
    /// Whose hardware address it wants.
    pub(super) target: IpAddr,
}

/// The question in a frame without VLAN; none when there is no question in it that can be answered.
pub(super) fn question(frame: &[u8]) -> Option<Question> {
    let (head, rest) = frame.split_first_chunk::<14>()?;
    let asker = MacAddress::new(*head.get(6..)?.first_chunk()?);
    match u16::from_be_bytes(*head.last_chunk()?) {
        ARP => {
            let asks = rest.strip_prefix(&HARDWARE)?;
            let asks = asks.strip_prefix(&IPV4.to_be_bytes())?;
            let asks = asks.strip_prefix(&LENGTHS)?.strip_prefix(&ASKS)?;
            let (_, asks) = asks.split_first_chunk::<6>()?;
            let (from, asks) = asks.split_first_chunk::<4>()?;
            let (_, asks) = asks.split_first_chunk::<6>()?;
            let question = Question {
                asker: (asker, Ipv4Addr::from(*from).into()),
                target: Ipv4Addr::from(*asks.first_chunk::<4>()?).into(),
            };
            // who tells its own address asks nothing
            (question.asker.1 != question.target).then_some(question)
        }
        IPV6 => {
            let (head, body) = rest.split_first_chunk::<40>()?;
            let right = head[0] >> 4 == 6 && head[6] == ICMPV6 && head[7] == HOPS;
            let from = Ipv6Addr::from(*head.get(8..)?.first_chunk::<16>()?);
            let body = body.strip_prefix(&[SOLICITATION, 0])?;
            let target = Ipv6Addr::from(*body.get(6..)?.first_chunk::<16>()?);
            // from no address: it tries whether its own is free, and everyone shall hear it
            let asks = right && !from.is_unspecified() && from != target;
            asks.then_some(Question {
                asker: (asker, from.into()),
                target: target.into(),
            })
        }
        _ => None,
    }
}

impl Shared {
    /// A member's question for a neighbour came in.
    pub(super) async fn asked(&self, session: &Arc<Session>, port: u32, packet: &PacketIn) {
        let wanted = lock(&self.state).wanted.clone();
        let tag = tag_of(packet.cookie);
        let reply = wanted.zip(tag).and_then(|(wanted, tag)| {
            let intent = wanted.intents.iter().find(|intent| intent.tag == tag)?;
            reply(intent, port, &packet.data)
        });
        if let Some(reply) = reply {
            // a switch whose queue is full has nobody else wait; who asks does so again
            session.emit(reply, Instant::now()).await;
        }
    }
}

/// What is done with a question in a slice: its member here is told of; who may be behind the border
/// is asked there, as if nobody had looked; nobody else is there.
fn reply(intent: &Intent, port: u32, frame: &[u8]) -> Option<PacketOut> {
    let question = question(frame)?;
    match holder(intent, question.target) {
        // whoever looks for an address of its own has it
        Some(member) if member.mac == question.asker.0 => None,
        Some(member) => {
            let gateway = intent.access.as_ref().map(|access| access.gateway);
            let told = answer(&question, member.mac, gateway == Some(member.mac))?;
            Some(super::discovery::out(told, port))
        }
        None => intent.border.as_ref().map(|_| PacketOut {
            in_port: port,
            ..PacketOut::new(
                frame.to_vec(),
                vec![Action::Group(GROUP | u32::from(intent.tag))],
            )
        }),
    }
}

/// The member of a slice that has an address.
pub(super) fn holder(intent: &Intent, address: IpAddr) -> Option<&Attached> {
    intent.members.iter().find(|member| {
        let v6 = member.ips.iter().any(IpAddr::is_ipv6);
        member.ips.contains(&address) || v6 && address == IpAddr::V6(link_local(member.mac))
    })
}

/// The answer: this one has it.
pub(super) fn answer(question: &Question, mac: MacAddress, router: bool) -> Option<Vec<u8>> {
    let (asker, to) = question.asker;
    let mut frame = Vec::with_capacity(86);
    frame.extend(asker.bytes());
    frame.extend(mac.bytes());
    match (question.target, to) {
        (IpAddr::V4(target), IpAddr::V4(to)) => {
            frame.extend(ARP.to_be_bytes());
            frame.extend(HARDWARE);
            frame.extend(IPV4.to_be_bytes());
            frame.extend(LENGTHS);
            frame.extend(ANSWERS);
            frame.extend(mac.bytes());
            frame.extend(target.octets());
            frame.extend(asker.bytes());
            frame.extend(to.octets());
        }
        (IpAddr::V6(target), IpAddr::V6(to)) => {
            let flags = SOLICITED | OVERRIDE | if router { ROUTER } else { 0 };
            let mut body = vec![ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
            body.extend(target.octets());
            body.extend(TARGET_ADDRESS);
            body.extend(mac.bytes());
            let sum = checksum(target, to, &body);
            body.splice(2..4, sum.to_be_bytes());
            frame.extend(IPV6.to_be_bytes());
            frame.extend([0x60, 0, 0, 0, 0, body.len() as u8, ICMPV6, HOPS]);
            frame.extend(target.octets());
            frame.extend(to.octets());
            frame.extend(body);
        }
        _ => return None,
    }
    Some(frame)
}

/// Over the pseudo-header and the body, whose own field is zero (RFC 4443 §2.3).
fn checksum(from: Ipv6Addr, to: Ipv6Addr, body: &[u8]) -> u16 {
    let length = (body.len() as u32).to_be_bytes();
    let next = [0, 0, 0, ICMPV6];
    let whole = [&from.octets()[..], &to.octets(), &length, &next, body].concat();
    let mut sum: u32 = whole
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
#[path = "neighbours_tests.rs"]
mod tests;
