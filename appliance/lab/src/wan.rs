//! The wide-area link between the two switches: its frame rate by HTB on both borders, its round trip
//! by netem where the kernel has that, else by the lab's [`crate::relay`].
//!
//! ```text
//! daejeon-switch            wan                        busan-switch
//!   border (HTB) ══ near  [netem | relay | bridge]  far ══ border (HTB)
//! ```

use crate::{
    Options,
    options::Fabric,
    pillar::{Pillar, Watch},
    preflight, probe,
    relay::Count,
    shell::{self, SHORT, ShellError},
    site, switches,
};
use anyhow::{Context, Result, bail};
use dtn_api::{Rate, Span};
use std::{net::Ipv4Addr, path::Path, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

/// Addresses of the two switches while the link is being tried: link-local (RFC 3927), gone before
/// anyone else comes.
const TRY: [Ipv4Addr; 2] = [
    Ipv4Addr::new(169, 254, 77, 1),
    Ipv4Addr::new(169, 254, 77, 2),
];

/// Namespaces of the two switches.
const SWITCHES: [&str; 2] = ["daejeon-switch", "busan-switch"];
/// How much of a trial's stream is counted.
const COUNTED: Duration = Duration::from_secs(1);
/// Largest socket buffers of the trial, bytes: 10 Gb/s over 50 ms, both at once.
const BUFFERS: &str = "4096 131072 134217728";

/// Who makes the delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DelayBy {
    /// None is wanted.
    Nobody,
    /// The kernel's netem.
    Netem,
    /// The lab's relay in user space.
    Relay,
}
impl std::fmt::Display for DelayBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Nobody => "none",
            Self::Netem => "netem",
            Self::Relay => "relay",
        })
    }
}

/// The link, up.
pub struct Wan {
    /// Who makes its delay.
    pub delay_by: DelayBy,
    /// What it carried without its rate limit, bits per second of TCP payload, where a relay is in it
    /// that was tried alone.
    pub carries: Option<Rate>,
    /// Median round trip that was measured, microseconds.
    pub rtt_us: u64,
    relay: Option<RelayProcess>,
}

/// The relay's ear and mouth.
struct RelayProcess {
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

/// Bytes that may wait at a border: the bandwidth-delay product or 50 ms of the rate, whichever is
/// more, and never less than a GSO frame.
pub fn queue_bytes(rate: Rate, rtt: Span) -> u64 {
    let millis = rtt.millis().max(50);
    let bits = u128::from(rate.bps()) * u128::from(millis) / 1000;
    u64::try_from(bits / 8).unwrap_or(u64::MAX).max(128 << 10)
}

/// Burst of HTB: a millisecond of the rate, and at least two GSO frames, so that one always fits.
pub fn burst_bytes(rate: Rate) -> u64 {
    (rate.bps() / 8000).max(128 << 10)
}

/// Burst of a border. A switch in user space waits before it with one socket's buffer (wmem_default,
/// 208 KiB with the kernel's own share: a dozen frames of 9000 bytes) and not with the queue, so what
/// paced slices send at once has to fit into the burst: 10 ms of the rate, half a MiB at least.
fn border_burst(fabric: Fabric, rate: Rate) -> u64 {
    match fabric {
        Fabric::Edge => burst_bytes(rate),
        Fabric::Openflow | Fabric::Onos => (rate.bps() / 800).max(512 << 10),
    }
}

/// Bytes that a relay may hold in one direction: what 40 Gb/s put into it in its hold time (nothing
/// on one machine is faster), and some for what arrives in bursts.
fn relay_bytes(hold: Duration) -> u64 {
    let flight = hold.as_micros() * 40_000 / 8;
    u64::try_from(flight)
        .unwrap_or(u64::MAX)
        .clamp(1 << 20, 512 << 20)
        + (4 << 20)
}

/// The commands of tc that limit what leaves a link: a border, or the near end of a trial.
pub fn shaping(link: &str, rate: Rate, burst: u64, rtt: Span) -> [String; 3] {
    let (bps, queue) = (rate.bps(), queue_bytes(rate, rtt));
    [
        format!("qdisc replace dev {link} root handle 1: htb default 10"),
        format!(
            "class replace dev {link} parent 1: classid 1:10 htb rate {bps}bit ceil {bps}bit burst {burst}b cburst {burst}b quantum 60000"
        ),
        // counted in bytes, since one frame may stand for forty segments
        format!("qdisc replace dev {link} parent 1:10 handle 10: bfifo limit {queue}"),
    ]
}

/// Lays the link without a limit, and tries what a relay in it carries when it ends in bridges of
/// the kernel: other switches are tried together with it.
pub async fn lay(
    options: &Options,
    program: &Path,
    log: &Path,
    watch: &Watch,
) -> Result<(Wan, Option<Pillar>)> {
    let mtu = options.mtu;
    let bridged = options.fabric == Fabric::Edge;
    let master = if bridged { "master switch " } else { "" };
    let borders: String = [("daejeon-switch", "near"), ("busan-switch", "far")]
        .iter()
        .map(|(switch, end)| {
            format!(
                "-n {switch} link add border mtu {mtu} type veth peer name {end} mtu {mtu} netns wan\n\
                 -n {switch} link set border {master}up\n\
                 -n wan link set {end} up\n"
            )
        })
        .collect();
    site::ip(&borders)
        .await
        .context("laying the cables to the borders")?;
    let hold = options.rtt.duration() / 2;
    let delay_by = if hold.is_zero() {
        DelayBy::Nobody
    } else if preflight::works("tc qdisc add dev lo root netem delay 1ms") {
        DelayBy::Netem
    } else {
        DelayBy::Relay
    };
    let (mut relay, mut pillar) = (None, None);
    match delay_by {
        DelayBy::Nobody => join(mtu).await?,
        DelayBy::Netem => {
            join(mtu).await?;
            for end in ["near", "far"] {
                // its own queue must never be the limit: the border's is
                let delay = format!(
                    "-n wan qdisc replace dev {end} root netem delay {}us limit 1000000",
                    hold.as_micros()
                );
                shell::run("tc", delay.split(' '), SHORT)
                    .await
                    .context("delaying the wide-area link")?;
            }
        }
        DelayBy::Relay => {
            let (process, child) = RelayProcess::start(program, mtu, hold, log).await?;
            (relay, pillar) = (
                Some(process),
                Some(watch.over("the wide-area link's relay", log, child)),
            );
        }
    }
    let mut wan = Wan {
        delay_by,
        carries: None,
        rtt_us: 0,
        relay,
    };
    if bridged && wan.relay.is_some() {
        wan.carries = Some(stream(options, program, log).await?);
    }
    Ok((wan, pillar))
}

/// Limits the link to its rate and measures its round trip. Nothing of a trial stays.
pub async fn limit(wan: &mut Wan, options: &Options, program: &Path, log: &Path) -> Result<()> {
    for switch in SWITCHES {
        let burst = border_burst(options.fabric, options.wan);
        limit_one(switch, "border", options.wan, burst, options.rtt)
            .await
            .context("limiting the wide-area link")?;
    }
    let end = trial_end(options.fabric);
    let far = Far::start(program, end, options.rtt, log).await?;
    wan.rtt_us = far.ping(program).await?;
    drop(far);
    for (switch, address) in SWITCHES.iter().zip(TRY) {
        site::ip(&format!("-n {switch} addr del {address}/30 dev {end}\n")).await?;
    }
    Ok(())
}

/// What one stream of TCP gets from end to end. The link is laid and not limited.
async fn stream(options: &Options, program: &Path, log: &Path) -> Result<Rate> {
    let end = trial_end(options.fabric);
    let far = Far::start(program, end, options.rtt, log).await?;
    far.stream(program, options.rtt).await
}

/// The same, paced at a frame rate.
pub async fn paced_stream(
    options: &Options,
    program: &Path,
    log: &Path,
    rate: Rate,
) -> Result<Rate> {
    let (switch, end) = (SWITCHES[0], trial_end(options.fabric));
    limit_one(switch, end, rate, burst_bytes(rate), options.rtt)
        .await
        .context("pacing the trial")?;
    let arrived = stream(options, program, log).await?;
    // another rate needs another queue: HTB's root takes no change
    let words = ["-n", switch, "qdisc", "del", "dev", end, "root"];
    shell::run("tc", words, SHORT)
        .await
        .context("ending the trial's pace")?;
    Ok(arrived)
}

async fn limit_one(
    switch: &str,
    link: &str,
    rate: Rate,
    burst: u64,
    rtt: Span,
) -> Result<(), ShellError> {
    for command in shaping(link, rate, burst, rtt) {
        let arguments = format!("-n {switch} {command}");
        shell::run("tc", arguments.split(' '), SHORT).await?;
    }
    Ok(())
}

/// The link of a trial's end in a site's switch.
fn trial_end(fabric: Fabric) -> &'static str {
    match fabric {
        Fabric::Edge => "switch",
        Fabric::Openflow | Fabric::Onos => switches::TRIAL.1,
    }
}

/// The two cables as one.
async fn join(mtu: u32) -> Result<()> {
    site::ip(&format!(
        "-n wan link add span type bridge mcast_snooping 0 forward_delay 0\n\
         -n wan link set near master span\n\
         -n wan link set far master span\n\
         -n wan link set span mtu {mtu} up\n"
    ))
    .await
    .context("joining the two cables")
}

impl RelayProcess {
    async fn start(program: &Path, mtu: u32, hold: Duration, log: &Path) -> Result<(Self, Child)> {
        // promisc: a macvtap hands over only the multicast that it is told to (its mc_filter), and
        // the neighbour discovery of IPv6 is multicast
        let taps: String = ["near", "far"]
            .iter()
            .map(|end| {
                format!(
                    "-n wan link add link {end} name {end}-tap mtu {mtu} type macvtap mode passthru\n\
                     -n wan link set {end}-tap txqueuelen 10000 promisc on up\n"
                )
            })
            .collect();
        site::ip(&taps)
            .await
            .context("opening the wide-area link for the relay (needs CONFIG_MACVTAP, or netem)")?;
        let mut child = in_space("wan", program)
            .args([
                "lab",
                "part",
                "relay",
                "--one",
                "near-tap",
                "--other",
                "far-tap",
                "--hold-us",
            ])
            .arg(hold.as_micros().to_string())
            .arg("--queue")
            .arg(relay_bytes(hold).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(open(log)?)
            .kill_on_drop(true)
            .spawn()
            .context("starting the relay")?;
        let stdin = child.stdin.take().context("the relay has no input")?;
        let stdout =
            BufReader::new(child.stdout.take().context("the relay has no output")?).lines();
        let mut relay = Self { stdin, stdout };
        let word = relay.line().await?;
        if word != "ready" {
            bail!("the relay said {word:?}; its log is {}", log.display());
        }
        Ok((relay, child))
    }

    async fn line(&mut self) -> Result<String> {
        timeout(SHORT, self.stdout.next_line())
            .await
            .context("the relay is silent")?
            .context("hearing the relay")?
            .context("the relay has ended")
    }
}

impl Wan {
    /// What the relay counted there and back, when there is one.
    pub async fn relayed(&mut self) -> Result<Option<[Count; 2]>> {
        let Some(relay) = &mut self.relay else {
            return Ok(None);
        };
        relay
            .stdin
            .write_all(b"?\n")
            .await
            .context("asking the relay")?;
        let line = relay.line().await?;
        Ok(Some(
            serde_json::from_str(&line).with_context(|| format!("the relay said {line:?}"))?,
        ))
    }
}

/// Bytes of frames that came out of the wide-area link into each site's switch, in the order of the
/// sites.
pub async fn arrived() -> Result<[u64; 2]> {
    let mut found = [0; 2];
    for (slot, switch) in found.iter_mut().zip(SWITCHES) {
        let text = shell::run(
            "ip",
            ["-n", switch, "-s", "-j", "link", "show", "border"],
            SHORT,
        )
        .await?;
        let links: serde_json::Value =
            serde_json::from_str(&text).context("reading the border's counters")?;
        *slot = links
            .pointer("/0/stats64/rx/bytes")
            .and_then(serde_json::Value::as_u64)
            .with_context(|| format!("{switch}'s border has no counter in {text}"))?;
    }
    Ok(found)
}

/// The far end of the trial, in busan's switch.
struct Far {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Far {
    async fn start(program: &Path, end: &str, rtt: Span, log: &Path) -> Result<Self> {
        for (switch, address) in SWITCHES.iter().zip(TRY) {
            site::ip(&format!(
                "-n {switch} addr replace {address}/30 dev {end}\n"
            ))
            .await?;
            let widen = format!(
                "echo {BUFFERS} > /proc/sys/net/ipv4/tcp_rmem; echo {BUFFERS} > /proc/sys/net/ipv4/tcp_wmem"
            );
            let inside = ["netns", "exec", switch, "sh", "-c", &widen];
            shell::run("ip", inside, SHORT).await?;
        }
        let mut child = in_space("busan-switch", program)
            .args(["lab", "part", "far", "--warm-up-ms"])
            .arg(probe::warm_up(rtt.duration()).as_millis().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(open(log)?)
            .kill_on_drop(true)
            .spawn()
            .context("starting the far end of the trial")?;
        let stdout =
            BufReader::new(child.stdout.take().context("the far end has no output")?).lines();
        let mut far = Self { child, stdout };
        let word = far.line().await?;
        if word != "ready" {
            bail!(
                "the far end of the trial said {word:?}; its log is {}",
                log.display()
            );
        }
        Ok(far)
    }
    async fn line(&mut self) -> Result<String> {
        timeout(SHORT * 2, self.stdout.next_line())
            .await
            .context("the far end of the trial is silent")?
            .context("hearing the far end of the trial")?
            .context("the far end of the trial has ended")
    }
    /// One stream without a rate limit.
    async fn stream(mut self, program: &Path, rtt: Span) -> Result<Rate> {
        let length = probe::warm_up(rtt.duration()) + COUNTED;
        let mut command = in_space("daejeon-switch", program);
        command.args(["lab", "part", "send", "--to", &TRY[1].to_string(), "--ms"]);
        command.arg(length.as_millis().to_string());
        shell::output(command, None, SHORT + length)
            .await
            .context("trying what the wide-area link carries")?;
        let line = self.line().await?;
        let bps = line
            .parse()
            .with_context(|| format!("the far end of the trial said {line:?}"))?;
        self.child
            .wait()
            .await
            .context("waiting for the far end of the trial")?;
        Ok(Rate::from_bps(bps))
    }
    /// The median round trip in microseconds.
    async fn ping(&self, program: &Path) -> Result<u64> {
        let mut command = in_space("daejeon-switch", program);
        command.args(["lab", "part", "ping", "--to", &TRY[1].to_string()]);
        let line = shell::output(command, None, SHORT * 2)
            .await
            .context("measuring the round trip")?;
        line.trim()
            .parse()
            .with_context(|| format!("the near end of the trial said {line:?}"))
    }
}

/// This program in one of the capsule's network namespaces. `ip netns exec` also mounts a `/sys` of
/// that namespace, and the relay reads its device numbers there.
fn in_space(space: &str, program: &Path) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", space]).arg(program);
    command
}

fn open(log: &Path) -> Result<std::fs::File> {
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("opening {}", log.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_border_s_queue_is_the_product_or_fifty_milliseconds() {
        let gigabit = Rate::from_bps(1_000_000_000);
        assert_eq!(queue_bytes(gigabit, Span::from_millis(10)), 6_250_000);
        assert_eq!(queue_bytes(gigabit, Span::from_millis(100)), 12_500_000);
        assert_eq!(
            queue_bytes(Rate::from_bps(1_000_000), Span::from_millis(0)),
            128 << 10
        );
        assert_eq!(burst_bytes(Rate::from_bps(10_000_000_000)), 1_250_000);
        let limit = &shaping("border", gigabit, 300_000, Span::from_millis(10))[1];
        assert!(limit.contains("rate 1000000000bit") && limit.contains("burst 300000b"));
        let burst = |fabric| border_burst(fabric, Rate::from_bps(400_000_000));
        assert_eq!(
            burst(Fabric::Edge),
            131_072,
            "as a bridge of the kernel needs it"
        );
        assert_eq!(burst(Fabric::Openflow), 524_288);
    }

    #[test]
    fn a_relay_holds_what_is_in_flight() {
        assert_eq!(
            relay_bytes(Duration::from_millis(5)),
            25_000_000 + (4 << 20)
        );
        assert_eq!(relay_bytes(Duration::from_secs(1)), (512 << 20) + (4 << 20));
    }
}
