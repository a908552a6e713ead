//! What a reload keeps and what it replaces.

use std::sync::Arc;

use config::router::TlsVersion;

use super::pairs::{Directory, ECDSA};
use crate::tls::pki::Pair;
use crate::tls::{CertEntry, CertificateStore, ServedCertificate, TlsPolicy};

fn entry(store: &CertificateStore, name: &str) -> Arc<CertEntry> {
    store.select(Some(name)).expect("an entry")
}

fn certificate(store: &CertificateStore, name: &str) -> Arc<ServedCertificate> {
    Arc::clone(&entry(store, name).certificates()[0])
}

#[test]
fn unchanged_pairs_are_kept_and_changed_ones_replaced() {
    let directory = Directory::with(&["same.test", "*.same.test", "changed.test", "gone.test"]);
    let before = directory.load();
    directory.pair("changed.test", &["changed.test"], ECDSA);
    directory.pair("added.test", &["added.test"], ECDSA);
    std::fs::remove_file(directory.file("gone.test.crt")).expect("it is there");
    std::fs::remove_file(directory.file("gone.test.key")).expect("it is there");
    let after = directory.reload(&before);
    for name in ["same.test", "x.same.test"] {
        assert!(
            Arc::ptr_eq(&entry(&before, name), &entry(&after, name)),
            "{name}"
        );
    }
    assert!(!Arc::ptr_eq(
        &entry(&before, "changed.test"),
        &entry(&after, "changed.test")
    ));
    assert!(after.select(Some("added.test")).is_some());
    assert!(after.select(Some("gone.test")).is_none());
    assert!(before.select(Some("gone.test")).is_some());
}

#[test]
fn another_policy_makes_new_configurations_from_the_same_keys() {
    let directory = Directory::with(&["same.test"]);
    let before = directory.load();
    let policy = TlsPolicy {
        minimum: TlsVersion::V1_3,
        http2: false,
    };
    let (after, _) = CertificateStore::load(directory.path(), None, &policy, Some(&before))
        .expect("valid pairs");
    assert!(!Arc::ptr_eq(
        &entry(&before, "same.test"),
        &entry(&after, "same.test")
    ));
    assert!(Arc::ptr_eq(
        &certificate(&before, "same.test"),
        &certificate(&after, "same.test")
    ));
    assert_eq!(after.policy(), policy);
}

#[test]
fn names_of_one_certificate_share_one_configuration() {
    let directory = Directory::new();
    directory.pair("many", &["a.test", "b.test", "*.c.test"], ECDSA);
    let store = directory.load();
    assert!(Arc::ptr_eq(
        &entry(&store, "a.test"),
        &entry(&store, "b.test")
    ));
    assert!(Arc::ptr_eq(
        &entry(&store, "a.test"),
        &entry(&store, "x.c.test")
    ));
}

#[test]
fn a_new_second_certificate_for_a_name_makes_a_new_entry() {
    let directory = Directory::with(&["x.test"]);
    let before = directory.load();
    directory.pair("x-rsa", &["x.test"], super::pairs::RSA);
    let after = directory.reload(&before);
    assert_eq!(entry(&after, "x.test").certificates().len(), 2);
    assert!(Arc::ptr_eq(
        &certificate(&before, "x.test"),
        &certificate(&after, "x.test")
    ));
}

#[test]
fn many_pairs_are_loaded_by_several_threads_in_order() {
    let directory = Directory::new();
    let Pair { chain, key, .. } = directory.authority.sign(&["x.test"], ECDSA, (2020, 2090));
    for at in 0..300 {
        directory.write(&format!("pair-{at:03}.crt"), &chain);
        directory.write(&format!("pair-{at:03}.key"), &key);
    }
    directory.write("pair-299.key", "");
    directory.write("pair-001.crt", "");
    let errors = directory.try_load(None).err().expect("two errors");
    let files: Vec<_> = errors.0.iter().map(|error| error.file.clone()).collect();
    assert_eq!(
        files,
        [
            directory.file("pair-001.crt"),
            directory.file("pair-299.key")
        ]
    );
}
