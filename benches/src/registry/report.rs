pub(crate) fn document(_: &super::record::Record) -> String { String::new() }
pub(crate) fn tables(record: &super::record::Record) -> String { serde_json::to_string_pretty(record).unwrap() }
