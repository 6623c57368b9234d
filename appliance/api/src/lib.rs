//! The vocabulary of the appliance: the nouns, the units and both REST contracts, without I/O.
//!
//! * [`units`] and [`names`]: values that cannot be wrong once they exist.
//! * [`nic`], [`pattern`], [`attachment`]: what a host has, how its NICs are told, and what a pod gets.
//! * [`mod@slice`], [`lease`], [`host`], [`domain`], [`stitch`], [`fabric`], [`gateway`]: the VDN contract v1, spoken by `vdnd`.
//! * [`local`]: the contract of the supervisor `dtnd` on its unix socket.
//! * [`running`]: the configuration that a daemon runs with, and reading it again.
//! * [`problem`]: how both say no (RFC 9457).
//! * `layered` (feature `config`): TOML and drop-ins, all problems at once.
//! * `client` (feature): one client for both contracts.
//!
//! Words: a **NIC** is a device the site gave to the appliance, **dedicated** (moved whole into one
//! pod) or **shared** (macvlan children). A **slice** is a reservation of bandwidth between
//! **members**. A **lease** is an address that vDHCP gave for a time. An **attachment** is one
//! interface of one pod. A **domain** is the realm of one `vdnd`; a **federation** the standing
//! agreement of two; a **stitch** joins a slice of one domain with a slice of another.

pub mod attachment;
#[cfg(feature = "client")]
pub mod client;
pub mod cluster;
pub mod domain;
pub mod fabric;
pub mod gateway;
pub mod host;
#[cfg(feature = "config")]
pub mod layered;
pub mod lease;
pub mod local;
pub mod names;
pub mod nic;
pub mod node;
pub mod pattern;
pub mod problem;
pub mod running;
pub mod slice;
pub mod stitch;
pub mod units;

pub use names::{HostId, IfName, MacAddress, Name, PciAddress};
pub use pattern::Pattern;
pub use problem::Problem;
pub use units::{Rate, Size, Span};

/// Path prefix of the VDN contract that `vdnd` serves.
pub const VDN_BASE: &str = "/vdn/v1";
/// Path prefix of the supervisor's contract that `dtnd` serves on its unix socket.
pub const LOCAL_BASE: &str = "/dtn/v1";
/// Where a host keeps its state when no `--root` is given.
pub const STATE_DIR: &str = "/var/lib/dtn";
/// Where sockets and prepared files are, gone with a reboot.
pub const RUN_DIR: &str = "/run/dtn";
/// Where the configuration of an installed host is, that of both daemons.
pub const CONFIG_FILE: &str = "/etc/dtn/appliance.toml";
/// Socket of `dtnd`, below the root.
pub const DTND_SOCKET: &str = "/run/dtn/dtnd.sock";
/// Socket of `vdnd`, below the root.
pub const VDND_SOCKET: &str = "/run/dtn/vdnd.sock";
