//! An ONOS that is there already on this machine: where it is, whether the lab may use it, and what
//! stands in the way, in words.

use super::OnosOptions;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// Longest time for an answer of an ONOS that is asked whether it is there.
const ANSWER: Duration = Duration::from_secs(5);

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// `http://HOST:PORT`.
    pub url: String,
    /// TCP port of the same host where it hears switches.
    pub openflow: u16,
    /// File of mode 0600 with one line `USER:PASSWORD`.
    pub credentials: PathBuf,
}

impl Given {
    /// Where it serves REST. Only on this machine: the lab reaches out over no network, and plain
    /// HTTP would show it the password.
    pub fn rest(&self) -> Result<SocketAddr, String> {
        let wrong = |why: &str| {
            format!(
                "--onos {}: {why}; for an ONOS elsewhere make a tunnel, as `ssh -L 8181:127.0.0.1:8181 -L 6653:127.0.0.1:6653 HOST`, and name http://127.0.0.1:8181",
                self.url
            )
        };
        let rest = self
            .url
            .strip_prefix("http://")
            .ok_or_else(|| wrong("must be http://127.0.0.1:PORT"))?;
        let rest = rest.trim_end_matches('/');
        let address = match rest.strip_prefix("localhost") {
            Some(port) => format!("127.0.0.1{port}"),
            None => rest.to_owned(),
        };
        let address = address
            .parse::<SocketAddr>()
            .or_else(|_| {
                address
                    .trim_matches(['[', ']'])
                    .parse::<IpAddr>()
                    .map(|ip| SocketAddr::new(ip, super::REST_PORT))
            })
            .map_err(|_| wrong("is no address of this machine"))?;
        if address.ip().is_loopback() {
            Ok(address)
        } else {
            Err(wrong("is not this machine's loopback"))
        }
    }
    /// Where it hears switches.
    pub fn switches(&self) -> Result<SocketAddr, String> {
        Ok(SocketAddr::new(self.rest()?.ip(), self.openflow))
    }
}

/// Everything that keeps those that are given from being used, in words; asks each of them.
pub fn problems(options: &OnosOptions) -> Vec<String> {
    let mut found = Vec::new();
    if options.given.len() > crate::place::SITES.len() {
        found.push(format!(
            "--onos names {}: name one for both sites, or one for each",
            options.given.len()
        ));
    }
    for given in &options.given {
        let secret = secret(&given.credentials);
        let rest = given.rest();
        if let (Ok(secret), Ok(rest)) = (&secret, &rest) {
            found.extend(ask(given, *rest, secret).err());
        }
        if let Ok(to) = given.switches()
            && let Err(error) = TcpStream::connect_timeout(&to, ANSWER)
        {
            found.push(format!(
                "--onos {}: nobody hears switches at {to}: {error}; activate org.onosproject.openflow, or name the port with --onos-openflow",
                given.url
            ));
        }
        found.extend(secret.err());
        found.extend(rest.err());
    }
    found
}

/// `USER:PASSWORD` from a file that nobody else can read.
fn secret(file: &Path) -> Result<String, String> {
    let wrong = |why: &str| format!("--onos-credentials {}: {why}", file.display());
    let found = fs::metadata(file).map_err(|e| wrong(&e.to_string()))?;
    if found.mode() & 0o077 != 0 {
        return Err(wrong("others can read it: chmod 0600"));
    }
    let text = fs::read_to_string(file).map_err(|e| wrong(&e.to_string()))?;
    let line = text.trim_end_matches(['\r', '\n']);
    match line.split_once(':') {
        Some((user, password))
            if !user.is_empty() && !password.is_empty() && !line.contains('\n') =>
        {
            Ok(line.to_owned())
        }
        _ => Err(wrong("is not one line USER:PASSWORD")),
    }
}

/// Whether it answers as an ONOS does, to this user.
fn ask(given: &Given, to: SocketAddr, secret: &str) -> Result<(), String> {
    let wrong = |why: String| format!("--onos {}: {why}", given.url);
    let status = status(to, secret).map_err(|e| {
        wrong(format!(
            "no answer: {e}; start ONOS, or name another address"
        ))
    })?;
    match status.as_deref() {
        Some("200") => Ok(()),
        Some("401") => Err(wrong(format!(
            "the user or the password in {} is wrong",
            given.credentials.display()
        ))),
        Some("403") => Err(wrong(format!(
            "the user in {} is no administrator of ONOS",
            given.credentials.display()
        ))),
        Some("503") => Err(wrong("it is starting: try again in a minute".into())),
        Some(other) => Err(wrong(format!(
            "GET /onos/v1/devices was answered {other}: is it an ONOS?"
        ))),
        None => Err(wrong("what answers is no HTTP server".into())),
    }
}

/// What it answers to a GET, head and all, up to so many bytes.
pub(super) fn exchange(to: SocketAddr, secret: &str, path: &str, most: u64) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    // of version 1.0, so that the answer is in one piece and ends with the connection
    let request = format!(
        "GET {path} HTTP/1.0\r\nHost: {to}\r\nAuthorization: Basic {}\r\n\r\n",
        STANDARD.encode(secret)
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(most).read_to_string(&mut answer)?;
    Ok(answer)
}

/// The status with which it answers.
fn status(to: SocketAddr, secret: &str) -> io::Result<Option<String>> {
    let head = exchange(to, secret, "/onos/v1/devices", 64)?;
    let mut words = head.split_whitespace();
    let http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
    Ok(http.then(|| words.next().map(str::to_owned)).flatten())
}
