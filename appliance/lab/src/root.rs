//! A capsule's root is its mount namespace's root. In a chroot it would not be, and whoever enters
//! the mount namespace of a container (`podman exec`) would come out at the machine's own root:
//! entering a mount namespace leads to the root of the namespace, not to that of a process.

use anyhow::{Context, Result, anyhow, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::stat::{FileStat, stat},
    unistd::fchdir,
};
use std::fs::File;

/// Moves our root onto the root of our mount namespace, as `switch_root` does; nothing to do where
/// it is that already. Called in a private mount namespace.
///
/// A thread of its own does it, which shares neither root nor folder with the rest of the process:
/// the kernel lets no other enter a mount namespace. What it moves is moved for all.
pub fn make_own() -> Result<()> {
    std::thread::spawn(|| {
        let root = File::open("/").context("opening the root")?;
        unshare(CloneFlags::CLONE_FS).context("parting from the other threads' root")?;
        let ours = stat("/").context("looking at the root")?;
        if same(&ours, &of_namespace()?) {
            return Ok(());
        }
        fchdir(&root).context("going back to the root")?;
        mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).context(
            "the lab runs in a chroot whose root is no mount point: bind the folder onto itself first (mount --bind DIR DIR)",
        )?;
        ensure!(
            same(&ours, &of_namespace()?),
            "the root of the mount namespace is another one than before"
        );
        Ok(())
    })
    .join()
    .map_err(|_| anyhow!("the thread that moves the root panicked"))?
}

/// What is at the root of our mount namespace, which the thread then stands at.
fn of_namespace() -> Result<FileStat> {
    let namespace =
        File::open("/proc/thread-self/ns/mnt").context("opening the mount namespace")?;
    enter(&namespace).context("entering the mount namespace")?;
    stat("/").context("looking at the root of the mount namespace")
}

#[allow(
    clippy::disallowed_methods,
    reason = "a mount namespace, which no library function enters; the network's stays as it is"
)]
fn enter(namespace: &File) -> nix::Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNS)
}

fn same(a: &FileStat, b: &FileStat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}
