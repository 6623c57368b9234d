//! What could be had: the most over a window and the first window that fits, here and at the far
//! end; and where the far end is.

use super::{
    Engine,
    bookings::{border_member, not_federated},
};
use crate::{admission::later_by, fabric, state::State};
use dtn_api::{
    HostId, Name, Problem,
    host::HostKind,
    problem::Kind,
    slice::{Availability, AvailabilityQuery, Member, RemoteEnd, Role, Schedule},
};
use jiff::Timestamp;

/// How far ahead a first fitting window is looked for, in seconds: 30 days.
const LOOK_AHEAD: u32 = 30 * 86_400;

/// How often the two domains are asked for a window that both have.
const MOST_ROUNDS: usize = 8;

impl Engine {
    /// The most that could be had on this domain's own links.
    pub(super) fn available_here(
        &self,
        state: &State,
        query: &AvailabilityQuery,
        members: &[Member],
        now: Timestamp,
    ) -> Result<Availability, Problem> {
        let Schedule { start, end } = query.schedule;
        if end <= start.max(now) {
            let problem = Problem::new(Kind::InvalidRequest, "the window is not valid");
            return Err(problem.at(
                "/schedule/end",
                format!("{end} is not after {}", start.max(now)),
            ));
        }
        self.known(state, members)?;
        let ledger = Self::ledger(state, None, now);
        let graph = self.fabric.topology(&state.hosts);
        let window = &query.schedule;
        let wanted = query.rate_bps.unwrap_or(1);
        let (shares, _) = self.fitting(
            &ledger,
            &graph,
            query.mode,
            query.class,
            members,
            wanted,
            window,
        )?;
        let (max_rate_bps, link) = ledger.max_rate(&shares, query.class, window, None);
        let first_fit = query.rate_bps.and_then(|rate| {
            let asked = Schedule {
                start: start.max(now),
                end,
            };
            ledger.first_fit(
                &shares,
                query.class,
                rate,
                &asked,
                later_by(now, LOOK_AHEAD),
                None,
            )
        });
        Ok(Availability {
            max_rate_bps,
            limited_by: format!("{}:{link}", self.config().domain),
            first_fit,
        })
    }

    /// The most that could be had, the other domain asked too when the slice leaves this one.
    pub async fn available(&self, query: &AvailabilityQuery) -> Result<Availability, Problem> {
        let Some(remote) = &query.remote else {
            return self
                .look(|state, now| self.available_here(state, query, &query.members, now))
                .await;
        };
        let (border, peer, host) = self.far_end(remote).await?;
        let mut near = AvailabilityQuery {
            remote: None,
            ..query.clone()
        };
        near.members.push(border_member(&border.name));
        let mut far = AvailabilityQuery {
            members: vec![
                border_member(&border.peer_ref),
                Member::of_host(host, Role::Endpoint),
            ],
            ..near.clone()
        };
        let mut both = self.available_on_both(&peer, &near, &far).await?;
        // the first window that fits here may not fit there: what each names is tried on the other
        // until both name the same
        for _ in 0..MOST_ROUNDS {
            let Some(window) = both.first_fit else { break };
            // "now" is a moment later there than here
            let from = near.schedule.start.max(Timestamp::now());
            if window.start <= later_by(from, 1) {
                return Ok(both);
            }
            near.schedule = window;
            far.schedule = window;
            let next = self.available_on_both(&peer, &near, &far).await?;
            if next.first_fit == Some(window) {
                return Ok(both);
            }
            both.first_fit = next.first_fit;
        }
        both.first_fit = None;
        Ok(both)
    }

    async fn available_on_both(
        &self,
        peer: &Name,
        near: &AvailabilityQuery,
        far: &AvailabilityQuery,
    ) -> Result<Availability, Problem> {
        let here = self
            .look(|state, now| self.available_here(state, near, &near.members, now))
            .await?;
        let there: Availability = self
            .call(peer, |client| async move {
                client
                    .post(&format!("{}/availability", dtn_api::VDN_BASE), far)
                    .await
            })
            .await?;
        Ok(narrower(here, there))
    }

    /// Refuses another domain that asks about more than what is offered to it: its border links,
    /// and the hosts that others may ask for.
    pub async fn offered_to(&self, peer: &Name, members: &[Member]) -> Result<(), Problem> {
        self.look(|state, _| {
            let mut problem = Problem::new(Kind::NotFound, "a member is not offered to you");
            for (n, member) in members.iter().enumerate() {
                let offered = match (&member.host, &member.border_link) {
                    (Some(host), None) => state
                        .hosts
                        .get(host)
                        .is_some_and(|host| host.spec.permitted && host.spec.kind == HostKind::Nic),
                    (None, Some(link)) => self
                        .config()
                        .borders
                        .iter()
                        .any(|border| border.name == *link && border.peer_domain == *peer),
                    _ => false,
                };
                if !offered {
                    problem = problem.at(format!("/members/{n}"), "is not in our document");
                }
            }
            if problem.errors.is_empty() {
                Ok(())
            } else {
                Err(problem)
            }
        })
        .await
    }

    /// The border link to another domain, the domain, and the host at the far end. A host that the
    /// domain's last document does not have may have been declared since: the document is read anew.
    pub(super) async fn far_end(
        &self,
        remote: &RemoteEnd,
    ) -> Result<(fabric::Border, Name, HostId), Problem> {
        match self.known_far_end(remote).await {
            Err(problem) if problem.is(Kind::NotFound) => {
                self.refresh(&remote.domain).await?;
                self.known_far_end(remote).await
            }
            known => known,
        }
    }

    async fn known_far_end(
        &self,
        remote: &RemoteEnd,
    ) -> Result<(fabric::Border, Name, HostId), Problem> {
        let border = self.border_to(remote)?;
        let peer = remote.domain.clone();
        let wanted = remote.endpoint.clone();
        let host = self
            .look(|state, _| {
                let row = state.peers.get(&peer).filter(|row| row.revoked.is_none());
                let row = row.ok_or_else(|| not_federated(&peer))?;
                let shared = row.document.as_ref().map(|d| d.shared_hosts.as_slice());
                let shared = shared.unwrap_or_default();
                let names: Vec<_> = shared.iter().map(|h| h.endpoint.as_str()).collect();
                let found = match &wanted {
                    Some(name) => shared.iter().find(|h| h.endpoint == *name),
                    None if shared.len() == 1 => shared.first(),
                    None => None,
                };
                found.map(|h| h.host.clone()).ok_or_else(|| {
                    let why = format!(
                        "domain {peer} offers [{}]: name one of them",
                        names.join(" ")
                    );
                    Problem::new(Kind::NotFound, "the far end of the slice is not known")
                        .at("/remote/endpoint", why)
                })
            })
            .await?;
        Ok((border, peer, host))
    }

    pub(super) fn border_to(&self, remote: &RemoteEnd) -> Result<fabric::Border, Problem> {
        let config = self.config();
        let mut borders = config.borders.iter().filter(|border| {
            border.peer_domain == remote.domain
                && remote
                    .border_link
                    .as_ref()
                    .is_none_or(|name| border.name == *name)
        });
        match (borders.next(), borders.next()) {
            (Some(border), None) => Ok(border.clone()),
            (first, _) => {
                let why = match first {
                    None => format!("no border link leads to domain {}", remote.domain),
                    Some(_) => format!("several lead to domain {}: name one", remote.domain),
                };
                let problem = Problem::new(Kind::NoPath, "the slice cannot leave this domain");
                Err(problem.at("/remote/border_link", why))
            }
        }
    }
}

/// Both must admit it: the lower rate, and a first window only where both name one.
fn narrower(a: Availability, b: Availability) -> Availability {
    let first_fit = match (a.first_fit, b.first_fit) {
        (Some(a), Some(b)) => Some(if a.start >= b.start { a } else { b }),
        _ => None,
    };
    let least = if b.max_rate_bps < a.max_rate_bps {
        b
    } else {
        a
    };
    Availability { first_fit, ..least }
}
