//! Counters that were read over time, turned into rates over time.

use serde::{Deserialize, Serialize};

/// A byte counter at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Nanoseconds since the measurement began.
    pub at_ns: u64,
    /// The counter.
    pub bytes: u64,
}

/// Goodput of one stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Middle of the stretch, seconds since the measurement began.
    pub at_s: f64,
    /// Bits per second in it.
    pub bps: f64,
}

/// The rate in each stretch of `width_ns`, from samples in order of time. A counter that ran
/// backwards (its link was made anew) counts as nothing for that stretch.
pub fn rates(samples: &[Sample], width_ns: u64) -> Vec<Point> {
    let mut points = Vec::new();
    let Some(mut from) = samples.first().copied() else {
        return points;
    };
    for sample in &samples[1..] {
        let span = sample.at_ns.saturating_sub(from.at_ns);
        if span < width_ns.max(1) {
            continue;
        }
        let bits = sample.bytes.saturating_sub(from.bytes) as f64 * 8.0;
        points.push(Point {
            at_s: (from.at_ns as f64 + span as f64 / 2.0) / 1e9,
            bps: bits * 1e9 / span as f64,
        });
        from = *sample;
    }
    points
}

/// Payload between the first and the last data byte: a file's size was sampled while it grew.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    /// Bytes that arrived between the two instants.
    pub bytes: u64,
    /// Seconds between them.
    pub seconds: f64,
}

/// The stretch in which a file grew, from samples of its size: from the first sample in which it
/// had bytes to the first in which it had all of them. Bytes that were there in that first sample
/// do not count, since nobody knows how long they took.
pub fn growth(samples: &[Sample]) -> Option<Growth> {
    let whole = samples.iter().map(|s| s.bytes).max()?;
    let first = samples.iter().find(|s| s.bytes > 0)?;
    let last = samples.iter().find(|s| s.bytes == whole)?;
    let span = last
        .at_ns
        .checked_sub(first.at_ns)
        .filter(|span| *span > 0)?;
    Some(Growth {
        bytes: whole - first.bytes,
        seconds: span as f64 / 1e9,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64, bytes: u64) -> Sample {
        Sample {
            at_ns: ms * 1_000_000,
            bytes,
        }
    }

    #[test]
    fn a_steady_counter_is_a_steady_rate() {
        let samples: Vec<_> = (0..=10).map(|i| at(i * 100, i * 1_250_000)).collect();
        let points = rates(&samples, 200_000_000);
        assert_eq!(points.len(), 5);
        assert!(
            points.iter().all(|p| (p.bps - 100e6).abs() < 1.0),
            "{points:?}"
        );
        assert!((points[0].at_s - 0.1).abs() < 1e-9);
    }

    #[test]
    fn a_counter_made_anew_is_no_negative_rate() {
        let points = rates(&[at(0, 1000), at(100, 0), at(200, 500)], 100_000_000);
        assert!((points[0].bps).abs() < f64::EPSILON && points[1].bps > 0.0);
    }

    #[test]
    fn growth_leaves_out_what_came_before_the_first_look() {
        let samples = [
            at(0, 0),
            at(5, 0),
            at(10, 100),
            at(1010, 1100),
            at(2000, 1100),
        ];
        assert_eq!(
            growth(&samples),
            Some(Growth {
                bytes: 1000,
                seconds: 1.0
            })
        );
        assert_eq!(growth(&[at(0, 0)]), None);
        assert_eq!(growth(&[at(0, 7)]), None);
    }

    proptest! {
        #[test]
        fn rates_keep_the_bytes(steps in proptest::collection::vec((1_u64..50, 0_u64..10_000_000), 1..60)) {
            let (mut ms, mut bytes) = (0, 0);
            let mut samples = vec![at(0, 0)];
            for (dt, db) in steps { ms += dt; bytes += db; samples.push(at(ms, bytes)); }
            // at the finest width no byte is lost: rate × time adds up to the counter
            let mut total = 0.0;
            let points = rates(&samples, 1);
            for (point, pair) in points.iter().zip(samples.windows(2)) {
                total += point.bps / 8.0 * (pair[1].at_ns - pair[0].at_ns) as f64 / 1e9;
            }
            prop_assert!((total - bytes as f64).abs() <= 1e-6 * bytes as f64 + 1e-3);
        }
    }
}
