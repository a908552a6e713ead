//! Plain scalars by the core schema of YAML 1.2 (section 10.3.2): no `yes`, no `0777`, no
//! sexagesimal numbers.

use super::Value;

/// What an unquoted scalar means.
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    if let Some(value) = integer(text) {
        return value;
    }
    if float(text).is_some() {
        return Value::Float(text.to_owned());
    }
    Value::Text(text.to_owned())
}

/// Whole numbers: `-7`, `0o17`, `0x1F`. One that does not fit stays a number, though not one that
/// any field takes.
fn integer(text: &str) -> Option<Value> {
    let parsed = if let Some(digits) = text.strip_prefix("0o") {
        all(digits, |b| (b'0'..=b'7').contains(&b)).then(|| i128::from_str_radix(digits, 8))
    } else if let Some(digits) = text.strip_prefix("0x") {
        all(digits, |b| b.is_ascii_hexdigit()).then(|| i128::from_str_radix(digits, 16))
    } else {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        all(digits, |b| b.is_ascii_digit()).then(|| text.parse())
    }?;
    Some(parsed.map_or_else(|_| Value::Float(text.to_owned()), Value::Integer))
}

/// A number by the core schema, or `None` if the text is not one.
pub(super) fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    match unsigned {
        ".inf" | ".Inf" | ".INF" => {
            let negative = text.starts_with('-');
            return Some(if negative {
                f64::NEG_INFINITY
            } else {
                f64::INFINITY
            });
        }
        _ => {}
    }
    if matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Some(f64::NAN);
    }
    // Rust reads words such as `infinity`, which the core schema takes for text.
    let shaped = unsigned.bytes().any(|b| b.is_ascii_digit())
        && unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && all(unsigned, |b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    if shaped { text.parse().ok() } else { None }
}

fn all(text: &str, accept: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(accept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_schema_and_not_yaml_1_1() {
        assert_eq!(resolve("~"), Value::Null);
        assert_eq!(resolve("True"), Value::Bool(true));
        assert_eq!(resolve("tRue"), Value::Text("tRue".into()));
        assert_eq!(resolve("yes"), Value::Text("yes".into()));
        assert_eq!(resolve("on"), Value::Text("on".into()));
        assert_eq!(resolve("+12"), Value::Integer(12));
        assert_eq!(resolve("010"), Value::Integer(10));
        assert_eq!(resolve("0o17"), Value::Integer(15));
        assert_eq!(resolve("0x1F"), Value::Integer(31));
        assert_eq!(resolve("0x+1"), Value::Text("0x+1".into()));
        assert_eq!(resolve("12:30"), Value::Text("12:30".into()));
        assert_eq!(resolve("1_000"), Value::Text("1_000".into()));
        assert_eq!(resolve("1.20"), Value::Float("1.20".into()));
        assert_eq!(resolve("1e3"), Value::Float("1e3".into()));
        assert_eq!(resolve("-.INF"), Value::Float("-.INF".into()));
        assert_eq!(resolve("infinity"), Value::Text("infinity".into()));
        assert_eq!(resolve("1.20.2"), Value::Text("1.20.2".into()));
        assert_eq!(resolve("e"), Value::Text("e".into()));
        let huge = "9".repeat(60);
        assert_eq!(resolve(&huge), Value::Float(huge));
    }
}
