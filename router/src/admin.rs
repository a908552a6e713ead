//! What the admin page says: metrics, health, the configuration in force.
//!
//! It is served on the control runtime, away from the workers, as every page of the house is.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::Query;
use daemon::page::{self, HTML, METRICS, Request, Response, TEXT, answer};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::control::{Control, LeftOut, LeftOutReason, Outcome, RegistryStatus, Status, listing};
use crate::explain::{Question, explain};
use crate::observe::metrics::Registry;
use crate::observe::timestamp::rfc3339;
use crate::registry::shared::RouteRegistry;

const INDEX: &str = "<!doctype html>
<html lang=\"en\"><meta charset=\"utf-8\"><title>Gatehouse router</title>
<h1>Gatehouse router</h1>
<ul>
<li><a href=\"/metrics\">/metrics</a>: numbers, in the Prometheus text format
<li><a href=\"/healthz\">/healthz</a>: 200 while it serves, 503 while it drains
<li><a href=\"/readyz\">/readyz</a>: 200 while it takes new connections and knows routes
<li><a href=\"/routes\">/routes</a>: the rules in force, in the order of matching, the first 10,000
<li><a href=\"/explain?url=https://www.example.org/\">/explain?url=URL</a>: what happens to a URL here and now, and why
<li><a href=\"/config\">/config</a>: generation, the last reload, what needs a restart, what of the registry is not
in force
</ul>
";

/// Rules that `/routes` lists; of more it tells the number.
const MAX_ROUTES: usize = 10_000;

/// Routes that `/config` lists because they are left out.
const MAX_LEFT_OUT: usize = 1_000;

/// What the admin page shows.
pub struct Admin {
    /// The configuration.
    pub control: Arc<Control>,
    /// The numbers.
    pub registry: Arc<Registry>,
    /// The route registry, if there is one.
    pub routes: Option<Arc<RouteRegistry>>,
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
            "/healthz" => answer(StatusCode::OK, TEXT, "ok\n"),
            "/readyz" => self.ready(),
            "/routes" => page::json(&self.routes(MAX_ROUTES)),
            "/config" => {
                let registry = self.control.registry_status(MAX_LEFT_OUT);
                page::json(&describe(&self.control.status(), &registry))
            }
            "/explain" => self.explain(request),
            _ => answer(StatusCode::NOT_FOUND, TEXT, "404 Not Found\n"),
        }
    }

    /// Routes that were known before are as good as new ones; none at all would be 404 for everybody,
    /// where another router may know better.
    fn ready(&self) -> Response {
        let Some(routes) = &self.routes else {
            return answer(StatusCode::OK, TEXT, "ok\n");
        };
        if !routes.knows_routes() {
            let text = "the route registry has not been reached yet, and no routes are known from before\n";
            return answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, text);
        }
        match self.registry.follow.stale_for(SystemTime::now()) {
            None => answer(StatusCode::OK, TEXT, "ok\n"),
            Some(seconds) if self.registry.follow.is_foreign() => {
                let text = format!(
                    "ok\nanother store answers than the routes in force came from: it has not been followed for \
                     {seconds} s, and the routes known last stay (the log says what to do)\n"
                );
                answer(StatusCode::OK, TEXT, text)
            }
            Some(seconds) => {
                let text = format!(
                    "ok\nthe route registry has been out of reach for {seconds} s: the routes known last are in force\n"
                );
                answer(StatusCode::OK, TEXT, text)
            }
        }
    }

    /// What happens to a URL here and now, routes of the registry included.
    fn explain(&self, request: &Request) -> Response {
        #[derive(Deserialize)]
        struct Asked {
            url: String,
        }
        let asked = Query::<Asked>::try_from_uri(request.uri());
        let Ok(Query(Asked { url })) = asked else {
            let text = "ask for /explain?url=https://www.example.org/\n";
            return answer(StatusCode::BAD_REQUEST, TEXT, text);
        };
        match Question::new(&url) {
            Err(wrong) => answer(StatusCode::BAD_REQUEST, TEXT, format!("{wrong}\n")),
            Ok(question) => {
                let snapshot = self.control.published().load_full();
                let explanation = explain(&snapshot, &question, SystemTime::now());
                answer(StatusCode::OK, TEXT, explanation.to_string())
            }
        }
    }

    /// The rules in force, at most so many. What is not listed is counted.
    fn routes(&self, most: usize) -> Value {
        let snapshot = self.control.published().load_full();
        let routes = listing::first_routes(&snapshot, most);
        let total = snapshot.routes.len();
        json!({
            "total": total,
            "not_listed": total - routes.len(),
            "routes": routes,
        })
    }
}

/// The configuration in force, the last load, and what of the registry is not in force.
fn describe(status: &Status, registry: &RegistryStatus) -> Value {
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
        "registry": {
            "routes": registry.routes,
            "left_out": registry.left_out,
            "not_in_force": registry.shown.iter().map(left_out).collect::<Vec<_>>(),
        },
    })
}

fn left_out(left_out: &LeftOut) -> Value {
    json!({
        "host": left_out.host.to_string(),
        "tenant": *left_out.tenant,
        "what": match left_out.why {
            LeftOutReason::Endpoints(_) => "endpoints",
            LeftOutReason::File(_) | LeftOutReason::NoEndpoint(_) => "route",
        },
        "why": left_out.why.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use config::route::UpstreamProtocol;

    use super::*;
    use crate::control::RegistryUpdate;
    use crate::control::tests::Files;
    use crate::registry::route::{RegistryEndpoint, RegistryRoute, RouteChange};

    fn admin(files: &Files) -> Admin {
        let registry = Arc::new(Registry::new(SystemTime::now()));
        let control = Arc::new(Control::start(&files.config(), Arc::clone(&registry)).unwrap());
        Admin {
            control,
            registry,
            routes: None,
        }
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
    fn routes_of_the_registry_show_and_those_left_out_with_the_reason() {
        let admin = admin(&Files::new());
        let announced = |host: &str| {
            RouteChange::Set(Arc::new(RegistryRoute {
                host: host.parse().unwrap(),
                tenant: "globex".into(),
                shared: false,
                protocol: UpstreamProtocol::Http1,
                endpoints: vec![RegistryEndpoint {
                    address: "10.0.0.1:80".parse().unwrap(),
                    tls: None,
                }],
                check: None,
            }))
        };
        let changes = ["www.example.org", "shop.example.org", "*.shop.example.org"];
        let changes = changes.map(announced).to_vec();
        admin
            .control
            .apply_registry(RegistryUpdate::Changes(changes));
        let routes = ask_json(&admin, "/routes");
        assert_eq!(
            (&routes["total"], &routes["not_listed"]),
            (&json!(3), &json!(0))
        );
        let sources: Vec<_> = routes["routes"].as_array().unwrap().iter().collect();
        let shown = |at: usize| {
            (
                &sources[at]["host"],
                &sources[at]["source"],
                sources[at].get("line"),
            )
        };
        assert_eq!(
            shown(0),
            (&json!("shop.example.org"), &json!("registry"), None)
        );
        assert_eq!(
            shown(1),
            (&json!("www.example.org"), &json!("file"), Some(&json!(6)))
        );
        assert_eq!(
            shown(2),
            (&json!("*.shop.example.org"), &json!("registry"), None)
        );
        let capped = admin.routes(2);
        assert_eq!(
            (&capped["total"], &capped["not_listed"]),
            (&json!(3), &json!(1))
        );
        assert_eq!(
            capped["routes"].as_array().unwrap()[..],
            routes["routes"].as_array().unwrap()[..2]
        );

        let config = ask_json(&admin, "/config");
        assert_eq!(config["generation"], 2);
        let registry = &config["registry"];
        assert_eq!(
            (&registry["routes"], &registry["left_out"]),
            (&json!(2), &json!(1))
        );
        let left_out = &registry["not_in_force"][0];
        assert_eq!(left_out["host"], "www.example.org");
        assert_eq!(left_out["tenant"], "globex");
        let why = left_out["why"].as_str().unwrap();
        assert!(
            why.starts_with("it stands in a file: ") && why.ends_with("acme.yaml:6 (tenant acme)"),
            "{why}"
        );
    }

    #[test]
    fn a_url_is_explained_with_what_the_registry_announces() {
        let files = Files::new();
        files.certificate("site", &["*.example.org"]);
        let admin = admin(&files);
        admin
            .control
            .apply_registry(RegistryUpdate::Reset(vec![Arc::new(RegistryRoute {
                host: "app.example.org".parse().unwrap(),
                tenant: "zeta".into(),
                shared: false,
                protocol: UpstreamProtocol::Http1,
                endpoints: vec![RegistryEndpoint {
                    address: "10.0.0.9:31380".parse().unwrap(),
                    tls: None,
                }],
                check: None,
            })]));
        let (status, text) = ask(&admin, "/explain?url=https%3A%2F%2Fapp.example.org%2F");
        assert_eq!(status, StatusCode::OK);
        assert!(
            text.contains("zeta") && text.contains("10.0.0.9:31380"),
            "{text}"
        );
        for wrong in ["/explain", "/explain?url=ftp://x"] {
            assert_eq!(ask(&admin, wrong).0, StatusCode::BAD_REQUEST, "{wrong}");
        }
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
