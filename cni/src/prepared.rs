//! What was prepared for a pod, as the plugins read it, and who has to give it back.
//!
//! The supervisor writes the file. What it prepared for a claim, or for a pod that it runs itself, is
//! its own to give back, and lives longer than one sandbox. What a plugin asked for during ADD ends
//! with that ADD's interface: nobody else would ever hear that it is of no use any more. So DEL queues
//! its leases and strikes it from the file, with or without a supervisor; whoever does so holds the
//! pod's lock, under which it was asked for too.

use crate::{
    conf::Places,
    error::{CniError, Code},
    record::LeaseMark,
};
use dtn_api::{
    IfName,
    attachment::{PREPARED_VERSION, Prepared, PreparedInterface, file_name},
    cluster,
};
use dtn_link::atomic_file;
use std::path::PathBuf;

/// Longest prepared file that is read.
const LONGEST: u64 = 1 << 20;

/// The prepared file of a key.
pub(crate) fn file(places: &Places, key: &str) -> PathBuf {
    places.prepared().join(file_name(key))
}

/// What was prepared for a key; `None` when nothing was.
pub fn read(places: &Places, key: &str) -> Result<Option<Prepared>, CniError> {
    let file = file(places, key);
    let Some(bytes) = atomic_file::read(&file, LONGEST)? else {
        return Ok(None);
    };
    let doing = || format!("reading what was prepared, {}", file.display());
    let prepared: Prepared = serde_json::from_slice(&bytes)
        .map_err(|e| CniError::new(Code::Io, doing(), e.to_string()))?;
    if prepared.version > PREPARED_VERSION {
        let details = format!(
            "its version is {}, this build knows {PREPARED_VERSION}",
            prepared.version
        );
        return Err(CniError::new(Code::Io, doing(), details));
    }
    Ok(Some(prepared))
}

/// Whether it was prepared for a claim of a cluster's pod.
pub fn is_of_a_claim(prepared: &Prepared, interface: &PreparedInterface) -> bool {
    prepared.pod.engine == cluster::ENGINE && interface.network == cluster::NETWORK
}

/// Whether a plugin asked for it during ADD.
pub fn was_asked_for(prepared: &Prepared, interface: &PreparedInterface) -> bool {
    prepared.pod.engine == cluster::ENGINE && interface.network != cluster::NETWORK
}

/// Whether the leases of an interface outlive it: they are the claim's, and the next sandbox of the
/// pod gets the same. A file that cannot be read keeps none.
pub(crate) fn keeps_leases(places: &Places, key: &str, name: &IfName) -> bool {
    match read(places, key) {
        Ok(Some(prepared)) => {
            let mut all = prepared.interfaces.iter();
            all.any(|interface| interface.ifname == *name && is_of_a_claim(&prepared, interface))
        }
        Ok(None) => false,
        Err(e) => {
            tracing::warn!("{e}");
            false
        }
    }
}

/// Takes an interface that was asked for during ADD out of the file; what is somebody else's to give
/// back stays. The caller holds the pod's lock, and has queued its leases ([`asked_for`]).
pub(crate) fn strike(places: &Places, key: &str, name: &IfName) -> Result<(), CniError> {
    let Some(mut prepared) = read(places, key)? else {
        return Ok(());
    };
    let before = prepared.interfaces.len();
    let kept: Vec<_> = prepared
        .interfaces
        .iter()
        .filter(|interface| interface.ifname != *name || !was_asked_for(&prepared, interface))
        .cloned()
        .collect();
    if kept.len() == before {
        return Ok(());
    }
    prepared.interfaces = kept;
    let file = file(places, key);
    if prepared.interfaces.is_empty() {
        return Ok(atomic_file::remove(&file)?);
    }
    let json = serde_json::to_vec_pretty(&prepared)
        .map_err(|e| CniError::internal(format!("writing {}", file.display()), e))?;
    Ok(atomic_file::write(&file, &json, 0o600)?)
}

/// The leases of an interface that was asked for during ADD; `None` when it was not.
pub(crate) fn asked_for(
    places: &Places,
    key: &str,
    name: &IfName,
) -> Result<Option<Vec<LeaseMark>>, CniError> {
    let Some(prepared) = read(places, key)? else {
        return Ok(None);
    };
    let asked = prepared
        .interfaces
        .iter()
        .find(|interface| interface.ifname == *name && was_asked_for(&prepared, interface));
    Ok(asked.map(|interface| interface.leases.iter().map(LeaseMark::of).collect()))
}
