//! Sees to it that a task of a fabric that ends is noticed: what the fabric has read back does not
//! count when nobody reads it any more.

use tokio_util::sync::CancellationToken;

/// Runs a task that ends with `stop` and not before; `fallen` hears why when it does.
pub(in crate::fabric) fn watch(
    what: &'static str,
    stop: &CancellationToken,
    task: impl Future<Output = ()> + Send + 'static,
    fallen: impl FnOnce(String) + Send + 'static,
) {
    let stop = stop.clone();
    let task = tokio::spawn(task);
    tokio::spawn(async move {
        let why = match task.await {
            Ok(()) if stop.is_cancelled() => return,
            Ok(()) => "it has ended".to_owned(),
            // the whole process ends
            Err(e) if e.is_cancelled() => return,
            Err(e) => e.to_string(),
        };
        let why = format!(
            "{what} does not go on, so nothing that is said of the switches counts any more \
             ({why}): start the controller again"
        );
        tracing::error!("{why}");
        fallen(why);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_panic_and_an_early_end_are_told_and_an_end_that_was_asked_for_is_not() {
        let stop = CancellationToken::new();
        let told = |task: futures_util::future::BoxFuture<'static, ()>| {
            let (tell, told) = oneshot::channel();
            watch("the test", &stop, task, move |why| tell.send(why).unwrap());
            told
        };
        let fallen = told(Box::pin(async { panic!("as it must not be") }));
        let why = fallen.await.unwrap();
        assert!(
            why.contains("the test") && why.contains("as it must not be"),
            "{why}"
        );
        let ended = told(Box::pin(std::future::ready(()))).await.unwrap();
        assert!(ended.contains("it has ended"), "{ended}");
        let until = stop.clone();
        let asked = told(Box::pin(async move { until.cancelled().await }));
        stop.cancel();
        assert!(asked.await.is_err(), "it was asked to end");
    }
}
