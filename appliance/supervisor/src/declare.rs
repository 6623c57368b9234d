//! Tells the controller which NICs this host has: at start, at each change, and every 30 s, so that
//! it offers only what is there. The same look feeds the negotiations and the view of slices.

use crate::{Host, driver::Negotiations, gateway, inventory::Look, switch_on::SwitchOn};
use dtn_api::{
    HostId, Problem, Rate,
    host::{HostKind, HostSpec},
    nic::Nic,
    problem::Kind,
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Between two looks at the NICs.
const LOOK: Duration = Duration::from_secs(10);
/// Between two declarations of what has not changed.
const DECLARE: Duration = Duration::from_secs(30);
/// Between two readings of the slices: what the other domain asked for shall be there soon.
const SLICES: Duration = Duration::from_secs(2);
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What is declared of a NIC; `None` for one that may not be offered.
pub fn spec(host: &Host, nic: &Nic) -> Option<HostSpec> {
    let given = nic.class.is_some() && nic.guarded.is_empty();
    let fit = nic.carrier || !nic.used_by.is_empty();
    let identity = host.uplink.identity()?;
    Some(HostSpec {
        kind: HostKind::Nic,
        node: identity.host.clone(),
        nic: nic.name.clone(),
        capacity_bps: nic.speed.filter(|_| given && fit).map(Rate::bps)?,
        mtu: nic.mtu,
        location: None,
        ips: Vec::new(),
        permitted: host
            .inventory
            .configured(nic)
            .is_some_and(|config| config.permitted),
    })
}

/// Declares one NIC.
pub async fn declare(host: &Host, nic: &Nic) -> Result<(), Problem> {
    match spec(host, nic) {
        Some(spec) => host
            .uplink
            .put_host(&HostId::untagged(nic.mac), &spec)
            .await
            .map(|_| ()),
        // not joined, or not to be offered: whoever needs it is told by the choice of NICs
        None if host.uplink.identity().is_some() => Ok(()),
        None => Err(crate::uplink::not_joined()),
    }
}

/// Looks, declares and reads for as long as the daemon runs.
pub async fn run(host: Arc<Host>, negotiations: Negotiations, stop: CancellationToken) {
    let mut rounds = Rounds::default();
    while !stop.is_cancelled() {
        let pause = rounds.once(&host, &negotiations).await;
        tokio::select! {
            () = stop.cancelled() => {}
            () = host.uplink.joined_now() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[derive(Default)]
struct Rounds {
    looked: Option<Instant>,
    switch_on: SwitchOn,
    declared: Option<Instant>,
    nics: Vec<Nic>,
    warnings: Vec<String>,
    /// NICs that the controller refused, with its reason.
    refused: Vec<String>,
    failures: u32,
    trouble: String,
}

impl Rounds {
    /// One round; how long to pause after it.
    async fn once(&mut self, host: &Host, negotiations: &Negotiations) -> Duration {
        let mut changed = false;
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK) {
            match host.inventory.look().await {
                Ok(mut look) => {
                    // what a gateway has is offered to nobody
                    look.nics.retain(|nic| !gateway::has_whole(host, nic));
                    let switched = self.switch_on.once(&look.nics).await;
                    changed = look.nics != self.nics;
                    negotiations.nics(&look.nics);
                    negotiations.forget(jiff::Timestamp::now());
                    self.tell(&look);
                    self.nics = look.nics;
                    // a carrier comes soon after: then there is something to declare
                    self.looked = (!switched).then(Instant::now);
                }
                Err(problem) => self.fail(&problem),
            }
        }
        if host.uplink.identity().is_none() {
            self.declared = None;
            return LOOK.min(Duration::from_secs(1));
        }
        let outcome = self.online(host, changed).await;
        match outcome {
            Ok(()) => {
                if !self.trouble.is_empty() {
                    tracing::info!("the controller answers again");
                }
                (self.failures, self.trouble) = (0, String::new());
                SLICES
            }
            Err(problem) => {
                self.declared = None;
                self.failures += 1;
                self.fail(&problem);
                pause(self.failures)
            }
        }
    }

    async fn online(&mut self, host: &Host, changed: bool) -> Result<(), Problem> {
        if changed || self.declared.is_none_or(|at| at.elapsed() >= DECLARE) {
            let mut refused = Vec::new();
            for nic in &self.nics {
                match declare(host, nic).await {
                    Ok(()) => {}
                    Err(problem) if problem.is(Kind::BackendUnavailable) => return Err(problem),
                    // one that is refused is no reason to keep the others back
                    Err(problem) => {
                        refused.push(format!("{} is not declared: {problem}", nic.name))
                    }
                }
            }
            for why in refused.iter().filter(|why| !self.refused.contains(why)) {
                tracing::warn!("{why}");
            }
            self.refused = refused;
            self.declared = Some(Instant::now());
        }
        let own: Vec<HostId> = self
            .nics
            .iter()
            .filter(|nic| nic.class.is_some())
            .map(|nic| HostId::untagged(nic.mac))
            .collect();
        host.uplink.refresh(&own).await
    }

    /// Warnings once, when they come up.
    fn tell(&mut self, look: &Look) {
        let missing = look
            .missing
            .iter()
            .map(|selector| format!("the NIC with {selector} is not on this host"));
        let refused = look
            .nics
            .iter()
            .filter(|nic| nic.class.is_some())
            .flat_map(|nic| {
                let name = nic.name.clone();
                nic.guarded
                    .iter()
                    .map(move |why| format!("{name} is not taken: {why}"))
            });
        let all: Vec<String> = look
            .warnings
            .iter()
            .cloned()
            .chain(missing)
            .chain(refused)
            .collect();
        for warning in all.iter().filter(|w| !self.warnings.contains(w)) {
            tracing::warn!("{warning}");
        }
        self.warnings = all;
    }

    /// The same trouble is logged once.
    fn fail(&mut self, problem: &Problem) {
        let text = problem.to_string();
        if text != self.trouble {
            tracing::warn!("{text}");
            self.trouble = text;
        }
    }
}

/// 1, 2, 4… up to 30 s, and up to half as much again by chance, so that the hosts of a domain do
/// not come all at once when its controller is back.
fn pause(failures: u32) -> Duration {
    let base = Duration::from_secs(1 << failures.saturating_sub(1).min(5)).min(LONGEST_PAUSE);
    // the last bytes of a random UUID are chance enough
    let chance = uuid::Uuid::new_v4().as_bytes()[15];
    base + base.mul_f64(f64::from(chance) / 510.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit() {
        for (failures, least) in [(1, 1), (2, 2), (3, 4), (6, 30), (40, 30)] {
            let found = pause(failures);
            let least = Duration::from_secs(least);
            assert!(
                found >= least && found <= least.mul_f64(1.51),
                "{failures}: {found:?}"
            );
        }
    }
}
