//! The processes that the lab cannot be without. One that ends unasked ends the lab at once, and its
//! last words are the reason.

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    process::{Child, ChildStdin},
    sync::mpsc,
    task::JoinHandle,
};

/// Longest time for a process that was asked to end.
const ENDING: Duration = Duration::from_secs(20);
/// What is read of a log's end, bytes.
const TAIL: u64 = 4096;
/// What is repeated of a log's last line, characters.
const WORDS: usize = 400;

/// Hears of every pillar's end.
#[derive(Debug, Clone)]
pub struct Watch(mpsc::UnboundedSender<String>);

/// What was heard: which process ended, how, and what it said last.
pub type Ends = mpsc::UnboundedReceiver<String>;

/// A process that the lab cannot be without; it ends when this is let go.
#[derive(Debug)]
pub struct Pillar {
    name: String,
    orders: mpsc::UnboundedSender<Signal>,
    guard: JoinHandle<()>,
    /// Its input, which it ends with; waiting for a child closes the input that it has.
    _leash: Option<ChildStdin>,
}

impl Watch {
    /// A watch over nothing yet.
    pub fn new() -> (Self, Ends) {
        let (tell, ends) = mpsc::unbounded_channel();
        (Self(tell), ends)
    }
    /// Watches over a child with this name, which writes to this log.
    pub fn over(&self, name: impl Into<String>, log: &Path, mut child: Child) -> Pillar {
        let name = name.into();
        let (orders, heard) = mpsc::unbounded_channel();
        let leash = child.stdin.take();
        let guard = tokio::spawn(guard(
            name.clone(),
            log.to_path_buf(),
            child,
            heard,
            self.0.clone(),
        ));
        Pillar {
            name,
            orders,
            guard,
            _leash: leash,
        }
    }
}

impl Pillar {
    /// Sends it a signal. Whatever it does after that was wanted. One that has ended gets none.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.orders
            .send(signal)
            .ok()
            .with_context(|| format!("{} has ended already", self.name))
    }
    /// Asks it to end and waits for that; one that has ended already is well.
    pub async fn stop(mut self) -> Result<()> {
        if self.signal(Signal::SIGTERM).is_err() {
            return Ok(());
        }
        tokio::time::timeout(ENDING, &mut self.guard)
            .await
            .with_context(|| format!("{} does not end in {} s", self.name, ENDING.as_secs()))?
            .with_context(|| format!("waiting for {}", self.name))
    }
}

/// Only who waits for a child signals it: its process id is its own until then.
async fn guard(
    name: String,
    log: PathBuf,
    mut child: Child,
    mut orders: mpsc::UnboundedReceiver<Signal>,
    tell: mpsc::UnboundedSender<String>,
) {
    let mut wanted = false;
    let ended = loop {
        tokio::select! {
            ended = child.wait() => break ended,
            order = orders.recv() => {
                wanted = true;
                let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
                if let Some(pid) = pid.map(nix::unistd::Pid::from_raw) {
                    let signal = order.unwrap_or(Signal::SIGKILL);
                    if let Err(error) = kill(pid, signal) {
                        tracing::warn!("sending {signal} to {name}: {error}");
                    }
                }
                if order.is_none() {
                    break child.wait().await;
                }
            }
        }
    };
    // both can have happened before either was seen
    if wanted || orders.is_closed() || !orders.is_empty() {
        return;
    }
    let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
    let words = last_words(&log)
        .map(|words| format!(", its last words: {words}"))
        .unwrap_or_default();
    // nobody listens any more once the lab is ending
    let _ = tell.send(format!("{name} has ended ({how}){words}"));
}

/// The last line of a log that says something.
fn last_words(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))
        .ok()?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    let line = tail.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    Some(line.chars().take(WORDS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;
    use tokio::process::Command;

    fn shell(script: &str, log: &Path) -> Child {
        Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stderr(File::create(log).unwrap())
            .spawn()
            .unwrap()
    }

    #[tokio::test]
    async fn one_that_ends_unasked_is_told_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let (watch, mut ends) = Watch::new();
        let child = shell("echo first >&2; echo no room >&2; echo >&2; exit 3", &log);
        let pillar = watch.over("vdnd of busan", &log, child);
        assert_eq!(
            ends.recv().await.unwrap(),
            "vdnd of busan has ended (exit status: 3), its last words: no room"
        );
        pillar.stop().await.unwrap();
    }

    #[tokio::test]
    async fn one_that_is_stopped_killed_or_let_go_is_not_told() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let (watch, mut ends) = Watch::new();
        let long = || watch.over("x", &log, shell("exec sleep 600", &log));
        long().stop().await.unwrap();
        let killed = long();
        killed.signal(Signal::SIGKILL).unwrap();
        while killed.signal(Signal::SIGTERM).is_ok() {
            tokio::task::yield_now().await;
        }
        // a shell that waits for its input ends with its leash, at the latest
        drop(watch.over("y", &log, shell("read line", &log)));
        drop(watch);
        assert_eq!(ends.recv().await, None, "the last guard has gone silently");
    }
}
