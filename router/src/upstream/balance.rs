//! Choosing an endpoint. One small interface: what else may choose (round robin, hashing, weights,
//! zones) implements [`Balance`] and nothing else changes.

/// What a choice may look at, for each endpoint of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// Requests that are under way on it, on this worker.
    pub active: usize,
    /// Whether it is passed over: it rests after a failed connection, or this request tried it.
    pub excluded: bool,
}

/// A way to choose.
pub(crate) trait Balance {
    /// Index of the endpoint to use, `None` when all are excluded. `random` is evenly spread over
    /// all values; a choice has no random source of its own.
    fn choose(&self, count: usize, load: impl Fn(usize) -> Load, random: u64) -> Option<usize>;
}

/// Least requests of two that are drawn at random ("power of two choices"): nearly as even as
/// least requests of all, without the herd that follows whoever was last seen idle.
/// Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LeastOfTwo;

impl Balance for LeastOfTwo {
    fn choose(&self, count: usize, load: impl Fn(usize) -> Load, random: u64) -> Option<usize> {
        let usable = (0..count).filter(|&i| !load(i).excluded).count();
        let nth = |n: usize| (0..count).filter(|&i| !load(i).excluded).nth(n);
        match usable {
            0 => None,
            1 => nth(0),
            _ => {
                let first = (random as u32) as usize % usable;
                // From the others, so that the two are never the same.
                let second = (first + 1 + (random >> 32) as usize % (usable - 1)) % usable;
                let (first, second) = (nth(first)?, nth(second)?);
                Some(if load(second).active < load(first).active {
                    second
                } else {
                    first
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_idler_of_two_wins() {
        let active = [5, 1];
        for random in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
            let load = |i: usize| Load {
                active: active[i],
                excluded: false,
            };
            assert_eq!(LeastOfTwo.choose(2, load, random), Some(1));
        }
    }

    proptest! {
        #[test]
        fn never_an_excluded_one_and_one_if_there_is_any(
            loads in proptest::collection::vec((0usize..9, any::<bool>()), 0..9),
            random: u64,
        ) {
            let load = |i: usize| Load { active: loads[i].0, excluded: loads[i].1 };
            let chosen = LeastOfTwo.choose(loads.len(), load, random);
            match chosen {
                Some(i) => prop_assert!(!loads[i].1),
                None => prop_assert!(loads.iter().all(|l| l.1)),
            }
        }

        #[test]
        fn the_busiest_of_three_or_more_is_never_chosen(
            count in 3usize..9, busiest in 0usize..9, random: u64,
        ) {
            let busiest = busiest % count;
            let load = |i: usize| Load { active: usize::from(i == busiest), excluded: false };
            prop_assert_ne!(LeastOfTwo.choose(count, load, random), Some(busiest));
        }
    }
}
