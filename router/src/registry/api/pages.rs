//! Pages of lists: so many entries, and so many bytes.

use serde::Serialize;
use serde_json::value::RawValue;

/// Bytes after which a page ends, and less than one entry more: an answer that waits for a client
/// is kept in memory.
const PAGE_BYTES: usize = 1 << 20;

/// Entries as they are answered.
#[derive(Debug)]
pub(super) struct Page {
    entries: Vec<Box<RawValue>>,
    bytes: usize,
    most: usize,
}

impl Page {
    /// Takes `most` entries.
    pub(super) fn new(most: usize) -> Self {
        Self {
            entries: Vec::new(),
            bytes: 0,
            most,
        }
    }

    pub(super) fn push(&mut self, entry: &impl Serialize) {
        let entry = serde_json::value::to_raw_value(entry).expect("entries are JSON");
        self.bytes += entry.get().len();
        self.entries.push(entry);
    }

    /// Whether the next entry belongs on another page.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= self.most || self.bytes >= PAGE_BYTES
    }

    pub(super) fn into_entries(self) -> Vec<Box<RawValue>> {
        self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_after_so_many_entries_or_bytes() {
        let mut page = Page::new(2);
        page.push(&1);
        assert!(!page.is_full());
        page.push(&2);
        assert!(page.is_full());
        let mut page = Page::new(1000);
        let long = "x".repeat(100_000);
        while !page.is_full() {
            page.push(&long);
        }
        assert_eq!(page.into_entries().len(), 11);
    }
}
