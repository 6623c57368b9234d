//! DHCP messages in frames (RFC 2131 §2, RFC 2132). What is no question that can be answered is none:
//! nothing here fails, and nothing that a host sends makes it panic.
//!
//! The sums of what comes in are not looked at: a host on the same machine leaves them to a NIC that
//! is not there. What goes out has right ones.

use super::{
    Asks, CLIENT_PORT, Granted, Network, Question, Reply, SERVER, SERVER_MAC, SERVER_PORT,
};
use crate::fabric::program::frames::IPV4;
use dhcproto::{
    Encodable,
    v4::{DhcpOption, Flags, MIN_PACKET_SIZE, Message, MessageType, Opcode, OptionCode, borrowed},
};
use dtn_api::MacAddress;
use ipnet::Ipv4Net;
use std::{collections::BTreeMap, net::Ipv4Addr};

const UDP: u8 = 17;
const BROADCAST: MacAddress = MacAddress::new([0xff; 6]);
/// Ethernet among the kinds of hardware, and the length of its addresses (RFC 1700).
const ETHERNET: [u8; 2] = [1, 6];
/// What every message begins with, up to its options; and what they begin with (RFC 2131 §3).
const HEAD: usize = 240;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// More fragments follow, or this is a later one (RFC 791 §3.1).
const FRAGMENT: u16 = 0x3fff;
/// Hops that an answer may take; it takes one.
const HOPS: u8 = 64;
/// An IP packet that each host takes (RFC 2131 §2), and the longest that goes out.
const TAKEN_BY_ALL: u16 = 576;
const LONGEST: u16 = 1500;
/// Longest client identifier that is repeated, in bytes: a kind, a number and the longest DUID
/// (RFC 4361 §6.1, RFC 8415 §11.1). With one an answer without routes fits into what each host takes.
const LONGEST_IDENTIFIER: usize = 1 + 4 + 130;

/// The question in a frame without VLAN.
pub fn read(frame: &[u8]) -> Option<Question> {
    let (ethernet, packet) = frame.split_first_chunk::<14>()?;
    let from = MacAddress::new(*ethernet.get(6..)?.first_chunk()?);
    let kind = u16::from_be_bytes(*ethernet.last_chunk()?);
    let message = (kind == IPV4).then(|| payload(packet)).flatten()?;
    question(message).filter(|question| question.mac == from)
}

/// What a UDP packet from client to server carries, when it is for this server.
fn payload(packet: &[u8]) -> Option<&[u8]> {
    let (head, _) = packet.split_first_chunk::<20>()?;
    let [
        first,
        _,
        high,
        low,
        _,
        _,
        more,
        offset,
        _,
        protocol,
        _,
        _,
        _,
        _,
        _,
        _,
        to @ ..,
    ] = *head;
    let whole = packet.get(..usize::from(u16::from_be_bytes([high, low])))?;
    let fragment = u16::from_be_bytes([more, offset]) & FRAGMENT != 0;
    let ours = [SERVER, Ipv4Addr::BROADCAST].contains(&Ipv4Addr::from(to));
    if first >> 4 != 4 || protocol != UDP || fragment || !ours {
        return None;
    }
    let (udp, _) = whole
        .get(usize::from(first & 0xf) * 4..)?
        .split_first_chunk::<8>()?;
    let [a, b, c, d, e, f, ..] = *udp;
    let ports = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
    let length = usize::from(u16::from_be_bytes([e, f]));
    let from = whole.len().checked_sub(length).filter(|_| length >= 8)?;
    // the UDP packet is what the IP packet holds, to its end
    let begins = usize::from(first & 0xf) * 4 == from && usize::from(first & 0xf) >= 5;
    (ports == [CLIENT_PORT, SERVER_PORT] && begins)
        .then(|| whole.get(from + 8..))
        .flatten()
}

fn question(bytes: &[u8]) -> Option<Question> {
    let hardware = bytes.get(1..3)? == ETHERNET;
    if bytes.len() < HEAD || !hardware || bytes.get(HEAD - 4..HEAD)? != COOKIE {
        return None;
    }
    let message = borrowed::Message::new(bytes).ok()?;
    // a relay's: there is none between a port of a switch and its host
    if message.opcode() != Opcode::BootRequest || !message.giaddr().is_unspecified() {
        return None;
    }
    let mut options = BTreeMap::new();
    for option in message.opts() {
        // of an option that is there twice the first counts
        options
            .entry(u8::from(option.code()))
            .or_insert_with(|| option.data().to_vec());
    }
    let of = |code: OptionCode| options.get(&code.into());
    let address = |code| {
        Some(Ipv4Addr::from(
            <[u8; 4]>::try_from(of(code)?.as_slice()).ok()?,
        ))
    };
    let kind = match of(OptionCode::MessageType)?.as_slice() {
        [kind] => MessageType::from(*kind),
        _ => return None,
    };
    let server = address(OptionCode::ServerIdentifier);
    let requested = address(OptionCode::RequestedIpAddress);
    let has = message.ciaddr();
    let asks = match (kind, server, requested) {
        (MessageType::Discover, ..) => Asks::Address(requested),
        // RFC 2131 §4.3.2 tells the three by what is filled in
        (MessageType::Request, Some(server), Some(address)) => Asks::Take { server, address },
        (MessageType::Request, None, Some(address)) if has.is_unspecified() => Asks::Keep(address),
        (MessageType::Request, None, _) | (MessageType::Request, Some(SERVER), None)
            if !has.is_unspecified() =>
        {
            Asks::Extend(has)
        }
        (MessageType::Inform, ..) if !has.is_unspecified() => Asks::Inform(has),
        (MessageType::Release, Some(SERVER), _) => Asks::Release(has),
        (MessageType::Decline, Some(SERVER), Some(address)) => Asks::Decline(address),
        _ => return None,
    };
    let number = |code| {
        let bytes = of(code)?;
        (bytes.len() <= 4).then(|| bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b)))
    };
    let identifier = of(OptionCode::ClientIdentifier).cloned();
    Some(Question {
        xid: message.xid(),
        mac: MacAddress::new(*message.chaddr().first_chunk()?),
        broadcast: message.flags().broadcast(),
        asks,
        identifier: identifier.filter(|id| (1..=LONGEST_IDENTIFIER).contains(&id.len())),
        wants: of(OptionCode::ParameterRequestList).cloned(),
        lease_seconds: number(OptionCode::AddressLeaseTime),
        longest: number(OptionCode::MaxMessageSize).and_then(|n| n.try_into().ok()),
    })
}

/// An answer as it leaves by the host's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The frame.
    pub frame: Vec<u8>,
    /// Routes for which there was no room in a message of the length that the host takes.
    pub left_out: usize,
}

/// The frame with an answer; none when the message cannot be written, which nothing that comes in
/// can bring about.
pub fn write(question: &Question, reply: &Reply) -> Option<Written> {
    let longest = question.longest.unwrap_or(0).clamp(TAKEN_BY_ALL, LONGEST);
    let routes = match reply {
        Reply::Offer(_, network) | Reply::Granted(_, network) | Reply::Informed(network) => {
            network.routes.len()
        }
        Reply::Refused(_) => 0,
    };
    let mut left_out = 0;
    loop {
        let message = message(question, reply, routes - left_out);
        let mut body = message.to_vec().ok()?;
        // what BOOTP had, and some relays and clients look for still (RFC 951 §3)
        body.resize(body.len().max(MIN_PACKET_SIZE), 0);
        let length = u16::try_from(20 + 8 + body.len()).ok()?;
        if length > longest && left_out < routes {
            left_out += 1;
            continue;
        }
        let frame = framed(receiver(question, reply), length, &body);
        return Some(Written { frame, left_out });
    }
}

/// To whom an answer goes (RFC 2131 §4.1): to all, where the host does not know of its address yet.
fn receiver(question: &Question, reply: &Reply) -> (MacAddress, Ipv4Addr) {
    match (reply, question.asks) {
        (Reply::Granted(..), Asks::Extend(has)) | (Reply::Informed(_), Asks::Inform(has)) => {
            (question.mac, has)
        }
        (Reply::Offer(granted, _) | Reply::Granted(granted, _), _) if !question.broadcast => {
            (question.mac, granted.address)
        }
        _ => (BROADCAST, Ipv4Addr::BROADCAST),
    }
}

/// The message with the first `routes` of the network's routes.
fn message(question: &Question, reply: &Reply, routes: usize) -> Message {
    let none = Ipv4Addr::UNSPECIFIED;
    let (kind, granted, network) = match reply {
        Reply::Offer(granted, network) => (MessageType::Offer, Some(granted), Some(network)),
        Reply::Granted(granted, network) => (MessageType::Ack, Some(granted), Some(network)),
        Reply::Informed(network) => (MessageType::Ack, None, Some(network)),
        Reply::Refused(_) => (MessageType::Nak, None, None),
    };
    let has = match (reply, question.asks) {
        (Reply::Granted(..), Asks::Extend(has)) | (Reply::Informed(_), Asks::Inform(has)) => has,
        _ => none,
    };
    let yours = granted.map_or(none, |granted| granted.address);
    let hardware = question.mac.bytes();
    let mut message = Message::new_with_id(question.xid, has, yours, none, none, &hardware);
    message.set_opcode(Opcode::BootReply);
    if question.broadcast {
        message.set_flags(Flags::default().set_broadcast());
    }
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(SERVER));
    if let Some(identifier) = &question.identifier {
        options.insert(DhcpOption::ClientIdentifier(identifier.clone()));
    }
    if let Some(Granted { seconds, .. }) = granted {
        options.insert(DhcpOption::AddressLeaseTime(*seconds));
        // RFC 2131 §4.4.5: half and seven eighths
        options.insert(DhcpOption::Renewal(seconds / 2));
        let late = u64::from(*seconds) * 7 / 8;
        options.insert(DhcpOption::Rebinding(late.try_into().unwrap_or(*seconds)));
    }
    if let Some(network) = network {
        for option in of_network(question, network, routes) {
            options.insert(option);
        }
    }
    if let Reply::Refused(why) = reply {
        options.insert(DhcpOption::Message(why.clone()));
    }
    message
}

/// What a host wants to know of the network; its mask and its MTU whether it asks or not, since it
/// works with neither of them wrong.
fn of_network(question: &Question, network: &Network, routes: usize) -> Vec<DhcpOption> {
    let wants = |code: OptionCode| {
        let wants = question.wants.as_ref();
        wants.is_none_or(|wants| wants.contains(&code.into()))
    };
    let mtu = network.mtu.try_into().unwrap_or(u16::MAX);
    let mut options = vec![
        DhcpOption::SubnetMask(network.subnet.netmask()),
        DhcpOption::InterfaceMtu(mtu),
    ];
    if wants(OptionCode::BroadcastAddr) {
        options.push(DhcpOption::BroadcastAddr(network.subnet.broadcast()));
    }
    if wants(OptionCode::DomainNameServer) && !network.dns.is_empty() {
        options.push(DhcpOption::DomainNameServer(network.dns.clone()));
    }
    let classless = wants(OptionCode::ClasslessStaticRoute);
    if classless {
        options.push(DhcpOption::ClasslessStaticRoute(classless_routes(
            network, routes,
        )));
    }
    // who is told all routes is told no router beside them (RFC 3442)
    let said = question.wants.is_some() && classless;
    let all = network.routes.iter();
    let mut defaults = all.filter(|(to, _)| to.prefix_len() == 0);
    if let Some((_, router)) = defaults.next()
        && wants(OptionCode::Router)
        && !said
    {
        options.push(DhcpOption::Router(vec![*router]));
    }
    options
}

/// The routes, the wide ones first. Where the server is, is on the link (RFC 3442: through no
/// router), so that a host asks it for more time without asking everyone.
fn classless_routes(network: &Network, most: usize) -> Vec<(Ipv4Net, Ipv4Addr)> {
    let mut routes = network.routes.clone();
    routes.sort_by_key(|(to, _)| to.prefix_len());
    routes.truncate(most);
    let server = (Ipv4Net::from(SERVER), Ipv4Addr::UNSPECIFIED);
    [server].into_iter().chain(routes).collect()
}

fn framed((mac, to): (MacAddress, Ipv4Addr), length: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + usize::from(length));
    frame.extend(mac.bytes());
    frame.extend(SERVER_MAC.bytes());
    frame.extend(IPV4.to_be_bytes());
    let [high, low] = length.to_be_bytes();
    let mut head = [
        0x45, 0, high, low, 0, 0, 0, 0, HOPS, UDP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    head[12..16].copy_from_slice(&SERVER.octets());
    head[16..20].copy_from_slice(&to.octets());
    let sum = checksum(&[&head]).to_be_bytes();
    head[10..12].copy_from_slice(&sum);
    frame.extend(head);
    let length = (length - 20).to_be_bytes();
    let [from, at] = [SERVER_PORT, CLIENT_PORT].map(u16::to_be_bytes);
    let ports = [from, at].concat();
    // over the pseudo-header too (RFC 768); a sum of zero would say that there is none
    let pseudo = [&SERVER.octets()[..], &to.octets(), &[0, UDP], &length].concat();
    let sum = match checksum(&[&pseudo, &ports, &length, &[0, 0], body]) {
        0 => 0xffff,
        sum => sum,
    };
    frame.extend(ports);
    frame.extend(length);
    frame.extend(sum.to_be_bytes());
    frame.extend(body);
    frame
}

/// The Internet's sum over parts (RFC 1071); all but the last are of even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let pairs = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = pairs
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
