//! `dtnctl` against a real API server, with the rights of an operator: apply, compare, refuse, wait and
//! take down. What scheduler, kubelet and appliance would write is written by the test.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod apiserver;
#[expect(dead_code, reason = "the cluster needs no double of the daemons")]
mod double;

use apiserver::{ApiServer, LONG};
use double::{Ran, run};
use serde_json::{Value, json};
use std::{
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

fn checkout() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// `dtnctl WORDS --engine kubernetes` as a user.
fn words(api: &ApiServer, user: &str, words: &str) -> Vec<String> {
    let mut line: Vec<String> = words.split(' ').map(str::to_owned).collect();
    line.extend(["--engine", "kubernetes", "--kubeconfig"].map(str::to_owned));
    line.push(api.kubeconfig(user));
    if words.starts_with("deploy") {
        line.push("--templates".into());
        line.push(checkout().join("dtn-workloads").display().to_string());
    }
    line
}

fn dtnctl(api: &ApiServer, user: &str, line: &str) -> Ran {
    let line = words(api, user, line);
    run(&line.iter().map(String::as_str).collect::<Vec<_>>(), "")
}

#[track_caller]
fn ends(ran: &Ran, code: i32, says: &[&str]) {
    assert_eq!(ran.code, code, "{}", ran.all());
    let all = format!("{}{}", ran.out, ran.err);
    for says in says {
        assert!(all.contains(says), "{says:?} in {}", ran.all());
    }
}

const DEPLOY: &str = "deploy xrootd --name t1 --nic dedicated --slice lhc";

#[test]
fn a_pod_of_a_cluster_comes_and_goes() {
    let Some(api) = ApiServer::start() else {
        skipped(
            "a_pod_of_a_cluster_comes_and_goes",
            "Kubernetes is not built: tests/kubernetes/make.sh",
        );
        return;
    };
    nothing_is_installed(&api);
    let base = checkout().join("config/kubernetes/base");
    for file in [
        "deviceclasses.yaml",
        "operator-rbac.yaml",
        "claim-policy.yaml",
    ] {
        let file = base.join(file).display().to_string();
        api.kubectl(&["apply", "-f", &file], "");
    }
    api.kubectl(&["create", "namespace", "science"], "");
    api.kubectl(
        &["config", "set-context", "here", "--namespace", "science"],
        "",
    );
    let role = ["--clusterrole=dtn-operator", "--user=operator"];
    api.kubectl(
        &[&["create", "rolebinding", "dtn-operator"][..], &role].concat(),
        "",
    );
    who_may_not_is_told(&api);
    dry_runs_change_nothing(&api);
    it_is_waited_for_until_it_is_ready(&api);
    what_is_there_otherwise_is_refused(&api);
    it_is_taken_down_with_all_that_was_made(&api);
    keys_are_shared_and_never_replaced(&api);
    what_is_hopeless_is_not_waited_for(&api);
    nobody_has_to_wait(&api);
}

fn nothing_is_installed(api: &ApiServer) {
    ends(
        &dtnctl(api, "admin", DEPLOY),
        1,
        &[
            "has no DeviceClass dtn-dedicated",
            &api.url(),
            "kubectl apply -k",
        ],
    );
    ends(
        &dtnctl(api, "dead", "pods"),
        69,
        &["does not answer at https://127.0.0.1"],
    );
    let lost = dtnctl(api, "admin", "pods --context elsewhere");
    ends(
        &lost,
        1,
        &["context elsewhere", "it has the contexts: here"],
    );
}

fn who_may_not_is_told(api: &ApiServer) {
    let denied = dtnctl(api, "nobody", "pods");
    ends(
        &denied,
        1,
        &["cannot list resource", "--clusterrole dtn-operator"],
    );
    let denied = dtnctl(api, "nobody", DEPLOY);
    ends(
        &denied,
        1,
        &["cannot get resource", "--clusterrole dtn-operator"],
    );
    let nowhere = dtnctl(api, "admin", &format!("{DEPLOY} --namespace nowhere"));
    ends(&nowhere, 1, &["kubectl create namespace nowhere"]);
}

fn dry_runs_change_nothing(api: &ApiServer) {
    let dry = dtnctl(api, "operator", &format!("{DEPLOY} --dry-run"));
    // the cluster filled in what nobody asked for
    ends(
        &dry,
        0,
        &[
            "schedulerName: default-scheduler",
            "the cluster takes it",
            "--owner 1094",
        ],
    );
    let local = dtnctl(api, "dead", &format!("{DEPLOY} --dry-run"));
    ends(
        &local,
        0,
        &["kind: ResourceClaimTemplate", "no cluster checked it"],
    );
    assert!(!local.out.contains("schedulerName"), "{}", local.out);
    let diff = dtnctl(api, "operator", &format!("{DEPLOY} --diff"));
    ends(&diff, 1, &["Pod t1: would be made"]);
    ends(&dtnctl(api, "dead", &format!("{DEPLOY} --diff")), 69, &[]);
    ends(&dtnctl(api, "nobody", &format!("{DEPLOY} --diff")), 2, &[]);
    ends(
        &dtnctl(api, "operator", "pods"),
        0,
        &["no pods", "start one"],
    );
    let all = "pods,secrets,resourceclaimtemplates";
    assert_eq!(api.kubectl(&["get", all, "-o", "name"], ""), "");
}

fn condition(kind: &str, holds: bool, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": if holds { "True" } else { "False" }, "reason": reason,
        "message": message, "lastTransitionTime": "2027-01-10T05:00:00Z"})
}

/// The claim that Kubernetes makes for a pod, allocated.
fn claim(api: &ApiServer, pod: &Value, status: &Value) {
    let name = pod["metadata"]["name"].as_str().unwrap();
    let template = api.get("resourceclaimtemplate", name).unwrap();
    let claim = format!("{name}-nic");
    api.create(&json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"name": claim, "namespace": "science",
            "labels": template["spec"]["metadata"]["labels"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": name,
                "uid": pod["metadata"]["uid"]}]},
        "spec": template["spec"]["spec"],
    }));
    let mut device = json!({"driver": "dtn.appliance", "pool": "n1", "device": "eth1"});
    let allocated =
        json!({"request": "nic", "driver": "dtn.appliance", "pool": "n1", "device": "eth1"});
    for (field, value) in status.as_object().unwrap() {
        device[field] = value.clone();
    }
    api.status(
        "resourceclaim",
        &claim,
        &json!({"allocation": {"devices": {"results": [allocated]}}, "devices": [device]}),
    );
}

fn it_is_waited_for_until_it_is_ready(api: &ApiServer) {
    let waits = dtnctl(api, "operator", &format!("{DEPLOY} --timeout 1s"));
    ends(
        &waits,
        1,
        &["not ready after 1 s", "no node yet", "the same command"],
    );
    let why = json!({"conditions": [{"type": "PodScheduled", "status": "False",
        "reason": "Unschedulable", "message": "0/2 nodes: cannot allocate all claims"}]});
    api.status("pod", "t1", &why);
    let waits = dtnctl(api, "operator", &format!("{DEPLOY} --timeout 1s"));
    ends(
        &waits,
        1,
        &["no node yet: 0/2 nodes: cannot allocate all claims"],
    );
    std::thread::scope(|scope| {
        let ready = scope.spawn(|| dtnctl(api, "operator", &format!("{DEPLOY} --timeout 2m")));
        let pod = api.wait_for("pod", "t1");
        claim(
            api,
            &pod,
            &json!({
                "conditions": [condition("Negotiated", true, "Agreed", ""),
                    condition("Prepared", true, "Prepared", ""), condition("Ready", true, "Ready", "")],
                "networkData": {"interfaceName": "data0", "hardwareAddress": "02:00:00:00:00:01",
                    "ips": ["10.64.0.2/24"]},
                "data": {"agreement": {"slice": "lhc", "class": "guaranteed",
                    "sliceId": "01930000-0000-7000-8000-000000000001",
                    "rateBps": 2_000_000_000u64, "endsAt": "2127-01-10T14:00:00Z"}},
            }),
        );
        api.status(
            "pod",
            "t1",
            &json!({"phase": "Running", "conditions": [
            {"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]}),
        );
        let ready = ready.join().unwrap();
        ends(
            &ready,
            0,
            &[
                "running",
                "eth1 (dedicated)",
                "10.64.0.2/24",
                "2Gbit",
                "pods logs t1",
            ],
        );
    });
    // the same again is success, at once
    let again = dtnctl(api, "operator", &format!("{DEPLOY} --json"));
    ends(&again, 0, &[]);
    assert_eq!(again.json()["interfaces"][0]["share_bps"], 2_000_000_000u64);
    ends(
        &dtnctl(api, "operator", &format!("{DEPLOY} --diff")),
        0,
        &["Pod t1: as it is"],
    );
    let list = dtnctl(api, "operator", "pods list --json").json();
    assert_eq!(list["items"][0]["interfaces"][0]["ips"][0], "10.64.0.2/24");
    let all = dtnctl(api, "admin", "pods list --all-namespaces");
    ends(&all, 0, &["NAMESPACE", "science"]);
    let shown = dtnctl(api, "operator", "pods show t1");
    ends(
        &shown,
        0,
        &["negotiated, prepared, ready", "02:00:00:00:00:01"],
    );
    ends(
        &dtnctl(api, "operator", "pods show t9"),
        1,
        &["there is no pod t9", "dtnctl pods --engine"],
    );
    // no kubelet has a log
    ends(
        &dtnctl(api, "operator", "pods logs t1"),
        0,
        &["==> lay-out <==", "==> xrootd <=="],
    );
}

fn what_is_there_otherwise_is_refused(api: &ApiServer) {
    let before = api.get("pod", "t1").unwrap();
    let other = dtnctl(
        api,
        "operator",
        &format!("{DEPLOY} --rate 1Gbit --set port=2094"),
    );
    ends(
        &other,
        1,
        &[
            "was asked for otherwise",
            "parameters.rate: nothing -> 1Gbit",
            "spec.containers[0].ports[0].containerPort: 1094 -> 2094",
            "undeploy t1",
        ],
    );
    let diff = dtnctl(
        api,
        "operator",
        &format!("{DEPLOY} --node n2 --diff --json"),
    );
    ends(&diff, 1, &[]);
    let pod = &diff.json()["changes"][1];
    assert_eq!(
        (&pod["change"], &pod["fields"][0]["path"]),
        (&json!("differs"), &json!("spec.affinity"))
    );
    assert_eq!(
        api.get("pod", "t1").unwrap()["metadata"]["resourceVersion"],
        before["metadata"]["resourceVersion"]
    );
    // a label that somebody else wrote beside is no other request
    api.kubectl(&["label", "pod", "t1", "team=physics"], "");
    ends(
        &dtnctl(api, "operator", &format!("{DEPLOY} --diff")),
        0,
        &[],
    );
    api.create(&json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "theirs", "namespace": "science"},
        "spec": {"containers": [{"name": "a", "image": "b"}]}}));
    let theirs = "deploy iperf3 --name theirs --nic shared";
    ends(
        &dtnctl(api, "operator", theirs),
        1,
        &["dtnctl did not make it"],
    );
    ends(
        &dtnctl(api, "operator", "undeploy theirs"),
        1,
        &["dtnctl did not make pod theirs"],
    );
    assert!(api.get("resourceclaimtemplate", "theirs").is_none());
}

fn it_is_taken_down_with_all_that_was_made(api: &ApiServer) {
    // nobody collects the claim of a pod here
    let late = dtnctl(api, "operator", "undeploy t1 --timeout 2s");
    ends(&late, 1, &["still there after 2 s: claim t1-nic"]);
    assert!(api.get("pod", "t1").is_none());
    std::thread::scope(|scope| {
        let gone = scope.spawn(|| dtnctl(api, "operator", "undeploy t1"));
        api.kubectl(&["delete", "resourceclaim", "t1-nic"], "");
        ends(
            &gone.join().unwrap(),
            0,
            &["the template of its claim is gone", "Secret t1-keys"],
        );
    });
    ends(
        &dtnctl(api, "operator", "undeploy t1"),
        0,
        &["there is no pod t1"],
    );
    for kind in ["resourceclaimtemplate", "secret"] {
        assert_eq!(api.kubectl(&["get", kind, "-o", "name"], ""), "");
    }
}

fn keys_are_shared_and_never_replaced(api: &ApiServer) {
    let key = dtn_workloads::TransferKey::generate(std::time::SystemTime::now()).unwrap();
    let file = api.file("sss.keytab");
    std::fs::write(&file, key.line()).unwrap();
    let with_key = format!("{DEPLOY} --timeout 1s --key {}", file.display());
    ends(&dtnctl(api, "operator", &with_key), 1, &["not ready"]);
    let kept = api.get("secret", "t1-keys").unwrap()["data"].clone();
    ends(
        &dtnctl(api, "operator", &format!("{DEPLOY} --timeout 1s")),
        1,
        &["not ready"],
    );
    assert_eq!(api.get("secret", "t1-keys").unwrap()["data"], kept);
    let other = dtn_workloads::TransferKey::generate(std::time::SystemTime::now()).unwrap();
    std::fs::write(&file, other.line()).unwrap();
    ends(
        &dtnctl(api, "operator", &with_key),
        1,
        &["holds another key than --key"],
    );
    ends(
        &dtnctl(api, "operator", "undeploy t1 --keep-key"),
        0,
        &["pod t1 is gone"],
    );
    assert_eq!(api.get("secret", "t1-keys").unwrap()["data"], kept);
    ends(
        &dtnctl(api, "operator", "undeploy t1"),
        0,
        &["its transfer key is gone"],
    );
}

fn what_is_hopeless_is_not_waited_for(api: &ApiServer) {
    let slip = format!("{DEPLOY} --rate 1Gbit --least-rate 2Gbit");
    ends(
        &dtnctl(api, "operator", &slip),
        1,
        &["parameters.leastRate"],
    );
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| dtnctl(api, "operator", &format!("{DEPLOY} --timeout 2m")));
        let pod = api.wait_for("pod", "t1");
        let refused = condition(
            "Negotiated",
            false,
            "InvalidParameters",
            "/parameters/slice: of another tenant",
        );
        claim(api, &pod, &json!({ "conditions": [refused] }));
        let ended = ended.join().unwrap();
        ends(
            &ended,
            1,
            &["will not be ready", "/parameters/slice: of another tenant"],
        );
    });
    api.kubectl(&["delete", "resourceclaim", "t1-nic"], "");
    ends(
        &dtnctl(api, "operator", "undeploy t1"),
        0,
        &["pod t1 is gone"],
    );
}

fn nobody_has_to_wait(api: &ApiServer) {
    let child = Command::new(env!("CARGO_BIN_EXE_dtnctl"))
        .args(words(
            api,
            "operator",
            "deploy iperf3 --name t2 --nic shared",
        ))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    api.wait_for("pod", "t2");
    let began = Instant::now();
    while !catches_interrupts(child.id()) {
        assert!(began.elapsed() < LONG, "nobody waits for Ctrl-C");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let left = child.wait_with_output().unwrap();
    let told = String::from_utf8(left.stderr).unwrap();
    assert_eq!(left.status.code(), Some(1), "{told}");
    assert!(told.contains("pod t2 is left as it is"), "{told}");
    assert!(api.get("pod", "t2").is_some());
    ends(
        &dtnctl(api, "operator", "undeploy t2"),
        0,
        &["pod t2 is gone"],
    );
}

/// Whether a process has a handler for SIGINT, proc(5): bit 1 of the mask of what is caught.
fn catches_interrupts(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    u64::from_str_radix(mask.unwrap().trim(), 16).unwrap() & 2 != 0
}

fn skipped(test: &str, why: &str) {
    println!("skipped {test}: {why}");
    if let Ok(file) = std::env::var("DTN_SKIPS") {
        let line = format!("dtnctl {test}: {why}\n");
        let mut file = std::fs::File::options().append(true).open(file).unwrap();
        std::io::Write::write_all(&mut file, line.as_bytes()).unwrap();
    }
}
