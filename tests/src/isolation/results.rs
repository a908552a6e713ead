//! What the matrix and its mutation check found, as a table for people and as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::{Value, json};

use super::case::Group;
use super::guard::Mode;
use super::matrix::{Outcome, Tally};

/// The outcome of a pass in each mode.
#[derive(Debug, Default)]
pub struct Results {
    outcomes: BTreeMap<Mode, Outcome>,
}

impl Results {
    /// Takes in a pass.
    pub fn add(&mut self, mode: Mode, outcome: Outcome) {
        self.outcomes.insert(mode, outcome);
    }

    /// Everything that went wrong, a line each.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let all = self.outcomes.iter();
        all.flat_map(|(mode, outcome)| {
            let failures = outcome.failures.iter();
            failures.map(|failure| format!("{}: {failure}", mode.name()))
        })
        .collect()
    }

    /// A table: groups of cases in rows, modes in columns.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::from("| cases (of them open) |");
        for mode in self.outcomes.keys() {
            let _ = write!(text, " {} |", mode.name());
        }
        text.push_str("\n|---|");
        text.push_str(&"---|".repeat(self.outcomes.len()));
        let groups: BTreeSet<Group> = self
            .outcomes
            .values()
            .flat_map(|outcome| outcome.groups.keys().copied())
            .collect();
        for group in groups {
            let _ = write!(text, "\n| {} |", group.name());
            for outcome in self.outcomes.values() {
                text.push_str(&cell(outcome.groups.get(&group).copied()));
            }
        }
        text.push_str("\n| **all** |");
        for outcome in self.outcomes.values() {
            text.push_str(&cell(Some(outcome.total())));
        }
        text.push_str("\n| frames sent |");
        for outcome in self.outcomes.values() {
            let _ = write!(text, " {} |", outcome.total().packets);
        }
        text.push_str("\n| went otherwise |");
        for outcome in self.outcomes.values() {
            let _ = write!(text, " {} |", outcome.failures.len());
        }
        text.push_str("\n| seconds |");
        for outcome in self.outcomes.values() {
            let _ = write!(text, " {:.2} |", outcome.took.as_secs_f64());
        }
        text.push('\n');
        text
    }

    /// The same for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let modes = self.outcomes.iter().map(|(mode, outcome)| {
            let groups = outcome.groups.iter().map(|(group, tally)| {
                let value = json!({
                    "cases": tally.cases, "open": tally.open, "frames": tally.packets,
                });
                (group.name().to_owned(), value)
            });
            let total = outcome.total();
            let value = json!({
                "cases": total.cases,
                "open": total.open,
                "frames": total.packets,
                "failures": outcome.failures.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "seconds": outcome.took.as_secs_f64(),
                "groups": groups.collect::<serde_json::Map<_, _>>(),
            });
            (mode.name().to_owned(), value)
        });
        Value::Object(modes.collect())
    }
}

fn cell(tally: Option<Tally>) -> String {
    match tally {
        Some(tally) => format!(" {} ({}) |", tally.cases, tally.open),
        None => " – |".to_owned(),
    }
}
