//! What the results of checks make of a route.

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
    /// It is not.
    Unhealthy,
}

impl Health {
    /// After one more check, when it takes `failures` in a row to lose health. The first success
    /// gives it back.
    #[must_use]
    pub fn after(self, success: bool, failures: u32) -> Self {
        match (self, success) {
            (_, true) => Self::Healthy { failed: 0 },
            (Self::Healthy { failed }, false) if failed + 1 < failures => {
                Self::Healthy { failed: failed + 1 }
            }
            // What never was healthy is not announced, so that there is nothing to be patient for.
            (_, false) => Self::Unhealthy,
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
    use proptest::prelude::*;

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
            health = health.after(success, 3);
            assert_eq!(health.is_healthy(), healthy, "{health:?}");
        }
    }

    proptest! {
        #[test]
        fn health_is_what_the_last_results_say(
            results in prop::collection::vec(any::<bool>(), 1..40),
            failures in 1_u32..5,
        ) {
            let health = results
                .iter()
                .fold(Health::Unknown, |health, success| health.after(*success, failures));
            let in_a_row = results.iter().rev().take_while(|success| !**success).count();
            let ever = results.contains(&true);
            prop_assert_eq!(health.is_healthy(), ever && in_a_row < failures as usize);
        }
    }
}
