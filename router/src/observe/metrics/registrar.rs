//! What a registrar counts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use daemon::prometheus::{Kind, Page};

/// What is known of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteNumbers {
    /// Its host rule.
    pub host: String,
    /// What is announced for it.
    pub endpoint: SocketAddr,
    /// `None` before its first check has ended.
    pub healthy: Option<bool>,
    /// Whether it stands in the registry, as far as is known.
    pub announced: bool,
    /// The stable word for why the registry does not take it.
    pub refused: Option<String>,
}

/// The numbers of a registrar. Any thread may write.
#[derive(Debug)]
pub struct RegistrarMetrics(Mutex<Numbers>);

#[derive(Debug)]
struct Numbers {
    routes: Vec<RouteNumbers>,
    configuration_refused: bool,
    /// At first, when it began.
    accepted: Instant,
    /// By registry and outcome.
    calls: BTreeMap<(String, &'static str), u64>,
}

/// A name, a text, and what is shown of each route.
type Flag = (&'static str, &'static str, fn(&RouteNumbers) -> bool);

impl RegistrarMetrics {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self(Mutex::new(Numbers {
            routes: Vec::new(),
            configuration_refused: false,
            accepted: now,
            calls: BTreeMap::new(),
        }))
    }

    /// How things are.
    pub fn show(&self, routes: Vec<RouteNumbers>, configuration_refused: bool) {
        let mut numbers = self.lock();
        numbers.routes = routes;
        numbers.configuration_refused = configuration_refused;
    }

    /// A call of a registry has ended.
    pub fn called(&self, registry: String, outcome: &'static str, now: Instant) {
        let mut numbers = self.lock();
        if outcome == "accepted" {
            numbers.accepted = now;
        }
        *numbers.calls.entry((registry, outcome)).or_default() += 1;
    }

    /// Why what ought to be announced is not; `None` if it is.
    #[must_use]
    pub fn not_ready(&self) -> Option<String> {
        let numbers = self.lock();
        let count = |are: fn(&RouteNumbers) -> bool| {
            numbers.routes.iter().filter(|route| are(route)).count()
        };
        let unknown = count(|route| route.healthy.is_none());
        let missing = count(|route| route.healthy == Some(true) && !route.announced);
        let of = numbers.routes.len();
        (of == 0 || unknown + missing > 0).then(|| {
            format!(
                "of {of} routes, {unknown} not checked yet, {missing} healthy and not announced"
            )
        })
    }

    /// In the Prometheus text format.
    #[must_use]
    pub fn render(&self, now: Instant) -> String {
        let numbers = self.lock();
        let mut page = Page::default();
        let flags: [Flag; 2] = [
            (
                "gatehouse_registrar_route_healthy",
                "1 if the route's checks say that its endpoint is healthy.",
                |route| route.healthy == Some(true),
            ),
            (
                "gatehouse_registrar_route_announced",
                "1 if the route stands in the registry, as far as is known.",
                |route| route.announced,
            ),
        ];
        for (name, help, is) in flags {
            page.family(name, Kind::Gauge, help);
            for route in &numbers.routes {
                let endpoint = route.endpoint.to_string();
                let labels = [("host", route.host.as_str()), ("endpoint", &endpoint)];
                page.sample(&labels, is(route).into());
            }
        }
        let mut refused: BTreeMap<&str, u64> = BTreeMap::new();
        for reason in numbers
            .routes
            .iter()
            .filter_map(|route| route.refused.as_deref())
        {
            *refused.entry(reason).or_default() += 1;
        }
        page.family(
            "gatehouse_registrar_routes_refused",
            Kind::Gauge,
            "Routes that the registry does not take, by its reason.",
        );
        for (reason, count) in refused {
            page.sample(&[("reason", reason)], count);
        }
        page.gauge(
            "gatehouse_registrar_last_accepted_seconds",
            "Seconds since a registry has accepted an announcement or a withdrawal; since the start if none has.",
            now.saturating_duration_since(numbers.accepted).as_secs(),
        );
        page.family(
            "gatehouse_registrar_calls_total",
            Kind::Counter,
            "Calls of registries: accepted, refused (what is announced), unwelcome (the caller), busy, failed.",
        );
        for ((registry, outcome), count) in &numbers.calls {
            page.sample(&[("registry", registry), ("outcome", outcome)], *count);
        }
        page.gauge(
            "gatehouse_registrar_configuration_refused",
            "1 if the files that are there now were refused and earlier ones are in force.",
            numbers.configuration_refused.into(),
        );
        page.finish()
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        // Whole values are put in, and counts are whole at every moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn route(name: &str, healthy: Option<bool>, announced: bool) -> RouteNumbers {
        RouteNumbers {
            host: format!("{name}.example.org"),
            endpoint: "10.0.7.21:443".parse().unwrap(),
            healthy,
            announced,
            refused: None,
        }
    }

    #[test]
    fn what_is_healthy_and_not_announced_is_not_ready() {
        let metrics = RegistrarMetrics::new(Instant::now());
        for (healthy, announced, ready) in [
            (None, false, false),
            (Some(true), false, false),
            (Some(true), true, true),
            (Some(false), false, true),
        ] {
            metrics.show(vec![route("a", healthy, announced)], false);
            assert_eq!(metrics.not_ready().is_none(), ready, "{healthy:?}");
        }
    }

    #[test]
    fn every_number_has_its_line() {
        let now = Instant::now();
        let metrics = RegistrarMetrics::new(now);
        let mut refused = route("b", Some(true), false);
        refused.refused = Some("outside-zones".to_owned());
        metrics.show(vec![route("a", Some(true), true), refused], true);
        let later = now + Duration::from_secs(60);
        metrics.called("https://edge-1:8444".to_owned(), "failed", now);
        metrics.called("https://edge-2:8444".to_owned(), "accepted", later);
        let text = metrics.render(later + Duration::from_secs(7));
        for line in [
            "route_healthy{host=\"b.example.org\",endpoint=\"10.0.7.21:443\"} 1",
            "route_announced{host=\"a.example.org\",endpoint=\"10.0.7.21:443\"} 1",
            "route_announced{host=\"b.example.org\",endpoint=\"10.0.7.21:443\"} 0",
            "routes_refused{reason=\"outside-zones\"} 1",
            "last_accepted_seconds 7",
            "calls_total{registry=\"https://edge-1:8444\",outcome=\"failed\"} 1",
            "calls_total{registry=\"https://edge-2:8444\",outcome=\"accepted\"} 1",
            "configuration_refused 1",
        ] {
            let line = format!("\ngatehouse_registrar_{line}\n");
            assert!(text.contains(&line), "{line}: {text}");
        }
    }
}
