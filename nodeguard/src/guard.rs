//! The guard of one node: holds the policy in force in both planes.
//!
//! Everything here asks or tells the kernel, and nothing waits: a reload takes milliseconds.
//! [`crate::service`] calls it when something may have happened.

mod events;
mod fast;
mod idle;
mod report;

pub use idle::{Last, hold, hold_if_open, status_without_daemon};

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use config::guard::GuardConfig;

use crate::bpf::Tables;
use crate::compile::compile;
use crate::devices::Devices;
use crate::drops::{Drops, Plane};
use crate::load::{load, load_config};
use crate::lock::Lock;
use crate::nft::drift::Integrity;
use crate::nft::{Done, Nft, NftError};
use crate::policy::Policy;
use crate::ruleset::Ruleset;
use crate::safeguard::objections;
use crate::state::Store;
use fast::FastPlane;

/// A node's guard.
pub struct Guard {
    file: PathBuf,
    /// The last `nodeguard.yaml` that was accepted.
    config: GuardConfig,
    store: Store,
    devices: Devices,
    policy: Policy,
    origin: Origin,
    applied: SystemTime,
    ruleset: Ruleset,
    nft: Nft,
    /// Why nftables does not enforce what it should, if so.
    broken: Option<String>,
    /// Why the last good policy could not be stored, if so.
    not_stored: Option<String>,
    fast: FastPlane,
    drops: Drops,
    repairs: BTreeMap<String, u64>,
    followed: BTreeMap<String, u64>,
    reloads: Reloads,
    started: SystemTime,
    _lock: Lock,
}

/// Where a policy came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The files as they are.
    Files,
    /// The last good one, since the files are refused.
    Stored,
    /// Nowhere: everything isolated is shut.
    Shut,
}

impl Origin {
    /// Its name in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Stored => "stored",
            Self::Shut => "shut",
        }
    }
}

/// How reloads ended.
#[derive(Clone, Debug)]
struct Reloads {
    followed: u64,
    refused: u64,
    /// Everything that was wrong the last time.
    reasons: Vec<String>,
    at: SystemTime,
}

/// The files were not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Refused(
    /// Everything that was wrong.
    pub Vec<String>,
);

impl Guard {
    /// Puts the policy of the files in force; if they are refused, the last good one; if there is
    /// none, the one that shuts everything isolated.
    ///
    /// # Errors
    /// If `nodeguard.yaml` itself is refused, another daemon runs, or nftables cannot be had at all.
    /// What was enforced before still is.
    pub fn start(file: &Path, force: bool) -> anyhow::Result<Self> {
        let config = load_config(file)?;
        let lock = Lock::take(&config.runtime)?;
        // Before anything else is touched: it may belong to somebody.
        let mut nft = Nft::open()?;
        let is_claimed = nft.claim()?;
        let now = SystemTime::now();
        let Last {
            policy,
            origin,
            damage,
        } = Last::good(Some(&config));
        if let Some(error) = damage {
            tracing::error!(%error, "the last good policy cannot be read");
        }
        let mut guard = Self {
            ruleset: compile(&policy),
            nft,
            devices: Devices::list()?,
            fast: FastPlane::load(&config),
            file: file.to_owned(),
            store: Store::new(&config.state),
            policy,
            origin,
            applied: now,
            broken: None,
            not_stored: None,
            drops: Drops::default(),
            repairs: BTreeMap::new(),
            followed: BTreeMap::new(),
            reloads: Reloads {
                followed: 0,
                refused: 0,
                reasons: Vec::new(),
                at: now,
            },
            started: now,
            config,
            _lock: lock,
        };
        // Not yet with what the files say: whatever may be wrong with them, this has to hold.
        guard.establish(is_claimed)?;
        // What it says is in the log and in the status.
        let _ = guard.reload(force);
        guard.refresh_devices();
        // Takes over the counters of the programs before, in case that this daemon does not live long.
        guard.mend_bpf();
        Ok(guard)
    }

    /// Makes nftables hold the ruleset in force, with as little change as that takes. `is_claimed`:
    /// there is the table of an earlier daemon, and it is ours.
    fn establish(&mut self, is_claimed: bool) -> Result<(), NftError> {
        let found = match is_claimed {
            true => self.nft.check(&self.ruleset).ok(),
            false => None,
        };
        if found == Some(Integrity::Intact) {
            tracing::info!("the table of an earlier daemon is as it should be, and ours again");
        } else {
            self.nft.replace(&self.ruleset)?;
        }
        // Without a policy of its own, this daemon does not know what it should be.
        if let (Some(Integrity::Drifted { what }), Origin::Stored) = (found, self.origin) {
            tracing::warn!(?what, "the table was changed while no daemon ran: mended");
            self.repaired("nftables");
        }
        self.fast.start(&self.tables());
        Ok(())
    }

    /// Reads the files and follows them, unless something speaks against it.
    ///
    /// # Errors
    /// Everything that is wrong; then nothing has changed.
    pub fn reload(&mut self, force: bool) -> Result<(), Refused> {
        let result = self.try_reload(force);
        self.reloads.at = SystemTime::now();
        match &result {
            Ok(()) => {
                self.reloads.followed += 1;
                self.reloads.reasons.clear();
            }
            Err(Refused(reasons)) => {
                self.reloads.refused += 1;
                self.reloads.reasons.clone_from(reasons);
                for reason in reasons {
                    let in_force = self.origin.as_str();
                    tracing::error!(reason, in_force, "the files are refused: nothing changes");
                }
            }
        }
        result
    }

    fn try_reload(&mut self, force: bool) -> Result<(), Refused> {
        let loaded = load(&self.file)
            .map_err(|errors| Refused(errors.errors().iter().map(ToString::to_string).collect()))?;
        let policy = loaded.policy();
        if !force {
            let before = (self.origin != Origin::Shut).then_some(&self.policy);
            let against = objections(&policy, &loaded.config.addresses, before);
            if !against.is_empty() {
                return Err(Refused(against.iter().map(ToString::to_string).collect()));
            }
        }
        self.follow(loaded.config);
        if policy == self.policy && self.origin == Origin::Files && self.broken.is_none() {
            return Ok(());
        }
        self.apply(policy).map_err(|error| {
            let reason = format!("nftables refuses the policy: {error}");
            self.broken = Some(reason.clone());
            Refused(vec![reason])
        })?;
        self.origin = Origin::Files;
        self.not_stored = self.store.save(&self.policy).err().map(|error| {
            tracing::error!(%error, "the policy in force cannot be stored for the next boot");
            error.to_string()
        });
        Ok(())
    }

    /// Takes over what is not policy.
    fn follow(&mut self, config: GuardConfig) {
        for (is_other, field) in [
            (config.metrics != self.config.metrics, "metrics"),
            (config.runtime != self.config.runtime, "runtime"),
            (config.state != self.config.state, "state"),
        ] {
            if is_other {
                tracing::warn!(field, "takes effect after a restart");
            }
        }
        let fast_differs =
            (config.bpf, &config.interfaces) != (self.config.bpf, &self.config.interfaces);
        self.config = config;
        // Whatever was missing may be there by now.
        if fast_differs || self.fast.is_missing() {
            self.fast.configure(&self.config);
            self.fast.start(&self.tables());
            self.fast.attach(&self.devices);
        }
    }

    /// Puts a policy in force. BPF is loosened before and tightened after, so that it never drops
    /// what nftables would let through.
    fn apply(&mut self, policy: Policy) -> Result<(), NftError> {
        let ruleset = compile(&policy);
        let tables = Tables::of(&policy, &self.devices.addresses);
        self.count_drops();
        self.fast.loosen(&tables);
        let done = match self.nft.update(&self.ruleset, &ruleset) {
            Ok(done) => done,
            Err(error) => {
                // Back to what nftables still has.
                self.fast.tighten(&self.tables());
                return Err(error);
            }
        };
        if done == Done::Replaced {
            self.drops.restart(Plane::Nftables);
        }
        self.fast.tighten(&tables);
        let (nodes, routers) = (policy.nodes.len(), policy.routers.len());
        tracing::info!(
            ?done,
            nodes,
            routers,
            peers = policy.peers(),
            "policy in force"
        );
        self.policy = policy;
        self.ruleset = ruleset;
        self.applied = SystemTime::now();
        self.broken = None;
        Ok(())
    }

    fn tables(&self) -> Tables {
        Tables::of(&self.policy, &self.devices.addresses)
    }

    /// Looks whether nftables still holds what it should, and mends it if not. Cheap when nothing
    /// at all has changed in nftables.
    pub fn mend_nftables(&mut self) {
        let what = match self.nft.check(&self.ruleset) {
            Ok(Integrity::Intact) => {
                self.broken = None;
                return;
            }
            Ok(Integrity::Drifted { what }) => what,
            // Somebody is writing; the next look comes soon.
            Err(NftError::Unsteady) => return,
            Err(error) => {
                tracing::error!(%error, "nftables cannot be asked");
                self.broken = Some(format!("nftables cannot be asked: {error}"));
                return;
            }
        };
        match self.nft.replace(&self.ruleset) {
            Ok(()) => {
                self.drops.restart(Plane::Nftables);
                tracing::warn!(?what, "somebody changed the table: mended");
                self.broken = None;
                self.repaired("nftables");
            }
            Err(error) => {
                tracing::error!(?what, %error, "somebody changed the table, and it cannot be mended");
                self.broken = Some(format!("{}: {error}", what.join(", ")));
            }
        }
    }

    /// Looks whether BPF is still attached where it should be, and mends it if not.
    pub fn mend_bpf(&mut self) {
        if self.fast.is_behind() {
            self.fast.tighten(&self.tables());
        }
        for device in self.fast.mend(&self.devices) {
            tracing::warn!(device, "somebody detached BPF: mended");
            self.repaired("bpf");
        }
    }

    /// Takes in devices and addresses that came or went.
    pub fn refresh_devices(&mut self) {
        let devices = match Devices::list() {
            Ok(devices) => devices,
            Err(error) => {
                tracing::error!(%error, "devices cannot be listed");
                return;
            }
        };
        if devices.addresses != self.devices.addresses {
            let came: Vec<_> = devices
                .addresses
                .difference(&self.devices.addresses)
                .collect();
            let went: Vec<_> = self
                .devices
                .addresses
                .difference(&devices.addresses)
                .collect();
            tracing::info!(?came, ?went, "addresses of this node");
            let changes = came.len() + went.len();
            *self.followed.entry("address".to_owned()).or_default() += changes as u64;
            // nftables asks the kernel whether an address is this node's.
            let tables = Tables::of(&self.policy, &devices.addresses);
            self.fast.loosen(&tables);
            self.fast.tighten(&tables);
        }
        let indices = |it: &Devices| it.links.keys().copied().collect::<BTreeSet<u32>>();
        let changes = indices(&devices)
            .symmetric_difference(&indices(&self.devices))
            .count();
        if changes > 0 {
            *self.followed.entry("device".to_owned()).or_default() += changes as u64;
        }
        self.devices = devices;
        // Before attaching mends in passing what is to be told of.
        self.mend_bpf();
        self.fast.attach(&self.devices);
    }

    /// Tells of drops, one by one, as far as BPF's budget goes.
    pub fn log_events(&mut self) {
        self.fast.log_events(&self.policy);
    }

    /// The files to watch.
    #[must_use]
    pub fn sources(&self) -> Vec<PathBuf> {
        crate::load::sources(&self.file, Some(&self.config))
    }

    /// The configuration that was accepted last.
    #[must_use]
    pub fn config(&self) -> &GuardConfig {
        &self.config
    }

    /// What is in force, in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        self.policy.summary()
    }

    /// Whether nftables holds what it should, as far as the last look told.
    #[must_use]
    pub fn is_enforcing(&self) -> bool {
        self.broken.is_none()
    }

    fn repaired(&mut self, what: &str) {
        *self.repairs.entry(what.to_owned()).or_default() += 1;
    }
}
