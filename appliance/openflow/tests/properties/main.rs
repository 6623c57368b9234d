//! What holds for every message: what is written is read as the same, and no bytes make a panic.

mod any;
mod replies;

use dtn_openflow::{Action, Field, Frame, MAX_FRAME, Match, Message, frame_length};
use proptest::{collection::vec, prelude::*};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn what_was_written_is_read_as_the_same(xid: u32, message in any::message()) {
        let frame = Frame { xid, message };
        let bytes = frame.encode();
        prop_assert_eq!(frame.try_encode(), Ok(bytes.clone()));
        let head = bytes[..8].try_into().expect("a frame has a head");
        prop_assert_eq!(frame_length(head), Ok(bytes.len()));
        prop_assert_eq!(Frame::decode(&bytes), Ok(frame));
    }

    #[test]
    fn a_changed_byte_is_no_panic(
        message in any::message(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        end: prop::sample::Index,
    ) {
        let mut bytes = Frame { xid: 0, message }.encode();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = Frame::decode(&bytes[..end.index(bytes.len() + 1)]);
        read_and_written_it_stays(&bytes)?;
    }

    #[test]
    fn random_bytes_are_no_panic(kind in 0_u8..32, body in vec(any::<u8>(), 0..256)) {
        let length = u16::try_from(8 + body.len()).expect("it is short");
        let mut bytes = vec![4, kind];
        bytes.extend(length.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&body);
        read_and_written_it_stays(&bytes)?;
        let _ = Frame::decode(&body);
    }

    #[test]
    fn the_order_of_fields_says_nothing(fields in vec(any::field(), 0..8).prop_shuffle()) {
        let turned: Vec<Field> = fields.iter().rev().cloned().collect();
        let twice = fields.iter().chain(&turned).cloned();
        prop_assert_eq!(Match::new(twice), Match::new(fields.clone()));
        prop_assert_eq!(Match::new(turned), Match::new(fields));
    }
}

/// A frame that came from outside in whatever form has one form once it was read.
fn read_and_written_it_stays(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(frame) = Frame::decode(bytes) else {
        return Ok(());
    };
    let written = frame.try_encode();
    prop_assert!(written.is_ok(), "{:?}", frame);
    let again = Frame::decode(&written.unwrap_or_default());
    prop_assert_eq!(again, Ok(frame));
    Ok(())
}

#[test]
fn a_message_too_long_for_a_frame_is_a_bare_head() {
    let actions = |count| vec![Action::SetQueue(1); count];
    let frame = |count| Frame {
        xid: 0x0102_0304,
        message: Message::PacketOut(dtn_openflow::PacketOut::new(Vec::new(), actions(count))),
    };
    // 24 bytes before the actions, 8 bytes each
    let most = (MAX_FRAME - 24) / 8;
    assert_eq!(Frame::decode(&frame(most).encode()), Ok(frame(most)));
    let long = frame(most + 1);
    let refused = long.try_encode().expect_err("it does not fit");
    assert_eq!(refused.what, "message");
    assert_eq!(long.encode(), [4, 13, 0, 8, 1, 2, 3, 4]);
}

#[test]
fn a_field_too_long_for_its_length_is_said() {
    let data = |length| Field::Other {
        class: 0xffff,
        field: 1,
        has_mask: false,
        data: vec![0; length],
    };
    let fits = |length| {
        let flow = dtn_openflow::FlowMod {
            matches: Match(vec![data(length)]),
            ..Default::default()
        };
        let message = Message::FlowMod(flow);
        Frame { xid: 0, message }.try_encode().map_err(|e| e.what)
    };
    assert!(fits(255).is_ok());
    assert_eq!(fits(256), Err("match field"));
}
