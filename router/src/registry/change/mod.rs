//! Changes of the store that the API makes: read, decide, commit; once more if somebody else came
//! between. The decisions are pure and stand beside the call that makes them.

mod announce;
mod evict;
mod part;
mod renew;
mod room;
mod routes;
pub mod sweep;
mod tokens;
mod zones;

use std::time::Duration;

use config::route::HostMatch;

use super::api::problem::{Problem, reason};
use super::claims::{self, Basis, Claim, Refusal};
use super::jitter::fraction;
use super::keys::STORE_ID;
use super::origin;
use super::shared::RouteRegistry;
use super::store::{
    Committed, KeyValue, Listing, Range, Revision, StoreError, TooLarge, Transaction,
};
use super::turns::TooManyWait;
use super::view::View;
use crate::control::Control;

pub use announce::{Announce, announce, digest_of, withdraw};
pub use evict::Evicted;
pub use room::Quota;
pub use routes::{Expect, PutRoute, RoutePut, delete_route, etag, put_route, represent};
pub use tokens::{Withdrawn, create_token, revoke_token, withdraw_all_of};
pub use zones::{ZoneChange, ZoneChanged, delete_zone, put_zone, zone_etag};

/// How often a change is tried while others come between.
const ATTEMPTS: u32 = 30;

/// Names beneath a suffix from which on a claim of it is judged by the view first.
const WIDE: usize = 1_000;

/// Who stands in the routers' files: those names are nobody's to claim.
pub trait FileNames: Send + Sync {
    /// Why a tenant may not claim a name, shared or not, if a file is the reason. For operators: it
    /// names the file, and perhaps another tenant.
    fn file_conflict(&self, host: &HostMatch, tenant: &str, shared: bool) -> Option<String>;
}

/// What a decision comes to.
enum Decision<T> {
    /// Everything is as wanted.
    Nothing(T),
    /// These changes; conditions on what was read are added.
    Commit(Transaction, T),
}

/// Why a change was not made, or not for certain.
#[derive(Debug)]
enum Unmade {
    /// It may not be, or others were quicker each time. Nothing of it was made.
    Refused(Problem),
    /// As before, but for a part of it that was made already.
    Partly(Problem),
    /// The store failed, perhaps after it had made the change.
    Store(StoreError),
}

/// Reads `basis`, decides, commits; anew while somebody else writes into it meanwhile.
///
/// Nothing is judged by another store than the one that the view is of: where there are no zones,
/// registrars would be refused for good, and withdraw what stands in the right one when it is back.
async fn transact<T>(
    registry: &RouteRegistry,
    basis: impl Into<Basis>,
    mut decide: impl FnMut(&Listing) -> Result<Decision<T>, Problem>,
) -> Result<(Revision, T), Unmade> {
    let Basis { records, keys } = basis.into();
    let conditions: Vec<Range> = records.union(&keys).cloned().collect();
    let (mut records, keys) = (records, Vec::from_iter(keys));
    records.insert(Range::key(STORE_ID));
    let records = Vec::from_iter(records);
    for attempt in 0..ATTEMPTS {
        let mut listing = registry.store.read_partly(&records, &keys).await?;
        check_origin(registry, &mut listing)?;
        let (mut transaction, outcome) = match decide(&listing)? {
            Decision::Nothing(outcome) => return Ok((listing.revision, outcome)),
            Decision::Commit(transaction, outcome) => (transaction, outcome),
        };
        transaction.unchanged = conditions.clone();
        transaction.since = listing.revision;
        transaction.present.sort();
        transaction.present.dedup();
        transaction.check_size()?;
        if let Committed::Done(revision) = registry.store.commit(&transaction).await? {
            return Ok((revision, outcome));
        }
        // Others are quicker; whoever waits a random while does not meet the same ones again.
        let longest = Duration::from_millis(4 << attempt.min(6));
        tokio::time::sleep(longest.mul_f64(fraction())).await;
    }
    let problem = Problem::busy("too many others change the same names");
    Err(Unmade::Refused(problem))
}

/// Takes the store's name out of what was read of it.
fn check_origin(registry: &RouteRegistry, listing: &mut Listing) -> Result<(), Problem> {
    let at = listing.entries.iter().position(|it| it.key == STORE_ID);
    let found = at.map(|at| listing.entries.remove(at));
    let found = found.as_ref().and_then(|it| origin::parse(&it.value));
    match registry.view().store_id() {
        Some(known) if found != Some(known) => Err(Problem::store_unreachable(
            "another store answers than the one that the routes came from: an operator has to look \
             at this router",
        )),
        _ => Ok(()),
    }
}

impl Unmade {
    /// Whether it is certain that nothing was made. If it is not, a lease that was granted for the
    /// change is left to end by itself: to revoke it might take away a route that was only put anew.
    fn is_certain(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

impl From<Problem> for Unmade {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl From<TooLarge> for Unmade {
    fn from(error: TooLarge) -> Self {
        let TooLarge { count, what, limit } = error;
        Self::Refused(Problem::invalid(format!(
            "this takes {count} {what} of the store at once, and {limit} may be: ask for less, or \
             without If-Match"
        )))
    }
}

impl From<StoreError> for Unmade {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Unmade> for Problem {
    fn from(unmade: Unmade) -> Self {
        match unmade {
            Unmade::Refused(problem) | Unmade::Partly(problem) => problem,
            Unmade::Store(error) => error.into(),
        }
    }
}

impl From<TooManyWait> for Problem {
    fn from(error: TooManyWait) -> Self {
        Self::busy(error.to_string())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(reason) => {
                tracing::debug!(reason, "the registry's store is out of reach");
                Self::store_unreachable("the registry cannot take changes now")
            }
            // Whoever looks after etcd tells of it.
            StoreError::Full => Self::store_full(),
            StoreError::LeaseGone => Self::busy("the lease ended meanwhile"),
            StoreError::Compacted => Self::busy("too much changed meanwhile"),
            StoreError::Failed(reason) => {
                tracing::error!(reason, "the registry's store failed");
                Self::internal()
            }
        }
    }
}

/// Judges a claim by what was read, and then by the files: whoever has no zone there does not learn
/// which names stand in one. The keys that it rests on come back.
fn judge(
    files: &dyn FileNames,
    claim: Claim<'_>,
    found: &[KeyValue],
    to_operator: bool,
) -> Result<Vec<String>, Problem> {
    let Claim { host, tenant, .. } = claim;
    let zones =
        claims::judge(claim, found).map_err(|refusal| refused(host, &refusal, to_operator))?;
    match files.file_conflict(host, tenant, claim.shared) {
        None => Ok(zones),
        Some(why) => Err(stands_in_a_file(host, &why, to_operator)),
    }
}

/// Refuses, without asking the store, a suffix with very many names beneath it that is refused for
/// certain or nearly so: the store would hand over all their keys. Where there are few, the view is
/// not trusted with a verdict: it is a moment behind.
fn refuse_wide(view: &View, claim: Claim<'_>, to_operator: bool) -> Result<(), Problem> {
    let HostMatch::Suffix(suffix) = claim.host else {
        return Ok(());
    };
    if claim.shared || view.within(suffix.as_str()).nth(WIDE).is_none() {
        return Ok(());
    }
    let mut zones = view.zones_of(claim.tenant);
    let refusal = if !zones.any(|(pattern, _)| claims::zone_covers(pattern, claim.host)) {
        Some(Refusal::OutsideZones)
    } else {
        claims::taken_by_suffix(claim, view.within(suffix.as_str()))
    };
    match refusal {
        None => Ok(()),
        Some(refusal) => Err(refused(claim.host, &refusal, to_operator)),
    }
}

/// How a refused claim is told; other tenants are named to operators only.
fn refused(host: &HostMatch, refusal: &Refusal, to_operator: bool) -> Problem {
    let whom = |by: &str| {
        if to_operator {
            format!("tenant {by}")
        } else {
            "another tenant".to_owned()
        }
    };
    let problem = match refusal {
        Refusal::OutsideZones => Problem::forbidden(
            reason::OUTSIDE_ZONES,
            format!("{host} lies in none of the tenant's zones"),
        ),
        Refusal::AddressOutsideZones(endpoint) => Problem::forbidden(
            reason::ADDRESS_OUTSIDE_ZONES,
            format!(
                "{endpoint} lies in none of the address ranges of the zones for {host}; loopback \
                 and link-local addresses must have ranges of their own"
            ),
        ),
        Refusal::Held { by } => Problem::conflict(
            reason::HELD_BY_ANOTHER_TENANT,
            format!("{host} is held by {}", whom(by)),
        ),
        Refusal::Within { suffix, by } => Problem::conflict(
            reason::WITHIN_ANOTHER_TENANTS_SUFFIX,
            if to_operator {
                format!("{host} lies within {suffix}, held by {}", whom(by))
            } else {
                format!("{host} lies within a suffix that another tenant holds")
            },
        ),
        Refusal::Above { name, by } => Problem::conflict(
            reason::HELD_BY_ANOTHER_TENANT,
            if to_operator {
                format!("{host} takes {name}, held by {}", whom(by))
            } else {
                format!("{host} takes names that another tenant holds")
            },
        ),
    };
    problem.about(host)
}

fn stands_in_a_file(host: &HostMatch, why: &str, to_operator: bool) -> Problem {
    let detail = if to_operator {
        format!("{host}: {why}")
    } else {
        format!(
            "{host} stands in a file of the routers, or within what a file gives to another tenant"
        )
    };
    Problem::conflict(reason::STANDS_IN_A_FILE, detail).about(host)
}

impl FileNames for Control {
    fn file_conflict(&self, host: &HostMatch, tenant: &str, shared: bool) -> Option<String> {
        let conflict = Self::file_conflict(self, host, tenant, shared);
        conflict.map(|conflict| conflict.to_string())
    }
}
