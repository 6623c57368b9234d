//! What is done with what a host asks by DHCP (RFC 2131 §4.3): what it is told, and what becomes of its
//! lease. Pure: the rows of the slice and the time in, rows out. Which address it gets is decided in
//! [`crate::leases`], as for everybody.
//!
//! In a slice there is no other server: what another would say reaches nobody, since nothing but
//! ARP and neighbour discovery goes to all. So a host that asks for an address that is not its own is
//! refused at once, where a server among others would have to be silent.

use super::{Asks, DECLINED, Granted, Network, Question, Reply, SERVER, Silence, client};
use crate::leases::{self, Asker, LeaseRow};
use dtn_api::{
    lease::{LeaseRequest, Route},
    slice::Slice,
};
use ipnet::{IpNet, Ipv4Net};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};
use uuid::Uuid;

/// Shortest lease that a host may wish for, in seconds: a shorter one would have it ask all the time.
const SHORTEST: u32 = 60;
/// Addresses of a slice that one host may say are somebody else's; a host that finds every address
/// taken would use up all of them.
const MOST_DECLINED: usize = 4;

/// What is known when a host asks.
#[derive(Debug, Clone)]
pub struct Known<'a> {
    /// The one slice that it is in.
    pub slice: &'a Slice,
    /// The leases of that slice.
    pub rows: &'a [&'a LeaseRow],
    /// Addresses that nobody gets: others are known by them, or are offered them.
    pub taken: &'a BTreeSet<IpAddr>,
    /// What it was offered.
    pub offered: Option<Ipv4Addr>,
    /// Who it is, and how a new lease is called.
    pub asker: &'a Asker,
    /// Where it is plugged in.
    pub location: Option<&'a dtn_api::lease::Location>,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// It is told this, and nothing changes.
    Tell(Reply),
    /// It is offered this, and the addresses are kept for it.
    Offer(Reply, Vec<IpAddr>),
    /// Its lease is written down, and then it is told this.
    Lease {
        /// What it is told.
        reply: Reply,
        /// The lease.
        row: Box<LeaseRow>,
        /// Whether it is a new one.
        fresh: bool,
        /// A row that it takes the place of.
        replaces: Option<Uuid>,
    },
    /// Its lease is given back; there is no answer to that.
    Release(Box<LeaseRow>),
    /// Its address is kept from everybody for a while; there is no answer to that.
    Decline(Box<LeaseRow>),
    /// Nothing, as it should be.
    Nothing,
    /// It is told nothing, and the site should know why.
    Silent(Silence),
}

/// What is done with a question.
pub fn decide(question: &Question, known: &Known<'_>, now: Timestamp) -> Deed {
    match decided(question, known, now) {
        Ok(deed) => deed,
        Err(silence) => Deed::Silent(silence),
    }
}

fn decided(question: &Question, known: &Known<'_>, now: Timestamp) -> Result<Deed, Silence> {
    let id = client(question.mac);
    let occupying = || known.rows.iter().filter(|row| row.occupies());
    let own = occupying().find(|row| row.lease.client_id == id);
    let declined = |row: &&&LeaseRow| {
        row.lease.mac == question.mac && row.lease.client_id.starts_with(DECLINED)
    };
    // two leases with one hardware address could not be told apart in the switches
    let same = |row: &&&LeaseRow| row.lease.mac == question.mac && row.lease.client_id != id;
    if let Some(other) = occupying().find(|row| same(row) && !declined(row)) {
        return Err(Silence::Taken(other.lease.client_id.clone()));
    }
    let network = network(known)?;
    let has = own.and_then(|row| v4(row));
    let granted = |row: &LeaseRow| {
        let address = v4(row)?.addr();
        let seconds = row.lifetime;
        Some(Granted { address, seconds })
    };
    let not_yours = |address: Ipv4Addr| {
        let slice = &known.slice.spec.name;
        Deed::Tell(Reply::Refused(format!(
            "{address} is not yours in slice {slice}"
        )))
    };
    // more time for the lease that it has, if this is its address
    let extended = |address: Ipv4Addr| match own {
        Some(row) if has.is_some_and(|has| has.addr() == address) => {
            let mut row = leases::renew(row, now).map_err(Silence::Problem)?;
            row.lease.routes = known.asker.routes.clone();
            row.lease.location = known.location.cloned();
            let granted = granted(&row).ok_or_else(|| no_addresses(known))?;
            Ok(Deed::Lease {
                reply: Reply::Granted(granted, network.clone()),
                row: Box::new(row),
                fresh: false,
                replaces: None,
            })
        }
        _ => Ok(not_yours(address)),
    };
    match question.asks {
        Asks::Address(wish) => {
            let row = match own {
                Some(row) => (*row).clone(),
                None => grant(question, known, known.offered.or(wish), now)?.row,
            };
            let granted = granted(&row).ok_or_else(|| no_addresses(known))?;
            let ips = row.lease.ips.iter().map(IpNet::addr).collect();
            Ok(Deed::Offer(Reply::Offer(granted, network), ips))
        }
        // it took another's offer; ours runs out
        Asks::Take { server, .. } if server != SERVER => Ok(Deed::Nothing),
        Asks::Take { address, .. } if own.is_none() => {
            let grant = grant(question, known, Some(address), now)?;
            let granted = granted(&grant.row).filter(|granted| granted.address == address);
            let Some(granted) = granted else {
                return Ok(not_yours(address));
            };
            Ok(Deed::Lease {
                reply: Reply::Granted(granted, network),
                row: Box::new(grant.row),
                fresh: grant.fresh,
                replaces: grant.replaces,
            })
        }
        Asks::Take { address, .. } | Asks::Keep(address) | Asks::Extend(address) => {
            extended(address)
        }
        Asks::Inform(_) => Ok(Deed::Tell(Reply::Informed(network))),
        Asks::Release(address) => match own {
            Some(row) if has.is_some_and(|has| has.addr() == address) => {
                let released = leases::release(row, now);
                Ok(released.map_or(Deed::Nothing, |row| Deed::Release(Box::new(row))))
            }
            _ => Ok(Deed::Nothing),
        },
        Asks::Decline(address) => match own {
            Some(row) if has.is_some_and(|has| has.addr() == address) => {
                let more = occupying().filter(declined).count() < MOST_DECLINED;
                Ok(match more {
                    true => Deed::Decline(Box::new(leases::decline(row, address, now))),
                    false => leases::release(row, now)
                        .map_or(Deed::Nothing, |row| Deed::Release(Box::new(row))),
                })
            }
            _ => Ok(Deed::Nothing),
        },
    }
}

fn v4(row: &LeaseRow) -> Option<Ipv4Net> {
    row.lease.ips.iter().find_map(|net| match net {
        IpNet::V4(net) => Some(*net),
        IpNet::V6(_) => None,
    })
}

fn no_addresses(known: &Known<'_>) -> Silence {
    Silence::NoAddresses(known.slice.spec.name.to_string())
}

/// What holds for everyone in the slice.
fn network(known: &Known<'_>) -> Result<Network, Silence> {
    let addressing = known.slice.spec.addressing.as_ref();
    let subnet = addressing.and_then(|a| match a.ipv4.as_ref()?.cidr {
        IpNet::V4(net) => Some((net.trunc(), a.mtu)),
        IpNet::V6(_) => None,
    });
    let (subnet, mtu) = subnet.ok_or_else(|| no_addresses(known))?;
    let route = |route: &Route| match (route.dst, route.gw) {
        (IpNet::V4(to), Some(IpAddr::V4(by))) => Some((to, by)),
        // on the link: through no router (RFC 3442)
        (IpNet::V4(to), None) => Some((to, Ipv4Addr::UNSPECIFIED)),
        _ => None,
    };
    Ok(Network {
        subnet,
        mtu,
        routes: known.asker.routes.iter().filter_map(route).collect(),
        // vDHCP knows of none over REST either
        dns: Vec::new(),
    })
}

fn grant(
    question: &Question,
    known: &Known<'_>,
    wish: Option<Ipv4Addr>,
    now: Timestamp,
) -> Result<leases::Grant, Silence> {
    let request = LeaseRequest {
        client_id: client(question.mac),
        mac: question.mac,
        location: known.location.cloned(),
        requested_ips: wish.map(IpAddr::V4).into_iter().collect(),
        lease_seconds: question.lease_seconds.map(|wish| wish.max(SHORTEST)),
        labels: BTreeMap::new(),
    };
    let (slice, rows) = (known.slice, known.rows);
    leases::grant(slice, rows, known.taken, &request, known.asker, now).map_err(Silence::Problem)
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
