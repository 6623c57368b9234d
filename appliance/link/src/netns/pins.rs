//! Where pins of namespaces are mounted. A pin must be seen by the engines of the host and must outlive
//! the process that made it. A service with a mount namespace of its own (as `ProtectSystem=` gives
//! it) sees the mounts of the host, but the host does not see the service's: so the pin is mounted in
//! the namespace that `DTN_PINS` names, and comes back from there by propagation.

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
};
use std::{ffi::OsString, fs::File};

/// A file of a mount namespace, as `/proc/1/ns/mnt`. Set by the unit and inherited by the plugins.
const VARIABLE: &str = "DTN_PINS";

/// Mounts or unmounts where pins are seen: here, or in the namespace that the environment names.
pub(super) fn where_seen<T: Send>(work: impl FnOnce() -> nix::Result<T> + Send) -> nix::Result<T> {
    match std::env::var_os(VARIABLE).filter(|file| !file.is_empty()) {
        None => work(),
        Some(file) => elsewhere(&file, work),
    }
}

fn elsewhere<T: Send>(
    file: &OsString,
    work: impl FnOnce() -> nix::Result<T> + Send,
) -> nix::Result<T> {
    let namespace = File::open(file).map_err(errno)?;
    let on_thread = || {
        // root and working folder are shared by all threads, and a namespace brings its own
        unshare(CloneFlags::CLONE_FS)?;
        enter(&namespace)?;
        work()
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("pins".to_owned())
            .spawn_scoped(scope, on_thread)
            .map_err(errno)?
            .join()
            .unwrap_or(Err(Errno::ENOTRECOVERABLE))
    })
}

/// Moves the calling thread, which must die afterwards.
#[allow(
    clippy::disallowed_methods,
    reason = "the thread is thrown away afterwards"
)]
fn enter(namespace: &File) -> nix::Result<()> {
    nix::sched::setns(namespace, CloneFlags::CLONE_NEWNS)
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
