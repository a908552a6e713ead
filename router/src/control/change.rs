//! Which changes of `router.yaml` a running process cannot make.

use config::router::RouterConfig;

/// Fields that differ from what the process was started with and take effect at its next start:
/// sockets, threads and the registry's parts are made once.
pub(super) fn needs_restart(started: &RouterConfig, now: &RouterConfig) -> Vec<&'static str> {
    let fields = [
        (
            "http.addresses",
            started.http.addresses != now.http.addresses,
        ),
        (
            "https.addresses",
            started.https.addresses != now.https.addresses,
        ),
        ("workers", started.workers != now.workers),
        ("admin", started.admin != now.admin),
        ("registry", started.registry != now.registry),
    ];
    fields
        .into_iter()
        .filter_map(|(field, differs)| differs.then_some(field))
        .collect()
}
