use super::*;
use crate::facts::{NicFact, Room};

fn good_host() -> Facts {
    Facts {
        live: true,
        distribution: Distribution {
            id: "debian".into(),
            version: "12".into(),
            name: "Debian GNU/Linux 12 (bookworm)".into(),
            like: String::new(),
        },
        machine: "x86_64".into(),
        kernel: "6.1.0-32-amd64".into(),
        systemd: true,
        cgroups: Cgroups::Unified,
        memory_bytes: 64 << 30,
        processors: 32,
        clock: Some(true),
        rooms: vec![Room {
            path: "/usr",
            free_bytes: 10 << 30,
        }],
        nics: vec![NicFact {
            name: "ens3".into(),
            hardware: true,
            ..NicFact::default()
        }],
        ..Facts::default()
    }
}
fn asked() -> Asked {
    Asked {
        release_machine: "x86_64".into(),
        release_bytes: 200 << 20,
        wishes: Wishes::default(),
    }
}
/// What is refused or warned of on a host that differs from a good one by this.
fn worse(change: impl Fn(&mut Facts, &mut Asked)) -> Vec<(Weight, String)> {
    let (mut facts, mut asked) = (good_host(), asked());
    change(&mut facts, &mut asked);
    judge(&facts, &asked)
        .into_iter()
        .filter(|finding| finding.weight >= Weight::Warning)
        .map(|finding| {
            assert!(!finding.remedy.is_empty(), "without a remedy: {finding:?}");
            (finding.weight, finding.what)
        })
        .collect()
}

#[test]
fn a_good_host_has_nothing_against_it() {
    assert_eq!(worse(|_, _| {}), []);
}

#[test]
fn each_thing_that_is_wrong_is_told() {
    type Change = fn(&mut Facts, &mut Asked);
    let table: [(Change, Weight, &str); 12] = [
        (
            |f, _| f.distribution.version = "11".into(),
            Weight::Refused,
            "distribution",
        ),
        (
            |f, _| f.distribution.id = "arch".into(),
            Weight::Refused,
            "distribution",
        ),
        (
            |f, _| f.machine = "aarch64".into(),
            Weight::Refused,
            "architecture",
        ),
        (
            |f, _| f.kernel = "5.4.0-1".into(),
            Weight::Refused,
            "kernel",
        ),
        (|f, _| f.systemd = false, Weight::Refused, "service manager"),
        (
            |f, _| f.cgroups = Cgroups::Legacy,
            Weight::Warning,
            "control groups",
        ),
        (|f, _| f.clock = None, Weight::Warning, "clock"),
        (
            |f, _| f.running = vec!["tuned.service".into()],
            Weight::Warning,
            "tuned",
        ),
        (
            |f, _| f.rooms[0].free_bytes = 1 << 20,
            Weight::Refused,
            "disk room",
        ),
        (
            |f, _| f.old_configuration = true,
            Weight::Refused,
            "configuration",
        ),
        (|f, _| f.nics.clear(), Weight::Warning, "data NICs"),
        (
            |_, a| a.wishes.nics = vec![("eth9".into(), NicClass::Dedicated)],
            Weight::Refused,
            "--nic eth9",
        ),
    ];
    for (change, weight, what) in table {
        let found = worse(change);
        assert!(
            found.contains(&(weight, what.to_owned())),
            "{what}: {found:?}"
        );
    }
}

#[test]
fn a_nic_that_the_host_lives_on_is_refused_even_when_it_is_named() {
    let found = worse(|facts, asked| {
        facts.nics[0].not_dedicated = vec!["it carries the host's default route: no".into()];
        facts.nics[0].not_shared = facts.nics[0].not_dedicated.clone();
        asked.wishes.nics = vec![("ens3".into(), NicClass::Shared)];
    });
    assert_eq!(found, [(Weight::Refused, "--nic ens3".into())]);
}

#[test]
fn known_distributions() {
    for (id, version, known) in [
        ("debian", "13", true),
        ("ubuntu", "24.04", true),
        ("ubuntu", "23.10", false),
        ("rocky", "9.4", true),
        ("rhel", "8.9", false),
        ("", "", false),
    ] {
        let distribution = Distribution {
            id: id.into(),
            version: version.into(),
            ..Distribution::default()
        };
        assert_eq!(is_known(&distribution), known, "{id} {version}");
    }
}
