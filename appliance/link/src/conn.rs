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
            if let Some(end) = answer.absorb(message, doing, flags) {
                return end.map(|()| answer);
            }
        }
        Err(no_answer())
    }
}

/// What the kernel has said so far to one request.
#[derive(Debug, Default)]
struct Answer {
    objects: Vec<RouteNetlinkMessage>,
    interrupted: bool,
}

impl Answer {
    /// Takes the next message; tells when it was the last, and whether it was a yes.
    fn absorb(
        &mut self,
        message: NetlinkMessage<RouteNetlinkMessage>,
        doing: &str,
        flags: u16,
    ) -> Option<Result<()>> {
        // the flag may be on any message of a dump, also on its end alone
        self.interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
        match message.payload {
            NetlinkPayload::InnerMessage(object) => {
                self.objects.push(object);
                None
            }
            NetlinkPayload::Done(done) if done.code == 0 => Some(Ok(())),
            NetlinkPayload::Done(done) => Some(Err(refused(doing, done.code, &[]))),
            NetlinkPayload::Error(ErrorMessage { code: None, .. }) => Some(Ok(())),
            NetlinkPayload::Error(error) => {
                Some(Err(refused(doing, error.raw_code(), &error.header)))
            }
            // the socket's buffer ran over: objects of a dump were lost, so do it again; of a
            // change nothing is known
            NetlinkPayload::Overrun(_) if flags & NLM_F_DUMP == NLM_F_DUMP => {
                self.interrupted = true;
                Some(Ok(()))
            }
            _ => None,
        }
    }
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
    use netlink_packet_core::{DoneMessage, NetlinkHeader};
    use netlink_packet_route::link::LinkMessage;

    const DUMP: u16 = NLM_F_REQUEST | NLM_F_DUMP;
    const CHANGE: u16 = NLM_F_REQUEST | NLM_F_ACK;

    fn link(flags: u16) -> NetlinkMessage<RouteNetlinkMessage> {
        let object = RouteNetlinkMessage::NewLink(LinkMessage::default());
        let mut message = NetlinkMessage::from(object);
        message.header.flags = flags;
        message
    }

    fn end(payload: NetlinkPayload<RouteNetlinkMessage>) -> NetlinkMessage<RouteNetlinkMessage> {
        NetlinkMessage::new(NetlinkHeader::default(), payload)
    }

    #[test]
    fn a_dump_ends_with_done_and_is_interrupted_by_any_flag() {
        for (first, last, interrupted) in [
            (0, 0, false),
            (NLM_F_DUMP_INTR, 0, true),
            (0, NLM_F_DUMP_INTR, true),
        ] {
            let mut answer = Answer::default();
            assert!(answer.absorb(link(first), "x", DUMP).is_none());
            assert!(answer.absorb(link(0), "x", DUMP).is_none());
            let mut done = end(NetlinkPayload::Done(DoneMessage::default()));
            done.header.flags = last;
            assert!(matches!(answer.absorb(done, "x", DUMP), Some(Ok(()))));
            assert_eq!((answer.objects.len(), answer.interrupted), (2, interrupted));
        }
    }

    #[test]
    fn lost_messages_interrupt_a_dump_and_prove_nothing_of_a_change() {
        let lost = || end(NetlinkPayload::Overrun(Vec::new()));
        let mut answer = Answer::default();
        assert!(matches!(answer.absorb(lost(), "x", DUMP), Some(Ok(()))));
        assert!(answer.interrupted);
        let mut answer = Answer::default();
        assert!(answer.absorb(lost(), "x", CHANGE).is_none());
        assert!(!answer.interrupted);
    }

    #[test]
    fn only_an_acknowledgement_without_a_code_is_a_yes() {
        let mut ack = ErrorMessage::default();
        let mut answer = Answer::default();
        let yes = answer.absorb(end(NetlinkPayload::Error(ack.clone())), "x", CHANGE);
        assert!(matches!(yes, Some(Ok(()))));
        ack.code = std::num::NonZeroI32::new(-17);
        let no = answer.absorb(end(NetlinkPayload::Error(ack)), "making x", CHANGE);
        let no = no.unwrap().unwrap_err();
        assert!(no.is_exists());
        assert_eq!(no.to_string(), "making x: File exists");
        // a dump can fail at its very end
        let mut failed = DoneMessage::default();
        failed.code = -12;
        let no = answer.absorb(end(NetlinkPayload::Done(failed)), "x", DUMP);
        assert_eq!(no.unwrap().unwrap_err().errno(), Some(Errno::ENOMEM));
    }

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
