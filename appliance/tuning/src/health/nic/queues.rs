//! What the host does for it: interrupts, offloads, rings.

use super::{NicHealth, Surroundings};
use crate::health::{Findings, Level};

/// Receive descriptors that a fast NIC should have, where it can (fasterdata.es.net 100G tuning).
const RING: u64 = 8192;

pub(super) fn words(numbers: &[u32]) -> String {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    let texts: Vec<String> = numbers.iter().map(u32::to_string).collect();
    texts.join(",")
}

pub(super) fn interrupts(say: &mut Findings, nic: &NicHealth, around: &Surroundings) {
    let queues = nic.port.as_ref().and_then(|port| port.channels);
    if let Some(queues) = queues
        && queues.rx < 2
        && queues.rx_max > 1
        && around.processors > 1
        && nic.is_fast()
    {
        say.mend(
            Level::Warning,
            "queues",
            format!(
                "1 receive queue of {}: one processor takes all of it",
                queues.rx_max
            ),
            "let it have as many queues as its socket has processors",
            format!(
                "ethtool -L {} combined {}",
                nic.name,
                queues.rx_max.min(u64::from(around.processors))
            ),
        );
    }
    let irqs = &nic.pcie.interrupts;
    if irqs.is_empty() {
        return;
    }
    let near = &nic.pcie.near;
    let far = irqs.iter().filter(|irq| {
        around.numa_nodes > 1
            && !near.is_empty()
            && irq.processors.iter().any(|cpu| !near.contains(cpu))
    });
    let far = far.count();
    let mut used: Vec<u32> = irqs
        .iter()
        .flat_map(|irq| irq.processors.iter().copied())
        .collect();
    used.sort_unstable();
    used.dedup();
    let next = format!(
        "grep . /proc/irq/*/effective_affinity_list; ls /sys/class/net/{}/device/msi_irqs",
        nic.name
    );
    if far > 0 {
        say.mend(
            Level::Warning,
            "interrupts",
            format!(
                "{far} of {} go to processors of the other socket",
                irqs.len()
            ),
            format!("bind them to processors {}", words(near)),
            next,
        );
    } else if irqs.len() > 2 && used.len() == 1 && around.processors > 1 {
        say.mend(
            Level::Warning,
            "interrupts",
            format!("all {} go to processor {}", irqs.len(), used[0]),
            "spread them over the processors of its socket",
            next,
        );
    } else {
        say.ok(
            "interrupts",
            format!("{} on processors {}", irqs.len(), words(&used)),
        );
    }
}

pub(super) fn offloads(say: &mut Findings, nic: &NicHealth) {
    let Some(features) = nic.port.as_ref().and_then(|port| port.features.as_ref()) else {
        return;
    };
    let on = |name: &str| features.active.iter().any(|one| one == name);
    let can = |name: &str| features.switchable.iter().any(|one| one == name);
    let off: Vec<(&str, &str)> = [
        ("tx-tcp-segmentation", "tso"),
        ("tx-generic-segmentation", "gso"),
        ("rx-gro", "gro"),
        ("rx-checksum", "rx"),
    ]
    .into_iter()
    .filter(|(name, _)| can(name) && !on(name))
    .collect();
    if on("rx-lro") {
        say.mend(
            Level::Warning,
            "offloads",
            "lro merges packets so that they cannot be taken apart again: what is forwarded is broken",
            "switch it off; gro does the same without harm",
            format!("ethtool -K {} lro off", nic.name),
        );
    }
    if off.is_empty() {
        say.ok(
            "offloads",
            "segmentation, receive merging and checksums are the card's",
        );
    } else {
        let names: Vec<&str> = off.iter().map(|(_, short)| *short).collect();
        let set: Vec<String> = names.iter().map(|name| format!("{name} on")).collect();
        say.mend(
            if nic.is_fast() {
                Level::Warning
            } else {
                Level::Note
            },
            "offloads",
            format!("off: {}; the processors do that work", names.join(", ")),
            "switch them on, and keep them so in a .link file",
            format!("ethtool -K {} {}", nic.name, set.join(" ")),
        );
    }
}

pub(super) fn rings(say: &mut Findings, nic: &NicHealth) {
    let Some(rings) = nic.port.as_ref().and_then(|port| port.rings) else {
        return;
    };
    let wanted = RING.min(rings.rx_max);
    if rings.rx_max > 0 && rings.rx < wanted && nic.is_fast() {
        say.mend(
            Level::Warning,
            "rings",
            format!("{} receive descriptors of {}: a short burst runs over", rings.rx, rings.rx_max),
            "raise them while no pod has the NIC (the link goes down for a moment), and keep them so in a .link file",
            format!("ethtool -G {} rx {wanted} tx {}", nic.name, RING.min(rings.tx_max)),
        );
    } else if rings.rx_max > 0 {
        say.ok("rings", format!("{} receive, {} send", rings.rx, rings.tx));
    }
}
