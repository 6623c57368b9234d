//! Where the card sits: width and speed of its slot, the bus's errors, and how far the processors and the disk are.

use super::{NicHealth, Surroundings, queues::words};
use crate::health::{Findings, Level};
use dtn_api::Rate;
use dtn_link::pcie::PcieLink;

/// Errors that a bus mends by itself and that are still a sign when there are many.
const CORRECTABLE: u64 = 100;

pub(super) fn slot(say: &mut Findings, nic: &NicHealth) {
    let Some(current) = nic.pcie.current else {
        if nic.is_hardware() {
            say.say(
                Level::Note,
                "slot",
                "its PCIe link cannot be told (a virtual function, or a virtual machine)",
            );
        }
        return;
    };
    let address = nic
        .pcie
        .address
        .as_ref()
        .map_or_else(String::new, ToString::to_string);
    let look = format!("lspci -vv -s {address} | grep Lnk");
    let carries = |link: PcieLink| Rate::from_bps(link.rate().bps() / 10 * 9);
    let best = nic.best();
    let too_slow = |link: PcieLink| best.is_some_and(|best| carries(link) < best);
    let ceiling = match (nic.pcie.card, nic.pcie.slot) {
        (Some(card), Some(slot)) => Some(PcieLink {
            megatransfers: card.megatransfers.min(slot.megatransfers),
            lanes: card.lanes.min(slot.lanes),
        }),
        (card, slot) => card.or(slot),
    };
    let speed = best.map_or_else(String::new, |best| format!(" of {best}"));
    if let Some(ceiling) = ceiling
        && (current.lanes < ceiling.lanes || current.megatransfers < ceiling.megatransfers)
    {
        let level = if too_slow(current) {
            Level::Alarm
        } else {
            Level::Warning
        };
        let idle = if current.lanes == ceiling.lanes {
            " (some cards slow their bus down while idle: look again under load)"
        } else {
            ""
        };
        say.mend(
            level,
            "slot",
            format!(
                "PCIe trained to {current}, card and slot can {ceiling}: it carries {} for a port{speed}{idle}",
                carries(current)
            ),
            "seat the card anew, clean its contacts, look at the slot's bifurcation and speed in the firmware's setup",
            look,
        );
    } else if too_slow(current) {
        let limit = match (nic.pcie.card, nic.pcie.slot) {
            (Some(card), Some(slot)) if card.rate() > slot.rate() => {
                format!("the slot ends at {slot}, the card could {card}")
            }
            _ => "the card has no more".to_owned(),
        };
        say.mend(
            Level::Alarm,
            "slot",
            format!(
                "PCIe {current} carries {} for a port{speed}: {limit}",
                carries(current)
            ),
            "put the card into a slot with more lanes or of a newer generation",
            look,
        );
    } else {
        say.ok(
            "slot",
            format!("PCIe {current} carries {}", carries(current)),
        );
    }
}

pub(super) fn bus_errors(say: &mut Findings, nic: &NicHealth) {
    let Some(errors) = nic.pcie.errors else {
        return;
    };
    let address = nic
        .pcie
        .address
        .as_ref()
        .map_or_else(String::new, ToString::to_string);
    let next = format!("journalctl -k | grep -i 'aer.*{address}'");
    let remedy = "seat the card anew or change slot, riser or card";
    if errors.fatal + errors.nonfatal > 0 {
        say.mend(
            Level::Alarm,
            "bus errors",
            format!(
                "{} fatal and {} other errors of PCIe that lost data, {} that were mended",
                errors.fatal, errors.nonfatal, errors.correctable
            ),
            remedy,
            next,
        );
    } else if errors.correctable > 0 {
        let many = errors.correctable >= CORRECTABLE;
        say.mend(
            if many { Level::Warning } else { Level::Note },
            "bus errors",
            format!(
                "{} errors of PCIe that the bus mended by itself",
                errors.correctable
            ),
            remedy,
            next,
        );
    } else {
        say.ok("bus errors", "none");
    }
}

pub(super) fn place(say: &mut Findings, nic: &NicHealth, around: &Surroundings) {
    if around.numa_nodes < 2 || !nic.is_hardware() {
        return;
    }
    match nic.pcie.numa_node {
        None => {
            say.say(
                Level::Note,
                "numa",
                format!(
                    "the machine has {} nodes and its firmware does not say on which the card is",
                    around.numa_nodes
                ),
            )
            .remedy = Some("update the machine's firmware".into());
        }
        Some(node) if around.disk_nodes.iter().any(|disk| *disk != node) => {
            say.mend(
                Level::Warning,
                "numa",
                format!(
                    "node {node}, disks of the data folder on node {}: each byte crosses between the sockets",
                    words(&around.disk_nodes)
                ),
                "put card and disks on one socket, or give this NIC data of its own node",
                "lstopo, or ls -l /sys/class/net/*/device /sys/class/block/*",
            );
        }
        Some(node) => say.ok("numa", format!("node {node}")),
    }
}
