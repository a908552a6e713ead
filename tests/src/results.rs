//! What tests have measured, for `./x results` to make a page of.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// Names the folder that results are written to; without it nothing is written.
pub const FOLDER: &str = "GATEHOUSE_RESULTS";

/// Writes `NAME.json` and, as a part of a Markdown page, `NAME.md` if somebody asked for results.
///
/// # Errors
/// If the folder cannot be written to.
pub fn write(name: &str, json: &Value, markdown: &str) -> Result<()> {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return Ok(());
    };
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let json = format!("{json:#}\n");
    for (ending, content) in [("json", json.as_str()), ("md", markdown)] {
        let file = folder.join(format!("{name}.{ending}"));
        std::fs::write(&file, content).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

/// A table that grows while tests go on, and is written with each row.
#[derive(Debug)]
pub struct Rows {
    name: &'static str,
    head: &'static [&'static str],
    rows: Vec<Value>,
}

impl Rows {
    /// An empty one, with a title for each column. A row is an object with these titles as keys.
    #[must_use]
    pub const fn new(name: &'static str, head: &'static [&'static str]) -> Self {
        Self {
            name,
            head,
            rows: Vec::new(),
        }
    }

    /// Adds a row and writes the table.
    ///
    /// # Errors
    /// As [`write()`].
    pub fn add(&mut self, row: Value) -> Result<()> {
        self.rows.push(row);
        // Tests end in any order.
        self.rows.sort_by_key(|row| row[self.head[0]].to_string());
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut text = line(self.head.iter().map(|it| (*it).to_owned()).collect());
        text.push_str(&line(vec!["---".to_owned(); self.head.len()]));
        for row in &self.rows {
            let cell = |title: &&str| match &row[*title] {
                Value::String(text) => text.clone(),
                Value::Null => "–".to_owned(),
                value => value.to_string(),
            };
            text.push_str(&line(self.head.iter().map(cell).collect()));
        }
        write(self.name, &Value::Array(self.rows.clone()), &text)
    }
}
