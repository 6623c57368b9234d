//! What each may do over TLS: a node for itself, another domain for its own ends, whoever has the
//! operator's token, and nobody else anything.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod site;

use dtn_api::{
    client::{Client, TlsIdentity},
    domain::{Enrolled, Enrolment, InviteKind},
    host::{Enforcement, Host, HostKind, HostSpec},
    lease::{Lease, LeaseRequest},
    problem::Kind,
    slice::{Availability, AvailabilityQuery, Class, List, Slice},
    stitch::Stitch,
};
use serde_json::json;
use site::{FAR, NEAR, Site, act, ask, federate, path, refusal, window, wish};
use std::time::Duration;

const CALL: Duration = Duration::from_secs(20);
const OTHER: &str = "02:00:00:00:00:03";

async fn node(site: &Site, name: &str) -> Client {
    enrolled(site, InviteKind::Host, name).await
}
async fn enrolled(site: &Site, kind: InviteKind, name: &str) -> Client {
    let invitation = site.invite(kind, name).await;
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    let body = Enrolment {
        secret: invitation.secret,
        csr_pem: params.serialize_request(&key).unwrap().pem().unwrap(),
        now: None,
    };
    let first = Client::pinned(&site.url, &invitation.ca_pin, CALL).unwrap();
    let enrolled: Enrolled = first.post(&path("/enrolments"), &body).await.unwrap();
    let identity = TlsIdentity {
        ca_pem: enrolled.ca_pem,
        own: Some((enrolled.certificate_pem, key.serialize_pem())),
    };
    Client::tls(&site.url, &identity, CALL).unwrap()
}
async fn declare(
    client: &Client,
    node: &str,
    mac: &str,
    permitted: bool,
) -> Result<Host, dtn_api::client::ClientError> {
    let nic = HostSpec {
        kind: HostKind::Nic,
        node: node.parse().unwrap(),
        nic: "data0".parse().unwrap(),
        capacity_bps: 10_000_000_000,
        mtu: 9000,
        location: None,
        ips: vec![],
        permitted,
    };
    let at = path(&format!("/hosts/{mac}-none"));
    let answer = client.call(http::Method::PUT, &at, &[], Some(&nic)).await?;
    Ok(answer.body)
}
fn lease(client: &str) -> LeaseRequest {
    LeaseRequest {
        client_id: client.into(),
        mac: dtn_api::MacAddress::local_from(client),
        location: None,
        requested_ips: vec![],
        lease_seconds: None,
        labels: Default::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_acts_for_itself_alone() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (near, _far) = federate("rights-node", None, None).await;
    let (own, other) = (node(&near, "dtn").await, node(&near, "dtn2").await);
    declare(&own, "dtn", NEAR, true).await.unwrap();
    declare(&other, "dtn2", OTHER, true).await.unwrap();
    // a NIC of another's, by its name or by its address
    assert!(refusal(declare(&other, "dtn", "02:00:00:00:00:09", true).await).is(Kind::Forbidden));
    assert!(refusal(declare(&other, "dtn2", NEAR, true).await).is(Kind::AddressInConflict));
    let at = path(&format!("/hosts/{NEAR}-none"));
    assert!(refusal(other.delete(&at, None).await).is(Kind::Forbidden));

    let spec = wish("lhc", 100_000_000, 60);
    assert!(refusal(ask(&other, &spec, "k1").await).is(Kind::Forbidden));
    let stitch: Stitch = ask(&own, &spec, "k1").await.unwrap();
    assert!(refusal(act(&other, stitch.id, "commit").await).is(Kind::Forbidden));
    act(&own, stitch.id, "commit").await.unwrap();
    let slice = stitch.slice_id;
    let actions = path(&format!("/slices/{slice}/actions/terminate"));
    assert!(refusal(other.post::<_, Slice>(&actions, &json!({})).await).is(Kind::Forbidden));
    let leases = path(&format!("/slices/{slice}/leases"));
    let foreign = other
        .post_once::<_, Lease>(&leases, "l1", &lease("pod"))
        .await;
    assert!(refusal(foreign).is(Kind::Forbidden));
    let mine: Lease = own.post_once(&leases, "l1", &lease("pod")).await.unwrap();
    let at = path(&format!("/leases/{}", mine.id));
    assert!(refusal(other.delete(&at, None).await).is(Kind::Forbidden));
    assert!(refusal(other.get::<Lease>(&at).await).is(Kind::Forbidden));
    let seen: List<Lease> = other.get(&path("/leases")).await.unwrap();
    assert!(seen.items.is_empty());
    let report = Enforcement {
        rate_bps: 1,
        by: "htb".into(),
        read_at: jiff::Timestamp::now(),
    };
    let at = path(&format!("/slices/{slice}/enforcement/{NEAR}-none"));
    let lie = other
        .call::<_, Slice>(http::Method::PUT, &at, &[], Some(&report))
        .await;
    assert!(refusal(lie).is(Kind::Forbidden));
    for (closed, body) in [
        ("/invitations", json!({"kind": "host", "name": "x"})),
        ("/domains", json!({})),
    ] {
        let answer = own.post::<_, serde_json::Value>(&path(closed), &body).await;
        assert!(refusal(answer).is(Kind::Forbidden), "{closed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_reads_slices_and_changes_nothing() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let near = Site::new("rights-cluster", "daejeon", "busan", None).await;
    let (cluster, host) = (
        enrolled(&near, InviteKind::Cluster, "k8s").await,
        node(&near, "dtn").await,
    );
    declare(&host, "dtn", NEAR, true).await.unwrap();
    for open in ["/slices", "/hosts", "/topology"] {
        let answer = cluster.get::<serde_json::Value>(&path(open)).await;
        assert!(answer.is_ok(), "{open}: {answer:?}");
    }
    for closed in [
        "/leases",
        "/events",
        "/stitches",
        "/domains",
        "/gateways",
        "/fabric",
        "/metrics",
    ] {
        let answer = cluster.get::<serde_json::Value>(&path(closed)).await;
        assert!(refusal(answer).is(Kind::Forbidden), "{closed}");
    }
    // its name is no host's, also where it is the same
    assert!(refusal(declare(&cluster, "k8s", OTHER, true).await).is(Kind::Forbidden));
    let spec = json!({"name": "lhc", "qos": {"class": "guaranteed", "rate_bps": 1_000_000},
        "schedule": window(), "members": [{"host": format!("{NEAR}-none")}]});
    let asked = cluster
        .post_once::<_, Slice>(&path("/slices"), "k1", &spec)
        .await;
    assert!(refusal(asked).is(Kind::Forbidden));
    let invited = json!({"kind": "cluster", "name": "x"});
    let answer = cluster
        .post::<_, serde_json::Value>(&path("/invitations"), &invited)
        .await;
    assert!(refusal(answer).is(Kind::Forbidden));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_declares_its_gateway_and_does_not_say_who_may_pass() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let near = Site::new("rights-gateway", "daejeon", "busan", None).await;
    let (own, other) = (node(&near, "gate").await, node(&near, "dtn").await);
    declare(&own, "gate", NEAR, false).await.unwrap();
    declare(&other, "dtn", OTHER, false).await.unwrap();
    let put = async |client: &Client, at: &str, body: &serde_json::Value| {
        let at = path(at);
        let answer = client.call::<_, serde_json::Value>(http::Method::PUT, &at, &[], Some(body));
        answer.await.map(|answer| answer.body)
    };
    let get = async |client: &Client, at: &str| client.get::<serde_json::Value>(&path(at)).await;
    let spec = json!({"node": "gate", "host": format!("{NEAR}-none"), "networks": ["0.0.0.0/0"],
        "outside": ["192.0.2.2/24"]});
    let at = "/gateways/internet";
    assert!(refusal(put(&other, at, &spec).await).is(Kind::Forbidden));
    put(&own, at, &spec).await.unwrap();
    // whoever asks for a slice may look for a gateway; its own things are its own
    assert_eq!(get(&other, at).await.unwrap()["name"], "internet");
    assert_eq!(
        get(&other, "/gateways").await.unwrap()["items"][0]["name"],
        "internet"
    );
    let report = json!({"rules_version": 0, "slices": [], "read_at": jiff::Timestamp::now()});
    let question = "?src=10.20.0.2&dst=192.0.2.9";
    let (reports, rules) = (format!("{at}/report"), format!("{at}/access_rules"));
    assert!(refusal(put(&other, &reports, &report).await).is(Kind::Forbidden));
    assert!(refusal(get(&other, &rules).await).is(Kind::Forbidden));
    let asked = get(&other, &format!("{at}/explain{question}")).await;
    assert!(refusal(asked).is(Kind::Forbidden));
    assert!(refusal(other.delete(&path(at), None).await).is(Kind::Forbidden));
    put(&own, &reports, &report).await.unwrap();
    get(&own, &rules).await.unwrap();
    // neither writes rules, not even of its own gateway
    let one = json!({"priority": 5, "action": "allow", "direction": "outbound"});
    for client in [&own, &other] {
        let whole = put(client, &rules, &json!({"items": [one]})).await;
        assert!(refusal(whole).is(Kind::Forbidden));
        let single = put(client, &format!("{rules}/5"), &one).await;
        assert!(refusal(single).is(Kind::Forbidden));
        let gone = client.delete(&path(&format!("{rules}/5")), None).await;
        assert!(refusal(gone).is(Kind::Forbidden));
    }
    put(&near.admin, &format!("{rules}/5"), &one).await.unwrap();

    // a slice of its own NIC with somebody else's gateway; the gateway's lease is the gateway's
    let spec = json!({
        "name": "out", "qos": {"class": "guaranteed", "rate_bps": 100_000_000},
        "members": [{"host": format!("{OTHER}-none")},
            {"host": format!("{NEAR}-none"), "role": "gateway"}],
        "schedule": window(), "commit": true,
    });
    let slices = path("/slices");
    let slice: Slice = other.post_once(&slices, "s1", &spec).await.unwrap();
    let leases = path(&format!("/slices/{}/leases", slice.id));
    let wish = lease("gateway:internet");
    let stolen = other.post_once::<_, Lease>(&leases, "l1", &wish).await;
    assert!(refusal(stolen).is(Kind::Forbidden));
    let kept: Lease = own.post_once(&leases, "l1", &wish).await.unwrap();
    assert_eq!(kept.ips[0].to_string(), "10.20.0.1/24");
    // what comes from its hardware address is judged as the gateway's: nobody else has that
    for mac in [kept.mac, NEAR.parse().unwrap()] {
        let posed = LeaseRequest {
            mac,
            ..lease("posed")
        };
        let posed = other.post_once::<_, Lease>(&leases, "l2", &posed).await;
        let problem = refusal(posed);
        assert!(problem.is(Kind::AddressInConflict), "{problem}");
        assert_eq!(problem.errors[0].pointer, "/mac");
    }
    own.delete(&path(&format!("/leases/{}", kept.id)), None)
        .await
        .unwrap();
    own.delete(&path(at), None).await.unwrap_err();
}

/// As busan's own controller comes: with busan's certificate for other domains.
fn as_busan(near: &Site, far: &Site) -> Client {
    let read = |site: &Site, file: &str| {
        std::fs::read_to_string(site.root().join("var/lib/dtn/vdn/keys").join(file)).unwrap()
    };
    let authority = rcgen::KeyPair::from_pem(&read(far, "ca.key")).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&read(far, "ca.pem"), authority).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    let uri = "spiffe://busan/peer/busan";
    params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
    let identity = TlsIdentity {
        ca_pem: read(near, "ca.pem"),
        own: Some((
            params.signed_by(&key, &issuer).unwrap().pem(),
            key.serialize_pem(),
        )),
    };
    Client::tls(&near.url, &identity, CALL).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_domain_sees_what_is_offered_and_no_more() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (near, far) = federate("rights-peer", None, None).await;
    declare(&near.admin, "dtn2", OTHER, false).await.unwrap();
    let busan = as_busan(&near, &far);
    let query = |host: &str| AvailabilityQuery {
        class: Class::Guaranteed,
        mode: Default::default(),
        members: vec![
            serde_json::from_value(json!({"border_link": "wan"})).unwrap(),
            serde_json::from_value(json!({"host": format!("{host}-none")})).unwrap(),
        ],
        schedule: window(),
        rate_bps: None,
        remote: None,
    };
    let at = path("/availability");
    let open: Availability = busan.post(&at, &query(NEAR)).await.unwrap();
    assert_eq!(open.max_rate_bps, 950_000_000);
    // one that is not offered looks like one that is not there
    let hidden = refusal(busan.post::<_, Availability>(&at, &query(OTHER)).await);
    let absent = refusal(busan.post::<_, Availability>(&at, &query(FAR)).await);
    assert!(hidden.is(Kind::NotFound));
    assert_eq!(hidden.errors, absent.errors);
    for closed in [
        "/slices",
        "/hosts",
        "/leases",
        "/stitches",
        "/topology",
        "/fabric",
        "/domains",
        "/events",
        "/gateways",
        "/gateways/internet",
        "/gateways/internet/access_rules",
        "/gateways/internet/explain",
    ] {
        let answer = busan.get::<serde_json::Value>(&path(closed)).await;
        assert!(refusal(answer).is(Kind::Forbidden), "{closed}");
    }
    // nor does it propose in another one's name
    let proposal = json!({
        "stitch_id": "01930000-0000-7000-8000-000000000002", "initiator": "jeju", "name": "x",
        "tenant": "default", "qos": {"class": "guaranteed", "rate_bps": 1}, "schedule": window(),
        "border_link": "wan", "addressing": {"ipv4": {"cidr": "10.9.0.0/24"}}, "hold_seconds": 60,
        "now": jiff::Timestamp::now(),
    });
    let answer = busan
        .post_once::<_, Stitch>(&path("/stitches/inbound"), "k", &proposal)
        .await;
    assert!(refusal(answer).is(Kind::Forbidden));
    // nor with a clock that is far off
    let mut late = proposal.clone();
    late["initiator"] = json!("busan");
    late["now"] = json!(jiff::Timestamp::now() - jiff::SignedDuration::from_secs(90));
    let answer = refusal(
        busan
            .post_once::<_, Stitch>(&path("/stitches/inbound"), "k", &late)
            .await,
    );
    assert!(answer.detail.contains("clock"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_comes_with_a_token() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut site = Site::new("rights-token", "daejeon", "busan", None).await;
    let token = site.root().join("operator.token");
    std::fs::write(&token, "correct-horse-battery\n").unwrap();
    let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&token, own).unwrap();
    site.kill();
    site.configure(&format!(
        "[operator]\ntoken-file = {:?}",
        token.display().to_string()
    ));
    site.start(None).await;
    let ca = std::fs::read_to_string(site.root().join("var/lib/dtn/vdn/keys/ca.pem")).unwrap();
    let identity = TlsIdentity {
        ca_pem: ca,
        own: None,
    };
    let stranger = Client::tls(&site.url, &identity, CALL).unwrap();
    let ask = async |client: Client| client.get::<List<Slice>>(&path("/slices")).await;
    assert!(refusal(ask(stranger.clone()).await).is(Kind::Unauthenticated));
    for wrong in ["correct-horse-batter", "", "correct-horse-battery-"] {
        let client = stranger.clone().with_bearer(wrong).unwrap();
        assert!(
            refusal(ask(client).await).is(Kind::Unauthenticated),
            "{wrong}"
        );
    }
    ask(stranger
        .clone()
        .with_bearer("correct-horse-battery")
        .unwrap())
    .await
    .unwrap();
    // a short one is no token at all, whatever the file says
    std::fs::write(&token, "short").unwrap();
    let short = ask(stranger.with_bearer("short").unwrap()).await;
    assert!(refusal(short).is(Kind::Unauthenticated));
}
