//! The templates in the tree as a cluster takes them: golden files, and each wish in its place.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use dtn_api::{Rate, cluster::ClaimParameters};
use dtn_workloads::{
    Problem, Template, TransferKey,
    kubernetes::{Asked, Manifests, manifests},
    list,
};
use k8s_openapi::api::{
    core::v1::{Pod, PodSpec},
    resource::v1::{ExactDeviceRequest, ResourceClaimTemplate},
};
use std::{collections::BTreeMap, path::Path, time::UNIX_EPOCH};

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn made(template: &str, values: &[(&str, &str)], asked: &Asked) -> Result<Manifests, Vec<Problem>> {
    let template = Template::load(&here().join(template)).unwrap();
    let mut given = BTreeMap::from([("name".to_owned(), "t1".to_owned())]);
    let pairs = values
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    given.extend(pairs);
    manifests(&template, &template.render(&given).unwrap(), asked)
}

fn request(made: &Manifests) -> ExactDeviceRequest {
    let devices = made.claim.spec.spec.devices.clone().unwrap();
    devices.requests.unwrap().remove(0).exactly.unwrap()
}

fn parameters(made: &Manifests) -> ClaimParameters {
    let devices = made.claim.spec.spec.devices.clone().unwrap();
    let opaque = devices.config.unwrap().remove(0).opaque.unwrap();
    assert_eq!(opaque.driver, "dtn.appliance");
    ClaimParameters::read(&opaque.parameters.0).unwrap()
}

fn spec(made: &Manifests) -> PodSpec {
    made.pod.spec.clone().unwrap()
}

fn paths(found: Result<Manifests, Vec<Problem>>) -> Vec<String> {
    found.unwrap_err().into_iter().map(|p| p.path).collect()
}

/// After a change that is meant: `INSTA_UPDATE=always`.
#[test]
fn every_template_renders_to_its_golden_file() {
    for template in list(here()).unwrap() {
        let values = [("name", "transfer-1"), ("slice", "lhc-2")];
        let values = values.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let asked = Asked {
            namespace: Some("science".into()),
            ..Asked::default()
        };
        let rendered = template.render(&values).unwrap();
        let made = manifests(&template, &rendered, &asked).unwrap();
        let text = made.yaml().unwrap();
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(here().join(&template.name));
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!("rendered-kubernetes", text));
        // what is written is what was made
        let (claim, pod) = text.split_once("---\n").unwrap();
        let claim: ResourceClaimTemplate = serde_saphyr::from_str(claim).unwrap();
        let pod: Pod = serde_saphyr::from_str(pod).unwrap();
        assert_eq!((claim, pod), (made.claim.clone(), made.pod.clone()));
    }
}

#[test]
fn the_class_of_nic_is_a_device_class_and_a_shared_one_has_its_rate_counted() {
    let asked = Asked {
        parameters: ClaimParameters {
            rate: Some(Rate::from_bps(2_500_000_000)),
            least_rate: Some(Rate::from_bps(1_000_000_000)),
            ..ClaimParameters::default()
        },
        ..Asked::default()
    };
    let whole = made("xrootd", &[("slice", "lhc")], &asked).unwrap();
    let whole = request(&whole);
    assert_eq!(
        (whole.device_class_name.as_str(), whole.capacity),
        ("dtn-dedicated", None)
    );
    let values = [
        ("slice", "lhc"),
        ("nic_class", "shared"),
        ("interface", "wan0"),
    ];
    let child = made("xrootd", &values, &asked).unwrap();
    assert_eq!(request(&child).device_class_name, "dtn-shared");
    let counted = request(&child).capacity.unwrap().requests.unwrap();
    assert_eq!(counted["bandwidth"].0, "2500000000");
    let parameters = parameters(&child);
    assert_eq!(parameters.interface.as_str(), "wan0");
    assert_eq!(parameters.slice.unwrap().as_str(), "lhc");
    assert_eq!(
        (parameters.rate, parameters.streams),
        (asked.parameters.rate, Some(8))
    );
}

#[test]
fn a_nic_can_be_named_or_described() {
    let asked = Asked {
        device: Some("data\"0".parse().unwrap()),
        numa: Some(1),
        member: true,
        node: Some("n1".into()),
        ..Asked::default()
    };
    let made = made("iperf3", &[("slice", "lhc-2")], &asked).unwrap();
    let selectors = request(&made).selectors.unwrap();
    let told: Vec<String> = selectors
        .into_iter()
        .map(|s| s.cel.unwrap().expression)
        .collect();
    assert_eq!(
        told,
        [
            r#"device.attributes["dtn.appliance"].ifName == "data\"0""#,
            r#""numaNode" in device.attributes["dtn.appliance"] && device.attributes["dtn.appliance"].numaNode == 1"#,
            r#""lhc_2" in device.attributes["slices.dtn.appliance"]"#,
        ]
    );
    let affinity = serde_json::to_string(&spec(&made).affinity).unwrap();
    assert!(
        affinity
            .contains(r#""matchFields":[{"key":"metadata.name","operator":"In","values":["n1"]}]"#)
    );
}

#[test]
fn wishes_that_cannot_be_are_told_all_at_once() {
    let asked = Asked {
        parameters: ClaimParameters {
            rate: Some(Rate::from_bps(1)),
            mtu: Some(100),
            ..ClaimParameters::default()
        },
        member: true,
        volumes: [("data".to_owned(), "x".to_owned())].into(),
        ..Asked::default()
    };
    assert_eq!(
        paths(made("xrootd", &[], &asked)),
        [
            "parameters.rate",
            "parameters.mtu",
            "member",
            "volumes.data"
        ]
    );
}

#[test]
fn the_key_is_a_secret_and_its_copy_in_memory_is_the_pod_s_alone() {
    let made = made("xrootd", &[], &Asked::default()).unwrap();
    let (name, files) = made.key.clone().unwrap();
    assert_eq!(
        (name.as_str(), files),
        ("t1-keys", vec!["sss.keytab".to_owned()])
    );
    let key = TransferKey::generate(UNIX_EPOCH).unwrap();
    let secret = made.secret(&key).unwrap();
    assert_eq!(secret.metadata.labels, made.pod.metadata.labels);
    let line = secret.data.unwrap()["sss.keytab"].0.clone();
    assert_eq!(
        TransferKey::parse(&String::from_utf8(line).unwrap()),
        Some(key)
    );
    let pod = serde_json::to_string(&spec(&made)).unwrap();
    assert!(!pod.contains("/srv/dtn/t1/keys"), "{pod}");
    assert_eq!(made.folders, ["/srv/dtn/t1/data"]);
    assert_eq!(made.uid, Some(1094));
}

#[test]
fn a_folder_can_be_a_volume_of_the_cluster() {
    let asked = Asked {
        volumes: [("data_dir".to_owned(), "t1-data".to_owned())].into(),
        ..Asked::default()
    };
    let made = made("xrootd", &[], &asked).unwrap();
    assert_eq!(made.folders, Vec::<String>::new());
    let volumes = spec(&made).volumes.unwrap();
    let claim = volumes[0].persistent_volume_claim.clone().unwrap();
    assert_eq!(
        (claim.claim_name.as_str(), &volumes[0].host_path),
        ("t1-data", &None)
    );
    let init = spec(&made).init_containers.unwrap().remove(0);
    assert!(init.args.unwrap().contains(&"/data/incoming".to_owned()));
}

/// The init container may not be what the pod's own containers may not be either.
#[test]
fn the_init_container_has_no_more_rights_than_the_pod() {
    let made = made("xrootd", &[], &Asked::default()).unwrap();
    let spec = spec(&made);
    let init = &spec.init_containers.as_ref().unwrap()[0];
    assert_eq!(init.security_context, spec.containers[0].security_context);
    assert_eq!(init.image, spec.containers[0].image);
    assert_eq!(init.image_pull_policy.as_deref(), Some("Never"));
    let mut pod = made.pod.clone();
    // what podman cannot have is had in Kubernetes: memory
    let volumes = pod.spec.as_mut().unwrap().volumes.as_mut().unwrap();
    volumes.retain(|volume| volume.empty_dir.is_none());
    assert_eq!(dtn_workloads::check(&pod), []);
}

#[test]
fn a_template_that_cannot_lay_out_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("xrootd");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(
        here().join("xrootd/pod.yaml.j2"),
        folder.join("pod.yaml.j2"),
    )
    .unwrap();
    let values = std::fs::read_to_string(here().join("xrootd/values.toml")).unwrap();
    let without: String = values
        .lines()
        .filter(|l| !l.starts_with("lay_out"))
        .map(|l| format!("{l}\n"))
        .collect();
    std::fs::write(folder.join("values.toml"), without).unwrap();
    let template = Template::load(&folder).unwrap();
    let rendered = template
        .render(&[("name".to_owned(), "a".to_owned())].into())
        .unwrap();
    assert_eq!(
        paths(manifests(&template, &rendered, &Asked::default())),
        ["lay_out"]
    );
}
