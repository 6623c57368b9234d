//! A running `dtnd` reads its configuration again, and tries one: what is wrong changes nothing, what
//! is on trial goes back however this process ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use dtn_api::{
    client::{Client, ClientError},
    running::{Reloaded, Running, Trial, Try},
};
use serde_json::json;
use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const BEFORE: &str =
    "# the admin's own words\nversion = 1\n[host]\nname = \"dtn1\"\n[log]\nlevel = \"info\"\n";

struct Site {
    dir: tempfile::TempDir,
    daemon: Option<Child>,
}
impl Drop for Site {
    fn drop(&mut self) {
        self.kill();
    }
}

fn patience() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc/dtn")).unwrap();
        let site = Self { dir, daemon: None };
        site.write(BEFORE);
        site
    }
    fn file(&self) -> PathBuf {
        self.dir.path().join("etc/dtn/appliance.toml")
    }
    fn write(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
    }
    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }
    fn record(&self) -> PathBuf {
        self.dir.path().join("var/lib/dtn/trial.json")
    }
    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/dtn/dtnd.sock")
    }
    fn spawn(&mut self, stop_at: Option<&str>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dtnd"));
        command
            .arg("--root")
            .arg(self.dir.path())
            .arg("--config")
            .arg(self.file())
            .env_remove("DTN_LOG")
            .stderr(Stdio::null());
        if let Some(at) = stop_at {
            command.env("DTND_STOP_AT", at);
        }
        self.daemon = Some(command.spawn().unwrap());
    }
    /// Starts it, and waits until it answers.
    async fn start(&mut self, stop_at: Option<&str>) {
        self.spawn(stop_at);
        let until = patience();
        while self.running().await.is_err() {
            assert!(Instant::now() < until, "dtnd does not answer");
            let ended = self.daemon.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "dtnd ended: {ended:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
    fn client(&self) -> Client {
        Client::unix(&self.socket(), Duration::from_secs(60)).unwrap()
    }
    async fn running(&self) -> Result<Running, ClientError> {
        self.client().get("/dtn/v1/config").await
    }
    async fn post<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<T, ClientError> {
        self.client().post(&format!("/dtn/v1{path}"), body).await
    }
    async fn attempt(&self, text: &str, seconds: u64) -> Result<Trial, ClientError> {
        let body = Try {
            text: text.to_owned(),
            timeout: dtn_api::Span::from_secs(seconds),
        };
        self.post("/config/trial", &body).await
    }
    async fn until(&self, what: &str, holds: impl Fn(&Running) -> bool) {
        let until = patience();
        loop {
            let running = self.running().await.unwrap();
            if holds(&running) {
                return;
            }
            assert!(Instant::now() < until, "{what}: {running:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn with_level(level: &str) -> String {
    BEFORE.replace("\"info\"", &format!("\"{level}\""))
}

#[tokio::test]
async fn a_hangup_applies_what_can_be_and_a_wrong_file_changes_nothing() {
    let mut site = Site::new();
    site.start(None).await;
    let pid = site.daemon.as_ref().unwrap().id().to_string();
    let hang_up = || {
        assert!(
            Command::new("kill")
                .args(["-HUP", &pid])
                .status()
                .unwrap()
                .success()
        )
    };

    site.write(&format!(
        "{}[tuning]\nrtt = \"7ms\"\n",
        with_level("debug").replace("dtn1", "dtn2")
    ));
    hang_up();
    site.until("it is read again", |running| {
        running.values.contains_key("tuning.rtt")
    })
    .await;
    let running = site.running().await.unwrap();
    assert_eq!(running.values["log.level"], "\"debug\"");
    assert_eq!(running.values["host.name"], "\"dtn1\"");
    let waiting: Vec<&str> = running
        .waiting
        .iter()
        .map(|one| one.path.as_str())
        .collect();
    assert_eq!(waiting, ["host.name"]);

    let before = running.values;
    site.write("version = 1\n[host]\nname = \"dtn1\"\n[log]\nlevle = \"info\"\n");
    hang_up();
    site.until("it is refused", |running| !running.refused.is_empty())
        .await;
    let running = site.running().await.unwrap();
    assert_eq!(running.values, before);
    assert!(
        running.refused[0].contains("did you mean level?"),
        "{:?}",
        running.refused
    );
    let refused = site.post::<Reloaded>("/config/reload", &json!({})).await;
    assert!(
        matches!(refused, Err(ClientError::Refused(_))),
        "{refused:?}"
    );

    site.write(BEFORE);
    let changed: Reloaded = site.post("/config/reload", &json!({})).await.unwrap();
    assert_eq!(changed.waiting, []);
    assert_eq!(changed.applied.len(), 2, "{changed:?}");
    assert!(site.running().await.unwrap().refused.is_empty());
}

#[tokio::test]
async fn metrics_move_while_it_runs_and_an_address_in_use_waits() {
    let mut site = Site::new();
    site.start(None).await;
    let (free, taken) = (
        std::net::TcpListener::bind("127.0.0.1:0").unwrap(),
        std::net::TcpListener::bind("127.0.0.1:0").unwrap(),
    );
    let (address, used) = (free.local_addr().unwrap(), taken.local_addr().unwrap());
    drop(free);
    site.write(&format!("{BEFORE}[metrics]\nlisten = \"{address}\"\n"));
    let changed: Reloaded = site.post("/config/reload", &json!({})).await.unwrap();
    assert_eq!(
        (changed.applied.len(), changed.waiting.len()),
        (1, 0),
        "{changed:?}"
    );
    let answers = || std::net::TcpStream::connect(address).is_ok();
    assert!(answers());
    site.write(&format!("{BEFORE}[metrics]\nlisten = \"{used}\"\n"));
    let changed: Reloaded = site.post("/config/reload", &json!({})).await.unwrap();
    assert_eq!(
        (changed.applied.len(), changed.waiting.len()),
        (0, 1),
        "{changed:?}"
    );
    assert!(answers());
    drop(taken);
}

#[tokio::test]
async fn a_trial_stays_when_it_is_confirmed_and_goes_back_when_nobody_speaks() {
    let mut site = Site::new();
    site.start(None).await;
    let wrong = site
        .attempt("version = 1\n[host]\nname = \"D\"\n", 60)
        .await;
    assert!(matches!(wrong, Err(ClientError::Refused(_))), "{wrong:?}");
    assert_eq!(site.text(), BEFORE);

    let trial = site.attempt(&with_level("debug"), 60).await.unwrap();
    assert_eq!(trial.changed.applied.len(), 1);
    assert!(site.running().await.unwrap().trial.is_some());
    let _: Running = site.post("/config/confirm", &json!({})).await.unwrap();
    assert_eq!(site.text(), with_level("debug"));
    assert!(!site.record().exists());

    // nobody speaks: who asked is gone, and this process alone ends it
    site.attempt(&with_level("warn"), 5).await.unwrap();
    assert_eq!(site.text(), with_level("warn"));
    site.until("it goes back", |running| running.trial.is_none())
        .await;
    assert_eq!(site.text(), with_level("debug"));
    site.until("and is in force", |running| {
        running.values["log.level"] == "\"debug\""
    })
    .await;

    site.attempt(&with_level("error"), 60).await.unwrap();
    site.client()
        .delete("/dtn/v1/config/trial", None)
        .await
        .unwrap();
    assert_eq!(site.text(), with_level("debug"));
}

/// `kill -9` at each step of beginning and ending one; what the next start makes of it.
#[tokio::test]
async fn a_trial_that_is_cut_off_anywhere_goes_back() {
    for step in ["trial-recorded", "trial-installed", "trial-back"] {
        let mut site = Site::new();
        site.start(Some(step)).await;
        let text = with_level("debug");
        let asked = {
            let client = site.client();
            let body = Try {
                text: text.clone(),
                timeout: dtn_api::Span::from_secs(5),
            };
            tokio::spawn(async move {
                let _ = client.post::<_, Trial>("/dtn/v1/config/trial", &body).await;
            })
        };
        let until = patience();
        let stopped = || match step {
            "trial-recorded" => site.record().exists() && site.text() == BEFORE,
            "trial-installed" => site.text() == text,
            // its time is over: the file is as before, and the record is there still
            _ => {
                site.dir
                    .path()
                    .join("var/lib/dtn/trial-taken-back.toml")
                    .exists()
                    && site.text() == BEFORE
                    && site.record().exists()
            }
        };
        while !stopped() {
            assert!(Instant::now() < until, "{step} is not reached");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        site.kill();
        asked.abort();
        // whoever starts next ends it, at once or when its time is over
        site.start(None).await;
        // the file goes back first, and then it is read
        site.until(step, |running| {
            running.trial.is_none() && !running.values.contains_key("log.level")
        })
        .await;
        assert_eq!(site.text(), BEFORE, "{step}");
        assert!(!site.record().exists(), "{step}");
    }
}

#[tokio::test]
async fn a_second_dtnd_leaves_the_trial_of_the_first_alone() {
    let mut site = Site::new();
    site.start(None).await;
    let tried = with_level("debug");
    site.attempt(&tried, 3600).await.unwrap();
    // more often than a daemon may start on trial
    for _ in 0..5 {
        let second = Command::new(env!("CARGO_BIN_EXE_dtnd"))
            .arg("--root")
            .arg(site.dir.path())
            .arg("--config")
            .arg(site.file())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&second.stderr);
        assert!(said.contains("another dtnd runs"), "{said}");
        assert_eq!(second.status.code(), Some(1));
    }
    assert_eq!(site.text(), tried);
    let running = site.running().await.unwrap();
    assert!(running.trial.is_some(), "{running:?}");
}

#[tokio::test]
async fn a_trial_that_dtnd_does_not_stay_up_with_goes_back() {
    let mut site = Site::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let used = taken.local_addr().unwrap();
    site.start(None).await;
    let text = format!("{BEFORE}[metrics]\nlisten = \"{used}\"\n");
    let trial = site.attempt(&text, 600).await.unwrap();
    assert_eq!(trial.changed.waiting.len(), 1, "{trial:?}");
    site.kill();
    site.spawn(None);
    let ended = site.daemon.as_mut().unwrap().wait().unwrap();
    assert_eq!(ended.code(), Some(1));
    assert_eq!(site.text(), BEFORE);
    site.start(None).await;
}
