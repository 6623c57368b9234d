//! Ranges of ports as switches can match them: OpenFlow knows a value under a mask, and no range.
//! Pure.

/// The values with their masks that a port from `first` to `last`, both included, meets exactly
/// once; at most 30 of them.
pub fn masked(first: u16, last: u16) -> Vec<(u16, u16)> {
    let mut all = Vec::new();
    let (mut next, last) = (u32::from(first), u32::from(last));
    while next <= last {
        // the greatest block that can begin here and does not go beyond the last one
        let mut size = 1;
        while next.is_multiple_of(size * 2) && next + size * 2 - 1 <= last {
            size *= 2;
        }
        all.push((next as u16, !(size - 1) as u16));
        next += size;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::masked;
    use proptest::prelude::*;

    #[test]
    fn ranges_become_blocks() {
        assert_eq!(masked(443, 443), [(443, 0xffff)]);
        assert_eq!(masked(0, 65_535), [(0, 0)]);
        assert_eq!(masked(6, 9), [(6, 0xfffe), (8, 0xfffe)]);
        assert_eq!(masked(1, 65_534).len(), 30, "the worst there is");
    }

    proptest! {
        #[test]
        fn a_port_of_the_range_meets_one_and_another_none(a: u16, b: u16, near in -2_i32..=2, any: u16) {
            let (first, last) = (a.min(b), a.max(b));
            let blocks = masked(first, last);
            prop_assert!(blocks.len() <= 30);
            let edges = [first, last].map(|end| (i32::from(end) + near).clamp(0, 65_535) as u16);
            for port in [any, edges[0], edges[1]] {
                let met = blocks.iter().filter(|(value, mask)| port & mask == *value).count();
                prop_assert_eq!(met, usize::from(first <= port && port <= last));
            }
        }
    }
}
