//! `dtnctl gateway` and `dtnctl access` against the real controller, in this process, with a state
//! of its own: what is written is what is read, by version, all of it or nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use dtn_api::{VDN_BASE, client::Client};
use serde_json::{Value, json};
use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

const NEAR: &str = "02:00:00:00:00:01-none";
const GATE: &str = "02:00:00:00:00:07-none";
const CALL: Duration = Duration::from_secs(20);

/// What a run of `dtnctl` left.
#[derive(Debug)]
struct Ran {
    out: String,
    err: String,
    code: Option<i32>,
}

/// A controller with a gateway, and a slice that has it.
struct Domain {
    folder: tempfile::TempDir,
    slice: Value,
}

impl Domain {
    async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::Builder::new()
            .prefix("dtnctl-gateways-")
            .tempdir()
            .unwrap();
        let config = folder.path().join("vdnd.toml");
        let text = "version = 1\n[domain]\nname = \"daejeon\"\n[listen]\naddress = \"127.0.0.1:0\"\n\
             [addresses]\nipv4 = \"10.60.0.0/16\"\nipv6 = \"fd60::/48\"\n";
        std::fs::write(&config, text).unwrap();
        let config = vdnd::config::load(&config).unwrap().config;
        vdnd::serve::start(config, folder.path(), CancellationToken::new())
            .await
            .unwrap();
        let socket = folder.path().join("run/dtn/vdnd.sock");
        let admin = Client::unix(&socket, CALL).unwrap();
        let nic = |node: &str| {
            json!({"kind": "nic", "node": node, "nic": "data0",
            "capacity_bps": 10_000_000_000_u64, "mtu": 9000})
        };
        for (host, node) in [(NEAR, "near"), (GATE, "gate")] {
            let path = format!("{VDN_BASE}/hosts/{host}");
            let _: Value = admin.put(&path, &nic(node)).await.unwrap();
        }
        let mut domain = Self {
            folder,
            slice: Value::Null,
        };
        domain.declare().await;
        domain.slice = domain.book("web").await;
        domain
    }
    fn admin(&self) -> Client {
        let socket = self.folder.path().join("run/dtn/vdnd.sock");
        Client::unix(&socket, CALL).unwrap()
    }
    /// Declares the gateway, as its host does again and again.
    async fn declare(&self) {
        let gateway = json!({"node": "gate", "host": GATE, "networks": ["0.0.0.0/0", "::/0"],
            "outside": ["192.0.2.2/24", "2001:db8::2/64"]});
        let path = format!("{VDN_BASE}/gateways/internet");
        let _: Value = self.admin().put(&path, &gateway).await.unwrap();
    }
    /// A slice with the gateway.
    async fn book(&self, name: &str) -> Value {
        let now = jiff::Timestamp::now();
        let wish = json!({
            "name": name, "qos": {"class": "guaranteed", "rate_bps": 100_000_000},
            "members": [{"host": NEAR}, {"host": GATE, "role": "gateway"}], "commit": true,
            "schedule": {"start": now, "end": now + jiff::SignedDuration::from_hours(1)},
        });
        let slices = format!("{VDN_BASE}/slices");
        self.admin().post_once(&slices, name, &wish).await.unwrap()
    }
    /// Ends the slices of a name.
    async fn end(&self, name: &str) {
        let path = format!("{VDN_BASE}/slices?name={name}");
        let found: Value = self.admin().get(&path).await.unwrap();
        for slice in found["items"].as_array().unwrap() {
            let path = format!("{VDN_BASE}/slices/{}", slice["id"].as_str().unwrap());
            let version = slice["version"].as_u64();
            self.admin().delete(&path, version).await.unwrap();
        }
    }
    /// Runs `dtnctl --root ROOT` with these words; the controller goes on meanwhile.
    async fn run(&self, words: &[&str]) -> Ran {
        let root = self.folder.path().to_owned();
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        tokio::task::spawn_blocking(move || run(&root, &words))
            .await
            .unwrap()
    }
    /// Says what the gateway's host has read back from its kernel, as that would.
    async fn report(&self, version: u64, trouble: Option<&str>) {
        let report = json!({
            "rules_version": version, "slices": [self.slice["id"]], "trouble": trouble,
            "denied_inbound": {"packets": 3, "bytes": 180}, "read_at": jiff::Timestamp::now(),
        });
        let at = format!("{VDN_BASE}/gateways/internet/report");
        let _: Value = self.admin().put(&at, &report).await.unwrap();
    }
    async fn done(&self, words: &[&str]) -> Ran {
        let ran = self.run(words).await;
        assert_eq!(ran.code, Some(0), "{words:?}: {ran:?}");
        ran
    }
    async fn rules(&self) -> Value {
        let ran = self.done(&["--json", "access", "list", "internet"]).await;
        serde_json::from_str(&ran.out).unwrap()
    }
    /// Numbers of the rules that there are.
    async fn numbers(&self) -> Vec<u64> {
        let rules = self.rules().await;
        let items = rules["items"].as_array().unwrap().iter();
        items
            .map(|rule| rule["priority"].as_u64().unwrap())
            .collect()
    }
    fn file(&self, text: &str) -> String {
        let file = self.folder.path().join("access.toml");
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    }
    /// An address of the slice that a member may have: the one after the gateway's.
    fn member(&self) -> String {
        let gateway = &self.slice["spec"]["addressing"]["ipv4"]["gateway"];
        let gateway: Ipv4Addr = gateway.as_str().unwrap().parse().unwrap();
        Ipv4Addr::from_bits(gateway.to_bits() + 1).to_string()
    }
}

fn run(root: &Path, words: &[String]) -> Ran {
    let output = Command::new(PathBuf::from(env!("CARGO_BIN_EXE_dtnctl")))
        .arg("--root")
        .arg(root)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ran {
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_pass_is_written_read_and_explained() {
    let domain = Domain::start().await;
    let listed = domain.done(&["gateways"]).await;
    assert!(listed.out.contains("internet"), "{listed:?}");
    assert!(listed.out.contains("not reported"), "{listed:?}");
    domain.done(&["gateway", "show", "internet"]).await;
    let strange = domain.run(&["gateway", "show", "mars"]).await;
    assert_eq!(strange.code, Some(1));
    assert!(strange.err.contains("gateway list"), "{strange:?}");

    let member = domain.member();
    let explain = [
        "access",
        "explain",
        "internet",
        "--from",
        &member,
        "--to",
        "192.0.2.7:443",
        "--proto",
        "tcp",
    ];
    let dropped = domain.run(&explain).await;
    assert_eq!(dropped.code, Some(3), "{dropped:?}");
    let set = "access set internet 100 allow outbound --slice web --to 192.0.2.0/24 --proto tcp \
               --to-port 443,50000-51000";
    let set: Vec<&str> = set.split_whitespace().collect();
    domain.done(&set).await;
    let passes = domain.done(&explain).await;
    assert!(passes.out.contains("rule 100"), "{passes:?}");
    assert_eq!(domain.numbers().await, [100]);
    // a rule that is not there is taken out already
    domain
        .done(&["access", "remove", "internet", "100", "200"])
        .await;
    assert!(domain.numbers().await.is_empty());
    let gone = domain.run(&explain).await;
    assert_eq!(gone.code, Some(3), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_between_nics_of_the_domain_is_reserved_at_its_controller() {
    let domain = Domain::start().await;
    let reserve = |more: &[&'static str]| {
        let words = [
            "slice", "reserve", "pods", "--for", "30d", "--rate", "1Gbit",
        ];
        [words.as_slice(), more].concat()
    };
    let strange = domain
        .run(&reserve(&["--between", "near/data0,mars/data0,near/data9"]))
        .await;
    assert_eq!(strange.code, Some(1), "{strange:?}");
    for said in ["no NIC mars/data0 and no NIC near/data9", "host list"] {
        assert!(strange.err.contains(said), "{strange:?}");
    }
    let both = domain
        .run(&reserve(&[
            "--between",
            "near/data0,gate/data0",
            "--to",
            "busan",
        ]))
        .await;
    assert_eq!(both.code, Some(2), "{both:?}");

    let wish = [
        "--between",
        "near/data0",
        "--gateway",
        "internet",
        "--class",
        "best-effort",
    ];
    let shown = domain.done(&reserve(&wish)).await;
    assert!(shown.out.contains("best-effort"), "{shown:?}");
    let path = format!("{VDN_BASE}/slices?name=pods");
    let found: Value = domain.admin().get(&path).await.unwrap();
    let spec = &found["items"][0]["spec"];
    assert_eq!(
        spec["members"],
        json!([{"host": NEAR, "role": "endpoint"}, {"host": GATE, "role": "gateway"}])
    );
    assert_eq!(spec["qos"]["rate_bps"], 1_000_000_000);
    assert_eq!(spec["qos"]["mode"], "hose");
    assert_eq!(spec["addressing"]["mtu"], 9000);
    // what is there is not made a second time
    let again = domain.run(&reserve(&wish)).await;
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.err.contains("pods"), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_applied_whole_in_place_of_what_was_looked_at() {
    let domain = Domain::start().await;
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/access.toml");
    let dry = domain
        .done(&["access", "apply", "internet", example, "--dry-run"])
        .await;
    assert!(domain.numbers().await.is_empty(), "{dry:?}");
    let version = domain.rules().await["version"].to_string();
    assert!(
        dry.err
            .trim_end()
            .ends_with(&format!("--if-version {version}")),
        "{dry:?}"
    );
    // somebody else is quicker, and what was looked at is not there any more
    domain
        .done(&["access", "set", "internet", "7", "deny", "inbound"])
        .await;
    let stale = [
        "access",
        "apply",
        "internet",
        example,
        "--if-version",
        &version,
    ];
    let late = domain.run(&stale).await;
    assert_eq!(late.code, Some(1), "{late:?}");
    assert!(late.err.contains("access list internet"), "{late:?}");
    assert_eq!(domain.numbers().await, [7]);

    let newest = domain.rules().await["version"].to_string();
    let applied = [
        "access",
        "apply",
        "internet",
        example,
        "--if-version",
        &newest,
    ];
    domain.done(&applied).await;
    let numbers = domain.numbers().await;
    assert!(numbers.len() > 1 && !numbers.contains(&7), "{numbers:?}");

    let wrong = domain.file(
        "[[rule]]\nnumber = 1\naction = \"allow\"\ndirection = \"out\"\n\
         [[rule]]\nnumber = 2\naction = \"deny\"\ndirection = \"inbound\"\nto = \"mars\"\n",
    );
    let refused = domain.run(&["access", "apply", "internet", &wrong]).await;
    assert_eq!(refused.code, Some(78), "{refused:?}");
    for path in ["rule[0].direction", "rule[1].to"] {
        assert!(refused.out.contains(path), "{refused:?}");
    }
    assert_eq!(domain.numbers().await, numbers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_shown_as_its_host_reports_it() {
    let domain = Domain::start().await;
    let set = ["access", "set", "internet", "100", "allow", "outbound"];
    domain.done(&set).await;
    let version = domain.rules().await["version"].as_u64().unwrap();
    domain.report(version - 1, None).await;
    let late = domain.done(&["gateway", "list"]).await;
    assert!(late.out.contains("its host still has"), "{late:?}");

    domain.report(version, None).await;
    let shown = domain.done(&["gateway", "show", "internet"]).await;
    let slice = format!("web ({})", domain.slice["id"].as_str().unwrap());
    for words in ["as its host has", "3 packets (180 B)", slice.as_str()] {
        assert!(shown.out.contains(words), "{words}: {shown:?}");
    }
    assert!(shown.err.contains("access list internet"), "{shown:?}");
    let listed = domain.done(&["access", "list", "internet"]).await;
    assert!(
        listed
            .out
            .contains("no rule allowed: 3 packets (180 B) at the host"),
        "{listed:?}"
    );

    domain
        .report(version, Some("NIC ext0 has no carrier"))
        .await;
    let unwell = domain.done(&["gateways"]).await;
    assert!(unwell.out.contains("IN TROUBLE"), "{unwell:?}");
    assert!(unwell.err.contains("gateway show internet"), "{unwell:?}");
    let unwell = domain.done(&["gateway", "show", "internet"]).await;
    assert!(
        unwell.err.contains("on gate: NIC ext0 has no carrier"),
        "{unwell:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_goes_when_no_slice_has_it_and_who_declares_it_is_said() {
    let domain = Domain::start().await;
    let set = ["access", "set", "internet", "100", "allow", "outbound"];
    domain.done(&set).await;
    domain.book("mail").await;
    let delete = ["gateway", "delete", "internet"];
    let refused = domain.run(&delete).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for words in ["the gateway of slices web and mail", "slice release"] {
        assert!(refused.err.contains(words), "{words}: {refused:?}");
    }
    assert_eq!(domain.numbers().await, [100], "nothing is changed");

    domain.end("mail").await;
    domain.end("web").await;
    let deleted = domain.done(&delete).await;
    assert!(deleted.out.contains("is deleted"), "{deleted:?}");
    for words in ["on gate", "[[gateway]] internet"] {
        assert!(deleted.err.contains(words), "{words}: {deleted:?}");
    }
    let listed = domain.done(&["gateways"]).await;
    assert!(listed.out.contains("no gateways"), "{listed:?}");
    let again = domain.done(&delete).await;
    assert!(again.out.contains("nothing was left"), "{again:?}");

    // its host still has it, and what was allowed is not any more
    domain.declare().await;
    assert!(domain.numbers().await.is_empty());
}
