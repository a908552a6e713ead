//! Chance, so that many who wait for the same thing do not all come back at the same moment.

use std::time::Duration;

/// Evenly from 0 up to and without 1.
pub(crate) fn fraction() -> f64 {
    let mut bytes = [0; 4];
    // Without random numbers everybody waits equally long, and all else works.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

/// Pauses between attempts: each is twice as long as the one before, up to a longest.
#[derive(Clone, Debug)]
pub(crate) struct Pauses {
    first: Duration,
    next: Duration,
    longest: Duration,
}

impl Pauses {
    /// Begins with the first.
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            next: first,
            longest,
        }
    }

    /// The next pause: from half of it to all of it, by a random number from 0 up to 1.
    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let pause = self.next.mul_f64(0.5 + random / 2.0);
        self.next = (self.next * 2).min(self.longest);
        pause
    }

    /// It went well: the next is the first again.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_begin_anew() {
        let milliseconds = Duration::from_millis;
        let mut pauses = Pauses::new(milliseconds(100), milliseconds(300));
        assert_eq!(pauses.next(0.0), milliseconds(50));
        assert_eq!(pauses.next(1.0), milliseconds(200));
        assert_eq!(pauses.next(0.5), milliseconds(225));
        assert_eq!(pauses.next(1.0), milliseconds(300));
        pauses.reset();
        assert_eq!(pauses.next(1.0), milliseconds(100));
    }
}
