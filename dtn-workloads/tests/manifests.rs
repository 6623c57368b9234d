//! The manifests in `config/kubernetes`: each is of a kind that Kubernetes has, with no field that the
//! kind has not, and says what the appliance's own contract says. `tests/kubernetes/manifests.sh` holds
//! them against a real API server.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use dtn_api::cluster::{
    ClaimParameters, DEDICATED_CLASS, DRIVER, PARAMETERS_KIND, PARAMETERS_VERSION, SHARED_CLASS,
};
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    apps::v1::{DaemonSet, Deployment},
    core::v1::{Namespace, Pod, ServiceAccount},
    policy::v1::PodDisruptionBudget,
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    resource::v1::{DeviceClass, ResourceClaimTemplate},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn folder() -> PathBuf {
    checkout().join("config/kubernetes")
}

/// Every object of the base and of the overlays, with the file that it stands in.
fn objects() -> Vec<(PathBuf, Value)> {
    let mut folders = vec![folder().join("base")];
    folders.extend(
        fs::read_dir(folder().join("overlays"))
            .unwrap()
            .map(|entry| entry.unwrap().path()),
    );
    let mut found = Vec::new();
    for folder in folders {
        let mut files: Vec<PathBuf> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
            .collect();
        files.sort();
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            let all: Vec<Value> = serde_saphyr::from_multiple(&text)
                .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            found.extend(all.into_iter().map(|object| (file.clone(), object)));
        }
    }
    assert!(found.len() > 20, "the manifests are read wrongly");
    found
}

/// Paths of what is in `written` and not the same in `read`.
fn lost(written: &Value, read: &Value, path: &str, found: &mut Vec<String>) {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            for (name, value) in written {
                lost(
                    value,
                    read.get(name).unwrap_or(&Value::Null),
                    &format!("{path}.{name}"),
                    found,
                );
            }
        }
        (Value::Array(written), Value::Array(read)) if written.len() == read.len() => {
            for (at, (written, read)) in written.iter().zip(read).enumerate() {
                lost(written, read, &format!("{path}[{at}]"), found);
            }
        }
        _ if written == read => {}
        _ => found.push(format!("{path}: {written} is read as {read}")),
    }
}

fn as_kind<T: DeserializeOwned + Serialize>(object: &Value) -> Vec<String> {
    match serde_json::from_value::<T>(object.clone()) {
        Ok(read) => {
            let mut found = Vec::new();
            lost(object, &json!(read), "", &mut found);
            found
        }
        Err(e) => vec![e.to_string()],
    }
}

/// The objects that the documentation shows.
fn examples() -> Vec<(PathBuf, Value)> {
    let page = checkout().join("docs/kubernetes.md");
    let text = fs::read_to_string(&page).unwrap();
    let blocks = text.split("```yaml\n").skip(1);
    let all: Vec<Value> = blocks
        .map(|block| block.split("```").next().unwrap())
        .flat_map(|block| serde_saphyr::from_multiple::<Value>(block).unwrap())
        .collect();
    assert!(!all.is_empty(), "the page is read wrongly");
    all.into_iter()
        .map(|object| (page.clone(), object))
        .collect()
}

#[test]
fn the_parameters_of_the_documentation_are_right() {
    let (mut seen, all) = (0, examples());
    for (_, object) in &all {
        let configs = object["spec"]["spec"]["devices"]["config"].as_array();
        for config in configs.into_iter().flatten() {
            ClaimParameters::read(&config["opaque"]["parameters"]).unwrap();
            seen += 1;
        }
    }
    assert!(seen > 0, "no claim is shown");
}

#[test]
fn the_documentation_reserves_the_slice_that_the_network_is_of() {
    let text = fs::read_to_string(checkout().join("docs/kubernetes.md")).unwrap();
    let network = folder().join("overlays/only-network/05-dtn.conflist");
    let list: Value = serde_json::from_str(&fs::read_to_string(network).unwrap()).unwrap();
    let slice = list["plugins"][0]["slice"].as_str().unwrap();
    let command = format!("\ndtnctl slice reserve {slice} --between ");
    assert!(text.contains(&command), "no line begins with {command:?}");
}

#[test]
fn every_object_is_of_its_kind_and_nothing_in_it_is_lost() {
    let mut problems = Vec::new();
    for (file, object) in objects().into_iter().chain(examples()) {
        let of = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
        let found = match (of("apiVersion").as_str(), of("kind").as_str()) {
            ("v1", "Namespace") => as_kind::<Namespace>(&object),
            ("v1", "Pod") => as_kind::<Pod>(&object),
            ("v1", "ServiceAccount") => as_kind::<ServiceAccount>(&object),
            ("apps/v1", "DaemonSet") => as_kind::<DaemonSet>(&object),
            ("apps/v1", "Deployment") => as_kind::<Deployment>(&object),
            ("policy/v1", "PodDisruptionBudget") => as_kind::<PodDisruptionBudget>(&object),
            ("rbac.authorization.k8s.io/v1", "ClusterRole") => as_kind::<ClusterRole>(&object),
            ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => {
                as_kind::<ClusterRoleBinding>(&object)
            }
            ("rbac.authorization.k8s.io/v1", "Role") => as_kind::<Role>(&object),
            ("rbac.authorization.k8s.io/v1", "RoleBinding") => as_kind::<RoleBinding>(&object),
            ("resource.k8s.io/v1", "ResourceClaimTemplate") => {
                as_kind::<ResourceClaimTemplate>(&object)
            }
            ("resource.k8s.io/v1", "DeviceClass") => as_kind::<DeviceClass>(&object),
            ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy") => {
                as_kind::<ValidatingAdmissionPolicy>(&object)
            }
            ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding") => {
                as_kind::<ValidatingAdmissionPolicyBinding>(&object)
            }
            // Multus' own, and what kustomize reads
            ("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition") => {
                let config = object["spec"]["config"].as_str().unwrap_or_default();
                match serde_json::from_str::<Value>(config) {
                    Ok(config) if config["name"] == object["metadata"]["name"] => Vec::new(),
                    Ok(_) => vec![".spec.config: its name is another one".to_owned()],
                    Err(e) => vec![format!(".spec.config: {e}")],
                }
            }
            ("kustomize.config.k8s.io/v1beta1", "Kustomization") => Vec::new(),
            (version, kind) => vec![format!("{kind} of {version} is known to nobody")],
        };
        let file = file.display();
        problems.extend(
            found
                .into_iter()
                .map(|problem| format!("{file}: {problem}")),
        );
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

fn named(kind: &str, name: &str) -> Value {
    let mut all = objects().into_iter().map(|(_, object)| object);
    all.find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

#[test]
fn the_classes_select_by_the_names_of_the_contract() {
    for (class, nics) in [(DEDICATED_CLASS, "dedicated"), (SHARED_CLASS, "shared")] {
        let class = named("DeviceClass", class);
        assert_eq!(
            class["spec"]["selectors"][0]["cel"]["expression"],
            format!(
                r#"device.driver == "{DRIVER}" && device.attributes["{DRIVER}"].class == "{nics}""#
            )
        );
    }
}

#[test]
fn the_policy_for_claims_knows_every_parameter() {
    let whole: ClaimParameters = serde_json::from_value(json!({
        "apiVersion": PARAMETERS_VERSION, "kind": PARAMETERS_KIND, "slice": "a", "tenant": "a",
        "rate": "1Gbit", "leastRate": "1Gbit", "until": "2030-01-01T00:00:00Z",
        "addresses": ["10.0.0.1"], "mtu": 1500, "streams": 1,
    }))
    .unwrap();
    let Value::Object(fields) = json!(whole) else {
        panic!("an object")
    };
    let policy = named("ValidatingAdmissionPolicy", "dtn-claims");
    let variables = policy["spec"]["variables"].as_array().unwrap();
    let known = variables.iter().find(|v| v["name"] == "known").unwrap();
    let mut known: Vec<String> =
        serde_json::from_str(known["expression"].as_str().unwrap()).unwrap();
    known.sort();
    let mut fields: Vec<String> = fields.keys().cloned().collect();
    fields.sort();
    assert_eq!(known, fields);
}

#[test]
fn images_and_chart_are_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    for (kind, name) in [("DaemonSet", "dtn-node"), ("Deployment", "dtn-cluster")] {
        let image = named(kind, name)["spec"]["template"]["spec"]["containers"][0]["image"].clone();
        assert_eq!(image, format!("localhost/{name}:{version}"));
    }
    let chart = fs::read_to_string(folder().join("chart/Chart.yaml")).unwrap();
    let chart: Value = serde_saphyr::from_str(&chart).unwrap();
    assert_eq!(chart["version"], version);
    assert_eq!(chart["appVersion"], version);
}

#[test]
fn the_network_of_the_overlay_ends_in_the_plugin_for_claims() {
    let path = folder().join("overlays/only-network/05-dtn.conflist");
    let list: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let plugins: Vec<&str> = list["plugins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|plugin| plugin["type"].as_str().unwrap())
        .collect();
    assert_eq!(plugins, ["vdn-macvlan", "vdn-chain"]);
}
