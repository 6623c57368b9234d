//! Finding out how the switches are joined: a frame out of every port every five seconds, and at
//! once when a port comes up; what comes in somewhere tells a link ([`super::links`]).
//!
//! What a switch hands over for this is limited in the switch, where it meters, by port when it comes
//! here ([`super::turns`]), and by the length of the queue to the one task that looks at it.

use super::{
    Shared,
    links::{EVERY, End, FRESH},
    lldp::Probe,
    session::{Heard, Session, lock},
};
use crate::fabric::program::{COOKIE, COOKIE_MASK, Purpose};
use dtn_api::{Name, fabric::FabricLink};
use dtn_openflow::{
    Action, Band, Field, METER_BURST, METER_CONTROLLER, METER_PKTPS, Message, MeterCommand,
    MeterMod, PORT_CONTROLLER, PORT_MAX, PacketIn, PacketOut,
};
use futures_util::future::join_all;
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

/// Frames that wait to be looked at; who comes later is dropped.
pub(super) const QUEUE: usize = 512;
/// Longest frame that is looked at, in bytes: what is looked for is far shorter.
const LONGEST: usize = 2048;
/// Frames per second that a switch may hand over, in all, and at once: each port of a big switch
/// hears one probe in five seconds. Above that a meter in the switch drops.
const RATE: u32 = 500;
const BURST: u32 = 500;
/// Longest time for the probes of one round to go out.
const ROUND: Duration = Duration::from_secs(2);

/// A frame that a switch has handed over.
pub(super) struct Handed {
    session: Arc<Session>,
    port: u32,
    packet: PacketIn,
}

/// What was not looked at.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    /// Frames of ports that brought more than their share, or that found the queue full.
    pub(super) flooded: AtomicU64,
    /// Link discovery of somebody else.
    strange: AtomicU64,
}

impl Shared {
    /// Takes in what a switch has said without being asked; does not wait.
    pub(super) fn heard(&self, session: &Arc<Session>, heard: Heard) {
        match heard {
            Heard::Ports => {
                self.wake.notify_one();
                self.probe.notify_one();
            }
            Heard::Packet(packet) => self.handed(session, packet),
        }
    }
    fn handed(&self, session: &Arc<Session>, packet: PacketIn) {
        let port = packet.matches.0.iter().find_map(|field| match field {
            Field::InPort(port) => Some(*port),
            _ => None,
        });
        let ours = packet.cookie & COOKIE_MASK == COOKIE && packet.data.len() <= LONGEST;
        // what no rule of ours sent, and what comes from the switch itself
        let Some(port) = port.filter(|port| ours && *port < PORT_MAX) else {
            return;
        };
        let in_turn = lock(&session.turns).take(port, Instant::now());
        let handed = Handed {
            session: session.clone(),
            port,
            packet,
        };
        if !in_turn || self.handed.try_send(handed).is_err() {
            self.dropped.flooded.fetch_add(1, Ordering::Relaxed);
        }
    }
    /// The switch of a session, while it is the one that counts.
    pub(super) fn switch_of(&self, session: &Arc<Session>) -> Option<Name> {
        let state = lock(&self.state);
        let mut all = state.switches.iter();
        all.find(|(_, known)| Arc::ptr_eq(&known.session, session))
            .map(|(name, _)| name.clone())
    }
    /// How the switches are joined, and how they should be.
    pub(super) fn links(&self) -> Vec<FabricLink> {
        let told: BTreeMap<_, _> = {
            let state = lock(&self.state);
            let all = state.switches.iter();
            all.map(|(name, known)| (name.clone(), known.session.told()))
                .collect()
        };
        lock(&self.links).judged(&self.network, &told, Instant::now())
    }
}

/// Looks at what switches hand over, until `stop`.
pub(super) async fn listen(
    shared: Arc<Shared>,
    mut handed: mpsc::Receiver<Handed>,
    stop: CancellationToken,
) {
    let work = async {
        while let Some(Handed {
            session,
            port,
            packet,
        }) = handed.recv().await
        {
            const DISCOVER: u16 = Purpose::Discover as u16;
            const ASK: u16 = Purpose::Ask as u16;
            const LEASE: u16 = Purpose::Lease as u16;
            match packet.cookie as u16 {
                DISCOVER => probed(&shared, &session, port, &packet.data),
                ASK => shared.asked(&session, port, &packet).await,
                LEASE => shared.lease_asked(&session, port, &packet).await,
                _ => {}
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// A frame of link discovery came in.
fn probed(shared: &Shared, session: &Arc<Session>, port: u32, frame: &[u8]) {
    let now = Instant::now();
    let elapsed = now.saturating_duration_since(shared.began);
    let told = shared.sealer.read(frame).ok().and_then(|probe| {
        let sent = Duration::from_millis(probe.sent_ms);
        // one that somebody kept back says what was
        let from = shared.name_of(probe.datapath_id)?.clone();
        (elapsed.saturating_sub(sent) <= FRESH).then_some((from, probe.port))
    });
    let Some((from, to)) = told.zip(shared.switch_of(session)) else {
        shared.dropped.strange.fetch_add(1, Ordering::Relaxed);
        return;
    };
    lock(&shared.links).saw(from, (to, port), now);
}

/// Sends probes until `stop`.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut rounds = interval(EVERY);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let work = async {
        let mut told = Said::default();
        loop {
            let all = tokio::select! {
                _ = rounds.tick() => true,
                () = shared.probe.notified() => false,
            };
            round(&shared, all).await;
            if all {
                told.say(&shared);
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// A switch to which probes go.
struct Speaker {
    name: Name,
    datapath_id: u64,
    session: Arc<Session>,
    meters: bool,
}

/// Probes out of all ports that are up, or out of those that have come up.
async fn round(shared: &Shared, all: bool) {
    let speakers: Vec<Speaker> = {
        let state = lock(&shared.state);
        let listening = state.switches.iter().filter(|(_, known)| known.listens);
        let speaker = |(name, known): (&Name, &super::switches::Connected)| {
            let switch = shared.network.switch(name)?;
            Some(Speaker {
                name: name.clone(),
                datapath_id: switch.datapath_id,
                session: known.session.clone(),
                meters: known.max_meter > 0,
            })
        };
        listening.filter_map(speaker).collect()
    };
    let up: Vec<(Speaker, BTreeMap<u32, String>)> = speakers
        .into_iter()
        .map(|speaker| {
            let (ports, down) = speaker.session.ports();
            let up = ports
                .into_iter()
                .filter(|(_, number)| *number < PORT_MAX && !down.contains(number))
                .map(|(name, number)| (number, name));
            let up = up.collect();
            (speaker, up)
        })
        .collect();
    let ends: BTreeSet<End> = up
        .iter()
        .flat_map(|(speaker, ports)| ports.keys().map(|port| (speaker.name.clone(), *port)))
        .collect();
    let new = lock(&shared.links).readied(&ends, Instant::now());
    let by = Instant::now() + ROUND;
    let sent = up.iter().map(async |(speaker, ports)| {
        limit(speaker).await;
        for (port, name) in ports {
            if all || new.contains(&(speaker.name.clone(), *port)) {
                let frame = probe(shared, speaker, *port, name);
                // a queue that is full stays so for the others too: they come in the next round
                if !speaker.session.emit(out(frame, *port), by).await {
                    break;
                }
            }
        }
    });
    join_all(sent).await;
}

fn probe(shared: &Shared, speaker: &Speaker, port: u32, name: &str) -> Vec<u8> {
    let sent = Instant::now().saturating_duration_since(shared.began);
    let probe = Probe {
        datapath_id: speaker.datapath_id,
        port,
        sent_ms: u64::try_from(sent.as_millis()).unwrap_or(u64::MAX),
    };
    shared.sealer.frame(probe, speaker.name.as_str(), name)
}

/// A frame that leaves by a port.
pub(super) fn out(frame: Vec<u8>, port: u32) -> PacketOut {
    debug_assert_ne!(port, PORT_CONTROLLER);
    PacketOut::new(frame, vec![Action::Output { port, max_len: 0 }])
}

/// Limits what a switch hands over, once for each connection.
async fn limit(
    Speaker {
        name,
        session,
        meters,
        ..
    }: &Speaker,
) {
    if session.limited.swap(true, Ordering::Relaxed) || !*meters {
        return;
    }
    let change = |command, bands| {
        Message::MeterMod(MeterMod {
            command,
            flags: METER_PKTPS | METER_BURST,
            meter_id: METER_CONTROLLER,
            bands,
        })
    };
    let band = Band::Drop {
        rate: RATE,
        burst_size: BURST,
    };
    // no rule refers to it, and one of an older connection may have other figures
    let changes = [
        change(MeterCommand::Delete, Vec::new()),
        change(MeterCommand::Add, vec![band]),
    ];
    match session
        .apply(changes, "the limit of what it hands over")
        .await
    {
        Ok(refused) => {
            for (_, cause) in refused {
                tracing::warn!(
                    "the switch {name} does not limit what it hands to the controller: {cause}"
                );
            }
        }
        // the session says itself that it has ended
        Err(failure) => tracing::debug!("{name}: {failure}"),
    }
}

/// What has been said of links and of frames that were dropped.
#[derive(Default)]
struct Said {
    troubles: BTreeSet<String>,
    flooded: u64,
}
impl Said {
    /// Says what is new.
    fn say(&mut self, shared: &Shared) {
        let troubles: BTreeSet<String> = shared
            .links()
            .into_iter()
            .filter_map(|link| link.trouble)
            .collect();
        let before = mem::replace(&mut self.troubles, troubles);
        if before != self.troubles {
            let mut state = lock(&shared.state);
            for trouble in self.troubles.difference(&before) {
                tracing::warn!("{trouble}");
                state.tell(("link.trouble", None, trouble.clone()));
            }
            for gone in before.difference(&self.troubles) {
                tracing::info!("no more: {gone}");
            }
            drop(state);
            shared.changed.notify_one();
        }
        let flooded = shared.dropped.flooded.load(Ordering::Relaxed);
        let more = flooded - self.flooded;
        if more > 0 {
            let strange = shared.dropped.strange.load(Ordering::Relaxed);
            tracing::warn!(
                "{more} frames that switches handed over were dropped unread: a port brings more \
                 than its share ({strange} frames of link discovery were somebody else's so far)"
            );
        }
        self.flooded = flooded;
    }
}
