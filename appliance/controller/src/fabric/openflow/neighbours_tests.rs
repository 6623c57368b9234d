use super::*;
use crate::fabric::BorderEnd;
use dtn_api::slice::Class;
use proptest::prelude::*;
use uuid::Uuid;

const ASKER: MacAddress = MacAddress::new([2, 0, 0, 0, 0, 1]);
const OTHER: MacAddress = MacAddress::new([2, 0, 0, 0, 0, 2]);

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
/// 10.0.0.1 asks who has 10.0.0.2.
fn request() -> Vec<u8> {
    hex("ffffffffffff 020000000001 0806 0001 0800 06 04 0001 \
         020000000001 0a000001 000000000000 0a000002")
}
/// fd00::1 asks who has fd00::2, as Linux does.
fn solicitation() -> Vec<u8> {
    hex("3333ff000002 020000000001 86dd 60000000 0020 3a ff \
         fd000000000000000000000000000001 ff0200000000000000000001ff000002 \
         87 00 0000 00000000 fd000000000000000000000000000002 0101 020000000001")
}

#[test]
fn a_question_is_read() {
    let v4 = question(&request()).unwrap();
    assert_eq!(v4.asker, (ASKER, "10.0.0.1".parse().unwrap()));
    assert_eq!(v4.target, "10.0.0.2".parse::<IpAddr>().unwrap());
    let v6 = question(&solicitation()).unwrap();
    assert_eq!(v6.asker, (ASKER, "fd00::1".parse().unwrap()));
    assert_eq!(v6.target, "fd00::2".parse::<IpAddr>().unwrap());
}

#[test]
fn what_is_told_and_not_asked_is_no_question() {
    let mut told = request();
    told[41] = 1;
    assert_eq!(question(&told), None, "its own address");
    let mut answer = request();
    answer[21] = 2;
    assert_eq!(question(&answer), None, "an answer");
    let mut free = solicitation();
    free[22..38].fill(0);
    assert_eq!(question(&free), None, "whether an address is free");
    let mut routed = solicitation();
    routed[21] = 254;
    assert_eq!(question(&routed), None, "from another link");
}

#[test]
fn an_answer_is_laid_out_as_the_standards_say() {
    let v4 = answer(&question(&request()).unwrap(), OTHER, false).unwrap();
    let expected = hex("020000000001 020000000002 0806 0001 0800 06 04 0002 \
         020000000002 0a000002 020000000001 0a000001");
    assert_eq!(v4, expected);
    let v6 = answer(&question(&solicitation()).unwrap(), OTHER, true).unwrap();
    let expected = hex("020000000001 020000000002 86dd 60000000 0020 3a ff \
         fd000000000000000000000000000002 fd000000000000000000000000000001 \
         88 00 0000 e0000000 fd000000000000000000000000000002 0201 020000000002");
    assert_eq!(v6[..56], expected[..56]);
    assert_eq!(v6[58..], expected[58..]);
    // over all with its own value the sum is zero
    let [from, to] = ["fd00::2", "fd00::1"].map(|address| address.parse().unwrap());
    assert_eq!(checksum(from, to, &v6[54..]), 0);
}

fn slice(tag: u16, members: &[(MacAddress, &str)]) -> Intent {
    let member = |(mac, ip): &(MacAddress, &str)| Attached {
        mac: *mac,
        ips: vec![ip.parse().unwrap()],
        at: "s1/1".parse().unwrap(),
    };
    Intent {
        slice: Uuid::from_u128(tag.into()),
        name: "blue".parse().unwrap(),
        tag,
        class: Class::BestEffort,
        rate_bps: 0,
        burst_ms: 10,
        members: members.iter().map(member).collect(),
        border: None,
        cables: [].into(),
        access: None,
    }
}

#[test]
fn who_is_elsewhere_is_asked_behind_the_border_alone() {
    let mut intent = slice(7, &[(ASKER, "10.0.0.1"), (OTHER, "10.0.0.3")]);
    assert_eq!(reply(&intent, 4, &request()), None, "nobody has it");
    intent.border = Some(BorderEnd {
        link: "wan".parse().unwrap(),
        at: "s1/9".parse().unwrap(),
        label: 200,
    });
    let onward = reply(&intent, 4, &request()).unwrap();
    assert_eq!((onward.in_port, &onward.data), (4, &request()));
    assert_eq!(onward.actions, [Action::Group(0x6474_0007)]);
    // a member is answered for here all the same, and to who asked alone
    intent.members[1].ips = vec!["10.0.0.2".parse().unwrap()];
    let told = reply(&intent, 4, &request()).unwrap();
    assert_eq!(
        told.actions,
        [Action::Output {
            port: 4,
            max_len: 0
        }]
    );
    // its own address is no neighbour's
    intent.members[1].mac = ASKER;
    assert_eq!(reply(&intent, 4, &request()), None);
}

#[test]
fn a_link_local_address_is_its_holders() {
    let intent = slice(7, &[(ASKER, "fd00::1"), (OTHER, "fd00::2")]);
    let found = holder(&intent, "fe80::ff:fe00:2".parse().unwrap());
    assert_eq!(found.map(|member| member.mac), Some(OTHER));
    let old = slice(7, &[(OTHER, "10.0.0.2")]);
    assert_eq!(holder(&old, "fe80::ff:fe00:2".parse().unwrap()), None);
}

proptest! {
    #[test]
    fn only_a_member_of_the_slice_is_told_of(
        members in proptest::collection::vec((3u8..12, 1u8..12), 0..6), target in 1u8..12
    ) {
        let text: Vec<_> = members.iter().map(|(_, ip)| format!("10.0.0.{ip}")).collect();
        let members: Vec<_> = members
            .iter()
            .zip(&text)
            .map(|((mac, _), ip)| (MacAddress::new([2, 0, 0, 0, 0, *mac]), ip.as_str()))
            .collect();
        let intent = slice(7, &members);
        let mut asks = request();
        asks[41] = target;
        let wanted = format!("10.0.0.{target}");
        let told = reply(&intent, 4, &asks);
        let known = target != 1 && text.contains(&wanted);
        prop_assert_eq!(told.is_some(), known);
        if let Some(told) = told {
            let holds = |(mac, ip): &(MacAddress, &str)| *ip == wanted && mac.bytes() == told.data[22..28];
            prop_assert!(members.iter().any(holds), "{:?}", told);
        }
    }
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let _ = question(&bytes);
    }
    #[test]
    fn a_question_that_was_changed_is_read_without_a_panic(
        at in 0usize..86, to in any::<u8>(), cut in 0usize..86
    ) {
        let mut frame = solicitation();
        frame[at] = to;
        let _ = question(&frame);
        let _ = question(&frame[..cut]);
    }
}
