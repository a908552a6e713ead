//! What a person is told about a file that is not accepted: where, which field, why, what to do.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::document::Position;

/// Errors listed for one file before the rest is only counted. A file may be hostile; a list
/// nobody can read to its end helps nobody.
pub const MAX_ERRORS: usize = 500;

/// Characters of a source line that an error carries for [`ConfigErrors::render`].
const MAX_SOURCE_LINE: usize = 200;

/// Why a single value is refused, without knowledge of where it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", with_help(message, help.as_deref()))]
pub struct InvalidValue {
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl InvalidValue {
    /// A reason without advice.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
        }
    }

    /// The same reason with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A fault at a place in a file whose name is not known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where the offending key or value begins.
    pub position: Position,
    /// Field path such as `https.addresses[1]`; empty for the file as a whole.
    pub field: String,
    /// What is wrong and what to do.
    pub reason: InvalidValue,
}

/// One reason why a file is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", one_line(self))]
pub struct ConfigError {
    /// The file, as it was named to the parser.
    pub file: PathBuf,
    /// Where the offending key or value begins.
    pub position: Position,
    /// Field path such as `https.addresses[1]`; empty for the file as a whole.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it, where that can be said.
    pub help: Option<String>,
    /// The line of the file, cut to a readable length, for [`ConfigErrors::render`].
    pub source_line: Option<String>,
}

/// Every reason why a file (or a set of files) is refused, sorted by file and position. Never
/// empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Places faults in the file they were found in; `None` if there are none.
    #[must_use]
    pub fn from_faults(file: &Path, text: &str, mut faults: Vec<Fault>) -> Option<Self> {
        faults.sort_by(|a, b| (a.position, &a.field).cmp(&(b.position, &b.field)));
        faults.dedup();
        let total = faults.len();
        faults.truncate(MAX_ERRORS);
        let lines: Vec<&str> = source_lines(text);
        let mut errors: Vec<ConfigError> = faults
            .into_iter()
            .map(|fault| ConfigError {
                file: file.to_owned(),
                position: fault.position,
                field: fault.field,
                message: fault.reason.message,
                help: fault.reason.help,
                source_line: lines
                    .get(fault.position.line.saturating_sub(1))
                    .map(|line| line.chars().take(MAX_SOURCE_LINE).collect()),
            })
            .collect();
        if total > MAX_ERRORS {
            errors.push(ConfigError {
                file: file.to_owned(),
                position: errors
                    .last()
                    .map_or(Position::START, |error| error.position),
                field: String::new(),
                message: format!("{} more errors are not listed", total - MAX_ERRORS),
                help: None,
                source_line: None,
            });
        }
        Self::from_errors(errors)
    }

    /// Errors that may come from several files; `None` if there are none.
    #[must_use]
    pub fn from_errors(mut errors: Vec<ConfigError>) -> Option<Self> {
        if errors.is_empty() {
            return None;
        }
        errors.sort_by(|a, b| (&a.file, a.position).cmp(&(&b.file, b.position)));
        Some(Self(errors))
    }

    /// The error of a caller that could not read the file at all.
    #[must_use]
    pub fn unreadable(file: &Path, cause: &std::io::Error) -> Self {
        Self::whole_file(file, InvalidValue::new(format!("cannot be read: {cause}")))
    }

    /// One error about a file as a whole.
    #[must_use]
    pub fn whole_file(file: &Path, reason: InvalidValue) -> Self {
        Self(vec![ConfigError {
            file: file.to_owned(),
            position: Position::START,
            field: String::new(),
            message: reason.message,
            help: reason.help,
            source_line: None,
        }])
    }

    /// The errors, sorted by file and position.
    #[must_use]
    pub fn errors(&self) -> &[ConfigError] {
        &self.0
    }

    /// Both lists in one, for callers that read several files.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self.0
            .sort_by(|a, b| (&a.file, a.position).cmp(&(&b.file, b.position)));
        self
    }

    /// A JSON array of objects with `file`, `line`, `column`, `field`, `message` and `help`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        self.0
            .iter()
            .map(|error| {
                json!({
                    "file": error.file.display().to_string(),
                    "line": error.position.line,
                    "column": error.position.column,
                    "field": error.field,
                    "message": error.message,
                    "help": error.help,
                })
            })
            .collect()
    }

    /// Each error with its source line and a caret beneath the column, for a terminal.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        for error in &self.0 {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{error}");
            if let Some(line) = &error.source_line {
                let number = error.position.line.to_string();
                let before: String = line
                    .chars()
                    .take(error.position.column.saturating_sub(1))
                    .map(|c| if c == '\t' { '\t' } else { ' ' })
                    .collect();
                let _ = writeln!(out, "  {number} | {line}");
                if before.chars().count() + 1 == error.position.column {
                    let _ = writeln!(out, "  {:width$} | {before}^", "", width = number.len());
                }
            }
        }
        out
    }
}

impl ConfigErrors {
    /// [`ConfigErrors::render`], and how many there are.
    #[must_use]
    pub fn report(&self) -> String {
        let count = match self.0.len() {
            1 => "1 error".to_owned(),
            count => format!("{count} errors"),
        };
        format!("{}{count}\n", self.render())
    }
}

/// A value in backticks, escaped and cut, so that a message stays one readable line whatever the
/// file holds.
#[must_use]
pub fn quoted(text: &str) -> String {
    const KEPT: usize = 60;
    let mut out = String::from("`");
    for c in text.chars().take(KEPT) {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    if text.chars().nth(KEPT).is_some() {
        out.push('…');
    }
    out.push('`');
    out
}

/// Lines as YAML counts them: LF, CR LF and a lone CR end one (YAML 1.2.2, section 5.4).
pub(crate) fn source_lines(text: &str) -> Vec<&str> {
    text.split('\n')
        .flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
        .collect()
}

fn with_help(message: &str, help: Option<&str>) -> String {
    match help {
        Some(help) => format!("{message}; {help}"),
        None => message.to_owned(),
    }
}

fn one_line(error: &ConfigError) -> String {
    let Position { line, column } = error.position;
    let mut out = format!("{}:{line}:{column}: ", error.file.display());
    if !error.field.is_empty() {
        out.push_str(&error.field);
        out.push_str(": ");
    }
    out.push_str(&with_help(&error.message, error.help.as_deref()));
    out
}

fn lines(errors: &[ConfigError]) -> String {
    struct Lines<'a>(&'a [ConfigError]);
    impl fmt::Display for Lines<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            for (index, error) in self.0.iter().enumerate() {
                if index > 0 {
                    f.write_char('\n')?;
                }
                error.fmt(f)?;
            }
            Ok(())
        }
    }
    Lines(errors).to_string()
}
