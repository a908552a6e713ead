//! Clients of HTTP/2 that go on asking: each keeps to one address and one connection.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::client::TlsClient;
use crate::h2_client::{self, H2Connection};
use crate::namespace::Namespace;
use crate::wait;

/// Between the end of a stream and the next.
const PAUSE: Duration = Duration::from_millis(25);

/// Who they are and what they ask for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom they trust; must offer `h2`.
    pub tls: TlsClient,
    /// Where they are.
    pub namespace: Namespace,
    /// One client for each.
    pub addresses: Vec<SocketAddr>,
    /// Whom they ask.
    pub host: String,
}

/// What they counted.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// GETs answered with 200.
    pub answered: usize,
    /// The others, in words. Nothing is asked twice.
    pub failed: Vec<String>,
    /// The longest time to an answer.
    pub slowest: Duration,
}

/// Running clients.
#[derive(Debug)]
pub struct H2Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stopping: AtomicBool,
    tally: Mutex<Tally>,
}

impl Plan {
    /// Starts them.
    #[must_use]
    pub fn start(self) -> H2Clients {
        let shared = Arc::new(Shared::default());
        let threads = self
            .addresses
            .iter()
            .map(|&address| {
                let (plan, shared) = (self.clone(), Arc::clone(&shared));
                std::thread::spawn(move || {
                    let talk = || h2_client::run(plan.talk(address, &shared));
                    if let Err(error) = plan.namespace.run(talk) {
                        shared.tally().failed.push(format!("{error:#}"));
                    }
                })
            })
            .collect();
        H2Clients { shared, threads }
    }

    async fn talk(&self, address: SocketAddr, shared: &Shared) -> Result<()> {
        let connection = H2Connection::open(&self.tls, address, &self.host).await?;
        let one = || async {
            let mut requests = connection.requests.clone();
            while !shared.stopping.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let asked = async {
                    let uri = format!("https://{}/", self.host);
                    let request = http::Request::get(uri).body(())?;
                    requests = requests.clone().ready().await?;
                    let answer = requests.send_request(request, true)?.0;
                    let answer = h2_client::read(answer).await?;
                    ensure!(answer.status == 200, "status {}", answer.status);
                    anyhow::Ok(())
                };
                let result = asked.await;
                let mut tally = shared.tally();
                match result {
                    Ok(()) => tally.answered += 1,
                    Err(error) => tally.failed.push(format!("{}: {error:#}", self.host)),
                }
                tally.slowest = tally.slowest.max(begun.elapsed());
                drop(tally);
                tokio::time::sleep(PAUSE).await;
            }
        };
        // Four streams at once.
        tokio::join!(one(), one(), one(), one());
        Ok(())
    }
}

impl H2Clients {
    /// Waits for so many more answers.
    ///
    /// # Errors
    /// If they do not come.
    pub fn wait_for(&self, answers: usize) -> Result<()> {
        let goal = self.shared.tally().answered + answers;
        wait::until_true(&format!("{answers} more answers over HTTP/2"), || {
            self.shared.tally().answered >= goal
        })
        .with_context(|| format!("counted so far: {:?}", self.shared.tally()))
    }

    /// Lets every stream end, and gives the count.
    #[must_use]
    pub fn finish(mut self) -> Tally {
        self.stop();
        self.shared.tally().clone()
    }

    fn stop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for H2Clients {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
