//! HTTP/2 towards clients and towards upstreams.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use bytes::Bytes;
use harness::backend::{Backend, OK};
use harness::ca::KeyKind;
use harness::client::TlsClient;
use harness::edge::{Edge, Upstream, route_file};
use harness::h2_client::{self, H2Connection};
use harness::nginx::{Ingress, LARGE, MEDIUM, Nginx, pattern};
use harness::tool::Tool;
use harness::{folder, wait};

const ACME: &str = "shop.acme.example.org";
const GLOBEX: &str = "shop.globex.example.org";

/// Two tenants with an NGINX each: acme plain, globex over TLS.
struct Tenants {
    edge: Edge,
    acme: Nginx,
    globex: Nginx,
}

fn tenants(label: &str, protocol: &'static str) -> Tenants {
    let edge = Edge::new(label).unwrap();
    let h2 = protocol == "http2";
    edge.certificate(
        "all",
        &["*.acme.example.org", "*.globex.example.org"],
        KeyKind::Ecdsa,
    )
    .unwrap();
    let acme = Ingress {
        plain_http2: h2,
        ..Ingress::plain("acme", "a1", edge.port(31380))
    }
    .start(edge.folder())
    .unwrap();
    let leaf = edge
        .ca
        .issue(&["ingress.globex.internal"], KeyKind::Ecdsa)
        .unwrap();
    let globex = Ingress {
        http: Vec::new(),
        https: Some((vec![edge.port(31390)], &leaf)),
        ..Ingress::plain("globex", "g1", edge.port(31390))
    }
    .start(edge.folder())
    .unwrap();
    folder::write(&edge.folder().join("upstream-ca.pem"), edge.ca.pem()).unwrap();
    let plain = Upstream {
        protocol,
        ..Upstream::plain("workers", &[edge.port(31380)])
    };
    edge.routes("acme", &route_file("acme", &[plain], &[(ACME, "workers")]))
        .unwrap();
    let encrypted = Upstream {
        protocol,
        tls: Some("{server_name: ingress.globex.internal, ca: ../upstream-ca.pem}".into()),
        ..Upstream::plain("workers", &[edge.port(31390)])
    };
    edge.routes(
        "globex",
        &route_file("globex", &[encrypted], &[(GLOBEX, "workers")]),
    )
    .unwrap();
    Tenants { edge, acme, globex }
}

/// h2load against one host of the edge; insists that nothing failed.
fn h2load(edge: &Edge, host: &str, path: &str, options: &[&str], requests: usize) {
    let count = requests.to_string();
    let connect = format!("--connect-to={}", edge.https[0]);
    let url = format!("https://{host}{path}");
    let mut arguments = vec!["-n", &count, &connect];
    arguments.extend(options);
    arguments.push(&url);
    let shown = Tool::new("h2load").args(arguments).succeed().unwrap();
    let done = format!(
        "requests: {requests} total, {requests} started, {requests} done, {requests} succeeded, 0 failed, 0 errored, 0 timeout"
    );
    assert!(shown.contains(&done), "{shown}");
    assert!(
        shown.contains(&format!("status codes: {requests} 2xx")),
        "{shown}"
    );
}

#[test]
fn h2load_fails_at_neither_tenant() {
    let Tenants { edge, acme, globex } = tenants("h2-load", "http1");
    let _router = edge.start().unwrap();
    for (host, nginx) in [(ACME, &acme), (GLOBEX, &globex)] {
        h2load(&edge, host, "/hello", &["-c", "4", "-m", "16"], 1_000);
        assert_eq!(nginx.answered(), 1_000, "each request once");
        h2load(&edge, host, "/files/medium", &["-c", "2", "-m", "8"], 100);
    }
    h2load(&edge, ACME, "/hello", &["--h1", "-c", "4"], 500);
}

#[test]
fn h2load_fails_at_neither_tenant_over_http2_upstreams() {
    let Tenants { edge, acme, globex } = tenants("h2-load-h2", "http2");
    let _router = edge.start().unwrap();
    for (host, nginx) in [(ACME, &acme), (GLOBEX, &globex)] {
        h2load(&edge, host, "/hello", &["-c", "4", "-m", "16"], 1_000);
        assert_eq!(nginx.answered(), 1_000, "each request once");
        h2load(&edge, host, "/hello", &["--h1", "-c", "4"], 200);
    }
}

/// Checks large bodies in both directions with curl, by bytes.
fn large_bodies(tenants: &Tenants) {
    let Tenants { edge, acme, globex } = tenants;
    let upload = edge.folder().join("upload.bin");
    std::fs::write(&upload, pattern(LARGE)).unwrap();
    let download = edge.folder().join("download.bin");
    for (host, nginx) in [(ACME, acme), (GLOBEX, globex)] {
        for version in ["--http2", "--http1.1"] {
            let mut arguments = edge.curl(host).unwrap();
            arguments.extend(
                [
                    version,
                    "--fail",
                    "--output",
                    &download.to_string_lossy(),
                    "--write-out",
                    "%{http_version}",
                ]
                .map(str::to_owned),
            );
            for (path, size) in [("/files/medium", MEDIUM), ("/files/large", LARGE)] {
                let mut arguments = arguments.clone();
                arguments.push(format!("https://{host}{path}"));
                let spoken = Tool::new("curl").args(arguments).succeed().unwrap();
                assert_eq!(version.trim_start_matches("--http"), spoken);
                assert!(
                    std::fs::read(&download).unwrap() == pattern(size),
                    "{host} {path} {version}"
                );
            }
            let name = format!("{}.bin", version.trim_start_matches("--").replace('.', "-"));
            arguments.extend([
                "--upload-file".to_owned(),
                upload.to_string_lossy().into_owned(),
                format!("https://{host}/upload/{name}"),
            ]);
            Tool::new("curl").args(arguments).succeed().unwrap();
            assert!(
                nginx.uploaded(&name).unwrap() == pattern(LARGE),
                "{host} {version}"
            );
        }
    }
}

#[test]
fn large_bodies_pass_both_ways() {
    let tenants = tenants("h2-large", "http1");
    let _router = tenants.edge.start().unwrap();
    large_bodies(&tenants);
}

#[test]
fn large_bodies_pass_both_ways_over_http2_upstreams() {
    let tenants = tenants("h2-large-h2", "http2");
    let _router = tenants.edge.start().unwrap();
    large_bodies(&tenants);
}

#[test]
fn streams_do_not_wait_for_each_other() {
    let edge = Edge::with_backend("h2-streams", 9001).unwrap();
    // Answers `/slow` only after every `/fast` has been asked for.
    let fast = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let asked = std::sync::Arc::clone(&fast);
    let _backend = Backend::start(edge.port(9001), move |conversation| {
        use std::sync::atomic::Ordering;
        while let Some(request) = conversation.request()? {
            if request.starts_with(b"GET /slow") {
                let _ = wait::until_true("the fast ones", || asked.load(Ordering::SeqCst) >= 20);
            } else {
                asked.fetch_add(1, Ordering::SeqCst);
            }
            conversation.send(OK)?;
        }
        Ok(())
    })
    .unwrap();
    let _router = edge.start().unwrap();
    let tls = TlsClient::new(&edge.ca, &["h2"]);
    h2_client::run(async {
        let mut connection = H2Connection::open(&tls, edge.https[0], ACME).await?;
        let request = |path: &str| http::Request::get(format!("https://{ACME}{path}")).body(());
        let slow = connection.start(request("/slow")?).await?;
        for _ in 0..20 {
            assert_eq!(connection.get(ACME, "/fast").await?.status, 200);
        }
        assert_eq!(h2_client::read(slow).await?.body, b"ok");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_reset_stream_hurts_no_other() {
    let edge = Edge::with_backend("h2-reset", 9001).unwrap();
    let backend = Backend::start(edge.port(9001), |conversation| {
        while let Some(request) = conversation.request()? {
            if request.starts_with(b"GET /endless") {
                conversation.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
                loop {
                    conversation.send(&chunk)?;
                }
            }
            conversation.send(OK)?;
        }
        Ok(())
    })
    .unwrap();
    let _router = edge.start().unwrap();
    let tls = TlsClient::new(&edge.ca, &["h2"]);
    h2_client::run(async {
        let mut connection = H2Connection::open(&tls, edge.https[0], ACME).await?;
        for _ in 0..5 {
            let request = http::Request::get(format!("https://{ACME}/endless")).body(())?;
            let response = connection.start(request).await?.await?;
            let mut body = response.into_body();
            body.data().await.expect("the body has begun")?;
            // Dropping a body that is not at its end resets the stream.
            drop(body);
            assert_eq!(connection.get(ACME, "/fine").await?.body, b"ok");
        }
        // A request that is reset before its body has ended is not completed upstream.
        let request = http::Request::post(format!("https://{ACME}/half")).body(())?;
        let mut ready = connection.requests.clone().ready().await?;
        let (response, mut stream) = ready.send_request(request, false)?;
        stream.send_data(Bytes::from_static(b"half"), false)?;
        stream.reserve_capacity(1);
        let _ = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        stream.send_reset(h2::Reason::CANCEL);
        assert!(h2_client::read(response).await.is_err());
        assert_eq!(connection.get(ACME, "/fine").await?.body, b"ok");
        Ok(())
    })
    .unwrap();
    assert_eq!(backend.count("0\r\n\r\n"), 0, "half a body was completed");
    assert_eq!(backend.count("GET /fine "), 6);
}

#[test]
fn the_fields_of_http2_become_those_of_http_1() {
    let edge = Edge::with_backend("h2-fields", 9001).unwrap();
    let backend = Backend::answering(
        edge.port(9001),
        "HTTP/1.1 200 OK\r\nConnection: X-Named\r\nX-Named: 1\r\nKeep-Alive: 5\r\nX-Kept: 1\r\n\
         Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n",
    )
    .unwrap();
    let _router = edge.start().unwrap();
    let tls = TlsClient::new(&edge.ca, &["h2"]);
    let response = h2_client::run(async {
        let mut connection = H2Connection::open(&tls, edge.https[0], ACME).await?;
        let request = http::Request::get(format!("https://{ACME}/a%20b?c=/d&e"))
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("x-forwarded-for", "6.6.6.6")
            .header("te", "trailers")
            .header("x-own", "kept")
            .body(())?;
        h2_client::read(connection.start(request).await?).await
    })
    .unwrap();
    assert_eq!(
        (response.status, response.body.as_slice()),
        (200, &b"ok"[..])
    );
    for name in ["connection", "x-named", "keep-alive", "transfer-encoding"] {
        assert!(
            !response.headers.contains_key(name),
            "{name}: {:?}",
            response.headers
        );
    }
    assert_eq!(response.headers["x-kept"], "1");
    assert_eq!(response.trailers.unwrap()["x-sum"], "7");

    let recorded = backend.text().to_ascii_lowercase();
    assert!(
        recorded.starts_with("get /a%20b?c=/d&e http/1.1\r\nhost: "),
        "{recorded}"
    );
    assert_eq!(
        recorded
            .matches("\r\nhost: shop.acme.example.org\r\n")
            .count(),
        1,
        "{recorded}"
    );
    assert!(recorded.contains("\r\ncookie: a=1; b=2\r\n"), "{recorded}");
    assert!(recorded.contains("\r\nx-own: kept\r\n"), "{recorded}");
    assert!(!recorded.contains("6.6.6.6"), "{recorded}");
    assert_eq!(
        recorded.matches("x-forwarded-for:").count(),
        1,
        "{recorded}"
    );
    assert!(
        !recorded.contains("content-length"),
        "a GET without a body has none: {recorded}"
    );
}

#[test]
fn a_body_of_unknown_length_arrives_whole_and_once() {
    let edge = Edge::with_backend("h2-unknown", 9001).unwrap();
    let backend = Backend::answering(edge.port(9001), OK).unwrap();
    let _router = edge.start().unwrap();
    let tls = TlsClient::new(&edge.ca, &["h2"]);
    h2_client::run(async {
        let connection = H2Connection::open(&tls, edge.https[0], ACME).await?;
        let request = http::Request::post(format!("https://{ACME}/up")).body(())?;
        let mut ready = connection.requests.clone().ready().await?;
        let (response, mut stream) = ready.send_request(request, false)?;
        for piece in ["one, ", "two, ", "three"] {
            stream.send_data(Bytes::from_static(piece.as_bytes()), piece == "three")?;
        }
        assert_eq!(h2_client::read(response).await?.status, 200);
        Ok(())
    })
    .unwrap();
    let recorded = backend.text();
    let (head, body) = recorded.split_once("\r\n\r\n").unwrap();
    assert!(
        head.to_ascii_lowercase()
            .contains("transfer-encoding: chunked"),
        "{head}"
    );
    // Without the chunk sizes, which are the router's to choose.
    let text: String = body.split("\r\n").skip(1).step_by(2).collect();
    assert_eq!(text, "one, two, three", "{body:?}");
    assert!(body.ends_with("0\r\n\r\n"));
}

#[test]
fn a_length_that_lies_is_refused() {
    let edge = Edge::with_backend("h2-length", 9001).unwrap();
    let backend = Backend::answering(edge.port(9001), OK).unwrap();
    let _router = edge.start().unwrap();
    let tls = TlsClient::new(&edge.ca, &["h2"]);
    for (announced, body) in [("3", "hello"), ("9", "hello")] {
        h2_client::run(async {
            let connection = H2Connection::open(&tls, edge.https[0], ACME).await?;
            let request = http::Request::post(format!("https://{ACME}/lie"))
                .header("content-length", announced)
                .body(())?;
            let mut ready = connection.requests.clone().ready().await?;
            let (response, mut stream) = ready.send_request(request, false)?;
            let _ = stream.send_data(Bytes::copy_from_slice(body.as_bytes()), true);
            if let Ok(answer) = h2_client::read(response).await {
                assert!(
                    answer.status >= 400,
                    "length {announced} was taken for {body:?}"
                );
            }
            Ok(())
        })
        .unwrap();
    }
    // No backend may have got a request that looks whole.
    for bytes in backend.received() {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = text
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.len())
            .unwrap_or_default();
        assert!(body < 9, "{text}");
        assert!(!text.contains("\r\nGET"), "{text}");
    }
}

#[test]
fn a_drain_says_goaway_and_lets_streams_finish() {
    let edge = Edge::with_backend("h2-goaway", 9001).unwrap();
    let (backend, go_on) = Backend::gated(edge.port(9001)).unwrap();
    let mut router = edge.start().unwrap();
    let tls = TlsClient::new(&edge.ca, &["h2"]);
    h2_client::run(async {
        let mut connection = H2Connection::open(&tls, edge.https[0], ACME).await?;
        let request = http::Request::get(format!("https://{ACME}/")).body(())?;
        let pending = connection.start(request).await?;
        while backend.count("GET / ") == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        router.terminate();
        // New streams are refused from the GOAWAY on.
        loop {
            let mut requests = connection.requests.clone();
            if std::future::poll_fn(|cx| requests.poll_ready(cx))
                .await
                .is_err()
            {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        go_on.send(())?;
        assert_eq!(h2_client::read(pending).await?.body, b"ok");
        drop(connection.requests);
        connection.driver.await??;
        Ok(())
    })
    .unwrap();
    assert!(
        router.process.wait(wait::PATIENCE).unwrap().success(),
        "{}",
        router.log()
    );
}
