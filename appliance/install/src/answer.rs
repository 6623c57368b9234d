//! The first test of an installation: the daemon answers on its socket, as the version that was put
//! in, and says what it has checked.

use crate::command::may;
use anyhow::{Context, Result, bail};
use dtn_api::{
    DTND_SOCKET, LOCAL_BASE, Name,
    client::Client,
    local::{Pod, Status},
    slice::List,
};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// Longest time from its start until it answers: it takes an inventory first.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// Waits until `dtnd` answers as this version.
pub(crate) fn wait(version: &str) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let problem = match status() {
            Ok(status) if status.version == version => return Ok(()),
            Ok(status) => format!("it answers as version {}", status.version),
            Err(e) => format!("{e:#}"),
        };
        let failed = may("systemctl", &["is-failed", "--quiet", "dtnd.service"]).is_some();
        if failed || Instant::now() > end {
            bail!(
                "dtnd does not answer as version {version}: {problem}; it said last: {}",
                last_words()
            );
        }
        std::thread::sleep(PAUSE);
    }
}

/// What `dtnd` says of itself.
pub(crate) fn status() -> Result<Status> {
    let (runtime, client) = reach()?;
    runtime
        .block_on(client.get(&format!("{LOCAL_BASE}/status")))
        .with_context(|| format!("asking dtnd on {DTND_SOCKET}"))
}

/// The pods that `dtnd` runs.
pub(crate) fn pods() -> Result<Vec<Pod>> {
    let (runtime, client) = reach()?;
    let list: List<Pod> = runtime
        .block_on(client.get(&format!("{LOCAL_BASE}/pods")))
        .context("asking dtnd for its pods")?;
    Ok(list.items)
}

/// Lets `dtnd` end a pod.
pub(crate) fn end_pod(name: &Name) -> Result<()> {
    let (runtime, client) = reach()?;
    runtime
        .block_on(client.delete(&format!("{LOCAL_BASE}/pods/{name}"), None))
        .with_context(|| format!("ending the pod {name}"))
}

fn reach() -> Result<(tokio::runtime::Runtime, Client)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let client = Client::unix(Path::new(DTND_SOCKET), Duration::from_secs(120))?;
    Ok((runtime, client))
}

fn last_words() -> String {
    let said = may(
        "journalctl",
        &["-u", "dtnd.service", "-n", "8", "-o", "cat", "--no-pager"],
    );
    let said = said.unwrap_or_else(|| "nothing that could be read".into());
    said.lines().collect::<Vec<_>>().join("; ")
}
