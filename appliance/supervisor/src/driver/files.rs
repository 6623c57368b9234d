//! Cases on disk, one file each.

use crate::{
    Places,
    negotiate::{CASE_VERSION, Case},
};
use dtn_api::{Problem, problem::Kind};
use dtn_link::atomic_file;
use std::path::PathBuf;
use uuid::Uuid;

/// Largest such file.
const LARGEST: u64 = 256 << 10;

fn file(places: &Places, id: Uuid) -> PathBuf {
    places.negotiations().join(format!("{id}.json"))
}
fn broken(path: &std::path::Path, why: impl std::fmt::Display) -> Problem {
    Problem::new(Kind::Internal, format!("{}: {why}", path.display()))
}

/// The reason names the file.
fn unkept(why: impl std::fmt::Display) -> Problem {
    Problem::new(Kind::Internal, format!("keeping a negotiation: {why}"))
}

pub(super) fn write(places: &Places, case: &Case) -> Result<(), Problem> {
    let path = file(places, case.id);
    let bytes = serde_json::to_vec_pretty(case).map_err(|e| broken(&path, e))?;
    atomic_file::write(&path, &bytes, 0o600).map_err(unkept)
}

pub(super) async fn write_async(places: &Places, case: &Case) -> Result<(), Problem> {
    let (places, case) = (places.clone(), case.clone());
    tokio::task::spawn_blocking(move || write(&places, &case))
        .await
        .map_err(unkept)?
}

pub(super) fn remove(places: &Places, id: Uuid) -> Result<(), Problem> {
    let path = file(places, id);
    atomic_file::remove(&path).map_err(unkept)
}

/// Every case. One that cannot be read is an error: what it held would stay booked.
pub(super) fn load(places: &Places) -> Result<Vec<Case>, Problem> {
    let folder = places.negotiations();
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(|e| broken(&folder, e))? {
        let path = entry.map_err(|e| broken(&folder, e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if atomic_file::is_temporary(&name) || !name.ends_with(".json") {
            continue;
        }
        let Some(bytes) = atomic_file::read(&path, LARGEST).map_err(|e| broken(&path, e))? else {
            continue;
        };
        let case: Case = serde_json::from_slice(&bytes).map_err(|e| broken(&path, e))?;
        if case.version > CASE_VERSION {
            let why = format!("version {} is newer than this build reads", case.version);
            return Err(broken(&path, why));
        }
        cases.push(case);
    }
    cases.sort_by_key(|case| case.id);
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtn_api::{Span, local::Ask, nic::NicClass, slice::Class};

    #[test]
    fn what_is_written_is_found_and_a_newer_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::new(dir.path());
        places.create().unwrap();
        let ask = Ask {
            name: "a".parse().unwrap(),
            tenant: dtn_api::slice::default_tenant(),
            class: Class::Guaranteed,
            rate: None,
            min_rate: None,
            start: None,
            duration: Span::from_secs(60),
            nic: None,
            nic_class: NicClass::Dedicated,
            remote: None,
            gateway: None,
            wait: Span::default(),
            dry_run: false,
        };
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let (mut case, _) = Case::open(Uuid::from_u128(1), ask, now);
        write(&places, &case).unwrap();
        assert_eq!(load(&places).unwrap(), [case.clone()]);
        case.version = CASE_VERSION + 1;
        write(&places, &case).unwrap();
        assert!(load(&places).unwrap_err().detail.contains("newer"));
        remove(&places, case.id).unwrap();
        remove(&places, case.id).unwrap();
        assert!(load(&places).unwrap().is_empty());
    }
}
