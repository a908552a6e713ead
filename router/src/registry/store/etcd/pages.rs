//! How many keys a page of a listing has.
//!
//! etcd's limit counts keys, and a record may have a few hundred bytes or a thousand times as many.
//! So pages grow while their bytes are few, shrink when there are many, and halve when one did not
//! arrive in time.

/// Bytes that a page should not exceed by much: a second on a slow network.
const BYTES: usize = 4 * 1024 * 1024;
const FIRST: i64 = 64;
const FEWEST: i64 = 16;
const MOST: i64 = 2_000;

/// Keys of the next page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageSize(i64);

impl Default for PageSize {
    /// Before anything is known of the records.
    fn default() -> Self {
        Self(FIRST)
    }
}

impl PageSize {
    /// As etcd's limit.
    pub(super) fn keys(self) -> i64 {
        self.0
    }

    /// After a page of so many keys and bytes: as many as have [`BYTES`] if they are like those, and
    /// twice as many as were asked for at most, since what follows may be larger.
    pub(super) fn after(self, keys: usize, bytes: usize) -> Self {
        let fitting = BYTES / (bytes / keys.max(1)).max(1);
        let fitting = i64::try_from(fitting).unwrap_or(MOST);
        Self(fitting.min(self.0 * 2).clamp(FEWEST, MOST))
    }

    /// After a page that did not arrive; `None` if it cannot be smaller.
    pub(super) fn halved(self) -> Option<Self> {
        (self.0 > FEWEST).then(|| Self((self.0 / 2).max(FEWEST)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_records_come_in_pages_that_grow_to_the_most() {
        let mut size = PageSize::default();
        let mut seen = vec![size.keys()];
        for _ in 0..6 {
            let keys = usize::try_from(size.keys()).unwrap();
            size = size.after(keys, keys * 300);
            seen.push(size.keys());
        }
        assert_eq!(seen, [64, 128, 256, 512, 1024, 2000, 2000]);
    }

    #[test]
    fn a_page_of_large_records_is_followed_by_one_of_few() {
        let size = PageSize(MOST).after(2_000, 2_000 * 66 * 1024);
        assert_eq!(size.keys(), 62);
        assert_eq!(size.after(62, 62 * 66 * 1024), size);
        assert_eq!(size.after(62, 62 * 1_500_000).keys(), FEWEST);
        // And by one of more again, when they are small.
        assert_eq!(size.after(62, 62 * 100).keys(), 124);
        // What is at the end of a listing.
        assert_eq!(size.after(0, 0).keys(), 124);
        assert_eq!(PageSize(MOST).after(1, usize::MAX).keys(), FEWEST);
    }

    #[test]
    fn what_does_not_arrive_is_halved_until_it_cannot_be_smaller() {
        let mut sizes = vec![MOST];
        let mut size = PageSize(MOST);
        while let Some(smaller) = size.halved() {
            size = smaller;
            sizes.push(size.keys());
        }
        assert_eq!(sizes, [2000, 1000, 500, 250, 125, 62, 31, 16]);
    }
}
