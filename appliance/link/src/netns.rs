//! Handles on network namespaces.
//!
//! Invariant: a thread that entered a namespace never comes back to anybody: it is made for one
//! closure and dies with it. A worker of a runtime never changes its namespace. This file is the
//! only one of the appliance that calls `setns`.

mod pins;

use crate::{Conn, Error, Result};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::statfs::fstatfs,
};
use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

/// `NSFS_MAGIC` of the kernel's `include/uapi/linux/magic.h`.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// A network namespace that is held open: it exists as long as this handle does.
#[derive(Clone)]
pub struct Netns {
    file: Arc<File>,
    device: u64,
    inode: u64,
    name: String,
}

impl Netns {
    /// Opens the namespace that is bound to `path` (or is a `/proc/PID/ns/net`). Nothing is made;
    /// a file that is not a network namespace is refused.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let doing = || format!("opening the network namespace {name}");
        // std opens with O_CLOEXEC; NONBLOCK so that a fifo of that name cannot hang us
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
            .open(path)
            .map_err(|e| Error::io(doing(), e))?;
        let kind = fstatfs(&file).map_err(|e| Error::io(doing(), e))?;
        if kind.filesystem_type().0 != NSFS_MAGIC {
            return Err(Error::invalid(
                format!("network namespace {name}"),
                "the file is not a namespace (no nsfs); the namespace is gone or was never bound here",
            ));
        }
        let netns = Self::from_file(file, name)?;
        // nsfs holds all kinds of namespaces: only entering tells whether it is one of the network
        netns.run_blocking(|| ()).map_err(|e| match e.errno() {
            Some(nix::errno::Errno::EINVAL) => Error::invalid(
                format!("network namespace {}", netns.name),
                "the file is a namespace of another kind",
            ),
            _ => e,
        })?;
        Ok(netns)
    }

    /// The namespace of this process.
    pub fn current() -> Result<Self> {
        let file = File::open("/proc/thread-self/ns/net")
            .map_err(|e| Error::io("opening the network namespace of this process", e))?;
        Self::from_file(file, "of this process".to_owned())
    }

    /// A new namespace without a name: it is gone when the last handle and the last process are.
    /// Its loopback is down.
    pub fn create_unnamed() -> Result<Self> {
        let file = on_thread("making a network namespace", || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        })?;
        Self::from_file(file, "without a name".to_owned())
    }

    /// A new namespace, bound to the file `path`, which is made and must not exist. Its loopback
    /// is down. Undone by [`unbind`].
    pub fn create_named(path: &Path) -> Result<Self> {
        let netns = Self::create_unnamed()?;
        netns.bind(path)?;
        Ok(Self {
            name: path.display().to_string(),
            ..netns
        })
    }

    /// Binds this namespace to the file `path`, which is made and must not exist: the namespace
    /// then outlives its processes and this handle. Undone by [`unbind`].
    pub fn bind(&self, path: &Path) -> Result<()> {
        let doing = || format!("binding a network namespace to {}", path.display());
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o444)
            .open(path)
            .map_err(|e| Error::io(doing(), e))?;
        let bound = pins::where_seen(|| {
            mount(
                Some(&self.proc_path()),
                path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
        });
        bound.map_err(|e| {
            // the empty file must not be taken for a namespace that is gone
            let _ = std::fs::remove_file(path);
            Error::io(doing(), e)
        })
    }

    fn from_file(file: File, name: String) -> Result<Self> {
        let meta = file
            .metadata()
            .map_err(|e| Error::io(format!("reading the network namespace {name}"), e))?;
        Ok(Self {
            file: Arc::new(file),
            device: meta.dev(),
            inode: meta.ino(),
            name,
        })
    }

    /// Inode of the namespace: what tells it from others until the machine restarts.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// The path it was opened by, or words for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path by which other processes of this machine can open it while this handle is held
    /// (`nsenter --net=PATH`).
    pub fn proc_path(&self) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.file.as_raw_fd()
        ))
    }

    /// A netlink connection into this namespace. Must be called on a tokio runtime; the
    /// connection is served by it and ends with the last [`Conn`].
    pub async fn connect(&self) -> Result<Conn> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| {
            Error::invalid(
                "netlink connection",
                "there is no tokio runtime to serve it: call this on one",
            )
        })?;
        // the socket belongs for ever to the namespace of the thread that opened it
        let socket = self
            .run(move || {
                let _in_runtime = runtime.enter();
                Conn::open_here()
            })
            .await??;
        Ok(socket)
    }

    /// Runs a closure on a thread of its own in this namespace (for `/proc/sys/net` and
    /// `/proc/thread-self/net`, which follow the thread). `/sys` follows its mount and not the
    /// thread.
    pub async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (tell, told) = tokio::sync::oneshot::channel();
        let netns = self.clone();
        std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn(move || {
                let result = netns.enter().map(|()| work());
                // nobody listens any more if the caller was cancelled
                let _ = tell.send(result);
            })
            .map_err(|e| Error::io("starting a thread for a network namespace", e))?;
        told.await.map_err(|_| self.panicked())?
    }

    /// [`run`](Self::run) for callers without a runtime: waits for the closure.
    pub fn run_blocking<T, F>(&self, work: F) -> Result<T>
    where
        T: Send,
        F: FnOnce() -> T + Send,
    {
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("netns".to_owned())
                .spawn_scoped(scope, || self.enter().map(|()| work()))
                .map_err(|e| Error::io("starting a thread for a network namespace", e))?
                .join()
                .map_err(|_| self.panicked())?
        })
    }

    fn panicked(&self) -> Error {
        Error::io(
            format!("working in the network namespace {}", self.name),
            io::Error::other("the thread panicked"),
        )
    }

    /// Moves the calling thread, which must die afterwards.
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place where a thread enters a namespace; it is thrown away afterwards"
    )]
    fn enter(&self) -> Result<()> {
        nix::sched::setns(&*self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|e| Error::io(format!("entering the network namespace {}", self.name), e))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
impl PartialEq for Netns {
    fn eq(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}
impl Eq for Netns {}
impl std::fmt::Debug for Netns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Netns({}, inode {})", self.name, self.inode)
    }
}

/// Unmounts what is bound to `path` and removes the file. Success when neither is there.
pub fn unbind(path: &Path) -> Result<()> {
    use nix::errno::Errno;
    let doing = || format!("unbinding the network namespace {}", path.display());
    // each bind on top of another goes; EINVAL: nothing is mounted here
    loop {
        let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
        match pins::where_seen(|| umount2(path, flags)) {
            Ok(()) => continue,
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(e) => return Err(Error::io(doing(), e)),
        }
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(doing(), e)),
        _ => Ok(()),
    }
}

fn on_thread<T: Send>(doing: &str, work: impl FnOnce() -> io::Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .and_then(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
            })
    })
    .map_err(|e| Error::io(doing, e))
}
