//! When the data of a large file flows: samples its size where it is written. The rate from the
//! first to the last data byte leaves out what starting and closing cost.

use crate::events::seconds;
use serde::Serialize;
use std::{
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime},
};

/// How often the size is looked at.
pub const EVERY: Duration = Duration::from_millis(5);

/// A size at a time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sample {
    /// Seconds since 1970.
    pub t: f64,
    /// Bytes that were there.
    pub bytes: u64,
}

/// What was seen of one file.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Flow {
    /// Bytes that were there before: more than 0 after a resume.
    pub before: u64,
    /// The first sample with more.
    pub first: Sample,
    /// The sample at which it was whole.
    pub last: Sample,
    /// Payload bits per second between the two samples; 0 when one sample saw it all.
    pub goodput_bps: f64,
}

/// Collects samples of one file until it is whole.
#[derive(Debug)]
pub struct Meter {
    whole: u64,
    before: u64,
    first: Option<Sample>,
    flow: Option<Flow>,
}

impl Meter {
    /// For a file that will have `whole` bytes and has `before` now.
    pub fn new(whole: u64, before: u64) -> Self {
        Self {
            whole,
            before,
            first: None,
            flow: None,
        }
    }

    /// Takes a sample; gives the flow at the one that sees the whole file, once.
    pub fn take(&mut self, sample: Sample) -> Option<Flow> {
        if self.flow.is_some() {
            return None;
        }
        if sample.bytes < self.before {
            // cut back before a resume: the flow begins from there
            self.before = sample.bytes;
            self.first = None;
            return None;
        }
        if sample.bytes > self.before && self.first.is_none() {
            self.first = Some(sample);
        }
        let first = self.first?;
        if sample.bytes < self.whole {
            return None;
        }
        let elapsed = sample.t - first.t;
        let moved = (sample.bytes - first.bytes) as f64;
        let flow = Flow {
            before: self.before,
            first,
            last: sample,
            goodput_bps: if elapsed > 0.0 {
                moved * 8.0 / elapsed
            } else {
                0.0
            },
        };
        self.flow = Some(flow);
        Some(flow)
    }
}

/// How much of a file is there: its size, or less where blocks are still missing in its middle
/// (several streams write at several places); `None` when there is no such file.
pub fn present(path: &Path) -> io::Result<Option<u64>> {
    match path.symlink_metadata() {
        // st_blocks counts units of 512 bytes (stat(2)), delayed allocation included
        Ok(meta) => Ok(Some(meta.len().min(meta.blocks().saturating_mul(512)))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Samples `path` until it has `whole` bytes.
pub fn until_whole(path: &Path, whole: u64, deadline: Duration) -> io::Result<Flow> {
    // the size alone: a file system that compresses has fewer blocks than bytes for ever
    let size = || match path.symlink_metadata() {
        Ok(meta) => Ok(meta.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    };
    let mut meter = Meter::new(whole, size()?);
    let started = SystemTime::now();
    loop {
        let now = SystemTime::now();
        let sample = Sample {
            t: seconds(now),
            bytes: size()?,
        };
        if let Some(flow) = meter.take(sample) {
            return Ok(flow);
        }
        if now.duration_since(started).unwrap_or_default() > deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "{} of {whole} bytes are there after {deadline:?}",
                    sample.bytes
                ),
            ));
        }
        std::thread::sleep(EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(whole: u64, samples: &[(f64, u64)]) -> Option<Flow> {
        let mut meter = Meter::new(whole, samples[0].1);
        samples.iter().find_map(|(t, bytes)| {
            meter.take(Sample {
                t: *t,
                bytes: *bytes,
            })
        })
    }

    #[test]
    fn goodput_is_between_first_and_last_data_byte() {
        let flow = meter(
            900,
            &[
                (0.0, 0),
                (5.0, 0),
                (6.0, 100),
                (7.0, 500),
                (8.0, 900),
                (9.0, 900),
            ],
        );
        let flow = flow.unwrap();
        assert_eq!((flow.before, flow.first.t, flow.last.t), (0, 6.0, 8.0));
        assert_eq!(flow.goodput_bps, 3200.0);
        assert_eq!(meter(900, &[(0.0, 0), (6.0, 100)]), None);
    }

    #[test]
    fn a_resume_counts_from_where_it_begins() {
        let flow = meter(900, &[(0.0, 400), (1.0, 300), (2.0, 500), (3.0, 900)]).unwrap();
        assert_eq!(
            (flow.before, flow.first.bytes, flow.goodput_bps),
            (300, 500, 3200.0)
        );
    }
}
