//! The controller itself: state and store behind one lock, so that decisions are made one after
//! another, each durable before it is answered and before the next one is made.

use crate::{
    admission::Ledger,
    auth::Principal,
    authority::Authority,
    config::Config,
    fabric::{Fabric, Intent},
    invitations::sha256,
    slices,
    state::{BadRow, Change, KeptReply, State},
    store::{Store, StoreError},
};
use dtn_api::{Name, Problem, domain::Event, gateway::GatewayReport, problem::Kind};
use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex as StdMutex, RwLock},
};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard};
use uuid::Uuid;

mod access;
mod availability;
mod bookings;
mod clock;
mod coordination;
mod dhcp;
mod federation;
mod gateways;
mod hosts;
mod intents;
mod leasing;
mod members;
mod nodes;
mod reload;
mod revoking;
mod stitching;
mod switches;
mod turning;

pub use access::Only;
pub use clock::run as run_clock;
pub use dhcp::run as run_dhcp;

/// How long the first answer to an idempotency key is kept, in seconds: a day.
const REPLY_SECONDS: u32 = 86_400;
/// A domain that was silent for longer is degraded, in seconds.
const SILENCE_SECONDS: i64 = 60;

/// The controller.
pub struct Engine {
    /// It changes when it is read again.
    config: RwLock<Arc<Config>>,
    reading: StdMutex<reload::State>,
    /// One reading at a time.
    reading_turn: Mutex<()>,
    authority: Authority,
    fabric: Arc<dyn Fabric>,
    /// What the fabric was told last.
    told: StdMutex<Option<Vec<Intent>>>,
    /// What the fabric has said and is not in the events yet.
    unwritten: StdMutex<Vec<Happening>>,
    store: Arc<dyn Store>,
    state: Arc<Mutex<State>>,
    /// When each domain was last heard; what is written down lags behind.
    heard: StdMutex<BTreeMap<Name, Timestamp>>,
    /// What each gateway's host has said last, and when by our own clock.
    reported: StdMutex<BTreeMap<Name, (Timestamp, GatewayReport)>>,
    /// Hosts that ask by DHCP.
    asking: StdMutex<dhcp::Asking>,
    /// Something is owed to another domain.
    owed: Notify,
    /// The domains whose certificates are believed have changed.
    peers_changed: Notify,
    /// What is known has changed.
    changed: Arc<Notify>,
}

/// Something that happened: name, slice, in words.
type Happening = (&'static str, Option<Uuid>, String);

/// What a decision comes to.
pub(crate) struct Decision<T> {
    answer: T,
    changes: Vec<Change>,
    events: Vec<(&'static str, Option<Uuid>, String)>,
}
impl<T> Decision<T> {
    /// An answer that changes nothing.
    fn only(answer: T) -> Self {
        Self {
            answer,
            changes: Vec::new(),
            events: Vec::new(),
        }
    }
    fn change(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }
    /// The same changes, with another answer.
    fn answering<U>(self, answer: U) -> Decision<U> {
        Decision {
            answer,
            changes: self.changes,
            events: self.events,
        }
    }
    fn event(mut self, what: &'static str, id: Option<Uuid>, detail: impl Into<String>) -> Self {
        self.events.push((what, id, detail.into()));
        self
    }
}

/// The idempotency key of a request with what it asks.
#[derive(Debug, Clone)]
pub struct Once {
    /// Row of the key: principal and key.
    row: String,
    /// SHA-256 of method, path and body.
    hash: String,
}
impl Once {
    /// From the header's value. A key is 1 to 128 visible characters.
    pub fn new(
        principal: &Principal,
        key: Option<&str>,
        path: &str,
        body: &[u8],
    ) -> Result<Self, Problem> {
        let Some(key) = key else {
            return Err(Problem::new(
                Kind::PreconditionRequired,
                format!(
                    "POST {path} needs an Idempotency-Key header: a new UUID for each new wish"
                ),
            ));
        };
        if key.is_empty() || key.len() > 128 || !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Problem::new(
                Kind::InvalidRequest,
                "Idempotency-Key must be 1 to 128 visible ASCII characters",
            ));
        }
        let mut asked = format!("POST {path}\n").into_bytes();
        asked.extend_from_slice(body);
        Ok(Self {
            row: format!("{principal}/{key}"),
            hash: sha256(&asked),
        })
    }
    /// The kept answer: none yet, this one, or a refusal since the key was used for something else.
    fn find<'a>(&self, state: &'a State) -> Result<Option<&'a KeptReply>, Problem> {
        match state.replies.get(&self.row) {
            Some(kept) if kept.request_hash != self.hash => Err(Problem::new(
                Kind::IdempotencyKeyReused,
                "this Idempotency-Key came with another request: use a new one for a new wish",
            )),
            found => Ok(found),
        }
    }
    fn keep<T: Serialize>(&self, answer: &T, stitch: Option<Uuid>, now: Timestamp) -> Change {
        let kept = KeptReply {
            request_hash: self.hash.clone(),
            at: now,
            status: 201,
            version: None,
            location: None,
            body: serde_json::to_value(answer).unwrap_or_default(),
            stitch,
        };
        Change::Reply(self.row.clone(), kept)
    }
}

/// An answer to a request with an idempotency key.
#[derive(Debug)]
pub struct Answered<T> {
    /// The answer.
    pub body: T,
    /// It is the first answer again.
    pub replayed: bool,
}

/// The engine could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A row of it.
    #[error(transparent)]
    Row(#[from] BadRow),
}

impl Engine {
    /// Reads the store.
    pub async fn start(
        config: Config,
        authority: Authority,
        store: Arc<dyn Store>,
        fabric: Arc<dyn Fabric>,
    ) -> Result<Self, StartError> {
        let state = State::load(store.range("").await?)?;
        let heard = state
            .peers
            .values()
            .filter_map(|peer| Some((peer.name.clone(), peer.heard_at?)))
            .collect();
        Ok(Self {
            fabric,
            told: StdMutex::new(None),
            unwritten: StdMutex::new(Vec::new()),
            config: RwLock::new(Arc::new(config)),
            reading: StdMutex::default(),
            reading_turn: Mutex::new(()),
            authority,
            store,
            state: Arc::new(Mutex::new(state)),
            heard: StdMutex::new(heard),
            reported: StdMutex::new(BTreeMap::new()),
            asking: StdMutex::default(),
            owed: Notify::new(),
            peers_changed: Notify::new(),
            changed: Arc::default(),
        })
    }
    /// The configuration, as it is now.
    pub fn config(&self) -> Arc<Config> {
        let config = self.config.read().unwrap_or_else(|e| e.into_inner());
        config.clone()
    }
    /// The domain's keys.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }
    /// What enforces slices.
    pub fn fabric(&self) -> &dyn Fabric {
        self.fabric.as_ref()
    }
    /// Waits until the domains whose certificates are believed have changed.
    pub async fn peers_changed(&self) {
        self.peers_changed.notified().await;
    }
    /// Looks at the state.
    pub async fn look<T>(&self, look: impl FnOnce(&State, Timestamp) -> T) -> T {
        let state = self.state.lock().await;
        look(&state, Timestamp::now())
    }

    /// Decides, makes the decision durable, and answers. What is refused changes nothing; what
    /// cannot be made durable is refused. Whoever was kept out meanwhile decides nothing any more.
    pub(crate) async fn decide<T>(
        &self,
        principal: &Principal,
        decide: impl FnOnce(&State, Timestamp) -> Result<Decision<T>, Problem>,
    ) -> Result<T, Problem> {
        let state = self.state.clone().lock_owned().await;
        let now = Timestamp::now();
        // it was admitted before its request was read to the end, which can take its time
        nodes::not_revoked(&state, principal)?;
        let Decision {
            answer,
            mut changes,
            events,
        } = decide(&state, now)?;
        if changes.is_empty() && events.is_empty() {
            return Ok(answer);
        }
        for (offset, (what, id, detail)) in events.into_iter().enumerate() {
            changes.push(Change::Event(Event {
                seq: state.next_event() + offset as u64,
                at: now,
                principal: principal.to_string(),
                what: what.to_owned(),
                id,
                detail,
            }));
        }
        // whoever asked may be gone before the disk has answered: what is durable is known all the same
        let (store, changed) = (self.store.clone(), self.changed.clone());
        tokio::spawn(async move { commit(&*store, state, changes, &changed).await })
            .await
            .map_err(|e| Problem::new(Kind::Internal, format!("making it durable: {e}")))??;
        Ok(answer)
    }

    /// The same for a request with an idempotency key: the key is kept in the same commit.
    pub(crate) async fn decide_once<T: Serialize + DeserializeOwned>(
        &self,
        principal: &Principal,
        once: &Once,
        decide: impl FnOnce(&State, Timestamp) -> Result<Decision<T>, Problem>,
    ) -> Result<Answered<T>, Problem> {
        self.decide(principal, |state, now| {
            if let Some(kept) = once.find(state)? {
                let body = serde_json::from_value(kept.body.clone()).map_err(|e| {
                    Problem::new(Kind::Internal, format!("reading the kept answer: {e}"))
                })?;
                return Ok(Decision::only(Answered {
                    body,
                    replayed: true,
                }));
            }
            let mut made = decide(state, now)?;
            made.changes.push(once.keep(&made.answer, None, now));
            Ok(Decision {
                answer: Answered {
                    body: made.answer,
                    replayed: false,
                },
                changes: made.changes,
                events: made.events,
            })
        })
        .await
    }

    /// Everything that is booked, without one slice.
    pub(crate) fn ledger(state: &State, except: Option<Uuid>, now: Timestamp) -> Ledger {
        slices::ledger(state.bookings.values(), except, now)
    }
    /// The store answers: for the watchdog and `/readyz`.
    pub async fn probe(&self) -> Result<(), Problem> {
        let read = self.store.range("probe/").await;
        read.map(|_| ())
            .map_err(|e| Problem::new(Kind::BackendUnavailable, e.to_string()))
    }
    pub(crate) fn hear(&self, peer: &Name, now: Timestamp) {
        let mut heard = self.heard.lock().unwrap_or_else(|e| e.into_inner());
        heard.insert(peer.clone(), now);
    }
    pub(crate) fn heard_at(&self, peer: &Name) -> Option<Timestamp> {
        let heard = self.heard.lock().unwrap_or_else(|e| e.into_inner());
        heard.get(peer).copied()
    }
    /// The other domain of a slice, when it is not heard.
    pub(crate) fn silent_peer(
        &self,
        state: &State,
        stitch: Option<Uuid>,
        now: Timestamp,
    ) -> Option<Name> {
        let peer = &state.stitches.get(&stitch?)?.stitch.peer;
        let silent = self
            .heard_at(peer)
            .is_none_or(|at| now.duration_since(at).as_secs() > SILENCE_SECONDS);
        silent.then(|| peer.clone())
    }
}

/// Makes changes durable, and then known.
async fn commit(
    store: &dyn Store,
    mut state: OwnedMutexGuard<State>,
    changes: Vec<Change>,
    changed: &Notify,
) -> Result<(), Problem> {
    let ops = changes.iter().map(Change::op).collect();
    match store.commit(state.revision, ops).await {
        Ok(revision) => {
            state.advance(revision, changes);
            changed.notify_one();
            Ok(())
        }
        Err(e) => {
            tracing::error!("{e}");
            read_again(store, &mut state).await;
            Err(Problem::new(
                Kind::BackendUnavailable,
                format!("nothing was changed, because it could not be made durable: {e}"),
            ))
        }
    }
}

/// After a commit that failed, only the store knows what is durable: a disk can have taken it
/// and have lost the answer.
async fn read_again(store: &dyn Store, state: &mut State) {
    let rows = match store.range("").await {
        Ok(rows) => rows,
        // the next decision finds the store as it is, or fails as this one did
        Err(e) => return tracing::error!("{e}"),
    };
    match State::load(rows) {
        Ok(found) => *state = found,
        Err(e) => tracing::error!("{e}"),
    }
}

pub(crate) fn not_found(what: &str, id: &dyn std::fmt::Display) -> Problem {
    Problem::new(Kind::NotFound, format!("there is no {what} {id}"))
}

/// Refuses a write whose `If-Match` names another version.
pub(crate) fn check_version(
    if_match: Option<u64>,
    version: u64,
    what: &str,
) -> Result<(), Problem> {
    match if_match {
        Some(wanted) if wanted != version => Err(Problem::new(
            Kind::VersionMismatch,
            format!("{what} is at version {version}, If-Match says {wanted}: read it again"),
        )),
        _ => Ok(()),
    }
}
