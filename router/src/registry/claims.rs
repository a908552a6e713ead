//! May a tenant claim a name, with these endpoints? Pure: what was read of the store goes in, the
//! verdict comes out, and the ranges that it rests on are conditions of the transaction.
//!
//! A name is free for a tenant if
//! - one of its zones covers it, and each endpoint is in an address range of such a zone. An address
//!   that is this router's own affair (loopback, link-local: cloud metadata, the admin page) must be
//!   meant: a range that holds such addresses and others does not lease them;
//! - nobody else has a source under this very rule;
//! - no wider suffix of somebody else takes it, unless that one is shared;
//! - if it is a suffix: it takes no name of somebody else, unless it is shared itself.
//!
//! So a second claimant is refused before it gets any traffic, and the order of claims is the order
//! of the store's transactions, not of anybody's clock.

use std::borrow::Borrow;
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use config::net::IpRange;
use config::route::HostMatch;

use super::keys::{self, Key};
use super::record::{RouteSource, Zone};
use super::store::{KeyValue, Range};

/// A name that a tenant wants to hold.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Who wants it.
    pub tenant: &'a str,
    /// The name.
    pub host: &'a HostMatch,
    /// Whether others may hold narrower names beneath it.
    pub shared: bool,
    /// Where its requests are to go.
    pub endpoints: &'a [SocketAddr],
}

/// Why a tenant may not hold a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No zone of the tenant covers the name.
    OutsideZones,
    /// No zone that covers the name has this address.
    AddressOutsideZones(SocketAddr),
    /// Another tenant holds this very rule.
    Held {
        /// Who.
        by: String,
    },
    /// A suffix of another tenant takes the name.
    Within {
        /// The suffix.
        suffix: HostMatch,
        /// Whose it is.
        by: String,
    },
    /// The suffix takes a name that another tenant holds.
    Above {
        /// The name.
        name: HostMatch,
        /// Whose it is.
        by: String,
    },
}

/// Everything in the store that the verdict on a claim rests on.
#[must_use]
pub fn ranges(tenant: &str, host: &HostMatch) -> Vec<Range> {
    let mut ranges = vec![keys::zones(tenant), keys::sources(host)];
    let wider = host.wider_suffixes();
    ranges.extend(wider.map(|suffix| keys::sources(&HostMatch::Suffix(suffix.to_owned()))));
    if let HostMatch::Suffix(suffix) = host {
        ranges.push(keys::within(suffix));
    }
    ranges
}

/// Judges a claim by what stands in its [`ranges`]; more may be among `found`. A claim that may be
/// made rests on zones, whose keys come back: they must still be there when it is.
///
/// # Errors
/// Why the name is not the tenant's to hold.
pub fn judge(claim: Claim<'_>, found: &[KeyValue]) -> Result<Vec<String>, Refusal> {
    let mut covering = Vec::new();
    let mut resting_on = Vec::new();
    for entry in found {
        if let Some(Key::Zone { tenant, pattern }) = Key::parse(&entry.key)
            && tenant == claim.tenant
            && zone_covers(&pattern, claim.host)
            // A zone that cannot be read allows nothing.
            && let Ok(zone) = serde_json::from_slice::<Zone>(&entry.value)
        {
            covering.push(zone);
            resting_on.push(entry.key.clone());
        }
    }
    if covering.is_empty() {
        return Err(Refusal::OutsideZones);
    }
    let stray = outside(&covering, claim.endpoints);
    if let Some(stray) = stray {
        return Err(Refusal::AddressOutsideZones(*stray));
    }
    for entry in found {
        let Some(Key::Route { host, tenant, .. }) = Key::parse(&entry.key) else {
            continue;
        };
        if tenant == claim.tenant {
            continue;
        }
        let by = tenant.to_owned();
        if host == *claim.host {
            return Err(Refusal::Held { by });
        }
        if host.covers(claim.host) && !is_shared(entry) {
            return Err(Refusal::Within { suffix: host, by });
        }
        if claim.host.covers(&host) && !claim.shared {
            return Err(Refusal::Above { name: host, by });
        }
    }
    Ok(resting_on)
}

/// Addresses that mean something else on every machine, and are leased by ranges within them only.
const LOCAL: [&str; 4] = ["127.0.0.0/8", "::1", "169.254.0.0/16", "fe80::/10"];
/// Addresses that are nobody's endpoint, whatever a zone says.
const NOBODYS: [&str; 5] = [
    "0.0.0.0/8",
    "224.0.0.0/4",
    "255.255.255.255",
    "::",
    "ff00::/8",
];

/// [`LOCAL`] and [`NOBODYS`], read.
static KINDS: LazyLock<[Vec<IpRange>; 2]> = LazyLock::new(|| {
    let read = |texts: &[&str]| {
        let ranges = texts.iter().map(|text| IpRange::parse(text));
        ranges
            .collect::<Result<_, _>>()
            .expect("these are ranges, as a test reads")
    };
    [read(&LOCAL), read(&NOBODYS)]
});

/// Whether a zone's range leases an address. IPv4 is judged as IPv4, however it is written.
fn leases(range: &IpRange, address: IpAddr) -> bool {
    let [local, nobodys] = &*KINDS;
    let holds = |kind: &&IpRange| kind.contains(address);
    range.contains(address)
        && !nobodys.iter().any(|kind| holds(&kind))
        && local
            .iter()
            .filter(holds)
            .all(|kind| kind.contains(range.base()) && kind.prefix() <= range.prefix())
}

/// The first endpoint whose address is in none of these zones.
pub(super) fn outside<'a>(
    zones: &[impl Borrow<Zone>],
    endpoints: &'a [SocketAddr],
) -> Option<&'a SocketAddr> {
    endpoints.iter().find(|endpoint| {
        let mut ranges = zones.iter().flat_map(|zone| &zone.borrow().addresses);
        !ranges.any(|range| leases(range, endpoint.ip()))
    })
}

/// Whether a zone leases a name, or every name of a suffix rule. Other than a rule's star, a zone's
/// stands for any number of labels: `*.example.org` is everything beneath `example.org`.
#[must_use]
pub fn zone_covers(pattern: &HostMatch, host: &HostMatch) -> bool {
    match (pattern, host) {
        (HostMatch::Exact(leased), HostMatch::Exact(name)) => leased == name,
        (HostMatch::Exact(_), HostMatch::Suffix(_)) => false,
        (HostMatch::Suffix(leased), HostMatch::Exact(name)) => name
            .as_str()
            .strip_suffix(leased.as_str())
            .is_some_and(|rest| !rest.is_empty()),
        (HostMatch::Suffix(leased), HostMatch::Suffix(suffix)) => suffix.ends_with(leased.as_str()),
    }
}

/// Whether some name may be in both zones.
#[must_use]
pub fn zones_overlap(a: &HostMatch, b: &HostMatch) -> bool {
    zone_covers(a, b) || zone_covers(b, a)
}

/// One that cannot be read is not shared.
fn is_shared(entry: &KeyValue) -> bool {
    serde_json::from_slice::<RouteSource>(&entry.value).is_ok_and(|source| source.shared)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::registry::store::Revision;

    fn host(text: &str) -> HostMatch {
        HostMatch::parse(text).unwrap()
    }

    fn entry(key: String, value: String) -> KeyValue {
        KeyValue {
            key,
            value: value.into(),
            created: Revision(1),
            modified: Revision(1),
            lease: None,
        }
    }

    fn zone(tenant: &str, pattern: &str, addresses: &str) -> KeyValue {
        let value = format!(r#"{{"addresses":["{addresses}"]}}"#);
        entry(keys::zone(tenant, &host(pattern)), value)
    }

    fn held(tenant: &str, name: &str, shared: bool) -> KeyValue {
        let value = format!(r#"{{"endpoints":["10.0.0.1:1"],"shared":{shared}}}"#);
        entry(keys::route(&host(name), tenant, "w1"), value)
    }

    fn claim(name: &str, shared: bool, address: &str, found: &[KeyValue]) -> Result<(), Refusal> {
        let endpoints = [address.parse().unwrap()];
        let claim = Claim {
            tenant: "acme",
            host: &host(name),
            shared,
            endpoints: &endpoints,
        };
        judge(claim, found).map(drop)
    }

    const INSIDE: &str = "10.0.7.1:31390";

    #[test]
    fn a_zone_leases_names_and_addresses() {
        let zones = [
            zone("acme", "*.acme.org", "10.0.7.0/24"),
            zone("acme", "acme.net", "10.0.8.0/24"),
            zone("other", "*.other.org", "10.0.9.0/24"),
        ];
        let outside = Err(Refusal::OutsideZones);
        for (name, expected) in [
            ("www.acme.org", Ok(())),
            ("a.b.acme.org", Ok(())),
            ("*-7.acme.org", Ok(())),
            ("*.acme.org", Ok(())),
            ("acme.org", outside.clone()),
            ("www.other.org", outside.clone()),
            ("wwwacme.org", outside.clone()),
            ("*.acme.net", outside.clone()),
        ] {
            assert_eq!(claim(name, false, INSIDE, &zones), expected, "{name}");
        }
        let stray = "10.0.8.1:31390";
        assert_eq!(claim("acme.net", false, stray, &zones), Ok(()));
        let stray = Err(Refusal::AddressOutsideZones(stray.parse().unwrap()));
        assert_eq!(
            claim("www.acme.org", false, "10.0.8.1:31390", &zones),
            stray
        );
        let unreadable = [entry(keys::zone("acme", &host("*.acme.org")), "{".into())];
        assert_eq!(claim("www.acme.org", false, INSIDE, &unreadable), outside);
    }

    #[test]
    fn a_broad_zone_leases_nothing_that_is_local_to_routers() {
        let refused = |address: &str| {
            let stray = address.parse().unwrap();
            Err(Refusal::AddressOutsideZones(stray))
        };
        for (range, address, leased) in [
            ("0.0.0.0/1", "10.0.0.1:1", true),
            ("0.0.0.0/1", "127.0.0.1:9900", false),
            ("126.0.0.0/7", "127.0.0.1:9900", false),
            ("0.0.0.0/1", "[::ffff:127.0.0.1]:9900", false),
            ("0.0.0.0/0", "127.0.0.1:9900", false),
            ("128.0.0.0/1", "169.254.169.254:80", false),
            ("0.0.0.0/1", "0.0.0.0:80", false),
            ("0.0.0.0/8", "0.0.0.0:80", false),
            ("224.0.0.0/4", "224.0.0.1:80", false),
            ("::/1", "[::1]:9900", false),
            ("::/0", "[::1]:9900", false),
            ("8000::/1", "[fe80::1]:80", false),
            ("8000::/1", "[fd00::1]:80", true),
            ("ff00::/8", "[ff02::1]:80", false),
            // Meant.
            ("127.0.0.0/8", "127.0.0.1:9900", true),
            ("127.0.0.5", "127.0.0.5:80", true),
            ("127.0.0.0/8", "[::ffff:127.0.0.1]:9900", true),
            ("::ffff:127.0.0.0/104", "127.0.0.1:9900", true),
            ("::1", "[::1]:9900", true),
            ("169.254.7.0/24", "169.254.7.1:80", true),
            ("fe80::/10", "[fe80::1]:80", true),
        ] {
            let zone = [zone("acme", "*.acme.org", range)];
            let expected = if leased { Ok(()) } else { refused(address) };
            let judged = claim("www.acme.org", false, address, &zone);
            assert_eq!(judged, expected, "{range} {address}");
        }
    }

    #[test]
    fn what_another_holds_is_refused() {
        let by = || "other".to_owned();
        let zone = zone("acme", "*.x.org", "10.0.0.0/8");
        let cases = [
            (
                "www.x.org",
                "www.x.org",
                false,
                false,
                Err(Refusal::Held { by: by() }),
            ),
            (
                "*.x.org",
                "www.x.org",
                false,
                false,
                Err(Refusal::Within {
                    suffix: host("*.x.org"),
                    by: by(),
                }),
            ),
            ("*.x.org", "www.x.org", true, false, Ok(())),
            (
                "*.x.org",
                "*-7.x.org",
                false,
                false,
                Err(Refusal::Within {
                    suffix: host("*.x.org"),
                    by: by(),
                }),
            ),
            ("*.x.org", "a.b.x.org", false, false, Ok(())),
            (
                "www.x.org",
                "*.x.org",
                false,
                false,
                Err(Refusal::Above {
                    name: host("www.x.org"),
                    by: by(),
                }),
            ),
            ("www.x.org", "*.x.org", false, true, Ok(())),
            ("a.b.x.org", "*.x.org", false, false, Ok(())),
            (
                "*-a-7.x.org",
                "*-7.x.org",
                false,
                false,
                Err(Refusal::Above {
                    name: host("*-a-7.x.org"),
                    by: by(),
                }),
            ),
        ];
        for (theirs, ours, their_share, our_share, expected) in cases {
            let found = [held("other", theirs, their_share), zone.clone()];
            assert_eq!(
                claim(ours, our_share, INSIDE, &found),
                expected,
                "{theirs} {ours}"
            );
        }
    }

    fn rule() -> impl Strategy<Value = HostMatch> {
        "(\\*-|\\*\\.|)(a|b)(-(a|b)){0,2}\\.(x|y)\\.org"
            .prop_filter_map("no rule", |text| HostMatch::parse(&text).ok())
    }

    proptest! {
        /// What a verdict rests on is among the ranges that the transaction watches: leaving out
        /// everything else changes nothing.
        #[test]
        fn the_ranges_hold_all_that_matters(
            ours in rule(),
            theirs in proptest::collection::vec((rule(), any::<bool>()), 0..8),
            shared: bool,
        ) {
            let mut found: Vec<_> = theirs.iter().map(|(name, shared)| held("other", &name.to_string(), *shared)).collect();
            found.push(zone("acme", "*.x.org", "10.0.0.0/8"));
            found.push(zone("acme", "*.y.org", "10.0.0.0/8"));
            let ranges = ranges("acme", &ours);
            let seen: Vec<_> = found.iter().filter(|it| ranges.iter().any(|range| range.contains(&it.key))).cloned().collect();
            let endpoints = [INSIDE.parse().unwrap()];
            let claim = Claim { tenant: "acme", host: &ours, shared, endpoints: &endpoints };
            prop_assert_eq!(judge(claim, &found).is_ok(), judge(claim, &seen).is_ok());
        }

        /// Whoever comes second is judged as `config::route::owners` judges files.
        #[test]
        fn files_and_registry_agree(ours in rule(), theirs in rule(), shared: bool) {
            prop_assume!(ours != theirs);
            let found = [held("other", &theirs.to_string(), shared), zone("acme", "*.x.org", "10.0.0.0/8"), zone("acme", "*.y.org", "10.0.0.0/8")];
            let endpoints = [INSIDE.parse().unwrap()];
            let claim = Claim { tenant: "acme", host: &ours, shared, endpoints: &endpoints };
            let file = |tenant: &str, host: &HostMatch| {
                let text = format!("tenant: {tenant}\nupstreams:\n  u:\n    endpoints: [\"10.0.0.1:1\"]\nroutes:\n  - host: \"{host}\"\n    upstream: u\n    shared: {}\n",
                    shared && matches!(host, HostMatch::Suffix(_)));
                config::route::RouteFile::parse(&text, std::path::Path::new("f.yaml")).unwrap()
            };
            let files = [file("acme", &ours), file("other", &theirs)];
            let path = std::path::Path::new("f.yaml");
            let agreed = config::route::owners(files.iter().map(|it| (path, it))).is_ok();
            prop_assert_eq!(judge(claim, &found).is_ok(), agreed);
        }
    }
}
