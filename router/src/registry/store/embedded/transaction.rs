//! What a transaction does to the tables.

use redb::{Error, ReadableTable, Table, WriteTransaction};

use super::super::{Batch, Event, KeyValue, LeaseId, Put, Revision, Transaction};
use super::file::{KEYS, LAST_LEASE, LEASED, LEASES, META, REVISION, Record, number};
use super::leases::Leases;

/// How a transaction ends, when the file is sound.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// With these changes; none if it only deleted what was not there.
    Done(Revision, Option<Batch>),
    /// A condition does not hold.
    Conflict,
    /// A lease has ended.
    LeaseGone,
}

/// The tables of one turn of the writer.
pub(super) struct Tables<'t> {
    keys: Table<'t, &'static str, Record<'static>>,
    leases: Table<'t, i64, u64>,
    leased: Table<'t, (i64, &'static str), ()>,
    meta: Table<'t, &'static str, i64>,
    revision: i64,
}

impl<'t> Tables<'t> {
    pub(super) fn open(begun: &'t WriteTransaction) -> Result<Self, Error> {
        let meta = begun.open_table(META)?;
        Ok(Self {
            keys: begun.open_table(KEYS)?,
            leases: begun.open_table(LEASES)?,
            leased: begun.open_table(LEASED)?,
            revision: number(&meta, REVISION)?,
            meta,
        })
    }

    /// Makes a transaction's changes, or none of them.
    pub(super) fn apply(
        &mut self,
        transaction: &Transaction,
        leases: &Leases,
        ended: &[LeaseId],
    ) -> Result<Applied, Error> {
        if !self.holds(transaction)? {
            return Ok(Applied::Conflict);
        }
        // What is written next to it in the same turn must not stand if this one fails, so nothing
        // is written before everything is known to be right.
        let mut hung_on = transaction.puts.iter().filter_map(|put| put.lease);
        if hung_on.any(|lease| !leases.is_known(lease) || ended.contains(&lease)) {
            return Ok(Applied::LeaseGone);
        }
        let revision = Revision(self.revision + 1);
        let mut events = Vec::new();
        for put in &transaction.puts {
            events.push(self.put(put, revision, leases)?);
        }
        for key in &transaction.deletes {
            events.extend(self.delete(key)?);
        }
        self.seal(events)
    }

    /// Ends a lease.
    pub(super) fn end(&mut self, lease: LeaseId) -> Result<Option<Batch>, Error> {
        let keys: Vec<String> = self
            .leased
            .range((lease.0, "")..(lease.0 + 1, ""))?
            .map(|entry| Ok(entry?.0.value().1.to_owned()))
            .collect::<Result<_, Error>>()?;
        let mut events = Vec::new();
        for key in &keys {
            events.extend(self.delete(key)?);
        }
        self.leases.remove(lease.0)?;
        match self.seal(events)? {
            Applied::Done(_, batch) => Ok(batch),
            Applied::Conflict | Applied::LeaseGone => Ok(None),
        }
    }

    fn holds(&self, transaction: &Transaction) -> Result<bool, Error> {
        for key in &transaction.present {
            if self.keys.get(key.as_str())?.is_none() {
                return Ok(false);
            }
        }
        for range in &transaction.unchanged {
            // redb panics at a range that ends before it begins.
            if range.start >= range.end {
                continue;
            }
            for entry in self.keys.range(range.start.as_str()..range.end.as_str())? {
                let (_, modified, _, _) = entry?.1.value();
                if modified > transaction.since.0 {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn put(&mut self, put: &Put, revision: Revision, leases: &Leases) -> Result<Event, Error> {
        let key = put.key.as_str();
        let old = self.keys.get(key)?.map(|record| {
            let (created, _, lease, _) = record.value();
            (created, lease)
        });
        let (created, old_lease) = old.unwrap_or((revision.0, 0));
        let lease = put.lease.map_or(0, |lease| lease.0);
        if old_lease != lease && old_lease != 0 {
            self.leased.remove((old_lease, key))?;
        }
        if let Some(id) = put.lease {
            if let Some(ttl) = leases.unstored(id) {
                let milliseconds = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
                self.leases.insert(id.0, milliseconds)?;
                let last = number(&self.meta, LAST_LEASE)?.max(id.0);
                self.meta.insert(LAST_LEASE, last)?;
            }
            self.leased.insert((id.0, key), ())?;
        }
        self.keys
            .insert(key, (created, revision.0, lease, &*put.value))?;
        Ok(Event::Put(KeyValue {
            key: put.key.clone(),
            value: put.value.clone(),
            created: Revision(created),
            modified: revision,
            lease: put.lease,
        }))
    }

    fn delete(&mut self, key: &str) -> Result<Option<Event>, Error> {
        let Some(lease) = self.keys.remove(key)?.map(|record| record.value().2) else {
            return Ok(None);
        };
        if lease != 0 {
            self.leased.remove((lease, key))?;
        }
        Ok(Some(Event::Delete(key.to_owned())))
    }

    fn seal(&mut self, events: Vec<Event>) -> Result<Applied, Error> {
        if events.is_empty() {
            return Ok(Applied::Done(Revision(self.revision), None));
        }
        self.revision += 1;
        self.meta.insert(REVISION, self.revision)?;
        let revision = Revision(self.revision);
        Ok(Applied::Done(revision, Some(Batch { revision, events })))
    }
}
