//! `dtnctl` against the contracts on their sockets, spoken by a labelled double: what is asked of
//! whom, what is shown, and how it ends.

mod double;

use double::{Double, problem, run};
use dtn_api::{
    client::{decode_invitation, encode_invitation},
    domain::Invitation,
};
use serde_json::{Value, json};

const ID: &str = "01930000-0000-7000-8000-000000000001";

fn status(ready: bool) -> Value {
    json!({
        "host": "dtn1", "domain": "daejeon", "version": "0.1.0",
        "started_at": "2020-01-01T00:00:00Z", "ready": ready,
        "checks": [
            {"name": "controller", "ok": true, "detail": "https://192.0.2.1:7443"},
            {"name": "podman", "ok": ready, "detail": "no socket: start podman.socket"},
        ],
        "counts": {"nics": 1, "slices": 0}, "next": "reserve a slice",
    })
}

fn negotiation(state: &str) -> Value {
    json!({
        "id": ID,
        "ask": {
            "name": "lhc", "class": "guaranteed", "rate": "2Gbit", "duration": "2h",
            "nic_class": "dedicated", "remote": {"domain": "busan"},
        },
        "state": state, "reason": "2Gbit do not fit",
        "offer": {
            "rate": "950Mbit", "start": "2020-01-01T00:00:00Z", "end": "2020-01-01T02:00:00Z",
            "limited_by": "busan:wan",
        },
    })
}

fn slice() -> Value {
    json!({
        "slice": {
            "id": ID,
            "spec": {
                "name": "lhc", "qos": {"class": "guaranteed", "rate_bps": 950_000_000},
                "members": [],
                "schedule": {"start": "2020-01-01T00:00:00Z", "end": "2020-01-01T02:00:00Z"},
                "addressing": {"ipv4": {"cidr": "10.64.0.0/24"}, "mtu": 9000},
            },
            "status": {
                "reservation": "committed", "provision": "provisioned", "lifecycle": "created",
                "data_plane": "active", "generation": 1, "observed_generation": 1,
            },
            "version": 1, "created_at": "2020-01-01T00:00:00Z",
        },
        "ceiling": "943044153bit", "paced": [],
    })
}

fn pod(phase: &str) -> Value {
    json!({
        "name": "mover", "uid": "3f9c", "template": "xrootd", "phase": phase,
        "interfaces": [], "containers": {}, "netns": "/run/dtn/netns/3f9c",
        "created_at": "2020-01-01T00:00:00Z", "message": "image is not there",
    })
}

fn invitation(kind: &str) -> Value {
    json!({
        "kind": kind, "domain": "daejeon", "name": "busan", "url": "https://192.0.2.1:7443",
        "ca_pin": "ab", "secret": "very-secret", "expires_at": "2100-01-01T00:00:00Z",
    })
}

#[test]
fn json_is_what_the_daemon_answered_and_stderr_is_quiet() {
    let double = Double::one("GET /dtn/v1/status", 200, status(true));
    let ran = double.run(&["--json", "status"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(ran.json(), status(true));
    let ran = double.run(&["status"]);
    assert!(
        ran.out.contains("dtn1") && ran.out.contains("daejeon"),
        "{ran:?}"
    );
    assert_eq!(ran.err, "next: reserve a slice\n");
}

#[test]
fn a_host_that_is_not_ready_fails_the_check_only_when_it_is_asked_for() {
    let double = Double::one("GET /dtn/v1/status", 200, status(false));
    let ran = double.run(&["status"]);
    assert_eq!(ran.code, 0);
    assert!(ran.out.contains("no: 1 failing check below"), "{ran:?}");
    let ran = double.run(&["status", "--check"]);
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.err,
        "dtnctl: host dtn1 is not ready: podman\nnext: reserve a slice\n"
    );
}

#[test]
fn plurals_ask_the_supervisor_and_the_domain_asks_the_controller() {
    let double = Double::new(|_, _| Some((200, json!({"items": []}))));
    for (words, line) in [
        (&["nics"][..], "GET /dtn/v1/nics"),
        (&["slices"], "GET /dtn/v1/slices"),
        (&["leases"], "GET /dtn/v1/leases"),
        (&["pods"], "GET /dtn/v1/pods"),
        (&["lease", "list", "--domain"], "GET /vdn/v1/leases"),
        (&["domains"], "GET /vdn/v1/domains"),
        (&["hosts"], "GET /vdn/v1/hosts"),
    ] {
        let ran = double.run(words);
        assert_eq!(ran.code, 0, "{words:?}: {ran:?}");
        // hosts are asked for with their certificates
        let calls = double.calls();
        let asked = calls
            .iter()
            .rev()
            .find(|call| !call.line.ends_with("/nodes"));
        assert_eq!(asked.unwrap().line, line);
        assert!(ran.out.starts_with("no "), "{words:?}: {ran:?}");
        let ran = double.run(&[&["--json"], words].concat());
        assert_eq!(ran.json(), json!({"items": []}));
    }
}

#[test]
fn every_page_of_a_list_is_asked_for() {
    let double = Double::new(|line, _| match line {
        "GET /vdn/v1/hosts" => Some((200, json!({"items": [1], "next_page_token": "a/b"}))),
        "GET /vdn/v1/hosts?limit=1000&page_token=a%2Fb" => Some((200, json!({"items": [2]}))),
        _ => None,
    });
    assert_eq!(
        double.run(&["--json", "hosts"]).json(),
        json!({"items": [1, 2]})
    );
}

#[test]
fn a_site_of_the_lab_is_a_root_in_its_state() {
    let double = Double::one("GET /dtn/v1/nics", 200, json!([]));
    let state = tempfile::tempdir().unwrap();
    std::fs::create_dir(state.path().join("sites")).unwrap();
    let site = state.path().join("sites/daejeon");
    std::os::unix::fs::symlink(double.root(), site).unwrap();
    let state = state.path().to_str().unwrap();
    let ran = run(&["--site", "daejeon", "--state", state, "nics"], "");
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = run(&["--site", "seoul", "--state", state, "nics"], "");
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.contains("no site \"seoul\": it has daejeon"),
        "{ran:?}"
    );
}

#[test]
fn nobody_there_is_69_with_the_way_to_start_it() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().to_str().unwrap();
    let ran = run(&["--root", path, "nics"], "");
    assert_eq!((ran.code, ran.out.as_str()), (69, ""));
    assert!(ran.err.contains("dtnd is not running"), "{ran:?}");
    assert!(
        ran.err
            .contains(&format!("next: start it: sudo dtnd --root {path}")),
        "{ran:?}"
    );
    // a socket that was left by a daemon that was killed
    let folder = root.path().join("run/dtn");
    std::fs::create_dir_all(&folder).unwrap();
    drop(std::os::unix::net::UnixListener::bind(folder.join("dtnd.sock")).unwrap());
    let ran = run(&["--root", path, "nics"], "");
    assert_eq!(ran.code, 69);
    assert!(ran.err.contains("nobody listens"), "{ran:?}");
    let ran = run(&["--site", "daejeon", "--state", path, "nics"], "");
    assert_eq!(ran.code, 69);
    assert!(ran.err.contains("sudo dtnctl lab up --state"), "{ran:?}");
}

#[test]
fn a_daemon_that_hangs_up_is_69_too() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("run/dtn");
    std::fs::create_dir_all(&folder).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(folder.join("dtnd.sock")).unwrap();
    // the first is the try of the socket, the second the call
    let thread = std::thread::spawn(move || (0..2).for_each(|_| drop(listener.accept())));
    let ran = run(&["--root", root.path().to_str().unwrap(), "nics"], "");
    thread.join().unwrap();
    assert_eq!(ran.code, 69, "{ran:?}");
    assert!(ran.err.contains("no answer"), "{ran:?}");
}

#[test]
fn a_reservation_is_followed_and_the_slice_read_back() {
    let double = Double::new(|line, before| {
        let state = ["asking", "holding", "committing", "agreed"];
        match line {
            "POST /dtn/v1/slices" => Some((202, negotiation("asking"))),
            "GET /dtn/v1/slices/lhc" => Some((200, slice())),
            _ if line.starts_with("GET /dtn/v1/negotiations/") => {
                Some((200, negotiation(state[(before + 1).min(3)])))
            }
            _ => None,
        }
    });
    let ran = double.run(&[
        "slice",
        "reserve",
        "lhc",
        "--rate",
        "2Gbit",
        "--min-rate",
        "100Mbit",
        "--for",
        "2h",
        "--to",
        "busan",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let ask = &double.calls()[0].body;
    assert_eq!(ask["min_rate"], "100Mbit");
    assert_eq!(ask["remote"]["domain"], "busan");
    insta::assert_snapshot!("reserve_agreed", times_out(&ran.all()));
    let ran = double.run(&["--json", "slice", "reserve", "lhc", "--to", "busan"]);
    assert_eq!(ran.json()["state"], "agreed");
}

#[test]
fn a_refusal_shows_the_number_and_the_command() {
    let double = Double::one("POST /dtn/v1/slices", 200, negotiation("refused"));
    let words = [
        "slice", "reserve", "lhc", "--rate", "2Gbit", "--for", "2h", "--to", "busan",
    ];
    let ran = double.run(&words);
    assert_eq!(ran.code, 1);
    insta::assert_snapshot!("reserve_refused", times_out(&ran.all()));
    let ran = double.run(&[&["--json"], &words[..]].concat());
    assert_eq!((ran.code, ran.json()), (1, negotiation("refused")));
    // the same as a problem document
    let (code, mut document) =
        problem("insufficient-bandwidth", 409, "busan:wan has 950 Mb/s left");
    document["errors"] = json!([{"detail": "too much", "available_bps": 950_000_000}]);
    let double = Double::one("POST /dtn/v1/slices", code, document);
    let ran = double.run(&words);
    assert_eq!(ran.code, 1);
    insta::assert_snapshot!("reserve_problem", ran.all());
}

/// `(7y ago)` changes while the instant beside it does not.
fn times_out(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("Z (") {
        let (_, after) = after.split_once(')').unwrap_or(("", after));
        kept.push_str(before);
        kept.push('Z');
        rest = after;
    }
    kept + rest
}

#[test]
fn releasing_and_taking_down_twice_is_success() {
    let double = Double::new(|line, before| match (line, before) {
        ("DELETE /dtn/v1/slices/lhc" | "DELETE /dtn/v1/pods/mover", 0) => Some((204, Value::Null)),
        // it takes a while to go
        ("GET /dtn/v1/pods/mover", 0) => Some((200, pod("removing"))),
        _ => None,
    });
    for words in [&["slice", "release", "lhc"][..], &["undeploy", "mover"]] {
        let ran = double.run(words);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(
            ran.out.contains("is released") || ran.out.contains("is gone"),
            "{ran:?}"
        );
        let ran = double.run(words);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.out.contains("nothing was left"), "{ran:?}");
    }
}

#[test]
fn a_pod_is_followed_until_it_runs_or_fails() {
    let double = Double::new(|line, before| match (line, before) {
        ("POST /dtn/v1/pods", 0) => Some((202, pod("preparing"))),
        ("GET /dtn/v1/pods/mover", 0) => Some((200, pod("attaching"))),
        ("GET /dtn/v1/pods/mover", _) => Some((200, pod("running"))),
        ("POST /dtn/v1/pods", _) => Some((200, pod("failed"))),
        _ => None,
    });
    let words = [
        "deploy",
        "xrootd",
        "--name",
        "mover",
        "--slice",
        "lhc",
        "--nic",
        "dedicated",
        "--set",
        "streams=4",
        "--set",
        "args=a=b",
    ];
    let ran = double.run(&words);
    assert_eq!(ran.code, 0, "{ran:?}");
    let body = &double.calls()[0].body;
    assert_eq!(body["values"], json!({"streams": "4", "args": "a=b"}));
    assert_eq!(body["nic_class"], "dedicated");
    let ran = double.run(&words);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.err.contains("pod mover is FAILED: image is not there"),
        "{ran:?}"
    );
    assert!(ran.err.contains("next: read its log"), "{ran:?}");
}

#[test]
fn an_unknown_name_says_where_the_names_are() {
    let double = Double::new(|_, _| None);
    for (words, says) in [
        (["slice", "show", "x"], "--root ROOT slice list"),
        (["pods", "show", "x"], "--root ROOT pods"),
        (["pods", "logs", "x"], "--root ROOT pods"),
        (["domain", "show", "x"], "--root ROOT domain list"),
    ] {
        let ran = double.run(&words);
        assert_eq!(ran.code, 1);
        assert!(ran.err.contains(says), "{ran:?}");
    }
}

#[test]
fn an_invitation_goes_through_a_pipe() {
    let double = Double::new(|line, before| match line {
        "POST /vdn/v1/invitations" if before == 0 => Some((201, invitation("domain"))),
        "POST /vdn/v1/invitations" => Some((201, invitation("host"))),
        "POST /vdn/v1/domains" => Some((
            201,
            json!({
                "name": "daejeon", "url": "https://192.0.2.1:7443", "ca_pin": "ab",
                "state": "up", "heard_at": null, "document": null, "version": 1,
            }),
        )),
        "POST /dtn/v1/join" => Some((200, Value::Null)),
        _ => None,
    });
    let invited = double.run(&["domain", "invite", "busan", "--valid", "10m"]);
    assert_eq!(invited.code, 0, "{invited:?}");
    assert_eq!(invited.out.lines().count(), 1, "{invited:?}");
    let read: Invitation = decode_invitation(&invited.out).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), invitation("domain"));
    assert!(!invited.err.contains("very-secret"));
    assert_eq!(
        double.calls()[0].body,
        json!({"kind": "domain", "name": "busan", "valid_seconds": 600})
    );
    let accepted = double.run_with(&["domain", "accept", "-"], &invited.out);
    assert_eq!(accepted.code, 0, "{accepted:?}");
    assert_eq!(
        double.calls()[1].body,
        json!({"invitation": invitation("domain")})
    );
    let invited = double.run(&["host", "invite", "dtn1"]);
    let joined = double.run(&["host", "join", invited.out.trim()]);
    assert_eq!(joined.code, 0, "{joined:?}");
    assert_eq!(double.calls()[3].line, "POST /dtn/v1/join");
    // the wrong verb asks nobody
    let before = double.calls().len();
    let wrong = double.run(&["domain", "accept", &encode_invitation(&host_invitation())]);
    assert_eq!((wrong.code, double.calls().len()), (2, before), "{wrong:?}");
    let cut = double.run_with(&["domain", "accept", "-"], "dtn-invitation.xyz");
    assert_eq!(cut.code, 1);
    assert!(cut.err.contains("not whole"), "{cut:?}");
}

fn host_invitation() -> Invitation {
    serde_json::from_value(invitation("host")).expect("an invitation of the contract")
}

#[test]
fn extending_shows_the_end_that_the_controller_has() {
    let double = Double::new(|line, _| match line {
        "POST /dtn/v1/slices/lhc/extend" => Some((200, Value::Null)),
        "GET /dtn/v1/slices/lhc" => Some((200, slice())),
        _ => None,
    });
    let ran = double.run(&["slice", "extend", "lhc", "--by", "30m"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(double.calls()[0].body, json!({"by": "30m"}));
    assert!(ran.out.contains("2020-01-01T02:00:00Z"), "{ran:?}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let double = Double::one("GET /dtn/v1/status", 200, status(true));
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_dtnctl"))
        .args(["--root", double.root().to_str().unwrap(), "status"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        !String::from_utf8_lossy(&output.stderr).contains("panic"),
        "{output:?}"
    );
}
