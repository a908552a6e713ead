//! A credential of one tenant in the wrong hands, over the real listeners: everything that the API
//! offers is aimed at another tenant, while clients ask for both. Needs root, for network namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use harness::ca::Ca;
use harness::client::{Connection, TlsClient};
use harness::clients::Count;
use harness::fleet::api::{Answer, Api};
use harness::fleet::{Fleet, FleetPlan};
use harness::results::Rows;
use harness::wait;
use serde_json::{Value, json};

/// The victim, and the tenant whose credential was stolen.
const A: &str = "acme";
const B: &str = "globex";

/// Names of the victim's: a rule that it holds, one within it, and others that it could claim.
const NAMES_OF_A: [&str; 4] = [
    "*-apps-1.k8s.example.org",
    "shop-apps-1.k8s.example.org",
    "new-apps-1.k8s.example.org",
    "*-shop-apps-1.k8s.example.org",
];

/// Names that nobody has been leased, and that take the victim's.
const NAMES_ABOVE: [&str; 2] = ["*-1.k8s.example.org", "*.k8s.example.org"];

/// A name that the thief's tenant may hold.
const NAME_OF_B: &str = "new-apps-2.k8s.example.org";

static ROWS: Mutex<Rows> = Mutex::new(Rows::new(
    "registry-stolen",
    &["credential", "calls", "refused", "as", "in the audit log"],
));

static LOAD: Mutex<Rows> = Mutex::new(Rows::new(
    "registry-stolen-load",
    &const { Count::head::<8>("clients of both tenants", &[]) },
));

/// A call that aims at the victim.
#[derive(Clone, Debug)]
struct Attempt {
    method: String,
    target: String,
    body: Option<Value>,
}

/// What the thief knows.
struct Aim {
    endpoint_of_a: SocketAddr,
    endpoint_of_b: SocketAddr,
    token_of_a: String,
}

impl Aim {
    /// Every call of the document with everything in it that is the victim's.
    fn attempts(&self, document: &Value) -> Vec<Attempt> {
        let mut all = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                for target in self.targets(path) {
                    for body in self.bodies(method, path, &target) {
                        all.push(Attempt {
                            method: method.to_ascii_uppercase(),
                            target: target.clone(),
                            body,
                        });
                    }
                }
            }
        }
        all
    }

    fn targets(&self, path: &str) -> Vec<String> {
        let mut all = Vec::new();
        let names = NAMES_OF_A.iter().chain(&NAMES_ABOVE).chain([&NAME_OF_B]);
        for name in names {
            for tenant in [A, B] {
                for instance in ["acme-w1", "new"] {
                    all.push(
                        path.replace("{host}", name)
                            .replace("{pattern}", name)
                            .replace("{tenant}", tenant)
                            .replace("{instance}", instance)
                            .replace("{id}", &self.token_of_a),
                    );
                }
            }
        }
        all.sort();
        all.dedup();
        let as_a: Vec<_> = all.iter().map(|it| format!("{it}?tenant={A}")).collect();
        // Watches that are allowed stay open; there is one apart.
        all.retain(|it| it != "/v1/watch");
        all.extend(as_a);
        all
    }

    /// Bodies that make the call an attempt on the victim; none if it is the thief's own right.
    fn bodies(&self, method: &str, path: &str, target: &str) -> Vec<Option<Value>> {
        let (a, b) = (self.endpoint_of_a, self.endpoint_of_b);
        let announce = |routes: &[(&str, SocketAddr)]| {
            let routes: Vec<_> = routes
                .iter()
                .map(|(host, endpoint)| json!({"host": host, "endpoint": endpoint}))
                .collect();
            Some(json!({"ttl": 60, "routes": routes}))
        };
        match (method, path) {
            ("put", "/v1/routes/{host}") => {
                let mut bodies = vec![json!({"endpoints": [a]}), json!({"endpoints": [b, a]})];
                if !target.contains(NAME_OF_B) {
                    bodies.push(json!({"endpoints": [b]}));
                    bodies.push(json!({"endpoints": [b], "shared": true}));
                }
                bodies.into_iter().map(Some).collect()
            }
            ("put", "/v1/tenants/{tenant}/instances/{instance}") => vec![
                announce(&[(NAMES_OF_A[0], b)]),
                announce(&[(NAMES_OF_A[1], b)]),
                announce(&[(NAMES_OF_A[0], a)]),
                announce(&[(NAMES_ABOVE[0], b)]),
                announce(&[(NAME_OF_B, a)]),
                announce(&[(NAME_OF_B, b), (NAMES_OF_A[2], b)]),
            ],
            ("put", _) => vec![Some(json!({"addresses": [b.ip()], "shared": true}))],
            ("post", _) => vec![
                Some(json!({"tenant": A, "note": "stolen"})),
                Some(json!({"tenant": B, "note": "stolen"})),
            ],
            _ => vec![None],
        }
    }
}

impl Attempt {
    /// Makes it, again if it comes too soon.
    fn make(&self, api: &Api) -> Answer {
        let what = format!("{} {}", self.method, self.target);
        wait::until(&what, wait::PATIENCE, || {
            let answer = api.call(&self.method, &self.target, self.body.as_ref());
            let answer = answer.unwrap_or_else(|error| panic!("{what}: {error:#}"));
            (answer.status != 429).then_some(answer)
        })
        .unwrap()
    }

    fn is_allowed(&self) -> bool {
        let open = ["/v1/health", "/v1/openapi.json"];
        let as_a = self.target.ends_with("?tenant=acme");
        let path = self.target.split('?').next().unwrap();
        match self.method.as_str() {
            // Lists of the thief's own things.
            "GET" => {
                let lists = ["/v1/routes", "/v1/instances", "/v1/zones"];
                !as_a && (open.contains(&path) || lists.contains(&path))
            }
            // Of an instance of the thief's tenant that there is not.
            "DELETE" => !as_a && path.starts_with("/v1/tenants/globex/"),
            _ => false,
        }
    }

    /// Whether the answer has to be in the audit log.
    fn is_audited(&self, answer: &Answer) -> bool {
        self.method != "GET" && answer.status >= 400
    }
}

/// Everything in the store, and what routers make of the victim's part of it.
fn everything(fleet: &mut Fleet) -> (String, Vec<String>) {
    let tables = fleet.routers.iter().map(|door| {
        let mut rules = door.rules().unwrap();
        rules.retain(|it| it.to_string().contains("apps-1."));
        assert!(!rules.is_empty());
        Value::Array(rules).to_string()
    });
    let tables = tables.collect();
    let stored = fleet
        .cluster()
        .etcdctl(&["get", "/gatehouse/", "--prefix", "-w", "json"])
        .unwrap();
    let stored: Value = serde_json::from_str(&stored).unwrap();
    // Keys, values, revisions and leases; what comes before them is etcd's own.
    let entries = &stored["kvs"];
    assert!(entries.as_array().unwrap().len() > 8, "{stored}");
    (entries.to_string(), tables)
}

/// Opens a watch of the thief's own.
fn watch(api: &Api) -> Connection {
    let name = api.address.ip().to_string();
    let token = api.token.as_ref().unwrap();
    let mut connection = api
        .namespace
        .run(|| api.tls.connect(api.address, &name))
        .unwrap();
    let request =
        format!("GET /v1/watch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    connection.send(request).unwrap();
    let head = connection.take_through(b"\r\n\r\n").unwrap();
    assert!(head.starts_with(b"HTTP/1.1 200"));
    connection
}

#[test]
fn a_stolen_credential_opens_nothing_of_another_tenant() {
    let plan = FleetPlan {
        ttl: Duration::from_secs(10),
        renew: Duration::from_secs(2),
        ..FleetPlan::default()
    };
    let mut fleet = Fleet::start("stolen", &plan).unwrap();
    let operator = fleet.operator(0);
    let made = json!({"tenant": B, "note": "stolen"});
    let made = operator.succeed("POST", "/v1/tokens", Some(&made)).unwrap();
    let id = made["id"].as_str().unwrap().to_owned();
    let token = Some(made["token"].as_str().unwrap().to_owned());
    let uri = format!("spiffe://gatehouse/tenant/{B}");
    let identity = fleet.ca.issue_client(&uri).unwrap();
    let by_certificate = TlsClient::with_identity(&fleet.ca, &identity, &["http/1.1"]).unwrap();
    let thief = |door: usize, tls: &TlsClient, token: &Option<String>| Api {
        tls: tls.clone(),
        token: token.clone(),
        ..fleet.operator(door)
    };
    let plain = TlsClient::new(&fleet.ca, &["http/1.1"]);
    let with_token: Vec<Api> = (0..3).map(|door| thief(door, &plain, &token)).collect();
    let with_certificate: Vec<Api> = (0..3).map(|it| thief(it, &by_certificate, &None)).collect();
    for api in &with_token {
        let known = || api.call("GET", "/v1/routes", None).unwrap().status == 200;
        wait::until_true("the token to be known", known).unwrap();
    }

    let load = fleet.load().start();
    load.wait_for_calm(20).unwrap();

    // What the victim does is not for the thief to see.
    let mut watching = watch(&with_token[1]);
    let worker = &mut fleet.tenants[0].workers[1];
    worker.registrar.take().unwrap().stop();
    let without = fleet.tenants[0].without(1);
    fleet.wait_for_endpoints(0, &without).unwrap();
    fleet.tenants[0].workers[1].start_registrar().unwrap();
    fleet.wait_for_everybody().unwrap();

    let before = everything(&mut fleet);
    let token_of_a = fleet.tenants[0].token.split('_').nth(1).unwrap().to_owned();
    let aim = Aim {
        endpoint_of_a: fleet.tenants[0].workers[0].endpoint(),
        endpoint_of_b: fleet.tenants[1].workers[0].endpoint(),
        token_of_a,
    };
    let document = operator.succeed("GET", "/v1/openapi.json", None).unwrap();
    let attempts = aim.attempts(&document);
    for (name, caller, apis) in [
        ("token", format!("token:{id}"), &with_token),
        (
            "client certificate",
            format!("certificate:{uri}"),
            &with_certificate,
        ),
    ] {
        attack(&fleet, &aim, &attempts, name, &caller, apis);
    }
    assert!(everything(&mut fleet) == before, "something has changed");

    let told = seen_by(&mut watching);
    assert!(told.contains("apps-2") && told.contains("synced"), "{told}");
    assert!(!told.contains("apps-1"), "{told}");
    for worker in &fleet.tenants[0].workers {
        assert!(!told.contains(&worker.endpoint().to_string()), "{told}");
    }

    others(&fleet, &plain);
    revoked(&fleet, &with_token, &id);
    assert!(
        everything(&mut fleet).1 == before.1,
        "something has changed"
    );

    // Whatever comes of it later shows as well.
    load.wait_for(500).unwrap();
    load.wait_for_calm(20).unwrap();
    let count = load.finish();
    let row = count.row(("clients of both tenants", "during all of that"));
    eprintln!("{row:#}");
    LOAD.lock().unwrap().add(row).unwrap();
    assert_eq!(count.failed_gets, Vec::<String>::new());
    assert_eq!(count.failed_posts, Vec::<String>::new());
    assert_eq!(count.broken, Vec::<String>::new());
    for tenant in &fleet.tenants {
        let host = tenant.plan.host;
        let all: usize = count.answers[host].values().sum();
        assert!(all > 0);
        assert_eq!(count.answered_by(host, tenant.plan.name), all, "{count:?}");
    }
}

fn attack(fleet: &Fleet, aim: &Aim, attempts: &[Attempt], name: &str, caller: &str, apis: &[Api]) {
    let mut reasons = BTreeMap::<String, usize>::new();
    let (mut refused, mut audited) = (0, 0);
    for (number, attempt) in attempts.iter().enumerate() {
        let answer = attempt.make(&apis[number % apis.len()]);
        let what = format!("{attempt:?} with the {name}: {answer:?}");
        if attempt.is_allowed() {
            assert!((200..300).contains(&answer.status), "{what}");
        } else {
            assert!((400..500).contains(&answer.status), "{what}");
            assert!(!answer.reason().is_empty(), "{what}");
            refused += 1;
            *reasons.entry(answer.reason().to_owned()).or_default() += 1;
        }
        audited += usize::from(attempt.is_audited(&answer));
        let told = answer.body.to_string();
        let asked = format!("{} {:?}", attempt.target, attempt.body);
        // The document explains itself with examples, one of them called acme.
        let secrets = [
            aim.endpoint_of_a.to_string(),
            aim.token_of_a.clone(),
            A.into(),
        ];
        let open = attempt.target.starts_with("/v1/openapi.json");
        for secret in secrets.iter().filter(|_| !open) {
            assert!(asked.contains(secret) || !told.contains(secret), "{what}");
        }
    }
    assert!(refused > 150, "{refused}");
    let lines: usize = fleet
        .routers
        .iter()
        .map(|door| {
            let lines = door.audit().unwrap();
            let ours = |it: &&Value| it["caller"] == caller && it["outcome"] != "done";
            lines.iter().filter(ours).count()
        })
        .sum();
    assert_eq!(
        lines, audited,
        "refused changes in the audit logs, with the {name}"
    );
    let reasons: Vec<String> = reasons
        .iter()
        .map(|(why, count)| format!("{why} {count}"))
        .collect();
    let row = json!({
        "credential": format!("{B}'s {name}"),
        "calls": attempts.len(),
        "refused": refused,
        "as": reasons.join(", "),
        "in the audit log": lines,
    });
    eprintln!("{row:#}");
    ROWS.lock().unwrap().add(row).unwrap();
}

/// Certificates and tokens that stand for nobody.
fn others(fleet: &Fleet, plain: &TlsClient) {
    let a = format!("spiffe://gatehouse/tenant/{A}");
    let b = format!("spiffe://gatehouse/tenant/{B}");
    let elsewhere = Ca::new("an authority that nobody trusts").unwrap();
    let client = |identity: &harness::ca::Leaf| {
        TlsClient::with_identity(&fleet.ca, identity, &["http/1.1"]).unwrap()
    };
    let two_names = client(&fleet.ca.issue_odd_client(&[&b, &a], false).unwrap());
    let expired = client(&fleet.ca.issue_odd_client(&[&a], true).unwrap());
    let of_another = client(&elsewhere.issue_client(&a).unwrap());
    let of_b = client(&fleet.ca.issue_client(&b).unwrap());
    let id = fleet.tenants[0].token.split('_').nth(1).unwrap();
    let guessed = format!("ghr_{id}_{}", "0".repeat(64));
    let cases: [(&str, &TlsClient, Option<&str>, Option<&str>); 5] = [
        (
            "certificate with two names",
            &two_names,
            None,
            Some("unauthenticated"),
        ),
        ("certificate that has expired", &expired, None, None),
        ("certificate of another authority", &of_another, None, None),
        (
            "acme's token with another secret",
            plain,
            Some(&guessed),
            Some("unauthenticated"),
        ),
        (
            "globex's certificate, acme's token",
            &of_b,
            Some(&fleet.tenants[0].token),
            Some("unauthenticated"),
        ),
    ];
    for (name, tls, token, expected) in cases {
        let mut refused = 0;
        for door in 0..fleet.routers.len() {
            let api = Api {
                tls: tls.clone(),
                token: token.map(str::to_owned),
                ..fleet.operator(door)
            };
            let answer = api.call("GET", &format!("/v1/routes?tenant={A}"), None);
            match (expected, answer) {
                (Some(reason), Ok(answer)) => {
                    assert_eq!((answer.status, answer.reason()), (401, reason), "{name}");
                }
                // There is no TLS with it.
                (None, Err(_)) => {}
                (_, other) => panic!("{name}: {other:?}"),
            }
            refused += 1;
        }
        let row = json!({
            "credential": name,
            "calls": refused,
            "refused": refused,
            "as": expected.unwrap_or("no TLS"),
            "in the audit log": Value::Null,
        });
        ROWS.lock().unwrap().add(row).unwrap();
    }
}

/// The theft is noticed.
fn revoked(fleet: &Fleet, thief: &[Api], id: &str) {
    let path = format!("/v1/tokens/{id}");
    let mut listens = watch(&thief[0]);
    fleet.operator(2).succeed("DELETE", &path, None).unwrap();
    let since = Instant::now();
    for api in thief {
        let answer = || api.call("GET", "/v1/routes", None).unwrap();
        wait::until_true("the token to be worth nothing", || answer().status == 401).unwrap();
        // Neither for calls that need none of the victim's things.
        assert_eq!(answer().reason(), "unauthenticated");
    }
    let took = since.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    // What was opened before ends as well: after its last chunk, as if it had ended by itself.
    listens.set_patience(wait::PATIENCE).unwrap();
    listens.take_through(b"\r\n0\r\n\r\n").unwrap();
    let row = json!({
        "credential": format!("{B}'s token, revoked"),
        "calls": 2 * thief.len(),
        "refused": 2 * thief.len(),
        "as": format!("unauthenticated at all routers within {:.1} s", took.as_secs_f64()),
        "in the audit log": Value::Null,
    });
    eprintln!("{row:#}");
    ROWS.lock().unwrap().add(row).unwrap();
}

/// What a watch has told so far.
fn seen_by(watching: &mut Connection) -> String {
    watching.set_patience(Duration::from_secs(1)).unwrap();
    let mut told = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = std::io::Read::read(watching, &mut buffer) {
        told.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8(told).unwrap()
}
