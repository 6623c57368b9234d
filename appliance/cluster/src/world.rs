//! What this program knows of the cluster: claims, NICs and tenants, watched; and what it has written
//! itself, which a watch tells it only later.
//!
//! A promise must not be overlooked: whoever begins to lead, or does not know whether its last
//! write arrived, reads all claims anew from the API server before it decides. Between that and
//! the watch the newer version of each claim counts.

use crate::{
    claim::{self, Claim, NicKey},
    decide::{Nic, TENANT_LABEL},
};
use dtn_api::cluster::{DRIVER, attribute};
use futures_util::StreamExt;
use k8s_openapi::api::{
    core::v1::Namespace,
    resource::v1::{ResourceClaim, ResourceSlice},
};
use kube::{
    Api, Client, ResourceExt,
    api::ListParams,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher,
    },
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::{sync::Notify, task::JoinSet};

/// The cluster, watched.
pub struct Watched {
    claims: Store<ResourceClaim>,
    nics: Store<ResourceSlice>,
    tenants: Store<PartialObjectMeta<Namespace>>,
    changed: Arc<Notify>,
    // they end with it
    _watches: JoinSet<()>,
}

impl Watched {
    /// Begins to watch.
    pub fn start(client: &Client) -> Self {
        let changed = Arc::new(Notify::new());
        let mut watches = JoinSet::new();
        let (claims, writer) = reflector::store();
        let stream = watcher(
            Api::<ResourceClaim>::all(client.clone()),
            watcher::Config::default(),
        )
        .default_backoff()
        .reflect(writer)
        .touched_objects();
        watches.spawn(follow("claims", stream, changed.clone()));
        let (nics, writer) = reflector::store();
        let config = watcher::Config::default().fields(&format!("spec.driver={DRIVER}"));
        let stream = watcher(Api::<ResourceSlice>::all(client.clone()), config)
            .default_backoff()
            .reflect(writer)
            .touched_objects();
        watches.spawn(follow("resource slices", stream, changed.clone()));
        let (tenants, writer) = reflector::store();
        let config = watcher::Config::default().labels(TENANT_LABEL);
        let stream = watcher(
            Api::<PartialObjectMeta<Namespace>>::all(client.clone()),
            config,
        )
        .default_backoff()
        .reflect(writer)
        .touched_objects();
        watches.spawn(follow("namespaces", stream, changed.clone()));
        Self {
            claims,
            nics,
            tenants,
            changed,
            _watches: watches,
        }
    }
    /// Waits until everything was listed once.
    pub async fn ready(&self) -> anyhow::Result<()> {
        self.claims.wait_until_ready().await?;
        self.nics.wait_until_ready().await?;
        self.tenants.wait_until_ready().await?;
        Ok(())
    }
    /// Waits for a change.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
    /// Each NIC that is published.
    pub fn nics(&self) -> BTreeMap<NicKey, Nic> {
        nics(&self.nics.state())
    }
    /// Tenants of the namespaces that have one.
    pub fn tenants(&self) -> BTreeMap<String, String> {
        let state = self.tenants.state();
        let tenant = |namespace: &Arc<PartialObjectMeta<Namespace>>| {
            Some((
                namespace.name_any(),
                namespace.labels().get(TENANT_LABEL)?.clone(),
            ))
        };
        state.iter().filter_map(tenant).collect()
    }
    /// The claims, as the watch or `own` has them, whichever is newer.
    pub fn claims(&self, own: &mut Own) -> Vec<Claim> {
        own.merge(self.claims.state())
    }
}

async fn follow<T>(
    what: &str,
    stream: impl futures_util::Stream<Item = Result<T, watcher::Error>>,
    changed: Arc<Notify>,
) {
    let mut stream = std::pin::pin!(stream);
    while let Some(seen) = stream.next().await {
        match seen {
            Ok(_) => changed.notify_one(),
            Err(e) => tracing::warn!("watching {what}: {e}"),
        }
    }
}

fn nics(slices: &[Arc<ResourceSlice>]) -> BTreeMap<NicKey, Nic> {
    let mut newest: BTreeMap<&str, i64> = BTreeMap::new();
    for slice in slices {
        let pool = &slice.spec.pool;
        let generation = newest.entry(&pool.name).or_insert(pool.generation);
        *generation = pool.generation.max(*generation);
    }
    let mut nics = BTreeMap::new();
    for slice in slices {
        let pool = &slice.spec.pool;
        if newest.get(pool.name.as_str()) != Some(&pool.generation) {
            continue;
        }
        for device in slice.spec.devices.iter().flatten() {
            let text = |name: &str| {
                let all = device.attributes.as_ref()?;
                named(all, name)?.string.clone()
            };
            let bandwidth = device.capacity.as_ref();
            let bandwidth = bandwidth.and_then(|all| named(all, attribute::BANDWIDTH));
            let nic = Nic {
                ifname: text(attribute::IFNAME),
                speed_bps: bandwidth.and_then(|bandwidth| claim::whole(&bandwidth.value.0)),
                mac: text(attribute::MAC).and_then(|mac| mac.parse().ok()),
            };
            nics.insert(NicKey(pool.name.clone(), device.name.clone()), nic);
        }
    }
    nics
}

/// What a driver publishes without a domain is its own's.
fn named<'a, T>(all: &'a BTreeMap<String, T>, name: &str) -> Option<&'a T> {
    all.get(name)
        .or_else(|| all.get(&format!("{DRIVER}/{name}")))
}

/// Claims as this program knows them from its own calls.
#[derive(Debug, Default)]
pub struct Own(BTreeMap<String, Arc<ResourceClaim>>);

impl Own {
    /// All claims, as the API server has them now.
    pub async fn read(client: &Client) -> Result<Self, kube::Error> {
        // no version is named: what is read is as new as the store behind the API server
        let all = Api::<ResourceClaim>::all(client.clone())
            .list(&ListParams::default())
            .await?;
        let of_driver = all
            .items
            .into_iter()
            .filter(|claim| claim::read(claim).is_some());
        Ok(Self(
            of_driver
                .filter_map(|claim| Some((claim.uid()?, Arc::new(claim))))
                .collect(),
        ))
    }
    /// A claim that was written.
    pub fn put(&mut self, claim: ResourceClaim) {
        if let Some(uid) = claim.uid() {
            self.0.insert(uid, Arc::new(claim));
        }
    }
    /// A claim that is not there any more.
    pub fn forget(&mut self, uid: &str) {
        self.0.remove(uid);
    }
    /// Those that the watch does not show: not yet, or not any more. To be asked about.
    pub fn unseen(&self, watched: &Watched) -> Vec<Arc<ResourceClaim>> {
        let state = watched.claims.state();
        let seen: std::collections::BTreeSet<String> =
            state.iter().filter_map(|claim| claim.uid()).collect();
        let unseen = self.0.iter().filter(|(uid, _)| !seen.contains(*uid));
        unseen.map(|(_, claim)| claim.clone()).collect()
    }
    fn merge(&mut self, watched: Vec<Arc<ResourceClaim>>) -> Vec<Claim> {
        let mut claims = Vec::new();
        for seen in &watched {
            let Some(uid) = seen.uid() else { continue };
            let newer = match self.0.get(&uid) {
                Some(own) if version(own) > version(seen) => own.clone(),
                Some(_) => {
                    self.0.remove(&uid);
                    seen.clone()
                }
                None => seen.clone(),
            };
            claims.extend(claim::read(&newer));
        }
        let seen: std::collections::BTreeSet<String> =
            watched.iter().filter_map(|claim| claim.uid()).collect();
        let unseen = self.0.iter().filter(|(uid, _)| !seen.contains(*uid));
        claims.extend(unseen.filter_map(|(_, claim)| claim::read(claim)));
        claims
    }
}

/// Versions of one resource are whole numbers that rise (Kubernetes since 1.35 says so; etcd's
/// revisions always were).
fn version(claim: &ResourceClaim) -> u64 {
    let version = claim.metadata.resource_version.as_deref();
    version
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claim(uid: &str, version: u64, device: &str) -> ResourceClaim {
        serde_json::from_value(json!({
            "metadata": {"name": uid, "namespace": "a", "uid": uid,
                "resourceVersion": version.to_string(), "creationTimestamp": "2027-01-10T06:00:00Z"},
            "spec": {},
            "status": {"allocation": {"devices": {"results": [
                {"driver": DRIVER, "pool": "n1", "device": device, "request": "nic"}]}}},
        }))
        .unwrap()
    }

    #[test]
    fn the_newer_of_what_was_written_and_what_is_watched_counts() {
        let mut own = Own::default();
        own.put(claim("a", 9, "own"));
        own.put(claim("b", 4, "own"));
        own.put(claim("c", 10, "own"));
        // 9 is older than 10 although the text is not
        let watched = vec![
            Arc::new(claim("a", 10, "watched")),
            Arc::new(claim("c", 9, "watched")),
        ];
        let merged = own.merge(watched);
        let found: BTreeMap<&str, &str> = merged
            .iter()
            .map(|c| (c.uid.as_str(), c.wishes[0].key.device.as_str()))
            .collect();
        assert_eq!(
            found,
            BTreeMap::from([("a", "watched"), ("b", "own"), ("c", "own")])
        );
        assert_eq!(own.0.len(), 2);
    }

    #[test]
    fn a_nic_is_as_the_newest_generation_says() {
        let slice =
            |generation: i64, value: &str| -> Arc<ResourceSlice> {
                Arc::new(serde_json::from_value(json!({
                "metadata": {"name": "x"},
                "spec": {"driver": DRIVER, "nodeName": "n1",
                    "pool": {"name": "n1", "generation": generation, "resourceSliceCount": 1},
                    "devices": [{"name": "data0", "capacity": {"bandwidth": {"value": value}},
                        "attributes": {"mac": {"string": "02:00:00:00:00:01"},
                            "dtn.appliance/ifName": {"string": "enp1s0"}}}]},
            })).unwrap())
            };
        let nics = nics(&[slice(2, "10G"), slice(1, "1G")]);
        let nic = Nic {
            ifname: Some("enp1s0".into()),
            speed_bps: Some(10_000_000_000),
            mac: Some("02:00:00:00:00:01".parse().unwrap()),
        };
        assert_eq!(nics[&NicKey("n1".into(), "data0".into())], nic);
    }
}
