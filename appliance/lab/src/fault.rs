//! A fault that is wanted: the sending site's supervisor is killed while files move. The transfer
//! goes on without it, and started again it knows pod, leases and slice as before.

use crate::{
    capsule::Lab,
    daemons::{self, Daemons, until},
    load,
    options::EngineKind,
    pillar::Pillar,
    scenario::{POD, SLICE},
    transfer::End,
};
use anyhow::{Context, Result, ensure};
use dtn_api::{
    LOCAL_BASE, Rate,
    local::{LocalSlice, Pod, PodPhase},
};
use serde_json::Value;
use std::time::Duration;

/// Bytes at the far end from which on files are moving for sure.
const MOVING: u64 = 16 << 20;

/// What a supervisor knows of the run.
#[derive(Debug, PartialEq)]
pub struct Known {
    /// UID, addresses and rate of its pod; in a cluster it is the kubelet that knows pods.
    pod: Option<(String, Vec<String>, Option<Rate>)>,
    leases: Vec<String>,
    slice: String,
}

/// Asks a supervisor what it knows; `None` while its pod does not run.
async fn ask(
    daemons: &Daemons,
    engine: EngineKind,
) -> Result<Option<Known>, dtn_api::client::ClientError> {
    let mut known = None;
    if engine == EngineKind::Podman {
        let pod: Pod = daemons.dtn.get(&format!("{LOCAL_BASE}/pods/{POD}")).await?;
        if pod.phase != PodPhase::Running {
            return Ok(None);
        }
        let ips = pod.interfaces.iter().flat_map(|one| one.ips.clone());
        let rate = pod.interfaces.first().and_then(|one| one.rate);
        known = Some((pod.uid.clone(), ips.collect(), rate));
    }
    let slice: LocalSlice = daemons
        .dtn
        .get(&format!("{LOCAL_BASE}/slices/{SLICE}"))
        .await?;
    let leases: Value = daemons.dtn.get(&format!("{LOCAL_BASE}/leases")).await?;
    let mut ids = Vec::new();
    lease_ids(&leases, &mut ids);
    ids.sort();
    Ok(Some(Known {
        pod: known,
        leases: ids,
        slice: slice.slice.id.to_string(),
    }))
}

/// Ids of leases wherever they stand in the answer.
fn lease_ids(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(all) => all.iter().for_each(|one| lease_ids(one, found)),
        Value::Object(fields) => match (
            fields.get("client_id"),
            fields.get("id").and_then(Value::as_str),
        ) {
            (Some(_), Some(id)) => found.push(id.to_owned()),
            _ => fields.values().for_each(|one| lease_ids(one, found)),
        },
        _ => {}
    }
}

/// What the supervisor knows before it is killed.
pub async fn before(daemons: &Daemons, engine: EngineKind) -> Result<Known> {
    let known = until("the supervisor knows its pod", || ask(daemons, engine)).await?;
    ensure!(
        !known.leases.is_empty(),
        "{} knows of no lease while its pod runs",
        daemons.site
    );
    Ok(known)
}

/// Kills the supervisor once files arrive at the far end.
pub async fn kill_while_files_move(daemons: &Daemons, to: &End<'_>) -> Result<()> {
    let [start, _] = load::link_bytes(to.pod.pid, &to.pod.ifname)?;
    while load::link_bytes(to.pod.pid, &to.pod.ifname)?[0].saturating_sub(start) < MOVING {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    daemons
        .kill_supervisor()
        .with_context(|| format!("killing dtnd of {}", daemons.site))
}

/// Starts the supervisor again and holds what it knows against what it knew.
pub async fn after(lab: &Lab, index: usize, known: &Known) -> Result<Pillar> {
    let daemons = lab.daemons.get(index).context("no such site")?;
    let site = lab.sites.get(index).context("no such site")?;
    let again = daemons::supervise_again(site, &lab.place, &lab.options, &lab.watch).await?;
    let now = until("the supervisor knows its pod again", || {
        ask(daemons, lab.options.engine)
    })
    .await?;
    ensure!(
        now == *known,
        "dtnd of {} was killed, and started again it knows {now:?}, where it knew {known:?}",
        site.name
    );
    Ok(again)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_found_in_a_list_however_it_is_wrapped() {
        let lease = serde_json::json!({"id": "a", "client_id": "x", "slice_id": "s"});
        for answer in [
            serde_json::json!([lease]),
            serde_json::json!({"items": [lease]}),
            serde_json::json!([{"lease": lease}]),
        ] {
            let mut found = Vec::new();
            lease_ids(&answer, &mut found);
            assert_eq!(found, ["a"], "{answer}");
        }
    }
}
