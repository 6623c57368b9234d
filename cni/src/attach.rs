//! ADD: the NIC into the pod, with its addresses, its settings and its pace, and all of it read
//! back before the answer. On failure everything is home again.

use crate::{
    conf::Conf,
    delegate,
    env::{Environment, Verb},
    error::{CniError, Code},
    failpoint,
    reconcile::{self, Leases},
    record::{self, AttachmentRecord, InterfaceRecord, Phase},
    sandbox,
    spec::{self, AddResult},
    supervisor,
    wish::{self, Selector, Wish},
};
use dtn_api::{
    IfName, Rate, attachment::PodIdentity, cluster::ENGINE, local::Notice, nic::NicClass,
};
use dtn_link::{
    Conn, Netns, address,
    inventory::{self, Inventory, LinkState},
    link, macvlan,
    nic::{self, BeforeImage, Move},
    qdisc, route, sysctl, wait,
};
use std::{path::Path, time::Duration};

/// How long a link may take to find its carrier before the answer; a 10G NIC that trains longer
/// comes up by itself, and the log says so.
const CARRIER: Duration = Duration::from_millis(500);

/// The two namespaces of an attachment, with a connection into each.
struct Ends {
    home: Netns,
    host: Conn,
    sandbox: Netns,
    inside: Conn,
}

/// Attaches one interface and returns its result.
pub async fn add(conf: &Conf, env: &Environment) -> Result<AddResult, CniError> {
    let (Some(ifname), Some(path)) = (&env.ifname, &env.netns) else {
        // the environment was checked for this verb
        return Err(CniError::internal(
            "attaching",
            "no interface or no sandbox was named",
        ));
    };
    let ends = open(path, env.netns_override).await?;
    let places = &conf.places;
    let lock = record::lock(places, env.key()).await?;
    clear_leftover(conf, env, ifname, &ends).await?;
    match inventory::link_named(&ends.inside, ifname).await {
        Ok(holder) => {
            let message = format!(
                "the pod has an interface {ifname} already (index {})",
                holder.index
            );
            return Err(CniError::new(
                Code::NameTaken,
                message,
                "choose another CNI_IFNAME",
            ));
        }
        Err(e) if e.is_not_found() => {}
        Err(e) => return Err(e.into()),
    }
    let wish = wish::find(conf, env, ifname).await?;

    failpoint!("add-before-record");
    let mut interface = claim(conf, env, &ends, &wish, path).await?;
    failpoint!("add-after-record");
    let of_a_cluster = |pod: &PodIdentity| pod.engine == ENGINE;
    if wish.pod.as_ref().is_some_and(of_a_cluster) {
        sandbox::pin(places, env.key(), &ends.sandbox);
    }
    failpoint!("add-after-pin");
    match attach(conf, env, &ends, &wish, &mut interface).await {
        Ok(result) => {
            let notice = Notice {
                key: env.key().to_owned(),
                ifname: ifname.clone(),
            };
            // after the lock: whoever hears of it may look at the pod at once
            drop(lock);
            supervisor::attached(&places.socket, &notice).await;
            Ok(result)
        }
        Err(error) => {
            // the lease stays: the pod is still prepared, and the next try gets the same
            match reconcile::locked(places, env.key(), Some(ifname), Leases::Keep).await {
                Ok(_) => Err(error),
                Err(second) => Err(CniError::new(
                    error.code,
                    error.message.clone(),
                    format!(
                        "{}; and taking it back failed, DEL will try again: {second}",
                        error.details
                    ),
                )),
            }
        }
    }
}

async fn open(path: &Path, overridden: bool) -> Result<Ends, CniError> {
    let wrong = |details: String| {
        CniError::new(
            Code::InvalidNetns,
            format!("opening the sandbox {}", path.display()),
            details,
        )
    };
    let sandbox = Netns::open(path).map_err(|e| wrong(e.to_string()))?;
    let home = Netns::current()?;
    if sandbox.inode() == home.inode() && !overridden {
        return Err(wrong("it is the host's own namespace".to_owned()));
    }
    let inside = sandbox.connect().await?;
    Ok(Ends {
        home,
        host: Conn::current()?,
        sandbox,
        inside,
    })
}

/// What an ADD that was cut off, or a sandbox that was made anew, left behind is brought home
/// first. An interface that is attached to this very sandbox is an error of the caller.
async fn clear_leftover(
    conf: &Conf,
    env: &Environment,
    ifname: &IfName,
    ends: &Ends,
) -> Result<(), CniError> {
    let Some(found) = record::read(&conf.places, env.key())? else {
        return Ok(());
    };
    let there = match found.interface(ifname) {
        Some(i) if i.phase == Phase::Attached && i.netns_inode == ends.sandbox.inode() => {
            // inodes are given again: the interface itself must be there as well
            let links = inventory::links(&ends.inside).await?;
            found.is_of_this_boot() && links.iter().any(|link| Some(link.index) == i.index)
        }
        _ => false,
    };
    match found.interface(ifname) {
        Some(_) if there => Err(CniError::new(
            Code::AlreadyAttached,
            format!("{ifname} of {} is attached already", env.key()),
            "call DEL first",
        )),
        Some(_) => reconcile::locked(&conf.places, env.key(), Some(ifname), Leases::Keep)
            .await
            .map(|_| ()),
        None => Ok(()),
    }
}

/// Finds the NIC, makes sure that nobody else has it, and writes the record.
async fn claim(
    conf: &Conf,
    env: &Environment,
    ends: &Ends,
    wish: &Wish,
    path: &Path,
) -> Result<InterfaceRecord, CniError> {
    let _claims = record::lock_claims(&conf.places).await?;
    let host = Inventory::read(&ends.host).await?;
    let (others, unreadable) = record::list(&conf.places);
    for error in unreadable {
        tracing::warn!("{error}");
    }
    // a NIC that another pod holds is not among the host's links: say who has it
    let nic = wish::select(&host.links, ends.home.inode(), &wish.nic)
        .map_err(|e| held_by(&others, wish).unwrap_or(e))?;
    let holder = others.iter().find_map(|record| {
        let same = |i: &&InterfaceRecord| {
            i.before.netns_inode == ends.home.inode()
                && i.before.index == nic.index
                && (i.class == NicClass::Dedicated || wish.class == NicClass::Dedicated)
                && !(record.key == env.key() && i.ifname == wish.ifname)
        };
        record
            .interfaces
            .iter()
            .find(same)
            .map(|i| format!("{} of pod {}", i.ifname, record.key))
    });
    if let Some(holder) = holder {
        let message = format!("NIC {} is held by {holder}", nic.name);
        return Err(CniError::new(
            Code::NicInUse,
            message,
            "choose another NIC or remove that pod",
        ));
    }
    if wish.class == NicClass::Dedicated {
        refuse_needed(&host, nic)?;
    }
    let interface = InterfaceRecord {
        ifname: wish.ifname.clone(),
        prepared_as: wish.prepared_as.clone(),
        network: conf.name.clone(),
        behind: conf.behind.clone(),
        container_id: env.container_id.clone(),
        class: wish.class,
        phase: Phase::Recorded,
        netns: path.to_path_buf(),
        netns_inode: ends.sandbox.inode(),
        before: BeforeImage::capture(&ends.host, &ends.home, nic.index).await?,
        index: None,
        mac: wish.mac,
        mtu: wish.mtu.unwrap_or(nic.mtu),
        ips: wish.ips.iter().map(|ip| ip.address).collect(),
        rate_bps: wish.rate_bps(),
        slices: wish.slices.clone(),
        leases: wish.leases.clone(),
        delegate: delegate::mark(conf, env),
        settings: Vec::new(),
        lacking: Vec::new(),
    };
    save(conf, env, wish, &interface)?;
    // they are in use again: the record has them, so the queue must not
    for lease in &interface.leases {
        reconcile::withdraw_release(&conf.places, lease)?;
    }
    Ok(interface)
}

fn held_by(others: &[AttachmentRecord], wish: &Wish) -> Option<CniError> {
    let Selector::Identity(identity, name) = &wish.nic else {
        return None;
    };
    let holds = |i: &&InterfaceRecord| {
        i.class == NicClass::Dedicated
            && (i.before.permanent_mac.is_some()
                && i.before.permanent_mac == identity.permanent_mac
                || Some(i.before.netns_inode) == identity.netns_inode
                    && Some(i.before.index) == identity.ifindex)
    };
    others.iter().find_map(|record| {
        let interface = record.interfaces.iter().find(holds)?;
        let message = format!(
            "NIC {name} is held by {} of pod {}",
            interface.ifname, record.key
        );
        Some(CniError::new(
            Code::NicInUse,
            message,
            "choose another NIC or remove that pod",
        ))
    })
}

/// The last line of defence: the host is not cut off, whatever was prepared or configured.
fn refuse_needed(host: &Inventory, nic: &LinkState) -> Result<(), CniError> {
    let needed = if host.default_route_links().contains(&nic.index) {
        "it carries the host's default route"
    } else if host.master_of(nic.index).is_some() {
        "it is a port of a bridge or bond"
    } else {
        return Ok(());
    };
    let message = format!("NIC {} cannot be moved into a pod: {needed}", nic.name);
    Err(CniError::new(
        Code::InvalidConfig,
        message,
        "give the pod another NIC",
    ))
}

fn save(
    conf: &Conf,
    env: &Environment,
    wish: &Wish,
    interface: &InterfaceRecord,
) -> Result<(), CniError> {
    let mut record = record::read(&conf.places, env.key())?
        .unwrap_or_else(|| AttachmentRecord::new(env.key(), wish.pod.clone()));
    record.put(interface.clone());
    record.write(&conf.places)
}

/// The steps, each noted before the next.
async fn attach(
    conf: &Conf,
    env: &Environment,
    ends: &Ends,
    wish: &Wish,
    interface: &mut InterfaceRecord,
) -> Result<AddResult, CniError> {
    let arrived = bring_in(ends, wish, interface).await?;
    failpoint!("add-after-link");
    interface.index = Some(arrived.index);
    interface.mac = arrived.mac;
    interface.mtu = arrived.mtu;
    save(conf, env, wish, interface)?;
    failpoint!("add-after-noted");

    let mut wish = wish.clone();
    if let Some(mark) = &interface.delegate {
        let netns = env.netns.as_deref();
        let given = delegate::call(mark, Verb::Add, netns, wish.ifname.as_str()).await?;
        wish.ips = given.ips;
        wish.routes = given.routes;
        wish.dns = given.dns;
        interface.ips = wish.ips.iter().map(|ip| ip.address).collect();
        save(conf, env, &wish, interface)?;
    }
    let name = wish.ifname.as_str();
    sysctl::announce(&ends.sandbox, name).await?;
    if interface.ips.iter().any(|ip| ip.addr().is_ipv6()) {
        sysctl::enable_ipv6(&ends.sandbox, name).await?;
        // before the others are announced: who hears of them sends at once
        if let Some(mac) = arrived.mac {
            address::add_link_local(&ends.inside, arrived.index, mac).await?;
        }
    }
    for ip in &interface.ips {
        address::add(&ends.inside, arrived.index, *ip).await?;
    }
    failpoint!("add-after-addresses");
    let settings: Vec<_> = wish.settings.iter().cloned().map(Into::into).collect();
    interface.settings = dtn_tuning::apply(&ends.sandbox, &settings).await;
    for outcome in interface
        .settings
        .iter()
        .filter(|outcome| !outcome.is_set())
    {
        tracing::warn!("setting {outcome:?} was not taken");
    }
    save(conf, env, &wish, interface)?;
    failpoint!("add-after-settings");
    if interface.rate_bps > 0 {
        let rate = Rate::from_bps(interface.rate_bps);
        let paced = qdisc::pace(&ends.inside, arrived.index, rate).await?;
        for lacking in &paced.lacking {
            tracing::info!("{lacking}");
        }
        interface.lacking = paced.lacking;
    }
    failpoint!("add-after-pacing");
    link::set_up(&ends.inside, arrived.index).await?;
    failpoint!("add-after-up");
    for wanted in &wish.routes {
        add_route(ends, arrived.index, &wish, wanted).await?;
    }
    if let Err(e) = wait::for_carrier(&ends.sandbox, &ends.inside, arrived.index, CARRIER).await {
        tracing::warn!("{e}");
    }
    verify(ends, &wish, interface).await?;
    interface.phase = Phase::Attached;
    save(conf, env, &wish, interface)?;
    failpoint!("add-after-attached");
    Ok(result(env, &wish, interface))
}

async fn bring_in(
    ends: &Ends,
    wish: &Wish,
    interface: &InterfaceRecord,
) -> Result<LinkState, CniError> {
    let index = interface.before.index;
    let arrived = match wish.class {
        NicClass::Dedicated => {
            // an address that is the NIC's own already is not set again: some drivers refuse it
            let mac = wish.mac.filter(|mac| Some(*mac) != interface.before.mac);
            let mtu = wish.mtu.filter(|mtu| *mtu != interface.before.mtu);
            let wanted = Move {
                index,
                netns: &ends.sandbox,
                name: &wish.ifname,
                mac,
                mtu,
            };
            nic::move_in(&ends.host, &ends.home, &ends.inside, &wanted).await?
        }
        NicClass::Shared => {
            let wanted = macvlan::Macvlan {
                master: index,
                netns: &ends.sandbox,
                name: &wish.ifname,
                mode: wish.mode,
                mac: wish.mac,
                mtu: wish.mtu,
            };
            macvlan::create(&ends.host, &ends.inside, &wanted).await?
        }
    };
    Ok(arrived)
}

async fn add_route(
    ends: &Ends,
    index: u32,
    wish: &Wish,
    wanted: &spec::Route,
) -> Result<(), CniError> {
    let of_family =
        |ip: &&spec::Address| ip.address.addr().is_ipv4() == wanted.dst.addr().is_ipv4();
    let gateway = wanted
        .gw
        .or_else(|| wish.ips.iter().filter(of_family).find_map(|ip| ip.gateway));
    let mut state = route::RouteState::new(wanted.dst, index, gateway);
    state.mtu = wanted.mtu;
    state.advmss = wanted.advmss;
    state.priority = wanted.priority;
    if let Some(table) = wanted.table {
        state.table = table;
    }
    Ok(route::add(&ends.inside, &state).await?)
}

/// Nothing is answered on faith: what was set is read back from the kernel.
async fn verify(ends: &Ends, wish: &Wish, interface: &InterfaceRecord) -> Result<(), CniError> {
    let mut faults = crate::check::faults(&ends.inside, interface).await?;
    faults.extend(crate::check::missing_routes(&ends.inside, &wish.routes).await?);
    if faults.is_empty() {
        return Ok(());
    }
    let message = format!("{} is not as it was set", interface.ifname);
    Err(CniError::new(Code::NotAsWanted, message, faults.join("; ")))
}

fn result(env: &Environment, wish: &Wish, interface: &InterfaceRecord) -> AddResult {
    let sandbox = env.netns.as_ref().map(|path| path.display().to_string());
    AddResult {
        interfaces: vec![spec::Interface {
            name: interface.ifname.to_string(),
            mac: interface.mac,
            mtu: Some(interface.mtu),
            sandbox,
            pci_id: interface
                .before
                .device
                .clone()
                .filter(|device| device.contains(':')),
        }],
        ips: wish
            .ips
            .iter()
            .map(|ip| spec::Address {
                interface: Some(0),
                ..ip.clone()
            })
            .collect(),
        routes: wish.routes.clone(),
        dns: wish.dns.clone(),
    }
}
