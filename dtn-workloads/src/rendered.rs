//! A pod that is rendered and checked: what `dtnd` reads from it, and how it is handed on.

use crate::{INTERFACE, NIC_CLASS, SLICE, values::Value};
use dtn_api::{IfName, Name, nic::NicClass};
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt as _;
use std::collections::{BTreeMap, BTreeSet};

/// A pod that may run.
#[derive(Debug, Clone)]
pub struct RenderedPod {
    /// The pod.
    pub pod: Pod,
    /// Every value that it was rendered with.
    pub values: BTreeMap<String, Value>,
}

/// What the pod wants of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wishes {
    /// Name of the interface in the pod.
    pub interface: IfName,
    /// Class of NIC.
    pub nic_class: NicClass,
    /// Slice; without one it is best effort.
    pub slice: Option<Name>,
}

/// A port that the pod serves on its data interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Number.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
}

impl RenderedPod {
    pub(crate) fn new(pod: Pod, values: BTreeMap<String, Value>) -> Self {
        Self { pod, values }
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.pod.name_any()
    }

    /// The names that podman gives its containers.
    pub fn container_names(&self) -> Vec<String> {
        let name = self.name();
        self.containers()
            .map(|container| format!("{name}-{}", container.name))
            .collect()
    }

    /// What it wants of the network, from its annotations; `check` has passed them.
    pub fn wishes(&self) -> Option<Wishes> {
        wishes(&self.pod).ok()
    }

    /// The ports that it serves: what a filter on its interface lets in.
    pub fn ports(&self) -> BTreeSet<Port> {
        self.containers()
            .flat_map(|container| container.ports.iter().flatten())
            .filter_map(|port| {
                Some(Port {
                    port: u16::try_from(port.container_port).ok()?,
                    protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                })
            })
            .collect()
    }

    /// For Kubernetes.
    pub fn yaml(&self) -> Result<String, serde_saphyr::ser_error::Error> {
        serde_saphyr::to_string(&self.pod)
    }

    /// For `podman play kube --network none`, 4.3 and later: without ports, which podman would map
    /// and cannot without a network of its own ("PortMappings can only be used with Bridge").
    pub fn podman_yaml(&self) -> Result<String, serde_saphyr::ser_error::Error> {
        let mut pod = self.pod.clone();
        for container in pod.spec.iter_mut().flat_map(|spec| &mut spec.containers) {
            container.ports = None;
        }
        serde_saphyr::to_string(&pod)
    }

    fn containers(&self) -> impl Iterator<Item = &Container> {
        self.pod.spec.iter().flat_map(|spec| &spec.containers)
    }
}

/// Reads the annotations; the error is the annotation and what is wrong with it.
pub(crate) fn wishes(pod: &Pod) -> Result<Wishes, (&'static str, String)> {
    let annotations = pod.annotations();
    let get = |key: &'static str| {
        annotations
            .get(key)
            .ok_or((key, "it is missing".to_owned()))
    };
    let interface = get(INTERFACE)?
        .parse::<IfName>()
        .map_err(|e| (INTERFACE, e.to_string()))?;
    let class = get(NIC_CLASS)?;
    let nic_class =
        serde_json::from_value(serde_json::Value::String(class.clone())).map_err(|_| {
            (
                NIC_CLASS,
                format!("{class:?} is neither dedicated nor shared"),
            )
        })?;
    let slice = annotations.get(SLICE).map(|slice| slice.parse::<Name>());
    let slice = slice.transpose().map_err(|e| (SLICE, e.to_string()))?;
    Ok(Wishes {
        interface,
        nic_class,
        slice,
    })
}
