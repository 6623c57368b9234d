//! What is to be said of the machine, from facts alone.

mod storage;

use super::{Finding, Findings, Level, nic::NicHealth, plan};
use crate::{CongestionControl, Controls, Path};
use dtn_api::Size;
use dtn_link::{block::Room, machine::MachineFacts};
use serde::{Deserialize, Serialize};

/// Programs that tune what we tune, each with what it does to us.
pub const TUNERS: [(&str, &str); 6] = [
    (
        "tuned",
        "writes settings, governors and interrupts of its own profile over ours",
    ),
    (
        "bpftune",
        "changes TCP's buffers and congestion control while transfers run",
    ),
    (
        "irqbalance",
        "moves interrupts away from where they were bound",
    ),
    ("numad", "moves processes between sockets"),
    (
        "power-profiles-",
        "sets the governor by a profile of its own",
    ),
    ("tlp", "saves power on the card's bus"),
];
/// Programs that keep the clock.
pub const CLOCK_KEEPERS: [&str; 6] = [
    "chronyd",
    "systemd-timesyn",
    "ntpd",
    "ntpsec",
    "ptp4l",
    "phc2sys",
];
/// Queues that the appliance sets, or would.
pub const QDISCS: [&str; 3] = ["htb", "fq", "tbf"];
/// A clock that is off by this is worth a warning, and by the next an alarm, in milliseconds. The
/// domain refuses documents that are off by a minute, and invitations are bound to minutes.
const CLOCK_WARNING: u64 = 1_000;
const CLOCK_ALARM: u64 = 30_000;
/// How the clock is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// Who keeps it, of the programs that run.
    pub keeper: Option<String>,
    /// Whether it says that the clock is right; none where it was not to be asked.
    pub synchronized: Option<bool>,
    /// How far it is off by its own estimate, in milliseconds.
    pub off_millis: Option<u64>,
}

/// Everything that is known of the machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HostHealth {
    /// The machine.
    pub machine: MachineFacts,
    /// Its clock.
    pub clock: Clock,
    /// Which queues its kernel has; none where it could not be tried.
    pub qdiscs: Option<Vec<(String, bool)>>,
    /// Which congestion controls a sandbox may have.
    pub controls: Option<Controls>,
    /// The data folder.
    pub data: Option<Room>,
    /// What could not be looked at, in words.
    pub unseen: Vec<String>,
}

/// Judges the machine. `path` is what its fastest NIC shall carry, where there is a NIC.
pub fn judge(host: &HostHealth, path: Option<&Path>, nics: &[NicHealth]) -> Vec<Finding> {
    let mut say = Findings::of("host");
    clock(&mut say, host);
    processors(&mut say, &host.machine);
    cgroups(&mut say, &host.machine);
    kernel(&mut say, host);
    tuners(&mut say, &host.machine);
    if let Some(path) = path {
        settings(&mut say, host, path);
    }
    if let Some(data) = &host.data {
        let fastest = nics.iter().filter_map(NicHealth::best).max();
        storage::judge(&mut say, data, fastest);
    }
    memory(&mut say, &host.machine);
    for what in &host.unseen {
        say.say(Level::Note, "not looked at", what.clone());
    }
    say.done()
}

fn clock(say: &mut Findings, host: &HostHealth) {
    let clock = &host.clock;
    let remedy = "run one of chrony and systemd-timesyncd with the site's time servers: \
                  certificates, schedules of slices and stitches with other domains rest on it";
    let next = "chronyc tracking; timedatectl timesync-status";
    let off = clock.off_millis.unwrap_or(0);
    let keeper = clock.keeper.as_deref().unwrap_or("nothing");
    let shown = |off: u64| format!("{}.{:03} s", off / 1000, off % 1000);
    match (clock.synchronized, &clock.keeper) {
        (Some(false), _) => say.mend(
            Level::Alarm,
            "clock",
            format!("not synchronized, {keeper} keeps it"),
            remedy,
            next,
        ),
        _ if off >= CLOCK_WARNING => say.mend(
            if off >= CLOCK_ALARM {
                Level::Alarm
            } else {
                Level::Warning
            },
            "clock",
            format!("{keeper} says that it is {} off", shown(off)),
            remedy,
            next,
        ),
        (Some(true), _) => say.ok(
            "clock",
            match clock.off_millis {
                Some(off) => format!("{keeper} keeps it to {}", shown(off)),
                None => format!("{keeper} keeps it"),
            },
        ),
        (None, Some(keeper)) => {
            say.say(
                Level::Note,
                "clock",
                format!("{keeper} runs; whether the clock is right could not be asked"),
            )
            .next = Some(next.into());
        }
        // the clock of a container is its host's
        (None, None) => say.mend(
            Level::Warning,
            "clock",
            "nothing keeps it, as far as can be seen here",
            remedy,
            next,
        ),
    }
}

fn processors(say: &mut Findings, machine: &MachineFacts) {
    let others: Vec<String> = machine
        .governors
        .iter()
        .filter(|(governor, _)| governor.as_str() != "performance")
        .map(|(governor, count)| format!("{count} on {governor}"))
        .collect();
    if machine.governors.is_empty() {
        say.ok(
            "governor",
            "none to set: the clock of the processors is not this kernel's",
        );
    } else if others.is_empty() {
        say.ok("governor", "performance");
    } else {
        say.mend(
            Level::Warning,
            "governor",
            format!("of {} processors {}", machine.processors, others.join(", ")),
            "performance: a single stream is bound by one processor's clock",
            "cpupower frequency-set -g performance",
        );
    }
    if machine.numa_nodes > 1 || machine.boot.iter().any(|word| word.contains("iommu=on")) {
        let passes = |word: &String| word == "iommu=pt" || word == "iommu.passthrough=1";
        if machine.boot.iter().any(|word| word.contains("iommu=on"))
            && !machine.boot.iter().any(passes)
        {
            say.mend(
                Level::Note,
                "iommu",
                "on, and every packet's memory is mapped anew",
                "boot with iommu=pt: cards of this host are then not translated",
                "cat /proc/cmdline",
            );
        }
    }
}

fn cgroups(say: &mut Findings, machine: &MachineFacts) {
    match (&machine.cgroup2, machine.cgroup1) {
        (None, 0) => say.mend(
            Level::Alarm,
            "cgroups",
            "none is mounted: no pod can run",
            "mount cgroup2 on /sys/fs/cgroup, as systemd does",
            "mount -t cgroup2 none /sys/fs/cgroup",
        ),
        (Some(has), _)
            if ["cpu", "memory"]
                .iter()
                .all(|one| has.iter().any(|has| has == one)) =>
        {
            say.ok("cgroups", "version 2");
        }
        (_, first) if first > 0 => {
            say.say(
                Level::Note,
                "cgroups",
                format!("version 1 ({first} hierarchies): kubelets of today refuse it unless told not to"),
            )
            .remedy = Some("boot with systemd.unified_cgroup_hierarchy=1".into());
        }
        (Some(has), _) => say.mend(
            Level::Warning,
            "cgroups",
            format!(
                "version 2 offers {}: limits of pods are not kept",
                if has.is_empty() {
                    "nothing".into()
                } else {
                    has.join(" ")
                }
            ),
            "let cpu and memory be delegated to here",
            "cat /sys/fs/cgroup/cgroup.controllers",
        ),
        (None, _) => {}
    }
}

fn kernel(say: &mut Findings, host: &HostHealth) {
    let release = &host.machine.kernel;
    let mut numbers = release
        .split(['.', '-'])
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let kind = if host.machine.is_virtual {
        ", in a virtual machine"
    } else {
        ""
    };
    if version < (6, 1) {
        say.say(
            Level::Warning,
            "kernel",
            format!("{release}{kind}: older than any that this is tried on"),
        )
        .remedy = Some("boot 6.1 or newer".into());
    } else {
        say.ok("kernel", format!("{release}{kind}"));
    }
    let Some(qdiscs) = &host.qdiscs else { return };
    let lacks = |kind: &str| qdiscs.iter().any(|(name, there)| name == kind && !there);
    if lacks("htb") {
        say.mend(
            Level::Alarm,
            "queues",
            "the kernel has no htb: no slice can be paced",
            "load sch_htb, or boot the distribution's own kernel",
            "modprobe sch_htb",
        );
    } else if lacks("fq") {
        say.mend(
            Level::Warning,
            "queues",
            "the kernel has no fq: the flows of a slice share one queue and are paced together",
            "load sch_fq, or boot the distribution's own kernel",
            "modprobe sch_fq",
        );
    } else {
        say.ok("queues", "htb and fq are there");
    }
}

fn tuners(say: &mut Findings, machine: &MachineFacts) {
    let mut quiet = true;
    for (name, what) in TUNERS {
        if !machine.running.iter().any(|running| running == name) {
            continue;
        }
        quiet = false;
        // on one socket, interrupts that wander cost little
        let level = match name {
            "irqbalance" if machine.numa_nodes < 2 => Level::Note,
            _ => Level::Warning,
        };
        say.mend(
            level,
            "other tuners",
            format!("{name} runs: it {what}"),
            "end it, or take NICs and settings of the appliance out of its rules",
            format!("systemctl disable --now {name}"),
        );
    }
    if quiet {
        say.ok("other tuners", "none runs");
    }
    if machine.backlog_dropped > 0 {
        say.mend(
            Level::Note,
            "backlog",
            format!(
                "soft interrupts dropped {} packets and ran out of time {} times since the start",
                machine.backlog_dropped, machine.squeezed
            ),
            "spread the interrupts over more processors",
            "cat /proc/net/softnet_stat",
        );
    }
}

fn settings(say: &mut Findings, host: &HostHealth, path: &Path) {
    let plan = plan::host(path, host.machine.numa_nodes);
    let mut well = 0;
    for one in &plan {
        // another kernel, or a sandbox that does not show it
        let Some(value) = host.machine.settings.get(&one.key) else {
            continue;
        };
        if one.want.holds(value) {
            well += 1;
            continue;
        }
        let level = if one.matters {
            Level::Warning
        } else {
            Level::Note
        };
        say.mend(
            level,
            "settings",
            format!("{} is {value:?}: {} ({})", one.key, one.why, one.source),
            format!(
                "{} = {} in /etc/sysctl.d/90-dtn.conf",
                one.key,
                written(&one.key, &one.want, value)
            ),
            format!(
                "sysctl -w {}='{}'",
                one.key,
                written(&one.key, &one.want, value)
            ),
        );
    }
    if well > 0 {
        say.ok(
            "settings",
            format!("{well} of the plan's {} are as they should be", plan.len()),
        );
    }
    let Some(controls) = &host.controls else {
        return;
    };
    let profile = crate::dtn(path, CongestionControl::default(), controls);
    for note in profile.notes {
        say.say(Level::Note, "path", note);
    }
}

/// Of three numbers only the last is raised.
fn written(key: &str, want: &plan::Want, value: &str) -> String {
    let numbers: Vec<&str> = value.split(' ').collect();
    match numbers.as_slice() {
        [least, start, _] if key.starts_with("net.ipv4.") => {
            format!("{least} {start} {}", want.value())
        }
        _ => want.value(),
    }
}

fn memory(say: &mut Findings, machine: &MachineFacts) {
    let free = Size::from_bytes(machine.memory_available).rounded();
    let all = Size::from_bytes(machine.memory).rounded();
    let text = format!("{free} of {all} can be had");
    if machine.memory_available < machine.memory / 20 {
        say.mend(
            Level::Warning,
            "memory",
            text,
            "end what takes it: buffers of TCP are taken from the same memory",
            "ps --sort -rss -eo rss,comm | head",
        );
    } else {
        say.ok("memory", text);
    }
}

#[cfg(test)]
mod tests;
