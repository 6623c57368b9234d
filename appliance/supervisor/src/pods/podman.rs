//! podman over its REST socket (libpod API v4, served by 4.x and 5.x): rootful, no CLI is called.
//!
//! What 4.3 really answers: `play/kube` needs a `Content-Type` of its own (a form's would swallow
//! the body), names no cause for its 500 but a text, and leaves a pod behind when it fails half-way.

use super::engine::{Answer, Container, Engine, EngineError, EnginePod, Process, UID_LABEL};
use http::StatusCode;
use reqwest::{Client, Method, Response};
use serde::Deserialize;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Prefix of every path; 4.0.0 is the oldest that has what is used here.
const BASE: &str = "http://podman/v4.0.0/libpod";
/// How long an ordinary call may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// Within this the socket has to answer at all.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest answer that is read, bytes.
const LARGEST: usize = 8 << 20;

/// podman behind one socket.
#[derive(Debug, Clone)]
pub struct Podman {
    http: Client,
    socket: PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    name: String,
    #[serde(default)]
    infra_id: String,
    #[serde(default)]
    labels: Option<std::collections::BTreeMap<String, String>>,
    #[serde(default)]
    containers: Option<Vec<ListedContainer>>,
}
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedContainer {
    id: String,
    #[serde(default)]
    names: String,
    #[serde(default)]
    status: String,
}
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Played {
    #[serde(default)]
    pods: Option<Vec<PlayedPod>>,
}
#[derive(Deserialize)]
struct PlayedPod {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "ContainerErrors", default)]
    errors: Option<Vec<String>>,
}
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    state: InspectedState,
    #[serde(default)]
    restart_count: u64,
}
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    #[serde(default)]
    running: bool,
    #[serde(default)]
    pid: u32,
}
#[derive(Deserialize)]
struct Refused {
    #[serde(default)]
    message: String,
}
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Errors {
    #[serde(default)]
    errs: Option<Vec<serde_json::Value>>,
}

impl Podman {
    /// Behind this socket. Nothing is asked yet.
    pub fn new(socket: &Path) -> Result<Self, EngineError> {
        let setup = |e: &dyn std::fmt::Display| EngineError::Refused {
            doing: format!("preparing to speak with podman on {}", socket.display()),
            why: e.to_string(),
        };
        // a socket needs no TLS: without this the client would look for the system's authorities
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let nobody = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| setup(&e))?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let http = Client::builder()
            .tls_backend_preconfigured(nobody)
            .unix_socket(socket)
            .no_proxy()
            .connect_timeout(CONNECT)
            .timeout(DEADLINE)
            .build()
            .map_err(|e| setup(&e))?;
        Ok(Self {
            http,
            socket: socket.to_path_buf(),
        })
    }

    fn unreachable(&self, doing: &str, why: &dyn std::fmt::Display) -> EngineError {
        let remedy = if self.socket.exists() {
            "is its service running? systemctl restart podman.socket".to_owned()
        } else {
            "there is no such socket: install podman, then systemctl enable --now podman.socket \
             (or set podman.socket in the configuration)"
                .to_owned()
        };
        EngineError::Unreachable(format!(
            "{doing}: podman on {} does not answer ({why}): {remedy}",
            self.socket.display()
        ))
    }

    async fn call(
        &self,
        doing: &str,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&str>,
    ) -> Result<(StatusCode, Vec<u8>), EngineError> {
        let mut request = self
            .http
            .request(method, format!("{BASE}{path}"))
            .query(query);
        if let Some(body) = body {
            request = request
                .header("content-type", "application/yaml")
                .body(body.to_owned());
        }
        let answer = request
            .send()
            .await
            .map_err(|e| self.unreachable(doing, &innermost(&e)))?;
        let status = answer.status();
        let body = self.read(doing, answer).await?;
        Ok((status, body))
    }

    async fn read(&self, doing: &str, mut answer: Response) -> Result<Vec<u8>, EngineError> {
        let mut body = Vec::new();
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= LARGEST => body.extend(chunk),
                Ok(Some(_)) => {
                    return Err(refused(doing, &format!("its answer is above {LARGEST} B")));
                }
                Ok(None) => return Ok(body),
                Err(e) => return Err(self.unreachable(doing, &innermost(&e))),
            }
        }
    }

    /// A call without an answer that matters, for which absence and "is so already" are success.
    async fn settle(
        &self,
        doing: &str,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        absent_is_fine: bool,
    ) -> Result<(), EngineError> {
        let (status, body) = self.call(doing, method, path, query, None).await?;
        match status {
            StatusCode::NOT_MODIFIED => Ok(()),
            StatusCode::NOT_FOUND if absent_is_fine => Ok(()),
            status if status.is_success() => {
                let errors: Vec<String> = serde_json::from_slice::<Errors>(&body)
                    .ok()
                    .and_then(|errors| errors.errs)
                    .unwrap_or_default()
                    .iter()
                    .map(|e| e.as_str().map_or_else(|| e.to_string(), str::to_owned))
                    .collect();
                match errors.is_empty() {
                    true => Ok(()),
                    false => Err(refused(doing, &errors.join("; "))),
                }
            }
            _ => Err(refused(doing, &words(status, &body))),
        }
    }
}

fn refused(doing: &str, why: &str) -> EngineError {
    EngineError::Refused {
        doing: doing.to_owned(),
        why: why.to_owned(),
    }
}

/// The engine's own words, with what helps where the cause is known.
fn words(status: StatusCode, body: &[u8]) -> String {
    let said = serde_json::from_slice::<Refused>(body)
        .map(|refused| refused.message)
        .unwrap_or_default();
    let said = match said.is_empty() {
        true => format!("podman answers {status}"),
        false => said,
    };
    match said.contains("image not known") {
        true => format!("{said}: build or import the image first (podman images lists them)"),
        false => said,
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => error.to_string(),
    }
}

fn parsed<T: serde::de::DeserializeOwned>(doing: &str, body: &[u8]) -> Result<T, EngineError> {
    serde_json::from_slice(body)
        .map_err(|e| refused(doing, &format!("its answer is not understood: {e}")))
}

impl Engine for Podman {
    fn version(&self) -> Answer<'_, String> {
        Box::pin(async {
            // /version runs conmon and the OCI runtime for theirs, which takes 0.2 to 0.5 s (podman
            // 4.3.1); this answers within 1 ms and says its own in a header
            let doing = "asking podman for its version";
            let asked = self.http.get(format!("{BASE}/_ping")).send().await;
            let answer = asked.map_err(|e| self.unreachable(doing, &innermost(&e)))?;
            let status = answer.status();
            let version = answer.headers().get("libpod-api-version");
            let version = version.and_then(|version| version.to_str().ok());
            let version = version
                .unwrap_or("of a version it does not tell")
                .to_owned();
            let body = self.read(doing, answer).await?;
            match status.is_success() {
                true => Ok(format!("podman {version}")),
                false => Err(refused(doing, &words(status, &body))),
            }
        })
    }

    fn pods(&self) -> Answer<'_, Vec<EnginePod>> {
        Box::pin(async {
            let doing = "listing the pods of podman";
            let filter = serde_json::json!({ "label": [UID_LABEL] }).to_string();
            let query = [("filters", filter.as_str())];
            let (status, body) = self
                .call(doing, Method::GET, "/pods/json", &query, None)
                .await?;
            if !status.is_success() {
                return Err(refused(doing, &words(status, &body)));
            }
            let listed: Option<Vec<Listed>> = parsed(doing, &body)?;
            Ok(listed.unwrap_or_default().into_iter().map(pod).collect())
        })
    }

    fn create<'a>(&'a self, manifest: &'a str) -> Answer<'a, String> {
        Box::pin(async move {
            let doing = "making the pod in podman";
            let query = [("network", "none"), ("start", "false")];
            let (status, body) = self
                .call(doing, Method::POST, "/play/kube", &query, Some(manifest))
                .await?;
            if !status.is_success() {
                return Err(refused(doing, &words(status, &body)));
            }
            let played: Played = parsed(doing, &body)?;
            let pod = played.pods.unwrap_or_default().into_iter().next();
            let pod = pod.ok_or_else(|| refused(doing, "it names no pod"))?;
            match pod.errors.filter(|errors| !errors.is_empty()) {
                Some(errors) => Err(refused(doing, &errors.join("; "))),
                None => Ok(pod.id),
            }
        })
    }

    fn start_container<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let doing = format!("starting the container {id}");
            let path = format!("/containers/{id}/start");
            self.settle(&doing, Method::POST, &path, &[], false).await
        })
    }

    fn process<'a>(&'a self, container: &'a str) -> Answer<'a, Option<Process>> {
        Box::pin(async move {
            let doing = format!("looking at the container {container}");
            let path = format!("/containers/{container}/json");
            let (status, body) = self.call(&doing, Method::GET, &path, &[], None).await?;
            if status == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            if !status.is_success() {
                return Err(refused(&doing, &words(status, &body)));
            }
            let found: Inspected = parsed(&doing, &body)?;
            let runs = found.state.running && found.state.pid > 0;
            Ok(runs.then_some(Process {
                pid: found.state.pid,
                restarts: found.restart_count,
            }))
        })
    }

    fn start<'a>(&'a self, pod: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let doing = format!("starting the pod {pod}");
            let path = format!("/pods/{pod}/start");
            self.settle(&doing, Method::POST, &path, &[], false).await
        })
    }

    fn stop<'a>(&'a self, pod: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let doing = format!("stopping the pod {pod}");
            let path = format!("/pods/{pod}/stop");
            // each container has its own time: the template's terminationGracePeriodSeconds
            self.settle(&doing, Method::POST, &path, &[], true).await
        })
    }

    fn remove<'a>(&'a self, pod: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let doing = format!("removing the pod {pod}");
            let path = format!("/pods/{pod}");
            let query = [("force", "true")];
            self.settle(&doing, Method::DELETE, &path, &query, true)
                .await
        })
    }

    fn logs<'a>(&'a self, container: &'a str, tail: u32) -> Answer<'a, String> {
        Box::pin(async move {
            let doing = format!("reading the log of {container}");
            let path = format!("/containers/{container}/logs");
            let tail = tail.to_string();
            let query = [
                ("stdout", "true"),
                ("stderr", "true"),
                ("tail", tail.as_str()),
            ];
            let (status, body) = self.call(&doing, Method::GET, &path, &query, None).await?;
            match status.is_success() {
                true => Ok(unframed(&body)),
                false => Err(refused(&doing, &words(status, &body))),
            }
        })
    }
}

fn pod(listed: Listed) -> EnginePod {
    let all = listed.containers.unwrap_or_default().into_iter();
    let all = all.map(|container| Container {
        id: container.id,
        name: container.names,
        state: container.status.to_lowercase(),
    });
    let (infra, containers): (Vec<_>, Vec<_>) =
        all.partition(|container| container.id == listed.infra_id);
    EnginePod {
        id: listed.id,
        name: listed.name,
        uid: listed
            .labels
            .and_then(|mut labels| labels.remove(UID_LABEL))
            .unwrap_or_default(),
        infra: infra.into_iter().next(),
        containers,
    }
}

/// The text of a log: frames of 8 bytes (stream, three zeros, length as 32 bits big endian) and
/// their content. Output without frames, as a container with a terminal has, is taken as it is.
fn unframed(bytes: &[u8]) -> String {
    let (mut text, mut rest) = (Vec::new(), bytes);
    while let Some((head, tail)) = rest.split_at_checked(8) {
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if head[0] > 2 || head[1..4] != [0, 0, 0] || length > tail.len() {
            break;
        }
        text.extend_from_slice(&tail[..length]);
        rest = &tail[length..];
    }
    text.extend_from_slice(rest);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_pod_is_told_from_its_sandbox() {
        let json = r#"{"Cgroup":"/libpod_parent","Containers":[
            {"Id":"8d","Names":"t1-c","Status":"created"},
            {"Id":"f1","Names":"5ca4-infra","Status":"Running"}],
            "Id":"5c","InfraId":"f1","Name":"t1","Networks":[],"Status":"Created",
            "Labels":{"dtn.uid":"u1"}}"#;
        let found = pod(serde_json::from_str(json).unwrap());
        assert_eq!((found.id.as_str(), found.uid.as_str()), ("5c", "u1"));
        assert!(found.infra.unwrap().runs());
        assert_eq!(found.containers.len(), 1);
        let bare = pod(serde_json::from_str(r#"{"Id":"5c","Name":"t1","Labels":null}"#).unwrap());
        assert!(bare.infra.is_none() && bare.containers.is_empty() && bare.uid.is_empty());
    }

    #[test]
    fn frames_are_taken_off_and_what_has_none_stays() {
        let frame = |stream: u8, text: &str| {
            let length = u32::try_from(text.len()).unwrap().to_be_bytes();
            [&[stream, 0, 0, 0][..], &length, text.as_bytes()].concat()
        };
        let both = [frame(1, "one\n"), frame(2, "two\n")].concat();
        assert_eq!(unframed(&both), "one\ntwo\n");
        assert_eq!(unframed(b"plain text, no frame"), "plain text, no frame");
        assert_eq!(unframed(&both[..both.len() - 2]).len(), 4 + 8 + 2);
        assert_eq!(unframed(b""), "");
    }

    #[tokio::test]
    async fn a_socket_that_is_not_there_is_told_with_the_remedy() {
        let podman = Podman::new(Path::new("/nowhere/podman.sock")).unwrap();
        let error = podman.version().await.unwrap_err();
        let problem: dtn_api::Problem = error.into();
        assert!(problem.is(dtn_api::problem::Kind::BackendUnavailable));
        assert!(problem.detail.contains("install podman"), "{problem}");
        assert!(problem.detail.contains("/nowhere/podman.sock"), "{problem}");
    }
}
