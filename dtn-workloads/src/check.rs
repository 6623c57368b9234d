//! Whether a pod may run on a node of the appliance. Stricter than the *restricted* level of the
//! Pod Security Standards: no added capability at all, a read-only root, a memory limit.

use crate::{PREFIX, Problem, rendered};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};
use kube::ResourceExt as _;
use serde_json::Value;

/// Folders of the host that no pod mounts, nor anything in them, nor what they are in.
const FORBIDDEN: [&str; 14] = [
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var/lib/containers",
    "/var/run",
];

/// The annotations that mean something; another one with our prefix is a slip of the pen.
const KNOWN: [&str; 4] = [
    crate::INTERFACE,
    crate::NIC_CLASS,
    crate::SLICE,
    crate::TEMPLATE,
];

/// Everything that keeps this pod from running; nothing when it may.
pub fn check(pod: &Pod) -> Vec<Problem> {
    let mut problems = Vec::new();
    for key in pod.annotations().keys() {
        if key.starts_with(PREFIX) && !KNOWN.contains(&key.as_str()) {
            let why = format!("annotation {key} is not known; {} are", KNOWN.join(", "));
            problems.push(Problem::new("metadata.annotations", why));
        }
    }
    if let Err((key, why)) = rendered::wishes(pod) {
        problems.push(Problem::new(
            "metadata.annotations",
            format!("annotation {key}: {why}"),
        ));
    }
    let Some(spec) = &pod.spec else {
        problems.push(Problem::new("spec", "it is missing"));
        return problems;
    };
    check_spec(spec, &mut problems);
    problems
}

fn check_spec(spec: &PodSpec, problems: &mut Vec<Problem>) {
    let mut no = |path: &str, why: &str| problems.push(Problem::new(format!("spec.{path}"), why));
    let host = [
        ("hostNetwork", spec.host_network),
        ("hostPID", spec.host_pid),
        ("hostIPC", spec.host_ipc),
    ];
    for (field, set) in host {
        if set == Some(true) {
            no(field, "a pod has namespaces of its own; leave it out");
        }
    }
    if spec.automount_service_account_token != Some(false) {
        no(
            "automountServiceAccountToken",
            "set it to false: no pod here talks to Kubernetes",
        );
    }
    if spec.containers.is_empty() {
        no("containers", "there is none");
    }
    if spec.ephemeral_containers.is_some() {
        no("ephemeralContainers", "leave them out");
    }
    let init = spec.init_containers.iter().flatten().enumerate();
    for (index, container) in init {
        check_container(
            spec,
            container,
            &format!("spec.initContainers[{index}]"),
            problems,
        );
    }
    for (index, container) in spec.containers.iter().enumerate() {
        check_container(
            spec,
            container,
            &format!("spec.containers[{index}]"),
            problems,
        );
    }
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        check_volume(volume, &format!("spec.volumes[{index}]"), problems);
    }
}

fn check_container(spec: &PodSpec, container: &Container, at: &str, problems: &mut Vec<Problem>) {
    let mut no = |path: &str, why: &str| problems.push(Problem::new(format!("{at}.{path}"), why));
    let pod = spec.security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    // the container's word goes over the pod's
    if own.run_as_non_root.or(pod.run_as_non_root) != Some(true) {
        no("securityContext.runAsNonRoot", "set it to true");
    }
    match own.run_as_user.or(pod.run_as_user) {
        None => no(
            "securityContext.runAsUser",
            "name a user ID: an image's own user is not known beforehand",
        ),
        Some(0) => no(
            "securityContext.runAsUser",
            "0 is root; name another user ID",
        ),
        Some(_) => {}
    }
    if own
        .run_as_group
        .or(pod.run_as_group)
        .is_none_or(|group| group == 0)
    {
        no(
            "securityContext.runAsGroup",
            "name a group ID that is not root's",
        );
    }
    if own.privileged == Some(true) {
        no("securityContext.privileged", "leave it out");
    }
    if own.allow_privilege_escalation != Some(false) {
        no(
            "securityContext.allowPrivilegeEscalation",
            "set it to false",
        );
    }
    if own.read_only_root_filesystem != Some(true) {
        no(
            "securityContext.readOnlyRootFilesystem",
            "set it to true, and mount what has to be written",
        );
    }
    let capabilities = own.capabilities.unwrap_or_default();
    if !capabilities
        .drop
        .iter()
        .flatten()
        .any(|capability| capability == "ALL")
    {
        no(
            "securityContext.capabilities.drop",
            "drop ALL: addresses, rates and filters are set from outside",
        );
    }
    if capabilities.add.iter().flatten().next().is_some() {
        no(
            "securityContext.capabilities.add",
            "no capability can be had; serve a port above 1023",
        );
    }
    match own.seccomp_profile.or(pod.seccomp_profile) {
        Some(profile) if profile.type_ == "RuntimeDefault" || profile.type_ == "Localhost" => {}
        _ => no(
            "securityContext.seccompProfile",
            "set its type to RuntimeDefault",
        ),
    }
    let limits = container
        .resources
        .as_ref()
        .and_then(|resources| resources.limits.as_ref());
    if limits.is_none_or(|limits| !limits.contains_key("memory")) {
        no(
            "resources.limits.memory",
            "set it: streams x 2 x buffer, and what the programs need",
        );
    }
    if container.image.as_deref().unwrap_or("").is_empty() {
        no("image", "name one");
    }
    let local = container
        .image
        .as_deref()
        .is_some_and(|image| image.starts_with("localhost/"));
    if local && container.image_pull_policy.as_deref() != Some("Never") {
        no(
            "imagePullPolicy",
            "a local image cannot be pulled: set it to Never",
        );
    }
    for (index, port) in container.ports.iter().flatten().enumerate() {
        if port.host_port.is_some() || port.host_ip.is_some() {
            no(
                &format!("ports[{index}].hostPort"),
                "the pod has a NIC of its own; leave it out",
            );
        }
        if !(1024..=65535).contains(&port.container_port) {
            no(
                &format!("ports[{index}].containerPort"),
                "1024 to 65535: below that it takes a capability",
            );
        }
    }
}

fn check_volume(volume: &Volume, at: &str, problems: &mut Vec<Problem>) {
    if volume.empty_dir.is_some() {
        // podman 4.3 names the volume as the pod does, for all pods, and leaves it behind
        let why = "podman makes of it a volume on the disk that pods share and nobody removes; write to /dev/shm, or to a folder of the pod's data";
        problems.push(Problem::new(format!("{at}.emptyDir"), why));
        return;
    }
    let Some(host) = &volume.host_path else {
        let known = [
            volume.config_map.is_some(),
            volume.secret.is_some(),
            volume.persistent_volume_claim.is_some(),
            volume.projected.is_some(),
        ];
        if !known.contains(&true) {
            let why =
                "only hostPath, configMap, secret, projected and persistentVolumeClaim can be had";
            problems.push(Problem::new(at, why));
        }
        return;
    };
    let path = host.path.trim_end_matches('/');
    let below = |path: &str, folder: &str| {
        path.strip_prefix(folder)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let dotted = path
        .split('/')
        .skip(1)
        .any(|part| matches!(part, "" | "." | ".."));
    if !path.starts_with('/') || dotted {
        problems.push(Problem::new(
            format!("{at}.hostPath.path"),
            "it has to be an absolute path of a folder, without . and ..",
        ));
    } else if let Some(folder) = FORBIDDEN
        .iter()
        .find(|folder| below(path, folder) || below(folder, path))
    {
        let why =
            format!("{folder} is the host's own, and no pod mounts it; choose a folder for data");
        problems.push(Problem::new(format!("{at}.hostPath.path"), why));
    }
    // what is not there shall be an error, not a folder of root's
    if !matches!(host.type_.as_deref(), Some("Directory" | "File")) {
        problems.push(Problem::new(
            format!("{at}.hostPath.type"),
            "set it to Directory or File",
        ));
    }
}

/// Fields of the text that no Kubernetes v1 Pod has: a slip of the pen that would be ignored.
pub(crate) fn unknown_fields(
    written: &Value,
    understood: &Value,
    at: &str,
    problems: &mut Vec<Problem>,
) {
    match (written, understood) {
        (Value::Object(written), Value::Object(understood)) => {
            for (key, value) in written.iter().filter(|(_, value)| !value.is_null()) {
                let path = if at.is_empty() {
                    key.clone()
                } else {
                    format!("{at}.{key}")
                };
                match understood.get(key) {
                    Some(other) => unknown_fields(value, other, &path, problems),
                    None => problems.push(Problem::new(
                        path,
                        "a Pod has no such field; is it spelled right?",
                    )),
                }
            }
        }
        (Value::Array(written), Value::Array(understood)) => {
            for (index, (value, other)) in written.iter().zip(understood).enumerate() {
                unknown_fields(value, other, &format!("{at}[{index}]"), problems);
            }
        }
        _ => {}
    }
}
