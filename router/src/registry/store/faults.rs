//! Faults that a test puts between a store and whoever commits to it. They hold for the test's own
//! thread, which is where a `#[tokio::test]` runs everything that is not blocking.

use std::cell::RefCell;

use super::{StoreError, Transaction};

/// What goes wrong with a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is made, and nobody hears of it.
    AnswerLost,
    /// It does not reach the store.
    Unreachable,
    /// Somebody else's comes before it.
    ComesSecond(Transaction),
}

thread_local! {
    static DUE: RefCell<Option<(u32, Fault)>> = const { RefCell::new(None) };
}

/// Lets a commit fail: the next one, or the one after so many others. Each once.
pub fn at_commit(after: u32, fault: Fault) {
    DUE.set(Some((after, fault)));
}

/// Whether a fault still waits for its commit.
pub fn is_waiting() -> bool {
    DUE.with_borrow(Option::is_some)
}

/// Counts a commit, and tells whether it is the one to fail.
pub(super) fn of_this_commit() -> Option<Fault> {
    let (after, fault) = DUE.take()?;
    if after == 0 {
        return Some(fault);
    }
    DUE.set(Some((after - 1, fault)));
    None
}

/// What a commit that failed says.
pub(super) fn unavailable() -> StoreError {
    StoreError::Unavailable("a test cut it off".into())
}
