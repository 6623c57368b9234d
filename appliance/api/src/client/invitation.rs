//! The one word that carries an invitation from one admin to another, and what it pins.

/// SHA-256 of a certificate's DER, hexadecimal: what an invitation pins.
pub fn fingerprint(der: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Text of an invitation, as `dtnctl domain invite` prints it: one word that survives copying.
pub fn encode_invitation(invitation: &crate::domain::Invitation) -> String {
    use base64::Engine;
    let json = serde_json::to_vec(invitation).unwrap_or_default();
    format!(
        "dtn-invitation.{}",
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json)
    )
}

/// The invitation in a text, or what is wrong with it.
pub fn decode_invitation(text: &str) -> Result<crate::domain::Invitation, String> {
    use base64::Engine;
    let wrong = || {
        "the invitation is not whole: copy the one word that the invite command printed".to_owned()
    };
    let code = text
        .trim()
        .strip_prefix("dtn-invitation.")
        .ok_or_else(wrong)?;
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(code)
        .map_err(|_| wrong())?;
    serde_json::from_slice(&json).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Invitation, InviteKind};

    #[test]
    fn an_invitation_survives_copying_and_hides_its_secret() {
        let invitation = Invitation {
            kind: InviteKind::Domain,
            domain: "daejeon".parse().unwrap(),
            name: "busan".parse().unwrap(),
            url: "https://192.0.2.1:8443".into(),
            ca_pin: fingerprint(b"authority"),
            secret: "one-time".into(),
            expires_at: "2027-01-01T00:00:00Z".parse().unwrap(),
        };
        let word = encode_invitation(&invitation);
        assert!(!word.contains(char::is_whitespace));
        assert_eq!(
            decode_invitation(&format!(" {word}\n")).unwrap(),
            invitation
        );
        assert!(!format!("{invitation:?}").contains("one-time"));
        for bad in [
            "",
            "dtn-invitation.",
            "dtn-invitation.%%%",
            &word[1..],
            &word[..word.len() - 9],
        ] {
            assert!(decode_invitation(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_fingerprint_is_sha_256() {
        // FIPS 180-4, the message "abc"
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(fingerprint(b"abc"), abc);
    }
}
