//! Gives back what was prepared of one interface, whatever of it is there. The caller keeps others
//! from preparing meanwhile.

use super::prepare;
use crate::Host;
use dtn_api::{
    IfName, Problem,
    attachment::{PodIdentity, PreparedInterface},
    lease::LeaseState,
    problem::Kind,
};

/// Takes an interface of this network out of the pod's prepared file and queues its leases for their
/// way back. `kept` is what somebody remembers of it, where the file is gone. Success when there is
/// nothing.
pub(crate) async fn interface(
    host: &Host,
    pod: &PodIdentity,
    ifname: &IfName,
    network: &str,
    kept: Option<&PreparedInterface>,
    why: &str,
) -> Result<(), Problem> {
    let mut prepared = prepare::read(host, &pod.uid)?;
    let is_it = |other: &PreparedInterface| other.ifname == *ifname && other.network == network;
    let there = prepared
        .as_ref()
        .and_then(|prepared| prepared.interfaces.iter().find(|other| is_it(other)))
        .cloned();
    match there.as_ref().or(kept) {
        Some(interface) => {
            for lease in &interface.leases {
                prepare::give_back(host, lease, why).await?;
            }
        }
        // we may have been killed between the lease and the file
        None => lost_leases(host, pod, ifname, why).await?,
    }
    let Some(prepared) = prepared.as_mut().filter(|_| there.is_some()) else {
        return Ok(());
    };
    prepared.interfaces.retain(|other| !is_it(other));
    if !prepared.interfaces.is_empty() {
        return prepare::write(host, prepared);
    }
    let path = host.places.prepared_file(&pod.uid);
    dtn_link::atomic_file::remove(&path).map_err(|e| {
        let why = format!("removing {}: {e}", path.display());
        Problem::new(Kind::Internal, why)
    })
}

/// Gives back the leases that the controller has for this client. One that is not found now runs out
/// by itself.
async fn lost_leases(
    host: &Host,
    pod: &PodIdentity,
    ifname: &IfName,
    why: &str,
) -> Result<(), Problem> {
    if host.uplink.identity().is_none() {
        return Ok(());
    }
    let client = prepare::client_id(&pod.engine, &host.config().host, &pod.uid, ifname);
    let leases = match host.uplink.leases().await {
        Ok(leases) => leases,
        Err(problem) => {
            tracing::info!(client, "looking for its leases: {problem}");
            return Ok(());
        }
    };
    for lease in leases.iter().filter(|lease| lease.client_id == client) {
        if lease.state == LeaseState::Bound {
            prepare::give_back(host, lease, why).await?;
        }
    }
    Ok(())
}
