//! Clients as the edge has them: each knows several addresses, keeps to one, and goes on to the
//! next when that one fails it.
//!
//! They follow the rules of browsers. A GET is asked again elsewhere as long as no byte of its
//! answer has come; a POST only if it was never sent. What cannot be asked again is counted apart.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result};
use serde_json::{Value, json};

use crate::client::{Connection, Response, TlsClient};
use crate::namespace::Namespace;
use crate::wait;

/// Pause before a request starts over with its first address.
const ROUND: Duration = Duration::from_millis(50);

/// What the clients do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom they trust.
    pub tls: TlsClient,
    /// Where they are.
    pub namespace: Namespace,
    /// What DNS would tell them. Client `n` begins with address `n`, and stays with what works.
    pub addresses: Vec<SocketAddr>,
    /// Whom they ask, client by client.
    pub hosts: Vec<String>,
    /// How many there are.
    pub clients: usize,
    /// Between two requests of one client.
    pub pause: Duration,
    /// Every so many-th request is a POST; 0: none is.
    pub posts: usize,
    /// How long one attempt waits for the connection, and for anything to come.
    pub silence: Duration,
    /// For how long a request starts over when all addresses have failed it. Zero: it fails.
    pub insist: Duration,
    /// Requests after which a client stops by itself, whatever else happens.
    pub most: usize,
}

impl Plan {
    /// Four clients that send 40 GETs a second each, and at most 20,000.
    #[must_use]
    pub fn new(
        tls: &TlsClient,
        namespace: &Namespace,
        addresses: &[SocketAddr],
        hosts: &[&str],
    ) -> Self {
        Self {
            tls: tls.clone(),
            namespace: namespace.clone(),
            addresses: addresses.to_vec(),
            hosts: hosts.iter().map(|it| (*it).to_owned()).collect(),
            clients: 4,
            pause: Duration::from_millis(25),
            posts: 0,
            silence: Duration::from_secs(5),
            insist: Duration::ZERO,
            most: 20_000,
        }
    }

    /// Starts them.
    #[must_use]
    pub fn start(self) -> Clients {
        let shared = Arc::new(Shared {
            stopping: AtomicBool::new(false),
            state: Mutex::new(State {
                count: Count::default(),
                last: Instant::now(),
                streaks: vec![0; self.clients],
            }),
        });
        let plan = Arc::new(self);
        let threads = (0..plan.clients)
            .map(|number| {
                let (plan, shared) = (Arc::clone(&plan), Arc::clone(&shared));
                std::thread::spawn(move || {
                    let namespace = plan.namespace.clone();
                    namespace.run(|| Client::new(&plan, &shared, number).run());
                })
            })
            .collect();
        Clients { shared, threads }
    }
}

/// Running clients.
#[derive(Debug)]
pub struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stopping: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    count: Count,
    last: Instant,
    /// By client: answers to first attempts since the last one that failed.
    streaks: Vec<usize>,
}

/// What clients counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// GETs answered with 200.
    pub gets: usize,
    /// POSTs answered with 200.
    pub posts: usize,
    /// By host: who answered (`TENANT/WORKER`), and how often.
    pub answers: BTreeMap<String, BTreeMap<String, usize>>,
    /// GETs that got another answer, or none from any address; in words.
    pub failed_gets: Vec<String>,
    /// POSTs that got another answer, or none after they had been sent.
    pub failed_posts: Vec<String>,
    /// Answers that had begun and broke.
    pub broken: Vec<String>,
    /// Attempts that failed and were followed by another.
    pub retries: usize,
    /// The longest time in which nobody was answered.
    pub gap: Duration,
    /// The longest time that an answered request took, with all its attempts.
    pub slowest: Duration,
}

impl Count {
    /// Requests of any kind and outcome.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.gets
            + self.posts
            + self.failed_gets.len()
            + self.failed_posts.len()
            + self.broken.len()
    }

    /// Answers that a host's requests had from this tenant's workers.
    #[must_use]
    pub fn answered_by(&self, host: &str, tenant: &str) -> usize {
        self.answers.get(host).map_or(0, |by| {
            by.iter()
                .filter(|(who, _)| who.split('/').next() == Some(tenant))
                .map(|(_, count)| count)
                .sum()
        })
    }

    /// For a table of results.
    #[must_use]
    pub fn row(&self, name: (&str, &str)) -> Value {
        let mut row = json!({
            "requests": self.requests(),
            "failed GETs": self.failed_gets.len(),
            "failed POSTs": self.failed_posts.len(),
            "broken answers": self.broken.len(),
            "repeated attempts": self.retries,
            "longest gap, ms": milliseconds(self.gap),
            "slowest answer, ms": milliseconds(self.slowest),
        });
        row[name.0] = name.1.into();
        row
    }

    /// Titles of [`Count::row`], after the name's.
    pub const HEAD: [&'static str; 7] = [
        "requests",
        "failed GETs",
        "failed POSTs",
        "broken answers",
        "repeated attempts",
        "longest gap, ms",
        "slowest answer, ms",
    ];

    /// The columns of a table of counts: what a row is about, the counts, and `more` behind them.
    ///
    /// # Panics
    /// When it is compiled, if `N` is not the number of all columns.
    #[must_use]
    pub const fn head<const N: usize>(
        about: &'static str,
        more: &[&'static str],
    ) -> [&'static str; N] {
        assert!(N == 1 + Self::HEAD.len() + more.len());
        let mut head = [about; N];
        let mut at = 1;
        while at < N {
            head[at] = if at <= Self::HEAD.len() {
                Self::HEAD[at - 1]
            } else {
                more[at - 1 - Self::HEAD.len()]
            };
            at += 1;
        }
        head
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Clients {
    /// What was counted so far.
    #[must_use]
    pub fn count(&self) -> Count {
        let state = self.state();
        let mut count = state.count.clone();
        count.gap = count.gap.max(state.last.elapsed());
        count
    }

    /// Waits for so many more answers.
    ///
    /// # Errors
    /// If they do not come.
    pub fn wait_for(&self, answers: usize) -> Result<()> {
        let answered = || {
            let count = &self.state().count;
            count.gets + count.posts
        };
        let goal = answered() + answers;
        wait::until_true(&format!("{answers} more answers to clients"), || {
            answered() >= goal
        })
        .with_context(|| format!("counted so far: {:?}", self.count()))
    }

    /// Waits until each client has had so many answers in a row, from now on, each to its first
    /// attempt: whatever happened is over, for everybody.
    ///
    /// # Errors
    /// If attempts go on failing, or nobody is answered.
    pub fn wait_for_calm(&self, answers: usize) -> Result<()> {
        self.state().streaks.fill(0);
        wait::until_true(&format!("{answers} answers in a row to everybody"), || {
            self.state().streaks.iter().all(|it| *it >= answers)
        })
        .with_context(|| format!("counted so far: {:?}", self.count()))
    }

    /// Lets every client finish its request, and gives the count.
    #[must_use]
    pub fn finish(mut self) -> Count {
        self.stop();
        self.count()
    }

    fn stop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.lock()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Client<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
    host: &'a str,
    number: usize,
    /// Index of the address that it keeps to.
    address: usize,
    connection: Option<Connection>,
}

/// How an attempt failed.
struct Failure {
    error: Error,
    /// Whether the request had been sent.
    sent: bool,
    /// Whether a byte of the answer had come.
    begun: bool,
}

impl<'a> Client<'a> {
    fn new(plan: &'a Plan, shared: &'a Shared, number: usize) -> Self {
        Self {
            plan,
            shared,
            host: &plan.hosts[number % plan.hosts.len()],
            number,
            address: number % plan.addresses.len(),
            connection: None,
        }
    }

    fn run(&mut self) {
        for number in 1..=self.plan.most {
            if self.shared.stopping.load(Ordering::Relaxed) {
                return;
            }
            let posts = self.plan.posts;
            self.request(posts != 0 && number % posts == 0);
            std::thread::sleep(self.plan.pause);
        }
    }

    fn request(&mut self, post: bool) {
        let host = self.host;
        let text = if post {
            format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n\r\nhi")
        } else {
            format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
        };
        let begun = Instant::now();
        // As browsers do: nothing is sent on what the other side has closed meanwhile.
        if let Some(kept) = &mut self.connection
            && kept.has_ended().unwrap_or(true)
        {
            self.connection = None;
        }
        let mut first = true;
        let mut left = self.plan.addresses.len();
        loop {
            // That a kept connection has ended meanwhile says nothing of its address.
            let kept = self.connection.is_some();
            let failure = match self.attempt(&text) {
                Ok(response) => return self.answered(post, first, &response, begun.elapsed()),
                Err(failure) => failure,
            };
            self.connection = None;
            first = false;
            let mut state = self.shared.lock();
            state.streaks[self.number] = 0;
            let told = format!("{host}: {:#}", failure.error);
            if failure.begun {
                return state.count.broken.push(told);
            }
            if post && failure.sent {
                return state.count.failed_posts.push(told);
            }
            if !kept {
                self.address = (self.address + 1) % self.plan.addresses.len();
                left -= 1;
            }
            let stopping = self.shared.stopping.load(Ordering::Relaxed);
            if left == 0 && (begun.elapsed() >= self.plan.insist || stopping) {
                let list = if post {
                    &mut state.count.failed_posts
                } else {
                    &mut state.count.failed_gets
                };
                return list.push(told);
            }
            state.count.retries += 1;
            drop(state);
            if left == 0 {
                left = self.plan.addresses.len();
                std::thread::sleep(ROUND);
            }
        }
    }

    fn attempt(&mut self, request: &str) -> Result<Response, Failure> {
        let plan = self.plan;
        let connection = match &mut self.connection {
            Some(open) => open,
            None => {
                let address = plan.addresses[self.address];
                let opened = plan
                    .tls
                    .connect_within(address, self.host, plan.silence)
                    .map_err(|error| Failure {
                        error,
                        sent: false,
                        begun: false,
                    })?;
                self.connection.insert(opened)
            }
        };
        let before = connection.received();
        let response = connection.exchange(request).map_err(|error| Failure {
            error,
            sent: true,
            begun: connection.received() > before,
        })?;
        if response.closes() {
            self.connection = None;
        }
        Ok(response)
    }

    fn answered(&self, post: bool, first: bool, response: &Response, took: Duration) {
        let mut state = self.shared.lock();
        let State {
            count,
            last,
            streaks,
        } = &mut *state;
        if response.status != 200 {
            let told = format!("{}: status {}", self.host, response.status);
            let list = if post {
                &mut count.failed_posts
            } else {
                &mut count.failed_gets
            };
            streaks[self.number] = 0;
            return list.push(told);
        }
        if first {
            streaks[self.number] += 1;
        }
        if post {
            count.posts += 1;
        } else {
            count.gets += 1;
        }
        count.slowest = count.slowest.max(took);
        let header = |name| response.header(name).unwrap_or("unnamed");
        let who = format!("{}/{}", header("x-tenant"), header("x-worker"));
        *count
            .answers
            .entry(self.host.to_owned())
            .or_default()
            .entry(who)
            .or_default() += 1;
        let now = Instant::now();
        count.gap = count.gap.max(now - *last);
        *last = now;
    }
}
