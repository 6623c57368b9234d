//! What the link itself says: carrier, speed as trained, MTU, flow control.

use super::NicHealth;
use crate::health::{Findings, Level};
use dtn_api::Rate;
use dtn_link::{ethtool::PortFacts, inventory::LinkState};

pub(super) fn carrier(say: &mut Findings, nic: &NicHealth, link: &LinkState) {
    let name = &nic.name;
    let place = match &nic.inside {
        Some(key) => format!("in the sandbox of pod {key}"),
        None => "at home".to_owned(),
    };
    if !link.up {
        say.say(
            Level::Note,
            "link",
            format!("{place}, switched off: what it is trained to shows when it is on"),
        )
        .next = nic
            .inside
            .is_none()
            .then(|| format!("ip link set {name} up; dtnctl doctor"));
    } else if !link.carrier {
        let why = nic.port.as_ref().and_then(|port| port.down.as_ref());
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        say.mend(
            Level::Alarm,
            "link",
            format!("{place}, no carrier{why}"),
            "plug in the cable at both ends, see that the switch's port is on and that both \
             modules fit the fibre",
            format!("ethtool {name}; ethtool -m {name}"),
        );
    } else {
        say.ok("link", format!("{place}, up"));
    }
}

pub(super) fn speed(say: &mut Findings, nic: &NicHealth, link: &LinkState) {
    let name = &nic.name;
    let Some(port) = nic.port.as_ref().filter(|_| link.up && link.carrier) else {
        return;
    };
    let Some(trained) = port.speed else {
        say.say(Level::Note, "speed", "the driver does not tell it");
        return;
    };
    if port.duplex.as_deref() == Some("half") {
        say.mend(
            Level::Alarm,
            "duplex",
            "half: only one side can send at a time",
            "let both ends negotiate, or set both to the same",
            format!("ethtool -s {name} autoneg on"),
        );
    }
    if let Some(stated) = nic.stated.filter(|stated| *stated > trained) {
        say.mend(
            Level::Alarm,
            "speed",
            format!("trained to {trained}, and the configuration states {stated}: slices would be promised that it cannot carry"),
            "mend the link, or state the true speed",
            format!("ethtool {name}"),
        );
        return;
    }
    let modes = port.modes.clone().unwrap_or_default();
    let Some(best) = modes.best().filter(|_| nic.is_hardware()) else {
        say.ok("speed", format!("{trained}; no card says a best"));
        return;
    };
    if trained >= best {
        say.ok("speed", format!("{trained}, the card's best"));
        return;
    }
    let (why, remedy) = cause(port, best, trained);
    let wanted = nic.stated.is_some_and(|stated| stated <= trained);
    let text = format!("trained to {trained}, the card can {best}{why}");
    if wanted {
        let finding = say.say(Level::Note, "speed", text);
        finding.remedy =
            Some("the configuration states that speed, so it is taken as meant".into());
    } else {
        say.mend(
            Level::Alarm,
            "speed",
            text,
            remedy,
            format!("ethtool {name}; ethtool -m {name}"),
        );
    }
}

/// Which end limits, as far as both tell.
pub(super) fn cause(port: &PortFacts, best: Rate, trained: Rate) -> (String, &'static str) {
    let modes = port.modes.clone().unwrap_or_default();
    if let Some(partner) = modes.best_of_partner().filter(|partner| *partner < best) {
        return (
            format!(": the other end offers at most {partner}"),
            "plug it into a port of the switch that is as fast, or have that port set to it",
        );
    }
    if let Some(own) = modes.best_advertised().filter(|own| *own < best) {
        return (
            format!(": this end offers at most {own}"),
            "let it offer all of its modes: ethtool -s NIC autoneg on advertise all; see who limits it in .link files",
        );
    }
    if port.autoneg == Some(false) {
        return (
            format!(": it does not negotiate, {trained} is set"),
            "set both ends to the card's speed, or let them negotiate",
        );
    }
    (
        ": both ends could do more".to_owned(),
        "change the cable or the modules: a pair of wires that is broken, or a module of the wrong speed, does this",
    )
}

pub(super) fn mtu(say: &mut Findings, nic: &NicHealth, link: &LinkState) {
    match link.mtu {
        ..1280 => say.mend(
            Level::Alarm,
            "mtu",
            format!("{}: less than IPv6 needs (RFC 8200)", link.mtu),
            "set it to that of the path",
            format!("ip link set {} mtu 9000", nic.name),
        ),
        1280..9000 if nic.is_fast() => say.mend(
            Level::Note,
            "mtu",
            format!("{}: with 9000 a sixth of the packets would do", link.mtu),
            "raise it where every switch of the path carries 9000",
            format!("ip link set {} mtu 9000; ping -M do -s 8972 PEER", nic.name),
        ),
        mtu => say.ok("mtu", mtu.to_string()),
    }
}

pub(super) fn flow_control(say: &mut Findings, nic: &NicHealth) {
    let Some(pause) = nic.port.as_ref().and_then(|port| port.pause) else {
        return;
    };
    let slowed = pause.rx_frames.unwrap_or(0);
    let seen = match (pause.rx_frames, pause.tx_frames) {
        (None, None) => String::new(),
        _ => format!(
            "; {slowed} pause frames came, {} went",
            pause.tx_frames.unwrap_or(0)
        ),
    };
    if !pause.rx && !pause.tx && !pause.autoneg && nic.is_fast() {
        say.mend(
            Level::Note,
            "flow control",
            format!("off: a burst that the receiver cannot take is lost{seen}"),
            "switch it on where the switch does it too",
            format!("ethtool -A {} rx on tx on", nic.name),
        );
    } else {
        let side = |on| if on { "on" } else { "off" };
        say.ok(
            "flow control",
            format!("receive {}, send {}{seen}", side(pause.rx), side(pause.tx)),
        );
    }
}
