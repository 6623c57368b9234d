//! Addresses and routers of a gateway on the external network.

use super::{Round, rules};
use dtn_api::Problem;
use dtn_link::{address, inventory, route};
use ipnet::IpNet;

impl Round<'_> {
    /// Addresses and routers outside, as they are configured.
    pub(super) async fn keep_outside(&self) -> Result<(), Problem> {
        let doing = |e: dtn_link::Error| self.problem(&e);
        let conn = self.open()?.connect().await.map_err(doing)?;
        let found = inventory::link_by_name(&conn, rules::OUTSIDE).await;
        let (index, mac) = match found {
            Ok(found) => (found.index, found.mac),
            // it is not attached: that was told
            Err(e) if e.is_not_found() => return Ok(()),
            Err(e) => return Err(doing(e)),
        };
        let there = address::list(&conn, Some(index)).await.map_err(doing)?;
        let own = &self.config.addresses;
        for stale in there
            .iter()
            .filter(|a| !a.is_link_local() && !own.contains(&a.net))
        {
            address::remove(&conn, index, stale.net)
                .await
                .map_err(doing)?;
        }
        let asks = there.iter().any(address::AddressState::can_ask);
        let v6 = own.iter().any(|net| net.addr().is_ipv6());
        // before the others: who hears of them sends at once
        if let Some(mac) = mac.filter(|_| v6 && !asks) {
            address::add_link_local(&conn, index, mac)
                .await
                .map_err(doing)?;
        }
        for net in own
            .iter()
            .filter(|net| !there.iter().any(|a| a.net == **net))
        {
            address::add(&conn, index, *net).await.map_err(doing)?;
        }
        let routes = route::list_of(&conn, index).await.map_err(doing)?;
        let defaults = || routes.iter().filter(|route| route.is_default());
        for stale in defaults() {
            if !stale
                .gateway
                .is_some_and(|by| self.config.routers.contains(&by))
            {
                route::remove(&conn, stale).await.map_err(doing)?;
            }
        }
        for router in &self.config.routers {
            if !defaults().any(|route| route.gateway == Some(*router)) {
                let everywhere = match router.is_ipv4() {
                    true => IpNet::V4(ipnet::Ipv4Net::default()),
                    false => IpNet::V6(ipnet::Ipv6Net::default()),
                };
                let wanted = route::RouteState::new(everywhere, index, Some(*router));
                route::add(&conn, &wanted).await.map_err(doing)?;
            }
        }
        Ok(())
    }
}
