//! The receiving end: takes each part as it becomes whole, puts its files in their places, and
//! says `done` when everything of the list is there and on the disk. It may be killed at any time
//! and started again: a part counts only when its `N.done` is on the disk, and the same part can be
//! put in place twice.

use crate::{
    events::{Events, seconds},
    list::List,
    place::{self, Root},
    plan::{Content, Part},
    tree::{Entry, Kind},
    unpack::{SYNC_BATCH, mark, put_in_place, sync_all},
    watch::{self, Meter, Sample},
};
use anyhow::{Context as _, anyhow, bail};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::PathBuf,
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime},
};

/// What arrives where.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The transfer's folder, as the server writes it.
    pub incoming: PathBuf,
    /// Where the tree goes: empty, or not there yet, and on the same volume.
    pub into: PathBuf,
    /// Nothing new for so long is a failure.
    pub idle: Duration,
    /// Parts that are put in place at once, and files that are synced at once.
    pub threads: usize,
}

/// Receives one transfer; the summary that is also the last event.
pub fn run(settings: &Settings, events: &Events) -> anyhow::Result<Value> {
    let started = Instant::now();
    let incoming = &settings.incoming;
    let list = await_list(settings)?;
    let is_done = incoming.join("done").exists();
    events.say(
        "list",
        json!({
            "entries": list.entries.len(), "parts": list.parts.len(), "bytes": list.bytes(),
            "already_done": is_done,
        }),
    );
    let mut first_byte = None;
    if !is_done {
        begin(settings, &list)?;
        let root = Root::open(&settings.into)
            .with_context(|| format!("opening {}", settings.into.display()))?;
        lay_out(&root, &list, settings.threads)?;
        first_byte = Collector::new(settings, events, &list, &root)?.collect()?;
        finish(settings, &root, &list)?;
        mark(incoming, "done")?;
    }
    let files = list
        .entries
        .iter()
        .filter(|entry| matches!(entry.kind, Kind::File(_)))
        .count();
    let summary = json!({
        "files": files, "entries": list.entries.len(), "bytes": list.bytes(),
        "first_byte": first_byte, "last_sync": seconds(SystemTime::now()),
        "already_done": is_done, "seconds": started.elapsed().as_secs_f64(),
    });
    events.say("done", summary.clone());
    Ok(summary)
}

fn await_list(settings: &Settings) -> anyhow::Result<List> {
    let path = settings.incoming.join("list.ready");
    let started = Instant::now();
    loop {
        match fs::read(&path) {
            Ok(bytes) => return Ok(List::from_bytes(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        }
        if started.elapsed() > settings.idle {
            bail!(
                "no list has come to {} in {:?}; is the sender running, and does its --to name this folder?",
                path.display(),
                settings.idle
            );
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Takes the destination for this transfer, once: it has to be empty and have room.
fn begin(settings: &Settings, list: &List) -> anyhow::Result<()> {
    let (incoming, into) = (&settings.incoming, &settings.into);
    fs::create_dir_all(into).with_context(|| format!("making {}", into.display()))?;
    if incoming.join("begun").exists() {
        return Ok(());
    }
    let mut there = fs::read_dir(into).with_context(|| format!("reading {}", into.display()))?;
    if there.next().is_some() {
        bail!(
            "{} is not empty, and not this transfer's; give --into an empty folder",
            into.display()
        );
    }
    let room = nix::sys::statvfs::statvfs(into)
        .with_context(|| format!("asking for the room at {}", into.display()))?;
    // field widths differ between architectures
    #[allow(
        clippy::useless_conversion,
        reason = "u64 on this architecture, u32 on others"
    )]
    let free = u64::from(room.blocks_available()).saturating_mul(u64::from(room.fragment_size()));
    let needed = list.bytes();
    if free < needed {
        bail!(
            "{} has room for {free} bytes and the transfer needs {needed}; free some, or give --into a larger volume",
            into.display()
        );
    }
    mark(incoming, "begun")
}

/// Folders, links and empty files: all that the list alone brings.
fn lay_out(root: &Root, list: &List, threads: usize) -> anyhow::Result<()> {
    let mut empty = Vec::new();
    for entry in &list.entries {
        let making = || format!("making {}", entry.shown());
        match &entry.kind {
            Kind::Dir => root.make_folder(&entry.path).with_context(making)?,
            Kind::Symlink(target) => root.make_link(&entry.path, target).with_context(making)?,
            Kind::File(0) => {
                let file = root.new_file(&entry.path).with_context(making)?;
                place::dress(&file, entry).with_context(making)?;
                empty.push((entry.shown(), file));
                if empty.len() >= SYNC_BATCH {
                    sync_all(std::mem::take(&mut empty), threads)?;
                }
            }
            Kind::File(_) => {}
        }
    }
    sync_all(empty, threads)
}

/// Modes and times of folders, deepest first, and everything on the disk.
fn finish(settings: &Settings, root: &Root, list: &List) -> anyhow::Result<()> {
    for entry in list
        .entries
        .iter()
        .rev()
        .filter(|entry| entry.kind == Kind::Dir)
    {
        root.finish(entry)
            .with_context(|| format!("finishing {}", entry.shown()))?;
    }
    let into = &settings.into;
    let syncing = || format!("syncing {}", into.display());
    root.folder(b"")
        .and_then(|folder| folder.sync_all())
        .with_context(syncing)?;
    match std::path::absolute(into).context("naming --into")?.parent() {
        Some(parent) => File::open(parent)
            .and_then(|folder| folder.sync_all())
            .with_context(syncing),
        None => Ok(()),
    }
}

/// Waits for parts and has them put in place.
struct Collector<'a> {
    settings: &'a Settings,
    events: &'a Events,
    list: &'a List,
    root: &'a Root,
    done: BTreeSet<u32>,
    at_work: BTreeSet<u32>,
    meters: BTreeMap<u32, Meter>,
    first_byte: Option<f64>,
}

impl<'a> Collector<'a> {
    fn new(
        settings: &'a Settings,
        events: &'a Events,
        list: &'a List,
        root: &'a Root,
    ) -> anyhow::Result<Self> {
        let mut done = BTreeSet::new();
        let mut meters = BTreeMap::new();
        for part in &list.parts {
            if settings
                .incoming
                .join(format!("{}.done", part.part))
                .exists()
            {
                done.insert(part.part);
            } else if matches!(part.content, Content::Large { .. }) {
                let up = settings.incoming.join(format!("{}.up", part.part));
                let before = watch::present(&up)
                    .context("looking at an upload")?
                    .unwrap_or(0);
                meters.insert(part.part, Meter::new(part.bytes, before));
            }
        }
        Ok(Self {
            settings,
            events,
            list,
            root,
            done,
            at_work: BTreeSet::new(),
            meters,
            first_byte: None,
        })
    }

    fn collect(mut self) -> anyhow::Result<Option<f64>> {
        let (give, work) = mpsc::channel::<Part>();
        let work = std::sync::Mutex::new(work);
        let (say, placed) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..self.settings.threads.max(1) {
                let (work, say) = (&work, say.clone());
                let (settings, list, root) = (self.settings, self.list, self.root);
                scope.spawn(move || {
                    loop {
                        let next = work.lock().ok().and_then(|work| work.recv().ok());
                        let Some(part) = next else { break };
                        let outcome =
                            put_in_place(&settings.incoming, settings.threads, list, root, &part);
                        if say.send((part, outcome)).is_err() {
                            break;
                        }
                    }
                });
            }
            let outcome = self.look(&give, &placed);
            drop(give);
            outcome
        })?;
        Ok(self.first_byte)
    }

    /// Looks at the incoming folder until every part is done.
    fn look(
        &mut self,
        give: &mpsc::Sender<Part>,
        placed: &mpsc::Receiver<(Part, anyhow::Result<()>)>,
    ) -> anyhow::Result<()> {
        let (mut last_news, mut last_bytes) = (Instant::now(), 0);
        let (mut last_told, mut round) = (Instant::now(), 0_u64);
        while self.done.len() < self.list.parts.len() {
            while let Ok((part, outcome)) = placed.try_recv() {
                outcome?;
                self.at_work.remove(&part.part);
                self.done.insert(part.part);
                last_news = Instant::now();
                self.events.say(
                    "placed",
                    json!({"part": part.part, "files": part.files(), "bytes": part.bytes}),
                );
            }
            self.sample()?;
            // the folder is read less often than the one file that is watched
            if round.is_multiple_of(4) {
                let bytes = self.arrivals(give)?;
                if bytes != last_bytes || !self.at_work.is_empty() {
                    (last_bytes, last_news) = (bytes, Instant::now());
                }
                if bytes > 0 && self.first_byte.is_none() {
                    self.first_byte = Some(seconds(SystemTime::now()));
                }
                if last_told.elapsed() >= Duration::from_millis(200) {
                    last_told = Instant::now();
                    self.events.say("progress", json!({"bytes": bytes}));
                }
            }
            round += 1;
            if last_news.elapsed() > self.settings.idle {
                let missing: Vec<_> = self
                    .list
                    .parts
                    .iter()
                    .map(|part| part.part)
                    .filter(|part| !self.done.contains(part))
                    .collect();
                bail!(
                    "nothing has come for {:?}, and {} of {} parts are missing (first: {:?}); start the sender's command again, then this one",
                    self.settings.idle,
                    missing.len(),
                    self.list.parts.len(),
                    missing.first()
                );
            }
            thread::sleep(watch::EVERY);
        }
        Ok(())
    }

    /// The large file that is on its way, seen often.
    fn sample(&mut self) -> anyhow::Result<()> {
        let open = |part: &&u32| !self.done.contains(part) && !self.at_work.contains(part);
        let Some(part) = self.meters.keys().find(open).copied() else {
            return Ok(());
        };
        let up = self.settings.incoming.join(format!("{part}.up"));
        // not begun, or renamed when there is none: then `arrivals` notes that all of it is there
        if let Some(bytes) = watch::present(&up).context("looking at an upload")? {
            self.note(part, bytes);
        }
        Ok(())
    }

    /// Takes a sample of a large file, and says what its flow was when it is whole.
    fn note(&mut self, part: u32, bytes: u64) {
        let t = seconds(SystemTime::now());
        let flow = self
            .meters
            .get_mut(&part)
            .and_then(|meter| meter.take(Sample { t, bytes }));
        let Some(flow) = flow else { return };
        let content = self
            .list
            .parts
            .iter()
            .find(|p| p.part == part)
            .map(|p| &p.content);
        let path = match content {
            Some(Content::Large { entry }) => self.list.entries.get(*entry).map(Entry::shown),
            _ => None,
        };
        self.events
            .say("large", json!({"part": part, "path": path, "flow": flow}));
    }

    /// Gives whole parts to the workers; how many bytes of content are here.
    fn arrivals(&mut self, give: &mpsc::Sender<Part>) -> anyhow::Result<u64> {
        let incoming = &self.settings.incoming;
        let reading = || format!("reading {}", incoming.display());
        let mut bytes: u64 = self
            .list
            .parts
            .iter()
            .filter(|part| self.done.contains(&part.part))
            .map(|part| part.bytes)
            .sum();
        for item in fs::read_dir(incoming).with_context(reading)? {
            let item = item.with_context(reading)?;
            let name = item.file_name().to_string_lossy().into_owned();
            let Some((number, what)) = name.split_once('.') else {
                continue;
            };
            let part = number
                .parse::<usize>()
                .ok()
                .and_then(|n| self.list.parts.get(n.checked_sub(1)?));
            let Some(part) = part else { continue };
            if self.done.contains(&part.part) {
                continue;
            }
            match what {
                "up" => {
                    bytes += watch::present(&item.path())
                        .with_context(reading)?
                        .unwrap_or(0)
                        .min(part.bytes)
                }
                "ready" => {
                    bytes += part.bytes;
                    self.note(part.part, part.bytes);
                    if self.at_work.insert(part.part) {
                        give.send(part.clone())
                            .map_err(|_| anyhow!("no worker is left"))?;
                    }
                }
                _ => {}
            }
        }
        Ok(bytes)
    }
}
