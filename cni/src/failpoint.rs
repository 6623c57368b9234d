//! Ends the process between two steps, where a test asks for it: the proof that the record is
//! enough. Without the feature `failpoints` nothing of it is in the binary.

/// Ends the process here, as `kill -9` would, when `DTN_FAILPOINT` is this name.
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        $crate::failpoint::reach($name);
    };
}

/// All of them, in the order of the steps.
#[cfg(feature = "failpoints")]
pub const ALL: [&str; 16] = [
    "add-before-record",
    "add-after-record",
    "add-after-pin",
    "add-after-link",
    "add-after-noted",
    "add-after-addresses",
    "add-after-settings",
    "add-after-pacing",
    "add-after-up",
    "add-after-attached",
    "chain-after-one",
    "del-after-leaving",
    "del-after-link",
    "del-after-queued",
    "del-after-struck",
    "del-after-record",
];

/// See [`failpoint!`]. `NAME:2` is the second time that it is reached.
#[cfg(feature = "failpoints")]
pub fn reach(name: &str) {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static REACHED: AtomicUsize = AtomicUsize::new(0);
    let Ok(wanted) = std::env::var("DTN_FAILPOINT") else {
        return;
    };
    let (wanted, time) = match wanted.split_once(':') {
        Some((wanted, time)) => (wanted.to_owned(), time.parse().unwrap_or(1)),
        None => (wanted, 1),
    };
    if wanted == name && REACHED.fetch_add(1, Ordering::Relaxed) + 1 == time {
        // SIGKILL to oneself: no destructor, no flush
        let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
}
