//! Reads a tree into typed values, and describes the same types as JSON Schema.
//!
//! A type declares its fields once, in [`Mapping::fields`]; that one function runs in two modes.
//! Reading, it takes values off a node and records every fault; describing, it collects names,
//! kinds and defaults into a schema. So the parser and the schema cannot drift apart.

mod fields;
pub mod kinds;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

pub(crate) use fields::with_nearest;
pub use fields::{Fields, Mapping};

use crate::document::{self, Node, Position, Value};
use crate::error::{ConfigErrors, Fault, InvalidValue};

/// What a value can be: how it is read, and how an editor is told of it.
pub trait Kind {
    /// What a value of this kind becomes.
    type Value;

    /// Reads a node. `None` means that at least one fault was recorded.
    fn read(&self, node: &Node, reader: &mut Reader) -> Option<Self::Value>;

    /// The JSON Schema (draft 2020-12) of every accepted node, and of as few others as can be
    /// said.
    fn schema(&self) -> serde_json::Value;
}

/// Where in the file we are, and what was found wrong so far.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    path: Vec<Segment>,
    faults: Vec<Fault>,
}

#[derive(Debug)]
enum Segment {
    Field(Cow<'static, str>),
    Index(usize),
}

impl Reader {
    /// Folder that relative paths are resolved against.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Path of the field that is being read, such as `https.addresses[1]`.
    #[must_use]
    pub fn field(&self) -> String {
        let mut path = String::new();
        for segment in &self.path {
            path = match segment {
                Segment::Field(name) => document::join(&path, name),
                Segment::Index(index) => format!("{path}[{index}]"),
            };
        }
        path
    }

    /// Records a fault of the field that is being read.
    pub fn refuse(&mut self, position: Position, reason: InvalidValue) {
        let field = self.field();
        self.faults.push(Fault {
            position,
            field,
            reason,
        });
    }

    /// Records a fault of another field, named in full.
    pub fn refuse_field(&mut self, position: Position, field: String, reason: InvalidValue) {
        self.faults.push(Fault {
            position,
            field,
            reason,
        });
    }

    /// Records that a node is not what is expected here. Silent where the node's own fault is
    /// already recorded.
    pub fn refuse_type(&mut self, node: &Node, expected: &str) {
        let reason = match &node.value {
            Value::Refused => return,
            Value::Null => InvalidValue::new(format!("has no value; expected {expected}")),
            _ => InvalidValue::new(format!("expected {expected}, found {}", node.describe())),
        };
        self.refuse(node.position, reason);
    }

    fn within<T>(
        &mut self,
        field: impl Into<Cow<'static, str>>,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        self.path.push(Segment::Field(field.into()));
        let value = read(self);
        self.path.pop();
        value
    }

    fn within_item<T>(&mut self, index: usize, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(Segment::Index(index));
        let value = read(self);
        self.path.pop();
        value
    }
}

/// Reads a whole file of one type.
///
/// # Errors
/// Every fault of the file at once.
pub fn read<T: Mapping>(text: &str, file: &Path) -> Result<T, ConfigErrors> {
    let parsed = document::parse(text);
    let mut reader = Reader {
        folder: file.parent().unwrap_or(Path::new("")).to_owned(),
        path: Vec::new(),
        faults: parsed.faults,
    };
    let value = parsed
        .root
        .and_then(|root| kinds::mapping::<T>().read(&root, &mut reader));
    match (value, ConfigErrors::from_faults(file, text, reader.faults)) {
        (Some(value), None) => Ok(value),
        (_, Some(errors)) => Err(errors),
        // A reader that gives up without a reason has a defect; the file is still not accepted.
        (None, None) => Err(ConfigErrors::whole_file(
            file,
            InvalidValue::new("was refused without a reason; this is a defect of Gatehouse"),
        )),
    }
}

/// The JSON Schema of a file of one type.
#[must_use]
pub fn schema<T: Mapping>(title: &str, description: &str) -> serde_json::Value {
    let mut schema = kinds::mapping::<T>().schema();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = title.into();
    schema["description"] = description.into();
    schema
}
