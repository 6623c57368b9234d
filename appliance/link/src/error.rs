//! One error for all of the crate: what was being done to what, and what the kernel said.

use nix::errno::Errno;
use std::{io, time::Duration};

/// What this crate's functions return.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a netlink request.
    #[error("{doing}: {}{}", errno.desc(), detail(message))]
    Kernel {
        /// What was being done, to what.
        doing: String,
        /// The kernel's number for it.
        errno: Errno,
        /// The kernel's own words, where it gave any (extended acknowledgement).
        message: Option<String>,
    },
    /// A file, a socket or a system call failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, to what.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// A dump was interrupted by changes each time it was tried, so that it may lack objects.
    #[error(
        "{doing}: the kernel's tables changed during each of {tries} dumps; try again when the host is quieter"
    )]
    Interrupted {
        /// What was being done.
        doing: String,
        /// How often it was tried.
        tries: u32,
    },
    /// The netlink connection ended before the kernel had answered.
    #[error("{doing}: the netlink connection ended before an answer came")]
    NoAnswer {
        /// What was being done.
        doing: String,
    },
    /// What was asked for is not there.
    #[error("{what} is not there")]
    NotFound {
        /// What, and where it was looked for.
        what: String,
    },
    /// A name is taken.
    #[error("{what} is taken by another {by}; rename that one or choose another name")]
    Taken {
        /// The name and where.
        what: String,
        /// What has it.
        by: String,
    },
    /// What was given cannot be used.
    #[error("{what}: {why}")]
    Invalid {
        /// What was given.
        what: String,
        /// Why not, and what to do.
        why: String,
    },
    /// Something did not happen in time.
    #[error("{doing}: not within {} ms; last seen: {seen}", within.as_millis())]
    TimedOut {
        /// What was waited for.
        doing: String,
        /// How long.
        within: Duration,
        /// The last state that was seen.
        seen: String,
    },
}

fn detail(message: &Option<String>) -> String {
    message
        .as_deref()
        .map_or_else(String::new, |text| format!(" ({text})"))
}

impl Error {
    pub(crate) fn io(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            doing: doing.into(),
            source: source.into(),
        }
    }
    pub(crate) fn not_found(what: impl Into<String>) -> Self {
        Self::NotFound { what: what.into() }
    }
    pub(crate) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid {
            what: what.into(),
            why: why.into(),
        }
    }

    /// The system's error number, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel { errno, .. } => Some(*errno),
            Self::Io { source, .. } => source.raw_os_error().map(Errno::from_raw),
            _ => None,
        }
    }
    /// The thing is gone: for a release that is success.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
            || matches!(
                self.errno(),
                Some(Errno::ENODEV | Errno::ENOENT | Errno::ESRCH)
            )
    }
    /// The thing is there already.
    pub fn is_exists(&self) -> bool {
        matches!(self, Self::Taken { .. }) || self.errno() == Some(Errno::EEXIST)
    }
    /// The same call may succeed later without anything being changed by hand.
    pub fn retryable(&self) -> bool {
        matches!(
            self,
            Self::Interrupted { .. } | Self::NoAnswer { .. } | Self::TimedOut { .. }
        ) || matches!(
            self.errno(),
            Some(Errno::EBUSY | Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM | Errno::EINTR)
        )
    }
}
