//! The sites' switches, running: per site an Open vSwitch of its own in the namespace of its
//! switches, with database, sockets and logs in the lab's folder. Nothing of the machine's own Open
//! vSwitch is read or written.

use crate::{
    Options,
    pillar::{Pillar, Watch},
    place::{Place, SITES},
    shell::{self, SHORT},
    site::{self, management_v4},
    switches::{self, ACCESS, BORDER, BRIDGES, TRIAL},
};
use anyhow::{Context, Result};
use dtn_api::Rate;
use std::{fs, path::PathBuf, process::Stdio};
use tokio::process::Command;

/// The database's schema, as Debian's package has it.
pub const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// The switches of one site.
pub struct Switches {
    site: usize,
    /// Database and sockets; an operator's own `ovs-ofctl` reaches them here while the lab is up.
    folder: PathBuf,
}

impl Switches {
    /// Starts database and switch, and makes the bridges. The data NICs are cabled.
    pub async fn start(
        site: usize,
        options: &Options,
        place: &Place,
        watch: &Watch,
    ) -> Result<(Self, Vec<Pillar>)> {
        let name = SITES[site];
        let folder = place.run().join(switches::space(site));
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let switches = Self { site, folder };
        let database = switches.folder.join("conf.db");
        let mut make = switches.program("ovsdb-tool");
        make.arg("create").arg(&database).arg(SCHEMA);
        shell::output(make, None, SHORT)
            .await
            .context("making the switches' database")?;
        let mut pillars = Vec::new();
        let mut keep = |program: &str, arguments: [String; 2]| -> Result<()> {
            let log = place.log(&format!("{name}-{program}"));
            let child = switches
                .program(program)
                .args(arguments)
                // its log is what it says; the machine's syslog hears nothing
                .args(["-vconsole:info", "-vsyslog:off"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(
                    fs::File::create(&log).with_context(|| format!("opening {}", log.display()))?,
                )
                .kill_on_drop(true)
                .spawn()
                .with_context(|| format!("starting {program} of {name}"))?;
            pillars.push(watch.over(format!("{program} of {name}"), &log, child));
            Ok(())
        };
        keep(
            "ovsdb-server",
            [
                database.display().to_string(),
                format!("--remote=p{}", switches.database()),
            ],
        )?;
        switches.vsctl(["--no-wait", "init"]).await?;
        keep(
            "ovs-vswitchd",
            [
                switches.database(),
                // the name that it has by itself carries its process id
                format!(
                    "--unixctl={}",
                    switches.folder.join("vswitchd.ctl").display()
                ),
            ],
        )?;
        switches
            .vsctl(switches::bridges(site, options.nics))
            .await
            .with_context(|| format!("making the bridges of {name}"))?;
        for (nic, port) in site::plugs(options.nics) {
            whole_frames(name, &nic).await?;
            whole_frames(&switches::space(site), &port).await?;
        }
        Ok((switches, pillars))
    }

    /// Plugs the wide-area link in.
    pub async fn plug_border(&self) -> Result<()> {
        whole_frames(&switches::space(self.site), BORDER.1).await?;
        self.vsctl(["add-port", BORDER.0, BORDER.1]).await
    }

    /// Plugs in what stands for a host while the switches are tried, and lays flows for it.
    pub async fn begin_trial(&self, mtu: u32) -> Result<()> {
        let (space, (port, end)) = (switches::space(self.site), TRIAL);
        site::ip(&format!(
            "-n {space} link add {port} mtu {mtu} type veth peer name {end} mtu {mtu}\n\
             -n {space} link set {port} up\n\
             -n {space} link set {end} up\n"
        ))
        .await?;
        whole_frames(&space, end).await?;
        self.vsctl(["add-port", ACCESS, port]).await?;
        for bridge in BRIDGES {
            let flows = switches::trial_flows(bridge);
            self.ofctl("add-flows", bridge, &["-"], Some(&flows))
                .await?;
        }
        Ok(())
    }

    /// Takes the trial's port and flows away again: the bridges are empty.
    pub async fn end_trial(&self) -> Result<()> {
        for bridge in BRIDGES {
            self.ofctl("del-flows", bridge, &[], None).await?;
        }
        self.vsctl(["del-port", ACCESS, TRIAL.0]).await?;
        let space = switches::space(self.site);
        site::ip(&format!("-n {space} link del {}\n", TRIAL.0)).await?;
        Ok(())
    }

    /// From here on the site's controller commands them, once it is up.
    pub async fn obey(&self) -> Result<()> {
        self.vsctl(switches::obedience(management_v4(self.site)))
            .await
            .with_context(|| format!("naming the controller of {}", SITES[self.site]))
    }

    /// Frames that their meters have dropped.
    pub async fn meter_drops(&self) -> Result<u64> {
        let mut all = 0;
        for bridge in BRIDGES {
            let text = self.ofctl("meter-stats", bridge, &[], None).await?;
            all += switches::dropped(&text)
                .with_context(|| format!("the meters of {} say {text:?}", SITES[self.site]))?;
        }
        Ok(all)
    }

    /// Packets that no access rule allowed, or that one denied.
    pub async fn denied(&self) -> Result<u64> {
        let mut all = 0;
        for bridge in BRIDGES {
            let text = self.ofctl("dump-flows", bridge, &[], None).await?;
            all += switches::denied(&text)
                .with_context(|| format!("the flows of {} say {text:?}", SITES[self.site]))?;
        }
        Ok(all)
    }

    fn database(&self) -> String {
        format!("unix:{}", self.folder.join("db.sock").display())
    }

    /// A program of Open vSwitch in the namespace of the switches, with no folder but the lab's.
    fn program(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", switches::space(self.site)))
            .arg("--")
            .arg(program);
        for folder in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(folder, &self.folder);
        }
        command
    }

    async fn vsctl<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<()> {
        let mut command = self.program("ovs-vsctl");
        command
            .arg(format!("--db={}", self.database()))
            .arg("--retry")
            .arg(format!("--timeout={}", SHORT.as_secs()))
            .args(arguments);
        shell::output(command, None, SHORT * 2).await?;
        Ok(())
    }

    async fn ofctl(
        &self,
        verb: &str,
        bridge: &str,
        arguments: &[&str],
        input: Option<&str>,
    ) -> Result<String> {
        let mut command = self.program("ovs-ofctl");
        command
            .args(["-O", "OpenFlow13", verb])
            .arg(self.folder.join(format!("{bridge}.mgmt")))
            .args(arguments);
        Ok(shell::output(command, input, SHORT).await?)
    }
}

/// What Open vSwitch says that it is.
pub async fn version() -> Result<String> {
    let said = shell::run("ovs-vswitchd", ["--version"], SHORT).await?;
    let version = said
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().last())
        .with_context(|| format!("ovs-vswitchd says {said:?}"))?;
    Ok(version.to_owned())
}

/// Checksums are filled in and segments are cut before a frame leaves this end. The switch reads
/// frames with AF_PACKET, as they are on the cable: with checksum offload TCP stops at its first
/// segment.
async fn whole_frames(space: &str, link: &str) -> Result<()> {
    let inside = format!("--net=/run/netns/{space}");
    let words = [
        inside.as_str(),
        "--",
        "ethtool",
        "-K",
        link,
        "tx",
        "off",
        "tso",
        "off",
        "gso",
        "off",
    ];
    shell::run("nsenter", words, SHORT)
        .await
        .with_context(|| format!("turning off the offloads of {link} in {space}"))?;
    Ok(())
}

/// The highest frame rate that the switches of both sites and the link between them carry, tried
/// with paced streams; `None` when it is below the lowest that is tried.
pub async fn try_out(mtu: u32, stream: impl AsyncFn(Rate) -> Result<Rate>) -> Result<Option<Rate>> {
    switches::climb(&switches::RUNGS, async |rate| {
        let arrived = stream(rate).await?;
        tracing::info!("paced at {rate}: {arrived} arrived");
        anyhow::Ok(switches::carried(rate, mtu, arrived))
    })
    .await
}
