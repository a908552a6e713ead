//! Which request goes where: by the host of each request, never by the connection.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use harness::backend::Backend;
use harness::ca::KeyKind;
use harness::client::TlsClient;
use harness::edge::{Edge, Upstream, route_file};
use harness::h2_client::{self, H2Connection};
use harness::router;

/// An edge with a certificate for `*.example.org` and `*.k8s.example.org`.
fn edge(label: &str) -> Edge {
    let edge = Edge::new(label).unwrap();
    edge.certificate(
        "wild",
        &["*.example.org", "*.k8s.example.org", "example.org"],
        KeyKind::Ecdsa,
    )
    .unwrap();
    edge
}

/// A tenant with one backend that answers with the tenant's name.
fn tenant(edge: &Edge, name: &str, port: u16, hosts: &[&str]) -> Backend {
    let routes: Vec<_> = hosts.iter().map(|host| (*host, "workers")).collect();
    let upstream = Upstream::plain("workers", &[edge.port(port)]);
    edge.routes(name, &route_file(name, &[upstream], &routes))
        .unwrap();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}",
        name.len()
    );
    Backend::answering(edge.port(port), answer).unwrap()
}

fn ask(edge: &Edge, host: &str) -> (u16, String) {
    let sni = host
        .split(':')
        .next()
        .unwrap_or(host)
        .trim_end_matches('.')
        .to_ascii_lowercase();
    let mut connection = edge.connect(&sni).unwrap();
    let response = connection
        .exchange(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .unwrap();
    (response.status, response.text())
}

#[test]
fn exact_names_suffixes_and_the_longest_match() {
    let edge = edge("routing");
    let _backends = [
        tenant(
            &edge,
            "exact",
            9001,
            &["shop.example.org", "api-7.k8s.example.org"],
        ),
        tenant(&edge, "cluster", 9002, &["*-apps-7.k8s.example.org"]),
        tenant(&edge, "longer", 9003, &["*-x-apps-8.k8s.example.org"]),
    ];
    // One owner may hold a wide rule and a narrow one.
    let wide = route_file(
        "wide",
        &[
            Upstream::plain("any", &[edge.port(9004)]),
            Upstream::plain("narrow", &[edge.port(9005)]),
            Upstream::plain("one", &[edge.port(9006)]),
        ],
        &[
            ("*-apps-9.k8s.example.org", "any"),
            ("*-b-apps-9.k8s.example.org", "narrow"),
            ("a-b-apps-9.k8s.example.org", "one"),
        ],
    );
    edge.routes("wide", &wide).unwrap();
    let answer = |name: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}",
            name.len()
        )
    };
    let _wide = [
        Backend::answering(edge.port(9004), answer("any")).unwrap(),
        Backend::answering(edge.port(9005), answer("narrow")).unwrap(),
        Backend::answering(edge.port(9006), answer("one")).unwrap(),
    ];
    let _router = edge.start().unwrap();
    for (host, owner) in [
        ("shop.example.org", "exact"),
        ("SHOP.Example.ORG", "exact"),
        ("shop.example.org:443", "exact"),
        ("shop.example.org:8443", "exact"),
        ("api-7.k8s.example.org", "exact"),
        ("a-apps-7.k8s.example.org", "cluster"),
        ("a-b-c-apps-7.k8s.example.org", "cluster"),
        ("y-x-apps-8.k8s.example.org", "longer"),
        ("z-apps-9.k8s.example.org", "any"),
        ("z-b-apps-9.k8s.example.org", "narrow"),
        ("a-b-apps-9.k8s.example.org", "one"),
    ] {
        assert_eq!(ask(&edge, host), (200, owner.to_owned()), "{host}");
    }
    // The star stands for at least one character, and never for a dot.
    for host in [
        "-apps-7.k8s.example.org",
        "x-apps-77.k8s.example.org",
        "x-apps-8.k8s.example.org",
    ] {
        let mut connection = edge.connect("a-apps-7.k8s.example.org").unwrap();
        let response = connection
            .exchange(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .unwrap();
        assert!(
            matches!(response.status, 400 | 404),
            "{host}: {}",
            response.status
        );
    }
}

#[test]
fn an_unknown_host_gets_404_without_a_word_about_the_inside() {
    let edge = edge("routing-unknown");
    let backend = tenant(&edge, "acme", 9001, &["shop.example.org"]);
    let _router = edge.start().unwrap();
    let mut connection = edge.connect("nobody.example.org").unwrap();
    let response = connection
        .exchange("GET / HTTP/1.1\r\nHost: nobody.example.org\r\n\r\n")
        .unwrap();
    assert_eq!(response.status, 404);
    let whole =
        String::from_utf8_lossy(&response.head).to_lowercase() + &response.text().to_lowercase();
    for inside in [
        "acme",
        "shop",
        "gatehouse",
        "127.",
        "9001",
        "workers",
        "routes",
    ] {
        assert!(!whole.contains(inside), "{inside:?} in {whole:?}");
    }
    assert_eq!(backend.connections(), 0);
    // The connection is as good as before.
    let next = connection
        .exchange("GET / HTTP/1.1\r\nHost: shop.example.org\r\n\r\n")
        .unwrap();
    assert_eq!((next.status, next.text()), (200, "acme".into()));
}

#[test]
fn a_host_that_the_certificate_does_not_cover_is_misdirected() {
    let edge = Edge::new("routing-421").unwrap();
    edge.certificate("acme", &["shop.acme.example.org"], KeyKind::Ecdsa)
        .unwrap();
    edge.certificate("globex", &["shop.globex.example.org"], KeyKind::Ecdsa)
        .unwrap();
    let acme = tenant(&edge, "acme", 9001, &["shop.acme.example.org"]);
    let globex = tenant(&edge, "globex", 9002, &["shop.globex.example.org"]);
    let _router = edge.start().unwrap();

    let mut connection = edge.connect("shop.acme.example.org").unwrap();
    for host in ["shop.globex.example.org", "nobody.example.org"] {
        let answer = connection
            .exchange(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .unwrap();
        assert_eq!(answer.status, 421, "{host} on a connection for acme");
        if answer.closes() {
            connection = edge.connect("shop.acme.example.org").unwrap();
        }
    }
    let own = connection
        .exchange("GET / HTTP/1.1\r\nHost: shop.acme.example.org\r\n\r\n")
        .unwrap();
    assert_eq!((own.status, own.text()), (200, "acme".into()));

    let tls = TlsClient::new(&edge.ca, &["h2"]);
    h2_client::run(async {
        let mut connection =
            H2Connection::open(&tls, edge.https[0], "shop.acme.example.org").await?;
        assert_eq!(
            connection.get("shop.globex.example.org", "/").await?.status,
            421
        );
        assert_eq!(
            connection.get("shop.acme.example.org", "/").await?.status,
            200
        );
        Ok(())
    })
    .unwrap();
    assert_eq!(
        globex.connections(),
        0,
        "a request for globex went through acme's connection"
    );
    assert_eq!(acme.count("GET / HTTP/1.1"), 2);
}

#[test]
fn requests_on_one_connection_go_where_each_of_them_says() {
    let edge = edge("routing-shared");
    let acme = tenant(&edge, "acme", 9001, &["acme.example.org"]);
    let globex = tenant(&edge, "globex", 9002, &["globex.example.org"]);
    let _router = edge.start().unwrap();
    let order = ["acme", "globex", "globex", "acme", "globex", "acme"];

    let mut connection = edge.connect("acme.example.org").unwrap();
    for name in order {
        let request = format!("GET / HTTP/1.1\r\nHost: {name}.example.org\r\n\r\n");
        assert_eq!(connection.exchange(request).unwrap().text(), name);
    }
    let tls = TlsClient::new(&edge.ca, &["h2"]);
    h2_client::run(async {
        let mut connection = H2Connection::open(&tls, edge.https[0], "acme.example.org").await?;
        for name in order {
            let response = connection.get(&format!("{name}.example.org"), "/").await?;
            assert_eq!(
                (response.status, response.body.as_slice()),
                (200, name.as_bytes())
            );
        }
        Ok(())
    })
    .unwrap();
    assert_eq!((acme.count("GET / "), globex.count("GET / ")), (6, 6));
    assert_eq!(
        acme.count("globex"),
        0,
        "a request went to the wrong tenant"
    );
    assert_eq!(
        globex.count("acme"),
        0,
        "a request went to the wrong tenant"
    );
}

#[test]
fn an_authority_that_contradicts_host_is_refused_over_http2() {
    let edge = edge("routing-authority");
    let acme = tenant(&edge, "acme", 9001, &["acme.example.org"]);
    let globex = tenant(&edge, "globex", 9002, &["globex.example.org"]);
    let _router = edge.start().unwrap();
    let tls = TlsClient::new(&edge.ca, &["h2"]);
    h2_client::run(async {
        let mut connection = H2Connection::open(&tls, edge.https[0], "acme.example.org").await?;
        let request = http::Request::get("https://acme.example.org/")
            .header("host", "globex.example.org")
            .body(())?;
        let pending = connection.start(request).await?;
        if let Ok(response) = h2_client::read(pending).await {
            assert_eq!(response.status, 400);
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(acme.connections() + globex.connections(), 0);
}

#[test]
fn a_name_with_two_owners_is_refused_at_load() {
    let edge = edge("routing-owners");
    let route = |tenant: &str, host: &str| {
        route_file(
            tenant,
            &[Upstream::plain("workers", &[edge.port(9001)])],
            &[(host, "workers")],
        )
    };
    edge.write_settings().unwrap();
    let configuration = edge.configuration();
    let configuration = configuration.to_string_lossy();
    let check = || {
        router::tool(&["check", "--config", &configuration])
            .unwrap()
            .run()
            .unwrap()
    };

    edge.routes("acme", &route("acme", "shop.example.org"))
        .unwrap();
    edge.routes("globex", &route("globex", "store.example.org"))
        .unwrap();
    let good = check();
    assert!(good.status.success(), "{}{}", good.stdout, good.stderr);

    for (what, first, second) in [
        ("one exact name", "shop.example.org", "shop.example.org"),
        (
            "one suffix",
            "*-apps-7.k8s.example.org",
            "*-apps-7.k8s.example.org",
        ),
        (
            "a name under another's suffix",
            "*-apps-7.k8s.example.org",
            "a-apps-7.k8s.example.org",
        ),
        (
            "a suffix under another's",
            "*-apps-7.k8s.example.org",
            "*-x-apps-7.k8s.example.org",
        ),
    ] {
        edge.routes("acme", &route("acme", first)).unwrap();
        edge.routes("globex", &route("globex", second)).unwrap();
        let output = check();
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(!output.status.success(), "{what} was accepted: {said}");
        for word in ["acme", "globex", "globex.yaml"] {
            assert!(
                said.contains(word),
                "{what}: {word} is not named in: {said}"
            );
        }
    }
}
