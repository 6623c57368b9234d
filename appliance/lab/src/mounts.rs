//! The few mounts that namespaces of the lab are furnished with. Called where nothing is shared back.

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::{fs, path::Path};

/// Binds a tree of mounts, or one file, elsewhere.
pub(crate) fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(
        Some(from),
        to,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .with_context(|| format!("binding {} on {}", from.display(), to.display()))
}
/// Takes a mount away, also while it is in use.
pub(crate) fn detach(target: &Path) -> Result<()> {
    umount2(target, MntFlags::MNT_DETACH).with_context(|| format!("detaching {}", target.display()))
}
/// A file system in memory. Device files in it work: the relay's ends are such.
pub(crate) fn tmpfs(target: &Path, options: &str) -> Result<()> {
    mount(
        Some("tmpfs"),
        target,
        Some("tmpfs"),
        MsFlags::MS_NOSUID,
        Some(options),
    )
    .with_context(|| format!("mounting a tmpfs on {}", target.display()))
}
/// Lets mounts that are made for a container be seen by those that come after it, as on a host that
/// systemd has booted.
pub(crate) fn share() -> Result<()> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_SHARED | MsFlags::MS_REC,
        None::<&str>,
    )
    .context("sharing the mounts of the host")
}

/// Gives a folder own entries of these names, empty and in memory, whatever the machine has there.
/// Where it has none, none is made on it: the folder is put together anew, each other entry bound to
/// its own.
pub(crate) fn own(all: &Path, names: &[&str]) -> Result<()> {
    if names.iter().all(|name| all.join(name).is_dir()) {
        for name in names {
            tmpfs(&all.join(name), "mode=755")?;
        }
        return Ok(());
    }
    let aside = Path::new("/run/own-aside");
    fs::create_dir_all(aside).with_context(|| format!("making {}", aside.display()))?;
    tmpfs(aside, "mode=755")?;
    for entry in fs::read_dir(all).with_context(|| format!("listing {}", all.display()))? {
        let entry = entry.with_context(|| format!("listing {}", all.display()))?;
        if names.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let (from, to) = (entry.path(), aside.join(entry.file_name()));
        let making = || format!("making {}", to.display());
        let kind = entry
            .file_type()
            .with_context(|| format!("looking at {}", from.display()))?;
        if kind.is_symlink() {
            let target =
                fs::read_link(&from).with_context(|| format!("reading {}", from.display()))?;
            std::os::unix::fs::symlink(target, &to).with_context(making)?;
            continue;
        }
        if kind.is_dir() {
            fs::create_dir(&to).with_context(making)?;
        } else {
            fs::File::create(&to).with_context(making)?;
        }
        bind(&from, &to)?;
    }
    for name in names {
        let empty = aside.join(name);
        fs::create_dir(&empty).with_context(|| format!("making {}", empty.display()))?;
    }
    bind(aside, all)?;
    detach(aside)
}
