//! What stands in the way of an installation on this host, and what is worth knowing, each with its
//! remedy. Pure: facts in, findings out.

use crate::{
    configured::GivenNic,
    facts::{Cgroups, Distribution, Facts, KERNEL_PARTS},
    propose::{self, Wishes},
};
use dtn_api::{Size, nic::NicClass};
use std::fmt;

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// It works, but less well than it could.
    Warning,
    /// Nothing is installed while it is so.
    Refused,
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Refused => "REFUSED",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) weight: Weight,
    /// What was looked at.
    pub(crate) what: String,
    /// What was found.
    pub(crate) found: String,
    /// What would help; empty where nothing has to.
    pub(crate) remedy: String,
}

/// What is asked for, as far as it can be refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// For the proposal.
    pub(crate) wishes: Wishes,
    /// The architecture that the release is for.
    pub(crate) release_machine: String,
    /// Room that the release takes, in bytes.
    pub(crate) release_bytes: u64,
}

/// The oldest kernel that has all that is used (rtnetlink's `IFLA_PERM_ADDRESS`, nftables' sets).
const OLDEST_KERNEL: (u32, u32) = (5, 14);
/// Below that a transfer pod and its page cache do not fit.
const LEAST_MEMORY: u64 = 2 << 30;

/// The distributions that are known, with the words for others.
const KNOWN: [(&str, &[&str]); 5] = [
    ("debian", &["12", "13"]),
    ("ubuntu", &["22.04", "24.04"]),
    ("rhel", &["9"]),
    ("rocky", &["9"]),
    ("almalinux", &["9"]),
];

/// Looks at everything.
pub(crate) fn judge(facts: &Facts, asked: &Asked) -> Vec<Finding> {
    let mut findings = Findings::default();
    findings.distribution(&facts.distribution);
    findings.machine(facts, asked);
    if facts.live {
        findings.kernel(facts);
        findings.services(facts);
    }
    findings.room(facts, asked);
    findings.engine(facts);
    findings.nics(facts, &asked.wishes);
    findings.configuration(facts, &asked.wishes);
    findings.0
}

/// Whether something is refused.
pub(crate) fn refused(findings: &[Finding]) -> bool {
    findings
        .iter()
        .any(|finding| finding.weight == Weight::Refused)
}

/// Whether a distribution is known.
pub(crate) fn is_known(distribution: &Distribution) -> bool {
    let version = distribution.version.as_str();
    // of EL the point releases are one
    let major = version.split('.').next().unwrap_or_default();
    KNOWN.iter().any(|(id, versions)| {
        *id == distribution.id && (versions.contains(&version) || versions.contains(&major))
    })
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(
        &mut self,
        weight: Weight,
        what: &str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.0.push(Finding {
            weight,
            what: what.to_owned(),
            found: found.into(),
            remedy: remedy.into(),
        });
    }
    fn good(&mut self, what: &str, found: impl Into<String>) {
        self.add(Weight::Good, what, found, "");
    }

    fn distribution(&mut self, distribution: &Distribution) {
        let name = if distribution.name.is_empty() {
            "not named (/etc/os-release)".to_owned()
        } else {
            distribution.name.clone()
        };
        if is_known(distribution) {
            self.good("distribution", name);
        } else {
            self.add(
                Weight::Refused,
                "distribution",
                name,
                "use Debian 12 or 13, Ubuntu 22.04 or 24.04, or an Enterprise Linux 9",
            );
        }
    }

    fn machine(&mut self, facts: &Facts, asked: &Asked) {
        if asked.release_machine == facts.machine {
            self.good("architecture", facts.machine.clone());
        } else {
            self.add(
                Weight::Refused,
                "architecture",
                facts.machine.clone(),
                format!(
                    "this release is for {}: take the one for {}",
                    asked.release_machine, facts.machine
                ),
            );
        }
    }

    fn kernel(&mut self, facts: &Facts) {
        let mut numbers = facts
            .kernel
            .split(['.', '-'])
            .map(|n| n.parse().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if version >= OLDEST_KERNEL {
            self.good("kernel", facts.kernel.clone());
        } else {
            self.add(
                Weight::Refused,
                "kernel",
                facts.kernel.clone(),
                format!("boot {}.{} or newer", OLDEST_KERNEL.0, OLDEST_KERNEL.1),
            );
        }
        let missing: Vec<&str> = KERNEL_PARTS
            .into_iter()
            .filter(|part| facts.kernel_parts.get(part) == Some(&Some(false)))
            .collect();
        if !missing.is_empty() {
            self.add(
                Weight::Warning,
                "kernel parts",
                format!("{} not there", missing.join(", ")),
                "install the kernel's full set of modules; dtnctl nics says what is done without them",
            );
        }
        if !facts.systemd {
            self.add(
                Weight::Refused,
                "service manager",
                "systemd does not run",
                "boot the host with systemd; to try the appliance out: install.sh --lab",
            );
        }
        match facts.cgroups {
            Cgroups::Unified => self.good("control groups", "version 2"),
            Cgroups::Legacy => self.add(
                Weight::Warning,
                "control groups",
                "version 1 or both",
                "boot with systemd.unified_cgroup_hierarchy=1: memory limits of pods are exact then",
            ),
            Cgroups::Absent => self.add(
                Weight::Warning,
                "control groups",
                "none is mounted",
                "mount cgroup2 at /sys/fs/cgroup: without it pods have no limits",
            ),
        }
        let memory = format!(
            "{}, {} processors",
            Size::from_bytes(facts.memory_bytes).rounded(),
            facts.processors
        );
        if facts.memory_bytes >= LEAST_MEMORY {
            self.good("memory", memory);
        } else {
            self.add(
                Weight::Warning,
                "memory",
                memory,
                "2 GiB or more: buffers of fast paths are cut to what there is",
            );
        }
    }

    fn services(&mut self, facts: &Facts) {
        let runs = |unit: &str| facts.running.iter().any(|running| running == unit);
        match facts.clock {
            Some(true) => self.good("clock", "in step"),
            _ => self.add(
                Weight::Warning,
                "clock",
                if facts.clock.is_some() {
                    "not in step with a time server"
                } else {
                    "nobody says whether it is in step"
                },
                "run systemd-timesyncd or chrony: certificates and windows of slices go by it",
            ),
        }
        if runs("tuned.service") {
            self.add(
                Weight::Warning,
                "tuned",
                "runs, and sets what the appliance sets too",
                "tuned-adm off, or a profile without network settings",
            );
        }
        if runs("irqbalance.service") {
            self.add(
                Weight::Note,
                "irqbalance",
                "runs, and moves interrupts of data NICs",
                "pin them where rates above 40 Gb/s are wanted, and stop it then",
            );
        }
        if runs("power-profiles-daemon.service") {
            self.add(
                Weight::Note,
                "power profiles",
                "power-profiles-daemon runs, and slows processors down",
                "powerprofilesctl set performance",
            );
        }
        for (unit, name) in [("firewalld.service", "firewalld"), ("ufw.service", "ufw")] {
            if runs(unit) {
                self.add(
                    Weight::Note,
                    "packet filter",
                    format!("{name} runs"),
                    "let port 8443 in on a host with the controller; pods are not behind it",
                );
            }
        }
    }

    fn room(&mut self, facts: &Facts, asked: &Asked) {
        // once for the files, and once for what an upgrade keeps until the new ones have answered
        let wanted = asked.release_bytes.saturating_mul(2) + (64 << 20);
        for room in &facts.rooms {
            let free = Size::from_bytes(room.free_bytes).rounded();
            if room.path == "/srv" || room.free_bytes >= wanted {
                self.good("disk room", format!("{free} free below {}", room.path));
            } else {
                self.add(
                    Weight::Refused,
                    "disk room",
                    format!("{free} free below {}", room.path),
                    format!(
                        "make room: {} is needed",
                        Size::from_bytes(wanted).rounded()
                    ),
                );
            }
        }
    }

    fn engine(&mut self, facts: &Facts) {
        match (&facts.podman, &facts.kubelet) {
            (_, Some(kubelet)) => self.add(
                Weight::Note,
                "pods",
                format!(
                    "a kubelet {}; plugins go to {}",
                    if kubelet.running { "runs here" } else { "has been set up here" },
                    kubelet
                        .bin_dirs
                        .iter()
                        .map(|folder| folder.display().to_string())
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
                "[kubernetes] in /etc/dtn/appliance.toml offers the NICs in the cluster: docs/kubernetes.md",
            ),
            (Some(version), None) => self.good("pods", format!("podman {version}")),
            (None, None) => self.good("pods", "podman will be installed"),
        }
    }

    fn nics(&mut self, facts: &Facts, wishes: &Wishes) {
        for nic in facts.nics.iter().filter(|nic| nic.hardware) {
            let what = format!("NIC {}", nic.name);
            if let Some(why) = nic.not_dedicated.first() {
                let (found, remedy) = why.split_once(": ").unwrap_or((why, ""));
                self.add(
                    Weight::Note,
                    &what,
                    format!("{}; not touched: {found}", nic.described()),
                    remedy,
                );
            } else if let Some(owner) = nic.owners.first() {
                self.add(
                    Weight::Note,
                    &what,
                    format!("{}; managed by {owner}", nic.described()),
                    format!("to give it: --nic {}", nic.name),
                );
            } else {
                self.good(&what, format!("{}; free", nic.described()));
            }
        }
        for (name, class) in &wishes.nics {
            let what = format!("--nic {name}");
            let Some(nic) = facts.nics.iter().find(|nic| nic.name == *name) else {
                if facts.live {
                    self.add(
                        Weight::Refused,
                        &what,
                        "there is no such NIC",
                        "ip -br link shows those that there are",
                    );
                }
                continue;
            };
            let refusals = match class {
                NicClass::Dedicated => &nic.not_dedicated,
                NicClass::Shared => &nic.not_shared,
            };
            for why in refusals {
                let (found, remedy) = why.split_once(": ").unwrap_or((why, ""));
                self.add(Weight::Refused, &what, found, remedy);
            }
        }
    }

    fn configuration(&mut self, facts: &Facts, wishes: &Wishes) {
        match &facts.configured {
            Some(configured) => {
                self.good(
                    "configuration",
                    "/etc/dtn/appliance.toml is yours, and stays as it is",
                );
                for nic in &configured.nics {
                    self.given(facts, nic);
                }
            }
            None if facts.old_configuration => self.add(
                Weight::Refused,
                "configuration",
                "/etc/dtn has files of the older layout",
                "dtnctl config migrate makes /etc/dtn/appliance.toml of them",
            ),
            None => {
                let given = propose::given(facts, wishes);
                if given.is_empty() && facts.live && !wishes.no_nics {
                    self.add(
                        Weight::Warning,
                        "data NICs",
                        "none is free",
                        "give one with --nic NAME[=shared], or add it to /etc/dtn/appliance.toml later",
                    );
                }
                for (nic, class) in given {
                    self.good(
                        "data NICs",
                        format!("{} will be given as {class}", nic.name),
                    );
                }
            }
        }
    }

    fn given(&mut self, facts: &Facts, given: &GivenNic) {
        if given.of(facts).is_empty() && facts.live {
            self.add(
                Weight::Note,
                &format!("NIC {}", given.text()),
                "is configured, and not among the host's: in a pod, or not there",
                "dtnctl nics",
            );
        }
    }
}

#[cfg(test)]
mod tests;
