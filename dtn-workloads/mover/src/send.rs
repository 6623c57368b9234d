//! The sending end: the list first, then the bundles side by side, then the large files one after
//! the other. Each part is renamed when it is whole; the journal keeps what is finished, so the
//! same command goes on after a kill and sends no finished part again.

use crate::{
    bundle,
    events::Events,
    journal::Journal,
    list::List,
    plan::{self, Content, Limits, Part},
    tree::{self, Kind},
    xrd::{Remote, Tools, UNSURE, XrdError},
};
use anyhow::{Context as _, anyhow, bail};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// What is sent where, and how hard it is tried.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The tree.
    pub from: PathBuf,
    /// The transfer's folder on the far server.
    pub to: Remote,
    /// The journal's folder.
    pub state: PathBuf,
    /// TCP connections of a large file, 1 to 15.
    pub streams: u8,
    /// Bundles on their way at once.
    pub parallel: usize,
    /// Which files are large, how large bundles are.
    pub limits: Limits,
    /// How often a part is tried before the transfer fails.
    pub attempts: u32,
}

/// What all workers share.
struct Run<'a> {
    settings: &'a Settings,
    tools: &'a Tools,
    events: &'a Events,
    list: List,
    journal: Mutex<Journal>,
    bytes: AtomicU64,
    files: AtomicU64,
    retries: AtomicU64,
    stop: AtomicBool,
}

/// Sends the tree; the summary that is also the last event.
pub fn run(settings: &Settings, tools: &Tools, events: &Events) -> anyhow::Result<Value> {
    let started = Instant::now();
    let entries = tree::scan(&settings.from)?;
    let to = settings.to.to_string();
    let journal = Journal::open(&settings.state, &to, entries, |entries| List {
        parts: plan::parts(&entries, &settings.limits),
        entries,
    })?;
    let run = Run {
        settings,
        tools,
        events,
        list: journal.list.clone(),
        journal: Mutex::new(journal),
        bytes: AtomicU64::new(0),
        files: AtomicU64::new(0),
        retries: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let (resumed, todo) = run.outset();
    events.say("plan", run.plan(resumed, &todo));
    let outcome = thread::scope(|scope| {
        scope.spawn(|| run.tell());
        let outcome = run.all(todo);
        run.stop.store(true, Ordering::Relaxed);
        outcome
    });
    outcome?;
    let summary = json!({
        "to": to,
        "bytes": run.list.bytes(),
        "files": run.list.entries.iter().filter(|e| matches!(e.kind, Kind::File(_))).count(),
        "sent_bytes": run.bytes.load(Ordering::Relaxed),
        "retries": run.retries.load(Ordering::Relaxed),
        "resumed": resumed,
        "seconds": started.elapsed().as_secs_f64(),
    });
    events.say("sent", summary.clone());
    Ok(summary)
}

impl Run<'_> {
    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether an earlier run had begun, and the parts that are not finished.
    fn outset(&self) -> (bool, Vec<Part>) {
        let journal = self.journal();
        let open = |part: &&Part| !journal.finished.contains(&part.part);
        (
            journal.resumed,
            self.list.parts.iter().filter(open).cloned().collect(),
        )
    }

    fn plan(&self, resumed: bool, todo: &[Part]) -> Value {
        let count = |wanted: fn(&Kind) -> bool| {
            self.list
                .entries
                .iter()
                .filter(|entry| wanted(&entry.kind))
                .count()
        };
        let large = |part: &&Part| matches!(part.content, Content::Large { .. });
        json!({
            "files": count(|kind| matches!(kind, Kind::File(_))),
            "dirs": count(|kind| matches!(kind, Kind::Dir)),
            "symlinks": count(|kind| matches!(kind, Kind::Symlink(_))),
            "bytes": self.list.bytes(),
            "parts": self.list.parts.len(),
            "large_files": self.list.parts.iter().filter(large).count(),
            "resumed": resumed,
            "parts_left": todo.len(),
            "bytes_left": todo.iter().map(|part| part.bytes).sum::<u64>(),
        })
    }

    /// Says twice a second how far it is.
    fn tell(&self) {
        let mut last = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(50));
            if last.elapsed() >= Duration::from_millis(500) {
                last = Instant::now();
                self.events.say(
                    "progress",
                    json!({
                        "bytes": self.bytes.load(Ordering::Relaxed),
                        "files": self.files.load(Ordering::Relaxed),
                    }),
                );
            }
        }
    }

    fn all(&self, todo: Vec<Part>) -> anyhow::Result<()> {
        let settings = self.settings;
        self.persist(0, || self.tools.make_folder(&settings.to))?;
        let listed = self.journal().finished.contains(&0);
        if !listed {
            self.send_list()?;
        }
        let (bundles, large): (Vec<_>, Vec<_>) = todo
            .into_iter()
            .partition(|part| matches!(part.content, Content::Bundle { .. }));
        self.phase("small", bundles, settings.parallel.max(1))?;
        // one at a time: each has the whole slice, and no two take each other's buffers
        self.phase("large", large, 1)
    }

    fn send_list(&self) -> anyhow::Result<()> {
        let settings = self.settings;
        let path = self.journal().list_path.clone();
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        self.persist(0, || {
            self.tools.put_stream(&settings.to, "list.up", |out| {
                out.write_all(&bytes)
                    .and_then(|()| out.flush())
                    .map_err(bundle::BundleError::Stream)
            })
        })?;
        self.publish(0, "list.up", "list.ready")
    }

    /// Renames an upload to its whole name and notes that. A rename whose answer was lost has
    /// been done: then the new name is there, or the receiver has taken it already.
    fn publish(&self, part: u32, from: &str, to: &str) -> anyhow::Result<()> {
        let settings = self.settings;
        self.persist(part, || match self.tools.rename(&settings.to, from, to) {
            Ok(()) => Ok(()),
            Err(error) => match self.arrived(part) {
                Ok(true) => Ok(()),
                Ok(false) | Err(_) => Err(error),
            },
        })?;
        self.journal().finish(part)
    }

    /// Whether the far side has this part whole.
    fn arrived(&self, part: u32) -> Result<bool, XrdError> {
        let to = &self.settings.to;
        if part == 0 {
            return Ok(self.tools.size(to, "list.ready")?.is_some());
        }
        Ok(self.tools.size(to, &format!("{part}.ready"))?.is_some()
            || self.tools.size(to, &format!("{part}.done"))?.is_some())
    }

    fn phase(&self, name: &str, parts: Vec<Part>, workers: usize) -> anyhow::Result<()> {
        if parts.is_empty() {
            return Ok(());
        }
        let bytes: u64 = parts.iter().map(|part| part.bytes).sum();
        let files: usize = parts.iter().map(Part::files).sum();
        let started = Instant::now();
        self.events.say(
            "phase",
            json!({"phase": name, "state": "begun", "bytes": bytes, "files": files}),
        );
        let workers = workers.min(parts.len());
        let queue = Mutex::new(VecDeque::from(parts));
        let failures = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().ok().and_then(|mut queue| queue.pop_front());
                        let Some(part) = next else { break };
                        if let Err(error) = self.part(&part) {
                            // what is waiting is not begun any more; what is on its way ends
                            if let (Ok(mut queue), Ok(mut failures)) =
                                (queue.lock(), failures.lock())
                            {
                                queue.clear();
                                failures.push(error);
                            }
                        }
                    }
                });
            }
        });
        let failures = failures
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if !failures.is_empty() {
            let all: Vec<_> = failures.iter().map(|error| format!("{error:#}")).collect();
            bail!("{}", all.join("\n"));
        }
        let seconds = started.elapsed().as_secs_f64();
        self.events.say(
            "phase",
            json!({
                "phase": name, "state": "ended", "bytes": bytes, "files": files, "seconds": seconds,
            }),
        );
        Ok(())
    }

    fn part(&self, part: &Part) -> anyhow::Result<()> {
        let started = Instant::now();
        let number = part.part;
        let before = self.journal().begun.contains(&number);
        if before && self.persist(number, || self.arrived(number))? {
            return self.journal().finish(number);
        }
        self.journal().begin(number)?;
        let up = format!("{number}.up");
        let name = match &part.content {
            Content::Bundle { entries } => {
                self.bundle(number, &up, entries)?;
                None
            }
            Content::Large { entry } => {
                self.large(number, &up, *entry, before)?;
                Some(self.list.entries[*entry].shown())
            }
        };
        self.publish(number, &up, &format!("{number}.ready"))?;
        self.files.fetch_add(part.files() as u64, Ordering::Relaxed);
        self.events.say(
            "part",
            json!({
                "part": number, "path": name, "files": part.files(), "bytes": part.bytes,
                "seconds": started.elapsed().as_secs_f64(),
            }),
        );
        Ok(())
    }

    fn bundle(&self, number: u32, up: &str, places: &[usize]) -> anyhow::Result<()> {
        let settings = self.settings;
        self.persist(number, || {
            let mut counted = 0;
            let sent = self.tools.put_stream(&settings.to, up, |out| {
                bundle::pack(&settings.from, &self.list.entries, places, out, |bytes| {
                    counted += bytes;
                    self.bytes.fetch_add(bytes, Ordering::Relaxed);
                })
            });
            if sent.is_err() {
                self.bytes.fetch_sub(counted, Ordering::Relaxed);
            }
            sent
        })
    }

    fn large(&self, number: u32, up: &str, place: usize, before: bool) -> anyhow::Result<()> {
        let settings = self.settings;
        let entry = &self.list.entries[place];
        let link = name_for(
            &settings.state,
            up,
            &tree::join(&settings.from, &entry.path),
        )?;
        let mut go_on = before;
        let sent = self.persist(number, || {
            // only what is surely there without a hole stays
            let keep = match std::mem::replace(&mut go_on, true) {
                true => self
                    .tools
                    .size(&settings.to, up)?
                    .unwrap_or(0)
                    .saturating_sub(UNSURE),
                false => 0,
            };
            if keep > 0 {
                self.tools.cut(&settings.to, up, keep)?;
                self.events.say(
                    "resume",
                    json!({"part": number, "path": entry.shown(), "from_byte": keep}),
                );
            }
            let mut told = 0;
            let most = entry.size() - keep.min(entry.size());
            let mut progress = |read: u64| {
                let read = read.min(most);
                if read > told {
                    self.bytes.fetch_add(read - told, Ordering::Relaxed);
                    told = read;
                }
            };
            let sent = self.tools.put_file(
                &settings.to,
                &link,
                settings.streams,
                keep > 0,
                &mut progress,
            );
            match sent {
                Ok(()) => progress(most),
                Err(_) => {
                    self.bytes.fetch_sub(told, Ordering::Relaxed);
                }
            }
            sent
        });
        sent.with_context(|| format!("sending {}", entry.shown()))?;
        let now = fs::metadata(&link)
            .with_context(|| format!("looking at {}", entry.shown()))?
            .len();
        if now != entry.size() {
            return Err(anyhow!(bundle::BundleError::Changed {
                path: entry.shown(),
                reason: format!("{now} bytes, {} were listed", entry.size()),
            }));
        }
        fs::remove_file(&link).with_context(|| format!("removing {}", link.display()))
    }

    /// Tries again what can succeed when it is tried again, with a growing pause.
    fn persist<T>(
        &self,
        part: u32,
        mut act: impl FnMut() -> Result<T, XrdError>,
    ) -> anyhow::Result<T> {
        let attempts = self.settings.attempts.max(1);
        let mut pause = Duration::from_millis(500);
        for attempt in 1.. {
            match act() {
                Ok(value) => return Ok(value),
                Err(error) if attempt < attempts && error.retryable() => {
                    self.retries.fetch_add(1, Ordering::Relaxed);
                    let reason = format!("{:#}", anyhow!(error));
                    self.events.say(
                        "retry",
                        json!({
                            "part": part, "attempt": attempt, "of": attempts, "reason": reason,
                        }),
                    );
                    thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_secs(8));
                }
                Err(error) => {
                    let tried = format!("part {part} failed at attempt {attempt} of {attempts}");
                    return Err(anyhow!(error).context(tried));
                }
            }
        }
        // the loop ends only by returning: u32 attempts are counted up to `attempts`
        bail!("part {part} was never tried")
    }
}

/// A plain name for an odd one: a link in the state folder.
fn name_for(state: &Path, up: &str, source: &Path) -> anyhow::Result<PathBuf> {
    let folder = state.join("up");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let link = folder.join(up);
    let source = std::path::absolute(source).context("naming the source")?;
    match fs::remove_file(&link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", link.display()));
        }
        _ => {}
    }
    symlink(&source, &link).with_context(|| format!("making {}", link.display()))?;
    std::path::absolute(&link).context("naming the link")
}
