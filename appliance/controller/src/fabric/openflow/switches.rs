//! Which switches are connected, and what is to be said of those that are not.

use super::{
    Event, Shared, State, lock,
    session::Session,
    standing::{Standing, away},
    watch::late,
};
use crate::fabric::{
    network::Network,
    program::{FORWARD, Meter},
};
use dtn_api::{Name, fabric::SwitchStatus};
use dtn_openflow::Features;
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::Instant;

/// How long a switch that is known may take to answer when another one says that it is the same.
const PATIENCE: Duration = Duration::from_secs(2);
/// For how long a second switch of the same datapath id is spoken of; it tries again all the time.
const TWIN: Duration = Duration::from_secs(60);

/// A switch that has said who it is.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) name: Name,
    pub(super) datapath_id: u64,
    pub(super) tables: u8,
    pub(super) max_meter: u32,
    pub(super) description: String,
}

/// Numbers of ports by their names.
pub(super) type Ports = BTreeMap<String, u32>;

/// A switch that is connected.
pub(super) struct Connected {
    pub(super) session: Arc<Session>,
    /// Meters that it can have.
    pub(super) max_meter: u32,
    /// What it says of itself.
    description: String,
    /// It hands over link discovery, as read back last.
    pub(super) listens: bool,
    /// Rules of ours, as read back last.
    pub(super) rules: u64,
    /// Meters of ours, as read back last.
    pub(super) meters: u64,
    /// The meters that it shall have, by id.
    pub(super) guards: BTreeMap<u32, Meter>,
    /// What is wrong with it, in words.
    pub(super) trouble: Option<String>,
    /// When it was last seen to hold what is wanted and nothing else.
    pub(super) settled: Option<Settled>,
    /// How many rules of ours it said that it has, when these are not as many as were read back; none
    /// once something was found to be mended.
    pub(super) doubted: Option<u64>,
    /// It is to be read again: what was read back is doubted.
    pub(super) stale: bool,
    /// When it was read last, or came.
    pub(super) looked: Instant,
}

/// What a switch was seen to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settled {
    /// The how manieth time that it was read.
    pub(super) turn: u64,
    /// Rules of ours, also those that are no slice's.
    pub(super) held: u64,
}

impl Shared {
    /// A switch of the configuration has proved with this certificate who it is.
    pub(super) fn came_with(&self, name: &Name, fingerprint: String) {
        if self.network.switch(name).is_some() {
            let mut state = lock(&self.state);
            state.proofs.insert(name.clone(), fingerprint);
        }
    }
    /// The configured switch that has this id.
    pub(super) fn name_of(&self, datapath_id: u64) -> Option<&Name> {
        let mut all = self.network.switches.iter();
        all.find(|switch| switch.datapath_id == datapath_id)
            .map(|switch| &switch.name)
    }
    /// Whether all that a switch holds is to be in one table.
    fn folds(&self, name: &Name) -> bool {
        self.network.switch(name).is_some_and(|s| s.single_table)
    }
    /// Says that a switch was sent away, now and then: it tries again all the time.
    pub(super) fn refuse(&self, peer: SocketAddr, id: Option<u64>, detail: String) {
        let mut state = lock(&self.state);
        if state.refused.say(peer.ip(), id, Instant::now()) {
            tracing::warn!("{detail}");
            state.tell(("switch.refused", None, detail));
        } else {
            tracing::debug!("{detail}");
        }
    }

    /// Whether what says that it is this switch may go on, before anything else is asked of it:
    /// its name here, or `None` when it is to be sent away. `proven` is whose certificate it has.
    pub(super) fn judge(
        &self,
        features: &Features,
        proven: Option<&Name>,
        peer: SocketAddr,
    ) -> Option<Name> {
        let (id, ip) = (features.datapath_id, peer.ip());
        let name = self.name_of(id);
        let why = match (proven, name) {
            (Some(proven), name) if name != Some(proven) => format!(
                "a switch with the certificate of {proven} connected from {ip} with the datapath \
                 id {id:016x}, which is not {proven}'s, and was sent away"
            ),
            (_, None) => format!(
                "a switch with the datapath id {id:016x} connected from {ip} and was sent away: \
                 no [[switch]] of the configuration has it"
            ),
            (_, Some(name)) if features.auxiliary_id != 0 => {
                tracing::debug!("an auxiliary connection of the switch {name} was sent away");
                return None;
            }
            (_, Some(name)) if features.n_tables <= FORWARD && !self.folds(name) => {
                let short = format!(
                    "it has {} tables, and the tables 0 to {FORWARD} are needed: write tables = 1 \
                     in its [[switch]], and everything is put into one",
                    features.n_tables
                );
                let why =
                    format!("the switch {name} connected from {ip} and was sent away: {short}");
                lock(&self.state).short.insert(name.clone(), short);
                why
            }
            (_, Some(name)) => return Some(name.clone()),
        };
        self.refuse(peer, Some(id), why);
        None
    }

    /// Takes a switch in; `None` when it is sent away.
    pub(super) async fn join(
        &self,
        joining: Joining,
        session: Arc<Session>,
        peer: SocketAddr,
    ) -> Option<Name> {
        let id = joining.datapath_id;
        let name = joining.name;
        // two that come at once are judged one after the other
        let _one = self.joining.lock().await;
        let known = {
            let state = lock(&self.state);
            state.switches.get(&name).map(|s| s.session.clone())
        };
        if let Some(known) = known {
            if !known.ended() && known.answers(PATIENCE).await {
                let detail = format!(
                    "a second switch with the datapath id {id:016x} of {name} connected from \
                     {peer} and was sent away, as the first one still answers: give each switch \
                     an id of its own"
                );
                tracing::warn!("{detail}");
                let mut state = lock(&self.state);
                let before = state.twins.insert(name, (Instant::now(), detail.clone()));
                // it tries again all the time
                if before.is_none_or(|(at, _)| at.elapsed() > TWIN) {
                    state.tell(("switch.duplicate", None, detail));
                }
                drop(state);
                self.changed.notify_one();
                return None;
            }
            known.close("the switch connected again");
            let why = format!("the switch {name} has connected again and is looked at");
            lock(&self.state).unsure(&name, &why);
        }
        let detail = format!(
            "{name} ({id:016x}, {}) connected from {peer}: {} tables, {} meters",
            joining.description, joining.tables, joining.max_meter
        );
        tracing::info!("{detail}");
        let mut state = lock(&self.state);
        let connected = Connected {
            session,
            max_meter: joining.max_meter,
            description: joining.description,
            listens: false,
            rules: 0,
            meters: 0,
            guards: BTreeMap::new(),
            trouble: None,
            settled: None,
            doubted: None,
            stale: false,
            looked: Instant::now(),
        };
        state.short.remove(&name);
        state.switches.insert(name.clone(), connected);
        state.refused.forget(id);
        state.tell(("switch.connected", None, detail));
        drop(state);
        self.wake.notify_one();
        self.changed.notify_one();
        Some(name)
    }

    /// Notes that a switch's connection has ended.
    pub(super) fn left(&self, name: &Name, session: &Arc<Session>, why: &str) {
        let mut state = lock(&self.state);
        let ours = state.switches.get(name).map(|known| &known.session);
        if !ours.is_some_and(|known| Arc::ptr_eq(known, session)) {
            // it has connected again and the new connection is the one that counts
            return;
        }
        state.switches.remove(name);
        state.unsure(name, &away(name));
        let detail = format!("{name} is not connected any more: {why}");
        tracing::warn!("{detail}");
        state.tell(("switch.lost", None, detail));
        drop(state);
        self.wake.notify_one();
        self.changed.notify_one();
    }
}

impl State {
    pub(super) fn tell(&mut self, event: Event) {
        if self.events.len() == super::EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// What was read back from a switch does not count any more.
    fn unsure(&mut self, name: &Name, why: &str) {
        for (intent, standing) in self.standings.values_mut() {
            if intent.switches().contains(name) {
                *standing = Standing::Not(why.to_owned());
            }
        }
    }

    /// What the switches lack; `None` when they are well.
    pub(super) fn trouble(&self, network: &Network, now: Instant) -> Option<String> {
        let mut all: Vec<String> = self.passes.trouble(now).into_iter().collect();
        for switch in &network.switches {
            let name = &switch.name;
            let own = match self.switches.get(name) {
                None => Some(self.missing(name)),
                Some(switch) => {
                    let late = self.wanted.is_some().then(|| late(switch.looked, now));
                    let trouble = switch.trouble.clone().or_else(|| switch.unmetered());
                    trouble.or(late.flatten())
                }
            };
            all.extend(own.map(|why| format!("the switch {name}: {why}")));
            all.extend(self.twin(name));
        }
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Every switch of the network, connected or not.
    pub(super) fn switches(&self, network: &Network) -> Vec<SwitchStatus> {
        let status = |switch: &crate::fabric::network::Switch| {
            let known = self.switches.get(&switch.name);
            let twin = self.twin(&switch.name);
            let trouble = match known {
                None => Some(self.missing(&switch.name)),
                Some(known) => known.trouble.clone().or_else(|| known.unmetered()),
            };
            SwitchStatus {
                name: switch.name.clone(),
                datapath_id: format!("{:016x}", switch.datapath_id),
                connected: known.is_some(),
                description: known.map_or_else(String::new, |k| k.description.clone()),
                max_meters: known.map(|k| k.max_meter),
                rules: known.map_or(0, |k| k.rules),
                meters: known.map_or(0, |k| k.meters),
                trouble: trouble.or(twin),
            }
        };
        network.switches.iter().map(status).collect()
    }
    /// Why a switch is not there.
    fn missing(&self, name: &Name) -> String {
        let short = self.short.get(name).cloned();
        short.unwrap_or_else(|| "it is not connected".to_owned())
    }
    fn twin(&self, name: &Name) -> Option<String> {
        let (at, detail) = self.twins.get(name)?;
        (at.elapsed() < TWIN).then(|| detail.clone())
    }
}

impl Connected {
    fn unmetered(&self) -> Option<String> {
        (self.max_meter == 0)
            .then(|| "it cannot meter: guaranteed slices are refused there".to_owned())
    }
}
