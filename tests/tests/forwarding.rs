//! What is passed on: each request once, byte for byte, but for what an intermediary must change.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use harness::backend::{Backend, OK};
use harness::edge::{Edge, HOST};

fn edge(label: &str) -> (Edge, Backend) {
    let edge = Edge::with_backend(label, 9001).unwrap();
    let backend = Backend::answering(edge.port(9001), OK).unwrap();
    (edge, backend)
}

/// The fields of a recorded head that are not the router's own, one line each.
fn passed_on(recorded: &str) -> Vec<&str> {
    let head = recorded.split("\r\n\r\n").next().unwrap_or_default();
    head.split("\r\n")
        .filter(|line| {
            let name = line
                .split(':')
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase();
            !name.starts_with("x-forwarded-") && name != "forwarded"
        })
        .collect()
}

/// The values of a field in a recorded head.
fn values<'a>(recorded: &'a str, name: &str) -> Vec<&'a str> {
    let head = recorded.split("\r\n\r\n").next().unwrap_or_default();
    head.split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .filter(|(it, _)| it.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .collect()
}

#[test]
fn a_request_is_forwarded_once_and_byte_for_byte() {
    let (edge, backend) = edge("forward-exact");
    let _router = edge.start().unwrap();
    let fields = [
        "X-CaSe: Kept As It Is",
        "x-order: 2",
        "X-Order: 1",
        "X-Order: 3",
        "Cookie: a=1; b=\"2\"",
        "Accept:  */*;q=0.5, text/html ",
        "X-Utf8: gr\u{fc}\u{df}e",
        "X_Under_Score: 1",
        "Authorization: Bearer abc==",
        "Content-Length: 11",
    ];
    let body = "a\r\nb\0c\x7f\x01d\r\n";
    assert_eq!(body.len(), 11);
    let path = "/a/../b/./c//d;p=1/%2e%2E/%00?q=%zz&x=\"'<>{}|^`[]&&=?";
    let mut client = edge.connect(HOST).unwrap();
    let request = format!(
        "PUT {path} HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n\r\n{body}",
        fields.join("\r\n")
    );
    let response = client.exchange(request).unwrap();
    assert_eq!(response.status, 200, "{}", response.text());

    assert_eq!(backend.connections(), 1);
    let recorded = backend.text();
    let lines = passed_on(&recorded);
    assert_eq!(lines[0], format!("PUT {path} HTTP/1.1"));
    assert_eq!(lines[1], format!("Host: {HOST}"));
    assert_eq!(lines[2..], fields, "fields, in their order");
    assert!(
        recorded.ends_with(&format!("\r\n\r\n{body}")),
        "{recorded:?}"
    );
}

#[test]
fn hop_by_hop_fields_end_here() {
    let (edge, backend) = edge("forward-hop");
    let _router = edge.start().unwrap();
    let mut client = edge.connect(HOST).unwrap();
    client
        .exchange(format!(
            "GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: keep-alive, X-Named , x-other,Host, \
             X-Forwarded-For, Content-Length\r\nX-Named: 1\r\nX-Other: 1\r\nKeep-Alive: timeout=5\r\n\
             Proxy-Connection: keep-alive\r\nTE: gzip, deflate\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\
             Proxy-Authorization: Basic eA==\r\nX-Kept: 1\r\n\r\n"
        ))
        .unwrap();
    let recorded = backend.text();
    for name in [
        "x-named",
        "x-other",
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
        "http2-settings",
    ] {
        assert_eq!(
            values(&recorded, name),
            Vec::<&str>::new(),
            "{name} was passed on: {recorded}"
        );
    }
    assert_eq!(values(&recorded, "x-kept"), ["1"]);
    assert_eq!(
        values(&recorded, "host"),
        [HOST],
        "Connection must not take Host away"
    );
    assert_eq!(
        values(&recorded, "x-forwarded-for").len(),
        1,
        "nor our own fields: {recorded}"
    );
}

#[test]
fn hop_by_hop_fields_of_an_answer_end_here_too() {
    let edge = Edge::with_backend("forward-hop-back", 9001).unwrap();
    let _backend = Backend::answering(
        edge.port(9001),
        "HTTP/1.1 200 Fine\r\nConnection: X-Named, keep-alive\r\nX-Named: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: x\r\nX-KePt: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok",
    )
    .unwrap();
    let _router = edge.start().unwrap();
    let response = edge
        .connect(HOST)
        .unwrap()
        .exchange(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
        .unwrap();
    for name in ["x-named", "keep-alive", "proxy-connection", "connection"] {
        assert_eq!(response.header(name), None, "{name}");
    }
    assert!(String::from_utf8_lossy(&response.head).starts_with("HTTP/1.1 200 Fine\r\n"));
    assert!(String::from_utf8_lossy(&response.head).contains("\r\nX-KePt: 1\r\n"));
    assert_eq!(response.header_values("set-cookie"), ["a", "b"]);
}

const SPOOFED: &str = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: gopher\r\nX-Forwarded-Host: evil.example\r\n\
                       X-Forwarded-Port: 1\r\nForwarded: for=6.6.6.6;host=evil.example\r\nX-Real-IP: 6.6.6.6\r\n";

#[test]
fn where_a_request_came_from_is_said_by_us() {
    let (edge, backend) = edge("forward-from");
    let _router = edge.start().unwrap();
    let mut client = edge.connect(HOST).unwrap();
    let own = client.local_address().unwrap().ip().to_string();
    client
        .exchange(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{SPOOFED}\r\n"))
        .unwrap();
    let recorded = backend.text();
    assert_eq!(values(&recorded, "x-forwarded-for"), [own.as_str()]);
    assert_eq!(values(&recorded, "x-forwarded-proto"), ["https"]);
    assert_eq!(values(&recorded, "x-forwarded-host"), [HOST]);
    assert_eq!(
        values(&recorded, "x-forwarded-port"),
        [edge.https[0].port().to_string().as_str()]
    );
    let forwarded = values(&recorded, "forwarded");
    assert_eq!(forwarded.len(), 1);
    for part in [format!("for={own}"), "proto=https".into(), HOST.into()] {
        assert!(
            forwarded[0].contains(&part),
            "{part} is not in {forwarded:?}"
        );
    }
    for spoof in ["6.6.6.6", "evil.example", "gopher"] {
        assert!(
            !recorded.contains(spoof),
            "{spoof} was passed on: {recorded}"
        );
    }
}

#[test]
fn a_trusted_proxy_is_believed_and_added_to() {
    let (mut edge, backend) = edge("forward-trusted");
    edge.more = "trusted_proxies: [\"127.0.0.0/8\"]\n".into();
    let _router = edge.start().unwrap();
    let mut client = edge.connect(HOST).unwrap();
    let own = client.local_address().unwrap().ip().to_string();
    client
        .exchange(format!(
            "GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n\
             X-Forwarded-Host: outer.example\r\nX-Forwarded-Port: 81\r\nForwarded: for=192.0.2.7\r\n\r\n"
        ))
        .unwrap();
    let recorded = backend.text();
    assert_eq!(
        values(&recorded, "x-forwarded-for"),
        [format!("192.0.2.7, {own}")]
    );
    assert_eq!(values(&recorded, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&recorded, "x-forwarded-host"), ["outer.example"]);
    assert_eq!(values(&recorded, "x-forwarded-port"), ["81"]);
    let forwarded = values(&recorded, "forwarded").join(", ");
    assert!(forwarded.starts_with("for=192.0.2.7, for="), "{forwarded}");
}

#[test]
fn a_client_may_wait_for_100_continue() {
    let edge = Edge::with_backend("forward-continue", 9001).unwrap();
    let backend = Backend::start(edge.port(9001), |conversation| {
        while let Some(head) = conversation.head()? {
            if head.starts_with(b"POST /no") {
                conversation.send(
                    "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                )?;
                return Ok(());
            }
            conversation.send("HTTP/1.1 100 Continue\r\n\r\n")?;
            conversation.exactly(5)?;
            conversation.send(OK)?;
        }
        Ok(())
    })
    .unwrap();
    let _router = edge.start().unwrap();
    let head = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )
    };
    let mut client = edge.connect(HOST).unwrap();
    client.send(head("/yes")).unwrap();
    assert_eq!(client.response("POST").unwrap().status, 100);
    client.send("hello").unwrap();
    let answer = client.response("POST").unwrap();
    assert_eq!((answer.status, answer.text()), (200, "ok".into()));
    assert!(backend.text().ends_with("\r\n\r\nhello"));

    let mut client = edge.connect(HOST).unwrap();
    client.send(head("/no")).unwrap();
    assert_eq!(
        client.response("POST").unwrap().status,
        413,
        "an answer instead of 100"
    );
}

#[test]
fn early_hints_and_other_interim_answers_pass() {
    let edge = Edge::with_backend("forward-interim", 9001).unwrap();
    let _backend = Backend::answering(
        edge.port(9001),
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .unwrap();
    let _router = edge.start().unwrap();
    let mut client = edge.connect(HOST).unwrap();
    client
        .send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
        .unwrap();
    let mut answer = client.response("GET").unwrap();
    if answer.status == 103 {
        assert_eq!(answer.header("link"), Some("</a.css>"));
        answer = client.response("GET").unwrap();
    }
    assert_eq!((answer.status, answer.text()), (200, "ok".into()));
}

#[test]
fn chunks_and_trailers_pass_both_ways() {
    let edge = Edge::with_backend("forward-chunks", 9001).unwrap();
    let backend = Backend::start(edge.port(9001), |conversation| {
        while conversation.head()?.is_some() {
            conversation.through(b"X-Sum: up\r\n\r\n")?;
            conversation.send(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                 3\r\nabc\r\n0A\r\n0123456789\r\n0\r\nX-Sum: down\r\n\r\n",
            )?;
        }
        Ok(())
    })
    .unwrap();
    let _router = edge.start().unwrap();
    let mut client = edge.connect(HOST).unwrap();
    for round in 1..=2 {
        let answer = client
            .exchange(format!(
                "POST / HTTP/1.1\r\nHost: {HOST}\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                 5;ext=1\r\nhello\r\n006\r\n world\r\n0\r\nX-Sum: up\r\n\r\n"
            ))
            .unwrap();
        assert_eq!(answer.text(), "abc0123456789", "round {round}");
        assert_eq!(answer.trailers, [("x-sum".to_owned(), "down".to_owned())]);
    }
    let recorded = backend.text();
    assert_eq!(values(&recorded, "te"), ["trailers"]);
    assert_eq!(backend.connections(), 1);
    assert_eq!(backend.count("X-Sum: up\r\n\r\n"), 2);
}

#[test]
fn trailers_cannot_bring_what_belongs_into_a_head() {
    let (edge, backend) = edge("forward-trailers");
    let _router = edge.start().unwrap();
    let mut client = edge.connect(HOST).unwrap();
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\
             Content-Length: 7\r\nHost: evil.example\r\nX-Forwarded-For: 6.6.6.6\r\nTransfer-Encoding: gzip\r\n\r\n"
        ))
        .unwrap();
    let _ = client.response("POST");
    let recorded = backend.text();
    for evil in ["Content-Length", "evil.example", "6.6.6.6", "gzip"] {
        assert!(!recorded.contains(evil), "{evil} was passed on: {recorded}");
    }
}

#[test]
fn answers_without_a_body_end_with_their_head() {
    let edge = Edge::with_backend("forward-bodyless", 9001).unwrap();
    let backend = Backend::start(edge.port(9001), |conversation| {
        while let Some(request) = conversation.request()? {
            let text = String::from_utf8_lossy(&request).into_owned();
            conversation.send(match text.split(' ').nth(1) {
                Some("/204") => "HTTP/1.1 204 No Content\r\n\r\n".as_bytes(),
                Some("/304") => {
                    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: \"a\"\r\n\r\n"
                }
                Some("/head") => b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
                Some("/head-chunked") => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                _ => OK,
            })?;
        }
        Ok(())
    })
    .unwrap();
    let _router = edge.start().unwrap();
    let mut client = edge.connect(HOST).unwrap();
    for (method, path, status) in [
        ("GET", "/204", 204),
        ("GET", "/304", 304),
        ("HEAD", "/head", 200),
        ("HEAD", "/head-chunked", 200),
    ] {
        let answer = client
            .exchange(format!("{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
            .unwrap();
        assert_eq!(answer.status, status, "{path}");
        if path == "/head" {
            assert_eq!(answer.header("content-length"), Some("99"));
        }
        // Had a body been waited for or made up, this would hang or be garbage.
        let next = client
            .exchange(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
            .unwrap();
        assert_eq!(next.text(), "ok", "after {path}");
    }
    assert_eq!(backend.connections(), 1);
}

#[test]
fn an_answer_that_ends_with_its_connection_is_framed_anew() {
    let edge = Edge::with_backend("forward-until-close", 9001).unwrap();
    let _backend = Backend::start(edge.port(9001), |conversation| {
        conversation.request()?;
        conversation.send("HTTP/1.0 200 OK\r\n\r\nold and long")
    })
    .unwrap();
    let _router = edge.start().unwrap();
    let mut client = edge.connect(HOST).unwrap();
    for _ in 0..2 {
        let answer = client
            .exchange(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
            .unwrap();
        assert_eq!(answer.text(), "old and long");
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let edge = Edge::with_backend("forward-pipeline", 9001).unwrap();
    let backend = Backend::start(edge.port(9001), |conversation| {
        while let Some(request) = conversation.request()? {
            let text = String::from_utf8_lossy(&request).into_owned();
            let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
            conversation.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}",
                path.len()
            ))?;
        }
        Ok(())
    })
    .unwrap();
    let _router = edge.start().unwrap();
    let requests: String = (0..20)
        .map(|number| {
            if number % 3 == 0 {
                format!("POST /{number} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\nhello")
            } else {
                format!("GET /{number} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
            }
        })
        .collect();
    let mut client = edge.connect(HOST).unwrap();
    client.send(&requests).unwrap();
    for number in 0..20 {
        assert_eq!(client.response("GET").unwrap().text(), format!("/{number}"));
    }
    for number in 0..20 {
        assert_eq!(backend.count(&format!(" /{number} HTTP/1.1\r\n")), 1);
    }
}

#[test]
fn an_http_1_0_client_is_understood() {
    let edge = Edge::with_backend("forward-1-0", 9001).unwrap();
    let backend = Backend::answering(
        edge.port(9001),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    )
    .unwrap();
    let _router = edge.start().unwrap();
    let mut client = edge.connect(HOST).unwrap();
    let answer = client
        .exchange(format!("GET /old HTTP/1.0\r\nHost: {HOST}\r\n\r\n"))
        .unwrap();
    assert_eq!(
        answer.header("transfer-encoding"),
        None,
        "HTTP/1.0 knows no chunks"
    );
    assert_eq!(answer.text(), "ok");
    assert_eq!(client.rest().unwrap(), b"");
    assert_eq!(backend.count("GET /old HTTP/1.1\r\n"), 1);
}

#[test]
fn a_client_that_says_close_is_obeyed() {
    let (edge, _backend) = edge("forward-close");
    let _router = edge.start().unwrap();
    let mut client = edge.connect(HOST).unwrap();
    let answer = client
        .exchange(format!(
            "GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
        ))
        .unwrap();
    assert_eq!(answer.text(), "ok");
    assert!(answer.closes());
    assert_eq!(client.rest().unwrap(), b"");
}
