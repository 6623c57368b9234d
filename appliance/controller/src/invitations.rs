//! One-time invitations: made with a secret that only their bearer knows, hashed at rest, good for
//! one use, for a bounded time and a bounded number of wrong tries. Pure but for the random bytes.

use crate::admission::later_by;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dtn_api::{
    Name, Problem,
    domain::{InviteKind, InviteRequest},
    problem::Kind,
};
use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest validity, in seconds: a day.
pub const LONGEST: u32 = 86_400;
/// Wrong secrets after which an invitation is worth nothing.
pub const MOST_TRIES: u32 = 5;

/// An invitation as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitationRow {
    /// First part of the secret: names the invitation, so that wrong tries are counted against it.
    pub id: Uuid,
    /// Whom it is for.
    pub kind: InviteKind,
    /// Who is invited.
    pub name: Name,
    /// SHA-256 of the secret, hexadecimal.
    pub secret_hash: String,
    /// Not after.
    pub expires_at: Timestamp,
    /// Wrong secrets so far.
    pub tries: u32,
    /// What it was used for, once it was.
    pub used: Option<Use>,
}

/// The one use of an invitation. The same request again is answered again, because an answer can
/// be lost on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// SHA-256 of what was asked with it, hexadecimal.
    pub request_hash: String,
    /// When.
    pub at: Timestamp,
    /// The answer.
    pub answer: serde_json::Value,
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    dtn_api::client::fingerprint(bytes)
}

/// A new invitation and its secret, which is not kept.
pub fn invite(request: &InviteRequest, now: Timestamp) -> Result<(InvitationRow, String), Problem> {
    if !(1..=LONGEST).contains(&request.valid_seconds) {
        return Err(
            Problem::new(Kind::InvalidRequest, "the invitation is not valid").at(
                "/valid_seconds",
                format!("must be from 1 to {LONGEST} (a day)"),
            ),
        );
    }
    let mut bytes = [0_u8; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Problem::new(Kind::Internal, "the kernel gives no random bytes"))?;
    let id = Uuid::now_v7();
    let secret = format!("{}.{}", id.simple(), URL_SAFE_NO_PAD.encode(bytes));
    let row = InvitationRow {
        id,
        kind: request.kind,
        name: request.name.clone(),
        secret_hash: sha256(secret.as_bytes()),
        expires_at: later_by(now, request.valid_seconds),
        tries: 0,
        used: None,
    };
    Ok((row, secret))
}

/// Which invitation a secret is for.
pub fn named_by(secret: &str) -> Option<Uuid> {
    let (id, _) = secret.split_once('.')?;
    Uuid::try_parse(id).ok()
}

/// What a secret is worth.
#[derive(Debug, Clone, PartialEq)]
pub enum Redeemed {
    /// It is right and unused: go on.
    Valid,
    /// It was used for this very request: the answer again.
    Again(serde_json::Value),
    /// It is wrong: the row with one more try counted, and what to say.
    Wrong(InvitationRow, Problem),
    /// It is worth nothing any more.
    Refused(Problem),
}

/// Compares a secret with an invitation.
pub fn redeem(
    row: &InvitationRow,
    kinds: &[InviteKind],
    secret: &str,
    request_hash: &str,
    now: Timestamp,
) -> Redeemed {
    let refuse = |why: String| {
        Redeemed::Refused(Problem::new(
            Kind::Unauthenticated,
            format!("the invitation of {} {why}: ask for a new one", row.name),
        ))
    };
    if row.tries >= MOST_TRIES {
        return refuse(format!("had {MOST_TRIES} wrong secrets and is void"));
    }
    // both are digests: how long the comparison takes tells nothing about the secret
    if row.secret_hash != sha256(secret.as_bytes()) {
        let mut row = row.clone();
        row.tries += 1;
        return Redeemed::Wrong(row, unknown());
    }
    if !kinds.contains(&row.kind) {
        return refuse("is for something else".into());
    }
    match &row.used {
        Some(used) if used.request_hash == request_hash => Redeemed::Again(used.answer.clone()),
        Some(used) => refuse(format!("was used at {}", used.at)),
        None if now >= row.expires_at => refuse(format!("ran out at {}", row.expires_at)),
        None => Redeemed::Valid,
    }
}

/// What is said of a secret that is not known; the same whether its invitation exists or not.
pub fn unknown() -> Problem {
    Problem::new(
        Kind::Unauthenticated,
        "the secret of the invitation is not known: copy the whole word that the invite command \
         printed, or ask for a new one",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> InviteRequest {
        InviteRequest {
            kind: InviteKind::Host,
            name: "dtn-1".parse().unwrap(),
            valid_seconds: 60,
        }
    }

    #[test]
    fn an_invitation_is_good_for_one_use() {
        let now = Timestamp::UNIX_EPOCH;
        let (mut row, secret) = invite(&request(), now).unwrap();
        assert!(!serde_json::to_string(&row).unwrap().contains(&secret));
        assert_eq!(named_by(&secret), Some(row.id));
        let host = &[InviteKind::Host, InviteKind::Cluster];
        assert_eq!(redeem(&row, host, &secret, "csr", now), Redeemed::Valid);
        let domain = redeem(&row, &[InviteKind::Domain], &secret, "csr", now);
        assert!(matches!(domain, Redeemed::Refused(_)));
        let cluster = InvitationRow {
            kind: InviteKind::Cluster,
            ..row.clone()
        };
        assert_eq!(redeem(&cluster, host, &secret, "csr", now), Redeemed::Valid);
        let late = redeem(&row, host, &secret, "csr", later_by(now, 60));
        assert!(matches!(late, Redeemed::Refused(ref p) if p.detail.contains("ran out")));
        row.used = Some(Use {
            request_hash: "csr".into(),
            at: now,
            answer: serde_json::json!(1),
        });
        // a lost answer, even later than it is valid
        let again = redeem(&row, host, &secret, "csr", later_by(now, 600));
        assert_eq!(again, Redeemed::Again(serde_json::json!(1)));
        let other = redeem(&row, host, &secret, "another csr", now);
        assert!(matches!(other, Redeemed::Refused(ref p) if p.detail.contains("was used")));
    }

    #[test]
    fn wrong_secrets_use_it_up() {
        let now = Timestamp::UNIX_EPOCH;
        let (mut row, secret) = invite(&request(), now).unwrap();
        for _ in 0..MOST_TRIES {
            match redeem(&row, &[InviteKind::Host], "wrong", "csr", now) {
                Redeemed::Wrong(next, _) => row = next,
                other => panic!("{other:?}"),
            }
        }
        let right = redeem(&row, &[InviteKind::Host], &secret, "csr", now);
        assert!(matches!(right, Redeemed::Refused(ref p) if p.detail.contains("void")));
        let long = InviteRequest {
            valid_seconds: LONGEST + 1,
            ..request()
        };
        assert_eq!(
            invite(&long, now).unwrap_err().errors[0].pointer,
            "/valid_seconds"
        );
    }
}
