//! The settings of a gateway's namespace.

use super::failed;
use dtn_api::Problem;
use dtn_link::{Netns, inventory, link, sysctl};

/// Settings of the namespace, in the order in which they are written: `ip_forward` first, because
/// the kernel sets others with it (Documentation/networking/ip-sysctl.rst). What is set for `default`
/// is what interfaces that come later begin with.
const SETTINGS: [(&str, &str); 23] = [
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.all.forwarding", "1"),
    // sources are held by the filter, of both families alike and counted
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv4.conf.all.accept_redirects", "0"),
    ("net.ipv4.conf.default.accept_redirects", "0"),
    ("net.ipv4.conf.all.accept_source_route", "0"),
    ("net.ipv4.conf.default.accept_source_route", "0"),
    // an interface answers for its own addresses alone
    ("net.ipv4.conf.all.arp_ignore", "1"),
    ("net.ipv4.conf.default.arp_ignore", "1"),
    ("net.ipv4.conf.all.arp_announce", "2"),
    ("net.ipv4.conf.default.arp_announce", "2"),
    ("net.ipv6.conf.all.accept_ra", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv6.conf.all.accept_redirects", "0"),
    ("net.ipv6.conf.default.accept_redirects", "0"),
    ("net.ipv6.conf.all.accept_source_route", "0"),
    ("net.ipv6.conf.default.accept_source_route", "0"),
    // its addresses come from leases and from the configuration: nobody else has them
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.dad_transmits", "0"),
];

/// The settings of a gateway's namespace, written where they differ.
pub(super) async fn settle(netns: &Netns) -> Result<(), Problem> {
    let doing = |e: dtn_link::Error| failed("setting a gateway's namespace up", &e);
    for (key, value) in SETTINGS {
        // a kernel without IPv6 has nothing to set there
        let v6 = key.starts_with("net.ipv6.");
        if v6 && sysctl::read(netns, key).await.map_err(doing)?.is_none() {
            continue;
        }
        sysctl::write(netns, key, value).await.map_err(doing)?;
    }
    let conn = netns.connect().await.map_err(doing)?;
    let lo = inventory::link_by_name(&conn, "lo").await.map_err(doing)?;
    if !lo.up {
        link::set_up(&conn, lo.index).await.map_err(doing)?;
    }
    Ok(())
}
