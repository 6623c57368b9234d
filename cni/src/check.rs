//! CHECK: is an attached interface still what it was made? Read from the kernel, nothing else.

use crate::{
    conf::Conf,
    delegate,
    env::{Environment, Verb},
    error::{CniError, Code},
    reconcile,
    record::{self, InterfaceRecord},
    spec::Route,
};
use dtn_link::{Conn, Netns, address, inventory, qdisc, route};
use ipnet::IpNet;

/// Checks one interface; all that is wrong is in one error.
pub async fn check(conf: &Conf, env: &Environment) -> Result<(), CniError> {
    let (Some(ifname), Some(path)) = (&env.ifname, &env.netns) else {
        return Err(CniError::internal(
            "checking",
            "no interface or no sandbox was named",
        ));
    };
    let Some(previous) = &conf.previous else {
        let message = "required prevResult missing";
        return Err(CniError::new(
            Code::InvalidConfig,
            message,
            "CHECK comes with the ADD's result",
        ));
    };
    let unknown = || {
        CniError::new(
            Code::UnknownContainer,
            format!("{ifname} of {} was not attached by this plugin", env.key()),
            "",
        )
    };
    let key = reconcile::key_of(&conf.places, env.key(), &env.container_id, ifname)?
        .ok_or_else(unknown)?;
    let record = record::read(&conf.places, &key)?.ok_or_else(unknown)?;
    let interface = record.interface(ifname).ok_or_else(unknown)?;
    let sandbox = Netns::open(path).map_err(|e| {
        CniError::new(
            Code::InvalidNetns,
            format!("opening the sandbox {}", path.display()),
            e.to_string(),
        )
    })?;
    let mut wrong = Vec::new();
    if sandbox.inode() != interface.netns_inode {
        wrong.push(format!(
            "it was attached to another sandbox (inode {})",
            interface.netns_inode
        ));
    }
    let inside = sandbox.connect().await?;
    wrong.extend(faults(&inside, interface).await?);
    // those of the last plugin of the chain: it may have changed ours
    wrong.extend(missing_routes(&inside, &previous.routes).await?);
    for ip in &previous.ips {
        if !interface.ips.contains(&ip.address) {
            wrong.push(format!(
                "prevResult has {}, which it was not given",
                ip.address
            ));
        }
    }
    // the delegate gets this call's configuration, for the previous result is in it
    if let Some(mark) = delegate::mark(conf, env)
        && let Err(e) = delegate::call(&mark, Verb::Check, Some(path), ifname.as_str()).await
    {
        wrong.push(e.to_string());
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let message = format!("{ifname} of {} is not as it was made", env.key());
    Err(CniError::new(Code::NotAsWanted, message, wrong.join("; ")))
}

/// Routes of a result that are not in the sandbox.
pub(crate) async fn missing_routes(
    inside: &Conn,
    wanted: &[Route],
) -> Result<Vec<String>, CniError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let there = route::list(inside).await?;
    let is_there = |wanted: &Route| {
        there.iter().any(|state| {
            state.destination == wanted.dst.trunc()
                && wanted.table.is_none_or(|table| state.table == table)
                && wanted.gw.is_none_or(|gw| {
                    state.gateway == Some(gw)
                        || state.hops.iter().any(|hop| hop.gateway == Some(gw))
                })
        })
    };
    let missing = wanted.iter().filter(|route| !is_there(route));
    Ok(missing
        .map(|route| match route.gw {
            Some(gw) => format!("route {} via {gw} is not there", route.dst),
            None => format!("route {} is not there", route.dst),
        })
        .collect())
}

/// How an interface differs from its record.
pub(crate) async fn faults(
    inside: &Conn,
    interface: &InterfaceRecord,
) -> Result<Vec<String>, CniError> {
    let mut faults = Vec::new();
    let link = match inventory::link_named(inside, &interface.ifname).await {
        Ok(link) => link,
        Err(e) if e.is_not_found() => return Ok(vec!["it is not in the pod any more".to_owned()]),
        Err(e) => return Err(e.into()),
    };
    let mut differ = |what: &str, wanted: String, actual: String| {
        if wanted != actual {
            faults.push(format!("{what} is {actual}, not {wanted}"));
        }
    };
    if let Some(index) = interface.index {
        differ("index", index.to_string(), link.index.to_string());
    }
    if let (Some(wanted), Some(actual)) = (interface.mac, link.mac) {
        differ("MAC", wanted.to_string(), actual.to_string());
    }
    differ("MTU", interface.mtu.to_string(), link.mtu.to_string());
    differ(
        "state",
        "up".to_owned(),
        if link.up { "up" } else { "down" }.to_owned(),
    );
    let there: Vec<IpNet> = address::list(inside, Some(link.index))
        .await?
        .iter()
        .map(|a| a.net)
        .collect();
    for ip in interface.ips.iter().filter(|ip| !there.contains(ip)) {
        faults.push(format!("address {ip} is not on it"));
    }
    if interface.rate_bps > 0 {
        match qdisc::current_pacing(inside, link.index).await? {
            Some(pacing) if pacing.rate.bps() == interface.rate_bps => {}
            Some(pacing) => faults.push(format!(
                "it is paced to {}, not {}",
                pacing.rate,
                dtn_api::Rate::from_bps(interface.rate_bps)
            )),
            None => faults.push("it is not paced".to_owned()),
        }
    }
    Ok(faults)
}
