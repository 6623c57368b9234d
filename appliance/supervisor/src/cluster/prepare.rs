//! What the kubelet asks for before it makes a pod's sandbox: everything of a claim is had, or
//! nothing is; and the way back.
//!
//! The kubelet asks again after every error, and shows the error in the pod's events. What is
//! prepared already is answered from the disk. A claim has one pod, and is worked on by one call at
//! a time.

use super::{
    Cluster, book,
    book::{Entry, Given},
    claim,
    claim::{Allocated, ClaimId, Negotiated, Reading, Wanted},
    counts::Call,
    publish,
};
use crate::{
    gateway, inventory,
    pods::{
        STREAMS, attach,
        prepare::{self, Terms, Which, Wish},
        take_back,
    },
};
use dtn_api::{
    Problem,
    attachment::{PREPARED_VERSION, PodIdentity, Prepared, PreparedInterface, key_is_valid},
    cluster::{ENGINE, NETWORK},
    nic::{Nic, NicClass},
    problem::Kind,
};
use dtn_cni::reconcile::Leases;
use jiff::Timestamp;
use k8s_openapi::api::resource::v1::ResourceClaim;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// How long the controller may take to agree. The kubelet waits for 45 s, and asks again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a NIC may take to come home from a pod that ends.
const HOMECOMING: Duration = Duration::from_secs(15);
/// How long what is prepared may wait for the API server before it is answered from the disk.
const SOON: Duration = Duration::from_secs(2);
/// The first pause between two looks at a claim, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

impl Cluster {
    /// Has everything that a claim has on this node. The same call again is success.
    pub async fn prepare(&self, id: &ClaimId) -> Result<Vec<Allocated>, Problem> {
        let lock = self.lock_of(&id.uid);
        let _held = lock.lock().await;
        let places = &self.0.host.places;
        let known = book::read(places, &id.uid)?;
        if let Some(entry) = known.as_ref().filter(|entry| entry.is_whole())
            && !self.is_for_another(entry).await
        {
            self.write_again(entry).await?;
            return Ok(allocated(entry));
        }
        let reading = self.agreed(id).await?;
        if let Some(entry) = known.filter(|entry| entry.pod.uid != reading.pod.uid) {
            // had for one pod, and asked for by another
            self.take_back(&entry, "its pod is gone").await?;
        }
        let mut entry = self.entered(id, &reading).await?;
        entry.write(places)?;
        match self.have(&mut entry, &reading).await {
            Ok(()) => {
                entry.write(places)?;
                tracing::info!(claim = %id, pod = entry.pod.name, "prepared");
                self.notice();
                Ok(allocated(&entry))
            }
            Err(problem) => {
                // whole or not at all; what cannot be taken back now is in the book still
                if let Err(second) = self.take_back(&entry, "it could not be prepared").await {
                    tracing::warn!(claim = %id, "{second}");
                }
                Err(problem)
            }
        }
    }

    /// Gives back what is left of a claim. The same call again is success, and so is one for a claim
    /// that was never prepared.
    pub async fn unprepare(&self, uid: &str) -> Result<(), Problem> {
        let lock = self.lock_of(uid);
        let _held = lock.lock().await;
        let Some(entry) = book::read(&self.0.host.places, uid)? else {
            return Ok(());
        };
        self.take_back(&entry, "the claim is not used any more")
            .await?;
        tracing::info!(claim = %entry.claim, pod = entry.pod.name, "given back");
        self.notice();
        Ok(())
    }

    /// Whether the API server says, and says soon, that what was prepared is for another pod now. A
    /// kubelet that lost its state asks for the next pod without having given back the last one's.
    async fn is_for_another(&self, entry: &Entry) -> bool {
        let id = &entry.claim;
        let ask = async {
            let claims: kube::Api<ResourceClaim> =
                kube::Api::namespaced(self.client().await?, &id.namespace);
            let doing = format!("reading claim {id}");
            self.call(Call::ToPrepare, &doing, claims.get(&id.name))
                .await
        };
        match tokio::time::timeout(SOON, ask).await {
            Ok(Ok(claim)) => {
                let reading = claim::read(&claim, id, &self.0.config.node);
                reading.is_ok_and(|reading| reading.pod.uid != entry.pod.uid)
            }
            _ => false,
        }
    }

    /// The claim, once its controller agreed on everything or said no.
    async fn agreed(&self, id: &ClaimId) -> Result<Reading, Problem> {
        let client = self.client().await?;
        let claims: kube::Api<ResourceClaim> = kube::Api::namespaced(client, &id.namespace);
        let (until, mut pause) = (Instant::now() + PATIENCE, PAUSE.0);
        loop {
            let doing = format!("reading claim {id}");
            let claim = self
                .call(Call::ToPrepare, &doing, claims.get(&id.name))
                .await?;
            let reading = claim::read(&claim, id, &self.0.config.node)?;
            let refusals: Vec<String> = reading.devices.iter().filter_map(refusal).collect();
            if !refusals.is_empty() {
                return Err(Problem::new(Kind::StateConflict, refusals.join("; ")));
            }
            let waits = reading
                .devices
                .iter()
                .find(|device| device.negotiated == Negotiated::Waiting);
            let Some(waits) = waits else {
                return Ok(reading);
            };
            if Instant::now() + pause > until {
                let slice = waits.parameters.slice.as_ref();
                let slice = slice.map_or_else(String::new, ToString::to_string);
                return Err(Problem::new(
                    Kind::BackendUnavailable,
                    format!(
                        "slice {slice} is not agreed yet: nobody wrote the condition Negotiated \
                         into claim {id} within {} s; is dtn-cluster running?",
                        PATIENCE.as_secs()
                    ),
                ));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// The entry of a claim in the book, as it is before anything is had.
    async fn entered(&self, id: &ClaimId, reading: &Reading) -> Result<Entry, Problem> {
        if !key_is_valid(&reading.pod.uid) {
            let why = format!("{:?} cannot be the UID of a pod", reading.pod.uid);
            return Err(Problem::new(Kind::InvalidRequest, why));
        }
        let (others, torn) = book::list(&self.0.host.places)?;
        if let Some(problem) = torn.into_iter().next() {
            // which names are taken must not be guessed
            return Err(problem);
        }
        let prepared = prepare::read(&self.0.host, &reading.pod.uid)?;
        for device in &reading.devices {
            let name = &device.parameters.interface;
            let mut there = prepared.iter().flat_map(|prepared| &prepared.interfaces);
            if let Some(other) = there.find(|i| i.ifname == *name && i.network != NETWORK) {
                return Err(taken_by(other));
            }
            let taken = others
                .iter()
                .filter(|other| other.pod.uid == reading.pod.uid && other.claim != *id)
                .find(|other| {
                    let mut names = other.devices.iter().map(|given| &given.ifname);
                    names.any(|other| other == name)
                });
            if let Some(other) = taken {
                let why = format!(
                    "claims {} and {id} both name the interface {name}",
                    other.claim
                );
                return Err(Problem::new(Kind::NameTaken, why)
                    .at("/parameters/interface", "give each its own"));
            }
        }
        let published = self.published();
        Ok(Entry {
            version: book::VERSION,
            claim: id.clone(),
            pod: PodIdentity {
                uid: reading.pod.uid.clone(),
                name: reading.pod.name.clone(),
                namespace: id.namespace.clone(),
                engine: ENGINE.to_owned(),
            },
            devices: reading
                .devices
                .iter()
                .map(|device| Given {
                    published: published.get(&device.allocated.device).cloned(),
                    allocated: device.allocated.clone(),
                    ifname: device.parameters.interface.clone(),
                    interface: None,
                })
                .collect(),
            prepared_at: Timestamp::now(),
        })
    }

    /// Has each device: NIC, lease, and a place in the prepared file.
    async fn have(&self, entry: &mut Entry, reading: &Reading) -> Result<(), Problem> {
        for (device, given) in reading.devices.iter().zip(&mut entry.devices) {
            let nic = &self
                .at_home(&device.allocated.device, &entry.pod.uid)
                .await?;
            if gateway::has_whole(&self.0.host, nic) {
                let why = format!("NIC {} is in a gateway of this node now", nic.name);
                return Err(Problem::new(Kind::StateConflict, why));
            }
            let wish = wish(&entry.pod, device, nic)?;
            let prepared = self.0.pods.prepare_as(&wish).await?;
            given.interface = Some(of_wish(prepared, &wish)?);
        }
        Ok(())
    }

    /// The NIC of a device, once the pod that had it whole has given it back. The scheduler gives a
    /// device to the next pod as soon as the API server has forgotten the last one, which may be
    /// seconds before its kubelet has ended it; saying no would cost the next pod the kubelet's pause.
    async fn at_home(&self, device: &str, key: &str) -> Result<Nic, Problem> {
        let until = Instant::now() + HOMECOMING;
        loop {
            let nics = self.0.host.inventory.nics().await?;
            let mut nics = nics.into_iter();
            let nic = nics.find(|nic| publish::name_of(nic.name.as_str()) == device);
            let is_home = |nic: &Nic| {
                let another = nic.used_by.iter().any(|holder| holder != key);
                nic.class != Some(NicClass::Dedicated) || !another
            };
            if nic.as_ref().is_some_and(is_home) || Instant::now() > until {
                return nic.ok_or_else(|| {
                    let why = format!("NIC {device} is not on this node any more");
                    Problem::new(Kind::StateConflict, why)
                });
            }
            tokio::time::sleep(PAUSE.0).await;
        }
    }

    /// Gives everything of an entry back, and takes the entry out of the book.
    pub(super) async fn take_back(&self, entry: &Entry, why: &str) -> Result<(), Problem> {
        let host = &self.0.host;
        let key = &entry.pod.uid;
        let (records, _) = inventory::records(&host.places);
        let record = records.iter().find(|record| record.key == *key);
        for given in &entry.devices {
            // a runtime that did its work has detached it before: this is for those that did not
            if let Some(left) = record.and_then(|record| record.of_prepared(&given.ifname)) {
                attach::bring_home(host, key, Some(&left.ifname), Leases::Release).await?;
            }
            let _choosing = self.0.pods.choosing().await;
            let kept = given.interface.as_ref();
            take_back::interface(host, &entry.pod, &given.ifname, NETWORK, kept, why).await?;
        }
        book::remove(&host.places, &entry.claim.uid)
    }

    /// Puts what the book has into the prepared file, where it is missing. Returns whether it was.
    async fn write_again(&self, entry: &Entry) -> Result<bool, Problem> {
        let host = &self.0.host;
        let _choosing = self.0.pods.choosing().await;
        let mut prepared = prepare::read(host, &entry.pod.uid)?.unwrap_or_else(|| Prepared {
            version: PREPARED_VERSION,
            key: entry.pod.uid.clone(),
            pod: entry.pod.clone(),
            interfaces: Vec::new(),
            prepared_at: entry.prepared_at,
            labels: BTreeMap::new(),
        });
        let mut missing = false;
        for interface in entry.devices.iter().filter_map(|d| d.interface.as_ref()) {
            if !prepared
                .interfaces
                .iter()
                .any(|other| other.ifname == interface.ifname)
            {
                prepared.interfaces.push(interface.clone());
                missing = true;
            }
        }
        if missing {
            prepare::write(host, &prepared)?;
        }
        Ok(missing)
    }

    /// Leases of what was written again may have run out meanwhile: each is asked for once more, by
    /// the same client, and is the same one where it can be. A NIC that had joined may be out of its
    /// slice by then.
    async fn lease_again(&self, entry: &mut Entry) -> Result<(), Problem> {
        let host = &self.0.host;
        let nics = host.inventory.nics().await?;
        let attached = inventory::records(&host.places).0;
        let attached = attached.iter().find(|record| record.key == entry.pod.uid);
        for given in &mut entry.devices {
            let is_attached = attached.is_some_and(|r| r.of_prepared(&given.ifname).is_some());
            let Some(interface) = given.interface.as_mut().filter(|_| !is_attached) else {
                continue;
            };
            for lease in &mut interface.leases {
                if let Some(nic) = nics.iter().find(|nic| nic.name == interface.nic_name) {
                    let slice = host.uplink.slice(lease.slice_id).await?;
                    prepare::joined(host, slice, nic.mac).await?;
                }
                let request = dtn_api::lease::LeaseRequest {
                    client_id: lease.client_id.clone(),
                    mac: interface.mac,
                    location: None,
                    requested_ips: lease.ips.iter().map(ipnet::IpNet::addr).collect(),
                    lease_seconds: None,
                    labels: lease.labels.clone(),
                };
                *lease = host.uplink.lease(lease.slice_id, &request).await?;
            }
            let _choosing = self.0.pods.choosing().await;
            if let Some(mut prepared) = prepare::read(host, &entry.pod.uid)? {
                let mut there = prepared.interfaces.iter_mut();
                if let Some(there) = there.find(|other| other.ifname == interface.ifname) {
                    there.leases.clone_from(&interface.leases);
                    prepare::write(host, &prepared)?;
                }
            }
        }
        entry.write(&host.places)
    }
}

/// Makes the prepared files anew that a reboot took away, before the kubelet may start a pod.
pub(super) async fn restore(cluster: &Cluster) {
    let (entries, torn) = match book::list(&cluster.0.host.places) {
        Ok(found) => found,
        Err(problem) => {
            tracing::error!("{problem}");
            return;
        }
    };
    for problem in torn {
        tracing::error!("{problem}");
    }
    let mut again = Vec::new();
    for entry in entries {
        match cluster.write_again(&entry).await {
            Ok(true) => again.push(entry),
            Ok(false) => {}
            Err(problem) => tracing::error!(claim = %entry.claim, "{problem}"),
        }
    }
    if again.is_empty() {
        return;
    }
    tracing::info!(claims = again.len(), "prepared again after a reboot");
    let cluster = cluster.clone();
    // without the controller, what was had before is the best that is known
    tokio::spawn(async move {
        for mut entry in again {
            let lock = cluster.lock_of(&entry.claim.uid);
            let _held = lock.lock().await;
            let host = &cluster.0.host;
            let outcome = match prepare::refresh(host, &entry.pod.uid).await {
                Ok(()) => cluster.lease_again(&mut entry).await,
                Err(problem) => Err(problem),
            };
            if let Err(problem) = outcome {
                tracing::warn!(claim = %entry.claim, "making it true after a reboot: {problem}");
            }
        }
    });
}

fn allocated(entry: &Entry) -> Vec<Allocated> {
    let devices = entry.devices.iter();
    devices.map(|given| given.allocated.clone()).collect()
}

fn refusal(device: &Wanted) -> Option<String> {
    match &device.negotiated {
        Negotiated::No(why) => Some(why.clone()),
        _ => None,
    }
}

fn wish(pod: &PodIdentity, device: &Wanted, nic: &Nic) -> Result<Wish, Problem> {
    let class = nic.class.ok_or_else(|| {
        let why = format!("NIC {} is not given to the appliance any more", nic.name);
        Problem::new(Kind::StateConflict, why)
    })?;
    let parameters = &device.parameters;
    let (slice, share_bps) = match &device.negotiated {
        Negotiated::Yes(agreement) => (
            Some(Which::Agreed(agreement.slice_id)),
            Some(agreement.rate_bps).filter(|rate| *rate > 0),
        ),
        _ => (None, None),
    };
    Ok(Wish {
        key: pod.uid.clone(),
        pod: pod.clone(),
        network: NETWORK.to_owned(),
        ifname: parameters.interface.clone(),
        class,
        nic: Some(nic.name.clone()),
        slice,
        memory: None,
        streams: parameters.streams.unwrap_or(STREAMS),
        terms: Terms {
            share_bps,
            addresses: parameters.addresses.clone(),
            mtu: parameters.mtu,
        },
    })
}

/// The interface in the prepared file that is this wish's. One of that name may have been there, for
/// somebody else.
fn of_wish(prepared: Prepared, wish: &Wish) -> Result<PreparedInterface, Problem> {
    let ifname = &wish.ifname;
    let found = prepared
        .interfaces
        .into_iter()
        .find(|interface| interface.ifname == *ifname);
    let found = found.ok_or_else(|| {
        let why = format!("interface {ifname} was prepared and is not in the file");
        Problem::new(Kind::Internal, why)
    })?;
    match found.network == wish.network && wish.nic.as_ref() == Some(&found.nic_name) {
        true => Ok(found),
        false => Err(taken_by(&found)),
    }
}

fn taken_by(other: &PreparedInterface) -> Problem {
    let why = format!(
        "interface {} of the pod is prepared already, on {} for network {}",
        other.ifname, other.nic_name, other.network
    );
    Problem::new(Kind::NameTaken, why).at("/parameters/interface", "choose another name")
}
