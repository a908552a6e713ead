//! What the OpenAPI document says beyond what the code's types say: the form of names and
//! addresses, in one place for all the calls that take them; and which call undoes another.

use serde_json::{Map, Value, json};

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
const FIELDS: [(&str, &str, &str); 4] = [
    ("Scope", "instance", LABEL),
    ("AnnouncedRoute", "host", HOST),
    ("AnnouncedRoute", "endpoint", ENDPOINT),
    ("TokenSpec", "tenant", LABEL),
];
const ITEMS: [(&str, &str, &str); 4] = [
    ("Scope", "patterns", HOST),
    ("Scope", "addresses", RANGE),
    ("RouteSpec", "endpoints", ENDPOINT),
    ("ZoneSpec", "addresses", RANGE),
];

/// Names of a path, each with where it comes from.
type Names = &'static [(&'static str, &'static str)];
/// What was made by a call with PUT or POST, and what undoes it with the same names: paths, and where
/// the names of the second one come from (OpenAPI 3.1, link objects).
const UNDONE: [(&str, &str, &str, Names); 4] = [
    (
        "/v1/routes/{host}",
        "put",
        "/v1/routes/{host}",
        &[("host", "$request.path.host")],
    ),
    (
        "/v1/tenants/{tenant}/instances/{instance}",
        "put",
        "/v1/tenants/{tenant}/instances/{instance}",
        &[
            ("tenant", "$request.path.tenant"),
            ("instance", "$request.path.instance"),
        ],
    ),
    (
        "/v1/zones/{tenant}/{pattern}",
        "put",
        "/v1/zones/{tenant}/{pattern}",
        &[
            ("tenant", "$request.path.tenant"),
            ("pattern", "$request.path.pattern"),
        ],
    ),
    (
        "/v1/tokens",
        "post",
        "/v1/tokens/{id}",
        &[("id", "$response.body#/id")],
    ),
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
    name_calls(document);
    for (made_at, method, undone_at, names) in UNDONE {
        let undo = document["paths"][undone_at]["delete"]["operationId"].clone();
        let names: Map<String, Value> = names
            .iter()
            .map(|(name, source)| ((*name).to_owned(), json!(source)))
            .collect();
        let link = json!({"operationId": undo, "parameters": names});
        let answers = document["paths"][made_at][method]["responses"].as_object_mut();
        for (_, answer) in answers
            .into_iter()
            .flatten()
            .filter(|(status, _)| status.starts_with('2'))
        {
            answer["links"] = json!({"undo": link});
        }
    }
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

/// Names each call after what it is about and what it does: those of the handlers are not unique.
fn name_calls(document: &mut Value) {
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    let calls = paths.flat_map(|(_, methods)| methods.as_object_mut().into_iter().flatten());
    for (_, call) in calls {
        let (about, does) = (&call["tags"][0], &call["operationId"]);
        if let (Some(about), Some(does)) = (about.as_str(), does.as_str()) {
            let name = format!("{about}.{does}");
            call["operationId"] = json!(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn calls_have_names_of_their_own_and_links_lead_to_them() {
        let document = super::super::document();
        let mut names = HashSet::new();
        let mut links = 0;
        let paths = document["paths"].as_object().unwrap();
        let calls: Vec<_> = paths
            .values()
            .flat_map(|it| it.as_object().unwrap().values())
            .collect();
        for call in &calls {
            let name = call["operationId"].as_str().unwrap();
            assert!(names.insert(name), "{name} stands twice");
        }
        for call in &calls {
            for answer in call["responses"].as_object().unwrap().values() {
                let Some(link) = answer["links"].get("undo") else {
                    continue;
                };
                assert!(
                    names.contains(link["operationId"].as_str().unwrap()),
                    "{link}"
                );
                links += 1;
            }
        }
        assert!(links >= UNDONE.len(), "{links}");
    }
}
