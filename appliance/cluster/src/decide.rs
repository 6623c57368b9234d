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
    MacAddress, Name, Rate,
    cluster::{Agreement, ClaimParameters, part},
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
    /// NICs that are published.
    pub nics: BTreeMap<NicKey, Nic>,
}

/// A NIC as its node publishes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nic {
    /// Its name on the node.
    pub ifname: Option<String>,
    /// Its speed, bits per second.
    pub speed_bps: Option<u64>,
    /// Its hardware address, by which it is a member of slices.
    pub mac: Option<MacAddress>,
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
        late: Vec::new(),
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
    round.explain();
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

/// It waits for others of the cluster, or of its own pod. What is left is said when all have theirs, so that the same world is
/// told the same figures.
struct Late<'a> {
    at: usize,
    wish: &'a Wish,
    slice: &'a Slice,
    turn: Turn,
    /// What all claims of the pod want there at least, when there are several.
    together: Option<u64>,
    /// The claim of the same pod that is in the way, where it is not for want of bandwidth.
    other: Option<String>,
}

struct Round<'a> {
    world: &'a World,
    now: Timestamp,
    turns: Vec<Turn>,
    queue: Queue,
    told: BTreeMap<(usize, DeviceKey), Verdict>,
    late: Vec<Late<'a>>,
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
    fn one(&mut self, turn: &Turn, mut needs: Vec<Need<'a>>, broken: Option<usize>) {
        needs.sort_by_key(|need| {
            let claim = &self.world.claims[need.at];
            (claim.created_at, &claim.uid)
        });
        let sums = together(&needs);
        let mut kept = sums.clone();
        let mut given = Vec::new();
        // `None`: too little is left
        let mut refused: BTreeMap<(usize, &DeviceKey), Option<Verdict>> = BTreeMap::new();
        for need in &needs {
            let offered = match &need.offer {
                Ok(slice) => self.offered(turn, need.wish, slice, &mut kept),
                Err(verdict) => Err(Some(verdict.clone())),
            };
            match offered {
                Ok(bps) => given.push((need, bps)),
                Err(why) => {
                    refused.insert((need.at, &need.wish.key), why);
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
        let ever = sums
            .iter()
            .all(|(place, (_, sum))| *sum <= self.queue.rate(place));
        if broken.is_none() && ever && refused.values().all(Option::is_none) {
            for (place, (_, sum)) in &sums {
                self.queue.owe(place, turn, *sum);
            }
        }
        let culprit = refused.iter().find(|(_, why)| why.is_some());
        let other = broken.or_else(|| culprit.map(|((at, _), _)| *at));
        let other = other.map(|at| format!("claim {}", self.world.claims[at].full_name()));
        for need in &needs {
            let own = refused.remove(&(need.at, &need.wish.key)).flatten();
            match (own, &need.offer) {
                (Some(verdict), _) => self.tell(need.at, &need.wish.key, verdict),
                (None, Err(verdict)) => self.tell(need.at, &need.wish.key, verdict.clone()),
                (None, Ok(slice)) => {
                    let sum = sums.get(&place(slice, need.wish));
                    self.late.push(Late {
                        at: need.at,
                        wish: need.wish,
                        slice,
                        turn: turn.clone(),
                        together: sum.filter(|(n, _)| *n > 1).map(|(_, sum)| *sum),
                        other: other.clone(),
                    });
                }
            }
        }
    }

    /// What this wish gets of a slice now; it is taken at once, for the next wish to see. What the
    /// next ones of the pod need at least is `kept` for them.
    fn offered(
        &mut self,
        turn: &Turn,
        wish: &Wish,
        slice: &Slice,
        kept: &mut BTreeMap<Place, (usize, u64)>,
    ) -> Result<u64, Option<Verdict>> {
        let Ok(parameters) = &wish.parameters else {
            return Ok(0);
        };
        if let Some(problem) = offer::unfit(parameters, slice) {
            let text = judge::words(&problem);
            return Err(Some(Verdict::no(Reason::InvalidParameters, text)));
        }
        let key = wish.key.nic();
        let nic = self.world.nics.get(&key);
        if let Some(why) = nic.and_then(|nic| offer::closed(slice, nic, &key)) {
            return Err(Some(Verdict::no(Reason::Waiting, why)));
        }
        if slice.spec.qos.class == Class::BestEffort {
            return Ok(0);
        }
        let place = place(slice, wish);
        self.queue.place(&place, slice.spec.qos.rate_bps);
        let next = kept.get_mut(&place).map_or(0, |(_, sum)| {
            *sum = sum.saturating_sub(least(parameters));
            *sum
        });
        let room = self.queue.room(&place, turn).bps.saturating_sub(next);
        let bps = part(parameters, room).ok_or(None)?;
        self.queue.give(&place, turn, bps);
        Ok(bps)
    }

    /// Who waits for others to end is told how much is left, and who is before it.
    fn explain(&mut self) {
        for late in std::mem::take(&mut self.late) {
            let Ok(parameters) = &late.wish.parameters else {
                continue;
            };
            let place = place(late.slice, late.wish);
            let room = self.queue.room(&place, &late.turn);
            let free = late.slice.spec.qos.class == Class::BestEffort;
            if free || (late.together.is_none() && part(parameters, room.bps).is_some()) {
                let other = late.other.as_deref().unwrap_or("another claim");
                let text = format!(
                    "it could be had, but {other} of the same pod cannot: a pod gets all of what it \
                     asks for or nothing, so it waits"
                );
                self.tell(late.at, &late.wish.key, Verdict::no(Reason::Waiting, text));
                continue;
            }
            let before = room.before.as_ref().map(|(turn, need)| {
                let claim = self.turns.iter().position(|other| other == turn);
                let name = claim.map(|at| self.world.claims[at].full_name());
                (name.unwrap_or_default(), Rate::from_bps(*need))
            });
            let together = late.together.map(Rate::from_bps);
            let verdict =
                offer::too_little(parameters, together, late.slice, &place, &room, before);
            self.tell(late.at, &late.wish.key, verdict);
        }
    }
}

/// What a wish needs at least; something, when it says nothing.
fn least(wish: &ClaimParameters) -> u64 {
    wish.least_rate.or(wish.rate).map_or(1, Rate::bps)
}

/// How many of a pod's wishes are for a place, and what they need there at least.
fn together(needs: &[Need<'_>]) -> BTreeMap<Place, (usize, u64)> {
    let mut sums: BTreeMap<Place, (usize, u64)> = BTreeMap::new();
    for need in needs {
        if let (Ok(slice), Ok(parameters)) = (&need.offer, &need.wish.parameters)
            && slice.spec.qos.class != Class::BestEffort
        {
            let (count, sum) = sums.entry(place(slice, need.wish)).or_default();
            *count += 1;
            *sum = sum.saturating_add(least(parameters));
        }
    }
    sums
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
