//! The domain document and its signature: JWS, flattened JSON (RFC 7515 §7.2.2), EdDSA (RFC 8037).
//! Pure but for the key that it is handed.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dtn_api::{
    Name, Problem,
    domain::{DomainDocument, SignedDocument},
    problem::Kind,
};
use jiff::{SignedDuration, Timestamp};
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};

/// How long a document may be believed, in seconds: six missed refreshes of 10 s, so that a peer is
/// called degraded at the time its document runs out.
pub const LIFETIME_SECONDS: u32 = 60;
/// Clocks that are further apart than this are refused, in seconds (the rule of Kea's HA).
pub const SKEW_REFUSED: i64 = 60;
/// Clocks that are further apart than this are warned of, in seconds.
pub const SKEW_WARNED: i64 = 30;
/// Largest payload that is looked at, in bytes of base64.
const LARGEST: usize = 4 << 20;

/// How far two clocks are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skew {
    /// Near enough.
    Fine,
    /// Worth a warning: this many seconds.
    Warn(i64),
    /// Too far for schedules: this many seconds.
    Refuse(i64),
}

/// Compares another clock with ours.
pub fn skew(theirs: Timestamp, ours: Timestamp) -> Skew {
    let apart = theirs.duration_since(ours).as_secs();
    match apart.abs() {
        s if s > SKEW_REFUSED => Skew::Refuse(apart),
        s if s > SKEW_WARNED => Skew::Warn(apart),
        _ => Skew::Fine,
    }
}

/// Refuses a host's clock that is too far from ours, in words for who reads them there.
pub fn check_host_clock(theirs: Timestamp, ours: Timestamp) -> Result<(), Problem> {
    match skew(theirs, ours) {
        Skew::Refuse(seconds) => Err(Problem::new(
            Kind::StateConflict,
            format!(
                "this host's clock is {} s {} the controller's: at most {SKEW_REFUSED} s is taken, \
                 since certificates and windows of slices rest on it; synchronize both clocks (NTP \
                 or PTP) and try again",
                seconds.abs(),
                side(seconds),
            ),
        )),
        Skew::Fine | Skew::Warn(_) => Ok(()),
    }
}

fn side(seconds: i64) -> &'static str {
    if seconds < 0 { "behind" } else { "ahead of" }
}

/// Refuses a clock that is too far from ours.
pub fn check_clock(who: &Name, theirs: Timestamp, ours: Timestamp) -> Result<Skew, Problem> {
    match skew(theirs, ours) {
        Skew::Refuse(seconds) => Err(Problem::new(
            Kind::StateConflict,
            format!(
                "the clock of {who} is {} s {} ours and schedules would not meet: at most \
                 {SKEW_REFUSED} s is taken; synchronize both clocks (NTP or PTP)",
                seconds.abs(),
                side(seconds),
            ),
        )),
        near => Ok(near),
    }
}

/// Signs a document.
pub fn sign(document: &DomainDocument, key: &Ed25519KeyPair) -> SignedDocument {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let header = serde_json::json!({
        "alg": "EdDSA",
        "typ": "dtn-domain-document+json",
        "kid": document.domain,
    });
    let protected = encode(header.to_string().as_bytes());
    let payload = encode(&serde_json::to_vec(document).unwrap_or_default());
    let signature = key.sign(format!("{protected}.{payload}").as_bytes());
    SignedDocument {
        signature: encode(signature.as_ref()),
        protected,
        payload,
    }
}

/// The document of `domain` if its signature, its name and its times are right, and it is not older
/// than the one that is known.
pub fn verify(
    signed: &SignedDocument,
    domain: &Name,
    public_key: &[u8],
    known: Option<&DomainDocument>,
    now: Timestamp,
) -> Result<DomainDocument, Problem> {
    let wrong = |why: String| {
        Problem::new(
            Kind::BackendError,
            format!("the document of domain {domain} is not believed: {why}"),
        )
    };
    if signed.payload.len() > LARGEST || signed.protected.len() > LARGEST {
        return Err(wrong(format!("it is longer than {LARGEST} bytes")));
    }
    let decode = |what: &str, text: &str| {
        URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|e| wrong(format!("{what}: {e}")))
    };
    let header: serde_json::Value =
        serde_json::from_slice(&decode("protected header", &signed.protected)?)
            .map_err(|e| wrong(format!("protected header: {e}")))?;
    // the header does not choose how it is checked; it must say what is done anyway, and RFC 7515
    // §4.1.11 refuses critical extensions that are not understood
    if header["alg"] != "EdDSA" || header.get("crit").is_some() {
        return Err(wrong("its protected header is not plain EdDSA".into()));
    }
    let message = format!("{}.{}", signed.protected, signed.payload);
    UnparsedPublicKey::new(&ED25519, public_key)
        .verify(message.as_bytes(), &decode("signature", &signed.signature)?)
        .map_err(|_| wrong("the signature is not by the key it gave when we federated".into()))?;
    let document: DomainDocument = serde_json::from_slice(&decode("payload", &signed.payload)?)
        .map_err(|e| wrong(format!("payload: {e}")))?;
    if document.domain != *domain {
        return Err(wrong(format!("it speaks for {}", document.domain)));
    }
    let slack = SignedDuration::from_secs(SKEW_REFUSED);
    if document.issued_at > crate::admission::later(now, slack) {
        return Err(wrong(format!(
            "it was issued at {}, and it is {now} here: synchronize both clocks",
            document.issued_at
        )));
    }
    if now >= document.expires_at {
        return Err(wrong(format!("it ran out at {}", document.expires_at)));
    }
    match known {
        Some(known) if document.version < known.version => Err(wrong(format!(
            "its version {} is older than {}, which we have",
            document.version, known.version
        ))),
        _ => Ok(document),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::{rand::SystemRandom, signature::KeyPair};

    fn key() -> Ed25519KeyPair {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap()
    }
    fn document(now: Timestamp) -> DomainDocument {
        DomainDocument {
            domain: "busan".parse().unwrap(),
            version: 7,
            issued_at: now,
            expires_at: crate::admission::later_by(now, LIFETIME_SECONDS),
            abstraction: "border".into(),
            border_links: Vec::new(),
            shared_hosts: Vec::new(),
        }
    }

    #[test]
    fn a_document_is_believed_only_whole_fresh_and_by_its_key() {
        let now: Timestamp = "2027-01-10T06:00:00Z".parse().unwrap();
        let busan: Name = "busan".parse().unwrap();
        let (ours, other) = (key(), key());
        let public = ours.public_key().as_ref();
        let signed = sign(&document(now), &ours);
        assert_eq!(
            verify(&signed, &busan, public, None, now).unwrap(),
            document(now)
        );
        let fails = |signed: &SignedDocument, key: &[u8], at: Timestamp| {
            verify(signed, &busan, key, None, at).unwrap_err().detail
        };
        assert!(fails(&signed, other.public_key().as_ref(), now).contains("signature"));
        assert!(fails(&signed, public, crate::admission::later_by(now, 60)).contains("ran out"));
        let early = now.checked_sub(SignedDuration::from_secs(61)).unwrap();
        assert!(fails(&signed, public, early).contains("clocks"));
        let mut torn = signed.clone();
        torn.payload.pop();
        assert!(fails(&torn, public, now).contains("signature"));
        let mut none = signed.clone();
        none.protected = URL_SAFE_NO_PAD.encode(br#"{"alg":"none"}"#);
        assert!(fails(&none, public, now).contains("EdDSA"));
        let daejeon: Name = "daejeon".parse().unwrap();
        assert!(verify(&signed, &daejeon, public, None, now).is_err());
        let newer = DomainDocument {
            version: 8,
            ..document(now)
        };
        assert!(verify(&signed, &busan, public, Some(&newer), now).is_err());
    }

    #[test]
    fn clocks_may_differ_a_little() {
        let now: Timestamp = "2027-01-10T06:00:00Z".parse().unwrap();
        let at = |s: u32| crate::admission::later_by(now, s);
        assert_eq!(skew(at(30), now), Skew::Fine);
        assert_eq!(skew(at(31), now), Skew::Warn(31));
        assert_eq!(skew(now, at(60)), Skew::Warn(-60));
        assert_eq!(skew(now, at(61)), Skew::Refuse(-61));
        let refused = check_host_clock(now, at(412)).unwrap_err().detail;
        assert!(
            refused.starts_with("this host's clock is 412 s behind the controller's: "),
            "{refused}"
        );
        assert!(check_host_clock(at(60), now).is_ok());
        let refused = check_clock(&"busan".parse().unwrap(), at(90), now)
            .unwrap_err()
            .detail;
        assert!(
            refused.starts_with("the clock of busan is 90 s ahead of ours"),
            "{refused}"
        );
    }

    proptest::proptest! {
        #[test]
        fn junk_is_refused_and_never_panics(a in ".{0,60}", b in ".{0,60}", c in ".{0,60}") {
            let signed = SignedDocument { protected: a, payload: b, signature: c };
            let now = Timestamp::UNIX_EPOCH;
            proptest::prop_assert!(verify(&signed, &"x".parse().unwrap(), &[0; 32], None, now).is_err());
        }
    }
}
