//! Gateways and access rules over the real controller: who may, what is refused, what stays over a
//! kill, and what a slice has of its gateway.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod site;

use dtn_api::{
    client::{Answer, Client, ClientError},
    gateway::{AccessAction, Explanation, Gateway, StandingRule, StandingRules},
    host::Host,
    lease::Lease,
    problem::Kind,
    slice::{List, Slice},
    stitch::Stitch,
};
use http::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use site::{FAR, NEAR, Site, act, eventually, federate, path, refusal, window};

const GATE: &str = "02:00:00:00:00:07";

/// Three looks of the controller at its clock.
const THREE_LOOKS: std::time::Duration = std::time::Duration::from_millis(1500);

async fn send<T: DeserializeOwned>(
    client: &Client,
    method: Method,
    at: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Result<Answer<T>, ClientError> {
    client.call(method, &path(at), headers, Some(body)).await
}
async fn put<T: DeserializeOwned>(
    client: &Client,
    at: &str,
    body: &Value,
) -> Result<T, ClientError> {
    Ok(send(client, Method::PUT, at, &[], body).await?.body)
}
async fn nic(client: &Client, node: &str, mac: &str) {
    let nic = json!({"kind": "nic", "node": node, "nic": "data0", "capacity_bps": 10_000_000_000_u64,
        "mtu": 9000});
    let _: Host = put(client, &format!("/hosts/{mac}-none"), &nic)
        .await
        .unwrap();
}
fn gateway() -> Value {
    json!({"node": "gate", "host": format!("{GATE}-none"),
        "networks": ["0.0.0.0/0", "::/0"], "outside": ["192.0.2.2/24", "2001:db8::2/64"]})
}
fn allow(number: u16, port: &str) -> Value {
    json!({"priority": number, "action": "allow", "direction": "outbound",
        "match": {"proto": "tcp", "dst": "192.0.2.0/24", "dst_ports": [port]}})
}
/// A domain with a host, and a gateway on a host of its own.
async fn domain(test: &str) -> Site {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let site = Site::new(test, "daejeon", "busan", None).await;
    site.declare(NEAR).await;
    nic(&site.admin, "gate", GATE).await;
    let _: Gateway = put(&site.admin, "/gateways/internet", &gateway())
        .await
        .unwrap();
    site
}
fn wish(name: &str) -> Value {
    json!({
        "name": name, "qos": {"class": "guaranteed", "rate_bps": 100_000_000},
        "members": [{"host": format!("{NEAR}-none")}, {"host": format!("{GATE}-none"), "role": "gateway"}],
        "schedule": window(), "commit": true,
    })
}
async fn reserve(client: &Client, wish: &Value, key: &str) -> Result<Slice, ClientError> {
    client.post_once(&path("/slices"), key, wish).await
}
async fn lease(client: &Client, slice: &Slice, client_id: &str) -> Result<Lease, ClientError> {
    let at = path(&format!("/slices/{}/leases", slice.id));
    let body = json!({"client_id": client_id, "mac": dtn_api::MacAddress::local_from(client_id)});
    client.post_once(&at, client_id, &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_written_whole_by_version_and_stay() {
    let mut site = domain("gateways-rules").await;
    let admin = site.admin.clone();
    let at = "/gateways/internet/access_rules";
    let empty: StandingRules = admin.get(&path(at)).await.unwrap();
    assert!(empty.items.is_empty());
    // one fault, and nothing is changed
    let bad = json!({"items": [allow(200, "443"), allow(200, "80"), allow(0, "22")]});
    let problem = refusal(put::<StandingRules>(&admin, at, &bad).await);
    let pointers: Vec<&str> = problem.errors.iter().map(|e| e.pointer.as_str()).collect();
    assert_eq!(pointers, ["/items/1/priority", "/items/2/priority"]);
    let list = json!({"items": [allow(200, "443"), allow(100, "50000-51000")]});
    let dry: StandingRules = put(&admin, &format!("{at}?dry_run=true"), &list)
        .await
        .unwrap();
    assert_eq!(dry.items.len(), 2);
    assert_eq!(admin.get::<StandingRules>(&path(at)).await.unwrap(), empty);
    let stale = [("if-match", "\"v999999\"")];
    let late = send::<StandingRules>(&admin, Method::PUT, at, &stale, &list).await;
    assert!(refusal(late).is(Kind::VersionMismatch));
    let tag = format!("\"v{}\"", empty.version);
    let match_ = [("if-match", tag.as_str())];
    let first: Answer<StandingRules> = send(&admin, Method::PUT, at, &match_, &list).await.unwrap();
    let numbers: Vec<u16> = first.body.items.iter().map(|r| r.rule.priority).collect();
    assert_eq!(numbers, [100, 200]);
    assert_eq!(first.headers["etag"], format!("\"v{}\"", empty.version + 1));
    let again: StandingRules = put(&admin, at, &list).await.unwrap();
    assert_eq!(again.version, first.body.version, "twice is once");

    // one rule, by its number and its own version
    let one = format!("{at}/150");
    let new = [("if-none-match", "*")];
    let made: Answer<StandingRule> = send(&admin, Method::PUT, &one, &new, &allow(150, "22"))
        .await
        .unwrap();
    assert_eq!(made.status, 201);
    let twice = send::<StandingRule>(&admin, Method::PUT, &one, &new, &allow(150, "22")).await;
    assert!(refusal(twice).is(Kind::VersionMismatch));
    let other = put::<StandingRule>(&admin, &one, &allow(151, "22")).await;
    assert_eq!(refusal(other).errors[0].pointer, "/priority");
    let seen: Answer<StandingRule> = admin
        .call(Method::GET, &path(&one), &[], None::<&()>)
        .await
        .unwrap();
    // somebody else's change of another rule is none of this one
    let _: StandingRule = put(&admin, &format!("{at}/100"), &allow(100, "50000-50999"))
        .await
        .unwrap();
    let tag = seen.headers["etag"].to_str().unwrap();
    let mine = [("if-match", tag)];
    let changed: Answer<StandingRule> = send(&admin, Method::PUT, &one, &mine, &allow(150, "2222"))
        .await
        .unwrap();
    assert_eq!(changed.status, 200);
    let late = send::<StandingRule>(&admin, Method::PUT, &one, &mine, &allow(150, "23")).await;
    assert!(refusal(late).is(Kind::VersionMismatch));
    for _ in 0..2 {
        admin
            .delete(&path(&format!("{at}/200")), None)
            .await
            .unwrap();
    }
    let gone = admin.get::<StandingRule>(&path(&format!("{at}/200"))).await;
    assert!(refusal(gone).is(Kind::NotFound));

    // killed, all of it is there; and who did it
    let before: StandingRules = admin.get(&path(at)).await.unwrap();
    site.kill();
    site.start(None).await;
    let after: StandingRules = admin.get(&path(at)).await.unwrap();
    assert_eq!(after, before);
    let events: List<dtn_api::domain::Event> = admin.get(&path("/events")).await.unwrap();
    let said: Vec<&str> = events
        .items
        .iter()
        .map(|event| event.what.as_str())
        .collect();
    for what in [
        "gateway.declared",
        "access.replaced",
        "access.set",
        "access.removed",
    ] {
        assert!(said.contains(&what), "{what} in {said:?}");
    }
    // a gateway that is declared anew has no version that another list had
    admin
        .delete(&path("/gateways/internet"), None)
        .await
        .unwrap();
    let anew: Gateway = put(&admin, "/gateways/internet", &gateway()).await.unwrap();
    assert!(anew.rules_version > after.version);
    let rules: StandingRules = admin.get(&path(at)).await.unwrap();
    assert!(rules.items.is_empty(), "rules go with their gateway");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_declared_with_a_nic_of_its_own() {
    let site = domain("gateways-declared").await;
    let admin = &site.admin;
    let again: Gateway = put(admin, "/gateways/internet", &gateway()).await.unwrap();
    assert_eq!(again.version, 1);
    let other = |change: &dyn Fn(&mut Value)| {
        let mut spec = gateway();
        change(&mut spec);
        spec
    };
    let absent = other(&|spec| spec["host"] = json!(format!("{FAR}-none")));
    let cases = [
        ("second", gateway(), Kind::StateConflict, "/host"),
        ("second", absent, Kind::NotFound, "/host"),
        (
            "second",
            other(&|spec| spec["host"] = json!(format!("{NEAR}-none"))),
            Kind::Forbidden,
            "/host",
        ),
        ("site-switch", gateway(), Kind::InvalidRequest, ""),
        (
            "second",
            other(&|spec| spec["outside"] = json!(["10.20.9.1/24"])),
            Kind::InvalidRequest,
            "/outside/0",
        ),
    ];
    for (name, spec, kind, pointer) in cases {
        let problem = refusal(put::<Gateway>(admin, &format!("/gateways/{name}"), &spec).await);
        assert!(problem.is(kind), "{problem}");
        assert_eq!(problem.errors[0].pointer, pointer, "{problem}");
    }
    let stolen = other(&|spec| spec["node"] = json!("dtn"));
    let problem = refusal(put::<Gateway>(admin, "/gateways/internet", &stolen).await);
    assert!(problem.is(Kind::NameTaken), "{problem}");
    let nic = path(&format!("/hosts/{GATE}-none"));
    assert!(refusal(admin.delete(&nic, None).await).is(Kind::StateConflict));

    let changed = other(&|spec| spec["nat"] = json!(true));
    let changed: Gateway = put(admin, "/gateways/internet", &changed).await.unwrap();
    assert_eq!(changed.version, 2);
    let stale = [("if-match", "\"v1\"")];
    let at = "/gateways/internet";
    let late = send::<Gateway>(admin, Method::PUT, at, &stale, &gateway()).await;
    assert!(refusal(late).is(Kind::VersionMismatch));
    let listed: List<Gateway> = admin.get(&path("/gateways?node=gate")).await.unwrap();
    assert_eq!(listed.items, [changed]);
    let none: List<Gateway> = admin.get(&path("/gateways?node=dtn")).await.unwrap();
    assert!(none.items.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_with_a_gateway_has_its_address_and_its_routes() {
    let site = domain("gateways-slice").await;
    let admin = &site.admin;
    // a host that is no gateway's
    let mut bad = wish("lhc");
    bad["members"][1] = json!({"host": format!("{NEAR}-none"), "role": "gateway"});
    bad["members"][0] = json!({"host": format!("{GATE}-none")});
    let problem = refusal(reserve(admin, &bad, "k0").await);
    assert!(problem.is(Kind::NotFound), "{problem}");
    assert_eq!(problem.errors[0].pointer, "/members/1/role");
    let mut bad = wish("lhc");
    bad["addressing"] = json!({"ipv4": {"cidr": "192.0.2.128/25"}});
    let problem = refusal(reserve(admin, &bad, "k0").await);
    assert!(problem.is(Kind::AddressInConflict), "{problem}");

    let slice = reserve(admin, &wish("lhc"), "k1").await.unwrap();
    let addressing = slice.spec.addressing.as_ref().unwrap();
    let kept =
        |pool: &Option<dtn_api::slice::Pool>| pool.as_ref().unwrap().gateway.unwrap().to_string();
    assert_eq!(kept(&addressing.ipv4), "10.20.0.1");
    assert_eq!(kept(&addressing.ipv6), "fd00:20::1");
    let pod = lease(admin, &slice, "pod").await.unwrap();
    assert_eq!(pod.ips[0].to_string(), "10.20.0.2/24");
    let routes: Vec<String> = pod
        .routes
        .iter()
        .map(|r| format!("{} via {}", r.dst, r.gw.unwrap()))
        .collect();
    assert_eq!(routes, ["0.0.0.0/0 via 10.20.0.1", "::/0 via fd00:20::1"]);
    // only the gateway is the gateway
    let other = refusal(lease(admin, &slice, "gateway:other").await);
    assert!(other.is(Kind::StateConflict), "{other}");
    let serves = async || {
        let slice: Slice = admin
            .get(&path(&format!("/slices/{}", slice.id)))
            .await
            .unwrap();
        let mut said = slice.status.conditions.into_iter();
        said.find(|c| c.kind == "GatewayServes")
            .map(|c| (c.status, c.reason))
    };
    eventually("the gateway is missed", async || {
        serves()
            .await
            .is_some_and(|(well, why)| !well && why.contains("holds no lease"))
    })
    .await;
    let own = lease(admin, &slice, "gateway:internet").await.unwrap();
    let ips: Vec<String> = own.ips.iter().map(ToString::to_string).collect();
    assert_eq!(ips, ["10.20.0.1/24", "fd00:20::1/64"]);
    assert!(own.routes.is_empty());
    assert_eq!(lease(admin, &slice, "gateway:internet").await.unwrap(), own);

    // what its host reads back, and what was counted
    let at = "/gateways/internet/access_rules";
    let list = json!({"items": [allow(100, "443")]});
    let rules: StandingRules = put(admin, at, &list).await.unwrap();
    let report = |version: u64, trouble: Option<&str>| {
        json!({
        "rules_version": version, "slices": [slice.id], "rules": {"100": {"packets": 7, "bytes": 700}},
        "denied_inbound": {"packets": 3, "bytes": 180}, "trouble": trouble,
        "read_at": jiff::Timestamp::now()})
    };
    let said: Gateway = put(
        admin,
        "/gateways/internet/report",
        &report(rules.version - 1, None),
    )
    .await
    .unwrap();
    assert_eq!(said.rules_version, rules.version);
    eventually("it has old rules", async || {
        serves()
            .await
            .is_some_and(|(well, why)| !well && why.contains("of version"))
    })
    .await;
    let trouble = report(rules.version, Some("ext0 is down"));
    let _: Gateway = put(admin, "/gateways/internet/report", &trouble)
        .await
        .unwrap();
    eventually("it is in trouble", async || {
        serves()
            .await
            .is_some_and(|(well, why)| !well && why.contains("ext0 is down"))
    })
    .await;
    let _: Gateway = put(
        admin,
        "/gateways/internet/report",
        &report(rules.version, None),
    )
    .await
    .unwrap();
    eventually("it serves", async || {
        serves().await.is_some_and(|(well, _)| well)
    })
    .await;
    // what is said again and again is written down once
    let read = async || {
        let at = path(&format!("/slices/{}", slice.id));
        admin.get::<Slice>(&at).await.unwrap().version
    };
    let before = read().await;
    tokio::time::sleep(THREE_LOOKS).await;
    assert_eq!(read().await, before);
    let counted: StandingRules = admin.get(&path(at)).await.unwrap();
    assert_eq!(counted.items[0].host.packets, 7);
    assert_eq!(counted.denied_host.packets, 3);
    assert_eq!(counted.items[0].switches, None, "no switches here");

    // why, without a packet
    let explain = |query: &str| path(&format!("/gateways/internet/explain?{query}"));
    let good = explain("src=10.20.0.2&dst=192.0.2.9&proto=tcp&dst_port=443");
    let why: Explanation = admin.get(&good).await.unwrap();
    assert_eq!(why.slice.as_str(), "lhc");
    assert_eq!(why.packet.why, "rule 100 allows it");
    assert_eq!(why.answer.action, AccessAction::Allow);
    let problem = refusal(admin.get::<Explanation>(&explain("src=x&proto=gre")).await);
    let pointers: Vec<&str> = problem.errors.iter().map(|e| e.pointer.as_str()).collect();
    assert_eq!(pointers, ["/src", "/proto", "/dst"]);

    // it stays while a slice has it
    let at = path("/gateways/internet");
    assert!(refusal(admin.delete(&at, None).await).is(Kind::StateConflict));
    let mut moved = gateway();
    nic(admin, "gate", "02:00:00:00:00:08").await;
    moved["host"] = json!("02:00:00:00:00:08-none");
    let problem = refusal(put::<Gateway>(admin, "/gateways/internet", &moved).await);
    assert!(problem.is(Kind::StateConflict), "{problem}");
    let end = path(&format!("/slices/{}/actions/terminate", slice.id));
    let _: Slice = admin.post(&end, &json!({})).await.unwrap();
    for _ in 0..2 {
        admin.delete(&at, None).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_of_a_stitch_can_have_a_gateway_and_the_other_end_knows_no_way_out() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (near, far) = federate("gateways-stitch", None, None).await;
    nic(&near.admin, "gate", GATE).await;
    let _: Gateway = put(&near.admin, "/gateways/internet", &gateway())
        .await
        .unwrap();
    let mut spec = json!({
        "name": "lhc", "qos": {"class": "guaranteed", "rate_bps": 100_000_000, "mode": "hose"},
        "schedule": window(), "remote": {"domain": "busan"}, "hold_seconds": 60,
        "members": [{"host": format!("{NEAR}-none")},
            {"host": format!("{GATE}-none"), "role": "gateway"}],
        "addressing": {"ipv4": {"cidr": "10.99.0.0/24", "gateway": "10.99.0.200"}},
    });
    // the far half of the addresses is not ours to keep one of
    let at = path("/stitches");
    let half = near.admin.post_once::<_, Stitch>(&at, "k0", &spec).await;
    assert_eq!(refusal(half).errors[0].pointer, "/addressing/ipv4/gateway");
    spec["addressing"]["ipv4"]["gateway"] = json!("10.99.0.9");
    let stitch: Stitch = near.admin.post_once(&at, "k1", &spec).await.unwrap();
    act(&near.admin, stitch.id, "commit").await.unwrap();
    let ends = [
        (&near, stitch.slice_id, Some("10.99.0.9")),
        (&far, stitch.peer_slice_id.unwrap(), None),
    ];
    for (site, id, address) in ends {
        let admin = &site.admin;
        let slice: Slice = admin.get(&path(&format!("/slices/{id}"))).await.unwrap();
        let pool = slice.spec.addressing.clone().unwrap().ipv4.unwrap();
        assert_eq!(pool.gateway, address.map(|ip| ip.parse().unwrap()));
        let pod = lease(admin, &slice, "pod").await.unwrap();
        assert_eq!(pod.routes.len(), usize::from(address.is_some()));
        let own = lease(admin, &slice, "gateway:internet").await;
        let ips = own.ok().map(|own| own.ips[0].addr().to_string());
        assert_eq!(ips.as_deref(), address);
    }
}
