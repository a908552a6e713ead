//! Whom the router trusts behind it.

use rustls::{CertificateError, Error, HandshakeKind};

use super::clients::{shake, tls_error};
use super::pairs::Directory;
use crate::tls::pki::Authority;
use crate::tls::{CertificateStore, ClientConfigs, Trust, UpstreamTlsError};
use crate::upstream::UpstreamTls;

/// An ingress with a certificate of its directory's authority.
fn ingress() -> (Directory, CertificateStore) {
    let directory = Directory::with(&["ingress.test"]);
    let store = directory.load();
    (directory, store)
}

fn upstream(server_name: &str, trust: Trust<'_>) -> UpstreamTls {
    ClientConfigs::new()
        .for_upstream(server_name, trust)
        .expect("a configuration")
}

fn signed_by(directory: &Directory) -> Trust<'_> {
    Trust::Authorities(directory.authority.pem.as_bytes())
}

#[tokio::test]
async fn the_named_authority_is_trusted_and_alpn_is_one_protocol() {
    let (directory, store) = ingress();
    let upstream = upstream("ingress.test", signed_by(&directory));
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
    let upstream = upstream("ingress.test", signed_by(&directory));
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let (_, connected) = shake(&store, &upstream.http1, "ingress.test").await;
        let kind = connected.expect("a handshake").get_ref().1.handshake_kind();
        assert_eq!(kind, Some(expected));
    }
}

#[tokio::test]
async fn another_authority_is_not_trusted() {
    let (_directory, store) = ingress();
    let other = Authority::new("other").pem;
    let upstream = upstream("ingress.test", Trust::Authorities(other.as_bytes()));
    let (_, connected) = shake(&store, &upstream.http1, "ingress.test").await;
    let error = tls_error(connected);
    assert!(matches!(error, Error::InvalidCertificate(_)), "{error:?}");
}

#[tokio::test]
async fn another_server_name_is_refused() {
    let directory = Directory::with(&["ingress.test"]);
    let store = directory.load_with_default("ingress.test");
    let upstream = upstream("other.test", signed_by(&directory));
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
    match ClientConfigs::new().for_upstream("ingress.test", Trust::System) {
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
    let upstream = upstream("anything.test", Trust::InsecureAcceptAny);
    shake(&store, &upstream.http1, "ingress.test")
        .await
        .1
        .expect("a handshake");
}

#[test]
fn what_cannot_be_used_is_named() {
    let refused = |server_name: &str, trust| {
        let error = ClientConfigs::new().for_upstream(server_name, trust);
        error.expect_err("a refusal").to_string()
    };
    let text = refused("not a name", Trust::System);
    assert!(text.contains("\"not a name\""), "{text}");
    for (content, reason) in [
        ("", "holds no certificate"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "certificate 1:",
        ),
        ("-----BEGIN CERTIFICATE-----\n???\n", "invalid PEM"),
    ] {
        let text = refused("x.test", Trust::Authorities(content.as_bytes()));
        assert!(text.starts_with("certificate authorities: "), "{text}");
        assert!(text.contains(reason), "{text}");
    }
}
