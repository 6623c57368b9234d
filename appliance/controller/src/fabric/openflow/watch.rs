//! What is wrong with the fabric itself: a task that has ended, switches that are not looked at.

use super::{Shared, lock};
use crate::fabric::watch::watch;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// After this long without a look something is wrong: a switch is looked at every ten seconds, and one
/// that takes ten for an answer is let go.
const LATE: Duration = Duration::from_secs(60);

/// What is said of a switch that has not been read for too long.
pub(super) fn late(looked: Instant, now: Instant) -> Option<String> {
    let since = now.saturating_duration_since(looked);
    (since > LATE).then(|| {
        format!(
            "it has not been looked at for {} s: it is slow, and so is what is asked of slices there",
            since.as_secs()
        )
    })
}

/// When there was something to be done and when it was begun.
#[derive(Debug, Default)]
pub(super) struct Passes {
    /// The first wish came.
    pub(super) wanted: Option<Instant>,
    /// What is to be done was last looked for.
    pub(super) done: Option<Instant>,
    /// A task has ended that should not have, in words.
    pub(super) ended: Option<String>,
}

impl Passes {
    /// What is wrong with the fabric itself.
    pub(super) fn trouble(&self, now: Instant) -> Option<String> {
        if self.ended.is_some() {
            return self.ended.clone();
        }
        let since = now.saturating_duration_since(self.done.max(self.wanted)?);
        (since > LATE).then(|| {
            format!(
                "the switches have not been looked at for {} s: the controller hangs and is to be \
                 started again",
                since.as_secs()
            )
        })
    }
}

impl Shared {
    /// Runs a task that ends with `stop` and not before.
    pub(super) fn watch(
        self: &Arc<Self>,
        what: &'static str,
        stop: &CancellationToken,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let shared = self.clone();
        watch(what, stop, task, move |why| {
            lock(&shared.state).passes.ended.get_or_insert(why);
            shared.changed.notify_one();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Listen, OpenFlow, standing::Standing},
        *,
    };
    use crate::fabric::{Fabric, network::Network};
    use dtn_api::slice::Class;
    use uuid::Uuid;

    #[test]
    fn a_pass_that_is_late_is_trouble() {
        let now = Instant::now();
        let mut passes = Passes::default();
        assert_eq!(passes.trouble(now + 2 * LATE), None, "nothing is wanted");
        passes.wanted = Some(now);
        assert_eq!(passes.trouble(now + LATE), None);
        let late = now + LATE + Duration::from_secs(1);
        let why = passes.trouble(late).unwrap();
        assert!(why.contains("for 61 s"), "{why}");
        passes.done = Some(late);
        assert_eq!(passes.trouble(late), None);
        passes.ended = Some("it has fallen".to_owned());
        assert_eq!(passes.trouble(late).unwrap(), "it has fallen");
    }

    #[tokio::test]
    async fn a_task_that_panics_is_said_and_no_slice_stands() {
        let stop = CancellationToken::new();
        let listen = Listen {
            address: "127.0.0.1:0".parse().unwrap(),
            tls: None,
        };
        let fabric = OpenFlow::start(Network::default(), listen, stop.clone());
        let fabric = fabric.await.unwrap();
        let intent = crate::fabric::Intent {
            slice: Uuid::from_u128(1),
            name: "red".parse().unwrap(),
            tag: 1,
            class: Class::Guaranteed,
            rate_bps: 1,
            burst_ms: 10,
            members: Vec::new(),
            border: None,
            cables: [].into(),
            access: None,
        };
        let slice = intent.slice;
        fabric.intend(vec![intent]);
        while fabric.programmed(slice).is_err() {
            fabric.changed().await;
        }
        assert_eq!(fabric.trouble(), None);
        fabric.shared.watch("the test", &stop, async {
            panic!("as it must not be");
        });
        fabric.changed().await;
        let why = fabric.trouble().unwrap();
        assert!(why.contains("as it must not be"), "{why}");
        assert_eq!(fabric.programmed(slice), Err(why.clone()));
        let standing = lock(&fabric.shared.state).standing(slice);
        assert_eq!(standing, (0, Standing::Not(why)));
        stop.cancel();
    }

    #[tokio::test]
    async fn one_that_was_told_to_end_is_no_trouble() {
        let stop = CancellationToken::new();
        let listen = Listen {
            address: "127.0.0.1:0".parse().unwrap(),
            tls: None,
        };
        let fabric = OpenFlow::start(Network::default(), listen, stop.clone());
        let fabric = fabric.await.unwrap();
        stop.cancel();
        tokio::task::yield_now().await;
        assert_eq!(fabric.trouble(), None);
    }
}
