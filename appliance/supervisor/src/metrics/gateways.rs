//! The metrics of gateways: what their packet filters have counted, as it was last read back.

use super::{Labels, Page, labels};
use dtn_api::{
    gateway::{Count, Direction},
    local::LocalGateway,
};
use prometheus_client::registry::Unit;

pub(super) fn write(page: &mut Page, gateways: &[LocalGateway]) {
    let each = |value: &dyn Fn(&LocalGateway) -> u64| -> Vec<(Labels, u64)> {
        let of = |gateway: &LocalGateway| (labels(&[("gateway", &gateway.name)]), value(gateway));
        gateways.iter().map(of).collect()
    };
    page.gauge(
        "gateway_ready",
        "1 when nothing keeps it from forwarding",
        None,
        each(&|gateway| u64::from(gateway.trouble.is_none())),
    );
    page.gauge("gateway_slices", "Slices that it forwards for", None, {
        each(&|gateway| gateway.slices.len() as u64)
    });
    page.gauge(
        "gateway_rules_version",
        "Version of the access rules that the kernel has",
        None,
        each(&|gateway| gateway.rules_version),
    );
    let decided = |value: fn(&Count) -> u64| -> Vec<(Labels, u64)> {
        let of = move |gateway: &LocalGateway| {
            let name = gateway.name.clone();
            let rules = gateway.rules.clone().into_iter();
            rules.map(move |(rule, count)| {
                let labels = labels(&[("gateway", &name), ("rule", &rule)]);
                (labels, value(&count))
            })
        };
        gateways.iter().flat_map(of).collect()
    };
    let denied = |direction: Direction, value: fn(&Count) -> u64| {
        each(&|gateway| match direction {
            Direction::Outbound => value(&gateway.denied_outbound),
            Direction::Inbound => value(&gateway.denied_inbound),
        })
    };
    let bytes = || Some(Unit::Bytes);
    let packets = || Some(Unit::Other("packets".into()));
    let what = "What an access rule has decided about";
    page.counter("gateway_rule", what, packets(), {
        decided(|count| count.packets)
    });
    page.counter("gateway_rule", what, bytes(), decided(|count| count.bytes));
    for direction in [Direction::Outbound, Direction::Inbound] {
        let name = format!("gateway_denied_{direction}");
        let what = format!("What no access rule allowed, {direction}");
        page.counter(&name, &what, packets(), {
            denied(direction, |count| count.packets)
        });
        let of = denied(direction, |count| count.bytes);
        page.counter(&name, &what, bytes(), of);
    }
}
