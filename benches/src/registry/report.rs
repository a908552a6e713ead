//! registry.md: what was measured, how, and what it means for the goals.

mod propagation;
mod running;

use std::fmt::{self, Write};

use super::record::{Kind, Record};
use crate::publication;
use crate::registry_lookup;
use crate::statistics::shown;

/// A change may take so many times what it takes to a bare watch, and a batch window.
const TIMES_BARE: f64 = 1.5;

/// The whole document.
pub(crate) fn document(record: &Record) -> String {
    let mut text = String::new();
    write_head(&mut text, record).expect("writing to a String does not fail");
    text + &tables(record)
}

/// Everything but the head, for the terminal.
pub(crate) fn tables(record: &Record) -> String {
    let mut text = String::new();
    let written = write_verdict(&mut text, record)
        .and_then(|()| propagation::write_delays(&mut text, record))
        .and_then(|()| propagation::write_storms(&mut text, record))
        .and_then(|()| running::write_served(&mut text, record))
        .and_then(|()| running::write_memory(&mut text, record))
        .and_then(|()| write_lookups(&mut text, record))
        .and_then(|()| running::write_requests(&mut text, record));
    written.expect("writing to a String does not fail");
    text
}

fn write_head(text: &mut String, record: &Record) -> fmt::Result {
    let machine = &record.machine;
    let command = match record.settings.quick {
        true => "./x bench registry --quick".to_owned(),
        false => format!("./x bench registry --rounds {}", record.settings.rounds),
    };
    writeln!(text, "# The route registry\n")?;
    writeln!(
        text,
        "Written by `{command}`; raw numbers in `registry.json`.\n"
    )?;
    if let Some(remark) = publication::remark(record.settings.rounds, machine) {
        writeln!(text, "{remark}")?;
    }
    writeln!(text, "| | |\n|---|---|")?;
    for (name, value) in [
        ("Date", &machine.date),
        ("Commit", &machine.commit),
        (
            "Processor",
            &format!("{}, {} cores", machine.processor, machine.cores),
        ),
        ("Memory", &machine.memory),
        ("Kernel", &machine.kernel),
        ("Load average at the start", &machine.load_average),
        (
            "etcd",
            &format!("{}; three members on loopback, mutual TLS", record.etcd),
        ),
        ("Client of requests", &machine.h2load),
    ] {
        writeln!(text, "| {name} | {value} |")?;
    }
    writeln!(text)
}

fn write_verdict(text: &mut String, record: &Record) -> fmt::Result {
    writeln!(text, "## Verdict\n")?;
    writeln!(text, "| What | Goal | Measured | |\n|---|---|---|---|")?;
    propagation::write_verdict(text, record)?;
    if let Some((least, most, ratio, met)) =
        record.lookup.as_ref().and_then(registry_lookup::verdict)
    {
        writeln!(
            text,
            "| Lookup of the same 10 hosts among {} routes, as a multiple of {} | at most 1.20 | {} | {} |",
            number(most),
            number(least),
            shown(&ratio, 3),
            said(met)
        )?;
    }
    running::write_verdict(text, record)?;
    writeln!(text)
}

fn write_lookups(text: &mut String, record: &Record) -> fmt::Result {
    let Some(lookup) = &record.lookup else {
        return Ok(());
    };
    writeln!(text, "## Lookups and changes of the table\n")?;
    write!(text, "{}", registry_lookup::tables(lookup))?;
    writeln!(text, "{}", registry_lookup::method(lookup))
}

fn said(met: bool) -> &'static str {
    match met {
        true => "met",
        false => "**missed**",
    }
}

fn store(kind: Kind) -> &'static str {
    match kind {
        Kind::Etcd => "etcd",
        Kind::Embedded => "embedded",
    }
}

/// With its thousands apart.
fn number(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
