//! Driving XRootD's own tools: `xrdcp` moves every byte, `xrdfs` asks and renames. Their settings
//! and what of their answers matters are known here and nowhere else (tried with XRootD 5.5).

use crate::bundle::BundleError;
use std::{
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    str::FromStr,
    thread,
    time::Duration,
};

/// Bytes that `xrdcp` reads and writes at once, and how many of these it has in flight. Both are
/// set, not left to the tool's defaults: their product is how much of the end of an interrupted
/// file may have holes.
const CHUNK: u64 = 8 << 20;
const CHUNKS: u64 = 4;

/// How much of the end of an interrupted upload is sent again, in bytes.
pub const UNSURE: u64 = CHUNK * CHUNKS;

/// What the tools are told where the environment says nothing else, seconds where it is a time.
/// Left alone, a server that is gone is waited for half an hour.
const SETTINGS: [(&str, &str); 7] = [
    ("XRD_CONNECTIONWINDOW", "10"),
    ("XRD_CONNECTIONRETRY", "2"),
    ("XRD_STREAMERRORWINDOW", "10"),
    ("XRD_REQUESTTIMEOUT", "60"),
    ("XRD_STREAMTIMEOUT", "60"),
    ("XRD_TIMEOUTRESOLUTION", "1"),
    ("XRD_TCPKEEPALIVE", "1"),
];

/// The folder of one transfer on the far server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    server: String,
    folder: String,
}

/// A text that is no such folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not root://ADDRESS:PORT//FOLDER with a folder of letters, digits and ._-/ , as root://[fd00::2]:1094//incoming/run-1"
)]
pub struct RemoteError(String);

impl FromStr for Remote {
    type Err = RemoteError;
    fn from_str(text: &str) -> Result<Self, RemoteError> {
        let parsed = text.strip_prefix("root://").and_then(|rest| {
            let (server, folder) = rest.split_once("//")?;
            let folder = folder.trim_end_matches('/');
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
            let host = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
            let inside = folder
                .split('/')
                .all(|part| !matches!(part, "" | "." | ".."));
            (!server.is_empty() && server.chars().all(host) && folder.chars().all(plain) && inside)
                .then(|| Self {
                    server: format!("root://{server}"),
                    folder: format!("/{folder}"),
                })
        });
        parsed.ok_or_else(|| RemoteError(text.to_owned()))
    }
}

impl std::fmt::Display for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.server, self.folder)
    }
}

/// What went wrong with a tool.
#[derive(Debug, thiserror::Error)]
pub enum XrdError {
    /// It is not there, or cannot be run.
    #[error(
        "{tool} cannot be run; the pod's image has it, a host gets it from Debian's xrootd-client"
    )]
    Start {
        /// Which.
        tool: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It ran and failed.
    #[error("{doing}: {tool} ended with {status}: {said}")]
    Failed {
        /// What was being done.
        doing: String,
        /// Which.
        tool: String,
        /// Its exit code or signal.
        status: String,
        /// Its last words.
        said: String,
    },
    /// What was to be sent could not be read.
    #[error(transparent)]
    Source(#[from] BundleError),
}

impl XrdError {
    /// Whether the same again can succeed.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Start { .. } => false,
            // error numbers of the xroot protocol: 3009 no space, 3010 not authorized, 3021 quota;
            // and our own words, when the tool could not be run
            Self::Failed { said, .. } => {
                let fatal = ["Auth failed", "[3009]", "[3010]", "[3021]", "dtn-mover: "];
                !fatal.iter().any(|words| said.contains(words))
            }
            Self::Source(_) => false,
        }
    }
    fn not_found(&self) -> bool {
        matches!(self, Self::Failed { said, .. } if said.contains("[3011]"))
    }
}

/// Where the tools are.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The mover itself: each tool is started through its `with-parent`, so that a mover that is
    /// killed leaves none behind that goes on writing.
    pub mover: PathBuf,
}

impl Tools {
    fn command(&self, tool: &str, args: &[&str]) -> Command {
        let mut command = Command::new(&self.mover);
        command
            .arg("with-parent")
            .arg(std::process::id().to_string())
            .arg(tool)
            .args(args)
            .env("XRD_CPCHUNKSIZE", CHUNK.to_string())
            .env("XRD_CPPARALLELCHUNKS", CHUNKS.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (name, value) in SETTINGS {
            if std::env::var_os(name).is_none() {
                command.env(name, value);
            }
        }
        command
    }

    fn spawn(&self, tool: &str, mut command: Command) -> Result<Child, XrdError> {
        command.spawn().map_err(|source| XrdError::Start {
            tool: tool.to_owned(),
            source,
        })
    }

    fn xrdfs(&self, remote: &Remote, doing: &str, args: &[&str]) -> Result<String, XrdError> {
        let mut all = vec![remote.server.as_str()];
        all.extend(args);
        let output = self
            .spawn("xrdfs", self.command("xrdfs", &all))?
            .wait_with_output();
        let output = output.map_err(|source| XrdError::Start {
            tool: "xrdfs".into(),
            source,
        })?;
        outcome("xrdfs", doing, &output)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Makes the transfer's folder.
    pub fn make_folder(&self, remote: &Remote) -> Result<(), XrdError> {
        let doing = format!("making {remote}");
        self.xrdfs(remote, &doing, &["mkdir", "-p", &remote.folder])
            .map(drop)
    }

    /// Size in bytes of a file in the transfer's folder; `None` when it is not there.
    pub fn size(&self, remote: &Remote, name: &str) -> Result<Option<u64>, XrdError> {
        let path = format!("{}/{name}", remote.folder);
        let doing = format!("asking for {remote}/{name}");
        match self.xrdfs(remote, &doing, &["stat", &path]) {
            Ok(text) => match size_of(&text) {
                Some(size) => Ok(Some(size)),
                None => Err(XrdError::Failed {
                    doing,
                    tool: "xrdfs".into(),
                    status: "an answer without a size".into(),
                    said: text,
                }),
            },
            Err(error) if error.not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Cuts a file in the transfer's folder to this many bytes.
    pub fn cut(&self, remote: &Remote, name: &str, size: u64) -> Result<(), XrdError> {
        let path = format!("{}/{name}", remote.folder);
        let doing = format!("cutting {remote}/{name} to {size} bytes");
        self.xrdfs(remote, &doing, &["truncate", &path, &size.to_string()])
            .map(drop)
    }

    /// Renames within the transfer's folder.
    pub fn rename(&self, remote: &Remote, from: &str, to: &str) -> Result<(), XrdError> {
        let (old, new) = (
            format!("{}/{from}", remote.folder),
            format!("{}/{to}", remote.folder),
        );
        let doing = format!("renaming {remote}/{from} to {to}");
        self.xrdfs(remote, &doing, &["mv", &old, &new]).map(drop)
    }

    /// Uploads what `write` writes as `name`, over what is there.
    pub fn put_stream(
        &self,
        remote: &Remote,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> Result<(), BundleError>,
    ) -> Result<(), XrdError> {
        let target = format!("{remote}/{name}");
        let mut command = self.command("xrdcp", &["--nopbar", "--force", "-", &target]);
        command.stdin(Stdio::piped());
        let mut child = self.spawn("xrdcp", command)?;
        let written = match child.stdin.take() {
            Some(pipe) => {
                let mut pipe = BufWriter::with_capacity(1 << 20, pipe);
                let written = write(&mut pipe);
                if !matches!(written, Ok(()) | Err(BundleError::Stream(_))) {
                    // half a bundle must not look like a whole one to the tool
                    let _ = child.kill();
                }
                written
            }
            None => Ok(()),
        };
        let output = child.wait_with_output();
        let output = output.map_err(|source| XrdError::Start {
            tool: "xrdcp".into(),
            source,
        })?;
        match written {
            // the pipe broke because the tool ended: what it said is the reason
            Ok(()) | Err(BundleError::Stream(_)) => {
                outcome("xrdcp", &format!("sending to {target}"), &output)?;
                written.map_err(XrdError::from)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Uploads the file `link` as its own name, from the start or from where the far file ends.
    /// `progress` is told how many bytes the tool has read.
    ///
    /// The target is the folder: with a file as target xrdcp 5.5 refuses to continue ("file
    /// exists"). So `link` has the far name, and the odd name it leads to is never seen by a tool.
    pub fn put_file(
        &self,
        remote: &Remote,
        link: &Path,
        streams: u8,
        go_on: bool,
        mut progress: impl FnMut(u64),
    ) -> Result<(), XrdError> {
        let target = format!("{remote}/");
        let source = link.to_string_lossy();
        let streams = streams.to_string();
        let how = if go_on { "--continue" } else { "--force" };
        let mut args = vec!["--nopbar", how];
        if streams != "1" {
            args.extend(["--streams", &streams]);
        }
        args.extend([source.as_ref(), &target]);
        let mut child = self.spawn("xrdcp", self.command("xrdcp", &args))?;
        let start = |source| XrdError::Start {
            tool: "xrdcp".into(),
            source,
        };
        while child.try_wait().map_err(start)?.is_none() {
            if let Some(read) = bytes_read(child.id()) {
                progress(read);
            }
            thread::sleep(Duration::from_millis(50));
        }
        let output = child.wait_with_output().map_err(start)?;
        outcome("xrdcp", &format!("sending {source} to {remote}"), &output)
    }
}

fn outcome(tool: &str, doing: &str, output: &Output) -> Result<(), XrdError> {
    if output.status.success() {
        return Ok(());
    }
    let mut said = String::from_utf8_lossy(&output.stderr).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stdout));
    let lines: Vec<_> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let last = lines[lines.len().saturating_sub(3)..].join("; ");
    Err(XrdError::Failed {
        doing: doing.to_owned(),
        tool: tool.to_owned(),
        status: output.status.to_string(),
        said: if last.is_empty() {
            "nothing".into()
        } else {
            last
        },
    })
}

/// `Size:   123` of `xrdfs stat`.
fn size_of(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("Size:"))
        .and_then(|size| size.trim().parse().ok())
}

/// Bytes that a process has read so far (`rchar` of proc(5), io).
fn bytes_read(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("rchar:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_are_plain_folders() {
        for good in [
            "root://[fd00::2]:1094//incoming/run-1",
            "root://10.0.0.2:1094//incoming/a.b/",
        ] {
            assert!(good.parse::<Remote>().is_ok(), "{good}");
        }
        let shown = "root://[fd00::2]:1094//incoming/x/"
            .parse::<Remote>()
            .unwrap()
            .to_string();
        assert_eq!(shown, "root://[fd00::2]:1094//incoming/x");
        for bad in [
            "",
            "root://h",
            "root://h//",
            "root:////x",
            "http://h//x",
            "root://h//a/../b",
            "root://h//a b",
            "root://h//a?x=1",
            "root://u@h//a",
            "root://h//-x\n",
        ] {
            assert!(bad.parse::<Remote>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_tools_answers_are_understood() {
        let text =
            "\nPath:   /incoming/f\nId:     1\nSize:   50000000\nMTime:  2026-11-24 11:41:08\n";
        assert_eq!(size_of(text), Some(50_000_000));
        let failed = |said: &str| XrdError::Failed {
            doing: "x".into(),
            tool: "xrdfs".into(),
            status: "54".into(),
            said: said.into(),
        };
        assert!(
            failed("[ERROR] Server responded with an error: [3011] Unable to locate").not_found()
        );
        assert!(!failed("[FATAL] Auth failed: No protocols left to try").retryable());
        assert!(failed("[FATAL] Connection error").retryable());
    }
}
