//! Which copy of the program leads: one Lease object in the cluster, held for a time and renewed.
//!
//! The clocks of two machines are never compared: who stands by takes the Lease when it has not
//! *seen* it change for as long as it is good for. Who leads stops writing well before that, also
//! when it cannot reach the API server to learn that it has lost.

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use std::time::Duration;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Name of the Lease.
pub const LEASE: &str = "dtn-cluster";

/// How long things last. The order that keeps two from leading: what was begun at the last moment
/// of `leads` has ended (`call`) before the Lease is `good` for nothing.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// How long the Lease is good for after a change.
    pub good: Duration,
    /// How long its holder takes itself for the leader after a renewal.
    pub leads: Duration,
    /// How often it is renewed, or looked at.
    pub every: Duration,
    /// Longest call.
    pub call: Duration,
}
impl Default for Times {
    fn default() -> Self {
        Self {
            good: Duration::from_secs(15),
            leads: Duration::from_secs(10),
            every: Duration::from_secs(2),
            call: Duration::from_secs(4),
        }
    }
}

/// The Lease as somebody sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Who holds it; empty when it was given up.
    pub holder: String,
    /// Its version: changes with every renewal.
    pub version: String,
    /// How long it is good for without a change.
    pub good: Duration,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// There is none: make it.
    Make,
    /// It is ours: renew it.
    Renew,
    /// Nobody's, or its holder is silent: take it.
    Take,
    /// Somebody else leads.
    StandBy,
}

/// One that may lead. Pure.
#[derive(Debug, Clone)]
pub struct Candidate {
    me: String,
    seen: Option<(Held, Duration)>,
}
impl Candidate {
    /// By a name that no other process ever has.
    pub fn new(me: String) -> Self {
        Self { me, seen: None }
    }
    /// What to do about the Lease; `now` is a clock that only goes on.
    pub fn step(&mut self, lease: Option<&Held>, now: Duration) -> Deed {
        let Some(lease) = lease else {
            self.seen = None;
            return Deed::Make;
        };
        let since = match &self.seen {
            Some((seen, since)) if seen == lease => *since,
            _ => {
                self.seen = Some((lease.clone(), now));
                now
            }
        };
        match lease.holder.as_str() {
            "" => Deed::Take,
            holder if holder == self.me => Deed::Renew,
            _ if now.saturating_sub(since) >= lease.good => Deed::Take,
            _ => Deed::StandBy,
        }
    }
}

/// Until when this process leads; `None` when it does not.
pub type Leading = Option<Instant>;

/// Whether that is now.
pub fn leads(leading: Leading) -> bool {
    leading.is_some_and(|until| Instant::now() < until)
}

/// Stands for election until it is stopped, then gives the Lease up.
pub async fn run(
    client: Client,
    namespace: &str,
    me: &str,
    times: Times,
    tell: watch::Sender<Leading>,
    stop: CancellationToken,
) {
    let api: Api<Lease> = Api::namespaced(client, namespace);
    let mut candidate = Candidate::new(me.to_owned());
    let begin = Instant::now();
    loop {
        let asked = Instant::now();
        match timeout(times.call, turn(&api, &mut candidate, begin, times)).await {
            Ok(Ok(true)) => {
                let before = tell.send_replace(Some(asked + times.leads));
                if !leads(before) {
                    tracing::info!(me, namespace, "leads");
                }
            }
            Ok(Ok(false)) => {
                if leads(tell.send_replace(None)) {
                    tracing::warn!(me, namespace, "leads no more: another has the Lease");
                }
            }
            // what is led until then was said; it runs out by itself
            Ok(Err(e)) => tracing::warn!("asking for the Lease {namespace}/{LEASE}: {e}"),
            Err(_) => tracing::warn!("asking for the Lease {namespace}/{LEASE}: no answer"),
        }
        tokio::select! {
            () = sleep(times.every) => {}
            () = stop.cancelled() => break,
        }
    }
    if leads(tell.send_replace(None))
        && let Ok(Err(e)) = timeout(times.call, give_up(&api, me)).await
    {
        tracing::warn!("giving up the Lease {namespace}/{LEASE}: {e}: it runs out by itself");
    }
}

/// One look, and what it calls for; whether it leads afterwards.
async fn turn(
    api: &Api<Lease>,
    candidate: &mut Candidate,
    begin: Instant,
    times: Times,
) -> Result<bool, kube::Error> {
    let lease = api.get_opt(LEASE).await?;
    let held = lease.as_ref().map(|lease| held(lease, times));
    let deed = candidate.step(held.as_ref(), begin.elapsed());
    let written = match (deed, lease) {
        (Deed::StandBy, _) => return Ok(false),
        (Deed::Make, _) | (_, None) => {
            let lease = mine(Lease::default(), &candidate.me, true, times);
            api.create(&PostParams::default(), &lease).await
        }
        (Deed::Renew | Deed::Take, Some(lease)) => {
            let lease = mine(lease, &candidate.me, deed == Deed::Take, times);
            // the version that was read goes with it: of two that take it, one is refused
            api.replace(LEASE, &PostParams::default(), &lease).await
        }
    };
    match written {
        Ok(_) => Ok(true),
        // somebody was faster
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(e) => Err(e),
    }
}

fn held(lease: &Lease, times: Times) -> Held {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec
        .lease_duration_seconds
        .and_then(|s| u64::try_from(s).ok());
    Held {
        holder: spec.holder_identity.unwrap_or_default(),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        good: seconds.map_or(times.good, Duration::from_secs),
    }
}

fn mine(lease: Lease, me: &str, anew: bool, times: Times) -> Lease {
    let now = MicroTime(jiff::Timestamp::now());
    let before = lease.spec.unwrap_or_default();
    let transitions = before.lease_transitions.unwrap_or(0);
    let metadata = ObjectMeta {
        name: Some(LEASE.to_owned()),
        ..lease.metadata
    };
    Lease {
        metadata,
        spec: Some(LeaseSpec {
            holder_identity: Some(me.to_owned()),
            // whole seconds; a shorter time is for tests and still holds for who reads it
            lease_duration_seconds: i32::try_from(times.good.as_secs().max(1)).ok(),
            acquire_time: match anew {
                true => Some(now.clone()),
                false => before.acquire_time.clone(),
            },
            renew_time: Some(now),
            lease_transitions: Some(if anew {
                transitions.saturating_add(1)
            } else {
                transitions
            }),
            ..before
        }),
    }
}

async fn give_up(api: &Api<Lease>, me: &str) -> Result<(), kube::Error> {
    let Some(mut lease) = api.get_opt(LEASE).await? else {
        return Ok(());
    };
    let spec = lease.spec.get_or_insert_default();
    if spec.holder_identity.as_deref() != Some(me) {
        return Ok(());
    }
    spec.holder_identity = Some(String::new());
    spec.lease_duration_seconds = Some(1);
    api.replace(LEASE, &PostParams::default(), &lease).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;
    fn held(holder: &str, version: &str) -> Held {
        Held {
            holder: holder.into(),
            version: version.into(),
            good: S(15),
        }
    }

    #[test]
    fn the_times_leave_room_for_what_was_begun_last() {
        let times = Times::default();
        assert!(times.leads + times.call < times.good);
        assert!(times.every + times.call < times.leads);
    }

    #[test]
    fn who_is_silent_loses_it_and_who_renews_keeps_it() {
        let mut a = Candidate::new("a".into());
        assert_eq!(a.step(None, S(0)), Deed::Make);
        assert_eq!(a.step(Some(&held("a", "1")), S(1)), Deed::Renew);
        let mut b = Candidate::new("b".into());
        assert_eq!(b.step(Some(&held("a", "1")), S(100)), Deed::StandBy);
        assert_eq!(b.step(Some(&held("a", "2")), S(114)), Deed::StandBy);
        // it was seen to change at 114: good until 129
        assert_eq!(b.step(Some(&held("a", "2")), S(128)), Deed::StandBy);
        assert_eq!(b.step(Some(&held("a", "2")), S(129)), Deed::Take);
        assert_eq!(b.step(Some(&held("", "3")), S(130)), Deed::Take);
        // it was deleted: whoever is first makes it
        assert_eq!(b.step(None, S(131)), Deed::Make);
    }
}
