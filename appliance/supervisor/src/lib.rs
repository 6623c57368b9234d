//! The supervisor of a DTN: one per host. It knows the NICs that the site gave, negotiates slices
//! for them, prepares and runs transfer pods, keeps their leases alive, and says how all of it is.
//!
//! * [`config`], [`places`]: what the admin wrote, and where everything is.
//! * [`inventory`] with [`guard`]: the NICs, and which of them must never be taken; [`switch_on`].
//! * [`identity`], [`uplink`]: who this host is in its domain, and how it speaks to the controller;
//!   [`certificate`] renews itself.
//! * [`negotiate`] (pure) with [`driver`]: how a wish becomes a slice.
//! * [`slices`], [`renew`], [`releases`]: slices, leases and what has still to be given back.
//! * [`pods`]: prepare, engine, attachment, rescue, pacing.
//! * [`cluster`]: this host as a node of Kubernetes.
//! * [`shim`]: the host's own way to pods on macvlan.
//! * [`gateway`]: forwarding between slices and an external network, by access rules.
//! * [`reload`], [`trial`]: the configuration read again while everything runs, and tried for a time.
//! * [`local_api`], [`metrics`], [`watchdog`]: how others see it.
//!
//! Everything is put together in [`daemon`]; the parts get what they need from a [`Host`].

pub mod certificate;
pub mod cluster;
pub mod config;
pub mod daemon;
pub mod declare;
pub mod driver;
mod failpoint;
pub mod gateway;
pub mod host_facts;
pub mod identity;
pub mod inventory;
pub mod local_api;
pub mod metrics;
pub mod negotiate;
pub mod places;
pub mod pods;
pub mod releases;
pub mod reload;
pub mod renew;
pub mod shim;
pub mod slices;
pub mod switch_on;
pub mod trial;
pub mod uplink;
pub mod watchdog;

pub use config::Config;
pub use dtn_cni::guard;
pub use inventory::Inventory;
pub use places::Places;
pub use uplink::{SliceView, Uplink};

use std::sync::Arc;
use tokio::sync::watch;

/// What every part of the supervisor stands on.
#[derive(Debug)]
pub struct Host {
    /// What the admin wrote; it changes when it is read again.
    config: watch::Sender<Arc<Config>>,
    /// Where everything is.
    pub places: Places,
    /// The NICs.
    pub inventory: Inventory,
    /// The way to the controller.
    pub uplink: Uplink,
}

impl Host {
    /// Puts the parts together; nothing runs yet and nothing is asked of anyone.
    pub fn new(config: Config, places: Places) -> Arc<Self> {
        let inventory = Inventory::new(&config, &places);
        let uplink = Uplink::new(&config, &places);
        Arc::new(Self {
            config: watch::Sender::new(Arc::new(config)),
            places,
            inventory,
            uplink,
        })
    }
    /// What the admin wrote, as it is now.
    pub fn config(&self) -> Arc<Config> {
        self.config.borrow().clone()
    }
    /// From now on this holds.
    pub fn set(&self, config: Config) {
        self.inventory.give(&config.nics);
        self.config.send_replace(Arc::new(config));
    }
    /// Tells when it changes.
    pub fn changes(&self) -> watch::Receiver<Arc<Config>> {
        self.config.subscribe()
    }
}
