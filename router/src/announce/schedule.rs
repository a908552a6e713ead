//! When to call next, and how long to wait for the answer. Random numbers, from 0 up to and without
//! 1, are handed in.

use std::time::Duration;

/// The longest pause after a first round of registries that failed; it doubles with each round.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause of all.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long one call may take at least, whatever is at stake.
pub const SHORTEST_CALL: Duration = Duration::from_secs(1);
/// How long one call may take at most.
pub const LONGEST_CALL: Duration = Duration::from_secs(10);

/// A period, up to a tenth longer or shorter: registrars that were started together drift apart.
#[must_use]
pub fn jittered(period: Duration, random: f64) -> Duration {
    period.mul_f64(0.9 + 0.2 * random)
}

/// The pause after `rounds` rounds of failures: anything up to a bound that grows to `longest` (full
/// jitter), so that a registry that comes back is not met by everybody at once.
#[must_use]
pub fn pause(rounds: u32, longest: Duration, random: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << rounds.saturating_sub(1).min(10));
    doubled.min(longest).mul_f64(random)
}

/// How long one call may take when `left` registries, this one included, have to be asked within
/// `remaining`.
#[must_use]
pub fn share(remaining: Duration, left: usize) -> Duration {
    let left = u32::try_from(left.max(1)).unwrap_or(u32::MAX);
    (remaining / left).clamp(SHORTEST_CALL, LONGEST_CALL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_varies_by_a_tenth() {
        let period = Duration::from_secs(20);
        assert_eq!(jittered(period, 0.0), Duration::from_secs(18));
        assert_eq!(jittered(period, 0.5), period);
        assert!(jittered(period, 0.999_999) < Duration::from_secs(22));
    }

    #[test]
    fn pauses_grow_from_half_a_second_to_ten() {
        let longest = |rounds| pause(rounds, LONGEST_PAUSE, 1.0).as_secs_f64();
        let grown: Vec<f64> = [1, 2, 3, 4, 5, 6, 7, 1_000_000].map(longest).into();
        assert_eq!(grown, [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]);
        assert_eq!(pause(9, LONGEST_PAUSE, 0.0), Duration::ZERO);
        let second = Duration::from_secs(1);
        assert_eq!(pause(9, second, 1.0), second);
    }

    #[test]
    fn what_remains_is_shared_by_those_who_are_left() {
        let seconds = Duration::from_secs;
        assert_eq!(share(seconds(12), 3), seconds(4));
        assert_eq!(share(seconds(60), 3), LONGEST_CALL);
        assert_eq!(share(Duration::ZERO, 0), SHORTEST_CALL);
    }
}
