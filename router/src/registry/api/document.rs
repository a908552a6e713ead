//! What the OpenAPI document says beyond what the code's types say: the form of names and
//! addresses, in one place for all the calls that take them.

use serde_json::{Value, json};

use super::OPEN_PATHS;

/// A tenant's or an instance's name.
const LABEL: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";
/// A name, or a star and a suffix of at least two labels. The last label is no number.
const HOST: &str = "^(\\*-[a-z0-9]([a-z0-9-]{0,58}[a-z0-9])?\\.|\\*\\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.)?\
    ([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?$";
/// An address and a port. What the pattern cannot say (groups of IPv6, ports above 65535) is said by
/// the refusal.
const ENDPOINT: &str = "^([0-9]{1,3}(\\.[0-9]{1,3}){3}|\\[[0-9a-fA-F:.]{2,45}\\]):[1-9][0-9]{0,4}$";
/// An address, or a range of them.
const RANGE: &str = "^([0-9]{1,3}(\\.[0-9]{1,3}){3}|[0-9a-fA-F:.]{2,45})(/[0-9]{1,3})?$";
/// The id of a token.
const TOKEN: &str = "^[0-9a-f]{16}$";

/// Parameters, by name, and fields of bodies, by type and name.
const PARAMETERS: [(&str, &str); 5] = [
    ("host", HOST),
    ("pattern", HOST),
    ("tenant", LABEL),
    ("instance", LABEL),
    ("id", TOKEN),
];
const FIELDS: [(&str, &str, &str); 3] = [
    ("AnnouncedRoute", "host", HOST),
    ("AnnouncedRoute", "endpoint", ENDPOINT),
    ("TokenSpec", "tenant", LABEL),
];
const ITEMS: [(&str, &str, &str); 2] = [
    ("RouteSpec", "endpoints", ENDPOINT),
    ("ZoneSpec", "addresses", RANGE),
];

/// What [`super::stale`] adds to answers.
fn mark_stale(document: &mut Value) {
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    let of_view = paths.filter(|(path, _)| !OPEN_PATHS.contains(&path.as_str()));
    let answers =
        of_view.filter_map(|(_, calls)| calls.get_mut("get")?["responses"].as_object_mut());
    for (status, answer) in answers.flatten() {
        if ["200", "304"].contains(&status.as_str()) {
            answer["headers"]["Gatehouse-Stale"] = json!({
                "description": "Seconds for which the registry's store has been out of reach: \
                    what is answered may be out of date. Absent while it is in reach",
                "schema": {"type": "integer", "minimum": 0},
            });
        }
    }
}

/// Adds them.
pub(super) fn refine(document: &mut Value) {
    mark_stale(document);
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    let calls = paths.flat_map(|(_, methods)| methods.as_object_mut().into_iter().flatten());
    let parameters = calls.filter_map(|(_, call)| call.get_mut("parameters")?.as_array_mut());
    for parameter in parameters.flatten() {
        let known = PARAMETERS
            .iter()
            .find(|(name, _)| parameter["name"] == *name);
        if let Some((_, pattern)) = known {
            parameter["schema"]["pattern"] = json!(pattern);
        }
    }
    let types = &mut document["components"]["schemas"];
    for (name, field, pattern) in FIELDS {
        types[name]["properties"][field]["pattern"] = json!(pattern);
    }
    for (name, field, pattern) in ITEMS {
        types[name]["properties"][field]["items"]["pattern"] = json!(pattern);
        types[name]["properties"][field]["uniqueItems"] = json!(true);
    }
}
