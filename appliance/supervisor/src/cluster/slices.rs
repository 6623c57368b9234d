//! Keeps the ResourceSlice of this node as [`super::publish`] wants it: written when something
//! changed, at most once a second, and again when somebody took it away (a kubelet does when it
//! starts). What the API server keeps of it is read back.
//!
//! It is not deleted when this process ends: a restart would look to the scheduler as if the node
//! had lost its NICs. A kubelet deletes it when its driver stays away, and Kubernetes does with the
//! node.

use super::{
    Cluster, book,
    counts::Call,
    health::health,
    publish::{self, Keeps, Offered},
};
use crate::gateway;
use dtn_api::{Problem, cluster::DRIVER, nic::Nic, problem::Kind};
use futures_util::StreamExt;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::Node,
        resource::v1::{Device, ResourcePool, ResourceSlice, ResourceSliceSpec},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    api::{Api, Patch, PatchParams},
    runtime::watcher,
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Between two looks at the NICs when nothing wakes us.
const LOOK: Duration = Duration::from_secs(2);
/// Between two writes.
const WRITE: Duration = Duration::from_secs(1);
/// Pause after something failed.
const AGAIN: Duration = Duration::from_secs(3);
/// Who writes, for the API server's field ownership.
pub(super) const MANAGER: &str = "dtnd";

/// Publishes for as long as the daemon runs.
pub(super) async fn run(cluster: Cluster, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let mut session = Session::default();
        let outcome = tokio::select! {
            () = stop.cancelled() => return,
            Err(problem) = session.run(&cluster) => problem,
        };
        let words = outcome.to_string();
        let told = cluster.seen().publishing.replace(words.clone());
        if told.as_ref() != Some(&words) {
            tracing::warn!("publishing the NICs: {words}");
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// What is known while the API server answers.
#[derive(Debug, Default)]
struct Session {
    /// The slice as the API server has it.
    there: Option<ResourceSlice>,
    /// What it keeps; found out by trying, which changes nothing.
    keeps: Option<Keeps>,
    /// What was written last, and what it became.
    written: Option<(Vec<Device>, ResourceSlice)>,
    wrote_at: Option<Instant>,
}

impl Session {
    async fn run(&mut self, cluster: &Cluster) -> Result<std::convert::Infallible, Problem> {
        let client = cluster.client().await?;
        let slices: Api<ResourceSlice> = Api::all(client.clone());
        let node = &cluster.0.config.node;
        let selected = watcher::Config::default()
            .fields(&format!("spec.nodeName={node},spec.driver={DRIVER}"));
        let mut watch = std::pin::pin!(watcher(slices.clone(), selected));
        let mut view = cluster.0.host.uplink.watch();
        let mut listed = false;
        let mut look_at = Instant::now();
        loop {
            tokio::select! {
                event = watch.next() => {
                    let outcome = self.heard(event, &name(node));
                    if matches!(outcome, Ok(true) | Err(_)) {
                        cluster.0.counts.called(Call::ToWatch, &outcome);
                    }
                    listed |= outcome?;
                    // of a list, all of it first
                    if !listed { continue; }
                }
                () = cluster.0.publish.notified() => {}
                _ = view.changed() => {}
                () = sleep_until(look_at) => {}
            }
            look_at = Instant::now() + LOOK;
            if !listed {
                continue;
            }
            if let Some(wrote_at) = self.wrote_at.filter(|at| at.elapsed() < WRITE) {
                look_at = wrote_at + WRITE;
                continue;
            }
            self.once(cluster, &client, &slices).await?;
        }
    }

    /// Takes an event in; whether the whole list was heard.
    fn heard(
        &mut self,
        event: Option<watcher::Result<watcher::Event<ResourceSlice>>>,
        name: &str,
    ) -> Result<bool, Problem> {
        use watcher::Event;
        let failed = |why: &str| {
            let why = format!("watching the ResourceSlice of this node: {why}");
            Problem::new(Kind::BackendUnavailable, why)
        };
        let ours = |slice: &ResourceSlice| slice.metadata.name.as_deref() == Some(name);
        match event {
            None => return Err(failed("the watch ended")),
            Some(Err(e)) => return Err(failed(&super::chain(&e))),
            Some(Ok(Event::Init)) => self.there = None,
            Some(Ok(Event::InitDone)) => return Ok(true),
            Some(Ok(Event::InitApply(slice) | Event::Apply(slice))) if ours(&slice) => {
                self.there = Some(slice);
            }
            Some(Ok(Event::Delete(slice))) if ours(&slice) => self.there = None,
            Some(Ok(_)) => {}
        }
        Ok(false)
    }

    /// One look, and a write when something differs.
    async fn once(
        &mut self,
        cluster: &Cluster,
        client: &kube::Client,
        slices: &Api<ResourceSlice>,
    ) -> Result<(), Problem> {
        let host = &cluster.0.host;
        let nics = host.inventory.nics().await?;
        let (entries, _) = book::list(&host.places)?;
        let offered: Vec<Offered<'_>> = nics
            .iter()
            .map(|nic| self.offered(cluster, nic, &entries))
            .collect::<Result<_, Problem>>()?;
        let view = host.uplink.watch().borrow().slices.clone();
        let now = Timestamp::now();
        let keeps = match self.keeps {
            Some(keeps) => keeps,
            None => {
                let (all, _) = publish::devices(&offered, &view, Keeps::ALL, now);
                let params = params(true);
                let tried = self.write(cluster, client, slices, &all, &params).await?;
                *self.keeps.insert(kept(&all, devices_of(&tried)))
            }
        };
        let (devices, left_out) = publish::devices(&offered, &view, keeps, now);
        if !self.is_there(&devices) {
            let slice = self
                .write(cluster, client, slices, &devices, &params(false))
                .await?;
            tracing::info!(
                nics = devices.len(),
                generation = slice.spec.pool.generation,
                "published"
            );
            self.written = Some((devices.clone(), slice.clone()));
            self.wrote_at = Some(Instant::now());
            // a NIC that comes without carrier is the first that shows whether taints are kept
            if kept(&devices, devices_of(&slice)) != Keeps::ALL {
                self.keeps = None;
            }
            self.there = Some(slice);
        }
        cluster.0.health.send_replace(health(
            &cluster.0.config.node,
            &devices,
            &nics,
            now.as_second(),
        ));
        let mut seen = cluster.seen();
        if seen.left_out != left_out {
            for why in left_out.iter().filter(|why| !seen.left_out.contains(why)) {
                tracing::warn!("not offered in the cluster: {why}");
            }
        }
        seen.devices = devices
            .into_iter()
            .map(|device| (device.name.clone(), device))
            .collect();
        seen.published = Some(seen.devices.len());
        (seen.publishing, seen.left_out) = (None, left_out);
        Ok(())
    }

    fn offered<'a>(
        &self,
        cluster: &Cluster,
        nic: &'a Nic,
        entries: &[book::Entry],
    ) -> Result<Offered<'a>, Problem> {
        let name = publish::name_of(nic.name.as_str());
        let given = entries
            .iter()
            .filter(|entry| nic.used_by.contains(&entry.pod.uid))
            .flat_map(|entry| &entry.devices)
            .find(|given| given.allocated.device == name);
        Ok(Offered {
            nic,
            function: cluster.0.host.inventory.function(nic)?,
            of_gateway: gateway::has_whole(&cluster.0.host, nic),
            of_claim: given.is_some(),
            given_as: given.and_then(|given| given.published.clone()),
        })
    }

    /// Whether the API server has this already.
    fn is_there(&self, devices: &[Device]) -> bool {
        let Some(there) = &self.there else {
            return false;
        };
        match &self.written {
            // what was written may be read back in other words
            Some((wrote, became)) => wrote == devices && became.spec == there.spec,
            None => plain(devices_of(there)) == plain(devices),
        }
    }

    async fn write(
        &self,
        cluster: &Cluster,
        client: &kube::Client,
        slices: &Api<ResourceSlice>,
        devices: &[Device],
        params: &PatchParams,
    ) -> Result<ResourceSlice, Problem> {
        let node = &cluster.0.config.node;
        let nodes: Api<Node> = Api::all(client.clone());
        let owner = cluster
            .call(
                Call::NodeToPublish,
                &format!("reading node {node}"),
                nodes.get(node),
            )
            .await
            .map_err(|problem| match problem.is(Kind::NotFound) {
                true => Problem::new(
                    Kind::NotFound,
                    format!("no node {node} in the cluster: set kubernetes.node to its name there"),
                ),
                false => problem,
            })?;
        let generation = |slice: &ResourceSlice| slice.spec.pool.generation;
        let last = self.there.iter().map(generation);
        let last = last.chain(self.written.iter().map(|(_, became)| generation(became)));
        let name = name(node);
        let slice = ResourceSlice {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                owner_references: Some(vec![OwnerReference {
                    api_version: "v1".to_owned(),
                    kind: "Node".to_owned(),
                    name: node.clone(),
                    uid: owner.metadata.uid.unwrap_or_default(),
                    controller: Some(true),
                    block_owner_deletion: None,
                }]),
                ..ObjectMeta::default()
            },
            spec: ResourceSliceSpec {
                driver: DRIVER.to_owned(),
                node_name: Some(node.clone()),
                pool: ResourcePool {
                    name: node.clone(),
                    generation: last.max().unwrap_or(0) + 1,
                    resource_slice_count: 1,
                },
                devices: Some(devices.to_vec()),
                ..ResourceSliceSpec::default()
            },
        };
        let doing = format!("publishing the NICs as ResourceSlice {name}");
        cluster
            .call(
                Call::ToPublish,
                &doing,
                slices.patch(&name, params, &Patch::Apply(&slice)),
            )
            .await
    }
}

impl Cluster {
    /// The devices as they are published now, by name.
    pub(super) fn published(&self) -> BTreeMap<String, Device> {
        self.seen().devices.clone()
    }
}

/// Name of the ResourceSlice of a node.
fn name(node: &str) -> String {
    format!("{node}-{DRIVER}")
}

fn params(dry_run: bool) -> PatchParams {
    PatchParams {
        dry_run,
        ..PatchParams::apply(MANAGER).force()
    }
}

fn devices_of(slice: &ResourceSlice) -> &[Device] {
    slice.spec.devices.as_deref().unwrap_or_default()
}

/// What the API server kept of what was written. Of what was not written nothing is known, and the
/// best is assumed.
fn kept(wrote: &[Device], became: &[Device]) -> Keeps {
    let pairs = || {
        wrote.iter().filter_map(|wrote| {
            let became = became.iter().find(|other| other.name == wrote.name)?;
            Some((wrote, became))
        })
    };
    Keeps {
        multiple: pairs().all(|(wrote, became)| {
            wrote.allow_multiple_allocations == became.allow_multiple_allocations
        }),
        taints: pairs().all(|(wrote, became)| wrote.taints.is_some() == became.taints.is_some()),
    }
}

/// Without what the API server adds.
fn plain(devices: &[Device]) -> Vec<Device> {
    let mut devices = devices.to_vec();
    for taint in devices
        .iter_mut()
        .filter_map(|d| d.taints.as_mut())
        .flatten()
    {
        taint.time_added = None;
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, many: Option<bool>, tainted: bool) -> Device {
        serde_json::from_value(serde_json::json!({
            "name": name, "allowMultipleAllocations": many,
            "taints": tainted.then(|| serde_json::json!([{"key": "dtn.appliance/no-carrier",
                "effect": "NoSchedule"}])),
        }))
        .unwrap()
    }

    #[test]
    fn what_a_server_drops_is_noticed() {
        let wrote = [device("a", Some(true), false), device("b", None, true)];
        assert_eq!(kept(&wrote, &wrote), Keeps::ALL);
        let old = [device("a", None, false), device("b", None, false)];
        let found = kept(&wrote, &old);
        assert!(!found.multiple && !found.taints);
        assert_eq!(kept(&[device("c", None, false)], &old), Keeps::ALL);
    }

    #[test]
    fn it_is_written_when_it_differs_and_when_somebody_changed_it() {
        let slice = |devices: Vec<Device>| ResourceSlice {
            spec: ResourceSliceSpec {
                devices: Some(devices),
                ..ResourceSliceSpec::default()
            },
            ..ResourceSlice::default()
        };
        let one = vec![device("a", None, true)];
        let mut session = Session::default();
        assert!(!session.is_there(&one));
        // another process of ours wrote it; the server noted when
        let mut noted = one.clone();
        let taints = noted[0].taints.as_mut().unwrap();
        taints[0].time_added = serde_json::from_value("2030-01-01T00:00:00Z".into()).ok();
        session.there = Some(slice(noted.clone()));
        assert!(session.is_there(&one));
        session.written = Some((one.clone(), slice(noted)));
        assert!(session.is_there(&one));
        assert!(!session.is_there(&[device("b", None, true)]));
        session.there = Some(slice(Vec::new()));
        assert!(!session.is_there(&one));
    }
}
