//! What is so now of one pod: in the engine, at its pin, in the prepared file and in the record.

use super::{
    book::{self, Entry},
    decide::{Pin, Seen, SeenPod, SeenRecord},
    engine::{Engine, EnginePod},
    prepare,
};
use crate::Host;
use dtn_api::{Problem, problem::Kind};
use dtn_cni::{
    conf,
    record::{self, AttachmentRecord, Phase},
};
use dtn_link::Netns;
use std::path::Path;

/// One pod as it is, with what is needed to act on it.
#[derive(Debug)]
pub(super) struct Look {
    /// For the rule.
    pub(super) seen: Seen,
    /// In the engine.
    pub(super) pod: Option<EnginePod>,
    /// Its sandbox, held open while we look.
    pub(super) sandbox: Option<Netns>,
}

/// Looks at a pod. Whatever cannot be read is an error: nothing is decided on a guess.
pub(super) async fn at(host: &Host, engine: &dyn Engine, entry: &Entry) -> Result<Look, Problem> {
    let pods = engine.pods().await?;
    let pod = pods.into_iter().find(|pod| pod.uid == entry.uid);
    let sandbox = match &pod {
        Some(pod) => sandbox(engine, pod).await?,
        None => None,
    };
    let prepared = prepare::read(host, &entry.uid)?;
    let record = record_of(host, &entry.uid)?;
    let seen = Seen {
        pod: pod.as_ref().map(|pod| SeenPod {
            whole: pod.infra.is_some() && pod.containers.len() == entry.containers,
            sandbox: sandbox.as_ref().map(Netns::inode),
            running: pod.containers.iter().filter(|c| c.runs()).count(),
            all_run: pod.containers.iter().all(|c| c.runs()),
        }),
        pin: pin(&host.places.netns_of(&entry.uid)),
        prepared: prepared.is_some_and(|prepared| {
            let mut names = prepared.interfaces.iter().map(|i| &i.ifname);
            names.any(|name| *name == entry.ifname)
        }),
        record: record
            .as_ref()
            .and_then(|record| seen_record(record, entry)),
    };
    Ok(Look { seen, pod, sandbox })
}

/// The sandbox of a pod; `None` when the container that holds it does not run.
async fn sandbox(engine: &dyn Engine, pod: &EnginePod) -> Result<Option<Netns>, Problem> {
    let Some(infra) = &pod.infra else {
        return Ok(None);
    };
    let Some(process) = engine.process(&infra.id).await? else {
        return Ok(None);
    };
    let failed = |why: &dyn std::fmt::Display| {
        let doing = format!("opening the sandbox of pod {}", pod.name);
        Problem::new(Kind::Internal, format!("{doing}: {why}"))
    };
    let netns = match Netns::open(&process.netns()) {
        Ok(netns) => netns,
        // it ended between the two questions
        Err(e) if e.is_not_found() => return Ok(None),
        Err(e) => return Err(failed(&e)),
    };
    // process numbers are used again: this one has to be the container's still
    if engine.process(&infra.id).await? != Some(process) {
        return Ok(None);
    }
    let own = Netns::current().map_err(|e| failed(&e))?;
    match netns.inode() == own.inode() {
        true => Err(failed(&"it is the host's own network namespace")),
        false => Ok(Some(netns)),
    }
}

/// The plugin's record of a key.
pub(super) fn record_of(host: &Host, key: &str) -> Result<Option<AttachmentRecord>, Problem> {
    let places = conf::Places::below(host.places.root());
    record::read(&places, key).map_err(|e| Problem::new(Kind::Internal, e.to_string()))
}

fn seen_record(record: &AttachmentRecord, entry: &Entry) -> Option<SeenRecord> {
    let interface = record.interface(&entry.ifname)?;
    // numbers of namespaces are given anew at each boot: an old one means nothing now
    let same_boot = record.boot_id == book::boot_id();
    Some(SeenRecord {
        attached: interface.phase == Phase::Attached,
        sandbox: if same_boot { interface.netns_inode } else { 0 },
    })
}

/// What is pinned at a path.
pub(super) fn pin(path: &Path) -> Pin {
    match Netns::open(path) {
        Ok(netns) => Pin::Of(netns.inode()),
        Err(_) if path.symlink_metadata().is_ok() => Pin::Empty,
        Err(_) => Pin::None,
    }
}
