//! Access rules, and which of them decides about a packet: worked out in [`decide`] alone, for everyone
//! who has to know: the gateway's host, the switches, and who asks why.

use super::{Count, PortRange};
use crate::{Name, slice::Schedule};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr, str::FromStr};

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum AccessAction {
    /// It lets packets pass, and those that answer them.
    Allow,
    /// It drops packets.
    Deny,
}

/// Which way a packet goes through a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Direction {
    /// From a slice to the external network.
    Outbound,
    /// From the external network into a slice.
    Inbound,
}
impl Direction {
    /// The other one.
    pub const fn back(self) -> Self {
        match self {
            Self::Outbound => Self::Inbound,
            Self::Inbound => Self::Outbound,
        }
    }
}

/// A transport protocol that rules know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Protocol {
    /// TCP (RFC 9293).
    Tcp,
    /// UDP (RFC 768).
    Udp,
    /// SCTP (RFC 9260).
    Sctp,
    /// ICMP of the packet's family (RFC 792, RFC 4443).
    Icmp,
}
impl Protocol {
    /// Its IANA number for the family.
    pub const fn number(self, v6: bool) -> u8 {
        match (self, v6) {
            (Self::Tcp, _) => 6,
            (Self::Udp, _) => 17,
            (Self::Sctp, _) => 132,
            (Self::Icmp, false) => 1,
            (Self::Icmp, true) => 58,
        }
    }
    /// Whether it has ports.
    pub const fn has_ports(self) -> bool {
        !matches!(self, Self::Icmp)
    }
}

macro_rules! words {
    ($kind:ident, $what:literal, $($variant:ident = $word:literal),+) => {
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$variant => $word),+ })
            }
        }
        impl FromStr for $kind {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!(concat!($what, " {:?} is not known: write one of ", $($word, " "),+), text).trim_end().to_owned()),
                }
            }
        }
    };
}
words!(AccessAction, "action", Allow = "allow", Deny = "deny");
words!(
    Direction,
    "direction",
    Outbound = "outbound",
    Inbound = "inbound"
);
words!(
    Protocol,
    "protocol",
    Tcp = "tcp",
    Udp = "udp",
    Sctp = "sctp",
    Icmp = "icmp"
);

/// Which packets a rule is about; what is absent may be anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccessMatch {
    /// Where they come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub src: Option<IpNet>,
    /// Where they go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub dst: Option<IpNet>,
    /// Their transport protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<Protocol>,
    /// Ports that they come from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub src_ports: Vec<PortRange>,
    /// Ports that they go to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dst_ports: Vec<PortRange>,
}

/// An access rule of a gateway. Rules are looked at in the order of their numbers; the first one
/// that a packet meets decides; what meets none is dropped, both ways.
///
/// An `allow` is about the packets that it describes and about those that answer them: the other
/// way, with addresses and ports exchanged. A `deny` is about the packets that it describes alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccessRule {
    /// Its number, 1 to 9999: its place in the order, and its name.
    pub priority: u16,
    /// What it does.
    pub action: AccessAction,
    /// Which way the packets go that it describes.
    pub direction: Direction,
    /// The slice that it is for; every slice of the gateway when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<Name>,
    /// The slice's tenant.
    #[serde(default = "crate::slice::default_tenant")]
    pub tenant: Name,
    /// Which packets.
    #[serde(default, rename = "match")]
    pub packets: AccessMatch,
    /// An answer passes only while the gateway's host knows what it answers. Switches let pass what
    /// looks like an answer; the host looks at the connection.
    #[serde(default)]
    pub stateful: bool,
    /// When it is in force; always when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Whether the gateway's host logs the first packets that it decides about.
    #[serde(default)]
    pub log: bool,
    /// Why it is there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// The access rules of a gateway: answer and body of `PUT /gateways/{name}/access_rules`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccessRules {
    /// In the order of their numbers.
    pub items: Vec<AccessRule>,
    /// Counts changes; the ETag. It need not be given.
    #[serde(default)]
    pub version: u64,
}

/// A packet at a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Which way it goes.
    pub direction: Direction,
    /// Where it comes from.
    pub src: IpAddr,
    /// Where it goes.
    pub dst: IpAddr,
    /// Its transport protocol; none of those that rules know when absent.
    pub proto: Option<Protocol>,
    /// The port that it comes from, where the protocol has some.
    pub src_port: u16,
    /// The port that it goes to.
    pub dst_port: u16,
}
impl Packet {
    /// The one that answers it.
    pub const fn answer(self) -> Self {
        Self {
            direction: self.direction.back(),
            src: self.dst,
            dst: self.src,
            proto: self.proto,
            src_port: self.dst_port,
            dst_port: self.src_port,
        }
    }
}

impl AccessMatch {
    /// The packets that answer these.
    pub fn answers(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            proto: self.proto,
            src_ports: self.dst_ports.clone(),
            dst_ports: self.src_ports.clone(),
        }
    }
    /// Whether a packet is one of these.
    pub fn has(&self, packet: &Packet) -> bool {
        let within = |net: &Option<IpNet>, ip: &IpAddr| net.is_none_or(|net| net.contains(ip));
        let one_of = |ports: &[PortRange], port: u16| {
            ports.is_empty() || ports.iter().any(|range| range.has(port))
        };
        within(&self.src, &packet.src)
            && within(&self.dst, &packet.dst)
            && self.proto.is_none_or(|proto| packet.proto == Some(proto))
            && one_of(&self.src_ports, packet.src_port)
            && one_of(&self.dst_ports, packet.dst_port)
    }
}

impl AccessRule {
    /// Whether it is for a slice.
    pub fn is_for(&self, tenant: &Name, slice: &Name) -> bool {
        self.slice
            .as_ref()
            .is_none_or(|name| name == slice && self.tenant == *tenant)
    }
    /// Whether it is in force at this instant.
    pub fn in_force(&self, now: Timestamp) -> bool {
        self.schedule
            .is_none_or(|window| window.start <= now && now < window.end)
    }
    /// The packets that it decides about, each with the way that they go: those that it describes,
    /// and, where it allows them, those that answer.
    pub fn ways(&self) -> Vec<(Direction, AccessMatch)> {
        let mut ways = vec![(self.direction, self.packets.clone())];
        if self.action == AccessAction::Allow {
            ways.push((self.direction.back(), self.packets.answers()));
        }
        ways
    }
    /// Whether it decides about a packet.
    pub fn meets(&self, packet: &Packet) -> bool {
        self.ways()
            .iter()
            .any(|(direction, packets)| *direction == packet.direction && packets.has(packet))
    }
}

/// The rule that decides about a packet, of rules that are for its slice, in force, and in order.
/// Without one the packet is dropped.
pub fn decide<'a>(
    rules: impl IntoIterator<Item = &'a AccessRule>,
    packet: &Packet,
) -> Option<&'a AccessRule> {
    rules.into_iter().find(|rule| rule.meets(packet))
}

/// A rule with how it stands: an item of `GET /gateways/{name}/access_rules`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StandingRule {
    /// The rule.
    #[serde(flatten)]
    pub rule: AccessRule,
    /// Whether its schedule lets it be in force now.
    pub in_force: bool,
    /// What it has decided about at the gateway's host.
    pub host: Count,
    /// What it has decided about in the switches; none where the fabric has no switches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switches: Option<Count>,
}

/// The access rules of a gateway with how they stand: answer of `GET` and `PUT
/// /gateways/{name}/access_rules`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StandingRules {
    /// In the order of their numbers.
    pub items: Vec<StandingRule>,
    /// Counts changes; the ETag.
    pub version: u64,
    /// What no rule allowed, both ways, at the gateway's host.
    pub denied_host: Count,
    /// What no rule allowed in the switches; none where the fabric has no switches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied_switches: Option<Count>,
}

/// Answer of `GET /gateways/{name}/explain`: what happens to a packet, and to the one that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explanation {
    /// The slice that the packet comes from or goes to.
    pub slice: Name,
    /// Which way it goes.
    pub direction: Direction,
    /// What happens to it.
    pub packet: Decided,
    /// What happens to the one that answers it.
    pub answer: Decided,
    /// When that holds.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
}

/// What happens to a packet, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Decided {
    /// Whether it passes or is dropped.
    pub action: AccessAction,
    /// The rule that decides; none where nothing allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<AccessRule>,
    /// In words.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> AccessRule {
        serde_json::from_str(text).unwrap()
    }
    fn packet(direction: Direction, src: &str, dst: &str, sport: u16, dport: u16) -> Packet {
        Packet {
            direction,
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            proto: Some(Protocol::Tcp),
            src_port: sport,
            dst_port: dport,
        }
    }

    #[test]
    fn the_first_rule_that_a_packet_meets_decides() {
        let rules = [
            rule(
                r#"{"priority":10,"action":"deny","direction":"outbound","match":{"dst":"192.0.2.66/32"}}"#,
            ),
            rule(
                r#"{"priority":20,"action":"allow","direction":"outbound","match":{"dst":"192.0.2.0/24","proto":"tcp","dst_ports":["443","50000-51000"]}}"#,
            ),
        ];
        let number = |packet: &Packet| decide(&rules, packet).map(|rule| rule.priority);
        let out = |dst, port| packet(Direction::Outbound, "10.20.0.11", dst, 40000, port);
        assert_eq!(number(&out("192.0.2.7", 443)), Some(20));
        assert_eq!(number(&out("192.0.2.7", 50500)), Some(20));
        assert_eq!(number(&out("192.0.2.7", 80)), None);
        assert_eq!(number(&out("192.0.2.66", 443)), Some(10));
        // an answer to what is allowed passes; a deny has no answers
        assert_eq!(number(&out("192.0.2.7", 443).answer()), Some(20));
        assert_eq!(
            number(&out("192.0.2.66", 443).answer()),
            Some(20),
            "a deny is about the packets that it describes alone"
        );
        let strange = packet(Direction::Inbound, "192.0.2.7", "10.20.0.11", 40000, 443);
        assert_eq!(number(&strange), None);
    }

    #[test]
    fn a_rule_with_how_it_stands_is_read_as_it_was_written() {
        let standing = StandingRule {
            rule: rule(
                r#"{"priority":20,"action":"allow","direction":"inbound","slice":"lhc","match":{"src":"192.0.2.0/24"},"note":"x"}"#,
            ),
            in_force: true,
            host: Count::default(),
            switches: None,
        };
        let text = serde_json::to_string(&standing).unwrap();
        assert_eq!(
            serde_json::from_str::<StandingRule>(&text).unwrap(),
            standing
        );
    }

    #[test]
    fn a_word_that_is_not_known_is_said_with_those_that_are() {
        assert_eq!(
            "forward".parse::<Direction>().unwrap_err(),
            "direction \"forward\" is not known: write one of outbound inbound"
        );
    }
}
