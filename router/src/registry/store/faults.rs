//! Faults that a test puts between a store and whoever commits to it. They hold for the test's own
//! thread, which is where a `#[tokio::test]` runs everything that is not blocking.

use std::cell::Cell;

use super::StoreError;

/// What goes wrong with a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is made, and nobody hears of it.
    AnswerLost,
    /// It does not reach the store.
    Unreachable,
}

thread_local! {
    static DUE: Cell<Option<(u32, Fault)>> = const { Cell::new(None) };
}

/// Lets a commit fail: the next one, or the one after so many others. Each once.
pub fn at_commit(after: u32, fault: Fault) {
    DUE.set(Some((after, fault)));
}

/// Whether a fault still waits for its commit.
pub fn is_waiting() -> bool {
    DUE.get().is_some()
}

/// Counts a commit, and tells whether it is the one to fail.
pub(super) fn of_this_commit() -> Option<Fault> {
    let (after, fault) = DUE.get()?;
    DUE.set(after.checked_sub(1).map(|after| (after, fault)));
    (after == 0).then_some(fault)
}

/// What a commit that failed says.
pub(super) fn unavailable() -> StoreError {
    StoreError::Unavailable("a test cut it off".into())
}
