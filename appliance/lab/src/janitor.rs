//! The process that outlives the capsule by a moment: it holds the lock, starts the capsule, waits
//! for its end and sweeps what the kernel does not: cgroups and folders.
//!
//! Its standard input is its leash. When that ends without the word `keep`, the process that started
//! it is gone, and the capsule is taken down. It passes a leash of its own on to the capsule.

use crate::{Options, cgroups, onos, place::Place};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, Read, Write},
    os::unix::{net::UnixListener, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitCode, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

/// How long the capsule may take to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(20);
/// How long the kernel may take to empty the cgroups.
const REAP: Duration = Duration::from_secs(20);
/// The exit code for "another lab is up": EX_TEMPFAIL of sysexits(3).
pub const BUSY: u8 = 75;

/// A lab's folder could not be made ready or swept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JanitorError {
    /// Another lab holds the lock.
    #[error("a lab is up already in {0}: take it down with `dtnctl lab down --state {0}`")]
    Busy(PathBuf),
    /// An operation on a file or a cgroup.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Cgroups stay busy.
    #[error("cgroups that should be empty are still in use: {0:?}; see their cgroup.procs")]
    CgroupsBusy(Vec<PathBuf>),
    /// Something is mounted in a folder that would be removed.
    #[error("{0} has a mount in it, so it is not removed: unmount it and run again")]
    Mounted(PathBuf),
}

/// Takes the lock of a lab's folder; it is held as long as the file is.
pub fn lock(place: &Place) -> Result<File, JanitorError> {
    let path = place.lock();
    let io = |what| {
        let path = path.clone();
        move |source| JanitorError::Io { what, path, source }
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io("opening"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(JanitorError::Busy(place.state().into())),
        Err(fs::TryLockError::Error(error)) => Err(io("locking")(error)),
    }
}

/// Removes what an earlier run left: cgroups by name, and the sites' folders except what an admin
/// would write. Only under the lock, so nothing of it is in use.
pub fn sweep(place: &Place) -> Result<(), JanitorError> {
    let mountinfo = "/proc/self/mountinfo";
    let io = |what, path: &Path| {
        let path = path.to_path_buf();
        move |source| JanitorError::Io { what, path, source }
    };
    let mounts = fs::read_to_string(mountinfo).map_err(io("reading", Path::new(mountinfo)))?;
    cgroups::sweep(&cgroups::parse(&mounts), &place.cgroup(), REAP)
        .map_err(JanitorError::CgroupsBusy)?;
    let below = format!("{}/", place.state().display());
    if mounts.lines().any(|line| {
        line.split(' ')
            .nth(4)
            .is_some_and(|mount| mount.starts_with(&below))
    }) {
        return Err(JanitorError::Mounted(place.state().into()));
    }
    let mut doomed = vec![place.run()];
    for site in crate::place::SITES {
        let root = place.root(site);
        let Ok(entries) = fs::read_dir(&root) else {
            continue;
        };
        for entry in entries {
            let entry = entry.map_err(io("listing", &root))?;
            if entry.file_name() != "etc" {
                doomed.push(entry.path());
            }
        }
    }
    for path in doomed {
        match remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io("removing", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

/// The janitor's whole life; `program` is this program, to be started again as the capsule.
pub fn run(place: &Place, program: &Path) -> Result<ExitCode, JanitorError> {
    let _lock = lock(place)?;
    sweep(place)?;
    let io = |what, path: &Path| {
        let path = path.to_path_buf();
        move |source| JanitorError::Io { what, path, source }
    };
    for folder in [place.run(), place.logs()] {
        fs::create_dir_all(&folder).map_err(io("making", &folder))?;
    }
    let control = place.control();
    let listener = UnixListener::bind(&control).map_err(io("listening on", &control))?;
    open_doorway(place)?;
    let mut child = start(place, program)?;
    let mut understudy = Command::new(program)
        .args(["lab", "part", "understudy", "--state"])
        .arg(place.state())
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(io("starting the understudy for", place.state()))?;
    let leash = Arc::new(Mutex::new(child.stdin.take()));
    let ended = Arc::new(Mutex::new(None::<Instant>));
    watch_own_leash(Arc::clone(&leash), Arc::clone(&ended));
    watch_control(listener, Arc::clone(&leash), Arc::clone(&ended));
    let status = loop {
        let status = child
            .try_wait()
            .map_err(io("waiting for the capsule of", place.state()))?;
        if let Some(status) = status {
            break status;
        }
        let asked = *ended
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if asked.is_some_and(|asked| asked.elapsed() > GRACE) {
            tracing::warn!(
                "the capsule did not end in {} s and is killed",
                GRACE.as_secs()
            );
            // unshare's child is killed with it, and all of the capsule with that
            child
                .kill()
                .map_err(io("killing the capsule of", place.state()))?;
        }
        thread::sleep(Duration::from_millis(50));
    };
    sweep(place)?;
    understudy
        .kill()
        .and_then(|()| understudy.wait())
        .map_err(io("ending the understudy of", place.state()))?;
    tracing::info!(%status, "the capsule ended, and nothing of it is left");
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Waits for the janitor's end. A janitor that ends in order ends its understudy first; so whoever
/// gets the lock here sweeps in the place of one that was killed. The capsule has then lost its leash
/// and is ending too, and the sweep waits for that.
pub fn understudy(place: &Place) -> Result<(), JanitorError> {
    let path = place.lock();
    let io = |what| {
        let path = path.clone();
        move |source| JanitorError::Io { what, path, source }
    };
    let file = OpenOptions::new()
        .write(true)
        .open(&path)
        .map_err(io("opening"))?;
    file.lock().map_err(io("waiting for"))?;
    sweep(place)
}

/// Opens the way to an ONOS of the machine, where the plan names one.
fn open_doorway(place: &Place) -> Result<(), JanitorError> {
    let plan = place.plan();
    let text = fs::read(&plan).map_err(|source| JanitorError::Io {
        what: "reading",
        path: plan.clone(),
        source,
    })?;
    let options = serde_json::from_slice::<Options>(&text).map_err(io::Error::from);
    options
        .and_then(|options| onos::doorway::open(&options.onos, place))
        .map_err(|source| JanitorError::Io {
            what: "opening the way to ONOS for",
            path: plan,
            source,
        })
}

/// Starts the capsule within the lab's cgroup, without staying there.
fn start(place: &Place, program: &Path) -> Result<Child, JanitorError> {
    let io = |what, path: &Path| {
        let path = path.to_path_buf();
        move |source| JanitorError::Io { what, path, source }
    };
    let cgroup = PathBuf::from(place.cgroup());
    let hierarchies = cgroups::mounted().map_err(io("reading the hierarchies for", &cgroup))?;
    let back =
        cgroups::enter(&hierarchies, &place.cgroup()).map_err(io("making the cgroup", &cgroup));
    let child = back.and_then(|back| {
        let child = Command::new("unshare")
            .args(["--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup"])
            .args([
                "--propagation",
                "private",
                "--fork",
                "--kill-child=SIGKILL",
                "--mount-proc",
                "--",
            ])
            // process 1: reaps whatever the pods' monitors leave to it
            .args(["catatonit", "--"])
            .arg(program)
            .args(["lab", "part", "capsule", "--state"])
            .arg(place.state())
            .stdin(Stdio::piped())
            .spawn()
            .map_err(io("starting unshare for", place.state()));
        cgroups::leave(&back).map_err(io("leaving the cgroup", &cgroup))?;
        child
    });
    if child.is_err() {
        // what was made of the cgroup so far is empty again
        let _ = cgroups::sweep(&hierarchies, &place.cgroup(), Duration::ZERO);
    }
    child
}

type Leash = Arc<Mutex<Option<ChildStdin>>>;
type Ended = Arc<Mutex<Option<Instant>>>;

/// Ends the capsule: its leash is let go.
fn end(leash: &Leash, ended: &Ended) {
    let poisoned = std::sync::PoisonError::into_inner;
    leash.lock().unwrap_or_else(poisoned).take();
    ended
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .get_or_insert_with(Instant::now);
}

fn watch_own_leash(leash: Leash, ended: Ended) {
    thread::spawn(move || {
        let mut kept = false;
        for line in io::stdin().lock().lines() {
            match line.as_deref() {
                Ok("keep") => kept = true,
                Ok(other) => tracing::warn!(other, "a word that is not known on the leash"),
                Err(_) => break,
            }
        }
        if !kept {
            end(&leash, &ended);
        }
    });
}

/// `dtnctl lab down` connects and says `down`; the connection stays open until all is swept.
fn watch_control(listener: UnixListener, leash: Leash, ended: Ended) {
    thread::spawn(move || {
        let mut callers = Vec::new();
        for caller in listener.incoming().flatten() {
            let mut caller = caller;
            let mut word = String::new();
            // only root reaches the socket; a caller that says nothing is given up on
            let heard = caller
                .set_read_timeout(Some(Duration::from_secs(2)))
                .and_then(|()| Read::by_ref(&mut caller).take(8).read_to_string(&mut word));
            if heard.is_ok() && word.trim() == "down" {
                end(&leash, &ended);
                let _ = caller.write_all(b"ending\n");
                callers.push(caller);
            }
        }
    });
}
