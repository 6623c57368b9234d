//! The two movers of one transfer, started in the pods, heard line by line, and, where that is
//! wanted, killed halfway and started again.

use crate::{
    capsule::Lab,
    transfer::{End, in_pod},
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    process::Stdio,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::Child,
    sync::mpsc,
    time::timeout,
};

/// What is moved and how.
pub struct Mover<'a> {
    /// The lab.
    pub lab: &'a Lab,
    /// Sending end.
    pub from: &'a End<'a>,
    /// Receiving end.
    pub to: &'a End<'a>,
    /// Command of the sender.
    pub send: &'a [String],
    /// Command of the receiver.
    pub receive: &'a [String],
    /// Bytes that there are to move.
    pub bytes: u64,
    /// Kill the sender halfway and start it again.
    pub interrupt: bool,
}

/// Everything that both movers said, in order.
#[derive(Debug, Default)]
pub struct Told {
    /// Seconds since 1970 at which the sender was started first.
    began: f64,
    sender: Vec<Value>,
    receiver: Vec<Value>,
    /// Bytes that the killed sender had told.
    killed_at: Option<u64>,
}

/// The tree of small files, moved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Small {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// From the first of them being read to the last being on the far disk.
    pub seconds: f64,
}

fn number(event: &Value, name: &str) -> Option<u64> {
    event.get(name).and_then(Value::as_u64)
}
fn instant(event: &Value) -> Option<f64> {
    event.get("t").and_then(Value::as_f64)
}
fn is(event: &Value, name: &str) -> bool {
    event.get("event").and_then(Value::as_str) == Some(name)
}

impl Told {
    fn done(&self) -> Result<&Value> {
        self.receiver
            .iter()
            .find(|event| is(event, "done"))
            .context("the receiver never said that all is on the disk")
    }
    /// From the start of the sender to the last fsync at the destination.
    pub fn seconds(&self) -> Result<f64> {
        Ok(instant(self.done()?).context("the receiver's last word has no time")? - self.began)
    }
    /// Bytes of content in the whole transfer.
    pub fn bytes(&self) -> Result<u64> {
        let sent = self.sender.iter().rev().find(|event| is(event, "sent"));
        sent.and_then(|event| number(event, "bytes"))
            .context("the sender never said how much it sent")
    }
    /// A large file: bytes and seconds from its first to its last data byte at the destination.
    pub fn large(&self, path: &str) -> Option<(u64, f64)> {
        let event = self.receiver.iter().rev().find(|event| {
            is(event, "large")
                && event
                    .get("path")
                    .and_then(Value::as_str)
                    .is_some_and(|named| named.trim_matches('"') == path)
        })?;
        let flow = event.get("flow")?;
        let at = |end: &str, name: &str| flow.pointer(&format!("/{end}/{name}")).cloned();
        let bytes = at("last", "bytes")?
            .as_u64()?
            .checked_sub(at("first", "bytes")?.as_u64()?)?;
        let seconds = at("last", "t")?.as_f64()? - at("first", "t")?.as_f64()?;
        (seconds > 0.0).then_some((bytes, seconds))
    }
    /// The small files, if there were any.
    pub fn small(&self) -> Result<Option<Small>> {
        let phase = |event: &&Value| {
            is(event, "phase") && event.get("phase").and_then(Value::as_str) == Some("small")
        };
        let Some(begun) = self.sender.iter().find(phase) else {
            return Ok(None);
        };
        let of = |name: &str| -> BTreeSet<u64> {
            self.receiver
                .iter()
                .filter(|event| is(event, name))
                .filter_map(|event| number(event, "part"))
                .collect()
        };
        let large = of("large");
        let last = self
            .receiver
            .iter()
            .filter(|event| {
                is(event, "placed")
                    && number(event, "part").is_some_and(|part| !large.contains(&part))
            })
            .filter_map(instant)
            .fold(f64::MIN, f64::max);
        let began = instant(begun).context("the sender's phase has no time")?;
        ensure!(last > began, "the receiver never placed the small files");
        Ok(Some(Small {
            files: number(begun, "files").context("the sender's phase has no files")?,
            bytes: number(begun, "bytes").context("the sender's phase has no bytes")?,
            seconds: last - began,
        }))
    }
    /// What an interrupted transfer did not do again, in words.
    pub fn resumed(&self) -> Result<String> {
        let killed = self
            .killed_at
            .context("the sender was to be killed halfway, and ended before that")?;
        let sent = self
            .sender
            .iter()
            .rev()
            .find(|event| is(event, "sent"))
            .context("the sender never ended")?;
        let (all, again) = (
            number(sent, "bytes").unwrap_or(0),
            number(sent, "sent_bytes").unwrap_or(u64::MAX),
        );
        ensure!(
            again < all,
            "the sender sent all {all} bytes again after it was killed: it did not resume"
        );
        let resumed = self
            .sender
            .iter()
            .filter(|event| is(event, "resume"))
            .filter_map(|event| number(event, "from_byte"))
            .max();
        let inside = resumed
            .map(|byte| format!(", a large file from byte {byte} on"))
            .unwrap_or_default();
        Ok(format!(
            "killed after {killed} bytes; started again it sent {again} of {all} bytes{inside}"
        ))
    }
}

/// A mover whose words are heard.
struct Running {
    child: Child,
    errors: tokio::task::JoinHandle<String>,
    who: &'static str,
}

enum Heard {
    Sender(Value),
    Receiver(Value),
}

fn start(mover: &Mover<'_>, sends: bool, heard: mpsc::UnboundedSender<Heard>) -> Result<Running> {
    let (end, words, who) = if sends {
        (mover.from, mover.send, "sender")
    } else {
        (mover.to, mover.receive, "receiver")
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut child = in_pod(mover.lab, end, &[], &words)?
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting the {who}"))?;
    let stdout = child
        .stdout
        .take()
        .with_context(|| format!("the {who} has no output"))?;
    let mut stderr = child
        .stderr
        .take()
        .with_context(|| format!("the {who} has no output"))?;
    tokio::spawn(async move {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            tracing::info!(who, line);
            // what is no event is in the log, and missing events are noticed where they are needed
            if let Ok(event) = serde_json::from_str(&line) {
                let event = if sends {
                    Heard::Sender(event)
                } else {
                    Heard::Receiver(event)
                };
                if heard.send(event).is_err() {
                    return;
                }
            }
        }
    });
    let errors = tokio::spawn(async move {
        let mut text = Vec::new();
        // the text is for a message only: what was read so far is as good
        let _ = stderr.read_to_end(&mut text).await;
        String::from_utf8_lossy(&text).trim().replace('\n', "; ")
    });
    Ok(Running { child, errors, who })
}

impl Running {
    async fn finished(self, status: std::process::ExitStatus) -> Result<()> {
        if status.success() {
            return Ok(());
        }
        let said = self.errors.await.unwrap_or_default();
        bail!("the {} failed ({status}): {said}", self.who)
    }
}

/// Runs both movers to their end.
pub async fn run(mover: Mover<'_>) -> Result<Told> {
    let deadline = deadline(&mover);
    timeout(deadline, both(mover))
        .await
        .with_context(|| format!("the transfer is not done after {} s", deadline.as_secs()))?
}

/// Four times what the wide-area link needs for the bytes, and ten minutes for the rest.
fn deadline(mover: &Mover<'_>) -> Duration {
    let options = &mover.lab.options;
    let slowest = options.rate.unwrap_or(options.wan).min(options.wan);
    let slowest = options
        .min_rate
        .unwrap_or(slowest)
        .min(slowest)
        .bps()
        .max(1_000_000);
    Duration::from_secs(600 + mover.bytes.saturating_mul(8).saturating_mul(4) / slowest)
}

async fn both(mover: Mover<'_>) -> Result<Told> {
    let (sender, mut heard) = mpsc::unbounded_channel();
    let mut receiver = Some(start(&mover, false, sender.clone())?);
    let mut told = Told {
        began: now()?,
        ..Told::default()
    };
    let mut sending = Some(start(&mover, true, sender.clone())?);
    let mut planned = None;
    let mut to_kill = mover.interrupt;
    loop {
        tokio::select! {
            event = heard.recv() => match event {
                Some(Heard::Sender(event)) => {
                    planned = planned.or_else(|| is(&event, "plan").then(|| number(&event, "bytes")).flatten());
                    if to_kill && is(&event, "progress")
                        && let (Some(bytes), Some(all)) = (number(&event, "bytes"), planned)
                        && bytes * 2 > all
                        && let Some(mut running) = sending.take()
                    {
                        to_kill = false;
                        told.killed_at = Some(bytes);
                        kill_sender()?;
                        running.child.wait().await.context("waiting for the killed sender")?;
                        sending = Some(start(&mover, true, sender.clone())?);
                    }
                    told.sender.push(event);
                }
                Some(Heard::Receiver(event)) => told.receiver.push(event),
                None => bail!("both movers fell silent"),
            },
            status = ended(&mut sending) => {
                if let Some(running) = sending.take() {
                    running.finished(status?).await?;
                }
            }
            status = ended(&mut receiver) => {
                if let Some(running) = receiver.take() {
                    running.finished(status?).await?;
                }
            }
        }
        if sending.is_none() && receiver.is_none() {
            break;
        }
    }
    // the last lines may still be on their way
    drop(sender);
    while let Some(event) = heard.recv().await {
        match event {
            Heard::Sender(event) => told.sender.push(event),
            Heard::Receiver(event) => told.receiver.push(event),
        }
    }
    Ok(told)
}

async fn ended(running: &mut Option<Running>) -> Result<std::process::ExitStatus> {
    match running {
        Some(running) => running
            .child
            .wait()
            .await
            .with_context(|| format!("waiting for the {}", running.who)),
        None => std::future::pending().await,
    }
}

/// Kills the mover that sends, in its container, as an accident would: no program in between is
/// asked.
fn kill_sender() -> Result<()> {
    for entry in fs::read_dir("/proc")
        .context("looking for the sender")?
        .flatten()
    {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        let program = words.next().unwrap_or_default();
        if program.ends_with(b"dtn-mover") && words.next() == Some(b"send") {
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            )
            .context("killing the sender")?;
            return Ok(());
        }
    }
    bail!("the sender is not among the processes")
}

fn now() -> Result<f64> {
    Ok(SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?
        .as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told() -> Told {
        Told {
            began: 100.0,
            sender: vec![
                json!({"event": "phase", "t": 100.5, "phase": "small", "state": "begun", "files": 40, "bytes": 4000}),
                json!({"event": "resume", "t": 101.0, "part": 3, "from_byte": 70}),
                json!({"event": "sent", "t": 109.0, "bytes": 1000, "sent_bytes": 600}),
            ],
            receiver: vec![
                json!({"event": "placed", "t": 102.5, "part": 1, "files": 40}),
                json!({"event": "large", "t": 108.0, "part": 3, "path": "large.bin",
                    "flow": {"before": 0, "first": {"t": 103.0, "bytes": 10}, "last": {"t": 108.0, "bytes": 510}, "goodput_bps": 800.0}}),
                json!({"event": "placed", "t": 108.5, "part": 3, "files": 1}),
                json!({"event": "done", "t": 109.5}),
            ],
            killed_at: Some(500),
        }
    }

    #[test]
    fn figures_come_from_the_far_side_s_disk() {
        let told = told();
        assert_eq!(told.seconds().unwrap(), 9.5);
        assert_eq!(told.bytes().unwrap(), 1000);
        assert_eq!(told.large("large.bin"), Some((500, 5.0)));
        assert_eq!(told.large("other"), None);
        let small = told.small().unwrap().unwrap();
        assert_eq!((small.files, small.bytes, small.seconds), (40, 4000, 2.0));
        assert!(
            told.resumed()
                .unwrap()
                .contains("sent 600 of 1000 bytes, a large file from byte 70")
        );
    }

    #[test]
    fn a_transfer_that_never_said_done_is_none() {
        let mut told = told();
        told.receiver.pop();
        assert!(told.seconds().is_err());
        told.killed_at = None;
        assert!(told.resumed().is_err());
    }
}
