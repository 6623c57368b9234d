//! Frames: a message with its head of eight bytes (§7.1.1), cut out of a stream and put into one.

use crate::{DecodeError, Message, TooLong, read::Reader, write::Writer};

/// The wire version of OpenFlow 1.3.
pub const VERSION: u8 = 4;
/// The longest frame, in bytes: its length field has sixteen bits.
pub const MAX_FRAME: usize = 65_535;

/// One message with its transaction id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frame {
    /// Ties an answer, or a refusal, to what was asked.
    pub xid: u32,
    /// What is said.
    pub message: Message,
}

/// How long the frame with this head is, in bytes, the head counted.
///
/// # Errors
///
/// A version other than 4 (a hello and an error may have any, as versions are agreed with them,
/// §6.3.1), and a length below eight: after either the stream cannot be followed.
pub fn frame_length(head: [u8; 8]) -> Result<usize, DecodeError> {
    let [version, kind, high, low, ..] = head;
    let negotiates = kind <= 1 && version > 0;
    if version != VERSION && !negotiates {
        return Err(DecodeError::Version { version });
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length < 8 {
        let what = "message";
        return Err(DecodeError::Length { what, length });
    }
    Ok(length)
}

impl Frame {
    /// The bytes to send.
    ///
    /// A message that does not fit ([`Frame::try_encode`] says so) becomes its bare head, which a
    /// switch refuses with an error of the same transaction; a wrong length would make the rest of
    /// the stream unreadable. Only lists of more than a thousand buckets or actions get there.
    pub fn encode(&self) -> Vec<u8> {
        self.try_encode().unwrap_or_else(|_| {
            let [a, b, c, d] = self.xid.to_be_bytes();
            vec![VERSION, self.message.kind(), 0, 8, a, b, c, d]
        })
    }

    /// The bytes to send.
    ///
    /// # Errors
    ///
    /// The message does not fit in a frame.
    pub fn try_encode(&self) -> Result<Vec<u8>, TooLong> {
        let mut writer = Writer::new();
        writer.put(self.message.version());
        writer.put(self.message.kind());
        writer.zeros(2);
        writer.put(self.xid);
        self.message.write(&mut writer);
        writer.length("message", 2, 0);
        writer.finish().map_err(|what| TooLong { what })
    }

    /// One whole frame, as [`frame_length`] cut it.
    ///
    /// # Errors
    ///
    /// The bytes are no OpenFlow 1.3 message. Kinds of messages, fields, actions and the like that
    /// have no name here are no error.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("message", bytes);
        let head: [u8; 8] = reader.array()?;
        let length = frame_length(head)?;
        if length > bytes.len() {
            return Err(DecodeError::Short {
                what: "message",
                needs: length - bytes.len(),
                left: 0,
            });
        }
        if length < bytes.len() {
            return Err(DecodeError::Trailing {
                what: "message",
                left: bytes.len() - length,
            });
        }
        let [version, kind, _, _, a, b, c, d] = head;
        Ok(Self {
            xid: u32::from_be_bytes([a, b, c, d]),
            message: Message::read(version, kind, reader)?,
        })
    }
}
