//! What the settings of a transfer pod's sandbox should be, and why; applied and read back.
//!
//! * [`sizing`]: arithmetic of buffers and streams, pure.
//! * [`profile`]: the settings of the profile `dtn` for a path, each with its reason and source.
//! * [`mod@controls`]: which congestion controls a sandbox of this host may choose.
//! * [`health`]: whether host and NICs are what the site paid for, judged from facts.
//! * [`mod@apply`]: what was there before, what is there now, and the way back.
//!
//! Only settings of a network namespace are here: a sandbox starts with the kernel's defaults for
//! most of them whatever the host has, and what it does inherit is copied once, when it is made.

pub mod apply;
pub mod controls;
pub mod health;
pub mod profile;
pub mod sizing;

pub use apply::{Outcome, apply, drift, restore};
pub use controls::{Controls, allow, controls};
pub use profile::{CongestionControl, Profile, Setting, dtn};
pub use sizing::Path;
