//! Whether the interfaces of a gateway can ask for neighbours yet.
//!
//! For a packet that it forwards, the kernel asks who has the next address from its own link-local
//! one, and asks nobody while it has none (`ndisc_solicit`, net/ipv6/ndisc.c). It makes that address
//! some time after the link came up, so the first packets would be lost for a second.

use super::Round;
use dtn_api::{IfName, Problem};
use dtn_link::{address, inventory, wait};
use std::{collections::BTreeSet, time::Duration};

/// How long a round waits for it; the next one waits again.
const WAIT: Duration = Duration::from_secs(2);

impl Round<'_> {
    /// Waits until every interface with an IPv6 address can ask. A link without a carrier has
    /// nobody to ask.
    pub(super) async fn can_ask(&self, attached: &BTreeSet<IfName>) -> Result<(), Problem> {
        let doing = |e: dtn_link::Error| self.problem(&e);
        let netns = self.open()?;
        let conn = netns.connect().await.map_err(doing)?;
        for link in inventory::links(&conn).await.map_err(doing)? {
            let own = attached
                .iter()
                .any(|ifname| ifname.as_str() == link.name && link.running);
            if !own {
                continue;
            }
            let there = address::list(&conn, Some(link.index)).await;
            let there = there.map_err(doing)?;
            let given = |a: &&address::AddressState| a.net.addr().is_ipv6() && !a.is_link_local();
            if there.iter().any(|a| given(&a)) && !there.iter().any(|a| a.can_ask()) {
                wait::for_link_local(&netns, &conn, link.index, WAIT)
                    .await
                    .map_err(doing)?;
            }
        }
        Ok(())
    }
}
