//! What is loaded from a directory, what is refused, and which name gets which certificate.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::pairs::{Directory, ECDSA, RSA, selected};
use crate::route::Host;
use crate::tls::pki::{Authority, Pair};
use crate::tls::{Algorithm, CertificateProblem, CertificateStore, TlsPolicy, WarningKind};

fn covers(store: &CertificateStore, sni: &str, host: &str) -> bool {
    let entry = store.select(Some(sni)).expect("an entry");
    entry.covers(&Host::parse(host).expect("a host"))
}

#[test]
fn exact_name_comes_before_wildcard_and_wildcard_before_default() {
    let directory = Directory::with(&["www.example.org", "*.example.org", "fallback.test"]);
    let store = directory.load_with_default("fallback.test");
    for (sni, pair) in [
        ("www.example.org", "www.example.org"),
        ("WWW.Example.org", "www.example.org"),
        ("shop.example.org", "wild.example.org"),
        ("a.shop.example.org", "fallback.test"),
        ("example.org", "fallback.test"),
        ("192.0.2.1", "fallback.test"),
        ("not a name", "fallback.test"),
    ] {
        assert_eq!(
            selected(&store, Some(sni)),
            Some(vec![pair.to_owned()]),
            "{sni}"
        );
    }
    assert_eq!(
        selected(&store, None),
        Some(vec!["fallback.test".to_owned()])
    );
}

#[test]
fn without_default_unknown_names_are_refused() {
    let store = Directory::with(&["*.example.org"]).load();
    assert_eq!(selected(&store, Some("example.org")), None);
    assert_eq!(selected(&store, Some("a.b.example.org")), None);
    assert_eq!(selected(&store, None), None);
    assert!(selected(&store, Some("a.example.org")).is_some());
}

#[test]
fn a_certificate_covers_its_names_and_one_label_under_a_wildcard() {
    let directory = Directory::new();
    directory.pair("site", &["example.org", "*.Example.ORG"], ECDSA);
    let store = directory.load();
    for (host, expected) in [
        ("example.org", true),
        ("a.example.org", true),
        ("A.EXAMPLE.org.", true),
        ("a.b.example.org", false),
        ("example.com", false),
        ("org", false),
        ("192.0.2.1", false),
    ] {
        assert_eq!(covers(&store, "example.org", host), expected, "{host}");
    }
    let names: Vec<_> = store
        .iter()
        .flat_map(|certificate| certificate.names())
        .collect();
    assert_eq!(names, ["example.org", "*.example.org"]);
}

#[test]
fn ecdsa_and_rsa_stand_side_by_side_and_both_must_cover_a_host() {
    let directory = Directory::new();
    directory.pair("a-rsa", &["a.test", "c.test"], RSA);
    directory.pair("b-ecdsa", &["a.test", "b.test"], ECDSA);
    let store = directory.load_with_default("a-rsa");
    let both = Some(vec!["b-ecdsa".to_owned(), "a-rsa".to_owned()]);
    assert_eq!(selected(&store, Some("a.test")), both);
    assert_eq!(
        selected(&store, Some("b.test")),
        Some(vec!["b-ecdsa".to_owned()])
    );
    // The default brings its sibling along.
    assert_eq!(selected(&store, None), both);
    assert!(covers(&store, "a.test", "a.test"));
    assert!(!covers(&store, "a.test", "b.test"));
    assert!(!covers(&store, "a.test", "c.test"));
    assert!(covers(&store, "b.test", "b.test"));
    let algorithms: Vec<_> = store
        .iter()
        .map(|certificate| certificate.algorithm())
        .collect();
    assert_eq!(algorithms, [Algorithm::Rsa, Algorithm::Ecdsa]);
}

#[test]
fn of_two_with_the_same_kind_of_key_the_one_that_expires_last_serves() {
    let directory = Directory::new();
    directory.pair_valid("a-new", &["x.test"], ECDSA, (2020, 2091));
    directory.pair_valid("b-old", &["x.test", "y.test"], ECDSA, (2020, 2090));
    directory.pair_valid("c-future", &["x.test"], ECDSA, (2089, 2095));
    let (store, warnings) = directory.try_load(None).expect("valid pairs");
    assert_eq!(
        selected(&store, Some("x.test")),
        Some(vec!["a-new".to_owned()])
    );
    assert_eq!(
        selected(&store, Some("y.test")),
        Some(vec!["b-old".to_owned()])
    );
    for loser in ["b-old.crt", "c-future.crt"] {
        let superseded = warnings.iter().any(|warning| {
            warning.file == directory.file(loser)
                && warning.kind
                    == WarningKind::Superseded {
                        name: "x.test".into(),
                        winner: directory.file("a-new.crt"),
                    }
        });
        assert!(superseded, "{loser}: {warnings:?}");
    }
}

#[test]
fn expired_and_future_certificates_are_served_with_a_warning() {
    let directory = Directory::new();
    directory.pair_valid("future", &["future.test"], ECDSA, (2089, 2090));
    directory.pair_valid("past", &["past.test"], ECDSA, (2020, 2021));
    let (store, warnings) = directory.try_load(None).expect("valid pairs");
    assert!(selected(&store, Some("past.test")).is_some());
    let kinds: Vec<_> = warnings
        .into_iter()
        .map(|warning| (warning.file, warning.kind))
        .collect();
    assert!(
        matches!(&kinds[..], [(future, WarningKind::NotYetValid(_)), (past, WarningKind::Expired(_))]
        if *future == directory.file("future.crt") && *past == directory.file("past.crt"))
    );
}

#[test]
fn every_error_of_every_file_is_reported_at_once() {
    let directory = Directory::with(&["good.test", "lonely.test", "keyless.test"]);
    let Pair { chain, key, .. } = directory.authority.sign(&["x.test"], ECDSA, (2020, 2090));
    let Pair { key: other_key, .. } = directory.authority.sign(&["x.test"], ECDSA, (2020, 2090));
    let Pair {
        chain: nameless,
        key: nameless_key,
        ..
    } = directory.authority.sign(&[], ECDSA, (2020, 2090));
    let write = |pair: &str, chain: &str, key: &str| {
        directory.write(&format!("{pair}.crt"), chain);
        directory.write(&format!("{pair}.key"), key);
    };
    fs::remove_file(directory.file("lonely.test.crt")).expect("it is there");
    fs::remove_file(directory.file("keyless.test.key")).expect("it is there");
    write("mismatch", &chain, &other_key);
    write(
        "order",
        &format!("{}{chain}", directory.authority.pem),
        &key,
    );
    write("empty", "", "");
    write("garbage", &chain.replace("MII", "M?I"), &key);
    write(
        "notder",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        &key,
    );
    write("nokey", &chain, &chain);
    write("nameless", &nameless, &nameless_key);
    write("open", &chain, &key);
    directory.permit("open.key", 0o644);
    fs::create_dir(directory.file("folder.crt")).expect("a folder");
    directory.write("folder.key", &key);

    let errors = directory.try_load(Some("absent")).err().expect("errors");
    let text = errors.to_string();
    let found = |file: &str, is_it: fn(&CertificateProblem) -> bool| {
        let file = directory.file(file);
        let hit = errors
            .0
            .iter()
            .any(|error| error.file == file && is_it(&error.problem));
        assert!(hit, "{}\nin\n{text}", file.display());
    };
    use CertificateProblem as P;
    found("lonely.test.key", |p| matches!(p, P::NoChain(_)));
    found("keyless.test.crt", |p| matches!(p, P::NoKey(_)));
    found("mismatch.key", |p| matches!(p, P::KeyMismatch(_)));
    found("order.key", |p| matches!(p, P::LeafNotFirst(_)));
    found("empty.crt", |p| matches!(p, P::NoCertificate));
    found("empty.key", |p| matches!(p, P::NoPrivateKey));
    found("garbage.crt", |p| matches!(p, P::InvalidPem(_)));
    found("notder.crt", |p| matches!(p, P::InvalidCertificate(_)));
    found("nokey.key", |p| matches!(p, P::NoPrivateKey));
    found("nameless.crt", |p| matches!(p, P::NoNames));
    found("open.key", |p| {
        matches!(p, P::KeyOpenToOthers { mode: 0o644 })
    });
    found("folder.crt", |p| matches!(p, P::NotAFile));
    found("", |p| matches!(p, P::NoDefault(_)));
    assert_eq!(errors.0.len(), 13, "{text}");
    assert!(!text.contains("good.test"), "{text}");
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let error = CertificateStore::load(Path::new("/nowhere"), None, &TlsPolicy::default(), None)
        .err()
        .expect("an error");
    assert!(
        error.to_string().starts_with("/nowhere: cannot be read"),
        "{error}"
    );
}

#[test]
fn a_key_may_be_readable_by_its_group() {
    let directory = Directory::with(&["x.test"]);
    directory.permit("x.test.key", 0o640);
    assert_eq!(directory.load().len(), 1);
}

#[test]
fn keys_in_the_older_encodings_are_read() {
    let directory = Directory::new();
    // Where PKCS #8 wraps the older encoding: behind version, algorithm and the length of the
    // octet string, which have a fixed size for these two kinds of keys.
    for (pair, algorithm, label, offset) in [
        ("sec1", ECDSA, "EC PRIVATE KEY", 27),
        ("pkcs1", RSA, "RSA PRIVATE KEY", 26),
    ] {
        let Pair { chain, key, .. } =
            directory
                .authority
                .sign(&["x.test"], algorithm, (2020, 2090));
        let key = rcgen::KeyPair::from_pem(&key).expect("a key");
        let der = key.serialized_der();
        let start = (offset..offset + 4)
            .find(|&at| der[at] == 0x30)
            .expect("a sequence");
        directory.write(&format!("{pair}.crt"), &chain);
        directory.write(&format!("{pair}.key"), &pem(label, &der[start..]));
    }
    assert_eq!(directory.load().len(), 2);
}

fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| {
            bits << 8 | u32::from(*chunk.get(at).unwrap_or(&0))
        });
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= chunk.len() { digit.into() } else { '=' });
        }
    }
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

#[test]
fn an_authority_beside_the_pairs_is_ignored() {
    let directory = Directory::with(&["tls.test"]);
    directory.write("ca.crt", &Authority::new("other").pem);
    directory.write("README", "not a certificate");
    let (store, warnings) = directory.try_load(None).expect("valid pairs");
    assert_eq!(store.len(), 1);
    assert!(matches!(&warnings[..], [one] if one.kind == WarningKind::AuthorityIgnored));
}

#[test]
fn a_kubernetes_secret_mount_is_read_through_its_links() {
    let mount = tempfile::tempdir().expect("a folder");
    let at = |name: &str| mount.path().join(name);
    let publish = |version: &str, names: &[&str]| {
        let secret = Directory::new();
        secret.pair("tls", names, ECDSA);
        fs::create_dir(at(version)).expect("a folder");
        for file in ["tls.crt", "tls.key"] {
            fs::rename(secret.file(file), at(version).join(file)).expect("one file system");
        }
        symlink(version, at("..swap")).expect("a link");
        fs::rename(at("..swap"), at("..data")).expect("a swap");
    };
    publish("..2026_01", &["old.test"]);
    symlink("..data/tls.crt", at("tls.crt")).expect("a link");
    symlink("..data/tls.key", at("tls.key")).expect("a link");
    let policy = TlsPolicy::default();
    let (old, _) = CertificateStore::load(mount.path(), None, &policy, None).expect("valid");
    publish("..2026_02", &["new.test"]);
    let (new, _) = CertificateStore::load(mount.path(), None, &policy, Some(&old)).expect("valid");
    assert!(old.select(Some("old.test")).is_some() && old.select(Some("new.test")).is_none());
    assert!(new.select(Some("old.test")).is_none() && new.select(Some("new.test")).is_some());
    assert_eq!(new.len(), 1);
}
