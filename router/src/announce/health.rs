//! What the results of checks make of a route.

use config::registrar::Check;

/// Whether a route's endpoint is healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// No check has ended yet.
    Unknown,
    /// It is, whatever the last few checks said.
    Healthy {
        /// Checks that have failed in a row since the last success; fewer than it takes.
        failed: u32,
    },
    /// It is not, whatever the last few checks said.
    Unhealthy {
        /// Checks that have succeeded in a row since the last failure; fewer than it takes.
        succeeded: u32,
    },
}

impl Health {
    /// After one more check. It takes `failures` in a row to lose health, and `successes` in a row to
    /// get it back; the first result of all decides alone.
    #[must_use]
    pub fn after(self, success: bool, check: &Check) -> Self {
        match (self, success) {
            (Self::Unhealthy { succeeded }, true) if succeeded + 1 < check.successes => {
                Self::Unhealthy {
                    succeeded: succeeded + 1,
                }
            }
            (_, true) => Self::Healthy { failed: 0 },
            (Self::Healthy { failed }, false) if failed + 1 < check.failures => {
                Self::Healthy { failed: failed + 1 }
            }
            // What never was healthy is not announced, so that there is nothing to be patient for.
            (_, false) => Self::Unhealthy { succeeded: 0 },
        }
    }

    /// Whether the route is to be announced.
    #[must_use]
    pub fn is_healthy(self) -> bool {
        matches!(self, Self::Healthy { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use config::registrar::Probe;
    use proptest::prelude::*;

    fn check(failures: u32, successes: u32) -> Check {
        Check {
            probe: Probe::Tcp { address: None },
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            failures,
            successes,
        }
    }

    #[test]
    fn the_first_success_makes_healthy_and_failures_in_a_row_unmake_it() {
        let mut health = Health::Unknown;
        for (success, healthy) in [
            (false, false),
            (true, true),
            (false, true),
            (false, true),
            (true, true),
            (false, true),
            (false, true),
            (false, false),
            (false, false),
            (true, true),
        ] {
            health = health.after(success, &check(3, 1));
            assert_eq!(health.is_healthy(), healthy, "{health:?}");
        }
    }

    #[test]
    fn what_comes_and_goes_is_not_announced_again_before_it_has_succeeded_often_enough() {
        let mut health = Health::Unknown;
        for (success, healthy) in [
            (true, true),
            (false, false),
            (true, false),
            (true, false),
            (false, false),
            (true, false),
            (true, false),
            (true, true),
            (false, false),
        ] {
            health = health.after(success, &check(1, 3));
            assert_eq!(health.is_healthy(), healthy, "{health:?}");
        }
    }

    proptest! {
        #[test]
        fn health_is_what_the_last_results_say(
            results in prop::collection::vec(any::<bool>(), 1..40),
            failures in 1_u32..5,
            successes in 1_u32..5,
        ) {
            let check = check(failures, successes);
            let mut health = Health::Unknown;
            let mut expected = results[0];
            for (index, success) in results.iter().enumerate() {
                health = health.after(*success, &check);
                let so_far = results[..=index].iter().rev();
                let in_a_row = so_far.take_while(|it| *it == success).count();
                let enough = if *success { successes } else { failures };
                if in_a_row >= enough as usize {
                    expected = *success;
                }
                prop_assert_eq!(health.is_healthy(), expected);
            }
        }
    }
}
