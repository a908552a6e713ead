//! What the admin page says: metrics, health, the configuration in force.
//!
//! It is served on the control runtime, away from the workers, as every page of the house is.

use std::sync::Arc;

use daemon::page::{self, HTML, METRICS, Request, Response, TEXT, answer};
use http::StatusCode;
use serde_json::{Value, json};

use crate::control::{Control, Outcome, Status, listing};
use crate::observe::metrics::Registry;
use crate::observe::timestamp::rfc3339;

const INDEX: &str = "<!doctype html>
<html lang=\"en\"><meta charset=\"utf-8\"><title>Gatehouse router</title>
<h1>Gatehouse router</h1>
<ul>
<li><a href=\"/metrics\">/metrics</a>: numbers, in the Prometheus text format
<li><a href=\"/healthz\">/healthz</a>: 200 while it serves, 503 while it drains
<li><a href=\"/readyz\">/readyz</a>: 200 while it takes new connections
<li><a href=\"/routes\">/routes</a>: the rules in force, in the order of matching
<li><a href=\"/config\">/config</a>: generation, the last reload, what needs a restart
</ul>
";

/// What the admin page shows.
pub struct Admin {
    /// The configuration.
    pub control: Arc<Control>,
    /// The numbers.
    pub registry: Arc<Registry>,
}

impl Admin {
    /// Answers a request to the page; [`daemon::page::serve`] asks.
    pub fn respond(&self, request: &Request) -> Response {
        match request.uri().path() {
            "/" => answer(StatusCode::OK, HTML, INDEX),
            "/metrics" => answer(StatusCode::OK, METRICS, self.registry.render()),
            "/healthz" | "/readyz" if self.control.is_draining() => {
                answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining\n")
            }
            // There is a snapshot from the first moment on: without one, nothing is started.
            "/healthz" | "/readyz" => answer(StatusCode::OK, TEXT, "ok\n"),
            "/routes" => {
                let routes = listing::routes(&self.control.published().load());
                page::json(&json!({ "routes": routes }))
            }
            "/config" => page::json(&describe(&self.control.status())),
            _ => answer(StatusCode::NOT_FOUND, TEXT, "404 Not Found\n"),
        }
    }
}

/// The configuration in force and the last load.
fn describe(status: &Status) -> Value {
    let (outcome, errors, needs_restart, warnings) = match &status.outcome {
        Outcome::Loaded(report) => (
            "loaded",
            json!([]),
            json!(report.needs_restart),
            json!(report.warnings),
        ),
        Outcome::Refused(errors) => ("refused", errors.to_json(), json!([]), json!([])),
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "generation": status.generation,
        "published_at": rfc3339(status.published_at),
        "last_reload": {
            "at": rfc3339(status.loaded_at),
            "outcome": outcome,
            "errors": errors,
            "needs_restart": needs_restart,
            "warnings": warnings,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::Files;
    use std::time::SystemTime;

    fn admin(files: &Files) -> Admin {
        let registry = Arc::new(Registry::new(SystemTime::now()));
        let control = Arc::new(Control::start(&files.config(), Arc::clone(&registry)).unwrap());
        Admin { control, registry }
    }

    /// Status and content of a page.
    fn ask(admin: &Admin, path: &str) -> (StatusCode, String) {
        let response = admin.respond(&Request::get(path).body(()).unwrap());
        let content = String::from_utf8(response.body().to_vec()).unwrap();
        (response.status(), content)
    }

    fn ask_json(admin: &Admin, path: &str) -> Value {
        serde_json::from_str(&ask(admin, path).1).unwrap()
    }

    #[test]
    fn each_page_answers() {
        let admin = admin(&Files::new());
        let (status, metrics) = ask(&admin, "/metrics");
        assert_eq!(status, StatusCode::OK);
        assert!(metrics.contains("\nrouter_snapshot_generation 1\n"));
        assert!(ask(&admin, "/").1.contains("/metrics"));
        assert_eq!(ask(&admin, "/nothing").0, StatusCode::NOT_FOUND);
        let routes = ask_json(&admin, "/routes");
        assert_eq!(routes["routes"][0]["host"], "www.example.org");
        assert_eq!(routes["routes"][0]["endpoints"][0], "127.0.0.1:1");
    }

    #[test]
    fn a_drain_shows_in_the_health_checks() {
        let admin = admin(&Files::new());
        for path in ["/healthz", "/readyz"] {
            assert_eq!(ask(&admin, path).0, StatusCode::OK);
        }
        admin.control.begin_drain();
        for path in ["/healthz", "/readyz"] {
            assert_eq!(ask(&admin, path).0, StatusCode::SERVICE_UNAVAILABLE);
        }
    }

    #[test]
    fn a_refused_reload_shows_with_its_errors() {
        let files = Files::new();
        let admin = admin(&files);
        files.write("routes.d/acme.yaml", "tenant: [\n");
        admin.control.reload().unwrap_err();
        let config = ask_json(&admin, "/config");
        assert_eq!(config["generation"], 1);
        assert_eq!(config["last_reload"]["outcome"], "refused");
        let error = &config["last_reload"]["errors"][0];
        assert!(error["file"].as_str().unwrap().ends_with("acme.yaml"));
    }
}
