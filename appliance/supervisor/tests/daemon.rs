//! The real `dtnd` in a namespace of its own: start, guard, socket, end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod site;

use dtn_api::{
    local::{LocalSlice, Status},
    nic::Nic,
    problem::Kind,
    slice::List,
};
use site::{Pin, Site, problem};
use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

const ONE_NIC: &str = r#"
version = 1
[host]
name = "dtn1"
[[nic]]
name = "data0"
class = "dedicated"
speed = "5Gbit"
"#;

fn given(names: &[(&str, &str)]) -> String {
    let mut toml = "version = 1\n[host]\nname = \"dtn1\"\n".to_owned();
    for (name, class) in names {
        toml.push_str(&format!(
            "[[nic]]\nname = \"{name}\"\nclass = \"{class}\"\n"
        ));
    }
    toml
}

#[tokio::test]
async fn what_the_host_lives_on_is_guarded_with_reason_and_remedy() {
    let Some(site) = Site::new("guard") else {
        return;
    };
    let given = given(&[
        ("eth0", "dedicated"),
        ("data0", "dedicated"),
        ("data1", "shared"),
        ("port0", "dedicated"),
        ("under0", "dedicated"),
        ("addr0", "dedicated"),
        ("addr1", "shared"),
        ("gone0", "dedicated"),
    ]);
    site.config(&given);
    for nic in [
        "eth0", "data0", "data1", "port0", "under0", "addr0", "addr1",
    ] {
        site.nic(nic);
    }
    for command in [
        "ip addr add 192.0.2.2/24 dev eth0",
        "ip route add default via 192.0.2.1",
        "ip link add br0 type bridge",
        "ip link set port0 master br0",
        "ip link add mv0 link under0 type macvlan",
        "ip addr add 2001:db8::5/64 dev addr0 nodad",
        "ip addr add 198.51.100.5/24 dev addr1",
    ] {
        site.run(command);
    }
    let daemon = site.start();
    let nics: List<Nic> = daemon.client().get("/dtn/v1/nics").await.unwrap();
    let of = |name: &str| {
        nics.items
            .iter()
            .find(|nic| nic.name.as_str() == name)
            .unwrap()
    };
    for (name, words) in [
        ("eth0", "default route"),
        ("port0", "br0 (bridge)"),
        ("under0", "mv0 (macvlan)"),
        ("addr0", "2001:db8::5/64"),
    ] {
        let reasons = of(name).guarded.join("; ");
        assert!(reasons.contains(words), "{name}: {reasons}");
    }
    for free in ["data0", "data1", "addr1"] {
        assert_eq!(of(free).guarded, Vec::<String>::new(), "{free}");
        assert!(of(free).carrier);
    }
    assert!(of("data0").speed.is_some(), "a veth tells 10 Gb/s");
    assert_eq!(of("data0").driver.as_deref(), Some("veth"));
    let shown = site.run("ip -j link show data0");
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown[0]["address"], of("data0").mac.to_string());
    assert_eq!(shown[0]["mtu"], of("data0").mtu);
    assert_eq!(shown[0]["ifindex"], of("data0").identity.ifindex.unwrap());

    let status: Status = daemon.client().get("/dtn/v1/status").await.unwrap();
    let nics = status.checks.iter().find(|c| c.name == "nics").unwrap();
    assert!(!nics.ok);
    assert!(
        nics.detail.contains("name gone0 is not on this host"),
        "{}",
        nics.detail
    );
    assert!(site.log().contains("gone0 is not on this host"));
    // looking changes nothing
    assert!(site.run("ip link show port0").contains("master br0"));
}

#[tokio::test]
async fn a_given_nic_that_is_off_is_switched_on_once() {
    let Some(site) = Site::new("off") else {
        return;
    };
    site.config(&given(&[("data0", "dedicated"), ("addr0", "dedicated")]));
    for nic in ["data0", "addr0"] {
        site.nic(nic);
        site.run(&format!("ip link set {nic} down"));
    }
    // it is the host's own: guarded, and left as it is
    site.run("ip addr add 192.0.2.1/24 dev addr0");
    let daemon = site.start();
    let nics = async || -> List<Nic> { daemon.client().get("/dtn/v1/nics").await.unwrap() };
    let of = |nics: &List<Nic>, name: &str| {
        let mut nics = nics.items.iter();
        nics.find(|nic| nic.name.as_str() == name).unwrap().clone()
    };
    let began = Instant::now();
    while !of(&nics().await, "data0").carrier {
        assert!(began.elapsed() < site::LONG, "{}", site.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        site.run("cat /proc/sys/net/ipv6/conf/data0/accept_ra")
            .trim(),
        "0"
    );
    assert!(!of(&nics().await, "addr0").up);

    // the admin switches it off: it stays so, beyond the next look of 10 s
    site.run("ip link set data0 down");
    tokio::time::sleep(Duration::from_secs(13)).await;
    assert!(!of(&nics().await, "data0").up);
    let status: Status = daemon.client().get("/dtn/v1/status").await.unwrap();
    let check = status.checks.iter().find(|c| c.name == "nics").unwrap();
    assert!(
        check
            .detail
            .contains("data0: switched off: ip link set data0 up"),
        "{}",
        check.detail
    );
    assert_eq!(
        site.log().matches("it was off and is switched on").count(),
        1
    );
}

#[tokio::test]
async fn a_nic_in_a_sandbox_is_known_with_its_holder_and_its_carrier() {
    let Some(site) = Site::new("sandbox") else {
        return;
    };
    site.config(ONE_NIC);
    site.nic("data0");
    let shown: serde_json::Value =
        serde_json::from_str(&site.run("ip -j link show data0")).unwrap();
    let pod = Pin::new(site.root().join("run/dtn/netns/u-1"));
    let prepared = serde_json::json!({
        "version": 1, "key": "u-1", "prepared_at": "2027-01-01T00:00:00Z",
        "pod": {"uid": "u-1", "name": "mover", "namespace": "default", "engine": "podman"},
        "interfaces": [{
            "ifname": "net1", "network": "dtn", "class": "dedicated", "nic_name": "data0",
            "nic": {"netns_inode": site.netns.inode(), "ifindex": shown[0]["ifindex"]},
            "mac": shown[0]["address"], "mtu": 1500, "leases": [], "slices": [],
        }],
    });
    let folder = site.root().join("run/dtn/prepared");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("u-1.json"), prepared.to_string()).unwrap();
    let daemon = site.start();
    let nic = async || -> Nic {
        let nics: List<Nic> = daemon.client().get("/dtn/v1/nics").await.unwrap();
        assert_eq!(nics.items.len(), 1, "{nics:?}");
        nics.items[0].clone()
    };
    // prepared: still on the host, and held
    assert_eq!(
        (nic().await.used_by, nic().await.carrier),
        (vec!["u-1".to_owned()], true)
    );
    let target = pod.netns.proc_path();
    site.run(&format!(
        "ip link set data0 netns {} name net1",
        target.display()
    ));
    assert!(!nic().await.carrier, "it is down in there");
    let up = std::process::Command::new("nsenter")
        .arg(format!("--net={}", target.display()))
        .args(["ip", "link", "set", "net1", "up", "mtu", "9000"])
        .status()
        .unwrap();
    assert!(up.success());
    let held = nic().await;
    assert_eq!(held.name.as_str(), "data0");
    assert_eq!(held.used_by, ["u-1"]);
    assert!(held.carrier);
    assert_eq!(held.mtu, 9000, "as it is in there");
    assert_eq!(held.mac.to_string(), shown[0]["address"].as_str().unwrap());
    // and known again after a restart
    daemon.kill();
    let daemon = site.start();
    let nics: List<Nic> = daemon.client().get("/dtn/v1/nics").await.unwrap();
    assert_eq!(nics.items[0].used_by, ["u-1"]);
    assert_eq!(nics.items[0].mac, held.mac);
}

#[tokio::test]
async fn a_host_that_has_not_joined_says_so_and_what_to_do() {
    let Some(site) = Site::new("not joined") else {
        return;
    };
    site.config(ONE_NIC);
    site.nic("data0");
    let daemon = site.start();
    let client = daemon.client();
    let status: Status = client.get("/dtn/v1/status").await.unwrap();
    assert!(!status.ready && status.domain.is_none());
    assert!(status.next.contains("dtnctl host join"), "{}", status.next);
    let nics: List<Nic> = client.get("/dtn/v1/nics").await.unwrap();
    assert_eq!(
        nics.items[0].speed.unwrap().to_string(),
        "5Gbit",
        "as given"
    );
    let slices: List<LocalSlice> = client.get("/dtn/v1/slices").await.unwrap();
    assert!(slices.items.is_empty());
    let ask = serde_json::json!({
        "name": "a", "class": "guaranteed", "duration": "1h", "nic_class": "dedicated",
        "remote": {"domain": "busan"},
    });
    let refused = problem(
        client
            .post::<_, serde_json::Value>("/dtn/v1/slices", &ask)
            .await,
    );
    assert!(refused.is(Kind::BackendUnavailable) && refused.request_id.is_some());
    assert!(refused.detail.contains("dtnctl host join"), "{refused}");
    let not_ready = problem(client.get::<Status>("/dtn/v1/ready").await);
    assert_eq!(not_ready.status, 503);
    assert!(!not_ready.errors.is_empty());
}

#[tokio::test]
async fn every_refusal_is_a_problem_document() {
    let Some(site) = Site::new("refusals") else {
        return;
    };
    site.config(ONE_NIC);
    let daemon = site.start();
    let client = daemon.client();
    type Any = serde_json::Value;
    let no_path = problem(client.get::<Any>("/dtn/v1/nowhere").await);
    assert_eq!(
        (no_path.status, no_path.instance.as_deref()),
        (404, Some("/dtn/v1/nowhere"))
    );
    let no_verb = problem(client.post::<_, Any>("/dtn/v1/nics", &()).await);
    assert_eq!(no_verb.status, 405);
    let body = serde_json::json!({"name": "a", "surprise": 1});
    let bad_body = problem(client.post::<_, Any>("/dtn/v1/slices", &body).await);
    assert!(bad_body.is(Kind::InvalidRequest) && bad_body.detail.contains("surprise"));
    let bad_name = problem(client.get::<Any>("/dtn/v1/slices/No_Name").await);
    assert_eq!(bad_name.status, 400);
    let no_id = problem(client.get::<Any>("/dtn/v1/negotiations/7").await);
    assert_eq!(no_id.status, 400);
    let wish = serde_json::json!({
        "name": "a", "class": "guaranteed", "duration": "0s", "nic_class": "dedicated",
        "rate": "0bit", "min_rate": "1Mbit", "start": "2001-01-01T00:00:00Z",
    });
    let all = problem(client.post::<_, Any>("/dtn/v1/slices", &wish).await);
    let places: Vec<&str> = all
        .errors
        .iter()
        .map(|fault| fault.pointer.as_str())
        .collect();
    assert_eq!(
        places,
        ["/rate", "/min_rate", "/remote", "/duration", "/start"]
    );
}

#[tokio::test]
async fn the_socket_is_roots_alone_and_one_process_has_it() {
    let Some(site) = Site::new("one process") else {
        return;
    };
    site.config(ONE_NIC);
    let daemon = site.start();
    let mode = std::fs::metadata(daemon.socket())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = site.dtnd().output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another dtnd runs"), "{said}");
    // the first still serves
    daemon
        .client()
        .get::<Status>("/dtn/v1/status")
        .await
        .unwrap();
    // what a killed process leaves does not keep the next from starting
    let socket = daemon.socket().to_owned();
    daemon.kill();
    assert!(socket.exists());
    let daemon = site.start();
    daemon
        .client()
        .get::<Status>("/dtn/v1/status")
        .await
        .unwrap();
    assert_eq!(daemon.stop().code(), Some(0));
    assert!(!socket.exists());
}

#[tokio::test]
async fn the_service_manager_is_told_ready_status_watchdog_and_stopping() {
    let Some(site) = Site::new("notify") else {
        return;
    };
    site.config(ONE_NIC);
    let path = site.dir.path().join("notify");
    let heard = tokio::net::UnixDatagram::bind(&path).unwrap();
    let mut command = site.dtnd();
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "300000");
    command.env_remove("WATCHDOG_PID");
    let daemon = site.start_with(command);
    let mut words = String::new();
    let mut buffer = [0; 4096];
    let mut listen = async |word: &str| {
        while !words.contains(word) {
            let received = tokio::time::timeout(site::LONG, heard.recv(&mut buffer));
            let length = received.await.expect(word).unwrap();
            words.push_str(&String::from_utf8_lossy(&buffer[..length]));
            words.push('\n');
        }
    };
    listen("READY=1").await;
    listen("STATUS=").await;
    listen("WATCHDOG=1").await;
    let stopped = daemon.stop();
    assert_eq!(stopped.code(), Some(0));
    listen("STOPPING=1").await;
}

#[tokio::test]
async fn metrics_are_on_the_socket_and_on_the_loopback_address() {
    let Some(site) = Site::new("metrics") else {
        return;
    };
    site.config(&format!(
        "{ONE_NIC}\n[metrics]\nlisten = \"127.0.0.1:9464\"\n"
    ));
    site.nic("data0");
    let daemon = site.start();
    let by_socket = fetch(
        std::os::unix::net::UnixStream::connect(daemon.socket()).unwrap(),
        "/metrics",
    );
    let tcp = |path: &'static str| {
        let work = move || fetch(TcpStream::connect("127.0.0.1:9464").unwrap(), path);
        site.netns.run_blocking(work).unwrap()
    };
    for page in [by_socket, tcp("/metrics")] {
        assert!(page.contains("dtn_nic_carrier{nic=\"data0\"} 1"), "{page}");
        assert!(page.ends_with("# EOF\n"), "{page}");
    }
    // nothing else is served without a credential
    let status = tcp("/dtn/v1/status");
    assert!(status.contains("not-found"), "{status}");
}

/// The answer to a GET, as it is on the wire.
fn fetch(mut stream: impl Read + Write, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn an_invalid_configuration_ends_with_78_and_every_problem() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dtnd.toml");
    let run = |arguments: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_dtnd"))
            .args(["--root", dir.path().to_str().unwrap()])
            .args(["--config", file.to_str().unwrap()])
            .args(arguments)
            .output()
            .unwrap()
    };
    let absent = run(&[]);
    assert_eq!(absent.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&absent.stderr).contains("no configuration at"));
    std::fs::write(
        &file,
        "version = 1\n[host]\nname = \"A\"\n[tuning]\nrtt = 5\n",
    )
    .unwrap();
    for arguments in [&[][..], &["--check-config"][..]] {
        let bad = run(arguments);
        assert_eq!(bad.status.code(), Some(78));
        let said = String::from_utf8_lossy(&bad.stderr).into_owned();
        assert!(
            said.contains("host.name:") && said.contains("tuning.rtt:"),
            "{said}"
        );
    }
    assert!(!dir.path().join("var").exists(), "nothing was touched");
    std::fs::write(&file, ONE_NIC).unwrap();
    let good = run(&["--check-config"]);
    assert_eq!(good.status.code(), Some(0));
    let wrong = run(&["--no-such-option"]);
    assert_eq!(wrong.status.code(), Some(2));
}
