//! Counting, summing, and the page that comes of it.

use super::*;
use crate::observe::counters::{HISTOGRAM_HIGH, REASONS};

fn registry() -> Registry {
    Registry::new(UNIX_EPOCH + Duration::from_secs(1_700_000_000))
}

fn line<'a>(page: &'a str, start: &str) -> &'a str {
    page.lines()
        .find_map(|line| line.strip_prefix(start))
        .unwrap_or_else(|| panic!("no line starts with {start:?} in\n{page}"))
}

#[test]
fn shards_are_summed() {
    let registry = registry();
    let (one, two) = (registry.add_shard(), registry.add_shard());
    one.connection(Listener::Https);
    two.connection(Listener::Https);
    two.connection_closed(Listener::Https);
    one.request(ClientProtocol::Http2, 204, Duration::from_millis(3));
    two.request(ClientProtocol::Http2, 299, Duration::from_millis(3));
    two.request(ClientProtocol::Http1, 777, Duration::ZERO);
    let page = registry.render();
    assert_eq!(
        line(&page, "router_connections_total{listener=\"https\"} "),
        "2"
    );
    assert_eq!(
        line(&page, "router_connections_open{listener=\"https\"} "),
        "1"
    );
    assert_eq!(
        line(
            &page,
            "router_requests_total{protocol=\"h2\",status=\"2xx\"} "
        ),
        "2"
    );
    assert_eq!(
        line(
            &page,
            "router_requests_total{protocol=\"h1\",status=\"other\"} "
        ),
        "1"
    );
    assert_eq!(line(&page, "router_workers "), "2");
    assert_eq!(line(&page, "process_start_time_seconds "), "1700000000");
}

#[test]
fn buckets_are_cumulative_and_their_bounds_belong_to_them() {
    let registry = registry();
    let shard = registry.add_shard();
    for microseconds in [0, 64, 65, 128, 129] {
        shard
            .request_duration
            .record(Duration::from_micros(microseconds));
    }
    shard.request_duration.record(Duration::from_secs(3600));
    let page = registry.render();
    let bucket = |le: &str| {
        line(
            &page,
            &format!("router_request_duration_seconds_bucket{{le=\"{le}\"}} "),
        )
    };
    assert_eq!(bucket("0.000064"), "2");
    assert_eq!(bucket("0.000128"), "4");
    assert_eq!(bucket("0.000256"), "5");
    assert_eq!(bucket("67.108864"), "5");
    assert_eq!(bucket("+Inf"), "6");
    assert_eq!(line(&page, "router_request_duration_seconds_count "), "6");
    assert_eq!(
        line(&page, "router_request_duration_seconds_sum "),
        "3600.000386"
    );
}

#[test]
fn every_duration_has_the_smallest_bucket_that_holds_it() {
    for exponent in HISTOGRAM_LOW..=HISTOGRAM_HIGH {
        let bound = 1_u64 << exponent;
        let index = (exponent - HISTOGRAM_LOW) as usize;
        assert_eq!(Histogram::bucket(bound), index);
        assert_eq!(Histogram::bucket(bound + 1), index + 1);
    }
    assert_eq!(Histogram::bucket(u64::MAX), HISTOGRAM_BUCKETS);
}

#[test]
fn reasons_of_one_name_are_one_line_wherever_the_literal_lies() {
    let registry = registry();
    let (one, two) = (registry.add_shard(), registry.add_shard());
    let elsewhere: &'static str = String::from("two-hosts").leak();
    one.refusals.increment("two-hosts");
    one.refusals.increment("two-hosts");
    one.refusals.increment(elsewhere);
    two.refusals.increment("obs-fold");
    let page = registry.render();
    assert_eq!(
        line(&page, "router_refusals_total{reason=\"two-hosts\"} "),
        "3"
    );
    assert_eq!(
        line(&page, "router_refusals_total{reason=\"obs-fold\"} "),
        "1"
    );
}

#[test]
fn more_reasons_than_slots_are_still_counted() {
    let reasons = Reasons::default();
    for n in 0..REASONS + 10 {
        reasons.increment(format!("reason-{n}").leak());
    }
    assert_eq!(
        reasons.values().map(|(_, n)| n).sum::<u64>(),
        REASONS as u64 + 10
    );
    assert!(reasons.values().any(|value| value == ("other", 10)));
}

#[test]
fn a_failed_reload_shows_until_one_succeeds() {
    let registry = registry();
    registry.control.reload_failed();
    let page = registry.render();
    assert_eq!(line(&page, "router_last_reload_failed "), "1");
    assert!(!page.contains("expiry"), "no certificate, no expiry");
    let at = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let size = SnapshotSize {
        generation: 3,
        soonest_expiry: Some(at),
        ..SnapshotSize::default()
    };
    registry.control.reload_succeeded(UNIX_EPOCH, size);
    let page = registry.render();
    assert_eq!(line(&page, "router_last_reload_failed "), "0");
    assert_eq!(line(&page, "router_snapshot_generation "), "3");
    let expiry = line(
        &page,
        "router_certificate_soonest_expiry_timestamp_seconds ",
    );
    assert_eq!(expiry, "1800000000");
}

#[test]
fn a_gauge_does_not_wrap_below_zero() {
    let gauge = Gauge::default();
    gauge.decrement();
    assert_eq!(gauge.value(), 0);
}

#[test]
fn every_line_is_of_the_exposition_format() {
    let registry = registry();
    registry.add_shard().refusals.increment("x");
    let page = registry.render();
    let mut families = std::collections::HashSet::new();
    let mut family = String::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(families.insert(family.clone()), "{family} stands twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert_eq!(rest.split(' ').next(), Some(&*family));
        } else {
            assert!(line.starts_with(&family), "{line:?} is outside of {family}");
            let value = line.rsplit(' ').next().unwrap();
            value.parse::<f64>().unwrap();
        }
    }
    assert!(page.ends_with('\n'));
}
