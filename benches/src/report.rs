//! router.md: what was measured, how, and what it means for the targets.

use std::fmt::{self, Write};

use crate::publication;
use crate::record::Record;
use crate::row::Unit;
use crate::statistics::shown;
use crate::summary::RowSummary;

/// The whole document.
pub(crate) fn document(record: &Record) -> String {
    let mut text = String::new();
    write_document(&mut text, record).expect("writing to a String does not fail");
    text
}

/// The tables alone, for the terminal.
pub(crate) fn tables(record: &Record) -> String {
    let mut text = String::new();
    for summary in RowSummary::of(record) {
        write_row(&mut text, &summary).expect("writing to a String does not fail");
    }
    text
}

fn write_document(text: &mut String, record: &Record) -> fmt::Result {
    let machine = &record.machine;
    writeln!(text, "# The router beside its peers\n")?;
    writeln!(
        text,
        "Written by `./x bench router`; raw numbers in `router.json`.\n"
    )?;
    if let Some(remark) = publication::remark(record.settings.rounds, machine) {
        writeln!(text, "{remark}")?;
    }
    writeln!(text, "| | |\n|---|---|")?;
    writeln!(text, "| Date | {} |", machine.date)?;
    writeln!(text, "| Commit | {} |", machine.commit)?;
    writeln!(
        text,
        "| Processor | {}, {} cores |",
        machine.processor, machine.cores
    )?;
    writeln!(text, "| Memory | {} |", machine.memory)?;
    writeln!(text, "| Kernel | {} |", machine.kernel)?;
    writeln!(
        text,
        "| Load average at the start | {} |",
        machine.load_average
    )?;
    writeln!(
        text,
        "| Client | {}; rustls for the handshake and idle rows |",
        machine.h2load
    )?;
    for participant in &record.contenders {
        writeln!(
            text,
            "| {} | {} |",
            participant.contender.name(),
            participant.version
        )?;
    }
    write_verdict(text, record)?;
    writeln!(text, "\n## Rows\n")?;
    for summary in RowSummary::of(record) {
        write_row(text, &summary)?;
    }
    write_discarded(text, record)?;
    write_method(text, record)?;
    write_configurations(text, record)
}

fn write_verdict(text: &mut String, record: &Record) -> fmt::Result {
    let summaries = RowSummary::of(record);
    let ratios = summaries
        .iter()
        .filter_map(|summary| Some((summary, summary.best_peer?)));
    let mut ratios = ratios.peekable();
    if ratios.peek().is_none() {
        return Ok(());
    }
    writeln!(text, "\n## Verdict\n")?;
    writeln!(
        text,
        "The router's cost as a multiple of the best peer's; less is better.\n"
    )?;
    writeln!(
        text,
        "| Row | Best peer | Ratio: median (least to most) | Target | |"
    )?;
    writeln!(text, "|---|---|---|---|---|")?;
    for (summary, (peer, ratio)) in ratios {
        let target = summary
            .row
            .target()
            .map_or_else(|| "none".to_owned(), |t| format!("{t:.2}"));
        let verdict = match summary.verdict() {
            Some(true) => "met",
            Some(false) => "**missed**",
            None if summary.row.target().is_some() => "too few windows",
            None => "",
        };
        let (row, peer, ratio) = (summary.row.name(), peer.name(), shown(&ratio, 3));
        writeln!(text, "| {row} | {peer} | {ratio} | {target} | {verdict} |")?;
    }
    Ok(())
}

fn write_row(text: &mut String, summary: &RowSummary) -> fmt::Result {
    let (row, unit) = (summary.row, summary.row.unit());
    let cpu = unit == Unit::CpuPerRequest;
    writeln!(text, "### {}: {}\n", row.name(), row.title())?;
    let columns = if cpu { " requests/s | Core busy |" } else { "" };
    let label = unit.label();
    writeln!(
        text,
        "| | {label}: median (least to most) |{columns} router / this | Windows |"
    )?;
    writeln!(
        text,
        "|---|---|{}---|---|",
        if cpu { "---|---|" } else { "" }
    )?;
    for line in &summary.lines {
        let ratio = line
            .router_ratio
            .map_or_else(String::new, |ratio| shown(&ratio, 3));
        write!(
            text,
            "| {} | {} |",
            line.contender.name(),
            shown(&line.cost, 2)
        )?;
        if let Some(load) = line.load {
            let busy = load.busy.median * 100.0;
            write!(text, " {:.0} | {busy:.0} % |", load.rate.median)?;
        }
        writeln!(text, " {ratio} | {} |", line.windows)?;
    }
    writeln!(text)
}

fn write_discarded(text: &mut String, record: &Record) -> fmt::Result {
    if record.discarded.is_empty() {
        return writeln!(text, "No window was discarded.\n");
    }
    writeln!(
        text,
        "Windows discarded because something in them failed:\n"
    )?;
    for discarded in &record.discarded {
        let (row, contender) = (discarded.row.name(), discarded.contender.name());
        let reason = discarded.reason.lines().next().unwrap_or_default();
        writeln!(
            text,
            "- {row}, round {}, {contender}: {reason}",
            discarded.round
        )?;
    }
    writeln!(text)
}

fn write_method(text: &mut String, record: &Record) -> fmt::Result {
    let settings = &record.settings;
    let (rig, core) = (settings.rig_core, settings.contender_core);
    writeln!(text, "## Method\n")?;
    writeln!(
        text,
        "\
- All contenders run at once, one thread each, pinned to core {core}; only the one whose turn it is
  gets load. Client and backend share core {rig}. In every round each contender has its turn, and
  who begins changes from round to round. {} rounds.
- The cost is the CPU time, user and kernel, of the contender's processes (their CPU clocks,
  nanoseconds) divided by requests. A window counts only if every request succeeded with the
  expected status. Each contender gets the same number of requests, after a warm-up that is not
  counted. Requests per second are for information: the client's core is often the fuller one.
- Ratios are taken within a round and only then summed up, so that a disturbance of a whole round
  cancels out. The target is compared with the median.
- Backend: NGINX answering 1 KiB or 64 KiB from memory over kept connections.
- The client offers TLS_AES_128_GCM_SHA256 and X25519 only (TLS 1.2:
  ECDHE-ECDSA-AES128-GCM-SHA256) and every window checks that this is what it got. One ECDSA P-256
  certificate for all. The client asks for tickets and never resumes.
- The row `idle` starts each contender afresh, opens {} TLS 1.3 connections that carry one request
  each, and divides the growth of the proportional set size by their number. Socket buffers in the
  kernel are not in it.
- NGINX and HAProxy are Debian's: old versions, linked with OpenSSL 3.0, which is a slow one. A lead
  on TLS over these two is partly a lead over OpenSSL 3.0.\n",
        settings.rounds, settings.idle_connections
    )?;
    writeln!(text, "What reached the backend:\n")?;
    writeln!(text, "| | Forwarding fields |\n|---|---|")?;
    for participant in &record.contenders {
        let fields = participant
            .forwarded
            .iter()
            .map(|field| format!("`{field}`"));
        let fields = fields.collect::<Vec<_>>().join("<br>");
        writeln!(text, "| {} | {fields} |", participant.contender.name())?;
    }
    writeln!(text, "\nWhat each contender chose in a handshake:\n")?;
    writeln!(
        text,
        "| | Version | Cipher | Group | Session tickets |\n|---|---|---|---|---|"
    )?;
    for participant in &record.contenders {
        let name = participant.contender.name();
        for tls in &participant.tls {
            let tickets = if tls.version == "TLSv1_3" {
                tls.tickets.to_string()
            } else {
                String::new()
            };
            writeln!(
                text,
                "| {name} | {} | {} | {} | {tickets} |",
                tls.version, tls.cipher, tls.group
            )?;
        }
    }
    Ok(())
}

fn write_configurations(text: &mut String, record: &Record) -> fmt::Result {
    writeln!(text, "\n## Settings as run\n")?;
    for participant in &record.contenders {
        let (name, configuration) = (participant.contender.name(), &participant.configuration);
        writeln!(
            text,
            "### {name}\n\n```\n{}\n```\n",
            configuration.trim_end()
        )?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
