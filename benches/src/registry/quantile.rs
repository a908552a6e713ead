//! Quantiles of delays. Not among the statistics that all benches share: this one alone has many
//! values per round.

/// The value that a share of all values does not exceed, by nearest rank; `None` without values.
pub(crate) fn quantile(values: &[u32], share: f64) -> Option<u32> {
    let mut values = values.to_vec();
    values.sort_unstable();
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_there() {
        let values: Vec<u32> = (1..=200).rev().collect();
        assert_eq!(quantile(&values, 0.5), Some(100));
        assert_eq!(quantile(&values, 0.99), Some(198));
        assert_eq!(quantile(&values, 1.0), Some(200));
        assert_eq!(quantile(&[7], 0.99), Some(7));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
