//! The part of registry.md on lookups: what was measured, how, and what it means for the target.

use std::fmt::{self, Write};

use super::record::{Measured, Record};
use crate::statistics::{Spread, paired_ratios};

/// The largest table may cost so much more than the smallest, for the same hosts.
const TARGET: f64 = 1.20;

/// A column of the table of lookups and changes.
struct Column {
    title: &'static str,
    value: fn(&Measured) -> f64,
    digits: usize,
}

const COLUMNS: [Column; 5] = [
    Column {
        title: "Lookup, same 10 hosts, ns",
        value: |it| it.same_hosts,
        digits: 1,
    },
    Column {
        title: "Lookup, any host, ns",
        value: |it| it.any_host,
        digits: 0,
    },
    Column {
        title: "The same in a plain hash map, ns",
        value: |it| it.any_host_plain_map,
        digits: 0,
    },
    Column {
        title: "Edit of the table, µs",
        value: |it| it.edit / 1_000.0,
        digits: 1,
    },
    Column {
        title: "Change until published, µs",
        value: |it| it.change / 1_000.0,
        digits: 1,
    },
];

/// The tables.
pub(crate) fn tables(record: &Record) -> String {
    let mut text = String::new();
    write_tables(&mut text, record).expect("writing to a String does not fail");
    text
}

/// How it was measured.
pub(crate) fn method(record: &Record) -> String {
    format!(
        "\
- One process, pinned to core {}, with the router's allocator (mimalloc) and its control plane, which
  has taken all routes from a registry in batches. {} rounds; in each, every size has its turn, and who
  begins changes. Times are CPU time of that one thread: median, and the least and the most of all
  rounds.
- A cluster is a tenant with two rules, an exact name and a suffix, that lead to the same three
  endpoints. A lookup of the exact name is one hash; one of a name under the suffix is three.
- `Same 10 hosts`: they are in every table, so that their way through it stays in the caches. What is
  left is what the table itself costs, and that must not grow. The ratio is taken within a round.
- `Any host`: each lookup goes to a host drawn from all, so that a large table is read from memory. The
  plain hash map (hashbrown, from the whole name to the same target) shows how much of that is the
  machine's: no table is flat here.
- `Edit`: a copy of the table with one rule taken out and put in again, and the copy dropped. `Change`:
  one route whose third endpoint moved, through `Control::apply_registry` until it is published,
  superseded snapshots dropped.
- Memory: growth of the proportional set size of a process of its own, by routes; what the control plane
  keeps, table, upstreams, endpoints and what finds them again. What the follower of the store keeps of
  its records is not in it.
",
        record.settings.core, record.settings.rounds
    )
}

/// The largest table's cost as a multiple of the smallest's for the same hosts, and whether that is
/// within the target; with the two sizes.
pub(crate) fn verdict(record: &Record) -> Option<(u32, u32, Spread, bool)> {
    let sizes = &record.settings.sizes;
    let (&least, &most) = (sizes.first()?, sizes.last()?);
    let series = |size| -> Vec<(u32, f64)> {
        of_size(record, size)
            .map(|it| (it.round, it.same_hosts))
            .collect()
    };
    let ratio = Spread::of(paired_ratios(&series(most), &series(least)))?;
    Some((least, most, ratio, ratio.median <= TARGET))
}

fn write_tables(text: &mut String, record: &Record) -> fmt::Result {
    let titles: Vec<_> = COLUMNS.iter().map(|it| it.title).collect();
    writeln!(text, "| Routes | {} |", titles.join(" | "))?;
    writeln!(text, "|---{}|", "|---".repeat(COLUMNS.len()))?;
    for &size in &record.settings.sizes {
        write!(text, "| {size} |")?;
        for column in &COLUMNS {
            let values = of_size(record, size).map(column.value);
            write!(text, " {} |", shown(Spread::of(values), column.digits))?;
        }
        writeln!(text)?;
    }
    writeln!(text, "\n| Routes | Memory per route, bytes |\n|---|---|")?;
    for memory in &record.memory {
        let bytes = memory.after.saturating_sub(memory.before);
        // Of few routes, one page of memory more or less is most of it.
        let per_route = match memory.routes {
            0..10_000 => "too few to tell".to_owned(),
            routes => format!("{:.0}", bytes as f64 / f64::from(routes)),
        };
        writeln!(text, "| {} | {per_route} |", memory.routes)?;
    }
    writeln!(text)
}

fn of_size(record: &Record, size: u32) -> impl Iterator<Item = &Measured> {
    record.measured.iter().filter(move |it| it.routes == size)
}

fn shown(spread: Option<Spread>, digits: usize) -> String {
    let Some(Spread {
        median,
        least,
        most,
    }) = spread
    else {
        return String::new();
    };
    format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry_lookup::record::{Memory, Settings};

    fn record(largest: f64) -> Record {
        let measured = |routes, same_hosts| Measured {
            round: 0,
            routes,
            same_hosts,
            any_host: 300.0,
            any_host_plain_map: 310.0,
            edit: 7_000.0,
            change: 20_000.0,
        };
        Record {
            settings: Settings {
                rounds: 1,
                sizes: vec![10, 1_000_000],
                core: 0,
            },
            memory: vec![Memory {
                routes: 1_000_000,
                before: 1_000,
                after: 500_001_000,
            }],
            measured: vec![measured(10, 10.0), measured(1_000_000, largest)],
        }
    }

    #[test]
    fn the_verdict_is_the_ratio_of_the_largest_to_the_smallest() {
        let (least, most, ratio, met) = verdict(&record(11.0)).unwrap();
        assert_eq!((least, most, met), (10, 1_000_000, true));
        assert!((ratio.median - 1.1).abs() < 1e-9);
        assert!(!verdict(&record(13.0)).unwrap().3);
    }

    #[test]
    fn rows_have_their_units() {
        let text = tables(&record(11.0));
        let row = "| 1000000 | 11.0 (11.0 to 11.0) | 300 (300 to 300) | 310 (310 to 310) \
                   | 7.0 (7.0 to 7.0) | 20.0 (20.0 to 20.0) |";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("| 1000000 | 500 |"), "{text}");
    }
}
