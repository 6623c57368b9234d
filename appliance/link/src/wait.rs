//! Bounded waits: the kernel tells when something changed, nobody sleeps for luck.
//!
//! Each wait subscribes first and looks second, so that a change in between is not lost.

use crate::{Conn, Error, Netns, Result, address, inventory};
use futures_util::StreamExt;
use netlink_packet_core::NetlinkMessage;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::{MulticastGroup, proto::sys::SocketAddr};
use std::time::Duration;

/// Waits until a link has a carrier and can pass packets.
pub async fn for_carrier(netns: &Netns, conn: &Conn, index: u32, within: Duration) -> Result<()> {
    let doing = format!("waiting for the carrier of the link with index {index}");
    let mut wait = Wait::start(netns, &[MulticastGroup::Link], within, doing).await?;
    loop {
        let link = inventory::link(conn, index).await?;
        if link.carrier && link.running {
            return Ok(());
        }
        wait.for_change(if link.up { "up, no carrier" } else { "down" })
            .await?;
    }
}

/// Waits until all addresses of a link can be used: none is being checked for a duplicate. An
/// address that another host has is an error.
pub async fn for_addresses(netns: &Netns, conn: &Conn, index: u32, within: Duration) -> Result<()> {
    let doing = format!("waiting for the addresses of the link with index {index}");
    let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let mut wait = Wait::start(netns, &groups, within, doing).await?;
    loop {
        let addresses = address::list(conn, Some(index)).await?;
        if let Some(duplicate) = addresses.iter().find(|a| a.duplicate) {
            return Err(Error::invalid(
                format!("address {}", duplicate.net),
                "another host of the network has it (duplicate address detection)",
            ));
        }
        let tentative: Vec<String> = addresses
            .iter()
            .filter(|a| a.tentative)
            .map(|a| a.net.to_string())
            .collect();
        if tentative.is_empty() {
            return Ok(());
        }
        wait.for_change(&format!("tentative: {}", tentative.join(", ")))
            .await?;
    }
}

/// Waits until a link has an IPv6 link-local address that can be sent from: the kernel makes it by
/// itself, after the link came up.
pub async fn for_link_local(
    netns: &Netns,
    conn: &Conn,
    index: u32,
    within: Duration,
) -> Result<()> {
    let doing = format!("waiting for the link-local address of the link with index {index}");
    let groups = [MulticastGroup::Ipv6Ifaddr];
    let mut wait = Wait::start(netns, &groups, within, doing).await?;
    loop {
        let addresses = address::list(conn, Some(index)).await?;
        if addresses.iter().any(address::AddressState::can_ask) {
            return Ok(());
        }
        let own = addresses.iter().find(|a| a.is_link_local());
        let seen = own.map_or("none".to_owned(), |own| format!("{} is tentative", own.net));
        wait.for_change(&seen).await?;
    }
}

/// Waits until a link that `wanted` picks is in a namespace (a NIC that the kernel brings home
/// from a dead one), and returns it.
pub async fn for_link<F>(
    netns: &Netns,
    conn: &Conn,
    within: Duration,
    doing: &str,
    wanted: F,
) -> Result<inventory::LinkState>
where
    F: Fn(&inventory::LinkState) -> bool,
{
    let groups = [MulticastGroup::Link];
    let mut wait = Wait::start(netns, &groups, within, doing.to_owned()).await?;
    loop {
        let links = inventory::links(conn).await?;
        let seen = format!("{} other links", links.len());
        if let Some(link) = links.into_iter().find(|link| wanted(link)) {
            return Ok(link);
        }
        wait.for_change(&seen).await?;
    }
}

/// A wait under way: subscribed, with an end.
struct Wait {
    changes: Changes,
    end: tokio::time::Instant,
    within: Duration,
    doing: String,
}

impl Wait {
    async fn start(
        netns: &Netns,
        groups: &[MulticastGroup],
        within: Duration,
        doing: String,
    ) -> Result<Self> {
        Ok(Self {
            changes: subscribe(netns, groups).await?,
            end: tokio::time::Instant::now() + within,
            within,
            doing,
        })
    }

    /// Returns when something changed, whatever it was; an error when the time is over.
    async fn for_change(&mut self, seen: &str) -> Result<()> {
        let doing = || self.doing.clone();
        match tokio::time::timeout_at(self.end, self.changes.next()).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(Error::NoAnswer { doing: doing() }),
            Err(_) => Err(Error::TimedOut {
                doing: doing(),
                within: self.within,
                seen: seen.to_owned(),
            }),
        }
    }
}

/// Notifications of a namespace; they end when the stream is dropped.
pub struct Changes {
    stream:
        futures_util::stream::BoxStream<'static, (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    // the connection ends with its last handle
    _handle: rtnetlink::Handle,
}

impl Changes {
    /// The next notification; `None` when the connection ended. A message of whatever content
    /// means: read the state again (also after messages were lost).
    pub async fn next(&mut self) -> Option<NetlinkMessage<RouteNetlinkMessage>> {
        self.stream.next().await.map(|(message, _)| message)
    }
}

/// Subscribes to notifications of a namespace, for a daemon that watches its links.
pub async fn subscribe(netns: &Netns, groups: &[MulticastGroup]) -> Result<Changes> {
    let doing = "subscribing to the kernel's notifications";
    let runtime = tokio::runtime::Handle::try_current()
        .map_err(|_| Error::invalid(doing, "there is no tokio runtime to serve it"))?;
    let groups = groups.to_vec();
    netns
        .run(move || {
            let _in_runtime = runtime.enter();
            let (connection, handle, stream) =
                rtnetlink::new_multicast_connection(&groups).map_err(|e| Error::io(doing, e))?;
            runtime.spawn(connection);
            Ok(Changes {
                stream: stream.boxed(),
                _handle: handle,
            })
        })
        .await?
}
