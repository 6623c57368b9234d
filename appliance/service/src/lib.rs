//! A daemon's relation to the service manager, the same for `dtnd` and `vdnd`: what it is told
//! ([`notify`]), a reload and its outcome ([`reload`]), the end ([`stop`]), sockets that it opened
//! before ([`sockets`]), secrets that it hands over ([`credentials`]) and the journal ([`log`]).
//!
//! Started by hand, in a lab or in a container there is no service manager: then each of these does
//! nothing, or the same by itself.

pub mod credentials;
pub mod log;
pub mod notify;
pub mod reload;
pub mod sockets;
pub mod stop;

/// Exit status when the configuration is not valid (sysexits.h EX_CONFIG); the units do not restart on it.
pub const INVALID_CONFIG: u8 = 78;
