//! Carries the steps out that the rule asks for, one after the other, until there is nothing left
//! to do. Each step is written into the book before it is taken, where it cannot be seen from
//! outside that it was.

use super::{
    attach, book,
    book::{Entry, Step},
    decide::{self, Do, Health},
    engine::{Engine, EnginePod},
    look::{self, Look},
    prepare,
};
use crate::Host;
use dtn_api::{Problem, attachment::PodIdentity, problem::Kind};
use dtn_cni::reconcile::Leases;
use dtn_link::netns;
use std::time::Duration;
use tokio::time::Instant;

/// More steps than any way has: going in circles is a fault and must end.
const MOST_STEPS: usize = 24;
/// How long containers may take to run after they were started.
const RUN: Duration = Duration::from_secs(30);
/// Between two looks at them.
const LOOK: Duration = Duration::from_millis(100);
/// Lines of a log that go into a problem.
const LAST_LINES: u32 = 10;

/// Where a pod has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// To rest.
    Rest(Health),
    /// It is wanted down, or somebody removed it from the engine.
    Leaving,
}

/// What carrying out needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tools<'a> {
    pub(super) host: &'a Host,
    pub(super) engine: &'a dyn Engine,
    /// Held while a NIC is chosen.
    pub(super) choosing: &'a tokio::sync::Mutex<()>,
}

/// Goes on until rest. The caller holds the pod's lock.
pub(super) async fn on(tools: &Tools<'_>, entry: &mut Entry) -> Result<Came, Problem> {
    let boot = book::boot_id();
    for _ in 0..MOST_STEPS {
        let look = look::at(tools.host, tools.engine, entry).await?;
        let same_boot = entry.boot_id == boot;
        let action = decide::next(entry.wanted, entry.step, same_boot, &look.seen);
        tracing::debug!(pod = %entry.name(), ?action, "next");
        match action {
            Do::Rest(health) => return Ok(Came::Rest(health)),
            Do::TakeDown | Do::ClearUp => return Ok(Came::Leaving),
            action => step(tools, entry, &look, action).await?,
        }
    }
    Err(Problem::new(
        Kind::Internal,
        format!(
            "pod {} does not come to rest within {MOST_STEPS} steps; the log has them",
            entry.name()
        ),
    ))
}

async fn step(
    tools: &Tools<'_>,
    entry: &mut Entry,
    look: &Look,
    action: Do,
) -> Result<(), Problem> {
    let Tools { host, engine, .. } = *tools;
    let pin = host.places.netns_of(&entry.uid);
    let failed = |e: dtn_link::Error| {
        Problem::new(
            Kind::Internal,
            format!("the sandbox of pod {}: {e}", entry.name()),
        )
    };
    match action {
        Do::Make => {
            reach(host, entry, Step::Made)?;
            engine.create(&entry.manifest).await?;
        }
        Do::Unmake => engine.remove(&there(entry, look)?.id).await?,
        Do::StartSandbox => {
            let infra = there(entry, look)?.infra.as_ref().ok_or_else(|| {
                let why = format!("pod {} has no container for its sandbox", entry.name());
                Problem::new(Kind::BackendError, why)
            })?;
            entry.boot_id = book::boot_id();
            reach(host, entry, Step::Attaching)?;
            engine.start_container(&infra.id).await?;
        }
        Do::BringHome => {
            attach::bring_home(host, &entry.uid, None, Leases::Keep).await?;
            prepare::refresh(host, &entry.uid).await?;
        }
        Do::Unpin => netns::unbind(&pin).map_err(failed)?,
        Do::Pin => {
            let sandbox = look.sandbox.as_ref().ok_or_else(|| {
                let why = format!("the sandbox of pod {} is gone", entry.name());
                Problem::new(Kind::BackendError, why)
            })?;
            sandbox.bind(&pin).map_err(failed)?;
        }
        Do::Prepare => {
            prepare::prepare(host, tools.choosing, &wish(entry)).await?;
        }
        Do::Attach => {
            let infra = there(entry, look)?.infra.as_ref();
            let call = attach::Call {
                uid: &entry.uid,
                pod: entry.name().as_str(),
                container: infra.map_or(entry.uid.as_str(), |infra| infra.id.as_str()),
                ifname: &entry.ifname,
                class: entry.request.nic_class,
                netns: &pin,
                network: attach::NETWORK,
                mode: None,
            };
            attach::add(host, &call).await?;
        }
        Do::Start => {
            engine.start(&there(entry, look)?.id).await?;
            until_it_runs(engine, entry).await?;
            reach(host, entry, Step::Started)?;
        }
        // these end the way, and are answered before
        Do::ClearUp | Do::TakeDown | Do::Rest(_) => {}
    }
    Ok(())
}

fn there<'a>(entry: &Entry, look: &'a Look) -> Result<&'a EnginePod, Problem> {
    look.pod.as_ref().ok_or_else(|| {
        let why = format!("pod {} is not in the engine", entry.name());
        Problem::new(Kind::Internal, why)
    })
}

fn reach(host: &Host, entry: &mut Entry, step: Step) -> Result<(), Problem> {
    entry.step = step;
    book::write(&host.places, entry)
}

/// Which pod an entry is.
pub(super) fn identity(entry: &Entry) -> PodIdentity {
    PodIdentity {
        uid: entry.uid.clone(),
        name: entry.name().to_string(),
        namespace: "default".to_owned(),
        engine: "podman".to_owned(),
    }
}

fn wish(entry: &Entry) -> prepare::Wish {
    prepare::Wish {
        key: entry.uid.clone(),
        pod: identity(entry),
        network: attach::NETWORK.to_owned(),
        ifname: entry.ifname.clone(),
        class: entry.request.nic_class,
        nic: entry.request.nic.clone(),
        slice: entry.request.slice.clone().map(prepare::Which::Named),
        memory: entry.memory,
        streams: entry.streams,
        terms: prepare::Terms::default(),
    }
}

async fn until_it_runs(engine: &dyn Engine, entry: &Entry) -> Result<(), Problem> {
    let end = Instant::now() + RUN;
    loop {
        let pods = engine.pods().await?;
        let pod = pods.into_iter().find(|pod| pod.uid == entry.uid);
        let pod = pod.ok_or_else(|| {
            let why = format!("pod {} went away while it was started", entry.name());
            Problem::new(Kind::BackendError, why)
        })?;
        let Some(idle) = pod.containers.iter().find(|container| !container.runs()) else {
            return Ok(());
        };
        if Instant::now() >= end {
            let log = match engine.logs(&idle.id, LAST_LINES).await {
                Ok(log) => log,
                Err(e) => e.to_string(),
            };
            return Err(Problem::new(
                Kind::BackendError,
                format!(
                    "container {} of pod {} is {} {} s after its start; it wrote last: {}",
                    idle.name,
                    entry.name(),
                    idle.state,
                    RUN.as_secs(),
                    log.trim()
                ),
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Takes all of a pod away, in the order in which its NIC is never lost: containers, interface,
/// pin, pod, leases, file. Every step is tried; what failed is told together, and a later call
/// does the rest. The entry stays: its removal is the last deed, and the caller's.
pub(super) async fn down(tools: &Tools<'_>, entry: &Entry) -> Result<(), Problem> {
    let Tools { host, engine, .. } = *tools;
    let mut faults: Vec<String> = Vec::new();
    let pod = match engine.pods().await {
        Ok(pods) => pods.into_iter().find(|pod| pod.uid == entry.uid),
        Err(e) => {
            // its containers may still send: nothing is taken from under them
            return Err(e.into());
        }
    };
    if let Some(pod) = &pod
        && let Err(e) = engine.stop(&pod.id).await
    {
        faults.push(e.to_string());
    }
    if let Err(e) = attach::bring_home(host, &entry.uid, None, Leases::Release).await {
        faults.push(e.to_string());
        // the sandbox has a NIC in it: it must not go before
        return Err(told(entry, &faults));
    }
    if let Err(e) = netns::unbind(&host.places.netns_of(&entry.uid)) {
        faults.push(e.to_string());
    }
    if let Some(pod) = &pod
        && let Err(e) = engine.remove(&pod.id).await
    {
        faults.push(e.to_string());
    }
    if let Err(e) = unprepare(host, entry).await {
        faults.push(e.to_string());
    }
    match faults.is_empty() {
        true => Ok(()),
        false => Err(told(entry, &faults)),
    }
}

fn told(entry: &Entry, faults: &[String]) -> Problem {
    let doing = format!("taking pod {} down, it is tried again", entry.name());
    Problem::new(
        Kind::BackendError,
        format!("{doing}: {}", faults.join("; ")),
    )
}

/// Gives back what was prepared, and what was leased when we were killed before it was written
/// down.
async fn unprepare(host: &Host, entry: &Entry) -> Result<(), Problem> {
    let why = "the pod was taken down";
    if let Some(prepared) = prepare::read(host, &entry.uid)? {
        for lease in prepared.interfaces.iter().flat_map(|i| &i.leases) {
            prepare::give_back(host, lease, why).await?;
        }
        let path = host.places.prepared_file(&entry.uid);
        return dtn_link::atomic_file::remove(&path).map_err(|e| {
            Problem::new(Kind::Internal, format!("removing {}: {e}", path.display()))
        });
    }
    if entry.request.slice.is_none() || host.uplink.identity().is_none() {
        return Ok(());
    }
    let client = prepare::client_id("podman", &host.config().host, &entry.uid, &entry.ifname);
    match host.uplink.leases().await {
        Ok(leases) => {
            for lease in leases.iter().filter(|lease| lease.client_id == client) {
                if lease.state == dtn_api::lease::LeaseState::Bound {
                    prepare::give_back(host, lease, why).await?;
                }
            }
        }
        // one that is not found now runs out by itself
        Err(problem) => tracing::info!(pod = %entry.name(), "looking for its leases: {problem}"),
    }
    Ok(())
}
