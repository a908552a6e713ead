//! From the parser's events to the tree, by an explicit stack: nesting costs no call depth.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use super::scalar;
use super::{Entry, MAX_BYTES, MAX_DEPTH, Node, Position, Value};
use crate::error::{Fault, InvalidValue, quoted, source_lines};

/// What became of a text: a tree if one could be built, and everything that was refused on the
/// way. A tree may come with faults; then the faults count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The root; `None` if the text ends in the middle of something or holds nothing.
    pub root: Option<Node>,
    /// What was refused, in the order of the text.
    pub faults: Vec<Fault>,
}

/// Builds the tree of a text. Never panics, whatever the text holds.
#[must_use]
pub fn parse(text: &str) -> Document {
    let mut builder = Builder {
        stack: Vec::new(),
        root: None,
        faults: Vec::new(),
    };
    builder.run(text);
    Document {
        root: builder.root,
        faults: builder.faults,
    }
}

struct Builder {
    stack: Vec<Frame>,
    root: Option<Node>,
    faults: Vec<Fault>,
}

/// A collection that is still open.
enum Frame {
    Sequence {
        position: Position,
        items: Vec<Node>,
    },
    Mapping {
        position: Position,
        entries: Vec<Entry>,
        seen: HashMap<String, Position>,
        key: Option<Key>,
    },
}

/// A key that waits for its value. A refused one still takes its value off the stream.
struct Key {
    text: Option<String>,
    position: Position,
}

impl Builder {
    fn run(&mut self, text: &str) {
        if text.len() > MAX_BYTES {
            self.fault(Position::START, super::too_long(text.len()));
            return;
        }
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
        // The parser takes NUL for the end of its input: what stands behind one would be ignored.
        if let Some((position, c)) = unprintable(text) {
            let code = u32::from(c);
            self.fault(
                position,
                InvalidValue::new(format!("the character U+{code:04X} is not allowed in YAML")),
            );
            return;
        }
        let mut documents = 0;
        for event in Parser::new_from_str(text) {
            let (event, span) = match event {
                Ok(event) => event,
                Err(error) => {
                    self.root = None;
                    let position = place(*error.marker());
                    self.fault(position, syntax(error.info(), text, position));
                    return;
                }
            };
            let position = place(span.start);
            match event {
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        self.fault(
                            position,
                            InvalidValue::new("holds more than one document")
                                .help("keep one and delete the `---` line"),
                        );
                        return;
                    }
                }
                Event::Alias(_) => {
                    self.fault(
                        position,
                        InvalidValue::new("aliases (`*name`) are refused")
                            .help("write the value out"),
                    );
                    self.add(Node {
                        position,
                        value: Value::Refused,
                    });
                }
                Event::Scalar(value, style, anchor, tag) => {
                    let refused = self.refuse_properties(position, anchor, tag.is_some());
                    let value = if refused {
                        Value::Refused
                    } else if style == ScalarStyle::Plain {
                        scalar::resolve(&value)
                    } else {
                        Value::Text(value.clone().into_owned())
                    };
                    self.add_scalar(position, value);
                }
                Event::SequenceStart(anchor, tag) => {
                    self.refuse_properties(position, anchor, tag.is_some());
                    if !self.open(Frame::Sequence {
                        position,
                        items: Vec::new(),
                    }) {
                        return;
                    }
                }
                Event::MappingStart(anchor, tag) => {
                    self.refuse_properties(position, anchor, tag.is_some());
                    let frame = Frame::Mapping {
                        position,
                        entries: Vec::new(),
                        seen: HashMap::new(),
                        key: None,
                    };
                    if !self.open(frame) {
                        return;
                    }
                }
                Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                    Some(Frame::Sequence { position, items }) => {
                        self.add(Node {
                            position,
                            value: Value::Sequence(items),
                        });
                    }
                    Some(Frame::Mapping {
                        position, entries, ..
                    }) => {
                        self.add(Node {
                            position,
                            value: Value::Mapping(entries),
                        });
                    }
                    None => {}
                },
            }
        }
        let empty = self
            .root
            .as_ref()
            .is_none_or(|root| root.value == Value::Null);
        if empty && self.faults.is_empty() {
            self.root = None;
            self.fault(Position::START, InvalidValue::new("holds no settings"));
        }
    }

    /// Anchors and tags give a value a second meaning or a second place; neither is needed here.
    fn refuse_properties(&mut self, position: Position, anchor: usize, tagged: bool) -> bool {
        if anchor != 0 {
            self.fault(
                position,
                InvalidValue::new("anchors (`&name`) are refused").help("remove the anchor"),
            );
        }
        if tagged {
            self.fault(
                position,
                InvalidValue::new("tags (`!name`) are refused")
                    .help("remove the tag; quote what is meant as text"),
            );
        }
        tagged
    }

    fn open(&mut self, frame: Frame) -> bool {
        if self.stack.len() < MAX_DEPTH {
            self.stack.push(frame);
            return true;
        }
        let (Frame::Sequence { position, .. } | Frame::Mapping { position, .. }) = frame;
        self.root = None;
        self.fault(
            position,
            InvalidValue::new(format!("is nested deeper than {MAX_DEPTH} levels")),
        );
        false
    }

    fn add_scalar(&mut self, position: Position, value: Value) {
        if let Some(Frame::Mapping {
            key: key @ None, ..
        }) = self.stack.last_mut()
        {
            let text = match &value {
                Value::Text(text) => Some(text.clone()),
                Value::Bool(value) => Some(value.to_string()),
                Value::Integer(value) => Some(value.to_string()),
                Value::Float(raw) => Some(raw.clone()),
                _ => None,
            };
            let unusable = text.is_none() && value != Value::Refused;
            *key = Some(Key { text, position });
            if unusable {
                self.fault(position, InvalidValue::new("a field needs a name"));
            }
            return;
        }
        self.add(Node { position, value });
    }

    fn add(&mut self, mut node: Node) {
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Frame::Sequence { items, .. }) => items.push(node),
            Some(Frame::Mapping {
                key: key @ None, ..
            }) => {
                let position = node.position;
                *key = Some(Key {
                    text: None,
                    position,
                });
                if node.value != Value::Refused {
                    self.fault(
                        position,
                        InvalidValue::new("a list or mapping cannot be a field's name"),
                    );
                }
            }
            Some(Frame::Mapping {
                entries, seen, key, ..
            }) => {
                let Some(Key {
                    text: Some(text),
                    position,
                }) = key.take()
                else {
                    return;
                };
                if node.value == Value::Null {
                    // An absent value has no place of its own; the parser names the next line.
                    node.position = position;
                }
                if let Some(first) = seen.get(&text) {
                    let line = first.line;
                    let reason = InvalidValue::new(format!(
                        "duplicate field {}; first given in line {line}",
                        quoted(&text)
                    ));
                    let field = join(&self.path(), &text);
                    self.faults.push(Fault {
                        position,
                        field,
                        reason,
                    });
                    return;
                }
                seen.insert(text.clone(), position);
                entries.push(Entry {
                    key: text,
                    key_position: position,
                    value: node,
                });
            }
        }
    }

    fn fault(&mut self, position: Position, reason: InvalidValue) {
        let field = self.path();
        self.faults.push(Fault {
            position,
            field,
            reason,
        });
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for frame in &self.stack {
            match frame {
                Frame::Sequence { items, .. } => path.push_str(&format!("[{}]", items.len())),
                Frame::Mapping {
                    key:
                        Some(Key {
                            text: Some(text), ..
                        }),
                    ..
                } => {
                    path = join(&path, text);
                }
                Frame::Mapping { .. } => {}
            }
        }
        path
    }
}

/// A field path one level deeper. Names come from the file, so they are cut and escaped.
pub(crate) fn join(path: &str, name: &str) -> String {
    let shown = quoted(name);
    let shown = &shown[1..shown.len() - 1];
    if path.is_empty() {
        shown.to_owned()
    } else {
        format!("{path}.{shown}")
    }
}

fn place(marker: Marker) -> Position {
    Position {
        line: marker.line().max(1),
        column: marker.col() + 1,
    }
}

/// The first character outside c-printable (YAML 1.2.2, section 5.1).
fn unprintable(text: &str) -> Option<(Position, char)> {
    source_lines(text)
        .iter()
        .enumerate()
        .find_map(|(line, content)| {
            let found = content.chars().enumerate().find(|&(_, c)| {
                (c.is_control() && c != '\t' && c != '\u{85}')
                    || matches!(c, '\u{FFFE}' | '\u{FFFF}')
            });
            found.map(|(column, c)| {
                (
                    Position {
                        line: line + 1,
                        column: column + 1,
                    },
                    c,
                )
            })
        })
}

/// The parser's words, with advice for the two mistakes that people make most.
fn syntax(info: &str, text: &str, position: Position) -> InvalidValue {
    let reason = InvalidValue::new(format!("is not valid YAML: {info}"));
    let lines = source_lines(text);
    let line = lines.get(position.line - 1).copied().unwrap_or_default();
    if line.trim_start_matches(' ').starts_with('\t') {
        reason.help("indent with spaces, not with tabs")
    } else if line.contains("[:") || line.contains("]:") {
        reason.help("put an IPv6 address in quotes: \"[::]:443\"")
    } else {
        reason
    }
}
