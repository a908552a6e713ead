//! Whom the router trusts behind it.

use std::path::PathBuf;

use config::route::{UpstreamTls, UpstreamTrust};
use rustls::{CertificateError, Error, HandshakeKind};

use super::clients::{shake, tls_error};
use super::pki::{Authority, Directory};
use crate::tls::{CertificateStore, ClientConfigs, UpstreamTlsError};

/// An ingress with a certificate of its own authority, whose PEM file stands beside the pair.
fn ingress() -> (Directory, CertificateStore) {
    let directory = Directory::with(&["ingress.test"]);
    let store = directory.load();
    directory.write("authority.pem", &directory.authority.pem);
    (directory, store)
}

fn tls(server_name: &str, trust: UpstreamTrust) -> UpstreamTls {
    UpstreamTls {
        server_name: server_name.into(),
        trust,
    }
}

#[tokio::test]
async fn the_named_authority_is_trusted_and_alpn_is_one_protocol() {
    let (directory, store) = ingress();
    let trust = UpstreamTrust::Ca(directory.file("authority.pem"));
    let upstream = ClientConfigs::new()
        .for_upstream(&tls("ingress.test", trust))
        .expect("a configuration");
    assert_eq!(upstream.server_name.to_str(), "ingress.test");
    for (config, http2) in [(&upstream.http1, false), (&upstream.http2, true)] {
        let (served, connected) = shake(&store, config, "ingress.test").await;
        connected.expect("a handshake");
        let served = served.expect("a handshake");
        assert_eq!(served.http2, http2);
        assert_eq!(served.sni(), Some("ingress.test"));
    }
}

#[tokio::test]
async fn a_second_connection_resumes() {
    let (directory, store) = ingress();
    let trust = UpstreamTrust::Ca(directory.file("authority.pem"));
    let upstream = ClientConfigs::new()
        .for_upstream(&tls("ingress.test", trust))
        .expect("a configuration");
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let (_, connected) = shake(&store, &upstream.http1, "ingress.test").await;
        let kind = connected.expect("a handshake").get_ref().1.handshake_kind();
        assert_eq!(kind, Some(expected));
    }
}

#[tokio::test]
async fn another_authority_is_not_trusted() {
    let (directory, store) = ingress();
    directory.write("other.pem", &Authority::new().pem);
    let trust = UpstreamTrust::Ca(directory.file("other.pem"));
    let upstream = ClientConfigs::new()
        .for_upstream(&tls("ingress.test", trust))
        .expect("a configuration");
    let (_, connected) = shake(&store, &upstream.http1, "ingress.test").await;
    let error = tls_error(connected);
    assert!(matches!(error, Error::InvalidCertificate(_)), "{error:?}");
}

#[tokio::test]
async fn another_server_name_is_refused() {
    let directory = Directory::with(&["ingress.test"]);
    directory.write("authority.pem", &directory.authority.pem);
    let store = directory.load_with_default("ingress.test");
    let trust = UpstreamTrust::Ca(directory.file("authority.pem"));
    let upstream = ClientConfigs::new()
        .for_upstream(&tls("other.test", trust))
        .expect("a configuration");
    let (_, connected) = shake(&store, &upstream.http1, &upstream.server_name.to_str()).await;
    let error = tls_error(connected);
    assert!(
        matches!(
            error,
            Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_private_authority_is_not_trusted_by_the_system_nor_without_saying_so() {
    let (_directory, store) = ingress();
    match ClientConfigs::new().for_upstream(&tls("ingress.test", UpstreamTrust::System)) {
        Ok(upstream) => {
            let (_, connected) = shake(&store, &upstream.http1, "ingress.test").await;
            let error = tls_error(connected);
            assert!(matches!(error, Error::InvalidCertificate(_)), "{error:?}");
        }
        // A machine without ca-certificates.
        Err(error) => assert!(
            matches!(error, UpstreamTlsError::NoSystemAuthorities(_)),
            "{error:?}"
        ),
    }
    let upstream = ClientConfigs::new()
        .for_upstream(&tls("anything.test", UpstreamTrust::InsecureAcceptAny))
        .expect("a configuration");
    shake(&store, &upstream.http1, "ingress.test")
        .await
        .1
        .expect("a handshake");
}

#[test]
fn what_cannot_be_used_is_named() {
    let directory = Directory::new();
    let refused = |server_name: &str, trust| {
        let error = ClientConfigs::new().for_upstream(&tls(server_name, trust));
        error.expect_err("a refusal").to_string()
    };
    let text = refused("not a name", UpstreamTrust::System);
    assert!(text.contains("\"not a name\""), "{text}");
    let text = refused(
        "x.test",
        UpstreamTrust::Ca(PathBuf::from("/nowhere/ca.pem")),
    );
    assert!(
        text.starts_with("/nowhere/ca.pem: cannot be read"),
        "{text}"
    );
    for (content, reason) in [
        ("", "holds no certificate"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "certificate 1:",
        ),
        ("-----BEGIN CERTIFICATE-----\n???\n", "invalid PEM"),
    ] {
        directory.write("ca.pem", content);
        let file = directory.file("ca.pem");
        let text = refused("x.test", UpstreamTrust::Ca(file.clone()));
        assert!(text.starts_with(&format!("{}: ", file.display())), "{text}");
        assert!(text.contains(reason), "{text}");
    }
}
