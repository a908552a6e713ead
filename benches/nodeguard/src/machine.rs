//! Where a run took place.

use std::fs;
use std::process::Command;

use harness::tool::Tool;
use serde::{Deserialize, Serialize};

/// Date, machine and versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The command that was given.
    pub(crate) command: String,
    /// UTC, to the minute.
    pub(crate) date: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) memory: String,
    /// Commit that was measured, `-dirty` with uncommitted changes.
    pub(crate) commit: String,
    /// Load of the machine, from everybody, when the run began (1, 5, 15 minutes).
    pub(crate) load_average: String,
    /// What the kernel does against speculation, which costs indirect calls most.
    pub(crate) spectre: String,
    /// Programs and their versions.
    pub(crate) versions: Vec<(String, String)>,
}

impl Machine {
    /// Reads it off this machine; what cannot be read is called unknown.
    pub(crate) fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let load = read("/proc/loadavg");
        let load: Vec<&str> = load.split_whitespace().take(3).collect();
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let processors = cpuinfo.lines().filter(|it| it.starts_with("processor"));
        let versions = ["nft", "iptables-legacy", "iptables-nft", "ipset"]
            .map(|program| (program.to_owned(), version(program)));
        Machine {
            command: ["./x bench nodeguard", &arguments.join(" ")]
                .join(" ")
                .trim()
                .to_owned(),
            date: line(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"])),
            processor: field(&cpuinfo, "model name"),
            cores: processors.count(),
            kernel: line(Command::new("uname").arg("-r")),
            memory: field(&read("/proc/meminfo"), "MemTotal"),
            commit: line(Command::new("git").args(["describe", "--always", "--dirty"])),
            load_average: load.join(" "),
            spectre: read("/sys/devices/system/cpu/vulnerabilities/spectre_v2")
                .trim()
                .to_owned(),
            versions: versions.to_vec(),
        }
    }
}

fn version(program: &str) -> String {
    let output = Tool::new(program).args(["--version"]).succeed();
    let output = output.unwrap_or_default();
    output.lines().next().unwrap_or("unknown").trim().to_owned()
}

fn field(text: &str, name: &str) -> String {
    let value = text.lines().filter_map(|line| line.split_once(':'));
    let mut value = value.filter(|(key, _)| key.trim() == name);
    let value = value.next().map(|(_, value)| value.trim().to_owned());
    value.unwrap_or_else(|| "unknown".to_owned())
}

fn line(command: &mut Command) -> String {
    let output = command.output().ok().filter(|it| it.status.success());
    let text = output.map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned());
    text.filter(|text| !text.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}
