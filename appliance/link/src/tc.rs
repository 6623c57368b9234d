//! The bytes of traffic control that the netlink crates do not type: HTB, TBF, fq, pfifo.
//!
//! Layouts are those of the kernel's `include/uapi/linux/pkt_sched.h`. Tests hold the bytes still;
//! the tests of the crate hold what the kernel makes of them against `tc`.

use dtn_api::Rate;
use netlink_packet_core::{DefaultNla, Emitable, Nla, NlasIterator};

pub(crate) const TCA_OPTIONS: u16 = 2;
const TCA_HTB_PARMS: u16 = 1;
const TCA_HTB_INIT: u16 = 2;
const TCA_HTB_RATE64: u16 = 6;
const TCA_HTB_CEIL64: u16 = 7;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const TCA_FQ_PLIMIT: u16 = 1;
const TCA_FQ_FLOW_PLIMIT: u16 = 2;
const TCA_FQ_FLOW_MAX_RATE: u16 = 7;

/// `TC_LINKLAYER_ETHERNET`: with it the kernel computes times itself and asks for no rate table.
const ETHERNET: u8 = 1;
/// A tick of the packet scheduler is 64 ns (`PSCHED_SHIFT` 6) on every kernel since 2.6.31.
const TICK_NS: u128 = 64;

/// Bytes per second of a rate, rounded down: the scheduler's own unit.
pub fn bytes_per_second(rate: Rate) -> u64 {
    rate.bps() / 8
}

/// How long a burst takes at a rate, in ticks of the scheduler, rounded up so that the kernel's
/// bucket is not smaller than what was asked for.
pub fn burst_ticks(rate: Rate, burst_bytes: u32) -> u32 {
    let bytes_per_second = u128::from(bytes_per_second(rate).max(1));
    let nanoseconds = (u128::from(burst_bytes) * 1_000_000_000).div_ceil(bytes_per_second);
    u32::try_from(nanoseconds.div_ceil(TICK_NS)).unwrap_or(u32::MAX)
}

/// The bytes that fit in so many ticks at a rate: [`burst_ticks`] back.
pub fn burst_bytes(rate: Rate, ticks: u32) -> u64 {
    let bytes = u128::from(ticks) * TICK_NS * u128::from(bytes_per_second(rate)) / 1_000_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// `struct tc_ratespec`: the rate saturates, the 64-bit attribute beside it holds the rest.
fn ratespec(rate: Rate) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[1] = ETHERNET;
    let low = u32::try_from(bytes_per_second(rate)).unwrap_or(u32::MAX);
    bytes[8..].copy_from_slice(&low.to_ne_bytes());
    bytes
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn rate64(kind: u16, rate: Rate) -> DefaultNla {
    DefaultNla::new(kind, bytes_per_second(rate).to_ne_bytes().to_vec())
}

/// Options of an HTB root whose traffic goes to the class with this minor number.
/// `struct tc_htb_glob` { version 3, rate2quantum 10, default class, debug 0, direct packets 0 }.
pub fn htb_root(default_class: u16) -> Vec<DefaultNla> {
    let glob = words(&[3, 10, u32::from(default_class), 0, 0]);
    vec![DefaultNla::new(TCA_HTB_INIT, glob)]
}

/// Options of an HTB class that may send at `rate` and no faster.
/// `struct tc_htb_opt` { rate, ceil, buffer, cbuffer, quantum, level, prio }.
pub fn htb_class(rate: Rate, burst_bytes: u32, quantum: u32) -> Vec<DefaultNla> {
    let ticks = burst_ticks(rate, burst_bytes);
    let mut options = [ratespec(rate), ratespec(rate)].concat();
    options.extend(words(&[ticks, ticks, quantum, 0, 0]));
    vec![
        DefaultNla::new(TCA_HTB_PARMS, options),
        rate64(TCA_HTB_RATE64, rate),
        rate64(TCA_HTB_CEIL64, rate),
    ]
}

/// Options of a TBF; `limit_bytes` may wait in its queue.
/// `struct tc_tbf_qopt` { rate, peak rate, limit, buffer, mtu }.
pub fn tbf(rate: Rate, burst_bytes: u32, limit_bytes: u32) -> Vec<DefaultNla> {
    let mut options = ratespec(rate).to_vec();
    // no peak rate
    options.extend([0; 12]);
    options.extend(words(&[limit_bytes, burst_ticks(rate, burst_bytes), 0]));
    vec![
        DefaultNla::new(TCA_TBF_PARMS, options),
        rate64(TCA_TBF_RATE64, rate),
        DefaultNla::new(TCA_TBF_BURST, burst_bytes.to_ne_bytes().to_vec()),
    ]
}

/// Options of fq; `max_rate` is that of *each flow*, and the kernel has 32 bits for it (34 Gb/s).
pub fn fq(limit_packets: u32, flow_limit_packets: u32, max_rate: Option<Rate>) -> Vec<DefaultNla> {
    let word = |kind, value: u32| DefaultNla::new(kind, value.to_ne_bytes().to_vec());
    let mut options = vec![
        word(TCA_FQ_PLIMIT, limit_packets),
        word(TCA_FQ_FLOW_PLIMIT, flow_limit_packets),
    ];
    options.extend(max_rate.map(|rate| {
        let low = u32::try_from(bytes_per_second(rate)).unwrap_or(u32::MAX);
        word(TCA_FQ_FLOW_MAX_RATE, low)
    }));
    options
}

/// Options of a pfifo, which are no attributes but `struct tc_fifo_qopt` { limit }.
pub fn pfifo(limit_packets: u32) -> Vec<u8> {
    limit_packets.to_ne_bytes().to_vec()
}

/// What the options of an HTB class or a TBF say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shaper {
    /// What may be sent, in the long run.
    pub rate: Rate,
    /// What may be sent at once, in bytes.
    pub burst_bytes: u64,
}

/// Reads the options of an HTB class.
pub fn parse_htb_class(options: &[u8]) -> Option<Shaper> {
    let parameters = attribute(options, TCA_HTB_PARMS)?;
    let rate = rate_of(parameters, attribute(options, TCA_HTB_RATE64))?;
    let ticks = word_at(parameters, 24)?;
    Some(Shaper {
        rate,
        burst_bytes: burst_bytes(rate, ticks),
    })
}

/// Reads the minor number of the class that an HTB root sends all traffic to that no filter
/// picks; `None` when it has none (0).
pub fn parse_htb_default(options: &[u8]) -> Option<u16> {
    let default = word_at(attribute(options, TCA_HTB_INIT)?, 8)?;
    u16::try_from(default).ok().filter(|minor| *minor != 0)
}

/// Reads the options of a TBF.
pub fn parse_tbf(options: &[u8]) -> Option<Shaper> {
    let parameters = attribute(options, TCA_TBF_PARMS)?;
    let rate = rate_of(parameters, attribute(options, TCA_TBF_RATE64))?;
    let ticks = word_at(parameters, 28)?;
    Some(Shaper {
        rate,
        burst_bytes: burst_bytes(rate, ticks),
    })
}

/// Reads the rate of each flow from the options of fq; `None` when it is not limited.
pub fn parse_fq(options: &[u8]) -> Option<Rate> {
    let bytes = word_at(attribute(options, TCA_FQ_FLOW_MAX_RATE)?, 0)?;
    (bytes != u32::MAX).then(|| Rate::from_bps(u64::from(bytes) * 8))
}

/// The 32-bit rate of a `tc_ratespec`, or the 64-bit one that the kernel adds from 2^32 B/s on.
fn rate_of(parameters: &[u8], wide: Option<&[u8]>) -> Option<Rate> {
    let bytes = match wide {
        Some(wide) => u64::from_ne_bytes(wide.get(..8)?.try_into().ok()?),
        None => u64::from(word_at(parameters, 8)?),
    };
    Some(Rate::from_bps(bytes.saturating_mul(8)))
}

fn word_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn attribute(options: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = options;
    // NlasIterator lends its values only as long as an item lives, so the bounds come from it
    while let Some(Ok(nla)) = NlasIterator::new(rest).next() {
        let (found, length) = (nla.kind(), usize::from(nla.length()));
        if found == kind {
            return rest.get(4..length);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// The bytes of attributes one after the other, as in a nest.
pub fn emit(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

/// The value of an attribute.
pub fn value(nla: &DefaultNla) -> Vec<u8> {
    let mut bytes = vec![0; nla.value_len()];
    nla.emit_value(&mut bytes);
    bytes
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gbit(gbit: u64) -> Rate {
        Rate::from_bps(gbit * 1_000_000_000)
    }

    #[test]
    fn the_bytes_of_an_htb_class() {
        // 10 Gb/s are 1,250,000,000 B/s (0x4a817c80); 1,250,000 bytes take 1 ms, 15,625 ticks
        let bytes = emit(&htb_class(gbit(10), 1_250_000, 65_536));
        let golden = [
            48, 0, 1, 0, // TCA_HTB_PARMS, 44 bytes
            0, 1, 0, 0, 0, 0, 0, 0, 0x80, 0x7c, 0x81, 0x4a, // rate
            0, 1, 0, 0, 0, 0, 0, 0, 0x80, 0x7c, 0x81, 0x4a, // ceil
            0x09, 0x3d, 0, 0, 0x09, 0x3d, 0, 0, // buffer, cbuffer
            0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, // quantum, level, prio
            12, 0, 6, 0, 0x80, 0x7c, 0x81, 0x4a, 0, 0, 0, 0, // rate64
            12, 0, 7, 0, 0x80, 0x7c, 0x81, 0x4a, 0, 0, 0, 0, // ceil64
        ];
        assert_eq!(bytes, golden);
    }

    #[test]
    fn a_rate_above_32_bits_saturates_beside_its_64_bit_attribute() {
        // 100 Gb/s are 12,500,000,000 B/s (0x2_e90e_dd00)
        let bytes = emit(&htb_class(gbit(100), 12_500_000, 65_536));
        assert_eq!(bytes[12..16], [0xff; 4]);
        assert_eq!(bytes[52..60], [0x00, 0xdd, 0x0e, 0xe9, 2, 0, 0, 0]);
        let read = parse_htb_class(&bytes).unwrap();
        assert_eq!(
            read,
            Shaper {
                rate: gbit(100),
                burst_bytes: 12_500_000
            }
        );
    }

    #[test]
    fn the_bytes_of_an_htb_root_and_of_fifo() {
        let root = emit(&htb_root(1));
        let golden = [
            24, 0, 2, 0, 3, 0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(root, golden);
        assert_eq!(parse_htb_default(&root), Some(1));
        assert_eq!(parse_htb_default(&emit(&htb_root(0))), None);
        assert_eq!(pfifo(1000), [0xe8, 3, 0, 0]);
    }

    #[test]
    fn the_bytes_of_tbf() {
        // 100 Mb/s are 12,500,000 B/s (0xbebc20); 65,536 bytes take 5,242,880 ns, 81,920 ticks
        let bytes = emit(&tbf(Rate::from_bps(100_000_000), 65_536, 1_000_000));
        let golden = [
            40, 0, 1, 0, // TCA_TBF_PARMS, 36 bytes
            0, 1, 0, 0, 0, 0, 0, 0, 0x20, 0xbc, 0xbe, 0, // rate
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // peak rate
            0x40, 0x42, 0x0f, 0, 0x00, 0x40, 1, 0, 0, 0, 0, 0, // limit, buffer, mtu
            12, 0, 4, 0, 0x20, 0xbc, 0xbe, 0, 0, 0, 0, 0, // rate64
            8, 0, 6, 0, 0, 0, 1, 0, // burst
        ];
        assert_eq!(bytes, golden);
        assert_eq!(parse_tbf(&bytes).unwrap().rate.bps(), 100_000_000);
    }

    #[test]
    fn the_bytes_of_fq() {
        let bytes = emit(&fq(10_000, 1_000, Some(gbit(2))));
        let golden = [
            8, 0, 1, 0, 0x10, 0x27, 0, 0, // limit
            8, 0, 2, 0, 0xe8, 3, 0, 0, // flow limit
            8, 0, 7, 0, 0x80, 0xb2, 0xe6, 0x0e, // flow max rate: 250,000,000 B/s
        ];
        assert_eq!(bytes, golden);
        assert_eq!(parse_fq(&bytes), Some(gbit(2)));
        assert_eq!(parse_fq(&emit(&fq(1, 1, Some(gbit(100))))), None);
        assert_eq!(parse_fq(&emit(&fq(1, 1, None))), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(mbit in 1_u64..800_000, burst in 65_536_u32..100_000_000) {
            let rate = Rate::from_bps(mbit * 1_000_000);
            let read = parse_htb_class(&emit(&htb_class(rate, burst, 65_536))).unwrap();
            prop_assert_eq!(read.rate, rate);
            // never smaller than asked, and by less than two ticks larger
            let tick = bytes_per_second(rate) * 128 / 1_000_000_000 + 1;
            prop_assert!(read.burst_bytes >= u64::from(burst) || burst_ticks(rate, burst) == u32::MAX);
            prop_assert!(read.burst_bytes <= u64::from(burst) + tick);
        }
        #[test]
        fn no_parser_panics(bytes: Vec<u8>) {
            let _ = (parse_htb_class(&bytes), parse_tbf(&bytes), parse_fq(&bytes));
            let _ = parse_htb_default(&bytes);
        }
    }
}
