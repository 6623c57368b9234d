//! vDHCP: who gets which address of a slice, and for how long. Pure: rows and the time in, rows out.
//!
//! Identity is the client's, not the call's: the same `(slice, client_id)` always has one lease.
//! Addresses go first to their last owner, then to whom they were asked by, then never-used ones,
//! then the one that was freed longest ago (RFC 2131 §4.3.1; it spares peers with old caches). All
//! families of the slice are given, or none.

use crate::{
    addresses::{self, Range},
    admission::later_by,
    dhcp,
};
use dtn_api::{
    Problem,
    lease::{Lease, LeaseRequest, LeaseState, Route},
    problem::Kind,
    slice::{Addressing, Pool, Slice},
};
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};
use uuid::Uuid;

/// How long a freed address is remembered for its last owner, in seconds.
pub const AFFINITY_SECONDS: u32 = 86_400;
/// For how long an address that somebody else was found to have is nobody's, in seconds: as Kea's
/// `decline-probation-period`, a day.
pub const DECLINED_SECONDS: u32 = 86_400;
/// Longest client id, in bytes: DHCP's DUID has 130 (RFC 8415 §11.1), ours carries names.
const LONGEST_CLIENT: usize = 512;

/// A lease as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRow {
    /// What the client sees.
    pub lease: Lease,
    /// Its lifetime in seconds, for renewals.
    pub lifetime: u32,
    /// While quarantined: until then nobody else gets its addresses.
    #[serde(default)]
    pub quarantine_until: Option<Timestamp>,
    /// When its addresses became free.
    #[serde(default)]
    pub freed_at: Option<Timestamp>,
    /// The node that asked for it, when a node did.
    #[serde(default)]
    pub node: Option<dtn_api::Name>,
}

impl LeaseRow {
    /// Whether nobody else may have its addresses.
    pub fn occupies(&self) -> bool {
        self.freed_at.is_none()
    }
}

/// What granting did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The lease.
    pub row: LeaseRow,
    /// Whether it was made now.
    pub fresh: bool,
    /// A row of this client that it takes the place of.
    pub replaces: Option<Uuid>,
}

/// Who asks, and with which id a new lease is called.
#[derive(Debug, Clone)]
pub struct Asker {
    /// Id of a lease that has to be made.
    pub id: Uuid,
    /// The node that asks, when a node does.
    pub node: Option<dtn_api::Name>,
    /// It is the slice's gateway: it gets the addresses that are kept for the gateway, and no other.
    pub gateway: bool,
    /// What it reaches beyond the slice.
    pub routes: Vec<Route>,
}

fn terms(lease: &mut Lease, lifetime: u32, now: Timestamp) {
    let part = |eighths: i64| {
        let millis = i64::from(lifetime) * 1000 * eighths / 8;
        crate::admission::later(now, SignedDuration::from_millis(millis))
    };
    lease.t1 = part(4);
    lease.t2 = part(7);
    lease.expires_at = later_by(now, lifetime);
    lease.state = LeaseState::Bound;
}

/// The client's lease: the one that it has, or a new one.
///
/// `rows` are the leases of this slice, `foreign` addresses that hosts with another MAC are known
/// by.
pub fn grant(
    slice: &Slice,
    rows: &[&LeaseRow],
    foreign: &BTreeSet<IpAddr>,
    request: &LeaseRequest,
    asker: &Asker,
    now: Timestamp,
) -> Result<Grant, Problem> {
    check(request)?;
    let own = |row: &&&LeaseRow| row.lease.client_id == request.client_id;
    if let Some(held) = rows.iter().filter(own).find(|row| row.occupies()) {
        let mut row = (*held).clone();
        let bound = row.lease.state == LeaseState::Bound && now < row.lease.expires_at;
        let same = row.lease.mac == request.mac
            && row.lease.labels == request.labels
            && row.lease.location == request.location
            && row.lease.routes == asker.routes;
        if !bound {
            terms(&mut row.lease, row.lifetime, now);
            row.quarantine_until = None;
        }
        if !bound || !same {
            row.lease.mac = request.mac;
            row.lease.labels = request.labels.clone();
            row.lease.location = request.location.clone();
            row.lease.routes = asker.routes.clone();
            row.lease.version += 1;
        }
        return Ok(Grant {
            row,
            fresh: false,
            replaces: None,
        });
    }
    let Some(addressing) = &slice.spec.addressing else {
        return Err(Problem::new(
            Kind::StateConflict,
            format!("slice {} hands out no addresses", slice.spec.name),
        ));
    };
    if !slice.booked_at(now) {
        return Err(Problem::new(
            Kind::StateConflict,
            format!(
                "slice {} has ended and gives no new leases: reserve another one",
                slice.spec.name
            ),
        ));
    }
    let previous = rows.iter().filter(own).max_by_key(|row| row.freed_at);
    let mut ips = Vec::new();
    for pool in [&addressing.ipv4, &addressing.ipv6].into_iter().flatten() {
        ips.push(match asker.gateway {
            true => the_gateways(pool, request, slice)?,
            false => one(pool, rows, foreign, request, previous.copied(), slice)?,
        });
    }
    let lifetime = request
        .lease_seconds
        .unwrap_or(addressing.lease_seconds)
        .clamp(1, addressing.lease_seconds.max(1));
    let mut lease = Lease {
        id: asker.id,
        slice_id: slice.id,
        client_id: request.client_id.clone(),
        mac: request.mac,
        ips,
        mtu: addressing.mtu,
        routes: asker.routes.clone(),
        dns: Vec::new(),
        t1: now,
        t2: now,
        expires_at: now,
        state: LeaseState::Bound,
        location: request.location.clone(),
        labels: request.labels.clone(),
        version: 1,
    };
    terms(&mut lease, lifetime, now);
    Ok(Grant {
        row: LeaseRow {
            lease,
            lifetime,
            quarantine_until: None,
            freed_at: None,
            node: asker.node.clone(),
        },
        fresh: true,
        replaces: previous.map(|row| row.lease.id),
    })
}

fn check(request: &LeaseRequest) -> Result<(), Problem> {
    let mut problem = Problem::new(Kind::InvalidRequest, "the lease request is not valid");
    let id = &request.client_id;
    if id.is_empty() || id.len() > LONGEST_CLIENT || id.chars().any(char::is_control) {
        problem = problem.at(
            "/client_id",
            format!("must be 1 to {LONGEST_CLIENT} bytes without control characters"),
        );
    }
    if !request.mac.is_unicast() {
        problem = problem.at("/mac", format!("{} is no host's address", request.mac));
    }
    if request.lease_seconds == Some(0) {
        problem = problem.at("/lease_seconds", "must be above 0");
    }
    let v4 = request
        .requested_ips
        .iter()
        .filter(|ip| ip.is_ipv4())
        .count();
    if v4 > 1 || request.requested_ips.len() - v4 > 1 {
        problem = problem.at("/requested_ips", "at most one address per family");
    }
    match problem.errors.is_empty() {
        true => Ok(()),
        false => Err(problem),
    }
}

/// The address of one family that is kept for the slice's gateway.
fn the_gateways(pool: &Pool, request: &LeaseRequest, slice: &Slice) -> Result<IpNet, Problem> {
    let name = &slice.spec.name;
    let kept = pool.gateway.ok_or_else(|| {
        let why = format!(
            "slice {name} keeps no address of {} for a gateway",
            pool.cidr
        );
        Problem::new(Kind::StateConflict, why)
    })?;
    let family = |ip: &&IpAddr| ip.is_ipv4() == kept.is_ipv4();
    match request.requested_ips.iter().find(family) {
        Some(other) if *other != kept => {
            Err(
                Problem::new(Kind::InvalidRequest, "the lease request is not valid").at(
                    "/requested_ips",
                    format!("the gateway of slice {name} has {kept}, not {other}"),
                ),
            )
        }
        _ => Ok(IpNet::new(kept, pool.cidr.prefix_len()).unwrap_or(pool.cidr)),
    }
}

/// One address of one family.
fn one(
    pool: &Pool,
    rows: &[&LeaseRow],
    foreign: &BTreeSet<IpAddr>,
    request: &LeaseRequest,
    previous: Option<&LeaseRow>,
    slice: &Slice,
) -> Result<IpNet, Problem> {
    let ranges = addresses::ranges(pool).map_err(|why| {
        Problem::new(
            Kind::Internal,
            format!("the addresses of slice {}: {why}", slice.spec.name),
        )
    })?;
    let net = |ip: IpAddr| IpNet::new(ip, pool.cidr.prefix_len()).unwrap_or(pool.cidr);
    let of_pool = |row: &&LeaseRow| -> Option<u128> {
        let ip = row
            .lease
            .ips
            .iter()
            .find(|ip| pool.cidr.contains(&ip.addr()));
        ip.map(|ip| addresses::number(ip.addr()))
    };
    let mut taken: BTreeSet<u128> = rows
        .iter()
        .filter(|row| row.occupies())
        .filter_map(of_pool)
        .collect();
    let seen = foreign.iter().chain(&pool.gateway);
    taken.extend(
        seen.filter(|ip| pool.cidr.contains(*ip))
            .map(|ip| addresses::number(*ip)),
    );
    let within = |n: u128| ranges.iter().any(|r| r.first <= n && n <= r.last);
    let free = |n: u128| within(n) && !taken.contains(&n);

    let wanted = request
        .requested_ips
        .iter()
        .find(|ip| pool.cidr.contains(*ip));
    let before = previous.as_ref().and_then(of_pool);
    let first_choices = [before, wanted.map(|ip| addresses::number(*ip))];
    if let Some(n) = first_choices.into_iter().flatten().find(|n| free(*n)) {
        return Ok(net(addresses::address(n, &pool.cidr)));
    }
    // what was ever used comes last, and of that what was freed longest ago comes first
    let mut used: Vec<(Option<Timestamp>, u128)> = rows
        .iter()
        .filter(|row| !row.occupies())
        .filter_map(|row| Some((row.freed_at, of_pool(row)?)))
        .collect();
    used.sort();
    let known: BTreeSet<u128> = used
        .iter()
        .map(|(_, n)| *n)
        .chain(taken.iter().copied())
        .collect();
    let unused = ranges.iter().find_map(|range| first_gap(range, &known));
    unused
        .or_else(|| used.iter().map(|(_, n)| *n).find(|n| free(*n)))
        .map(|n| net(addresses::address(n, &pool.cidr)))
        .ok_or_else(|| {
            let total = ranges.iter().fold(0_u128, |sum, r| {
                sum.saturating_add(r.last - r.first).saturating_add(1)
            });
            Problem::new(
                Kind::PoolExhausted,
                format!(
                    "slice {} has no address left in {}: all {total} of its ranges are in use; \
                     release a lease or reserve a slice with a larger subnet",
                    slice.spec.name, pool.cidr
                ),
            )
        })
}

/// The lowest number of a range that is not known. Ends after as many steps as there are known ones.
fn first_gap(range: &Range, known: &BTreeSet<u128>) -> Option<u128> {
    let mut next = range.first;
    for n in known.range(range.first..=range.last) {
        if *n > next {
            break;
        }
        next = n.checked_add(1)?;
    }
    (next <= range.last).then_some(next)
}

/// The lease with its lifetime started anew. A quarantined one is its client's still, unless that
/// has declined it.
pub fn renew(row: &LeaseRow, now: Timestamp) -> Result<LeaseRow, Problem> {
    if row.lease.client_id.starts_with(dhcp::DECLINED) && row.occupies() {
        return Err(Problem::new(
            Kind::StateConflict,
            format!(
                "lease {} is nobody's: its host has found its address with somebody else; ask for \
                 a new one",
                row.lease.id
            ),
        ));
    }
    if !row.occupies() {
        return Err(Problem::new(
            Kind::StateConflict,
            format!(
                "lease {} of {} is given back: ask for a new one",
                row.lease.id, row.lease.client_id
            ),
        ));
    }
    let mut row = row.clone();
    terms(&mut row.lease, row.lifetime, now);
    row.quarantine_until = None;
    row.lease.version += 1;
    Ok(row)
}

/// The lease given back; `None` when it was already.
pub fn release(row: &LeaseRow, now: Timestamp) -> Option<LeaseRow> {
    row.occupies().then(|| {
        let mut row = row.clone();
        row.lease.state = LeaseState::Released;
        row.lease.version += 1;
        row.quarantine_until = None;
        row.freed_at = Some(now);
        row
    })
}

/// The lease taken from a client that has found its address with somebody else: nobody has it, until
/// it is tried again. Nothing but time or the site ends that.
pub fn decline(row: &LeaseRow, address: Ipv4Addr, now: Timestamp) -> LeaseRow {
    let mut row = row.clone();
    row.lease.client_id = format!("{}{address}", dhcp::DECLINED);
    row.lease.state = LeaseState::Quarantined;
    row.lease.version += 1;
    row.quarantine_until = Some(later_by(now, DECLINED_SECONDS));
    row
}

/// What time does to a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aged {
    /// Nothing yet.
    Same,
    /// It expired: its addresses are kept from others as long again, because a client that cannot
    /// reach us may live on.
    Quarantined(Box<LeaseRow>),
    /// Its quarantine is over: its addresses are free.
    Freed(Box<LeaseRow>),
    /// Nobody needs to remember it any more.
    Forgotten,
}

/// What time has done to a lease. `seen` says that its client was heard of another way.
pub fn age(row: &LeaseRow, seen: bool, now: Timestamp) -> Aged {
    if let Some(freed) = row.freed_at {
        return match now >= later_by(freed, AFFINITY_SECONDS) {
            true => Aged::Forgotten,
            false => Aged::Same,
        };
    }
    match (row.lease.state, row.quarantine_until) {
        (LeaseState::Bound, _) if now >= row.lease.expires_at => {
            let mut row = row.clone();
            row.lease.state = LeaseState::Quarantined;
            row.lease.version += 1;
            row.quarantine_until = Some(later_by(now, row.lifetime));
            Aged::Quarantined(Box::new(row))
        }
        (LeaseState::Quarantined, Some(until)) if now >= until && !seen => {
            release(row, now).map_or(Aged::Same, |row| Aged::Freed(Box::new(row)))
        }
        _ => Aged::Same,
    }
}

/// How full a slice's addresses are: in use, and all there are, of its smaller family.
pub fn fill(addressing: &Addressing, occupied: usize) -> Option<(usize, u128)> {
    [&addressing.ipv4, &addressing.ipv6]
        .into_iter()
        .flatten()
        .filter_map(|pool| addresses::ranges(pool).ok())
        .map(|ranges| {
            ranges.iter().fold(0_u128, |sum, r| {
                sum.saturating_add(r.last - r.first).saturating_add(1)
            })
        })
        .min()
        .map(|total| (occupied, total))
}
