//! What the cluster's processes are told, and what a machine lacks for them.

#![allow(clippy::unwrap_used, reason = "a test fails with what it could not do")]

use super::{kit::Kit, *};
use crate::cgroups::Hierarchy;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;

/// A folder as make.sh leaves it, with these releases.
fn built(releases: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let lay = |place: String| {
        let file = folder.path().join(place);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "").unwrap();
    };
    for release in releases {
        for program in [
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kubectl",
        ] {
            lay(format!("kubernetes-{release}/{program}"));
        }
    }
    for other in [
        "etcd/etcd",
        "containerd/containerd",
        "containerd/containerd-shim-runc-v2",
        "containerd/ctr",
        "cni/bridge",
        "cni/host-local",
        "cni/loopback",
        "pause.tar",
    ] {
        lay(other.to_owned());
    }
    folder
}

#[test]
fn the_newest_release_is_taken_by_its_numbers() {
    let folder = built(&["1.9.10", "1.37.2", "1.35.4"]);
    let kit = Kit::find(folder.path()).unwrap();
    assert_eq!(kit.version, "1.37.2");
    assert_eq!(
        kit.program("kubelet"),
        folder.path().join("kubernetes-1.37.2/kubelet")
    );
    assert_eq!(kit.program("ctr"), folder.path().join("containerd/ctr"));
    let path = kit.path();
    let first = std::env::split_paths(&path).next().unwrap();
    assert_eq!(first, folder.path().join("containerd"));
}

#[test]
fn what_is_not_built_is_named_with_how_to_build_it() {
    let empty = tempfile::tempdir().unwrap();
    let said = Kit::find(empty.path()).unwrap_err();
    assert!(
        said.contains("no release of Kubernetes") && said.contains("make.sh"),
        "{said}"
    );
    let folder = built(&["1.37.2"]);
    fs::remove_file(folder.path().join("etcd/etcd")).unwrap();
    fs::remove_file(folder.path().join("pause.tar")).unwrap();
    let said = Kit::find(folder.path()).unwrap_err();
    assert!(
        said.contains("etcd/etcd, no ") && said.contains("pause.tar"),
        "{said}"
    );
}

#[test]
fn cgroups_that_a_kubelet_would_miss_are_told_with_the_remedy_of_their_version() {
    let one = |options: &str, kind: &str| Hierarchy {
        mount: "/sys/fs/cgroup".into(),
        kind: kind.into(),
        options: options.into(),
    };
    let all = ["cpu,cpuacct", "cpuset", "memory", "pids"].map(|name| one(name, "cgroup"));
    assert_eq!(kit::cgroups_lack(&all, None), Vec::<String>::new());
    let said = kit::cgroups_lack(&all[..2], None);
    assert!(
        said[0].contains("memory, pids") && said[0].contains("mount them"),
        "{said:?}"
    );

    let unified = [one("", "cgroup2")];
    let given = Some("cpuset cpu io memory pids");
    assert_eq!(kit::cgroups_lack(&unified, given), Vec::<String>::new());
    let said = kit::cgroups_lack(&unified, Some("memory pids"));
    assert!(said[0].contains("'+cpu +cpuset' | sudo tee"), "{said:?}");
}

#[test]
fn clusters_that_are_there_are_refused_with_what_can_be_done() {
    assert_eq!(kit::not_given(&[]), None);
    let said = kit::not_given(&["/a".into(), "/b".into()]).unwrap();
    for word in [
        "--kubeconfig /a,/b",
        "no node",
        "dtnctl domain invite",
        "docs/kubernetes.md",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn everybody_has_a_certificate_and_nobody_else_reads_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("kubernetes");
    let files = pki::make(&place, 1).unwrap();
    for entry in fs::read_dir(&place).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.path());
    }
    assert_eq!(
        fs::metadata(&place).unwrap().permissions().mode() & 0o777,
        0o700
    );
    let node: Value = serde_json::from_slice(&fs::read(&files.node).unwrap()).unwrap();
    let cluster = &node["clusters"][0]["cluster"];
    assert_eq!(cluster["server"], "https://10.254.0.12:6443");
    let ca = STANDARD
        .decode(cluster["certificate-authority-data"].as_str().unwrap())
        .unwrap();
    assert_eq!(ca, fs::read(&files.ca).unwrap());
    // each has its own
    let admin: Value = serde_json::from_slice(&fs::read(&files.admin).unwrap()).unwrap();
    let key = |of: &Value| of["users"][0]["user"]["client-key-data"].clone();
    assert!(key(&node).is_string() && key(&node) != key(&admin));
}

#[test]
fn nobody_unknown_is_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let files = pki::make(folder.path(), 0).unwrap();
    let words = control::apiserver(0, &files);
    for word in [
        "--anonymous-auth=false",
        "--authorization-mode=Node,RBAC",
        "--bind-address=10.254.0.11",
    ] {
        assert!(words.iter().any(|said| said == word), "{word}: {words:?}");
    }
    let kubelet = node::kubelet(0, "daejeon", &files.ca, Path::new("/l"));
    assert_eq!(kubelet["authentication"]["anonymous"]["enabled"], false);
    assert_eq!(kubelet["authorization"]["mode"], "Webhook");
    assert_eq!(kubelet["cgroupRoot"], "/daejeon");
}

#[test]
fn our_plugin_is_the_last_of_the_pods_network_and_knows_the_site() {
    let list = node::conflist(Path::new("/s/sites/busan"));
    let last = list["plugins"].as_array().unwrap().last().unwrap();
    assert_eq!(
        *last,
        json!({"type": "vdn-chain", "stateDir": "/s/sites/busan/var/lib/dtn",
            "runDir": "/s/sites/busan/run/dtn", "socket": "/s/sites/busan/run/dtn/dtnd.sock"})
    );
}

#[test]
fn an_object_is_ready_when_it_says_so() {
    let node = |status: &str| {
        json!({"status": {"conditions": [
            {"type": "MemoryPressure", "status": "True"}, {"type": "Ready", "status": status}]}})
    };
    assert!(ready(&node("True")));
    assert!(!ready(&node("False")) && !ready(&json!({})));
}
