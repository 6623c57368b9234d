//! `dtnctl lab`: two simulated sites on this machine. The work is done by the crate `dtn-lab`; here
//! is only what can be typed.

use anyhow::{Context, Result};
use dtn_api::{Rate, Size, Span, nic::NicClass, slice::Class};
use dtn_lab::{
    Options,
    onos::{OnosOptions, given::Given},
    options::{self, EngineKind, Fabric, Stage},
    outer, part,
};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Options of `lab`.
#[derive(Debug, clap::Args)]
pub(crate) struct LabArgs {
    #[command(subcommand)]
    verb: LabVerb,
}

#[derive(Debug, clap::Subcommand)]
enum LabVerb {
    /// Bring two sites up, move files through a slice, report, take everything down
    Run(Box<Wish>),
    /// Bring two sites up, federated, and leave them for the other verbs
    Up {
        #[command(flatten)]
        wish: Box<Wish>,
        /// How far: cables, engines or daemons
        #[arg(long, value_name = "STAGE", default_value = "daemons")]
        until: Stage,
    },
    /// Take a lab down that was left up
    Down {
        /// The lab's folder
        #[arg(long, value_name = "DIR", default_value = options::DEFAULT_STATE)]
        state: PathBuf,
    },
    /// Look into the cluster of a site of a lab that was left up with --engine kubernetes
    Kubectl {
        /// The lab's folder
        #[arg(long, value_name = "DIR", default_value = options::DEFAULT_STATE)]
        state: PathBuf,
        /// The site: daejeon or busan
        site: String,
        /// What kubectl is told, as its administrator
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// One of the lab's own processes
    #[command(hide = true)]
    Part {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
}

#[derive(Debug, clap::Args)]
struct Wish {
    /// What runs the pods: podman on each site's host, or kubernetes, a cluster at each site
    #[arg(long, value_name = "ENGINE", default_value = "podman")]
    engine: EngineKind,
    /// With --engine kubernetes: folder of its programs, which tests/kubernetes/make.sh has built
    /// [default: ../kubernetes beside dtnctl]
    #[arg(long, value_name = "DIR")]
    kubernetes: Option<PathBuf>,
    /// Clusters that are there: the lab cannot cable their nodes, and says what can be done with them
    #[arg(long, value_name = "FILE,FILE", value_delimiter = ',')]
    kubeconfig: Vec<PathBuf>,
    /// What enforces slices inside the sites: edge (the hosts), openflow (Open vSwitch bridges that
    /// vdnd programs) or onos (the same, programmed by an ONOS that vdnd talks to)
    #[arg(long, value_name = "KIND", default_value = "edge")]
    fabric: Fabric,
    /// With --fabric onos: an ONOS of this machine, http://127.0.0.1:PORT, for both sites, or two
    /// with a comma between [default: the lab starts a core at each site]
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    onos: Vec<String>,
    /// TCP ports where those hear switches [default: 6653]
    #[arg(long, value_name = "PORT", value_delimiter = ',', requires = "onos")]
    onos_openflow: Vec<u16>,
    /// Files of mode 0600 with one line USER:PASSWORD, of an administrator of those
    #[arg(long, value_name = "FILE", value_delimiter = ',', requires = "onos")]
    onos_credentials: Vec<PathBuf>,
    /// Folder of the core that the lab starts, which tests/onos-core/make has put together
    /// [default: ../onos-core beside dtnctl]
    #[arg(long, value_name = "DIR")]
    onos_core: Option<PathBuf>,
    /// Frame rate of the wide-area link [default: 1Gbit; with switches what they carry, at most
    /// 200Mbit]
    #[arg(long, value_name = "RATE")]
    wan: Option<Rate>,
    /// Round trip over it
    #[arg(long, value_name = "TIME", default_value = "10ms")]
    rtt: Span,
    /// MTU from end to end
    #[arg(long, value_name = "BYTES", default_value_t = 9000)]
    mtu: u32,
    /// Data NICs per site
    #[arg(long, value_name = "N", default_value_t = 1)]
    nics: u32,
    /// How the NIC is given to the pod: dedicated or shared
    #[arg(long, value_name = "CLASS", default_value = "dedicated")]
    nic: NicClass,
    /// Rate of the slice [default: the most that can be had]
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,
    /// Take less than --rate, down to this
    #[arg(long, value_name = "RATE")]
    min_rate: Option<Rate>,
    /// Class of the slice: dedicated, guaranteed or best-effort
    #[arg(long, value_name = "CLASS", default_value = "guaranteed")]
    class: Class,
    /// Tree of files to move
    #[arg(long, value_name = "DIR", default_value = "/usr/share/doc")]
    data: PathBuf,
    /// Size of the one large file; 0B makes none
    #[arg(long, value_name = "SIZE", default_value = "2GiB")]
    large: Size,
    /// Move in both directions
    #[arg(long)]
    both: bool,
    /// Kill the mover halfway and let it resume
    #[arg(long)]
    interrupt: bool,
    /// Kill the sending site's supervisor while files move, and start it again afterwards
    #[arg(long)]
    kill_supervisor: bool,
    /// Leave the sites up afterwards
    #[arg(long)]
    keep: bool,
    /// Evidence as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Goodput over time [default: beside the report]
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Folder for everything that the lab writes
    #[arg(long, value_name = "DIR", default_value = options::DEFAULT_STATE)]
    state: PathBuf,
    /// Folder of vdnd, dtnd and the plugins [default: where dtnctl is]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Folder with dtn-workloads/ and images/ [default: looked for above dtnctl]
    #[arg(long, value_name = "DIR")]
    share: Option<PathBuf>,
    /// The transfer image: its root filesystem as a tar, or with --engine kubernetes an OCI archive
    /// [default: ../images/dtn-transfer.tar or dtn-transfer-oci.tar beside dtnctl]
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
}

/// Called from `main` before any runtime or thread exists; returns the exit code of the program.
pub(crate) fn run(args: LabArgs) -> Result<ExitCode> {
    match args.verb {
        LabVerb::Run(wish) => outer::run(&resolve(*wish, None)?)?,
        LabVerb::Up { wish, until } => outer::run(&resolve(*wish, Some(until))?)?,
        LabVerb::Down { state } => outer::down(&absolute(&state)?)?,
        LabVerb::Kubectl { state, site, words } => {
            match outer::kubectl(&absolute(&state)?, &site, &words)? {}
        }
        LabVerb::Part { words } => return part::play(part::Part::parse(&words)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything as absolute paths: the capsule stands elsewhere.
fn resolve(wish: Wish, until: Option<Stage>) -> Result<Options> {
    let program = std::env::current_exe().context("finding this program's own file")?;
    let beside = program.parent().unwrap_or(Path::new("/")).to_path_buf();
    let bin_dir = wish.bin_dir.as_deref().map_or(Ok(beside), absolute)?;
    let share = match &wish.share {
        Some(share) => absolute(share)?,
        None => options::find_share(&bin_dir).unwrap_or_else(|| bin_dir.clone()),
    };
    let image = match &wish.image {
        Some(image) => absolute(image)?,
        None => beside_of(&bin_dir).join("images").join(match wish.engine {
            EngineKind::Podman => "dtn-transfer.tar",
            EngineKind::Kubernetes => "dtn-transfer-oci.tar",
        }),
    };
    let kubernetes = match &wish.kubernetes {
        Some(folder) => absolute(folder)?,
        None => beside_of(&bin_dir).join("kubernetes"),
    };
    let onos = onos(&wish, &bin_dir)?;
    Ok(Options {
        state: absolute(&wish.state)?,
        engine: wish.engine,
        kubernetes,
        kubeconfigs: wish.kubeconfig,
        fabric: wish.fabric,
        onos,
        wan: wish.wan.unwrap_or(wish.fabric.usual_wan()),
        wan_at_most: wish.wan.is_none(),
        rtt: wish.rtt,
        mtu: wish.mtu,
        nics: wish.nics,
        nic: wish.nic,
        rate: wish.rate,
        min_rate: wish.min_rate,
        class: wish.class,
        data: absolute(&wish.data)?,
        large: wish.large,
        both: wish.both,
        interrupt: wish.interrupt,
        kill_supervisor: wish.kill_supervisor,
        until,
        keep: wish.keep,
        report: wish.report.as_deref().map(absolute).transpose()?,
        svg: wish.svg.as_deref().map(absolute).transpose()?,
        bin_dir,
        share,
        image,
    })
}

/// Those that are given; where one value is said for two, it is that of both.
fn onos(wish: &Wish, bin_dir: &Path) -> Result<OnosOptions> {
    let core = match &wish.onos_core {
        Some(core) => absolute(core)?,
        None => beside_of(bin_dir).join("onos-core"),
    };
    let mut given = Vec::new();
    for (at, url) in wish.onos.iter().enumerate() {
        let credentials = (wish.onos_credentials.get(at))
            .or(wish.onos_credentials.last())
            .context("--onos needs --onos-credentials: a file of mode 0600 with one line USER:PASSWORD, of an administrator of that ONOS")?;
        given.push(Given {
            url: url.clone(),
            openflow: *wish
                .onos_openflow
                .get(at)
                .or(wish.onos_openflow.last())
                .unwrap_or(&6653),
            credentials: absolute(credentials)?,
        });
    }
    Ok(OnosOptions { core, given })
}

/// The folder that holds the folder of the binaries: `target`, in a checkout.
fn beside_of(bin_dir: &Path) -> &Path {
    bin_dir.parent().unwrap_or(bin_dir)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("finding {}", path.display()))
}
