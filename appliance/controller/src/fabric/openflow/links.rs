//! What is known of how the switches are joined, and what of it is not as the site wrote it: pure.

use super::switches::Ports;
use crate::fabric::network::{Cable, Network, Place, PortRef};
use dtn_api::{Name, fabric::FabricLink};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;

/// How often every port says where it is.
pub(super) const EVERY: Duration = Duration::from_secs(5);
/// After this long without a word a link is not there any more: three were lost.
pub(super) const FRESH: Duration = Duration::from_secs(16);
/// For how long a cable may be silent once both its ports are up.
const PATIENCE: Duration = Duration::from_secs(16);

/// A port of a switch.
pub(super) type End = (Name, u32);

/// What has been seen.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// When something last came from the first to the second.
    seen: BTreeMap<(End, End), Instant>,
    /// Since when a port is up, on a switch that hands over what it hears.
    ready: BTreeMap<End, Instant>,
}

/// How a cable of the configuration is found.
enum Found<'a> {
    /// As it is written, or there is not enough to judge by.
    Well,
    /// One of its ends is joined to this other port.
    Elsewhere(&'a End, &'a End),
    /// Nothing gets from the first to the second, though it does the other way.
    OneWay(&'a End, &'a End),
    /// Nothing gets through.
    Silent,
}

impl Links {
    /// A probe came through.
    pub(super) fn saw(&mut self, from: End, to: End, now: Instant) {
        // a host that sends back what it hears joins a port to itself
        if from != to {
            self.seen.insert((from, to), now);
        }
    }
    /// The ports that are up now on switches that listen; what was seen of others counts no more.
    /// Those that were not up before.
    pub(super) fn readied(&mut self, up: &BTreeSet<End>, now: Instant) -> BTreeSet<End> {
        let known = |end: &End| self.ready.contains_key(end);
        let new = up.iter().filter(|end| !known(end)).cloned();
        let new: BTreeSet<End> = new.collect();
        self.ready.retain(|end, _| up.contains(end));
        let both = |(from, to): &(End, End)| up.contains(from) && up.contains(to);
        self.seen.retain(|ends, _| both(ends));
        self.ready.extend(new.iter().map(|end| (end.clone(), now)));
        new
    }

    fn last(&self, from: &End, to: &End) -> Option<Instant> {
        self.seen.get(&(from.clone(), to.clone())).copied()
    }
    /// When something last went one way or the other.
    fn either(&self, a: &End, b: &End) -> Option<Instant> {
        self.last(a, b).max(self.last(b, a))
    }
    fn waited(&self, end: &End, now: Instant) -> bool {
        let since = self.ready.get(end);
        since.is_some_and(|since| now.saturating_duration_since(*since) > PATIENCE)
    }

    fn found<'a>(&'a self, a: &'a End, b: &'a End, now: Instant) -> Found<'a> {
        let right = self.either(a, b);
        let elsewhere = self.seen.iter().filter_map(|((from, to), at)| {
            let (own, other) = match () {
                () if from == a || from == b => (from, to),
                () if to == a || to == b => (to, from),
                () => return None,
            };
            let strange = other != a && other != b && fresh(*at, now) && Some(*at) > right;
            strange.then_some((at, own, other))
        });
        if let Some((_, own, other)) = elsewhere.max() {
            return Found::Elsewhere(own, other);
        }
        if !(self.waited(a, now) && self.waited(b, now)) {
            return Found::Well;
        }
        let comes = |from, to| self.last(from, to).is_some_and(|at| fresh(at, now));
        match (comes(a, b), comes(b, a)) {
            (true, true) => Found::Well,
            (false, true) => Found::OneWay(a, b),
            (true, false) => Found::OneWay(b, a),
            (false, false) => Found::Silent,
        }
    }

    /// Every cable of the configuration and every other link that was seen, with what is wrong.
    pub(super) fn judged(
        &self,
        network: &Network,
        switches: &BTreeMap<Name, Told>,
        now: Instant,
    ) -> Vec<FabricLink> {
        let mut all = Vec::new();
        // the pairs of ports that a cable has been found to be
        let mut named: BTreeSet<[&End; 2]> = BTreeSet::new();
        let ends: Vec<Option<[End; 2]>> = network
            .cables
            .iter()
            .map(|cable| {
                let [a, b] = &cable.ends;
                Some([end(a, switches)?, end(b, switches)?])
            })
            .collect();
        for (cable, ends) in network.cables.iter().zip(&ends) {
            let ([a, b], [one, other]) = (
                &cable.ends,
                match ends {
                    Some(ends) => ends.each_ref(),
                    // a switch that is away, or a port that is not there, is said elsewhere
                    None => {
                        all.push(said(cable, None, None));
                        continue;
                    }
                },
            );
            named.insert(pair(one, other));
            let trouble = match self.found(one, other, now) {
                Found::Well => None,
                Found::Elsewhere(own, far) => {
                    named.insert(pair(own, far));
                    Some(format!(
                        "the cable {a} {b} is wired otherwise: {} is joined to {}; plug it in as \
                         it is written, or write it as it is plugged in",
                        place(own, switches),
                        place(far, switches)
                    ))
                }
                Found::OneWay(from, to) => Some(format!(
                    "the cable {a} {b} works one way only: nothing that leaves {} arrives at {}; \
                     look at the cable and its transceivers",
                    place(from, switches),
                    place(to, switches)
                )),
                Found::Silent => Some(format!(
                    "the cable {a} {b} is not seen: both ports are up, and nothing that leaves the \
                     one arrives at the other; look where it is plugged in, and for equipment in \
                     between"
                )),
            };
            let at = self.either(one, other).filter(|at| fresh(*at, now));
            all.push(said(cable, at.map(|at| now - at), trouble));
        }
        let mut others: BTreeMap<[&End; 2], Instant> = BTreeMap::new();
        for ((from, to), at) in self.seen.iter().filter(|(_, at)| fresh(**at, now)) {
            let latest = others.entry(pair(from, to)).or_insert(*at);
            *latest = (*latest).max(*at);
        }
        let cables: BTreeSet<[&End; 2]> = ends.iter().flatten().map(|[a, b]| pair(a, b)).collect();
        for ([a, b], at) in others {
            if cables.contains(&[a, b]) {
                continue;
            }
            let names = [a, b].map(|end| place(end, switches).to_string());
            let trouble = (!named.contains(&[a, b])).then(|| {
                format!(
                    "{} is joined to {} and no [[cable]] says so: no slice uses it",
                    names[0], names[1]
                )
            });
            let speeds = [a, b].map(|(name, port)| {
                let speeds = switches.get(name).map(|told| &told.speeds);
                speeds.and_then(|speeds| speeds.get(port)).copied()
            });
            all.push(FabricLink {
                ends: names,
                cable: false,
                seen_s: Some((now - at).as_secs()),
                speed_bps: speeds[0].min(speeds[1]),
                trouble,
            });
        }
        all
    }
}

/// What a switch has told of its ports.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// Their numbers by name.
    pub(super) ports: Ports,
    /// Their rates in bits per second, by number, where it knows.
    pub(super) speeds: BTreeMap<u32, u64>,
}

fn fresh(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) <= FRESH
}
fn pair<'a>(a: &'a End, b: &'a End) -> [&'a End; 2] {
    if a < b { [a, b] } else { [b, a] }
}
fn said(cable: &Cable, seen: Option<Duration>, trouble: Option<String>) -> FabricLink {
    FabricLink {
        ends: cable.ends.each_ref().map(ToString::to_string),
        cable: true,
        seen_s: seen.map(|age| age.as_secs()),
        speed_bps: Some(cable.capacity_bps),
        trouble,
    }
}
/// The port that is written so.
fn end(place: &Place, switches: &BTreeMap<Name, Told>) -> Option<End> {
    let ports = &switches.get(&place.switch)?.ports;
    let number = match &place.port {
        PortRef::Name(name) => *ports.get(name)?,
        PortRef::Number(number) => *ports.values().find(|have| *have == number)?,
    };
    Some((place.switch.clone(), number))
}
/// A port as it can be written: by its name, or by its number where the name cannot be.
fn place((switch, number): &End, switches: &BTreeMap<Name, Told>) -> Place {
    let ports = switches.get(switch).map(|told| &told.ports);
    let name = ports.and_then(|ports| ports.iter().find(|(_, have)| *have == number));
    let named = name.and_then(|(name, _)| format!("{switch}/{name}").parse().ok());
    named.unwrap_or_else(|| Place {
        switch: switch.clone(),
        port: PortRef::Number(*number),
    })
}

#[cfg(test)]
#[path = "links_tests.rs"]
mod tests;
