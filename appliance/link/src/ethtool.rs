//! What a port can do, what it was trained to and how it is set, as `ethtool` would say it: over
//! generic netlink, which follows the namespace and needs no root. Reading only; nothing is set.
//!
//! Numbers are those of the kernel's `ethtool_netlink.h`. Bit sets come with their names, so that a
//! link mode that this build has never heard of is still read.

mod wire;

use crate::{Error, Netns, Result};
use dtn_api::Rate;
use serde::{Deserialize, Serialize};
use std::io;
use wire::{Family, attribute, attributes, nested, number, text};

/// Link modes by name: `100000baseSR4/Full`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkModes {
    /// What the port can do with what is plugged in.
    pub supported: Vec<String>,
    /// What it offers to the other end.
    pub advertised: Vec<String>,
    /// What the other end offered; empty without negotiation, and of drivers that do not tell.
    pub partner: Vec<String>,
}

/// Sizes of the descriptor rings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rings {
    /// Receive descriptors now.
    pub rx: u64,
    /// And at most.
    pub rx_max: u64,
    /// Transmit descriptors now.
    pub tx: u64,
    /// And at most.
    pub tx_max: u64,
}

/// Queues, of which each has an interrupt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channels {
    /// Queues that receive, separate or combined.
    pub rx: u64,
    /// And at most.
    pub rx_max: u64,
    /// Queues that send.
    pub tx: u64,
    /// And at most.
    pub tx_max: u64,
}

/// Flow control of the link (IEEE 802.3 annex 31B).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// It is negotiated.
    pub autoneg: bool,
    /// Pause frames of the other end are obeyed.
    pub rx: bool,
    /// Pause frames are sent.
    pub tx: bool,
    /// Pause frames that came in, where the driver counts them.
    pub rx_frames: Option<u64>,
    /// Pause frames that were sent.
    pub tx_frames: Option<u64>,
}

/// What a driver lets the card do of the stack's work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// Names of those that are on.
    pub active: Vec<String>,
    /// Names of those that can be switched.
    pub switchable: Vec<String>,
}

/// Everything of one port. What a driver does not tell is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortFacts {
    /// Speed as trained.
    pub speed: Option<Rate>,
    /// `full` or `half`.
    pub duplex: Option<String>,
    /// Whether speed is negotiated.
    pub autoneg: Option<bool>,
    /// Lanes in use.
    pub lanes: Option<u64>,
    /// Link modes.
    pub modes: Option<LinkModes>,
    /// Rings.
    pub rings: Option<Rings>,
    /// Queues.
    pub channels: Option<Channels>,
    /// Flow control.
    pub pause: Option<Pause>,
    /// Offloads.
    pub features: Option<Features>,
    /// Forward error correction in use.
    pub fec: Option<String>,
    /// Why the link is down, where the driver knows.
    pub down: Option<String>,
    /// What could not be read although the driver has it, in words.
    pub unread: Vec<String>,
}

impl LinkModes {
    /// The best speed that the port can do.
    pub fn best(&self) -> Option<Rate> {
        best(&self.supported)
    }
    /// The best speed that it offers.
    pub fn best_advertised(&self) -> Option<Rate> {
        best(&self.advertised)
    }
    /// The best speed that the other end offered.
    pub fn best_of_partner(&self) -> Option<Rate> {
        best(&self.partner)
    }
}

fn best(modes: &[String]) -> Option<Rate> {
    modes.iter().filter_map(|mode| mode_speed(mode)).max()
}

/// The speed in a mode's name: megabits before `base`. Other bits of the set (`FIBRE`, `Pause`,
/// `FEC_RS`) have none.
pub fn mode_speed(mode: &str) -> Option<Rate> {
    let (megabits, _) = mode.split_once("base")?;
    let megabits: u64 = megabits.parse().ok()?;
    Some(Rate::from_bps(megabits.checked_mul(1_000_000)?))
}

/// Reads a port by its index in a namespace.
pub async fn read(netns: &Netns, index: u32) -> Result<PortFacts> {
    let doing = || format!("asking the driver of the link with index {index}");
    netns
        .run(move || ask_all(index))
        .await?
        .map_err(|e| Error::io(doing(), e))
}

/// Requests (`ETHTOOL_MSG_*_GET`) with what each is called, its flags, and how its answer is read.
type Part = (u8, &'static str, u32, fn(&mut PortFacts, &[u8]));
const PARTS: [Part; 7] = [
    (4, "link modes", 0, link_modes),
    (6, "the state of the link", 0, link_state),
    (11, "offloads", 0, features),
    (15, "ring sizes", 0, rings),
    (17, "queues", 0, channels),
    (21, "flow control", WITH_STATS, pause),
    (29, "error correction", 0, fec),
];
/// The header is the first attribute of each request.
const HEADER: u16 = 1;
/// `ETHTOOL_FLAG_STATS`; who has none refuses it.
const WITH_STATS: u32 = 4;

fn ask_all(index: u32) -> io::Result<PortFacts> {
    let mut family = match Family::open("ethtool") {
        Ok(family) => family,
        // before Linux 5.6
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(PortFacts {
                unread: vec!["this kernel has no ethtool netlink".into()],
                ..PortFacts::default()
            });
        }
        Err(e) => return Err(e),
    };
    let mut facts = PortFacts::default();
    for (command, name, flags, take) in PARTS {
        let wish = nested(
            HEADER,
            &[
                attribute(1, &index.to_ne_bytes()),
                attribute(3, &flags.to_ne_bytes()),
            ],
        );
        match family.ask(command, &wish) {
            Ok(answer) => take(&mut facts, &answer),
            // EOPNOTSUPP: the driver has no such thing
            Err(e) if e.raw_os_error() == Some(nix::errno::Errno::EOPNOTSUPP as i32) => {}
            Err(e) => facts.unread.push(format!("{name}: {e}")),
        }
    }
    Ok(facts)
}

/// A bit set with names: those that are in it, and those of its mask (all that are told).
fn bits(value: &[u8]) -> (Vec<String>, Vec<String>) {
    let (mut set, mut told) = (Vec::new(), Vec::new());
    let parts = attributes(value);
    // NOMASK: what is told is what is set
    let list = parts.iter().any(|(kind, _)| *kind == 1);
    for (_, bits) in parts.iter().filter(|(kind, _)| *kind == 3) {
        for (_, bit) in attributes(bits) {
            let inside = attributes(bit);
            let Some((_, name)) = inside.iter().find(|(kind, _)| *kind == 2) else {
                continue;
            };
            let name = text(name);
            if list || inside.iter().any(|(kind, _)| *kind == 3) {
                set.push(name.clone());
            }
            told.push(name);
        }
    }
    (set, told)
}

fn find(answer: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(answer)
        .into_iter()
        .find(|(kind, _)| *kind == wanted)
        .map(|(_, value)| value)
}
fn count(answer: &[u8], wanted: u16) -> Option<u64> {
    number(find(answer, wanted)?)
}

fn link_modes(facts: &mut PortFacts, answer: &[u8]) {
    facts.autoneg = count(answer, 2).map(|on| on == 1);
    // SPEED_UNKNOWN is all ones
    facts.speed = count(answer, 5)
        .filter(|speed| (1..u64::from(u32::MAX)).contains(speed))
        .map(|megabits| Rate::from_bps(megabits * 1_000_000));
    facts.duplex = match count(answer, 6) {
        Some(0) => Some("half".into()),
        Some(1) => Some("full".into()),
        _ => None,
    };
    facts.lanes = count(answer, 9).filter(|lanes| *lanes > 0);
    if let Some(ours) = find(answer, 3) {
        let (advertised, supported) = bits(ours);
        let partner = find(answer, 4).map(|set| bits(set).0).unwrap_or_default();
        facts.modes = Some(LinkModes {
            supported,
            advertised,
            partner,
        });
    }
}

fn link_state(facts: &mut PortFacts, answer: &[u8]) {
    // `enum ethtool_link_ext_state`
    const REASONS: [&str; 11] = [
        "negotiation failed",
        "link training failed",
        "the signals of the lanes do not match",
        "the signal is bad",
        "no cable is plugged in",
        "the cable cannot be used",
        "the memory of the module cannot be read",
        "the card was calibrated wrongly",
        "the module takes more power than the slot gives",
        "it is too hot",
        "the module failed",
    ];
    if count(answer, 2) == Some(0) {
        facts.down = count(answer, 5)
            .and_then(|state| REASONS.get(usize::try_from(state).ok()?))
            .map(|reason| (*reason).to_owned());
    }
}

fn features(facts: &mut PortFacts, answer: &[u8]) {
    let set = |kind| {
        find(answer, kind)
            .map(|set| bits(set).0)
            .unwrap_or_default()
    };
    facts.features = Some(Features {
        switchable: set(2),
        active: set(4),
    });
}

fn rings(facts: &mut PortFacts, answer: &[u8]) {
    let ring = |kind| count(answer, kind).unwrap_or(0);
    facts.rings = Some(Rings {
        rx_max: ring(2),
        tx_max: ring(5),
        rx: ring(6),
        tx: ring(9),
    });
}

fn channels(facts: &mut PortFacts, answer: &[u8]) {
    let queues = |kind| count(answer, kind).unwrap_or(0);
    let (both, both_max) = (queues(9), queues(5));
    facts.channels = Some(Channels {
        rx: queues(6) + both,
        rx_max: queues(2).max(both_max),
        tx: queues(7) + both,
        tx_max: queues(3).max(both_max),
    });
}

fn pause(facts: &mut PortFacts, answer: &[u8]) {
    let on = |kind| count(answer, kind) == Some(1);
    let frames = |kind| find(answer, 5).and_then(|stats| count(stats, kind));
    facts.pause = Some(Pause {
        autoneg: on(2),
        rx: on(3),
        tx: on(4),
        tx_frames: frames(2),
        rx_frames: frames(3),
    });
}

fn fec(facts: &mut PortFacts, answer: &[u8]) {
    // the active one is told as the number of its link mode
    facts.fec = count(answer, 4).and_then(|bit| {
        let name = match bit {
            49 => "none",
            50 => "RS",
            51 => "BASE-R",
            74 => "LLRS",
            _ => return None,
        };
        Some(name.to_owned())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bit(name: &str, set: bool) -> Vec<u8> {
        let zero_ended: Vec<u8> = name.bytes().chain([0]).collect();
        let mut parts = vec![
            attribute(1, &0_u32.to_ne_bytes()),
            attribute(2, &zero_ended),
        ];
        if set {
            parts.push(attribute(3, &[]));
        }
        nested(1, &parts)
    }

    /// Built by hand after `linkmodes_fill_reply` of the kernel's `net/ethtool/linkmodes.c`.
    fn answer(trained: u32) -> Vec<u8> {
        let ours = nested(
            3,
            &[nested(
                3,
                &[
                    bit("1000baseT/Full", true),
                    bit("10000baseT/Full", true),
                    bit("TP", true),
                    bit("2500baseT/Full", false),
                ],
            )],
        );
        let peer = nested(
            4,
            &[
                attribute(1, &[]),
                nested(
                    3,
                    &[bit("1000baseT/Full", false), bit("100baseT/Full", false)],
                ),
            ],
        );
        [
            attribute(2, &[1]),
            ours,
            peer,
            attribute(5, &trained.to_ne_bytes()),
            attribute(6, &[1]),
        ]
        .concat()
    }

    #[test]
    fn modes_of_both_ends_are_told_apart() {
        let mut facts = PortFacts::default();
        link_modes(&mut facts, &answer(1000));
        assert_eq!(facts.speed, Some(Rate::from_bps(1_000_000_000)));
        assert_eq!(facts.duplex.as_deref(), Some("full"));
        let modes = facts.modes.unwrap();
        assert_eq!(modes.best(), Some(Rate::from_bps(10_000_000_000)));
        assert_eq!(modes.advertised.len(), 3);
        assert_eq!(modes.best_of_partner(), Some(Rate::from_bps(1_000_000_000)));
        let mut down = PortFacts::default();
        link_modes(&mut down, &answer(u32::MAX));
        assert_eq!(down.speed, None);
    }

    #[test]
    fn a_mode_that_nobody_knows_yet_has_its_speed_in_its_name() {
        let speed = |name| mode_speed(name).map(|rate| rate.bps() / 1_000_000_000);
        assert_eq!(speed("1600000baseCR8/Full"), Some(1600));
        assert_eq!(speed("10000baseR_FEC"), Some(10));
        for other in ["FIBRE", "Asym_Pause", "base", "99999999999999999999base"] {
            assert_eq!(mode_speed(other), None, "{other}");
        }
    }

    #[test]
    fn a_link_that_is_down_says_why() {
        let mut facts = PortFacts::default();
        let down = [attribute(2, &[0]), attribute(5, &[4])].concat();
        link_state(&mut facts, &down);
        assert_eq!(facts.down.as_deref(), Some("no cable is plugged in"));
        let mut up = PortFacts::default();
        link_state(&mut up, &attribute(2, &[1]));
        assert_eq!(up.down, None);
    }
}
