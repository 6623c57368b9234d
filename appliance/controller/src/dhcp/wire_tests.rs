use super::*;
use dhcproto::{Decodable, v4::DhcpOptions};
use proptest::prelude::*;

const MAC: MacAddress = MacAddress::new([2, 0, 0, 0, 0, 1]);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

/// A client's message.
fn asks(has: Ipv4Addr, options: &[DhcpOption]) -> Message {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(7, has, none, none, none, &MAC.bytes());
    for option in options {
        message.opts_mut().insert(option.clone());
    }
    message
}
/// The frame that a client sends with a message.
fn frame_of(message: &[u8], to: Ipv4Addr) -> Vec<u8> {
    let mut frame = [[0xff; 6], MAC.bytes()].concat();
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((28 + message.len() as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, UDP, 0, 0, 0, 0, 0, 0]);
    frame.extend(to.octets());
    frame.extend([0, 68, 0, 67]);
    frame.extend((8 + message.len() as u16).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(message);
    frame
}
fn sent(has: Ipv4Addr, options: &[DhcpOption]) -> Vec<u8> {
    frame_of(&asks(has, options).to_vec().unwrap(), Ipv4Addr::BROADCAST)
}
fn read_asks(has: Ipv4Addr, options: &[DhcpOption]) -> Option<Asks> {
    Some(read(&sent(has, options))?.asks)
}
fn question(wants: Option<&[u8]>) -> Question {
    Question {
        xid: 7,
        mac: MAC,
        broadcast: false,
        asks: Asks::Address(None),
        identifier: None,
        wants: wants.map(<[u8]>::to_vec),
        lease_seconds: None,
        longest: None,
    }
}
fn network(routes: &[(&str, Ipv4Addr)]) -> Network {
    Network {
        subnet: "10.0.0.0/24".parse().unwrap(),
        mtu: 9000,
        routes: routes
            .iter()
            .map(|(to, by)| (to.parse().unwrap(), *by))
            .collect(),
        dns: Vec::new(),
    }
}
fn offer(network: Network) -> Reply {
    let granted = Granted {
        address: HOST,
        seconds: 600,
    };
    Reply::Offer(granted, network)
}
/// Where an answer goes, and what it says to somebody else's reader.
fn heard(frame: &[u8]) -> ([u8; 6], Ipv4Addr, Message) {
    let to = Ipv4Addr::from(<[u8; 4]>::try_from(&frame[30..34]).unwrap());
    let message = Message::from_bytes(&frame[42..]).unwrap();
    (frame[..6].try_into().unwrap(), to, message)
}
fn told(question: &Question, reply: &Reply) -> DhcpOptions {
    let written = write(question, reply).unwrap();
    heard(&written.frame).2.opts().clone()
}

#[test]
fn each_question_is_told_by_what_is_filled_in() {
    use DhcpOption::{MessageType as Kind, RequestedIpAddress as Wish, ServerIdentifier as Server};
    let none = Ipv4Addr::UNSPECIFIED;
    let other = Ipv4Addr::new(192, 0, 2, 1);
    let cases = [
        (
            none,
            vec![Kind(MessageType::Discover)],
            Some(Asks::Address(None)),
        ),
        (
            none,
            vec![Kind(MessageType::Discover), Wish(HOST)],
            Some(Asks::Address(Some(HOST))),
        ),
        (
            none,
            vec![Kind(MessageType::Request), Wish(HOST), Server(SERVER)],
            Some(Asks::Take {
                server: SERVER,
                address: HOST,
            }),
        ),
        (
            none,
            vec![Kind(MessageType::Request), Wish(HOST), Server(other)],
            Some(Asks::Take {
                server: other,
                address: HOST,
            }),
        ),
        (
            none,
            vec![Kind(MessageType::Request), Wish(HOST)],
            Some(Asks::Keep(HOST)),
        ),
        (
            HOST,
            vec![Kind(MessageType::Request)],
            Some(Asks::Extend(HOST)),
        ),
        (
            HOST,
            vec![Kind(MessageType::Request), Server(SERVER)],
            Some(Asks::Extend(HOST)),
        ),
        (HOST, vec![Kind(MessageType::Request), Server(other)], None),
        (none, vec![Kind(MessageType::Request)], None),
        (
            HOST,
            vec![Kind(MessageType::Inform)],
            Some(Asks::Inform(HOST)),
        ),
        (none, vec![Kind(MessageType::Inform)], None),
        (
            HOST,
            vec![Kind(MessageType::Release), Server(SERVER)],
            Some(Asks::Release(HOST)),
        ),
        (HOST, vec![Kind(MessageType::Release), Server(other)], None),
        (
            none,
            vec![Kind(MessageType::Decline), Server(SERVER), Wish(HOST)],
            Some(Asks::Decline(HOST)),
        ),
        (none, vec![Kind(MessageType::Decline), Wish(HOST)], None),
        (none, vec![Kind(MessageType::Offer)], None),
        (none, vec![Wish(HOST)], None),
    ];
    for (has, options, expected) in cases {
        assert_eq!(read_asks(has, &options), expected, "{options:?}");
    }
}

#[test]
fn what_is_no_question_of_a_host_at_this_port_is_none() {
    let discover = [DhcpOption::MessageType(MessageType::Discover)];
    let good = sent(Ipv4Addr::UNSPECIFIED, &discover);
    assert!(read(&good).is_some());
    let changed = |at: usize, to: u8| {
        let mut frame = good.clone();
        frame[at] = to;
        read(&frame)
    };
    let message = 42;
    for (what, at, to) in [
        ("another frame's hardware address", 11, 9),
        ("another hardware address asks", message + 33, 9),
        ("not IPv4", 12, 0x86),
        ("not version 4", 14, 0x65),
        ("a head that is too short", 14, 0x44),
        ("not UDP", 23, 6),
        ("the first fragment", 20, 0x20),
        ("a later fragment", 21, 1),
        ("to somebody else", 30, 10),
        ("from another port", 35, 67),
        ("to another port", 37, 68),
        ("a UDP length beyond the packet", 38, 9),
        ("an answer", message, 2),
        ("not Ethernet", message + 1, 6),
        ("a long hardware address", message + 2, 255),
        ("by a relay", message + 24, 10),
        ("no DHCP", message + 236, 0),
    ] {
        assert_eq!(changed(at, to), None, "{what}");
    }
    // what fills up a short frame is no part of it
    let padded = [&good[..], &[0; 40]].concat();
    assert_eq!(read(&padded), read(&good));
    // to the server alone, as who has an address asks
    let message = asks(HOST, &[DhcpOption::MessageType(MessageType::Request)]);
    let alone = frame_of(&message.to_vec().unwrap(), SERVER);
    assert_eq!(read(&alone).map(|q| q.asks), Some(Asks::Extend(HOST)));
}

#[test]
fn what_a_host_says_of_itself_is_read() {
    let mut message = asks(
        Ipv4Addr::UNSPECIFIED,
        &[
            DhcpOption::MessageType(MessageType::Discover),
            DhcpOption::ClientIdentifier(vec![1, 2, 3]),
            DhcpOption::ParameterRequestList(vec![OptionCode::Router]),
            DhcpOption::AddressLeaseTime(90),
            DhcpOption::MaxMessageSize(1400),
            // no text, and a name cut short: neither is asked for
            DhcpOption::ClassIdentifier(vec![0xff, 0xfe]),
        ],
    );
    message.set_flags(Flags::default().set_broadcast());
    let mut bytes = message.to_vec().unwrap();
    let end = bytes.iter().rposition(|byte| *byte == 255).unwrap();
    bytes.truncate(end);
    bytes.extend([12, 1, 0xff, 81, 1, 0, 255]);
    let question = read(&frame_of(&bytes, Ipv4Addr::BROADCAST)).unwrap();
    let expected = Question {
        xid: 7,
        mac: MAC,
        broadcast: true,
        asks: Asks::Address(None),
        identifier: Some(vec![1, 2, 3]),
        wants: Some(vec![3]),
        lease_seconds: Some(90),
        longest: Some(1400),
    };
    assert_eq!(question, expected);
}

#[test]
fn an_offer_says_all_that_a_host_needs() {
    let mut asked = question(None);
    asked.identifier = Some(vec![1, 2, 3]);
    let reply = offer(network(&[("0.0.0.0/0", ROUTER), ("192.0.2.0/24", ROUTER)]));
    let written = write(&asked, &reply).unwrap();
    assert_eq!(written.left_out, 0);
    let (to, at, message) = heard(&written.frame);
    assert_eq!((to, at), (MAC.bytes(), HOST));
    assert_eq!((message.xid(), message.yiaddr()), (7, HOST));
    assert_eq!(message.chaddr(), MAC.bytes());
    assert_eq!(message.opcode(), Opcode::BootReply);
    let server: Ipv4Net = "169.254.0.67/32".parse().unwrap();
    let mut expected = DhcpOptions::new();
    for option in [
        DhcpOption::MessageType(MessageType::Offer),
        DhcpOption::ServerIdentifier(SERVER),
        DhcpOption::ClientIdentifier(vec![1, 2, 3]),
        DhcpOption::AddressLeaseTime(600),
        DhcpOption::Renewal(300),
        DhcpOption::Rebinding(525),
        DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
        DhcpOption::BroadcastAddr(Ipv4Addr::new(10, 0, 0, 255)),
        DhcpOption::InterfaceMtu(9000),
        DhcpOption::Router(vec![ROUTER]),
        DhcpOption::ClasslessStaticRoute(vec![
            (server, Ipv4Addr::UNSPECIFIED),
            ("0.0.0.0/0".parse().unwrap(), ROUTER),
            ("192.0.2.0/24".parse().unwrap(), ROUTER),
        ]),
    ] {
        expected.insert(option);
    }
    assert_eq!(message.opts(), &expected);
}

#[test]
fn who_takes_all_routes_is_told_no_router() {
    let reply = offer(network(&[("0.0.0.0/0", ROUTER)]));
    let [router, classless] = [OptionCode::Router, OptionCode::ClasslessStaticRoute];
    for (wants, expected) in [
        (vec![3, 121], [false, true]),
        (vec![3], [true, false]),
        (vec![121], [false, true]),
        (vec![1], [false, false]),
    ] {
        let told = told(&question(Some(&wants)), &reply);
        let has = [router, classless].map(|code| told.get(code).is_some());
        assert_eq!(has, expected, "{wants:?}");
        // without these two nothing works, asked for or not
        for code in [OptionCode::SubnetMask, OptionCode::InterfaceMtu] {
            assert!(told.get(code).is_some(), "{code:?}");
        }
    }
    let nowhere = told(
        &question(None),
        &offer(network(&[("192.0.2.0/24", ROUTER)])),
    );
    assert_eq!(
        nowhere.get(router),
        None,
        "it is the way to one network alone"
    );
}

#[test]
fn an_answer_goes_where_the_host_can_hear_it() {
    let granted = Granted {
        address: HOST,
        seconds: 600,
    };
    let all = (BROADCAST.bytes(), Ipv4Addr::BROADCAST);
    let alone = (MAC.bytes(), HOST);
    let net = || network(&[]);
    for (broadcast, asks, reply, expected) in [
        (
            false,
            Asks::Address(None),
            Reply::Offer(granted, net()),
            alone,
        ),
        (true, Asks::Address(None), Reply::Offer(granted, net()), all),
        (true, Asks::Keep(HOST), Reply::Granted(granted, net()), all),
        // who has its address hears what comes for it
        (
            true,
            Asks::Extend(HOST),
            Reply::Granted(granted, net()),
            alone,
        ),
        (true, Asks::Inform(HOST), Reply::Informed(net()), alone),
        (false, Asks::Extend(HOST), Reply::Refused("no".into()), all),
    ] {
        let asked = Question {
            broadcast,
            asks,
            ..question(None)
        };
        let (to, at, message) = heard(&write(&asked, &reply).unwrap().frame);
        assert_eq!((to, at), expected, "{asks:?} {reply:?}");
        assert_eq!(message.flags().broadcast(), broadcast);
        let has = match asks {
            Asks::Extend(has) | Asks::Inform(has) if expected == alone => has,
            _ => Ipv4Addr::UNSPECIFIED,
        };
        assert_eq!(message.ciaddr(), has);
    }
}

#[test]
fn a_refusal_and_an_inform_give_no_address() {
    let refused = told(&question(None), &Reply::Refused("not yours".into()));
    let expected = [
        DhcpOption::MessageType(MessageType::Nak),
        DhcpOption::ServerIdentifier(SERVER),
        DhcpOption::Message("not yours".into()),
    ];
    assert_eq!(refused, expected.into_iter().collect());
    let asked = Question {
        asks: Asks::Inform(HOST),
        ..question(None)
    };
    let written = write(&asked, &Reply::Informed(network(&[]))).unwrap();
    let (_, _, message) = heard(&written.frame);
    assert_eq!(message.yiaddr(), Ipv4Addr::UNSPECIFIED);
    for code in [
        OptionCode::AddressLeaseTime,
        OptionCode::Renewal,
        OptionCode::Rebinding,
    ] {
        assert_eq!(message.opts().get(code), None);
    }
}

#[test]
fn routes_that_do_not_fit_are_left_out_and_counted_the_way_out_last() {
    let mut routes: Vec<(String, Ipv4Addr)> = (0..63)
        .map(|n| (format!("192.0.{n}.0/24"), ROUTER))
        .collect();
    routes.push(("0.0.0.0/0".into(), ROUTER));
    let routes: Vec<_> = routes.iter().map(|(to, by)| (to.as_str(), *by)).collect();
    let reply = offer(network(&routes));
    let mut asked = question(Some(&[121]));
    let short = write(&asked, &reply).unwrap();
    assert!(short.left_out > 0);
    assert!(short.frame.len() <= 14 + 576, "{}", short.frame.len());
    let DhcpOption::ClasslessStaticRoute(kept) = heard(&short.frame)
        .2
        .opts()
        .get(OptionCode::ClasslessStaticRoute)
        .cloned()
        .unwrap()
    else {
        panic!("another option");
    };
    assert_eq!(kept.len() + short.left_out, 65, "its own is there too");
    assert!(kept.iter().any(|(to, _)| to.prefix_len() == 0));
    asked.longest = Some(1400);
    assert_eq!(write(&asked, &reply).unwrap().left_out, 0);
}

/// Whether the sums of a frame are right, as a host looks at them.
fn sums(frame: &[u8]) -> bool {
    let udp = &frame[34..];
    let pseudo = [&frame[26..34], &[0, UDP], &udp[4..6]].concat();
    checksum(&[&frame[14..34]]) == 0 && checksum(&[&pseudo, udp]) == 0
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
        let _ = read(&bytes);
        let _ = read(&frame_of(&bytes, Ipv4Addr::BROADCAST));
    }
    #[test]
    fn options_of_any_bytes_are_read_without_a_panic(
        options in proptest::collection::vec(any::<u8>(), 0..400)
    ) {
        let mut message = asks(Ipv4Addr::UNSPECIFIED, &[]).to_vec().unwrap();
        message.truncate(HEAD);
        message.extend([53, 1, 1]);
        message.extend(&options);
        let Some(asked) = read(&frame_of(&message, Ipv4Addr::BROADCAST)) else {
            // what kind it is was said twice
            prop_assert_eq!(options.first(), Some(&53));
            return Ok(());
        };
        // whatever it says, there is an answer that it can read
        let written = write(&asked, &offer(network(&[("0.0.0.0/0", ROUTER)]))).unwrap();
        prop_assert!(sums(&written.frame));
        prop_assert_eq!(heard(&written.frame).2.yiaddr(), HOST);
    }
    #[test]
    fn a_question_that_was_changed_is_read_without_a_panic(
        at in 0usize..300, to in any::<u8>(), cut in 0usize..300
    ) {
        let options = [
            DhcpOption::MessageType(MessageType::Discover),
            DhcpOption::RequestedIpAddress(HOST),
        ];
        let mut frame = sent(Ipv4Addr::UNSPECIFIED, &options);
        let at = at % frame.len();
        frame[at] = to;
        let _ = read(&frame);
        let _ = read(&frame[..cut.min(frame.len())]);
    }
    #[test]
    fn what_is_written_is_read_by_somebody_else(
        xid: u32, broadcast: bool, seconds: u32, mtu in 68u32..70_000, host: u32, length in 1u8..31,
        identifier in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..=LONGEST_IDENTIFIER)),
        wants in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
        to in proptest::collection::vec((any::<u32>(), 0u8..33), 0..64), longest: u16,
    ) {
        let address = Ipv4Addr::from(host);
        let subnet = Ipv4Net::new(address, length).unwrap().trunc();
        let routes = to.iter().map(|(to, length)| {
            (Ipv4Net::new((*to).into(), *length).unwrap().trunc(), ROUTER)
        });
        let asked = Question {
            xid, broadcast, identifier, wants, longest: Some(longest), ..question(None)
        };
        let net = Network { subnet, mtu, routes: routes.collect(), dns: vec![ROUTER] };
        let reply = Reply::Granted(Granted { address, seconds }, net.clone());
        let Written { frame, left_out } = write(&asked, &reply).unwrap();
        prop_assert!(frame.len() <= 14 + usize::from(longest.clamp(576, 1500)));
        prop_assert!(sums(&frame));
        let (_, _, message) = heard(&frame);
        prop_assert_eq!((message.xid(), message.yiaddr()), (xid, address));
        let told = message.opts();
        prop_assert_eq!(told.msg_type(), Some(MessageType::Ack));
        prop_assert_eq!(
            told.get(OptionCode::AddressLeaseTime), Some(&DhcpOption::AddressLeaseTime(seconds))
        );
        let mask = DhcpOption::SubnetMask(subnet.netmask());
        prop_assert_eq!(told.get(OptionCode::SubnetMask), Some(&mask));
        let identifier = asked.identifier.map(DhcpOption::ClientIdentifier);
        prop_assert_eq!(told.get(OptionCode::ClientIdentifier), identifier.as_ref());
        if let Some(DhcpOption::ClasslessStaticRoute(all)) = told.get(OptionCode::ClasslessStaticRoute) {
            prop_assert_eq!(all.len(), 1 + net.routes.len() - left_out);
        }
    }
}
