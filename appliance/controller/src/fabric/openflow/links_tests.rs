use super::*;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}
fn at(text: &str) -> End {
    let (switch, port) = text.split_once('/').unwrap();
    (name(switch), port.parse().unwrap())
}
/// `edge1/2 core/1` is the one cable; every switch has the ports 1 to 4 named p1 to p4.
fn site() -> (Network, BTreeMap<Name, Told>) {
    let cable = Cable {
        ends: ["edge1/2", "core/p1"].map(|end| end.parse().unwrap()),
        capacity_bps: 1000,
        mtu: 1500,
    };
    let network = Network {
        cables: vec![cable],
        ..Network::default()
    };
    let told = || Told {
        ports: (1..=4).map(|n| (format!("p{n}"), n)).collect(),
        speeds: [(3, 5000), (4, 7000)].into(),
    };
    let switches = ["edge1", "core"].map(|switch| (name(switch), told()));
    (network, switches.into())
}
fn all_up() -> BTreeSet<End> {
    let ends = ["edge1", "core"].map(|switch| (1..=4).map(move |n| at(&format!("{switch}/{n}"))));
    ends.into_iter().flatten().collect()
}
/// What is wrong, and of which links.
fn judge(links: &Links, now: Instant) -> Vec<(String, bool, Option<String>)> {
    let (network, switches) = site();
    let all = links.judged(&network, &switches, now).into_iter();
    all.map(|link| (link.ends.join(" "), link.seen_s.is_some(), link.trouble))
        .collect()
}
const CABLE: &str = "edge1/2 core/p1";

#[test]
fn a_cable_is_judged_when_it_had_its_time() {
    let mut links = Links::default();
    let began = Instant::now();
    assert_eq!(links.readied(&all_up(), began).len(), 8);
    assert_eq!(links.readied(&all_up(), began).len(), 0, "they are known");
    assert_eq!(
        judge(&links, began + PATIENCE),
        [(CABLE.into(), false, None)]
    );
    let late = began + PATIENCE + Duration::from_secs(1);
    let [(_, false, Some(why))] = &judge(&links, late)[..] else {
        panic!("{:?}", judge(&links, late));
    };
    assert!(why.contains("is not seen"), "{why}");
    links.saw(at("edge1/2"), at("core/1"), late);
    let [(_, true, Some(why))] = &judge(&links, late)[..] else {
        panic!("{:?}", judge(&links, late));
    };
    assert!(why.contains("leaves core/p1 arrives at edge1/p2"), "{why}");
    links.saw(at("core/1"), at("edge1/2"), late);
    assert_eq!(judge(&links, late), [(CABLE.into(), true, None)]);
    // pulled where no port notices
    let later = late + FRESH + Duration::from_secs(1);
    let [(_, false, Some(why))] = &judge(&links, later)[..] else {
        panic!("{:?}", judge(&links, later));
    };
    assert!(why.contains("is not seen"), "{why}");
    // and where one does: that is said elsewhere
    let mut up = all_up();
    up.remove(&at("core/1"));
    links.readied(&up, later);
    assert_eq!(judge(&links, later), [(CABLE.into(), false, None)]);
}

#[test]
fn a_cable_in_another_port_is_said_at_once() {
    let mut links = Links::default();
    let began = Instant::now();
    links.readied(&all_up(), began);
    links.saw(at("edge1/2"), at("core/1"), began);
    // it is plugged over
    let now = began + EVERY;
    links.saw(at("core/3"), at("edge1/2"), now);
    let judged = judge(&links, now);
    let [(_, _, Some(why)), (other, true, None)] = &judged[..] else {
        panic!("{judged:?}");
    };
    assert!(why.contains("edge1/p2 is joined to core/p3"), "{why}");
    assert_eq!(other, "core/p3 edge1/p2");
    // and back
    let back = now + EVERY;
    links.saw(at("core/1"), at("edge1/2"), back);
    let judged = judge(&links, back);
    assert_eq!(judged[0], (CABLE.into(), true, None));
}

#[test]
fn a_link_that_no_cable_names_is_said_and_a_port_that_hears_itself_is_none() {
    let mut links = Links::default();
    let now = Instant::now();
    links.readied(&all_up(), now);
    links.saw(at("edge1/4"), at("edge1/4"), now);
    links.saw(at("edge1/3"), at("core/4"), now);
    links.saw(at("core/4"), at("edge1/3"), now);
    let (network, switches) = site();
    let judged = links.judged(&network, &switches, now);
    assert_eq!(judged.len(), 2, "{judged:?}");
    let other = &judged[1];
    assert_eq!(other.ends, ["core/p4", "edge1/p3"]);
    assert_eq!((other.cable, other.speed_bps), (false, Some(5000)));
    let why = other.trouble.as_deref().unwrap();
    assert!(why.contains("no [[cable]] says so"), "{why}");
}

#[test]
fn a_switch_that_is_away_is_not_judged_by_its_cables() {
    let links = Links::default();
    let (network, mut switches) = site();
    switches.remove(&name("core"));
    let judged = links.judged(&network, &switches, Instant::now() + PATIENCE * 2);
    assert_eq!(judged.len(), 1);
    assert_eq!((judged[0].seen_s, &judged[0].trouble), (None, &None));
}
