//! How pods are shown: the book joined with what the engine and the kernel say now.

use super::{
    Pods, book,
    book::{Entry, Step, Wanted},
    engine::{self, EnginePod},
    look, prepare,
};
use crate::Host;
use dtn_api::{
    Name, Problem, Rate,
    local::{Pod, PodInterface, PodPhase},
    problem::Kind,
};
use dtn_cni::record::InterfaceRecord;
use dtn_link::{Netns, address, inventory, qdisc};
use std::collections::BTreeMap;

impl Pods {
    /// Every pod, by name.
    pub async fn list(&self) -> Result<Vec<Pod>, Problem> {
        let (entries, torn) = book::list(&self.0.host.places)?;
        for problem in torn {
            tracing::warn!("{problem}");
        }
        let engine = self.0.engine.pods().await;
        let mut pods = Vec::with_capacity(entries.len());
        for entry in &entries {
            pods.push(shown(&self.0.host, entry, &engine).await?);
        }
        Ok(pods)
    }

    /// One pod.
    pub async fn get(&self, name: &Name) -> Result<Pod, Problem> {
        let entry = self.entry(name)?;
        shown(&self.0.host, &entry, &self.0.engine.pods().await).await
    }

    /// The last lines of each of its containers, by name.
    pub async fn logs(&self, name: &Name, tail: u32) -> Result<BTreeMap<String, String>, Problem> {
        let entry = self.entry(name)?;
        let pods = self.0.engine.pods().await?;
        let Some(pod) = pods.into_iter().find(|pod| pod.uid == entry.uid) else {
            let why = format!(
                "pod {name} is not in the engine, and so has no log: {}",
                entry.message
            );
            return Err(Problem::new(Kind::StateConflict, why));
        };
        let mut logs = BTreeMap::new();
        for (container, id) in engine::names(&pod) {
            logs.insert(container, self.0.engine.logs(&id, tail).await?);
        }
        Ok(logs)
    }
}

/// How far it is and how it is, with a word where there is one.
fn phase(entry: &Entry, pod: Option<&EnginePod>) -> (PodPhase, String) {
    let said = entry.message.clone();
    match (entry.wanted, entry.step) {
        (Wanted::Failed, _) => return (PodPhase::Failed, said),
        (Wanted::Down, _) => return (PodPhase::Removing, said),
        (Wanted::Up, Step::Booked | Step::Made) => return (PodPhase::Preparing, said),
        (Wanted::Up, Step::Attaching) => return (PodPhase::Attaching, said),
        (Wanted::Up, Step::Started) => {}
    }
    let Some(pod) = pod else {
        let why = "it is not in the engine any more; what it had is given back".to_owned();
        return (PodPhase::Degraded, why);
    };
    let idle = pod.containers.iter().find(|container| !container.runs());
    match (idle, &pod.infra) {
        (_, Some(infra)) if !infra.runs() => {
            let why = format!("the container of its sandbox is {}", infra.state);
            (PodPhase::Degraded, if said.is_empty() { why } else { said })
        }
        (Some(idle), _) => {
            let why = format!("container {} is {}", idle.name, idle.state);
            (PodPhase::Degraded, if said.is_empty() { why } else { said })
        }
        (None, _) if !said.is_empty() => (PodPhase::Degraded, said),
        (None, _) => (PodPhase::Running, said),
    }
}

async fn shown(
    host: &Host,
    entry: &Entry,
    engine: &Result<Vec<EnginePod>, engine::EngineError>,
) -> Result<Pod, Problem> {
    let (pod, unknown) = match engine {
        Ok(pods) => (pods.iter().find(|pod| pod.uid == entry.uid), None),
        Err(e) => (None, Some(e.to_string())),
    };
    let (phase, message) = match unknown {
        Some(why) if entry.wanted == Wanted::Up => (PodPhase::Degraded, why),
        _ => phase(entry, pod),
    };
    Ok(Pod {
        name: entry.name().clone(),
        uid: entry.uid.clone(),
        template: entry.request.template.clone(),
        phase,
        interfaces: interfaces(host, entry).await?,
        containers: pod.map(engine::states).unwrap_or_default(),
        container_ids: pod.map(engine::names).unwrap_or_default(),
        netns: host.places.netns_of(&entry.uid).display().to_string(),
        message,
        created_at: entry.created_at,
    })
}

/// The interfaces: as the kernel has them, or as they were prepared.
async fn interfaces(host: &Host, entry: &Entry) -> Result<Vec<PodInterface>, Problem> {
    let record = look::record_of(host, &entry.uid)?;
    let recorded = record.map(|record| record.interfaces).unwrap_or_default();
    let mut shown = Vec::new();
    for interface in &recorded {
        let Ok(nic) = interface.before.name.parse() else {
            continue;
        };
        let now = kernel(interface).await;
        shown.push(PodInterface {
            ifname: interface.ifname.clone(),
            class: interface.class,
            nic,
            ips: now.ips,
            mtu: now.mtu.unwrap_or(interface.mtu),
            slice: interface.slices.first().map(|binding| binding.name.clone()),
            rate: now.rate,
        });
    }
    let prepared = prepare::read(host, &entry.uid)?;
    for interface in prepared
        .into_iter()
        .flat_map(|prepared| prepared.interfaces)
    {
        if shown.iter().any(|other| other.ifname == interface.ifname) {
            continue;
        }
        shown.push(PodInterface {
            ifname: interface.ifname,
            class: interface.class,
            nic: interface.nic_name,
            ips: Vec::new(),
            mtu: interface.mtu,
            slice: interface
                .slices
                .into_iter()
                .next()
                .map(|binding| binding.name),
            rate: None,
        });
    }
    Ok(shown)
}

#[derive(Default)]
struct Now {
    ips: Vec<String>,
    mtu: Option<u32>,
    rate: Option<Rate>,
}

/// What the kernel has; nothing where it cannot be asked.
async fn kernel(interface: &InterfaceRecord) -> Now {
    let ask = async {
        let sandbox = Netns::open(&interface.netns)?;
        if sandbox.inode() != interface.netns_inode {
            return Ok(Now::default());
        }
        let conn = sandbox.connect().await?;
        let link = inventory::link_named(&conn, &interface.ifname).await?;
        let addresses = address::list(&conn, Some(link.index)).await?;
        let pacing = qdisc::current_pacing(&conn, link.index).await?;
        Ok::<_, dtn_link::Error>(Now {
            ips: addresses
                .iter()
                .filter(|address| interface.ips.contains(&address.net))
                .map(|address| address.net.to_string())
                .collect(),
            mtu: Some(link.mtu),
            rate: pacing.map(|pacing| pacing.rate),
        })
    };
    ask.await.unwrap_or_else(|e| {
        tracing::debug!(ifname = %interface.ifname, "showing an interface: {e}");
        Now::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::Container;

    fn pod(infra: &str, container: &str) -> EnginePod {
        let made = |name: &str, state: &str| Container {
            id: name.into(),
            name: name.into(),
            state: state.into(),
        };
        EnginePod {
            id: "p".into(),
            name: "t1".into(),
            uid: "uid-t1".into(),
            infra: Some(made("infra", infra)),
            containers: vec![made("t1-x", container)],
        }
    }

    #[test]
    fn the_phase_is_what_the_engine_says_of_a_pod_that_was_started() {
        let mut entry = book::example("t1");
        assert_eq!(phase(&entry, None).0, PodPhase::Preparing);
        entry.step = Step::Attaching;
        assert_eq!(phase(&entry, None).0, PodPhase::Attaching);
        entry.step = Step::Started;
        let runs = pod("running", "running");
        assert_eq!(
            phase(&entry, Some(&runs)),
            (PodPhase::Running, String::new())
        );
        for (pod, words) in [
            (Some(pod("exited", "running")), "sandbox is exited"),
            (Some(pod("running", "exited")), "t1-x is exited"),
            (None, "not in the engine"),
        ] {
            let (phase, why) = phase(&entry, pod.as_ref());
            assert_eq!(phase, PodPhase::Degraded);
            assert!(why.contains(words), "{why}");
        }
        entry.wanted = Wanted::Down;
        assert_eq!(phase(&entry, Some(&runs)).0, PodPhase::Removing);
        entry.wanted = Wanted::Failed;
        assert_eq!(phase(&entry, None).0, PodPhase::Failed);
    }
}
