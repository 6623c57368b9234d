//! Generic netlink as far as `ethtool` needs it: one request, its answer, and attributes.
//!
//! The kernel answers a request for one device before the send returns, so a blocking socket on a
//! throw-away thread is enough. Numbers are those of the kernel's `netlink.h` and `genetlink.h`.

use nix::errno::Errno;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use std::io;

const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// Lengths of `nlmsghdr` and `genlmsghdr`.
const HEADER: usize = 16;
const GENERIC: usize = 4;
/// Messages that one answer can have: the object and the acknowledgement.
const MOST_MESSAGES: usize = 8;

/// An attribute with its padding.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(usize::from(length).next_multiple_of(4));
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An attribute that holds others.
pub(super) fn nested(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NESTED, &attributes.concat())
}

/// The attributes in a payload: number and value. What is cut off is left out.
pub(super) fn attributes(bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some(header) = rest.get(..4) {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let Some(value) = rest.get(4..length.max(4)) else {
            break;
        };
        if length < 4 {
            break;
        }
        found.push((kind, value));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    found
}

/// A number of one, four or eight bytes.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    match value.len() {
        1 => Some(u64::from(value[0])),
        4 => Some(u64::from(u32::from_ne_bytes(value.try_into().ok()?))),
        8 => Some(u64::from_ne_bytes(value.try_into().ok()?)),
        _ => None,
    }
}

/// A text that ends with a zero byte.
pub(super) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value)
        .trim_end_matches('\0')
        .to_owned()
}

/// A connection to one family of generic netlink, in the namespace of the thread that opened it.
pub(super) struct Family {
    socket: Socket,
    id: u16,
    sequence: u32,
}

impl Family {
    /// Opens it; `ENOENT` where the kernel has no such family.
    pub(super) fn open(name: &str) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        let mut family = Self {
            socket,
            id: GENL_ID_CTRL,
            sequence: 0,
        };
        let zero_ended: Vec<u8> = name.bytes().chain([0]).collect();
        let wish = attribute(CTRL_ATTR_FAMILY_NAME, &zero_ended);
        let answer = family.ask(CTRL_CMD_GETFAMILY, &wish)?;
        let id = attributes(&answer)
            .into_iter()
            .find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID)
            .and_then(|(_, value)| Some(u16::from_ne_bytes(value.try_into().ok()?)));
        family.id = id.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(family)
    }

    /// Sends one request and returns the attributes of its answer.
    pub(super) fn ask(&mut self, command: u8, wish: &[u8]) -> io::Result<Vec<u8>> {
        self.sequence += 1;
        let length = HEADER + GENERIC + wish.len();
        let mut message = Vec::with_capacity(length);
        message.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        message.extend(self.id.to_ne_bytes());
        message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0_u32.to_ne_bytes());
        message.extend([command, 1, 0, 0]);
        message.extend(wish);
        self.socket.send_to(&message, &SocketAddr::new(0, 0), 0)?;
        let mut answer = Vec::new();
        for _ in 0..MOST_MESSAGES {
            let (bytes, _) = self.socket.recv_from_full()?;
            if take(&bytes, self.sequence, &mut answer)? {
                return Ok(answer);
            }
        }
        Err(io::Error::from(io::ErrorKind::InvalidData))
    }
}

/// Takes what came in one datagram; tells whether it ended the answer.
fn take(bytes: &[u8], sequence: u32, answer: &mut Vec<u8>) -> io::Result<bool> {
    let mut rest = bytes;
    while let Some(header) = rest.get(..HEADER) {
        let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|i| header[at + i]));
        let length = word(0) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let Some(payload) = rest.get(HEADER..length.max(HEADER)) else {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        };
        if word(8) == sequence {
            match kind {
                NLMSG_ERROR => {
                    let code = payload.get(..4).and_then(|code| code.try_into().ok());
                    return match code.map_or(0, i32::from_ne_bytes) {
                        0 => Ok(true),
                        code => Err(Errno::from_raw(code.abs()).into()),
                    };
                }
                NLMSG_DONE => return Ok(true),
                _ => answer.extend(payload.get(GENERIC..).unwrap_or(&[])),
            }
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_are_written_and_junk_ends_them() {
        let inner = [attribute(1, &7_u32.to_ne_bytes()), attribute(2, b"ab\0")];
        let bytes = [nested(9, &inner), attribute(3, &[])].concat();
        let found = attributes(&bytes);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].0, found[1]), (9, (3, &[][..])));
        let inside = attributes(found[0].1);
        assert_eq!(number(inside[0].1), Some(7));
        assert_eq!(text(inside[1].1), "ab");
        for junk in [&[][..], &[1], &[3, 0, 1, 0], &[200, 0, 1, 0, 9]] {
            assert!(attributes(junk).is_empty(), "{junk:?}");
        }
    }

    #[test]
    fn an_answer_ends_with_its_acknowledgement_and_no_other() {
        let message = |kind: u16, sequence: u32, payload: &[u8]| {
            let mut bytes = u32::try_from(HEADER + payload.len())
                .unwrap()
                .to_ne_bytes()
                .to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0, 0]);
            bytes.extend(sequence.to_ne_bytes());
            bytes.extend([0; 4]);
            bytes.extend(payload);
            bytes
        };
        let mut answer = Vec::new();
        let object = message(0x20, 5, &[1, 1, 0, 0, 9, 9, 9, 9]);
        assert!(!take(&object, 5, &mut answer).unwrap());
        assert!(!take(&message(NLMSG_ERROR, 4, &[0; 4]), 5, &mut answer).unwrap());
        assert!(take(&message(NLMSG_ERROR, 5, &[0; 4]), 5, &mut answer).unwrap());
        assert_eq!(answer, [9, 9, 9, 9]);
        let no = message(NLMSG_ERROR, 5, &(-95_i32).to_ne_bytes());
        let error = take(&no, 5, &mut answer).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(95));
        assert!(take(&object[..18], 5, &mut answer).is_err());
    }
}
