//! A NIC in good order, and one fault at a time. The facts are built by hand in the shape that the
//! kernel gives them (Documentation/networking/ethtool-netlink, ABI/testing/sysfs-bus-pci): no card
//! was at hand.

use super::*;
use dtn_link::{
    ethtool::{Channels, Features, LinkModes, Pause, Rings},
    pcie::PcieLink,
    pcie::{BusErrors, Interrupt},
};

fn gbit(number: u64) -> Rate {
    Rate::from_bps(number * 1_000_000_000)
}

fn around() -> Surroundings {
    Surroundings {
        numa_nodes: 2,
        processors: 16,
        disk_nodes: vec![1],
    }
}

/// A 100 Gb/s card with everything as it should be.
fn good() -> NicHealth {
    let modes = ["100000baseSR4/Full", "25000baseSR/Full", "FIBRE"].map(str::to_owned);
    let x16 = PcieLink {
        megatransfers: 16_000,
        lanes: 16,
    };
    NicHealth {
        name: "ens1f0".into(),
        class: Some(NicClass::Dedicated),
        link: Some(LinkState {
            up: true,
            carrier: true,
            mtu: 9000,
            ..LinkState::default()
        }),
        port: Some(PortFacts {
            speed: Some(gbit(100)),
            duplex: Some("full".into()),
            autoneg: Some(true),
            modes: Some(LinkModes {
                supported: modes.to_vec(),
                advertised: modes.to_vec(),
                partner: modes.to_vec(),
            }),
            rings: Some(Rings {
                rx: 8192,
                rx_max: 8192,
                tx: 8192,
                tx_max: 8192,
            }),
            channels: Some(Channels {
                rx: 8,
                rx_max: 63,
                tx: 8,
                tx_max: 63,
            }),
            pause: Some(Pause {
                rx: true,
                tx: true,
                ..Pause::default()
            }),
            features: Some(Features {
                active: [
                    "tx-tcp-segmentation",
                    "tx-generic-segmentation",
                    "rx-gro",
                    "rx-checksum",
                ]
                .map(str::to_owned)
                .to_vec(),
                switchable: vec!["tx-tcp-segmentation".into(), "rx-gro".into()],
            }),
            ..PortFacts::default()
        }),
        pcie: PcieFacts {
            address: Some("0000:3b:00.0".parse().unwrap()),
            current: Some(x16),
            card: Some(x16),
            slot: Some(x16),
            numa_node: Some(1),
            near: vec![8, 9, 10, 11],
            interrupts: (0..4)
                .map(|n| Interrupt {
                    number: 130 + n,
                    processors: vec![8 + n],
                })
                .collect(),
            errors: Some(BusErrors::default()),
            ..PcieFacts::default()
        },
        firmware: Some(Firmware {
            driver: "mlx5_core".into(),
            version: "6.12.9".into(),
            firmware: "22.41.1000".into(),
        }),
        neighbour: Some(Neighbour {
            system: "core1".into(),
            port: "Ethernet12".into(),
        }),
        look: Some(Look {
            millis: 2000,
            faults: LinkFaults::default(),
        }),
        ..NicHealth::default()
    }
}

/// The only finding that is more than ok.
fn one(nic: &NicHealth) -> Finding {
    let loud: Vec<_> = judge(nic, &around())
        .into_iter()
        .filter(|finding| finding.level > Level::Ok)
        .collect();
    assert_eq!(loud.len(), 1, "{loud:#?}");
    let finding = loud.into_iter().next().unwrap();
    assert!(finding.remedy.is_some(), "{finding:?}");
    finding
}

#[test]
fn a_nic_in_good_order_is_quiet() {
    let findings = judge(&good(), &around());
    assert!(
        findings.iter().all(|one| one.level == Level::Ok),
        "{findings:#?}"
    );
    let checks: Vec<_> = findings.iter().map(|one| one.check.as_str()).collect();
    assert_eq!(
        checks,
        [
            "link",
            "speed",
            "slot",
            "bus errors",
            "numa",
            "interrupts",
            "errors",
            "mtu",
            "offloads",
            "rings",
            "flow control",
            "driver",
            "neighbour"
        ]
    );
}

#[test]
fn a_card_that_trained_low_is_an_alarm_that_names_the_end_that_limits() {
    let trained = |change: fn(&mut PortFacts)| {
        let mut nic = good();
        let port = nic.port.as_mut().unwrap();
        port.speed = Some(gbit(25));
        change(port);
        one(&nic)
    };
    let cable = trained(|_| ());
    assert_eq!(cable.level, Level::Alarm);
    assert_eq!(
        cable.text,
        "trained to 25Gbit, the card can 100Gbit: both ends could do more"
    );
    let partner = trained(|port| {
        port.modes.as_mut().unwrap().partner = vec!["25000baseSR/Full".into()];
    });
    assert!(
        partner
            .text
            .ends_with("the other end offers at most 25Gbit"),
        "{partner:?}"
    );
    let own = trained(|port| {
        let modes = port.modes.as_mut().unwrap();
        modes.partner.clear();
        modes.advertised = vec!["25000baseSR/Full".into()];
    });
    assert!(
        own.text.ends_with("this end offers at most 25Gbit"),
        "{own:?}"
    );
}

#[test]
fn a_speed_that_the_site_states_is_taken_as_meant_and_held_to() {
    let mut nic = good();
    nic.stated = Some(gbit(25));
    nic.port.as_mut().unwrap().speed = Some(gbit(25));
    assert_eq!(one(&nic).level, Level::Note);
    nic.port.as_mut().unwrap().speed = Some(gbit(10));
    let finding = one(&nic);
    assert_eq!(
        (finding.level, finding.check.as_str()),
        (Level::Alarm, "speed")
    );
    assert!(
        finding.text.contains("the configuration states 25Gbit"),
        "{finding:?}"
    );
}

#[test]
fn a_slot_is_judged_by_what_the_port_needs_of_it() {
    let with = |current: (u32, u32), slot: (u32, u32)| {
        let link = |(megatransfers, lanes)| {
            Some(PcieLink {
                megatransfers,
                lanes,
            })
        };
        let mut nic = good();
        nic.pcie.current = link(current);
        nic.pcie.slot = link(slot);
        one(&nic)
    };
    let narrow = with((16_000, 4), (16_000, 16));
    assert_eq!(narrow.level, Level::Alarm, "{narrow:?}");
    assert!(
        narrow.text.contains("trained to 16.0 GT/s x4"),
        "{narrow:?}"
    );
    // 113 Gb/s are still enough for the port
    let enough = with((16_000, 8), (16_000, 16));
    assert_eq!(enough.level, Level::Warning, "{enough:?}");
    let old = with((8_000, 8), (8_000, 8));
    assert_eq!(old.level, Level::Alarm);
    assert!(
        old.text
            .ends_with("the slot ends at 8.0 GT/s x8, the card could 16.0 GT/s x16"),
        "{old:?}"
    );
    let mut unknown = good();
    unknown.pcie.current = None;
    let findings = judge(&unknown, &around());
    assert!(
        findings
            .iter()
            .any(|one| one.check == "slot" && one.level == Level::Note)
    );
}

#[test]
fn errors_of_now_are_louder_than_those_of_before() {
    let with = |total: LinkFaults, now: LinkFaults| {
        let mut nic = good();
        nic.link.as_mut().unwrap().faults = total;
        nic.look.as_mut().unwrap().faults = now;
        one(&nic)
    };
    let crc = LinkFaults {
        crc: 7,
        ..LinkFaults::default()
    };
    let none = LinkFaults::default();
    let before = with(crc, none);
    assert_eq!(
        (before.level, before.check.as_str()),
        (Level::Warning, "errors")
    );
    let now = with(crc, crc);
    assert_eq!(now.level, Level::Alarm);
    assert_eq!(now.text, "7 broken frames came in in 2.0 s, 7 in all");
    let missed = LinkFaults {
        missed: 9,
        ..LinkFaults::default()
    };
    assert_eq!(with(missed, missed).check, "drops");
    let flap = LinkFaults {
        carrier_changes: 2,
        ..LinkFaults::default()
    };
    assert_eq!(with(flap, flap).level, Level::Alarm);
    // cabled, configured, moved
    let mut moved = good();
    moved.link.as_mut().unwrap().faults.carrier_changes = 6;
    assert!(
        judge(&moved, &around())
            .iter()
            .all(|one| one.level == Level::Ok)
    );
}

#[test]
fn each_fault_has_its_word_and_its_level() {
    type Case = (fn(&mut NicHealth), &'static str, Level);
    let cases: [Case; 13] = [
        (
            |nic| nic.link.as_mut().unwrap().carrier = false,
            "link",
            Level::Alarm,
        ),
        (|nic| nic.link = None, "link", Level::Alarm),
        (
            |nic| nic.guarded = vec!["it carries the default route".into()],
            "usable",
            Level::Alarm,
        ),
        (
            |nic| nic.port.as_mut().unwrap().duplex = Some("half".into()),
            "duplex",
            Level::Alarm,
        ),
        (
            |nic| nic.pcie.errors.as_mut().unwrap().nonfatal = 1,
            "bus errors",
            Level::Alarm,
        ),
        (
            |nic| nic.pcie.errors.as_mut().unwrap().correctable = 5,
            "bus errors",
            Level::Note,
        ),
        (|nic| nic.pcie.numa_node = Some(0), "numa", Level::Warning),
        (
            |nic| nic.pcie.interrupts[0].processors = vec![0],
            "interrupts",
            Level::Warning,
        ),
        (
            |nic| {
                for irq in &mut nic.pcie.interrupts {
                    irq.processors = vec![8];
                }
            },
            "interrupts",
            Level::Warning,
        ),
        (
            |nic| nic.link.as_mut().unwrap().mtu = 1500,
            "mtu",
            Level::Note,
        ),
        (
            |nic| nic.port.as_mut().unwrap().rings.as_mut().unwrap().rx = 512,
            "rings",
            Level::Warning,
        ),
        (
            |nic| {
                let port = nic.port.as_mut().unwrap();
                port.features
                    .as_mut()
                    .unwrap()
                    .active
                    .retain(|one| one != "rx-gro");
            },
            "offloads",
            Level::Warning,
        ),
        (
            |nic| nic.port.as_mut().unwrap().channels.as_mut().unwrap().rx = 1,
            "queues",
            Level::Warning,
        ),
    ];
    for (spoil, check, level) in cases {
        let mut nic = good();
        spoil(&mut nic);
        let finding = one(&nic);
        assert_eq!(
            (finding.check.as_str(), finding.level),
            (check, level),
            "{finding:?}"
        );
    }
}

#[test]
fn a_virtual_link_is_promised_nothing() {
    let nic = NicHealth {
        name: "veth0".into(),
        link: good().link,
        port: Some(PortFacts {
            speed: Some(gbit(10)),
            ..PortFacts::default()
        }),
        ..NicHealth::default()
    };
    let findings = judge(&nic, &around());
    assert!(
        findings.iter().all(|one| one.level == Level::Ok),
        "{findings:#?}"
    );
}

#[test]
fn a_link_that_is_off_and_what_could_not_be_seen_are_no_verdict() {
    let mut nic = good();
    nic.link.as_mut().unwrap().up = false;
    nic.link.as_mut().unwrap().carrier = false;
    nic.unseen = vec!["its firmware: no".into()];
    let findings = judge(&nic, &around());
    let loud: Vec<_> = findings
        .iter()
        .filter(|one| one.level > Level::Ok)
        .collect();
    assert_eq!(loud.len(), 2, "{loud:?}");
    assert!(loud.iter().all(|one| one.level == Level::Note));
    assert!(findings.iter().all(|one| one.check != "speed"));
}
