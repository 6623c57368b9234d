//! An ONOS at each site, between its controller and its switches: one that the lab starts, or one that
//! is there already ([`given`], reached through a [`doorway`]).
//!
//! ```text
//! vdnd ── 127.0.0.1:8181 ─┐                         ┌─ core, in the site's host      (when the lab starts it)
//!                         ├─ of the site's host ────┤
//! switches ─ 10.254.0.1x:6653 ─┘                    └─ doorway ═ sockets of files ═ ONOS of the machine (--onos)
//! ```
//!
//! Either way the controller and the switches find it at the same addresses.

pub mod doorway;
pub mod given;
pub mod hosts;

use crate::{
    Options,
    daemons::Daemons,
    pillar::{Pillar, Watch},
    place::{Place, SITES},
    site::Site,
};
use anyhow::{Context, Result, bail};
use dtn_api::{VDN_BASE, fabric::FabricStatus};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

/// TCP port of ONOS's REST on the host's loopback.
pub const REST_PORT: u16 = 8181;
/// The most bytes of memory that a core takes: its heap and what Java needs beside it.
pub const MEMORY: u64 = 600 << 20;
/// Longest time until a core serves and has its site's switches: 16 s for one alone on two processors,
/// over a minute where a cluster starts beside each of two.
const PATIENCE: Duration = Duration::from_secs(240);
/// Longest time until an ONOS that stays has taken everything out of its switches again.
const EMPTYING: Duration = Duration::from_secs(30);

/// What is wanted of ONOS, where the fabric is `onos`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnosOptions {
    /// Folder where a core was put together (`tests/onos-core/make`).
    pub core: PathBuf,
    /// Those that are there already: one for both sites, or one for each. Without any the lab starts
    /// a core at each site.
    pub given: Vec<given::Given>,
}
impl OnosOptions {
    /// The one that is there already for a site.
    pub fn for_site(&self, site: usize) -> Option<&given::Given> {
        self.given.get(site).or(self.given.first())
    }
    /// What the fabric runs on, in words for the report.
    pub fn label(&self) -> String {
        if self.given.is_empty() {
            return "ONOS 2.5 core with a test southbound".into();
        }
        let urls: Vec<_> = self.given.iter().map(|given| given.url.as_str()).collect();
        format!("ONOS at {}", urls.join(" and "))
    }
}

/// Folder of a site's ONOS while the lab is up: credentials, and the core's files or the doorway's
/// sockets.
pub fn folder(place: &Place, site: usize) -> PathBuf {
    place.run().join(format!("{}-onos", SITES[site]))
}

/// The line `USER:PASSWORD`, mode 0600. A core that the lab starts makes its own.
pub fn credentials(place: &Place, site: usize) -> PathBuf {
    folder(place, site).join("credentials")
}

/// `[fabric]` of a site's `appliance.toml`.
pub fn fabric_table(place: &Place, site: usize) -> String {
    format!(
        r#"
[fabric]
kind = "onos"
url = "http://127.0.0.1:{REST_PORT}"
credentials-file = "{}"
# one for each controller: both sites may have the same ONOS
app-id = "org.dtn.vdn.{}"
"#,
        credentials(place, site).display(),
        SITES[site]
    )
}

/// The program of a core that was put together.
pub fn program(core: &Path) -> PathBuf {
    core.join("run")
}

/// Starts a site's core, or the site's end of the doorway to one that is there already. A core serves
/// some 20 s later; nobody waits for that here.
pub fn start(
    site: &Site,
    place: &Place,
    options: &Options,
    lab: &Path,
    watch: &Watch,
) -> Result<Pillar> {
    let log = place.log(&format!("{}-onos", site.name));
    let file = fs::File::create(&log).with_context(|| format!("opening {}", log.display()))?;
    let again = file
        .try_clone()
        .with_context(|| format!("opening {}", log.display()))?;
    let mut command = if options.onos.given.is_empty() {
        let mut command = site.command(program(&options.onos.core));
        command
            .arg(&options.onos.core)
            .arg(folder(place, site.index))
            // the machine's own settings are for other programs
            .env_remove("JAVA_OPTS");
        command
    } else {
        let mut command = site.command(lab);
        command
            .args(["lab", "part", "doorway", "--site", site.name, "--state"])
            .arg(place.state());
        command
    };
    let child = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(again)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting the ONOS of {}", site.name))?;
    Ok(watch.over(format!("ONOS of {}", site.name), &log, child))
}

/// Waits until every site's controller has its switches through ONOS.
pub async fn connected(all: &[Daemons]) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    for daemons in all {
        loop {
            // a controller that is asked while it reads from ONOS answers when that is done
            let why = match daemons
                .vdn
                .get::<FabricStatus>(&format!("{VDN_BASE}/fabric"))
                .await
            {
                Ok(status) => match status.trouble {
                    None => break,
                    Some(trouble) => trouble,
                },
                Err(error) if error.retryable() => error.to_string(),
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("asking {} for its fabric", daemons.site));
                }
            };
            if Instant::now() >= end {
                bail!(
                    "{} has not its switches through ONOS after {} s: {why}",
                    daemons.site,
                    PATIENCE.as_secs()
                );
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}

/// Waits until an ONOS that stays has nothing of the sites' slices any more; in words what it has
/// still, when it takes too long. A core of the lab's own forgets everything anyway.
pub async fn emptied(options: &Options, all: &[Daemons]) -> Option<String> {
    if options.onos.given.is_empty() {
        return None;
    }
    let end = Instant::now() + EMPTYING;
    let mut left = Vec::new();
    for daemons in all {
        loop {
            let status = daemons
                .vdn
                .get::<FabricStatus>(&format!("{VDN_BASE}/fabric"))
                .await;
            let rules = status.map(|status| {
                let each = status.switches.iter();
                // the controller's mark stays
                each.map(|switch| switch.rules.saturating_sub(1) + switch.meters)
                    .sum::<u64>()
            });
            match rules {
                Ok(0) => break,
                _ if Instant::now() >= end => {
                    left.push(daemons.site);
                    break;
                }
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }
    (!left.is_empty()).then(|| {
        let apps: Vec<_> = left
            .iter()
            .map(|site| format!("org.dtn.vdn.{site}"))
            .collect();
        format!(
            "ONOS has rules or meters of {} still: delete its flows under {}",
            left.join(" and "),
            apps.join(" and ")
        )
    })
}

#[cfg(test)]
mod tests;
