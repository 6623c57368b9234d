//! The one node of a site's cluster: containerd and a kubelet on the site's host, the pods' own
//! network with `vdn-chain` as its last plugin, and what the host needs of its own for them.

use super::{PATIENCE, Starter, control::GATES, kit::Kit, pki::Files};
use crate::{
    Options,
    cgroups::{self, Hierarchy},
    daemons::HOST,
    engine, mounts,
    pillar::Pillar,
    place::Place,
    runtime,
    shell::{self, SHORT},
    site::{Site, management_v4},
};
use anyhow::{Context, Result, bail};
use dtn_api::{DTND_SOCKET, RUN_DIR, STATE_DIR};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// containerd's socket, in the host's own `/run`.
const CONTAINERD: &str = "/run/containerd/containerd.sock";
/// Addresses of the pods' own network. The two clusters know nothing of each other, and have the same.
const PODS: &str = "10.30.0.0/24";
/// containerd's name for what Kubernetes has in it.
const SPACE: &str = "k8s.io";
/// Longest time for an image to be unpacked.
const IMPORT: Duration = Duration::from_secs(300);
/// Folders at places that kubelet and containerd cannot be told others for, by the folder above.
const OWN: [(&str, &[&str]); 2] = [
    ("/var/lib", &["kubelet", "cni"]),
    ("/var/log", &["containers"]),
];
/// What a kubelet sets for the whole machine, which the lab leaves as it is: the kubelet is shown what
/// it wants to see.
const SETTINGS: [(&str, &str); 6] = [
    ("/proc/sys/vm/overcommit_memory", "1"),
    ("/proc/sys/vm/panic_on_oom", "0"),
    ("/proc/sys/kernel/panic", "10"),
    ("/proc/sys/kernel/panic_on_oops", "1"),
    ("/proc/sys/kernel/keys/root_maxkeys", "1000000"),
    ("/proc/sys/kernel/keys/root_maxbytes", "25000000"),
];

/// In the host's mount namespace, before anything runs there: its own folders and settings, and mounts
/// that containers made there see too.
pub fn furnish(place: &Place, site: &str) -> Result<()> {
    for (above, names) in OWN {
        mounts::own(Path::new(above), names)?;
    }
    let kubelet = place.root(site).join("kubelet");
    fs::create_dir_all(&kubelet).with_context(|| format!("making {}", kubelet.display()))?;
    mounts::bind(&kubelet, Path::new("/var/lib/kubelet"))?;
    let shown = Path::new("/run/lab-settings");
    fs::create_dir_all(shown).with_context(|| format!("making {}", shown.display()))?;
    for (setting, value) in SETTINGS {
        let real = Path::new(setting);
        if !real.exists() {
            continue;
        }
        let file = shown.join(setting.trim_start_matches('/').replace('/', "."));
        fs::write(&file, format!("{value}\n"))
            .with_context(|| format!("writing {}", file.display()))?;
        mounts::bind(&file, real)?;
    }
    mounts::share()
}

/// Starts the node's two daemons and lays the images in.
pub(crate) async fn start(
    starter: &Starter<'_>,
    files: &Files,
    options: &Options,
) -> Result<Vec<Pillar>> {
    let (root, site) = (starter.root(), starter.site.name);
    let places = Places::new(&root);
    for folder in [
        &places.containerd,
        &places.conflists,
        &places.plugins,
        &places.logs,
    ] {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    plugins(starter.kit, options, &places.plugins)?;
    put(
        &places.conflists.join("10-cluster.conflist"),
        &conflist(&root).to_string(),
    )?;
    let status = fs::read_to_string("/proc/self/status").context("reading the own capabilities")?;
    let snapshots = match engine::carries_overlay(starter.place)? {
        true => "overlayfs",
        false => "native",
    };
    let toml = places.configuration.join("containerd.toml");
    fs::create_dir_all(&places.configuration)
        .with_context(|| format!("making {}", places.configuration.display()))?;
    put(
        &toml,
        &containerd_toml(&places, snapshots, runtime::may_raise_limits(&status)),
    )?;
    let containerd = starter.process(
        "containerd",
        vec!["--config".into(), toml.display().to_string()],
    )?;
    answers(starter).await?;
    for image in [&starter.kit.pause(), &options.image] {
        let mut command = ctr(starter.kit, starter.site);
        command
            .args(["images", "import", "--snapshotter", snapshots])
            .arg(image);
        shell::output(command, None, IMPORT)
            .await
            .with_context(|| format!("importing {} at {site}", image.display()))?;
    }

    let hierarchies = cgroups::mounted().context("reading the hierarchies of cgroups")?;
    cgroup(&hierarchies, site)?;
    let yaml = places.configuration.join("kubelet.yaml");
    put(
        &yaml,
        &kubelet(starter.site.index, site, &files.ca, &places.logs).to_string(),
    )?;
    let kubelet = starter.process(
        "kubelet",
        vec![
            format!("--config={}", yaml.display()),
            format!("--kubeconfig={}", files.node.display()),
            format!("--hostname-override={HOST}"),
            format!("--node-ip={}", management_v4(starter.site.index)),
        ],
    )?;
    Ok(vec![containerd, kubelet])
}

/// Where the node's parts are, below the site's folder.
struct Places {
    configuration: PathBuf,
    containerd: PathBuf,
    conflists: PathBuf,
    plugins: PathBuf,
    logs: PathBuf,
}

impl Places {
    fn new(root: &Path) -> Self {
        Self {
            configuration: root.join("etc/kubernetes"),
            containerd: root.join("containerd"),
            conflists: root.join("etc/cni/net.d"),
            plugins: root.join("opt/cni/bin"),
            logs: root.join("var/log/pods"),
        }
    }
}

fn put(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// The plugins of the pods' own network, and the appliance's.
fn plugins(kit: &Kit, options: &Options, folder: &Path) -> Result<()> {
    let own = ["vdn-host-device", "vdn-macvlan", "vdn-chain", "vdn-ipam"];
    let own = own.map(|name| (name, options.program(name)));
    for (name, program) in kit.plugins().chain(own) {
        let link = folder.join(name);
        std::os::unix::fs::symlink(&program, &link)
            .with_context(|| format!("linking {} to {}", link.display(), program.display()))?;
    }
    Ok(())
}

/// The pods' own network, as a site would have one before, and ours behind it.
pub fn conflist(root: &Path) -> Value {
    let below = |place: &str| root.join(place.trim_start_matches('/'));
    json!({"cniVersion": "1.0.0", "name": "cluster", "plugins": [
        {"type": "bridge", "bridge": "cni0", "isGateway": true,
         "ipam": {"type": "host-local", "subnet": PODS, "routes": [{"dst": "0.0.0.0/0"}]}},
        {"type": "vdn-chain", "stateDir": below(STATE_DIR), "runDir": below(RUN_DIR),
         "socket": below(DTND_SOCKET)},
    ]})
}

/// containerd's configuration: nothing of it outside of the site's folder and of the host's `/run`.
fn containerd_toml(places: &Places, snapshots: &str, may_raise: bool) -> String {
    format!(
        r#"# containerd of a simulated host.
version = 3
root = "{root}"
state = "/run/containerd"
# it would make /opt/containerd on the machine
disabled_plugins = ["io.containerd.internal.v1.opt"]

[grpc]
address = "{CONTAINERD}"

[plugins.'io.containerd.cri.v1.runtime']
# where a process may not be made more important than the lab (CAP_SYS_RESOURCE)
restrict_oom_score_adj = {restrict}
# a profile would be the machine's
disable_apparmor = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{plugins}"]
conf_dir = "{conflists}"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins.'io.containerd.cri.v1.images']
snapshotter = "{snapshots}"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "localhost/pause:1"
"#,
        root = places.containerd.display(),
        restrict = !may_raise,
        plugins = places.plugins.display(),
        conflists = places.conflists.display(),
    )
}

/// The kubelet's configuration. JSON, which YAML contains.
pub fn kubelet(site: usize, name: &str, ca: &Path, logs: &Path) -> Value {
    let (gate, on) = GATES;
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": management_v4(site).to_string(),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": ca},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD}"),
        // below the lab's own cgroup, which is what the capsule sees of the machine's
        "cgroupRoot": format!("/{name}"),
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": false,
        "failSwapOn": false,
        "enforceNodeAllocatable": [],
        // a disk of the machine's that is nearly full is the machine's trouble
        "evictionHard": {"memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
        "resolvConf": "",
        "podLogsDir": logs,
        // a pod whose driver was away for a moment is not left for a minute
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
        "shutdownGracePeriod": "0s",
        "featureGates": {gate: on},
    })
}

/// The node's cgroup in every hierarchy: a kubelet makes none for itself.
fn cgroup(hierarchies: &[Hierarchy], name: &str) -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    for hierarchy in hierarchies.iter().filter(|one| one.mount.starts_with(root)) {
        if hierarchy.unified() {
            hand_on(&hierarchy.mount)?;
        }
        let folder = hierarchy.mount.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        // a new cpuset of version 1 is empty and takes no process
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let (from, to) = (hierarchy.mount.join(file), folder.join(file));
            if !hierarchy.unified() && from.is_file() {
                fs::read(from)
                    .and_then(|value| fs::write(&to, value))
                    .with_context(|| format!("writing {}", to.display()))?;
            }
        }
    }
    Ok(())
}

/// Gives what is below a cgroup of version 2 all controllers that it has itself.
fn hand_on(cgroup: &Path) -> Result<()> {
    let (has, gives) = (
        cgroup.join("cgroup.controllers"),
        cgroup.join("cgroup.subtree_control"),
    );
    let controllers =
        fs::read_to_string(&has).with_context(|| format!("reading {}", has.display()))?;
    for controller in controllers.split_whitespace() {
        fs::write(&gives, format!("+{controller}"))
            .with_context(|| format!("giving {controller} to {}", gives.display()))?;
    }
    Ok(())
}

/// containerd's own tool on a site's host.
pub(crate) fn ctr(kit: &Kit, site: &Site) -> tokio::process::Command {
    let mut command = site.command(kit.program("ctr"));
    command.args(["--address", CONTAINERD, "--namespace", SPACE]);
    command
}

/// Waits until containerd answers.
async fn answers(starter: &Starter<'_>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let mut command = ctr(starter.kit, starter.site);
        command.arg("version");
        let Err(error) = shell::output(command, None, SHORT).await else {
            return Ok(());
        };
        if Instant::now() >= end {
            bail!(
                "containerd of {} does not answer: {error}",
                starter.site.name
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The process of a container, by its id.
pub(crate) async fn process(kit: &Kit, site: &Site, container: &str) -> Result<u32> {
    let mut command = ctr(kit, site);
    command.args(["tasks", "list"]);
    let text = shell::output(command, None, SHORT)
        .await
        .context("listing containerd's processes")?;
    let pid = text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(container)).then(|| words.next()?.parse().ok())?
    });
    pid.with_context(|| format!("containerd of {} has no process of {container}", site.name))
}
