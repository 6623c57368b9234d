//! Statistics that peers accept: median, percentiles and the coefficient of variation.

use serde::{Deserialize, Serialize};

/// A summary of repeated measurements, in the unit of the values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many.
    pub count: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Smallest.
    pub min: f64,
    /// 5th percentile.
    pub p5: f64,
    /// 50th percentile.
    pub median: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
    /// Sample standard deviation over mean; 0 for a single value.
    pub cov: f64,
}

/// The summary of the values, or `None` where there are none or one is not a number.
pub fn summary(values: &[f64]) -> Option<Summary> {
    if values.is_empty() || values.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let mean = sorted.iter().sum::<f64>() / n;
    let square = sorted.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    let deviation = if sorted.len() > 1 {
        (square / (n - 1.0)).sqrt()
    } else {
        0.0
    };
    Some(Summary {
        count: sorted.len(),
        mean,
        min: sorted[0],
        p5: percentile(&sorted, 5.0),
        median: percentile(&sorted, 50.0),
        p99: percentile(&sorted, 99.0),
        max: sorted[sorted.len() - 1],
        cov: if mean == 0.0 {
            0.0
        } else {
            deviation / mean.abs()
        },
    })
}

/// Linear interpolation between the closest ranks (Hyndman and Fan's type 7) of a sorted,
/// non-empty slice.
fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let rank = percent / 100.0 * (sorted.len() - 1) as f64;
    let (low, high) = (rank.floor() as usize, rank.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (rank - low as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_known_set() {
        let s = summary(&[4.0, 1.0, 3.0, 2.0, 5.0]).unwrap();
        assert_eq!(
            (s.count, s.min, s.median, s.max, s.mean),
            (5, 1.0, 3.0, 5.0, 3.0)
        );
        assert!((s.p5 - 1.2).abs() < 1e-12 && (s.p99 - 4.96).abs() < 1e-12);
        assert!((s.cov - (2.5_f64).sqrt() / 3.0).abs() < 1e-12);
        assert_eq!(summary(&[]), None);
        assert_eq!(summary(&[f64::NAN]), None);
        assert_eq!(summary(&[7.0]).unwrap().cov, 0.0);
    }

    proptest! {
        #[test]
        fn percentiles_are_in_order(values in proptest::collection::vec(-1e9_f64..1e9, 1..80)) {
            let s = summary(&values).unwrap();
            prop_assert!(s.min <= s.p5 && s.p5 <= s.median && s.median <= s.p99 && s.p99 <= s.max);
        }
    }
}
