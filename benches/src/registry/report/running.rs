//! What a running router takes that follows many routes.

use std::fmt::{self, Write};

use super::super::record::{Kind, Load, Memory, Record, Requests, Scene, Served, Shape};
use super::super::served::{LOADS, STORM_TOGETHER, name};
use super::{number, said, shown, store};
use crate::registry::quantile::quantile;
use crate::row::Row;
use crate::statistics::{Spread, paired_ratios};

/// Of fewer, one page of memory more or less is most of it.
const ENOUGH_TO_TELL: u32 = 10_000;

const MIB: f64 = 1024.0 * 1024.0;

pub(super) fn write_verdict(text: &mut String, record: &Record) -> fmt::Result {
    let most = record.requests.iter().map(|it| it.routes).max();
    for load in LOADS {
        let Some((routes, ratio)) =
            most.and_then(|routes| Some((routes, ratio(record, load, routes)?)))
        else {
            continue;
        };
        let goal =
            goal(load).map(|most| (format!("at most {most:.2}"), said(ratio.median <= most)));
        let (goal, met) = goal.unwrap_or_else(|| ("none".to_owned(), ""));
        writeln!(
            text,
            "| CPU time per request ({}), {} routes as a multiple of {} | {goal} | {} | {met} |",
            name(load),
            number(routes),
            number(fewest(record)),
            shown(&ratio, 3)
        )?;
    }
    let largest = record.memory.iter().filter(|it| it.shape == Shape::Put);
    if let Some((memory, bytes)) = largest
        .filter_map(|it| Some((it, per_route(record, it)?)))
        .max_by_key(|(it, _)| it.routes)
    {
        writeln!(
            text,
            "| Memory per route of a router, {} routes | none | {bytes:.0} bytes |  |",
            number(memory.routes)
        )?;
    }
    if let Some(replaced) = &record.replaced
        && let (Some(first), Some(last)) = (replaced.bytes.get(1), replaced.bytes.last())
    {
        writeln!(
            text,
            "| Memory after {} full replacements, as a multiple of after one | no growth | {:.3} |  |",
            replaced.bytes.len() - 1,
            *last as f64 / *first as f64
        )?;
    }
    Ok(())
}

pub(super) fn write_served(text: &mut String, record: &Record) -> fmt::Result {
    let Some(first) = record.served.first() else {
        return Ok(());
    };
    writeln!(text, "### Requests during a storm\n")?;
    writeln!(
        text,
        "A router with {} routes, of which {} are changed as fast as etcd takes it, {STORM_TOGETHER} in a \
         transaction; a request over one TLS connection every millisecond, timed from when it was due. \
         Median, least and most of all rounds.\n",
        number(first.routes),
        number(first.changes)
    )?;
    writeln!(
        text,
        "| Meanwhile | Request: median, ms | 99th percentile, ms | Longest, ms | Lasted, s | Snapshots \
         published | CPU of the router per change, µs |\n|---|---|---|---|---|---|---|"
    )?;
    for (scene, name) in [
        (Scene::Quiet, "nothing else"),
        (
            Scene::Elsewhere,
            "the storm under a prefix that nobody follows",
        ),
        (Scene::Followed, "the storm among the router's routes"),
    ] {
        let rounds = || record.served.iter().filter(|it| it.scene == scene);
        let column = |digits, value: fn(&Served) -> f64| {
            let spread = Spread::of(rounds().map(value));
            spread.map(|it| shown(&it, digits)).unwrap_or_default()
        };
        let cost = match scene {
            Scene::Followed => Spread::of(rounds().filter_map(|it| per_change(record, it))),
            _ => None,
        };
        writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} | {} |",
            column(2, |it| latency(it, 0.5)),
            column(2, |it| latency(it, 0.99)),
            column(1, |it| latency(it, 1.0)),
            column(1, |it| it.wall_ns as f64 / 1e9),
            column(0, |it| f64::from(it.snapshots)),
            cost.map(|it| shown(&it, 0)).unwrap_or_default()
        )?;
    }
    writeln!(
        text,
        "
- The router as released, one worker, alone on core {}: worker, follower and control plane share it. Client,
  backend, etcd and the storm's writer are on core {}, etcd and the writer at the lowest priority; that
  client and backend feel them all the same shows in the second row.
- CPU per change: what the router used beyond what as many requests took during the storm elsewhere.
",
        record.settings.router_core, record.settings.rig_core
    )
}

pub(super) fn write_memory(text: &mut String, record: &Record) -> fmt::Result {
    if record.memory.is_empty() {
        return Ok(());
    }
    writeln!(text, "## Memory\n")?;
    writeln!(
        text,
        "| Store | Routes | As | PSS, MiB | Per route, bytes | In force after start, s |\n|---|---|---|---|---|---|"
    )?;
    for memory in &record.memory {
        let bytes = match per_route(record, memory) {
            Some(bytes) => format!("{bytes:.0}"),
            None if memory.routes == 0 => String::new(),
            None => "too few to tell".to_owned(),
        };
        writeln!(
            text,
            "| {} | {} | {} | {:.1} | {bytes} | {:.2} |",
            store(memory.kind),
            number(memory.routes),
            match memory.shape {
                Shape::Put => "one record with three endpoints",
                Shape::Announced => "three instances' records and their announcements",
            },
            memory.bytes as f64 / MIB,
            f64::from(memory.ready_ms) / 1_000.0
        )?;
    }
    writeln!(
        text,
        "
- The router as released, one worker, that has just started on the store and serves no API: its proportional
  set size when it has come to rest. Per route: the difference to the router without routes on the same
  kind of store. It has them twice, as records (for the API, and to tell what changed) and as routes in the
  table; the embedded store adds its cache, at most 16 MiB. Every two routes are
  of a tenant whose zone is kept as well."
    )?;
    if let Some(replaced) = &record.replaced {
        let mib: Vec<String> = replaced
            .bytes
            .iter()
            .map(|bytes| format!("{:.1}", *bytes as f64 / MIB))
            .collect();
        writeln!(
            text,
            "- {} routes in etcd, all replaced by others (names, tenants, endpoints) again and again while the \
             router follows; MiB at first and after each replacement: {}.",
            number(replaced.routes),
            mib.join(", ")
        )?;
    }
    writeln!(text)
}

pub(super) fn write_requests(text: &mut String, record: &Record) -> fmt::Result {
    if record.requests.is_empty() {
        return Ok(());
    }
    writeln!(text, "## CPU time per request\n")?;
    writeln!(
        text,
        "| Load | Routes | CPU µs/request | times {} routes | Rounds |\n|---|---|---|---|---|",
        number(fewest(record))
    )?;
    for load in LOADS {
        for routes in sizes(record) {
            let windows = windows(record, load, routes);
            let Some(cost) = Spread::of(windows.iter().map(|(_, cost)| cost / 1_000.0)) else {
                continue;
            };
            let ratio = ratio(record, load, routes).filter(|_| routes != fewest(record));
            writeln!(
                text,
                "| {} | {} | {} | {} | {} |",
                title(load),
                number(routes),
                shown(&cost, 2),
                ratio.map(|it| shown(&it, 3)).unwrap_or_default(),
                windows.len()
            )?;
        }
    }
    writeln!(
        text,
        "
- Routers as released, one worker each, side by side on core {}, each on an embedded store with so many
  routes; loaded in turn from core {}. `h1` and `h2` are as in `router.md`, by h2load: all requests are for
  one host, so that its way through the table stays in the caches. `any host` draws each request's host from
  all routes, by rustls and in lockstep, so that it is compared with itself alone.
- All routes lead to one backend and belong to one tenant, so that whichever is asked for, its connections
  are warm: a request for a host that nobody has asked for lately also opens one, with many routes or few.
",
        record.settings.router_core, record.settings.rig_core
    )
}

fn title(load: Load) -> String {
    let row = match load {
        Load::H1 => Row::H1,
        Load::H2 => Row::H2,
        Load::Any => {
            return "any host: TLS to a plain ingress, HTTP/1.1, 1 KiB, 32 connections".to_owned();
        }
    };
    format!("{}: {}", row.name(), row.title())
}

/// What a request may cost among most routes, as a multiple of that among fewest: lookups are to be
/// flat. One host says nothing about that, since its way through the table is always in the caches.
fn goal(load: Load) -> Option<f64> {
    (load == Load::Any).then_some(1.2)
}

fn latency(served: &Served, share: f64) -> f64 {
    f64::from(quantile(&served.latency.0, share).unwrap_or_default()) / 1_000.0
}

/// Microseconds of the router's CPU per change that was followed.
fn per_change(record: &Record, followed: &Served) -> Option<f64> {
    let same = |it: &&Served| it.scene == Scene::Elsewhere && it.round == followed.round;
    let elsewhere = record.served.iter().find(same)?;
    let per_request = elsewhere.cpu_ns as f64 / elsewhere.latency.0.len() as f64;
    let requests = per_request * followed.latency.0.len() as f64;
    Some((followed.cpu_ns as f64 - requests) / f64::from(followed.changes) / 1_000.0)
}

fn per_route(record: &Record, memory: &Memory) -> Option<f64> {
    if memory.routes < ENOUGH_TO_TELL {
        return None;
    }
    let empty = |kind: Kind| {
        let mut all = record.memory.iter();
        all.find(|it| it.kind == kind && it.routes == 0)
    };
    let grown = memory.bytes.checked_sub(empty(memory.kind)?.bytes)?;
    Some(grown as f64 / f64::from(memory.routes))
}

fn sizes(record: &Record) -> Vec<u32> {
    let mut sizes: Vec<u32> = record.requests.iter().map(|it| it.routes).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

fn fewest(record: &Record) -> u32 {
    sizes(record).first().copied().unwrap_or_default()
}

/// Nanoseconds per request, by round.
fn windows(record: &Record, load: Load, routes: u32) -> Vec<(u32, f64)> {
    let alike = |it: &&Requests| it.load == load && it.routes == routes;
    let windows = record.requests.iter().filter(alike);
    windows
        .map(|it| (it.round, it.cpu_ns as f64 / f64::from(it.requests)))
        .collect()
}

fn ratio(record: &Record, load: Load, routes: u32) -> Option<Spread> {
    let few = windows(record, load, fewest(record));
    Spread::of(paired_ratios(&windows(record, load, routes), &few))
}
