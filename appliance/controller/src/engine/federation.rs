//! Other domains: invited, accepted, heard and told. And hosts of this one, which enrol the same way.

use super::{Decision, Engine, bookings::not_federated, not_found};
use crate::{
    admission::{Share, later_by},
    auth::{CLUSTER_ROLE, NODE_ROLE, Principal},
    authority, document, enrolled,
    fabric::edge::SITE_SWITCH,
    failpoint,
    invitations::{self, InvitationRow, Redeemed, Use, sha256},
    state::{Change, PeerRow, State},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use dtn_api::{
    Name, Problem, VDN_BASE,
    client::{Client, ClientError},
    domain::{
        BorderLink, Domain, DomainDocument, Enrolled, Enrolment, FederationHello, Invitation,
        InviteKind, InviteRequest, SharedHost, SignedDocument,
    },
    host::HostKind,
    problem::Kind,
    slice::{Class, Schedule},
};
use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use std::{future::Future, time::Duration};

/// For one call to another domain.
const CALL: Duration = Duration::from_secs(10);

impl Engine {
    /// Makes an invitation; its secret is in the answer and nowhere else.
    pub async fn invite(
        &self,
        who: &Principal,
        request: InviteRequest,
    ) -> Result<Invitation, Problem> {
        if request.kind == InviteKind::Domain && request.name == self.config().domain {
            let problem = Problem::new(Kind::InvalidRequest, "the invitation is not valid");
            return Err(problem.at("/name", "is this domain itself"));
        }
        self.decide(who, |_, now| {
            let (row, secret) = invitations::invite(&request, now)?;
            let invitation = Invitation {
                kind: request.kind,
                domain: self.config().domain.clone(),
                name: request.name.clone(),
                url: self.config().url.clone(),
                ca_pin: self.authority.pin(),
                secret,
                expires_at: row.expires_at,
            };
            let detail = format!("{:?} {}", request.kind, request.name);
            Ok(Decision::only(invitation)
                .event("invitation.made", Some(row.id), detail)
                .change(Change::Invitation(row)))
        })
        .await
    }

    /// Turns an invitation into a certificate: a host's, or a cluster's, as it was made.
    pub async fn enrol(&self, enrolment: &Enrolment) -> Result<Enrolled, Problem> {
        let who = &Principal::Anonymous;
        // before the secret is used up
        if let Some(theirs) = enrolment.now {
            document::check_host_clock(theirs, Timestamp::now())?;
        }
        self.redeem(
            who,
            &[InviteKind::Host, InviteKind::Cluster],
            &enrolment.secret,
            &enrolment.csr_pem,
            |row, now| {
                let (role, what) = match row.kind {
                    InviteKind::Cluster => (CLUSTER_ROLE, "cluster.enrolled"),
                    InviteKind::Host | InviteKind::Domain => (NODE_ROLE, "host.enrolled"),
                };
                let csr = &enrolment.csr_pem;
                let issued = self.authority.certify(role, &row.name, csr, now)?;
                let mut known = enrolled::enrolled(role, &row.name, &issued, now);
                if role == CLUSTER_ROLE {
                    // it never asks how it stands: it has got what it needs with this
                    known.came_with = issued.generation;
                }
                let answer = Enrolled {
                    name: row.name.clone(),
                    domain: self.config().domain.clone(),
                    certificate_pem: issued.pem,
                    ca_pem: self.authority.ca_pem(),
                };
                Ok(Decision::only(answer)
                    .event(what, None, row.name.to_string())
                    .change(Change::Enrolled(Box::new(known))))
            },
        )
        .await
    }

    /// Another domain accepts our invitation: each learns the other's authority and key.
    pub async fn federate(&self, hello: &FederationHello) -> Result<FederationHello, Problem> {
        let now = Timestamp::now();
        document::check_clock(&hello.domain, hello.now, now)?;
        let secret = hello.secret.as_deref().unwrap_or_default();
        let asked = format!("{}\n{}\n{}", hello.domain, hello.ca_pem, hello.document_key);
        let who = &Principal::Anonymous;
        let answer = self
            .redeem(who, &[InviteKind::Domain], secret, &asked, |row, now| {
                if row.name != hello.domain {
                    let problem = format!(
                        "the invitation is for domain {}, not {}",
                        row.name, hello.domain
                    );
                    return Err(Problem::new(Kind::Forbidden, problem));
                }
                let peer = peer_row(hello, self.told_at_hello(), now)?;
                let answer = self.hello(None, now);
                Ok(Decision::only(answer)
                    .event("domain.federated", None, hello.domain.to_string())
                    .change(Change::Peer(peer)))
            })
            .await?;
        self.hear(&hello.domain, now);
        self.peers_changed.notify_waiters();
        failpoint::reach("invited-decided").await;
        Ok(FederationHello { now, ..answer })
    }

    fn hello(&self, secret: Option<String>, now: Timestamp) -> FederationHello {
        FederationHello {
            domain: self.config().domain.clone(),
            url: self.config().url.clone(),
            ca_pem: self.authority.ca_pem(),
            document_key: URL_SAFE_NO_PAD.encode(
                self.authority
                    .document_keys()
                    .first()
                    .cloned()
                    .unwrap_or_default(),
            ),
            secret,
            now,
        }
    }

    /// What a domain knows of our keys after it has federated: all, unless there are two of them.
    fn told_at_hello(&self) -> Option<String> {
        (!self.authority.turn().is_turning()).then(|| self.told_now())
    }

    /// Uses a secret once; the same request again gets the same answer, since one can be lost.
    async fn redeem<T: Serialize + DeserializeOwned>(
        &self,
        who: &Principal,
        kinds: &[InviteKind],
        secret: &str,
        asked: &str,
        make: impl FnOnce(&InvitationRow, Timestamp) -> Result<Decision<T>, Problem>,
    ) -> Result<T, Problem> {
        let request_hash = sha256(asked.as_bytes());
        self.decide(who, |state, now| {
            let row = invitations::named_by(secret).and_then(|id| state.invitations.get(&id));
            let row = row.ok_or_else(invitations::unknown)?;
            match invitations::redeem(row, kinds, secret, &request_hash, now) {
                Redeemed::Valid => {
                    let made = make(row, now)?;
                    let answer = serde_json::to_value(&made.answer).unwrap_or_default();
                    let used = InvitationRow {
                        used: Some(Use {
                            request_hash: request_hash.clone(),
                            at: now,
                            answer,
                        }),
                        ..row.clone()
                    };
                    let mut decision = made.change(Change::Invitation(used));
                    let answer = Ok(decision.answer);
                    let (changes, events) = (
                        std::mem::take(&mut decision.changes),
                        std::mem::take(&mut decision.events),
                    );
                    Ok(Decision {
                        answer,
                        changes,
                        events,
                    })
                }
                Redeemed::Again(answer) => {
                    let answer = serde_json::from_value(answer)
                        .map_err(|e| Problem::new(Kind::Internal, e.to_string()));
                    Ok(Decision::only(answer))
                }
                // a wrong try is counted, so it is a change although it is refused
                Redeemed::Wrong(row, problem) => {
                    Ok(Decision::only(Err(problem)).change(Change::Invitation(row)))
                }
                Redeemed::Refused(problem) => Err(problem),
            }
        })
        .await?
    }

    /// Accepts another domain's invitation: its authority is pinned before anything is sent.
    pub async fn accept(
        &self,
        who: &Principal,
        invitation: &Invitation,
    ) -> Result<Domain, Problem> {
        if invitation.kind != InviteKind::Domain || invitation.name != self.config().domain {
            let problem = Problem::new(
                Kind::InvalidRequest,
                "the invitation is not for this domain",
            );
            let why = format!("it invites {:?} {}", invitation.kind, invitation.name);
            return Err(problem.at("/invitation", why));
        }
        let client = Client::pinned(&invitation.url, &invitation.ca_pin, CALL);
        let client = client.map_err(ClientError::into_problem)?;
        let own = self.hello(Some(invitation.secret.clone()), Timestamp::now());
        let theirs: FederationHello = client
            .post(&format!("{VDN_BASE}/federations"), &own)
            .await
            .map_err(|e| from_peer(&invitation.domain, e))?;
        failpoint::reach("accept-answered").await;
        document::check_clock(&theirs.domain, theirs.now, Timestamp::now())?;
        let peer = peer_row(&theirs, self.told_at_hello(), Timestamp::now())?;
        if peer.ca_pin != invitation.ca_pin || theirs.domain != invitation.domain {
            let problem = "the domain that answered is not the one that invited";
            return Err(Problem::new(Kind::BackendError, problem));
        }
        let name = peer.name.clone();
        self.decide(who, |_, _| {
            Ok(Decision::only(())
                .event("domain.federated", None, peer.name.to_string())
                .change(Change::Peer(peer.clone())))
        })
        .await?;
        self.hear(&name, Timestamp::now());
        self.peers_changed.notify_waiters();
        // the first document; a failure here is the heartbeat's to mend
        if let Err(problem) = self.refresh(&name).await {
            tracing::warn!("the first document of domain {name}: {problem}");
        }
        self.domain(&name).await
    }

    /// Fetches another domain's document.
    pub(super) async fn refresh(&self, peer: &Name) -> Result<(), Problem> {
        let signed: SignedDocument = self
            .call(peer, |client| async move {
                client.get(&format!("{VDN_BASE}/domain_document")).await
            })
            .await?;
        let name = peer.clone();
        self.decide(&Principal::Itself, |state, now| {
            let row = state.peers.get(&name).ok_or_else(|| not_federated(&name))?;
            let document = verify(&signed, row, now)?;
            let known = row.document.as_ref();
            // the times of a document are new each time: only what it says is worth a commit
            if known.is_some_and(|known| says_the_same(known, &document)) {
                return Ok(Decision::only(()));
            }
            let next = PeerRow {
                document: Some(document),
                heard_at: Some(now),
                version: row.version + 1,
                ..row.clone()
            };
            Ok(Decision::only(()).change(Change::Peer(next)))
        })
        .await?;
        self.hear(peer, Timestamp::now());
        Ok(())
    }

    /// Calls another domain with its own authority believed and nobody else's.
    pub(super) async fn call<T, F>(
        &self,
        peer: &Name,
        ask: impl FnOnce(Client) -> F,
    ) -> Result<T, Problem>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let row = self.look(|state, _| state.peers.get(peer).cloned()).await;
        let row = row.ok_or_else(|| not_federated(peer))?;
        let identity = self.authority.as_peer(&row.ca_pem);
        let client = Client::tls(&row.url, &identity, CALL).map_err(ClientError::into_problem)?;
        let answer = ask(client).await.map_err(|e| from_peer(peer, e))?;
        self.hear(peer, Timestamp::now());
        Ok(answer)
    }

    /// This domain's document, signed now.
    pub async fn document(&self) -> SignedDocument {
        let document = self.look(|state, now| self.describe(state, now)).await;
        self.authority.sign(&document)
    }

    fn describe(&self, state: &State, now: Timestamp) -> DomainDocument {
        let ledger = Self::ledger(state, None, now);
        let window = Schedule {
            start: now,
            end: later_by(now, 1),
        };
        let left = |from: &str, to: &str, capacity_bps: u64| {
            let share = Share {
                link: format!("{from}>{to}"),
                capacity_bps,
                times: 1,
            };
            ledger
                .max_rate(&[share], Class::Guaranteed, &window, None)
                .0
        };
        let config = self.config();
        let border_links = config.borders.iter().map(|border| {
            let name = border.name.as_str();
            let place = border
                .at
                .as_ref()
                .filter(|_| self.fabric.network().is_some());
            let switch = place.map_or(SITE_SWITCH, |place| place.switch.as_str());
            BorderLink {
                id: border.name.clone(),
                peer_domain: border.peer_domain.clone(),
                peer_ref: border.peer_ref.clone(),
                capacity_bps: border.capacity_bps,
                reservable_tx_bps: left(switch, name, border.capacity_bps),
                reservable_rx_bps: left(name, switch, border.capacity_bps),
                latency_us: border.latency_us,
                mtu: border.mtu,
            }
        });
        let shared = state
            .hosts
            .values()
            .filter(|host| host.spec.permitted && host.spec.kind == HostKind::Nic);
        let behind: Vec<Name> = config.borders.iter().map(|b| b.name.clone()).collect();
        let shared_hosts = shared.map(|host| SharedHost {
            host: host.id.clone(),
            endpoint: format!("{}/{}", host.spec.node, host.spec.nic),
            capacity_bps: host.spec.capacity_bps,
            mtu: host.spec.mtu,
            ips: host.spec.ips.clone(),
            behind: behind.clone(),
        });
        DomainDocument {
            domain: self.config().domain.clone(),
            version: state.shown_revision,
            issued_at: now,
            expires_at: later_by(now, document::LIFETIME_SECONDS),
            abstraction: "border".to_owned(),
            border_links: border_links.collect(),
            shared_hosts: shared_hosts.collect(),
        }
    }

    /// Another domain, as it stands.
    pub async fn domain(&self, name: &Name) -> Result<Domain, Problem> {
        let found = self
            .domains()
            .await
            .into_iter()
            .find(|domain| domain.name == *name);
        found.ok_or_else(|| not_found("domain", name))
    }

    /// All of them.
    pub async fn domains(&self) -> Vec<Domain> {
        self.look(|state, now| {
            let shown = state.peers.values().map(|row| {
                let heard_at = self.heard_at(&row.name).or(row.heard_at);
                let silent = heard_at
                    .is_none_or(|at| now.duration_since(at).as_secs() > super::SILENCE_SECONDS);
                Domain {
                    name: row.name.clone(),
                    url: row.url.clone(),
                    ca_pin: row.ca_pin.clone(),
                    state: super::nodes::standing(row.revoked.is_some(), silent),
                    heard_at,
                    document: row.document.clone(),
                    version: row.version,
                }
            });
            shown.collect()
        })
        .await
    }

    /// Names and authorities (PEM) of the domains whose certificates are believed.
    pub async fn believed(&self) -> Vec<(Name, String)> {
        self.look(|state, _| {
            let rows = state.peers.values().filter(|row| row.revoked.is_none());
            rows.map(|row| (row.name.clone(), row.ca_pem.clone()))
                .collect()
        })
        .await
    }
}

fn says_the_same(a: &DomainDocument, b: &DomainDocument) -> bool {
    let bare = |d: &DomainDocument| DomainDocument {
        version: 0,
        issued_at: Timestamp::UNIX_EPOCH,
        expires_at: Timestamp::UNIX_EPOCH,
        ..d.clone()
    };
    bare(a) == bare(b)
}

/// A document by any of the keys that its domain is known by.
fn verify(
    signed: &SignedDocument,
    row: &PeerRow,
    now: Timestamp,
) -> Result<DomainDocument, Problem> {
    let mut keys = row.document_keys.clone();
    if keys.is_empty() {
        keys.push(row.document_key.clone());
    }
    let mut last = None;
    for key in keys {
        let key = URL_SAFE_NO_PAD
            .decode(&key)
            .map_err(|e| Problem::new(Kind::Internal, format!("key of {}: {e}", row.name)))?;
        match document::verify(signed, &row.name, &key, row.document.as_ref(), now) {
            Ok(document) => return Ok(document),
            Err(problem) => last = Some(problem),
        }
    }
    Err(last.unwrap_or_else(|| not_federated(&row.name)))
}

fn peer_row(
    hello: &FederationHello,
    told: Option<String>,
    now: Timestamp,
) -> Result<PeerRow, Problem> {
    let wrong = |field: &str, why: String| {
        Problem::new(Kind::InvalidRequest, "the federation is not valid").at(field, why)
    };
    let (ca_pin, _) = authority::read_authority(&hello.ca_pem).map_err(|e| wrong("/ca_pem", e))?;
    let key = URL_SAFE_NO_PAD.decode(&hello.document_key);
    if key.map_or(true, |key| key.len() != 32) {
        return Err(wrong(
            "/document_key",
            "must be 32 bytes in base64url".into(),
        ));
    }
    if !hello.url.starts_with("https://") {
        return Err(wrong("/url", "must start with https://".into()));
    }
    Ok(PeerRow {
        name: hello.domain.clone(),
        url: hello.url.clone(),
        ca_pem: hello.ca_pem.clone(),
        ca_pin,
        document_key: hello.document_key.clone(),
        document_keys: Vec::new(),
        told,
        revoked: None,
        document: None,
        heard_at: Some(now),
        version: 1,
    })
}

/// Another domain's refusal is handed on as it is; its silence is a time-out.
fn from_peer(peer: &Name, error: ClientError) -> Problem {
    match error {
        ClientError::Refused(problem) => {
            let mut problem = *problem;
            problem.detail = format!("domain {peer}: {}", problem.detail);
            for link in problem.errors.iter_mut().filter_map(|e| e.link.as_mut()) {
                *link = format!("{peer}:{link}");
            }
            problem
        }
        ClientError::Unreachable { .. } => Problem::new(
            Kind::PeerTimeout,
            format!("domain {peer} does not answer: {error}"),
        ),
        other => Problem::new(Kind::BackendError, format!("domain {peer}: {other}")),
    }
}
