//! What everything on one core shares.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;

use super::buffers::Buffers;
use super::timers::Timers;
use crate::observe::access_log::Logger;
use crate::observe::metrics::{Listener, Shard};
use crate::snapshot::Snapshot;
use crate::upstream::Pools;

/// One core's share.
pub(crate) struct Worker {
    pub(crate) timers: Rc<Timers>,
    pub(crate) pools: Pools,
    pub(crate) metrics: Arc<Shard>,
    pub(crate) log: RefCell<Logger>,
    pub(crate) buffers: Buffers,
    published: Arc<ArcSwap<Snapshot>>,
    /// The snapshot in use. Counted per worker, so that no request touches a shared counter.
    snapshot: RefCell<SnapshotRef>,
    date: RefCell<Rc<str>>,
    open: Cell<usize>,
    draining: Cell<bool>,
}

/// A worker's reference to a snapshot.
pub(crate) type SnapshotRef = Rc<Arc<Snapshot>>;

/// An open client connection; counted until dropped.
pub(crate) struct OpenConnection {
    worker: Rc<Worker>,
    kind: Listener,
}

impl Worker {
    pub(crate) fn new(
        published: Arc<ArcSwap<Snapshot>>,
        metrics: Arc<Shard>,
        log: Logger,
        seed: u64,
    ) -> Self {
        let timers = Timers::new();
        let snapshot = published.load_full();
        Self {
            pools: Pools::new(Rc::clone(&timers), Arc::clone(&metrics), seed),
            timers,
            metrics,
            log: RefCell::new(log),
            buffers: Buffers::default(),
            published,
            snapshot: RefCell::new(Rc::new(snapshot)),
            date: RefCell::new(http_date()),
            open: Cell::new(0),
            draining: Cell::new(false),
        }
    }

    /// The newest snapshot. Requests hold on to what they get here; idle connections must not.
    pub(crate) fn snapshot(&self) -> SnapshotRef {
        let mut current = self.snapshot.borrow_mut();
        // A guard costs no counter; only its address is compared.
        let newest = self.published.load();
        if !Arc::ptr_eq(&newest, &current) {
            *current = Rc::new(Arc::clone(&newest));
        }
        Rc::clone(&current)
    }

    /// The time as `Date` wants it (RFC 9110, section 5.6.7), at most a second old.
    pub(crate) fn date(&self) -> Rc<str> {
        Rc::clone(&self.date.borrow())
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// From now on connections end with the request they are in.
    pub(crate) fn begin_drain(&self) {
        self.draining.set(true);
        self.pools.close_idle();
        self.timers.wake_all();
    }

    pub(crate) fn is_full(&self) -> bool {
        self.open.get() >= self.snapshot.borrow().settings.limits.connections
    }

    pub(crate) fn open_connections(&self) -> usize {
        self.open.get()
    }

    pub(crate) fn open_connection(self: &Rc<Self>, kind: Listener) -> OpenConnection {
        self.open.set(self.open.get() + 1);
        self.metrics.connection(kind);
        OpenConnection {
            worker: Rc::clone(self),
            kind,
        }
    }

    /// Ten times a second: deadlines. Once a second: the date, dead connections, the log.
    pub(crate) fn tick(&self, count: u64) {
        self.timers.tick(Instant::now());
        self.log.borrow_mut().flush();
        if count.is_multiple_of(10) {
            self.date.replace(http_date());
            self.pools.sweep();
            // Also when no request comes by: an old snapshot is not kept for long.
            drop(self.snapshot());
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.worker.open.set(self.worker.open.get() - 1);
        self.worker.metrics.connection_closed(self.kind);
    }
}

fn http_date() -> Rc<str> {
    httpdate::fmt_http_date(SystemTime::now()).into()
}
