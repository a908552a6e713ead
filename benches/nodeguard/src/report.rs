//! nodeguard-cost.md: what was measured, how, and who won.

use std::fmt::{self, Write};

use crate::cell::{Cell, Group, Scenario};
use crate::change::{Change, Method, Operation, SIZES};
use crate::contender::Contender;
use crate::record::Record;
use crate::statistics::{Spread, paired_ratios, shown};
use crate::summary::{CellSummary, Line, ROUNDS_FOR_A_VERDICT};

/// The whole document.
pub(crate) fn document(record: &Record) -> String {
    let mut text = String::new();
    write_document(&mut text, record).expect("writing to a String does not fail");
    text
}

/// The tables alone, for the terminal.
pub(crate) fn tables(record: &Record) -> String {
    let mut text = String::new();
    write_tables(&mut text, record).expect("writing to a String does not fail");
    text
}

fn write_document(text: &mut String, record: &Record) -> fmt::Result {
    let machine = &record.machine;
    writeln!(text, "# The node guard beside its peers\n")?;
    writeln!(
        text,
        "Written by `{}`; raw numbers in `nodeguard-cost.json`.\n",
        machine.command
    )?;
    writeln!(text, "| | |\n|---|---|")?;
    writeln!(text, "| Date | {} |", machine.date)?;
    writeln!(text, "| Commit | {} |", machine.commit)?;
    let (processor, cores) = (&machine.processor, machine.cores);
    writeln!(text, "| Processor | {processor}, {cores} cores |")?;
    writeln!(text, "| Spectre v2 | {} |", machine.spectre)?;
    writeln!(text, "| Memory | {} |", machine.memory)?;
    writeln!(text, "| Kernel | {} |", machine.kernel)?;
    let load = &machine.load_average;
    writeln!(text, "| Load average at the start | {load} |")?;
    for (program, version) in &machine.versions {
        writeln!(text, "| {program} | {version} |")?;
    }
    writeln!(text)?;
    write_tables(text, record)?;
    write_method(text, record)?;
    write_rules(text, record)
}

fn write_tables(text: &mut String, record: &Record) -> fmt::Result {
    let summaries = CellSummary::of(record);
    write_verdict(text, &summaries)?;
    writeln!(text, "## Cost per packet\n")?;
    writeln!(
        text,
        "Nanoseconds of CPU time, without what the bench itself costs; in brackets the least and the \
         most of all rounds.\n\"Added\" and \"times\" compare with no guard, whose packets all end in \
         a socket; a drop spares that way.\nThe last three columns: nodeguard's cost as a multiple \
         of the row's.\n"
    )?;
    for group in Group::ALL {
        let of: Vec<_> = summaries
            .iter()
            .filter(|it| it.cell.group == group)
            .collect();
        if !of.is_empty() {
            writeln!(text, "### {}: {}\n", group.name(), group.title())?;
        }
        for summary in of {
            write_cell(text, summary)?;
        }
    }
    write_discarded(text, record)?;
    write_changes(text, &record.changes)?;
    write_idle(text, record)
}

fn write_verdict(text: &mut String, summaries: &[CellSummary]) -> fmt::Result {
    let tcx = Contender::NodeguardTcx;
    let rows = summaries.iter().filter_map(|summary| {
        let (best, own) = (summary.best_peer()?, summary.line(tcx)?);
        Some((summary, best, own))
    });
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    writeln!(text, "## Verdict\n")?;
    writeln!(
        text,
        "nodeguard as shipped (tcx and nftables) beside the cheapest peer of each row, and what \
         each adds to a packet's\ncost without any guard; less is better.\n"
    )?;
    writeln!(
        text,
        "| Packet | Node | Cheapest peer | nodeguard / peer | nodeguard adds, ns | Peer adds, ns | |\n\
         |---|---|---|---|---|---|---|"
    )?;
    for (summary, best, own) in rows {
        let Some(ratio) = best.ratios[1] else {
            continue;
        };
        let is_enough = best.windows.min(own.windows) >= ROUNDS_FOR_A_VERDICT;
        let verdict = match (is_enough, ratio.least > 1.0, ratio.most < 1.0) {
            (false, ..) => "too few rounds",
            (_, true, _) => "**lost**",
            (.., true) => "won",
            _ => "no difference in every round",
        };
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {verdict} |",
            packet(&summary.cell),
            summary.cell.group.name(),
            best.contender.name(),
            shown(&ratio, 2),
            maybe(own.added.as_ref(), 0),
            maybe(best.added.as_ref(), 0),
        )?;
    }
    writeln!(text)
}

fn packet(cell: &Cell) -> String {
    format!("{}, {}", cell.scenario.name(), cell.family.name())
}

fn write_cell(text: &mut String, summary: &CellSummary) -> fmt::Result {
    writeln!(
        text,
        "#### {}: {}\n",
        packet(&summary.cell),
        summary.cell.scenario.title()
    )?;
    writeln!(
        text,
        "| | ns/packet | added, ns | times no guard | nftables alone / this | tcx / this | XDP / this | Rounds |\n\
         |---|---|---|---|---|---|---|---|"
    )?;
    for line in &summary.lines {
        write_line(text, line, summary.cell.scenario)?;
    }
    if let Some(bench) = summary.bench {
        writeln!(text, "\nThe bench itself: {} ns.", shown(&bench, 0))?;
    }
    writeln!(text)
}

fn write_line(text: &mut String, line: &Line, scenario: Scenario) -> fmt::Result {
    let is_nobody = line.contender == Contender::Nobody;
    let name = match (is_nobody, scenario) {
        (true, Scenario::Drop) => "no guard (it passes)",
        _ => line.contender.name(),
    };
    let nobody = |value: Option<&Spread>, digits| {
        if is_nobody {
            String::new()
        } else {
            maybe(value, digits)
        }
    };
    write!(
        text,
        "| {name} | {} | {} | {} |",
        shown(&line.cost, 0),
        nobody(line.added.as_ref(), 0),
        nobody(line.times_nobody.as_ref(), 2),
    )?;
    for (guard, ratio) in Contender::GUARDS.into_iter().zip(&line.ratios) {
        let ratio = if guard == line.contender {
            String::new()
        } else {
            maybe(ratio.as_ref(), 2)
        };
        write!(text, " {ratio} |")?;
    }
    writeln!(text, " {} |", line.windows)
}

fn write_discarded(text: &mut String, record: &Record) -> fmt::Result {
    let disturbed: u32 = record.windows.iter().map(|it| it.disturbed).sum();
    let bursts: usize = record.windows.iter().map(|it| it.bursts.len()).sum();
    writeln!(
        text,
        "{bursts} bursts counted, {disturbed} beside them were disturbed and did not; {} windows were \
         discarded for that, and tried again.\n",
        record.discarded.len()
    )
}

fn write_changes(text: &mut String, changes: &[Change]) -> fmt::Result {
    if changes.is_empty() {
        return Ok(());
    }
    writeln!(text, "## Time of a change\n")?;
    writeln!(
        text,
        "Milliseconds from the order to the kernel's (or the daemon's) word that it is done. Every \
         peer has an IPv4 and an IPv6 address.\nThe last two columns: nodeguard's code (nftables and \
         BPF), and the daemon, as multiples of the row's.\n"
    )?;
    for operation in Operation::ALL {
        for size in SIZES {
            let of = |method| -> Vec<(u32, f64)> {
                let of =
                    |it: &&Change| (it.method, it.operation, it.size) == (method, operation, size);
                let all = changes.iter().filter(of);
                all.map(|it| (it.round, it.wall_ns as f64 / 1e6)).collect()
            };
            writeln!(text, "### {}, {size} peers\n", operation.name())?;
            writeln!(
                text,
                "| | ms | code / this | daemon / this | Rounds |\n|---|---|---|---|---|"
            )?;
            for method in Method::ALL {
                let own = of(method);
                let Some(spread) = Spread::of(own.iter().map(|(_, ms)| *ms)) else {
                    continue;
                };
                write!(text, "| {} | {} |", method.name(), shown(&spread, 3))?;
                for reference in [Method::BothPlanes, Method::Daemon] {
                    let ratio = Spread::of(paired_ratios(&of(reference), &own));
                    let ratio = ratio.filter(|_| reference != method);
                    write!(text, " {} |", maybe(ratio.as_ref(), 2))?;
                }
                writeln!(text, " {} |", own.len())?;
            }
            writeln!(text)?;
        }
    }
    Ok(())
}

fn write_idle(text: &mut String, record: &Record) -> fmt::Result {
    if record.idle.is_empty() {
        return Ok(());
    }
    writeln!(text, "## The daemon, left alone\n")?;
    writeln!(
        text,
        "For information: there is no peer of the kind.\n\n\
         | Node | | Memory (PSS), MiB | CPU time | over |\n|---|---|---|---|---|"
    )?;
    for idle in &record.idle {
        writeln!(
            text,
            "| {} | {} | {:.1} | {:.1} ms | {:.0} s |",
            idle.group.name(),
            idle.contender.name(),
            idle.pss_bytes as f64 / f64::from(1 << 20),
            idle.cpu_ns as f64 / 1e6,
            idle.seconds
        )?;
    }
    writeln!(text)
}

fn write_method(text: &mut String, record: &Record) -> fmt::Result {
    let settings = &record.settings;
    writeln!(
        text,
        "## Method

- Every contender has a node of its own for each kind of node: a network namespace at the end of a veth
  wire. All stand side by side during the whole run; only the one whose turn it is gets packets. In every
  round each has its turn in every row, and who begins changes from round to round. {} rounds.
- Frames are made by an XDP program that runs on live frames (BPF_PROG_TEST_RUN with
  BPF_F_TEST_XDP_LIVE_FRAMES) and redirects them into the wire, {} at a time, as a driver takes them from
  its card. The far end's soft interrupt takes them up in the same thread of core {}, before the next ones
  are made. So that thread's CPU time is what the frames cost from the making to the end, with nothing in
  between that could be idle, run elsewhere or be lost; no sampling, no ticks. Frames reach a native XDP
  program as a card's would, and an skb is made only of those that pass it.
- What the bench itself costs is measured like a contender: an XDP program on the node that drops
  everything at once. It is subtracted within the round.
- A packet that passes ends in a UDP socket whose filter takes nothing: it goes the whole way, and nothing
  is kept or answered. To connection tracking its flow is established.
- Packets are UDP, 60 bytes with IPv4 and 66 with IPv6, from 8,192 strangers to an isolated port, from all
  peers in turn to an isolated port, from 1,024 strangers to another port; the sources at random.
- The thread has real-time priority during a window. A window is {} bursts of {} frames after one to warm up,
  and counts as their median. A burst is not counted, and another one takes its place, if the thread was
  pushed off its core all the same, or if the hypervisor stole a tick. A window that cannot be had so is
  discarded and tried again, three times at most.
- The CPU time of the core's own thread for soft interrupts is added: it does what frames set off for later.
  What is put off and then done on the idle core's account is not in the numbers. That concerns IPv6 look-ups
  of the reverse path, each of which leaves a route to be freed.
- In every window the node's counters must tell that all frames arrived, and that all or none of them passed,
  as the contender's policy has it. Otherwise the run fails.
- Ratios and differences are taken within a round and only then summed up. \"won\" and \"lost\" is what holds in
  every single round.
- Peers enforce the same policy for these packets by the shortest rules that do. They have no rule for what
  nodeguard guards besides: forwarded packets to other nodes' ports, what kube-proxy redirects, pods,
  127.0.0.0/8, spoofed peers (nodeguard looks up the reverse path of every peer's packet here, its default).
  The rows with `raw` and ipset are what Calico's untracked and pre-DNAT policies of host endpoints and
  kube-router's host rules come down to, without their further chains; the row with connection tracking
  stands for firewalld's kind.
- The worker's rows have connection tracking switched on for everybody, since kube-proxy switches it on for
  everybody; the master's have it where a contender itself wants it.
- openshift's ingress-node-firewall is not in it: its object would have to be taken from its repository, and
  a number here has to come from what is here.
- Changes: the time on the wall, all on one core; `nft` and `ipset` from the start of the program to its end,
  their files written before; nodeguard's code from the policy in memory; the daemon from the moment its peer
  file is in place to its answer, which includes reading the file, the safeguards and storing the policy for
  the next boot. {} rounds.\n",
        settings.rounds,
        settings.batch,
        settings.measured_core,
        settings.bursts,
        settings.frames,
        settings.change_rounds,
    )
}

fn write_rules(text: &mut String, record: &Record) -> fmt::Result {
    writeln!(text, "## Rules as run\n")?;
    for rules in record
        .rules
        .iter()
        .filter(|it| it.group != Group::Worker10000)
    {
        let (contender, group) = (rules.contender.name(), rules.group.name());
        let rules = rules.text.trim_end();
        writeln!(text, "### {contender}, {group}\n\n```\n{rules}\n```\n")?;
    }
    Ok(())
}

fn maybe(spread: Option<&Spread>, digits: usize) -> String {
    spread.map_or_else(String::new, |it| shown(it, digits))
}
