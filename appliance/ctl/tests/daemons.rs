//! `dtnctl` against the real daemons: two controllers and two supervisors in one process, in a
//! network namespace of its own that ends with it. The verbs are the ones of the pages in `docs/`,
//! in their order: invite, accept, join, look, reserve, be refused, take what fits, extend, release.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use dtn_api::domain::Domain;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

/// How long all of it may take on a busy machine.
const LONG: Duration = Duration::from_secs(180);
/// The two domains, each with the port of its controller.
const DOMAINS: [(&str, u16); 2] = [("daejeon", 7443), ("busan", 7444)];
/// A namespace with its own sysfs and two NICs, whose far ends are the rest of the world.
const CABLES: &str = "mount -t sysfs sysfs /sys && ip link set lo up \
    && ip link add data0 type veth peer name far0 && ip link add data1 type veth peer name far1 \
    && for l in data0 far0 data1 far1; do ip link set $l up || exit 1; done && exec \"$@\"";

#[test]
fn the_verbs_of_the_pages_work_on_real_daemons() {
    const TEST: &str = "the_verbs_of_the_pages_work_on_real_daemons";
    if !nix::unistd::geteuid().is_root() {
        skipped(TEST, "needs root");
        return;
    }
    let folder = tempfile::Builder::new()
        .prefix("dtnctl-")
        .tempdir()
        .unwrap();
    // the kernel ends it when this test ends, whatever the way
    let output = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--net", "--mount"])
        .args(["--propagation", "private", "sh", "-c", CABLES, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "inside", "--nocapture"])
        .env("DTNCTL_TEST_FOLDER", folder.path())
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

/// Says that a test could not run here; the suite counts these.
fn skipped(test: &str, why: &str) {
    println!("skipped {test}: {why}");
    if let Ok(file) = std::env::var("DTN_SKIPS") {
        use std::io::Write;
        let mut file = std::fs::File::options().append(true).open(file).unwrap();
        writeln!(file, "dtnctl {test}: {why}").unwrap();
    }
}

#[test]
#[ignore = "is the inside of the other test, in a namespace that it made"]
fn inside() {
    let Ok(folder) = std::env::var("DTNCTL_TEST_FOLDER") else {
        return;
    };
    rustls::crypto::ring::default_provider()
        .install_default()
        .unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        tokio::time::timeout(LONG, verbs(Path::new(&folder)))
            .await
            .unwrap();
    });
}

/// A site: a root with both configurations, and both daemons on it.
struct Site {
    root: PathBuf,
}

impl Site {
    async fn start(folder: &Path, index: usize) -> Self {
        let (domain, port) = DOMAINS[index];
        let (other, _) = DOMAINS[1 - index];
        let root = folder.join(domain);
        let config = root.join("etc/dtn");
        std::fs::create_dir_all(&config).unwrap();
        let vdnd = format!(
            "version = 1\n[domain]\nname = \"{domain}\"\n[listen]\naddress = \"127.0.0.1:{port}\"\n\
             [[border]]\nname = \"wan\"\npeer-domain = \"{other}\"\npeer-ref = \"wan\"\n\
             capacity = \"1Gbit\"\nlatency = \"5ms\"\nmtu = 9000\n\
             [addresses]\nipv4 = \"10.6{index}.0.0/16\"\nipv6 = \"fd6{index}::/48\"\n"
        );
        let dtnd = format!(
            "[host]\nname = \"dtn-{domain}\"\n[[nic]]\nname = \"data{index}\"\n\
             class = \"dedicated\"\nspeed = \"10Gbit\"\nshare-with = \"federation\"\n\
             [podman]\nsocket = \"{}/none.sock\"\n",
            root.display()
        );
        let config = config.join("appliance.toml");
        std::fs::write(&config, vdnd + &dtnd).unwrap();
        let site = Self { root };
        let checked = site.run(&["config", "check", "--strict"], "").await;
        assert_eq!(checked.code, 0, "{checked:?}");

        let controller = vdnd::config::load(&config).unwrap();
        let running = vdnd::serve::start(controller.config, &site.root, CancellationToken::new())
            .await
            .unwrap();
        running.engine.read_from(dtn_service::reload::Reading {
            file: Some(config.clone()),
            values: controller.values,
            ..Default::default()
        });
        let supervisor = dtnd::config::load(&config).unwrap();
        let places = dtnd::Places::new(&site.root);
        let reading = dtn_service::reload::Reading {
            file: Some(config),
            values: supervisor.values,
            ..Default::default()
        };
        tokio::spawn(dtnd::daemon::run_reading(
            supervisor.config,
            places.clone(),
            reading,
            CancellationToken::new(),
        ));
        until("the supervisor serves", async || {
            let ran = site.run(&["status"], "").await;
            (ran.code == 0).then_some(())
        })
        .await;
        site
    }
    /// Runs `dtnctl --root ROOT` with these words.
    async fn run(&self, words: &[&str], stdin: &str) -> Ran {
        let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_dtnctl"))
            .arg("--root")
            .arg(&self.root)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        // a verb that does not read stdin may be gone already
        let _ = input.write_all(stdin.as_bytes()).await;
        drop(input);
        let output = child.wait_with_output().await.unwrap();
        Ran {
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
            code: output.status.code().unwrap(),
        }
    }
    /// The same, and it has to succeed.
    async fn done(&self, words: &[&str]) -> Ran {
        let ran = self.run(words, "").await;
        assert_eq!(ran.code, 0, "{words:?}: {ran:?}");
        ran
    }
    /// The answer as JSON.
    async fn json(&self, words: &[&str]) -> Value {
        let ran = self.done(&[&["--json"], words].concat()).await;
        serde_json::from_str(&ran.out).unwrap()
    }
}

/// What a run of `dtnctl` left.
#[derive(Debug)]
struct Ran {
    out: String,
    err: String,
    code: i32,
}

/// Asks until it is so.
async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let asked = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LONG / 3, asked)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"))
}

async fn verbs(folder: &Path) {
    let daejeon = Site::start(folder, 0).await;
    let busan = Site::start(folder, 1).await;

    federate_and_join(&daejeon, &busan).await;
    look(&daejeon).await;
    reserve(&daejeon, &busan).await;
    configure(&busan).await;
}

/// The file is changed, compared, tried, taken back, tried again and kept, and both daemons follow.
async fn configure(site: &Site) {
    let file = site.root.join("etc/dtn/appliance.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    let same = site.done(&["config", "diff"]).await;
    assert!(same.out.ends_with("says what runs\n"), "{same:?}");

    let changed = before
        .replace("class = \"dedicated\"", "class = \"shared\"")
        .replace("capacity = \"1Gbit\"", "capacity = \"2Gbit\"")
        .replace("name = \"dtn-busan\"", "name = \"other\"");
    let candidate = site.root.join("candidate.toml");
    std::fs::write(&candidate, &changed).unwrap();
    let path = candidate.display().to_string();
    let diff = site.run(&["config", "diff", &path], "").await;
    assert_eq!(diff.code, 1, "{diff:?}");
    let row = |out: &str, field: &str| {
        let mut lines = out.lines();
        let found = lines.find(|line| line.starts_with(field));
        found.unwrap_or_else(|| panic!("{field}: {out}")).to_owned()
    };
    for (field, in_force) in [
        ("nic[\"data1\"].class", "once read again"),
        ("border[\"wan\"].capacity", "once read again"),
        ("host.name", "not yet: "),
    ] {
        let row = row(&diff.out, field);
        assert!(row.contains(in_force), "{row}");
    }

    let tried = site
        .done(&["config", "try", "--timeout", "10m", &path])
        .await;
    assert!(
        row(&tried.out, "vdnd: ").contains("1 in force"),
        "{tried:?}"
    );
    assert!(tried.err.contains("config confirm keeps it"), "{tried:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), changed);
    let nics = site.done(&["nics"]).await.out;
    assert!(row(&nics, "data1").contains("shared"), "{nics}");
    let document = site.done(&["domain", "document"]).await.out;
    assert!(document.contains("1.9Gbit"), "{document}");
    let status = site.run(&["status"], "").await.out;
    assert!(row(&status, "config").contains("on trial"), "{status}");
    assert_eq!(site.run(&["config", "try", &path], "").await.code, 1);

    site.done(&["config", "rollback"]).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    let nics = site.done(&["nics"]).await.out;
    assert!(row(&nics, "data1").contains("dedicated"), "{nics}");
    let document = site.done(&["domain", "document"]).await.out;
    assert!(document.contains("950Mbit"), "{document}");

    site.done(&["config", "try", &path]).await;
    site.done(&["config", "confirm"]).await;
    assert_eq!(site.run(&["config", "confirm"], "").await.code, 1);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), changed);

    std::fs::write(&file, "version = 1\n[host]\nname = \"A\"\n").unwrap();
    let refused = site.run(&["config", "reload"], "").await;
    assert_eq!(refused.code, 78, "{refused:?}");
    std::fs::write(&file, &before).unwrap();
    let done = site.done(&["config", "reload"]).await;
    assert!(done.out.contains("dtnd: 1 change in force"), "{done:?}");
    site.done(&["config", "diff"]).await;
}

async fn federate_and_join(daejeon: &Site, busan: &Site) {
    let invited = daejeon.done(&["domain", "invite", "busan"]).await;
    assert_eq!(invited.out.lines().count(), 1);
    let accepted = busan.run(&["domain", "accept", "-"], &invited.out).await;
    assert_eq!(accepted.code, 0, "{accepted:?}");
    // the word is good for one use, by one who was not there before
    let again = daejeon.run(&["domain", "accept", "-"], &invited.out).await;
    assert_eq!(again.code, 1, "{again:?}");
    for (site, (domain, _)) in [daejeon, busan].into_iter().zip(DOMAINS) {
        let name = format!("dtn-{domain}");
        let invited = site.done(&["host", "invite", &name, "--valid", "5m"]).await;
        let joined = site.run(&["host", "join", "-"], &invited.out).await;
        assert_eq!(joined.code, 0, "{joined:?}");
        assert_eq!(joined.out, format!("host {name} is in domain {domain}\n"));
    }
    until("the far NIC is offered", async || {
        let domain = daejeon.json(&["domain", "show", "busan"]).await;
        let domain: Domain = serde_json::from_value(domain).unwrap();
        domain.document.filter(|all| !all.shared_hosts.is_empty())
    })
    .await;
}

async fn look(site: &Site) {
    let status = site.json(&["status"]).await;
    assert_eq!(status["domain"], "daejeon");
    let check = site.run(&["status", "--check"], "").await;
    let ready = status["ready"].as_bool().unwrap();
    assert_eq!(check.code, i32::from(!ready), "{check:?}");
    let nics = site.done(&["nics"]).await.out;
    let row = nics.lines().find(|line| line.starts_with("data0")).unwrap();
    assert!(row.contains("dedicated") && row.ends_with("yes"), "{nics}");
    assert!(
        site.done(&["hosts"])
            .await
            .out
            .contains("dtn-daejeon/data0")
    );
    assert!(site.done(&["domains"]).await.out.contains("busan"));
    let document = site.done(&["domain", "document"]).await.out;
    assert!(
        document.contains("950Mbit") && document.contains("wan"),
        "{document}"
    );
    for words in [&["leases"][..], &["lease", "list", "--domain"]] {
        assert_eq!(site.done(words).await.out, "no leases\n");
    }
}

async fn reserve(daejeon: &Site, busan: &Site) {
    let words = [
        "slice", "reserve", "lhc", "--to", "busan", "--rate", "600Mbit",
    ];
    let agreed = daejeon.done(&words).await;
    assert!(agreed.out.contains("taken        600Mbit"), "{agreed:?}");
    assert!(agreed.err.contains("--slice lhc"), "{agreed:?}");
    for site in [daejeon, busan] {
        let seen = until("both hosts see it", async || {
            let out = site.done(&["slices"]).await.out;
            out.contains("lhc").then_some(out)
        })
        .await;
        assert!(seen.contains("600Mbit"), "{seen}");
    }
    // the same again is the same slice
    assert_eq!(daejeon.run(&words, "").await.code, 0);

    let much = [
        "slice", "reserve", "more", "--to", "busan", "--rate", "900Mbit",
    ];
    let refused = daejeon.run(&much, "").await;
    assert_eq!(refused.code, 1, "{refused:?}");
    let (_, command) = refused
        .err
        .split_once("take the 350Mbit that fit: ")
        .unwrap();
    let command: Vec<&str> = command.lines().next().unwrap().split(' ').collect();
    // dtnctl --root ROOT slice reserve …: what is printed is what can be typed
    assert_eq!(command[..2], ["dtnctl", "--root"]);
    let taken = daejeon.done(&command[3..]).await;
    assert!(taken.out.contains("taken        350Mbit"), "{taken:?}");

    let end = |slice: &Value| slice["slice"]["spec"]["schedule"]["end"].clone();
    let before = end(&daejeon.json(&["slice", "show", "lhc"]).await);
    let after = end(&daejeon
        .json(&["slice", "extend", "lhc", "--by", "30m"])
        .await);
    assert_ne!(before, after);
    for name in ["lhc", "more"] {
        for _ in 0..2 {
            daejeon.done(&["slice", "release", name]).await;
        }
    }
    let dry = ["slice", "reserve", "most", "--to", "busan", "--dry-run"];
    let dry = daejeon.done(&dry).await;
    assert!(dry.out.contains("offered      950Mbit"), "{dry:?}");
    assert!(dry.err.contains("reserve it: dtnctl --root"), "{dry:?}");
}
