//! A reload: SIGHUP asks for it, the service manager is told of begin and end, and its outcome is
//! left in a file, so that whoever asked can wait for it and learn what is wrong.
//!
//! `Type=notify-reload` came with systemd 253 and cannot say that a reload failed. So the unit's
//! `ExecReload=` is the daemon's own `--reload PID`, which is [`ask`]: it waits on every version, and
//! `systemctl reload` fails with the reason where the configuration is wrong.

use crate::{INVALID_CONFIG, log::SetLog, notify};
use dtn_api::{layered::Setting, running::Values};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

/// How long an outcome is waited for.
const PATIENCE: Duration = Duration::from_secs(80);

/// How a daemon came to its configuration, and how it is told to log.
#[derive(Default)]
pub struct Reading {
    /// Its file, where it was read from one.
    pub file: Option<PathBuf>,
    /// What the command line sets.
    pub settings: Vec<Setting>,
    /// What it was, field by field.
    pub values: Values,
    /// How the log is changed, where the environment does not go before it.
    pub log: Option<SetLog>,
}
impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading")
            .field("file", &self.file)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What is in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Outcome {
    /// Whose it is: a file of a process that has ended says nothing.
    pid: i32,
    /// How many reloads that process has made.
    count: u64,
    /// How many it has begun: what one that is under way has read may be older than who asks now.
    #[serde(default)]
    begun: u64,
    /// Whether the configuration is in force.
    ok: bool,
    /// What changed, or what is wrong.
    said: String,
}

/// Reloads of this process.
#[derive(Debug)]
pub struct Reloads {
    asked: Signals,
    file: PathBuf,
    last: Outcome,
}

impl Reloads {
    /// Listens for SIGHUP, which ends a process that does not; outcomes go to `file`.
    pub fn listen(file: PathBuf) -> io::Result<Self> {
        Ok(Self {
            asked: signal(SignalKind::hangup())?,
            file,
            last: Outcome {
                pid: Pid::this().as_raw(),
                count: 0,
                begun: 0,
                ok: true,
                said: String::new(),
            },
        })
    }

    /// Waits until one is asked for. Safe to drop and to call again.
    pub async fn asked(&mut self) {
        if self.asked.recv().await.is_none() {
            std::future::pending().await
        }
    }

    /// Carries one out: `work` puts the configuration in force or leaves all as it is, and says what
    /// changed or what is wrong. The service manager knows that it goes on meanwhile.
    pub async fn carry(&mut self, work: impl Future<Output = Result<String, String>>) {
        notify::reloading();
        self.last.begun += 1;
        self.keep();
        let done = work.await;
        let count = self.last.begun;
        let (ok, said) = match done {
            Ok(said) => {
                tracing::info!(reload = count, "reload: {said}");
                (true, said)
            }
            Err(said) => {
                tracing::error!(reload = count, "reload: nothing is changed: {said}");
                (false, said)
            }
        };
        // a status has one line
        let words: Vec<&str> = said.split_whitespace().collect();
        let line: String = words.join(" ").chars().take(200).collect();
        (self.last.count, self.last.ok, self.last.said) = (count, ok, said);
        self.keep();
        match ok {
            true => notify::ready(&line),
            false => notify::ready(&format!("the last reload was refused: {line}")),
        }
    }

    fn keep(&self) {
        if let Err(e) = write(&self.file, &self.last) {
            tracing::warn!("writing the outcome to {}: {e}", self.file.display());
        }
    }
}

fn write(file: &Path, outcome: &Outcome) -> io::Result<()> {
    let json = serde_json::to_vec(outcome)?;
    let new = file.with_extension("reload.new");
    fs::write(&new, json)?;
    fs::rename(&new, file)
}

fn read(file: &Path, pid: Pid) -> Option<Outcome> {
    let bytes = fs::read(file).ok()?;
    let outcome: Outcome = serde_json::from_slice(&bytes).ok()?;
    (outcome.pid == pid.as_raw()).then_some(outcome)
}

/// Why a reload that was asked for is not in force.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The daemon said no and has changed nothing.
    #[error("{0}")]
    Refused(String),
    /// It could not be asked.
    #[error("asking process {pid} for a reload: {why}")]
    Unasked {
        /// Who.
        pid: i32,
        /// What the kernel said.
        why: io::Error,
    },
    /// It has ended, or does not answer.
    #[error("process {pid} {what} before it had read its configuration anew; see its log")]
    Silent {
        /// Who.
        pid: i32,
        /// What it did.
        what: &'static str,
    },
}

/// What a unit runs to reload: `PROGRAM --reload PID`.
pub fn command(program: &str, pid: i32, file: &Path) -> ExitCode {
    match ask(pid, file) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("{program}: {e}");
            match e {
                Failed::Refused(_) => ExitCode::from(INVALID_CONFIG),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Asks a process for a reload and waits for its outcome in `file`.
pub fn ask(pid: i32, file: &Path) -> Result<String, Failed> {
    let pid = Pid::from_raw(pid);
    // one that is under way may have read what was there before
    let before = read(file, pid).map_or(0, |outcome| outcome.begun.max(outcome.count));
    let unasked = |errno: Errno| Failed::Unasked {
        pid: pid.as_raw(),
        why: errno.into(),
    };
    if pid.as_raw() <= 1 {
        // 0, -1 and 1 are whole groups of processes, and the first of all
        return Err(unasked(Errno::EINVAL));
    }
    kill(pid, Signal::SIGHUP).map_err(unasked)?;
    let silent = |what| {
        Err(Failed::Silent {
            pid: pid.as_raw(),
            what,
        })
    };
    let began = Instant::now();
    loop {
        if let Some(outcome) = read(file, pid).filter(|outcome| outcome.count > before) {
            return match outcome.ok {
                true => Ok(outcome.said),
                false => Err(Failed::Refused(outcome.said)),
            };
        }
        if kill(pid, None) == Err(Errno::ESRCH) {
            return silent("has ended");
        }
        if began.elapsed() > PATIENCE {
            return silent("did not answer");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A signal reaches all who listen in this process: one test at a time.
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    /// Asks this process itself: the signal is real, and so is the file.
    #[tokio::test]
    async fn who_asks_hears_what_became_of_it() {
        let _turn = TURN.lock().await;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("dtnd.reload");
        let mut reloads = Reloads::listen(file.clone()).unwrap();
        for (answer, wanted) in [
            (Ok("nothing has changed"), "nothing has changed"),
            (Err("host.name: missing"), "host.name: missing"),
            (Ok("again"), "again"),
        ] {
            let asked = file.clone();
            let asker = std::thread::spawn(move || ask(Pid::this().as_raw(), &asked));
            reloads.asked().await;
            let work = async { answer.map(str::to_owned).map_err(str::to_owned) };
            reloads.carry(work).await;
            let told = asker.join().unwrap();
            assert_eq!(told.is_ok(), answer.is_ok());
            let words = told.unwrap_or_else(|e| e.to_string());
            assert_eq!(words, wanted);
        }
    }

    #[tokio::test]
    async fn what_is_under_way_is_not_the_answer_to_who_asks_later() {
        let _turn = TURN.lock().await;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("dtnd.reload");
        let mut reloads = Reloads::listen(file.clone()).unwrap();
        let (began, go_on) = (tokio::sync::Notify::new(), tokio::sync::Notify::new());
        let first = async {
            began.notify_one();
            go_on.notified().await;
            Ok("the old file".to_owned())
        };
        let asker = async {
            began.notified().await;
            let asked = file.clone();
            let asker = std::thread::spawn(move || ask(Pid::this().as_raw(), &asked));
            // its signal is there before the first one is through
            tokio::time::sleep(Duration::from_millis(100)).await;
            go_on.notify_one();
            asker
        };
        let ((), asker) = tokio::join!(reloads.carry(first), asker);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!asker.is_finished(), "it took another's answer");
        reloads.asked().await;
        reloads.carry(async { Ok("the new file".to_owned()) }).await;
        assert_eq!(asker.join().unwrap().unwrap(), "the new file");
    }

    #[test]
    fn groups_of_processes_and_the_dead_are_not_asked() {
        let file = Path::new("/nowhere");
        for wrong in [-1, 0, 1] {
            assert!(matches!(ask(wrong, file), Err(Failed::Unasked { .. })));
        }
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(matches!(ask(pid, file), Err(Failed::Unasked { .. })));
    }
}
