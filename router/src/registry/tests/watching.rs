//! The watch.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;

use super::lab::{Lab, announcement, operator, tenant};
use crate::registry::auth::Caller;

const W1: &str = "/v1/tenants/a/instances/w1";

struct Events {
    stream: BodyDataStream,
    text: String,
}

#[derive(Debug, PartialEq)]
struct Seen {
    kind: String,
    id: Option<String>,
    data: Value,
}

impl Events {
    async fn open(lab: &Lab, caller: &Caller, query: &str, headers: &[(&str, &str)]) -> Self {
        let path = format!("/v1/watch{query}");
        let response = lab
            .response(caller, "GET", &path, headers, Value::Null)
            .await;
        assert_eq!(response.status(), 200);
        let stream = Body::into_data_stream(response.into_body());
        Self {
            stream,
            text: String::new(),
        }
    }

    async fn next(&mut self) -> Seen {
        let patience = Duration::from_secs(5);
        while !self.text.contains("\n\n") {
            let chunk = tokio::time::timeout(patience, self.stream.next()).await;
            let chunk = chunk.expect("an event in time").expect("no end").unwrap();
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        let (event, rest) = self.text.split_once("\n\n").unwrap();
        let field = |name: &str| {
            let mut lines = event.lines();
            lines.find_map(|line| line.strip_prefix(name).map(|it| it.trim().to_owned()))
        };
        let seen = Seen {
            kind: field("event:").unwrap(),
            id: field("id:"),
            data: serde_json::from_str(&field("data:").unwrap()).unwrap(),
        };
        self.text = rest.to_owned();
        seen
    }

    async fn until_synced(&mut self) -> (Vec<String>, String) {
        let mut told = Vec::new();
        loop {
            let seen = self.next().await;
            match &*seen.kind {
                "synced" => return (told, seen.id.unwrap()),
                kind => told.push(format!(
                    "{kind} {}",
                    seen.data["host"].as_str().unwrap_or("")
                )),
            }
        }
    }
}

#[tokio::test]
async fn everything_first_and_then_each_change() {
    let lab = Lab::new().await;
    let a = tenant("a");
    lab.call(
        &a,
        "PUT",
        W1,
        announcement(&[("x.a.example.org", "10.0.1.1:1")]),
    )
    .await;
    lab.call(
        &tenant("b"),
        "PUT",
        "/v1/routes/www.b.example.org",
        json!({"endpoints": ["10.0.2.1:1"]}),
    )
    .await;
    lab.settle().await;
    let mut own = Events::open(&lab, &a, "", &[]).await;
    let mut all = Events::open(&lab, &operator(), "", &[]).await;
    assert_eq!(own.until_synced().await.0, ["route x.a.example.org"]);
    assert_eq!(
        all.until_synced().await.0,
        ["route x.a.example.org", "route www.b.example.org"]
    );
    lab.call(
        &tenant("b"),
        "DELETE",
        "/v1/routes/www.b.example.org",
        Value::Null,
    )
    .await;
    lab.call(
        &a,
        "PUT",
        W1,
        announcement(&[("y.a.example.org", "10.0.1.1:1")]),
    )
    .await;
    let gone = all.next().await;
    assert_eq!(
        (&*gone.kind, &gone.data),
        ("gone", &json!({"host": "www.b.example.org"}))
    );
    // One transaction: the new name and the one that went, in whatever order.
    let mut seen =
        [own.next().await, own.next().await].map(|it| format!("{} {}", it.kind, it.data["host"]));
    seen.sort();
    assert_eq!(
        seen,
        ["gone \"x.a.example.org\"", "route \"y.a.example.org\""]
    );
}

#[tokio::test]
async fn a_break_is_bridged_or_told() {
    let lab = Lab::new().await;
    let a = tenant("a");
    lab.settle().await;
    let mut events = Events::open(&lab, &a, "", &[]).await;
    let (_, id) = events.until_synced().await;
    drop(events);
    lab.call(
        &a,
        "PUT",
        W1,
        announcement(&[("x.a.example.org", "10.0.1.1:1")]),
    )
    .await;
    lab.settle().await;
    for (query, headers) in [
        (String::new(), vec![("last-event-id", id.as_str())]),
        (format!("?after={id}"), Vec::new()),
    ] {
        let mut resumed = Events::open(&lab, &a, &query, &headers).await;
        assert_eq!(resumed.until_synced().await.0, ["route x.a.example.org"]);
    }
    // Of another store.
    let mut events = Events::open(&lab, &a, "?after=99999999", &[]).await;
    assert_eq!(
        events.until_synced().await.0,
        ["reset ", "route x.a.example.org"]
    );
}

/// Three routes in one transaction, of which the client hears one before its connection breaks.
#[tokio::test]
async fn a_break_within_a_transaction_loses_nothing_of_it() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let mut events = Events::open(&lab, &a, "", &[]).await;
    let (_, id) = events.until_synced().await;
    let names = ["x.a.example.org", "y.a.example.org", "z.a.example.org"];
    let routes = names.map(|name| (name, "10.0.1.1:1"));
    lab.call(&a, "PUT", W1, announcement(&routes)).await;
    let first = events.next().await;
    assert_eq!(first.kind, "route");
    drop(events);
    // As a browser and our client do: the last id that was seen.
    let id = first.id.unwrap_or(id);
    let mut resumed = Events::open(&lab, &a, "", &[("last-event-id", &id)]).await;
    let (mut told, id) = resumed.until_synced().await;
    told.sort();
    assert_eq!(told, names.map(|name| format!("route {name}")));
    // Nothing is told twice once everything was told.
    let mut resumed = Events::open(&lab, &a, "", &[("last-event-id", &id)]).await;
    assert_eq!(resumed.until_synced().await, (Vec::new(), id));
}

#[tokio::test]
async fn the_last_event_of_a_transaction_says_how_far_everything_is_told() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let mut events = Events::open(&lab, &a, "", &[]).await;
    events.until_synced().await;
    let routes = ["x.a.example.org", "y.a.example.org"].map(|name| (name, "10.0.1.1:1"));
    let put = lab.call(&a, "PUT", W1, announcement(&routes)).await;
    let ids = [events.next().await.id, events.next().await.id];
    assert_eq!(ids, [None, Some(put.body["revision"].to_string())]);
}

#[tokio::test]
async fn a_list_that_breaks_off_begins_anew_with_a_reset() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let routes = ["x.a.example.org", "y.a.example.org"].map(|name| (name, "10.0.1.1:1"));
    lab.call(&a, "PUT", W1, announcement(&routes)).await;
    lab.settle().await;
    let mut events = Events::open(&lab, &a, "", &[]).await;
    let first = events.next().await;
    assert_eq!(first.data["host"], "x.a.example.org");
    drop(events);
    // What the client has seen vanishes meanwhile.
    lab.call(&a, "PUT", W1, announcement(&routes[1..])).await;
    lab.settle().await;
    let id = first.id.expect("something to resume with");
    let mut resumed = Events::open(&lab, &a, "", &[("last-event-id", &id)]).await;
    assert_eq!(
        resumed.until_synced().await.0,
        ["reset ", "route y.a.example.org"]
    );
}
