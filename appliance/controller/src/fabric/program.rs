//! What every switch shall hold for the slices that live: rules, groups and guards. Pure; the
//! sessions send what comes out of here and hold it against what the switches have.
//!
//! Three tables. Table 0 lets a frame in: from a member only with its own hardware address and one
//! of its own addresses, from a cable or a border only with a slice's VLAN; it writes the slice's
//! tag into the metadata. Table 10 is where access rules stand: in a slice with a gateway they decide
//! about what goes to it and what comes from it, each frame once, at the switch where it enters.
//! Table 20 forwards within the tag.
//! A frame meets one meter on its whole way, at the switch of its sender: a second one of the same
//! rate would take its share of a burst again.
//!
//! No rule sends a frame back to where it came from: an output to the ingress port is dropped unless
//! it is written as `OFPP_IN_PORT` (OpenFlow 1.3.5 §5.12 and §7.2.1), which nothing here does. That is
//! what keeps a tree with flooding free of loops and duplicates.
//!
//! * [`mod@slice`]: the rules of one slice along its tree.
//! * [`access`]: who may pass a slice's gateway.
//! * [`single`]: the same in one table, for switches that have no more.
//! * [`frames`]: which frames a rule is for.
//! * [`meters`]: the guard's numbers, and which meter has which id.
//! * [`mod@punt`]: what is handed to the controller.
//! * [`asks`]: questions for neighbours, handed over.
//! * [`ports`]: ranges of ports under masks.
//! * [`resolved`]: a program with port numbers and meter ids, as OpenFlow has it.
//! * [`text`]: a rule in words.

pub mod access;
pub mod asks;
pub mod frames;
pub mod meters;
pub mod ports;
pub mod punt;
pub mod resolved;
pub mod single;
pub mod slice;
#[cfg(test)]
mod tests;
pub mod text;
#[cfg(test)]
pub(in crate::fabric) mod walk;

pub use asks::Neighbours;
pub use meters::{Guard, GuardKey, MeterSpec, assign, guards_of};
pub use punt::{Punts, punt};
pub use resolved::{Flow, FlowId, Group, Meter, Resolved, resolve};
pub use slice::programs;

use super::network::PortRef;
use dtn_api::Name;
use dtn_openflow::Match;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Lets frames in.
pub const ADMIT: u8 = 0;
/// Where access rules stand.
pub const ACCESS: u8 = 10;
/// Forwards within a slice.
pub const FORWARD: u8 = 20;

/// Set in every cookie of ours, under [`COOKIE_MASK`]: `dt` in ASCII.
pub const COOKIE: u64 = 0x6474_0000_0000_0000;
/// The part of a cookie that says whose a flow is.
pub const COOKIE_MASK: u64 = 0xffff_0000_0000_0000;
/// Set in every group id of ours, under [`GROUP_MASK`]; the rest is the slice's tag.
pub const GROUP: u32 = 0x6474_0000;
/// The part of a group id that says whose it is.
pub const GROUP_MASK: u32 = 0xffff_0000;

/// The cookie of a rule: whose it is, the slice's tag, what the rule is for.
pub const fn cookie(tag: u16, purpose: Purpose) -> u64 {
    COOKIE | (tag as u64) << 16 | purpose as u64
}
/// The cookie of an access rule: as [`cookie`], with the rule's number in the bits 32 to 47, so that
/// what each has counted can be read.
pub const fn cookie_of(tag: u16, purpose: Purpose, number: u16) -> u64 {
    cookie(tag, purpose) | (number as u64) << 32
}
/// The tag that a cookie of ours names; 0 where a rule belongs to a port and to no slice.
pub const fn tag_of(cookie: u64) -> Option<u16> {
    if cookie & COOKIE_MASK == COOKIE {
        Some((cookie >> 16) as u16)
    } else {
        None
    }
}

/// The number of the access rule that a cookie of ours names; 0 for every other rule, and for what no
/// access rule allowed. None where it counts nothing that access rules decide about.
pub const fn number_of(cookie: u64) -> Option<u16> {
    const ALLOW: u16 = Purpose::Allow as u16;
    const DENY: u16 = Purpose::Deny as u16;
    const DENIED: u16 = Purpose::Denied as u16;
    match (tag_of(cookie), cookie as u16) {
        (Some(_), ALLOW | DENY | DENIED) => Some((cookie >> 32) as u16),
        _ => None,
    }
}

/// What a rule is for; the low 16 bits of its cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Purpose {
    /// A member's own packets enter.
    Admit = 1,
    /// A member's own ARP or neighbour discovery enters.
    Neighbour = 2,
    /// What a cable or a border brings enters.
    Arrive = 3,
    /// Whatever else a member's port brings is dropped.
    Closed = 4,
    /// Passes the access table.
    Pass = 5,
    /// To a member here.
    Deliver = 6,
    /// To a member elsewhere.
    Onward = 7,
    /// To the border, for whom this domain does not know.
    Beyond = 8,
    /// ARP requests and neighbour solicitations go to everyone in the slice.
    Flood = 9,
    /// Whatever else is in the slice is dropped.
    Isolate = 10,
    /// Neighbour discovery that speaks for another's address is dropped, though it comes from the
    /// member's own.
    Forged = 11,
    /// What a gateway forwards for strangers enters: packets from its hardware address with whatever
    /// source.
    Stranger = 12,
    /// An access rule lets packets to or from a gateway pass.
    Allow = 13,
    /// An access rule drops them.
    Deny = 14,
    /// What says that a packet could not be delivered passes, where something is allowed.
    Error = 15,
    /// Whatever no access rule allows is dropped.
    Denied = 16,
    /// What a gateway itself says or is told passes.
    Own = 17,
    /// What a gateway brings from outside with an address of inside is dropped.
    Posed = 18,
    /// How hosts beyond a border find a gateway's hardware address, and it theirs.
    Resolve = 19,
    /// Link discovery goes to the controller, whoever's it is.
    Discover = 30,
    /// A member's question for a neighbour goes to the controller.
    Ask = 31,
    /// What a host asks by DHCP, and its question for who answers that, go to the controller.
    Lease = 32,
    /// In one table: a member's own packets go to a destination.
    Sending = 40,
    /// In one table: a member's own ARP or neighbour discovery goes to its destination.
    Asking = 41,
    /// In one table: what a cable brings goes to a destination.
    Transit = 42,
    /// In one table: what a border brings goes to a destination.
    Entering = 43,
    /// In one table: whatever else a cable or a border brings in a slice's VLAN is dropped.
    Stray = 44,
}
impl Purpose {
    /// Table and priority of its rules. Neighbour discovery is IPv6 as well, so it stands above the
    /// rules for packets: which of two rules of one priority meets a frame is undefined.
    ///
    /// Access rules stand below [`Purpose::place`] of [`Purpose::Allow`], each by its number
    /// ([`access::priority`]). Those of one table stand above theirs by their destination ([`single`]).
    pub const fn place(self) -> (u8, u16) {
        match self {
            Self::Discover => (ADMIT, 40_000),
            // what a member has an address for asks for more time from it
            Self::Lease => (ADMIT, 30_400),
            Self::Ask => (ADMIT, 30_250),
            Self::Neighbour | Self::Asking => (ADMIT, 30_200),
            Self::Forged => (ADMIT, 30_100),
            Self::Admit
            | Self::Arrive
            | Self::Sending
            | Self::Transit
            | Self::Entering
            | Self::Stray => (ADMIT, 30_000),
            Self::Stranger => (ADMIT, 29_000),
            Self::Closed => (ADMIT, 10),
            Self::Resolve => (ACCESS, 20_300),
            Self::Own => (ACCESS, 20_200),
            Self::Posed => (ACCESS, 20_100),
            Self::Allow | Self::Deny => (ACCESS, 20_000),
            Self::Error => (ACCESS, 10_000),
            Self::Denied => (ACCESS, 2000),
            Self::Pass => (ACCESS, 1000),
            Self::Deliver => (FORWARD, 20_000),
            Self::Onward => (FORWARD, 19_000),
            Self::Beyond => (FORWARD, 18_000),
            Self::Flood => (FORWARD, 15_000),
            Self::Isolate => (FORWARD, 1),
        }
    }
}

/// A rule's place in a switch; two rules never have the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowKey {
    /// Its table.
    pub table: u8,
    /// The higher one wins.
    pub priority: u16,
    /// The port that frames must come from; numbers are known once the switch is connected.
    pub from: Option<PortRef>,
    /// The rest of what frames must be.
    pub matches: Match,
}

/// What a rule does, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The slice; none for a rule of a port that slices share.
    pub slice: Option<Uuid>,
    /// Its tag; 0 without slice.
    pub tag: u16,
    /// What it is for.
    pub purpose: Purpose,
    /// The number of the access rule that it is a part of; 0 for every other rule.
    pub number: u16,
    /// What happens to the frame.
    pub then: Then,
}

/// What happens to a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// It meets its guard, takes the slice's tag and goes on to a table.
    Admit {
        /// Its guard, where the slice promises a rate.
        guard: Option<GuardKey>,
        /// [`ACCESS`] or [`FORWARD`].
        table: u8,
    },
    /// It loses its VLAN, takes the slice's tag and goes on to a table.
    Arrive {
        /// [`ACCESS`] from a border, [`FORWARD`] from a cable: what a cable brings has been judged
        /// where it came in.
        table: u8,
    },
    /// It goes on to [`FORWARD`].
    Pass,
    /// It leaves.
    Out(Exit),
    /// It leaves by every exit of the slice's group.
    Flood,
    /// In one table: it comes in and leaves.
    Through {
        /// Its guard, where a member of a slice that promises a rate sends it.
        guard: Option<GuardKey>,
        /// It comes with a VLAN, which it loses.
        arrives: bool,
        /// By one exit; otherwise by every exit of the slice's group.
        exit: Option<Exit>,
    },
    /// It goes to the controller, whole, and nowhere else.
    Controller,
    /// It is dropped, and counted.
    Drop,
}

/// Where a frame leaves a switch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exit {
    /// The port.
    pub port: PortRef,
    /// The VLAN that it takes on; none to a member.
    pub label: Option<u16>,
}

/// The exits of a slice at a switch, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSpec {
    /// The slice.
    pub slice: Uuid,
    /// Ports of members, cables of its tree, its border.
    pub exits: BTreeSet<Exit>,
}

/// What one switch shall hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// The rules.
    pub flows: BTreeMap<FlowKey, Rule>,
    /// The groups, by id.
    pub groups: BTreeMap<u32, GroupSpec>,
    /// The guards of the members that are at this switch.
    pub guards: BTreeMap<GuardKey, Guard>,
    /// The switch's ports of cables and borders, as they are written; no member is at one of them.
    pub trunks: BTreeSet<PortRef>,
}

/// Why a slice is not programmed, or not wholly.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// The slice.
    pub slice: Uuid,
    /// In words.
    pub reason: String,
}

/// What all switches shall hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Programs {
    /// By switch; one without slices has an empty program.
    pub switches: BTreeMap<Name, Program>,
    /// The slices that are in none of them, and those whose gateway is shut since its rules cannot be
    /// had.
    pub refused: Vec<Refusal>,
}
