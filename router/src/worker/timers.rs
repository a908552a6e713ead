//! Coarse deadlines for connections: setting one costs a store, not an entry in a timer wheel.
//!
//! A proxy sets and clears a deadline several times in every request and almost none ever fires.
//! So each connection owns one slot; setting a deadline writes a number into it, and a tick looks
//! at all slots (some 20,000 of them at ten ticks a second are 0.02 % of a core). A deadline fires
//! up to two ticks late and never early.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// How often slots are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(100);

const NEVER: u64 = u64::MAX;

/// All deadlines of one worker.
pub(crate) struct Timers {
    started: Instant,
    /// Milliseconds since `started`, as of the last tick.
    now: Cell<u64>,
    slots: RefCell<Slots>,
}

/// One connection's deadline; none is set at first.
pub(crate) struct Timer {
    timers: Rc<Timers>,
    key: usize,
}

#[derive(Default)]
struct Slots {
    entries: Vec<Slot>,
    free: Vec<usize>,
}

struct Slot {
    deadline: u64,
    waker: Option<Waker>,
}

impl Timers {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            started: Instant::now(),
            now: Cell::new(0),
            slots: RefCell::default(),
        })
    }

    /// Milliseconds since the worker began, as of the last tick.
    pub(crate) fn now(&self) -> u64 {
        self.now.get()
    }

    /// Milliseconds at which something that starts now and takes `after` is over.
    pub(crate) fn later(&self, after: Duration) -> u64 {
        let after = u64::try_from(after.as_millis()).unwrap_or(NEVER);
        // One tick more: `now` may be that much behind, and a deadline must not fire early.
        self.now
            .get()
            .saturating_add(after)
            .saturating_add(TICK.as_millis() as u64)
    }

    /// A new slot.
    pub(crate) fn timer(self: &Rc<Self>) -> Timer {
        let mut slots = self.slots.borrow_mut();
        let slot = Slot {
            deadline: NEVER,
            waker: None,
        };
        let key = match slots.free.pop() {
            Some(key) => {
                slots.entries[key] = slot;
                key
            }
            None => {
                slots.entries.push(slot);
                slots.entries.len() - 1
            }
        };
        Timer {
            timers: Rc::clone(self),
            key,
        }
    }

    /// Wakes every connection, so that it looks at what has changed.
    pub(crate) fn wake_all(&self) {
        let wakers: Vec<_> = (self.slots.borrow_mut().entries.iter_mut())
            .filter_map(|slot| slot.waker.take())
            .collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Moves the clock to `now` and wakes whose deadline has passed.
    pub(crate) fn tick(&self, now: Instant) {
        let now = now.duration_since(self.started).as_millis() as u64;
        self.now.set(now);
        let mut due = Vec::new();
        for slot in &mut self.slots.borrow_mut().entries {
            if slot.deadline <= now {
                due.extend(slot.waker.take());
            }
        }
        // Outside the borrow: waking may run code that drops a timer.
        due.into_iter().for_each(Waker::wake);
    }
}

impl Timer {
    /// Sets the deadline, in place of the one before.
    pub(crate) fn set(&self, after: Duration) {
        let deadline = self.timers.later(after);
        self.timers.slots.borrow_mut().entries[self.key].deadline = deadline;
    }

    /// Takes the deadline back.
    pub(crate) fn clear(&self) {
        self.timers.slots.borrow_mut().entries[self.key].deadline = NEVER;
    }

    /// Ready once the deadline has passed; stays so until it is set anew.
    pub(crate) fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut slots = self.timers.slots.borrow_mut();
        let slot = &mut slots.entries[self.key];
        if slot.deadline <= self.timers.now.get() {
            return Poll::Ready(());
        }
        match &slot.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => slot.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Waits for the deadline.
    pub(crate) async fn expired(&self) {
        std::future::poll_fn(|cx| self.poll_expired(cx)).await;
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let mut slots = self.timers.slots.borrow_mut();
        slots.entries[self.key] = Slot {
            deadline: NEVER,
            waker: None,
        };
        slots.free.push(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(timer: &Timer) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        timer.poll_expired(&mut cx).is_ready()
    }

    #[test]
    fn never_early_and_at_most_two_ticks_late() {
        let timers = Timers::new();
        let timer = timers.timer();
        timer.set(Duration::from_secs(1));
        timers.tick(timers.started + Duration::from_millis(1050));
        assert!(
            !poll(&timer),
            "fired within a tick of its deadline: too early"
        );
        timers.tick(timers.started + Duration::from_millis(1200));
        assert!(poll(&timer));
        assert!(poll(&timer), "an expired deadline stays expired");
        timer.clear();
        assert!(!poll(&timer));
    }

    #[test]
    fn a_dropped_slot_is_used_again_without_its_deadline() {
        let timers = Timers::new();
        let first = timers.timer();
        first.set(Duration::ZERO);
        drop(first);
        let second = timers.timer();
        timers.tick(timers.started + Duration::from_secs(10));
        assert!(!poll(&second));
        assert_eq!(timers.slots.borrow().entries.len(), 1);
    }

    #[test]
    fn zero_and_endless_durations() {
        let timers = Timers::new();
        let (now, never) = (timers.timer(), timers.timer());
        now.set(Duration::ZERO);
        never.set(Duration::MAX);
        timers.tick(timers.started + Duration::from_secs(1));
        assert!(poll(&now));
        assert!(!poll(&never));
    }
}
