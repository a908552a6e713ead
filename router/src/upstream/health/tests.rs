//! What is due and what answers mean, then real checks over loopback.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use config::route::UpstreamProtocol;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::probe::patience;
use super::schedule::{Job, MOST_OF_ONE, Spec, State};
use super::*;
use crate::upstream::Retired;

fn endpoint(address: SocketAddr, protocol: UpstreamProtocol) -> Arc<Endpoint> {
    endpoint_of("acme", address, protocol)
}

fn endpoint_of(tenant: &str, address: SocketAddr, protocol: UpstreamProtocol) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        id: 1,
        tenant: tenant.into(),
        address,
        protocol,
        tls: None,
        retired: Retired::default(),
    })
}

fn endpoints(count: u16) -> Vec<Arc<Endpoint>> {
    let address = |port| SocketAddr::from(([10, 0, 0, 1], port));
    (1..=count)
        .map(|port| endpoint(address(port), UpstreamProtocol::Http1))
        .collect()
}

fn check(path: Option<&str>, failures: u32) -> Check {
    Check {
        path: path.map(str::to_owned),
        interval: 1,
        timeout: 1,
        failures,
    }
}

fn route(host: &str, endpoints: &[Arc<Endpoint>], check: Check) -> CheckedRoute {
    CheckedRoute {
        host: HostMatch::parse(host).unwrap(),
        endpoints: endpoints.to_vec(),
        unhealthy: Arc::new(Unhealthy::new(endpoints.len())),
        check,
    }
}

fn set(schedule: &mut Schedule, route: &CheckedRoute, now: u64) {
    schedule.update(HealthUpdate::Set(route.clone()), now, &mut || 0);
}

/// Takes what is due, answers it, and returns the ports that were asked.
fn turn(schedule: &mut Schedule, now: u64, passes: impl Fn(u16) -> bool) -> Vec<u16> {
    let mut asked = Vec::new();
    while let Some(job) = schedule.take_due(now) {
        let port = job.endpoint.address.port();
        schedule.finished(job.id, passes(port), now);
        asked.push(port);
    }
    asked.sort_unstable();
    asked
}

fn flags(route: &CheckedRoute) -> Vec<bool> {
    (0..route.endpoints.len())
        .map(|index| route.unhealthy.get(index))
        .collect()
}

#[test]
fn failures_in_a_row_make_unhealthy_and_one_success_heals() {
    let mut schedule = Schedule::default();
    let route = route("a.example.org", &endpoints(2), check(None, 3));
    set(&mut schedule, &route, 0);
    let broken = |port| port != 2;
    for (now, passes, expected) in [
        (0, false, [false, false]),
        (1000, false, [false, false]),
        // One success in between: counted anew.
        (2000, true, [false, false]),
        (3000, false, [false, false]),
        (4000, false, [false, false]),
        (5000, false, [false, true]),
        (6000, false, [false, true]),
        (7000, true, [false, false]),
    ] {
        assert_eq!(
            turn(&mut schedule, now, |port| passes || broken(port)),
            [1, 2]
        );
        assert_eq!(flags(&route), expected, "{now}");
        let unhealthy = expected.iter().filter(|it| **it).count() as u64;
        assert_eq!(schedule.unhealthy(), unhealthy);
    }
}

#[test]
fn each_change_is_told_once() {
    let mut schedule = Schedule::default();
    let route = route("a.example.org", &endpoints(1), check(None, 2));
    set(&mut schedule, &route, 0);
    let mut told = Vec::new();
    for (now, passed) in (0..)
        .map(|n| n * 1000)
        .zip([false, false, false, true, true])
    {
        let job = schedule.take_due(now).unwrap();
        assert!(schedule.take_due(now).is_none(), "it is under way");
        let change = schedule.finished(job.id, passed, now);
        told.push(change.map(|change| change.failures));
    }
    assert_eq!(told, [None, Some(2), None, Some(0), None]);
}

#[test]
fn an_interval_runs_from_start_to_start_and_lost_turns_are_left_out() {
    let mut schedule = Schedule::default();
    set(
        &mut schedule,
        &route("a.example.org", &endpoints(1), check(None, 1)),
        0,
    );
    let job = schedule.take_due(0).unwrap();
    assert_eq!(schedule.next_due(), None);
    schedule.finished(job.id, true, 900);
    assert_eq!(schedule.next_due(), Some(1000));
    assert!(schedule.take_due(999).is_none());
    let job = schedule.take_due(5500).unwrap();
    schedule.finished(job.id, true, 5600);
    assert_eq!(schedule.next_due(), Some(5600));
}

#[test]
fn first_checks_are_spread_but_not_over_hours() {
    let first = |interval, random| {
        let mut schedule = Schedule::default();
        let check = Check {
            interval,
            ..check(None, 1)
        };
        let route = route("a.example.org", &endpoints(1), check);
        schedule.update(HealthUpdate::Set(route), 50, &mut || random);
        schedule.next_due().unwrap() - 50
    };
    assert_eq!(first(1, 999), 999);
    assert_eq!(first(1, 1000), 0);
    assert_eq!(first(3600, 9_999), 9_999);
    assert_eq!(first(3600, 10_000), 0);
    assert_eq!(first(0, 7), 7);
}

#[test]
fn endpoints_keep_their_state_when_others_come_and_go() {
    let mut schedule = Schedule::default();
    let all = endpoints(3);
    let before = route("a.example.org", &all[..2], check(None, 1));
    set(&mut schedule, &before, 0);
    turn(&mut schedule, 0, |port| port == 1);
    assert_eq!(flags(&before), [false, true]);

    // The bad one moves to the front, the good one goes, another comes.
    let after = route(
        "a.example.org",
        &[all[1].clone(), all[2].clone()],
        check(None, 1),
    );
    set(&mut schedule, &after, 500);
    assert_eq!(flags(&after), [true, false]);
    assert_eq!(schedule.unhealthy(), 1);
    assert_eq!(turn(&mut schedule, 500, |_| true), [3]);
    assert_eq!(turn(&mut schedule, 1000, |_| true), [2]);
    assert_eq!(flags(&after), [false, false]);

    // Checked in another way, everything begins anew.
    turn(&mut schedule, 2000, |_| false);
    assert_eq!(schedule.unhealthy(), 2);
    let anew = route("a.example.org", &after.endpoints, check(Some("/"), 1));
    set(&mut schedule, &anew, 2000);
    assert_eq!(
        (flags(&anew), schedule.unhealthy()),
        (vec![false, false], 0)
    );
}

#[test]
fn a_check_under_way_counts_across_a_change_and_not_for_what_is_gone() {
    let mut schedule = Schedule::default();
    let all = endpoints(2);
    set(
        &mut schedule,
        &route("a.example.org", &all[..1], check(None, 1)),
        0,
    );
    let job = schedule.take_due(0).unwrap();
    let after = route("a.example.org", &all, check(None, 1));
    set(&mut schedule, &after, 10);
    assert_eq!(
        turn(&mut schedule, 10, |_| true),
        [2],
        "not asked twice at once"
    );
    assert!(schedule.finished(job.id, false, 20).is_some());
    assert_eq!(flags(&after), [true, false]);

    let job = schedule.take_due(1000).unwrap();
    let host = HostMatch::parse("a.example.org").unwrap();
    schedule.update(HealthUpdate::Gone(host), 1000, &mut || 0);
    assert_eq!(schedule.finished(job.id, true, 1001), None);
    assert_eq!((schedule.unhealthy(), schedule.next_due()), (0, None));
}

#[test]
fn a_tenant_whose_endpoints_say_nothing_holds_up_its_own_checks_only() {
    let mut schedule = Schedule::default();
    let many = route("a.example.org", &endpoints(300), check(None, 1));
    set(&mut schedule, &many, 0);
    let other = endpoint_of(
        "other",
        SocketAddr::from(([10, 0, 0, 2], 1)),
        UpstreamProtocol::Http1,
    );
    let other = route("b.example.org", &[other], check(None, 1));
    set(&mut schedule, &other, 5);
    let silent: Vec<Job> = std::iter::from_fn(|| schedule.take_due(4)).collect();
    assert_eq!(silent.len(), MOST_OF_ONE);
    assert_eq!(schedule.next_due(), Some(5), "nobody wakes for the rest");
    let job = schedule.take_due(5).unwrap();
    assert_eq!(&*job.endpoint.tenant, "other");
    assert!(schedule.take_due(5).is_none());
    // Each place that is given back is for the next one, even if the route is gone.
    schedule.finished(silent[0].id, false, 6);
    let next = schedule.take_due(6).unwrap();
    assert!(schedule.take_due(6).is_none());
    schedule.update(HealthUpdate::Gone(many.host.clone()), 7, &mut || 0);
    for job in silent[1..].iter().chain([&next]) {
        schedule.finished(job.id, false, 8);
    }
    set(&mut schedule, &many, 9);
    let again = std::iter::from_fn(|| schedule.take_due(9)).count();
    assert_eq!(again, MOST_OF_ONE);
}

#[test]
fn no_check_takes_longer_than_ten_seconds_whatever_its_record_says() {
    for (recorded, taken) in [(1, 1), (10, 10), (11, 10), (3600, 10)] {
        let check = Check {
            timeout: recorded,
            ..check(None, 1)
        };
        assert_eq!(patience(&check), Duration::from_secs(taken));
    }
}

#[test]
fn the_same_endpoint_has_a_state_for_each_route() {
    let mut schedule = Schedule::default();
    let shared = endpoints(1);
    let (a, b) = (
        route("a.example.org", &shared, check(Some("/a"), 1)),
        route("b.example.org", &shared, check(Some("/b"), 1)),
    );
    set(&mut schedule, &a, 0);
    set(&mut schedule, &b, 0);
    while let Some(job) = schedule.take_due(0) {
        let passed = job.spec.check.path.as_deref() == Some("/a");
        schedule.finished(job.id, passed, 0);
    }
    assert_eq!((flags(&a), flags(&b)), (vec![false], vec![true]));
    schedule.update(HealthUpdate::Gone(b.host), 1, &mut || 0);
    assert_eq!(schedule.unhealthy(), 0);
    assert_eq!(turn(&mut schedule, 1000, |_| true), [1]);
}

#[derive(Clone, Debug)]
enum Step {
    Set(u8, u8, u32),
    Gone(u8),
    Take,
    Finish(bool),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_u8, 0..8_u8, 1..3_u32).prop_map(|(host, mask, n)| Step::Set(host, mask, n)),
        (0..3_u8).prop_map(Step::Gone),
        Just(Step::Take),
        any::<bool>().prop_map(Step::Finish),
        (0..3000_u16).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes in whatever order: the count is that of the flags in force, and everything
    /// that is checked is either due some time or under way, once.
    #[test]
    fn nothing_is_lost_or_counted_twice(steps in prop::collection::vec(step(), 0..120)) {
        let mut schedule = Schedule::default();
        let all = endpoints(3);
        let hosts = ["a.example.org", "b.example.org", "*-c.example.org"];
        let mut force: HashMap<&str, CheckedRoute> = HashMap::new();
        let mut under_way: Vec<Job> = Vec::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Wait(time) => now += u64::from(time),
                Step::Set(host, mask, failures) => {
                    let chosen = all.iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1);
                    let chosen: Vec<_> = chosen.map(|(_, it)| Arc::clone(it)).collect();
                    let host = hosts[usize::from(host)];
                    let route = route(host, &chosen, check(None, failures));
                    set(&mut schedule, &route, now);
                    force.insert(host, route);
                }
                Step::Gone(host) => {
                    let host = hosts[usize::from(host)];
                    let rule = HostMatch::parse(host).unwrap();
                    schedule.update(HealthUpdate::Gone(rule), now, &mut || 0);
                    force.remove(host);
                }
                Step::Take => under_way.extend(schedule.take_due(now)),
                Step::Finish(passed) => {
                    if let Some(job) = under_way.pop() {
                        schedule.finished(job.id, passed, now);
                    }
                }
            }
            let flagged: usize = force.values().map(|it| flags(it).iter().filter(|f| **f).count()).sum();
            prop_assert_eq!(schedule.unhealthy(), flagged as u64);
        }
        for job in under_way.drain(..) {
            schedule.finished(job.id, true, now);
        }
        let expected: usize = force.values().map(|it| it.endpoints.len()).sum();
        let due = std::iter::from_fn(|| schedule.take_due(now + 10_000)).count();
        prop_assert_eq!(due, expected);
    }

    #[test]
    fn a_state_is_what_the_last_answers_say(answers in prop::collection::vec(any::<bool>(), 1..40), allowed in 1..5_u32) {
        let mut state = State::default();
        let mut unhealthy = false;
        for (index, passed) in answers.iter().enumerate() {
            let row = answers[..=index].iter().rev().take_while(|passed| !**passed).count();
            let before = unhealthy;
            unhealthy = if *passed { false } else { unhealthy || row >= allowed as usize };
            prop_assert_eq!(state.observe(*passed, allowed), unhealthy != before);
        }
    }
}

/// Answers every connection with these bytes once a request's head is there, and tells the heads.
async fn server(answer: &'static str) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (heads, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let heads = heads.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let _ = heads.send(String::from_utf8(head).unwrap());
                let _ = stream.write_all(answer.as_bytes()).await;
                // What does not answer keeps the connection open.
                let _ = stream.read_u8().await;
            });
        }
    });
    (address, seen)
}

async fn ask(address: SocketAddr, host: &str, path: Option<&str>) -> Result<(), ProbeError> {
    let spec = Spec {
        host: HostMatch::parse(host).unwrap(),
        check: check(path, 1),
    };
    let job = Job {
        id: 1,
        spec: Arc::new(spec),
        endpoint: endpoint(address, UpstreamProtocol::Http1),
    };
    probe(&job).await
}

#[tokio::test]
async fn a_get_says_what_it_is_and_whom_it_asks() {
    let (address, mut seen) = server("HTTP/1.1 204 No Content\r\n\r\n").await;
    for (rule, host) in [
        ("www.example.org", "www.example.org"),
        ("*-apps-7.example.org", "x-apps-7.example.org"),
        ("*.example.org", "x.example.org"),
    ] {
        ask(address, rule, Some("/healthz?deep=1")).await.unwrap();
        let head = seen.recv().await.unwrap().to_ascii_lowercase();
        assert!(
            head.starts_with("get /healthz?deep=1 http/1.1\r\n"),
            "{head}"
        );
        for field in [
            &format!("host: {host}"),
            "user-agent: gatehouse-check",
            "connection: close",
        ] {
            assert!(head.contains(&format!("\r\n{field}\r\n")), "{head}");
        }
    }
}

#[tokio::test]
async fn what_counts_as_an_answer() {
    let host = "www.example.org";
    let passes = async |answer| {
        let (address, _seen) = server(answer).await;
        ask(address, host, Some("/")).await
    };
    passes("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnot all")
        .await
        .unwrap();
    passes("HTTP/1.1 399 Odd\r\n\r\n").await.unwrap();
    let status = |result| matches!(result, Err(ProbeError::Status(_)));
    assert!(status(passes("HTTP/1.1 400 Bad Request\r\n\r\n").await));
    assert!(status(
        passes("HTTP/1.1 503 Service Unavailable\r\n\r\n").await
    ));
    let http = |result| matches!(result, Err(ProbeError::Http(_)));
    assert!(http(passes("SSH-2.0-OpenSSH_9.9\r\n").await));
    assert!(matches!(passes("").await, Err(ProbeError::Timeout)));
    let endless = String::leak(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(80 << 10)));
    assert!(http(passes(endless).await));

    // Without a path a connection is enough; without a listener there is none.
    let (address, mut seen) = server("").await;
    ask(address, host, None).await.unwrap();
    assert!(seen.try_recv().is_err());
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    assert!(matches!(
        ask(free, host, None).await,
        Err(ProbeError::Connect(_))
    ));
    assert!(matches!(
        ask(address, host, Some("no path")).await,
        Err(ProbeError::Request(_))
    ));
}

#[tokio::test]
async fn http2_is_asked_in_its_own_tongue() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let answer = http::Response::builder().status(200).body(()).unwrap();
        respond.send_response(answer, true).unwrap();
        while let Some(Ok(_)) = connection.accept().await {}
        request.uri().to_string()
    });
    let spec = Spec {
        host: HostMatch::parse("*-7.example.org").unwrap(),
        check: check(Some("/ready"), 1),
    };
    let job = Job {
        id: 1,
        spec: Arc::new(spec),
        endpoint: endpoint(address, UpstreamProtocol::Http2),
    };
    probe(&job).await.unwrap();
    assert_eq!(serving.await.unwrap(), "http://x-7.example.org/ready");
}

#[tokio::test]
async fn an_endpoint_that_comes_and_goes_is_flagged_and_counted() {
    let metrics = Arc::new(Registry::new(SystemTime::UNIX_EPOCH));
    let (updates, orders) = mpsc::unbounded_channel();
    let running = tokio::spawn(run(orders, Arc::clone(&metrics), || 0));
    let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let route = route(
        "a.example.org",
        &[endpoint(address, UpstreamProtocol::Http1)],
        check(None, 1),
    );
    updates.send(HealthUpdate::Set(route.clone())).unwrap();
    let until = async |unhealthy: bool| {
        let line = format!("router_endpoints_unhealthy {}\n", u8::from(unhealthy));
        let wait = async {
            while route.unhealthy.get(0) != unhealthy || !metrics.render().contains(&line) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .unwrap();
    };
    until(true).await;
    let _listener = TcpListener::bind(address).await.unwrap();
    until(false).await;
    drop(updates);
    running.await.unwrap();
}
