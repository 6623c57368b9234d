//! Which host is spoken to: its root, its two sockets, and how calls on them are made.
//!
//! A socket is tried before the first call, so that "not running" can be told from "not root" and
//! from a slow answer, each with its own remedy.

use crate::{
    failure::{Failure, while_doing},
    wording::quoted_path,
};
use dtn_api::client::{Client, ClientError};
use http::Method;
use serde::Serialize;
use serde_json::Value;
use std::{
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where the lab keeps its sites unless it is told otherwise.
pub(crate) const LAB_STATE: &str = "/var/lib/dtn-lab";
/// Longest time for an answer that only has to be looked up.
pub(crate) const LOOK_UP: Duration = Duration::from_secs(30);
/// Longest time for an answer that needs others: peers, the engine, an image.
pub(crate) const CARRY_OUT: Duration = Duration::from_secs(300);
/// Most items in one page of a list (the contract's limit).
const PAGE: u32 = 1000;

/// The host that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Everything of the host is below it.
    pub(crate) root: PathBuf,
    /// The lab's site, when it is one.
    pub(crate) site: Option<Site>,
}

/// A site of the lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Site {
    /// Its name.
    pub(crate) name: String,
    /// The lab's state folder.
    pub(crate) state: PathBuf,
}

/// One of the two daemons of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Daemon {
    /// The supervisor of the host.
    Dtnd,
    /// The controller of the domain.
    Vdnd,
}

impl Daemon {
    fn name(self) -> &'static str {
        match self {
            Self::Dtnd => "dtnd",
            Self::Vdnd => "vdnd",
        }
    }
    fn socket(self) -> &'static str {
        match self {
            Self::Dtnd => dtn_api::DTND_SOCKET,
            Self::Vdnd => dtn_api::VDND_SOCKET,
        }
    }
    fn base(self) -> &'static str {
        match self {
            Self::Dtnd => dtn_api::LOCAL_BASE,
            Self::Vdnd => dtn_api::VDN_BASE,
        }
    }
}

impl Place {
    /// The host below a root.
    pub(crate) fn host(root: PathBuf) -> Self {
        Self { root, site: None }
    }
    /// A site of the lab in its state folder.
    pub(crate) fn site(name: &str, state: PathBuf) -> Self {
        Self {
            root: state.join("sites").join(name),
            site: Some(Site {
                name: name.to_owned(),
                state,
            }),
        }
    }
    /// An absolute path of the host, as it is seen from here.
    pub(crate) fn below(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
    /// `dtnctl` with the options that mean this place, for commands that are shown.
    pub(crate) fn command(&self) -> String {
        match &self.site {
            Some(site) if site.state == Path::new(LAB_STATE) => {
                format!("dtnctl --site {}", site.name)
            }
            Some(site) => format!(
                "dtnctl --site {} --state {}",
                site.name,
                quoted_path(&site.state)
            ),
            None if self.root == Path::new("/") => "dtnctl".into(),
            None => format!("dtnctl --root {}", quoted_path(&self.root)),
        }
    }
    fn how_to_start(&self, daemon: Daemon) -> String {
        let name = daemon.name();
        match &self.site {
            Some(site) if site.state == Path::new(LAB_STATE) => {
                "start the lab: sudo dtnctl lab up".into()
            }
            Some(site) => format!(
                "start the lab: sudo dtnctl lab up --state {}",
                quoted_path(&site.state)
            ),
            None if self.root == Path::new("/") && has_unit(name) => format!(
                "start it: sudo systemctl start {name} (why it stopped: journalctl -u {name})"
            ),
            None => format!(
                "start it: sudo {name} --root {} --config {}",
                quoted_path(&self.root),
                quoted_path(&self.below(dtn_api::CONFIG_FILE))
            ),
        }
    }

    /// A link to one of the daemons that somebody answers on.
    pub(crate) fn connect(&self, daemon: Daemon, deadline: Duration) -> Result<Link, Failure> {
        self.look_for_site()?;
        let (name, socket) = (daemon.name(), self.below(daemon.socket()));
        if let Err(error) = UnixStream::connect(&socket) {
            return Err(self.nobody(daemon, &socket, &error));
        }
        let client = Client::unix(&socket, deadline)
            .map_err(|error| while_doing(format!("speaking to {name}"), error))?;
        Ok(Link {
            client,
            base: daemon.base(),
        })
    }

    fn nobody(&self, daemon: Daemon, socket: &Path, error: &io::Error) -> Failure {
        let (name, shown) = (daemon.name(), socket.display());
        let (what, next) = match error.kind() {
            io::ErrorKind::NotFound => (
                format!("{name} is not running: there is no socket {shown}"),
                self.how_to_start(daemon),
            ),
            io::ErrorKind::ConnectionRefused => (
                format!("{name} is not running: nobody listens on {shown}"),
                self.how_to_start(daemon),
            ),
            io::ErrorKind::PermissionDenied => (
                format!("{shown}: permission denied"),
                format!("{name} answers root alone: sudo {} …", self.command()),
            ),
            _ => (
                format!("connecting to {name} on {shown}: {error}"),
                self.how_to_start(daemon),
            ),
        };
        Failure::Unreachable { what, next }
    }

    /// A site name that the lab does not have is told with the names that it has.
    fn look_for_site(&self) -> Result<(), Failure> {
        let Some(site) = &self.site else {
            return Ok(());
        };
        if self.root.is_dir() {
            return Ok(());
        }
        let mut names: Vec<String> = std::fs::read_dir(site.state.join("sites"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        if names.is_empty() {
            return Err(Failure::Unreachable {
                what: format!(
                    "no lab is up: there are no sites in {}",
                    site.state.display()
                ),
                next: self.how_to_start(Daemon::Dtnd),
            });
        }
        names.sort();
        Err(Failure::Usage(format!(
            "the lab has no site {:?}: it has {}",
            site.name,
            names.join(" and ")
        )))
    }
}

/// Whether a service manager runs here and knows the daemon.
fn has_unit(name: &str) -> bool {
    Path::new("/run/systemd/system").is_dir()
        && ["/etc/systemd/system", "/usr/lib/systemd/system"]
            .iter()
            .any(|folder| Path::new(folder).join(format!("{name}.service")).exists())
}

/// Calls on one daemon.
pub(crate) struct Link {
    client: Client,
    base: &'static str,
}

impl Link {
    /// GET, as the daemon wrote it.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.client.get(&format!("{}{path}", self.base)).await
    }
    /// GET of text, as metrics are.
    pub(crate) async fn text(&self, path: &str) -> Result<String, ClientError> {
        self.client.text(&format!("{}{path}", self.base)).await
    }
    /// POST, with the answer as the daemon wrote it.
    pub(crate) async fn post(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Value, ClientError> {
        self.client
            .post(&format!("{}{path}", self.base), body)
            .await
    }
    /// POST with a key of its own, for what must not happen twice when an answer is lost.
    pub(crate) async fn post_once(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Value, ClientError> {
        let key = uuid::Uuid::new_v4().to_string();
        let path = format!("{}{path}", self.base);
        self.client.post_once(&path, &key, body).await
    }
    /// PUT, with the version that must still hold where one is given.
    pub(crate) async fn put(
        &self,
        path: &str,
        if_match: Option<u64>,
        body: &impl Serialize,
    ) -> Result<Value, ClientError> {
        let etag = if_match.map(|version| format!("\"v{version}\""));
        let headers: Vec<_> = etag
            .iter()
            .map(|etag| ("if-match", etag.as_str()))
            .collect();
        let path = format!("{}{path}", self.base);
        let answer = self.client.call(Method::PUT, &path, &headers, Some(body));
        Ok(answer.await?.body)
    }
    /// DELETE, whatever the version.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.client
            .delete(&format!("{}{path}", self.base), None)
            .await
    }
    /// GET of a list: `{"items": […]}` with the items of every page.
    pub(crate) async fn list(&self, path: &str) -> Result<Value, ClientError> {
        let mut first = self.get(path).await?;
        let mut token = next_page(&mut first);
        while let Some(page) = token {
            let more = format!("{path}?limit={PAGE}&page_token={}", percent(&page));
            let mut more = self.get(&more).await?;
            token = next_page(&mut more);
            if let (Some(Value::Array(items)), Some(Value::Array(rest))) = (
                first.get_mut("items"),
                more.get_mut("items").map(Value::take),
            ) {
                items.extend(rest);
            }
        }
        Ok(first)
    }
}

fn next_page(list: &mut Value) -> Option<String> {
    let token = list.as_object_mut()?.remove("next_page_token")?;
    token
        .as_str()
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

/// A value of a query (RFC 3986 §2.3 unreserved characters stay).
pub(crate) fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_named_as_it_was_asked_for() {
        let host = Place::host("/".into());
        assert_eq!(host.command(), "dtnctl");
        assert_eq!(
            host.below("/run/dtn/dtnd.sock"),
            Path::new("/run/dtn/dtnd.sock")
        );
        let site = Place::site("daejeon", LAB_STATE.into());
        assert_eq!(site.command(), "dtnctl --site daejeon");
        assert_eq!(
            site.below("/run/dtn/dtnd.sock"),
            Path::new("/var/lib/dtn-lab/sites/daejeon/run/dtn/dtnd.sock")
        );
        let site = Place::site("busan", "/tmp/a lab".into());
        assert_eq!(site.command(), "dtnctl --site busan --state '/tmp/a lab'");
        assert_eq!(
            Place::host("/srv/x".into()).command(),
            "dtnctl --root /srv/x"
        );
    }

    #[test]
    fn nobody_there_is_told_by_its_reason() {
        let host = Place::host("/srv/a".into());
        let socket = Path::new("/srv/a/run/dtn/dtnd.sock");
        let told = |kind: io::ErrorKind| {
            host.nobody(Daemon::Dtnd, socket, &io::Error::from(kind))
                .message()
        };
        assert_eq!(
            told(io::ErrorKind::NotFound),
            "dtnctl: dtnd is not running: there is no socket /srv/a/run/dtn/dtnd.sock\n\
             next: start it: sudo dtnd --root /srv/a --config /srv/a/etc/dtn/appliance.toml\n"
        );
        assert!(told(io::ErrorKind::ConnectionRefused).contains("nobody listens"));
        assert!(told(io::ErrorKind::PermissionDenied).contains("sudo dtnctl"));
    }

    #[test]
    fn page_tokens_survive_a_query() {
        assert_eq!(percent("a/b+c=~"), "a%2Fb%2Bc%3D~");
    }
}
