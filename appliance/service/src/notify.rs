//! What the service manager is told (sd_notify(3)).

use nix::time::{ClockId, clock_gettime};
use std::time::Duration;
use systemd::daemon;

/// How long one step of the start may take before the service manager takes it for hung.
const STEP: Duration = Duration::from_secs(60);

fn tell(pairs: &[(&str, &str)]) {
    // each line is one message: a text with two lines would be a second one
    let plain = |text: &str| text.replace(|c: char| c.is_control(), " ");
    let clean: Vec<_> = pairs
        .iter()
        .map(|(key, value)| (*key, plain(value)))
        .collect();
    if let Err(e) = daemon::notify(clean.iter()) {
        tracing::warn!("telling the service manager {pairs:?}: {e}");
    }
}

/// A step of the start begins: it has a time of its own, so that a large store or many pods do not
/// make a start that goes on look like one that hangs.
pub fn starting(step: &str) {
    let micros = STEP.as_micros().to_string();
    tell(&[
        (daemon::STATE_STATUS, step),
        (daemon::STATE_EXTEND_TIMEOUT_USEC, &micros),
    ]);
}
/// The daemon serves.
pub fn ready(status: &str) {
    tell(&[(daemon::STATE_READY, "1"), (daemon::STATE_STATUS, status)]);
}
/// The daemon is about to end.
pub fn stopping() {
    tell(&[
        (daemon::STATE_STOPPING, "1"),
        (daemon::STATE_STATUS, "stopping"),
    ]);
}
/// How it stands, in words.
pub fn status(text: &str) {
    tell(&[(daemon::STATE_STATUS, text)]);
}
/// The configuration is being read anew. Since when tells the service manager of a reload that it
/// asked for from one that began before (`Type=notify-reload`).
pub(crate) fn reloading() {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    let micros = now.as_micros().to_string();
    tell(&[
        (daemon::STATE_RELOADING, "1"),
        ("MONOTONIC_USEC", &micros),
        (daemon::STATE_STATUS, "reading the configuration anew"),
    ]);
}
/// The daemon is well.
pub fn alive() {
    tell(&[(daemon::STATE_WATCHDOG, "1")]);
}
/// How often [`alive`] has to be told; `None` without a watchdog.
pub fn watchdog() -> Option<Duration> {
    match daemon::watchdog_enabled() {
        Ok(0) => None,
        // a third: one that comes late is not the end
        Ok(micros) => Some(Duration::from_micros(micros) / 3),
        Err(e) => {
            tracing::warn!("asking for the watchdog's period: {e}");
            None
        }
    }
}
