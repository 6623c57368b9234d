//! A case, whom it is for, and how all of them are run for a fabric.

use super::Ground;
use futures_util::future::LocalBoxFuture;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

/// Whether a case is for a fabric; otherwise why not.
#[derive(Clone, Copy)]
pub(crate) enum For {
    It,
    Not(&'static str),
}

/// A fabric must do this.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: for<'a> fn(&'a mut dyn Ground) -> LocalBoxFuture<'a, ()>,
    pub(crate) edge: For,
    pub(crate) openflow: For,
    pub(crate) onos: For,
    pub(crate) core: For,
}
/// Runs every case that is for a fabric, each with a ground of its own, and says what of the rest.
pub(crate) fn conform(
    fabric: &'static str,
    cases: &'static [Case],
    of: fn(&Case) -> For,
    mut run: impl FnMut(&'static Case),
) {
    let mut failed = Vec::new();
    for case in cases {
        let name = case.name;
        match of(case) {
            For::Not(why) => {
                assert!(!why.is_empty(), "{name} says why it is not for {fabric}");
                println!("{fabric}: {name}: not for it: {why}");
            }
            For::It => {
                println!("{fabric}: {name}");
                let began = Instant::now();
                // the next one is run also when it fails
                if catch_unwind(AssertUnwindSafe(|| run(case))).is_err() {
                    failed.push(name);
                }
                println!("{fabric}: {name}: {:.1} s", began.elapsed().as_secs_f64());
            }
        }
    }
    assert!(failed.is_empty(), "{fabric} fails in {failed:?}");
}
/// Runs a case with a runtime of its own.
pub(crate) fn within(body: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(body());
}
