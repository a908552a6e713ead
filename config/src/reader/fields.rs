//! The fields of a mapping, declared once for reading and for describing.

use serde_json::{Map, json};

use super::{Kind, Reader};
use crate::document::{Entry, Node, Position};
use crate::error::{InvalidValue, quoted};

/// A type that stands in a file as a mapping.
pub trait Mapping: Sized {
    /// Declares every field, then builds the value.
    ///
    /// Declare all fields before the first `?`: a field that is not reached would count as
    /// unknown, and would be missing from the schema.
    fn fields(fields: &mut Fields<'_>) -> Option<Self>;
}

/// Handed to [`Mapping::fields`]: reads each field as it is declared, or notes its schema.
pub struct Fields<'a>(Mode<'a>);

enum Mode<'a> {
    Read {
        position: Position,
        entries: &'a [Entry],
        reader: &'a mut Reader,
        known: Vec<&'static str>,
    },
    Describe {
        properties: Map<String, serde_json::Value>,
        required: Vec<&'static str>,
    },
}

impl<'a> Fields<'a> {
    /// A field that must stand in the file. `None` if it is absent or wrong (recorded).
    pub fn required<K: Kind>(
        &mut self,
        name: &'static str,
        about: &'static str,
        kind: K,
    ) -> Option<K::Value> {
        match self.declare(name, about, &kind, None, true) {
            Some(value) => value,
            None => {
                if let Mode::Read {
                    position, reader, ..
                } = &mut self.0
                {
                    let position = *position;
                    let reason = InvalidValue::new(format!("missing field {}", quoted(name)))
                        .help(about_help(about));
                    reader.refuse(position, reason);
                }
                None
            }
        }
    }

    /// A field that may be absent. The outer `None` means that it is there and wrong (recorded).
    pub fn optional<K: Kind>(
        &mut self,
        name: &'static str,
        about: &'static str,
        kind: K,
    ) -> Option<Option<K::Value>> {
        match self.declare(name, about, &kind, None, false) {
            Some(value) => value.map(Some),
            None => self.reading().then_some(None),
        }
    }

    /// A field with a default, given as it would be written in the file and read the same way.
    pub fn defaulted<K: Kind>(
        &mut self,
        name: &'static str,
        about: &'static str,
        kind: K,
        default: serde_json::Value,
    ) -> Option<K::Value> {
        match self.declare(name, about, &kind, Some(&default), false) {
            Some(value) => value,
            None => {
                let Mode::Read {
                    position, reader, ..
                } = &mut self.0
                else {
                    return None;
                };
                let node = Node::from_json(&default, *position);
                reader.within(name, |reader| kind.read(&node, reader))
            }
        }
    }

    /// Where the mapping begins.
    #[must_use]
    pub fn position(&self) -> Position {
        match &self.0 {
            Mode::Read { position, .. } => *position,
            Mode::Describe { .. } => Position::START,
        }
    }

    /// Records that a field, right by itself, is wrong beside the others.
    pub fn refuse(&mut self, name: &'static str, reason: InvalidValue) {
        if let Mode::Read {
            position,
            entries,
            reader,
            ..
        } = &mut self.0
        {
            let place = find(entries, name).map_or(*position, |entry| entry.value.position);
            reader.within(name, |reader| reader.refuse(place, reason));
        }
    }

    /// Records that the mapping as a whole is wrong.
    pub fn refuse_all(&mut self, reason: InvalidValue) {
        if let Mode::Read {
            position, reader, ..
        } = &mut self.0
        {
            reader.refuse(*position, reason);
        }
    }

    /// Records that an item, right by itself, is wrong beside others.
    pub fn refuse_item<T>(&mut self, item: &super::kinds::Placed<T>, reason: InvalidValue) {
        if let Mode::Read { reader, .. } = &mut self.0 {
            reader.refuse_field(item.position, item.field.clone(), reason);
        }
    }

    /// Whether a file is being read, as opposed to described.
    fn reading(&self) -> bool {
        matches!(self.0, Mode::Read { .. })
    }

    /// `None` if the field is absent; `Some(None)` if it is there and wrong.
    fn declare<K: Kind>(
        &mut self,
        name: &'static str,
        about: &'static str,
        kind: &K,
        default: Option<&serde_json::Value>,
        is_required: bool,
    ) -> Option<Option<K::Value>> {
        match &mut self.0 {
            Mode::Read {
                entries,
                reader,
                known,
                ..
            } => {
                known.push(name);
                let entry = find(entries, name)?;
                Some(reader.within(name, |reader| kind.read(&entry.value, reader)))
            }
            Mode::Describe {
                properties,
                required,
            } => {
                let mut schema = kind.schema();
                schema["description"] = about.into();
                if let Some(default) = default {
                    schema["default"] = default.clone();
                }
                properties.insert(name.to_owned(), schema);
                if is_required {
                    required.push(name);
                }
                None
            }
        }
    }

    /// Reads a mapping's entries into a type; refuses the fields that the type does not declare.
    pub(super) fn read<T: Mapping>(
        position: Position,
        entries: &'a [Entry],
        reader: &'a mut Reader,
    ) -> Option<T> {
        let mut fields = Fields(Mode::Read {
            position,
            entries,
            reader,
            known: Vec::new(),
        });
        let value = T::fields(&mut fields);
        let Mode::Read { reader, known, .. } = fields.0 else {
            return None;
        };
        for entry in entries {
            if !known.contains(&entry.key.as_str()) {
                let message = format!("unknown field {}", quoted(&entry.key));
                let reason = with_nearest(message, &entry.key, &known);
                reader.refuse(entry.key_position, reason);
            }
        }
        value
    }

    /// The schema of a type.
    pub(super) fn describe<T: Mapping>() -> serde_json::Value {
        let mut fields = Fields(Mode::Describe {
            properties: Map::new(),
            required: Vec::new(),
        });
        // Without values there is nothing to build: only the declarations count.
        let _ = T::fields(&mut fields);
        let Mode::Describe {
            properties,
            required,
        } = fields.0
        else {
            return json!(false);
        };
        let mut schema = json!({
            "type": "object",
            "properties": properties,
            "additionalProperties": false,
        });
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        schema
    }
}

fn find<'a>(entries: &'a [Entry], name: &str) -> Option<&'a Entry> {
    entries.iter().find(|entry| entry.key == name)
}

/// The first sentence of a field's description tells what is missing. Its first letter becomes
/// small, unless an abbreviation begins with it.
fn about_help(about: &str) -> String {
    let first = about.split(". ").next().unwrap_or(about);
    let first = first.trim_end_matches('.');
    let mut chars = first.chars();
    let (letter, rest) = (chars.next(), chars.as_str());
    if rest.starts_with(char::is_uppercase) {
        return first.to_owned();
    }
    let lower: String = letter.into_iter().flat_map(char::to_lowercase).collect();
    format!("{lower}{rest}")
}

/// A message with the nearest known name as advice, or all names where none is near.
pub(crate) fn with_nearest(message: String, found: &str, known: &[&str]) -> InvalidValue {
    // Longer names than this resemble nothing, and comparing them costs length times length; a
    // hostile file can hold thousands of names and as many misses.
    const LONGEST: usize = 64;
    const MOST: usize = 64;
    const SHOWN: usize = 16;
    let near = known
        .iter()
        .take(if found.len() <= LONGEST { MOST } else { 0 })
        .map(|name| {
            (
                strsim::damerau_levenshtein(&found.to_lowercase(), name),
                name,
            )
        })
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min();
    let reason = InvalidValue::new(message);
    match near {
        Some((_, name)) => reason.help(format!("did you mean `{name}`?")),
        None if known.is_empty() => reason,
        None => {
            let shown = known.iter().take(SHOWN);
            let names: Vec<String> = shown.map(|name| format!("`{name}`")).collect();
            let more = if known.len() > SHOWN { ", …" } else { "" };
            reason.help(format!("known here: {}{more}", names.join(", ")))
        }
    }
}
