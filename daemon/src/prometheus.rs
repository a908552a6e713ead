//! The Prometheus text exposition format, version 0.0.4.

use std::borrow::Cow;
use std::fmt::Write;

/// What kind of metric a family is.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Only grows, until the process restarts.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, a sum and a count.
    Histogram,
}

/// A page of metrics being written.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    family: &'static str,
}

impl Page {
    /// Begins a family; the samples that follow belong to it.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        self.family = name;
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    /// A family of one counter without labels.
    pub fn counter(&mut self, name: &'static str, help: &str, value: u64) {
        self.family(name, Kind::Counter, help);
        self.sample(&[], value);
    }

    /// A family of one gauge without labels.
    pub fn gauge(&mut self, name: &'static str, help: &str, value: u64) {
        self.family(name, Kind::Gauge, help);
        self.sample(&[], value);
    }

    /// One sample of the family.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        self.text.push_str(self.family);
        for (index, (name, label)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            self.write(format_args!("{before}{name}=\"{}\"", escaped(label)));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        self.line(format_args!("{after} {value}"));
    }

    /// One bucket of a histogram: `count` durations of at most `microseconds`.
    pub fn bucket(&mut self, microseconds: u64, count: u64) {
        let (family, le) = (self.family, seconds(microseconds));
        self.line(format_args!("{family}_bucket{{le=\"{le}\"}} {count}"));
    }

    /// The last bucket, the sum and the count of a histogram.
    pub fn histogram_end(&mut self, count: u64, sum_microseconds: u64) {
        let (family, sum) = (self.family, seconds(sum_microseconds));
        self.line(format_args!("{family}_bucket{{le=\"+Inf\"}} {count}"));
        self.line(format_args!("{family}_sum {sum}"));
        self.line(format_args!("{family}_count {count}"));
    }

    /// The page.
    pub fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.write(line);
        self.text.push('\n');
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.text
            .write_fmt(text)
            .expect("writing to a String cannot fail");
    }
}

/// A label's value as the format wants it. Few need it: the names of devices, for one, may hold
/// anything but a slash.
fn escaped(value: &str) -> Cow<'_, str> {
    if !value.contains(['\\', '"', '\n']) {
        return value.into();
    }
    let value = value.replace('\\', r"\\").replace('"', r#"\""#);
    value.replace('\n', r"\n").into()
}

/// Exact decimal seconds; a float would round long sums.
fn seconds(microseconds: u64) -> String {
    format!(
        "{}.{:06}",
        microseconds / 1_000_000,
        microseconds % 1_000_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        page.family("m", Kind::Gauge, "help");
        page.sample(&[("device", "a\"b\\c\nd"), ("mode", "tcx")], 1);
        let expected = concat!(
            "# HELP m help\n# TYPE m gauge\n",
            r#"m{device="a\"b\\c\nd",mode="tcx"} 1"#,
            "\n"
        );
        assert_eq!(page.finish(), expected);
    }
}
