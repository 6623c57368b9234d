//! `vdnd`: the controller of one VDN domain. Slices, leases and access to other domains, decided in
//! pure code, kept in a durable store, served over TLS and a unix socket.
//!
//! The way of a request: [`serve`] takes the connection and knows who calls ([`auth`]),
//! [`routes`] read it, [`engine`] decides with the rules of [`slices`], [`admission`],
//! [`topology`], [`leases`], [`stitches`], [`gateways`], [`access`] and makes the decision durable
//! ([`store`], [`state`]) before it is answered. What the slices then need of the network is told to
//! the [`fabric`], which says what it has read back. Hosts that speak no REST ask for their address by
//! [`dhcp`].
//!
//! A library first: `dtnd` and every test can run one in their own process.

pub mod access;
pub mod addresses;
pub mod admission;
pub mod auth;
pub mod authority;
pub mod config;
pub mod dhcp;
pub mod document;
pub mod engine;
pub mod enrolled;
pub mod fabric;
mod failpoint;
pub mod gateways;
pub mod invitations;
pub mod labels;
pub mod leases;
pub mod members;
pub mod routes;
pub mod serve;
pub mod slices;
pub mod state;
pub mod stitches;
pub mod store;
pub mod topology;
mod whole_file;

pub use config::Config;
pub use serve::{reload_file, run, run_and_reload};
