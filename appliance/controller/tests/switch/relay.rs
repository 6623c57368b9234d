//! What lies between a switch and its controller: what the switch says is held back, each message for a
//! time of its own, or nothing goes through at all, as on a line that is cut without anybody being told.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

/// How long what the controller says is held back.
const PROMPT: [Duration; 1] = [Duration::ZERO];
/// Messages that are on their way at once, each way.
const UNDERWAY: usize = 4096;

/// A line to a controller; whoever connects to it is connected to that. Gone when it is dropped.
pub(crate) struct Relay {
    address: SocketAddr,
    cut: watch::Sender<bool>,
    carried: Arc<AtomicUsize>,
    _serving: AbortOnDropHandle<()>,
}
impl Relay {
    /// A line on which what the switch says is held back for these times in turn, and stays in its
    /// order.
    pub(crate) async fn to(controller: SocketAddr, held_back: &'static [Duration]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, is_cut) = watch::channel(false);
        let carried = Arc::new(AtomicUsize::new(0));
        let count = carried.clone();
        let serving = tokio::spawn(async move {
            let mut ways = JoinSet::new();
            while let Ok((switch, _)) = listener.accept().await {
                let (is_cut, count) = (is_cut.clone(), count.clone());
                ways.spawn(async move {
                    whole(&is_cut).await;
                    let Ok(there) = TcpStream::connect(controller).await else {
                        return;
                    };
                    let (up, down) = (switch.into_split(), there.into_split());
                    tokio::join!(
                        way(up.0, down.1, held_back, is_cut.clone(), &count),
                        way(down.0, up.1, &PROMPT, is_cut.clone(), &count),
                    );
                });
            }
        });
        Self {
            address,
            cut,
            carried,
            _serving: AbortOnDropHandle::new(serving),
        }
    }
    /// How a switch is told of it.
    pub(crate) fn target(&self) -> String {
        format!("tcp:{}", self.address)
    }
    /// Nothing goes through any more, not even that an end has closed; or it does again.
    pub(crate) fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
    /// Messages that have gone through, both ways.
    pub(crate) fn carried(&self) -> usize {
        self.carried.load(Ordering::Relaxed)
    }
}

/// Waits until the line is not cut.
async fn whole(is_cut: &watch::Receiver<bool>) {
    // an error is that the relay is gone, and this task with it
    let _ = is_cut.clone().wait_for(|cut| !cut).await;
}

/// One way of a connection, until its end is reached.
async fn way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    held_back: &'static [Duration],
    is_cut: watch::Receiver<bool>,
    carried: &AtomicUsize,
) {
    let (queue, mut queued) = mpsc::channel::<(Instant, Vec<u8>)>(UNDERWAY);
    let read = async move {
        for hold in held_back.iter().cycle() {
            let mut head = [0; 8];
            if from.read_exact(&mut head).await.is_err() {
                return;
            }
            let mut message = head.to_vec();
            message.resize(dtn_openflow::frame_length(head).unwrap(), 0);
            if from.read_exact(&mut message[8..]).await.is_err() {
                return;
            }
            if queue.send((Instant::now() + *hold, message)).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((due, message)) = queued.recv().await {
            sleep_until(due).await;
            whole(&is_cut).await;
            if to.write_all(&message).await.is_err() {
                return;
            }
            carried.fetch_add(1, Ordering::Relaxed);
        }
        whole(&is_cut).await;
    };
    tokio::join!(read, write);
    // and `to` is closed
}
