//! From windows to costs per packet, ratios and differences, each taken within a round.

use crate::cell::Cell;
use crate::contender::Contender;
use crate::record::{Record, Window};
use crate::statistics::{Spread, paired_ratios};

/// Fewer say little about a spread.
pub(crate) const ROUNDS_FOR_A_VERDICT: usize = 7;

/// Values of one contender by round.
pub(crate) type Series = Vec<(u32, f64)>;

/// One comparison.
#[derive(Debug)]
pub(crate) struct CellSummary {
    pub(crate) cell: Cell,
    /// What the bench itself costs: nanoseconds per packet.
    pub(crate) bench: Option<Spread>,
    pub(crate) lines: Vec<Line>,
}

/// One contender in it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) contender: Contender,
    /// Nanoseconds per packet, without what the bench itself costs.
    pub(crate) cost: Spread,
    /// The same as a multiple of what it costs without a guard.
    pub(crate) times_nobody: Option<Spread>,
    /// What comes on top of that: nanoseconds per packet.
    pub(crate) added: Option<Spread>,
    /// Costs of nodeguard's three ways as multiples of this one.
    pub(crate) ratios: [Option<Spread>; 3],
    pub(crate) windows: usize,
}

impl CellSummary {
    /// All that have been run.
    pub(crate) fn of(record: &Record) -> Vec<Self> {
        let mut cells: Vec<Cell> = record.windows.iter().map(|it| it.cell).collect();
        cells.sort();
        cells.dedup();
        cells
            .into_iter()
            .map(|cell| Self::of_cell(record, cell))
            .collect()
    }

    /// The peer whose median is lowest.
    pub(crate) fn best_peer(&self) -> Option<&Line> {
        let peers = self
            .lines
            .iter()
            .filter(|it| Contender::PEERS.contains(&it.contender));
        peers.min_by(|one, other| one.cost.median.total_cmp(&other.cost.median))
    }

    pub(crate) fn line(&self, contender: Contender) -> Option<&Line> {
        self.lines.iter().find(|it| it.contender == contender)
    }

    fn of_cell(record: &Record, cell: Cell) -> Self {
        let bench = series(record, cell, Contender::Bare);
        let net = |contender| differences(&series(record, cell, contender), &bench);
        let nobody = net(Contender::Nobody);
        let guards = Contender::GUARDS.map(net);
        let line = |contender| {
            let own = net(contender);
            Some(Line {
                contender,
                cost: spread(&own)?,
                times_nobody: Spread::of(paired_ratios(&own, &nobody)),
                added: spread(&differences(&own, &nobody)),
                ratios: guards
                    .each_ref()
                    .map(|guard| Spread::of(paired_ratios(guard, &own))),
                windows: own.len(),
            })
        };
        let others = Contender::ALL
            .into_iter()
            .filter(|it| *it != Contender::Bare);
        Self {
            cell,
            bench: spread(&bench),
            lines: others.filter_map(line).collect(),
        }
    }
}

/// Nanoseconds per packet by round.
fn series(record: &Record, cell: Cell, contender: Contender) -> Series {
    let of = |it: &&Window| it.cell == cell && it.contender == contender;
    let windows = record.windows.iter().filter(of);
    windows
        .filter_map(|it| Some((it.round, cost(it, record.settings.frames)?)))
        .collect()
}

/// The median of its bursts.
fn cost(window: &Window, frames: u32) -> Option<f64> {
    let bursts = window
        .bursts
        .iter()
        .map(|ns| *ns as f64 / f64::from(frames));
    Spread::of(bursts).map(|it| it.median)
}

/// One value less another of the same round. Rounds that miss either are left out.
fn differences(own: &[(u32, f64)], other: &[(u32, f64)]) -> Series {
    let pair = |&(round, own): &(u32, f64)| {
        let (_, other) = other.iter().find(|(it, _)| *it == round)?;
        Some((round, own - other))
    };
    own.iter().filter_map(pair).collect()
}

fn spread(series: &Series) -> Option<Spread> {
    Spread::of(series.iter().map(|(_, value)| *value))
}
