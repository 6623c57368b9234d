//! The slices of the domain, looked at every few seconds. What was read last is believed for a
//! while when the controller is silent; then it is said that nothing is known.

use crate::decide::Slices;
use dtn_api::{
    VDN_BASE,
    client::{Client, ClientError},
    slice::{List, Slice},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};

/// How often they are looked at.
pub const EVERY: Duration = Duration::from_secs(3);
/// How long the last answer is believed. The node asks the controller again for a lease, so what
/// ended in between is refused there.
pub const BELIEVED: Duration = Duration::from_secs(10);
/// Most pages that are read: a domain has hundreds of slices, not millions.
const MOST_PAGES: usize = 100;

/// What was seen, and when it was asked for.
#[derive(Debug, Clone)]
pub struct Seen {
    /// It is at least as new as this.
    pub at: Instant,
    /// The slices, or why they are not known.
    pub slices: Slices,
}

/// How to look.
#[derive(Debug, Clone, Copy)]
pub struct Looks {
    /// How often.
    pub every: Duration,
    /// How long the last answer is believed when the next one does not come.
    pub believed: Duration,
}
impl Default for Looks {
    fn default() -> Self {
        Self {
            every: EVERY,
            believed: BELIEVED,
        }
    }
}

/// Looks for ever, at once when it is asked to, and tells what it sees.
pub async fn watch(
    client: Client,
    looks: Looks,
    ask: Arc<Notify>,
    tell: watch::Sender<Option<Seen>>,
) {
    let mut read_at: Option<Instant> = None;
    loop {
        let at = Instant::now();
        match all(&client).await {
            Ok(slices) => {
                read_at = Some(at);
                let slices = Slices::Known(slices);
                tell.send_replace(Some(Seen { at, slices }));
            }
            Err(e) => {
                tracing::warn!("looking at the slices: {e}");
                if read_at.is_none_or(|at| at.elapsed() >= looks.believed) {
                    let slices = Slices::Silent {
                        target: client.target().to_owned(),
                        why: words(&e),
                    };
                    tell.send_replace(Some(Seen { at, slices }));
                }
            }
        }
        tokio::select! {
            () = sleep(looks.every) => {}
            () = ask.notified() => {}
        }
    }
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
