//! Bytes being written: lengths filled in afterwards, padding to eight, and a note of what did not
//! fit.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A message on its way to bytes.
pub(crate) struct Writer {
    bytes: Vec<u8>,
    /// The first part that was longer than its length field can say.
    overflow: Option<&'static str>,
}

/// A value of fixed size, in network byte order.
pub(crate) trait Octets {
    /// How many bytes the value takes.
    const SIZE: u8;
    fn write(&self, writer: &mut Writer);
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(64),
            overflow: None,
        }
    }

    /// Where the next byte goes.
    pub(crate) fn position(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn put(&mut self, value: impl Octets) {
        value.write(self);
    }

    pub(crate) fn slice(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn zeros(&mut self, count: usize) {
        self.bytes.resize(self.bytes.len() + count, 0);
    }

    /// Zero bytes until what began at `start` is a multiple of eight long.
    pub(crate) fn pad(&mut self, start: usize) {
        let length = self.bytes.len() - start;
        self.zeros(length.next_multiple_of(8) - length);
    }

    /// Writes at `at` how many bytes there are since `start`.
    pub(crate) fn length(&mut self, what: &'static str, at: usize, start: usize) {
        let length = self.narrow(what, self.bytes.len() - start);
        if let Some(field) = self.bytes.get_mut(at..at + 2) {
            field.copy_from_slice(&u16::to_be_bytes(length));
        }
    }

    /// The length as the field says it; one that does not fit is noted and the frame never sent.
    pub(crate) fn narrow<T: TryFrom<usize> + Default>(
        &mut self,
        what: &'static str,
        length: usize,
    ) -> T {
        T::try_from(length).unwrap_or_else(|_| {
            self.overflow.get_or_insert(what);
            T::default()
        })
    }

    /// A structure of `kind: u16, length: u16, …`, padded to eight bytes, the padding counted.
    pub(crate) fn element(&mut self, what: &'static str, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.position();
        self.put(kind);
        self.zeros(2);
        body(self);
        self.pad(start);
        self.length(what, start + 2, start);
    }

    /// Text in a field of fixed size that must end with a zero byte.
    pub(crate) fn text(&mut self, what: &'static str, text: &str, size: usize) {
        let bytes = text.as_bytes();
        if bytes.len() >= size {
            self.overflow.get_or_insert(what);
        }
        let kept = bytes.get(..size - 1).unwrap_or(bytes);
        self.slice(kept);
        self.zeros(size - kept.len());
    }

    pub(crate) fn finish(self) -> Result<Vec<u8>, &'static str> {
        self.overflow.map_or(Ok(self.bytes), Err)
    }
}

macro_rules! integers {
    ($($kind:ty = $size:literal),*) => {$(
        impl Octets for $kind {
            const SIZE: u8 = $size;
            fn write(&self, writer: &mut Writer) {
                writer.slice(&self.to_be_bytes());
            }
        }
    )*};
}

integers!(u8 = 1, u16 = 2, u32 = 4, u64 = 8);

impl Octets for [u8; 6] {
    const SIZE: u8 = 6;
    fn write(&self, writer: &mut Writer) {
        writer.slice(self);
    }
}

impl Octets for Ipv4Addr {
    const SIZE: u8 = 4;
    fn write(&self, writer: &mut Writer) {
        writer.slice(&self.octets());
    }
}

impl Octets for Ipv6Addr {
    const SIZE: u8 = 16;
    fn write(&self, writer: &mut Writer) {
        writer.slice(&self.octets());
    }
}
