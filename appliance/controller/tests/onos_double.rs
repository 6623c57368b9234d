//! The fabric `onos` against a double of ONOS: a server that answers in the shapes that a real core
//! was recorded with (`onos/recorded`), plays what happens between PENDING_ADD and ADDED, and fails
//! when it is told to. It knows nothing of switches: that a rule does what it says, that ONOS orders
//! or drops anything, how long it takes, are proven in `onos.rs` with a real core, or not at all.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod wish;

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex},
};
use tokio_util::sync::CancellationToken;
use vdnd::fabric::{
    Attached, BorderEnd, Fabric, Intent,
    onos::{Onos, OnosConfig, instance},
};
use wish::{MUCH, TWO, network, slice, until};

fn recorded(name: &str) -> Value {
    let file = format!(
        "{}/tests/onos/recorded/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

#[derive(Default)]
struct Double {
    flows: BTreeMap<String, Value>,
    meters: BTreeMap<u32, Value>,
    hosts: BTreeMap<String, Value>,
    proxyarp: bool,
    away: bool,
    /// What every call is answered with instead.
    failing: Option<&'static str>,
    posts: Vec<String>,
    last: u32,
}
type Shared = Arc<Mutex<Double>>;

fn said(name: &str) -> Response {
    let answer = recorded(name);
    let status = StatusCode::from_u16(answer["status"].as_u64().unwrap() as u16).unwrap();
    let text = match &answer["text"] {
        Value::String(text) => text.clone(),
        _ => answer["body"].to_string(),
    };
    let kind = answer["content_type"].as_str().unwrap().to_owned();
    (status, [(header::CONTENT_TYPE, kind)], text).into_response()
}
fn of(name: &str, list: &str, values: Vec<Value>) -> Response {
    let mut body = recorded(name)["body"].clone();
    body[list] = values.into();
    axum::Json(body).into_response()
}

async fn answer(
    State(double): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut double = double.lock().unwrap();
    if headers
        .get(header::AUTHORIZATION)
        .is_none_or(|v| v != "Basic b25vczpyb2Nrcw==")
    {
        return said("wrong_password");
    }
    if body.is_empty() && headers.contains_key(header::CONTENT_TYPE) {
        return said("content_type_on_get");
    }
    match double.failing {
        Some("503") => {
            return (
                StatusCode::SERVICE_UNAVAILABLE,
                "{\"code\":503,\"message\":\"Service x not found\"}",
            )
                .into_response();
        }
        Some("500") => {
            return (
                StatusCode::INTERNAL_SERVER_ERROR,
                "{\"code\":500,\"message\":\"boom\"}",
            )
                .into_response();
        }
        Some(name) => return said(name),
        None => {}
    }
    let path = uri.path().strip_prefix("/onos/v1").unwrap().to_owned();
    let sent: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let device = |n: u32| format!("of:{n:016x}");
    match (method.as_str(), parts.as_slice()) {
        ("GET", ["devices"]) => {
            let template = &recorded("devices")["body"]["devices"][0];
            let one = |n| {
                let mut one = template.clone();
                one["id"] = json!(device(n));
                one["available"] = json!(!double.away);
                one
            };
            of("devices", "devices", (1..=2).map(one).collect())
        }
        ("GET", ["devices", id, "ports"]) => {
            let (own, cable) = if id.ends_with('1') {
                ("ha", "edge1-edge2")
            } else {
                ("hb", "edge2-edge1")
            };
            let port = |(n, name): (usize, &str)| {
                let mut port = recorded("ports")["body"]["ports"][0].clone();
                port["port"] = json!((n + 1).to_string());
                port["annotations"]["portName"] = json!(name);
                port
            };
            of(
                "ports",
                "ports",
                [own, cable, "border"]
                    .into_iter()
                    .enumerate()
                    .map(port)
                    .collect(),
            )
        }
        ("GET", ["flows", "application", _]) if double.flows.is_empty() => {
            said("flows_unknown_application")
        }
        ("GET", ["flows", "application", _]) => {
            let now = double.flows.values().cloned().collect();
            let meters: Vec<String> = double.meters.keys().map(u32::to_string).collect();
            for flow in double.flows.values_mut() {
                // a switch refuses a rule whose meter it does not have
                let list = flow["treatment"]["instructions"].as_array().unwrap();
                let there = list
                    .iter()
                    .all(|i| i["type"] != "METER" || meters.iter().any(|m| i["meterId"] == **m));
                flow["state"] = json!(if there { "ADDED" } else { "FAILED" });
            }
            of("flows_added", "flows", now)
        }
        ("POST", ["flows"]) => {
            assert_eq!(uri.query(), Some("appId=org.example.dtn"));
            for flow in sent["flows"].as_array().unwrap() {
                let mut made = recorded("flows_pending")["body"]["flows"][0].clone();
                for name in ["deviceId", "tableId", "priority", "selector", "treatment"] {
                    made[name] = flow[name].clone();
                }
                let id = format!(
                    "{} {} {} {}",
                    flow["deviceId"], flow["tableId"], flow["priority"], flow["selector"]
                );
                made["id"] = json!(id);
                made["state"] = json!("PENDING_ADD");
                double.posts.push(format!(
                    "flow {} {} {}",
                    flow["tableId"], flow["priority"], flow["treatment"]
                ));
                double.flows.insert(id, made);
            }
            said("flows_made")
        }
        ("DELETE", ["flows"]) => {
            for flow in sent["flows"].as_array().unwrap() {
                double.flows.remove(flow["flowId"].as_str().unwrap());
            }
            StatusCode::NO_CONTENT.into_response()
        }
        ("GET", ["meters"]) => {
            let now = double.meters.values().cloned().collect();
            for meter in double.meters.values_mut() {
                meter["state"] = json!("ADDED");
            }
            of("meters_added", "meters", now)
        }
        ("POST", ["meters", id]) => {
            assert_eq!(sent["burst"], true, "or it would be a second of the rate");
            double.last += 1;
            let number = double.last;
            let mut made = recorded("meters_pending")["body"]["meters"][0].clone();
            made["id"] = json!(number.to_string());
            made["deviceId"] = json!(id);
            made["bands"][0]["rate"] = sent["bands"][0]["rate"].clone();
            made["bands"][0]["burstSize"] = sent["bands"][0]["burstSize"].clone();
            double.meters.insert(number, made);
            double.posts.push(format!("meter {number}"));
            let at = format!("http://x/onos/v1/meters/{id}/{number}");
            (StatusCode::CREATED, [(header::LOCATION, at)]).into_response()
        }
        ("DELETE", ["meters", _, id]) => {
            let users = double
                .flows
                .values()
                .filter(|f| {
                    f["treatment"]
                        .to_string()
                        .contains(&format!("\"meterId\":\"{id}\""))
                })
                .count();
            assert_eq!(users, 0, "a meter takes its rules with it");
            double.meters.remove(&id.parse().unwrap());
            double.posts.push(format!("meter {id} gone"));
            StatusCode::NO_CONTENT.into_response()
        }
        ("GET", ["hosts"]) => of("hosts", "hosts", double.hosts.values().cloned().collect()),
        ("POST", ["hosts"]) => {
            let mac = sent["mac"].as_str().unwrap().to_uppercase();
            let mut made = recorded("hosts")["body"]["hosts"][0].clone();
            for name in ["ipAddresses", "locations", "annotations"] {
                made[name] = sent[name].clone();
            }
            made["mac"] = json!(mac);
            double.hosts.insert(mac, made);
            StatusCode::CREATED.into_response()
        }
        ("DELETE", ["hosts", mac, "None"]) => {
            double.hosts.remove(&mac.to_uppercase());
            StatusCode::NO_CONTENT.into_response()
        }
        ("GET", ["links"]) => said("links"),
        ("GET", ["applications"]) if double.proxyarp => axum::Json(
            json!({"applications": [{"name": "org.onosproject.proxyarp", "state": "ACTIVE"}]}),
        )
        .into_response(),
        ("GET", ["applications"]) => said("applications"),
        other => panic!("no such call: {other:?}"),
    }
}

struct Rig {
    double: Shared,
    url: String,
    dir: tempfile::TempDir,
    stop: CancellationToken,
    _ends: tokio_util::sync::DropGuard,
}
impl Rig {
    async fn start() -> Self {
        let double = Shared::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(double.clone());
        let stop = CancellationToken::new();
        let ended = stop.clone();
        tokio::spawn(async move {
            axum::serve(listener, router)
                .with_graceful_shutdown(ended.cancelled_owned())
                .await
                .unwrap();
        });
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cred");
        fs::write(&file, "onos:rocks\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let _ends = stop.clone().drop_guard();
        Self {
            double,
            url,
            dir,
            stop,
            _ends,
        }
    }
    fn set(&self, change: impl FnOnce(&mut Double)) {
        change(&mut self.double.lock().unwrap());
    }
    async fn fabric(&self, owner: &str) -> Arc<Onos> {
        let config = OnosConfig {
            url: self.url.clone(),
            credentials_file: self.dir.path().join("cred"),
            app_id: "org.example.dtn".into(),
            owner: owner.into(),
            plain: false,
            ca_file: None,
        };
        Onos::start(network(&TWO), config, self.stop.clone())
            .await
            .unwrap()
    }
}
fn wanted() -> Intent {
    let member = |n: u8, at: &str| Attached {
        mac: dtn_api::MacAddress::new([2, 0, 0, 0, 0, n]),
        ips: vec![[10, 0, 0, n].into(), format!("fd00::{n}").parse().unwrap()],
        at: at.parse().unwrap(),
    };
    slice(
        7,
        MUCH,
        vec![member(1, "edge1/ha"), member(2, "edge2/hb")],
        &TWO,
    )
}
async fn programmed(fabric: &Onos, wanted: &Intent) {
    until("it is programmed", || {
        fabric.programmed(wanted.slice).is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_let_in_comes_last_and_meters_go_last() {
    let rig = Rig::start().await;
    let fabric = rig.fabric("here/1").await;
    let mut wish = wanted();
    fabric.intend(vec![wish.clone()]);
    programmed(&fabric, &wish).await;
    assert_eq!(fabric.check().await, []);
    rig.set(|d| {
        let posts = std::mem::take(&mut d.posts);
        let first = posts.iter().position(|p| p.contains("METER")).unwrap();
        let forwards = posts
            .iter()
            .rposition(|p| p.starts_with("flow 20") || p.starts_with("flow 10"));
        assert!(forwards.unwrap() < first, "{posts:#?}");
        assert_eq!((d.meters.len(), d.hosts.len()), (2, 2));
    });
    // make before break
    wish.rate_bps = MUCH / 2;
    fabric.intend(vec![wish.clone()]);
    programmed(&fabric, &wish).await;
    until("the old meters are gone", || {
        rig.double.lock().unwrap().meters.len() == 2
    })
    .await;
    rig.set(|d| {
        let posts = std::mem::take(&mut d.posts);
        let at = |text: &str| posts.iter().position(|p| p == text).unwrap();
        let swapped = posts.iter().rposition(|p| p.contains("METER")).unwrap();
        assert!(
            at("meter 4") < swapped && swapped < at("meter 1 gone"),
            "{posts:#?}"
        );
    });
    fabric.intend(Vec::new());
    until("only the marks are left", || {
        let d = rig.double.lock().unwrap();
        d.flows.len() == 2 && d.meters.is_empty() && d.hosts.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_onos_that_fails_is_trouble_and_is_made_good_after() {
    let rig = Rig::start().await;
    let fabric = rig.fabric("here/1").await;
    let wish = wanted();
    fabric.intend(vec![wish.clone()]);
    programmed(&fabric, &wish).await;
    for (failing, why) in [
        ("500", "500: boom"),
        ("503", "is starting"),
        ("wrong_password", "password is wrong"),
    ] {
        rig.set(|d| d.failing = Some(failing));
        // any wish makes it look again at once
        fabric.intend(vec![wish.clone()]);
        until("it is trouble", || {
            fabric.trouble().is_some_and(|t| t.contains(why))
        })
        .await;
        assert!(
            fabric.programmed(wish.slice).is_err(),
            "nothing is said on faith"
        );
        assert!(fabric.check().await.iter().all(|d| d.kind == "unreachable"));
        rig.set(|d| d.failing = None);
        fabric.intend(vec![wish.clone()]);
        programmed(&fabric, &wish).await;
    }
    // a controller of switches that has forgotten all, and a switch that is away
    rig.set(|d| (d.flows, d.meters, d.hosts) = Default::default());
    fabric.intend(vec![wish.clone()]);
    until("it is all there again", || {
        rig.double.lock().unwrap().hosts.len() == 2
    })
    .await;
    programmed(&fabric, &wish).await;
    rig.set(|d| d.away = true);
    fabric.intend(vec![wish.clone()]);
    until("it is away", || {
        fabric
            .programmed(wish.slice)
            .is_err_and(|why| why.contains("not connected"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_has_one_controller() {
    let rig = Rig::start().await;
    let fabric = rig.fabric("here/1").await;
    let wish = wanted();
    fabric.intend(vec![wish.clone()]);
    programmed(&fabric, &wish).await;
    let before = rig.double.lock().unwrap().flows.len();
    let other = rig.fabric("elsewhere/2").await;
    other.intend(Vec::new());
    until("it is refused", || {
        other
            .trouble()
            .is_some_and(|t| t.contains("another controller's"))
    })
    .await;
    assert_eq!(rig.double.lock().unwrap().flows.len(), before);
    // the same one again takes up what it has
    let again = rig.fabric("here/1").await;
    rig.set(|d| d.posts.clear());
    again.intend(vec![wish.clone()]);
    programmed(&again, &wish).await;
    assert!(rig.double.lock().unwrap().posts.is_empty());
    let folder = rig.dir.path();
    let domain = "here".parse().unwrap();
    assert_eq!(
        instance(folder, &domain).unwrap(),
        instance(folder, &domain).unwrap()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arp_that_onos_answers_itself_is_left_to_it() {
    let rig = Rig::start().await;
    rig.set(|d| d.proxyarp = true);
    let fabric = rig.fabric("here/1").await;
    let mut wish = wanted();
    fabric.intend(vec![wish.clone()]);
    programmed(&fabric, &wish).await;
    let arp = |d: &Double| {
        d.flows
            .values()
            .filter(|f| f.to_string().contains("0x806"))
            .count()
    };
    assert_eq!(arp(&rig.double.lock().unwrap()), 0);
    // nobody would answer for who is beyond a border
    let at: vdnd::fabric::network::Place = "edge2/border".parse().unwrap();
    let link: dtn_api::Name = "border".parse().unwrap();
    wish.border = Some(BorderEnd {
        link,
        at,
        label: 100,
    });
    fabric.intend(vec![wish.clone()]);
    until("it is said", || {
        fabric
            .programmed(wish.slice)
            .is_err_and(|why| why.contains("proxyarp"))
    })
    .await;
    rig.set(|d| d.proxyarp = false);
    fabric.intend(vec![wish.clone()]);
    programmed(&fabric, &wish).await;
    assert!(arp(&rig.double.lock().unwrap()) > 0);
}
