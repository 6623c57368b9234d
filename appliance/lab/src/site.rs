//! The sites: per site a host with its own network and mount namespace, a switch, cables, and a
//! management link. All of it is made with iproute2, inside the capsule.

use crate::{
    Options, cluster, daemons, gateway,
    options::{EngineKind, Fabric},
    part,
    pillar::{Pillar, Watch},
    place::{Place, SITES},
    shell::{self, SHORT, ShellError},
    switches,
};
use anyhow::{Context, Result, ensure};
use std::{
    ffi::OsStr,
    fmt::Write,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
    process::Stdio,
};
use tokio::{io::AsyncReadExt, process::Command, time::timeout};

/// Names of the namespaces in the capsule; the machine must not have the same.
pub const NAMESPACES: [&str; 7] = [
    "daejeon",
    "busan",
    "daejeon-outside",
    "busan-outside",
    "daejeon-switch",
    "busan-switch",
    "wan",
];
/// How many of them have somebody in them who speaks: the first ones.
const SPEAKING: usize = 2 * SITES.len();

/// The management network, IPv4: 10.254.0.0/24, the hosts from 11, their switches from 21.
pub fn management_v4(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 254, 0, 11 + u8::try_from(index).unwrap_or(0))
}
/// The management network, IPv6: a unique local prefix (RFC 4193) of the lab's own.
pub fn management_v6(index: usize) -> Ipv6Addr {
    Ipv6Addr::new(
        0xfd54,
        0x4e4c,
        0x4142,
        0,
        0,
        0,
        0,
        0x11 + u16::try_from(index).unwrap_or(0),
    )
}

/// One site, up.
pub struct Site {
    /// Its name; also the name of its domain.
    pub name: &'static str,
    /// Which of the sites.
    pub index: usize,
    /// The anchor, which holds the host's namespaces.
    pid: u32,
}

/// The NICs of a host that are plugged into its site's switch, each with its port there.
pub fn plugs(nics: u32) -> Vec<(String, String)> {
    let data = (0..nics).map(|nic| (format!("data{nic}"), format!("port{nic}")));
    let others = gateway::PLUGS.map(|(nic, port)| (nic.to_owned(), port.to_owned()));
    data.chain(others).collect()
}

/// The commands of `ip -batch` that make the sites and their cables up to the borders. Every name is
/// made once; the capsule's namespaces are new.
pub fn cabling(options: &Options) -> String {
    let mut text = String::new();
    let mut line = |command: String| {
        let _ = writeln!(text, "{command}");
    };
    let mtu = options.mtu;
    line("link set lo up".into());
    line("link add mgmt type bridge mcast_snooping 0".into());
    line("addr add 10.254.0.1/24 dev mgmt".into());
    line("addr add fd54:4e4c:4142::1/64 dev mgmt nodad".into());
    line("link set mgmt up".into());
    for (index, site) in SITES.iter().enumerate() {
        let port = format!("mg-{site}");
        line(format!(
            "link add {port} type veth peer name mgmt0 netns {site}"
        ));
        line(format!("link set {port} master mgmt up"));
        line(format!("-n {site} link set lo up"));
        line(format!(
            "-n {site} addr add {}/24 dev mgmt0",
            management_v4(index)
        ));
        line(format!(
            "-n {site} addr add {}/64 dev mgmt0 nodad",
            management_v6(index)
        ));
        line(format!("-n {site} link set mgmt0 up"));
        line(format!("-n {site} route add default via 10.254.0.1"));
        let switch = format!("{site}-switch");
        let bridged = options.fabric == Fabric::Edge;
        line(format!("-n {switch} link set lo up"));
        if bridged {
            line(format!(
                "-n {switch} link add switch type bridge mcast_snooping 0 forward_delay 0"
            ));
        } else {
            line(switches::management_link(index).trim_end().to_owned());
        }
        for (nic, port) in plugs(options.nics) {
            line(format!(
                "-n {switch} link add {port} mtu {mtu} type veth peer name {nic} mtu {mtu} netns {site}"
            ));
            let master = if bridged { "master switch " } else { "" };
            line(format!("-n {switch} link set {port} {master}up"));
            // a NIC that nobody uses yet is plugged in: carrier is there once it is set up
            line(format!("-n {site} link set {nic} up"));
        }
        if bridged {
            line(format!("-n {switch} link set switch mtu {mtu} up"));
        }
        for command in gateway::cabling(index, &daemons::pools(index)).lines() {
            line(command.to_owned());
        }
    }
    text
}

/// `ip -batch` reads options of a single command only at its front, so lines with `-n` are run as
/// commands of their own; the rest goes in one batch per namespace, in order.
pub async fn ip(batch: &str) -> Result<(), ShellError> {
    let mut pending: Option<(Option<&str>, String)> = None;
    for line in batch.lines().filter(|line| !line.trim().is_empty()) {
        let (space, command) = match line
            .strip_prefix("-n ")
            .and_then(|rest| rest.split_once(' '))
        {
            Some((space, command)) => (Some(space), command),
            None => (None, line),
        };
        match &mut pending {
            Some((same, text)) if *same == space => {
                text.push_str(command);
                text.push('\n');
            }
            _ => {
                if let Some((space, text)) = pending.take() {
                    run_batch(space, &text).await?;
                }
                pending = Some((space, format!("{command}\n")));
            }
        }
    }
    match pending {
        Some((space, text)) => run_batch(space, &text).await,
        None => Ok(()),
    }
}

async fn run_batch(space: Option<&str>, text: &str) -> Result<(), ShellError> {
    let mut arguments = Vec::new();
    if let Some(space) = space {
        arguments.extend(["-n", space]);
    }
    arguments.extend(["-batch", "-"]);
    shell::feed("ip", &arguments, text, SHORT).await.map(|_| ())
}

/// Makes the namespaces, keeps the switches silent, lays the cables, and starts the anchors.
pub async fn build(
    options: &Options,
    place: &Place,
    program: &Path,
    watch: &Watch,
) -> Result<(Vec<Site>, Vec<Pillar>)> {
    for space in NAMESPACES {
        shell::run("ip", ["netns", "add", space], SHORT).await?;
    }
    // switches and the wide area speak for nobody: no neighbour discovery, no multicast reports
    for space in &NAMESPACES[SPEAKING..] {
        let quiet = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6";
        shell::run("ip", ["netns", "exec", space, "sh", "-c", quiet], SHORT).await?;
    }
    ip(&cabling(options))
        .await
        .context("laying the sites' cables")?;
    let (mut sites, mut anchors) = (Vec::new(), Vec::new());
    for (index, name) in SITES.iter().enumerate() {
        let (site, anchor) = Site::start(index, name, options, place, program, watch).await?;
        sites.push(site);
        anchors.push(anchor);
    }
    Ok((sites, anchors))
}

impl Site {
    async fn start(
        index: usize,
        name: &'static str,
        options: &Options,
        place: &Place,
        program: &Path,
        watch: &Watch,
    ) -> Result<(Self, Pillar)> {
        let log_file = place.log(&format!("{name}-host"));
        let log = std::fs::File::create(&log_file)
            .with_context(|| format!("opening the log of {name}'s host"))?;
        let mut anchor = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{name}"))
            .args([
                "--",
                "unshare",
                "--mount",
                "--uts",
                "--propagation",
                "private",
                "--",
            ])
            .arg(program)
            .args(part::anchor_words(name, options.engine, place.state()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}'s host"))?;
        let pid = anchor
            .id()
            .with_context(|| format!("{name}'s host has ended at once"))?;
        let mut word = [0_u8; 6];
        let mut stdout = anchor
            .stdout
            .take()
            .with_context(|| format!("{name}'s host has no output"))?;
        timeout(SHORT, stdout.read_exact(&mut word))
            .await
            .with_context(|| format!("waiting {} s for {name}'s host", SHORT.as_secs()))?
            .with_context(|| {
                format!(
                    "{name}'s host ended early; its log is {}",
                    log_file.display()
                )
            })?;
        ensure!(&word == b"ready\n", "{name}'s host said {word:?}");
        let pillar = watch.over(format!("{name}'s host"), &log_file, anchor);
        Ok((Self { name, index, pid }, pillar))
    }

    /// A command that runs on this site's host.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg("--target")
            .arg(self.pid.to_string())
            // its root too: entering a mount namespace leads to that namespace's root, which is
            // another one where the lab itself runs in a chroot
            .args(["--net", "--mount", "--uts", "--root", "--wd", "--"])
            .arg(program);
        command
    }
}

/// The anchor's life: a host's own `/sys`, `/run` and shared memory, then silence until its input
/// ends. It runs in the host's network namespace and in a mount namespace of its own.
pub fn anchor(site: &str, place: &Place, engine: EngineKind) -> Result<()> {
    use crate::mounts::{bind, detach, tmpfs};
    use nix::mount::{MsFlags, mount};
    use std::io::{Read, Write};

    nix::unistd::sethostname(site).with_context(|| format!("naming the host {site}"))?;
    // sysfs shows the links of the namespace that mounts it; the cgroups are bound back into it
    let aside = Path::new("/run/cgroups-aside");
    std::fs::create_dir_all(aside).with_context(|| format!("making {}", aside.display()))?;
    bind(Path::new("/sys/fs/cgroup"), aside)?;
    mount(
        Some("sysfs"),
        "/sys",
        Some("sysfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        None::<&str>,
    )
    .with_context(|| format!("mounting {site}'s /sys"))?;
    bind(aside, Path::new("/sys/fs/cgroup"))?;
    detach(aside)?;
    tmpfs(Path::new("/run"), "mode=755")?;
    tmpfs(Path::new("/dev/shm"), "mode=1777")?;
    if engine == EngineKind::Kubernetes {
        cluster::node::furnish(place, site)?;
    }
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(b"ready\n")
        .and_then(|()| stdout.flush())
        .context("saying that the host is ready")?;
    let mut rest = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut rest)
        .context("waiting for the end")?;
    Ok(())
}
