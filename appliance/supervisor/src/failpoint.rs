//! Steps between which a test kills the process: the proof that what was written down is enough.

/// Waits here for ever, to be killed, when `DTND_STOP_AT` is this name. Nothing of it is in a
/// release build.
pub(crate) async fn reach(name: &str) {
    #[cfg(debug_assertions)]
    if std::env::var_os("DTND_STOP_AT").is_some_and(|wanted| wanted == name) {
        eprintln!("dtnd: stopped at {name}");
        std::future::pending::<()>().await;
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
