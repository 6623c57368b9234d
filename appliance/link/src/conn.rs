//! A netlink connection into one namespace, with the guarantees that the rest relies on.
//!
//! Invariants: a dump is whole or an error (the kernel flags a dump that was overtaken by changes,
//! `NLM_F_DUMP_INTR`, and it is then done again); a change counts as made only when the kernel has
//! acknowledged it; filters that the kernel does not know are refused by it (strict checking).

use crate::{Error, Result};
use futures_util::StreamExt;
use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE,
    NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use rtnetlink::sys::AsyncSocket;

/// How often an interrupted dump is done again before it is an error. Each repetition takes well
/// under a millisecond, so this many interruptions in a row mean a host that never rests.
const DUMP_TRIES: u32 = 8;

/// A connection; clones share it.
#[derive(Clone, Debug)]
pub struct Conn {
    handle: rtnetlink::Handle,
}

/// Whether a change may make the object, must make it, or may only alter it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The object must be there.
    Alter,
    /// It must not be there.
    Create,
    /// It is made or replaced.
    CreateOrReplace,
}

impl Mode {
    fn flags(self) -> u16 {
        match self {
            Self::Alter => 0,
            Self::Create => NLM_F_CREATE | NLM_F_EXCL,
            Self::CreateOrReplace => NLM_F_CREATE | NLM_F_REPLACE,
        }
    }
}

impl Conn {
    /// A connection into the namespace of this process. Must be called on a tokio runtime.
    pub fn current() -> Result<Self> {
        Self::open_here()
    }

    /// A connection into the namespace of the calling thread.
    pub(crate) fn open_here() -> Result<Self> {
        let doing = "opening a netlink connection";
        let (mut connection, handle, _) =
            rtnetlink::new_connection_with_strict_check().map_err(|e| Error::io(doing, e))?;
        // an ended stream is no proof of success: have ACK and DONE forwarded
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        connection
            .socket_mut()
            .socket_mut()
            .set_ext_ack(true)
            .map_err(|e| Error::io(doing, e))?;
        tokio::runtime::Handle::try_current()
            .map_err(|_| Error::invalid(doing, "there is no tokio runtime to serve it"))?
            .spawn(connection);
        Ok(Self { handle })
    }

    /// Every object that `request` asks for, or an error. `doing` says what for, in the words of
    /// an error message (`listing the links`).
    pub async fn dump(
        &self,
        doing: &str,
        request: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..DUMP_TRIES {
            let answer = self
                .talk(doing, request.clone(), NLM_F_REQUEST | NLM_F_DUMP)
                .await?;
            if !answer.interrupted {
                return Ok(answer.objects);
            }
            tracing::debug!(doing, "dump interrupted by a change, again");
        }
        Err(Error::Interrupted {
            doing: doing.to_owned(),
            tries: DUMP_TRIES,
        })
    }

    /// The one object that `request` asks for.
    pub async fn get(
        &self,
        doing: &str,
        request: RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage> {
        let answer = self.talk(doing, request, NLM_F_REQUEST | NLM_F_ACK).await?;
        answer
            .objects
            .into_iter()
            .next()
            .ok_or_else(|| Error::NoAnswer {
                doing: doing.to_owned(),
            })
    }

    /// Makes a change and waits for the kernel's acknowledgement.
    pub async fn change(
        &self,
        doing: &str,
        request: RouteNetlinkMessage,
        mode: Mode,
    ) -> Result<()> {
        let flags = NLM_F_REQUEST | NLM_F_ACK | mode.flags();
        self.talk(doing, request, flags).await.map(|_| ())
    }

    async fn talk(&self, doing: &str, request: RouteNetlinkMessage, flags: u16) -> Result<Answer> {
        let no_answer = || Error::NoAnswer {
            doing: doing.to_owned(),
        };
        let mut message = NetlinkMessage::from(request);
        message.header.flags = flags;
        let mut stream = self
            .handle
            .clone()
            .request(message)
            .map_err(|_| no_answer())?;
        let mut answer = Answer::default();
        while let Some(message) = stream.next().await {
            answer.interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::InnerMessage(object) => answer.objects.push(object),
                NetlinkPayload::Done(done) if done.code == 0 => return Ok(answer),
                NetlinkPayload::Done(done) => return Err(refused(doing, done.code, &[])),
                NetlinkPayload::Error(ErrorMessage { code: None, .. }) => return Ok(answer),
                NetlinkPayload::Error(error) => {
                    return Err(refused(doing, error.raw_code(), &error.header));
                }
                // the socket's buffer ran over: objects of a dump were lost, so do it again; of a
                // change nothing is known
                NetlinkPayload::Overrun(_) if flags & NLM_F_DUMP == NLM_F_DUMP => {
                    answer.interrupted = true;
                    return Ok(answer);
                }
                _ => {}
            }
        }
        Err(no_answer())
    }
}

#[derive(Default)]
struct Answer {
    objects: Vec<RouteNetlinkMessage>,
    interrupted: bool,
}

fn refused(doing: &str, code: i32, original: &[u8]) -> Error {
    Error::Kernel {
        doing: doing.to_owned(),
        errno: Errno::from_raw(code.abs()),
        message: kernel_words(original),
    }
}

/// The text of an extended acknowledgement: it follows the request that is sent back whole
/// (`NETLINK_CAP_ACK` is not set), as attribute `NLMSGERR_ATTR_MSG`.
fn kernel_words(original: &[u8]) -> Option<String> {
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let length = u32::from_ne_bytes(original.get(..4)?.try_into().ok()?) as usize;
    let attributes = original.get(length.next_multiple_of(4)..)?;
    NlasIterator::new(attributes)
        .filter_map(std::result::Result::ok)
        .find(|nla| nla.kind() == NLMSGERR_ATTR_MSG)
        .map(|nla| {
            String::from_utf8_lossy(nla.value())
                .trim_end_matches('\0')
                .to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_follow_the_request() {
        let mut bytes = vec![18, 0, 0, 0];
        bytes.extend([0; 16]); // header and two bytes of payload, padded to 20
        bytes.extend([9, 0, 1, 0, b'h', b'o', b't', b'!', 0, 0, 0, 0]);
        assert_eq!(kernel_words(&bytes).as_deref(), Some("hot!"));
        assert_eq!(kernel_words(&bytes[..18]), None);
        assert_eq!(kernel_words(&[]), None);
        assert_eq!(kernel_words(&[255, 255, 255, 255, 0]), None);
    }
}
