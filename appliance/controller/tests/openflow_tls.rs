//! Switches that come over TLS, with real Open vSwitch: who is let in, and how the keys of the domain are
//! changed under them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod switch;
mod wish;

use dtn_api::{Name, fabric::SwitchCertificate};
use switch::{Rig, with_switches};
use tokio_util::sync::CancellationToken;
use vdnd::{auth::Principal, serve::Running, state::State};
use wish::until;

const TARGET: &str = "ssl:127.0.0.1:6653";
const TOML: &str = r#"
version = 1
[domain]
name = "daejeon"
[listen]
address = "127.0.0.1:0"
[fabric]
kind = "openflow"
listen = "127.0.0.1:6653"
[[switch]]
name = "edge1"
datapath-id = "0000000000000001"
[[switch]]
name = "edge2"
datapath-id = "0000000000000002"
[[cable]]
ends = "edge1/edge1-edge2 edge2/edge2-edge1"
capacity = "1Gbit"
mtu = 1500
[addresses]
ipv4 = "10.0.0.0/16"
"#;

fn wired(rig: &Rig) {
    for (name, id) in [("edge1", 1), ("edge2", 2)] {
        rig.switch(name, id);
    }
    rig.cable("edge1", "edge2");
}
async fn serve(rig: &Rig, stop: &CancellationToken) -> Running {
    let file = rig.path("vdnd.toml");
    std::fs::write(&file, TOML).unwrap();
    let config = vdnd::config::load(&file).unwrap().config;
    let root = rig.path("root");
    vdnd::serve::start(config, &root, stop.clone())
        .await
        .unwrap()
}
fn there(running: &Running) -> Vec<bool> {
    let all = running.engine.fabric().switches();
    all.iter().map(|switch| switch.connected).collect()
}
/// What the switch proves who it is with: under a name of its own, since a switch reads a file once.
fn take(rig: &Rig, name: &str, key: &str, own: &str, ca: &str) {
    let files = [("key", key), ("own", own), ("ca", ca)].map(|(what, pem)| {
        let path = rig.path(&format!("{name}-{what}.pem"));
        std::fs::write(&path, pem).unwrap();
        path.display().to_string()
    });
    rig.vsctl(&format!("--no-wait set-ssl {}", files.join(" ")));
}
fn wish() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let wish = rcgen::CertificateParams::new(Vec::new()).unwrap();
    let csr = wish.serialize_request(&key).unwrap().pem().unwrap();
    (key.serialize_pem(), csr)
}
async fn connected(rig: &Rig, running: &Running) {
    rig.vsctl("del-controller edge1");
    until("it is gone", || !there(running)[0]).await;
    rig.connect("edge1", TARGET);
    until("it is there", || there(running)[0]).await;
}

#[test]
fn a_switch_is_who_its_certificate_names() {
    with_switches("tls", async |mut rig| {
        wired(&rig);
        let stop = CancellationToken::new();
        let running = serve(&rig, &stop).await;
        let authority = running.engine.authority();
        let (key, csr) = wish();
        let now = jiff::Timestamp::now();
        let own = |rig: &Rig, role: &str| {
            let name = "edge1".parse().unwrap();
            let own = authority.certify(role, &name, &csr, now).unwrap();
            take(rig, role, &key, &own.pem, &authority.ca_pem());
        };
        own(&rig, "switch");
        rig.connect("edge1", TARGET);
        until("it is there", || there(&running)[0]).await;
        // the other one comes with the certificate of the first
        rig.connect("edge2", TARGET);
        until("it is refused", || {
            rig.log().contains("edge2<->ssl:127.0.0.1:6653: connection")
        })
        .await;
        assert_eq!(there(&running), [true, false]);
        // a host's certificate is no switch's
        rig.kill();
        own(&rig, "node-agent");
        let before = rig.log().len();
        rig.forward();
        until("it is refused", || {
            rig.log()[before..].contains("edge1<->ssl:127.0.0.1:6653: connection")
        })
        .await;
        assert_eq!(there(&running), [false, false]);
        stop.cancel();
        running.ended().await.unwrap();
    });
}

#[test]
fn keys_are_changed_once_every_switch_has_come_with_a_new_certificate() {
    with_switches("tls_keys", async |rig| {
        wired(&rig);
        let stop = CancellationToken::new();
        let running = serve(&rig, &stop).await;
        let (admin, edge1) = (&Principal::Admin, "edge1".parse::<Name>().unwrap());
        let certified = async |name: &str| -> SwitchCertificate {
            let (key, csr) = wish();
            let made = running.engine.certify_switch(admin, &edge1, &csr).await;
            let made = made.unwrap();
            take(&rig, name, &key, &made.certificate_pem, &made.ca_pem);
            made
        };
        let first = certified("first").await;
        rig.connect("edge1", TARGET);
        until("it is there", || there(&running)[0]).await;

        let keys = running.engine.rotate(admin, false).await.unwrap();
        assert!(keys.is_turning() && !keys.is_known(), "{keys:?}");
        assert_eq!(keys.switches, std::slice::from_ref(&edge1), "{keys:?}");
        // it comes and goes as before, and is waited for
        connected(&rig, &running).await;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let keys = running.engine.keys().await;
        assert_eq!(keys.switches, std::slice::from_ref(&edge1), "{keys:?}");

        let second = certified("second").await;
        let certificates = |pem: &str| pem.matches("BEGIN CERTIFICATE").count();
        assert_eq!(certificates(&first.ca_pem), 1);
        assert_eq!(certificates(&second.ca_pem), 2, "the old ones and the new");
        assert_eq!(
            running.engine.keys().await.switches.len(),
            1,
            "it has not come"
        );
        connected(&rig, &running).await;
        let begin = std::time::Instant::now();
        while running.engine.keys().await.is_turning() {
            assert!(
                begin.elapsed().as_secs() < 60,
                "{:?}",
                running.engine.keys().await
            );
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        // with the new keys alone, now and after a restart
        connected(&rig, &running).await;
        stop.cancel();
        running.ended().await.unwrap();
        let stop = CancellationToken::new();
        let running = serve(&rig, &stop).await;
        until("it is there again", || there(&running)[0]).await;
        // who has the old certificate alone is out
        assert_eq!(certificates(&running.engine.authority().ca_pem()), 1);
        let before = rig.log().len();
        take_again(&rig, "first");
        rig.vsctl("del-controller edge1");
        rig.connect("edge1", TARGET);
        until("it is refused", || {
            rig.log()[before..].contains("edge1<->ssl:127.0.0.1:6653: connection")
        })
        .await;
        assert!(!there(&running)[0]);
        stop.cancel();
        running.ended().await.unwrap();
    });
}

#[test]
fn one_that_was_certified_before_that_was_written_down_is_waited_for_too() {
    with_switches("tls_older", async |rig| {
        wired(&rig);
        let stop = CancellationToken::new();
        let running = serve(&rig, &stop).await;
        let (admin, edge1) = (&Principal::Admin, "edge1".parse::<Name>().unwrap());
        let (key, csr) = wish();
        let authority = running.engine.authority();
        let now = jiff::Timestamp::now();
        let own = authority.certify("switch", &edge1, &csr, now).unwrap();
        take(&rig, "older", &key, &own.pem, &authority.ca_pem());
        rig.connect("edge1", TARGET);
        until("it is there", || there(&running)[0]).await;
        let known = async || {
            let who = ("switch".to_owned(), edge1.clone());
            let look = |state: &State, _| state.enrolled.contains_key(&who);
            running.engine.look(look).await
        };
        while !known().await {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        // it is away, and the controller starts again, while the keys are changed
        rig.vsctl("del-controller edge1");
        running.engine.rotate(admin, false).await.unwrap();
        stop.cancel();
        running.ended().await.unwrap();
        let stop = CancellationToken::new();
        let running = serve(&rig, &stop).await;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let keys = running.engine.keys().await;
        assert_eq!(keys.switches, std::slice::from_ref(&edge1), "{keys:?}");
        rig.connect("edge1", TARGET);
        until("it is believed as before", || there(&running)[0]).await;
        stop.cancel();
        running.ended().await.unwrap();
    });
}

fn take_again(rig: &Rig, name: &str) {
    let files = ["key", "own", "ca"].map(|what| {
        let path = rig.path(&format!("{name}-{what}.pem"));
        path.display().to_string()
    });
    rig.vsctl(&format!("--no-wait set-ssl {}", files.join(" ")));
}
