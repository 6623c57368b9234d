//! A cursor over received bytes: every read is checked, none panics.

use crate::DecodeError;
use std::net::{Ipv4Addr, Ipv6Addr};

/// What is left of one structure, and its name for the error.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

/// A value of fixed size in network byte order.
pub(crate) trait Fixed: Sized {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

impl<'a> Reader<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { bytes, what }
    }

    /// The same bytes under the name of the structure that is read now.
    pub(crate) fn named(self, what: &'static str) -> Self {
        Self { what, ..self }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let Some((head, tail)) = self.bytes.split_at_checked(count) else {
            return Err(DecodeError::Short {
                what: self.what,
                needs: count,
                left: self.bytes.len(),
            });
        };
        self.bytes = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn get<T: Fixed>(&mut self) -> Result<T, DecodeError> {
        T::read(self)
    }

    /// Padding: its content says nothing.
    pub(crate) fn skip(&mut self, count: usize) -> Result<(), DecodeError> {
        self.take(count).map(|_| ())
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    /// The next `count` bytes as a structure of their own.
    pub(crate) fn part(&mut self, what: &'static str, count: usize) -> Result<Self, DecodeError> {
        let mut ahead = self.named(what);
        let bytes = ahead.take(count)?;
        self.bytes = ahead.bytes;
        Ok(Self::new(what, bytes))
    }

    /// The next structure of `kind: u16, length: u16, …`: its kind and what follows the four bytes.
    /// The length counts these four and is a multiple of eight, as those of actions, instructions
    /// and bands are.
    pub(crate) fn element(&mut self, what: &'static str) -> Result<(u16, Self), DecodeError> {
        let mut head = self.named(what);
        let (kind, length): (u16, u16) = (head.get()?, head.get()?);
        let length = usize::from(length);
        if length < 8 || !length.is_multiple_of(8) {
            return Err(DecodeError::Length { what, length });
        }
        let mut body = self.part(what, length)?;
        body.skip(4)?;
        Ok((kind, body))
    }

    /// Refuses bytes that the structure has no use for.
    pub(crate) fn finished(self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        Err(DecodeError::Trailing {
            what: self.what,
            left: self.bytes.len(),
        })
    }

    /// Structure after structure until the bytes end.
    pub(crate) fn all<T>(
        mut self,
        mut one: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let mut found = Vec::new();
        while !self.is_empty() {
            found.push(one(&mut self)?);
        }
        Ok(found)
    }

    /// Text in a field of fixed size, ended by a zero byte, which the last one is in any case. A
    /// byte that is no UTF-8 becomes a question mark, so that the text still fits in its field.
    pub(crate) fn text(&mut self, size: usize) -> Result<String, DecodeError> {
        let bytes = self.take(size)?;
        let bytes = bytes.split_last().map_or(bytes, |(_, text)| text);
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        let mut readable = String::new();
        for chunk in text.utf8_chunks() {
            readable.push_str(chunk.valid());
            readable.extend(chunk.invalid().iter().map(|_| '?'));
        }
        Ok(readable)
    }
}

macro_rules! integers {
    ($($kind:ty),*) => {$(
        impl Fixed for $kind {
            fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                reader.array().map(Self::from_be_bytes)
            }
        }
    )*};
}

integers!(u8, u16, u32, u64);

impl Fixed for [u8; 6] {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array()
    }
}

impl Fixed for Ipv4Addr {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array::<4>().map(Self::from)
    }
}

impl Fixed for Ipv6Addr {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array::<16>().map(Self::from)
    }
}
