//! How many refused changes of one credential are recorded one by one.
//!
//! A refusal costs its caller nothing, and a line of the audit log costs us a place on the disk. So
//! each credential has so many lines a minute; what is refused beyond them is counted, and told in
//! one line when the minute is over. Changes that were made are always recorded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::audit::AuditEvent;

/// Refusals of one credential in a [`WINDOW`] that have lines of their own.
pub const LINES: u32 = 120;
/// What lines are counted in.
pub const WINDOW: Duration = Duration::from_secs(60);

/// Who was refused how often lately.
pub struct Refusals {
    window: Duration,
    callers: Mutex<HashMap<Arc<str>, Spell>>,
}

/// What becomes of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It gets a line.
    Now,
    /// It was counted; the line is asked for with [`Refusals::left_out`] after this time.
    After(Duration),
    /// It was counted, and somebody will ask for the line.
    WithOthers,
}

/// One credential's refusals since the first of a window.
struct Spell {
    ends: Instant,
    lines: u32,
    left_out: u64,
    last: Option<AuditEvent>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self::within(WINDOW)
    }
}

impl Refusals {
    /// With another window, for tests.
    pub(super) fn within(window: Duration) -> Self {
        Self {
            window,
            callers: Mutex::default(),
        }
    }

    /// Counts a refusal.
    pub fn count(&self, event: &AuditEvent, now: Instant) -> Recorded {
        let mut callers = self.callers();
        // Those who are owed a line stay until it is asked for.
        callers.retain(|_, spell| now < spell.ends || spell.left_out > 0);
        let fresh = || Spell {
            ends: now + self.window,
            lines: 0,
            left_out: 0,
            last: None,
        };
        let spell = callers
            .entry(Arc::clone(&event.caller))
            .or_insert_with(fresh);
        if spell.lines < LINES {
            spell.lines += 1;
            return Recorded::Now;
        }
        spell.left_out += 1;
        spell.last = Some(event.clone());
        if spell.left_out == 1 {
            Recorded::After(spell.ends.saturating_duration_since(now))
        } else {
            Recorded::WithOthers
        }
    }

    /// The line for everything that has none, and a new window.
    pub fn left_out(&self, caller: &str) -> Option<AuditEvent> {
        let spell = self.callers().remove(caller)?;
        let last = spell.last?;
        Some(AuditEvent {
            refusals: Some(spell.left_out),
            ..last
        })
    }

    fn callers(&self) -> MutexGuard<'_, HashMap<Arc<str>, Spell>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    fn refused(caller: &str, object: &str) -> AuditEvent {
        AuditEvent {
            time: UNIX_EPOCH,
            caller: caller.into(),
            role: "tenant acme".to_owned(),
            peer: "192.0.2.1:5".parse().unwrap(),
            tenant: None,
            action: "put".to_owned(),
            object: object.to_owned(),
            hosts: Vec::new(),
            endpoints: Vec::new(),
            outcome: "outside-zones",
            status: 403,
            revision: None,
            refusals: None,
        }
    }

    #[test]
    fn so_many_have_a_line_and_the_rest_share_one() {
        let refusals = Refusals::default();
        let begin = Instant::now();
        for _ in 0..LINES {
            assert_eq!(refusals.count(&refused("a", ""), begin), Recorded::Now);
        }
        let later = begin + WINDOW / 4;
        let first = refusals.count(&refused("a", ""), later);
        assert_eq!(first, Recorded::After(WINDOW * 3 / 4));
        let second = refusals.count(&refused("a", "last"), later);
        assert_eq!(second, Recorded::WithOthers);
        assert_eq!(refusals.count(&refused("b", ""), later), Recorded::Now);
        // Whoever asks late loses nothing.
        let end = begin + WINDOW * 2;
        let third = refusals.count(&refused("a", "last"), end);
        assert_eq!(third, Recorded::WithOthers);
        let line = refusals.left_out("a").unwrap();
        assert_eq!((line.refusals, &*line.object), (Some(3), "last"));
        assert_eq!(refusals.left_out("a"), None);
        assert_eq!(refusals.count(&refused("a", ""), end), Recorded::Now);
    }

    #[test]
    fn who_is_refused_now_and_then_is_forgotten() {
        let refusals = Refusals::default();
        let mut now = Instant::now();
        for number in 0..LINES * 3 {
            let event = refused(&number.to_string(), "");
            assert_eq!(refusals.count(&event, now), Recorded::Now);
            let event = refused("often", "");
            assert_eq!(refusals.count(&event, now), Recorded::Now);
            now += WINDOW / LINES * 2;
        }
        assert!(refusals.callers().len() <= LINES as usize);
    }
}
