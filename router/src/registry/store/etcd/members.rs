//! The members of a cluster: which of them is asked, and how long.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use config::router::EtcdStore;
use etcd_client::{
    Channel, Client, ConnectOptions, Error, KvClient, LeaseClient, MaintenanceClient, WatchClient,
};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use tonic::transport::{ClientTlsConfig, Endpoint};
use tracing::warn;

use super::super::StoreError;
use super::failure::{Failure, with_causes};
use super::identity::{Files, Stamp};

/// How long a connection may take.
const CONNECTING: Duration = Duration::from_secs(1);
/// Flow control's windows: listings are megabytes.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// The largest answer: a page of a listing or what a claim has to see, and not a wrong length.
const LARGEST_ANSWER: usize = 256 * 1024 * 1024;

/// How long to wait for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Whoever is asked.
    pub(super) deadline: Duration,
    /// One member, while others are left to ask.
    pub(super) attempt: Duration,
}

impl Patience {
    /// For whatever is small.
    pub(super) const CALL: Self = Self {
        deadline: Duration::from_secs(3),
        attempt: Duration::from_secs(1),
    };
    /// For a page of a listing, which takes as long as the network needs for its bytes. One that
    /// takes longer is asked for again as a smaller one, so that other members are asked that.
    pub(super) const PAGE: Self = Self {
        deadline: Duration::from_secs(5),
        attempt: Duration::from_secs(5),
    };
}

/// Which calls are made again, at another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It does not matter if it is done twice.
    Always,
    /// Only if it is certain that nothing was done.
    IfUndone,
}

/// All members.
#[derive(Debug)]
pub(super) struct Members {
    files: Files,
    members: Vec<Member>,
    /// The one that answered last; it is asked first.
    preferred: AtomicUsize,
    links: AtomicU64,
}

#[derive(Debug)]
struct Member {
    address: String,
    endpoint: Endpoint,
    /// Held while connecting, so that those who come meanwhile share the connection.
    link: Mutex<Option<Link>>,
}

/// A connection to a member.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) kv: KvClient,
    pub(super) lease: LeaseClient,
    pub(super) watch: WatchClient,
    pub(super) maintenance: MaintenanceClient,
    pub(super) place: Place,
    stamp: Stamp,
}

/// Which connection to which member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    member: usize,
    number: u64,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Link").field(&self.place).finish()
    }
}

impl Members {
    /// Connects to nobody yet.
    pub(super) fn new(store: &EtcdStore) -> Result<Self, StoreError> {
        let files = Files::of(store);
        // What is wrong with them has to be known at the start, not when etcd is asked.
        files.load()?;
        if store.endpoints.is_empty() {
            return Err(StoreError::Failed("etcd has no endpoints".into()));
        }
        let members = store.endpoints.iter().map(|address| {
            Ok(Member {
                address: address.clone(),
                endpoint: endpoint(address)?,
                link: Mutex::new(None),
            })
        });
        Ok(Self {
            files,
            members: members.collect::<Result<_, StoreError>>()?,
            preferred: AtomicUsize::new(0),
            links: AtomicU64::new(0),
        })
    }

    /// Calls one member after the other until one answers, within [`Patience::CALL`].
    ///
    /// # Errors
    /// What the cluster answers, or [`StoreError::Unavailable`].
    pub(super) async fn call<T, F>(
        &self,
        repeat: Repeat,
        action: impl Fn(Link) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.call_within(Patience::CALL, repeat, action).await
    }

    /// The same, with another patience.
    ///
    /// # Errors
    /// As [`Members::call`].
    pub(super) async fn call_within<T, F>(
        &self,
        patience: Patience,
        repeat: Repeat,
        action: impl Fn(Link) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let deadline = Instant::now() + patience.deadline;
        let mut troubles = Troubles::default();
        let first = self.preferred.load(Ordering::Relaxed);
        // The first twice: its connection may have been closed long ago without a word.
        for attempt in 0..=self.members.len() {
            let index = (first + attempt) % self.members.len();
            let last = attempt == self.members.len();
            let begun = Instant::now();
            let soon = deadline.min(begun + patience.attempt);
            let connecting = soon.min(begun + CONNECTING);
            let address = &self.members[index].address;
            let link = match timeout_at(connecting, self.link(index)).await {
                Ok(Ok(link)) => link,
                Ok(Err(reason)) => {
                    troubles.add(address, &reason);
                    continue;
                }
                Err(_) => {
                    troubles.add(address, "no connection in time");
                    continue;
                }
            };
            let place = link.place;
            let until = match repeat {
                Repeat::Always if !last => soon,
                // Nobody else will be asked, so that a leader may as well be elected meanwhile.
                Repeat::Always | Repeat::IfUndone => deadline,
            };
            let (reason, undone) = match timeout_at(until, action(link)).await {
                Ok(Ok(answer)) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Ok(Err(error)) => match Failure::from(error) {
                    Failure::Answer(answer) => return Err(answer),
                    Failure::Member { reason, undone } => (reason, undone),
                },
                Err(_) => ("no answer in time".to_owned(), false),
            };
            troubles.add(address, &reason);
            self.suspect(place).await;
            if repeat == Repeat::IfUndone && !undone {
                troubles.0.push_str("; it may have been made");
                break;
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(StoreError::Unavailable(troubles.0))
    }

    /// Gives up a connection that failed, and asks another member first from now on.
    pub(super) async fn suspect(&self, place: Place) {
        let mut held = self.members[place.member].link.lock().await;
        // Somebody else may have connected anew already.
        if held.as_ref().is_some_and(|link| link.place == place) {
            *held = None;
        }
        let next = (place.member + 1) % self.members.len();
        let order = Ordering::Relaxed;
        // Fails if another is preferred already, which is as well.
        let _ = self
            .preferred
            .compare_exchange(place.member, next, order, order);
    }

    /// The address of a member.
    pub(super) fn address(&self, place: Place) -> &str {
        &self.members[place.member].address
    }

    async fn link(&self, index: usize) -> Result<Link, String> {
        let member = &self.members[index];
        let mut held = member.link.lock().await;
        let stamp = self.files.stamp();
        if let Some(link) = &*held
            && link.stamp == stamp
        {
            return Ok(link.clone());
        }
        let tls = match (self.files.load(), &*held) {
            (Ok(tls), _) => tls,
            (Err(error), Some(link)) => {
                // Half replaced, perhaps; what there is still works.
                warn!(%error, "certificates for etcd cannot be read");
                return Ok(link.clone());
            }
            (Err(error), None) => return Err(error.to_string()),
        };
        // Rare, and ten times as large as all else that a call is made of.
        let link = Box::pin(self.connect(index, tls, stamp)).await?;
        *held = Some(link.clone());
        Ok(link)
    }

    async fn connect(
        &self,
        member: usize,
        tls: ClientTlsConfig,
        stamp: Stamp,
    ) -> Result<Link, String> {
        let endpoint = self.members[member].endpoint.clone().tls_config(tls);
        let channel = match endpoint {
            Ok(endpoint) => endpoint.connect().await,
            Err(error) => Err(error),
        };
        let channel = Channel::Tonic(channel.map_err(|error| with_causes(&error))?);
        let client = async |options| {
            let client = Client::from_channel(channel.clone(), Some(options)).await;
            client.map_err(|error| with_causes(&error))
        };
        // A call may wait for a leader; a watch on a member without one would wait for ever.
        let calls = client(ConnectOptions::new()).await?;
        let watches = client(ConnectOptions::new().with_require_leader(true)).await?;
        Ok(Link {
            kv: calls.kv_client().max_decoding_message_size(LARGEST_ANSWER),
            lease: calls.lease_client(),
            maintenance: calls.maintenance_client(),
            watch: watches
                .watch_client()
                .max_decoding_message_size(LARGEST_ANSWER),
            place: Place {
                member,
                number: self.links.fetch_add(1, Ordering::Relaxed),
            },
            stamp,
        })
    }
}

fn endpoint(address: &str) -> Result<Endpoint, StoreError> {
    let failed =
        |reason: &dyn std::fmt::Display| StoreError::Failed(format!("{address}: {reason}"));
    let uri: http::Uri = address.parse().map_err(|error| failed(&error))?;
    if uri.scheme_str() != Some("https") || uri.host().is_none_or(str::is_empty) {
        return Err(failed(&"is no https:// address"));
    }
    // No pings of HTTP/2: etcd ends connections that ping more often than every 5 s
    // (`--grpc-keepalive-min-time`). Calls have deadlines, and a watch asks for itself.
    Ok(Endpoint::from(uri)
        .connect_timeout(CONNECTING)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW))
}

/// What went wrong, in words.
#[derive(Default)]
struct Troubles(String);

impl Troubles {
    fn add(&mut self, address: &str, reason: &str) {
        let separator = if self.0.is_empty() { "" } else { "; " };
        self.0.push_str(&format!("{separator}{address}: {reason}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_none_is_named() {
        assert!(endpoint("https://10.77.0.1:2379").is_ok());
        assert!(endpoint("https://[fd77::1]:2379").is_ok());
        assert!(endpoint("https://etcd-1.example.org:2379").is_ok());
        for address in [
            "http://10.77.0.1:2379",
            "10.77.0.1:2379",
            "https://",
            "https:///x",
            "x y",
        ] {
            let error = endpoint(address).unwrap_err().to_string();
            assert!(error.starts_with(address), "{error}");
        }
    }
}
