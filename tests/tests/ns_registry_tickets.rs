//! Sessions that one router began go on at every other one, as long as their keys are in the store;
//! by openssl, whose session files can be offered again and again. Needs root, for network namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;

use harness::fleet::{Fleet, FleetPlan};
use harness::folder::{self, Folder};
use harness::results::Rows;
use harness::tool::Tool;
use harness::wait;
use serde_json::json;

const HOST: &str = "shop-apps-1.k8s.example.org";

static ROWS: Mutex<Rows> = Mutex::new(Rows::new(
    "registry-tickets",
    &["step", "offered to", "TLS 1.3", "TLS 1.2"],
));

/// How a session came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handshake {
    Full,
    Resumed,
}

/// A client that keeps sessions in files.
struct Client<'a> {
    fleet: &'a Fleet,
    folder: &'a Folder,
}

impl<'a> Client<'a> {
    fn of(fleet: &'a Fleet, folder: &'a Folder) -> Self {
        Self { fleet, folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Asks once; offers the session in one file, and writes the one it has then to another.
    fn ask(
        &self,
        at: SocketAddr,
        version: &str,
        offers: Option<&str>,
        keeps: Option<&str>,
    ) -> Handshake {
        let ca = self.file("ca.pem");
        folder::write(&ca, self.fleet.ca.pem()).unwrap();
        let mut tool = Tool::new("openssl")
            .args(["s_client", "-ign_eof", "-verify_return_error", version])
            .args(["-servername", HOST, "-connect", &at.to_string(), "-CAfile"])
            .args([&ca]);
        if let Some(offers) = offers {
            let file = self.file(offers);
            assert!(file.is_file(), "there is no session to offer: {offers}");
            tool = tool.args(["-sess_in"]).args([file]);
        }
        if let Some(keeps) = keeps {
            tool = tool.args(["-sess_out"]).args([self.file(keeps)]);
        }
        let output = tool
            .input(format!(
                "GET /hello HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
            ))
            .namespace(Some(&self.fleet.client.namespace))
            .run()
            .unwrap();
        let text = output.stdout;
        let kinds = [text.contains("\nNew, "), text.contains("\nReused, ")];
        let handshake = match kinds {
            [true, false] => Handshake::Full,
            [false, true] => Handshake::Resumed,
            other => panic!("{other:?}: {text}{}", output.stderr),
        };
        assert!(text.contains("HTTP/1.1 "), "no answer: {text}");
        handshake
    }

    /// Offers the sessions of both versions to these routers, and insists on what comes of it.
    fn offer(&self, step: &str, session: &str, routers: &[usize], expected: Handshake) {
        for router in routers {
            let at = self.fleet.routers[*router].https();
            let [new, old] = VERSIONS.map(|(version, name)| {
                self.ask(at, version, Some(&format!("{session}-{name}")), None)
            });
            assert_eq!(
                (new, old),
                (expected, expected),
                "{step}, at router {}",
                router + 1
            );
            let row = json!({
                "step": step,
                "offered to": format!("router {}", router + 1),
                "TLS 1.3": format!("{new:?}").to_lowercase(),
                "TLS 1.2": format!("{old:?}").to_lowercase(),
            });
            ROWS.lock().unwrap().add(row).unwrap();
        }
    }

    /// Has a new session of each version at a router.
    fn begin(&self, session: &str, router: usize) {
        let at = self.fleet.routers[router].https();
        for (version, name) in VERSIONS {
            let keeps = format!("{session}-{name}");
            assert_eq!(self.ask(at, version, None, Some(&keeps)), Handshake::Full);
        }
    }
}

const VERSIONS: [(&str, &str); 2] = [("-tls1_3", "1.3"), ("-tls1_2", "1.2")];

/// Ends the youth of the present secrets, as time would, and waits until every router that runs
/// encrypts with the next one.
fn rotate(fleet: &mut Fleet) {
    let epochs = |fleet: &Fleet| -> Vec<f64> {
        let running = fleet.routers.iter().filter(|it| it.router.is_some());
        running
            .map(|it| it.metric("router_ticket_epoch").unwrap())
            .collect()
    };
    let before = epochs(fleet);
    let deleted = fleet
        .cluster()
        .etcdctl(&["del", "/gatehouse/ticket/fresh"])
        .unwrap();
    assert_eq!(deleted.trim(), "1", "the secrets were not young");
    wait::until_true("every router to have the next secret", || {
        let now = epochs(fleet);
        now.iter()
            .zip(&before)
            .all(|(now, before)| *now == before + 1.0)
    })
    .unwrap();
}

#[test]
fn a_session_of_one_router_is_resumed_at_all_until_its_key_is_gone() {
    let folder = Folder::new("tickets").unwrap();
    let mut fleet = Fleet::start("tickets", &FleetPlan::default()).unwrap();
    Client::of(&fleet, &folder).begin("first", 0);
    Client::of(&fleet, &folder).offer(
        "1: begun at router 1",
        "first",
        &[0, 1, 2],
        Handshake::Resumed,
    );

    // The API is another listener of the same process: it takes no session of anybody, and gives none.
    let api = fleet.routers[1].api();
    let on_its_own = Client::of(&fleet, &folder).ask(api, "-tls1_3", None, Some("api"));
    assert_eq!(on_its_own, Handshake::Full);
    assert!(
        !Client::of(&fleet, &folder).file("api").exists(),
        "the API gave a ticket"
    );
    let offered = Client::of(&fleet, &folder).ask(api, "-tls1_3", Some("first-1.3"), None);
    assert_eq!(offered, Handshake::Full);

    fleet.routers[0].crash();
    let step = "2: router 1 was killed";
    Client::of(&fleet, &folder).offer(step, "first", &[1, 2], Handshake::Resumed);
    fleet.routers[0].start().unwrap();
    fleet.wait_for_everybody().unwrap();
    let step = "3: router 1 runs again, in a new process";
    Client::of(&fleet, &folder).offer(step, "first", &[0], Handshake::Resumed);

    rotate(&mut fleet);
    let step = "4: the keys were rotated once";
    Client::of(&fleet, &folder).offer(step, "first", &[0, 1, 2], Handshake::Resumed);
    Client::of(&fleet, &folder).begin("second", 1);
    rotate(&mut fleet);
    let step = "5: rotated twice, the key is gone";
    Client::of(&fleet, &folder).offer(step, "first", &[0, 1, 2], Handshake::Full);
    let step = "6: a session that was begun after the first rotation";
    Client::of(&fleet, &folder).offer(step, "second", &[0, 1, 2], Handshake::Resumed);
    rotate(&mut fleet);
    let step = "7: rotated three times";
    Client::of(&fleet, &folder).offer(step, "first", &[0, 1, 2], Handshake::Full);
}
