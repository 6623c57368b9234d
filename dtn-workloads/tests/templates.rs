//! The templates in the tree: rendered as they are checked in, refused with bad values, and held
//! to the rules that every pod is held to.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use dtn_api::nic::NicClass;
use dtn_workloads::{RenderedPod, Template, TransferKey, layout, list, template::TemplateError};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::Path, time::UNIX_EPOCH};

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn xrootd(pairs: &[(&str, &str)]) -> Result<RenderedPod, Vec<dtn_workloads::Problem>> {
    Template::load(&here().join("xrootd"))
        .unwrap()
        .render(&given(pairs))
}

/// The pods as they are handed on; after a change that is meant: `INSTA_UPDATE=always`.
#[test]
fn every_template_renders_to_its_golden_file() {
    let templates = list(here()).unwrap();
    let names: Vec<_> = templates
        .iter()
        .map(|template| template.name.as_str())
        .collect();
    assert_eq!(names, ["iperf3", "xrootd"]);
    for template in templates {
        let values = given(&[("name", "transfer-1"), ("slice", "lhc-2")]);
        let rendered = template.render(&values).unwrap();
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(here().join(&template.name));
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| {
            insta::assert_snapshot!("rendered", rendered.yaml().unwrap());
            insta::assert_snapshot!("rendered-podman", rendered.podman_yaml().unwrap());
        });
        // what is written is what was rendered
        let back: Pod = serde_saphyr::from_str(&rendered.yaml().unwrap()).unwrap();
        assert_eq!(back, rendered.pod);
    }
}

#[test]
fn what_dtnd_reads_is_there() {
    let pod = xrootd(&[
        ("name", "a"),
        ("slice", "s"),
        ("nic_class", "shared"),
        ("port", "2094"),
    ])
    .unwrap();
    let wishes = pod.wishes().unwrap();
    assert_eq!(wishes.interface.as_str(), "data0");
    assert_eq!(
        (wishes.nic_class, wishes.slice.unwrap().to_string()),
        (NicClass::Shared, "s".into())
    );
    let ports: Vec<_> = pod
        .ports()
        .into_iter()
        .map(|port| (port.port, port.protocol))
        .collect();
    assert_eq!(ports, [(2094, "TCP".to_owned())]);
    assert_eq!(pod.container_names(), ["a-xrootd"]);
    assert_eq!(
        xrootd(&[("name", "a")]).unwrap().wishes().unwrap().slice,
        None
    );
}

#[test]
fn memory_is_streams_times_two_buffers_and_the_programs() {
    let pod = xrootd(&[
        ("name", "a"),
        ("streams", "4"),
        ("buffer", "64MiB"),
        ("app_memory", "256MiB"),
    ])
    .unwrap();
    let limits = pod.pod.spec.unwrap().containers[0]
        .resources
        .clone()
        .unwrap()
        .limits
        .unwrap();
    assert_eq!(limits["memory"].0, ((4 * 2 * 64 + 256) << 20).to_string());
}

#[test]
fn every_bad_value_is_named_at_once() {
    let problems = xrootd(&[
        ("port", "80"),
        ("streams", "many"),
        ("buffer", "32"),
        ("nic_class", "borrowed"),
        ("data_dir", "../data"),
        ("interface", "a/b"),
        ("prot", "1094"),
        ("image", "x\nprivileged: true"),
    ])
    .unwrap_err();
    let paths: Vec<_> = problems
        .iter()
        .map(|problem| problem.path.as_str())
        .collect();
    let wanted = [
        "prot",
        "buffer",
        "data_dir",
        "image",
        "interface",
        "name",
        "nic_class",
        "port",
        "streams",
    ];
    assert_eq!(paths, wanted.map(|name| format!("values.{name}")));
    for problem in problems {
        assert!(problem.why.len() > 10, "{problem}");
    }
}

#[test]
fn the_hosts_own_folders_are_not_mounted() {
    for folder in [
        "/etc",
        "/etc/x",
        "/var",
        "/run/podman",
        "/usr/share",
        "/proc/1",
    ] {
        let problems = xrootd(&[("name", "a"), ("data_dir", folder)]).unwrap_err();
        assert!(
            problems
                .iter()
                .any(|p| p.path == "spec.volumes[0].hostPath.path"),
            "{folder}: {problems:?}"
        );
    }
    assert!(xrootd(&[("name", "a"), ("data_dir", "/var/lib/dtn-lab/data")]).is_ok());
}

/// Each rule alone: one change to a good pod, and the one path that it is refused by.
#[test]
fn each_rule_refuses_its_own_breach() {
    let good = serde_json::to_value(xrootd(&[("name", "a")]).unwrap().pod).unwrap();
    let container = "/spec/containers/0";
    let security = "/spec/containers/0/securityContext";
    let breaches: [(&str, Value, &str); 19] = [
        ("/spec/hostNetwork", json!(true), "spec.hostNetwork"),
        ("/spec/hostPID", json!(true), "spec.hostPID"),
        ("/spec/hostIPC", json!(true), "spec.hostIPC"),
        (
            "/spec/automountServiceAccountToken",
            json!(true),
            "spec.automountServiceAccountToken",
        ),
        (
            &format!("{security}/privileged"),
            json!(true),
            "spec.containers[0].securityContext.privileged",
        ),
        (
            &format!("{security}/runAsUser"),
            json!(0),
            "spec.containers[0].securityContext.runAsUser",
        ),
        (
            &format!("{security}/runAsGroup"),
            json!(0),
            "spec.containers[0].securityContext.runAsGroup",
        ),
        (
            &format!("{security}/runAsNonRoot"),
            json!(false),
            "spec.containers[0].securityContext.runAsNonRoot",
        ),
        (
            &format!("{security}/readOnlyRootFilesystem"),
            json!(false),
            "spec.containers[0].securityContext.readOnlyRootFilesystem",
        ),
        (
            &format!("{security}/allowPrivilegeEscalation"),
            json!(true),
            "spec.containers[0].securityContext.allowPrivilegeEscalation",
        ),
        (
            &format!("{security}/seccompProfile/type"),
            json!("Unconfined"),
            "spec.containers[0].securityContext.seccompProfile",
        ),
        (
            &format!("{security}/capabilities/drop"),
            json!(["NET_RAW"]),
            "spec.containers[0].securityContext.capabilities.drop",
        ),
        (
            &format!("{security}/capabilities/add"),
            json!(["NET_ADMIN"]),
            "spec.containers[0].securityContext.capabilities.add",
        ),
        (
            &format!("{container}/resources/limits"),
            json!({}),
            "spec.containers[0].resources.limits.memory",
        ),
        (
            &format!("{container}/imagePullPolicy"),
            json!("Always"),
            "spec.containers[0].imagePullPolicy",
        ),
        (
            &format!("{container}/ports/0/hostPort"),
            json!(1094),
            "spec.containers[0].ports[0].hostPort",
        ),
        (
            "/spec/volumes/0",
            json!({"name": "data", "emptyDir": {}}),
            "spec.volumes[0].emptyDir",
        ),
        (
            "/spec/volumes/0/hostPath/type",
            json!("DirectoryOrCreate"),
            "spec.volumes[0].hostPath.type",
        ),
        (
            "/metadata/annotations/dtn.appliance~1nic-class",
            json!("any"),
            "metadata.annotations",
        ),
    ];
    for (pointer, value, path) in breaches {
        let mut pod = good.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = pod
            .pointer_mut(parent)
            .unwrap_or_else(|| panic!("{pointer}"));
        let key = key.replace("~1", "/");
        match (key.parse::<usize>(), parent) {
            (Ok(index), Value::Array(items)) => items[index] = value,
            (_, parent) => parent[key] = value,
        }
        let problems = dtn_workloads::check(&serde_json::from_value(pod).unwrap());
        let paths: Vec<_> = problems
            .iter()
            .map(|problem| problem.path.as_str())
            .collect();
        assert_eq!(paths, [path], "{pointer}");
    }
}

/// A template of somebody's own, with what goes wrong when it is being written.
#[test]
fn slips_of_the_pen_in_a_template_are_found() {
    let source = fs::read_to_string(here().join("xrootd/pod.yaml.j2")).unwrap();
    let render = |source: &str| {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("xrootd");
        fs::create_dir(&folder).unwrap();
        fs::copy(
            here().join("xrootd/values.toml"),
            folder.join("values.toml"),
        )
        .unwrap();
        fs::write(folder.join("pod.yaml.j2"), source).unwrap();
        Template::load(&folder)
            .unwrap()
            .render(&given(&[("name", "a")]))
    };
    let problem = |from: &str, to: &str| {
        assert!(source.contains(from), "{from}");
        let problems = render(&source.replacen(from, to, 1)).unwrap_err();
        problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert!(render(&source).is_ok());
    assert!(
        problem("hostname:", "hostNetwrok:").contains("spec.hostNetwrok: a Pod has no such field")
    );
    assert!(problem("{{ image }}", "{{ imgae }}").starts_with("pod.yaml.j2 line "));
    assert!(problem("{{ image }}", "{{ image").starts_with("pod.yaml.j2 line "));
    assert!(problem("kind: Pod", "kind: Deployment").contains("no Kubernetes v1 Pod"));
    assert!(problem("spec:", "spec: [").contains("no YAML"));
    assert!(problem("dtn.appliance/interface", "dtn.appliance/interfaec").contains("is not known"));
    assert!(
        problem(
            "dtn.appliance/template: xrootd",
            "dtn.appliance/template: other"
        )
        .contains("has to be xrootd")
    );
    assert!(problem("  name: {{ name }}", "  name: fixed").contains("metadata.name"));
}

#[test]
fn declarations_that_contradict_themselves_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(
        here().join("xrootd/pod.yaml.j2"),
        dir.path().join("pod.yaml.j2"),
    )
    .unwrap();
    let load = |text: &str| {
        fs::write(dir.path().join("values.toml"), text).unwrap();
        Template::load(dir.path())
    };
    let error = load("version = 2\ndescription = 'x'\n[values.a]\ntype = 'choice'\nhelp = ''\n")
        .unwrap_err();
    let text = error.to_string();
    for path in [
        "version:",
        "values.name:",
        "values.a.help:",
        "values.a.choices:",
    ] {
        assert!(text.contains(path), "{path} in {text}");
    }
    let error = load("version = 1\ndescription = 'x'\n[values.name]\ntype = 'nmae'\nhelp = 'x'\n")
        .unwrap_err();
    assert!(
        matches!(error, TemplateError::Declarations { .. }),
        "{error}"
    );
    let error = load("version = 1\ndescription = 'x'\n[values.name]\ntype = 'integer'\nhelp = 'x'\nmin = 5\ndefault = '4'\n").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("values.name.default: 4 is out of range"),
        "{error}"
    );
    assert!(matches!(
        Template::load(Path::new("/nonexistent")),
        Err(TemplateError::Read { .. })
    ));
}

#[test]
fn folders_and_key_are_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let me = std::os::unix::fs::MetadataExt::uid(&fs::metadata(dir.path()).unwrap());
    if me != 0 {
        println!("skipped: not root, and folders are given to another user");
        return;
    }
    let template = Template::load(&here().join("xrootd")).unwrap();
    let pod = template
        .render(&given(&[
            ("name", "a"),
            ("data_dir", &path("data")),
            ("keys_dir", &path("keys")),
        ]))
        .unwrap();
    let first = layout::lay_out(&template, &pod.values, UNIX_EPOCH).unwrap();
    assert_eq!((first.folders.len(), first.keys.len()), (6, 1));
    let key = TransferKey::read(&first.keys[0]).unwrap();
    for made in first.folders.iter().chain(&first.keys) {
        assert_eq!(
            std::os::unix::fs::MetadataExt::uid(&fs::metadata(made).unwrap()),
            1094,
            "{}",
            made.display()
        );
    }
    assert_eq!(
        layout::lay_out(&template, &pod.values, UNIX_EPOCH).unwrap(),
        layout::LaidOut::default()
    );
    assert_eq!(TransferKey::read(&first.keys[0]).unwrap(), key);
    fs::write(&first.keys[0], "half").unwrap();
    assert!(layout::lay_out(&template, &pod.values, UNIX_EPOCH).is_err());
}
