//! Where a run took place.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::contender::first_line;

/// Date and machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// UTC, to the minute.
    pub(crate) date: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) memory: String,
    /// The client of the keep-alive rows.
    pub(crate) h2load: String,
    /// Commit that was measured, `-dirty` with uncommitted changes.
    pub(crate) commit: String,
    /// Load of the machine, from everybody, when the run began (1, 5, 15 minutes).
    pub(crate) load_average: String,
}

impl Machine {
    /// Reads it off this machine; what cannot be read is called unknown.
    pub(crate) fn look() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load: Vec<&str> = load.split_whitespace().take(3).collect();
        Machine {
            date: line(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"])),
            processor: field(&cpuinfo, "model name"),
            cores: cpuinfo
                .lines()
                .filter(|line| line.starts_with("processor"))
                .count(),
            kernel: line(Command::new("uname").arg("-r")),
            memory: field(&meminfo, "MemTotal"),
            h2load: first_line("h2load", &["--version"]),
            commit: line(Command::new("git").args(["describe", "--always", "--dirty"])),
            load_average: load.join(" "),
        }
    }
}

fn field(text: &str, name: &str) -> String {
    let value = text.lines().filter_map(|line| line.split_once(':'));
    let mut value = value.filter(|(key, _)| key.trim() == name);
    value.next().map_or_else(
        || "unknown".to_owned(),
        |(_, value)| value.trim().to_owned(),
    )
}

fn line(command: &mut Command) -> String {
    let output = command
        .output()
        .ok()
        .filter(|output| output.status.success());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.filter(|text| !text.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}
