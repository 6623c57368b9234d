//! The wide-area link's delay, where the kernel has no netem: a relay between two macvtap devices.
//!
//! A macvtap in mode `passthru` on a cable's end gives its frames to whoever opens its character
//! device, and takes frames from there. Two defaults of the kernel (drivers/net/tap.c) make that fast
//! without a single ioctl: every frame comes with a `struct virtio_net_hdr`, and the device is opened
//! with all offloads, so TCP arrives as one frame of up to 64 KiB with its checksum still to be
//! filled in, and goes out again the same way. The relay reads a frame, holds it for half a round
//! trip and writes it, header and all, to the other side. It never looks inside.
//!
//! Order is kept: one reader and one writer per direction, and a queue between them. The queue is
//! bounded in bytes; what does not fit is dropped and counted.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// Longest frame that is read: a GSO frame is at most 64 KiB of IP (GSO_LEGACY_MAX_SIZE) with its
/// Ethernet and virtio headers; twice that leaves room for stacked VLAN tags.
const LONGEST: usize = 128 << 10;

/// What went through in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Count {
    /// Frames as the relay saw them; a frame may stand for many segments.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames that did not fit into the queue, or that the other side did not take.
    pub dropped: u64,
    /// Most bytes that ever waited.
    pub most_waiting: u64,
}

#[derive(Default)]
struct Counters {
    frames: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    waiting: AtomicU64,
    most_waiting: AtomicU64,
}

impl Counters {
    fn read(&self) -> Count {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Count {
            frames: get(&self.frames),
            bytes: get(&self.bytes),
            dropped: get(&self.dropped),
            most_waiting: get(&self.most_waiting),
        }
    }
}

/// A frame that waits for its instant.
struct Waiting {
    due: Instant,
    frame: Vec<u8>,
}

/// Both directions of a relay, running until the process ends.
pub struct Relay {
    there: Arc<Counters>,
    back: Arc<Counters>,
}

impl Relay {
    /// Joins two files that give and take whole frames. `hold` is the delay of one direction,
    /// `queue` the most bytes that wait in one direction.
    pub fn start(one: File, other: File, hold: Duration, queue: u64) -> Result<Self> {
        let relay = Self {
            there: Arc::default(),
            back: Arc::default(),
        };
        let again = |file: &File| {
            file.try_clone()
                .context("opening a side of the relay twice")
        };
        pump(
            "there",
            again(&one)?,
            again(&other)?,
            hold,
            queue,
            Arc::clone(&relay.there),
        )?;
        pump("back", other, one, hold, queue, Arc::clone(&relay.back))?;
        Ok(relay)
    }
    /// What went through: from the first to the second, and back.
    pub fn counts(&self) -> [Count; 2] {
        [self.there.read(), self.back.read()]
    }
}

/// One direction: a thread that reads and stamps, and one that waits and writes.
fn pump(
    name: &str,
    mut from: File,
    mut to: File,
    hold: Duration,
    queue: u64,
    counters: Arc<Counters>,
) -> Result<()> {
    let (sender, receiver) = mpsc::channel::<Waiting>();
    let reading = Arc::clone(&counters);
    thread::Builder::new()
        .name(format!("{name}-reader"))
        .spawn(move || {
            let mut buffer = vec![0_u8; LONGEST];
            loop {
                let length = match from.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(length) => length,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => {
                        tracing::error!(%error, "reading a frame; this direction stops");
                        return;
                    }
                };
                let due = Instant::now() + hold;
                let size = length as u64;
                if reading.waiting.load(Ordering::Relaxed) + size > queue {
                    reading.dropped.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let waiting = reading.waiting.fetch_add(size, Ordering::Relaxed) + size;
                reading.most_waiting.fetch_max(waiting, Ordering::Relaxed);
                if sender
                    .send(Waiting {
                        due,
                        frame: buffer[..length].to_vec(),
                    })
                    .is_err()
                {
                    return;
                }
            }
        })
        .context("starting a reader")?;
    thread::Builder::new()
        .name(format!("{name}-writer"))
        .spawn(move || {
            for Waiting { due, frame } in receiver {
                let left = due.saturating_duration_since(Instant::now());
                if !left.is_zero() {
                    thread::sleep(left);
                }
                counters
                    .waiting
                    .fetch_sub(frame.len() as u64, Ordering::Relaxed);
                match to.write(&frame) {
                    // a device takes a frame whole or not at all
                    Ok(length) if length == frame.len() => {
                        counters.frames.fetch_add(1, Ordering::Relaxed);
                        counters
                            .bytes
                            .fetch_add(frame.len() as u64, Ordering::Relaxed);
                    }
                    // the link is down or its queue full: a frame is lost, as on any wire
                    Ok(_) | Err(_) => {
                        counters.dropped.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        })
        .context("starting a writer")?;
    Ok(())
}

/// Opens the character device of a macvtap. Its number is in sysfs; the node is made in `nodes`, a
/// folder on a file system that takes device files.
pub fn open_macvtap(sysfs: &Path, link: &str, nodes: &Path) -> Result<File> {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let folder = sysfs.join("class/net").join(link);
    let tap = fs::read_dir(&folder)
        .with_context(|| format!("looking for {link} in {}", folder.display()))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .find(|name| name.starts_with("tap"))
        .with_context(|| {
            format!(
                "{link} is no macvtap: {} has no tap device",
                folder.display()
            )
        })?;
    let number = folder.join(&tap).join("dev");
    let text =
        fs::read_to_string(&number).with_context(|| format!("reading {}", number.display()))?;
    let parsed = text
        .trim()
        .split_once(':')
        .and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    let Some((major, minor)) = parsed else {
        bail!("{} is no device number: {text:?}", number.display());
    };
    fs::create_dir_all(nodes).with_context(|| format!("making {}", nodes.display()))?;
    let node: PathBuf = nodes.join(&tap);
    match mknod(
        &node,
        SFlag::S_IFCHR,
        Mode::S_IRUSR | Mode::S_IWUSR,
        makedev(major, minor),
    ) {
        Err(nix::errno::Errno::EEXIST) | Ok(()) => {}
        Err(error) => {
            return Err(error)
                .with_context(|| format!("making the device file {}", node.display()));
        }
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(&node)
        .with_context(|| format!("opening {} of {link}", node.display()))
}

/// What a relay is told on its command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sides {
    /// The macvtap of the first side.
    pub one: String,
    /// The macvtap of the second side.
    pub other: String,
    /// Delay of one direction.
    pub hold: Duration,
    /// Most bytes that wait in one direction.
    pub queue: u64,
}

/// The relay as a process: says `ready`, answers each line with its counts, ends with its input.
pub fn serve(sides: &Sides) -> Result<()> {
    let (sysfs, nodes) = (Path::new("/sys"), Path::new("/run/relay"));
    let relay = Relay::start(
        open_macvtap(sysfs, &sides.one, nodes)?,
        open_macvtap(sysfs, &sides.other, nodes)?,
        sides.hold,
        sides.queue,
    )?;
    let say = |text: String| {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}")
            .and_then(|()| stdout.flush())
            .context("answering")
    };
    say("ready".into())?;
    for line in io::stdin().lock().lines() {
        line.context("waiting for a question")?;
        say(serde_json::to_string(&relay.counts()).context("writing the counts")?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;

    /// Two files that keep the bounds of what is written, as a tap does.
    fn wire() -> (UnixDatagram, File) {
        let (near, far) = UnixDatagram::pair().unwrap();
        near.set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        (near, File::from(OwnedFd::from(far)))
    }

    #[test]
    fn frames_come_out_whole_in_order_and_not_early() {
        let ((one, one_file), (other, other_file)) = (wire(), wire());
        let hold = Duration::from_millis(30);
        let relay = Relay::start(one_file, other_file, hold, 1 << 20).unwrap();
        let began = Instant::now();
        for index in 0_u32..50 {
            one.send(&[index.to_be_bytes().as_slice(), &[7; 1000]].concat())
                .unwrap();
        }
        let mut buffer = [0; 2000];
        for index in 0_u32..50 {
            let length = other.recv(&mut buffer).unwrap();
            assert_eq!(
                (length, &buffer[..4]),
                (1004, index.to_be_bytes().as_slice())
            );
        }
        assert!(began.elapsed() >= hold, "a frame came early");
        other.send(b"back").unwrap();
        assert_eq!(one.recv(&mut buffer).unwrap(), 4);
        let [there, _] = once(&relay, |[there, back]| {
            there.frames == 50 && back.frames == 1
        });
        assert_eq!((there.bytes, there.dropped), (50 * 1004, 0));
    }

    /// The counts once they are so: a writer counts after it has written.
    fn once(relay: &Relay, holds: impl Fn([Count; 2]) -> bool) -> [Count; 2] {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let counts = relay.counts();
            if holds(counts) {
                return counts;
            }
            assert!(Instant::now() < end, "{counts:?}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn the_queue_is_bounded_and_what_is_dropped_is_counted() {
        let ((one, one_file), (other, other_file)) = (wire(), wire());
        // nothing comes out while the test looks
        let relay = Relay::start(one_file, other_file, Duration::from_secs(3600), 10_000).unwrap();
        for _ in 0..30 {
            one.send(&[1; 1000]).unwrap();
        }
        let [there, back] = once(&relay, |[there, _]| there.dropped == 20);
        assert_eq!((there.frames, there.most_waiting), (0, 10_000));
        assert_eq!(back, Count::default());
        drop(other);
    }
}
