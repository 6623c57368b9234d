//! Rules of the specification that no recorded frame shows.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use dtn_openflow::{DecodeError, Field, Frame, Match, Message, frame_length, refusal};

fn hello(version: u8, elements: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let length = u8::try_from(8 + elements.len()).unwrap();
    let mut bytes = vec![version, 0, 0, length, 0, 0, 0, 1];
    bytes.extend(elements);
    match Frame::decode(&bytes)?.message {
        Message::Hello { versions } => Ok(versions),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hello_without_a_list_speaks_all_up_to_its_version() {
    assert_eq!(hello(1, &[]), Ok(vec![1]));
    assert_eq!(hello(4, &[]), Ok(vec![1, 2, 3, 4]));
    // an element of a kind that nobody knows yet, then a version far up in the list's third word
    let unknown = [0, 9, 0, 6, 1, 1, 0, 0];
    assert_eq!(hello(4, &unknown), Ok(vec![1, 2, 3, 4]));
    let list = [0, 1, 0, 16, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 2];
    assert_eq!(hello(65, &[&unknown[..], &list].concat()), Ok(vec![4, 65]));
}

#[test]
fn a_hello_may_leave_the_last_padding_out() {
    let list = [0, 1, 0, 12, 0, 0, 0, 16, 0, 0, 0, 2];
    assert_eq!(hello(4, &list), Ok(vec![4, 33]));
    let what = "hello element";
    let length = 3;
    assert_eq!(
        hello(4, &[0, 1, 0, 3]),
        Err(DecodeError::Length { what, length })
    );
}

#[test]
fn only_a_hello_and_an_error_may_have_another_version() {
    let head = |version, kind| frame_length([version, kind, 1, 2, 0, 0, 0, 0]);
    for kind in [0, 1] {
        assert_eq!(head(6, kind), Ok(0x102));
        assert_eq!(head(0, kind), Err(DecodeError::Version { version: 0 }));
    }
    assert_eq!(head(4, 14), Ok(0x102));
    assert_eq!(head(1, 10), Err(DecodeError::Version { version: 1 }));
}

#[test]
fn a_length_that_cannot_be_ends_the_stream() {
    let what = "message";
    for length in 0..8 {
        let head = [4, 2, 0, length, 0, 0, 0, 0];
        let length = usize::from(length);
        assert_eq!(
            frame_length(head),
            Err(DecodeError::Length { what, length })
        );
    }
}

#[test]
fn one_condition_has_one_form() {
    let mac = |value, mask| Field::EthDst { value, mask };
    let vlan = |value, mask| Field::VlanVid { value, mask };
    let same = |field, plain| assert_eq!(Match::new([field]), Match::new(plain));
    same(mac([2; 6], Some([0xff; 6])), Some(mac([2; 6], None)));
    same(mac([2; 6], Some([0; 6])), None);
    let multicast = Some([1, 0, 0, 0, 0, 0]);
    same(
        mac([0xff; 6], multicast),
        Some(mac([1, 0, 0, 0, 0, 0], multicast)),
    );
    // a VLAN has thirteen bits, a mask of all of them or of more is none
    same(vlan(0x1064, Some(0x1fff)), Some(vlan(0x1064, None)));
    same(vlan(0x1064, Some(0xffff)), Some(vlan(0x1064, None)));
    same(vlan(0x1064, Some(0x1000)), Some(vlan(0x1000, Some(0x1000))));
    // no tag at all is a condition of its own
    assert_eq!(Match::new([vlan(0, None)]).0, [vlan(0, None)]);
}

#[test]
fn what_a_field_presupposes_stands_before_it() {
    let nicira = Field::Other {
        class: 1,
        field: 0,
        has_mask: false,
        data: vec![0; 4],
    };
    let port = Field::TcpDst {
        value: 80,
        mask: None,
    };
    let ordered = [
        Field::EthType(0x0800),
        Field::IpProto(6),
        port.clone(),
        nicira.clone(),
    ];
    let turned = [nicira, port, Field::IpProto(6), Field::EthType(0x0800)];
    assert_eq!(Match::new(turned).0, ordered);
}

#[test]
fn a_match_of_another_type_is_refused() {
    // the fixed match of OpenFlow 1.1, type 0, in a flow-removed
    let mut bytes = vec![4, 11, 0, 56, 0, 0, 0, 0];
    bytes.extend([0; 40]);
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0]);
    assert_eq!(
        Frame::decode(&bytes),
        Err(DecodeError::MatchKind { kind: 0 })
    );
}

#[test]
fn a_known_field_of_another_length_is_refused() {
    let frame = |oxm: &[u8]| {
        let mut bytes = vec![4, 11, 0, 64, 0, 0, 0, 0];
        bytes.extend([0; 40]);
        bytes.extend([0, 1, 0, u8::try_from(4 + oxm.len()).unwrap()]);
        bytes.extend(oxm);
        bytes.resize(64, 0);
        Frame::decode(&bytes)
    };
    assert!(frame(&[0x80, 0, 5 << 1, 2, 8, 0]).is_ok());
    assert!(frame(&[0x80, 0, 5 << 1, 1, 8]).is_err());
    assert!(frame(&[0x80, 0, 5 << 1, 3, 8, 0, 0]).is_err());
    // a field that has no mask in the specification, sent with one, stays as it came
    let Ok(Frame {
        message: Message::FlowRemoved(flow),
        ..
    }) = frame(&[0x80, 0, 5 << 1 | 1, 4, 8, 0, 0xff, 0xff])
    else {
        panic!("no flow");
    };
    let masked = Field::Other {
        class: 0x8000,
        field: 5,
        has_mask: true,
        data: vec![8, 0, 0xff, 0xff],
    };
    assert_eq!(flow.matches.0, [masked]);
}

#[test]
fn an_unknown_refusal_is_told_by_its_numbers() {
    assert_eq!(refusal(12, 1), "meter refused: meter exists already");
    assert_eq!(refusal(12, 99), "meter refused: error type 12 code 99");
    assert_eq!(refusal(0xffff, 3), "refused: error type 65535 code 3");
}
