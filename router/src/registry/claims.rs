//! May a tenant claim a name, with these endpoints? Pure: what was read of the store goes in, the
//! verdict comes out, and the [`Basis`] that it rests on is a condition of the transaction.
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
use std::collections::BTreeSet;
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

/// Everything in the store that verdicts on claims rest on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Basis {
    /// What is read.
    pub records: BTreeSet<Range>,
    /// Where keys are enough, for they say whose names lie beneath a suffix: there may be very many.
    pub keys: BTreeSet<Range>,
}

impl Basis {
    /// Of one claim.
    #[must_use]
    pub fn of(tenant: &str, host: &HostMatch, shared: bool) -> Self {
        let mut records = BTreeSet::from([keys::zones(tenant), keys::sources(host)]);
        let wider = host.wider_suffixes();
        records.extend(wider.map(|suffix| keys::sources(&HostMatch::Suffix(suffix.to_owned()))));
        let mut within = BTreeSet::new();
        if let HostMatch::Suffix(suffix) = host
            && !shared
        {
            within.insert(keys::within(suffix));
        }
        Self {
            records,
            keys: within,
        }
    }

    /// Takes in what others rest on.
    pub fn add(&mut self, other: Self) {
        self.records.extend(other.records);
        self.keys.extend(other.keys);
    }

    /// How many ranges there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len() + self.keys.len()
    }

    /// Whether nothing matters.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<R: AsRef<[Range]> + ?Sized> From<&R> for Basis {
    fn from(records: &R) -> Self {
        Self {
            records: records.as_ref().iter().cloned().collect(),
            keys: BTreeSet::new(),
        }
    }
}

/// Judges a claim by what stands in its [`Basis`]; more may be among `found`. A claim that may be
/// made rests on zones, whose keys come back: they must still be there when it is. There are as many
/// as its endpoints need, at most one for each.
///
/// # Errors
/// Why the name is not the tenant's to hold.
pub fn judge(claim: Claim<'_>, found: &[KeyValue]) -> Result<Vec<String>, Refusal> {
    let mut covering = Vec::new();
    let zones = keys::zones(claim.tenant);
    for entry in found.iter().filter(|it| zones.contains(&it.key)) {
        if let Some(Key::Zone { tenant, pattern }) = Key::parse(&entry.key)
            && tenant == claim.tenant
            && zone_covers(&pattern, claim.host)
            // A zone that cannot be read allows nothing.
            && let Ok(zone) = serde_json::from_slice::<Zone>(&entry.value)
        {
            covering.push((entry.key.as_str(), zone));
        }
    }
    let resting_on = allowing(&covering, claim.endpoints)?;
    for entry in found {
        // Others' keys alone are taken apart: of the tenant's own there may be very many.
        if keys::holder(&entry.key).is_none_or(|holder| holder == claim.tenant) {
            continue;
        }
        let Some(Key::Route { host, tenant, .. }) = Key::parse(&entry.key) else {
            continue;
        };
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

/// Why a claim of a suffix is refused by these names beneath it, if it is.
pub fn taken_by_suffix<'a>(
    claim: Claim<'_>,
    mut names: impl Iterator<Item = (&'a HostMatch, &'a str)>,
) -> Option<Refusal> {
    let (name, tenant) = names.find(|(name, tenant)| {
        *tenant != claim.tenant && !claim.shared && claim.host.covers(name)
    })?;
    let by = tenant.to_owned();
    Some(match name == claim.host {
        true => Refusal::Held { by },
        false => Refusal::Above {
            name: name.clone(),
            by,
        },
    })
}

/// As many of the zones that cover a name as its endpoints need.
fn allowing(covering: &[(&str, Zone)], endpoints: &[SocketAddr]) -> Result<Vec<String>, Refusal> {
    if covering.is_empty() {
        return Err(Refusal::OutsideZones);
    }
    let mut chosen: Vec<&(&str, Zone)> = Vec::new();
    for endpoint in endpoints {
        let has = |zone: &Zone| {
            let mut ranges = zone.addresses.iter();
            ranges.any(|range| leases(range, endpoint.ip()))
        };
        if chosen.iter().any(|(_, zone)| has(zone)) {
            continue;
        }
        match covering.iter().find(|(_, zone)| has(zone)) {
            Some(zone) => chosen.push(zone),
            None => return Err(Refusal::AddressOutsideZones(*endpoint)),
        }
    }
    Ok(chosen.into_iter().map(|it| it.0.to_owned()).collect())
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
    fn a_claim_rests_on_no_more_zones_than_its_endpoints_need() {
        let zones = [
            zone("acme", "*.acme.org", "10.0.6.0/24"),
            zone("acme", "*-7.acme.org", "10.0.7.0/24"),
            zone("acme", "a-7.acme.org", "10.0.0.0/8"),
            zone("acme", "*.acme.net", "10.0.0.0/8"),
        ];
        let rests_on = |endpoints: &[&str]| {
            let endpoints: Vec<_> = endpoints.iter().map(|it| it.parse().unwrap()).collect();
            let claim = Claim {
                tenant: "acme",
                host: &host("a-7.acme.org"),
                shared: false,
                endpoints: &endpoints,
            };
            judge(claim, &zones).map(|zones| zones.len())
        };
        assert_eq!(rests_on(&["10.0.7.1:1", "10.0.7.2:1"]), Ok(1));
        assert_eq!(rests_on(&["10.0.6.1:1", "10.0.7.2:1"]), Ok(2));
        assert_eq!(rests_on(&["10.1.0.1:1", "10.0.7.2:1"]), Ok(1));
        rests_on(&["10.0.7.1:1", "192.0.2.1:1"]).unwrap_err();
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
            let basis = Basis::of("acme", &ours, shared);
            let within = |ranges: &BTreeSet<Range>, key: &str| ranges.iter().any(|range| range.contains(key));
            let seen: Vec<_> = found.iter().filter_map(|it| {
                if within(&basis.records, &it.key) {
                    return Some(it.clone());
                }
                let value = bytes::Bytes::new();
                within(&basis.keys, &it.key).then(|| KeyValue { value, ..it.clone() })
            }).collect();
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
