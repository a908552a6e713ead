//! From windows to medians, ratios and a verdict.

use crate::contender::Contender;
use crate::record::{Record, Window};
use crate::row::{Row, Unit};
use crate::statistics::{Spread, paired_ratios};

/// Fewer say little about a spread.
pub(crate) const ROUNDS_FOR_A_VERDICT: usize = 5;

/// One row of the bench; only rows that were run have one.
#[derive(Debug, PartialEq)]
pub(crate) struct RowSummary {
    pub(crate) row: Row,
    pub(crate) lines: Vec<Line>,
    /// The peer with the lowest median, and the router's ratio to it.
    pub(crate) best_peer: Option<(Contender, Spread)>,
}

/// One contender in a row.
#[derive(Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) contender: Contender,
    pub(crate) windows: usize,
    /// In the unit of the table.
    pub(crate) cost: Spread,
    /// How fast it went; `None` in the row `idle`.
    pub(crate) load: Option<LoadSummary>,
    /// The router's cost as a multiple of this contender's, by round.
    pub(crate) router_ratio: Option<Spread>,
}

/// For information beside the cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LoadSummary {
    /// Requests per second.
    pub(crate) rate: Spread,
    /// Share of its core that the contender used.
    pub(crate) busy: Spread,
}

impl RowSummary {
    /// Sums up every row that has windows.
    pub(crate) fn of(record: &Record) -> Vec<Self> {
        Row::ALL
            .into_iter()
            .filter_map(|row| RowSummary::of_row(record, row))
            .collect()
    }

    /// Whether the target holds for the median; `None` without a target, without a ratio, or when
    /// somebody has fewer than [`ROUNDS_FOR_A_VERDICT`] windows.
    pub(crate) fn verdict(&self) -> Option<bool> {
        let (_, ratio) = self.best_peer?;
        let target = self.row.target()?;
        let enough = self
            .lines
            .iter()
            .all(|line| line.windows >= ROUNDS_FOR_A_VERDICT);
        enough.then_some(ratio.median <= target)
    }

    fn of_row(record: &Record, row: Row) -> Option<Self> {
        let line = |contender| Line::of(record, row, contender);
        let lines: Vec<Line> = Contender::ALL.into_iter().filter_map(line).collect();
        let peers = lines
            .iter()
            .filter(|line| line.contender != Contender::Router);
        let best = peers.min_by(|one, other| one.cost.median.total_cmp(&other.cost.median));
        let best_peer = best.and_then(|best| Some((best.contender, best.router_ratio?)));
        (!lines.is_empty()).then_some(RowSummary {
            row,
            lines,
            best_peer,
        })
    }
}

impl Line {
    fn of(record: &Record, row: Row, contender: Contender) -> Option<Self> {
        let windows = windows(record, row, contender);
        let scale = row.unit().scale();
        let router = costs(&self::windows(record, row, Contender::Router));
        let ratios = paired_ratios(&router, &costs(&windows));
        Some(Line {
            contender,
            windows: windows.len(),
            cost: Spread::of(windows.iter().map(|window| window.cost() / scale))?,
            load: LoadSummary::of(&windows).filter(|_| row.unit() == Unit::CpuPerRequest),
            router_ratio: Spread::of(ratios).filter(|_| contender != Contender::Router),
        })
    }
}

impl LoadSummary {
    fn of(windows: &[&Window]) -> Option<Self> {
        let seconds = |window: &Window| window.wall_ns as f64 / 1e9;
        let rate = |window: &&Window| f64::from(window.count) / seconds(window);
        let busy = |window: &&Window| window.used as f64 / 1e9 / seconds(window);
        let rate = Spread::of(windows.iter().map(rate))?;
        Some(LoadSummary {
            rate,
            busy: Spread::of(windows.iter().map(busy))?,
        })
    }
}

fn windows(record: &Record, row: Row, contender: Contender) -> Vec<&Window> {
    let wanted = |window: &&Window| window.row == row && window.contender == contender;
    record.windows.iter().filter(wanted).collect()
}

fn costs(windows: &[&Window]) -> Vec<(u32, f64)> {
    windows
        .iter()
        .map(|window| (window.round, window.cost()))
        .collect()
}
