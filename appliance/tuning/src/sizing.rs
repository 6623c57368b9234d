//! How large TCP's buffers must be, and how many streams a rate takes: arithmetic, no I/O.

use dtn_api::{Rate, Size, Span};
use serde::{Deserialize, Serialize};

/// The largest window of TCP: 65,535 bytes scaled by 2^14 (RFC 7323 section 2.3), about 1 GiB.
pub const LARGEST_WINDOW: u64 = 1 << 30;
/// The largest value of `tcp_rmem` and `tcp_wmem`: the kernel holds them as `int`.
pub const LARGEST_BUFFER: u64 = 2_147_483_647;
/// No path gets less than this where memory allows: below it a burst of 10 Gb/s does not fit.
pub const LEAST_BUFFER: u64 = 4 << 20;
/// The part of a pod's memory that socket buffers may take: 1 / 2. The rest is for the mover and
/// the pages of its files, which are charged to the same limit.
const MEMORY_SHARE: u64 = 2;

/// The path that a pod's traffic takes, and what it has to hold its buffers in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// Rate of the slice, or of the NIC where there is no slice.
    pub rate: Rate,
    /// Worst round trip.
    pub rtt: Span,
    /// MTU in bytes.
    pub mtu: u32,
    /// Streams that run at the same time.
    pub streams: u32,
    /// Memory limit of the pod; none when it may take the machine's.
    pub memory_limit: Option<Size>,
}

impl Path {
    /// Bandwidth × delay: the bytes under way when the path is full.
    pub fn bandwidth_delay_product(&self) -> Size {
        let bits = u128::from(self.rate.bps()) * u128::from(self.rtt.millis());
        Size::from_bytes(u64::try_from(bits / 8_000).unwrap_or(u64::MAX))
    }

    /// What one stream's buffer may take of the pod's memory.
    pub fn memory_share(&self) -> Option<Size> {
        let streams = u64::from(self.streams.max(1));
        let share = self.memory_limit?.bytes() / MEMORY_SHARE / streams;
        Some(Size::from_bytes(share))
    }

    /// The ceiling of TCP's automatic buffer: twice what is under way, because the kernel counts
    /// its own overhead in (about half), at least 4 MiB; never more than the pod's memory allows
    /// all streams together, nor than the kernel takes.
    pub fn buffer(&self) -> Size {
        let wanted = self.bandwidth_delay_product().bytes().saturating_mul(2);
        let wanted = wanted.clamp(LEAST_BUFFER, LARGEST_BUFFER);
        let share = self.memory_share().map_or(u64::MAX, Size::bytes);
        Size::from_bytes(wanted.min(share))
    }

    /// How many streams the rate takes: one carries at most a window per round trip, and a window
    /// is at most half of the buffer.
    pub fn streams_needed(&self) -> u32 {
        let window = (self.buffer().bytes() / 2).clamp(1, LARGEST_WINDOW);
        let under_way = self.bandwidth_delay_product().bytes();
        u32::try_from(under_way.div_ceil(window))
            .unwrap_or(u32::MAX)
            .max(1)
    }

    /// What one stream can carry at most, by its window alone.
    pub fn stream_ceiling(&self) -> Option<Rate> {
        let window = u128::from((self.buffer().bytes() / 2).min(LARGEST_WINDOW));
        let bps = (window * 8_000).checked_div(u128::from(self.rtt.millis()))?;
        Some(Rate::from_bps(u64::try_from(bps).unwrap_or(u64::MAX)))
    }

    /// The memory limit with which nothing would be cut: what a template should ask for.
    pub fn memory_needed(&self) -> Size {
        let uncut = Self {
            memory_limit: None,
            ..*self
        };
        let streams = u64::from(self.streams.max(1));
        let all = uncut.buffer().bytes().saturating_mul(streams);
        Size::from_bytes(all.saturating_mul(MEMORY_SHARE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(gbit: u64, rtt_ms: u64) -> Path {
        Path {
            rate: Rate::from_bps(gbit * 1_000_000_000),
            rtt: Span::from_millis(rtt_ms),
            mtu: 9000,
            streams: 1,
            memory_limit: None,
        }
    }

    #[test]
    fn products_are_those_of_the_published_table() {
        // fasterdata.es.net, host tuning: BDP in bytes
        for (gbit, rtt, bytes) in [
            (10, 1, 1_250_000),
            (10, 100, 125_000_000),
            (25, 10, 31_250_000),
            (40, 50, 250_000_000),
            (100, 100, 1_250_000_000),
            (100, 200, 2_500_000_000),
        ] {
            let product = path(gbit, rtt).bandwidth_delay_product();
            assert_eq!(product.bytes(), bytes, "{gbit}G {rtt} ms");
        }
    }

    #[test]
    fn buffers_are_twice_the_product_within_their_bounds() {
        assert_eq!(path(10, 100).buffer().bytes(), 250_000_000);
        assert_eq!(path(1, 0).buffer().bytes(), LEAST_BUFFER);
        assert_eq!(path(100, 200).buffer().bytes(), LARGEST_BUFFER);
    }

    #[test]
    fn memory_is_shared_by_the_streams_and_wins_over_the_least_buffer() {
        let mut path = path(10, 100);
        path.streams = 4;
        path.memory_limit = Some(Size::from_bytes(1 << 30));
        assert_eq!(path.buffer().bytes(), (1 << 30) / 8);
        path.memory_limit = Some(Size::from_bytes(1 << 20));
        assert_eq!(path.buffer().bytes(), (1 << 20) / 8);
        assert_eq!(path.memory_needed().bytes(), 2 * 4 * 250_000_000);
    }

    #[test]
    fn one_stream_is_not_enough_where_its_window_is_not() {
        // 100 Gb/s over 130 ms: a window of 1 GiB carries 66 Gb/s
        let path = path(100, 130);
        assert_eq!(path.streams_needed(), 2);
        let ceiling = path.stream_ceiling().unwrap().bps();
        assert!(
            (66_000_000_000..66_100_000_000).contains(&ceiling),
            "{ceiling}"
        );
        assert_eq!(
            super::Path {
                rtt: Span::from_millis(0),
                ..path
            }
            .stream_ceiling(),
            None
        );
        assert_eq!(
            super::Path {
                rtt: Span::from_millis(50),
                ..path
            }
            .streams_needed(),
            1
        );
    }

    proptest! {
        #[test]
        fn all_buffers_together_stay_within_the_share_of_memory(
            bps in 1_u64..1_000_000_000_000, rtt in 0_u64..2_000, streams in 0_u32..10_000,
            memory in 0_u64..(1 << 42),
        ) {
            let path = Path {
                rate: Rate::from_bps(bps),
                rtt: Span::from_millis(rtt),
                mtu: 1500,
                streams,
                memory_limit: Some(Size::from_bytes(memory)),
            };
            let all = path.buffer().bytes() * u64::from(streams.max(1));
            prop_assert!(all <= memory / 2);
            prop_assert!(path.buffer().bytes() <= LARGEST_BUFFER);
            prop_assert!(path.streams_needed() >= 1);
            // with what it says it needs, nothing is cut
            let fed = Path { memory_limit: Some(path.memory_needed()), ..path };
            let free = Path { memory_limit: None, ..path };
            prop_assert_eq!(fed.buffer(), free.buffer());
        }
    }
}
