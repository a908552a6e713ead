//! What the demo prints.

#![allow(clippy::print_stdout, reason = "printing is what this program is for")]

use std::io::IsTerminal;
use std::time::Duration;

use harness::load::Tally;

use crate::acts::answered_by;

/// Prints, in colour on a terminal.
pub(crate) struct Report {
    /// How often curl was run.
    pub(crate) curls: usize,
    colour: bool,
    rows: Vec<Row>,
}

/// A line of the table at the end.
pub(crate) struct Row {
    /// Who asked for what.
    pub(crate) what: String,
    /// How many requests that was.
    pub(crate) requests: usize,
    /// How many failed.
    pub(crate) failures: usize,
    /// Who answered.
    pub(crate) by: String,
}

impl Row {
    /// What became of GETs.
    pub(crate) fn of_gets(what: &str, tally: &Tally) -> Self {
        Self {
            what: format!("GET, {what}"),
            requests: tally.answered() + tally.failures.len(),
            failures: tally.failures.len(),
            by: answered_by(tally),
        }
    }
}

/// Who was answered at how many doors, time after time.
#[derive(Default)]
pub(crate) struct Knocks(Vec<(&'static str, [usize; 3])>);

impl Knocks {
    /// Adds a round: how many doors answered the stranger, the router and the other node.
    pub(crate) fn column(&mut self, when: &'static str, answered: [usize; 3]) {
        self.0.push((when, answered));
    }

    /// The last round.
    pub(crate) fn last(&self) -> [usize; 3] {
        self.0.last().map(|it| it.1).unwrap_or_default()
    }
}

impl Report {
    pub(crate) fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            curls: 0,
            colour,
            rows: Vec::new(),
        }
    }

    /// A new subject.
    pub(crate) fn heading(&self, text: &str) {
        println!("\n{}", self.paint("1", text));
    }

    /// Something to know.
    pub(crate) fn line(&self, text: &str) {
        println!("  {text}");
    }

    /// A command, as it is run.
    pub(crate) fn command(&self, line: &str) {
        println!("  {} {}", self.paint("2", "$"), self.paint("36", line));
    }

    /// What came of it.
    pub(crate) fn result(&self, text: &str) {
        for line in text.lines() {
            println!("    {line}");
        }
    }

    /// Something that was to be shown, and holds.
    pub(crate) fn holds(&self, text: &str) {
        println!("  {} {text}", self.paint("32", "✓"));
    }

    /// The end of a log, for a demo that failed.
    pub(crate) fn log(&self, title: &str, log: &str) {
        let lines: Vec<&str> = log.lines().collect();
        eprintln!(
            "\n--- {title} ---\n{}\n---",
            lines[lines.len().saturating_sub(20)..].join("\n")
        );
    }

    /// The last word of a demo that failed.
    pub(crate) fn error(&self, text: &str) {
        eprintln!("\n{text}");
    }

    /// Adds a line to the table.
    pub(crate) fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Prints the table.
    pub(crate) fn table(&self) {
        self.heading("In numbers");
        let width = self.rows.iter().map(|it| it.what.chars().count()).max();
        let width = width.unwrap_or_default();
        let head = format!("{:<width$}  requests   failed   answered by", "what");
        println!("  {}", self.paint("2", &head));
        for Row {
            what,
            requests,
            failures,
            by,
        } in &self.rows
        {
            println!("  {what:<width$}  {requests:>8}   {failures:>6}   {by}");
        }
    }

    /// Prints who was answered.
    pub(crate) fn knocks(&self, knocks: &Knocks, all: usize) {
        self.heading(&format!(
            "At how many of {all} isolated doors there was an answer"
        ));
        let mut head = format!("{:<10}", "");
        for (when, _) in &knocks.0 {
            head.push_str(&format!("  {when:>13}"));
        }
        println!("  {}", self.paint("2", &head));
        for (index, who) in ["stranger", "router", "node"].into_iter().enumerate() {
            let counts = knocks.0.iter().map(|it| format!("  {:>13}", it.1[index]));
            println!("  {who:<10}{}", counts.collect::<String>());
        }
    }

    /// The last word of a demo that went well.
    pub(crate) fn end(&self, took: Duration) {
        println!();
        self.holds("nothing is left behind: processes, namespaces, links, mounts, firewall, files");
        println!("  {:.1} s in all", took.as_secs_f64());
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
