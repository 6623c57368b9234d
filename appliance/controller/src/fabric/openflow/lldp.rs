//! The frames by which the fabric finds out how switches are joined: LLDP (IEEE 802.1AB-2016), one
//! out of every port, sealed so that a host can make none up. What has no seal of this process is of
//! somebody else, and says nothing.
//!
//! They go to the nearest bridge alone (§7.1), so a bridge between two switches, or one of a host's,
//! does not hand them on.

use crate::fabric::program::frames::LLDP;
use ring::{
    error::Unspecified,
    hmac::{self, HMAC_SHA256, Key},
    rand::SystemRandom,
};

/// The nearest bridge: no bridge of any kind forwards it (IEEE 802.1AB-2016 table 7-1).
const NEAREST: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0x0e];
/// Seconds for which a neighbour may believe it.
pub(super) const TTL: u16 = 20;

// kinds of TLVs (IEEE 802.1AB-2016 table 8-1)
const END: u16 = 0;
const CHASSIS: u16 = 1;
const PORT: u16 = 2;
const TIME_TO_LIVE: u16 = 3;
const PORT_DESCRIPTION: u16 = 4;
const SYSTEM_NAME: u16 = 5;
const ORGANIZATION: u16 = 127;
/// Chassis and port ids of our own making (tables 8-2 and 8-3).
const LOCAL: u8 = 7;
/// Whose TLV it is, where an OUI is expected: locally administered (IEEE 802-2014 §8.2.2), `dt` in
/// ASCII; and which of it.
const OURS: [u8; 4] = [0x02, 0x64, 0x74, 1];
/// What the seal stands for before the figures, so that it is good for nothing else.
const PURPOSE: &[u8] = b"dtn fabric link 1";
/// Datapath id, port, milliseconds.
const FIGURES: usize = 8 + 4 + 8;
const HEAD: usize = 14;

/// Out of which port a frame was sent, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) datapath_id: u64,
    pub(super) port: u32,
    /// Milliseconds since the fabric was started.
    pub(super) sent_ms: u64,
}

/// Why a frame tells nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strange {
    /// It is no LLDP.
    Malformed,
    /// It is another's: a host's, a neighbour's, another controller's.
    Foreign,
}

/// The secret of this process.
pub(super) struct Sealer(Key);
impl Sealer {
    pub(super) fn random() -> Result<Self, Unspecified> {
        Key::generate(HMAC_SHA256, &SystemRandom::new()).map(Self)
    }

    /// The frame for a port; its names are for people who look at it with tools of their own.
    pub(super) fn frame(&self, probe: Probe, switch: &str, port: &str) -> Vec<u8> {
        let mut frame = Vec::with_capacity(192);
        frame.extend(NEAREST);
        let [_, _, _, rest @ ..] = probe.datapath_id.to_be_bytes();
        frame.push(0x02);
        frame.extend(rest);
        frame.extend(LLDP.to_be_bytes());
        let local = |text: String| [&[LOCAL], text.as_bytes()].concat();
        tlv(
            &mut frame,
            CHASSIS,
            &local(format!("{:016x}", probe.datapath_id)),
        );
        tlv(&mut frame, PORT, &local(probe.port.to_string()));
        tlv(&mut frame, TIME_TO_LIVE, &TTL.to_be_bytes());
        tlv(&mut frame, PORT_DESCRIPTION, port.as_bytes());
        tlv(&mut frame, SYSTEM_NAME, switch.as_bytes());
        let figures = figures(probe);
        let seal = hmac::sign(&self.0, &sealed(&figures));
        tlv(
            &mut frame,
            ORGANIZATION,
            &[&OURS[..], &figures, seal.as_ref()].concat(),
        );
        tlv(&mut frame, END, &[]);
        frame
    }

    /// What a frame tells, when it is one of ours.
    pub(super) fn read(&self, frame: &[u8]) -> Result<Probe, Strange> {
        let (head, mut rest) = frame.split_at_checked(HEAD).ok_or(Strange::Malformed)?;
        if !head.ends_with(&LLDP.to_be_bytes()) {
            return Err(Strange::Malformed);
        }
        loop {
            let (head, after) = rest.split_first_chunk().ok_or(Strange::Malformed)?;
            let head = u16::from_be_bytes(*head);
            let (kind, length) = (head >> 9, usize::from(head & 0x1ff));
            let (value, after) = after.split_at_checked(length).ok_or(Strange::Malformed)?;
            rest = after;
            match (kind, value.strip_prefix(&OURS)) {
                (END, _) => return Err(Strange::Foreign),
                (ORGANIZATION, Some(own)) => return self.verified(own).ok_or(Strange::Foreign),
                _ => {}
            }
        }
    }
    fn verified(&self, own: &[u8]) -> Option<Probe> {
        let (told, seal) = own.split_at_checked(FIGURES)?;
        hmac::verify(&self.0, &sealed(told), seal).ok()?;
        let (id, rest) = told.split_first_chunk()?;
        let (port, rest) = rest.split_first_chunk()?;
        Some(Probe {
            datapath_id: u64::from_be_bytes(*id),
            port: u32::from_be_bytes(*port),
            sent_ms: u64::from_be_bytes(*rest.first_chunk()?),
        })
    }
}

fn figures(probe: Probe) -> [u8; FIGURES] {
    let mut all = [0; FIGURES];
    all[..8].copy_from_slice(&probe.datapath_id.to_be_bytes());
    all[8..12].copy_from_slice(&probe.port.to_be_bytes());
    all[12..].copy_from_slice(&probe.sent_ms.to_be_bytes());
    all
}
fn sealed(figures: &[u8]) -> Vec<u8> {
    [PURPOSE, figures].concat()
}
/// Kind in seven bits, length in nine; none of ours comes near the 511 bytes that there is room for.
fn tlv(frame: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let value = value.get(..value.len().min(0x1ff)).unwrap_or_default();
    frame.extend((kind << 9 | value.len() as u16).to_be_bytes());
    frame.extend(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes of an HMAC-SHA256.
    const SEAL: usize = 32;
    const PROBE: Probe = Probe {
        datapath_id: 0x00aa_bbcc_ddee_ff01,
        port: 7,
        sent_ms: 12_345,
    };
    fn sealer(byte: u8) -> Sealer {
        Sealer(Key::new(HMAC_SHA256, &[byte; 32]))
    }

    #[test]
    fn a_frame_is_laid_out_as_the_standard_says() {
        let frame = sealer(1).frame(PROBE, "edge1", "port7");
        let mut expected = vec![
            0x01, 0x80, 0xc2, 0, 0, 0x0e, 0x02, 0xcc, 0xdd, 0xee, 0xff, 0x01,
        ];
        expected.extend([0x88, 0xcc]);
        expected.extend([0x02, 17, 7]);
        expected.extend(b"00aabbccddeeff01");
        expected.extend([0x04, 2, 7, b'7']);
        expected.extend([0x06, 2, 0, 20]);
        expected.extend([0x08, 5]);
        expected.extend(b"port7");
        expected.extend([0x0a, 5]);
        expected.extend(b"edge1");
        expected.extend([0xfe, 56, 0x02, 0x64, 0x74, 1]);
        expected.extend([0x00, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x01]);
        expected.extend([0, 0, 0, 7]);
        expected.extend([0, 0, 0, 0, 0, 0, 0x30, 0x39]);
        assert_eq!(frame[..expected.len()], expected);
        assert_eq!(frame.len(), expected.len() + SEAL + 2);
        assert!(frame.ends_with(&[0, 0]));
    }

    #[test]
    fn a_frame_of_ours_is_read_and_one_with_another_key_is_not() {
        let mut frame = sealer(1).frame(PROBE, "edge1", "port7");
        // as a NIC that fills up short frames does
        frame.extend([0; 30]);
        assert_eq!(sealer(1).read(&frame), Ok(PROBE));
        assert_eq!(sealer(2).read(&frame), Err(Strange::Foreign));
    }

    #[test]
    fn what_somebody_else_says_is_foreign() {
        // lldpd without names: chassis and port by MAC address, TTL, end
        let mut frame = vec![1, 0x80, 0xc2, 0, 0, 0x0e, 2, 0, 0, 0, 0, 1, 0x88, 0xcc];
        frame.extend([0x02, 7, 4, 2, 0, 0, 0, 0, 1]);
        frame.extend([0x04, 7, 3, 2, 0, 0, 0, 0, 1, 0x06, 2, 0, 120, 0, 0]);
        assert_eq!(sealer(1).read(&frame), Err(Strange::Foreign));
        frame.truncate(frame.len() - 3);
        assert_eq!(sealer(1).read(&frame), Err(Strange::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(sealer(1).read(&bytes).is_err());
        }
        #[test]
        fn a_frame_that_was_changed_tells_nothing_else(at in 14usize..130, to in any::<u8>()) {
            let frame = sealer(1).frame(PROBE, "edge1", "port7");
            let mut changed = frame.clone();
            if let Some(byte) = changed.get_mut(at) {
                *byte = to;
            }
            if let Ok(told) = sealer(1).read(&changed) {
                prop_assert_eq!(told, PROBE);
            }
        }
    }
}
