//! Properties that hold for every input, against naive models.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use config::cluster::ClusterSpec;
use config::document::Position;
use config::guard::{GuardConfig, PeerFile};
use config::net::{HostName, IpRange, parse_duration, parse_size};
use config::registrar::RegistrarConfig;
use config::route::{HostMatch, Route, RouteFile, owners};
use config::router::RouterConfig;
use proptest::prelude::*;

/// Fragments from which texts close to our files are made: plain random text hardly ever gets
/// past the first line.
fn yaml_like() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("routes"),
        Just("upstreams"),
        Just("tenant"),
        Just("certificates"),
        Just("host"),
        Just("https"),
        Just("addresses"),
        Just("endpoints"),
        Just("timeouts"),
        Just("masters"),
        Just("*.example.org"),
        Just("10.0.0.1:80"),
        Just("[::]:443"),
        Just("1m30s"),
        Just("~"),
        Just("0x1F"),
        Just("1e9"),
        Just("9999999999999999999999999999999999999999999"),
        Just("&a"),
        Just("*a"),
        Just("!!str"),
        Just("---"),
        Just("..."),
        Just("? "),
        Just("%YAML"),
        Just(": "),
        Just("- "),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(", "),
        Just("\""),
        Just("'"),
        Just("|"),
        Just(">-"),
        Just("#"),
        Just("\\x"),
        Just("\\U"),
        Just("\n"),
        Just("\n  "),
        Just("\n    "),
        Just("\r\n"),
        Just("\r"),
        Just("\t"),
        Just("\u{FEFF}"),
        Just("\u{85}"),
        Just("\u{2028}"),
        Just("ä"),
        Just("𝄞"),
        Just("\0"),
    ];
    prop::collection::vec(word, 0..60).prop_map(|words| words.concat())
}

type Accepts = fn(&str) -> bool;

/// Each kind of file: its schema's name, an example, and whether its parser accepts a text.
const KINDS: [(&str, &str, Accepts); 6] = [
    ("router", include_str!("../examples/router.yaml"), |text| {
        RouterConfig::parse(text, here()).is_ok()
    }),
    (
        "routes",
        include_str!("../examples/routes.d/globex.yaml"),
        |text| RouteFile::parse(text, here()).is_ok(),
    ),
    (
        "nodeguard",
        include_str!("../examples/nodeguard.yaml"),
        |text| GuardConfig::parse(text, here()).is_ok(),
    ),
    (
        "peers",
        include_str!("../examples/peers.d/cluster.yaml"),
        |text| PeerFile::parse(text, here()).is_ok(),
    ),
    (
        "registrar",
        include_str!("../examples/registrar.yaml"),
        |text| RegistrarConfig::parse(text, here()).is_ok(),
    ),
    (
        "cluster",
        include_str!("../examples/cluster.yaml"),
        |text| ClusterSpec::parse(text, here()).is_ok(),
    ),
];

fn here() -> &'static Path {
    Path::new("f.yaml")
}

/// A kind, and its example with one stretch of it replaced.
fn damaged(patch: impl Strategy<Value = String>) -> impl Strategy<Value = (usize, String)> {
    (
        0..KINDS.len(),
        any::<prop::sample::Index>(),
        0..12_usize,
        patch,
    )
        .prop_map(|(kind, from, length, patch)| {
            let chars: Vec<char> = KINDS[kind].1.chars().collect();
            let from = from.index(chars.len());
            let to = (from + length).min(chars.len());
            let parts = [
                &chars[..from],
                &patch.chars().collect::<Vec<_>>(),
                &chars[to..],
            ];
            (kind, parts.concat().into_iter().collect())
        })
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|bytes| IpAddr::V4(bytes.into())),
        any::<[u8; 16]>().prop_map(|bytes| IpAddr::V6(bytes.into())),
        any::<[u8; 4]>().prop_map(|bytes| IpAddr::V6(Ipv4Addr::from(bytes).to_ipv6_mapped())),
        // Close neighbours, so that ranges are hit.
        (0..64_u32).prop_map(|low| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | low))),
        (0..64_u128).prop_map(|low| IpAddr::V6(Ipv6Addr::from_bits((0xfd00 << 112) | low))),
    ]
}

fn bits(address: IpAddr) -> Vec<bool> {
    let bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1))
        .collect()
}

/// Rules over a small alphabet, so that equal and nested ones are frequent.
fn rule() -> impl Strategy<Value = String> {
    ("(\\*[-.])?[ab](-[ab]){0,2}(\\.[ab]){0,1}\\.z")
        .prop_filter("a rule", |text| HostMatch::parse(text).is_ok())
}

fn file(tenant: u8, rules: &[(String, bool)], first_line: usize) -> RouteFile {
    let routes = rules
        .iter()
        .enumerate()
        .map(|(index, (host, shared))| Route {
            host: HostMatch::parse(host).unwrap(),
            upstream: "u".into(),
            shared: *shared,
            position: Position {
                line: first_line + index,
                column: 1,
            },
        });
    RouteFile {
        tenant: format!("t{tenant}"),
        upstreams: Vec::new(),
        routes: routes.collect(),
    }
}

/// Whether every name that `narrow` takes is taken by the suffix rule `wide`: tried with stars
/// that nobody else uses.
fn within(narrow: &HostMatch, wide: &HostMatch) -> bool {
    if narrow == wide || !matches!(wide, HostMatch::Suffix(_)) {
        return false;
    }
    match narrow {
        HostMatch::Exact(name) => wide.matches(name.as_str()),
        HostMatch::Suffix(suffix) => wide.matches(&format!("q{suffix}")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        config::fuzz_parse(&text);
    }

    #[test]
    fn yaml_like_text_never_panics(text in yaml_like()) {
        config::fuzz_parse(&text);
    }

    #[test]
    fn host_names_are_what_rfc_1123_says(text in "[a-zA-Z0-9._-]{0,20}(\\.[a-z0-9-]{0,70}){0,5}") {
        let bare = text.strip_suffix('.').unwrap_or(&text);
        let labels: Vec<&str> = bare.split('.').collect();
        let right = bare.len() <= 253
            && labels.iter().all(|label| {
                (1..=63).contains(&label.len())
                    && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                    && !label.starts_with('-')
                    && !label.ends_with('-')
            })
            && labels.last().unwrap().chars().any(|c| !c.is_ascii_digit());
        let parsed = HostName::parse(&text);
        prop_assert_eq!(parsed.is_ok(), right, "{}", text);
        if let Ok(name) = parsed {
            prop_assert_eq!(name.as_str(), bare.to_lowercase());
            prop_assert_eq!(&HostName::parse(name.as_str()).unwrap(), &name);
        }
    }

    #[test]
    fn a_range_holds_what_shares_its_first_bits(base in address(), length in 0..=128_u8, asked in address()) {
        let base = base.to_canonical();
        let width = bits(base).len();
        let length = usize::from(length).min(width);
        let mut masked = bits(base);
        masked[length..].fill(false);
        let network: IpAddr = {
            let bytes: Vec<u8> = masked.chunks(8).map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | u8::from(*bit))).collect();
            match <[u8; 4]>::try_from(bytes.as_slice()) {
                Ok(bytes) => IpAddr::V4(bytes.into()),
                Err(_) => IpAddr::V6(<[u8; 16]>::try_from(bytes.as_slice()).unwrap().into()),
            }
        };
        let range = IpRange::parse(&format!("{network}/{length}")).unwrap();
        let asked_bits = bits(asked.to_canonical());
        let expected = asked_bits.len() == width && asked_bits[..length] == masked[..length];
        prop_assert_eq!(range.contains(asked), expected, "{} in {}", asked, range);
        prop_assert!(range.contains(network));
        prop_assert_eq!(IpRange::parse(&range.to_string()).unwrap(), range);
        if network != base {
            let unmasked = format!("{base}/{length}");
            prop_assert!(IpRange::parse(&unmasked).is_err());
        }
    }

    #[test]
    fn the_owner_check_agrees_with_comparing_all_pairs(
        tenants in prop::collection::vec((0..3_u8, prop::collection::vec((rule(), any::<bool>()), 0..5)), 0..5),
    ) {
        let files: Vec<(PathBuf, RouteFile)> = tenants
            .iter()
            .enumerate()
            .map(|(index, (tenant, rules))| {
                (PathBuf::from(format!("{index}.yaml")), file(*tenant, rules, 1 + index * 100))
            })
            .collect();
        let mut all: Vec<(&str, &Route)> = Vec::new();
        let mut conflicts = Vec::new();
        for (tenant, route) in files.iter().flat_map(|(_, file)| {
            file.routes.iter().map(move |route| (file.tenant.as_str(), route))
        }) {
            if all.iter().any(|(_, other)| other.host == route.host) {
                conflicts.push(route.position.line);
            } else {
                all.push((tenant, route));
            }
        }
        for (tenant, route) in &all {
            for (other, wide) in &all {
                if tenant != other && !wide.shared && within(&route.host, &wide.host) {
                    conflicts.push(route.position.line);
                }
            }
        }
        let found = owners(files.iter().map(|(path, file)| (path.as_path(), file)));
        let mut lines: Vec<usize> = match &found {
            Ok(()) => Vec::new(),
            Err(errors) => errors.errors().iter().map(|error| error.position.line).collect(),
        };
        lines.sort_unstable();
        conflicts.sort_unstable();
        prop_assert_eq!(lines, conflicts);
    }

    #[test]
    fn durations_and_sizes_are_sums_of_their_parts(h in 0..100_u64, m in 0..100_u64, s in 0..100_u64, ms in 0..2000_u64) {
        let text = format!("{h}h{m}m{s}s{ms}ms");
        let expected = ((h * 60 + m) * 60 + s) * 1000 + ms;
        prop_assert_eq!(parse_duration(&text).unwrap().as_millis(), u128::from(expected));
        prop_assert_eq!(parse_size(&format!("{h}MiB")).unwrap(), h * 1024 * 1024);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_never_panic((_, text) in damaged(yaml_like())) {
        config::fuzz_parse(&text);
    }

    /// An editor never complains of what the parser takes.
    #[test]
    fn what_the_parser_accepts_its_schema_accepts((kind, text) in damaged("[a-z0-9:/.]{0,3}")) {
        static SCHEMAS: LazyLock<Vec<jsonschema::Validator>> = LazyLock::new(|| {
            let all = config::schema::all();
            KINDS
                .iter()
                .map(|(name, ..)| {
                    let (_, schema) = all.iter().find(|(other, _)| other == name).unwrap();
                    jsonschema::validator_for(schema).unwrap()
                })
                .collect()
        });
        let (name, _, accepts) = KINDS[kind];
        if accepts(&text) {
            let tree = config::document::parse(&text).root.unwrap().to_json();
            let faults: Vec<String> = SCHEMAS[kind]
                .iter_errors(&tree)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            prop_assert!(faults.is_empty(), "{}: {:?}\n{}", name, faults, text);
        }
    }
}

#[test]
fn what_is_no_duration_size_or_range() {
    for wrong in [
        "",
        "10",
        "s",
        "1s1s",
        "1s1m",
        "1ms1s",
        "-1s",
        "1.5s",
        "1 s",
        "1S",
        "99999999999999999999s",
        "18446744073709551615d",
    ] {
        assert!(parse_duration(wrong).is_err(), "{wrong}");
    }
    for wrong in [
        "",
        "10",
        "KiB",
        "1KB",
        "1 KiB",
        "-1B",
        "1KiB1B",
        "18446744073709551615GiB",
    ] {
        assert!(parse_size(wrong).is_err(), "{wrong}");
    }
    for wrong in [
        "",
        "/",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/+8",
        "10.0.0.0/8/8",
        "::/129",
        "10.0.0",
        "010.0.0.1",
        "fe80::1%eth0",
    ] {
        assert!(IpRange::parse(wrong).is_err(), "{wrong}");
    }
    let mapped = IpRange::parse("::ffff:10.0.0.0/104").unwrap();
    assert_eq!(mapped, IpRange::parse("10.0.0.0/8").unwrap());
    assert!(
        !IpRange::parse("::/0")
            .unwrap()
            .contains("10.0.0.1".parse().unwrap())
    );
}
