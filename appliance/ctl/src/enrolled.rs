//! Who has a certificate of the domain: when it joined, how long the certificate is good, and who keeps it
//! out.

use crate::{table::Table, wording::distance};
use dtn_api::node::Node;
use jiff::Timestamp;

/// A table of them; `noun` is what they are.
pub(crate) fn shown(noun: &str, nodes: &[Node], now: Timestamp) -> String {
    let heading = noun.to_uppercase();
    let mut table = Table::new(&[heading.as_str(), "JOINED", "CERTIFICATE", "REVOKED"]);
    for node in nodes {
        let certificate = match (node.certificate_until, &node.revoked) {
            (_, Some(_)) => "opens nothing".into(),
            (Some(until), None) if until <= now => format!("ENDED {}", distance(until, now)),
            (Some(until), None) => format!("ends {}", distance(until, now)),
            (None, None) => "from before it was listed".into(),
        };
        let revoked = node.revoked.as_ref().map(|revoked| {
            let reason = revoked.reason.as_ref();
            let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
            format!("{} by {}{reason}", distance(revoked.at, now), revoked.by)
        });
        table.row([
            node.name.to_string(),
            distance(node.enrolled_at, now),
            certificate,
            revoked.unwrap_or_default(),
        ]);
    }
    table.print(&format!("no {noun} has enrolled"))
}
