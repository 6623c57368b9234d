//! A double of ONOS: a server that answers in the shapes that a real core was recorded with
//! (`onos/recorded`), plays what happens between PENDING_ADD and ADDED, and fails when it is told to.
//! It knows nothing of switches: that a rule does what it says, that ONOS orders or drops anything, how
//! long it takes, are proven in `onos.rs` with a real core, or not at all.

#![allow(dead_code, reason = "each test file uses a part of it")]

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
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use vdnd::fabric::{
    network::Network,
    onos::{Onos, OnosConfig},
};

fn recorded(name: &str) -> Value {
    let file = format!(
        "{}/tests/onos/recorded/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

/// What the double has and how it behaves.
#[derive(Default)]
pub(crate) struct Double {
    pub(crate) flows: BTreeMap<String, Value>,
    pub(crate) meters: BTreeMap<u32, Value>,
    pub(crate) hosts: BTreeMap<String, Value>,
    /// Applications that are active beside those that were recorded.
    pub(crate) applications: Vec<&'static str>,
    /// Whether its switches are not connected to it.
    pub(crate) away: bool,
    /// What every call is answered with instead.
    pub(crate) failing: Option<&'static str>,
    /// What begins with this is never answered when it is posted: a meter is made all the same, rules
    /// are not.
    pub(crate) mute: Option<&'static str>,
    /// What was asked for, in order.
    pub(crate) posts: Vec<String>,
    /// Calls that change something.
    pub(crate) writes: u64,
    /// The last id of a meter.
    last: u32,
}
impl Double {
    /// The meter of an application of somebody else.
    pub(crate) fn foreign_meter(&mut self, number: u32) {
        let mut meter = recorded("meters_added")["body"]["meters"][0].clone();
        meter["id"] = json!(written(number));
        self.meters.insert(number, meter);
    }
    /// One that cannot be told from what a slice of this rate has, with so many rules.
    pub(crate) fn meter_like_ours(&mut self, number: u32, rate_bps: u64, references: u64) {
        self.foreign_meter(number);
        let meter = self.meters.get_mut(&number).unwrap();
        meter["referenceCount"] = json!(references);
        meter["bands"][0]["rate"] = json!(rate_bps / 1000 * 105 / 100);
        meter["bands"][0]["burstSize"] = json!(rate_bps / 100_000);
    }
}
type Shared = Arc<Mutex<Double>>;

/// A meter's id in an answer; in a path, in `Location` and in a rule that is told it is decimal.
fn written(id: u32) -> String {
    format!("{id:x}")
}

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

/// Answers, or never.
async fn heard(
    State(double): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().strip_prefix("/onos/v1").unwrap();
    let mute = double.lock().unwrap().mute;
    let mute = mute.filter(|begin| method == Method::POST && path.starts_with(begin));
    if mute.is_some_and(|begin| begin != "/meters") {
        return std::future::pending().await;
    }
    let said = answer(State(double), method, uri, headers, body).await;
    if mute.is_some() {
        return std::future::pending().await;
    }
    said
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
    if method != Method::GET {
        double.writes += 1;
    }
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
            let names: &[&str] = if id.ends_with('1') {
                &["ha", "edge1-edge2", "border"]
            } else {
                &["hb", "edge2-edge1", "border", "hg"]
            };
            let port = |(n, name): (usize, &str)| {
                let mut port = recorded("ports")["body"]["ports"][0].clone();
                port["port"] = json!((n + 1).to_string());
                port["annotations"]["portName"] = json!(name);
                port
            };
            let names = names.iter().copied().enumerate();
            of("ports", "ports", names.map(port).collect())
        }
        ("GET", ["flows", "application", _]) if double.flows.is_empty() => {
            said("flows_unknown_application")
        }
        ("GET", ["flows", "application", _]) => {
            let now = double.flows.values().cloned().collect();
            let meters: Vec<String> = double.meters.keys().copied().map(written).collect();
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
                for instruction in made["treatment"]["instructions"].as_array_mut().unwrap() {
                    if instruction["type"] == "METER" {
                        let id: u32 = instruction["meterId"].as_str().unwrap().parse().unwrap();
                        instruction["meterId"] = json!(written(id));
                    }
                }
                let id = format!(
                    "{} {} {} {}",
                    flow["deviceId"], flow["tableId"], flow["priority"], flow["selector"]
                );
                made["id"] = json!(id);
                made["state"] = json!("PENDING_ADD");
                // a field of the double's own, which no fabric reads
                made["written"] = json!(double.writes);
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
            made["id"] = json!(written(number));
            made["deviceId"] = json!(id);
            made["bands"][0]["rate"] = sent["bands"][0]["rate"].clone();
            made["bands"][0]["burstSize"] = sent["bands"][0]["burstSize"].clone();
            double.meters.insert(number, made);
            double.posts.push(format!("meter {number}"));
            let at = format!("http://x/onos/v1/meters/{id}/{number}");
            (StatusCode::CREATED, [(header::LOCATION, at)]).into_response()
        }
        ("DELETE", ["meters", _, id]) => {
            let number: u32 = id.parse().unwrap();
            let users = double
                .flows
                .values()
                .filter(|f| {
                    f["treatment"]
                        .to_string()
                        .contains(&format!("\"meterId\":\"{}\"", written(number)))
                })
                .count();
            assert_eq!(users, 0, "a meter takes its rules with it");
            double.meters.remove(&number);
            double.posts.push(format!("meter {number} gone"));
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
        ("GET", ["applications"]) => {
            let one = |name: &&str| json!({"name": name, "state": "ACTIVE"});
            let active = double.applications.iter().map(one).collect();
            of("applications", "applications", active)
        }
        other => panic!("no such call: {other:?}"),
    }
}

/// A double that serves.
pub(crate) struct Rig {
    pub(crate) double: Shared,
    url: String,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) stop: CancellationToken,
    _ends: tokio_util::sync::DropGuard,
}
impl Rig {
    pub(crate) async fn start() -> Self {
        // so that the second meter's id is another one in hexadecimal
        let double = Shared::new(Mutex::new(Double {
            last: 8,
            ..Double::default()
        }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(heard).with_state(double.clone());
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
    /// Changes it behind everybody's back.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Double)) {
        change(&mut self.double.lock().unwrap());
    }
    /// A fabric that has this network at the double until `stop`.
    pub(crate) async fn fabric(
        &self,
        owner: &str,
        network: Network,
        stop: &CancellationToken,
    ) -> Arc<Onos> {
        let config = OnosConfig {
            url: self.url.clone(),
            credentials_file: self.dir.path().join("cred"),
            app_id: "org.example.dtn".into(),
            owner: owner.into(),
            plain: false,
            ca_file: None,
            meters_file: self.dir.path().join("meters.json"),
            settling: Duration::from_secs(1),
        };
        Onos::start(network, config, stop.clone()).await.unwrap()
    }
}
