//! Addresses that were offered: each is kept for its host for a while, so that two hosts that ask at
//! once are not offered the same one. They are not written down; a host that takes an offer of
//! before a restart gets the address if it is still free. Pure.

use crate::admission::later_by;
use dtn_api::MacAddress;
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use uuid::Uuid;

/// For how long an offer is kept, in seconds. A client takes one within some seconds, or has lost the
/// answer and asks again within 64 (RFC 2131 §4.1).
pub const KEPT: u32 = 60;

/// The offers, by slice and host. There is one for each NIC at most, so there are no more of them
/// than NICs are declared.
#[derive(Debug, Default)]
pub struct Offers(BTreeMap<(Uuid, MacAddress), Offer>);

#[derive(Debug)]
struct Offer {
    ips: BTreeSet<IpAddr>,
    until: Timestamp,
}

impl Offers {
    /// Keeps addresses of a slice for a host.
    pub fn keep(
        &mut self,
        slice: Uuid,
        host: MacAddress,
        ips: impl IntoIterator<Item = IpAddr>,
        now: Timestamp,
    ) {
        self.0.retain(|_, offer| now < offer.until);
        let offer = Offer {
            ips: ips.into_iter().collect(),
            until: later_by(now, KEPT),
        };
        self.0.insert((slice, host), offer);
    }
    /// Forgets what was offered to a host.
    pub fn forget(&mut self, slice: Uuid, host: MacAddress) {
        self.0.remove(&(slice, host));
    }
    /// What is offered to a host.
    pub fn of(&self, slice: Uuid, host: MacAddress, now: Timestamp) -> Option<&BTreeSet<IpAddr>> {
        let offer = self.0.get(&(slice, host));
        offer.filter(|offer| now < offer.until).map(|o| &o.ips)
    }
    /// What is offered to everyone else.
    pub fn of_others(
        &self,
        slice: Uuid,
        host: MacAddress,
        now: Timestamp,
    ) -> impl Iterator<Item = IpAddr> + '_ {
        let whole = (slice, MacAddress::new([0; 6]))..=(slice, MacAddress::new([0xff; 6]));
        let others = self.0.range(whole);
        others
            .filter(move |((_, other), offer)| *other != host && now < offer.until)
            .flat_map(|(_, offer)| offer.ips.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_one_hosts_for_a_while() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let [red, blue] = [1, 2].map(Uuid::from_u128);
        let [one, two] = [1, 2].map(|n| MacAddress::new([2, 0, 0, 0, 0, n]));
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        let mut offers = Offers::default();
        offers.keep(red, one, [ip], at(0));
        let others = |offers: &Offers, slice, host, now| -> Vec<IpAddr> {
            offers.of_others(slice, host, at(now)).collect()
        };
        assert!(offers.of(red, one, at(59)).is_some_and(|o| o.contains(&ip)));
        assert_eq!(others(&offers, red, two, 59), [ip]);
        assert!(others(&offers, red, one, 59).is_empty(), "it is its own");
        assert!(others(&offers, blue, two, 59).is_empty(), "another slice");
        assert!(offers.of(red, one, at(60)).is_none());
        assert!(others(&offers, red, two, 60).is_empty());
        offers.keep(blue, two, [ip], at(60));
        assert_eq!(offers.0.len(), 1, "what is over takes no room");
        offers.forget(blue, two);
        assert!(offers.0.is_empty());
    }
}
