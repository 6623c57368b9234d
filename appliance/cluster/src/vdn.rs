//! The slices of the domain, looked at every few seconds. What was read last is believed for a
//! while when the controller is silent; then it is said that nothing is known.

use crate::decide::Slices;
use dtn_api::{
    VDN_BASE,
    client::{Client, ClientError},
    slice::{List, Slice},
};
use std::time::Duration;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

/// How often they are looked at.
pub const EVERY: Duration = Duration::from_secs(3);
/// How long the last answer is believed. The node asks the controller again for a lease, so what
/// ended in between is refused there.
pub const BELIEVED: Duration = Duration::from_secs(10);
/// Most pages that are read: a domain has hundreds of slices, not millions.
const MOST_PAGES: usize = 100;

/// Looks for ever, and tells what it sees.
pub async fn watch(
    client: Client,
    every: Duration,
    believed: Duration,
    tell: watch::Sender<Option<Slices>>,
) {
    let mut read_at: Option<Instant> = None;
    loop {
        match all(&client).await {
            Ok(slices) => {
                read_at = Some(Instant::now());
                let now = Slices::Known(slices);
                tell.send_if_modified(|before| changed(before, now));
            }
            Err(e) => {
                tracing::warn!("looking at the slices: {e}");
                if read_at.is_none_or(|at| at.elapsed() >= believed) {
                    let now = Slices::Silent {
                        target: client.target().to_owned(),
                        why: words(&e),
                    };
                    tell.send_if_modified(|before| changed(before, now));
                }
            }
        }
        sleep(every).await;
    }
}

fn changed(before: &mut Option<Slices>, now: Slices) -> bool {
    let news = before.as_ref() != Some(&now);
    *before = Some(now);
    news
}

/// Why it is silent, in words that stay the same while it lasts: they go into claims.
fn words(error: &ClientError) -> String {
    match error {
        ClientError::Unreachable { .. } => "no answer".to_owned(),
        ClientError::Refused(problem) => problem.detail.clone(),
        other => other.to_string(),
    }
}

async fn all(client: &Client) -> Result<Vec<Slice>, ClientError> {
    let mut slices = Vec::new();
    let mut token: Option<String> = None;
    for _ in 0..MOST_PAGES {
        let path = match &token {
            Some(token) => format!("{VDN_BASE}/slices?page_token={token}"),
            None => format!("{VDN_BASE}/slices"),
        };
        let page: List<Slice> = client.get(&path).await?;
        slices.extend(page.items);
        token = page.next_page_token;
        if token.is_none() {
            break;
        }
    }
    Ok(slices)
}
