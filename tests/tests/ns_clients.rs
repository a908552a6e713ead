//! The harness's own check: its clients must notice what fails, and count it as what it was.
//! Needs root, for network namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use harness::ca::{Ca, KeyKind};
use harness::client::TlsClient;
use harness::clients::{Count, Plan};
use harness::namespace::{Host, Network};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

const HOST: &str = "shop.example.org";
const OK: &str = "HTTP/1.1 200 OK\r\nX-Tenant: acme\r\nX-Worker: w\r\nContent-Length: 2\r\n\r\nok";

/// A server that answers every request with the same bytes, and closes unless they say otherwise.
struct Server {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(host: &Host, ca: &Ca, answer: &'static str) -> Self {
        let leaf = ca.issue(&[HOST], KeyKind::Ecdsa).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(leaf.chain.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap(),
            )
            .unwrap();
        let config = Arc::new(config);
        let address = SocketAddr::new(host.v4, 443);
        let listener = host.namespace.run(|| TcpListener::bind(address)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let Ok((tcp, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                };
                tcp.set_nonblocking(false).unwrap();
                tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                let session = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = StreamOwned::new(session, tcp);
                // One request a connection; whatever goes wrong here shows in the client's count.
                let mut request = [0; 4096];
                if matches!(stream.read(&mut request), Ok(length) if length > 0) {
                    let _ = stream.write_all(answer.as_bytes());
                    let _ = stream.flush();
                }
            }
        });
        Self {
            address,
            stopping,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What one client counts that sends ten requests, every second a POST, to a server with the first
/// answer, and knows one with the second.
fn counted(first: &'static str, second: &'static str) -> Count {
    let mut network = Network::new().unwrap();
    let ca = Ca::new("throw-away authority of clients").unwrap();
    let (one, two, client) = (
        network.host("one").unwrap(),
        network.host("two").unwrap(),
        network.host("client").unwrap(),
    );
    let servers = [
        Server::start(&one, &ca, first),
        Server::start(&two, &ca, second),
    ];
    let tls = TlsClient::new(&ca, &["http/1.1"]);
    let addresses = servers.each_ref().map(|it| it.address);
    let clients = Plan {
        clients: 1,
        posts: 2,
        most: 10,
        pause: Duration::from_millis(100),
        ..Plan::new(&tls, &client.namespace, &addresses, &[HOST])
    }
    .start();
    harness::wait::until_true("ten requests", || clients.count().requests() == 10).unwrap();
    clients.finish()
}

#[test]
fn what_is_answered_is_counted_by_who_answered() {
    let count = counted(OK, OK);
    assert_eq!((count.gets, count.posts), (5, 5), "{count:?}");
    assert_eq!(count.answered_by(HOST, "acme"), 10);
    assert_eq!(count.answered_by(HOST, "globex"), 0);
    assert!(count.failed_gets.is_empty() && count.failed_posts.is_empty());
    // The server closes after each answer and does not say so: clients notice before they send.
    assert_eq!(count.retries, 0, "{count:?}");
}

#[test]
fn a_silent_close_makes_a_get_go_on_and_a_post_fail() {
    let count = counted("", OK);
    // The first request is a GET; from then on the client keeps to the other address.
    assert_eq!(count.gets, 5, "{count:?}");
    assert!(count.failed_gets.is_empty(), "{count:?}");
    assert!(count.retries > 0, "{count:?}");
    let nobody = counted("", "");
    assert_eq!(nobody.failed_gets.len(), 5, "{nobody:?}");
    assert_eq!(nobody.failed_posts.len(), 5, "{nobody:?}");
}

#[test]
fn an_answer_that_had_begun_is_broken_and_not_repeated() {
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf";
    let count = counted(half, OK);
    assert_eq!(count.broken.len(), 10, "{count:?}");
    assert_eq!((count.gets, count.posts, count.retries), (0, 0, 0));
}

#[test]
fn another_status_is_a_failure() {
    let failure = "HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let count = counted(failure, OK);
    assert_eq!(count.failed_gets.len(), 5, "{count:?}");
    assert_eq!(count.failed_posts.len(), 5, "{count:?}");
}
