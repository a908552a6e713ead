//! When results may stand in docs/results: after five rounds, on a machine that had nothing else to
//! do (CONTRIBUTING.md, "Benches").

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::machine::Machine;

const ROUNDS: u32 = 5;
/// Load of the machine for each of its cores, over a minute.
const LOAD: f64 = 0.7;
/// How long to wait until a machine is quiet: whoever starts a bench has often built it just before.
const PATIENCE: Duration = Duration::from_secs(300);

/// What speaks against publishing a run, in words.
pub(crate) fn doubts(rounds: u32, machine: &Machine) -> Vec<String> {
    let mut doubts = Vec::new();
    if rounds < ROUNDS {
        doubts.push(format!("fewer than {ROUNDS} rounds: {rounds}"));
    }
    if is_busy(machine) {
        let (load, cores) = (&machine.load_average, machine.cores);
        doubts.push(format!("a machine of {cores} cores with a load of {load}"));
    }
    doubts
}

/// For the head of a page.
pub(crate) fn remark(rounds: u32, machine: &Machine) -> Option<String> {
    let doubts = doubts(rounds, machine);
    (!doubts.is_empty()).then(|| {
        let doubts = doubts.join("; ");
        format!("**Not for comparison** (`--anyway`): {doubts}.\n")
    })
}

/// The machine that a run which is to be published takes place on, once it is quiet.
pub(crate) fn machine(rounds: u32, is_published: bool, anyway: bool) -> Result<Machine> {
    let began = Instant::now();
    loop {
        let machine = Machine::look();
        if !is_published || anyway {
            return Ok(machine);
        }
        if rounds >= ROUNDS && is_busy(&machine) && began.elapsed() < PATIENCE {
            eprintln!("waiting for a quiet machine; load {}", machine.load_average);
            thread::sleep(Duration::from_secs(15));
            continue;
        }
        let doubts = doubts(rounds, &machine);
        if doubts.is_empty() {
            return Ok(machine);
        }
        bail!(
            "docs/results takes no such run: {}; --out FOLDER writes it elsewhere, --anyway there",
            doubts.join("; ")
        );
    }
}

fn is_busy(machine: &Machine) -> bool {
    let first = machine.load_average.split(' ').next();
    let load: Option<f64> = first.and_then(|load| load.parse().ok());
    load.is_none_or(|load| load > LOAD * machine.cores as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(load_average: &str) -> Machine {
        Machine {
            date: String::new(),
            processor: String::new(),
            cores: 2,
            kernel: String::new(),
            memory: String::new(),
            h2load: String::new(),
            commit: String::new(),
            load_average: load_average.to_owned(),
        }
    }

    #[test]
    fn five_rounds_on_a_quiet_machine_are_published_and_nothing_less() {
        let quiet = with("1.39 9.00 9.00");
        assert_eq!(remark(5, &quiet), None);
        assert_eq!(doubts(4, &quiet), ["fewer than 5 rounds: 4"]);
        for busy in ["1.41 0.00 0.00", "12.00 1.00 1.00", "", "unknown"] {
            assert_eq!(doubts(5, &with(busy)).len(), 1, "{busy}");
        }
        let both = remark(2, &with("3.00 2.00 1.00")).unwrap();
        assert!(both.contains("rounds: 2; a machine of 2 cores"), "{both}");
    }

    #[test]
    fn a_run_for_docs_results_is_refused_unless_somebody_insists() {
        let refused = machine(2, true, false).unwrap_err().to_string();
        assert!(refused.contains("fewer than 5 rounds: 2"), "{refused}");
        machine(2, true, true).unwrap();
        machine(2, false, false).unwrap();
    }
}
