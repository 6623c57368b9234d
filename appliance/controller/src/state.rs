//! Everything the controller knows, in memory, and how it becomes rows of the store and back.
//!
//! A change is made durable first and then applied here, by the same code that fills the state at
//! start: what is in memory is always what a restart would find.

use crate::{
    access::AccessRow, enrolled::EnrolledRow, gateways::GatewayRow, invitations::InvitationRow,
    leases::LeaseRow, slices::Booking, stitches::StitchRow, store::Op, store::Rows,
};
use dtn_api::{
    HostId, Name,
    domain::{DomainDocument, Event},
    host::Host,
    node::Revocation,
};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Events that are kept; older ones go.
pub const EVENTS_KEPT: usize = 10_000;

/// Another domain as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRow {
    /// Its name.
    pub name: Name,
    /// Where its controller is reached.
    pub url: String,
    /// Its authority, PEM.
    pub ca_pem: String,
    /// SHA-256 of its authority (DER), hexadecimal.
    pub ca_pin: String,
    /// Key of its documents, base64url.
    pub document_key: String,
    /// All keys that its documents may be signed with, while it changes them.
    #[serde(default)]
    pub document_keys: Vec<String>,
    /// Which of our own keys it was told last, as a digest; none when it has to be told.
    #[serde(default)]
    pub told: Option<String>,
    /// The federation was ended.
    #[serde(default)]
    pub revoked: Option<Revocation>,
    /// Its last document.
    pub document: Option<DomainDocument>,
    /// When it was last heard, as far as that was written down.
    pub heard_at: Option<Timestamp>,
    /// Counts changes.
    pub version: u64,
}

/// The first answer to an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptReply {
    /// SHA-256 of the request, hexadecimal.
    pub request_hash: String,
    /// When.
    pub at: Timestamp,
    /// HTTP status.
    pub status: u16,
    /// Version, for the ETag.
    pub version: Option<u64>,
    /// Path of what was made.
    pub location: Option<String>,
    /// The answer. A stitch is looked up instead: its first answer comes before it is held.
    pub body: serde_json::Value,
    /// The stitch that was made for this key.
    #[serde(default)]
    pub stitch: Option<Uuid>,
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A host.
    Host(Host),
    /// No such host any more.
    NoHost(HostId),
    /// A slice.
    Booking(Box<Booking>),
    /// Nobody needs to know this slice any more.
    NoBooking(Uuid),
    /// A lease.
    Lease(LeaseRow),
    /// Nobody needs to know this lease any more.
    NoLease(Uuid),
    /// A gateway.
    Gateway(Box<GatewayRow>),
    /// No such gateway any more.
    NoGateway(Name),
    /// The access rules of a gateway.
    Access(AccessRow),
    /// The access rules went with their gateway.
    NoAccess(Name),
    /// An invitation.
    Invitation(InvitationRow),
    /// An invitation that ran out.
    NoInvitation(Uuid),
    /// Somebody who has a certificate of the domain.
    Enrolled(Box<EnrolledRow>),
    /// Another domain.
    Peer(PeerRow),
    /// A domain whose federation was ended and that nobody needs to know any more.
    NoPeer(Name),
    /// A stitch.
    Stitch(StitchRow),
    /// Nobody needs to know this stitch any more.
    NoStitch(Uuid),
    /// The answer to a key.
    Reply(String, KeptReply),
    /// A key that is forgotten.
    NoReply(String),
    /// Something that happened.
    Event(Event),
    /// An event that is forgotten.
    NoEvent(u64),
}

fn put<T: Serialize>(key: String, value: &T) -> Op {
    // every row is a plain structure with text keys: serializing it cannot fail
    Op::Put(key, serde_json::to_vec(value).unwrap_or_default())
}

impl Change {
    /// As a change of the store.
    pub fn op(&self) -> Op {
        match self {
            Self::Host(host) => put(format!("host/{}", host.id), host),
            Self::NoHost(id) => Op::Delete(format!("host/{id}")),
            Self::Booking(row) => put(format!("slice/{}", row.slice.id), row),
            Self::NoBooking(id) => Op::Delete(format!("slice/{id}")),
            Self::Lease(row) => put(format!("lease/{}", row.lease.id), row),
            Self::NoLease(id) => Op::Delete(format!("lease/{id}")),
            Self::Gateway(row) => put(format!("gateway/{}", row.name), row),
            Self::NoGateway(name) => Op::Delete(format!("gateway/{name}")),
            Self::Access(row) => put(format!("access/{}", row.gateway), row),
            Self::NoAccess(name) => Op::Delete(format!("access/{name}")),
            Self::Invitation(row) => put(format!("invitation/{}", row.id), row),
            Self::NoInvitation(id) => Op::Delete(format!("invitation/{id}")),
            Self::Enrolled(row) => put(format!("enrolled/{}/{}", row.role, row.name), row),
            Self::Peer(row) => put(format!("peer/{}", row.name), row),
            Self::NoPeer(name) => Op::Delete(format!("peer/{name}")),
            Self::Stitch(row) => put(format!("stitch/{}", row.stitch.id), row),
            Self::NoStitch(id) => Op::Delete(format!("stitch/{id}")),
            Self::Reply(key, row) => put(format!("reply/{key}"), row),
            Self::NoReply(key) => Op::Delete(format!("reply/{key}")),
            Self::Event(event) => put(format!("event/{:020}", event.seq), event),
            Self::NoEvent(seq) => Op::Delete(format!("event/{seq:020}")),
        }
    }
}

/// A row of the store that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("reading row {key} of the store: {reason}")]
pub struct BadRow {
    /// Its key.
    pub key: String,
    /// Why.
    pub reason: String,
}

/// Everything the controller knows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// Revision of the store that this is.
    pub revision: u64,
    /// Revision at which something changed that other domains see.
    pub shown_revision: u64,
    /// Hosts.
    pub hosts: BTreeMap<HostId, Host>,
    /// Slices.
    pub bookings: BTreeMap<Uuid, Booking>,
    /// Leases.
    pub leases: BTreeMap<Uuid, LeaseRow>,
    /// Gateways.
    pub gateways: BTreeMap<Name, GatewayRow>,
    /// Access rules, by gateway.
    pub access: BTreeMap<Name, AccessRow>,
    /// Invitations.
    pub invitations: BTreeMap<Uuid, InvitationRow>,
    /// Who has a certificate of the domain, by role and name.
    pub enrolled: BTreeMap<crate::enrolled::Who, EnrolledRow>,
    /// Other domains.
    pub peers: BTreeMap<Name, PeerRow>,
    /// Stitches.
    pub stitches: BTreeMap<Uuid, StitchRow>,
    /// Answers to idempotency keys.
    pub replies: BTreeMap<String, KeptReply>,
    /// What happened, by its order.
    pub events: BTreeMap<u64, Event>,
}

impl State {
    /// From the rows of the store.
    pub fn load(rows: Rows) -> Result<Self, BadRow> {
        fn read<T: serde::de::DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, BadRow> {
            serde_json::from_slice(value).map_err(|e| BadRow {
                key: key.to_owned(),
                reason: e.to_string(),
            })
        }
        let mut state = Self {
            revision: rows.revision,
            shown_revision: rows.revision,
            ..Self::default()
        };
        for (key, value) in rows.rows {
            let (kind, name) = key.split_once('/').unwrap_or((&key, ""));
            let change = match kind {
                "host" => Change::Host(read(&key, &value)?),
                "slice" => Change::Booking(Box::new(read(&key, &value)?)),
                "lease" => Change::Lease(read(&key, &value)?),
                "gateway" => Change::Gateway(Box::new(read(&key, &value)?)),
                "access" => Change::Access(read(&key, &value)?),
                "invitation" => Change::Invitation(read(&key, &value)?),
                "enrolled" => Change::Enrolled(Box::new(read(&key, &value)?)),
                "peer" => Change::Peer(read(&key, &value)?),
                "stitch" => Change::Stitch(read(&key, &value)?),
                "reply" => Change::Reply(name.to_owned(), read(&key, &value)?),
                "event" => Change::Event(read(&key, &value)?),
                _ => {
                    return Err(BadRow {
                        key: key.clone(),
                        reason: "this build does not know its kind".into(),
                    });
                }
            };
            state.apply(change);
        }
        Ok(state)
    }

    /// Makes a change that is durable already.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Host(row) => {
                self.hosts.insert(row.id.clone(), row);
            }
            Change::NoHost(id) => {
                self.hosts.remove(&id);
            }
            Change::Booking(row) => {
                self.bookings.insert(row.slice.id, *row);
            }
            Change::NoBooking(id) => {
                self.bookings.remove(&id);
            }
            Change::Lease(row) => {
                self.leases.insert(row.lease.id, row);
            }
            Change::NoLease(id) => {
                self.leases.remove(&id);
            }
            Change::Gateway(row) => {
                self.gateways.insert(row.name.clone(), *row);
            }
            Change::NoGateway(name) => {
                self.gateways.remove(&name);
            }
            Change::Access(row) => {
                self.access.insert(row.gateway.clone(), row);
            }
            Change::NoAccess(name) => {
                self.access.remove(&name);
            }
            Change::Invitation(row) => {
                self.invitations.insert(row.id, row);
            }
            Change::NoInvitation(id) => {
                self.invitations.remove(&id);
            }
            Change::Enrolled(row) => {
                self.enrolled.insert(row.who(), *row);
            }
            Change::Peer(row) => {
                self.peers.insert(row.name.clone(), row);
            }
            Change::NoPeer(name) => {
                self.peers.remove(&name);
            }
            Change::Stitch(row) => {
                self.stitches.insert(row.stitch.id, row);
            }
            Change::NoStitch(id) => {
                self.stitches.remove(&id);
            }
            Change::Reply(key, row) => {
                self.replies.insert(key, row);
            }
            Change::NoReply(key) => {
                self.replies.remove(&key);
            }
            Change::Event(event) => {
                self.events.insert(event.seq, event);
            }
            Change::NoEvent(seq) => {
                self.events.remove(&seq);
            }
        }
    }

    /// Makes changes that are durable as this revision.
    pub fn advance(&mut self, revision: u64, changes: Vec<Change>) {
        let shown = changes.iter().any(|change| {
            matches!(
                change,
                Change::Host(_) | Change::NoHost(_) | Change::Booking(_) | Change::NoBooking(_)
            )
        });
        self.revision = revision;
        if shown {
            self.shown_revision = revision;
        }
        for change in changes {
            self.apply(change);
        }
    }

    /// Leases of one slice.
    pub fn leases_of(&self, slice: Uuid) -> Vec<&LeaseRow> {
        let rows = self.leases.values();
        rows.filter(|row| row.lease.slice_id == slice).collect()
    }

    /// Subnets that a new slice must not have: of slices that are booked, and of leases that live.
    pub fn subnets_in_use(&self, now: Timestamp) -> Vec<IpNet> {
        let slices = self
            .bookings
            .values()
            .filter(|booking| booking.slice.booked_at(now))
            .filter_map(|booking| booking.slice.spec.addressing.as_ref())
            .flat_map(crate::addresses::subnets);
        let leases = self
            .leases
            .values()
            .filter(|row| row.occupies())
            .flat_map(|row| row.lease.ips.iter().map(IpNet::trunc));
        let mut all: Vec<IpNet> = slices.chain(leases).collect();
        all.sort();
        all.dedup();
        all
    }

    /// The order of the next event.
    pub fn next_event(&self) -> u64 {
        self.events.last_key_value().map_or(1, |(seq, _)| seq + 1)
    }
}
