//! A steady load of GETs that counts who answered, and what failed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};

use crate::client::{Connection, TlsClient};
use crate::namespace::Namespace;
use crate::wait;

/// Clients that ask again and again over keep-alive connections, until [`Load::finish`].
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stopping: AtomicBool,
    answered: AtomicUsize,
    tally: Mutex<Tally>,
}

/// What a load counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answers of status 200 by the worker that gave them (`X-Worker`).
    pub workers: BTreeMap<String, usize>,
    /// Everything else, in words.
    pub failures: Vec<String>,
}

impl Tally {
    /// Answers of status 200.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.workers.values().sum()
    }
}

impl Load {
    /// Starts so many clients; each asks for `/` of the hosts in turn.
    /// Failures to connect are counted.
    #[must_use]
    pub fn start(
        clients: usize,
        tls: &TlsClient,
        address: SocketAddr,
        hosts: &[&str],
        namespace: Option<&Namespace>,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let clients = (0..clients)
            .map(|number| {
                let host = hosts[number % hosts.len()].to_owned();
                let shared = Arc::clone(&shared);
                let tls = tls.clone();
                let namespace = namespace.cloned();
                std::thread::spawn(move || {
                    client(&shared, &tls, address, &host, namespace.as_ref())
                })
            })
            .collect();
        Self { shared, clients }
    }

    /// Waits for so many more answers.
    ///
    /// # Errors
    /// If they do not come.
    pub fn wait_for(&self, answers: usize) -> Result<()> {
        let goal = self.shared.answered.load(Ordering::Relaxed) + answers;
        wait::until_true(&format!("{answers} more answers under load"), || {
            self.shared.answered.load(Ordering::Relaxed) >= goal
        })
        .with_context(|| format!("failures so far: {:?}", self.tally().failures))
    }

    /// What was counted so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.shared
            .tally
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Lets every client finish its request, and gives the count.
    #[must_use]
    pub fn finish(mut self) -> Tally {
        self.stop();
        self.tally()
    }

    fn stop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            let _ = client.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}

fn client(
    shared: &Shared,
    tls: &TlsClient,
    address: SocketAddr,
    host: &str,
    namespace: Option<&Namespace>,
) {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut connection = None;
    while !shared.stopping.load(Ordering::Relaxed) {
        let outcome = ask(&mut connection, &request, || {
            let connect = || tls.connect(address, host);
            namespace.map_or_else(connect, |it| it.run(connect))
        });
        let mut tally = shared.tally.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(worker) => {
                *tally.workers.entry(worker).or_default() += 1;
                shared.answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                tally.failures.push(format!("{host}: {error:#}"));
                connection = None;
                drop(tally);
                // A router that is down must not turn into a million failures.
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        }
    }
}

fn ask(
    connection: &mut Option<Connection>,
    request: &str,
    connect: impl FnOnce() -> Result<Connection>,
) -> Result<String> {
    if connection.is_none() {
        *connection = Some(connect()?);
    }
    let open = connection.as_mut().expect("it was just filled");
    let response = open.exchange(request)?;
    if response.closes() {
        *connection = None;
    }
    if response.status != 200 {
        bail!("status {}: {}", response.status, response.text());
    }
    Ok(response.header("x-worker").unwrap_or("unnamed").to_owned())
}
