//! The verbs of a run, in the order in which an operator would use them: reserve, read back, deploy,
//! and at the end undeploy and give back. All over the daemons' own local APIs.

use crate::{
    Options,
    daemons::{Daemons, HOST, until},
    place::Place,
};
use anyhow::{Context, Result, bail, ensure};
use dtn_api::{
    IfName, LOCAL_BASE, Name, Rate, Span,
    client::Client,
    local::{Ask, DeployRequest, LocalSlice, Negotiation, NegotiationState, Pod, PodPhase},
    nic::NicClass,
    slice::{DataPlane, RemoteEnd, Reservation},
};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};
use tokio_util::task::AbortOnDropHandle;

/// Name of the slice, the same in both domains.
pub const SLICE: &str = "lab";
/// Name of the pod at each site.
pub const POD: &str = "transfer";
/// The template that it is made from.
pub const TEMPLATE: &str = "xrootd";
/// The pod's user and group, of the template.
pub const UID: u32 = 1094;
/// TCP port of the pod's server, of the template.
pub const PORT: u16 = 1094;
/// How long the slice is reserved: longer than any run's deadline.
const DURATION: Span = Span::from_secs(6 * 3600);
/// A negotiation that has not come to an end by then is one that hangs.
const NEGOTIATION: Duration = Duration::from_secs(120);

/// Between two looks for an active data plane.
const LOOK: Duration = Duration::from_millis(10);

/// What was agreed.
pub struct Agreed {
    /// Frame rate, as both domains say it.
    pub rate: Rate,
    /// Which end or link set it.
    pub limited_by: String,
    /// What TCP can carry in it, as the supervisor says.
    pub ceiling: Rate,
    /// When it was asked for.
    pub asked: Instant,
}

pub(crate) fn name<T: std::str::FromStr>(text: &str) -> Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().with_context(|| format!("the name {text:?}"))
}

/// What is asked of the first site's supervisor.
pub fn ask(options: &Options, peer: &str) -> Result<Ask> {
    Ok(Ask {
        name: name(SLICE)?,
        tenant: dtn_api::slice::default_tenant(),
        class: options.class,
        rate: options.rate,
        min_rate: options.min_rate,
        start: None,
        duration: DURATION,
        nic: Some(name::<IfName>("data0")?),
        nic_class: options.nic,
        gateway: None,
        remote: Some(RemoteEnd {
            domain: name(peer)?,
            endpoint: Some(format!("{HOST}/data0")),
            border_link: Some(name("wan")?),
        }),
        wait: Span::default(),
        dry_run: false,
    })
}

/// Negotiates and reserves the slice end to end, then reads it back on both sides.
pub async fn reserve(all: &[Daemons], options: &Options) -> Result<Agreed> {
    let [first, second] = all else {
        bail!("{} sites are up, and two are needed", all.len())
    };
    let asked = Instant::now();
    let settled = negotiate(first, &ask(options, second.site)?).await?;
    let (near, far) = (read_back(first).await?, read_back(second).await?);
    for (daemons, slice) in [(first, &near), (second, &far)] {
        ensure!(
            slice.slice.status.reservation == Reservation::Committed,
            "{} says that the slice is {:?}, and it was agreed",
            daemons.site,
            slice.slice.status.reservation
        );
    }
    let (here, there) = (near.slice.spec.qos.rate_bps, far.slice.spec.qos.rate_bps);
    ensure!(
        here == there,
        "the two domains do not say the same rate: {here} and {there} bit/s"
    );
    ensure!(
        near.slice.stitch.is_some() && near.slice.stitch == far.slice.stitch,
        "the two slices are not of one stitch: {:?} and {:?}",
        near.slice.stitch,
        far.slice.stitch
    );
    Ok(Agreed {
        rate: Rate::from_bps(here),
        limited_by: settled
            .offer
            .map_or_else(|| "not told".to_owned(), |offer| offer.limited_by),
        ceiling: near.ceiling,
        asked,
    })
}

/// Negotiates a slice and waits until it is agreed.
pub async fn negotiate(daemons: &Daemons, ask: &Ask) -> Result<Negotiation> {
    let begun: Negotiation = daemons
        .dtn
        .post(&format!("{LOCAL_BASE}/slices"), ask)
        .await
        .with_context(|| format!("asking for the slice {}", ask.name))?;
    let path = format!("{LOCAL_BASE}/negotiations/{}", begun.id);
    let said = std::cell::RefCell::new(begun.reason.clone());
    let settle = || async {
        let now: Negotiation = daemons.dtn.get(&path).await?;
        said.borrow_mut().clone_from(&now.reason);
        use NegotiationState::{Agreed, Ended, Failed, Refused, Waiting};
        Ok(matches!(now.state, Agreed | Ended | Failed | Refused | Waiting).then_some(now))
    };
    let settled = tokio::time::timeout(
        NEGOTIATION,
        until("the negotiation has come to an end", settle),
    )
    .await
    .context("the negotiation hangs")
    .flatten()
    .with_context(|| format!("the negotiation stands so: {}", said.borrow()))?;
    let offer = settled.offer.as_ref();
    if settled.state != NegotiationState::Agreed {
        let fits = offer
            .filter(|offer| !settled.reason.contains(&offer.rate.to_string()))
            .map(|offer| {
                format!(
                    "; {} would fit (limited by {})",
                    offer.rate, offer.limited_by
                )
            });
        bail!(
            "the slice {} was not agreed ({:?}): {}{}",
            ask.name,
            settled.state,
            settled.reason,
            fits.unwrap_or_default()
        );
    }
    Ok(settled)
}

/// Looks from now on, without a pause that would be seen, how long after the request the slice's data
/// plane is active at every site. Where it fails for good, [`enforced`] says why.
pub fn watch_active(all: &[Daemons], asked: Instant) -> AbortOnDropHandle<Duration> {
    let clients: Vec<Client> = all.iter().map(|daemons| daemons.dtn.clone()).collect();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let path = format!("{LOCAL_BASE}/slices/{SLICE}");
        for client in clients {
            while !client
                .get::<LocalSlice>(&path)
                .await
                .is_ok_and(|slice| slice.slice.status.data_plane == DataPlane::Active)
            {
                tokio::time::sleep(LOOK).await;
            }
        }
        asked.elapsed()
    }))
}

async fn read_back(daemons: &Daemons) -> Result<LocalSlice> {
    daemons
        .dtn
        .get(&format!("{LOCAL_BASE}/slices/{SLICE}"))
        .await
        .with_context(|| format!("reading the slice back from {}", daemons.site))
}

/// Folder of the transfer pod's data at a site.
pub fn data(place: &Place, site: &str) -> PathBuf {
    data_of(place, site, POD)
}
/// Folder of the transfer pod's keys at a site.
pub fn keys(place: &Place, site: &str) -> PathBuf {
    keys_of(place, site, POD)
}
pub(crate) fn data_of(place: &Place, site: &str, pod: &str) -> PathBuf {
    place.root(site).join("srv/dtn").join(pod).join("data")
}
fn keys_of(place: &Place, site: &str, pod: &str) -> PathBuf {
    place.root(site).join("srv/dtn").join(pod).join("keys")
}
/// The file of a pod's transfer key at a site.
pub(crate) fn key_of(place: &Place, site: &str, pod: &str) -> PathBuf {
    keys_of(place, site, pod).join("sss.keytab")
}

/// Makes a transfer key for this run and lays it at both sites, as the two admins would have agreed
/// on one.
pub fn lay_keys(place: &Place, sites: &[&str]) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let key = dtn_workloads::key::TransferKey::generate(std::time::SystemTime::now())
        .context("making the transfer key")?;
    for site in sites {
        let folder = keys(place, site);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("making {}", folder.display()))?;
        nix::unistd::chown(&folder, Some(UID.into()), Some(UID.into()))
            .with_context(|| format!("giving {} to the pod", folder.display()))?;
        key.write(&key_of(place, site, POD), UID)
            .with_context(|| format!("laying the transfer key at {site}"))?;
    }
    Ok(())
}

/// Which pod is deployed, where it is attached.
pub struct Deployed<'a> {
    /// Its name.
    pub pod: &'a str,
    /// Its slice.
    pub slice: &'a str,
    /// Its NIC.
    pub nic: &'a str,
    /// How it is given that.
    pub class: NicClass,
}

/// The transfer pod.
pub fn transfer(options: &Options) -> Deployed<'static> {
    Deployed {
        pod: POD,
        slice: SLICE,
        nic: "data0",
        class: options.nic,
    }
}

/// Deploys a pod of the template with podman and waits until it runs.
pub async fn deploy_as(daemons: &Daemons, place: &Place, wanted: &Deployed<'_>) -> Result<Pod> {
    let mut values = BTreeMap::new();
    for (value, folder) in [
        ("data_dir", data_of(place, daemons.site, wanted.pod)),
        ("keys_dir", keys_of(place, daemons.site, wanted.pod)),
    ] {
        values.insert(value.to_owned(), folder.display().to_string());
    }
    let request = DeployRequest {
        template: name(TEMPLATE)?,
        name: name::<Name>(wanted.pod)?,
        values,
        slice: Some(name(wanted.slice)?),
        nic_class: wanted.class,
        nic: Some(name(wanted.nic)?),
        dry_run: false,
    };
    let what = format!("the pod {} of {}", wanted.pod, daemons.site);
    let _: Pod = daemons
        .dtn
        .post(&format!("{LOCAL_BASE}/pods"), &request)
        .await
        .with_context(|| format!("deploying {what}"))?;
    let path = format!("{LOCAL_BASE}/pods/{}", wanted.pod);
    let running = || async {
        let pod: Pod = daemons.dtn.get(&path).await?;
        Ok(matches!(pod.phase, PodPhase::Running | PodPhase::Failed).then_some(pod))
    };
    let pod = until(&format!("{what} runs"), running).await?;
    ensure!(
        pod.phase == PodPhase::Running,
        "{what} is {:?}: {}",
        pod.phase,
        pod.message
    );
    Ok(pod)
}

/// Waits until the controller has heard from the host's kernel that the slice is enforced; gives a
/// warning when it has not.
pub async fn enforced(daemons: &Daemons) -> Result<Option<String>> {
    let slice = until(
        &format!("the slice of {} is active", daemons.site),
        || async {
            let slice: LocalSlice = daemons
                .dtn
                .get(&format!("{LOCAL_BASE}/slices/{SLICE}"))
                .await?;
            let there = slice.slice.status.data_plane == DataPlane::Active;
            Ok(there.then_some(slice))
        },
    )
    .await?;
    Ok(slice.warning)
}

/// Takes a pod of podman down.
pub async fn undeploy(daemons: &Daemons, pod: &str) -> Result<()> {
    daemons
        .dtn
        .delete(&format!("{LOCAL_BASE}/pods/{pod}"), None)
        .await
        .with_context(|| format!("taking the pod {pod} of {} down", daemons.site))
}

/// Ends a slice, on both sides where it has two.
pub async fn give_back(daemons: &Daemons, slice: &str) -> Result<()> {
    daemons
        .dtn
        .delete(&format!("{LOCAL_BASE}/slices/{slice}"), None)
        .await
        .with_context(|| format!("giving the slice {slice} of {} back", daemons.site))?;
    Ok(())
}
