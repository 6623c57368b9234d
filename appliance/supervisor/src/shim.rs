//! The host's own way to pods on macvlan: the kernel keeps a NIC apart from its children, so a kubelet
//! could not reach the pods of its own node (probes, `port-forward`, a pod that calls the node).
//!
//! Where pods of a cluster have a child of a NIC as their own network (`eth0`), the host gets one as
//! well, with an address of its own in their slice (a lease of the host's) and a route to each of those
//! pods, and to nobody else: traffic of the slice does not go to or through the host by it. [`decide`]
//! says what to do, this file does it. It goes with the last pod. What is there is read from the kernel,
//! so a daemon that starts anew goes on; pods do not need it to speak with each other.

pub mod decide;

use crate::{Host, inventory::records, pods::prepare};
use decide::{Deed, PREFIX, Seen, Wanted};
use dtn_api::{
    IfName, MacAddress, Problem,
    attachment::{PREPARED_VERSION, PodIdentity, Prepared, PreparedInterface},
    lease::{Lease, LeaseRequest},
    nic::NicClass,
    problem::Kind,
};
use dtn_link::{
    Conn, Netns, address, inventory, link,
    macvlan::{self, Macvlan, Mode},
    route::{self, RouteState},
    sysctl,
};
use ipnet::IpNet;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Who has it, in the prepared file by which its lease is kept alive.
const ENGINE: &str = "host";

/// Settings of the child. It answers for its own addresses alone, takes no router's word, forwards
/// nothing, and takes packets only from where it has a route to (RFC 3704; as strict as the host's own
/// `all.rp_filter` lets it be).
const SETTINGS: [(&str, &str); 8] = [
    ("net.ipv4.conf.{}.arp_ignore", "1"),
    ("net.ipv4.conf.{}.arp_announce", "2"),
    ("net.ipv4.conf.{}.rp_filter", "1"),
    ("net.ipv4.conf.{}.forwarding", "0"),
    ("net.ipv4.conf.{}.accept_redirects", "0"),
    ("net.ipv6.conf.{}.forwarding", "0"),
    ("net.ipv6.conf.{}.accept_ra", "0"),
    ("net.ipv6.conf.{}.accept_redirects", "0"),
];

fn failed(doing: &str, why: &dyn std::fmt::Display) -> Problem {
    Problem::new(Kind::Internal, format!("{doing}: {why}"))
}

/// One pass: makes it so. What fails for one does not keep the others from it.
pub(crate) async fn once(host: &Host) -> Result<(), Problem> {
    let reading = |e: dtn_link::Error| failed("reading the host's own children of NICs", &e);
    let conn = Conn::current().map_err(reading)?;
    let own = Netns::current().map_err(reading)?;
    let links = inventory::links(&conn).await.map_err(reading)?;
    let (all, torn) = records(&host.places);
    if !torn.is_empty() {
        // a pod that cannot be read may need it
        return Ok(());
    }
    let wanted = decide::wanted(&all, &links, own.inode());
    let mut outcome = Ok(());
    let ours = |link: &&inventory::LinkState| link.name.starts_with(PREFIX);
    for stale in links.iter().filter(ours) {
        if wanted.iter().any(|w| w.name.as_str() == stale.name) {
            continue;
        }
        tracing::info!(link = stale.name, "no pod needs it any more: removed");
        let removed = link::delete(&conn, stale.index).await;
        outcome = outcome.and(removed.map_err(|e| failed("removing it", &e)));
    }
    if let Err(problem) = give_back(host, &wanted).await {
        outcome = Err(problem);
    }
    for wanted in &wanted {
        let doing = format!("keeping the host's way to pods on {}", wanted.nic_name);
        if let Err(problem) = keep(host, &conn, &own, wanted).await {
            outcome = Err(failed(&doing, &problem));
        }
    }
    outcome
}

/// Leases of those that are not wanted any more.
async fn give_back(host: &Host, wanted: &[Wanted]) -> Result<(), Problem> {
    for prepared in crate::inventory::prepared_files(&host.places.prepared())? {
        let is_wanted = wanted.iter().any(|w| w.name.as_str() == prepared.key);
        if prepared.pod.engine != ENGINE || is_wanted {
            continue;
        }
        for lease in prepared.interfaces.iter().flat_map(|i| &i.leases) {
            prepare::give_back(host, lease, "no pod needs the host's way any more").await?;
        }
        let path = host.places.prepared_file(&prepared.key);
        dtn_link::atomic_file::remove(&path).map_err(|e| failed("giving back a lease", &e))?;
    }
    Ok(())
}

async fn keep(host: &Host, conn: &Conn, own: &Netns, wanted: &Wanted) -> Result<(), Problem> {
    let doing = |e: dtn_link::Error| failed(wanted.name.as_str(), &e);
    let lease = lease(host, wanted).await?;
    // each deed is seen again before the next: what one changes the others may need
    for _ in 0..2 {
        let seen = seen(conn, &wanted.name).await.map_err(doing)?;
        let deeds = decide::deeds(wanted, &lease, seen.as_ref());
        if deeds.is_empty() {
            return Ok(());
        }
        for deed in deeds {
            carry(conn, own, wanted, &lease, &deed)
                .await
                .map_err(doing)?;
        }
    }
    Ok(())
}

async fn seen(conn: &Conn, name: &IfName) -> dtn_link::Result<Option<Seen>> {
    let link = match inventory::link_named(conn, name).await {
        Ok(link) => link,
        Err(e) if e.is_not_found() => return Ok(None),
        Err(e) => return Err(e),
    };
    let addresses = address::list(conn, Some(link.index)).await?;
    let routes = route::list_of(conn, link.index).await?;
    Ok(Some(Seen {
        index: link.index,
        lower: link.lower,
        mac: link.mac,
        up: link.up,
        addresses: addresses
            .iter()
            .filter(|a| !a.is_link_local())
            .map(|a| a.net)
            .collect(),
        routes: routes
            .iter()
            .filter(|route| route.table == route::MAIN_TABLE && !route.made_by_kernel())
            .map(|route| route.destination)
            .collect(),
    }))
}

async fn carry(
    conn: &Conn,
    own: &Netns,
    wanted: &Wanted,
    lease: &Lease,
    deed: &Deed,
) -> dtn_link::Result<()> {
    match deed {
        Deed::Remove(index) => link::delete(conn, *index).await,
        Deed::Make => {
            let child = Macvlan {
                master: wanted.nic,
                netns: own,
                name: &wanted.name,
                mode: Mode::Bridge,
                mac: Some(lease.mac),
                mtu: Some(wanted.mtu),
            };
            macvlan::create(conn, conn, &child).await?;
            tracing::info!(link = %wanted.name, nic = %wanted.nic_name, "the host has a way to its pods");
            for (key, value) in SETTINGS {
                let key = key.replace("{}", wanted.name.as_str());
                // a kernel without IPv6 has nothing to set there
                if sysctl::read(own, &key).await?.is_some() {
                    sysctl::write(own, &key, value).await?;
                }
            }
            Ok(())
        }
        Deed::Up(index) => link::set_up(conn, *index).await,
        Deed::AddAddress(index, net) => address::add(conn, *index, *net).await,
        Deed::RemoveAddress(index, net) => address::remove(conn, *index, *net).await,
        Deed::AddRoute(index, to, from) => {
            let mut state = RouteState::new(*to, *index, None);
            state.source = Some(*from);
            route::add(conn, &state).await
        }
        Deed::RemoveRoute(index, to) => {
            route::remove(conn, &RouteState::new(*to, *index, None)).await
        }
    }
}

/// The host's lease in the slice. It is written down as a prepared interface: by that it is renewed and
/// counted like any other.
async fn lease(host: &Host, wanted: &Wanted) -> Result<Lease, Problem> {
    let key = wanted.name.as_str();
    let known = prepare::read(host, key)?;
    let first = known.and_then(|known| known.interfaces.into_iter().next());
    if let Some(lease) = first.and_then(|interface| interface.leases.into_iter().next())
        && lease.slice_id == wanted.slice.id
    {
        return Ok(lease);
    }
    let client = format!("host:{}/{key}", host.config().host);
    let mac = MacAddress::local_from(&client);
    let request = LeaseRequest {
        client_id: client,
        mac,
        location: None,
        requested_ips: Vec::new(),
        lease_seconds: None,
        labels: prepare::labels(host, &wanted.nic_name),
    };
    let lease = host.uplink.lease(wanted.slice.id, &request).await?;
    let prepared = Prepared {
        version: PREPARED_VERSION,
        key: key.to_owned(),
        pod: PodIdentity {
            uid: key.to_owned(),
            name: key.to_owned(),
            namespace: "default".to_owned(),
            engine: ENGINE.to_owned(),
        },
        interfaces: vec![PreparedInterface {
            ifname: wanted.name.clone(),
            network: ENGINE.to_owned(),
            class: NicClass::Shared,
            nic_name: wanted.nic_name.clone(),
            nic: wanted.identity.clone(),
            mac,
            mtu: wanted.mtu,
            leases: vec![lease.clone()],
            slices: Vec::new(),
            settings: Vec::new(),
            profile: None,
        }],
        prepared_at: Timestamp::now(),
        labels: BTreeMap::new(),
    };
    if let Err(problem) = prepare::write(host, &prepared) {
        prepare::give_back(host, &lease, "it could not be written down").await?;
        return Err(problem);
    }
    Ok(lease)
}

/// The address alone, without its network: the host reaches its own pods by it, and nobody else.
pub(crate) fn alone(net: IpNet) -> IpNet {
    IpNet::from(net.addr())
}
