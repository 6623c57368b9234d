//! CNI plugins that give a pod a NIC of its own (`vdn-host-device`), a child of a shared one
//! (`vdn-macvlan`) or what its claims were prepared (`vdn-chain`), and the record that brings everything home, whatever died in between.
//!
//! The way of an ADD: [`mod@env`] and [`conf`] say what the runtime wants, [`wish`] joins that with
//! what was prepared, [`attach`] writes the [`record`] and acts on the kernel, [`spec`] prints the
//! result. DEL, GC, the boot and the supervisor all call [`reconcile`], which needs nothing but the
//! record. [`run`] is the loop around it all.
//!
//! Plugins start for every pod, so they carry no TLS, no configuration layers and no Kubernetes:
//! they speak HTTP/1.1 on the supervisor's unix socket ([`supervisor`]) and netlink.

pub mod attach;
pub mod chain;
pub mod check;
pub mod conf;
pub mod conflist;
pub mod delegate;
pub mod env;
pub mod error;
pub mod failpoint;
pub mod gc;
pub mod guard;
pub mod ipam;
pub mod prepared;
pub mod reconcile;
pub mod record;
pub mod run;
mod sandbox;
pub mod spec;
pub mod status;
pub mod supervisor;
pub mod wish;

pub use error::CniError;
