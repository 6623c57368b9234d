//! Which addresses a slice may hand out: subnets out of the domain's pools, ranges of a subnet, and
//! the two halves of a stitched slice's ranges. Pure.

use dtn_api::{
    Problem,
    problem::Kind,
    slice::{Addressing, Pool},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Prefix length of an IPv4 subnet for one slice: room for 127 clients on either side of a stitch.
const SLICE_PREFIX_V4: u8 = 24;
/// Prefix length of an IPv6 subnet (RFC 4291 §2.5.1).
const SLICE_PREFIX_V6: u8 = 64;
/// Subnets of a pool that are looked at before it is called full: a bound for a pool of a short
/// prefix whose first subnets are all taken.
const MOST_SUBNETS: usize = 1 << 16;

/// The domain's pools, and how long a lease lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where IPv4 subnets are taken from.
    pub ipv4: Option<Ipv4Net>,
    /// Where IPv6 subnets are taken from.
    pub ipv6: Option<Ipv6Net>,
    /// Lifetime of a lease in seconds.
    pub lease_seconds: u32,
}

/// Inclusive range of addresses of one family, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First.
    pub first: u128,
    /// Last.
    pub last: u128,
}

/// An address as a number.
pub fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}
/// A number as an address of the family of `net`.
pub fn address(number: u128, net: &IpNet) -> IpAddr {
    match net {
        // a range's numbers are within the subnet, which was checked when it was made
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(number as u32)),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

/// The addresses of a subnet that hosts may have: without the first and the last one.
fn whole(net: &IpNet) -> Range {
    let (first, last) = (number(net.network()), number(net.broadcast()));
    Range {
        first: first.saturating_add(1),
        last: last.saturating_sub(1),
    }
}

fn parse(text: &str, net: &IpNet) -> Result<Range, String> {
    let example = "write FIRST-LAST, as 10.20.0.10-10.20.0.250";
    let (first, last) = text
        .split_once('-')
        .ok_or_else(|| format!("range {text:?} has no dash: {example}"))?;
    let ip = |part: &str| -> Result<IpAddr, String> {
        let ip: IpAddr = part
            .trim()
            .parse()
            .map_err(|_| format!("{part:?} is not an address: {example}"))?;
        match net.contains(&ip) {
            true => Ok(ip),
            false => Err(format!("{ip} is not in the subnet {net}")),
        }
    };
    let range = Range {
        first: number(ip(first)?),
        last: number(ip(last)?),
    };
    match range.first <= range.last {
        true => Ok(range),
        false => Err(format!("range {text:?} runs backwards: {example}")),
    }
}

/// The ranges of a pool, in order, or what is wrong with them.
pub fn ranges(pool: &Pool) -> Result<Vec<Range>, String> {
    if pool.cidr.trunc() != pool.cidr {
        return Err(format!(
            "{} has bits below its prefix: write {}",
            pool.cidr,
            pool.cidr.trunc()
        ));
    }
    let whole = whole(&pool.cidr);
    if whole.first > whole.last {
        return Err(format!("{} has no room for a host", pool.cidr));
    }
    if pool.ranges.is_empty() {
        return Ok(vec![whole]);
    }
    let mut ranges = Vec::new();
    for text in &pool.ranges {
        let range = parse(text, &pool.cidr)?;
        ranges.push(Range {
            first: range.first.max(whole.first),
            last: range.last.min(whole.last),
        });
    }
    ranges.retain(|range| range.first <= range.last);
    match ranges.is_empty() {
        true => Err("its ranges hold nothing but the first and last address".into()),
        false => Ok(ranges),
    }
}

/// What is wrong with an addressing, as pairs of a field's name and words.
pub fn faults(addressing: &Addressing) -> Vec<(&'static str, String)> {
    let mut faults = Vec::new();
    let pools = [
        ("ipv4", addressing.ipv4.as_ref(), true),
        ("ipv6", addressing.ipv6.as_ref(), false),
    ];
    for (field, pool, v4) in pools {
        let Some(pool) = pool else { continue };
        if matches!(pool.cidr, IpNet::V4(_)) != v4 {
            faults.push((field, format!("{} is of the other family", pool.cidr)));
            continue;
        }
        if let Err(why) = ranges(pool) {
            faults.push((field, why));
        }
        let whole = whole(&pool.cidr);
        if let Some(gateway) = pool.gateway
            && !(pool.cidr.contains(&gateway)
                && (whole.first..=whole.last).contains(&number(gateway)))
        {
            let why = format!("gateway {gateway} is no host's address in {}", pool.cidr);
            faults.push((field, why));
        }
    }
    if addressing.ipv4.is_none() && addressing.ipv6.is_none() {
        faults.push(("ipv4", "neither ipv4 nor ipv6 is given: give one".into()));
    }
    // RFC 8200 §5: every link of an IPv6 packet's way carries 1280; RFC 791 §3.2: 576 for IPv4
    let least = if addressing.ipv6.is_some() { 1280 } else { 576 };
    if !(least..=65_535).contains(&addressing.mtu) {
        faults.push((
            "mtu",
            format!("{} is not from {least} to 65535", addressing.mtu),
        ));
    }
    if !(30..=2_592_000).contains(&addressing.lease_seconds) {
        faults.push((
            "lease_seconds",
            format!("{} is not from 30 to 2592000", addressing.lease_seconds),
        ));
    }
    faults
}

fn overlaps(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// The subnets of an addressing.
pub fn subnets(addressing: &Addressing) -> impl Iterator<Item = IpNet> {
    [&addressing.ipv4, &addressing.ipv6]
        .into_iter()
        .flatten()
        .map(|pool| pool.cidr)
}

/// Gives each subnet an address for the slice's gateway, where it has none: the first one that a
/// host may have.
pub fn set_gateways(addressing: &mut Addressing) {
    let pools = [&mut addressing.ipv4, &mut addressing.ipv6];
    for pool in pools.into_iter().flatten() {
        let first = address(whole(&pool.cidr).first, &pool.cidr);
        pool.gateway.get_or_insert(first);
    }
}

/// The first of the used subnets that an addressing overlaps.
pub fn clash(addressing: &Addressing, used: &[IpNet]) -> Option<IpNet> {
    subnets(addressing).find_map(|mine| used.iter().find(|net| overlaps(net, &mine)).copied())
}

/// Chooses a free subnet of each family out of the pools.
pub fn choose(plan: &Plan, used: &[IpNet], mtu: u32) -> Result<Addressing, Problem> {
    let free = |nets: &mut dyn Iterator<Item = IpNet>, pool: &dyn std::fmt::Display| {
        nets.take(MOST_SUBNETS)
            .find(|net| !used.iter().any(|taken| overlaps(taken, net)))
            .map(|cidr| Pool {
                cidr,
                ranges: Vec::new(),
                gateway: None,
            })
            .ok_or_else(|| {
                Problem::new(
                    Kind::PoolExhausted,
                    format!(
                        "every subnet of the pool {pool} is in use by a slice: end one, or give \
                         the domain a larger pool ([addresses] in appliance.toml)"
                    ),
                )
            })
    };
    let ipv4 = plan.ipv4.map(|pool| {
        let prefix = SLICE_PREFIX_V4.max(pool.prefix_len());
        // within 0..=32 and not shorter than the pool's, so there is at least one
        let nets = pool.subnets(prefix).into_iter().flatten();
        free(&mut nets.map(IpNet::V4), &pool)
    });
    let ipv6 = plan.ipv6.map(|pool| {
        let prefix = SLICE_PREFIX_V6.max(pool.prefix_len());
        let nets = pool.subnets(prefix).into_iter().flatten();
        free(&mut nets.map(IpNet::V6), &pool)
    });
    let addressing = Addressing {
        ipv4: ipv4.transpose()?,
        ipv6: ipv6.transpose()?,
        mtu,
        lease_seconds: plan.lease_seconds,
    };
    match addressing.ipv4.is_none() && addressing.ipv6.is_none() {
        true => Err(Problem::new(
            Kind::PoolExhausted,
            "this domain has no address pool: give the slice its addressing, or set [addresses] in \
             appliance.toml",
        )),
        false => Ok(addressing),
    }
}

/// Splits the addresses of a stitched slice: the first half is the initiator's, the second the
/// other domain's. No address is in both.
pub fn halves(addressing: &Addressing) -> Result<(Addressing, Addressing), String> {
    let (mut near, mut far) = (addressing.clone(), addressing.clone());
    for (near, far) in [
        (&mut near.ipv4, &mut far.ipv4),
        (&mut near.ipv6, &mut far.ipv6),
    ] {
        let (Some(near), Some(far)) = (near, far) else {
            continue;
        };
        let (a, b) = split(near)?;
        near.ranges = a;
        far.ranges = b;
    }
    Ok((near, far))
}

fn split(pool: &Pool) -> Result<(Vec<String>, Vec<String>), String> {
    let ranges = ranges(pool)?;
    let text = |range: Range| {
        format!(
            "{}-{}",
            address(range.first, &pool.cidr),
            address(range.last, &pool.cidr)
        )
    };
    // several ranges are dealt in the middle of each, so that both sides get of every one
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for range in ranges {
        if range.first == range.last {
            near.push(text(range));
            continue;
        }
        let middle = range.first + (range.last - range.first) / 2;
        near.push(text(Range {
            last: middle,
            ..range
        }));
        far.push(text(Range {
            first: middle + 1,
            ..range
        }));
    }
    match far.is_empty() {
        true => Err(format!("{} has no room for two sides", pool.cidr)),
        false => Ok((near, far)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan() -> Plan {
        Plan {
            ipv4: Some("10.20.0.0/16".parse().unwrap()),
            ipv6: Some("fd00:20::/48".parse().unwrap()),
            lease_seconds: 3600,
        }
    }

    #[test]
    fn a_slice_gets_the_first_free_subnet_and_each_side_its_half() {
        let used: Vec<IpNet> = ["10.20.0.0/23", "fd00:20::/64"]
            .map(|n| n.parse().unwrap())
            .into();
        let chosen = choose(&plan(), &used, 9000).unwrap();
        let nets: Vec<String> = subnets(&chosen).map(|n| n.to_string()).collect();
        assert_eq!(nets, ["10.20.2.0/24", "fd00:20:0:1::/64"]);
        let (near, far) = halves(&chosen).unwrap();
        assert_eq!(near.ipv4.unwrap().ranges, ["10.20.2.1-10.20.2.127"]);
        assert_eq!(far.ipv4.unwrap().ranges, ["10.20.2.128-10.20.2.254"]);
        assert_eq!(
            far.ipv6.unwrap().ranges,
            ["fd00:20:0:1:8000::-fd00:20:0:1:ffff:ffff:ffff:fffe"]
        );
        assert_eq!(
            near.ipv6.unwrap().ranges,
            ["fd00:20:0:1::1-fd00:20:0:1:7fff:ffff:ffff:ffff"]
        );
    }

    #[test]
    fn an_exhausted_pool_says_so() {
        let used = ["10.20.0.0/16".parse().unwrap()];
        let problem = choose(&plan(), &used, 1500).unwrap_err();
        assert!(problem.is(Kind::PoolExhausted), "{problem}");
        let none = Plan {
            ipv4: None,
            ipv6: None,
            lease_seconds: 1,
        };
        assert!(
            choose(&none, &[], 1500)
                .unwrap_err()
                .is(Kind::PoolExhausted)
        );
    }

    #[test]
    fn wrong_ranges_are_named() {
        let pool = |cidr: &str, ranges: &[&str]| Pool {
            cidr: cidr.parse().unwrap(),
            ranges: ranges.iter().map(|r| (*r).into()).collect(),
            gateway: None,
        };
        for (bad, why) in [
            (pool("10.0.0.1/24", &[]), "10.0.0.0/24"),
            (pool("10.0.0.0/24", &["10.0.0.9-10.0.0.1"]), "backwards"),
            (
                pool("10.0.0.0/24", &["10.0.1.1-10.0.1.2"]),
                "not in the subnet",
            ),
            (pool("10.0.0.0/24", &["10.0.0.1"]), "no dash"),
            (
                pool("10.0.0.0/24", &["10.0.0.0-10.0.0.0"]),
                "first and last",
            ),
            (pool("10.0.0.0/32", &[]), "no room"),
            (pool("10.0.0.0/31", &[]), "no room"),
        ] {
            let said = ranges(&bad).unwrap_err();
            assert!(said.contains(why), "{said} for {bad:?}");
        }
    }

    proptest! {
        #[test]
        fn halves_share_no_address_and_lose_none(low in 1_u32..200, length in 1_u32..50) {
            let pool = Pool {
                cidr: "10.0.0.0/24".parse().unwrap(),
                ranges: vec![format!("10.0.0.{low}-10.0.0.{}", low + length)],
                gateway: None,
            };
            let (near, far) = split(&pool).unwrap();
            let of = |texts: Vec<String>| ranges(&Pool { ranges: texts, ..pool.clone() }).unwrap();
            let all = of(pool.ranges.clone())[0];
            let (near, far) = (of(near)[0], of(far)[0]);
            prop_assert_eq!((near.first, near.last + 1, far.last), (all.first, far.first, all.last));
        }
        #[test]
        fn no_range_panics(text in ".{0,40}", prefix in 0_u8..=32) {
            let cidr = IpNet::V4(Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 0), prefix).unwrap());
            let pool = Pool { cidr, ranges: vec![text], gateway: None };
            let _ = ranges(&pool).map(|_| split(&pool));
        }
    }
}
