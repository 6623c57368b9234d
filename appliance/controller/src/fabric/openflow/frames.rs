//! Frames from a connection.

use dtn_openflow::{DecodeError, Frame, frame_length};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Length of a frame's head (OpenFlow 1.3.5 §7.1).
const HEAD: usize = 8;

/// Why there is no further frame.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the switch closed it")]
    Closed,
    #[error("receiving")]
    Receiving(#[from] io::Error),
    #[error("what came is not OpenFlow 1.3")]
    Wrong(#[from] DecodeError),
}

impl End {
    /// With its cause.
    pub(super) fn words(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }
}

/// Reads the next frame. The buffer is used again; it holds the frame's bytes afterwards.
pub(super) async fn next<R: AsyncRead + Unpin>(
    from: &mut R,
    buffer: &mut Vec<u8>,
) -> Result<Frame, End> {
    let mut head = [0; HEAD];
    match from.read_exact(&mut head).await {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(End::Closed),
        other => other?,
    };
    // the length is 16 bits wide: nobody makes us hold more than 64 KiB
    let length = frame_length(head)?;
    buffer.clear();
    buffer.extend_from_slice(&head);
    buffer.resize(length, 0);
    if let Some(rest) = buffer.get_mut(HEAD..) {
        from.read_exact(rest).await?;
    }
    Ok(Frame::decode(buffer)?)
}
