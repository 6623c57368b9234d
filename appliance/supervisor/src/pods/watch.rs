//! Watches over the pods while the daemon runs: brings each to rest again whatever happened to it,
//! keeps the rates true, and sweeps. At the start of the daemon it is the same: what was cut off
//! goes on from where it was, and running traffic is not touched.

use super::{Pods, book, carry::Came, decide::Health, pacing, sweep};
use crate::shim;
use dtn_api::Problem;
use std::{collections::BTreeMap, time::Duration};
use tokio_util::sync::CancellationToken;

/// Between two looks when nothing wakes us.
const LOOK: Duration = Duration::from_secs(5);

/// Watches for as long as the daemon runs.
pub async fn run(pods: Pods, stop: CancellationToken) {
    let mut slices = pods.0.host.uplink.watch();
    let mut told = BTreeMap::new();
    while !stop.is_cancelled() {
        slices.borrow_and_update();
        pods.look(&mut told).await;
        pacing::once(&pods.0.host, &pods.0.readings).await;
        match shim::once(&pods.0.host).await {
            Ok(()) => drop(told.remove("shim")),
            Err(problem) => tell(&mut told, "shim", &problem),
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = pods.0.wake.notified() => {}
            changed = slices.changed() => if changed.is_err() {
                tokio::time::sleep(LOOK).await;
            },
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// What is said of a pod that rests, but does not run.
fn remark(health: Health) -> &'static str {
    match health {
        Health::Runs | Health::Failed => "",
        Health::ContainerDown => "a container of it does not run: dtnctl pods logs shows why",
        Health::Stopped => {
            "somebody stopped it in the engine; its NIC stays its own: podman pod start starts it, \
             dtnctl undeploy takes it down"
        }
        Health::SandboxOrphaned => {
            "the process of its sandbox ended; traffic goes on in the pinned sandbox: podman pod \
             stop and podman pod start make a new one"
        }
    }
}

impl Pods {
    /// One look at all pods; the same trouble is logged once.
    async fn look(&self, told: &mut BTreeMap<String, String>) {
        let (entries, torn) = match book::list(&self.0.host.places) {
            Ok(found) => found,
            Err(problem) => {
                tracing::error!("{problem}");
                return;
            }
        };
        for problem in &torn {
            tell(told, "book", problem);
        }
        for entry in &entries {
            let lock = self.lock_of(entry.name());
            // someone is at it
            let Ok(_held) = lock.try_lock() else {
                continue;
            };
            let name = entry.name().to_string();
            match self.rescue(entry.name()).await {
                Ok(()) => {
                    told.remove(&name);
                }
                Err(problem) => tell(told, &name, &problem),
            }
        }
        if torn.is_empty()
            && let Err(problem) = sweep::orphans(self).await
        {
            tell(told, "sweep", &problem);
        }
    }

    /// Brings one pod to rest. The caller holds its lock.
    async fn rescue(&self, name: &dtn_api::Name) -> Result<(), Problem> {
        let places = &self.0.host.places;
        // it may have gone since it was listed
        let Some(mut entry) = book::read(places, name)? else {
            return Ok(());
        };
        if entry.wanted == book::Wanted::Failed {
            return Ok(());
        }
        match self.on(&mut entry).await {
            Ok(Came::Rest(Health::Failed)) => Ok(()),
            Ok(Came::Rest(health)) => self.note(&mut entry, remark(health)),
            Ok(Came::Leaving) => {
                if entry.wanted == book::Wanted::Up {
                    tracing::warn!(pod = %name, "somebody removed it from the engine: clearing up");
                    entry.wanted = book::Wanted::Down;
                    book::write(places, &entry)?;
                }
                self.finish(&mut entry).await
            }
            // cut off while it was made, and trying again cannot help: as deploy itself does it
            Err(problem)
                if !problem.retryable
                    && entry.step != book::Step::Started
                    && entry.wanted == book::Wanted::Up =>
            {
                Err(self.give_up(&mut entry, problem).await)
            }
            Err(problem) => {
                let kept = entry.message == problem.to_string();
                if !kept {
                    self.note(&mut entry, &problem.to_string())?;
                }
                Err(problem)
            }
        }
    }
}

fn tell(told: &mut BTreeMap<String, String>, what: &str, problem: &Problem) {
    let text = problem.to_string();
    if told.get(what) != Some(&text) {
        tracing::warn!(pod = what, "{text}");
        told.insert(what.to_owned(), text);
    }
}
