//! Why bytes are no frame, and why a frame cannot be bytes.

/// Why bytes could not be read as OpenFlow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Another version of the protocol, in a message that only version 4 may send here.
    #[error("message has wire version {version:#04x}, this side speaks 0x04 (OpenFlow 1.3)")]
    Version {
        /// The version in the header.
        version: u8,
    },
    /// A length field that cannot be true.
    #[error("{what} says that it is {length} bytes long, which cannot be")]
    Length {
        /// The structure whose length field this is.
        what: &'static str,
        /// What the field says, in bytes.
        length: usize,
    },
    /// The bytes end before the structure does.
    #[error("{what} needs {needs} more bytes and {left} are left")]
    Short {
        /// The structure that was being read.
        what: &'static str,
        /// Bytes its next part needs.
        needs: usize,
        /// Bytes that are there.
        left: usize,
    },
    /// The structure ends before the bytes do.
    #[error("{what} is followed by {left} bytes that belong to nothing")]
    Trailing {
        /// The structure that was read.
        what: &'static str,
        /// Bytes left over.
        left: usize,
    },
    /// A match in a format other than OXM (§7.2.3.1 deprecates the only other one).
    #[error("match has type {kind}, only type 1 (OXM) is known")]
    MatchKind {
        /// The type field of the match.
        kind: u16,
    },
}

/// The message does not fit the length fields of the protocol: a frame is at most 65,535 bytes, a
/// match field at most 255, the name of a port at most 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} does not fit in an OpenFlow message: say it in several")]
pub struct TooLong {
    /// The first part that did not fit.
    pub what: &'static str,
}
