//! Ends the process, or lets a step fail, where a test asks for it: the proof that the journal is
//! enough. Without the feature `failpoints` nothing of it is in the binary.

use anyhow::Result;

/// `DTN_FAILPOINT=kill:7` ends the process at the seventh point that it reaches, as `kill -9` would;
/// `error:7` fails there, and `stop:7` stops at each seventh one, until somebody lets it go on:
/// a test cuts the machine's power meanwhile.
/// `count:FILE` only notes how many there were.
#[cfg(feature = "failpoints")]
pub(crate) fn reach(name: &str) -> Result<()> {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static REACHED: AtomicUsize = AtomicUsize::new(0);
    let Ok(wanted) = std::env::var("DTN_FAILPOINT") else {
        return Ok(());
    };
    let number = REACHED.fetch_add(1, Ordering::Relaxed) + 1;
    match wanted.split_once(':') {
        Some(("kill", wanted)) if wanted == number.to_string() => {
            // SIGKILL to oneself: no destructor, no flush
            let own = nix::unistd::getpid();
            let _ = nix::sys::signal::kill(own, nix::sys::signal::Signal::SIGKILL);
            std::thread::sleep(std::time::Duration::from_secs(60));
            Ok(())
        }
        Some(("stop", every))
            if every
                .parse()
                .is_ok_and(|every| number.is_multiple_of(every)) =>
        {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP)?;
            Ok(())
        }
        Some(("error", wanted)) if wanted == number.to_string() => {
            anyhow::bail!("a test lets it fail at {name}")
        }
        Some(("count", file)) => Ok(std::fs::write(file, number.to_string())?),
        _ => Ok(()),
    }
}

#[cfg(not(feature = "failpoints"))]
#[allow(
    clippy::unnecessary_wraps,
    reason = "the same signature as with the feature"
)]
pub(crate) fn reach(_name: &str) -> Result<()> {
    Ok(())
}
