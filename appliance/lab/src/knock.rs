//! Knocking: whether a TCP connection from one network namespace to another comes about and carries a
//! byte there and back, and who answers it. Dropped packets are silent; anything else is named.

use anyhow::{Context, Result};
use std::{
    fmt,
    io::{self, Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

/// How long who answers waits for somebody who has connected.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came of a knock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A byte went there and came back.
    Open,
    /// Nothing was heard in time.
    Silent,
    /// Something else, in words: refused, unreachable.
    Else(String),
}
impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Open => "open",
            Self::Silent => "silent",
            Self::Else(what) => what,
        })
    }
}
impl FromStr for Heard {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "open" => Self::Open,
            "silent" => Self::Silent,
            other => Self::Else(other.to_owned()),
        })
    }
}

/// Sends everything back that arrives on these TCP ports, on every address of both families, until
/// its input ends.
pub fn answer(ports: &[u16]) -> Result<()> {
    for port in ports {
        // IPv4 comes in by the same socket (RFC 3493 §5.3), unless the machine has that turned off
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port))
            .with_context(|| format!("listening on TCP port {port}"))?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    // one that goes away or says nothing is its own affair
                    let _ = stream
                        .set_read_timeout(Some(PATIENCE))
                        .and_then(|()| io::copy(&mut &stream, &mut &stream));
                });
            }
        });
    }
    say("ready")?;
    io::stdin()
        .lock()
        .read_to_end(&mut Vec::new())
        .context("waiting for the end")?;
    Ok(())
}

/// Knocks at all of them at once, each for so long at most, and tells what came of it: a line each, in
/// their order.
pub fn knock(to: &[SocketAddr], wait: Duration) -> Result<()> {
    let heard: Vec<Heard> = thread::scope(|scope| {
        let all: Vec<_> = to
            .iter()
            .map(|to| scope.spawn(move || one(*to, wait)))
            .collect();
        all.into_iter()
            .map(|one| {
                one.join()
                    .unwrap_or_else(|_| Heard::Else("its thread panicked".into()))
            })
            .collect()
    });
    for heard in heard {
        say(&heard.to_string())?;
    }
    Ok(())
}

/// Knocks at one, keeps the connection, and knocks again over it when its input ends: what came of
/// each, a line each. Without a connection there is one line.
pub fn hold(to: SocketAddr, opening: Duration, again: Duration) -> Result<()> {
    let mut stream = match connected(to, opening) {
        Ok(stream) => stream,
        Err(heard) => return say(&heard.to_string()),
    };
    say(&Heard::Open.to_string())?;
    io::stdin()
        .lock()
        .read_to_end(&mut Vec::new())
        .context("waiting for the word")?;
    say(&there_and_back(&mut stream, again).to_string())
}

/// Knocks at one.
fn one(to: SocketAddr, wait: Duration) -> Heard {
    connected(to, wait).map_or_else(|heard| heard, |_| Heard::Open)
}

/// A connection over which a byte went there and came back.
fn connected(to: SocketAddr, wait: Duration) -> Result<TcpStream, Heard> {
    let end = Instant::now() + wait;
    let mut stream = TcpStream::connect_timeout(&to, wait).map_err(|error| named(&error))?;
    // no time at all would mean forever
    let left = end
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(1));
    match there_and_back(&mut stream, left) {
        Heard::Open => Ok(stream),
        heard => Err(heard),
    }
}

fn there_and_back(stream: &mut TcpStream, wait: Duration) -> Heard {
    let done = stream
        .set_read_timeout(Some(wait))
        .and_then(|()| stream.write_all(b"k"))
        .and_then(|()| stream.read_exact(&mut [0]));
    match done {
        Ok(()) => Heard::Open,
        Err(error) => named(&error),
    }
}

fn named(error: &io::Error) -> Heard {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Heard::Silent,
        io::ErrorKind::ConnectionRefused => Heard::Else("refused".into()),
        _ => Heard::Else(error.to_string()),
    }
}

fn say(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")
        .and_then(|()| stdout.flush())
        .context("telling the result")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails with what it could not do")]

    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn what_is_heard_is_told_apart() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let open = listener.local_addr().unwrap();
        let closed = {
            let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            gone.local_addr().unwrap()
        };
        let short = Duration::from_millis(50);
        // connected, and nobody says anything
        assert_eq!(one(open, short), Heard::Silent);
        let echo = thread::spawn(move || {
            // the first one has gone away meanwhile
            for stream in listener.incoming().take(2) {
                let stream = stream.unwrap();
                let _ = io::copy(&mut &stream, &mut &stream);
            }
        });
        assert_eq!(one(open, Duration::from_secs(5)), Heard::Open);
        echo.join().unwrap();
        assert_eq!(one(closed, short), Heard::Else("refused".into()));
        for heard in [
            Heard::Open,
            Heard::Silent,
            Heard::Else("No route to host".into()),
        ] {
            assert_eq!(heard.to_string().parse(), Ok(heard));
        }
    }
}
