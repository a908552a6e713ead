//! How much one credential, or one source address, may ask of the API.
//!
//! Rates are pingora-limits' [`Rate`], one per credential with a single exact counter instead of the
//! usual sketch: nobody pays for another's calls. Entries come when somebody calls and go when they
//! are quiet. All of it lies on the API's own thread, off the data plane.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use pingora_limits::rate::Rate;

use super::credential::Caller;

/// Requests that one credential may have open. With the limit on bodies this bounds what it can
/// make us keep.
pub const OPEN_PER_CALLER: u32 = 32;
/// Watches that one credential may have open.
pub const WATCHES_PER_CALLER: u32 = 32;
/// Requests that may be open in all.
pub const OPEN: u32 = 512;
/// Requests per second from one source that need no credential.
pub const ANONYMOUS_PER_SECOND: u32 = 20;
/// Failed authentications from one source in [`FAILURES_INTERVAL`].
pub const FAILURES: u32 = 10;
/// See [`FAILURES`].
pub const FAILURES_INTERVAL: Duration = Duration::from_secs(10);

/// Entries kept of each kind; those beyond share one.
const ENTRIES: usize = 16_384;
/// How often quiet entries are looked for at most: a look takes as long as there are entries.
const SWEEP: Duration = Duration::from_secs(1);

/// Where a connection comes from, as far as limits care: an IPv4 address, or the 64 bits of an IPv6
/// address that its owner does not choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

impl Source {
    /// The source of a peer.
    #[must_use]
    pub fn of(peer: SocketAddr) -> Self {
        Self(match peer.ip().to_canonical() {
            IpAddr::V6(address) => {
                let network = address.to_bits() >> 64 << 64;
                Ipv6Addr::from_bits(network).into()
            }
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// What a request is, as far as limits care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Ends soon.
    Request,
    /// Stays open: server-sent events.
    Watch,
}

/// Why a request has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// Too many in a short time.
    #[error("at most {most} of these are taken in {seconds} s")]
    Rate {
        /// How many are taken.
        most: u32,
        /// In how many seconds; after as many it may be tried again.
        seconds: u32,
    },
    /// Too many at the same time, by one credential.
    #[error("at most {0} of these may be open at a time with one credential")]
    Open(u32),
    /// Too many at the same time, by all together.
    #[error("the registry has too much to do")]
    Busy,
}

/// All limits of the API.
pub struct Limits {
    per_second: u32,
    interval: Duration,
    callers: Entries<Arc<str>, CallerUse>,
    anonymous: Entries<Source, Rate>,
    failures: Entries<Source, Rate>,
    open: Arc<AtomicU32>,
}

/// A place that a request holds until its answer has been sent.
#[derive(Debug)]
pub struct Permit {
    caller: Arc<CallerUse>,
    demand: Demand,
    open: Arc<AtomicU32>,
}

struct CallerUse {
    rate: Rate,
    requests: AtomicU32,
    watches: AtomicU32,
}

impl Limits {
    /// Nothing is used yet; one credential may make so many requests per second.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self::with_interval(per_second, Duration::from_secs(1))
    }

    fn with_interval(per_second: u32, interval: Duration) -> Self {
        Self {
            per_second,
            interval,
            callers: Entries::new(),
            anonymous: Entries::new(),
            failures: Entries::new(),
            open: Arc::default(),
        }
    }

    /// A request of somebody who is known.
    ///
    /// # Errors
    /// It has to wait.
    pub fn admit(&self, caller: &Caller, demand: Demand) -> Result<Permit, Exceeded> {
        let usage = self.callers.get(&caller.id, || CallerUse {
            rate: exact(self.interval),
            requests: AtomicU32::new(0),
            watches: AtomicU32::new(0),
        });
        count(&usage.rate, self.per_second, Duration::from_secs(1))?;
        let (places, most) = match demand {
            Demand::Request => (&usage.requests, OPEN_PER_CALLER),
            Demand::Watch => (&usage.watches, WATCHES_PER_CALLER),
        };
        if !take(places, most) {
            return Err(Exceeded::Open(most));
        }
        if demand == Demand::Request && !take(&self.open, OPEN) {
            places.fetch_sub(1, Relaxed);
            return Err(Exceeded::Busy);
        }
        Ok(Permit {
            caller: usage,
            demand,
            open: Arc::clone(&self.open),
        })
    }

    /// Requests that are open now, watches apart.
    pub fn open(&self) -> u32 {
        self.open.load(Relaxed)
    }

    /// A request that needs no credential.
    ///
    /// # Errors
    /// It has to wait.
    pub fn admit_anonymous(&self, source: Source) -> Result<(), Exceeded> {
        let rate = self.anonymous.get(&source, || exact(self.interval));
        count(&rate, ANONYMOUS_PER_SECOND, Duration::from_secs(1))
    }

    /// Counts an authentication that failed. One that succeeds is not looked at here: whoever has
    /// a good credential is not locked out by a neighbour behind the same address.
    ///
    /// # Errors
    /// There were too many.
    pub fn count_failure(&self, source: Source) -> Result<(), Exceeded> {
        let rate = self.failures.get(&source, || exact(FAILURES_INTERVAL));
        count(&rate, FAILURES, FAILURES_INTERVAL)
    }
}

impl Permit {
    /// What it was given for.
    #[must_use]
    pub fn demand(&self) -> Demand {
        self.demand
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        match self.demand {
            Demand::Request => {
                self.caller.requests.fetch_sub(1, Relaxed);
                self.open.fetch_sub(1, Relaxed);
            }
            Demand::Watch => {
                self.caller.watches.fetch_sub(1, Relaxed);
            }
        }
    }
}

/// A single counter per interval: exact, and a few hundred bytes instead of 64 KiB.
fn exact(interval: Duration) -> Rate {
    Rate::new_with_estimator_config(interval, 1, 1)
}

fn count(rate: &Rate, most: u32, interval: Duration) -> Result<(), Exceeded> {
    let seen = rate.observe(&(), 1);
    if u32::try_from(seen).is_ok_and(|seen| seen <= most) {
        return Ok(());
    }
    let seconds = u32::try_from(interval.as_secs()).unwrap_or(u32::MAX);
    Err(Exceeded::Rate { most, seconds })
}

fn take(places: &AtomicU32, most: u32) -> bool {
    let more = |taken| (taken < most).then_some(taken + 1);
    places.fetch_update(Relaxed, Relaxed, more).is_ok()
}

/// Whether nothing was counted lately, and so nothing is lost without it.
trait Quiet {
    fn is_quiet(&self) -> bool;
}

impl Quiet for Rate {
    fn is_quiet(&self) -> bool {
        self.rate_with(&(), |rate| rate.prev_samples + rate.curr_samples == 0)
    }
}

impl Quiet for CallerUse {
    fn is_quiet(&self) -> bool {
        self.rate.is_quiet() && self.requests.load(Relaxed) == 0 && self.watches.load(Relaxed) == 0
    }
}

impl std::fmt::Debug for CallerUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (requests, watches) = (self.requests.load(Relaxed), self.watches.load(Relaxed));
        write!(f, "{requests} requests and {watches} watches")
    }
}

/// Entries that come when they are asked for and go when they are quiet; never more than
/// [`ENTRIES`].
struct Entries<K, V> {
    map: DashMap<K, Arc<V>>,
    /// Stands for all that find no place of their own.
    rest: std::sync::OnceLock<Arc<V>>,
    begun: Instant,
    /// When quiet entries were last looked for, in milliseconds after `begun`.
    swept: AtomicU64,
}

impl<K: Hash + Eq + Clone, V: Quiet> Entries<K, V> {
    fn new() -> Self {
        Self {
            map: DashMap::new(),
            rest: std::sync::OnceLock::new(),
            begun: Instant::now(),
            swept: AtomicU64::new(0),
        }
    }

    fn get(&self, key: &K, make: impl Fn() -> V) -> Arc<V> {
        if let Some(found) = self.map.get(key) {
            return Arc::clone(&found);
        }
        if self.map.len() >= ENTRIES {
            self.sweep();
        }
        if self.map.len() >= ENTRIES {
            return Arc::clone(self.rest.get_or_init(|| Arc::new(make())));
        }
        let entry = self.map.entry(key.clone());
        Arc::clone(&entry.or_insert_with(|| Arc::new(make())))
    }

    fn sweep(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let before = self.swept.load(Relaxed);
        if before != 0 && now - before < SWEEP.as_millis() as u64 {
            return;
        }
        self.swept.store(now.max(1), Relaxed);
        self.map.retain(|_, entry| !entry.is_quiet());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::auth::Role;

    fn caller(name: &str) -> Caller {
        Caller {
            id: format!("token:{name}").into(),
            role: Role::Tenant("acme".into()),
            scope: None,
        }
    }

    fn source(address: &str) -> Source {
        Source::of(address.parse().unwrap())
    }

    #[test]
    fn an_ipv6_source_is_a_network_and_a_mapped_address_is_ipv4() {
        assert_eq!(source("[2001:db8::1]:1"), source("[2001:db8::ffff:2]:9"));
        assert_ne!(source("[2001:db8::1]:1"), source("[2001:db8:0:1::1]:1"));
        assert_eq!(source("[::ffff:192.0.2.1]:1"), source("192.0.2.1:2"));
        assert_ne!(source("192.0.2.1:1"), source("192.0.2.2:1"));
    }

    #[test]
    fn each_credential_has_a_rate_of_its_own() {
        let limits = Limits::new(3);
        let (one, two) = (caller("1"), caller("2"));
        for _ in 0..3 {
            limits.admit(&one, Demand::Request).unwrap();
        }
        let refused = limits.admit(&one, Demand::Request).unwrap_err();
        let (most, seconds) = (3, 1);
        assert_eq!(refused, Exceeded::Rate { most, seconds });
        limits.admit(&two, Demand::Request).unwrap();
    }

    #[test]
    fn who_waits_for_the_interval_is_taken_again() {
        let limits = Limits::with_interval(1, Duration::from_millis(20));
        let one = caller("1");
        limits.admit(&one, Demand::Request).unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while limits.admit(&one, Demand::Request).is_err() {
            assert!(Instant::now() < end, "still refused");
            std::thread::yield_now();
        }
    }

    #[test]
    fn places_are_given_back() {
        let limits = Limits::new(10_000);
        let one = caller("1");
        for (demand, most) in [
            (Demand::Request, OPEN_PER_CALLER),
            (Demand::Watch, WATCHES_PER_CALLER),
        ] {
            let open: Vec<Permit> = (0..most)
                .map(|_| limits.admit(&one, demand).unwrap())
                .collect();
            let refused = limits.admit(&one, demand).unwrap_err();
            assert_eq!(refused, Exceeded::Open(most));
            drop(open);
            limits.admit(&one, demand).unwrap();
        }
    }

    #[test]
    fn all_together_have_so_many_places_and_watches_take_none_of_them() {
        let limits = Limits::new(10_000);
        let callers: Vec<Caller> = (0..=OPEN / OPEN_PER_CALLER)
            .map(|n| caller(&n.to_string()))
            .collect();
        let (last, others) = callers.split_last().unwrap();
        let open: Vec<Permit> = others
            .iter()
            .flat_map(|caller| (0..OPEN_PER_CALLER).map(move |_| caller))
            .map(|caller| limits.admit(caller, Demand::Request).unwrap())
            .collect();
        let refused = limits.admit(last, Demand::Request).unwrap_err();
        assert_eq!(refused, Exceeded::Busy);
        let watch = limits.admit(last, Demand::Watch).unwrap();
        drop((open, watch));
        let again: Vec<Permit> = (0..OPEN_PER_CALLER)
            .map(|_| limits.admit(last, Demand::Request).unwrap())
            .collect();
        assert_eq!(again.len(), 32, "what was refused holds no place");
    }

    #[test]
    fn failures_count_by_source() {
        let limits = Limits::new(1);
        for _ in 0..FAILURES {
            limits.count_failure(source("192.0.2.1:1")).unwrap();
        }
        let refused = limits.count_failure(source("192.0.2.1:2")).unwrap_err();
        assert!(matches!(refused, Exceeded::Rate { seconds: 10, .. }));
        limits.count_failure(source("192.0.2.2:1")).unwrap();
        limits.admit_anonymous(source("192.0.2.1:1")).unwrap();
    }

    #[test]
    fn a_flood_of_sources_takes_no_more_memory_and_its_entries_go_again() {
        let entries: Entries<u32, Rate> = Entries::new();
        let interval = Duration::from_millis(20);
        let many = ENTRIES as u32 + 1000;
        for key in 0..many {
            count(&entries.get(&key, || exact(interval)), 1, interval).ok();
        }
        assert!(entries.map.len() <= ENTRIES);
        let end = Instant::now() + Duration::from_secs(20);
        while entries.map.len() > ENTRIES / 2 {
            assert!(Instant::now() < end, "quiet entries stay");
            // Quiet after two intervals; a sweep comes once a second.
            entries.swept.store(0, Relaxed);
            entries.sweep();
            std::thread::yield_now();
        }
        let one = Arc::clone(&entries.get(&many, || exact(interval)));
        let rest = entries.rest.get().map(Arc::as_ptr);
        assert_ne!(rest, Some(Arc::as_ptr(&one)), "an entry of its own again");
    }
}
