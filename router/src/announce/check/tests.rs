//! Checks of real sockets and programs.

use std::fs;
use std::path::Path;
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::*;
use crate::registry::client::scripted::{Authority, Reply, Scripted};

/// Nothing here takes so long unless it hangs.
const LONG: Duration = Duration::from_secs(20);

async fn once(probe: Probe, endpoint: SocketAddr, timeout: Duration) -> Result<(), CheckError> {
    let wanted = Check {
        probe,
        interval: LONG,
        timeout,
        failures: 1,
    };
    check(&wanted, endpoint).await
}

fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn run(script: &str, timeout: Duration) -> Result<(), CheckError> {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).into();
    once(Probe::Script { command }, anywhere(), timeout).await
}

/// A server that answers each connection with a text, and the address it is at.
async fn server(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(anywhere()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let length = tcp.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                if request.starts_with("GET /a?b=c HTTP/1.1\r\n") {
                    let _ = tcp.write_all(answer.as_bytes()).await;
                }
                // Waits until the client has gone.
                let _ = tcp.read(&mut [0]).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_port_that_is_open_is_healthy_and_a_closed_one_is_not() {
    let listener = TcpListener::bind(anywhere()).await.unwrap();
    let open = listener.local_addr().unwrap();
    let own = Probe::Tcp { address: None };
    once(own.clone(), open, LONG).await.unwrap();
    drop(listener);
    let error = once(own, open, LONG).await.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("cannot connect to {open}: ")),
        "{error}"
    );
    // An address of its own goes before the endpoint.
    let listener = TcpListener::bind(anywhere()).await.unwrap();
    let address = Some(listener.local_addr().unwrap());
    once(Probe::Tcp { address }, open, LONG).await.unwrap();
}

#[tokio::test]
async fn statuses_from_200_to_399_are_healthy() {
    for (answer, healthy) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nthe body does not matter",
            true,
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", true),
        (
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/\r\n\r\n",
            true,
        ),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", false),
        ("HTTP/1.1 503 Service Unavailable\r\n\r\n", false),
        ("this is not HTTP\r\n\r\n", false),
    ] {
        let url = format!("http://{}/a?b=c#d", server(answer).await);
        let result = once(Probe::Http { url }, anywhere(), LONG).await;
        assert_eq!(result.is_ok(), healthy, "{answer}: {result:?}");
        if answer.contains("503") {
            let error = result.unwrap_err().to_string();
            assert_eq!(error, "answered with 503 Service Unavailable");
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_not_healthy() {
    let url = format!("http://{}/other", server("").await);
    let limit = Duration::from_millis(200);
    let error = once(Probe::Http { url }, anywhere(), limit)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "no result within 200ms");
}

#[tokio::test]
async fn an_own_certificate_need_not_be_trusted() {
    let authority = Authority::new();
    let server = Scripted::start(&authority, |seen| match &*seen.path {
        "/healthz" => Reply::status(200),
        _ => Reply::status(500),
    })
    .await;
    for (path, healthy) in [("healthz", true), ("other", false)] {
        let url = format!("{}/{path}", server.url());
        let result = once(Probe::Http { url }, anywhere(), LONG).await;
        assert_eq!(result.is_ok(), healthy, "{result:?}");
    }
    // Plain text towards a port that speaks TLS is no answer.
    let url = format!("http://{}/healthz", server.address);
    once(Probe::Http { url }, anywhere(), LONG)
        .await
        .unwrap_err();
}

#[tokio::test]
async fn a_script_is_healthy_by_its_status() {
    run("exit 0", LONG).await.unwrap();
    let error = run("echo why; exit 3", LONG).await.unwrap_err();
    assert_eq!(error.to_string(), "ended with exit status: 3");
    let command = vec!["/nowhere/at/all".to_owned()];
    let error = once(Probe::Script { command }, anywhere(), LONG)
        .await
        .unwrap_err();
    assert!(matches!(error, CheckError::Start(_)), "{error}");
}

#[tokio::test]
async fn no_shell_looks_at_the_arguments() {
    let command = ["/usr/bin/test", "$HOME; exit 1", "=", "$HOME; exit 1"];
    let command = command.map(str::to_owned).into();
    once(Probe::Script { command }, anywhere(), LONG)
        .await
        .unwrap();
}

#[tokio::test]
async fn much_output_holds_nobody_up() {
    run("yes | head -c 1000000; yes | head -c 1000000 >&2", LONG)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_process_that_is_left_behind_is_killed_and_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    for (end, silent, healthy) in [(0, "", true), (3, "", false), (0, ">/dev/null 2>&1", true)] {
        let begun = Instant::now();
        let script = format!("sleep 60 {silent} & echo $! >{}; exit {end}", pid.display());
        assert_eq!(run(&script, LONG).await.is_ok(), healthy, "{script}");
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_gone(fs::read_to_string(&pid).unwrap().trim()).await;
    }
}

#[tokio::test]
async fn a_process_that_has_left_the_group_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let begun = Instant::now();
    // The shell waits until it has done so.
    let script = format!(
        "setsid sh -c 'echo $$ >{0}.new; mv {0}.new {0}; exec sleep 60' & \
         while ! test -e {0}; do sleep 0.01; done",
        pid.display()
    );
    run(&script, LONG).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
    // It has outlived the script, and is ours to end.
    let left: i32 = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(left), nix::sys::signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn a_script_that_takes_too_long_is_killed_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    // The shell waits for a child that ignores everything but SIGKILL.
    let script = format!(
        "trap '' TERM HUP INT; (trap '' TERM; sleep 30) & echo $! >{0}.new; mv {0}.new {0}; wait",
        pid.display()
    );
    let command: Vec<String> = ["/bin/sh", "-c", &script].map(str::to_owned).into();
    let limit = Duration::from_millis(500);
    let error = once(Probe::Script { command }, anywhere(), limit)
        .await
        .unwrap_err();
    assert!(matches!(error, CheckError::Timeout(_)), "{error}");
    let child = fs::read_to_string(&pid).unwrap();
    assert_gone(child.trim()).await;
}

#[tokio::test]
async fn whoever_stops_checking_kills_the_script() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let script = format!("echo $$ >{0}.new; mv {0}.new {0}; sleep 30", pid.display());
    let wanted = Check {
        probe: Probe::Script {
            command: ["/bin/sh", "-c", &script].map(str::to_owned).into(),
        },
        interval: LONG,
        timeout: LONG,
        failures: 1,
    };
    let checking = tokio::spawn(async move { repeat(&wanted, anywhere(), |_| {}).await });
    let begun = Instant::now();
    while !pid.exists() {
        assert!(begun.elapsed() < LONG);
        sleep(Duration::from_millis(5)).await;
    }
    checking.abort();
    let _ = checking.await;
    assert_gone(fs::read_to_string(&pid).unwrap().trim()).await;
}

#[tokio::test]
async fn checks_are_repeated_at_their_interval() {
    let listener = TcpListener::bind(anywhere()).await.unwrap();
    let endpoint = listener.local_addr().unwrap();
    let wanted = Check {
        probe: Probe::Tcp { address: None },
        interval: Duration::from_millis(50),
        timeout: Duration::from_millis(50),
        failures: 1,
    };
    let begun = Instant::now();
    let (results, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let checking = repeat(&wanted, endpoint, |result| {
        results.send(result.is_ok()).unwrap();
    });
    tokio::select! {
        () = checking => {}
        () = async { for _ in 0..5 { assert!(seen.recv().await.unwrap()); } } => {}
    }
    // The first at once, and four more.
    let took = begun.elapsed();
    assert!((200..2_000).contains(&took.as_millis()), "{took:?}");
}

async fn assert_gone(pid: &str) {
    let process = Path::new("/proc").join(pid);
    let begun = Instant::now();
    // A process that was killed may wait a moment for its parent.
    while fs::read_to_string(process.join("stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(begun.elapsed() < LONG, "{pid} lives");
        sleep(Duration::from_millis(5)).await;
    }
}
