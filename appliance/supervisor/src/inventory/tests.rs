use super::*;

fn identity(pci: Option<&str>, mac: Option<u8>, index: Option<u32>) -> NicIdentity {
    NicIdentity {
        pci: pci.map(|p| p.parse().unwrap()),
        permanent_mac: mac.map(|last| MacAddress::new([2, 0, 0, 0, 0, last])),
        netns_inode: index.map(|_| 4_026_531_840),
        ifindex: index,
    }
}

#[test]
fn two_ports_at_one_pci_address_are_two_nics() {
    let one = identity(Some("0000:01:00.0"), Some(1), None);
    let two = identity(Some("0000:01:00.0"), Some(2), None);
    let untold = identity(Some("0000:01:00.0"), None, None);
    assert!(!same(&one, &two));
    assert!(same(&one, &one.clone()));
    assert!(same(&one, &untold));
    let (a, b) = (identity(None, None, Some(3)), identity(None, None, Some(4)));
    assert!(same(&a, &a.clone()));
    assert!(!same(&a, &b));
    assert!(!same(
        &identity(None, None, None),
        &identity(None, None, None)
    ));
}

#[test]
fn a_pattern_leaves_out_what_must_not_be_taken_and_two_entries_take_nothing() {
    let of = |selector: NicSelector| NicConfig {
        selector,
        class: NicClass::Shared,
        speed: None,
        permitted: false,
    };
    let pattern = of(NicSelector::Names("en*".parse().unwrap()));
    let exact = of(NicSelector::Mac(MacAddress::new([2; 6])));
    let guarded = || guard::Verdict {
        refusals: vec!["it carries the host's default route: give another".into()],
        ..guard::Verdict::default()
    };
    let judged = |matching: &[&NicConfig], mut verdict: guard::Verdict| {
        let class = given_as(matching, &mut verdict);
        (class.is_some(), verdict.refusals)
    };
    assert_eq!(judged(&[], guarded()), (false, guarded().refusals));
    assert_eq!(judged(&[&exact], guarded()), (true, guarded().refusals));
    let (given, why) = judged(&[&pattern], guarded());
    assert!(!given);
    assert_eq!(
        why,
        ["left out of name en*, since it carries the host's default route: give another"]
    );
    assert_eq!(judged(&[&pattern], Default::default()), (true, vec![]));
    let (given, why) = judged(&[&pattern, &exact], Default::default());
    assert!(given && why[0].contains("two [[nic]]"), "{why:?}");
}

#[test]
fn a_site_may_give_less_than_the_speed_and_not_more() {
    let config = |speed: Option<u64>| NicConfig {
        selector: NicSelector::Name("data0".parse().unwrap()),
        class: NicClass::Dedicated,
        speed: speed.map(Rate::from_bps),
        permitted: false,
    };
    let rate = |bps| Some(Rate::from_bps(bps));
    assert_eq!(speed(rate(10), Some(&config(Some(5)))), rate(5));
    assert_eq!(speed(rate(10), Some(&config(Some(20)))), rate(10));
    assert_eq!(speed(None, Some(&config(Some(7)))), rate(7));
    assert_eq!(speed(rate(10), None), rate(10));
    assert_eq!(speed(None, None), None);
}
