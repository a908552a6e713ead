//! What a store takes at once. etcd refuses more by default (`--max-txn-ops`,
//! `--max-request-bytes`); the embedded store keeps to it, so that nothing works on one alone.

use std::collections::HashSet;

use super::{Range, StoreError, Transaction};

/// Conditions of a transaction (ranges and keys), and ranges of a read.
pub const MOST_CONDITIONS: usize = 128;
/// Puts and deletes of a transaction.
pub const MOST_CHANGES: usize = 128;
/// Keys and values of a transaction; etcd's limit is half as much again and counts what is around
/// them.
pub const LARGEST_TRANSACTION_BYTES: usize = 1024 * 1024;

/// A transaction that no store takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the transaction has {count} {what}, and {limit} may be")]
pub struct TooLarge {
    /// How many of them it has.
    pub count: usize,
    /// Of conditions, changes or bytes.
    pub what: &'static str,
    /// How many there may be.
    pub limit: usize,
}

impl Transaction {
    /// Whether every store takes so much at once.
    ///
    /// # Errors
    /// What there is too much of.
    pub fn check_size(&self) -> Result<(), TooLarge> {
        let conditions = self.unchanged.len() + self.present.len();
        let changes = self.puts.len() + self.deletes.len();
        let ranges = self.unchanged.iter();
        let puts = self.puts.iter();
        let bytes = ranges
            .map(|it| it.start.len() + it.end.len())
            .sum::<usize>()
            + self.present.iter().map(String::len).sum::<usize>()
            + puts.map(|it| it.key.len() + it.value.len()).sum::<usize>()
            + self.deletes.iter().map(String::len).sum::<usize>();
        for (count, limit, what) in [
            (conditions, MOST_CONDITIONS, "conditions"),
            (changes, MOST_CHANGES, "changes"),
            (bytes, LARGEST_TRANSACTION_BYTES, "bytes"),
        ] {
            if count > limit {
                return Err(TooLarge { count, what, limit });
            }
        }
        Ok(())
    }
}

/// Whether every store takes it.
pub(super) fn check(transaction: &Transaction) -> Result<(), StoreError> {
    let fits = transaction.check_size();
    fits.map_err(|error| StoreError::Failed(error.to_string()))?;
    let mut keys = HashSet::new();
    let changed = transaction.puts.iter().map(|put| &put.key);
    for key in changed.chain(&transaction.deletes) {
        if !keys.insert(key) {
            let text = format!("the transaction changes {key} twice");
            return Err(StoreError::Failed(text));
        }
    }
    Ok(())
}

/// The same keys in ranges that are in order and do not overlap.
pub(super) fn ranges(ranges: &[Range]) -> Vec<Range> {
    let mut sorted: Vec<Range> = ranges
        .iter()
        .filter(|it| it.start < it.end)
        .cloned()
        .collect();
    sorted.sort();
    let mut joined: Vec<Range> = Vec::new();
    for range in sorted {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => {
                if range.end > last.end {
                    last.end = range.end;
                }
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// Whether so many ranges may be read at once.
pub(super) fn check_ranges(count: usize) -> Result<(), StoreError> {
    if count > MOST_CONDITIONS {
        let text = format!("{count} ranges at once, and {MOST_CONDITIONS} may be");
        return Err(StoreError::Failed(text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Put;
    use super::*;

    fn put(key: &str, bytes: usize) -> Put {
        Put {
            key: key.into(),
            value: vec![0; bytes].into(),
            lease: None,
        }
    }

    #[test]
    fn a_transaction_that_one_store_would_refuse_is_refused_by_all() {
        let taken = Transaction {
            puts: (0..MOST_CHANGES)
                .map(|it| put(&it.to_string(), 1))
                .collect(),
            present: vec!["key".into(); MOST_CONDITIONS],
            ..Transaction::default()
        };
        assert_eq!(check(&taken), Ok(()));
        let mut changes = taken.clone();
        changes.deletes.push("one more".into());
        let mut conditions = taken.clone();
        conditions.unchanged.push(Range::key("one more"));
        let mut bytes = taken.clone();
        bytes.puts[0].value = vec![0; LARGEST_TRANSACTION_BYTES].into();
        let mut twice = taken;
        twice.puts.pop();
        twice.deletes.push("7".into());
        for (transaction, why) in [
            (changes, "129 changes"),
            (conditions, "129 conditions"),
            (bytes, "bytes"),
            (twice, "7 twice"),
        ] {
            let refused = check(&transaction).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn ranges_are_joined_where_they_overlap() {
        let range = |start: &str, end: &str| Range {
            start: start.into(),
            end: end.into(),
        };
        let given = [
            range("m", "p"),
            range("a", "c"),
            range("b", "d"),
            range("a", "b"),
            range("x", "x"),
            range("z", "y"),
            range("d", "e"),
        ];
        assert_eq!(ranges(&given), [range("a", "e"), range("m", "p")]);
        check_ranges(MOST_CONDITIONS).unwrap();
        check_ranges(MOST_CONDITIONS + 1).unwrap_err();
    }
}
