//! Two domains with a host each, in one namespace: the real `dtnd`, and the controller as a process
//! of this test's own program. Join, federate, negotiate, extend, end; and both killed in between.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod site;

use dtn_api::{
    Rate,
    client::Client,
    domain::{Accept, Domain, Invitation},
    host::Host,
    lease::{Lease, LeaseState},
    local::{Ask, Join, LocalSlice, Negotiation, NegotiationState, Status},
    slice::{List, Reservation, Slice},
};
use serde_json::json;
use site::{Daemon, LONG, Site, problem, until};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The two domains, by the port of their controllers.
const DOMAINS: [(&str, u16); 2] = [("daejeon", 7443), ("busan", 7444)];

/// Not a test by itself: the controller's process. [`Controller::start`] runs it.
#[test]
#[ignore = "is the controller's process of the other tests"]
fn controller_process() {
    let (Ok(root), Ok(config)) = (std::env::var("VDND_ROOT"), std::env::var("VDND_CONFIG")) else {
        return;
    };
    rustls::crypto::ring::default_provider()
        .install_default()
        .unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = vdnd::config::load(Path::new(&config)).unwrap().config;
    runtime
        .block_on(vdnd::run(config, Path::new(&root), Default::default()))
        .unwrap();
}

struct Controller {
    child: Child,
    root: PathBuf,
}
impl Controller {
    fn start(site: &Site, domain: &str) -> Self {
        let root = site.dir.path().join(format!("vdnd-{domain}"));
        let (own, other) = match domain {
            "daejeon" => (DOMAINS[0], DOMAINS[1]),
            _ => (DOMAINS[1], DOMAINS[0]),
        };
        let third = if domain == "daejeon" { 64 } else { 65 };
        std::fs::create_dir_all(&root).unwrap();
        let config = root.join("vdnd.toml");
        let text = format!(
            "version = 1\n[domain]\nname = \"{domain}\"\n[listen]\naddress = \"127.0.0.1:{}\"\n\
             [[border]]\nname = \"wan\"\npeer-domain = \"{}\"\npeer-ref = \"wan\"\n\
             capacity = \"1Gbit\"\nlatency = \"5ms\"\nmtu = 9000\n\
             [addresses]\nipv4 = \"10.{third}.0.0/16\"\nipv6 = \"fd{third}::/48\"\n",
            own.1, other.0
        );
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(site.dir.path().join("log"))
            .unwrap();
        let child = site
            .inside(std::env::current_exe().unwrap().to_str().unwrap())
            .args(["--ignored", "--exact", "controller_process", "--nocapture"])
            .env("VDND_ROOT", &root)
            .env("VDND_CONFIG", &config)
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut controller = Self { child, root };
        let began = Instant::now();
        while std::os::unix::net::UnixStream::connect(controller.socket()).is_err() {
            let ended = controller.child.try_wait().unwrap();
            assert!(ended.is_none(), "the controller ended\n{}", site.log());
            assert!(began.elapsed() < LONG, "no controller\n{}", site.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        controller
    }
    fn socket(&self) -> PathBuf {
        self.root.join("run/dtn/vdnd.sock")
    }
    fn client(&self) -> Client {
        Client::unix(&self.socket(), Duration::from_secs(60)).unwrap()
    }
    async fn invite(&self, kind: &str, name: &str) -> Invitation {
        let body = json!({"kind": kind, "name": name});
        self.client()
            .post("/vdn/v1/invitations", &body)
            .await
            .unwrap()
    }
    /// What is booked under this name.
    async fn booked(&self, name: &str) -> Vec<Slice> {
        let all: List<Slice> = self.client().get("/vdn/v1/slices").await.unwrap();
        let now = jiff::Timestamp::now();
        let named = |slice: &Slice| slice.spec.name.as_str() == name && slice.booked_at(now);
        all.items.into_iter().filter(named).collect()
    }
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
impl Drop for Controller {
    fn drop(&mut self) {
        // it may have been waited for already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two federated domains with a host each that has joined.
struct World {
    site: Site,
    controllers: [Controller; 2],
    daemons: [Daemon; 2],
}

impl World {
    async fn new(test: &str) -> Option<Self> {
        let site = Site::new(test)?;
        let controllers = DOMAINS.map(|(domain, _)| Controller::start(&site, domain));
        let mut daemons = Vec::new();
        for (n, (domain, _)) in DOMAINS.iter().enumerate() {
            site.nic(&format!("data{n}"));
            let daemon = start(&site, n);
            let name = format!("dtn-{domain}");
            let invitation = controllers[n].invite("host", &name).await;
            let join = Join { invitation };
            let joined: Status = daemon.client().post("/dtn/v1/join", &join).await.unwrap();
            assert_eq!(joined.domain.unwrap().as_str(), *domain);
            // twice is success
            let _: Status = daemon.client().post("/dtn/v1/join", &join).await.unwrap();
            daemons.push(daemon);
        }
        let invitation = controllers[0].invite("domain", "busan").await;
        let _: Domain = controllers[1]
            .client()
            .post("/vdn/v1/domains", &Accept { invitation })
            .await
            .unwrap();
        let daemons: [Daemon; 2] = daemons.try_into().ok()?;
        let world = Self {
            site,
            controllers,
            daemons,
        };
        for daemon in &world.daemons {
            until("both are ready but for podman", async || {
                let status: Status = daemon.client().get("/dtn/v1/status").await.unwrap();
                let well = |name: &str| status.checks.iter().any(|c| c.name == name && c.ok);
                (well("controller") && well("nics")).then_some(())
            })
            .await;
        }
        Some(world)
    }
    async fn ask(&self, body: serde_json::Value) -> Negotiation {
        let ask: Ask = serde_json::from_value(body).unwrap();
        let answer = self.daemons[0].client().post("/dtn/v1/slices", &ask).await;
        answer.unwrap_or_else(|e| panic!("{e}\n{}", self.site.log()))
    }
    async fn slice(&self, n: usize, name: &str) -> LocalSlice {
        until("the slice is seen", async || {
            let all: List<LocalSlice> = self.daemons[n]
                .client()
                .get("/dtn/v1/slices")
                .await
                .unwrap();
            let named = |local: &LocalSlice| local.slice.spec.name.as_str() == name;
            all.items.into_iter().find(named)
        })
        .await
    }
    async fn booked(&self, name: &str) -> [Vec<Slice>; 2] {
        [
            self.controllers[0].booked(name).await,
            self.controllers[1].booked(name).await,
        ]
    }
}

fn command(site: &Site, n: usize) -> Command {
    let (root, config) = (
        site.dir.path().join(format!("dtnd-{n}")),
        site.dir.path().join(format!("dtnd-{n}.toml")),
    );
    let domain = DOMAINS[n].0;
    let text = format!(
        "version = 1\n[host]\nname = \"dtn-{domain}\"\n[[nic]]\nname = \"data{n}\"\n\
         class = \"dedicated\"\nspeed = \"10Gbit\"\nshare-with = \"federation\"\n\
         [podman]\nsocket = \"{}/none.sock\"\n",
        root.display()
    );
    std::fs::write(&config, text).unwrap();
    site.dtnd_at(&root, &config)
}
fn start(site: &Site, n: usize) -> Daemon {
    site.start_at(command(site, n), &site.dir.path().join(format!("dtnd-{n}")))
}

fn wish(name: &str, extra: serde_json::Value) -> serde_json::Value {
    let mut wish = json!({
        "name": name, "class": "guaranteed", "duration": "1h", "nic_class": "dedicated",
        "remote": {"domain": "busan"},
    });
    wish.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    wish
}
fn mbit(rate: u64) -> Rate {
    Rate::from_bps(rate * 1_000_000)
}

#[tokio::test]
async fn a_wish_becomes_a_slice_on_both_sides_or_a_number_that_would_fit() {
    let Some(world) = World::new("wish").await else {
        return;
    };
    // only to know: nothing is booked
    let known = world.ask(wish("probe", json!({"dry_run": true}))).await;
    assert_eq!(known.offer.as_ref().unwrap().rate, mbit(950), "{known:?}");
    assert_eq!(world.booked("probe").await.map(|b| b.len()), [0, 0]);

    let first = world.ask(wish("one", json!({"rate": "600Mbit"}))).await;
    assert_eq!(
        first.state,
        NegotiationState::Agreed,
        "{first:?}\n{}",
        world.site.log()
    );
    for booked in world.booked("one").await {
        assert_eq!(booked.len(), 1);
        assert_eq!(booked[0].status.reservation, Reservation::Committed);
        assert_eq!(booked[0].spec.qos.rate_bps, 600_000_000);
    }
    // the same wish again is the same slice
    let again = world.ask(wish("one", json!({"rate": "600Mbit"}))).await;
    assert_eq!((again.id, again.slice_id), (first.id, first.slice_id));
    // the far host finds it by its name, with what TCP can carry at the slice's MTU
    let far = world.slice(1, "one").await;
    let near = world.slice(0, "one").await;
    let mtu = near.slice.spec.addressing.as_ref().unwrap().mtu;
    assert_eq!(near.ceiling, mbit(600).tcp_ceiling(mtu, false));
    assert_eq!(far.ceiling, near.ceiling);
    assert_eq!(near.warning, None);

    // more than is left: the number that would fit
    let refused = world.ask(wish("two", json!({"rate": "600Mbit"}))).await;
    assert_eq!(refused.state, NegotiationState::Refused);
    assert_eq!(refused.offer.unwrap().rate, mbit(350), "{}", refused.reason);
    assert!(
        refused.reason.contains("350Mbit would fit"),
        "{}",
        refused.reason
    );
    assert_eq!(world.booked("two").await.map(|b| b.len()), [0, 0]);
    // with a least rate the rest is taken
    let rest = json!({"rate": "600Mbit", "min_rate": "100Mbit"});
    let rest = world.ask(wish("two", rest)).await;
    assert_eq!(rest.state, NegotiationState::Agreed, "{rest:?}");
    for booked in world.booked("two").await {
        assert_eq!(booked[0].spec.qos.rate_bps, 350_000_000);
    }

    // a later end, on both sides
    let longer: LocalSlice = world.daemons[0]
        .client()
        .post("/dtn/v1/slices/one/extend", &json!({"by": "30m"}))
        .await
        .unwrap_or_else(|e| panic!("{e}\n{}", world.site.log()));
    let end = longer.slice.spec.schedule.end;
    assert_eq!(
        end.duration_since(near.slice.spec.schedule.end),
        jiff::SignedDuration::from_mins(30)
    );
    for booked in world.booked("one").await {
        assert_eq!(booked[0].spec.schedule.end, end);
    }

    // ended on both sides, from either side, and twice is success
    for (n, name) in [(0, "one"), (1, "two")] {
        let client = world.daemons[n].client();
        client
            .delete(&format!("/dtn/v1/slices/{name}"), None)
            .await
            .unwrap();
        client
            .delete(&format!("/dtn/v1/slices/{name}"), None)
            .await
            .unwrap();
        until("both sides are free", async || {
            let booked = world.booked(name).await.map(|b| b.len());
            (booked == [0, 0]).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_revoked_host_is_let_in_again_by_a_new_invitation_alone() {
    let Some(world) = World::new("let in again").await else {
        return;
    };
    let (host, controller) = (world.daemons[0].client(), &world.controllers[0]);
    let join = async |invitation: &Invitation| {
        let body = Join {
            invitation: invitation.clone(),
        };
        host.post::<_, Status>("/dtn/v1/join", &body).await
    };
    // whether the controller has heard of its NIC; and whether the host says that it is kept out
    let declared = async || {
        let hosts: List<Host> = controller.client().get("/vdn/v1/hosts").await.unwrap();
        !hosts.items.is_empty()
    };
    let open = controller.invite("host", "dtn-daejeon").await;
    let _: serde_json::Value = controller
        .client()
        .post("/vdn/v1/nodes/dtn-daejeon/actions/revoke", &json!({}))
        .await
        .unwrap();
    assert!(!declared().await);
    let status: Status = until("the host says so", async || {
        let status: Status = host.get("/dtn/v1/status").await.unwrap();
        let refused = |c: &&dtn_api::local::Check| c.detail.contains("was revoked");
        let found = status.checks.iter().any(|check| refused(&check));
        found.then_some(status)
    })
    .await;
    assert!(!status.ready);
    // a word that was given out before the revocation opens nothing
    join(&open).await.unwrap_err();
    assert!(!declared().await);
    let other = controller.invite("host", "dtn-daejeon").await;
    for _ in 0..2 {
        join(&other).await.unwrap();
    }
    until("its NIC is declared again", async || {
        declared().await.then_some(())
    })
    .await;
    // another domain's invitation does not move it
    let far = world.controllers[1].invite("host", "dtn-daejeon").await;
    let refused = join(&far).await.unwrap_err();
    assert!(
        refused.to_string().contains("one domain at a time"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_supervisor_that_is_killed_takes_its_negotiations_up_again() {
    let Some(mut world) = World::new("killed").await else {
        return;
    };
    // killed at whatever step it is after so many milliseconds
    for (n, pause) in [0, 2, 5, 10, 20, 40, 80].into_iter().enumerate() {
        let name = format!("k{n}");
        let client = world.daemons[0].client();
        let ask = wish(&name, json!({"rate": "100Mbit"}));
        let asked = tokio::spawn(async move {
            client
                .post::<_, Negotiation>("/dtn/v1/slices", &ask)
                .await
                .ok()
        });
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let fresh = start_after_kill(&mut world);
        world.daemons[0] = fresh;
        let answer = asked.await.unwrap();
        let folder = world
            .site
            .dir
            .path()
            .join("dtnd-0/var/lib/dtn/negotiations");
        let case = || -> Option<serde_json::Value> {
            let files = std::fs::read_dir(&folder).unwrap();
            let texts = files.filter_map(|f| std::fs::read_to_string(f.unwrap().path()).ok());
            let cases = texts.filter_map(|t| serde_json::from_str::<serde_json::Value>(&t).ok());
            cases
                .into_iter()
                .find(|case| case["ask"]["name"] == name.as_str())
        };
        if case().is_none() {
            // it was killed before it had written down what was asked: nothing was done either
            assert!(answer.is_none());
            assert_eq!(world.booked(&name).await.map(|b| b.len()), [0, 0]);
            continue;
        }
        let began = Instant::now();
        let step = until("the negotiation is settled", async || {
            let late = began.elapsed() > LONG / 2;
            assert!(!late, "{:?}\n{}", case(), world.site.log());
            let step = case()?["step"].as_str()?.to_owned();
            matches!(step.as_str(), "agreed" | "failed" | "refused").then_some(step)
        })
        .await;
        assert_eq!(step, "agreed", "{:?}\n{}", case(), world.site.log());
        for booked in world.booked(&name).await {
            assert_eq!(booked.len(), 1, "once, not twice");
            assert_eq!(booked[0].status.reservation, Reservation::Committed);
        }
        let client = world.daemons[0].client();
        client
            .delete(&format!("/dtn/v1/slices/{name}"), None)
            .await
            .unwrap();
        let booked = world.booked(&name).await.map(|b| b.len());
        assert_eq!(booked, [0, 0], "{}", world.site.log());
    }
}

fn start_after_kill(world: &mut World) -> Daemon {
    world.daemons[0].child.kill().unwrap();
    world.daemons[0].child.wait().unwrap();
    start(&world.site, 0)
}

#[tokio::test]
async fn what_stands_goes_on_while_the_controller_is_away() {
    let Some(mut world) = World::new("away").await else {
        return;
    };
    let agreed = world.ask(wish("kept", json!({"rate": "100Mbit"}))).await;
    assert_eq!(agreed.state, NegotiationState::Agreed, "{agreed:?}");
    let before = world.slice(0, "kept").await;
    let [near, far] = world.controllers;
    near.kill();
    // the last view stays, and says that it is old news to come
    let away = world.daemons[0].client();
    let shown: List<LocalSlice> = away.get("/dtn/v1/slices").await.unwrap();
    assert_eq!(shown.items[0].slice.id, before.slice.id);
    let ask: Ask = serde_json::from_value(wish("later", json!({"dry_run": true}))).unwrap();
    let asked =
        tokio::spawn(async move { away.post::<_, Negotiation>("/dtn/v1/slices", &ask).await });
    // back again: what was asked meanwhile is answered
    world.controllers = [Controller::start(&world.site, "daejeon"), far];
    let answered = asked.await.unwrap().unwrap();
    assert_eq!(
        answered.offer.unwrap().rate,
        mbit(850),
        "{}",
        answered.reason
    );
    let after = world.slice(0, "kept").await;
    assert_eq!(after.slice.id, before.slice.id);
    assert_eq!(after.slice.status.reservation, Reservation::Committed);
}

#[tokio::test]
async fn a_full_disk_is_told_and_the_wish_goes_on_once_there_is_room() {
    let Some(mut world) = World::new("full-disk").await else {
        return;
    };
    let root = world.site.dir.path().join("dtnd-0");
    let folder = root.join("var/lib/dtn/negotiations");
    world.daemons[0].child.kill().unwrap();
    world.daemons[0].child.wait().unwrap();
    let mut limited = command(&world.site, 0);
    let small = format!("mount -t tmpfs -o size=64k none {}", folder.display());
    limited.env("MOUNT_TOO", small);
    world.daemons[0] = world.site.start_at(limited, &root);
    // the mount is the process's own: it is seen through its root
    let inside = format!(
        "/proc/{}/root{}",
        world.daemons[0].child.id(),
        folder.display()
    );
    let filler = format!("{inside}/filler");
    let fill = || {
        let mut file = std::fs::File::create(&filler).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    };
    let client = world.daemons[0].client();
    let ask = wish("full", json!({"rate": "100Mbit"}));

    // full from the start: nothing is begun
    fill();
    let refused = problem(client.post::<_, Negotiation>("/dtn/v1/slices", &ask).await);
    assert!(refused.detail.contains("No space left"), "{refused:?}");
    assert_eq!(world.booked("full").await.map(|b| b.len()), [0, 0]);
    std::fs::remove_file(&filler).unwrap();

    // full in the middle, which is held by a controller that is not there
    let [near, far] = world.controllers;
    near.kill();
    let asked = tokio::spawn({
        let (client, ask) = (client.clone(), ask.clone());
        async move { client.post::<_, Negotiation>("/dtn/v1/slices", &ask).await }
    });
    until("the wish is written down", async || {
        let mut files = std::fs::read_dir(&inside).unwrap();
        files.next().map(drop)
    })
    .await;
    fill();
    let told = asked.await.unwrap().unwrap();
    assert_eq!(told.state, NegotiationState::Asking, "{told:?}");
    assert!(told.reason.contains("No space left"), "{told:?}");
    std::fs::remove_file(&filler).unwrap();
    world.controllers = [Controller::start(&world.site, "daejeon"), far];
    until("it is agreed", async || {
        let at = format!("/dtn/v1/negotiations/{}", told.id);
        let now: Negotiation = client.get(&at).await.unwrap();
        assert!(
            !matches!(
                now.state,
                NegotiationState::Failed | NegotiationState::Refused
            ),
            "{now:?}"
        );
        (now.state == NegotiationState::Agreed).then_some(())
    })
    .await;
    assert_eq!(world.booked("full").await.map(|b| b.len()), [1, 1]);
}

#[tokio::test]
async fn a_slice_that_ends_is_best_effort_then_and_its_negotiation_is_over() {
    let Some(world) = World::new("end").await else {
        return;
    };
    let short = json!({"rate": "100Mbit", "duration": "3s"});
    let agreed = world.ask(wish("short", short)).await;
    assert_eq!(agreed.state, NegotiationState::Agreed, "{agreed:?}");
    for n in [0, 1] {
        until("the end is told on both sides", async || {
            let warning = world.slice(n, "short").await.warning?;
            warning.contains("best effort").then_some(())
        })
        .await;
    }
    until("the negotiation is over", async || {
        let path = format!("/dtn/v1/negotiations/{}", agreed.id);
        let now: Negotiation = world.daemons[0].client().get(&path).await.unwrap();
        (now.state == NegotiationState::Ended).then_some(())
    })
    .await;
    until("it is in the log", async || {
        world.site.log().contains("has ended").then_some(())
    })
    .await;
    assert_eq!(world.booked("short").await.map(|b| b.len()), [0, 0]);
    // the name is free again
    let again = world.ask(wish("short", json!({"rate": "100Mbit"}))).await;
    assert_eq!(again.state, NegotiationState::Agreed, "{again:?}");
    assert_ne!(again.id, agreed.id);
}

#[tokio::test]
async fn leases_in_use_are_renewed_and_queued_ones_are_given_back() {
    let Some(world) = World::new("leases").await else {
        return;
    };
    let agreed = world.ask(wish("leased", json!({"rate": "100Mbit"}))).await;
    let slice = agreed.slice_id.unwrap();
    let controller = world.controllers[0].client();
    let request = json!({
        "client_id": "podman:dtn-daejeon/u-1/net1", "mac": "02:00:00:00:00:77",
        "labels": {"node": "dtn-daejeon"},
    });
    let path = format!("/vdn/v1/slices/{slice}/leases");
    let mut lease: Lease = controller.post_once(&path, "k", &request).await.unwrap();
    let (id, version) = (lease.id, lease.version);
    // as a pod's prepared file has it, with its T1 already past
    lease.t1 = "2020-01-01T00:00:00Z".parse().unwrap();
    let prepared = json!({
        "version": 1, "key": "u-1", "prepared_at": "2027-01-01T00:00:00Z",
        "pod": {"uid": "u-1", "name": "mover", "namespace": "default", "engine": "podman"},
        "interfaces": [{
            "ifname": "net1", "network": "dtn", "class": "shared", "nic_name": "data0",
            "nic": {}, "mac": lease.mac, "mtu": 1500, "leases": [lease], "slices": [],
        }],
    });
    let root = world.site.dir.path().join("dtnd-0");
    let file = root.join("run/dtn/prepared/u-1.json");
    std::fs::write(&file, prepared.to_string()).unwrap();
    let current = async || -> Lease {
        controller
            .get(&format!("/vdn/v1/leases/{id}"))
            .await
            .unwrap()
    };
    until("it is renewed", async || {
        (current().await.version > version).then_some(())
    })
    .await;
    let metric = async |line: &str| {
        use std::io::{Read, Write};
        let socket = world.daemons[0].socket();
        let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page.lines().any(|found| found == line).then_some(())
    };
    until("it is counted", async || metric("dtn_leases{} 1").await).await;
    until("as renewed", async || {
        metric("dtn_lease_renewals_total{} 1").await
    })
    .await;
    // the pod is gone, and a plugin could not give the lease back
    std::fs::remove_file(&file).unwrap();
    let queued = json!({
        "version": 1, "lease_id": id, "slice_id": slice,
        "client_id": "podman:dtn-daejeon/u-1/net1",
        "queued_at": "2027-01-01T00:00:00Z", "reason": "no answer",
    });
    let queued_file = root.join(format!("var/lib/dtn/releases/{id}.json"));
    std::fs::write(&queued_file, queued.to_string()).unwrap();
    until("it is given back", async || {
        (!queued_file.exists()).then_some(())
    })
    .await;
    let bound = current().await;
    assert_ne!(bound.state, LeaseState::Bound, "{bound:?}");
}
