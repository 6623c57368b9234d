//! What an interface shall be: the prepared file joined with the network's configuration.
//!
//! Prepared values win, since the supervisor has negotiated them; the configuration fills what was
//! not prepared.

use crate::{
    conf::{Conf, Ipam, NicChoice},
    env::Environment,
    error::{CniError, Code},
    prepared,
    record::{self, LeaseMark},
    spec::{Address, Route},
    supervisor,
};
use dtn_api::{
    IfName, MacAddress,
    attachment::{PodIdentity, Prepared, PreparedInterface, SandboxSetting, SliceBinding},
    cluster::ENGINE,
    local::PrepareRequest,
    nic::{NicClass, NicIdentity},
};
use dtn_link::{inventory::LinkState, macvlan::Mode};

/// The interface of every pod's own network, by the Kubernetes runtime interface.
const PRIMARY: &str = "eth0";

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
    /// Its name in what was prepared, where that is another.
    pub prepared_as: Option<IfName>,
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
    /// What it is paced to: the slices' rates together, or its parts of them; 0 is unpaced.
    pub fn rate_bps(&self) -> u64 {
        self.slices
            .iter()
            .map(SliceBinding::paced_bps)
            .fold(0, u64::saturating_add)
    }
}

/// The wish for one interface. Asks the supervisor only when nothing was prepared and the
/// configuration alone is not enough.
pub async fn find(conf: &Conf, env: &Environment, ifname: &IfName) -> Result<Wish, CniError> {
    let found = prepared::read(&conf.places, env.key())?;
    if let Some(prepared) = &found
        && let Some(interface) = chosen(conf, env, ifname, prepared)?
    {
        if interface.class != conf.class {
            let details = format!(
                "{ifname} was prepared on a {} NIC, and this plugin attaches {} ones: use the other plugin in network {}",
                interface.class, conf.class, conf.name
            );
            return Err(CniError::new(
                Code::InvalidConfig,
                "attaching what was prepared",
                details,
            ));
        }
        let mut wish = from_prepared(conf, interface, &prepared.pod);
        wish.prepared_as = (*ifname != interface.ifname).then(|| interface.ifname.clone());
        wish.ifname = ifname.clone();
        return Ok(wish);
    }
    match found {
        // a pod of the supervisor's has what was prepared and nothing else; one of a cluster may
        // have interfaces by a claim, and others by what its networks are configured to
        Some(prepared) if prepared.pod.engine != ENGINE => {
            Err(not_prepared(env.key(), ifname, &prepared))
        }
        _ if conf.ipam == Ipam::Own || conf.nic.is_empty() => {
            let prepared =
                supervisor::prepare(&conf.places.socket, &question(conf, env, ifname)).await?;
            match prepared.interfaces.iter().find(|i| i.ifname == *ifname) {
                Some(interface) => Ok(from_prepared(conf, interface, &prepared.pod)),
                None => Err(not_prepared(env.key(), ifname, &prepared)),
            }
        }
        _ => from_configuration(conf, env, ifname),
    }
}

fn not_prepared(key: &str, ifname: &IfName, prepared: &Prepared) -> CniError {
    let names: Vec<_> = prepared
        .interfaces
        .iter()
        .map(|i| i.ifname.as_str())
        .collect();
    let details = format!(
        "prepared are [{}]: name one of them in CNI_IFNAME",
        names.join(" ")
    );
    let message = format!("nothing was prepared for interface {ifname} of {key}");
    CniError::new(Code::InvalidConfig, message, details)
}

/// Which of what was prepared is meant: the one of this name. Multus numbers its interfaces (`net1`,
/// `net2`) and knows nothing of the names in claims, so under another name it is the one that a claim
/// brought, of the plugin's class and with the device that Multus names, that is not in the pod yet;
/// when it could be two of them, the network has to say which. `eth0` is the cluster's own, and a
/// network with a slice of its own asks for that.
fn chosen<'a>(
    conf: &Conf,
    env: &Environment,
    ifname: &IfName,
    prepared: &'a Prepared,
) -> Result<Option<&'a PreparedInterface>, CniError> {
    if let Some(exact) = prepared.interfaces.iter().find(|i| i.ifname == *ifname) {
        return Ok(Some(exact));
    }
    if ifname.as_str() == PRIMARY || conf.slice.is_some() {
        return Ok(None);
    }
    let record = record::read(&conf.places, env.key())?;
    let attached = |i: &PreparedInterface| {
        let mut records = record.iter();
        records.any(|record| record.of_prepared(&i.ifname).is_some())
    };
    let meant: Vec<_> = prepared
        .interfaces
        .iter()
        .filter(|i| prepared::is_of_a_claim(prepared, i) && i.class == conf.class)
        .filter(|i| names(&conf.nic, i) && !attached(i))
        .collect();
    match meant.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        several => {
            let names: Vec<_> = several.iter().map(|i| i.ifname.as_str()).collect();
            let details = format!(
                "it could be any of [{}]: name the interface so, or give the network the device \
                 (capabilities: deviceID)",
                names.join(" ")
            );
            let message = format!(
                "interface {ifname} of {} was prepared by no name",
                env.key()
            );
            Err(CniError::new(Code::InvalidConfig, message, details))
        }
    }
}

/// Whether a choice names the NIC of what was prepared; one without a word names any.
fn names(choice: &NicChoice, interface: &PreparedInterface) -> bool {
    let NicChoice { name, mac, pci } = choice;
    let by_name = name.as_ref().is_none_or(|n| *n == interface.nic_name);
    let by_pci = pci
        .as_ref()
        .is_none_or(|p| interface.nic.pci.as_ref() == Some(p));
    let macs = [Some(interface.mac), interface.nic.permanent_mac];
    by_name && by_pci && mac.is_none_or(|mac| macs.contains(&Some(mac)))
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
        prepared_as: None,
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
        prepared_as: None,
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
