//! Session tickets that every router of an edge can open, so that a client that comes back resumes
//! its session whichever router it meets.
//!
//! Nobody but the routers looks into a ticket (RFC 8446, section 4.6.1; RFC 5077, section 4). Ours:
//!
//! ```text
//! name of the key (16) | nonce (12) | sealed session | tag (16)
//!
//! name, key  = HKDF-SHA256(secret of an epoch; label, epoch, digest of the TLS policy)
//! sealed     = AES-256-GCM(key; random nonce, the name as associated data)
//! ```
//!
//! The name is derived as well: it tells a stranger neither how old the edge is nor that two
//! tickets under different policies come from one secret. A session that was made under another
//! policy (an older TLS version, other protocols in ALPN) has another key and is not resumed.
//!
//! Random nonces bound how much one key may encrypt: after 2^32 tickets two nonces have met with a
//! chance of 2^-33. With two tickets for each handshake and a key for six hours, that is 99,000
//! full handshakes a second over the whole edge.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use rustls::server::ProducesTickets;

use super::policy::TlsPolicy;
use crate::registry::record::{TicketEpoch, TicketSecrets};
use crate::registry::tickets::TicketSecretsError;

/// Another layout or derivation needs another label; tickets of both are then told apart by name.
const LABEL: &[u8] = b"gatehouse session ticket v1";
const KEY: usize = 32;
const NAME: usize = 16;
const TAG: usize = 16;
/// Longest ticket, in bytes. A session without client certificates takes a few hundred; what is
/// longer than ours ever are is not worth a decryption.
const LONGEST: usize = 2048;

/// The secrets of session tickets in force: one handle for the process, whose keys are replaced
/// while handshakes go on.
///
/// Until the first [`SharedTickets::install`] no tickets are issued and none are opened, so that
/// every handshake is a full one. A private key meanwhile would only make tickets that no other
/// router opens, nor this one from then on.
#[derive(Clone)]
pub struct SharedTickets(Arc<Inner>);

struct Inner {
    /// In seconds.
    lifetime: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    secrets: Option<TicketSecrets>,
    /// One for each policy that a configuration has asked for since the process started: a handful.
    policies: Vec<(TlsPolicy, Arc<Ticketer>)>,
}

impl SharedTickets {
    /// Without secrets as yet. `rotation` is how long a key encrypts, and what clients are told as
    /// the lifetime of their tickets.
    #[must_use]
    pub fn new(rotation: Duration) -> Self {
        Self(Arc::new(Inner {
            lifetime: u32::try_from(rotation.as_secs()).unwrap_or(u32::MAX),
            state: Mutex::default(),
        }))
    }

    /// Takes these secrets in place of those before; whose epoch is not among them any more, those
    /// tickets are not opened from now on. Costs a few derivations, or nothing if nothing changed.
    ///
    /// # Errors
    /// When they are not secrets as [`plan`](crate::registry::tickets::plan) makes them; what was
    /// in force stays.
    pub fn install(&self, secrets: &TicketSecrets) -> Result<(), TicketSecretsError> {
        secrets.check()?;
        let mut state = self.state();
        if state.secrets.as_ref() == Some(secrets) {
            return Ok(());
        }
        let policies = state.policies.iter();
        let derived: Option<Vec<Keys>> = policies
            .map(|(policy, _)| Keys::derive(secrets, *policy))
            .collect();
        let derived = derived.ok_or(TicketSecretsError::Derivation)?;
        for ((_, ticketer), keys) in state.policies.iter().zip(derived) {
            ticketer.keys.store(Some(Arc::new(keys)));
        }
        state.secrets = Some(secrets.clone());
        Ok(())
    }

    /// The epoch that encrypts; `None` before the first [`SharedTickets::install`].
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        let state = self.state();
        let current = state.secrets.as_ref()?.current()?;
        Some(current.epoch)
    }

    /// What makes and opens tickets of sessions under a policy. It follows every later
    /// [`SharedTickets::install`].
    pub(super) fn ticketer(&self, policy: TlsPolicy) -> Arc<dyn ProducesTickets> {
        let mut state = self.state();
        if let Some((_, known)) = state.policies.iter().find(|(its, _)| *its == policy) {
            return Arc::clone(known) as _;
        }
        let keys = state.secrets.as_ref().and_then(|secrets| {
            let keys = Keys::derive(secrets, policy)?;
            Some(Arc::new(keys))
        });
        let ticketer = Arc::new(Ticketer {
            lifetime: self.0.lifetime,
            keys: ArcSwapOption::new(keys),
        });
        state.policies.push((policy, Arc::clone(&ticketer)));
        ticketer
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Keys are replaced after all were derived, so a panic leaves the state as it was.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SharedTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secrets = self.state().secrets.clone();
        f.debug_tuple("SharedTickets").field(&secrets).finish()
    }
}

/// Makes and opens the tickets of one policy.
struct Ticketer {
    lifetime: u32,
    keys: ArcSwapOption<Keys>,
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        self.keys.load().is_some()
    }

    fn lifetime(&self) -> u32 {
        self.lifetime
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys.load().as_ref()?.encrypt(plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.keys.load().as_ref()?.decrypt(ticket)
    }
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticketer")
    }
}

/// The keys of all epochs under one policy.
struct Keys {
    all: Vec<Key>,
    /// Index of the one that encrypts.
    current: usize,
}

struct Key {
    name: [u8; NAME],
    aead: RandomizedNonceKey,
}

impl Keys {
    /// `None` if the secrets are none: [`TicketSecrets::check`] says so with better words.
    fn derive(secrets: &TicketSecrets, policy: TlsPolicy) -> Option<Self> {
        let current = secrets.current()?.epoch;
        let current = secrets.epochs.iter().position(|it| it.epoch == current)?;
        let digest = policy.digest();
        let keys = secrets
            .epochs
            .iter()
            .map(|epoch| Key::derive(epoch, &digest));
        let all = keys.collect::<Option<Vec<Key>>>()?;
        Some(Self { all, current })
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let length = NAME + NONCE_LEN + plain.len() + TAG;
        if length > LONGEST {
            return None;
        }
        let key = self.all.get(self.current)?;
        let mut sealed = Vec::with_capacity(plain.len() + TAG);
        sealed.extend_from_slice(plain);
        let nonce = key
            .aead
            .seal_in_place_append_tag(Aad::from(key.name), &mut sealed)
            .ok()?;
        let mut ticket = Vec::with_capacity(length);
        ticket.extend_from_slice(&key.name);
        ticket.extend_from_slice(nonce.as_ref());
        ticket.extend_from_slice(&sealed);
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > LONGEST {
            return None;
        }
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        // Names are no secret: they stand in every ticket.
        let key = self.all.iter().find(|key| key.name == *name)?;
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key
            .aead
            .open_in_place(nonce, Aad::from(key.name), &mut opened)
            .ok()?
            .len();
        opened.truncate(length);
        Some(opened)
    }
}

impl Key {
    fn derive(epoch: &TicketEpoch, policy: &[u8; 32]) -> Option<Self> {
        let secret = epoch.bytes()?;
        let number = epoch.epoch.to_be_bytes();
        // Of fixed lengths, so that no two inputs look alike when put together.
        let info = [LABEL, &number, policy];
        let mut derived = [0; NAME + KEY];
        Salt::new(HKDF_SHA256, &[])
            .extract(&secret)
            .expand(&info, Length(derived.len()))
            .and_then(|output| output.fill(&mut derived))
            .ok()?;
        let (name, key) = derived.split_first_chunk::<NAME>()?;
        let aead = RandomizedNonceKey::new(&AES_256_GCM, key).ok()?;
        Some(Self { name: *name, aead })
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}
