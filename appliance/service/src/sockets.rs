//! Sockets that the service manager opened before the daemon (`dtnd.socket`, `vdnd.socket`): who
//! connects while the daemon starts or restarts waits instead of being refused, and mode and group
//! of the socket are the unit's.

use std::{
    io,
    os::unix::net::UnixListener,
    path::Path,
    sync::{Mutex, PoisonError},
};

/// What was handed over and nobody has taken yet.
static INHERITED: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// Takes over what the service manager opened. Called at the start of `main`: it removes the
/// variables that tell of it, so that no child takes the sockets for its own.
pub fn inherit() -> io::Result<()> {
    // libsystemd marks them to be closed in children; it also knows whether they are ours
    if systemd::daemon::listen_fds()?.is_empty() {
        return Ok(());
    }
    let mut handed = listenfd::ListenFd::from_env();
    let mut all = INHERITED.lock().unwrap_or_else(PoisonError::into_inner);
    for index in 0..handed.len() {
        let taken = handed.take_unix_listener(index).map_err(|e| {
            io::Error::new(
                e.kind(),
                format!("taking socket {index} of the service manager: {e}"),
            )
        })?;
        all.extend(taken);
    }
    Ok(())
}

/// The socket at this path, if the service manager has opened it. It is the service manager's: the
/// daemon neither binds nor removes it.
pub fn at(path: &Path) -> io::Result<Option<UnixListener>> {
    let mut all = INHERITED.lock().unwrap_or_else(PoisonError::into_inner);
    for index in 0..all.len() {
        if all[index].local_addr()?.as_pathname() == Some(path) {
            let listener = all.swap_remove(index);
            listener.set_nonblocking(true)?;
            return Ok(Some(listener));
        }
    }
    Ok(None)
}
