//! A rendered pod as a cluster takes it: its NIC is a ResourceClaimTemplate of the appliance's DRA
//! driver, its transfer key a Secret, its folders are of the node or of a PersistentVolumeClaim.
//!
//! Pure. What differs from a pod of podman, where the supervisor is root on the very machine:
//!
//! * nobody makes folders on the node. The one that is mounted has to be there (`type: Directory`
//!   says so in an event when it is not); what the template wants in it, the pod makes itself, as
//!   its own user, in an init container with the template's `lay_out` program;
//! * the key comes from a Secret, which is mounted readable for its group. xrootd refuses such a
//!   file, so the same init container copies it into memory for this user alone.

use crate::{
    Problem, RenderedPod, Template, TransferKey,
    values::{Declaration, Kind, Value},
};
use dtn_api::{
    IfName,
    cluster::{self, ClaimParameters, attribute},
    nic::NicClass,
};
use k8s_openapi::{
    api::{
        core::v1::{
            Container, EmptyDirVolumeSource, NodeAffinity, NodeSelector, NodeSelectorRequirement,
            NodeSelectorTerm, PersistentVolumeClaimVolumeSource, Pod, PodResourceClaim, PodSpec,
            Secret, SecretVolumeSource, Volume, VolumeMount,
        },
        resource::v1::{
            CELDeviceSelector, CapacityRequirements, DeviceClaim, DeviceClaimConfiguration,
            DeviceRequest, DeviceSelector, ExactDeviceRequest, OpaqueDeviceConfiguration,
            ResourceClaimSpec, ResourceClaimTemplate, ResourceClaimTemplateSpec,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity, apis::meta::v1::ObjectMeta, runtime::RawExtension,
    },
};
use kube::ResourceExt as _;
use std::collections::BTreeMap;

/// Name of the claim in the pod, and of its one request.
pub const CLAIM: &str = "nic";
/// Name of the init container that makes folders and puts keys in place.
pub const LAY_OUT: &str = "lay-out";
/// Label of everything that `dtnctl` made.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "dtnctl");
/// Label of everything that belongs to one pod; the templates set it.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// Where the init container finds the Secret.
const SECRETS: &str = "/run/dtn-secret";
/// Room in memory for keys.
const KEY_ROOM: &str = "1Mi";
/// The driver's own attributes of a device, in a selector.
const OWN: &str = "device.attributes[\"dtn.appliance\"]";

/// What is asked of a cluster besides the template's values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Namespace of everything; the client's own when absent.
    pub namespace: Option<String>,
    /// What the interface shall be; name and slice are the template's.
    pub parameters: ClaimParameters,
    /// The node by name.
    pub node: Option<String>,
    /// The NIC by its name on the host.
    pub device: Option<IfName>,
    /// The NUMA node of the NIC.
    pub numa: Option<u32>,
    /// Whether the NIC has to be a member of the slice already.
    pub member: bool,
    /// PersistentVolumeClaims in the place of folders of the node, by the folder's value.
    pub volumes: BTreeMap<String, String>,
}

/// What a cluster is given, but for the key, which is made where none is.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifests {
    /// The claim that is made for the pod.
    pub claim: ResourceClaimTemplate,
    /// The pod.
    pub pod: Pod,
    /// Name of the Secret with the transfer key and the files in it; `None` when it needs none.
    pub key: Option<(String, Vec<String>)>,
    /// Folders that have to be on the node.
    pub folders: Vec<String>,
    /// Whose they have to be.
    pub uid: Option<i64>,
}

impl Manifests {
    /// The Secret with a transfer key.
    pub fn secret(&self, key: &TransferKey) -> Option<Secret> {
        let (name, files) = self.key.as_ref()?;
        let line = k8s_openapi::ByteString(key.line().into_bytes());
        Some(Secret {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                ..self.claim.metadata.clone()
            },
            data: Some(files.iter().map(|f| (f.clone(), line.clone())).collect()),
            type_: Some("Opaque".into()),
            ..Secret::default()
        })
    }

    /// Both manifests as text for people and for `kubectl apply`.
    pub fn yaml(&self) -> Result<String, serde_saphyr::ser_error::Error> {
        Ok(format!(
            "{}---\n{}",
            serde_saphyr::to_string(&self.claim)?,
            serde_saphyr::to_string(&self.pod)?
        ))
    }
}

/// The rendered pod for a cluster; everything that is wrong is told at once.
pub fn manifests(
    template: &Template,
    rendered: &RenderedPod,
    asked: &Asked,
) -> Result<Manifests, Vec<Problem>> {
    let mut problems = Vec::new();
    let Some(wishes) = rendered.wishes() else {
        return Err(vec![Problem::new("metadata.annotations", "no interface")]);
    };
    let parameters = ClaimParameters {
        interface: wishes.interface,
        slice: wishes.slice,
        streams: asked.parameters.streams.or(streams(&rendered.values)),
        ..asked.parameters.clone()
    };
    let parameters = match judged(&parameters) {
        Ok(parameters) => parameters,
        Err(found) => {
            problems.extend(found);
            parameters
        }
    };
    let selectors = selectors(&parameters, asked).unwrap_or_else(|problem| {
        problems.push(problem);
        Vec::new()
    });

    let mut pod = rendered.pod.clone();
    let name = pod.name_any();
    pod.metadata.namespace.clone_from(&asked.namespace);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    // what is found by it again must not depend on the template
    labels.insert(INSTANCE.to_owned(), name.clone());
    let metadata = ObjectMeta {
        name: Some(name.clone()),
        namespace: asked.namespace.clone(),
        labels: Some(labels.clone()),
        ..ObjectMeta::default()
    };

    let mut folders = Vec::new();
    let mut key = None;
    let mut uid = None;
    if let Some(spec) = &mut pod.spec {
        let claim = PodResourceClaim {
            name: CLAIM.into(),
            resource_claim_template_name: Some(name.clone()),
            ..PodResourceClaim::default()
        };
        spec.resource_claims.get_or_insert_default().push(claim);
        if let Some(node) = &asked.node {
            spec.affinity.get_or_insert_default().node_affinity = Some(only(node));
        }
        let secret = format!("{name}-keys");
        let laid = lay_out(template, rendered, asked, &secret, spec, &mut problems);
        key = (!laid.keys.is_empty()).then_some((secret, laid.keys));
        folders = laid.folders;
        uid = spec.security_context.as_ref().and_then(|s| s.run_as_user);
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let claim = ResourceClaimTemplate {
        spec: ResourceClaimTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: metadata.labels.clone(),
                ..ObjectMeta::default()
            }),
            spec: claim_spec(wishes.nic_class, &parameters, selectors),
        },
        metadata,
    };
    Ok(Manifests {
        claim,
        pod,
        key,
        folders,
        uid,
    })
}

/// The parameters as their reader judges them, with the paths of the fields.
fn judged(parameters: &ClaimParameters) -> Result<ClaimParameters, Vec<Problem>> {
    let written = serde_json::to_value(parameters)
        .map_err(|e| vec![Problem::new("parameters", e.to_string())])?;
    ClaimParameters::read(&written).map_err(|problem| {
        let path = |pointer: &str| pointer.trim_start_matches('/').replace('/', ".");
        let all = problem.errors.iter();
        all.map(|e| Problem::new(path(&e.pointer), e.detail.clone()))
            .collect()
    })
}

/// Streams are a value of the templates that have them: what buffers are sized for.
fn streams(values: &BTreeMap<String, Value>) -> Option<u32> {
    match values.get("streams") {
        Some(Value::Number(streams)) => u32::try_from(*streams).ok(),
        _ => None,
    }
}

/// What a NIC has to be. An attribute that a NIC does not have is no error of the expression, which
/// would keep the scheduler from all other NICs.
fn selectors(parameters: &ClaimParameters, asked: &Asked) -> Result<Vec<DeviceSelector>, Problem> {
    let mut expressions = Vec::new();
    if let Some(device) = &asked.device {
        // a name of an interface may hold a quote
        let device = serde_json::Value::from(device.as_str());
        let name = attribute::IFNAME;
        expressions.push(format!("{OWN}.{name} == {device}"));
    }
    if let Some(numa) = asked.numa {
        let name = attribute::NUMA_NODE;
        expressions.push(format!("\"{name}\" in {OWN} && {OWN}.{name} == {numa}"));
    }
    if asked.member {
        let attribute = parameters.slice.as_ref().and_then(cluster::slice_attribute);
        let Some(attribute) = attribute else {
            let why = match &parameters.slice {
                Some(slice) => format!(
                    "the name of slice {slice} is longer than an attribute of a NIC can be: leave it out"
                ),
                None => "a NIC is a member of a slice: name the slice".to_owned(),
            };
            return Err(Problem::new("member", why));
        };
        let domain = attribute::SLICES;
        expressions.push(format!(
            "\"{attribute}\" in device.attributes[\"{domain}\"]"
        ));
    }
    let selector = |expression| DeviceSelector {
        cel: Some(CELDeviceSelector { expression }),
    };
    Ok(expressions.into_iter().map(selector).collect())
}

fn claim_spec(
    class: NicClass,
    parameters: &ClaimParameters,
    selectors: Vec<DeviceSelector>,
) -> ResourceClaimSpec {
    let device_class_name = match class {
        NicClass::Dedicated => cluster::DEDICATED_CLASS,
        NicClass::Shared => cluster::SHARED_CLASS,
    };
    // a dedicated NIC is one pod's whole; of a shared one the scheduler counts what is left
    let capacity = parameters
        .rate
        .filter(|_| class == NicClass::Shared)
        .map(|rate| {
            let wanted = Quantity(rate.bps().to_string());
            let requests = BTreeMap::from([(attribute::BANDWIDTH.to_owned(), wanted)]);
            CapacityRequirements {
                requests: Some(requests),
            }
        });
    let request = DeviceRequest {
        name: CLAIM.into(),
        exactly: Some(ExactDeviceRequest {
            device_class_name: device_class_name.into(),
            allocation_mode: Some("ExactCount".into()),
            count: Some(1),
            capacity,
            selectors: (!selectors.is_empty()).then_some(selectors),
            ..ExactDeviceRequest::default()
        }),
        ..DeviceRequest::default()
    };
    let config = DeviceClaimConfiguration {
        requests: Some(vec![CLAIM.into()]),
        opaque: Some(OpaqueDeviceConfiguration {
            driver: cluster::DRIVER.into(),
            parameters: RawExtension(serde_json::json!(parameters)),
        }),
    };
    ResourceClaimSpec {
        devices: Some(DeviceClaim {
            requests: Some(vec![request]),
            config: Some(vec![config]),
            ..DeviceClaim::default()
        }),
    }
}

/// This node and no other. By the name of the node, not by its label `kubernetes.io/hostname`,
/// which may differ from it.
fn only(node: &str) -> NodeAffinity {
    let name = NodeSelectorRequirement {
        key: "metadata.name".into(),
        operator: "In".into(),
        values: Some(vec![node.to_owned()]),
    };
    NodeAffinity {
        required_during_scheduling_ignored_during_execution: Some(NodeSelector {
            node_selector_terms: vec![NodeSelectorTerm {
                match_fields: Some(vec![name]),
                ..NodeSelectorTerm::default()
            }],
        }),
        ..NodeAffinity::default()
    }
}

/// What became of the template's folders.
#[derive(Debug, Default)]
struct LaidOut {
    folders: Vec<String>,
    keys: Vec<String>,
}

fn lay_out(
    template: &Template,
    rendered: &RenderedPod,
    asked: &Asked,
    secret: &str,
    spec: &mut PodSpec,
    problems: &mut Vec<Problem>,
) -> LaidOut {
    let mut laid = LaidOut::default();
    let declared = &template.declarations;
    for name in asked.volumes.keys() {
        if declared.values.get(name).map(|d| d.kind) != Some(Kind::Folder) {
            let why = "the template has no such folder";
            problems.push(Problem::new(format!("volumes.{name}"), why));
        }
    }
    let mut arguments = Vec::new();
    let mut mounts = Vec::new();
    let mut like: Option<Container> = None;
    let mut secrets = Vec::new();
    for volume in spec.volumes.iter_mut().flatten() {
        let Some((value, declaration)) = folder_of(declared.values.iter(), rendered, volume) else {
            laid.folders
                .extend(volume.host_path.iter().map(|h| h.path.clone()));
            continue;
        };
        let mounted = mount_of(&spec.containers, &volume.name);
        if let Some(key) = &declaration.transfer_key {
            let from = format!("{}-secret", volume.name);
            volume.host_path = None;
            volume.empty_dir = Some(EmptyDirVolumeSource {
                medium: Some("Memory".into()),
                size_limit: Some(Quantity(KEY_ROOM.into())),
            });
            secrets.push(secret_volume(&from, secret, key));
            laid.keys.push(key.clone());
            if let Some((_, at)) = &mounted {
                let to = at.trim_end_matches('/');
                arguments.push("--key".to_owned());
                arguments.push(format!("{SECRETS}/{from}/{key}={to}/{key}"));
                mounts.push(mount(&from, &format!("{SECRETS}/{from}"), true));
            }
        } else if let Some(claim) = asked.volumes.get(value) {
            volume.host_path = None;
            volume.persistent_volume_claim = Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.clone(),
                read_only: None,
            });
        } else {
            laid.folders
                .extend(volume.host_path.iter().map(|h| h.path.clone()));
        }
        if let Some((container, at)) = mounted {
            let at = at.trim_end_matches('/');
            for inside in &declaration.make {
                arguments.push("--folder".to_owned());
                arguments.push(format!("{at}/{inside}"));
            }
            if !declaration.make.is_empty() || declaration.transfer_key.is_some() {
                mounts.push(mount(&volume.name, at, false));
                like.get_or_insert_with(|| container.clone());
            }
        }
    }
    let Some(like) = like else {
        return laid;
    };
    if declared.lay_out.is_empty() {
        problems.push(Problem::new(
            "lay_out",
            "the template has folders or a key to make, and names no program of its image that \
             does it in Kubernetes: write lay_out = [\"/usr/bin/dtn-mover\", \"lay-out\"] into values.toml",
        ));
        return laid;
    }
    spec.volumes.get_or_insert_default().extend(secrets);
    let security = spec.security_context.get_or_insert_default();
    // volumes are made this group's: the pod's user could not write to them otherwise
    security.fs_group = security.fs_group.or(security.run_as_group);
    let init = Container {
        name: LAY_OUT.into(),
        command: Some(declared.lay_out.clone()),
        args: Some(arguments),
        volume_mounts: Some(mounts),
        image: like.image,
        image_pull_policy: like.image_pull_policy,
        resources: like.resources,
        security_context: like.security_context,
        ..Container::default()
    };
    spec.init_containers.get_or_insert_default().insert(0, init);
    laid
}

/// The declared folder that a volume is, by its path.
fn folder_of<'a>(
    mut declared: impl Iterator<Item = (&'a String, &'a Declaration)>,
    rendered: &RenderedPod,
    volume: &Volume,
) -> Option<(&'a String, &'a Declaration)> {
    let path = &volume.host_path.as_ref()?.path;
    declared.find(|(name, declaration)| {
        declaration.kind == Kind::Folder
            && rendered.values.get(*name) == Some(&Value::Text(path.clone()))
    })
}

/// The first container that mounts a volume, and where.
fn mount_of<'a>(containers: &'a [Container], volume: &str) -> Option<(&'a Container, String)> {
    containers.iter().find_map(|container| {
        let mut mounts = container.volume_mounts.iter().flatten();
        let found = mounts.find(|m| m.name == volume)?;
        Some((container, found.mount_path.clone()))
    })
}

fn mount(volume: &str, at: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: at.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn secret_volume(name: &str, secret: &str, file: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            // the group's: the kubelet gives it to fsGroup
            default_mode: Some(0o440),
            items: Some(vec![k8s_openapi::api::core::v1::KeyToPath {
                key: file.to_owned(),
                path: file.to_owned(),
                mode: None,
            }]),
            optional: None,
        }),
        ..Volume::default()
    }
}
