//! The only code of the appliance that talks to the kernel.
//!
//! * [`netns`]: handles on network namespaces; a throw-away thread is the only thing that enters one.
//! * [`conn`]: a netlink connection whose dumps are whole and whose changes are acknowledged.
//! * [`inventory`], [`sysfs`], [`storage`], [`owner`]: what a host has and who depends on it (facts
//!   only; whether a NIC may be taken is decided elsewhere).
//! * [`nic`]: the before-image of a NIC, its move into a sandbox in one message, and its way home.
//! * [`macvlan`], [`link`]: links that are made and set; [`address`], [`route`]: what is put on them.
//! * [`ethtool`], [`pcie`], [`block`], [`machine`]: how well hardware and host are, for who judges it.
//! * [`qdisc`]: pacing by HTB, TBF or fq, read back from the kernel; [`tc`] holds the bytes.
//! * [`sysctl`], [`counters`]: settings and counters of a namespace; [`nft`]: its packet filter.
//! * [`wait`]: bounded waits on the kernel's own notifications.
//! * [`undo`], [`atomic_file`]: how a change is taken back, and how a record survives a crash.
//!
//! Everything is asynchronous on whatever tokio runtime calls it (current-thread in the plugins,
//! multi-thread in the daemons) and costs a few hundred microseconds a call.
//!
//! Ring sizes, pause frames and offloads are read here and not set: they survive a move between
//! namespaces, and the node image sets them in systemd `.link` files.

pub mod address;
pub mod atomic_file;
pub mod block;
pub mod conn;
pub mod counters;
mod error;
pub mod ethtool;
pub mod inventory;
pub mod link;
pub mod machine;
pub mod macvlan;
pub mod netns;
pub mod nft;
pub mod nic;
pub mod owner;
pub mod pcie;
pub mod qdisc;
pub mod route;
pub mod storage;
pub mod sysctl;
pub mod sysfs;
pub mod tc;
pub mod undo;
pub mod wait;

pub use conn::Conn;
pub use error::{Error, Result};
pub use netns::Netns;
