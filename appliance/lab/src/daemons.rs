//! The appliance's own daemons at each site: configured by files like those that an admin would
//! write, started on the site's host, and joined by the verbs that an admin would use.

use crate::{
    Options, cluster, engine, gateway, onos,
    options::{EngineKind, Fabric},
    pillar::{Pillar, Watch},
    place::{Place, SITES},
    site::{self, Site, management_v4},
    switches,
};
use anyhow::{Context, Result, bail};
use dtn_api::{
    LOCAL_BASE, Name, Span, VDN_BASE,
    client::{Client, ClientError},
    domain::{Accept, Domain, Invitation, InviteKind, InviteRequest},
    host::Host,
    local::{Join, Status},
    slice::List,
};
use ipnet::IpNet;
use std::{
    fmt::Write,
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

/// The host's name in each domain; its NICs are `dtn1/data0` and on.
pub const HOST: &str = "dtn1";
/// Longest time for one answer.
const ANSWER: Duration = Duration::from_secs(90);
/// Longest time until a daemon serves, or until two domains know each other's hosts.
const PATIENCE: Duration = Duration::from_secs(60);

/// The two daemons of a site.
pub struct Daemons {
    /// The site.
    pub site: &'static str,
    /// The controller's API, as root on the host.
    pub vdn: Client,
    /// The supervisor's API.
    pub dtn: Client,
    vdnd: Pillar,
    dtnd: Pillar,
}

impl Daemons {
    /// Kills the supervisor: a fault that is wanted.
    pub fn kill_supervisor(&self) -> Result<()> {
        self.dtnd.signal(nix::sys::signal::Signal::SIGKILL)
    }
    /// Asks both to end and waits for that.
    pub async fn stop(self) -> Result<()> {
        self.dtnd.stop().await?;
        self.vdnd.stop().await
    }
}

/// What a domain gives its slices addresses from; each domain has its own.
pub fn pools(index: usize) -> [IpNet; 2] {
    let (v4, v6) = if index == 0 { (20, 0x20) } else { (21, 0x21) };
    [
        IpNet::new_assert(Ipv4Addr::new(10, v4, 0, 0).into(), 16),
        IpNet::new_assert(Ipv6Addr::new(0xfd00, v6, 0, 0, 0, 0, 0, 0).into(), 48),
    ]
}

/// The domain's part of a site's `/etc/dtn/appliance.toml`.
pub fn vdnd_toml(options: &Options, index: usize) -> String {
    let (site, peer) = (SITES[index], SITES[1 - index]);
    let switched = options.fabric.switched();
    let at = if switched {
        format!("at = \"{}\"\n", switches::border_place())
    } else {
        String::new()
    };
    let [ipv4, ipv6] = pools(index);
    let mut text = format!(
        r#"# The VDN controller of the simulated domain {site}.
version = 1

[domain]
name = "{site}"

[listen]
address = "{address}:8443"

[[border]]
name = "wan"
peer-domain = "{peer}"
peer-ref = "wan"
capacity = "{capacity}"
latency = "{latency}ms"
mtu = {mtu}
{at}
[addresses]
ipv4 = "{ipv4}"
ipv6 = "{ipv6}"
lease = "1h"
"#,
        address = management_v4(index),
        capacity = options.wan,
        latency = options.rtt.millis() / 2,
        mtu = options.mtu
    );
    text += &match options.fabric {
        Fabric::Edge => String::new(),
        Fabric::Openflow => switches::fabric_table(management_v4(index)),
        Fabric::Onos => onos::fabric_table(&Place::new(&options.state), index),
    };
    if switched {
        text += &switches::vdnd_tables(options, index, HOST);
    }
    text
}

/// The host's part of a site's `/etc/dtn/appliance.toml`.
pub fn dtnd_toml(options: &Options, index: usize, root: &Path) -> String {
    let engine = match options.engine {
        EngineKind::Podman => format!("[podman]\nsocket = \"{}\"", engine::socket(root).display()),
        EngineKind::Kubernetes => {
            let folder = cluster::folder(&Place::new(&options.state), SITES[index]);
            let kubeconfig = cluster::objects::agent(&folder);
            format!("[kubernetes]\nkubeconfig = \"{}\"", kubeconfig.display())
        }
    };
    let mut text = format!(
        r#"
# The supervisor of a simulated host.
[host]
name = "{HOST}"

{engine}

[cni]
bin-dir = "{}"

[workloads]
dir = "{}"

[data]
dir = "{}"

[tuning]
rtt = "{}"
"#,
        options.bin_dir.display(),
        options.share.join("dtn-workloads").display(),
        root.join("srv/dtn").display(),
        options.rtt.max(Span::from_millis(1))
    );
    for nic in 0..options.nics {
        // a veth tells 10 Gb/s by itself; an admin would still write it down
        let _ = write!(
            text,
            "\n[[nic]]\nname = \"data{nic}\"\nclass = \"{}\"\nspeed = \"10Gbit\"\nshare-with = \"federation\"\n",
            options.nic
        );
    }
    text + &gateway::nic_tables() + &gateway::gateway_table(index)
}

/// Writes the file, starts both daemons, and waits until they answer.
pub async fn start(
    site: &Site,
    place: &Place,
    options: &Options,
    watch: &Watch,
) -> Result<Daemons> {
    let root = place.root(site.name);
    let folder = root.join("etc/dtn");
    for folder in [&folder, &root.join("srv/dtn")] {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let file = write(site, options, &root)?;
    let (vdnd, vdn) = one(
        site,
        "vdnd",
        &file,
        dtn_api::VDND_SOCKET,
        place,
        options,
        watch,
    )
    .await?;
    let (dtnd, dtn) = one(
        site,
        "dtnd",
        &file,
        dtn_api::DTND_SOCKET,
        place,
        options,
        watch,
    )
    .await?;
    Ok(Daemons {
        site: site.name,
        vdn,
        dtn,
        vdnd,
        dtnd,
    })
}

/// Writes a site's file, which both of its daemons read.
fn write(site: &Site, options: &Options, root: &Path) -> Result<PathBuf> {
    let file = root.join(dtn_api::CONFIG_FILE.trim_start_matches('/'));
    let text = vdnd_toml(options, site.index) + &dtnd_toml(options, site.index, root);
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}

/// Starts a site's supervisor again, with the file that it had.
pub async fn supervise_again(
    site: &Site,
    place: &Place,
    options: &Options,
    watch: &Watch,
) -> Result<Pillar> {
    let root = place.root(site.name);
    let file = write(site, options, &root)?;
    let (again, _) = one(
        site,
        "dtnd",
        &file,
        dtn_api::DTND_SOCKET,
        place,
        options,
        watch,
    )
    .await?;
    Ok(again)
}

async fn one(
    site: &Site,
    name: &str,
    config: &Path,
    socket: &str,
    place: &Place,
    options: &Options,
    watch: &Watch,
) -> Result<(Pillar, Client)> {
    let root = place.root(site.name);
    let log = place.log(&format!("{}-{name}", site.name));
    // one that is started again goes on in the same log
    let file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .with_context(|| format!("opening {}", log.display()))?;
    let again = file
        .try_clone()
        .with_context(|| format!("opening {}", log.display()))?;
    let child = site
        .command(options.program(name))
        .arg("--root")
        .arg(&root)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(again)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {name} of {}", site.name))?;
    let pillar = watch.over(format!("{name} of {}", site.name), &log, child);
    let client = Client::unix(&root.join(socket.trim_start_matches('/')), ANSWER)?;
    let end = Instant::now() + PATIENCE;
    loop {
        let served = match name {
            "vdnd" => client
                .get::<List<Domain>>(&format!("{VDN_BASE}/domains"))
                .await
                .map(|_| ()),
            _ => client
                .get::<Status>(&format!("{LOCAL_BASE}/status"))
                .await
                .map(|_| ()),
        };
        let Err(error) = served else {
            return Ok((pillar, client));
        };
        if Instant::now() >= end {
            bail!(
                "{name} of {} does not serve after {} s: {error}; its log is {}",
                site.name,
                PATIENCE.as_secs(),
                log.display()
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Enrols each host in its domain and federates the two domains: `host invite|join`,
/// `domain invite|accept`.
pub async fn join(all: &[Daemons], nics: u32) -> Result<()> {
    let name = |text: &str| {
        text.parse::<Name>()
            .with_context(|| format!("the name {text:?}"))
    };
    for daemons in all {
        let invitation = invite(&daemons.vdn, InviteKind::Host, name(HOST)?).await?;
        daemons
            .dtn
            .post::<_, serde_json::Value>(&format!("{LOCAL_BASE}/join"), &Join { invitation })
            .await
            .with_context(|| format!("enrolling {HOST} in {}", daemons.site))?;
    }
    // a domain that knows its NICs already tells them with the first word to the other
    for daemons in all {
        let declared = || async {
            let hosts: List<Host> = daemons.vdn.get(&format!("{VDN_BASE}/hosts")).await?;
            let all = site::plugs(nics).iter().all(|(nic, _)| {
                let mut known = hosts.items.iter().map(|host| host.spec.nic.as_str());
                known.any(|known| known == nic)
            });
            Ok(all.then_some(()))
        };
        until(
            &format!("{} knows the NICs of its host", daemons.site),
            declared,
        )
        .await?;
    }
    let [first, second] = all else {
        bail!("{} sites are up, and two are federated", all.len())
    };
    let invitation = invite(&first.vdn, InviteKind::Domain, name(second.site)?).await?;
    second
        .vdn
        .post::<_, serde_json::Value>(&format!("{VDN_BASE}/domains"), &Accept { invitation })
        .await
        .with_context(|| format!("{} accepts the invitation of {}", second.site, first.site))?;
    // each must have heard of the other's NICs before a slice can be asked for between them
    for (daemons, peer) in [(first, second.site), (second, first.site)] {
        let heard = || async {
            let domain: Domain = daemons
                .vdn
                .get(&format!("{VDN_BASE}/domains/{peer}"))
                .await?;
            let known = domain
                .document
                .map_or(0, |document| document.shared_hosts.len());
            Ok((known >= nics as usize).then_some(()))
        };
        until(&format!("{} knows the NICs of {peer}", daemons.site), heard).await?;
    }
    Ok(())
}

/// Asks again and again until there is something; an answer that fails for good ends it.
pub async fn until<T, F: Future<Output = Result<Option<T>, ClientError>>>(
    what: &str,
    ask: impl Fn() -> F,
) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(Some(found)) => return Ok(found),
            Err(error) if !error.retryable() => {
                return Err(error).with_context(|| format!("waiting until {what}"));
            }
            other if Instant::now() >= end => {
                let last = other
                    .err()
                    .map(|error| format!(": {error}"))
                    .unwrap_or_default();
                bail!("waited {} s until {what}{last}", PATIENCE.as_secs());
            }
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn invite(vdn: &Client, kind: InviteKind, name: Name) -> Result<Invitation> {
    let request = InviteRequest {
        kind,
        name: name.clone(),
        valid_seconds: 600,
    };
    vdn.post(&format!("{VDN_BASE}/invitations"), &request)
        .await
        .with_context(|| format!("inviting {name}"))
}

#[cfg(test)]
mod tests;
