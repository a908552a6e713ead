//! Lookups and changes of one table.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::time::{ClockId, clock_gettime};
use router::control::RegistryUpdate;
use router::registry::route::RouteChange;
use router::route::{Host, RouteTable};

use super::record::Measured;
use super::routes::{Tables, name, route, rule};

/// Hosts that are in every table.
const SAME_HOSTS: u32 = 10;
/// How often each of them is looked up.
const REPEATS: u32 = 50_000;
/// Hosts drawn from all. At a million hosts, what they touch is larger than any cache.
const DRAWN: u32 = 200_000;
/// Changes, of either kind.
const CHANGES: u32 = 1_000;

/// Measures everything once.
pub(crate) fn measure(tables: &mut Tables, round: u32) -> Result<Measured> {
    let table = tables.control.published().load().routes.clone();
    let same = parsed((0..SAME_HOSTS).map(name))?;
    let same_hosts = per_one(SAME_HOSTS * REPEATS, || {
        for _ in 0..REPEATS {
            look_up(&table, &same);
        }
    })?;
    // Two draws: what one measurement has fetched into the caches must not serve the other.
    let drawn = draw(tables)?;
    let any_host = per_one(DRAWN, || look_up(&table, &drawn))?;
    let drawn = draw(tables)?;
    let any_host_plain_map = per_one(DRAWN, || {
        for host in &drawn {
            let target = tables.plain.get(black_box(host).as_str());
            black_box(target.map(|target| target.upstream.id));
        }
    })?;
    Ok(Measured {
        round,
        routes: tables.size,
        same_hosts,
        any_host,
        any_host_plain_map,
        edit: edit(tables, &table)?,
        change: change(tables, round)?,
    })
}

fn look_up(table: &RouteTable, hosts: &[Host]) {
    for host in hosts {
        let target = table.lookup(black_box(host));
        // The first thing that a request wants to know of it.
        black_box(target.map(|target| target.upstream.id));
    }
}

/// Takes a rule out of a copy of the table and puts it in again.
fn edit(tables: &mut Tables, table: &RouteTable) -> Result<f64> {
    let rules = (0..CHANGES)
        .map(|_| rule(tables.any()))
        .collect::<Result<Vec<_>>>()?;
    let mut missing = 0;
    let cost = per_one(CHANGES, || {
        for rule in &rules {
            let mut copy = table.clone();
            match copy.remove(rule) {
                Some(target) => missing += u32::from(copy.insert(target).is_err()),
                None => missing += 1,
            }
            black_box(copy);
        }
    })?;
    (missing == 0)
        .then_some(cost)
        .context("a rule was not in the table")
}

/// Sends a route elsewhere, through the control plane.
fn change(tables: &mut Tables, round: u32) -> Result<f64> {
    let version = u16::try_from(round % 1_000).unwrap_or_default() + 1;
    let updates = (0..CHANGES)
        .map(|at| {
            // Drawn twice, the same route must go to yet another place, or nothing would change.
            let version = version + 1_000 * u16::try_from(at % 30).unwrap_or_default();
            let route = Arc::new(route(tables.any(), version)?);
            Ok(RegistryUpdate::Changes(vec![RouteChange::Set(route)]))
        })
        .collect::<Result<Vec<_>>>()?;
    per_one(CHANGES, || {
        for update in updates {
            tables.control.apply_registry(update);
        }
    })
}

fn draw(tables: &mut Tables) -> Result<Vec<Host>> {
    parsed((0..DRAWN).map(|_| name(tables.any())).collect::<Vec<_>>())
}

fn parsed(names: impl IntoIterator<Item = String>) -> Result<Vec<Host>> {
    let parse = |name: String| Host::parse(&name).map_err(|error| anyhow!("{name}: {error}"));
    names.into_iter().map(parse).collect()
}

/// Nanoseconds of CPU time per one of `count` that `run` does. Everything is done on this thread, and
/// what else wants the core does not count.
fn per_one(count: u32, run: impl FnOnce()) -> Result<f64> {
    let now = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("CPU clock");
    let begun = now()?;
    run();
    let took = now()? - begun;
    Ok(Duration::from(took).as_nanos() as f64 / f64::from(count))
}
