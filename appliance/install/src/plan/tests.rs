use super::*;
use crate::{
    configured::GivenNic,
    facts::{Distribution, Kubelet},
};
use std::fs;

const UNIT: &str =
    "[Unit]\nDescription=x\n[Install]\nWantedBy=multi-user.target\nAlias=dtn.service\n";

fn release(dir: &Path, version: &str) -> Release {
    let files = [
        ("sbin/dtnd", "program"),
        ("sbin/vdnd", "program"),
        (INSTALLER, "program"),
        ("cni/vdn-ipam", "program"),
        ("units/dtnd.service", UNIT),
        ("units/vdnd.service", UNIT),
        (SYSUSERS, "g dtn - -\n"),
        (
            TMPFILES,
            "d /var/lib/dtn 0750 root dtn -\nd /srv/dtn 0755 root root -\n",
        ),
    ];
    for (path, text) in files {
        let file = dir.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    Release {
        format: 1,
        version: version.into(),
        machine: "x86_64".into(),
        files: files
            .map(|(path, text)| (path.to_owned(), crate::image::digest_of(text.as_bytes())))
            .into(),
        folder: dir.to_owned(),
    }
}
fn host() -> Facts {
    Facts {
        live: true,
        networkd: true,
        distribution: Distribution {
            id: "debian".into(),
            ..Distribution::default()
        },
        ..Facts::default()
    }
}
fn wanted() -> Wanted {
    Wanted {
        configuration: Configured {
            host: true,
            domain: false,
            nics: vec![GivenNic::Name("data0".into())],
        },
        proposal: Some("version = 1\n".into()),
        ..Wanted::default()
    }
}
fn shown(steps: &[Step]) -> Vec<String> {
    steps.iter().map(ToString::to_string).collect()
}

#[test]
fn folders_come_before_what_is_in_them_and_the_installer_before_all() {
    let dir = tempfile::tempdir().unwrap();
    let steps = files(&host(), &release(dir.path(), "1"), &wanted()).unwrap();
    let paths: Vec<&Path> = steps.iter().filter_map(Step::path).collect();
    for (at, path) in paths.iter().enumerate() {
        for above in path.ancestors().skip(1) {
            if let Some(other) = paths.iter().position(|p| *p == above) {
                assert!(other < at, "{} before {}", path.display(), above.display());
            }
        }
        assert_eq!(
            paths.iter().filter(|p| *p == path).count(),
            1,
            "{}",
            path.display()
        );
    }
    let first_file = steps
        .iter()
        .find(|step| matches!(step, Step::File { .. }))
        .unwrap();
    assert_eq!(
        first_file.path(),
        Some(Path::new("/usr/libexec/dtn/dtn-install"))
    );
}

#[test]
fn only_daemons_with_a_table_start_at_boot() {
    let dir = tempfile::tempdir().unwrap();
    let release = release(dir.path(), "1");
    let units = |configuration: &Configured, facts: &Facts| -> Vec<String> {
        enabled(facts, &release, configuration)
            .unwrap()
            .into_iter()
            .map(|enabled| enabled.unit)
            .collect()
    };
    let mut configuration = wanted().configuration;
    assert_eq!(
        units(&configuration, &host()),
        ["podman.socket", "dtnd.service"]
    );
    configuration.domain = true;
    let node = Facts {
        kubelet: Some(Kubelet::default()),
        ..host()
    };
    assert_eq!(
        units(&configuration, &node),
        ["vdnd.service", "dtnd.service"]
    );
    let links = boot_links("dtnd.service", UNIT);
    assert_eq!(links.len(), 2);
    assert_eq!(
        links[0].0,
        Path::new("/etc/systemd/system/multi-user.target.wants/dtnd.service")
    );
}

#[test]
fn what_runs_anew_follows_from_what_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let release = release(dir.path(), "2");
    let mut facts = host();
    let enabled = enabled(&facts, &release, &wanted().configuration).unwrap();
    let program = Step::file("/usr/sbin/dtnd", 0o755, Content::Text(String::new()));
    let unit = Step::file(
        "/usr/lib/systemd/system/dtnd.service",
        0o644,
        Content::Text(String::new()),
    );
    let first = services(&facts, &release, &enabled, &[program.clone(), unit]);
    assert_eq!(
        shown(&first),
        [
            "reload  systemd",
            "run     podman.socket",
            "run     dtnd.service",
            "check   dtnd answers as version 2"
        ]
    );
    facts.running = vec!["podman.socket".into(), "dtnd.service".into()];
    let upgrade = services(&facts, &release, &enabled, &[program]);
    assert_eq!(
        shown(&upgrade),
        ["run     dtnd.service", "check   dtnd answers as version 2"]
    );
    assert!(services(&facts, &release, &enabled, &[]).is_empty());
    let plugin = Step::file("/opt/cni/bin/vdn-ipam", 0o755, Content::Text(String::new()));
    assert!(services(&facts, &release, &enabled, &[plugin]).is_empty());
}

#[test]
fn a_socket_runs_anew_only_when_its_unit_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let mut release = release(dir.path(), "2");
    release
        .files
        .insert("units/dtnd.socket".into(), String::new());
    let facts = Facts {
        running: vec!["dtnd.socket".into(), "dtnd.service".into()],
        ..host()
    };
    let enabled = ["dtnd.socket", "dtnd.service"].map(|unit| Enabled {
        unit: unit.into(),
        links: Vec::new(),
    });
    let file = |path: &str| Step::file(path, 0o644, Content::Text(String::new()));
    let program = file("/usr/sbin/dtnd");
    assert_eq!(
        shown(&services(&facts, &release, &enabled, &[program])),
        ["run     dtnd.service", "check   dtnd answers as version 2"]
    );
    let unit = file("/usr/lib/systemd/system/dtnd.socket");
    assert_eq!(
        shown(&services(&facts, &release, &enabled, &[unit])),
        [
            "reload  systemd",
            "run     dtnd.socket",
            "run     dtnd.service",
            "check   dtnd answers as version 2"
        ]
    );
}

#[test]
fn what_a_newer_release_has_no_more_goes_and_what_is_the_admins_stays() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = Wanted {
        known: [
            "/usr/sbin/dtn-old",
            "/usr/sbin/dtnd",
            "/etc/dtn/appliance.toml",
            "/etc/systemd/network/10-dtn-data9.network",
            "/usr/lib/systemd/system",
            "/opt/cni/bin",
        ]
        .map(PathBuf::from)
        .to_vec(),
        proposal: None,
        ..wanted()
    };
    let steps = files(&host(), &release(dir.path(), "2"), &wanted).unwrap();
    let gone: Vec<String> = shown(&steps)
        .into_iter()
        .filter(|step| step.starts_with("remove"))
        .collect();
    assert_eq!(
        gone,
        [
            "remove  /usr/sbin/dtn-old",
            "remove  /etc/systemd/network/10-dtn-data9.network"
        ]
    );
}

#[test]
fn a_node_of_kubernetes_gets_plugins_where_its_runtime_looks_and_no_podman() {
    let dir = tempfile::tempdir().unwrap();
    let facts = Facts {
        kubelet: Some(Kubelet {
            bin_dirs: vec!["/usr/lib/cni".into(), "/opt/cni/bin".into()],
            ..Kubelet::default()
        }),
        ..host()
    };
    let steps = shown(&files(&facts, &release(dir.path(), "1"), &wanted()).unwrap());
    assert!(steps.contains(&"file    /usr/lib/cni/vdn-ipam  0755 root:root".to_owned()));
    assert!(steps.contains(&"file    /opt/cni/bin/vdn-ipam  0755 root:root".to_owned()));
    assert!(steps.contains(&"package nftables, iproute2".to_owned()));
}
