//! What the person at the terminal started: checks, starts the janitor, prints what the capsule
//! tells, hands Ctrl-C on, and writes the report where it was asked for.

use crate::{
    Options,
    cluster::{self, kit::Kit},
    janitor::{self, JanitorError},
    options::EngineKind,
    part,
    place::{Place, SITES},
    preflight,
    progress::{Event, Printer},
};
use anyhow::{Context, Result, bail};
use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{
        fs::{OpenOptionsExt, PermissionsExt},
        net::UnixStream,
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// What may happen while a lab runs.
enum Happening {
    Told(Event),
    Interrupted,
    Silence,
}

/// Brings a lab up, runs what is wanted and takes it down, or leaves it when it is to be kept.
pub fn run(options: &Options) -> Result<()> {
    let facts = preflight::look(options);
    let problems = preflight::problems(options, &facts);
    if !problems.is_empty() {
        bail!(
            "this machine is not ready for the lab:\n  {}",
            problems.join("\n  ")
        );
    }
    say(&format!("lab: {}", preflight::adds(options)));
    let place = Place::new(&options.state);
    make_ready(&place, options)?;

    let program = std::env::current_exe().context("finding this program's own file")?;
    let mut janitor = Command::new(program)
        .args(["lab", "part", "janitor", "--state"])
        .arg(place.state())
        // a group of its own: Ctrl-C reaches this process alone, which hands it on
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log_file(&place)?)
        .spawn()
        .context("starting the lab's janitor")?;
    let leash = janitor.stdin.take().context("the janitor has no leash")?;
    let stdout = janitor.stdout.take().context("the janitor has no output")?;
    let (sender, happenings) = mpsc::channel();
    listen(stdout, sender.clone());
    hand_on_interrupts(sender)?;
    let outcome = follow(&happenings, leash, &place, options);
    if outcome.kept && outcome.failure.is_none() {
        let state = place.state().display();
        if options.engine == EngineKind::Kubernetes {
            say(&format!(
                "lab: look into a cluster with `dtnctl lab kubectl --state {state} daejeon get pods --all-namespaces`"
            ));
        }
        say(&format!(
            "lab: the sites are up; look at them with `dtnctl --site daejeon status`, take them down with `dtnctl lab down --state {state}`"
        ));
        return Ok(());
    }
    let status = janitor.wait().context("waiting for the lab's janitor")?;
    // a janitor that was killed leaves the sweeping to whoever is left
    let lock = wait_for_lock(&place, Duration::from_secs(40))?;
    janitor::sweep(&place)?;
    drop(lock);
    if outcome.interrupted {
        bail!("interrupted; everything is taken down");
    }
    if let Some(why) = outcome.failure {
        bail!(
            "{why}\n  logs: {}; everything else is taken down",
            place.logs().display()
        );
    }
    if !status.success() {
        bail!(
            "the lab ended before its work was done ({status}): one of its processes was killed or failed; logs: {}; everything else is taken down",
            place.logs().display()
        );
    }
    Ok(())
}

/// A line for the person at the terminal. One who has stopped reading does not end the lab.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Takes a kept lab down and waits until nothing of it is left.
pub fn down(state: &Path) -> Result<()> {
    let place = Place::new(state);
    if !place.mark().exists() {
        say(&format!("lab: nothing is up in {}", state.display()));
        return Ok(());
    }
    if let Ok(mut control) = UnixStream::connect(place.control()) {
        control
            .write_all(b"down")
            .context("asking the lab to end")?;
        control
            .shutdown(std::net::Shutdown::Write)
            .context("asking the lab to end")?;
        control
            .set_read_timeout(Some(Duration::from_secs(60)))
            .context("waiting for the lab's end")?;
        let mut rest = String::new();
        // ends when the janitor ends, and an end by force is an end too: the lock tells
        let _ = control.read_to_string(&mut rest);
    }
    let lock = wait_for_lock(&place, Duration::from_secs(60))?;
    janitor::sweep(&place)?;
    drop(lock);
    say(&format!(
        "lab: down; logs stay in {}",
        place.logs().display()
    ));
    Ok(())
}

/// Becomes kubectl as the administrator of a site's cluster, on that site's host: its network is in no
/// namespace of the machine. Returns only when that fails.
pub fn kubectl(state: &Path, site: &str, words: &[OsString]) -> Result<std::convert::Infallible> {
    let place = Place::new(state);
    let plan = place.plan();
    let options: Options = fs::read(&plan)
        .map_err(anyhow::Error::from)
        .and_then(|text| Ok(serde_json::from_slice(&text)?))
        .with_context(|| {
            format!(
                "reading {}: is a lab up in {}?",
                plan.display(),
                state.display()
            )
        })?;
    let host = host(state, site).with_context(|| {
        format!("no cluster of a site {site} is up in {}: bring one up with `dtnctl lab run --engine kubernetes --keep`; the sites are {}", state.display(), SITES.join(" and "))
    })?;
    let kit = Kit::find(&options.kubernetes).map_err(anyhow::Error::msg)?;
    let error = Command::new("nsenter")
        .args(["--target", &host.to_string(), "--net", "--"])
        .arg(kit.program("kubectl"))
        .arg("--kubeconfig")
        .arg(cluster::folder(&place, site).join(cluster::ADMIN))
        .arg("--cache-dir")
        .arg(cluster::cache(&place, site))
        .args(words)
        .exec();
    Err(error).context("starting kubectl with nsenter")
}

/// The process that holds the namespaces of a site's host, where a cluster is on it, as this process
/// sees it.
fn host(state: &Path, site: &str) -> Option<u32> {
    let wanted = part::anchor_words(site, EngineKind::Kubernetes, state);
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let words = line.strip_suffix(b"\0")?.split(|byte| *byte == 0);
        // the first is the program
        words
            .skip(1)
            .eq(wanted.iter().map(|word| word.as_encoded_bytes()))
            .then_some(pid)
    })
}

/// The lock, once whoever holds it has ended.
fn wait_for_lock(place: &Place, deadline: Duration) -> Result<fs::File> {
    let end = Instant::now() + deadline;
    loop {
        match janitor::lock(place) {
            Ok(lock) => return Ok(lock),
            Err(JanitorError::Busy(_)) if Instant::now() < end => {
                thread::sleep(Duration::from_millis(50))
            }
            Err(error) => {
                return Err(error).with_context(|| {
                    format!(
                        "waiting {} s for the lab's end; its log is {}",
                        deadline.as_secs(),
                        place.log("lab").display()
                    )
                });
            }
        }
    }
}

fn make_ready(place: &Place, options: &Options) -> Result<()> {
    let state = place.state();
    fs::create_dir_all(place.logs())
        .with_context(|| format!("making {}", place.logs().display()))?;
    // keys and tokens of the run lie below
    fs::set_permissions(state, fs::Permissions::from_mode(0o700))
        .with_context(|| format!("closing {} to others", state.display()))?;
    fs::write(
        place.mark(),
        "This folder is a lab's; `dtnctl lab run` sweeps it.\n",
    )
    .with_context(|| format!("writing {}", place.mark().display()))?;
    // another lab's logs are not touched while it is up
    let lock = janitor::lock(place)?;
    for log in
        fs::read_dir(place.logs()).with_context(|| format!("listing {}", place.logs().display()))?
    {
        let log = log.context("listing the logs")?.path();
        fs::remove_file(&log)
            .with_context(|| format!("removing the last run's {}", log.display()))?;
    }
    drop(lock);
    let plan = serde_json::to_vec_pretty(options).context("writing the options down")?;
    fs::write(place.plan(), plan).with_context(|| format!("writing {}", place.plan().display()))?;
    Ok(())
}

fn log_file(place: &Place) -> Result<Stdio> {
    let path = place.log("lab");
    let file = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    Ok(Stdio::from(file))
}

fn listen(stdout: impl Read + Send + 'static, sender: mpsc::Sender<Happening>) {
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let event = serde_json::from_str(&line).unwrap_or(Event::Note(line));
            if sender.send(Happening::Told(event)).is_err() {
                return;
            }
        }
        // every writer is gone: the capsule and the janitor have ended; nobody listens is no failure
        let _ = sender.send(Happening::Silence);
    });
}

fn hand_on_interrupts(sender: mpsc::Sender<Happening>) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("preparing for signals")?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        let on = |kind| signal(kind).context("preparing for signals");
        (
            on(SignalKind::interrupt())?,
            on(SignalKind::terminate())?,
            on(SignalKind::hangup())?,
        )
    };
    thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                if sender.send(Happening::Interrupted).is_err() {
                    return;
                }
            }
        });
    });
    Ok(())
}

#[derive(Default)]
struct Outcome {
    kept: bool,
    interrupted: bool,
    failure: Option<String>,
}

/// Puts report and plot where they were asked for; says where they are.
fn put_report(place: &Place, options: &Options) -> Result<String> {
    let report = place.report();
    let plot = report.with_extension("svg");
    let put = |from: &Path, to: Option<PathBuf>| -> Result<PathBuf> {
        let Some(to) = to else {
            return Ok(from.to_path_buf());
        };
        fs::copy(from, &to).with_context(|| format!("writing {}", to.display()))?;
        Ok(to)
    };
    let report = put(&report, options.report.clone())?;
    let plot = put(&plot, options.plot())?;
    Ok(format!(
        "lab: report {}, plot {}",
        report.display(),
        plot.display()
    ))
}

/// Prints until the capsule is silent for good, or up and kept.
fn follow(
    happenings: &mpsc::Receiver<Happening>,
    leash: ChildStdin,
    place: &Place,
    options: &Options,
) -> Outcome {
    let (printer, mut leash, mut outcome) = (Printer::default(), Some(leash), Outcome::default());
    loop {
        let line = match happenings.recv_timeout(Duration::from_secs(1)) {
            Ok(Happening::Told(event)) => {
                match &event {
                    Event::Failed(why) => outcome.failure = Some(why.clone()),
                    Event::Kept => outcome.kept = true,
                    Event::Reported => match put_report(place, options) {
                        Ok(where_to) => say(&where_to),
                        Err(error) => outcome.failure = Some(format!("{error:#}")),
                    },
                    _ => {}
                }
                printer.line(&event, Instant::now())
            }
            Ok(Happening::Interrupted) => {
                outcome.interrupted = true;
                leash = None;
                Some("lab: interrupted, taking everything down".to_owned())
            }
            Ok(Happening::Silence) | Err(mpsc::RecvTimeoutError::Disconnected) => return outcome,
            Err(mpsc::RecvTimeoutError::Timeout) => printer.heartbeat(Instant::now()),
        };
        // the reason of a failure is printed once, by whoever called
        if let Some(line) = line.filter(|_| outcome.failure.is_none()) {
            say(&line);
        }
        if outcome.kept
            && let Some(mut leash) = leash.take()
        {
            // without this word the end of this process is the end of the lab
            if leash.write_all(b"keep\n").is_ok() {
                return outcome;
            }
            outcome.kept = false;
        }
    }
}
