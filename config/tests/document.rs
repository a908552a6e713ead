//! YAML with positions: what is refused, and where it says the fault is.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use config::document::{MAX_BYTES, MAX_DEPTH, Position, Value, parse, text_of};

fn faults(text: &str) -> Vec<(usize, usize, String, String)> {
    parse(text)
        .faults
        .into_iter()
        .map(|fault| {
            let Position { line, column } = fault.position;
            (line, column, fault.field, fault.reason.message)
        })
        .collect()
}

/// The one fault of a text must be at this place and say this.
#[track_caller]
fn refused(text: &str, line: usize, column: usize, says: &str) {
    let found = faults(text);
    assert_eq!(found.len(), 1, "{found:?}");
    let (at_line, at_column, _, message) = &found[0];
    assert!(message.contains(says), "{message}");
    assert_eq!((*at_line, *at_column), (line, column), "{message}");
}

#[test]
fn keys_and_values_know_where_they_stand() {
    let root = parse("# c\n\"ä\":  1\nlist:\n  - x\n  - {y: ~}\r\nlast: \"q\"\n")
        .root
        .unwrap();
    let Value::Mapping(entries) = root.value else {
        panic!()
    };
    let at = |line, column| Position { line, column };
    assert_eq!(entries[0].key, "ä");
    assert_eq!(entries[0].key_position, at(2, 1));
    assert_eq!(entries[0].value.position, at(2, 7));
    let Value::Sequence(items) = &entries[1].value.value else {
        panic!()
    };
    assert_eq!(items[0].position, at(4, 5));
    let Value::Mapping(inner) = &items[1].value else {
        panic!()
    };
    assert_eq!(inner[0].key_position, at(5, 6));
    assert_eq!(entries[2].key_position, at(6, 1));
    assert_eq!(entries[2].value.position, at(6, 7));
}

#[test]
fn an_absent_value_stands_where_its_key_stands() {
    let root = parse("a:\nb: 1\n").root.unwrap();
    let Value::Mapping(entries) = root.value else {
        panic!()
    };
    assert_eq!(entries[0].value.value, Value::Null);
    assert_eq!(entries[0].value.position, Position { line: 1, column: 1 });
}

#[test]
fn a_key_twice() {
    refused(
        "a: 1\nb: 2\na: 3\n",
        3,
        1,
        "duplicate field `a`; first given in line 1",
    );
    let nested = faults("x:\n  - {a: 1, a: 2}\n");
    assert_eq!(nested[0].2, "x[0].a");
    // Also when one of them is written as a number and one as text.
    refused("1: x\n'1': y\n", 2, 1, "duplicate field");
}

#[test]
fn anchors_aliases_and_tags() {
    refused("a: &x 1\n", 1, 4, "anchors");
    assert!(
        faults("a: &x [1]\nb: *x\n")
            .iter()
            .any(|fault| fault.3.contains("aliases"))
    );
    refused("a: !!str 1\n", 1, 4, "tags");
    refused("a: !local {b: 1}\n", 1, 4, "tags");
}

/// The laugh of a billion costs nothing, since no alias is followed.
#[test]
fn an_alias_bomb_is_refused_in_no_time() {
    let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..30 {
        let below = level - 1;
        text += &format!(
            "a{level}: &a{level} [{}]\n",
            vec![format!("*a{below}"); 9].join(",")
        );
    }
    assert_eq!(faults(&text).len(), 30 + 29 * 9);
}

#[test]
fn more_than_one_document() {
    refused("a: 1\n---\nb: 2\n", 2, 1, "more than one document");
    assert!(faults("---\na: 1\n...\n").is_empty());
}

#[test]
fn nothing_at_all() {
    for text in ["", "\n", "# only a comment\n", "---\n", "~"] {
        refused(text, 1, 1, "holds no settings");
    }
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(faults(&nested(MAX_DEPTH)).is_empty());
    refused(
        &nested(MAX_DEPTH + 1),
        1,
        MAX_DEPTH + 1,
        "nested deeper than 64",
    );
    // Beyond 255 the parser underneath gives up first; either way nothing overflows a stack.
    assert_eq!(faults(&"[".repeat(500_000)).len(), 1);
    let keys: String = (0..200).map(|depth| " ".repeat(depth) + "a:\n").collect();
    assert!(faults(&keys)[0].3.contains("nested deeper"));
}

#[test]
fn length_is_bounded() {
    let text = format!("a: {}", "x".repeat(MAX_BYTES));
    refused(&text, 1, 1, "at most 1048576");
    let error = text_of(text.as_bytes(), Path::new("f.yaml")).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("f.yaml:1:1: is 1048579 bytes long"),
        "{error}"
    );
}

#[test]
fn bytes_that_are_not_utf_8() {
    let error = text_of(b"a: 1\nb: \xff\n", Path::new("f.yaml")).unwrap_err();
    assert!(
        error.to_string().contains("is not UTF-8 (line 2)"),
        "{error}"
    );
    assert_eq!(text_of(b"a: 1\n", Path::new("f.yaml")).unwrap(), "a: 1\n");
}

/// The parser underneath takes NUL for the end: what follows must not be ignored.
#[test]
fn control_characters() {
    refused("a: 1\nb: \0\nc: 2\n", 2, 4, "U+0000");
    refused("a: \"\u{7}\"\n", 1, 5, "U+0007");
}

#[test]
fn a_byte_order_mark_moves_nothing() {
    let root = parse("\u{FEFF}a: 1\n").root.unwrap();
    let Value::Mapping(entries) = root.value else {
        panic!()
    };
    assert_eq!(entries[0].key_position, Position::START);
}

#[test]
fn what_cannot_name_a_field() {
    refused("? [a]\n: 1\n", 1, 3, "cannot be a field's name");
    refused("? {a: 1}\n: 1\n", 1, 3, "cannot be a field's name");
    refused(": 1\n", 1, 1, "needs a name");
}

#[test]
fn syntax_errors_come_with_advice() {
    let fault = |text: &str| parse(text).faults.remove(0);
    let tab = fault("a:\n\tb: 1\n");
    assert_eq!(tab.position.line, 2);
    assert!(tab.reason.help.unwrap().contains("not with tabs"));
    let address = fault("a:\n  - [::]:443\n");
    assert!(
        address
            .reason
            .help
            .unwrap()
            .contains("IPv6 address in quotes")
    );
    assert!(parse("a: [1\n").root.is_none());
}
