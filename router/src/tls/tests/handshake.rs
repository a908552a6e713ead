//! Versions, signatures, ALPN, and clients that must not be served.

use std::sync::Arc;
use std::time::Duration;

use config::router::TlsVersion;
use rustls::{AlertDescription, NamedGroup, ProtocolVersion, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::clients::{
    ECDSA_SCHEMES, RSA_SCHEMES, TLS12, TLS13, client, client_of, client_with_alpn, shake, shown,
    tls_error,
};
use super::pairs::{BOTH_VERSIONS, Directory, ECDSA, RSA};
use crate::tls::{AcceptError, Accepted, TlsPolicy, accept};

#[tokio::test]
async fn the_name_chooses_the_certificate() {
    let directory = Directory::with(&["www.example.org", "*.example.org"]);
    let store = directory.load();
    for (name, pair) in [
        ("www.example.org", "www.example.org"),
        ("other.example.org", "wild.example.org"),
    ] {
        let (served, connected) = shake(&store, &Arc::new(client()), name).await;
        let served = served.expect("a handshake");
        assert_eq!(shown(&store, &connected.expect("a handshake")), pair);
        assert_eq!(served.sni(), Some(name));
        assert_eq!(served.certificate.certificates()[0].pair(), pair);
    }
}

#[tokio::test]
async fn an_unknown_name_is_refused_with_its_own_alert() {
    let store = Directory::with(&["www.example.org"]).load();
    let (served, connected) = shake(&store, &Arc::new(client()), "evil.test").await;
    assert!(
        matches!(&served, Err(AcceptError::UnknownName(Some(name))) if &**name == "evil.test"),
        "{served:?}"
    );
    let alert = rustls::Error::AlertReceived(AlertDescription::UnrecognisedName);
    assert_eq!(tls_error(connected), alert);
}

#[tokio::test]
async fn a_client_without_name_gets_the_default_or_is_refused() {
    let directory = Directory::with(&["www.example.org"]);
    // An address is never sent as SNI (RFC 6066, section 3).
    let (served, connected) = shake(&directory.load(), &Arc::new(client()), "192.0.2.1").await;
    assert!(
        matches!(served, Err(AcceptError::UnknownName(None))),
        "{served:?}"
    );
    let alert = rustls::Error::AlertReceived(AlertDescription::UnrecognisedName);
    assert_eq!(tls_error(connected), alert);

    let store = directory.load_with_default("www.example.org");
    let (served, connected) = shake(&store, &Arc::new(client()), "192.0.2.1").await;
    assert_eq!(served.expect("a handshake").sni(), None);
    assert_eq!(
        shown(&store, &connected.expect("a handshake")),
        "www.example.org"
    );
}

#[tokio::test]
async fn ecdsa_is_preferred_and_rsa_serves_who_needs_it() {
    let directory = Directory::new();
    directory.pair("a-rsa", &["x.test"], RSA);
    directory.pair("b-ecdsa", &["x.test"], ECDSA);
    let store = directory.load();
    for versions in [TLS12, TLS13] {
        for (schemes, pair) in [
            ([ECDSA_SCHEMES, RSA_SCHEMES].concat(), "b-ecdsa"),
            ([RSA_SCHEMES, ECDSA_SCHEMES].concat(), "b-ecdsa"),
            (ECDSA_SCHEMES.to_vec(), "b-ecdsa"),
            (RSA_SCHEMES.to_vec(), "a-rsa"),
        ] {
            let client = Arc::new(client_of(versions, &schemes));
            let (served, connected) = shake(&store, &client, "x.test").await;
            served.expect("a handshake");
            let connected = connected.expect("a handshake");
            assert_eq!(shown(&store, &connected), pair, "{versions:?} {schemes:?}");
        }
    }
}

#[tokio::test]
async fn without_a_common_signature_the_handshake_fails() {
    let store = Directory::with(&["x.test"]).load();
    for versions in [TLS12, TLS13] {
        let client = Arc::new(client_of(versions, RSA_SCHEMES));
        let (served, connected) = shake(&store, &client, "x.test").await;
        assert!(
            matches!(served, Err(AcceptError::Handshake(_))),
            "{served:?}"
        );
        let alert = rustls::Error::AlertReceived(AlertDescription::HandshakeFailure);
        assert_eq!(tls_error(connected), alert);
    }
}

#[tokio::test]
async fn both_versions_are_spoken_and_the_older_one_can_be_refused() {
    let directory = Directory::with(&["x.test"]);
    let old = Arc::new(client_of(TLS12, ECDSA_SCHEMES));
    let new = Arc::new(client_of(TLS13, ECDSA_SCHEMES));
    let version = |accepted: &Accepted<_>| accepted.stream.get_ref().1.protocol_version();

    let store = directory.load();
    let served = shake(&store, &old, "x.test").await.0.expect("a handshake");
    assert_eq!(version(&served), Some(ProtocolVersion::TLSv1_2));
    let served = shake(&store, &new, "x.test").await.0.expect("a handshake");
    assert_eq!(version(&served), Some(ProtocolVersion::TLSv1_3));

    let store = directory.load_with_policy(TlsPolicy {
        minimum: TlsVersion::V1_3,
        ..BOTH_VERSIONS
    });
    shake(&store, &new, "x.test").await.0.expect("a handshake");
    let (served, connected) = shake(&store, &old, "x.test").await;
    assert!(
        matches!(served, Err(AcceptError::Handshake(_))),
        "{served:?}"
    );
    let alert = rustls::Error::AlertReceived(AlertDescription::ProtocolVersion);
    assert_eq!(tls_error(connected), alert);
}

#[tokio::test]
async fn the_key_exchange_is_hybrid_where_the_client_can() {
    let store = Directory::with(&["x.test"]).load();
    let client = client_of(&[&version::TLS13], ECDSA_SCHEMES);
    let served = shake(&store, &Arc::new(client), "x.test")
        .await
        .0
        .expect("a handshake");
    let group = served.stream.get_ref().1.negotiated_key_exchange_group();
    assert_eq!(
        group.map(|group| group.name()),
        Some(NamedGroup::X25519MLKEM768)
    );
}

#[tokio::test]
async fn alpn_chooses_http2_only_if_both_want_it() {
    let directory = Directory::with(&["x.test"]);
    let without_http2 = TlsPolicy {
        http2: false,
        ..BOTH_VERSIONS
    };
    for (policy, offered, chosen) in [
        (BOTH_VERSIONS, &["http/1.1", "h2"][..], Some(&b"h2"[..])),
        (BOTH_VERSIONS, &["http/1.1"], Some(b"http/1.1")),
        (BOTH_VERSIONS, &[], None),
        (without_http2, &["h2", "http/1.1"], Some(b"http/1.1")),
    ] {
        let store = directory.load_with_policy(policy);
        let client = Arc::new(client_with_alpn(offered));
        let (served, connected) = shake(&store, &client, "x.test").await;
        let connected = connected.expect("a handshake");
        assert_eq!(
            connected.get_ref().1.alpn_protocol(),
            chosen,
            "{policy:?} {offered:?}"
        );
        assert_eq!(served.expect("a handshake").http2, chosen == Some(b"h2"));
    }
    let store = directory.load_with_policy(without_http2);
    let (served, connected) = shake(&store, &Arc::new(client_with_alpn(&["h2"])), "x.test").await;
    assert!(
        matches!(served, Err(AcceptError::Handshake(_))),
        "{served:?}"
    );
    let alert = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
    assert_eq!(tls_error(connected), alert);
}

/// What a client gets that sends some bytes and then waits.
async fn answer_to(bytes: &[u8], close: bool) -> (AcceptError, Vec<u8>) {
    let store = Directory::with(&["x.test"]).load();
    let (near, mut far) = tokio::io::duplex(4096);
    far.write_all(bytes).await.expect("room in the pipe");
    if close {
        far.shutdown().await.expect("an open pipe");
    }
    let error = accept(near, |sni| store.select(sni), Duration::from_millis(200)).await;
    let mut answer = Vec::new();
    far.read_to_end(&mut answer)
        .await
        .expect("the server closes");
    (error.expect_err("no handshake"), answer)
}

#[tokio::test]
async fn plain_http_is_told_to_use_https() {
    let (error, answer) = answer_to(b"GET / HTTP/1.1\r\nHost: x.test\r\n\r\n", false).await;
    assert!(
        matches!(error, AcceptError::NotTls { http: true }),
        "{error:?}"
    );
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
    assert!(
        head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
        "{head}"
    );
    assert!(head.ends_with("\r\nConnection: close"), "{head}");
    assert!(body.contains("https://"), "{body}");
}

#[tokio::test]
async fn other_protocols_get_no_answer() {
    for bytes in [
        &b"\x80\x2e\x01\x00\x02"[..],
        b"\0\0\0\0",
        b"\x15\x03\x01\x00\x02\x01\x00",
    ] {
        let (error, answer) = answer_to(bytes, false).await;
        assert!(
            matches!(error, AcceptError::NotTls { http: false }),
            "{error:?}"
        );
        assert_eq!(answer, b"");
    }
}

#[tokio::test]
async fn a_broken_hello_gets_an_alert() {
    let (error, answer) = answer_to(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", false).await;
    assert!(matches!(error, AcceptError::Handshake(_)), "{error:?}");
    assert_eq!(&answer[..6], b"\x15\x03\x03\x00\x02\x02", "{answer:?}");
}

#[tokio::test]
async fn a_client_that_leaves_or_stalls_is_told_apart() {
    let part_of_a_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01";
    let (error, _) = answer_to(b"", true).await;
    assert!(matches!(error, AcceptError::Empty), "{error:?}");
    let (error, _) = answer_to(part_of_a_hello, true).await;
    assert!(matches!(error, AcceptError::Io(_)), "{error:?}");
    for bytes in [&b""[..], part_of_a_hello] {
        let (error, answer) = answer_to(bytes, false).await;
        assert!(matches!(error, AcceptError::Timeout), "{error:?}");
        assert_eq!(answer, b"");
    }
}

#[tokio::test]
async fn a_hello_in_small_pieces_is_served() {
    let store = Directory::with(&["x.test"]).load();
    let (near, far) = tokio::io::duplex(16);
    let server = accept(near, |sni| store.select(sni), Duration::from_secs(20));
    let name = "x.test".try_into().expect("a name");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client()));
    let client = connector.connect(name, far);
    // The server's side ends once its tickets are read.
    let client = async {
        let mut stream = client.await.expect("a handshake");
        let _ = stream.read(&mut [0; 1]).await;
    };
    let server = async {
        server
            .await
            .map(|accepted| accepted.http2)
            .expect("a handshake")
    };
    tokio::join!(server, client);
}
