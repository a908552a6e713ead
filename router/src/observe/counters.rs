//! Numbers that one thread writes and any thread reads, without locked instructions.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A count that only grows. One thread writes, any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `n` more. Only the shard's own worker may call this: a second writer loses counts.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Counts one more; see [`Counter::add`].
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// The count so far.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down. One thread writes, any thread reads.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// One more. Only the shard's own worker may call this.
    #[inline]
    pub fn increment(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// One less; stays at zero. Only the shard's own worker may call this.
    #[inline]
    pub fn decrement(&self) {
        self.0
            .store(self.0.load(Relaxed).saturating_sub(1), Relaxed);
    }

    /// Sets the value. Only the shard's own worker may call this.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The value now.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Distinct reasons a [`Reasons`] can hold; a later one is counted as `other`.
pub(super) const REASONS: usize = 128;

/// Counts by reason, where reasons are literals of the program (kebab-case).
///
/// Open addressing by the literal's address: a known reason costs a multiplication and one probe.
/// One literal may have several addresses; its slots are summed when read.
#[derive(Debug)]
pub struct Reasons {
    slots: Box<[ReasonSlot; REASONS]>,
    other: Counter,
}

#[derive(Debug, Default)]
struct ReasonSlot {
    reason: OnceLock<&'static str>,
    count: Counter,
}

impl Default for Reasons {
    fn default() -> Self {
        Self {
            slots: Box::new(std::array::from_fn(|_| ReasonSlot::default())),
            other: Counter::default(),
        }
    }
}

impl Reasons {
    /// Counts one more of `reason`. Only the shard's own worker may call this.
    #[inline]
    pub fn increment(&self, reason: &'static str) {
        let hash = (reason.as_ptr().addr() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let start = (hash >> (64 - REASONS.ilog2())) as usize;
        for probe in 0..REASONS {
            let slot = &self.slots[(start + probe) % REASONS];
            if std::ptr::eq(*slot.reason.get_or_init(|| reason), reason) {
                slot.count.increment();
                return;
            }
        }
        self.other.increment();
    }

    /// The counts so far, `other` last and only if it is not zero.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let other = self.other.value();
        self.slots
            .iter()
            .filter_map(|slot| Some((*slot.reason.get()?, slot.count.value())))
            .chain((other != 0).then_some(("other", other)))
    }
}

/// Smallest bucket of [`Histogram`]: 2^6 = 64 microseconds.
pub(super) const HISTOGRAM_LOW: u32 = 6;
/// Largest bucket of [`Histogram`]: 2^26 microseconds, about 67 seconds.
pub(super) const HISTOGRAM_HIGH: u32 = 26;
pub(super) const HISTOGRAM_BUCKETS: usize = (HISTOGRAM_HIGH - HISTOGRAM_LOW + 1) as usize;

/// Durations in buckets whose bounds double, 64 microseconds to 67 seconds.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Not cumulative; the last is beyond the largest bound.
    pub(super) buckets: [Counter; HISTOGRAM_BUCKETS + 1],
    pub(super) sum_microseconds: Counter,
}

impl Histogram {
    /// Records a duration. Only the shard's own worker may call this.
    #[inline]
    pub fn record(&self, duration: Duration) {
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.buckets[Self::bucket(microseconds)].increment();
        self.sum_microseconds.add(microseconds);
    }

    /// Index of the smallest bucket whose bound is not below `microseconds`.
    pub(super) fn bucket(microseconds: u64) -> usize {
        let log2 = u64::BITS - microseconds.saturating_sub(1).leading_zeros();
        (log2.saturating_sub(HISTOGRAM_LOW) as usize).min(HISTOGRAM_BUCKETS)
    }

    /// How many durations were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Counter::value).sum()
    }
}
