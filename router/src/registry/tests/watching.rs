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
