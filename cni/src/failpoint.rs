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
pub const ALL: [&str; 13] = [
    "add-before-record",
    "add-after-record",
    "add-after-link",
    "add-after-noted",
    "add-after-addresses",
    "add-after-settings",
    "add-after-pacing",
    "add-after-up",
    "add-after-attached",
    "del-after-leaving",
    "del-after-link",
    "del-after-queued",
    "del-after-record",
];

/// See [`failpoint!`].
#[cfg(feature = "failpoints")]
pub fn reach(name: &str) {
    if std::env::var_os("DTN_FAILPOINT").is_some_and(|wanted| wanted == name) {
        // SIGKILL to oneself: no destructor, no flush
        let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
}
