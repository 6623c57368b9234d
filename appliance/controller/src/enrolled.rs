//! Who has a certificate of this domain, which one, and whose opens nothing any more. The rules,
//! without I/O.
//!
//! A certificate is good when the domain signed it *and* it is one of the two newest that its owner
//! was given: so one that was revoked, or replaced long ago, opens nothing although it has not run
//! out. Owners that enrolled before there was such a row are believed until they renew. Of a switch it
//! is only kept which one it came with: it asks for nothing.

use crate::authority::Issued;
use dtn_api::{
    Name, Problem,
    node::{Node, Revocation},
    problem::Kind,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The old certificate stays good beside a new one, since the answer that carries that can be lost.
const KEPT: usize = 2;

/// A certificate that was given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// SHA-256 of its DER, hexadecimal.
    pub fingerprint: String,
    /// Not after; none of one that was given out before there were rows.
    pub until: Option<Timestamp>,
    /// Generation of the authority that signed it.
    pub generation: u32,
}

impl From<&Issued> for Mark {
    fn from(issued: &Issued) -> Self {
        Self {
            fingerprint: issued.fingerprint.clone(),
            until: Some(issued.until),
            generation: issued.generation,
        }
    }
}

/// Somebody of the domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolledRow {
    /// As what: a host's agent, a cluster's controller, or a switch.
    pub role: String,
    /// Who.
    pub name: Name,
    /// Since when.
    pub enrolled_at: Timestamp,
    /// When it was given its certificate.
    pub renewed_at: Timestamp,
    /// The certificates that are good, the newest last.
    pub certificates: Vec<Mark>,
    /// The newest generation of the authority with whose certificate it has come: it knows that one.
    pub came_with: u32,
    /// None is good any more.
    pub revoked: Option<Revocation>,
}

/// Key of a row.
pub type Who = (String, Name);

impl EnrolledRow {
    /// Its key.
    pub fn who(&self) -> Who {
        (self.role.clone(), self.name.clone())
    }

    /// As others see it.
    pub fn shown(&self, authorities: &str, now: Timestamp) -> Node {
        Node {
            name: self.name.clone(),
            enrolled_at: self.enrolled_at,
            renewed_at: self.renewed_at,
            certificate_until: self.certificates.last().and_then(|mark| mark.until),
            generation: self.came_with,
            authorities: authorities.to_owned(),
            revoked: self.revoked.clone(),
            now,
        }
    }
}

/// Whoever enrols starts anew: what it had before is good no more.
pub fn enrolled(role: &str, name: &Name, issued: &Issued, now: Timestamp) -> EnrolledRow {
    EnrolledRow {
        role: role.to_owned(),
        name: name.clone(),
        enrolled_at: now,
        renewed_at: now,
        certificates: vec![Mark::from(issued)],
        came_with: 0,
        revoked: None,
    }
}

/// Who was given a certificate before there were rows, and has come with it.
pub fn found(
    role: &str,
    name: &Name,
    came_with: &str,
    generation: u32,
    now: Timestamp,
) -> EnrolledRow {
    EnrolledRow {
        role: role.to_owned(),
        name: name.clone(),
        enrolled_at: now,
        renewed_at: now,
        certificates: vec![Mark {
            fingerprint: came_with.to_owned(),
            until: None,
            generation,
        }],
        came_with: generation,
        revoked: None,
    }
}

/// Whoever renews keeps the certificate that it came with beside the new one.
pub fn renewed(
    row: Option<&EnrolledRow>,
    role: &str,
    name: &Name,
    came_with: &str,
    issued: &Issued,
    now: Timestamp,
) -> EnrolledRow {
    let mut next = row
        .cloned()
        .unwrap_or_else(|| found(role, name, came_with, 1, now));
    next.certificates
        .retain(|mark| mark.until.is_none_or(|until| until > now));
    // a renewal whose answer was lost must not push out the one that is in use
    let (used, mut others): (Vec<_>, Vec<_>) = next
        .certificates
        .drain(..)
        .partition(|mark| mark.fingerprint == came_with);
    others.retain(|mark| mark.fingerprint != issued.fingerprint);
    let spare = KEPT.saturating_sub(used.len() + 1);
    next.certificates
        .extend(others.split_off(others.len().saturating_sub(spare)));
    next.certificates.extend(used);
    next.certificates.push(Mark::from(issued));
    next.renewed_at = now;
    next
}

/// It came with this certificate: the row where that is news.
pub fn came(row: &EnrolledRow, fingerprint: &str) -> Option<EnrolledRow> {
    let mark = row
        .certificates
        .iter()
        .find(|mark| mark.fingerprint == fingerprint)?;
    (mark.generation > row.came_with).then(|| EnrolledRow {
        came_with: mark.generation,
        ..row.clone()
    })
}

/// No certificate of it is good any more.
pub fn revoked(
    row: Option<&EnrolledRow>,
    role: &str,
    name: &Name,
    why: Revocation,
    now: Timestamp,
) -> EnrolledRow {
    let mut next = row.cloned().unwrap_or_else(|| EnrolledRow {
        role: role.to_owned(),
        name: name.clone(),
        enrolled_at: now,
        renewed_at: now,
        certificates: Vec::new(),
        came_with: 0,
        revoked: None,
    });
    next.certificates.clear();
    next.revoked.get_or_insert(why);
    next
}

fn refused(row: &EnrolledRow, why: &str) -> Problem {
    Problem::new(
        Kind::Unauthenticated,
        format!(
            "the certificate of {} {why}: ask the domain's admin for an invitation and join anew",
            row.name
        ),
    )
}

/// Whether it was revoked.
pub fn standing(row: &EnrolledRow) -> Result<(), Problem> {
    let Some(revoked) = &row.revoked else {
        return Ok(());
    };
    let reason = revoked.reason.as_ref();
    let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
    Err(refused(
        row,
        &format!("was revoked at {}{reason}", revoked.at),
    ))
}

/// Whether a certificate still opens something.
pub fn admits(row: Option<&EnrolledRow>, fingerprint: Option<&str>) -> Result<(), Problem> {
    let Some(row) = row else { return Ok(()) };
    standing(row)?;
    match row
        .certificates
        .iter()
        .any(|mark| Some(mark.fingerprint.as_str()) == fingerprint)
    {
        true => Ok(()),
        false => Err(refused(row, "is not the one that it was given last")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(fingerprint: &str, generation: u32) -> Issued {
        Issued {
            pem: String::new(),
            fingerprint: fingerprint.into(),
            until: "2027-04-10T06:00:00Z".parse().unwrap(),
            generation,
        }
    }
    fn now() -> Timestamp {
        "2027-01-10T06:00:00Z".parse().unwrap()
    }
    fn good(row: &EnrolledRow) -> Vec<&str> {
        ["a", "b", "c", "d"]
            .into_iter()
            .filter(|one| admits(Some(row), Some(one)).is_ok())
            .collect()
    }
    fn name() -> Name {
        "dtn1".parse().unwrap()
    }

    #[test]
    fn a_renewal_keeps_the_old_certificate_until_the_next() {
        let row = enrolled("node-agent", &name(), &issued("a", 1), now());
        let renew = |row: &EnrolledRow, with: &str, to: &str| {
            renewed(
                Some(row),
                "node-agent",
                &name(),
                with,
                &issued(to, 2),
                now(),
            )
        };
        let row = renew(&row, "a", "b");
        assert_eq!(good(&row), ["a", "b"]);
        // the answer was lost: it comes with the old one again, which must stay
        let lost = renew(&row, "a", "c");
        assert_eq!(good(&lost), ["a", "c"]);
        let on = renew(&row, "b", "d");
        assert_eq!(good(&on), ["b", "d"]);
        // the same request again is answered by the same certificate
        assert_eq!(renew(&row, "a", "b").certificates, row.certificates);
        let late = "2027-05-01T00:00:00Z".parse().unwrap();
        let gone = renewed(
            Some(&row),
            "node-agent",
            &name(),
            "b",
            &issued("c", 2),
            late,
        );
        assert_eq!(good(&gone), ["c"]);
    }

    #[test]
    fn who_knows_the_new_authority_shows_it_by_coming_with_its_certificate() {
        let row = enrolled("node-agent", &name(), &issued("a", 1), now());
        let row = came(&row, "a").unwrap();
        assert!(came(&row, "a").is_none() && came(&row, "x").is_none());
        let row = renewed(
            Some(&row),
            "node-agent",
            &name(),
            "a",
            &issued("b", 2),
            now(),
        );
        assert_eq!(row.shown("x", now()).generation, 1);
        assert_eq!(came(&row, "b").unwrap().came_with, 2);
    }

    #[test]
    fn what_was_revoked_stays_so_until_it_is_invited_again() {
        let why = |at: &str| Revocation {
            at: at.parse().unwrap(),
            by: "admin".into(),
            reason: Some("stolen".into()),
        };
        let row = enrolled("node-agent", &name(), &issued("a", 1), now());
        let first = why("2027-01-11T00:00:00Z");
        let gone = revoked(Some(&row), "node-agent", &name(), first.clone(), now());
        assert!(good(&gone).is_empty() && gone.shown("x", now()).certificate_until.is_none());
        let again = revoked(
            Some(&gone),
            "node-agent",
            &name(),
            why("2027-01-12T00:00:00Z"),
            now(),
        );
        assert_eq!(again.revoked, Some(first));
        let refusal = admits(Some(&gone), Some("a")).unwrap_err();
        assert!(
            refusal
                .detail
                .contains("was revoked at 2027-01-11T00:00:00Z (stolen)"),
            "{refusal}"
        );
        // one that enrolled before there were rows
        assert!(admits(None, Some("old")).is_ok());
        let unknown = revoked(
            None,
            "node-agent",
            &name(),
            why("2027-01-11T00:00:00Z"),
            now(),
        );
        assert!(admits(Some(&unknown), Some("old")).is_err());
        // invited anew it has one certificate, and the stolen one stays worth nothing
        let back = enrolled("node-agent", &name(), &issued("b", 1), now());
        assert_eq!(good(&back), ["b"]);
    }
}
