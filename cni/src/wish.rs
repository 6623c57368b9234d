//! What an interface shall be: the prepared file joined with the network's configuration.
//!
//! Prepared values win, since the supervisor has negotiated them; the configuration fills what was
//! not prepared.

use crate::{
    conf::{Conf, Ipam, NicChoice, Places},
    env::Environment,
    error::{CniError, Code},
    record::LeaseMark,
    spec::{Address, Route},
    supervisor,
};
use dtn_api::{
    IfName, MacAddress,
    attachment::{
        PREPARED_VERSION, PodIdentity, Prepared, PreparedInterface, SandboxSetting, SliceBinding,
    },
    local::PrepareRequest,
    nic::{NicClass, NicIdentity},
};
use dtn_link::{atomic_file, inventory::LinkState, macvlan::Mode};

/// Longest prepared file that is read.
const LONGEST: u64 = 1 << 20;

/// How the NIC is found on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// By what it is.
    Identity(NicIdentity, IfName),
    /// By what the configuration says.
    Choice(NicChoice),
}

/// What an interface shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Its name in the pod.
    pub ifname: IfName,
    /// Which NIC.
    pub nic: Selector,
    /// Moved whole, or a macvlan child.
    pub class: NicClass,
    /// Mode of a macvlan child.
    pub mode: Mode,
    /// Its hardware address; its own when absent.
    pub mac: Option<MacAddress>,
    /// Its MTU in bytes; the NIC's when absent.
    pub mtu: Option<u32>,
    /// Its addresses.
    pub ips: Vec<Address>,
    /// Its routes.
    pub routes: Vec<Route>,
    /// Name service.
    pub dns: Option<serde_json::Value>,
    /// Leases behind the addresses.
    pub leases: Vec<LeaseMark>,
    /// Slices.
    pub slices: Vec<SliceBinding>,
    /// Kernel settings of the sandbox.
    pub settings: Vec<SandboxSetting>,
    /// Which pod.
    pub pod: Option<PodIdentity>,
}

impl Wish {
    /// What it is paced to: the slices' rates together; 0 is unpaced.
    pub fn rate_bps(&self) -> u64 {
        self.slices
            .iter()
            .map(|slice| slice.rate_bps)
            .fold(0, u64::saturating_add)
    }
}

/// The wish for one interface. Asks the supervisor only when nothing was prepared and the
/// configuration alone is not enough.
pub async fn find(conf: &Conf, env: &Environment, ifname: &IfName) -> Result<Wish, CniError> {
    let prepared = match read_prepared(&conf.places, env.key())? {
        Some(prepared) => Some(prepared),
        None if conf.ipam == Ipam::Own || conf.nic.is_empty() => {
            Some(supervisor::prepare(&conf.places.socket, &question(conf, env, ifname)).await?)
        }
        None => None,
    };
    let Some(prepared) = prepared else {
        return from_configuration(conf, env, ifname);
    };
    let interface = prepared.interfaces.iter().find(|i| i.ifname == *ifname);
    match interface {
        Some(interface) if interface.class != conf.class => {
            let details = format!(
                "{ifname} was prepared on a {} NIC, and this plugin attaches {} ones: use the other plugin in network {}",
                interface.class, conf.class, conf.name
            );
            Err(CniError::new(
                Code::InvalidConfig,
                "attaching what was prepared",
                details,
            ))
        }
        Some(interface) => Ok(from_prepared(conf, interface, &prepared.pod)),
        None => {
            let names: Vec<_> = prepared
                .interfaces
                .iter()
                .map(|i| i.ifname.as_str())
                .collect();
            let details = format!(
                "prepared are [{}]: name one of them in CNI_IFNAME",
                names.join(" ")
            );
            let message = format!(
                "nothing was prepared for interface {ifname} of {}",
                env.key()
            );
            Err(CniError::new(Code::InvalidConfig, message, details))
        }
    }
}

pub(crate) fn question(conf: &Conf, env: &Environment, ifname: &IfName) -> PrepareRequest {
    PrepareRequest {
        key: env.key().to_owned(),
        network: conf.name.clone(),
        ifname: ifname.clone(),
        class: conf.class,
        nic: conf.nic.name.clone(),
        slice: conf.slice.clone(),
        pod_namespace: env.args.get("K8S_POD_NAMESPACE").cloned(),
        pod_name: env.args.get("K8S_POD_NAME").cloned(),
    }
}

/// The prepared file of a key; `None` when there is none.
pub fn read_prepared(places: &Places, key: &str) -> Result<Option<Prepared>, CniError> {
    let file = places.prepared().join(dtn_api::attachment::file_name(key));
    let Some(bytes) = atomic_file::read(&file, LONGEST)? else {
        return Ok(None);
    };
    let doing = || format!("reading what was prepared, {}", file.display());
    let prepared: Prepared = serde_json::from_slice(&bytes)
        .map_err(|e| CniError::new(Code::Io, doing(), e.to_string()))?;
    if prepared.version > PREPARED_VERSION {
        let details = format!(
            "its version is {}, this build knows {PREPARED_VERSION}",
            prepared.version
        );
        return Err(CniError::new(Code::Io, doing(), details));
    }
    Ok(Some(prepared))
}

pub(crate) fn from_prepared(conf: &Conf, interface: &PreparedInterface, pod: &PodIdentity) -> Wish {
    let leases = &interface.leases;
    let address = |ip: &ipnet::IpNet| Address {
        address: *ip,
        gateway: None,
        interface: Some(0),
    };
    let route = |route: &dtn_api::lease::Route| Route {
        dst: route.dst,
        gw: route.gw,
        mtu: None,
        advmss: None,
        priority: None,
        table: None,
    };
    let servers: Vec<_> = leases.iter().flat_map(|lease| &lease.dns).collect();
    Wish {
        ifname: interface.ifname.clone(),
        nic: Selector::Identity(interface.nic.clone(), interface.nic_name.clone()),
        class: interface.class,
        mode: conf.mode,
        mac: Some(interface.mac),
        mtu: Some(interface.mtu),
        ips: leases
            .iter()
            .flat_map(|lease| lease.ips.iter().map(address))
            .collect(),
        routes: leases
            .iter()
            .flat_map(|lease| lease.routes.iter().map(route))
            .collect(),
        dns: (!servers.is_empty()).then(|| serde_json::json!({"nameservers": servers})),
        leases: leases.iter().map(LeaseMark::of).collect(),
        slices: interface.slices.clone(),
        settings: interface.settings.clone(),
        pod: Some(pod.clone()),
    }
}

fn from_configuration(conf: &Conf, env: &Environment, ifname: &IfName) -> Result<Wish, CniError> {
    // as the reference does it: configuration, CNI_ARGS, and over both the runtime
    let of_args = env.args.get("MAC").map(|text| {
        text.parse()
            .map_err(|e| CniError::new(Code::InvalidEnvironment, "CNI_ARGS: MAC", format!("{e}")))
    });
    let mac = match (conf.runtime_mac, of_args) {
        (Some(mac), _) => Some(mac),
        (None, Some(mac)) => Some(mac?),
        (None, None) => conf.mac,
    };
    // a child that is made again has the same address, so that no switch learns a new one; in
    // mode passthru the address is the NIC's
    let own = || MacAddress::local_from(&format!("{}/{}/{ifname}", conf.name, env.key()));
    let made = conf.class == NicClass::Shared && conf.mode != Mode::Passthru;
    Ok(Wish {
        ifname: ifname.clone(),
        nic: Selector::Choice(conf.nic.clone()),
        class: conf.class,
        mode: conf.mode,
        mac: mac.or_else(|| made.then(own)),
        mtu: conf.mtu,
        ips: Vec::new(),
        routes: Vec::new(),
        dns: None,
        leases: Vec::new(),
        slices: Vec::new(),
        settings: Vec::new(),
        pod: None,
    })
}

/// The NIC that a selector means, among the links of the host.
pub fn select<'a>(
    links: &'a [LinkState],
    netns_inode: u64,
    selector: &Selector,
) -> Result<&'a LinkState, CniError> {
    let found = match selector {
        Selector::Identity(identity, _) => {
            links.iter().find(|link| is(link, netns_inode, identity))
        }
        Selector::Choice(choice) => links.iter().find(|link| {
            // each that was named must hold
            !choice.is_empty()
                && choice
                    .name
                    .as_ref()
                    .is_none_or(|name| link.is_named(name.as_str()))
                && choice.mac.is_none_or(|mac| link.mac == Some(mac))
                && choice
                    .pci
                    .as_ref()
                    .is_none_or(|pci| link.pci().as_ref() == Some(pci))
        }),
    };
    found.filter(|link| !link.loopback).ok_or_else(|| {
        let (what, remedy) = match selector {
            Selector::Identity(identity, name) => (
                format!("NIC {name} ({identity:?})"),
                "is it held by another pod, or unplugged?",
            ),
            Selector::Choice(choice) if choice.is_empty() => (
                "a NIC".to_owned(),
                "name one by device (or master), hwaddr or pciBusID",
            ),
            Selector::Choice(choice) => (
                format!("NIC {choice:?}"),
                "is it held by another pod, or misspelt?",
            ),
        };
        CniError::new(
            Code::InvalidConfig,
            format!("{what} is not on this host"),
            remedy,
        )
    })
}

fn is(link: &LinkState, netns_inode: u64, identity: &NicIdentity) -> bool {
    if identity.pci.is_some() || identity.permanent_mac.is_some() {
        return identity
            .pci
            .as_ref()
            .is_none_or(|pci| link.pci().as_ref() == Some(pci))
            && identity
                .permanent_mac
                .is_none_or(|mac| link.permanent_mac == Some(mac));
    }
    identity.netns_inode == Some(netns_inode) && identity.ifindex == Some(link.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, mac: &str) -> LinkState {
        LinkState {
            index,
            name: name.into(),
            mac: mac.parse().ok(),
            kind: Some("veth".into()),
            ..LinkState::default()
        }
    }

    #[test]
    fn a_nic_is_found_by_what_it_is_and_not_by_what_it_is_called() {
        let links = [
            link(4, "data0", "02:00:00:00:00:01"),
            link(5, "data1", "02:00:00:00:00:02"),
        ];
        let identity = NicIdentity {
            pci: None,
            permanent_mac: None,
            netns_inode: Some(77),
            ifindex: Some(5),
        };
        let selector = Selector::Identity(identity, "data0".parse().unwrap());
        assert_eq!(select(&links, 77, &selector).unwrap().name, "data1");
        assert!(
            select(&links, 78, &selector).is_err(),
            "another namespace, another link"
        );
    }

    #[test]
    fn everything_that_a_configuration_names_must_hold() {
        let links = [link(4, "data0", "02:00:00:00:00:01")];
        let choice = |name: Option<&str>, mac: Option<&str>| {
            Selector::Choice(NicChoice {
                name: name.map(|n| n.parse().unwrap()),
                mac: mac.map(|m| m.parse().unwrap()),
                pci: None,
            })
        };
        assert!(select(&links, 1, &choice(Some("data0"), None)).is_ok());
        assert!(select(&links, 1, &choice(Some("data0"), Some("02:00:00:00:00:09"))).is_err());
        assert!(select(&links, 1, &choice(None, None)).is_err());
    }
}
