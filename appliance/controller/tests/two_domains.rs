//! Two real controllers over TLS on loopback: hosts enrol, domains federate, a slice is held and
//! committed on both sides, or on neither.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use dtn_api::{
    HostId, Problem, VDN_BASE,
    client::{Client, ClientError, TlsIdentity, fingerprint},
    domain::{Domain, Enrolled, Enrolment, Invitation, InviteKind, InviteRequest},
    host::{Enforcement, Host, HostKind, HostSpec},
    lease::{Lease, LeaseRequest, RenewBatch, RenewResult},
    problem::Kind,
    slice::{
        Availability, AvailabilityQuery, Class, DataPlane, Extend, Lifecycle, List, Member, Qos,
        RemoteEnd, Reservation, Role, Schedule, Slice,
    },
    stitch::{Stitch, StitchSpec, StitchState},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::{path::Path, time::Duration};
use tokio_util::sync::CancellationToken;
use vdnd::serve::Running;

const GIGABIT: u64 = 1_000_000_000;
const CALL: Duration = Duration::from_secs(20);

struct Domains {
    folder: tempfile::TempDir,
    running: Option<Running>,
    stop: CancellationToken,
    name: &'static str,
    peer: &'static str,
    /// Root on the machine.
    admin: Client,
    /// Node `dtn` of the domain.
    node: Option<Client>,
}

fn config(name: &str, peer: &str, port: u16) -> vdnd::Config {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vdnd.toml");
    let net = if name == "daejeon" { 20 } else { 30 };
    let text = format!(
        "version = 1\n[domain]\nname = \"{name}\"\n[listen]\naddress = \"127.0.0.1:{port}\"\n\
         [[border]]\nname = \"wan\"\npeer-domain = \"{peer}\"\ncapacity = \"1Gbit\"\nlatency = \"5ms\"\nmtu = 9000\n\
         [addresses]\nipv4 = \"10.{net}.0.0/16\"\nipv6 = \"fd00:{net}::/48\"\n"
    );
    std::fs::write(&file, text).unwrap();
    vdnd::config::load(&file).unwrap().config
}

impl Domains {
    async fn start(name: &'static str, peer: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let running = vdnd::serve::start(config(name, peer, 0), folder.path(), stop.clone())
            .await
            .unwrap();
        let socket = folder.path().join("run/dtn/vdnd.sock");
        let admin = Client::unix(&socket, CALL).unwrap();
        Self {
            folder,
            running: Some(running),
            stop,
            name,
            peer,
            admin,
            node: None,
        }
    }
    fn url(&self) -> String {
        format!("https://{}", self.running.as_ref().unwrap().address)
    }
    /// Stops it and starts it again on the same state and port.
    async fn restart(&mut self) {
        let port = self.running.as_ref().unwrap().address.port();
        self.stop.cancel();
        self.running.take().unwrap().ended().await.unwrap();
        self.stop = CancellationToken::new();
        let config = config(self.name, self.peer, port);
        let started = vdnd::serve::start(config, self.folder.path(), self.stop.clone()).await;
        self.running = Some(started.unwrap());
    }
    async fn invite(&self, kind: InviteKind, name: &str) -> Invitation {
        let request = InviteRequest {
            kind,
            name: name.parse().unwrap(),
            valid_seconds: 60,
        };
        self.admin
            .post(&path("/invitations"), &request)
            .await
            .unwrap()
    }
    /// Enrols node `dtn` and declares its NIC `data0`.
    async fn with_node(mut self, mac: &str) -> Self {
        let invitation = self.invite(InviteKind::Host, "dtn").await;
        let (csr, key) = request();
        let enrolled = enrol(&invitation, &csr).await.unwrap();
        let identity = TlsIdentity {
            ca_pem: enrolled.ca_pem.clone(),
            own: Some((enrolled.certificate_pem, key)),
        };
        let node = Client::tls(&self.url(), &identity, CALL).unwrap();
        let _: Host = put(&node, &format!("/hosts/{mac}-none"), &nic())
            .await
            .unwrap();
        self.node = Some(node);
        self
    }
    fn node(&self) -> &Client {
        self.node.as_ref().unwrap()
    }
    async fn slices(&self) -> Vec<Slice> {
        self.admin
            .get::<List<Slice>>(&path("/slices"))
            .await
            .unwrap()
            .items
    }
}
impl Drop for Domains {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn path(of: &str) -> String {
    format!("{VDN_BASE}{of}")
}
fn nic() -> HostSpec {
    HostSpec {
        kind: HostKind::Nic,
        node: "dtn".parse().unwrap(),
        nic: "data0".parse().unwrap(),
        capacity_bps: 10 * GIGABIT,
        mtu: 9000,
        location: None,
        ips: vec![],
        permitted: true,
    }
}
fn request() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["ignored.example".into()]).unwrap();
    (
        params.serialize_request(&key).unwrap().pem().unwrap(),
        key.serialize_pem(),
    )
}
async fn enrol(invitation: &Invitation, csr: &str) -> Result<Enrolled, ClientError> {
    let client = Client::pinned(&invitation.url, &invitation.ca_pin, CALL)?;
    let body = Enrolment {
        secret: invitation.secret.clone(),
        csr_pem: csr.to_owned(),
        now: None,
    };
    client.post(&path("/enrolments"), &body).await
}
async fn put<B: serde::Serialize, T: serde::de::DeserializeOwned>(
    client: &Client,
    at: &str,
    body: &B,
) -> Result<T, ClientError> {
    Ok(client
        .call(http::Method::PUT, &path(at), &[], Some(body))
        .await?
        .body)
}

const NEAR: &str = "02:00:00:00:00:01";
const FAR: &str = "02:00:00:00:00:02";

async fn pair() -> (Domains, Domains) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let near = Domains::start("daejeon", "busan")
        .await
        .with_node(NEAR)
        .await;
    let far = Domains::start("busan", "daejeon")
        .await
        .with_node(FAR)
        .await;
    let invitation = near.invite(InviteKind::Domain, "busan").await;
    let accepted: Domain = far
        .admin
        .post(&path("/domains"), &json!({ "invitation": invitation }))
        .await
        .unwrap();
    assert!(
        accepted.document.is_some(),
        "the document came with the acceptance"
    );
    (near, far)
}

fn window() -> Schedule {
    let now = Timestamp::now();
    Schedule {
        start: now,
        end: now + SignedDuration::from_hours(1),
    }
}
fn member() -> Member {
    let host: HostId = format!("{NEAR}-none").parse().unwrap();
    Member::of_host(host, Role::Endpoint)
}
fn remote() -> RemoteEnd {
    RemoteEnd {
        domain: "busan".parse().unwrap(),
        endpoint: None,
        border_link: None,
    }
}
fn wish(name: &str, rate_bps: u64, class: Class, hold_seconds: u32) -> StitchSpec {
    let qos = json!({"class": class, "rate_bps": rate_bps});
    StitchSpec {
        name: name.parse().unwrap(),
        tenant: "hep".parse().unwrap(),
        qos: serde_json::from_value::<Qos>(qos).unwrap(),
        schedule: window(),
        members: vec![member()],
        remote: remote(),
        addressing: None,
        hold_seconds,
    }
}
async fn ask(domain: &Domains, spec: &StitchSpec, key: &str) -> Result<Stitch, ClientError> {
    domain.node().post_once(&path("/stitches"), key, spec).await
}
async fn act(client: &Client, id: uuid::Uuid, action: &str) -> Result<Stitch, ClientError> {
    client
        .post(
            &path(&format!("/stitches/{id}/actions/{action}")),
            &json!({}),
        )
        .await
}
fn refusal<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> Problem {
    answer.unwrap_err().problem().unwrap().clone()
}
async fn available(domain: &Domains, class: Class) -> u64 {
    let query = AvailabilityQuery {
        class,
        mode: Default::default(),
        members: vec![member()],
        schedule: window(),
        rate_bps: None,
        remote: Some(remote()),
    };
    let answer: Availability = domain
        .node()
        .post(&path("/availability"), &query)
        .await
        .unwrap();
    answer.max_rate_bps
}

#[tokio::test(flavor = "multi_thread")]
async fn invitations_are_for_one_use_and_one_purpose() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let domain = Domains::start("daejeon", "busan").await;
    let invitation = domain.invite(InviteKind::Host, "dtn-1").await;
    let (csr, _) = request();
    let forged = Invitation {
        ca_pin: fingerprint(b"another"),
        ..invitation.clone()
    };
    assert!(matches!(
        enrol(&forged, &csr).await,
        Err(ClientError::Unreachable { .. })
    ));
    let wrong = Invitation {
        secret: format!("{}x", invitation.secret),
        ..invitation.clone()
    };
    assert!(refusal(enrol(&wrong, &csr).await).is(Kind::Unauthenticated));
    assert_eq!(
        enrol(&invitation, &csr).await.unwrap().name.as_str(),
        "dtn-1"
    );
    // the same request again: its answer was perhaps lost
    enrol(&invitation, &csr).await.unwrap();
    assert!(refusal(enrol(&invitation, &request().0).await).is(Kind::Unauthenticated));
    let other = domain.invite(InviteKind::Domain, "busan").await;
    assert!(refusal(enrol(&other, &csr).await).is(Kind::Unauthenticated));
    // without a certificate nothing else is open
    let ca = std::fs::read_to_string(domain.folder.path().join("var/lib/dtn/vdn/keys/ca.pem"));
    let stranger = Client::tls(
        &domain.url(),
        &TlsIdentity {
            ca_pem: ca.unwrap(),
            own: None,
        },
        CALL,
    )
    .unwrap();
    let slices = stranger.get::<List<Slice>>(&path("/slices")).await;
    assert!(refusal(slices).is(Kind::Unauthenticated));
    stranger.get::<String>(&path("/healthz")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_end_to_end() {
    let (mut near, far) = pair().await;
    assert_eq!(available(&near, Class::Guaranteed).await, 950_000_000);
    assert_eq!(available(&near, Class::Dedicated).await, GIGABIT);

    // too much: the number that would fit, and nothing is booked anywhere
    let problem = refusal(
        ask(
            &near,
            &wish("big", 2 * GIGABIT, Class::Guaranteed, 60),
            "k0",
        )
        .await,
    );
    assert!(problem.is(Kind::InsufficientBandwidth), "{problem}");
    assert_eq!(problem.available_bps(), Some(950_000_000));
    assert!(near.slices().await.is_empty() && far.slices().await.is_empty());

    // held on both sides, once for one key
    let spec = wish("lhc", 600_000_000, Class::Guaranteed, 60);
    let stitch = ask(&near, &spec, "k1").await.unwrap();
    assert_eq!(stitch.state, StitchState::Held);
    assert_eq!(ask(&near, &spec, "k1").await.unwrap().id, stitch.id);
    let other = wish("other", 1, Class::Guaranteed, 60);
    assert!(refusal(ask(&near, &other, "k1").await).is(Kind::IdempotencyKeyReused));
    assert_eq!(available(&near, Class::Guaranteed).await, 350_000_000);
    assert_eq!(available(&near, Class::Dedicated).await, 0);

    let done = act(near.node(), stitch.id, "commit").await.unwrap();
    assert_eq!(done.state, StitchState::Committed);
    act(near.node(), stitch.id, "commit").await.unwrap();
    let (here, there) = (near.slices().await, far.slices().await);
    for slice in [&here[0], &there[0]] {
        assert_eq!(slice.spec.name.as_str(), "lhc");
        assert_eq!(slice.status.reservation, Reservation::Committed);
        assert_eq!(
            slice.status.data_plane,
            DataPlane::Activating,
            "nobody is paced yet"
        );
    }
    let ranges = |slice: &Slice| slice.spec.addressing.clone().unwrap().ipv4.unwrap();
    assert_eq!(ranges(&here[0]).cidr, ranges(&there[0]).cidr);
    assert_ne!(
        ranges(&here[0]).ranges,
        ranges(&there[0]).ranges,
        "each side has its half"
    );

    leases(&near, &here[0]).await;
    active(&near, &here[0]).await;

    // a restart forgets nothing
    near.restart().await;
    assert_eq!(
        near.slices().await[0].status.reservation,
        Reservation::Committed
    );

    // a later end on both sides
    let end = spec.schedule.end + SignedDuration::from_hours(2);
    let at = path(&format!("/slices/{}/actions/extend", here[0].id));
    let longer: Slice = near.node().post(&at, &Extend { end }).await.unwrap();
    assert_eq!(longer.spec.schedule.end, end);
    assert_eq!(far.slices().await[0].spec.schedule.end, end);

    // ended from the far side: both
    act(&far.admin, stitch.id, "terminate").await.unwrap();
    for domain in [&near, &far] {
        assert_eq!(
            domain.slices().await[0].status.lifecycle,
            Lifecycle::Terminated
        );
    }
    assert_eq!(available(&near, Class::Dedicated).await, GIGABIT);
}

/// Addresses for clients: the same for the same, all or none, bounded by what there is.
async fn leases(domain: &Domains, slice: &Slice) {
    let at = path(&format!("/slices/{}/leases", slice.id));
    let request = |client: &str, mac: &str| LeaseRequest {
        client_id: client.to_owned(),
        mac: mac.parse().unwrap(),
        location: None,
        requested_ips: vec![],
        lease_seconds: None,
        labels: Default::default(),
    };
    let node = domain.node();
    let one: Lease = node
        .post_once(&at, "l1", &request("pod-1", NEAR))
        .await
        .unwrap();
    assert_eq!(one.ips.len(), 2, "both families: {one:?}");
    let again: Lease = node
        .post_once(&at, "l2", &request("pod-1", NEAR))
        .await
        .unwrap();
    assert_eq!(again.ips, one.ips);
    let two: Lease = node
        .post_once(&at, "l3", &request("pod-2", "02:00:00:00:00:0b"))
        .await
        .unwrap();
    assert_ne!(two.ips, one.ips);
    let batch = RenewBatch {
        ids: vec![one.id, uuid::Uuid::nil()],
    };
    let renewed: List<RenewResult> = node.post(&path("/leases:renew"), &batch).await.unwrap();
    assert!(renewed.items[0].lease.is_some() && renewed.items[1].problem.is_some());
    for _ in 0..2 {
        node.delete(&path(&format!("/leases/{}", two.id)), None)
            .await
            .unwrap();
    }
    // the first half of a /24 without its first address
    let mut last = Ok(one.clone());
    for n in 0..130 {
        let key = format!("fill-{n}");
        let mac = format!("02:00:00:00:01:{n:02x}");
        last = node.post_once(&at, &key, &request(&key, &mac)).await;
        if last.is_err() {
            break;
        }
    }
    assert!(refusal(last).is(Kind::PoolExhausted));
}

/// Active is said only of what was read back from a kernel, and not above the promise.
async fn active(domain: &Domains, slice: &Slice) {
    let at = format!("/slices/{}/enforcement/{NEAR}-none", slice.id);
    let report = |rate_bps| Enforcement {
        rate_bps,
        by: "htb".into(),
        read_at: Timestamp::now(),
    };
    let above: Slice = put(domain.node(), &at, &report(GIGABIT)).await.unwrap();
    assert_eq!(above.status.data_plane, DataPlane::Activating);
    let kept: Slice = put(domain.node(), &at, &report(600_000_000)).await.unwrap();
    assert_eq!(kept.status.data_plane, DataPlane::Active);
    let lost: Slice = put(domain.node(), &at, &report(0)).await.unwrap();
    assert_eq!(lost.status.data_plane, DataPlane::Degraded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_goes_away_books_nothing() {
    let (near, mut far) = pair().await;
    // its hosts are known, and then it dies before it is asked
    assert_eq!(available(&near, Class::Dedicated).await, GIGABIT);
    far.stop.cancel();
    far.running.take().unwrap().ended().await.unwrap();
    let problem = refusal(ask(&near, &wish("a", 1_000_000, Class::Guaranteed, 60), "k1").await);
    assert!(problem.is(Kind::PeerTimeout), "{problem}");
    assert!(
        near.slices()
            .await
            .iter()
            .all(|s| s.status.reservation == Reservation::Aborted)
    );
    assert_eq!(
        near.admin
            .get::<List<Stitch>>(&path("/stitches"))
            .await
            .unwrap()
            .items[0]
            .state,
        StitchState::Aborted
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_initiator_that_dies_between_hold_and_commit_leaves_nothing() {
    let (mut near, far) = pair().await;
    let stitch = ask(&near, &wish("a", 500_000_000, Class::Guaranteed, 2), "k1")
        .await
        .unwrap();
    near.stop.cancel();
    near.running.take().unwrap().ended().await.unwrap();
    // the hold of the far side runs out by itself
    for _ in 0..100 {
        if far.slices().await[0].status.reservation == Reservation::TimedOut {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(
        far.slices().await[0].status.reservation,
        Reservation::TimedOut
    );
    let ended: Stitch = far
        .admin
        .get(&path(&format!("/stitches/{}", stitch.id)))
        .await
        .unwrap();
    assert_eq!(ended.state, StitchState::TimedOut);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_after_the_hold_is_refused_on_both_sides() {
    let (near, far) = pair().await;
    let stitch = ask(&near, &wish("a", 500_000_000, Class::Guaranteed, 1), "k1")
        .await
        .unwrap();
    let over = stitch.hold_expires_at.unwrap();
    while Timestamp::now() <= over {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(refusal(act(near.node(), stitch.id, "commit").await).is(Kind::HoldExpired));
    // the far side held it a moment later, and so for a moment longer
    let began = std::time::Instant::now();
    while available(&near, Class::Dedicated).await != GIGABIT {
        assert!(began.elapsed() < CALL, "it is held for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        far.slices()
            .await
            .iter()
            .all(|s| s.status.reservation != Reservation::Committed)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_federated_domain_can_do_nothing_here_but_what_is_its_own() {
    let (near, far) = pair().await;
    let keys = far.folder.path().join("var/lib/dtn/vdn/keys");
    let read = |folder: &Path, file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    // a certificate of busan's authority that claims to be a host of daejeon
    let ca_key = rcgen::KeyPair::from_pem(&read(&keys, "ca.key")).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&read(&keys, "ca.pem"), ca_key).unwrap();
    let own = rcgen::KeyPair::generate().unwrap();
    let ca = read(&near.folder.path().join("var/lib/dtn/vdn/keys"), "ca.pem");
    let call = async |uri: &str| {
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
        let certificate = params.signed_by(&own, &issuer).unwrap().pem();
        let identity = TlsIdentity {
            ca_pem: ca.clone(),
            own: Some((certificate, own.serialize_pem())),
        };
        let client = Client::tls(&near.url(), &identity, CALL).unwrap();
        client
            .get::<List<Slice>>(&path("/slices"))
            .await
            .unwrap_err()
    };
    let forged = call("spiffe://daejeon/node-agent/dtn").await;
    assert!(
        matches!(forged, ClientError::Unreachable { .. }),
        "{forged}"
    );
    let peer = call("spiffe://busan/peer/busan").await;
    assert!(peer.is(Kind::Forbidden), "{peer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_bodies_are_refused_with_their_place() {
    let (near, _far) = pair().await;
    let mut spec = serde_json::to_value(wish("a", 0, Class::Guaranteed, 1000)).unwrap();
    spec["qos"]["burst_ms"] = json!(0);
    let problem = refusal(
        near.node()
            .post_once::<_, Stitch>(&path("/stitches"), "k1", &spec)
            .await,
    );
    let pointers: Vec<_> = problem.errors.iter().map(|e| e.pointer.as_str()).collect();
    for pointer in ["/qos/rate_bps", "/qos/burst_ms", "/hold_seconds"] {
        assert!(pointers.contains(&pointer), "{pointer} is not in {problem}");
    }
    spec["extra"] = json!(1);
    let unknown = near
        .node()
        .post_once::<_, Stitch>(&path("/stitches"), "k2", &spec)
        .await;
    assert!(refusal(unknown).detail.contains("extra"));
    let keyless = wish("a", 1, Class::Guaranteed, 9);
    let none = near
        .node()
        .post::<_, Stitch>(&path("/stitches"), &keyless)
        .await;
    assert!(refusal(none).is(Kind::PreconditionRequired));
    // on a connection of its own: the server closes it without reading on
    let giant = json!({ "x": "y".repeat(2 << 20) });
    let large = near
        .admin
        .post::<_, Stitch>(&path("/availability"), &giant)
        .await;
    assert!(large.is_err());
    let gone = near
        .node()
        .get::<Slice>(&path("/slices/00000000-0000-0000-0000-000000000000"))
        .await;
    assert!(refusal(gone).is(Kind::NotFound));
    assert!(refusal(near.node().get::<Slice>(&path("/slices/x")).await).is(Kind::InvalidRequest));
    assert!(refusal(near.node().get::<Slice>(&path("/nowhere")).await).is(Kind::NotFound));
}
