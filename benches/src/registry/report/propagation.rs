//! From a change to the snapshot.

use std::fmt::{self, Write};

use super::super::record::{Delays, Kind, Micros, Record, Series, Storm};
use super::{TIMES_BARE, number, said, shown, store};
use crate::registry::quantile::quantile;
use crate::statistics::{Spread, paired_ratios};

/// All rounds of a store, a size and a series.
struct Group<'a> {
    kind: Kind,
    routes: u32,
    series: Series,
    rounds: Vec<&'a Delays>,
}

/// Shares of changes that a table tells of.
const SHARES: [f64; 3] = [0.5, 0.9, 0.99];

pub(super) fn write_verdict(text: &mut String, record: &Record) -> fmt::Result {
    let window = record.settings.window_ms;
    for group in groups(record).filter(|it| it.kind == Kind::Etcd) {
        let (Some(ratio), Some(met)) = (group.ratio(), group.met(window)) else {
            continue;
        };
        let measured = match group.series {
            Series::Single => format!("{} times the bare watch", shown(&ratio, 2)),
            Series::Burst => {
                let snapshot = group.quantile(|it| &it.snapshot, 0.5);
                let bare = group.quantile(|it| &it.bare, 0.5);
                let (snapshot, bare) = (snapshot.unwrap_or_default(), bare.unwrap_or_default());
                format!("{snapshot:.1} ms where the bare watch took {bare:.1} ms")
            }
        };
        writeln!(
            text,
            "| {} in the snapshot, {} routes | at most {TIMES_BARE} times a bare etcd watch plus {window} ms | {measured} | {} |",
            match group.series {
                Series::Single => "A change by itself",
                Series::Burst => "One of 50 changes in a window",
            },
            number(group.routes),
            said(met),
        )?;
    }
    Ok(())
}

pub(super) fn write_delays(text: &mut String, record: &Record) -> fmt::Result {
    if record.delays.is_empty() {
        return Ok(());
    }
    let window = record.settings.window_ms;
    writeln!(text, "## From a change to the snapshot\n")?;
    writeln!(
        text,
        "Milliseconds from when the writer sent a change: until its commit returned, until a bare watch was \
         handed it, and until the snapshot that workers read had it. Median, 90th and 99th percentile of all \
         changes; the ratio is that of the medians within a round: its median, least and most. Snapshots \
         are those published per change.\n"
    )?;
    writeln!(
        text,
        "| Store | Routes | Changes | Commit returned | Bare watch | Snapshot | Snapshot / bare watch | Snapshots \
         per change | {TIMES_BARE} x bare + {window} ms | |\n|---|---|---|---|---|---|---|---|---|---|"
    )?;
    for group in groups(record) {
        let count: usize = group.rounds.iter().map(|it| it.bare.0.len()).sum();
        let snapshots: u32 = group.rounds.iter().map(|it| it.snapshots).sum();
        let allowed = SHARES.map(|share| {
            let bare = group.quantile(|it| &it.bare, share).unwrap_or_default();
            bare * TIMES_BARE + f64::from(window)
        });
        writeln!(
            text,
            "| {} | {} | {count}, {} | {} | {} | {} | {} | {:.2} | {} | {} |",
            store(group.kind),
            number(group.routes),
            match group.series {
                Series::Single => "each by itself",
                Series::Burst => "50 in a window",
            },
            group.quantiles(|it| &it.returned),
            group.quantiles(|it| &it.bare),
            group.quantiles(|it| &it.snapshot),
            group
                .ratio()
                .filter(|_| group.series == Series::Single)
                .map(|it| shown(&it, 2))
                .unwrap_or_default(),
            f64::from(snapshots) / count as f64,
            joined(allowed),
            match group.kind {
                Kind::Etcd => group.met(window).map(said).unwrap_or_default(),
                Kind::Embedded => "no goal",
            },
        )?;
    }
    writeln!(
        text,
        "
- etcd is real, with its data in memory (`/dev/shm`): disks would slow a bare watch and a router alike, and
  hide what lies between the two. All stores of a run stand in the same cluster, each under a prefix. A
  writer has a connection of its own; a bare watch is etcd-client's, on a connection, thread and runtime of
  its own, at the member that the follower asks too; it looks at nothing but the revision. Beside the embedded
  store, whose file lies in memory as well, it is another watch of the same store.
- The follower, its disk copy of what it knows, and the control plane run as in a router, in this process; a
  change is stamped when `Control::apply_registry` has returned, and looked up in the published snapshot.
- A change sends one endpoint of a route elsewhere. Changes by themselves: the window after the last has
  passed, and 10 to 30 ms more. Fifty in a window: one every half millisecond; the first is published at
  once, the others when the window ends: they wait on purpose, and so have no ratio.
- Met: median and 99th percentile are both within {TIMES_BARE} times the bare watch's, plus the window.
- Stores take turns within a round, and who begins changes. Everything shares the machine's cores: three
  members, writer, bare watch and follower.
"
    )
}

pub(super) fn write_storms(text: &mut String, record: &Record) -> fmt::Result {
    if record.storms.is_empty() {
        return Ok(());
    }
    writeln!(text, "## Storms\n")?;
    writeln!(
        text,
        "Milliseconds from when the first change was sent; median, least and most of all rounds.\n"
    )?;
    writeln!(
        text,
        "| Store | Routes | Changes | In a transaction | All committed | Bare watch has all | Snapshot has all | \
         Snapshot after bare watch | Snapshots published |\n|---|---|---|---|---|---|---|---|---|"
    )?;
    let mut told = Vec::new();
    for storm in &record.storms {
        let key = |it: &Storm| (it.kind, it.routes, it.together);
        if told.contains(&key(storm)) {
            continue;
        }
        told.push(key(storm));
        let alike = || record.storms.iter().filter(|it| key(it) == key(storm));
        let column = |value: fn(&Storm) -> f64| {
            let spread = Spread::of(alike().map(value));
            spread.map(|it| shown(&it, 0)).unwrap_or_default()
        };
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            store(storm.kind),
            number(storm.routes),
            number(storm.changes),
            storm.together,
            column(|it| millis(it.committed)),
            column(|it| millis(it.heard)),
            column(|it| millis(it.published)),
            column(|it| millis(it.published) - millis(it.heard)),
            column(|it| f64::from(it.snapshots)),
        )?;
    }
    writeln!(
        text,
        "
- As above, with up to 64 transactions on their way at a time. How long it takes with one change in a
  transaction is etcd's matter; with a hundred it is the control plane's, which has them all at once.
"
    )
}

fn groups(record: &Record) -> impl Iterator<Item = Group<'_>> {
    let mut keys = Vec::new();
    for series in [Series::Single, Series::Burst] {
        for kind in [Kind::Etcd, Kind::Embedded] {
            let rounds = record.delays.iter().filter(|it| it.kind == kind);
            let mut sizes: Vec<u32> = rounds.map(|it| it.routes).collect();
            sizes.sort_unstable();
            sizes.dedup();
            keys.extend(sizes.into_iter().map(|routes| (kind, routes, series)));
        }
    }
    keys.into_iter().map(|key| Group {
        kind: key.0,
        routes: key.1,
        series: key.2,
        rounds: record
            .delays
            .iter()
            .filter(|it| (it.kind, it.routes, it.series) == key)
            .collect(),
    })
}

impl Group<'_> {
    /// Milliseconds that a share of all changes did not exceed.
    fn quantile(&self, of: impl Fn(&Delays) -> &Micros, share: f64) -> Option<f64> {
        let rounds = self.rounds.iter();
        let all: Vec<u32> = rounds
            .flat_map(|round| of(round).0.iter().copied())
            .collect();
        quantile(&all, share).map(millis)
    }

    fn quantiles(&self, of: impl Fn(&Delays) -> &Micros) -> String {
        joined(SHARES.map(|share| self.quantile(&of, share).unwrap_or_default()))
    }

    /// How many times the bare watch's median the snapshot's is, by round.
    fn ratio(&self) -> Option<Spread> {
        let medians = |of: fn(&Delays) -> &Micros| -> Vec<(u32, f64)> {
            let rounds = self.rounds.iter();
            let median = rounds.map(|it| Some((it.round, millis(quantile(&of(it).0, 0.5)?))));
            median.flatten().collect()
        };
        let (snapshot, bare) = (medians(|it| &it.snapshot), medians(|it| &it.bare));
        Spread::of(paired_ratios(&snapshot, &bare))
    }

    fn met(&self, window: u32) -> Option<bool> {
        let within = |share| {
            let snapshot = self.quantile(|it| &it.snapshot, share)?;
            let bare = self.quantile(|it| &it.bare, share)?;
            Some(snapshot <= TIMES_BARE * bare + f64::from(window))
        };
        Some(within(0.5)? && within(0.99)?)
    }
}

fn joined(values: [f64; 3]) -> String {
    values.map(|value| format!("{value:.2}")).join(" / ")
}

fn millis(micros: u32) -> f64 {
    f64::from(micros) / 1_000.0
}
