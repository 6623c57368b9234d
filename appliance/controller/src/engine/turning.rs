//! The keys of the domain, changed without a break: the new ones are told to everybody who believes
//! the old ones, and these are dropped once nobody is left who does not know the new.

use super::{Decision, Engine, bookings::not_federated};
use crate::{
    auth::{CLUSTER_ROLE, NODE_ROLE, Principal},
    authority, document,
    enrolled::EnrolledRow,
    invitations::sha256,
    state::{Change, PeerRow},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use dtn_api::{
    Name, Problem, VDN_BASE,
    domain::Domain,
    node::{DomainKeys, Keys},
    problem::Kind,
};
use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::collections::BTreeSet;

/// Certificates and keys that another domain may be known by at once.
const MOST: usize = 2;

impl Engine {
    /// The keys, and who has still to learn the new ones.
    pub async fn keys(&self) -> Keys {
        let (turn, told) = (self.authority.turn(), self.told_now());
        let ca_pin = self.authority.pin();
        self.look(|state, now| {
            let is_behind = |row: &EnrolledRow| {
                // one whose certificate ran out has to join anew anyway
                let mut marks = row.certificates.iter();
                row.revoked.is_none()
                    && row.came_with < turn.signing
                    && marks.any(|mark| mark.until.is_none_or(|at| at > now))
            };
            let behind = |role: &str| -> BTreeSet<Name> {
                let rows = state.enrolled.values().filter(|row| row.role == role);
                let rows = rows.filter(|row| is_behind(row));
                rows.map(|row| row.name.clone()).collect()
            };
            let (mut hosts, mut clusters, mut switches, mut domains) = Default::default();
            let mut invitations = 0;
            if turn.is_turning() {
                hosts = behind(NODE_ROLE);
                // those that enrolled before there were rows are known by their NICs
                let key = |name: &Name| (NODE_ROLE.to_owned(), name.clone());
                let nodes = state.hosts.values().map(|host| &host.spec.node);
                hosts.extend(
                    nodes
                        .filter(|name| !state.enrolled.contains_key(&key(name)))
                        .cloned(),
                );
                clusters = behind(CLUSTER_ROLE);
                switches = self.switches_behind(state, is_behind);
                domains = state
                    .peers
                    .values()
                    .filter(|row| row.revoked.is_none() && row.told.as_ref() != Some(&told))
                    .map(|row| row.name.clone())
                    .collect::<BTreeSet<Name>>();
                let open = state.invitations.values();
                invitations = open
                    .filter(|row| row.used.is_none() && row.expires_at > now)
                    .count();
            }
            Keys {
                shown: turn.shown,
                signing: turn.signing,
                ca_pin,
                hosts: hosts.into_iter().collect(),
                clusters: clusters.into_iter().collect(),
                switches: switches.into_iter().collect(),
                domains: domains.into_iter().collect(),
                invitations: invitations as u64,
            }
        })
        .await
    }

    /// Begins to change the keys, or says how far it is. With `finish` nobody is waited for any more.
    pub async fn rotate(&self, who: &Principal, finish: bool) -> Result<Keys, Problem> {
        let failed = |e: authority::AuthorityError| {
            Problem::new(
                Kind::BackendUnavailable,
                format!("the keys stay as they are: {e}"),
            )
        };
        let turn = self.authority.turn();
        if !turn.is_turning() {
            if finish {
                let problem = "no change of keys is under way: begin one first";
                return Err(Problem::new(Kind::StateConflict, problem));
            }
            let turn = self
                .authority
                .begin_turn(Timestamp::now())
                .map_err(failed)?;
            let detail = format!("generation {} beside {}", turn.signing, turn.shown);
            self.note(who, "keys.turning", detail).await?;
            self.peers_changed.notify_waiters();
        } else if finish {
            let left = self.keys().await;
            self.authority
                .finish_turn(Timestamp::now())
                .map_err(failed)?;
            let detail = format!(
                "generation {}, without waiting for {}",
                turn.signing,
                names(&left)
            );
            self.note(who, "keys.turned", detail).await?;
            self.peers_changed.notify_waiters();
        }
        Ok(self.keys().await)
    }

    /// Drops the old keys once everybody knows the new ones.
    pub(super) async fn carry_turn(&self) {
        let keys = self.keys().await;
        if !keys.is_turning() || !keys.is_known() {
            return;
        }
        match self.authority.finish_turn(Timestamp::now()) {
            Ok(turn) => {
                let detail = format!("generation {}, everybody knows it", turn.shown);
                if let Err(problem) = self.note(&Principal::Itself, "keys.turned", detail).await {
                    tracing::warn!("writing down that the keys were changed: {problem}");
                }
                self.peers_changed.notify_waiters();
            }
            Err(e) => tracing::error!("the old keys stay: {e}"),
        }
    }

    async fn note(
        &self,
        who: &Principal,
        what: &'static str,
        detail: String,
    ) -> Result<(), Problem> {
        tracing::info!("{what}: {detail}");
        self.decide(who, |_, _| Ok(Decision::only(()).event(what, None, detail)))
            .await
    }

    fn own_keys(&self) -> DomainKeys {
        let keys = self.authority.document_keys();
        DomainKeys {
            ca_pem: self.authority.ca_pem(),
            document_keys: keys.iter().map(|key| URL_SAFE_NO_PAD.encode(key)).collect(),
            now: Timestamp::now(),
        }
    }

    /// What a domain that knows our keys of now was told.
    pub(super) fn told_now(&self) -> String {
        told_as(&self.own_keys())
    }

    /// Tells another domain our keys, where it has heard others.
    pub(super) async fn tell_keys(&self, peer: &Name) -> Result<(), Problem> {
        // once: they may be changed meanwhile
        let keys = self.own_keys();
        let told = told_as(&keys);
        let row = self.look(|state, _| state.peers.get(peer).cloned()).await;
        let row = row.ok_or_else(|| not_federated(peer))?;
        if row.told.as_ref() == Some(&told) || row.revoked.is_some() {
            return Ok(());
        }
        let path = format!("{VDN_BASE}/domains/{}/keys", self.config().domain);
        let _: Domain = self
            .call(peer, |client| async move { client.put(&path, &keys).await })
            .await?;
        self.decide(&Principal::Itself, |state, _| {
            let row = state.peers.get(peer).ok_or_else(|| not_federated(peer))?;
            let next = PeerRow {
                told: Some(told.clone()),
                ..row.clone()
            };
            Ok(Decision::only(()).change(Change::Peer(next)))
        })
        .await
    }

    /// Another domain changes the keys that it is known by.
    pub async fn take_keys(
        &self,
        who: &Principal,
        name: &Name,
        keys: &DomainKeys,
    ) -> Result<Domain, Problem> {
        if *who != Principal::Peer(name.clone()) {
            let problem = format!("{who} may not say by which keys domain {name} is known");
            return Err(Problem::new(Kind::Forbidden, problem));
        }
        document::check_clock(name, keys.now, Timestamp::now())?;
        let wrong = |field: &str, why: String| {
            Problem::new(Kind::InvalidRequest, "the keys are not valid").at(field, why)
        };
        let certificates: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(keys.ca_pem.as_bytes()).collect();
        let certificates = certificates.map_err(|e| wrong("/ca_pem", e.to_string()))?;
        if !(1..=MOST).contains(&certificates.len()) {
            return Err(wrong(
                "/ca_pem",
                format!("must be 1 to {MOST} certificates"),
            ));
        }
        let (ca_pin, _) =
            authority::read_authority(&keys.ca_pem).map_err(|e| wrong("/ca_pem", e))?;
        let whole = |key: &String| URL_SAFE_NO_PAD.decode(key).is_ok_and(|key| key.len() == 32);
        if !(1..=MOST).contains(&keys.document_keys.len()) || !keys.document_keys.iter().all(whole)
        {
            let why = format!("must be 1 to {MOST} keys of 32 bytes in base64url");
            return Err(wrong("/document_keys", why));
        }
        self.decide(who, |state, _| {
            let row = state.peers.get(name).ok_or_else(|| not_federated(name))?;
            let next = PeerRow {
                ca_pem: keys.ca_pem.clone(),
                ca_pin: ca_pin.clone(),
                document_key: keys.document_keys[0].clone(),
                document_keys: keys.document_keys.clone(),
                ..row.clone()
            };
            if next == *row {
                return Ok(Decision::only(()));
            }
            let next = PeerRow {
                version: row.version + 1,
                ..next
            };
            Ok(Decision::only(())
                .event("domain.keys", None, format!("{name}, pin {ca_pin}"))
                .change(Change::Peer(next)))
        })
        .await?;
        self.peers_changed.notify_waiters();
        self.domain(name).await
    }
}

/// The same text for the same keys.
fn told_as(keys: &DomainKeys) -> String {
    sha256(format!("{}\n{}", keys.ca_pem, keys.document_keys.join("\n")).as_bytes())
}

fn names(keys: &Keys) -> String {
    let all: Vec<&str> = keys
        .hosts
        .iter()
        .chain(&keys.clusters)
        .chain(&keys.switches)
        .chain(&keys.domains)
        .map(Name::as_str)
        .collect();
    match all.as_slice() {
        [] => "anybody".to_owned(),
        all => all.join(", "),
    }
}
