//! Hosts and clusters by their certificates: who is admitted, renewal, and what is known of each.

use super::{Decision, Engine, not_found};
use crate::{
    auth::{CLUSTER_ROLE, NODE_ROLE, Principal},
    document, enrolled,
    invitations::sha256,
    state::{Change, PeerRow, State},
};
use dtn_api::{
    Name, Problem,
    domain::{Enrolled, PeerState},
    node::{Node, Renewal},
    problem::Kind,
};
use jiff::Timestamp;

impl Engine {
    /// Refuses a certificate that was revoked or replaced, whoever signed it, with each request: so a
    /// connection that was open before is worth nothing either.
    pub async fn admit(&self, who: &Principal, shown: Option<&str>) -> Result<(), Problem> {
        let (role, name) = match who {
            Principal::Node(name) => (NODE_ROLE, name),
            Principal::Cluster(name) => (CLUSTER_ROLE, name),
            Principal::Peer(name) => {
                return self
                    .look(|state, _| match state.peers.get(name) {
                        Some(row) if row.revoked.is_none() => Ok(()),
                        _ => Err(not_federated(name)),
                    })
                    .await;
            }
            _ => return Ok(()),
        };
        let key = (role.to_owned(), name.clone());
        self.look(|state, _| enrolled::admits(state.enrolled.get(&key), shown))
            .await
    }

    /// SHA-256 of the authorities that are believed now.
    pub(super) fn authorities(&self) -> String {
        sha256(self.authority.ca_pem().as_bytes())
    }

    /// Every host that enrolled, with its certificate's end and its revocation.
    pub async fn nodes(&self) -> Vec<Node> {
        self.enrolled_as(NODE_ROLE).await
    }

    /// The same of the clusters.
    pub async fn clusters(&self) -> Vec<Node> {
        self.enrolled_as(CLUSTER_ROLE).await
    }

    async fn enrolled_as(&self, role: &str) -> Vec<Node> {
        let authorities = self.authorities();
        self.look(|state, now| {
            let rows = state.enrolled.values().filter(|row| row.role == role);
            rows.map(|row| row.shown(&authorities, now)).collect()
        })
        .await
    }

    /// One of them. When it asks itself, it is noted which of its certificates it came with.
    pub async fn node(
        &self,
        who: &Principal,
        name: &Name,
        shown: Option<&str>,
    ) -> Result<Node, Problem> {
        crate::auth::own_node(who, name)?;
        let authorities = self.authorities();
        let key = (NODE_ROLE.to_owned(), name.clone());
        let itself = matches!(who, Principal::Node(_));
        self.decide(who, |state, now| {
            let Some(row) = state.enrolled.get(&key) else {
                // it enrolled before there were rows: it renews, and has one
                if itself {
                    let node = Node {
                        name: name.clone(),
                        enrolled_at: now,
                        renewed_at: now,
                        certificate_until: None,
                        generation: 1,
                        authorities: authorities.clone(),
                        revoked: None,
                        now,
                    };
                    return Ok(Decision::only(node));
                }
                return Err(not_found("host", name));
            };
            let came = shown
                .filter(|_| itself)
                .and_then(|with| enrolled::came(row, with));
            let answer = came.as_ref().unwrap_or(row).shown(&authorities, now);
            Ok(match came {
                Some(row) => Decision::only(answer).change(Change::Enrolled(Box::new(row))),
                None => Decision::only(answer),
            })
        })
        .await
    }

    /// A new certificate for a host that has a good one. Its key was made there and never leaves it.
    pub async fn renew_certificate(
        &self,
        who: &Principal,
        name: &Name,
        shown: Option<&str>,
        renewal: &Renewal,
    ) -> Result<Enrolled, Problem> {
        let (Principal::Node(own), Some(shown)) = (who, shown) else {
            let problem = format!("{who} has no certificate of host {name} to renew");
            return Err(Problem::new(Kind::Forbidden, problem));
        };
        crate::auth::own_node(&Principal::Node(own.clone()), name)?;
        document::check_host_clock(renewal.now, Timestamp::now())?;
        let key = (NODE_ROLE.to_owned(), name.clone());
        self.decide(who, |state, now| {
            // it can have been replaced since the request came in, by who enrolled anew
            enrolled::admits(state.enrolled.get(&key), Some(shown))?;
            let issued = self
                .authority
                .certify(NODE_ROLE, name, &renewal.csr_pem, now)?;
            let row = state.enrolled.get(&key);
            let row = enrolled::renewed(row, NODE_ROLE, name, shown, &issued, now);
            let detail = format!("{name}, good until {}", issued.until);
            let answer = Enrolled {
                name: name.clone(),
                domain: self.config().domain.clone(),
                certificate_pem: issued.pem,
                ca_pem: self.authority.ca_pem(),
            };
            Ok(Decision::only(answer)
                .event("host.renewed", None, detail)
                .change(Change::Enrolled(Box::new(row))))
        })
        .await
    }
}

/// Refuses who was revoked, whatever certificate it came with.
pub(super) fn not_revoked(state: &State, who: &Principal) -> Result<(), Problem> {
    let (role, name) = match who {
        Principal::Node(name) => (NODE_ROLE, name),
        Principal::Cluster(name) => (CLUSTER_ROLE, name),
        Principal::Peer(name) => {
            let revoked = |row: &PeerRow| row.revoked.is_some();
            return match state.peers.get(name).is_some_and(revoked) {
                true => Err(not_federated(name)),
                false => Ok(()),
            };
        }
        _ => return Ok(()),
    };
    let row = state.enrolled.get(&(role.to_owned(), name.clone()));
    row.map_or(Ok(()), enrolled::standing)
}

fn not_federated(name: &Name) -> Problem {
    Problem::new(
        Kind::Unauthenticated,
        format!("domain {name} is not federated with this one any more"),
    )
}

/// How another domain stands.
pub(super) fn standing(revoked: bool, silent: bool) -> PeerState {
    match (revoked, silent) {
        (true, _) => PeerState::Revoked,
        (false, true) => PeerState::Degraded,
        (false, false) => PeerState::Up,
    }
}
