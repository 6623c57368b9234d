//! What happens to a packet at a gateway, in words, without sending one. Pure.

use crate::gateways::GatewayRow;
use dtn_api::{
    Name, Problem,
    gateway::{AccessAction, AccessRule, Decided, Direction, Explanation, Packet, decide},
    problem::Kind,
    slice::Schedule,
};
use ipnet::IpNet;
use jiff::Timestamp;
use std::net::IpAddr;

/// The port that a packet comes from when nobody says: the first that systems choose for themselves
/// (RFC 6335 §6).
const SOME_PORT: u16 = 49_152;

/// What is asked, as it stands in the query. All of it is text, so that everything that is wrong
/// with it can be told at once.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Name of the slice.
    pub slice: Option<String>,
    /// Where the packet comes from.
    pub src: Option<String>,
    /// Where it goes.
    pub dst: Option<String>,
    /// Its protocol.
    pub proto: Option<String>,
    /// The port that it comes from.
    pub src_port: Option<String>,
    /// The port that it goes to.
    pub dst_port: Option<String>,
    /// When; now when absent.
    pub at: Option<String>,
}

/// A question that is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    slice: Option<Name>,
    packet: Packet,
    at: Timestamp,
}

/// A slice of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Its name.
    pub name: Name,
    /// Its tenant.
    pub tenant: Name,
    /// Its subnets.
    pub subnets: Vec<IpNet>,
    /// When it carries traffic.
    pub window: Schedule,
}
impl Served {
    fn has(&self, ip: IpAddr) -> bool {
        self.subnets.iter().any(|net| net.contains(&ip))
    }
}

fn refusal() -> Problem {
    Problem::new(Kind::InvalidRequest, "the question is not understood")
}

impl Asked {
    /// Understood, or everything that is wrong with it.
    pub fn understood(&self, now: Timestamp) -> Result<Question, Problem> {
        fn read<T: std::str::FromStr<Err: std::fmt::Display>>(
            text: &Option<String>,
            at: &str,
            wrong: &mut Problem,
        ) -> Option<T> {
            let text = text.as_ref().filter(|text| !text.is_empty())?;
            match text.parse() {
                Ok(value) => Some(value),
                Err(why) => {
                    *wrong = wrong.clone().at(at, format!("{text:?}: {why}"));
                    None
                }
            }
        }
        let mut wrong = refusal();
        let slice = read(&self.slice, "/slice", &mut wrong);
        let src: Option<IpAddr> = read(&self.src, "/src", &mut wrong);
        let dst: Option<IpAddr> = read(&self.dst, "/dst", &mut wrong);
        let proto = read(&self.proto, "/proto", &mut wrong);
        let src_port = read(&self.src_port, "/src_port", &mut wrong);
        let dst_port: Option<u16> = read(&self.dst_port, "/dst_port", &mut wrong);
        let at = read(&self.at, "/at", &mut wrong);
        let mut need = |given: &Option<String>, at: &str, why: &str| {
            if given.as_ref().is_none_or(String::is_empty) {
                wrong = wrong.clone().at(at, why);
            }
        };
        need(&self.src, "/src", "is missing: the packet's source address");
        need(&self.dst, "/dst", "is missing: where the packet goes");
        match proto {
            Some(proto) if dtn_api::gateway::Protocol::has_ports(proto) => {
                need(
                    &self.dst_port,
                    "/dst_port",
                    "is missing: the port it goes to",
                );
            }
            _ => {
                for (given, at) in [(&self.src_port, "/src_port"), (&self.dst_port, "/dst_port")] {
                    if given.is_some() && (proto.is_some() || self.proto.is_none()) {
                        let why = "only tcp, udp and sctp have ports: name one of them as proto";
                        wrong = wrong.at(at, why);
                    }
                }
            }
        }
        match (src, dst) {
            (Some(src), Some(dst)) if src.is_ipv4() != dst.is_ipv4() => {
                let why = format!("{dst} is of the other family than {src}");
                Err(wrong.at("/dst", why))
            }
            (Some(src), Some(dst)) if wrong.errors.is_empty() => Ok(Question {
                slice,
                packet: Packet {
                    // which way it is follows from the slices
                    direction: Direction::Outbound,
                    src,
                    dst,
                    proto,
                    src_port: src_port.unwrap_or(match proto {
                        Some(proto) if proto.has_ports() => SOME_PORT,
                        _ => 0,
                    }),
                    dst_port: dst_port.unwrap_or(0),
                },
                at: at.unwrap_or(now),
            }),
            _ => Err(wrong),
        }
    }
}

/// What happens to the packet that is asked about, at one of the gateway's slices.
pub fn explain(
    gateway: &GatewayRow,
    rules: &[AccessRule],
    slices: &[Served],
    question: &Question,
) -> Result<Explanation, Problem> {
    let Packet { src, dst, .. } = question.packet;
    let name = &gateway.name;
    if let Some(wanted) = &question.slice
        && !slices.iter().any(|slice| slice.name == *wanted)
    {
        let why = format!("gateway {name} is in no slice {wanted} that is booked");
        return Err(refusal().at("/slice", why));
    }
    let asked = |slice: &&Served| question.slice.as_ref().is_none_or(|n| *n == slice.name);
    let of = |ip: IpAddr| slices.iter().filter(asked).find(|slice| slice.has(ip));
    let (slice, direction) = match (of(src), of(dst)) {
        (Some(from), Some(to)) if from == to => {
            let why = format!(
                "{src} and {dst} are both in slice {}: its members reach each other without the \
                 gateway",
                from.name
            );
            return Err(refusal().at("/dst", why));
        }
        (Some(from), _) => (from, Direction::Outbound),
        (None, Some(to)) => (to, Direction::Inbound),
        (None, None) => {
            let which = match &question.slice {
                Some(slice) => format!("slice {slice}"),
                None => format!("any slice of gateway {name}"),
            };
            let why = format!("neither {src} nor {dst} is an address of {which}");
            return Err(refusal().at("/src", why));
        }
    };
    let packet = Packet {
        direction,
        ..question.packet
    };
    let at = question.at;
    let (packet, answer) = match beside(slices, slice, &packet, at) {
        Some(why) => (dropped(why.clone()), dropped(why)),
        None => decided(rules, slice, &packet, at),
    };
    Ok(Explanation {
        slice: slice.name.clone(),
        direction,
        packet,
        answer,
        at,
    })
}

/// Why nothing passes whatever the rules say.
fn beside(slices: &[Served], slice: &Served, packet: &Packet, at: Timestamp) -> Option<String> {
    let outside = match packet.direction {
        Direction::Outbound => packet.dst,
        Direction::Inbound => packet.src,
    };
    let mut others = slices.iter().filter(|other| *other != slice);
    if let Some(other) = others.find(|other| other.has(outside)) {
        return Some(format!(
            "{outside} is in slice {}, and a gateway joins no two slices: dropped",
            other.name
        ));
    }
    let Schedule { start, end } = slice.window;
    (at < start || end <= at).then(|| {
        format!(
            "slice {} carries traffic from {start} to {end} only: dropped",
            slice.name
        )
    })
}

/// What happens to a packet and to the one that answers it, by the rules alone.
pub fn decided(
    rules: &[AccessRule],
    slice: &Served,
    packet: &Packet,
    at: Timestamp,
) -> (Decided, Decided) {
    let of_slice = |rule: &&AccessRule| rule.is_for(&slice.tenant, &slice.name);
    let rules: Vec<&AccessRule> = rules.iter().filter(of_slice).collect();
    let one = |packet: &Packet, known: bool| {
        // who begins something answers nothing
        let meets = |rule: &&AccessRule| known || !rule.stateful || describes(rule, packet);
        let standing = rules.iter().copied().filter(|rule| rule.in_force(at));
        match decide(standing.filter(meets), packet) {
            Some(rule) => Decided {
                action: rule.action,
                rule: Some(rule.clone()),
                why: because(rule, packet),
            },
            None => dropped(nothing(&rules, packet, at)),
        }
    };
    let first = one(packet, false);
    let answer = one(&packet.answer(), first.action == AccessAction::Allow);
    (first, answer)
}

fn dropped(why: String) -> Decided {
    Decided {
        action: AccessAction::Deny,
        rule: None,
        why,
    }
}

/// Whether a rule describes a packet, and not only what it would answer.
fn describes(rule: &AccessRule, packet: &Packet) -> bool {
    rule.direction == packet.direction && rule.packets.has(packet)
}

fn because(rule: &AccessRule, packet: &Packet) -> String {
    let number = rule.priority;
    match rule.action {
        AccessAction::Deny => format!("rule {number} drops it"),
        AccessAction::Allow if describes(rule, packet) => format!("rule {number} allows it"),
        AccessAction::Allow if rule.stateful => {
            format!("rule {number} allows it as an answer, while the gateway knows what it answers")
        }
        AccessAction::Allow => format!("rule {number} allows it as an answer"),
    }
}

/// Why no rule decides: a rule that is not in force now may be what is missed.
fn nothing(rules: &[&AccessRule], packet: &Packet, at: Timestamp) -> String {
    let asleep = rules.iter().find_map(|rule| {
        let window = rule.schedule.filter(|_| !rule.in_force(at))?;
        let would = rule.action == AccessAction::Allow && rule.meets(packet);
        would.then_some((rule.priority, window))
    });
    match asleep {
        None => "no rule allows it: dropped".to_owned(),
        Some((number, window)) => format!(
            "no rule allows it: dropped; rule {number} does, from {} to {} only",
            window.start, window.end
        ),
    }
}
