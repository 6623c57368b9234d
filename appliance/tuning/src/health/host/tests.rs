//! A machine in good order, and one fault at a time. The facts are built by hand in the shape of the
//! kernel's documentation; those of this machine are collected by the tests of [`super::super::look`].

use super::*;
use dtn_api::Rate;
use dtn_api::Span;
use dtn_link::block::Disk;
use dtn_link::pcie::{PcieFacts, PcieLink};
use std::collections::BTreeMap;

fn path() -> Path {
    Path {
        rate: Rate::from_bps(10_000_000_000),
        rtt: Span::from_millis(100),
        mtu: 9000,
        streams: 1,
        memory_limit: None,
    }
}

fn nvme() -> Disk {
    let link = Some(PcieLink {
        megatransfers: 8_000,
        lanes: 4,
    });
    Disk {
        name: "nvme0n1".into(),
        scheduler: Some("none".into()),
        pcie: PcieFacts {
            current: link,
            card: link,
            ..PcieFacts::default()
        },
        ..Disk::default()
    }
}

fn good() -> HostHealth {
    let mut settings: BTreeMap<String, String> = plan::host(&path(), 2)
        .into_iter()
        .map(|one| (one.key, one.want.value()))
        .collect();
    settings.insert("net.ipv4.tcp_mem".into(), "1 2 900000".into());
    HostHealth {
        machine: MachineFacts {
            kernel: "6.12.9-amd64".into(),
            processors: 16,
            numa_nodes: 2,
            governors: [("performance".to_owned(), 16)].into(),
            memory: 64 << 30,
            memory_available: 60 << 30,
            cgroup2: Some(vec!["cpu".into(), "memory".into()]),
            boot: vec!["intel_iommu=on".into(), "iommu=pt".into()],
            settings,
            ..MachineFacts::default()
        },
        clock: Clock {
            keeper: Some("chronyd".into()),
            synchronized: Some(true),
            off_millis: Some(2),
        },
        qdiscs: Some(QDISCS.map(|name| (name.to_owned(), true)).to_vec()),
        controls: Some(Controls {
            available: vec!["cubic".into()],
            allowed: vec!["cubic".into()],
            current: "cubic".into(),
        }),
        data: Some(Room {
            folder: "/srv/dtn".into(),
            exists: true,
            mount: "/srv/dtn".into(),
            kind: "xfs".into(),
            options: vec!["rw".into()],
            total: 4 << 40,
            free: 3 << 40,
            free_files: None,
            disks: vec![nvme()],
        }),
        unseen: Vec::new(),
    }
}

fn fast() -> NicHealth {
    NicHealth {
        stated: Some(Rate::from_bps(10_000_000_000)),
        ..NicHealth::default()
    }
}

fn loud(host: &HostHealth) -> Vec<Finding> {
    judge(host, Some(&path()), &[fast()])
        .into_iter()
        .filter(|finding| finding.level > Level::Ok)
        .collect()
}

#[test]
fn a_machine_in_good_order_is_quiet() {
    assert_eq!(loud(&good()), []);
    let checks = judge(&good(), Some(&path()), &[fast()]).len();
    assert!(checks >= 10, "{checks}");
}

#[test]
fn each_fault_has_its_word_its_level_and_a_remedy() {
    type Case = (fn(&mut HostHealth), &'static str, Level);
    let cases: [Case; 20] = [
        (
            |host| host.clock.synchronized = Some(false),
            "clock",
            Level::Alarm,
        ),
        (
            |host| host.clock.off_millis = Some(412_000),
            "clock",
            Level::Alarm,
        ),
        (
            |host| host.clock.off_millis = Some(2_000),
            "clock",
            Level::Warning,
        ),
        (
            |host| host.clock = Clock::default(),
            "clock",
            Level::Warning,
        ),
        (
            |host| host.machine.governors = [("powersave".to_owned(), 16)].into(),
            "governor",
            Level::Warning,
        ),
        (|host| host.machine.boot.truncate(1), "iommu", Level::Note),
        (|host| host.machine.cgroup2 = None, "cgroups", Level::Alarm),
        (
            |host| {
                host.machine.cgroup2 = Some(Vec::new());
                host.machine.cgroup1 = 9;
            },
            "cgroups",
            Level::Note,
        ),
        (
            |host| host.machine.kernel = "5.4.0-1".into(),
            "kernel",
            Level::Warning,
        ),
        (
            |host| host.qdiscs.as_mut().unwrap()[0].1 = false,
            "queues",
            Level::Alarm,
        ),
        (
            |host| host.qdiscs.as_mut().unwrap()[1].1 = false,
            "queues",
            Level::Warning,
        ),
        (
            |host| host.machine.running = vec!["tuned".into()],
            "other tuners",
            Level::Warning,
        ),
        (
            |host| {
                let settings = &mut host.machine.settings;
                settings.insert("net.core.rmem_max".into(), "212992".into());
            },
            "settings",
            Level::Warning,
        ),
        (
            |host| host.data.as_mut().unwrap().options = vec!["ro".into()],
            "data",
            Level::Alarm,
        ),
        (
            |host| host.data.as_mut().unwrap().kind = "tmpfs".into(),
            "data",
            Level::Warning,
        ),
        (
            |host| host.data.as_mut().unwrap().free = 100 << 20,
            "room",
            Level::Alarm,
        ),
        (
            |host| host.data.as_mut().unwrap().exists = false,
            "room",
            Level::Warning,
        ),
        (
            |host| {
                let disk = &mut host.data.as_mut().unwrap().disks[0];
                disk.name = "sda".into();
                disk.rotational = true;
            },
            "disks",
            Level::Warning,
        ),
        (
            |host| {
                let disk = &mut host.data.as_mut().unwrap().disks[0];
                disk.pcie.current.as_mut().unwrap().lanes = 2;
            },
            "disk",
            Level::Warning,
        ),
        (
            |host| host.machine.memory_available = 1 << 30,
            "memory",
            Level::Warning,
        ),
    ];
    for (spoil, check, level) in cases {
        let mut host = good();
        spoil(&mut host);
        let found = loud(&host);
        assert_eq!(found.len(), 1, "{check}: {found:#?}");
        assert_eq!(
            (found[0].check.as_str(), found[0].level),
            (check, level),
            "{found:?}"
        );
        assert!(found[0].remedy.is_some(), "{found:?}");
    }
}

#[test]
fn of_three_numbers_the_remedy_raises_the_last_alone() {
    let mut host = good();
    host.machine
        .settings
        .insert("net.ipv4.tcp_mem".into(), "10 20 30".into());
    let found = loud(&host);
    assert_eq!(
        found[0].next.as_deref(),
        Some("sysctl -w net.ipv4.tcp_mem='10 20 122070'")
    );
}

#[test]
fn what_was_not_seen_is_said_and_nothing_is_made_up() {
    let host = HostHealth {
        unseen: vec!["which queues the kernel has: only root can try them".into()],
        qdiscs: None,
        data: None,
        controls: None,
        ..good()
    };
    let found = loud(&host);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].level, found[0].check.as_str()),
        (Level::Note, "not looked at")
    );
    assert!(
        judge(&host, None, &[])
            .iter()
            .all(|one| one.check != "queues")
    );
}
