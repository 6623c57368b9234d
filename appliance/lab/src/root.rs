//! A capsule's root is its mount namespace's root. In a chroot it would not be, and whoever enters
//! the mount namespace of a container (`podman exec`) would come out at the machine's own root:
//! entering a mount namespace leads to the root of the namespace, not to that of a process.

use anyhow::{Context, Result, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns},
    sys::stat::{FileStat, fstat, stat},
    unistd::{chdir, chroot, fchdir},
};
use std::fs::File;

/// Moves our root onto the root of our mount namespace, as `switch_root` does; nothing to do where
/// it is that already. Called in a private mount namespace, by a process of one thread.
pub fn make_own() -> Result<()> {
    let root = File::open("/").context("opening the root")?;
    let ours = fstat(&root).context("looking at the root")?;
    let namespace = File::open("/proc/self/ns/mnt").context("opening the mount namespace")?;
    enter(&namespace).context("looking for the root of the mount namespace")?;
    let whole = stat("/").context("looking at the root of the mount namespace")?;
    fchdir(&root).context("going back to the root")?;
    if !same(&ours, &whole) {
        mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).context(
            "the lab runs in a chroot whose root is no mount point: bind the folder onto itself first (mount --bind DIR DIR)",
        )?;
    }
    chroot(".").context("taking the root")?;
    chdir("/").context("going to the root")?;
    let now = stat("/").context("looking at the new root")?;
    ensure!(same(&ours, &now), "the root is another one than before");
    Ok(())
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
