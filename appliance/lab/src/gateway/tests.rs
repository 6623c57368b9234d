//! What the daemons are told of the gateway fits what is cabled.

#![allow(clippy::unwrap_used, reason = "a test fails with what it could not do")]

use super::*;
use crate::{daemons, site};

#[test]
fn a_gateway_has_its_nics_and_the_host_behind_it_is_its_router() {
    let file: toml::Table = (nic_tables() + &gateway_table(1)).parse().unwrap();
    let nics: Vec<_> = file["nic"]
        .as_array()
        .unwrap()
        .iter()
        .map(|nic| {
            (
                nic["name"].as_str().unwrap(),
                nic["class"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        nics,
        [
            ("visit0", "shared"),
            ("door0", "shared"),
            ("ext0", "dedicated")
        ]
    );
    let gateway = &file["gateway"][0];
    assert_eq!(gateway["inside"].as_str(), Some("door0"));
    assert_eq!(gateway["outside"].as_str(), Some("ext0"));
    let texts = |field: &str| -> Vec<String> {
        let list = gateway[field].as_array().unwrap();
        list.iter()
            .map(|one| one.as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(texts("addresses"), ["203.0.113.2/24", "2001:db8:2::2/64"]);
    assert_eq!(texts("routers"), ["203.0.113.1", "2001:db8:2::1"]);
    for (address, router) in texts("addresses").iter().zip(texts("routers")) {
        let net: IpNet = address.parse().unwrap();
        assert!(net.contains(&router.parse::<IpAddr>().unwrap()), "{net}");
    }
}

#[test]
fn the_host_outside_has_a_way_back_to_the_slices_through_the_gateway() {
    let text = cabling(0, &daemons::pools(0));
    for line in [
        "-n daejeon-outside link add out0 type veth peer name ext0 netns daejeon",
        "-n daejeon-outside addr add 198.51.100.1/24 dev out0",
        "-n daejeon-outside addr add 2001:db8:1::1/64 dev out0 nodad",
        "-n daejeon-outside route add 10.20.0.0/16 via 198.51.100.2",
        "-n daejeon-outside route add fd00:20::/48 via 2001:db8:1::2",
        "-n daejeon link set ext0 up",
    ] {
        assert!(
            text.lines().any(|one| one == line),
            "{line:?} is not in\n{text}"
        );
    }
}

#[test]
fn no_name_is_longer_than_the_kernel_takes() {
    // IFNAMSIZ with its last zero (if.h)
    for (nic, port) in site::plugs(8) {
        assert!(nic.len() <= 15 && port.len() <= 15, "{nic} {port}");
    }
    for site in 0..SITES.len() {
        assert!(site::NAMESPACES.contains(&space(site).as_str()));
    }
}
