//! A run from beginning to end.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use harness::interrupt;
use harness::machine::MachineState;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare};
use nix::unistd::{Pid, geteuid};

use crate::Bench;
use crate::cell::{Cell, Group};
use crate::change;
use crate::contender::{Contender, Hold};
use crate::idle;
use crate::machine::Machine;
use crate::record::{Discarded, Record, Rules, Settings, Window};
use crate::report;
use crate::site::Site;
use crate::window::{BATCH, BURST, Core, window};

/// How often a window is tried before a round goes on without it.
const ATTEMPTS: u32 = 3;

/// Runs what is asked for, prints it, and writes it where it belongs.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    if !geteuid().is_root() {
        bail!("network namespaces and BPF need root: run this as root or with sudo");
    }
    // What gets mounted is nobody else's to see, and goes with us. Before the first thread.
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace of our own")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("private mounts")?;
    interrupt::watch()?;
    let before = MachineState::capture()?;
    let result = measure(bench);
    let clean = before.assert_unchanged();
    let record = result?;
    clean?;
    print(&report::tables(&record));
    let is_whole = bench.groups.is_empty() && bench.contender.is_empty() && !bench.no_changes;
    let folder = match (&bench.out, is_whole) {
        (Some(folder), _) => folder.clone(),
        (None, true) => PathBuf::from("docs/results"),
        (None, false) => return Ok(()),
    };
    write(&folder, &record)
}

fn measure(bench: &Bench) -> Result<Record> {
    let groups = match bench.groups.is_empty() {
        true => Group::ALL.to_vec(),
        false => bench.groups.clone(),
    };
    let contenders: Vec<Contender> = Contender::ALL
        .into_iter()
        .filter(|it| bench.contender.is_empty() || bench.contender.contains(it))
        .collect();
    let (rig_core, measured_core) = cores()?;
    let mut record = Record {
        machine: Machine::look(),
        settings: Settings {
            rounds: bench.rounds,
            bursts: bench.bursts,
            frames: BURST,
            batch: BATCH,
            change_rounds: bench.change_rounds,
            rig_core,
            measured_core,
        },
        rules: Vec::new(),
        windows: Vec::new(),
        discarded: Vec::new(),
        changes: Vec::new(),
        idle: Vec::new(),
    };
    for &group in &groups {
        for &contender in &contenders {
            let text = contender.rules(group);
            record.rules.push(Rules {
                group,
                contender,
                text,
            });
        }
    }
    eprintln!("builds {} nodes", groups.len() * contenders.len());
    let mut site = Site::new(&groups, &contenders, name(rig_core))?;
    let result = rounds(bench, &groups, &contenders, &site, &mut record);
    let result = result.and_then(|()| {
        if !bench.no_changes {
            eprintln!("leaves the daemons alone for {} s", bench.idle_seconds);
            record.idle = idle::watch(&mut site, Duration::from_secs(bench.idle_seconds.into()))?;
        }
        Ok(())
    });
    let ended = end(site);
    result?;
    ended?;
    if !bench.no_changes {
        eprintln!("changes policies");
        record.changes = change::measure(bench.change_rounds, measured_core, name(measured_core))?;
    }
    Ok(record)
}

fn rounds(
    bench: &Bench,
    groups: &[Group],
    contenders: &[Contender],
    site: &Site,
    record: &mut Record,
) -> Result<()> {
    let core = Core::new(record.settings.measured_core)?;
    for round in 0..bench.rounds {
        let (windows, discarded) = (record.windows.len(), record.discarded.len());
        for cell in Cell::all(groups) {
            for turn in 0..contenders.len() {
                // Who begins changes from round to round.
                let contender = contenders[(turn + round as usize) % contenders.len()];
                one(site, bench.bursts, core, cell, round, contender, record).with_context(
                    || {
                        let (group, scenario) = (cell.group.name(), cell.scenario.name());
                        format!(
                            "{group}, {scenario}, {}, {}",
                            cell.family.name(),
                            contender.name()
                        )
                    },
                )?;
            }
        }
        let disturbed: u32 = record.windows[windows..]
            .iter()
            .map(|it| it.disturbed)
            .sum();
        eprintln!(
            "round {} of {}: {} windows, {disturbed} disturbed bursts left out, {} windows discarded",
            round + 1,
            bench.rounds,
            record.windows.len() - windows,
            record.discarded.len() - discarded,
        );
    }
    Ok(())
}

fn one(
    site: &Site,
    bursts: u32,
    core: Core,
    cell: Cell,
    round: u32,
    contender: Contender,
    record: &mut Record,
) -> Result<()> {
    let node = site.find(cell.group, contender).context("no such node")?;
    for _ in 0..ATTEMPTS {
        let measured = window(site, node, &cell, core, bursts)?;
        if measured.bursts.len() == bursts as usize {
            record.windows.push(Window {
                cell,
                round,
                contender,
                bursts: measured.bursts,
                disturbed: measured.disturbed,
            });
            return Ok(());
        }
        record.discarded.push(Discarded {
            cell,
            round,
            contender,
            undisturbed: measured.bursts.len(),
            disturbed: measured.disturbed,
        });
    }
    Ok(())
}

/// Takes back what would not go by itself at once.
fn end(mut site: Site) -> Result<()> {
    let mut result = Ok(());
    for node in &mut site.nodes {
        if let Hold::Guard(guard) = &mut node.hold {
            result = result.and(guard.teardown());
        }
    }
    result
}

/// The first two cores that this process may use; moves this process to the first.
fn cores() -> Result<(usize, usize)> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
    let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false));
    let (Some(rig), Some(measured)) = (cores.next(), cores.next()) else {
        bail!("two cores are needed: one for what is measured, one for the rest");
    };
    let mut own = CpuSet::new();
    own.set(rig).context("core number")?;
    sched_setaffinity(Pid::from_raw(0), &own).context("sched_setaffinity")?;
    Ok((rig, measured))
}

/// For arguments that live as long as the program does.
fn name(core: usize) -> &'static str {
    Box::leak(core.to_string().into_boxed_str())
}

#[expect(clippy::print_stdout, reason = "what the bench is for")]
fn print(text: &str) {
    println!("{text}");
}

fn write(folder: &Path, record: &Record) -> Result<()> {
    fs::create_dir_all(folder)?;
    let mut json = serde_json::to_string(record)?;
    // One value a line would be tens of thousands of lines; none at all would be one.
    json = json
        .replace("{\"cell\"", "\n{\"cell\"")
        .replace("{\"method\"", "\n{\"method\"");
    for (name, text) in [
        ("nodeguard-cost.md", report::document(record)),
        ("nodeguard-cost.json", json + "\n"),
    ] {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}
