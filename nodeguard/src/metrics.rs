//! Every metric of the node guard, by name, in the Prometheus text format.

use std::collections::BTreeMap;

use daemon::prometheus::{Kind, Page};

use crate::drops::Key;
use crate::status::{Health, Status};

/// What the page shows.
pub struct Numbers<'a> {
    /// How the guard is doing.
    pub status: &'a Status,
    /// Drops since the daemon started.
    pub drops: &'a BTreeMap<Key, u64>,
    /// Frames that BPF left to nftables without a judgement, by why.
    pub unparsed: &'a [(&'static str, u64)],
    /// Drops of BPF that nobody was told of one by one, for there were too many.
    pub lost_events: u64,
    /// Reloads of the files that were followed, and that were refused.
    pub reloads: (u64, u64),
}

/// The page.
#[must_use]
pub fn render(numbers: &Numbers<'_>) -> String {
    let status = numbers.status;
    let mut page = Page::default();
    page.family(
        "nodeguard_build_info",
        Kind::Gauge,
        "Always 1; the labels say what runs where.",
    );
    page.sample(
        &[
            ("version", env!("CARGO_PKG_VERSION")),
            ("cluster", &status.cluster),
            ("node", &status.node),
            ("role", &status.role),
        ],
        1,
    );
    page.family(
        "nodeguard_dropped_packets_total",
        Kind::Counter,
        "Packets dropped, by plane, reason, family, protocol and port.",
    );
    for (key, packets) in numbers.drops {
        let port = key.port.map_or(String::new(), |(_, port)| port.to_string());
        page.sample(
            &[
                ("plane", key.plane.as_str()),
                ("reason", key.reason.as_str()),
                ("family", key.family.as_str()),
                ("protocol", key.port.map_or("", |(it, _)| it.as_str())),
                ("port", &port),
            ],
            *packets,
        );
    }
    page.family(
        "nodeguard_unparsed_frames_total",
        Kind::Counter,
        "Frames that BPF left to nftables because it could not read them.",
    );
    for (why, frames) in numbers.unparsed {
        page.sample(&[("why", why)], *frames);
    }
    page.counter(
        "nodeguard_lost_events_total",
        "Drops of BPF that were counted but not logged, for there were too many at once.",
        numbers.lost_events,
    );
    page.family(
        "nodeguard_repairs_total",
        Kind::Counter,
        "What others broke and the daemon mended.",
    );
    for (what, count) in status.daemon.iter().flat_map(|daemon| &daemon.repairs) {
        page.sample(&[("what", what)], *count);
    }
    page.family(
        "nodeguard_followed_total",
        Kind::Counter,
        "Devices and addresses of the node that came or went and were taken in.",
    );
    for (what, count) in status.daemon.iter().flat_map(|daemon| &daemon.followed) {
        page.sample(&[("what", what)], *count);
    }
    page.family(
        "nodeguard_reloads_total",
        Kind::Counter,
        "Reloads of the files, by outcome.",
    );
    let (followed, refused) = numbers.reloads;
    page.sample(&[("outcome", "followed")], followed);
    page.sample(&[("outcome", "refused")], refused);
    page.gauge(
        "nodeguard_last_reload_refused",
        "1 while the files are not what is enforced.",
        u64::from(
            status
                .daemon
                .as_ref()
                .is_some_and(|it| !it.refused.is_empty()),
        ),
    );
    page.family(
        "nodeguard_health",
        Kind::Gauge,
        "1 for what holds: ok, degraded (shut, but something is missing) or open.",
    );
    for (health, name) in [
        (Health::Ok, "ok"),
        (Health::Degraded, "degraded"),
        (Health::Open, "open"),
    ] {
        page.sample(&[("health", name)], u64::from(status.health == health));
    }
    page.family(
        "nodeguard_enforcing",
        Kind::Gauge,
        "1 if a plane is in place.",
    );
    page.sample(
        &[("plane", "nftables")],
        u64::from(status.nftables.enforcing),
    );
    page.sample(&[("plane", "bpf")], u64::from(status.bpf.loaded));
    page.family(
        "nodeguard_device_attached",
        Kind::Gauge,
        "1 if BPF is attached to the device, in the mode of the label.",
    );
    for device in &status.bpf.devices {
        let labels = [
            ("device", &*device.name),
            ("mode", device.attached.as_str()),
        ];
        page.sample(&labels, u64::from(device.attached != "off"));
    }
    if let Some(policy) = &status.policy {
        page.gauge(
            "nodeguard_policy_peers",
            "Addresses and ranges of nodes and routers that are let in.",
            policy.peers as u64,
        );
        page.gauge(
            "nodeguard_policy_applied_timestamp_seconds",
            "When the policy was put in force.",
            policy.applied,
        );
        page.family(
            "nodeguard_policy_origin",
            Kind::Gauge,
            "Where the policy in force came from: files, the last good one, or none (shut).",
        );
        page.sample(&[("origin", &policy.origin)], 1);
    }
    page.finish()
}
