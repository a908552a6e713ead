//! Medians and spreads.

/// The middle of some values, and how far they reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// `None` without values, or when one is not a number.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        if values.is_empty() || values.iter().any(|value| value.is_nan()) {
            return None;
        }
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Spread {
            median,
            least: values[0],
            most: values[values.len() - 1],
        })
    }
}

/// The median, and how far the values reach, as it stands in a table.
pub(crate) fn shown(spread: &Spread, digits: usize) -> String {
    let Spread {
        median,
        least,
        most,
    } = spread;
    format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
}

/// One value per round: ratios are taken within a round, so that what disturbed the whole round
/// (a neighbour on the machine, a lower clock) cancels out. Rounds that miss either are left out.
pub(crate) fn paired_ratios(own: &[(u32, f64)], peer: &[(u32, f64)]) -> Vec<f64> {
    let ratio = |&(round, own): &(u32, f64)| {
        let (_, peer) = peer.iter().find(|(other, _)| *other == round)?;
        (*peer > 0.0).then_some(own / peer)
    };
    own.iter().filter_map(ratio).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_an_odd_number_is_the_middle_one() {
        let spread = Spread::of([5.0, 1.0, 9.0]).unwrap();
        assert_eq!(
            spread,
            Spread {
                median: 5.0,
                least: 1.0,
                most: 9.0
            }
        );
    }

    #[test]
    fn median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 100.0]).unwrap().median, 3.0);
    }

    #[test]
    fn nothing_has_no_spread() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([1.0, f64::NAN]), None);
    }

    #[test]
    fn ratios_pair_the_same_round() {
        // A slow second round for both must not show.
        let own = [(0, 10.0), (1, 40.0)];
        let peer = [(1, 80.0), (0, 20.0)];
        assert_eq!(paired_ratios(&own, &peer), [0.5, 0.5]);
    }

    #[test]
    fn a_round_without_a_partner_has_no_ratio() {
        assert_eq!(
            paired_ratios(&[(0, 1.0), (1, 3.0)], &[(1, 2.0), (2, 9.0)]),
            [1.5]
        );
        assert_eq!(paired_ratios(&[(0, 1.0)], &[(0, 0.0)]), [0.0; 0]);
    }
}
