//! What an interface of a gateway shall be, written down before it comes in: the NIC outside, and in
//! each slice a child of the NIC inside with the addresses of a lease.

use super::{NETWORK, Round, SliceWanted, outside_name};
use crate::{
    failpoint,
    pods::{pacing, prepare},
};
use dtn_api::{
    MacAddress, Problem, attachment::PreparedInterface, lease::LeaseRequest, nic::NicClass,
    problem::Kind,
};

impl Round<'_> {
    /// Prepares the interface outside, on the NIC that is configured, where nobody else has it.
    pub(super) fn prepare_outside(&self) -> Result<(), Problem> {
        let selector = &self.config.outside;
        let nic = self.nic(selector).ok_or_else(|| {
            self.problem(&format!(
                "its NIC outside, with {selector}, is not on this host"
            ))
        })?;
        let key = self.key();
        let others = nic.used_by.iter().filter(|other| **other != key);
        let mut against: Vec<String> = nic.guarded.clone();
        if self.config.outside_class == NicClass::Dedicated {
            against.extend(others.map(|other| format!("{other} has it")));
        }
        if !against.is_empty() {
            let why = format!(
                "{} cannot be its NIC outside: {}",
                nic.name,
                against.join("; ")
            );
            return Err(Problem::new(Kind::StateConflict, why));
        }
        let mac = match self.config.outside_class {
            NicClass::Dedicated => nic.mac,
            NicClass::Shared => {
                MacAddress::local_from(&format!("gateway:{}/outside", self.config.name))
            }
        };
        self.hold(PreparedInterface {
            ifname: outside_name()?,
            network: NETWORK.to_owned(),
            class: self.config.outside_class,
            nic_name: nic.name.clone(),
            nic: nic.identity.clone(),
            mac,
            mtu: nic.mtu,
            leases: Vec::new(),
            slices: Vec::new(),
            settings: Vec::new(),
            profile: None,
        })
    }

    fn hold(&self, interface: PreparedInterface) -> Result<(), Problem> {
        let mut prepared = self.prepared()?;
        prepared
            .interfaces
            .retain(|other| other.ifname != interface.ifname);
        prepared.interfaces.push(interface);
        prepare::write(self.host, &prepared)
    }

    /// Has the gateway's addresses in a slice.
    pub(super) async fn prepare(&self, wanted: &SliceWanted) -> Result<(), Problem> {
        let (id, name) = (wanted.binding.id, &wanted.binding.name);
        let selector = &self.config.inside;
        let nic = self.nic(selector).cloned().ok_or_else(|| {
            self.problem(&format!(
                "its NIC inside, with {selector}, is not on this host"
            ))
        })?;
        let client = format!("gateway:{}", self.config.name);
        // the same after every restart, and another one in each slice
        let mac = MacAddress::local_from(&format!("{client}/{id}"));
        let request = LeaseRequest {
            client_id: client,
            mac,
            location: None,
            requested_ips: wanted.requested.clone(),
            lease_seconds: None,
            labels: prepare::labels(self.host, &nic.name),
        };
        let mut lease = self.host.uplink.lease(id, &request).await?;
        failpoint::reach("leased").await;
        // it is the way out itself
        lease.routes.clear();
        if lease.mtu > nic.mtu {
            let why = format!(
                "slice {name} has an MTU of {}, and the NIC {} inside has {}: ip link set {} mtu {}",
                lease.mtu, nic.name, nic.mtu, nic.name, lease.mtu
            );
            prepare::give_back(self.host, &lease, "the gateway's NIC has a smaller MTU").await?;
            return Err(Problem::new(Kind::StateConflict, why));
        }
        let mut binding = wanted.binding.clone();
        if binding.rate_bps == 0 {
            binding.rate_bps = pacing::best_effort(nic.speed).bps();
        }
        self.hold(PreparedInterface {
            ifname: wanted.ifname.clone(),
            network: NETWORK.to_owned(),
            class: NicClass::Shared,
            nic_name: nic.name.clone(),
            nic: nic.identity.clone(),
            mac,
            mtu: lease.mtu,
            leases: vec![lease],
            slices: vec![binding],
            settings: Vec::new(),
            profile: None,
        })
    }
}
