//! What each claim is told: judged, matched with the slices there are, and admitted in turn. Pure:
//! the whole cluster and the time in, a verdict for each device out. The same world gives the same
//! verdicts, in whatever order claims are listed.
//!
//! What was agreed is never taken back for somebody else's sake. An agreement that a pod is using
//! stays when its slice ends, and says so; one that no node has prepared yet is negotiated anew. The
//! claims of one pod are agreed together or not at all: a pod that has half of what it needs would
//! hold it and not run.

mod judge;
mod offer;
#[cfg(test)]
mod tests;

use crate::{
    claim::{Claim, DeviceKey, NicKey, Wish},
    queue::{Place, Queue, Turn},
};
use dtn_api::{
    Name, Rate,
    cluster::{Agreement, part},
    slice::{Class, Mode, Slice},
};
use jiff::Timestamp;
use std::collections::BTreeMap;

pub use offer::second;

/// Label of a namespace: the tenant whose slices its claims may use, and no other's.
pub const TENANT_LABEL: &str = "dtn.appliance/tenant";

/// The slices, or why they are not known.
#[derive(Debug, Clone, PartialEq)]
pub enum Slices {
    /// As the domain's controller says, ended ones too.
    Known(Vec<Slice>),
    /// It does not answer: where it should be, and why, in words that do not change while it lasts.
    Silent {
        /// Its address.
        target: String,
        /// What was tried.
        why: String,
    },
}

/// Everything that a decision is made from.
#[derive(Debug, Clone)]
pub struct World {
    /// Claims that are allocated, of this driver.
    pub claims: Vec<Claim>,
    /// Slices.
    pub slices: Slices,
    /// Tenants of namespaces that have the label.
    pub tenants: BTreeMap<String, String>,
    /// Speed of NICs, bits per second.
    pub speeds: BTreeMap<NicKey, u64>,
}

/// Why a claim is told what it is: the condition's reason, and the event's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It has its part of the slice.
    Agreed,
    /// It had, and the slice is over or lost; the pod goes on with best effort.
    SliceOver,
    /// It can be had later.
    Waiting,
    /// The domain's controller does not answer.
    ControllerSilent,
    /// What was written cannot be meant.
    InvalidParameters,
}
impl Reason {
    /// As Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agreed => "Agreed",
            Self::SliceOver => "SliceOver",
            Self::Waiting => "Waiting",
            Self::ControllerSilent => "ControllerSilent",
            Self::InvalidParameters => "InvalidParameters",
        }
    }
}

/// What one device is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Why.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// What was agreed.
    pub agreement: Option<Agreement>,
}
impl Verdict {
    fn no(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            agreement: None,
        }
    }
    /// Status of the condition.
    pub fn agreed(&self) -> bool {
        self.agreement.is_some()
    }
}

/// A verdict and whose it is: index of the claim, and its device.
pub type Told = (usize, DeviceKey, Verdict);

/// Judges, matches and admits. Devices that ask for no slice are told nothing.
pub fn decide(world: &World, now: Timestamp) -> Vec<Told> {
    let mut round = Round {
        world,
        now,
        turns: judge::turns(&world.claims),
        queue: Queue::default(),
        told: BTreeMap::new(),
    };
    // first what was promised: no later judgement takes it back
    round.stand();
    for (at, key, problem) in judge::wrong(world) {
        if !round.is_told(at, &key) {
            let text = judge::words(&problem);
            round.tell(at, &key, Verdict::no(Reason::InvalidParameters, text));
        }
    }
    round.admit();
    round
        .told
        .into_iter()
        .map(|((at, key), verdict)| (at, key, verdict))
        .collect()
}

/// What a wish that is in order needs of a slice.
struct Need<'a> {
    at: usize,
    wish: &'a Wish,
    offer: Result<&'a Slice, Verdict>,
}

struct Round<'a> {
    world: &'a World,
    now: Timestamp,
    turns: Vec<Turn>,
    queue: Queue,
    told: BTreeMap<(usize, DeviceKey), Verdict>,
}

impl<'a> Round<'a> {
    fn tell(&mut self, at: usize, key: &DeviceKey, verdict: Verdict) {
        self.told.insert((at, key.clone()), verdict);
    }
    fn is_told(&self, at: usize, key: &DeviceKey) -> bool {
        self.told.contains_key(&(at, key.clone()))
    }
    fn wishes(&self) -> impl Iterator<Item = (usize, &'a Wish)> + use<'a> {
        let claims = self.world.claims.iter().enumerate();
        claims.flat_map(|(at, claim)| claim.wishes.iter().map(move |wish| (at, wish)))
    }

    /// What was promised stays, and is counted.
    fn stand(&mut self) {
        for (at, wish) in self.wishes() {
            let Some(promise) = wish.told.promise() else {
                continue;
            };
            let asked = wish.parameters.as_ref().ok().and_then(|p| p.slice.as_ref());
            if asked != Some(&promise.slice) {
                continue;
            }
            let verdict = match &self.world.slices {
                // nothing is known that could change it
                Slices::Silent { .. } => None,
                Slices::Known(slices) => {
                    let slice = slices.iter().find(|slice| slice.id == promise.slice_id);
                    match slice.filter(|slice| offer::booked(slice, self.now)) {
                        Some(slice) => {
                            let place = place(slice, wish);
                            self.queue.place(&place, slice.spec.qos.rate_bps);
                            self.queue.give(&place, &self.turns[at], promise.rate_bps);
                            Some(agreed(slice, promise.rate_bps))
                        }
                        None if wish.told.prepared => Some(offer::over(promise, slice)),
                        None => continue,
                    }
                }
            };
            let verdict = verdict.unwrap_or_else(|| repeated(wish, promise));
            self.tell(at, &wish.key, verdict);
        }
    }

    /// The others are admitted in turn, pod by pod.
    fn admit(&mut self) {
        let mut groups: BTreeMap<Turn, Vec<Need<'a>>> = BTreeMap::new();
        let mut broken: BTreeMap<Turn, usize> = BTreeMap::new();
        for (at, wish) in self.wishes() {
            let claim = &self.world.claims[at];
            let turn = self.turns[at].clone();
            match self.told.get(&(at, wish.key.clone())) {
                Some(verdict) if verdict.reason == Reason::InvalidParameters => {
                    broken.entry(turn).or_insert(at);
                    continue;
                }
                Some(_) => continue,
                None => {}
            }
            let Ok(parameters) = &wish.parameters else {
                continue;
            };
            let nobody = claim.pods.is_empty() || claim.leaving;
            if parameters.slice.is_none() || nobody {
                continue;
            }
            let tenant = self.world.tenants.get(&claim.namespace);
            let offer = offer::find(&self.world.slices, parameters, tenant, self.now);
            groups
                .entry(turn)
                .or_default()
                .push(Need { at, wish, offer });
        }
        for (turn, needs) in groups {
            self.one(&turn, needs, broken.get(&turn).copied());
        }
    }

    /// All that one pod needs, or nothing.
    fn one(&mut self, turn: &Turn, needs: Vec<Need<'a>>, broken: Option<usize>) {
        let mut given = Vec::new();
        let mut refused: BTreeMap<(usize, &DeviceKey), Verdict> = BTreeMap::new();
        for need in &needs {
            let offered = match &need.offer {
                Ok(slice) => self.offered(turn, need.wish, slice),
                Err(verdict) => Err(verdict.clone()),
            };
            match offered {
                Ok(bps) => given.push((need, bps)),
                Err(verdict) => {
                    refused.insert((need.at, &need.wish.key), verdict);
                }
            }
        }
        if refused.is_empty() && broken.is_none() {
            for (need, bps) in given {
                if let Ok(slice) = need.offer {
                    self.tell(need.at, &need.wish.key, agreed(slice, bps));
                }
            }
            return;
        }
        for (need, _) in &given {
            if let Ok(slice) = need.offer {
                self.queue.take_back(&place(slice, need.wish), turn);
            }
        }
        // whose turn cannot come by others' ending is not waited for
        let later = broken.is_none()
            && needs.iter().all(|need| need.offer.is_ok())
            && refused
                .values()
                .all(|verdict| verdict.reason == Reason::Waiting);
        if later {
            self.owe(turn, &needs);
        }
        let why = broken.or_else(|| refused.keys().next().map(|(at, _)| *at));
        for need in &needs {
            let verdict = refused.remove(&(need.at, &need.wish.key)).unwrap_or_else(|| {
                let other = why.map_or(String::new(), |at| self.world.claims[at].full_name());
                let text = format!(
                    "it could be had, but claim {other} of the same pod cannot: a pod gets all of \
                     what it asks for or nothing, so it waits"
                );
                Verdict::no(Reason::Waiting, text)
            });
            self.tell(need.at, &need.wish.key, verdict);
        }
    }

    /// What this wish gets of a slice now; it is taken at once, for the next wish to see.
    fn offered(&mut self, turn: &Turn, wish: &Wish, slice: &Slice) -> Result<u64, Verdict> {
        let Ok(parameters) = &wish.parameters else {
            return Ok(0);
        };
        if let Some(problem) = offer::unfit(parameters, slice) {
            let text = judge::words(&problem);
            return Err(Verdict::no(Reason::InvalidParameters, text));
        }
        if slice.spec.qos.class == Class::BestEffort {
            return Ok(0);
        }
        let place = place(slice, wish);
        self.queue.place(&place, slice.spec.qos.rate_bps);
        let room = self.queue.room(&place, turn);
        match part(parameters, room.bps) {
            Some(bps) => {
                self.queue.give(&place, turn, bps);
                Ok(bps)
            }
            None => {
                let before = room.before.as_ref().map(|(turn, need)| {
                    let claim = self.turns.iter().position(|other| other == turn);
                    let name = claim.map(|at| self.world.claims[at].full_name());
                    (name.unwrap_or_default(), Rate::from_bps(*need))
                });
                Err(offer::too_little(parameters, slice, &place, &room, before))
            }
        }
    }

    /// Who waits is owed what it needs, where that can ever be had.
    fn owe(&mut self, turn: &Turn, needs: &[Need<'a>]) {
        let mut owed: BTreeMap<Place, u64> = BTreeMap::new();
        for need in needs {
            if let (Ok(slice), Ok(parameters)) = (&need.offer, &need.wish.parameters)
                && slice.spec.qos.class != Class::BestEffort
            {
                let least = parameters.least_rate.or(parameters.rate);
                let sum = owed.entry(place(slice, need.wish)).or_default();
                *sum = sum.saturating_add(least.map_or(1, Rate::bps));
            }
        }
        if owed
            .iter()
            .all(|(place, need)| *need <= self.queue.rate(place))
        {
            for (place, need) in owed {
                self.queue.owe(&place, turn, need);
            }
        }
    }
}

/// Where a wish's part of a slice is counted.
fn place(slice: &Slice, wish: &Wish) -> Place {
    match slice.spec.qos.mode {
        Mode::Aggregate => (slice.id, None),
        Mode::Pair | Mode::Hose => (slice.id, Some(wish.key.nic())),
    }
}

fn agreed(slice: &Slice, rate_bps: u64) -> Verdict {
    let (name, ends_at): (&Name, Timestamp) = (&slice.spec.name, slice.spec.schedule.end);
    let until = offer::second(ends_at);
    let message = match slice.spec.qos.class {
        Class::BestEffort => format!("slice {name} carries it without a promise until {until}"),
        _ => format!(
            "slice {name} gives {} until {until}",
            Rate::from_bps(rate_bps)
        ),
    };
    Verdict {
        reason: Reason::Agreed,
        message,
        agreement: Some(Agreement {
            slice: name.clone(),
            slice_id: slice.id,
            class: slice.spec.qos.class,
            rate_bps,
            ends_at,
        }),
    }
}

/// What was told already, told again.
fn repeated(wish: &Wish, promise: &Agreement) -> Verdict {
    let said = wish.told.said.as_ref();
    let reason = match said.is_some_and(|said| said.reason == Reason::SliceOver.as_str()) {
        true => Reason::SliceOver,
        false => Reason::Agreed,
    };
    Verdict {
        reason,
        message: said.map_or_else(String::new, |said| said.message.clone()),
        agreement: Some(promise.clone()),
    }
}
