//! How the rate of a slice on one NIC is divided among the interfaces that send in it there.
//!
//! Those with an agreed part get it, the others what is left in equal parts. Together they are never
//! more than the slice has; when it has less than was agreed (it ended, or was made smaller), all
//! shrink alike. Nobody gets nothing: an interface that is starved cannot even say goodbye.

/// The least that an interface gets where the slice has that much for each, bits per second.
const LEAST: u64 = 1_000_000;

/// The parts of `total`, in the order of the agreed ones; `None` has no part of its own.
pub(super) fn parts(total: u64, agreed: &[Option<u64>]) -> Vec<u64> {
    let count = agreed.len() as u64;
    if count == 0 {
        return Vec::new();
    }
    let least = LEAST.min(total / count);
    let without = agreed.iter().filter(|part| part.is_none()).count() as u64;
    let promised: u128 = agreed
        .iter()
        .flatten()
        .map(|part| u128::from((*part).max(least)))
        .sum();
    // what those without a part must have at least is taken off first
    let room = u128::from(total - least * without);
    let given: Vec<Option<u64>> = agreed
        .iter()
        .map(|part| {
            let part = u128::from((*part)?.max(least));
            let scaled = match promised > room {
                true => part * room / promised,
                false => part,
            };
            Some(u64::try_from(scaled).unwrap_or(total))
        })
        .collect();
    let left = total - given.iter().flatten().sum::<u64>();
    given
        .into_iter()
        .map(|part| part.unwrap_or_else(|| left / without))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const M: u64 = 1_000_000;

    #[test]
    fn an_agreed_part_is_had_and_the_others_share_the_rest() {
        for (total, agreed, expected) in [
            (900, vec![None, None, None], vec![300, 300, 300]),
            (900, vec![Some(600)], vec![600]),
            (900, vec![Some(600), None, None], vec![600, 150, 150]),
            // less than was agreed: all shrink alike
            (300, vec![Some(600), Some(300)], vec![200, 100]),
            // fully agreed: whoever came without a part is not starved
            (900, vec![Some(900), None], vec![899, 1]),
            (900, vec![], vec![]),
        ] {
            let agreed: Vec<Option<u64>> = agreed.into_iter().map(|p| p.map(|p| p * M)).collect();
            let found: Vec<u64> = parts(total * M, &agreed).iter().map(|p| p / M).collect();
            assert_eq!(found, expected, "{total} {agreed:?}");
        }
    }

    proptest! {
        #[test]
        fn together_never_more_than_the_slice_and_nobody_gets_nothing(
            total in 1_000_u64..u64::MAX / 2,
            agreed in proptest::collection::vec(proptest::option::of(any::<u64>()), 1..20),
        ) {
            let found = parts(total, &agreed);
            prop_assert_eq!(found.len(), agreed.len());
            let sum: u128 = found.iter().map(|part| u128::from(*part)).sum();
            prop_assert!(sum <= u128::from(total));
            for (part, agreed) in found.iter().zip(&agreed) {
                prop_assert!(*part > 0);
                prop_assert!(agreed.is_none_or(|agreed| *part <= agreed.max(LEAST)));
            }
        }
    }
}
