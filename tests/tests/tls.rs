//! The handshake: versions, ALPN, which certificate, key exchange.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use harness::backend::{Backend, OK};
use harness::ca::KeyKind;
use harness::client::TlsClient;
use harness::edge::{Edge, HOST};
use harness::tool::{Output, Tool};
use harness::{folder, wait};
use rustls::{NamedGroup, ProtocolVersion};

/// `openssl s_client` against the edge, with the authority's certificate to check against.
fn s_client(edge: &Edge, name: Option<&str>, options: &[&str]) -> Output {
    let ca = edge.folder().join("ca.pem");
    folder::write(&ca, edge.ca.pem()).unwrap();
    let address = edge.https[0].to_string();
    let mut arguments = vec!["s_client", "-connect", &address, "-CAfile"];
    let ca = ca.to_string_lossy().into_owned();
    arguments.push(&ca);
    match name {
        Some(name) => arguments.extend(["-servername", name]),
        None => arguments.push("-noservername"),
    }
    arguments.extend(options);
    Tool::new("openssl").args(arguments).run().unwrap()
}

/// Whether a session was agreed on.
fn agreed(output: &Output) -> bool {
    // `(NONE)` is what s_client shows in place of a cipher.
    output.stdout.contains("Cipher is ") && !output.stdout.contains("Cipher is (NONE)")
}

fn subject(output: &Output) -> &str {
    let line = output
        .stdout
        .lines()
        .find(|line| line.trim_start().starts_with("subject="));
    line.unwrap_or_default().trim()
}

#[test]
fn tls_1_2_and_1_3_are_spoken_and_nothing_older() {
    let edge = Edge::with_backend("tls-versions", 9001).unwrap();
    let _router = edge.start().unwrap();
    for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let output = s_client(&edge, Some(HOST), &[option]);
        assert!(
            agreed(&output),
            "{version}: {}{}",
            output.stdout,
            output.stderr
        );
        assert!(
            output.stdout.contains(version),
            "{version}: {}",
            output.stdout
        );
        assert!(
            output.stdout.contains("Verify return code: 0 (ok)"),
            "{}",
            output.stdout
        );
    }
    // SECLEVEL=0 lets this OpenSSL offer what it would not offer by itself.
    for option in ["-tls1_1", "-tls1"] {
        let output = s_client(&edge, Some(HOST), &[option, "-cipher", "ALL:@SECLEVEL=0"]);
        assert!(!agreed(&output), "{option}: {}", output.stdout);
        assert!(
            output.stderr.contains("SSL alert number"),
            "{option} must be refused by the router: {}",
            output.stderr
        );
    }
}

#[test]
fn the_oldest_version_is_a_matter_of_configuration() {
    let mut edge = Edge::with_backend("tls-minimum", 9001).unwrap();
    edge.minimum_tls = Some("1.3");
    let _router = edge.start().unwrap();
    assert!(agreed(&s_client(&edge, Some(HOST), &["-tls1_3"])));
    assert!(!agreed(&s_client(&edge, Some(HOST), &["-tls1_2"])));
}

#[test]
fn alpn_offers_h2_and_http_1_1() {
    let edge = Edge::with_backend("tls-alpn", 9001).unwrap();
    let _router = edge.start().unwrap();
    for (offer, chosen) in [
        ("h2,http/1.1", "ALPN protocol: h2"),
        ("http/1.1,h2", "ALPN protocol: h2"),
        ("http/1.1", "ALPN protocol: http/1.1"),
        ("h2", "ALPN protocol: h2"),
    ] {
        let output = s_client(&edge, Some(HOST), &["-alpn", offer]);
        assert!(output.stdout.contains(chosen), "{offer}: {}", output.stdout);
    }
    let none = s_client(&edge, Some(HOST), &[]);
    assert!(
        agreed(&none) && none.stdout.contains("No ALPN negotiated"),
        "{}",
        none.stdout
    );
    // RFC 7301, section 3.2: no common protocol is fatal.
    let unknown = s_client(&edge, Some(HOST), &["-alpn", "spdy/3"]);
    assert!(
        !agreed(&unknown) || unknown.stdout.contains("No ALPN negotiated"),
        "{}",
        unknown.stdout
    );
}

#[test]
fn an_exact_name_comes_before_a_wildcard() {
    let edge = Edge::new("tls-sni").unwrap();
    edge.certificate("a-wild", &["*.example.org"], KeyKind::Ecdsa)
        .unwrap();
    edge.certificate("b-exact", &["shop.example.org"], KeyKind::Ecdsa)
        .unwrap();
    edge.certificate("c-deep", &["*.deep.example.org"], KeyKind::Ecdsa)
        .unwrap();
    edge.routes("none", "tenant: none\nupstreams: {}\nroutes: []\n")
        .unwrap();
    let _router = edge.start().unwrap();
    for (name, certificate) in [
        ("shop.example.org", "CN = shop.example.org"),
        ("SHOP.example.ORG", "CN = shop.example.org"),
        ("other.example.org", "CN = *.example.org"),
        ("a.deep.example.org", "CN = *.deep.example.org"),
    ] {
        let output = s_client(&edge, Some(name), &[]);
        assert!(
            subject(&output).ends_with(certificate),
            "{name}: {}",
            output.stdout
        );
    }
    // A wildcard stands for one label.
    assert!(!agreed(&s_client(&edge, Some("a.b.example.org"), &[])));
}

#[test]
fn ecdsa_and_rsa_stand_side_by_side() {
    let edge = Edge::new("tls-kinds").unwrap();
    edge.certificate("shop-ecdsa", &[HOST], KeyKind::Ecdsa)
        .unwrap();
    edge.certificate("shop-rsa", &[HOST], KeyKind::Rsa).unwrap();
    edge.routes("none", "tenant: none\nupstreams: {}\nroutes: []\n")
        .unwrap();
    let _router = edge.start().unwrap();
    for (signatures, kind) in [
        ("ecdsa_secp256r1_sha256", "ECDSA"),
        ("rsa_pss_rsae_sha256:rsa_pkcs1_sha256", "RSA"),
        ("ecdsa_secp256r1_sha256:rsa_pss_rsae_sha256", "ECDSA"),
        ("rsa_pss_rsae_sha256:ecdsa_secp256r1_sha256", "ECDSA"),
    ] {
        for version in ["-tls1_3", "-tls1_2"] {
            let output = s_client(&edge, Some(HOST), &[version, "-sigalgs", signatures]);
            assert!(agreed(&output), "{signatures} {version}: {}", output.stderr);
            let line = output
                .stdout
                .lines()
                .find(|it| it.contains("Peer signature type"));
            let line = line.unwrap_or_default();
            assert!(line.contains(kind), "{signatures} {version}: {line:?}");
        }
    }
}

#[test]
fn an_unknown_name_is_refused_or_gets_the_default() {
    let mut edge = Edge::with_backend("tls-unknown", 9001).unwrap();
    {
        let _router = edge.start().unwrap();
        for name in [Some("nobody.example.net"), None] {
            let output = s_client(&edge, name, &[]);
            assert!(!agreed(&output), "{name:?}: {}", output.stdout);
            assert!(
                !output.stdout.contains("BEGIN CERTIFICATE"),
                "{name:?} was shown one"
            );
        }
        assert!(agreed(&s_client(&edge, Some(HOST), &[])));
    }
    edge.default_certificate = Some("acme".into());
    let _router = edge.start().unwrap();
    for name in [Some("nobody.example.net"), None] {
        let output = s_client(&edge, name, &[]);
        assert!(
            subject(&output).ends_with("CN = *.acme.example.org"),
            "{name:?}: {}",
            output.stdout
        );
    }
}

#[test]
fn the_key_exchange_withstands_a_quantum_computer() {
    let edge = Edge::with_backend("tls-mlkem", 9001).unwrap();
    let _router = edge.start().unwrap();
    // This OpenSSL does not know the group, so rustls asks.
    let connection = edge.connect(HOST).unwrap();
    let handshake = connection.handshake().unwrap();
    assert_eq!(handshake.group, Some(NamedGroup::X25519MLKEM768));
    assert_eq!(handshake.version, Some(ProtocolVersion::TLSv1_3));
    assert_eq!(handshake.alpn.as_deref(), Some("http/1.1"));
    // Clients without it are served too.
    let old = s_client(&edge, Some(HOST), &["-groups", "X25519"]);
    assert!(
        agreed(&old) && old.stdout.contains("X25519"),
        "{}",
        old.stdout
    );
}

#[test]
fn a_session_is_resumed() {
    let edge = Edge::with_backend("tls-resume", 9001).unwrap();
    let _router = edge.start().unwrap();
    // -reconnect connects five times more with the first connection's session.
    let output = s_client(&edge, Some(HOST), &["-tls1_2", "-reconnect"]);
    let reused = output
        .stdout
        .lines()
        .filter(|line| line.starts_with("Reused, TLSv1.2"))
        .count();
    assert_eq!(reused, 5, "{}", output.stdout);
}

#[test]
fn a_certificate_is_renewed_without_a_restart() {
    let edge = Edge::with_backend("tls-renew", 9001).unwrap();
    let _backend = Backend::answering(edge.port(9001), OK).unwrap();
    let mut router = edge.start().unwrap();
    let mut open = edge.connect(HOST).unwrap();
    let first = open.handshake().unwrap().certificate.clone();

    edge.certificate("acme", &["*.acme.example.org"], KeyKind::Ecdsa)
        .unwrap();
    router.reload();
    wait::until_true("the new certificate to be served", || {
        edge.connect(HOST)
            .is_ok_and(|it| it.handshake().unwrap().certificate != first)
    })
    .unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    assert_eq!(
        open.exchange(request).unwrap().status,
        200,
        "the open connection was cut"
    );
}

#[test]
fn a_bad_certificate_leaves_the_last_good_one() {
    let edge = Edge::with_backend("tls-bad", 9001).unwrap();
    let mut router = edge.start().unwrap();
    let before = edge
        .connect(HOST)
        .unwrap()
        .handshake()
        .unwrap()
        .certificate
        .clone();
    folder::write(
        &edge.folder().join("certs/acme.crt"),
        "this is no certificate",
    )
    .unwrap();
    router.reload();
    router.wait_for_log(&["acme.crt"]).unwrap();
    let after = edge
        .connect(HOST)
        .unwrap()
        .handshake()
        .unwrap()
        .certificate
        .clone();
    assert_eq!(before, after);
}

#[test]
fn what_is_not_tls_is_turned_away() {
    let edge = Edge::with_backend("tls-not", 9001).unwrap();
    let backend = Backend::answering(edge.port(9001), OK).unwrap();
    let router = edge.start().unwrap();
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0; 64],
        b"SSH-2.0-x\r\n",
        b"\x16\x03\x01\xff\xff",
    ] {
        let mut connection = router.connect(edge.https[0]).unwrap();
        connection.send(garbage).unwrap();
        connection.finish().unwrap();
        let answer = connection.rest().unwrap();
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{garbage:?}");
    }
    assert_eq!(backend.connections(), 0);
    let tls = TlsClient::new(&edge.ca, &["http/1.1"]);
    assert!(tls.connect(edge.https[0], HOST).is_ok());
}
