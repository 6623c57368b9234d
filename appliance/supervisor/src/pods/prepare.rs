//! Prepare: NIC, slice, lease and settings of one interface, had before the pod starts and put into
//! one file that the plugin needs nobody else for.
//!
//! Whose NIC it is is written down before anybody else may choose: choosing and writing are done
//! under one lock. A lease has the pod and the interface in its client id, so that asking again
//! brings the same one.

use crate::{Host, inventory::same, releases};
use dtn_api::{
    HostId, IfName, MacAddress, Name, Problem, Rate, Size,
    attachment::{
        PREPARED_VERSION, PodIdentity, Prepared, PreparedInterface, QueuedRelease, SliceBinding,
    },
    lease::{Lease, LeaseRequest},
    nic::{Nic, NicClass},
    problem::Kind,
    slice::{Mode, Reservation, Slice},
};
use dtn_link::{Netns, atomic_file};
use jiff::Timestamp;
use std::{collections::BTreeMap, net::IpAddr};
use uuid::Uuid;

use super::pacing;

/// MTU of Ethernet, for an interface without a slice.
const ETHERNET: u32 = 1500;
/// Largest prepared file.
const LARGEST: u64 = 1 << 20;

/// What an interface shall have.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) key: String,
    pub(crate) pod: PodIdentity,
    pub(crate) network: String,
    pub(crate) ifname: IfName,
    pub(crate) class: NicClass,
    pub(crate) nic: Option<IfName>,
    pub(crate) slice: Option<Which>,
    /// Memory limit of the pod, and the streams that it is for.
    pub(crate) memory: Option<Size>,
    pub(crate) streams: u32,
    /// What was agreed beyond the slice itself.
    pub(crate) terms: Terms,
}

/// Which slice.
#[derive(Debug, Clone)]
pub(crate) enum Which {
    /// The one of this name.
    Named(Name),
    /// This one, which somebody agreed on before.
    Agreed(Uuid),
}

/// What an interface shall have that is not the usual.
#[derive(Debug, Clone, Default)]
pub(crate) struct Terms {
    /// Its own part of the slice's rate, bits per second.
    pub(crate) share_bps: Option<u64>,
    /// Wished addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// MTU in bytes.
    pub(crate) mtu: Option<u32>,
}

impl Wish {
    /// Whose the lease is.
    fn client_id(&self, host: &Name) -> String {
        client_id(&self.pod.engine, host, &self.key, &self.ifname)
    }
}

pub(crate) fn client_id(engine: &str, host: &Name, key: &str, ifname: &IfName) -> String {
    format!("{engine}:{host}/{key}/{ifname}")
}

/// Has all of it and writes the file; what was prepared before for another interface stays.
pub(crate) async fn prepare(
    host: &Host,
    choosing: &tokio::sync::Mutex<()>,
    wish: &Wish,
) -> Result<Prepared, Problem> {
    let slice = match &wish.slice {
        Some(which) => Some(booked(host, which).await?),
        None => None,
    };
    let _choosing = choosing.lock().await;
    let mut prepared = read(host, &wish.key)?.unwrap_or_else(|| Prepared {
        version: PREPARED_VERSION,
        key: wish.key.clone(),
        pod: wish.pod.clone(),
        interfaces: Vec::new(),
        prepared_at: Timestamp::now(),
        labels: BTreeMap::new(),
    });
    if prepared.interfaces.iter().any(|i| i.ifname == wish.ifname) {
        return Ok(prepared);
    }
    let nics = host.inventory.nics().await?;
    let nic = choose(&nics, wish, slice.as_ref())?.clone();
    let slice = match slice {
        Some(slice) => Some(joined(host, slice, nic.mac).await?),
        None => None,
    };
    let client = wish.client_id(&host.config().host);
    let mac = match wish.class {
        NicClass::Dedicated => nic.mac,
        NicClass::Shared => MacAddress::local_from(&client),
    };
    let lease = match &slice {
        Some(slice) if slice.spec.addressing.is_some() => {
            Some(lease(host, slice, wish, &client, &nic, mac).await?)
        }
        _ => None,
    };
    let made = interface(host, wish, &nic, mac, slice.as_ref(), lease.clone()).await;
    let written = made.and_then(|interface| {
        prepared.interfaces.push(interface);
        write(host, &prepared)
    });
    if let Err(problem) = written {
        if let Some(lease) = lease {
            give_back(host, &lease, "it could not be prepared").await?;
        }
        return Err(problem);
    }
    Ok(prepared)
}

async fn booked(host: &Host, which: &Which) -> Result<Slice, Problem> {
    let slice = match which {
        Which::Named(name) => host.uplink.slice_by_name(name).await?,
        Which::Agreed(id) => host.uplink.slice(*id).await?,
    };
    let name = &slice.spec.name;
    let committed = slice.status.reservation == Reservation::Committed;
    match committed && slice.booked_at(Timestamp::now()) {
        true => Ok(slice),
        false => Err(Problem::new(
            Kind::StateConflict,
            format!(
                "slice {name} is not booked now ({:?}, {:?}, until {}): reserve it anew with \
                 dtnctl slice reserve",
                slice.status.reservation, slice.status.lifecycle, slice.spec.schedule.end
            ),
        )),
    }
}

fn is_member(slice: &Slice, nic: &Nic) -> bool {
    let id = HostId::untagged(nic.mac);
    let mut members = slice.spec.members.iter();
    members.any(|member| member.host.as_ref() == Some(&id))
}

/// The slice with a NIC in it, by its hardware address. One that the slice was not reserved with joins,
/// also when it has joined before: it goes again by itself when no lease of this host is on it for a
/// while, which may be just now. So there is nothing to undo either when the rest fails.
pub(crate) async fn joined(host: &Host, slice: Slice, nic: MacAddress) -> Result<Slice, Problem> {
    let id = HostId::untagged(nic);
    let mut members = slice.spec.members.iter();
    let stays = members.any(|member| member.host.as_ref() == Some(&id) && !member.joined);
    match stays || !slice.spec.open {
        true => Ok(slice),
        false => host.uplink.put_member(slice.id, &id).await,
    }
}

/// The NIC: the one that was named, else the first by name that is of the class, free, unguarded
/// and a member of the slice; where it is open and none is, one that can become a member.
fn choose<'a>(nics: &'a [Nic], wish: &Wish, slice: Option<&Slice>) -> Result<&'a Nic, Problem> {
    match chosen(nics, wish, slice, false) {
        Err(_) if slice.is_some_and(|slice| slice.spec.open) => chosen(nics, wish, slice, true),
        chosen => chosen,
    }
}

fn chosen<'a>(
    nics: &'a [Nic],
    wish: &Wish,
    slice: Option<&Slice>,
    may_join: bool,
) -> Result<&'a Nic, Problem> {
    let against = |nic: &Nic| -> Vec<String> {
        let mut why = Vec::new();
        match nic.class {
            None => why.push("the site does not give it: add it to the configuration".into()),
            Some(class) if class != wish.class => why.push(format!("it is given as {class}")),
            Some(_) => {}
        }
        why.extend(nic.guarded.iter().cloned());
        let others: Vec<&str> = nic
            .used_by
            .iter()
            .map(String::as_str)
            .filter(|key| *key != wish.key)
            .collect();
        if wish.class == NicClass::Dedicated && !others.is_empty() {
            why.push(format!("{} has it", others.join(", ")));
        }
        if let Some(slice) = slice.filter(|slice| !may_join && !is_member(slice, nic)) {
            let name = &slice.spec.name;
            let spec = &slice.spec;
            let of_two = slice.stitch.is_some()
                || spec.qos.mode == Mode::Pair
                || spec
                    .members
                    .iter()
                    .any(|member| member.border_link.is_some());
            why.push(match of_two {
                true => format!("it is not a member of slice {name}"),
                false => format!(
                    "it is not a member of slice {name}, which is not open: an operator lets it in by \
                     dtnctl slice join {name} NODE/{}",
                    nic.name
                ),
            });
        }
        why
    };
    let mut reasons = Vec::new();
    for nic in nics {
        let named = wish.nic.as_ref().is_none_or(|name| *name == nic.name);
        if !named {
            continue;
        }
        let why = against(nic);
        if why.is_empty() {
            return Ok(nic);
        }
        // hardware that nobody gave is no news when no NIC was named
        if wish.nic.is_some() || nic.class.is_some() {
            reasons.push(format!("{}: {}", nic.name, why.join("; ")));
        }
    }
    let what = match &wish.nic {
        Some(name) if reasons.is_empty() => {
            return Err(Problem::new(
                Kind::NotFound,
                format!("no NIC {name} on this host: dtnctl nics shows them"),
            ));
        }
        Some(name) => format!("NIC {name} cannot be given to the pod"),
        None => format!("no {} NIC is free for the pod", wish.class),
    };
    let problem = Problem::new(Kind::StateConflict, what);
    Ok(reasons
        .into_iter()
        .fold(problem, |problem, why| problem.at("", why)))
    .and_then(Err)
}

/// What each lease of this host says of itself; by the NIC the controller tells several of a node in
/// one slice apart.
pub(crate) fn labels(host: &Host, nic: &IfName) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("node".into(), host.config().host.to_string()),
        ("nic".into(), nic.to_string()),
    ])
}

async fn lease(
    host: &Host,
    slice: &Slice,
    wish: &Wish,
    client: &str,
    nic: &Nic,
    mac: MacAddress,
) -> Result<Lease, Problem> {
    let mut request = LeaseRequest {
        client_id: client.to_owned(),
        mac,
        location: None,
        requested_ips: wish.terms.addresses.clone(),
        lease_seconds: None,
        labels: labels(host, &nic.name),
    };
    let pod = ("pod".to_owned(), wish.pod.name.clone());
    request.labels.extend([pod]);
    host.uplink.lease(slice.id, &request).await
}

async fn interface(
    host: &Host,
    wish: &Wish,
    nic: &Nic,
    mac: MacAddress,
    slice: Option<&Slice>,
    lease: Option<Lease>,
) -> Result<PreparedInterface, Problem> {
    let wanted = slice.and_then(|slice| slice.spec.addressing.as_ref());
    let mtu = wish.terms.mtu.unwrap_or(match (&lease, wanted) {
        (Some(lease), _) => lease.mtu,
        (None, Some(addressing)) => addressing.mtu,
        (None, None) => ETHERNET.min(nic.mtu),
    });
    if wish.class == NicClass::Shared && mtu > nic.mtu {
        return Err(Problem::new(
            Kind::StateConflict,
            format!(
                "an MTU of {mtu} is wanted, and the shared NIC {} has {}: ip link set {} mtu {mtu}",
                nic.name, nic.mtu, nic.name
            ),
        ));
    }
    let unbooked = pacing::best_effort(nic.speed);
    let rate = slice.map_or(unbooked, |slice| {
        pacing::of_slice(slice, Timestamp::now(), unbooked)
    });
    let own = wish.terms.share_bps.map_or(rate, Rate::from_bps).min(rate);
    let profile = profile(host, wish, own, mtu).await?;
    for note in &profile.notes {
        tracing::info!(pod = wish.pod.name, "{note}");
    }
    Ok(PreparedInterface {
        ifname: wish.ifname.clone(),
        network: wish.network.clone(),
        class: wish.class,
        nic_name: nic.name.clone(),
        nic: nic.identity.clone(),
        mac,
        mtu,
        leases: lease.into_iter().collect(),
        slices: slice
            .map(|slice| SliceBinding {
                id: slice.id,
                name: slice.spec.name.clone(),
                class: slice.spec.qos.class,
                rate_bps: rate.bps(),
                ends_at: slice.spec.schedule.end,
                share_bps: wish.terms.share_bps,
            })
            .into_iter()
            .collect(),
        settings: profile.settings.into_iter().map(Into::into).collect(),
        profile: Some(profile.name),
    })
}

async fn profile(
    host: &Host,
    wish: &Wish,
    rate: Rate,
    mtu: u32,
) -> Result<dtn_tuning::Profile, Problem> {
    let reading = |e: dtn_link::Error| {
        Problem::new(
            Kind::Internal,
            format!("reading what sandboxes of this host may be set to: {e}"),
        )
    };
    let own = Netns::current().map_err(reading)?;
    let offered = dtn_tuning::controls(&own).await.map_err(reading)?;
    let path = dtn_tuning::Path {
        rate,
        rtt: host.config().rtt,
        mtu,
        streams: wish.streams,
        memory_limit: wish.memory,
    };
    Ok(dtn_tuning::dtn(
        &path,
        dtn_tuning::CongestionControl::default(),
        &offered,
    ))
}

/// Queues a lease for its way back, and tries at once.
pub(crate) async fn give_back(host: &Host, lease: &Lease, why: &str) -> Result<(), Problem> {
    let release = QueuedRelease {
        version: PREPARED_VERSION,
        lease_id: lease.id,
        slice_id: lease.slice_id,
        client_id: lease.client_id.clone(),
        queued_at: Timestamp::now(),
        reason: why.to_owned(),
    };
    releases::release(host, &release).await
}

/// The prepared file of a key.
pub(crate) fn read(host: &Host, key: &str) -> Result<Option<Prepared>, Problem> {
    let path = host.places.prepared_file(key);
    let broken = |why: &dyn std::fmt::Display| {
        Problem::new(Kind::Internal, format!("reading {}: {why}", path.display()))
    };
    let Some(bytes) = atomic_file::read(&path, LARGEST).map_err(|e| broken(&e))? else {
        return Ok(None);
    };
    let prepared: Prepared = serde_json::from_slice(&bytes).map_err(|e| broken(&e))?;
    match prepared.version > PREPARED_VERSION {
        true => Err(broken(&format!(
            "version {} is newer than this build reads",
            prepared.version
        ))),
        false => Ok(Some(prepared)),
    }
}

/// Writes it, durably.
pub(crate) fn write(host: &Host, prepared: &Prepared) -> Result<(), Problem> {
    let path = host.places.prepared_file(&prepared.key);
    let broken = |why: &dyn std::fmt::Display| {
        Problem::new(Kind::Internal, format!("writing {}: {why}", path.display()))
    };
    let bytes = serde_json::to_vec_pretty(prepared).map_err(|e| broken(&e))?;
    atomic_file::write(&path, &bytes, 0o600).map_err(|e| broken(&e))
}

/// Makes a prepared file true again before it is used once more: a virtual NIC that came home may
/// have another index, and the slice may have another rate by now.
pub(crate) async fn refresh(host: &Host, key: &str) -> Result<(), Problem> {
    let Some(mut prepared) = read(host, key)? else {
        return Ok(());
    };
    let before = prepared.clone();
    let nics = host.inventory.nics().await?;
    let now = Timestamp::now();
    let bindings = before
        .interfaces
        .iter()
        .flat_map(|interface| &interface.slices);
    let view = pacing::known(host, bindings, now).await;
    for interface in &mut prepared.interfaces {
        let there = nics.iter().any(|nic| same(&nic.identity, &interface.nic));
        let by_name = nics.iter().find(|nic| nic.name == interface.nic_name);
        if let Some(nic) = by_name.filter(|_| !there) {
            interface.nic = nic.identity.clone();
        }
        let speed = by_name.and_then(|nic| nic.speed);
        for binding in &mut interface.slices {
            let rate = pacing::wanted(binding, &view, now, speed);
            binding.rate_bps = rate.bps();
        }
    }
    match prepared == before {
        true => Ok(()),
        false => write(host, &prepared),
    }
}

#[cfg(test)]
mod tests;
