//! What the wide-area link really does, tried between the two switches before anyone uses it: bytes
//! per second of one TCP stream, and round trips of small datagrams.

use anyhow::{Context, Result, ensure};
use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

/// Port of the far end, UDP and TCP.
pub const PORT: u16 = 7;
/// The start of a stream that is not counted, since its window is still opening: doubling from ten
/// segments (RFC 6928) to some hundred megabits takes about a dozen round trips.
pub fn warm_up(rtt: Duration) -> Duration {
    Duration::from_millis(400) + rtt * 15
}
/// How long the far end waits for the near end.
const PATIENCE: Duration = Duration::from_secs(20);

/// The far end: answers datagrams, takes one stream, and tells how fast it came (bits per second on
/// a line) when that has ended.
pub fn far(warm_up: Duration) -> Result<()> {
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let datagrams = UdpSocket::bind(everywhere).context("listening for datagrams")?;
    let streams = TcpListener::bind(everywhere).context("listening for a stream")?;
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, from)) = datagrams.recv_from(&mut buffer) {
            if datagrams.send_to(&buffer[..length], from).is_err() {
                return;
            }
        }
    });
    say("ready")?;
    let (mut stream, _) = streams.accept().context("taking the stream")?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .context("limiting the wait")?;
    let (mut buffer, began, mut counted) =
        (vec![0; 1 << 20], Instant::now(), None::<(Instant, u64)>);
    loop {
        let length = stream.read(&mut buffer).context("reading the stream")?;
        if length == 0 {
            break;
        }
        match &mut counted {
            Some((_, bytes)) => *bytes += length as u64,
            None if began.elapsed() >= warm_up => counted = Some((Instant::now(), 0)),
            None => {}
        }
    }
    let (since, bytes) = counted.context("the stream ended before it was warm")?;
    say(&format!(
        "{:.0}",
        bytes as f64 * 8.0 / since.elapsed().as_secs_f64()
    ))
}

/// The near end of a stream: sends for so long, then ends it.
pub fn send(to: Ipv4Addr, length: Duration) -> Result<()> {
    let mut stream =
        TcpStream::connect((to, PORT)).with_context(|| format!("connecting to {to}"))?;
    stream
        .set_write_timeout(Some(PATIENCE))
        .context("limiting the wait")?;
    let (block, end) = (vec![0_u8; 256 << 10], Instant::now() + length);
    while Instant::now() < end {
        stream
            .write_all(&block)
            .with_context(|| format!("sending to {to}"))?;
    }
    Ok(())
}

/// The near end of datagrams: the median of so many round trips, in microseconds on a line.
pub fn ping(to: Ipv4Addr, count: u32) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("opening a socket")?;
    socket
        .connect((to, PORT))
        .with_context(|| format!("naming {to}"))?;
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .context("limiting the wait")?;
    let (mut trips, mut buffer) = (Vec::new(), [0; 64]);
    for index in 0..count.saturating_add(1) {
        let began = Instant::now();
        socket
            .send(&index.to_be_bytes())
            .with_context(|| format!("asking {to}"))?;
        let length = match socket.recv(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            other => other.with_context(|| format!("hearing from {to}"))?,
        };
        // the first also finds the neighbour's address; a late answer of an earlier one is not it
        if index > 0 && buffer[..length] == index.to_be_bytes() {
            trips.push(began.elapsed());
        }
    }
    ensure!(!trips.is_empty(), "{to} answered none of {count} datagrams");
    trips.sort_unstable();
    say(&trips[trips.len() / 2].as_micros().to_string())
}

fn say(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")
        .and_then(|()| stdout.flush())
        .context("telling the result")
}
