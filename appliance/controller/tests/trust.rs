//! Who is trusted, over time: certificates that are renewed and revoked, keys of a domain that change
//! while requests go on, a federation that ends, and clocks that are off. Real controllers over TLS.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod site;

use dtn_api::{
    Problem,
    client::{Client, ClientError, TlsIdentity},
    domain::{Domain, Enrolled, Enrolment, Invitation, InviteKind, PeerState},
    host::{Host, HostKind, HostSpec},
    lease::{Lease, LeaseRequest},
    node::{Keys, Node, Renewal, Revoked},
    problem::Kind,
    slice::{Lifecycle, List, Slice},
    stitch::{Stitch, StitchState},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use site::{FAR, NEAR, Site, act, ask, eventually, federate, path, refusal, wish};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

const CALL: Duration = Duration::from_secs(20);

fn request() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    (csr, key.serialize_pem())
}

async fn enrol(
    site: &Site,
    invitation: &Invitation,
    now: Option<Timestamp>,
) -> Result<TlsIdentity, ClientError> {
    let (csr_pem, key) = request();
    let body = Enrolment {
        secret: invitation.secret.clone(),
        csr_pem,
        now,
    };
    let first = Client::pinned(&site.url, &invitation.ca_pin, CALL).unwrap();
    let enrolled: Enrolled = first.post(&path("/enrolments"), &body).await?;
    Ok(TlsIdentity {
        ca_pem: enrolled.ca_pem,
        own: Some((enrolled.certificate_pem, key)),
    })
}
async fn host(site: &Site, name: &str) -> TlsIdentity {
    let invitation = site.invite(InviteKind::Host, name).await;
    enrol(site, &invitation, Some(Timestamp::now()))
        .await
        .unwrap()
}
fn client(site: &Site, identity: &TlsIdentity) -> Client {
    Client::tls(&site.url, identity, CALL).unwrap()
}
async fn renew(
    site: &Site,
    identity: &TlsIdentity,
    now: Timestamp,
) -> Result<TlsIdentity, ClientError> {
    let (csr_pem, key) = request();
    let body = Renewal { csr_pem, now };
    let at = path("/nodes/dtn/certificate");
    let enrolled: Enrolled = client(site, identity).post(&at, &body).await?;
    Ok(TlsIdentity {
        ca_pem: enrolled.ca_pem,
        own: Some((enrolled.certificate_pem, key)),
    })
}
async fn look(site: &Site, identity: &TlsIdentity) -> Result<Node, ClientError> {
    client(site, identity).get(&path("/nodes/dtn")).await
}
async fn declare(client: &Client, mac: &str) -> Result<Host, ClientError> {
    let nic = HostSpec {
        kind: HostKind::Nic,
        node: "dtn".parse().unwrap(),
        nic: "data0".parse().unwrap(),
        capacity_bps: 10_000_000_000,
        mtu: 9000,
        location: None,
        ips: vec![],
        permitted: true,
    };
    let at = path(&format!("/hosts/{mac}-none"));
    Ok(client
        .call(http::Method::PUT, &at, &[], Some(&nic))
        .await?
        .body)
}
async fn revoke(site: &Site, what: &str) -> Result<Revoked, ClientError> {
    let at = path(&format!("{what}/actions/revoke"));
    site.admin.post(&at, &json!({"reason": "stolen"})).await
}
async fn slice(site: &Site, id: uuid::Uuid) -> Slice {
    site.admin
        .get(&path(&format!("/slices/{id}")))
        .await
        .unwrap()
}
async fn stitch(site: &Site, id: uuid::Uuid) -> Stitch {
    site.admin
        .get(&path(&format!("/stitches/{id}")))
        .await
        .unwrap()
}
async fn domain(site: &Site, name: &str) -> Domain {
    site.admin
        .get(&path(&format!("/domains/{name}")))
        .await
        .unwrap()
}
fn provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_host_opens_nothing_and_leaves_nothing_behind() {
    provider();
    let (near, far) = federate("trust-revoke", None, None).await;
    let identity = host(&near, "dtn").await;
    let own = client(&near, &identity);
    declare(&own, NEAR).await.unwrap();
    let held = ask(&own, &wish("lhc", 100_000_000, 60), "k1")
        .await
        .unwrap();
    act(&own, held.id, "commit").await.unwrap();
    let lease = LeaseRequest {
        client_id: "pod".into(),
        mac: dtn_api::MacAddress::local_from("pod"),
        location: None,
        requested_ips: vec![],
        lease_seconds: None,
        labels: Default::default(),
    };
    let at = path(&format!("/slices/{}/leases", held.slice_id));
    let _: Lease = own.post_once(&at, "l1", &lease).await.unwrap();

    let done = revoke(&near, "/nodes/dtn").await.unwrap();
    assert_eq!(done.ended, ["lhc".parse().unwrap()]);
    assert_eq!((done.leases, done.hosts), (1, 1));
    // the connection was open and the certificate has not run out
    let refused = refusal(own.get::<List<Slice>>(&path("/slices")).await);
    assert!(refused.is(Kind::Unauthenticated), "{refused}");
    assert!(refused.detail.contains("was revoked at"), "{refused}");
    assert!(
        refusal(renew(&near, &identity, Timestamp::now()).await.map(|_| ()))
            .is(Kind::Unauthenticated)
    );
    assert_eq!(
        slice(&near, held.slice_id).await.status.lifecycle,
        Lifecycle::Terminated
    );
    eventually("the other domain has ended it too", async || {
        let theirs = stitch(&far, held.id).await;
        theirs.state == StitchState::Terminated
            && slice(&far, theirs.slice_id).await.status.lifecycle == Lifecycle::Terminated
    })
    .await;
    let hosts: List<Host> = near.admin.get(&path("/hosts")).await.unwrap();
    assert!(hosts.items.is_empty(), "{hosts:?}");
    let leases: List<Lease> = near.admin.get(&path("/leases")).await.unwrap();
    assert!(leases.items.is_empty(), "{leases:?}");
    let nodes: List<Node> = near.admin.get(&path("/nodes")).await.unwrap();
    assert_eq!(
        nodes.items[0].revoked.as_ref().unwrap().reason.as_deref(),
        Some("stolen")
    );
    // again: the first revocation stands, and nothing is left to end
    let again = revoke(&near, "/nodes/dtn").await.unwrap();
    assert_eq!(again.revocation, done.revocation);
    assert!(again.ended.is_empty() && again.hosts == 0);
    assert!(refusal(revoke(&near, "/nodes/nobody").await).is(Kind::NotFound));

    // invited anew it is in again, and the stolen certificate still is not
    let back = host(&near, "dtn").await;
    declare(&client(&near, &back), NEAR).await.unwrap();
    assert!(refusal(own.get::<List<Slice>>(&path("/slices")).await).is(Kind::Unauthenticated));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_cluster_opens_nothing_and_its_hosts_go_on() {
    provider();
    let site = Site::new("trust-cluster", "daejeon", "busan", None).await;
    let invitation = site.invite(InviteKind::Cluster, "k8s").await;
    let identity = enrol(&site, &invitation, Some(Timestamp::now()))
        .await
        .unwrap();
    // a host of the same name is somebody else
    let namesake = client(&site, &host(&site, "k8s").await);
    let own = client(&site, &identity);
    own.get::<List<Slice>>(&path("/slices")).await.unwrap();
    let listed = async || -> List<Node> { site.admin.get(&path("/clusters")).await.unwrap() };
    assert!(listed().await.items[0].certificate_until.is_some());

    let done = revoke(&site, "/clusters/k8s").await.unwrap();
    let refused = refusal(own.get::<List<Slice>>(&path("/slices")).await);
    assert!(refused.is(Kind::Unauthenticated), "{refused}");
    assert!(refused.detail.contains("(stolen)"), "{refused}");
    namesake.get::<List<Slice>>(&path("/slices")).await.unwrap();
    let shown = listed().await.items[0].clone();
    assert_eq!(shown.revoked.as_ref(), Some(&done.revocation));
    assert_eq!(shown.certificate_until, None);
    let again = revoke(&site, "/clusters/k8s").await.unwrap();
    assert_eq!(again.revocation, done.revocation);
    assert!(refusal(revoke(&site, "/clusters/nobody").await).is(Kind::NotFound));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_is_refused_with_the_figure_and_uses_nothing_up() {
    provider();
    let site = Site::new("trust-clock", "daejeon", "busan", None).await;
    let invitation = site.invite(InviteKind::Host, "dtn").await;
    let late = Timestamp::now() - SignedDuration::from_secs(412);
    let refused = refusal(enrol(&site, &invitation, Some(late)).await.map(|_| ()));
    let told = |problem: &Problem, side: &str| {
        // a second can pass meanwhile
        let figure = ["411", "412", "413"].iter().any(|seconds| {
            problem.detail.starts_with(&format!(
                "this host's clock is {seconds} s {side} the controller's"
            ))
        });
        assert!(figure, "{problem}");
    };
    told(&refused, "behind");
    let identity = enrol(&site, &invitation, Some(Timestamp::now()))
        .await
        .unwrap();
    let early = Timestamp::now() + SignedDuration::from_secs(412);
    told(
        &refusal(renew(&site, &identity, early).await.map(|_| ())),
        "ahead of",
    );
    assert!(look(&site, &identity).await.is_ok());

    // and of a domain, when it accepts
    let far = Site::new("trust-clock", "busan", "daejeon", None).await;
    let invitation = site.invite(InviteKind::Domain, "busan").await;
    let pinned = Client::pinned(&site.url, &invitation.ca_pin, CALL).unwrap();
    let hello = json!({
        "domain": "busan", "url": far.url, "ca_pem": "x", "document_key": "x",
        "secret": invitation.secret, "now": late,
    });
    let refused = refusal(
        pinned
            .post::<_, serde_json::Value>(&path("/federations"), &hello)
            .await,
    );
    assert!(
        refused.detail.contains("the clock of busan is 41")
            && refused.detail.contains("s behind ours"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_renews_its_own_certificate_and_nobody_elses() {
    provider();
    let site = Site::new("trust-renew", "daejeon", "busan", None).await;
    let first = host(&site, "dtn").await;
    let second = renew(&site, &first, Timestamp::now()).await.unwrap();
    assert_ne!(first.own, second.own);
    // the answer could have been lost: the old one is good until the next
    for identity in [&first, &second] {
        let node = look(&site, identity).await.unwrap();
        assert!(node.certificate_until.unwrap() > Timestamp::now());
    }
    let third = renew(&site, &second, Timestamp::now()).await.unwrap();
    look(&site, &third).await.unwrap();
    let refused = refusal(look(&site, &first).await);
    assert!(refused.is(Kind::Unauthenticated), "{refused}");
    // another host, the admin, and nobody
    let invitation = site.invite(InviteKind::Host, "other").await;
    let other = enrol(&site, &invitation, None).await.unwrap();
    assert!(refusal(renew(&site, &other, Timestamp::now()).await.map(|_| ())).is(Kind::Forbidden));
    assert!(refusal(look(&site, &other).await).is(Kind::Forbidden));
    let body = Renewal {
        csr_pem: request().0,
        now: Timestamp::now(),
    };
    let at = path("/nodes/dtn/certificate");
    let by_admin = site.admin.post::<_, Enrolled>(&at, &body).await;
    assert!(refusal(by_admin).is(Kind::Forbidden));
    // it is written down
    let mut site = site;
    site.kill();
    site.start(None).await;
    look(&site, &third).await.unwrap();
    assert!(refusal(look(&site, &first).await).is(Kind::Unauthenticated));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_while_requests_go_on() {
    provider();
    let (mut near, far) = federate("trust-rotate", None, None).await;
    let first = host(&near, "dtn").await;
    let own = client(&near, &first);
    declare(&own, NEAR).await.unwrap();
    look(&near, &first).await.unwrap();
    let pin = domain(&far, "daejeon").await.ca_pin;
    let held = ask(&own, &wish("lhc", 100_000_000, 60), "k1")
        .await
        .unwrap();
    act(&own, held.id, "commit").await.unwrap();

    let keys: Keys = near
        .admin
        .post(&path("/keys/actions/rotate"), &json!({}))
        .await
        .unwrap();
    assert_eq!((keys.shown, keys.signing), (1, 2));
    assert_eq!(keys.hosts, ["dtn".parse().unwrap()]);
    // a controller that dies in between goes on where it was
    near.kill();
    near.start(None).await;

    // a new connection for each request, with whatever identity the host has then; none may fail
    let identity = Arc::new(Mutex::new(first.clone()));
    let (stop, asked) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let requests = tokio::spawn({
        let (identity, stop, asked, url) = (
            identity.clone(),
            stop.clone(),
            asked.clone(),
            near.url.clone(),
        );
        async move {
            while !stop.load(Ordering::Relaxed) {
                let now = identity.lock().unwrap().clone();
                let client = Client::tls(&url, &now, CALL).unwrap();
                let slices: List<Slice> = client.get(&path("/slices")).await.unwrap();
                assert_eq!(slices.items.len(), 1);
                asked.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    eventually("requests are made", async || {
        asked.load(Ordering::Relaxed) > 3
    })
    .await;

    // as the supervisor does: other authorities are a reason to renew
    let renews = async |expected: usize| {
        let now = identity.lock().unwrap().clone();
        let node = look(&near, &now).await.unwrap();
        assert_ne!(
            node.authorities,
            dtn_api::client::fingerprint(now.ca_pem.as_bytes())
        );
        let next = renew(&near, &now, Timestamp::now()).await.unwrap();
        assert_eq!(next.ca_pem.matches("BEGIN CERTIFICATE").count(), expected);
        *identity.lock().unwrap() = next.clone();
        look(&near, &next).await.unwrap();
    };
    renews(2).await;
    let keys = async || near.admin.get::<Keys>(&path("/keys")).await.unwrap();
    eventually(
        "the old keys are dropped once all know the new",
        async || keys().await.shown == 2,
    )
    .await;
    renews(1).await;
    let before = asked.load(Ordering::Relaxed);
    eventually("requests go on", async || {
        asked.load(Ordering::Relaxed) > before + 5
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    requests.await.unwrap();

    // the other domain knows the new keys alone, and the federation and the stitch stand
    eventually("the other domain has the new pin", async || {
        let known = domain(&far, "daejeon").await;
        known.ca_pin != pin && known.state == PeerState::Up
    })
    .await;
    assert_eq!(domain(&far, "daejeon").await.ca_pin, keys().await.ca_pin);
    assert_eq!(stitch(&far, held.id).await.state, StitchState::Committed);
    let again = client(&near, &identity.lock().unwrap().clone());
    let another = ask(&again, &wish("sky", 100_000_000, 60), "k2")
        .await
        .unwrap();
    act(&again, another.id, "commit").await.unwrap();
    // and the old certificate is worth nothing: nobody vouches for it any more
    eventually("the old certificate is refused", async || {
        look(&near, &first).await.is_err()
    })
    .await;
    // nothing is under way that could be finished
    let at = path("/keys/actions/rotate");
    let none = near
        .admin
        .post::<_, Keys>(&at, &json!({"finish": true}))
        .await;
    assert!(refusal(none).is(Kind::StateConflict));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_wait_for_a_silent_host_until_they_are_told_not_to() {
    provider();
    let site = Site::new("trust-finish", "daejeon", "busan", None).await;
    let silent = host(&site, "dtn").await;
    look(&site, &silent).await.unwrap();
    let rotate = async |finish: bool| {
        let body = json!({ "finish": finish });
        site.admin
            .post::<_, Keys>(&path("/keys/actions/rotate"), &body)
            .await
            .unwrap()
    };
    let begun = rotate(false).await;
    assert_eq!(begun.hosts, ["dtn".parse().unwrap()]);
    // the same again begins no other change
    assert_eq!(rotate(false).await, begun);
    // an invitation of meanwhile gives what both generations believe
    let invitation = site.invite(InviteKind::Host, "other").await;
    assert_eq!(rotate(false).await.invitations, 1);
    let other = enrol(&site, &invitation, None).await.unwrap();
    let at = path("/nodes/other");
    let _: Node = client(&site, &other).get(&at).await.unwrap();
    assert_eq!(rotate(false).await.hosts, ["dtn".parse().unwrap()]);
    let done = rotate(true).await;
    assert_eq!((done.shown, done.hosts.len()), (2, 0));
    let _: Node = client(&site, &other).get(&at).await.unwrap();
    eventually("the silent one has to join anew", async || {
        look(&site, &silent).await.is_err()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_federation_ends_on_both_sides_and_can_begin_anew() {
    provider();
    let (near, far) = federate("trust-part", None, None).await;
    let held = ask(&near.admin, &wish("lhc", 100_000_000, 60), "k1")
        .await
        .unwrap();
    act(&near.admin, held.id, "commit").await.unwrap();
    let done = revoke(&near, "/domains/busan").await.unwrap();
    assert_eq!(done.ended, ["lhc".parse().unwrap()]);
    assert_eq!(domain(&near, "busan").await.state, PeerState::Revoked);
    eventually("the other side has ended the stitch", async || {
        stitch(&far, held.id).await.state == StitchState::Terminated
    })
    .await;
    eventually("nothing is owed any more", async || {
        stitch(&near, held.id).await.state == StitchState::Terminated
    })
    .await;
    // it may ask for nothing here any more
    let back: dtn_api::stitch::StitchSpec = serde_json::from_value(json!({
        "name": "back", "qos": {"class": "guaranteed", "rate_bps": 1_000_000},
        "schedule": site::window(), "members": [{"host": format!("{FAR}-none")}],
        "remote": {"domain": "daejeon"}, "hold_seconds": 60,
    }))
    .unwrap();
    assert!(ask(&far.admin, &back, "k2").await.is_err());
    // nor we of it
    let forth = ask(&near.admin, &wish("forth", 1_000_000, 60), "k3").await;
    assert!(refusal(forth).detail.contains("busan"));
    let again = revoke(&near, "/domains/busan").await.unwrap();
    assert_eq!(again.revocation, done.revocation);
    assert!(again.ended.is_empty());
    // and anew
    let invitation = near.invite(InviteKind::Domain, "busan").await;
    let _: Domain = far
        .admin
        .post(&path("/domains"), &json!({ "invitation": invitation }))
        .await
        .unwrap();
    eventually("both are up again", async || {
        domain(&near, "busan").await.state == PeerState::Up
            && domain(&far, "daejeon").await.state == PeerState::Up
    })
    .await;
}
