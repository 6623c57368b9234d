//! vDHCP for hosts that speak plain DHCP (RFC 2131): an instrument, a storage box, whatever has no
//! supervisor that asks over REST. What they ask and what they are told; pure.
//!
//! Their leases come out of the same store, by the same choice of an address, as everybody's
//! ([`crate::leases`]). Who they are is their hardware address: a member of a slice is a NIC.
//!
//! * [`wire`]: frames, and what is said in them.
//! * [`answer`]: what is done with what is asked.
//! * [`offers`]: addresses that were offered and not taken yet.

pub mod answer;
pub mod offers;
pub mod wire;

use dtn_api::{MacAddress, Problem};
use ipnet::Ipv4Net;
use std::{fmt, net::Ipv4Addr};

/// Where the server says it is: an address of the link that no host has, since hosts that give
/// themselves an address of the link leave the first 256 of them alone (RFC 3927 §2.1). It is the same
/// in each slice, whether that has a gateway or not, and no address of the slice is lost to it. Its
/// last byte is the server's port.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 67);
/// What is answered to who asks for the hardware address of [`SERVER`]: locally administered
/// (IEEE 802-2014 §8.2.2), `dt` in ASCII, and the port.
pub const SERVER_MAC: MacAddress = MacAddress::new([0x02, 0x64, 0x74, 0, 0, 67]);
/// The server's port.
pub const SERVER_PORT: u16 = 67;
/// The client's port.
pub const CLIENT_PORT: u16 = 68;

/// What begins the client id of a host that asks by DHCP; its hardware address follows.
pub const CLIENT: &str = "dhcp:";
/// What begins the client id of a lease whose address somebody else was found to have; the address
/// follows.
pub const DECLINED: &str = "declined:";

/// Who a host is among the clients of a slice's leases.
pub fn client(mac: MacAddress) -> String {
    format!("{CLIENT}{mac}")
}

/// What a host asks (RFC 2131 table 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// DHCPDISCOVER: an address, this one if it may be.
    Address(Option<Ipv4Addr>),
    /// DHCPREQUEST after an offer: the address that this server offered.
    Take {
        /// The server whose offer is taken.
        server: Ipv4Addr,
        /// The address.
        address: Ipv4Addr,
    },
    /// DHCPREQUEST after a start: whether this address is still its own.
    Keep(Ipv4Addr),
    /// DHCPREQUEST by who has the address: more time.
    Extend(Ipv4Addr),
    /// DHCPINFORM by who has an address from elsewhere: all but an address.
    Inform(Ipv4Addr),
    /// DHCPRELEASE: no need of the address any more.
    Release(Ipv4Addr),
    /// DHCPDECLINE: somebody else has the address.
    Decline(Ipv4Addr),
}

/// A host's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What tells which answer is to which question.
    pub xid: u32,
    /// The host's hardware address; the frame came from it.
    pub mac: MacAddress,
    /// It cannot be reached at an address that it has not taken yet (RFC 2131 §4.1).
    pub broadcast: bool,
    /// What it asks.
    pub asks: Asks,
    /// Its client identifier (option 61), which the answer repeats (RFC 6842).
    pub identifier: Option<Vec<u8>>,
    /// Options that it wants to hear of (option 55); all when it does not say.
    pub wants: Option<Vec<u8>>,
    /// How long it would like to have the address, in seconds (option 51).
    pub lease_seconds: Option<u32>,
    /// Longest message that it takes, in bytes of the IP packet (option 57).
    pub longest: Option<u16>,
}

/// What a host is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// DHCPOFFER.
    Offer(Granted, Network),
    /// DHCPACK of an address.
    Granted(Granted, Network),
    /// DHCPACK of an inform.
    Informed(Network),
    /// DHCPNAK: the address is not the host's, and why.
    Refused(String),
}

/// An address for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// The address.
    pub address: Ipv4Addr,
    /// For how long, in seconds.
    pub seconds: u32,
}

/// What holds for everyone in the slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The slice's subnet.
    pub subnet: Ipv4Net,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Networks beyond it, each by its next hop.
    pub routes: Vec<(Ipv4Net, Ipv4Addr)>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
}

/// Why a host is told nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Silence {
    /// No NIC is declared with its hardware address.
    Unknown,
    /// The NIC with its hardware address is plugged in elsewhere.
    Elsewhere(String),
    /// No slice with it carries traffic.
    NoSlice,
    /// Several slices with it carry traffic, and DHCP cannot ask for which.
    Several(Vec<String>),
    /// It is the gateway of the slice, whose addresses its own supervisor asks for.
    Gateway(String),
    /// The slice hands out no IPv4 addresses.
    NoAddresses(String),
    /// Somebody else asked for a lease with its hardware address.
    Taken(String),
    /// There is no lease for it.
    Problem(Problem),
}
impl Silence {
    /// Which condition it is, whatever the words.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Elsewhere(_) => 1,
            Self::NoSlice => 2,
            Self::Several(_) => 3,
            Self::Gateway(_) => 4,
            Self::NoAddresses(_) => 5,
            Self::Taken(_) => 6,
            Self::Problem(_) => 7,
        }
    }
}
impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str(
                "no NIC is declared with this hardware address: declare it (PUT /hosts/MAC-none), \
                 with the node and NIC of its [[port]]",
            ),
            Self::Elsewhere(nic) => write!(
                f,
                "this hardware address is that of {nic}, whose [[port]] is another one"
            ),
            Self::NoSlice => {
                f.write_str("no slice with it carries traffic now: make it a member of one")
            }
            Self::Several(slices) => write!(
                f,
                "it is in the slices {}, and DHCP cannot ask for an address of one of them: have it \
                 in one slice at a time",
                slices.join(" and ")
            ),
            Self::Gateway(slice) => write!(
                f,
                "it is the gateway of slice {slice}, which asks for its address over REST"
            ),
            Self::NoAddresses(slice) => write!(
                f,
                "slice {slice} hands out no IPv4 addresses, and DHCPv6 is not built: give the \
                 slice an ipv4 pool, or the host an address by hand"
            ),
            Self::Taken(client) => write!(
                f,
                "{client} has a lease with its hardware address, asked for over REST"
            ),
            Self::Problem(problem) => write!(f, "{problem}"),
        }
    }
}
