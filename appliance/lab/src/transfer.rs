//! Real files from one site's disk to the other's: made ready, moved by the pods' movers, measured
//! by the kernel's counters, and judged by the manifests of both trees.

use crate::{
    Options,
    capsule::Lab,
    load::{self, Machine},
    mover::{Mover, Told},
    place::Place,
    pods::{self, Running},
    preflight::{self, Tree},
    scenario::{self, PORT, UID},
    shell::{self, SHORT},
    site::Site,
    wan,
};
use anyhow::{Context, Result, bail, ensure};
use dtn_measure::{
    report::{Direction, LargeFileEvidence, SmallFilesEvidence, TransferEvidence},
    series::{Sample, rates},
    verdict::{self, Load},
};
use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Name of the run's folders in a pod's data.
const RUN: &str = "run-1";
/// Name of the one large file.
const LARGE: &str = "large.bin";
/// How often the counters are read for the plot.
const EVERY: Duration = Duration::from_millis(100);
/// Width of a point of the plot, nanoseconds.
const WIDTH: u64 = 500_000_000;
/// Longest time for a program in a pod; the longest of them hashes a whole tree.
const HASHING: Duration = Duration::from_secs(4 * 3600);
/// What is listed of differences.
const MOST_DIFFERENCES: usize = 100;

/// One site's end of a transfer.
pub struct End<'a> {
    /// The host.
    pub site: &'a Site,
    /// The pod.
    pub pod: &'a Running,
}

/// `root://` of an end's server at one of its addresses.
pub fn server(end: &End<'_>, ipv6: bool) -> Result<String> {
    let address = end
        .pod
        .addresses
        .iter()
        .find(|address| address.is_ipv6() == ipv6)
        .with_context(|| {
            format!(
                "the pod of {} has no {} address",
                end.site.name,
                if ipv6 { "IPv6" } else { "IPv4" }
            )
        })?;
    Ok(match address {
        std::net::IpAddr::V4(v4) => format!("root://{v4}:{PORT}"),
        std::net::IpAddr::V6(v6) => format!("root://[{v6}]:{PORT}"),
    })
}

/// XRootD's client gives up soon: left alone it waits for half an hour for a server that is gone.
const QUICK: [&str; 4] = [
    "XRD_CONNECTIONWINDOW=5",
    "XRD_CONNECTIONRETRY=2",
    "XRD_STREAMERRORWINDOW=5",
    "XRD_REQUESTTIMEOUT=15",
];

/// What must hold before anything is moved: both address families reach the far server with the key,
/// and without the key nothing is written.
pub async fn check(lab: &Lab, from: &End<'_>, to: &End<'_>) -> Result<()> {
    for ipv6 in [false, true] {
        let server = server(to, ipv6)?;
        exec(
            lab,
            from,
            &QUICK,
            &["/usr/bin/xrdfs", &server, "ls", "/incoming"],
        )
        .await
        .with_context(|| format!("{} reaches {} at {server}", from.site.name, to.site.name))?;
    }
    let target = format!("{}//incoming/without-a-key", server(to, false)?);
    let refused = exec(
        lab,
        from,
        &[
            "XrdSecSSSKT=/nonexistent",
            "XRD_CONNECTIONRETRY=1",
            "XRD_REQUESTTIMEOUT=10",
        ],
        &[
            "/usr/bin/xrdcp",
            "--nopbar",
            "--force",
            "/etc/passwd",
            &target,
        ],
    )
    .await;
    ensure!(
        refused.is_err(),
        "{} wrote to {} without the transfer key",
        from.site.name,
        to.site.name
    );
    let written = scenario::data(&lab.place, to.site.name).join("incoming/without-a-key");
    ensure!(
        !written.exists(),
        "{} is there, and it was written without the transfer key",
        written.display()
    );
    Ok(())
}

/// Runs a program in a pod's container and gives what it said.
async fn exec(lab: &Lab, end: &End<'_>, environment: &[&str], words: &[&str]) -> Result<String> {
    let command = in_pod(lab, end, environment, words)?;
    Ok(shell::output(command, None, HASHING).await?)
}

/// The command that runs a program in a pod's container.
pub(crate) fn in_pod(
    lab: &Lab,
    end: &End<'_>,
    environment: &[&str],
    words: &[&str],
) -> Result<tokio::process::Command> {
    pods::command(lab, end.site, end.pod, environment, words)
}

/// Lays the tree and the large file into the outgoing folder of a site, for the pod's user, on the
/// disk. The tree is copied, since the pod's user must be able to read it whatever its owners.
pub async fn make_ready(options: &Options, place: &Place, site: &str) -> Result<()> {
    let folder = scenario::data(place, site).join("outgoing").join(RUN);
    fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
    let (from, to) = (options.data.as_os_str(), folder.join("tree"));
    shell::run(
        "cp",
        [
            "-a".as_ref(),
            "--no-preserve=ownership".as_ref(),
            "--reflink=auto".as_ref(),
            "--".as_ref(),
            from,
            to.as_os_str(),
        ],
        Duration::from_secs(1800),
    )
    .await
    .with_context(|| format!("copying {} to {site}", options.data.display()))?;
    let (large, size) = (folder.join(LARGE), options.large.bytes());
    if size > 0 {
        tokio::task::spawn_blocking(move || random_file(&large, size))
            .await
            .context("making the large file")??;
    }
    let owner = format!("{UID}:{UID}");
    let shown = folder.display().to_string();
    shell::run(
        "chown",
        ["-hR", "--", &owner, &shown],
        Duration::from_secs(600),
    )
    .await
    .context("giving the tree to the pod")?;
    // what is dirty cannot be dropped from the page cache
    shell::run("sync", ["-f", "--", &shown], Duration::from_secs(600))
        .await
        .context("writing the tree to the disk")?;
    Ok(())
}

/// A file that no compression shortens.
fn random_file(path: &Path, size: u64) -> Result<()> {
    let source = fs::File::open("/dev/urandom").context("opening /dev/urandom")?;
    let mut file = fs::File::create(path).with_context(|| format!("making {}", path.display()))?;
    let (mut source, mut buffer) = (source.take(size), vec![0; 1 << 20]);
    loop {
        let length = source.read(&mut buffer).context("reading /dev/urandom")?;
        if length == 0 {
            break;
        }
        file.write_all(&buffer[..length])
            .with_context(|| format!("writing {}", path.display()))?;
    }
    file.sync_all()
        .with_context(|| format!("writing {} to the disk", path.display()))
}

/// Everything that is read before and after.
struct Counters {
    machine: Machine,
    wan: [u64; 2],
    retransmits: u64,
}

impl Counters {
    async fn read(from: &End<'_>, to: &End<'_>) -> Result<Self> {
        Ok(Self {
            machine: Machine::now()?,
            wan: wan::arrived().await?,
            retransmits: load::retransmits(from.pod.pid)? + load::retransmits(to.pod.pid)?,
        })
    }
}

/// Moves everything from one site to the other and judges it. `wire` is payload per byte of frames.
pub async fn one_way(
    lab: &Lab,
    from: &End<'_>,
    to: &End<'_>,
    ceiling_bps: u64,
    wire: f64,
) -> Result<Direction> {
    let options = &lab.options;
    make_ready(options, &lab.place, from.site.name).await?;
    let payload = match preflight::walk(
        &scenario::data(&lab.place, from.site.name)
            .join("outgoing")
            .join(RUN),
    ) {
        Tree::Files { bytes, .. } => bytes,
        other => bail!(
            "what was laid out at {} cannot be moved: {other:?}",
            from.site.name
        ),
    };
    let outgoing = format!("/data/outgoing/{RUN}");
    let sent_manifest = exec(
        lab,
        from,
        &[],
        &["/usr/bin/dtn-mover", "manifest", &outgoing],
    )
    .await
    .context("hashing what is sent")?;
    exec(
        lab,
        from,
        &[],
        &["/usr/bin/dtn-mover", "drop-cache", &outgoing],
    )
    .await
    .context("dropping the source's pages")?;

    let target = format!("{}//incoming/{RUN}", server(to, false)?);
    let receive = [
        "/usr/bin/dtn-mover",
        "receive",
        "--incoming",
        &format!("/data/incoming/{RUN}"),
        "--into",
        &format!("/data/received/{RUN}"),
    ]
    .map(str::to_owned);
    let send = [
        "/usr/bin/dtn-mover",
        "send",
        "--from",
        &outgoing,
        "--to",
        &target,
        "--state",
        &format!("/data/state/{RUN}"),
    ]
    .map(str::to_owned);
    let before = Counters::read(from, to).await?;
    let began = Instant::now();
    let (mut samples, watched) = (Vec::new(), (to.pod.pid, to.pod.ifname.clone()));
    let moving = crate::mover::run(Mover {
        lab,
        from,
        to,
        send: &send,
        receive: &receive,
        bytes: payload,
        interrupt: options.interrupt,
    });
    tokio::pin!(moving);
    let mut clock = tokio::time::interval(EVERY);
    let told = loop {
        tokio::select! {
            told = &mut moving => break told?,
            _ = clock.tick() => {
                let [received, _] = load::link_bytes(watched.0, &watched.1)?;
                samples.push(Sample { at_ns: u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX), bytes: received });
            }
        }
    };
    let after = Counters::read(from, to).await?;
    let received = format!("/data/received/{RUN}");
    let received_manifest = exec(lab, to, &[], &["/usr/bin/dtn-mover", "manifest", &received])
        .await
        .context("hashing what was received")?;
    let differences = compare(lab, from, &sent_manifest, &received_manifest).await?;
    judge(Judged {
        lab,
        from,
        to,
        ceiling_bps,
        wire,
        told,
        before,
        after,
        samples,
        differences,
        entries: sent_manifest.lines().count().saturating_sub(1) as u64,
    })
}

/// The differences of two manifests, in words.
async fn compare(lab: &Lab, end: &End<'_>, sent: &str, received: &str) -> Result<Vec<String>> {
    let folder: PathBuf = scenario::data(&lab.place, end.site.name).join("state");
    for (name, text) in [("sent.manifest", sent), ("received.manifest", received)] {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    let command = in_pod(
        lab,
        end,
        &[],
        &[
            "/usr/bin/dtn-mover",
            "compare",
            "/data/state/sent.manifest",
            "/data/state/received.manifest",
        ],
    )?;
    match shell::output(command, None, SHORT * 3).await {
        Ok(_) => Ok(Vec::new()),
        // exit code 1: they differ, and each line is a difference
        Err(shell::ShellError::Failed { status, said, .. }) if status.code() == Some(1) => Ok(said
            .split("; ")
            .take(MOST_DIFFERENCES)
            .map(str::to_owned)
            .collect()),
        Err(error) => Err(error).context("comparing the manifests"),
    }
}

/// All that a judgement is made of.
struct Judged<'a> {
    lab: &'a Lab,
    from: &'a End<'a>,
    to: &'a End<'a>,
    ceiling_bps: u64,
    wire: f64,
    told: Told,
    before: Counters,
    after: Counters,
    samples: Vec<Sample>,
    differences: Vec<String>,
    entries: u64,
}

fn judge(judged: Judged<'_>) -> Result<Direction> {
    let Judged {
        lab,
        from,
        to,
        ceiling_bps,
        wire,
        told,
        before,
        after,
        samples,
        differences,
        entries,
    } = judged;
    let large = told.large(LARGE).map(|(bytes, seconds)| LargeFileEvidence {
        bytes,
        seconds,
        goodput_bps: per_second(bytes, seconds),
    });
    let small = told.small()?.map(|small| SmallFilesEvidence {
        count: small.files,
        bytes: small.bytes,
        seconds: small.seconds,
        files_per_s: small.files as f64 / small.seconds.max(1e-9),
    });
    let seconds = told.seconds()?;
    let bytes = told.bytes()?;
    let share = large
        .as_ref()
        .map_or_else(|| per_second(bytes, seconds), |large| large.goodput_bps)
        as f64
        / ceiling_bps.max(1) as f64;
    let wan_bytes = after.wan[to.site.index].saturating_sub(before.wan[to.site.index]);
    if wan_bytes < bytes {
        bail!(
            "the wide-area link counted {wan_bytes} bytes into {}, and {bytes} bytes of files arrived there: they went another way",
            to.site.name
        );
    }
    let shares = after.machine.since(&before.machine);
    let load = Load {
        share_of_ceiling: share,
        cpu_busy: shares.cpu_busy,
        io_wait: shares.io_wait,
        disk_busy: shares.disk_busy,
    };
    let mut series = rates(&samples, WIDTH);
    for point in &mut series {
        // the counter has frames in it, and the plot shows payload
        point.bps *= wire;
    }
    Ok(Direction {
        from: from.site.name.into(),
        to: to.site.name.into(),
        transfer: TransferEvidence {
            files: entries,
            bytes,
            seconds,
            goodput_bps: per_second(bytes, seconds),
            retransmits: after.retransmits.saturating_sub(before.retransmits),
        },
        large_file: large,
        small_files: small,
        share_of_ceiling: share,
        checksums_ok: differences.is_empty(),
        differences,
        limited_by: verdict::limited_by(&load),
        load,
        wan_bytes,
        resumed: if lab.options.interrupt {
            Some(told.resumed()?)
        } else {
            None
        },
        series,
    })
}

fn per_second(bytes: u64, seconds: f64) -> u64 {
    (bytes as f64 * 8.0 / seconds.max(1e-9)) as u64
}
