//! YAML as a tree in which every key and value knows where it stands.
//!
//! A strict subset of YAML 1.2: one document, no anchors, aliases or tags, no key twice, at most
//! [`MAX_DEPTH`] deep and [`MAX_BYTES`] long. What is left has one meaning for every reader, and
//! its cost is bounded by its length.

pub(crate) use build::join;

mod build;
mod scalar;

use std::path::Path;

use serde_json::Number;

pub use build::{Document, parse};

use crate::error::{ConfigErrors, InvalidValue};

/// Longest accepted file, in bytes.
pub const MAX_BYTES: usize = 1024 * 1024;

/// Deepest accepted nesting of sequences and mappings.
pub const MAX_DEPTH: usize = 64;

/// A place in a text; both numbers count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Position {
    /// The first character of a file.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where the value begins; for a key without a value, where the key begins.
    pub position: Position,
    /// What stands there.
    pub value: Value,
}

/// A YAML value, its scalars resolved by the core schema (YAML 1.2.2, section 10.3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `null`, `~` or nothing at all.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// Any other number, as it was written: no file of ours has a field for one, but messages
    /// quote it.
    Float(String),
    /// Text, quoted or not.
    Text(String),
    /// A sequence.
    Sequence(Vec<Node>),
    /// A mapping, in the order of the file.
    Mapping(Vec<Entry>),
    /// Something that was refused while the tree was built; its error is already recorded.
    Refused,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key, as text.
    pub key: String,
    /// Where the key begins.
    pub key_position: Position,
    /// What it leads to.
    pub value: Node,
}

impl Node {
    /// What stands here, in words for a message: "the number 7", "a list".
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "no value".to_owned(),
            Value::Bool(value) => format!("the boolean `{value}`"),
            Value::Integer(value) => format!("the number `{value}`"),
            Value::Float(value) => format!("the number {}", crate::error::quoted(value)),
            Value::Text(value) => format!("the text {}", crate::error::quoted(value)),
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
            Value::Refused => "a refused value".to_owned(),
        }
    }

    /// The same value as JSON, for a check against a JSON Schema.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null | Value::Refused => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Integer(value) => match i64::try_from(*value) {
                Ok(value) => Json::from(value),
                // JSON has one kind of number; the nearest one keeps the value out of any range.
                Err(_) => Number::from_f64(*value as f64).map_or(Json::Null, Json::Number),
            },
            Value::Float(raw) => scalar::float(raw)
                .and_then(Number::from_f64)
                .map_or(Json::Null, Json::Number),
            Value::Text(value) => Json::String(value.clone()),
            Value::Sequence(items) => items.iter().map(Node::to_json).collect(),
            Value::Mapping(entries) => entries
                .iter()
                .map(|entry| (entry.key.clone(), entry.value.to_json()))
                .collect(),
        }
    }

    /// A value written in code (a default), placed at a position of the file that lacks it.
    #[must_use]
    pub fn from_json(value: &serde_json::Value, position: Position) -> Self {
        use serde_json::Value as Json;
        let value = match value {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(value) => Value::Integer(i128::from(value)),
                None => Value::Float(number.to_string()),
            },
            Json::String(value) => Value::Text(value.clone()),
            Json::Array(items) => Value::Sequence(
                items
                    .iter()
                    .map(|item| Self::from_json(item, position))
                    .collect(),
            ),
            Json::Object(fields) => Value::Mapping(
                fields
                    .iter()
                    .map(|(key, value)| Entry {
                        key: key.clone(),
                        key_position: position,
                        value: Self::from_json(value, position),
                    })
                    .collect(),
            ),
        };
        Self { position, value }
    }
}

/// The text of a file's bytes.
///
/// # Errors
/// If the file is longer than [`MAX_BYTES`] or is not UTF-8.
pub fn text_of<'a>(bytes: &'a [u8], file: &Path) -> Result<&'a str, ConfigErrors> {
    if bytes.len() > MAX_BYTES {
        return Err(ConfigErrors::whole_file(file, too_long(bytes.len())));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()]
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count();
        ConfigErrors::whole_file(
            file,
            InvalidValue::new(format!("is not UTF-8 (line {line})"))
                .help("save the file with UTF-8 encoding"),
        )
    })
}

fn too_long(bytes: usize) -> InvalidValue {
    InvalidValue::new(format!(
        "is {bytes} bytes long; at most {MAX_BYTES} (1 MiB) are read"
    ))
}
