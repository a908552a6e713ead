//! The kinds of value that fields are declared with.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::fields::with_nearest;
use super::{Fields, Kind, Mapping, Reader};
use crate::document::{Node, Position, Value};
use crate::error::{InvalidValue, quoted};

/// A value with its place, for checks that compare it with others later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Where it begins.
    pub position: Position,
    /// Its field path.
    pub field: String,
}

/// `true` or `false`.
#[derive(Clone, Copy, Debug)]
pub struct Boolean;

impl Kind for Boolean {
    type Value = bool;

    fn read(&self, node: &Node, reader: &mut Reader) -> Option<bool> {
        match &node.value {
            Value::Bool(value) => Some(*value),
            Value::Text(text) => {
                let expected = format!(
                    "expected `true` or `false`, found the text {}",
                    quoted(text)
                );
                let reason = InvalidValue::new(expected);
                let reason = match text.to_ascii_lowercase().as_str() {
                    "yes" | "on" | "true" => reason.help("write `true`, without quotes"),
                    "no" | "off" | "false" => reason.help("write `false`, without quotes"),
                    _ => reason,
                };
                reader.refuse(node.position, reason);
                None
            }
            _ => {
                reader.refuse_type(node, "`true` or `false`");
                None
            }
        }
    }

    fn schema(&self) -> Json {
        json!({ "type": "boolean" })
    }
}

/// A whole number within a range.
#[derive(Clone, Debug)]
pub struct Integer(RangeInclusive<u64>);

/// A whole number within a range.
#[must_use]
pub fn integer(range: RangeInclusive<u64>) -> Integer {
    Integer(range)
}

impl Kind for Integer {
    type Value = u64;

    fn read(&self, node: &Node, reader: &mut Reader) -> Option<u64> {
        let (low, high) = (self.0.start(), self.0.end());
        let Value::Integer(value) = node.value else {
            reader.refuse_type(node, &format!("a whole number from {low} to {high}"));
            return None;
        };
        let found = u64::try_from(value)
            .ok()
            .filter(|value| self.0.contains(value));
        if found.is_none() {
            let message = format!("must be from {low} to {high}, found {value}");
            reader.refuse(node.position, InvalidValue::new(message));
        }
        found
    }

    fn schema(&self) -> Json {
        json!({ "type": "integer", "minimum": self.0.start(), "maximum": self.0.end() })
    }
}

/// One of a few words.
#[derive(Clone, Copy, Debug)]
pub struct Choice<T: 'static>(&'static [(&'static str, T)]);

/// One of a few words, each with what it means.
#[must_use]
pub fn choice<T>(words: &'static [(&'static str, T)]) -> Choice<T> {
    Choice(words)
}

impl<T: Clone> Kind for Choice<T> {
    type Value = T;

    fn read(&self, node: &Node, reader: &mut Reader) -> Option<T> {
        let words: Vec<&str> = self.0.iter().map(|(word, _)| *word).collect();
        let listed: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
        let text = text_of(node, reader, &format!("one of {}", listed.join(", ")))?;
        let found = self.0.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let message = format!("unknown value {}", quoted(text));
            reader.refuse(node.position, with_nearest(message, text, &words));
        }
        found.map(|(_, value)| value.clone())
    }

    fn schema(&self) -> Json {
        let words: Vec<&str> = self.0.iter().map(|(word, _)| *word).collect();
        json!({ "type": "string", "enum": words })
    }
}

/// One of a few numbers.
#[derive(Clone, Copy, Debug)]
pub struct NumberChoice<T: 'static>(&'static [(u16, T)]);

/// One of a few numbers, each with what it means.
#[must_use]
pub fn number_choice<T>(numbers: &'static [(u16, T)]) -> NumberChoice<T> {
    NumberChoice(numbers)
}

impl<T: Clone> Kind for NumberChoice<T> {
    type Value = T;

    fn read(&self, node: &Node, reader: &mut Reader) -> Option<T> {
        let found = match node.value {
            Value::Integer(value) => self
                .0
                .iter()
                .find(|(number, _)| i128::from(*number) == value),
            _ => None,
        };
        if found.is_none() {
            let listed: Vec<String> = self
                .0
                .iter()
                .map(|(number, _)| number.to_string())
                .collect();
            reader.refuse_type(node, &format!("one of the numbers {}", listed.join(", ")));
        }
        found.map(|(_, value)| value.clone())
    }

    fn schema(&self) -> Json {
        let numbers: Vec<u16> = self.0.iter().map(|(number, _)| *number).collect();
        json!({ "type": "integer", "enum": numbers })
    }
}

/// Text that a function turns into a value.
#[derive(Clone, Copy, Debug)]
pub struct Text<T> {
    expected: &'static str,
    pattern: Option<&'static str>,
    parse: fn(&str) -> Result<T, InvalidValue>,
}

/// Text that `parse` turns into a value. `pattern` is a regular expression that every accepted
/// text matches; it is all that an editor knows.
#[must_use]
pub fn text<T>(
    expected: &'static str,
    pattern: Option<&'static str>,
    parse: fn(&str) -> Result<T, InvalidValue>,
) -> Text<T> {
    Text {
        expected,
        pattern,
        parse,
    }
}

impl<T> Kind for Text<T> {
    type Value = T;

    fn read(&self, node: &Node, reader: &mut Reader) -> Option<T> {
        let text = text_of(node, reader, self.expected)?;
        match (self.parse)(text) {
            Ok(value) => Some(value),
            Err(reason) => {
                reader.refuse(node.position, reason);
                None
            }
        }
    }

    fn schema(&self) -> Json {
        match self.pattern {
            Some(pattern) => json!({ "type": "string", "pattern": pattern }),
            None => json!({ "type": "string" }),
        }
    }
}

/// Text, or one whole number that needs no unit or that YAML takes for a number.
#[derive(Clone, Copy, Debug)]
pub struct TextOrNumber<T> {
    /// How text is read.
    pub text: Text<T>,
    /// How a number is read.
    pub number: fn(u64) -> Result<T, InvalidValue>,
    /// The numbers that may be accepted.
    pub range: (u64, u64),
}

impl<T> Kind for TextOrNumber<T> {
    type Value = T;

    fn read(&self, node: &Node, reader: &mut Reader) -> Option<T> {
        let Value::Integer(value) = node.value else {
            return self.text.read(node, reader);
        };
        let parsed = u64::try_from(value)
            .map_err(|_| InvalidValue::new(format!("{value} is out of range")))
            .and_then(self.number);
        match parsed {
            Ok(value) => Some(value),
            Err(reason) => {
                reader.refuse(node.position, reason);
                None
            }
        }
    }

    fn schema(&self) -> Json {
        let (low, high) = self.range;
        json!({ "anyOf": [
            self.text.schema(),
            { "type": "integer", "minimum": low, "maximum": high },
        ] })
    }
}

/// A path; a relative one is resolved against the file's folder.
#[derive(Clone, Copy, Debug)]
pub struct FilePath;

impl Kind for FilePath {
    type Value = PathBuf;

    fn read(&self, node: &Node, reader: &mut Reader) -> Option<PathBuf> {
        let text = text_of(node, reader, "a path")?;
        if text.is_empty() {
            reader.refuse(
                node.position,
                InvalidValue::new("expected a path, found nothing"),
            );
            return None;
        }
        Some(reader.folder().join(text))
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// A value that remembers its place.
#[derive(Clone, Copy, Debug)]
pub struct PlacedKind<K>(K);

/// A value that remembers its place.
#[must_use]
pub fn placed<K: Kind>(kind: K) -> PlacedKind<K> {
    PlacedKind(kind)
}

impl<K: Kind> Kind for PlacedKind<K> {
    type Value = Placed<K::Value>;

    fn read(&self, node: &Node, reader: &mut Reader) -> Option<Self::Value> {
        let value = self.0.read(node, reader)?;
        Some(Placed {
            value,
            position: node.position,
            field: reader.field(),
        })
    }

    fn schema(&self) -> Json {
        self.0.schema()
    }
}

/// A list of values of one kind.
#[derive(Clone, Debug)]
pub struct List<K> {
    item: K,
    length: RangeInclusive<usize>,
}

/// A list of values of one kind, of any length.
#[must_use]
pub fn list<K: Kind>(item: K) -> List<K> {
    List {
        item,
        length: 0..=usize::MAX,
    }
}

impl<K: Kind> List<K> {
    /// The same with bounds on the number of items.
    #[must_use]
    pub fn of_length(mut self, length: RangeInclusive<usize>) -> Self {
        self.length = length;
        self
    }
}

impl<K: Kind> Kind for List<K> {
    type Value = Vec<K::Value>;

    fn read(&self, node: &Node, reader: &mut Reader) -> Option<Self::Value> {
        let Value::Sequence(items) = &node.value else {
            reader.refuse_type(node, "a list");
            return None;
        };
        if !self.length.contains(&items.len()) {
            let (low, high) = (self.length.start(), self.length.end());
            let (expected, most) = match (*low, *high) {
                (low, usize::MAX) => (format!("at least {low}"), low),
                (low, high) if low == high => (format!("exactly {low}"), low),
                (low, high) => (format!("{low} to {high}"), high),
            };
            let found = items.len();
            let message = format!("needs {expected} item{}, found {found}", plural(most));
            reader.refuse(node.position, InvalidValue::new(message));
            return None;
        }
        // Every item is read, also after a wrong one, so that all faults are found.
        let read: Vec<Option<K::Value>> = items
            .iter()
            .enumerate()
            .map(|(index, item)| reader.within_item(index, |reader| self.item.read(item, reader)))
            .collect();
        read.into_iter().collect()
    }

    fn schema(&self) -> Json {
        let mut schema = json!({ "type": "array", "items": self.item.schema() });
        if *self.length.start() > 0 {
            schema["minItems"] = (*self.length.start()).into();
        }
        if *self.length.end() < usize::MAX {
            schema["maxItems"] = (*self.length.end()).into();
        }
        schema
    }
}

/// A mapping whose names are free, read in the order of the file.
#[derive(Clone, Copy, Debug)]
pub struct Named<K> {
    pattern: &'static str,
    check: fn(&str) -> Result<(), InvalidValue>,
    item: K,
}

/// A mapping whose names are free within `check`; `pattern` is its regular expression.
#[must_use]
pub fn named<K: Kind>(
    pattern: &'static str,
    check: fn(&str) -> Result<(), InvalidValue>,
    item: K,
) -> Named<K> {
    Named {
        pattern,
        check,
        item,
    }
}

impl<K: Kind> Kind for Named<K> {
    type Value = Vec<(String, K::Value)>;

    fn read(&self, node: &Node, reader: &mut Reader) -> Option<Self::Value> {
        let Value::Mapping(entries) = &node.value else {
            reader.refuse_type(node, "a mapping from names");
            return None;
        };
        let read: Vec<Option<(String, K::Value)>> = entries
            .iter()
            .map(|entry| {
                reader.within(entry.key.clone(), |reader| {
                    let name = (self.check)(&entry.key);
                    let named = name.is_ok();
                    if let Err(reason) = name {
                        reader.refuse(entry.key_position, reason);
                    }
                    let value = self.item.read(&entry.value, reader)?;
                    named.then(|| (entry.key.clone(), value))
                })
            })
            .collect();
        read.into_iter().collect()
    }

    fn schema(&self) -> Json {
        json!({
            "type": "object",
            "additionalProperties": self.item.schema(),
            "propertyNames": { "pattern": self.pattern },
        })
    }
}

/// A mapping with declared fields.
#[derive(Debug)]
pub struct MappingKind<T>(PhantomData<fn() -> T>);

/// A mapping with the fields that `T` declares.
#[must_use]
pub fn mapping<T: Mapping>() -> MappingKind<T> {
    MappingKind(PhantomData)
}

impl<T: Mapping> Kind for MappingKind<T> {
    type Value = T;

    fn read(&self, node: &Node, reader: &mut Reader) -> Option<T> {
        let Value::Mapping(entries) = &node.value else {
            reader.refuse_type(node, "a mapping of fields");
            return None;
        };
        Fields::read(node.position, entries, reader)
    }

    fn schema(&self) -> Json {
        Fields::describe::<T>()
    }
}

/// Refuses items that stand twice, by a key; the second is the one that is named.
pub fn refuse_twice<T, Q: Ord>(
    fields: &mut Fields<'_>,
    items: &[Placed<T>],
    what: &str,
    key: impl Fn(&T) -> Q,
) {
    let mut seen: BTreeMap<Q, Position> = BTreeMap::new();
    for item in items {
        if let Some(first) = seen.get(&key(&item.value)) {
            let message = format!("{what} stands twice; first in line {}", first.line);
            fields.refuse_item(item, InvalidValue::new(message));
        } else {
            seen.insert(key(&item.value), item.position);
        }
    }
}

/// The values without their places.
#[must_use]
pub fn values<T>(items: Vec<Placed<T>>) -> Vec<T> {
    items.into_iter().map(|item| item.value).collect()
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// The text of a node; numbers and booleans are not taken for text, since `1.20` would already be
/// `1.2`.
fn text_of<'a>(node: &'a Node, reader: &mut Reader, expected: &str) -> Option<&'a str> {
    let as_written = match &node.value {
        Value::Text(text) => return Some(text),
        Value::Bool(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Float(raw) => raw.clone(),
        _ => {
            reader.refuse_type(node, expected);
            return None;
        }
    };
    let message = format!("expected {expected}, found {}", node.describe());
    let shown = quoted(&as_written);
    let help = format!("put quotes around it: \"{}\"", &shown[1..shown.len() - 1]);
    reader.refuse(node.position, InvalidValue::new(message).help(help));
    None
}
