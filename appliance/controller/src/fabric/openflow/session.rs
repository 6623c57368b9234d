//! The connection of one switch: requests with their answers and deadlines, errors told to the
//! message that they are about, and the beat by which a dead switch is noticed.
//!
//! Reading and writing do not wait for each other: what a reader has to answer goes into a queue
//! of its own, and is left away when that is full.

use super::{
    dhcp,
    failure::{Cause, Failure, unexpected},
    frames,
    links::Told,
    switches::Ports,
    turns::{self, Turns},
};
use dtn_openflow::{
    Frame, Message, MultipartReply, MultipartRequest, PORT_ADMIN_DOWN, PORT_DELETED,
    PORT_LINK_DOWN, PacketIn, PacketOut, Port,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter},
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// How often a switch is asked whether it is there.
const BEAT: Duration = Duration::from_secs(5);
/// After this long without a word it is not.
const DEAD: Duration = Duration::from_secs(15);
/// Longest time for the answer to a request. A switch that takes longer is let go: it comes again,
/// and the others are not kept waiting.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// Longest time for one frame to go out.
const STALL: Duration = Duration::from_secs(15);
/// Frames that wait to go out, at most; who has more waits.
const QUEUE: usize = 256;
/// Frames of the reader that wait to go out.
const URGENT: usize = 16;
/// Changes between two barriers: what a switch has to hold at once.
const BATCH: usize = 256;
/// The transaction of what nobody waits for.
const NOBODY: u32 = 0;
/// Longest answer in parts, in bytes: some 300,000 rules.
const LONGEST: usize = 64 << 20;

enum Waiting {
    /// For one message.
    One(oneshot::Sender<Result<Message, Cause>>),
    /// For the last of several parts.
    Parts {
        so_far: Vec<MultipartReply>,
        bytes: usize,
        done: oneshot::Sender<Result<Vec<MultipartReply>, Cause>>,
    },
    /// For nothing but an error, until the next barrier is answered.
    Quiet {
        number: usize,
        refused: Arc<Mutex<Vec<(usize, Cause)>>>,
    },
}

/// A switch's connection.
pub(super) struct Session {
    out: mpsc::Sender<Vec<u8>>,
    urgent: mpsc::Sender<Vec<u8>>,
    next: AtomicU32,
    waiting: Mutex<HashMap<u32, Waiting>>,
    ports: Mutex<Known>,
    heard: Mutex<Instant>,
    why: Mutex<Option<String>>,
    end: CancellationToken,
    /// What the switch may send here has been limited, or it would not be.
    pub(super) limited: AtomicBool,
    /// How many more frames of each port are taken.
    pub(super) turns: Mutex<Turns>,
    /// How many more questions by DHCP of each port are taken.
    pub(super) questions: Mutex<Turns>,
}

/// What a switch has said without being asked.
pub(super) enum Heard {
    /// A port has come, gone or changed.
    Ports,
    /// A rule of ours has handed over a frame.
    Packet(PacketIn),
}

/// The ports of a switch.
#[derive(Default)]
struct Known {
    numbers: Ports,
    /// Those that are down, by number.
    down: BTreeSet<u32>,
    /// Bits per second, by number, where the switch knows.
    speeds: BTreeMap<u32, u64>,
}
impl Known {
    fn forget(&mut self, number: u32) {
        // the number stays when a port is given another name
        self.numbers.retain(|_, known| *known != number);
        self.down.remove(&number);
        self.speeds.remove(&number);
    }
    fn learn(&mut self, port: &Port) {
        self.forget(port.port_no);
        if port.config & PORT_ADMIN_DOWN != 0 || port.state & PORT_LINK_DOWN != 0 {
            self.down.insert(port.port_no);
        }
        if port.curr_speed > 0 {
            let speed = u64::from(port.curr_speed) * 1000;
            self.speeds.insert(port.port_no, speed);
        }
        self.numbers.insert(port.name.clone(), port.port_no);
    }
}

/// The ends of a session's queues that its connection works on.
pub(super) struct Queues {
    out: mpsc::Receiver<Vec<u8>>,
    urgent: mpsc::Receiver<Vec<u8>>,
}

pub(in crate::fabric) fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // every critical section here leaves whole values behind
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A transaction id that is forgotten when nobody waits any more.
struct Asked<'a> {
    session: &'a Session,
    xid: u32,
}
impl Drop for Asked<'_> {
    fn drop(&mut self) {
        lock(&self.session.waiting).remove(&self.xid);
    }
}

impl Session {
    /// A session that ends with `end`, and the queues for [`Session::serve`].
    pub(super) fn new(end: CancellationToken) -> (Arc<Self>, Queues) {
        let (out, from_out) = mpsc::channel(QUEUE);
        let (urgent, from_urgent) = mpsc::channel(URGENT);
        let session = Arc::new(Self {
            out,
            urgent,
            next: AtomicU32::new(1),
            waiting: Mutex::default(),
            ports: Mutex::default(),
            heard: Mutex::new(Instant::now()),
            why: Mutex::default(),
            end,
            limited: AtomicBool::new(false),
            turns: Mutex::new(turns::frames()),
            questions: Mutex::new(Turns::new(dhcp::RATE, dhcp::BURST)),
        });
        let queues = Queues {
            out: from_out,
            urgent: from_urgent,
        };
        (session, queues)
    }

    /// Works on the connection until it ends; the reason in words. `heard` is told what the switch
    /// says without being asked; it must not wait.
    pub(super) async fn serve<R, W>(
        &self,
        read: R,
        write: W,
        queues: Queues,
        heard: impl Fn(Heard),
    ) -> String
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let why = tokio::select! {
            why = self.read(read, heard) => why,
            why = send(write, queues) => why,
            why = self.beat() => why,
            () = self.end.cancelled() => "it was ended here".to_owned(),
        };
        let why = lock(&self.why).get_or_insert(why).clone();
        self.end.cancel();
        lock(&self.waiting).clear();
        why
    }

    /// Ends the connection.
    pub(super) fn close(&self, why: impl Into<String>) {
        lock(&self.why).get_or_insert(why.into());
        self.end.cancel();
    }
    /// Whether the connection has ended.
    pub(super) fn ended(&self) -> bool {
        self.end.is_cancelled()
    }
    /// Until the connection has ended.
    pub(super) async fn until_end(&self) {
        self.end.cancelled().await;
    }
    /// Numbers of the switch's ports by their names, and which of them are down.
    pub(super) fn ports(&self) -> (Ports, BTreeSet<u32>) {
        let known = lock(&self.ports);
        (known.numbers.clone(), known.down.clone())
    }
    pub(super) fn know_ports(&self, ports: &[Port]) {
        let mut known = lock(&self.ports);
        ports.iter().for_each(|port| known.learn(port));
    }
    /// What the switch has told of its ports.
    pub(super) fn told(&self) -> Told {
        let known = lock(&self.ports);
        Told {
            ports: known.numbers.clone(),
            speeds: known.speeds.clone(),
        }
    }
    fn lost(&self) -> Failure {
        let why = lock(&self.why).clone();
        Failure::Lost(why.unwrap_or_else(|| "it was ended here".to_owned()))
    }

    /// One message and its answer.
    pub(super) async fn ask(
        &self,
        message: Message,
        asked: &'static str,
    ) -> Result<Message, Failure> {
        let (tell, told) = oneshot::channel();
        let by = Instant::now() + ANSWER;
        let _asked = self.send(message, asked, by, Waiting::One(tell)).await?;
        self.answer(told, asked, by).await
    }
    /// A request whose answer may come in parts.
    pub(super) async fn multipart(
        &self,
        request: MultipartRequest,
        asked: &'static str,
    ) -> Result<Vec<MultipartReply>, Failure> {
        let (done, told) = oneshot::channel();
        let by = Instant::now() + ANSWER;
        let parts = Waiting::Parts {
            so_far: Vec::new(),
            bytes: 0,
            done,
        };
        let _asked = self
            .send(Message::MultipartRequest(request), asked, by, parts)
            .await?;
        self.answer(told, asked, by).await
    }
    /// Sends changes with a barrier after each batch. What the switch refused, by the number of
    /// the change; everything else has been done when this returns.
    pub(super) async fn apply(
        &self,
        changes: impl IntoIterator<Item = Message>,
        asked: &'static str,
    ) -> Result<Vec<(usize, Cause)>, Failure> {
        let refused = Arc::new(Mutex::new(Vec::new()));
        let mut changes = changes.into_iter().enumerate().peekable();
        while changes.peek().is_some() {
            let by = Instant::now() + ANSWER;
            let mut tickets = Vec::with_capacity(BATCH);
            for (number, message) in changes.by_ref().take(BATCH) {
                let refused = refused.clone();
                let quiet = Waiting::Quiet { number, refused };
                tickets.push(self.send(message, asked, by, quiet).await?);
            }
            match self.ask(Message::BarrierRequest, asked).await? {
                Message::BarrierReply => {}
                other => return Err(unexpected(asked, &other)),
            }
        }
        let refused = mem::take(&mut *lock(&refused));
        Ok(refused)
    }

    async fn send(
        &self,
        message: Message,
        asked: &'static str,
        by: Instant,
        waiting: Waiting,
    ) -> Result<Asked<'_>, Failure> {
        let xid = self.next.fetch_add(1, Ordering::Relaxed);
        // whoever waits is known before the answer can come
        lock(&self.waiting).insert(xid, waiting);
        let ticket = Asked { session: self, xid };
        let frame = Frame { xid, message }.encode();
        tokio::select! {
            sent = timeout_at(by, self.out.send(frame)) => match sent {
                Ok(Ok(())) => Ok(ticket),
                Ok(Err(_)) => Err(self.lost()),
                Err(_) => Err(self.late(asked)),
            },
            () = self.end.cancelled() => Err(self.lost()),
        }
    }
    async fn answer<T>(
        &self,
        told: oneshot::Receiver<Result<T, Cause>>,
        asked: &'static str,
        by: Instant,
    ) -> Result<T, Failure> {
        tokio::select! {
            answer = timeout_at(by, told) => match answer {
                Ok(Ok(Ok(answer))) => Ok(answer),
                Ok(Ok(Err(cause))) => Err(Failure::Refused { asked, cause }),
                Ok(Err(_)) => Err(self.lost()),
                Err(_) => Err(self.late(asked)),
            },
            () = self.end.cancelled() => Err(self.lost()),
        }
    }
    fn late(&self, asked: &'static str) -> Failure {
        let failure = Failure::Late(asked);
        self.close(failure.to_string());
        failure
    }

    /// Has a frame sent, for which there is no answer; whether there was room for it in time.
    pub(super) async fn emit(&self, packet: PacketOut, by: Instant) -> bool {
        let message = Message::PacketOut(packet);
        let xid = NOBODY;
        let sent = timeout_at(by, self.out.send(Frame { xid, message }.encode())).await;
        matches!(sent, Ok(Ok(())))
    }

    /// Whether the switch still answers within `patience`.
    pub(super) async fn answers(&self, patience: Duration) -> bool {
        let echo = self.ask(Message::EchoRequest(Vec::new()), "an echo request");
        matches!(timeout(patience, echo).await, Ok(Ok(_)))
    }

    async fn beat(&self) -> String {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            if lock(&self.heard).elapsed() > DEAD {
                return format!("nothing was heard for {} s", DEAD.as_secs());
            }
            // nobody waits for the answer: that something is heard is the answer
            self.at_once(NOBODY, Message::EchoRequest(Vec::new()));
        }
    }
    /// Sends without waiting. What does not fit now is left away: an echo comes again.
    fn at_once(&self, xid: u32, message: Message) {
        let _ = self.urgent.try_send(Frame { xid, message }.encode());
    }

    async fn read<R: AsyncRead + Unpin>(&self, mut from: R, heard: impl Fn(Heard)) -> String {
        let mut buffer = Vec::new();
        loop {
            let frame = match frames::next(&mut from, &mut buffer).await {
                Ok(frame) => frame,
                Err(end) => return end.words(),
            };
            *lock(&self.heard) = Instant::now();
            match frame.message {
                Message::EchoRequest(data) => self.at_once(frame.xid, Message::EchoReply(data)),
                Message::PortStatus { reason, port } => {
                    let mut known = lock(&self.ports);
                    match reason {
                        PORT_DELETED => known.forget(port.port_no),
                        _ => known.learn(&port),
                    }
                    drop(known);
                    heard(Heard::Ports);
                }
                Message::PacketIn(packet) => heard(Heard::Packet(packet)),
                Message::Error { kind, code, .. } => self.failed(frame.xid, Cause { kind, code }),
                Message::MultipartReply { more, body } => {
                    if let Err(why) = self.part(frame.xid, more, body, buffer.len()) {
                        return why;
                    }
                }
                message => {
                    let waiting = lock(&self.waiting).remove(&frame.xid);
                    if let Some(Waiting::One(tell)) = waiting {
                        // who asked may have gone
                        let _ = tell.send(Ok(message));
                    }
                }
            }
        }
    }
    fn failed(&self, xid: u32, cause: Cause) {
        // who asked may have gone
        match lock(&self.waiting).remove(&xid) {
            Some(Waiting::One(tell)) => drop(tell.send(Err(cause))),
            Some(Waiting::Parts { done, .. }) => drop(done.send(Err(cause))),
            Some(Waiting::Quiet { number, refused }) => lock(&refused).push((number, cause)),
            // a frame for a port that has just gone
            None if xid == NOBODY => tracing::debug!("a switch did not send a frame: {cause}"),
            None => tracing::warn!("a switch sent an error about no request: {cause}"),
        }
    }
    fn part(
        &self,
        xid: u32,
        more: bool,
        body: MultipartReply,
        length: usize,
    ) -> Result<(), String> {
        let mut waiting = lock(&self.waiting);
        let Some(Waiting::Parts { so_far, bytes, .. }) = waiting.get_mut(&xid) else {
            return Ok(());
        };
        *bytes += length;
        if *bytes > LONGEST {
            return Err(format!("an answer is longer than {LONGEST} bytes"));
        }
        so_far.push(body);
        if !more && let Some(Waiting::Parts { so_far, done, .. }) = waiting.remove(&xid) {
            // who asked may have gone
            let _ = done.send(Ok(so_far));
        }
        Ok(())
    }
}

async fn send<W: AsyncWrite + Unpin>(to: W, mut queues: Queues) -> String {
    let mut to = BufWriter::new(to);
    loop {
        let ready = queues.urgent.try_recv().or_else(|_| queues.out.try_recv());
        let step = async {
            let frame = match ready {
                Ok(frame) => Some(frame),
                // nothing waits: what was written goes out now
                Err(_) => {
                    timeout(STALL, to.flush()).await??;
                    tokio::select! {
                        biased;
                        frame = queues.urgent.recv() => frame,
                        frame = queues.out.recv() => frame,
                    }
                }
            };
            match frame {
                Some(frame) => timeout(STALL, to.write_all(&frame)).await?.map(|()| true),
                None => Ok(false),
            }
        };
        match step.await {
            Ok(true) => {}
            Ok(false) => return "it was ended here".to_owned(),
            Err(e) => return format!("sending: {e}"),
        }
    }
}
