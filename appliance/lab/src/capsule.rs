//! Inside the capsule: its own `/run`, `/sys`, cgroups and shared memory, then the sites, and the
//! wait for the end. Whatever ends it, the kernel takes the rest down with it.

use crate::{
    Options,
    cgroups::{self, Hierarchy},
    cluster,
    daemons::{self, Daemons},
    engine, evidence,
    mounts::{own, tmpfs},
    network, onos,
    openvswitch::Switches,
    options::{EngineKind, Fabric, Stage},
    pillar::{Pillar, Watch},
    place::Place,
    pods::Runner,
    preflight,
    progress::{Event, tell},
    site::Site,
    wan::Wan,
};
use anyhow::{Context, Result, bail};
use dtn_api::Rate;
use nix::mount::{MsFlags, mount};
use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use tokio::time::timeout;

/// A lab that is up: everything that has to live on.
pub struct Lab {
    /// What is wanted.
    pub options: Options,
    /// Where everything lies.
    pub place: Place,
    /// This program, to be started again.
    pub program: PathBuf,
    /// The hosts.
    pub sites: Vec<Site>,
    /// The link between them.
    pub wan: Wan,
    /// Their switches, in the order of the sites, where a controller programs them.
    pub switches: Vec<Switches>,
    /// Frame rate that those carry here.
    pub switches_carry: Option<Rate>,
    /// Hears when one of the processes ends.
    pub watch: Watch,
    /// The hosts' and the link's processes, for as long as this is held.
    _pillars: Vec<Pillar>,
    /// What runs their pods, in the order of the sites.
    runners: Vec<Runner>,
    /// The clusters' own controllers, for as long as this is held.
    _controllers: Vec<Pillar>,
    /// Their daemons, in the order of the sites.
    pub daemons: Vec<Daemons>,
    /// What had to be done only because this machine lacks something, in words.
    pub notes: Vec<String>,
}

impl Lab {
    /// What runs a site's pods.
    pub fn runner(&self, site: &Site) -> Result<&Runner> {
        let runner = self.runners.get(site.index);
        runner.with_context(|| format!("nothing runs pods at {}", site.name))
    }
}

/// The capsule's whole life. It ends with its work, with its leash, or with a signal.
pub fn run(place: &Place) -> Result<ExitCode> {
    let plan = place.plan();
    let text = fs::read(&plan).with_context(|| format!("reading {}", plan.display()))?;
    let options: Options =
        serde_json::from_slice(&text).with_context(|| format!("reading {}", plan.display()))?;
    furnish()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let done = runtime.block_on(async {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
                .context("preparing for signals")?;
        let leash = leash();
        tokio::select! {
            done = work(options, place) => done.map(|()| true),
            _ = leash => Ok(false),
            _ = terminate.recv() => Ok(false),
        }
    });
    match done {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::FAILURE),
        Err(error) => {
            let room = no_room(place).unwrap_or_default();
            tell(&Event::Failed(reasons(&error) + &room));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// An error with its causes on one line; a cause that its effect has said in full is not said again.
fn reasons(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |said, cause| {
        let cause = cause.to_string();
        match said.as_str() {
            "" => cause,
            said if said.ends_with(&cause) => said.to_owned(),
            said => format!("{said}: {cause}"),
        }
    })
}

/// Ends when the janitor lets go. The thread that waits for that ends with this process.
fn leash() -> tokio::sync::oneshot::Receiver<()> {
    let (gone, leash) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // nothing is ever said on it
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        // nobody waits any more when the work is done already
        let _ = gone.send(());
    });
    leash
}

/// Everything from the first cable to the report.
async fn work(options: Options, place: &Place) -> Result<()> {
    let keep = options.keep || options.until.is_some();
    let (watch, mut ends) = Watch::new();
    let (end, failed) = tokio::select! {
        Some(end) = ends.recv() => (end, None),
        done = async { serve(build(options, place, watch).await?, keep).await } => match done {
            Ok(()) => return Ok(()),
            // what fails because a process has ended can be seen before the end itself
            Err(error) => match timeout(HEARSAY, ends.recv()).await {
                Ok(Some(end)) => (end, Some(error)),
                _ => return Err(error),
            },
        },
    };
    let said = format!(
        "{end}: it was killed or failed, and the lab cannot go on without it; see {}",
        place.logs().display()
    );
    Err(match failed {
        None => anyhow::anyhow!(said),
        Some(error) => error.context(said),
    })
}

/// How long the end of a process may go unheard after what it caused.
const HEARSAY: Duration = Duration::from_millis(500);
/// With less on the disk than this, bytes, whatever writes there can fail: a store that grows, a log.
const NO_ROOM: u64 = 16 << 20;

/// What is to be said when the disk is full: not every failure that comes of it names it.
fn no_room(place: &Place) -> Option<String> {
    let left = preflight::free_disk(place.state()).filter(|left| *left < NO_ROOM)?;
    Some(format!(
        "; no space left on the disk of {} ({left} bytes are free): make room and run it again",
        place.state().display()
    ))
}

/// The scenario, and the wait after it when the lab is kept.
async fn serve(lab: Lab, keep: bool) -> Result<()> {
    let place = &lab.place;
    let mut supervisor = None;
    if lab.options.moves() {
        supervisor = evidence::run(&lab, keep).await?;
    }
    if keep {
        let text = serde_json::to_vec(&crate::place::SITES).context("writing what is up")?;
        fs::write(place.up(), text).with_context(|| format!("writing {}", place.up().display()))?;
        tell(&Event::Kept);
        // the leash or a signal ends it
        std::future::pending::<()>().await;
    }
    if let Some(left) = onos::emptied(&lab.options, &lab.daemons).await {
        tell(&Event::Note(left));
    }
    if let Some(again) = supervisor {
        again.stop().await?;
    }
    for daemons in lab.daemons {
        daemons.stop().await?;
    }
    Ok(())
}

/// Hosts, cables, switches and the link between them, then engines and daemons.
async fn build(mut options: Options, place: &Place, watch: Watch) -> Result<Lab> {
    let program = std::env::current_exe().context("finding this program's own file")?;
    let network::Network {
        sites,
        wan,
        switches,
        switches_carry,
        mut notes,
        pillars,
    } = network::bring_up(&mut options, place, &program, &watch).await?;
    let mut runners = Vec::new();
    if options.reaches(Stage::Engines) {
        runners = match options.engine {
            EngineKind::Podman => {
                let (runners, lacks) = podmen(&options, place, &program, &sites, &watch).await?;
                notes.extend(lacks);
                runners
            }
            EngineKind::Kubernetes => clusters(&options, place, &sites, &watch).await?,
        };
    }
    let (mut daemons, mut controllers) = (Vec::new(), Vec::new());
    if options.reaches(Stage::Daemons) {
        let work = async {
            let starts = sites
                .iter()
                .map(|site| daemons::start(site, place, &options, &watch));
            futures_util::future::try_join_all(starts).await
        };
        daemons = step(
            "vdnd and dtnd at both sites",
            180,
            Some(&place.logs()),
            work,
        )
        .await?;
        tell(&Event::Done {
            detail: format!("configured in {}/*/etc/dtn", place.sites().display()),
        });
        step(
            "hosts enrol, domains federate",
            180,
            Some(&place.logs()),
            daemons::join(&daemons, options.nics),
        )
        .await?;
        tell(&Event::Done {
            detail: String::new(),
        });
        if options.engine == EngineKind::Kubernetes {
            controllers = controllers_up(&options, place, &sites, &runners, &watch).await?;
        }
        if options.fabric == Fabric::Onos {
            step(
                "the controllers have their switches through ONOS",
                300,
                Some(&place.logs()),
                onos::connected(&daemons),
            )
            .await?;
            tell(&Event::Done {
                detail: options.onos.label(),
            });
        }
    }
    Ok(Lab {
        options,
        place: place.clone(),
        program,
        sites,
        wan,
        switches,
        switches_carry,
        runners,
        daemons,
        notes,
        watch,
        _controllers: controllers,
        _pillars: pillars,
    })
}

/// podman at every site; gives also what is to be named in the report.
async fn podmen(
    options: &Options,
    place: &Place,
    program: &Path,
    sites: &[Site],
    watch: &Watch,
) -> Result<(Vec<Runner>, Vec<String>)> {
    let (setup, lacks) = engine::set_up(place, program)?;
    let starts = sites
        .iter()
        .map(|site| engine::start(site, place, &setup, options, watch));
    let work = futures_util::future::try_join_all(starts);
    let engines = step(
        "podman at both sites, with the transfer image",
        360,
        Some(&place.logs()),
        work,
    )
    .await?;
    tell(&Event::Done {
        detail: format!("{} storage", setup.storage),
    });
    let runners = engines.into_iter().map(|engine| Runner::Podman {
        setup: setup.clone(),
        _engine: engine,
    });
    Ok((runners.collect(), lacks))
}

/// A cluster at every site.
async fn clusters(
    options: &Options,
    place: &Place,
    sites: &[Site],
    watch: &Watch,
) -> Result<Vec<Runner>> {
    let starts = sites
        .iter()
        .map(|site| cluster::start(site, place, options, watch));
    let work = futures_util::future::try_join_all(starts);
    let all = step(
        "a Kubernetes cluster at each site, with the transfer image",
        600,
        Some(&place.logs()),
        work,
    )
    .await?;
    let version = all.first().map(|one| one.kit.version.clone());
    tell(&Event::Done {
        detail: format!(
            "{} clusters of {}, one node each",
            all.len(),
            version.unwrap_or_default()
        ),
    });
    Ok(all.into_iter().map(Runner::Kubernetes).collect())
}

/// dtn-cluster in every cluster.
async fn controllers_up(
    options: &Options,
    place: &Place,
    sites: &[Site],
    runners: &[Runner],
    watch: &Watch,
) -> Result<Vec<Pillar>> {
    let starts = sites.iter().zip(runners).map(async |(site, runner)| {
        let Runner::Kubernetes(cluster) = runner else {
            bail!("{} has no cluster", site.name)
        };
        cluster::controller::start(cluster, site, place, options, watch).await
    });
    let work = futures_util::future::try_join_all(starts);
    let name = "the clusters join their domains, and their nodes offer NICs";
    let all = step(name, 180, Some(&place.logs()), work).await?;
    tell(&Event::Done {
        detail: "by dtnctl cluster invite".into(),
    });
    Ok(all)
}

/// A step that is told, has a deadline, and names its log when it fails.
pub async fn step<T>(
    name: &str,
    deadline_s: u64,
    log: Option<&Path>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tell(&Event::Step {
        name: name.into(),
        deadline_s,
        log: log.map(|log| log.display().to_string()),
    });
    let hint = || {
        log.map(|log| format!("; its log is {}", log.display()))
            .unwrap_or_default()
    };
    timeout(Duration::from_secs(deadline_s), work)
        .await
        .with_context(|| format!("not done after {deadline_s} s{}", hint()))?
        .with_context(|| format!("failed{}", hint()))
}

const CAREFUL: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);

/// Makes the capsule's own places. Called in a mount namespace that shares nothing back.
pub fn furnish() -> Result<()> {
    crate::root::make_own()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
    let hierarchies = cgroups::parse(&mounts);
    tmpfs(Path::new("/run"), "mode=755")?;
    fs::create_dir_all("/run/lock").context("making /run/lock")?;
    tmpfs(Path::new("/dev/shm"), "mode=1777")?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), CAREFUL, None::<&str>)
        .context("mounting the capsule's /sys")?;
    own_cgroups(&hierarchies)?;
    // podman keeps a cache of what it has copied there, whatever other places it is told
    own(Path::new("/var/lib"), &["containers"])
}

/// Mounts the same hierarchies again: in a cgroup namespace that shows only what lies below its root
/// (cgroup_namespaces(7)).
fn own_cgroups(hierarchies: &[Hierarchy]) -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    if !hierarchies.iter().any(|hierarchy| hierarchy.mount == root) {
        tmpfs(root, "mode=755")?;
    }
    for hierarchy in hierarchies
        .iter()
        .filter(|hierarchy| hierarchy.mount.starts_with(root))
    {
        let target = &hierarchy.mount;
        if target != root {
            fs::create_dir_all(target).with_context(|| format!("making {}", target.display()))?;
        }
        let options = (!hierarchy.options.is_empty()).then_some(hierarchy.options.as_str());
        mount(
            Some("cgroup"),
            target,
            Some(hierarchy.kind.as_str()),
            CAREFUL,
            options,
        )
        .with_context(|| format!("mounting the capsule's {}", target.display()))?;
        if target == root && hierarchy.unified() {
            step_aside(root)?;
        }
    }
    Ok(())
}

/// Version 2 gives controllers only to cgroups below one without processes of its own
/// (cgroups(7), "no internal processes"): what runs here moves into a leaf.
fn step_aside(root: &Path) -> Result<()> {
    let leaf = root.join("lab");
    fs::create_dir_all(&leaf).with_context(|| format!("making {}", leaf.display()))?;
    let processes =
        fs::read_to_string(root.join("cgroup.procs")).context("listing the capsule's processes")?;
    for process in processes.lines().filter(|line| *line != "0") {
        // one that has ended meanwhile needs no move
        let moved = fs::write(leaf.join("cgroup.procs"), process);
        if let Err(error) = moved
            && error.raw_os_error() != Some(nix::errno::Errno::ESRCH as i32)
        {
            return Err(error)
                .with_context(|| format!("moving process {process} to {}", leaf.display()));
        }
    }
    Ok(())
}
