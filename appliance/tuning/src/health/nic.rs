//! What is to be said of one NIC, from facts alone.

mod faults;
mod queues;
mod slot;
mod wire;

use super::{Finding, Findings, Level};
use dtn_api::{Rate, nic::NicClass};
use dtn_link::{
    ethtool::PortFacts,
    inventory::{LinkFaults, LinkState},
    pcie::PcieFacts,
};
use serde::{Deserialize, Serialize};

/// From this rate on, what is good to have becomes needed.
const FAST: Rate = Rate::from_bps(10_000_000_000);

/// A driver and the firmware of its card, as the driver tells them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firmware {
    /// Name of the driver.
    pub driver: String,
    /// Its version; the kernel's own where it has none.
    pub version: String,
    /// Version of the firmware; empty where the driver does not tell.
    pub firmware: String,
}

/// Who is at the other end, as it says by LLDP (IEEE 802.1AB).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// The system's name, or its address.
    pub system: String,
    /// Its port.
    pub port: String,
}

/// What was counted while it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// How long, in milliseconds.
    pub millis: u64,
    /// What was added.
    pub faults: LinkFaults,
}

/// Everything that is known of one NIC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicHealth {
    /// Its name on the host.
    pub name: String,
    /// How the site gave it.
    pub class: Option<NicClass>,
    /// The speed that the site's configuration states.
    pub stated: Option<Rate>,
    /// Key of the pod in whose sandbox it is; none when it is at home.
    pub inside: Option<String>,
    /// Reasons why it may not be taken although the site gave it.
    pub guarded: Vec<String>,
    /// The link; none when it was not found anywhere.
    pub link: Option<LinkState>,
    /// The port.
    pub port: Option<PortFacts>,
    /// The card on its bus.
    pub pcie: PcieFacts,
    /// Driver and firmware.
    pub firmware: Option<Firmware>,
    /// Who is at the other end.
    pub neighbour: Option<Neighbour>,
    /// What was counted meanwhile.
    pub look: Option<Look>,
    /// What could not be looked at, in words.
    pub unseen: Vec<String>,
}

/// What a NIC is judged beside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surroundings {
    /// NUMA nodes of the machine.
    pub numa_nodes: u32,
    /// Processors of the machine.
    pub processors: u32,
    /// Nodes of the disks of the data folder.
    pub disk_nodes: Vec<u32>,
}

impl NicHealth {
    /// The best that card, or site, says of its speed.
    pub fn best(&self) -> Option<Rate> {
        let modes = self.port.as_ref().and_then(|port| port.modes.as_ref());
        modes
            .and_then(dtn_link::ethtool::LinkModes::best)
            .or(self.stated)
            .or(self.speed())
    }
    /// Speed as trained.
    pub fn speed(&self) -> Option<Rate> {
        self.port.as_ref().and_then(|port| port.speed)
    }
    /// It is hardware: what virtual links say of speed and slots is nobody's promise.
    fn is_hardware(&self) -> bool {
        self.pcie.address.is_some()
    }
    fn is_fast(&self) -> bool {
        self.best().is_some_and(|best| best >= FAST)
    }
}

/// Judges a NIC.
pub fn judge(nic: &NicHealth, around: &Surroundings) -> Vec<Finding> {
    let mut say = Findings::of(nic.name.clone());
    for reason in &nic.guarded {
        say.mend(
            Level::Alarm,
            "usable",
            format!("the site gave it, and it may not be taken: {reason}"),
            "free it of that, or take its [[nic]] out of the configuration",
            "dtnctl nics",
        );
    }
    let Some(link) = &nic.link else {
        say.mend(
            Level::Alarm,
            "link",
            "the configuration names it, and no link of this host is it",
            "see that the card is seated and its driver is loaded, or correct the [[nic]]",
            "dtnctl nics; lspci -nn | grep -i ethernet",
        );
        return finish(say, nic);
    };
    wire::carrier(&mut say, nic, link);
    wire::speed(&mut say, nic, link);
    slot::slot(&mut say, nic);
    slot::bus_errors(&mut say, nic);
    slot::place(&mut say, nic, around);
    queues::interrupts(&mut say, nic, around);
    faults::faults(&mut say, nic, &link.faults);
    wire::mtu(&mut say, nic, link);
    queues::offloads(&mut say, nic);
    queues::rings(&mut say, nic);
    wire::flow_control(&mut say, nic);
    identity(&mut say, nic);
    finish(say, nic)
}

fn finish(mut say: Findings, nic: &NicHealth) -> Vec<Finding> {
    for what in &nic.unseen {
        say.say(Level::Note, "not looked at", what.clone());
    }
    say.done()
}

fn identity(say: &mut Findings, nic: &NicHealth) {
    if let Some(driver) = &nic.firmware {
        let firmware = match driver.firmware.as_str() {
            "" | "N/A" => "tells no firmware".to_owned(),
            version => format!("firmware {version}"),
        };
        say.ok(
            "driver",
            format!("{} {}, {firmware}", driver.driver, driver.version),
        );
    }
    if let Some(neighbour) = &nic.neighbour {
        say.ok(
            "neighbour",
            format!("{} port {}", neighbour.system, neighbour.port),
        );
    } else if nic.is_hardware() {
        say.say(
            Level::Note,
            "neighbour",
            "no switch told by LLDP who is at the other end",
        )
        .remedy = Some(
            "run lldpd here and LLDP on the switch: a wrong cable is then seen at once".into(),
        );
    }
}

#[cfg(test)]
mod tests;
