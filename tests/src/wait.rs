//! Waiting for a condition instead of sleeping for a time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::interrupt;

/// Deadline of a wait whose length says nothing: far beyond what a slow machine needs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks `probe` until it gives a value.
///
/// # Errors
/// With `what` in the message if there is none within `patience`, or when interrupted.
pub fn until<T>(what: &str, patience: Duration, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        interrupt::check()?;
        if Instant::now() >= deadline {
            bail!("waited {} s in vain: {what}", patience.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Asks `probe` until it says yes.
///
/// # Errors
/// As [`until`].
pub fn until_true(what: &str, mut probe: impl FnMut() -> bool) -> Result<()> {
    until(what, PATIENCE, || probe().then_some(()))
}
