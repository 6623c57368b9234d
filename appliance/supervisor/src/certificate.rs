//! The host's certificate renews itself: over the host's own authenticated way to its controller,
//! with a new key that is made here, long before the old one ends; and at once when the domain
//! changes its keys. Traffic and requests go on: the old certificate stays good beside the new one.
//!
//! Key and request are on disk before they are used, so that a lost answer is asked for again with
//! the same request; the new identity is written whole before anything comes with it.

use crate::{Host, Uplink, identity};
use dtn_api::{Problem, node::Node};
use jiff::{SignedDuration, Timestamp};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Between two questions to the controller.
const LOOK: Duration = Duration::from_secs(30);
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// A certificate is renewed at two thirds of its life, and never later than this after it was made:
/// those of older builds live for years.
const OLDEST: SignedDuration = SignedDuration::from_hours(24 * 60);
/// Clocks that are further apart than this are warned of, in seconds; the controller refuses a
/// minute.
const SKEW_WARNED: i64 = 30;

/// When a certificate is renewed.
pub fn due(from: Timestamp, until: Timestamp) -> Timestamp {
    let life = until.duration_since(from).max(SignedDuration::ZERO);
    let at = (life / 3 * 2).min(OLDEST);
    from.checked_add(at).unwrap_or(until)
}

/// Why a certificate is renewed now, if it is.
fn reason(node: &Node, own: &identity::Certificate, now: Timestamp) -> Option<&'static str> {
    if node.authorities != own.authorities {
        Some("the domain changes its keys")
    } else if now >= due(own.from, own.until) {
        Some("it is time")
    } else {
        None
    }
}

/// Looks until it is stopped.
pub async fn run(host: Arc<Host>, stop: CancellationToken) {
    let mut pause = LOOK;
    let mut last = String::new();
    loop {
        match look(&host.uplink).await {
            Ok(()) => {
                pause = LOOK;
                last.clear();
            }
            Err(problem) => {
                // the same trouble is told once
                let text = problem.to_string();
                if text != last {
                    tracing::warn!("looking after the host's certificate: {text}");
                    last = text;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn look(uplink: &Uplink) -> Result<(), Problem> {
    let Some(identity) = uplink.identity() else {
        return Ok(());
    };
    let own = identity.certificate()?;
    let node = uplink.node().await?;
    let now = Timestamp::now();
    let apart = now.duration_since(node.now).as_secs();
    if apart.abs() > SKEW_WARNED {
        tracing::warn!(
            "this host's clock is {} s {} the controller's: synchronize both",
            apart.abs(),
            if apart < 0 { "behind" } else { "ahead of" }
        );
    }
    if let Some(why) = reason(&node, &own, now) {
        let until = uplink.renew_certificate().await?;
        tracing::info!(%until, "the host's certificate was renewed: {why}");
        // to come with it once is to say that it is known
        uplink.node().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life_or_after_two_months() {
        let from = at("2027-01-01T00:00:00Z");
        assert_eq!(
            due(from, at("2027-04-01T00:00:00Z")),
            at("2027-03-02T00:00:00Z")
        );
        assert_eq!(
            due(from, at("2032-01-01T00:00:00Z")),
            at("2027-03-02T00:00:00Z")
        );
        assert_eq!(
            due(from, at("2027-01-31T00:00:00Z")),
            at("2027-01-21T00:00:00Z")
        );
        assert_eq!(due(from, at("2026-01-01T00:00:00Z")), from);
    }

    #[test]
    fn other_authorities_are_a_reason_at_any_time() {
        let own = identity::Certificate {
            from: at("2027-01-01T00:00:00Z"),
            until: at("2027-04-01T00:00:00Z"),
            authorities: "a".into(),
        };
        let node = |authorities: &str| Node {
            name: "dtn1".parse().unwrap(),
            enrolled_at: own.from,
            renewed_at: own.from,
            certificate_until: None,
            generation: 1,
            authorities: authorities.into(),
            revoked: None,
            now: own.from,
        };
        let early = at("2027-01-02T00:00:00Z");
        assert_eq!(reason(&node("a"), &own, early), None);
        assert!(reason(&node("b"), &own, early).is_some());
        assert!(reason(&node("a"), &own, at("2027-03-03T00:00:00Z")).is_some());
    }
}
