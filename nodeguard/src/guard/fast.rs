//! The BPF plane as the guard uses it: wanted or not, there or not, and never the cause of an end.

use std::path::PathBuf;
use std::time::Instant;

use config::guard::{BpfMode, GuardConfig, Interface};

use crate::bpf::{self, Attachment, BpfError, Counters, Mode, Plane, Refusal, State, Tables};
use crate::devices::{Devices, Nature};
use crate::policy::Policy;
use crate::status::DeviceStatus;

use super::events::EventLog;

/// Why a device has no BPF that somebody wanted there.
const BRIDGED: &str = "a bridge or a port of one: nftables judges there before BPF could";

/// The plane, or why there is none.
pub(super) struct FastPlane {
    pins: PathBuf,
    mode: BpfMode,
    interfaces: Vec<Interface>,
    loaded: Loaded,
    /// What the last update said, if it failed.
    not_updated: Option<String>,
    /// What the last attempt to attach said, if it failed as a whole.
    not_attached: Option<String>,
    attachments: Vec<Attachment>,
    log: EventLog,
}

enum Loaded {
    NotWanted,
    Missing(String),
    Plane(Box<Plane>),
}

impl FastPlane {
    /// Loads the programs, if any device is to have them.
    pub(super) fn load(config: &GuardConfig) -> Self {
        let mut fast = Self {
            pins: config.runtime.join("bpf"),
            mode: BpfMode::Off,
            interfaces: Vec::new(),
            loaded: Loaded::NotWanted,
            not_updated: None,
            not_attached: None,
            attachments: Vec::new(),
            log: EventLog::new(Instant::now()),
        };
        fast.configure(config);
        fast
    }

    /// Takes over which devices are to have it. What is no longer wanted goes.
    pub(super) fn configure(&mut self, config: &GuardConfig) {
        self.mode = config.bpf;
        self.interfaces.clone_from(&config.interfaces);
        let modes = self.interfaces.iter().map(|it| it.bpf.unwrap_or(self.mode));
        let is_wanted = if self.interfaces.is_empty() {
            self.mode != BpfMode::Off
        } else {
            modes.into_iter().any(|mode| mode != BpfMode::Off)
        };
        match (&self.loaded, is_wanted) {
            (Loaded::Plane(_), true) => {}
            (_, true) => match Plane::load(&self.pins) {
                Ok(plane) => self.loaded = Loaded::Plane(Box::new(plane)),
                Err(error) => {
                    let error = full(&error);
                    tracing::error!(error, "no BPF plane: nftables enforces alone");
                    // What an earlier daemon left would go on enforcing its last policy.
                    self.remove();
                    self.loaded = Loaded::Missing(error);
                }
            },
            (_, false) => {
                self.loaded = Loaded::NotWanted;
                self.remove();
            }
        }
    }

    fn remove(&mut self) {
        self.attachments.clear();
        if let Err(error) = bpf::teardown(&self.pins) {
            let error = full(&error);
            tracing::error!(error, "what is left of a BPF plane cannot be removed");
        }
    }

    /// The first tables of a plane that nothing is attached to yet.
    pub(super) fn start(&mut self, tables: &Tables) {
        self.tighten(tables);
    }

    /// Before nftables changes: lets through what it will let through.
    pub(super) fn loosen(&mut self, tables: &Tables) {
        self.update(|plane| plane.loosen(tables));
    }

    /// After nftables has changed: drops what it drops.
    pub(super) fn tighten(&mut self, tables: &Tables) {
        self.update(|plane| plane.tighten(tables));
    }

    fn update<T>(&mut self, change: impl FnOnce(&mut Plane) -> Result<T, BpfError>) {
        let Loaded::Plane(plane) = &mut self.loaded else {
            return;
        };
        let failed = change(plane).err().map(|error| full(&error));
        // It is tried again at every look; said once.
        if failed.is_some() && failed != self.not_updated {
            tracing::error!(
                error = failed,
                "the BPF plane cannot follow: nftables enforces alone"
            );
        }
        self.not_updated = failed;
    }

    /// Whether it could not follow the last change, and may be behind nftables.
    pub(super) fn is_behind(&self) -> bool {
        self.not_updated.is_some()
    }

    /// Whether it was asked for and could not be loaded.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self.loaded, Loaded::Missing(_))
    }

    /// Attaches to the devices that are to have it, detaches from all others.
    pub(super) fn attach(&mut self, devices: &Devices) {
        let wanted = self.wanted(devices);
        let Loaded::Plane(plane) = &mut self.loaded else {
            return;
        };
        match plane.attach(&wanted) {
            Ok(attachments) => {
                for new in &attachments {
                    let before = self.attachments.iter().find(|old| old.index == new.index);
                    if before.is_none_or(|old| outcome(old) != outcome(new)) {
                        let (mode, problem) = outcome(new);
                        tracing::info!(device = new.name, mode, problem, "BPF on a device");
                    }
                }
                self.attachments = attachments;
                self.not_attached = None;
            }
            Err(error) => {
                let failed = Some(full(&error));
                if failed != self.not_attached {
                    tracing::error!(error = failed, "BPF cannot be attached");
                }
                self.not_attached = failed;
            }
        }
    }

    fn wanted(&self, devices: &Devices) -> Vec<bpf::Device> {
        let mode_of = |name: &str| {
            let named = self.interfaces.iter().find(|it| it.name == name);
            match (named, self.interfaces.is_empty()) {
                (Some(it), _) => it.bpf.unwrap_or(self.mode),
                (None, true) => self.mode,
                (None, false) => BpfMode::Off,
            }
        };
        let links = devices.links.iter();
        links
            .filter(|(_, device)| device.nature == Nature::Ethernet)
            .filter_map(|(index, device)| {
                let mode = match mode_of(&device.name) {
                    BpfMode::Off => return None,
                    BpfMode::Tcx => Mode::Tcx,
                    BpfMode::Xdp => Mode::Xdp,
                };
                Some(bpf::Device {
                    index: *index,
                    name: device.name.clone(),
                    mode,
                })
            })
            .collect()
    }

    /// Attaches anew what somebody detached; the names of those devices.
    pub(super) fn mend(&mut self, devices: &Devices) -> Vec<String> {
        let Loaded::Plane(plane) = &mut self.loaded else {
            return Vec::new();
        };
        let detached = match plane.check() {
            Ok(detached) => detached,
            Err(error) => {
                tracing::error!(error = full(&error), "the BPF plane cannot be asked");
                return Vec::new();
            }
        };
        if detached.is_empty() {
            return Vec::new();
        }
        self.attach(devices);
        detached
            .into_iter()
            // A device that went took its link along; nobody did that to us.
            .filter(|it| devices.links.contains_key(&it.index))
            .map(|it| it.name)
            .collect()
    }

    pub(super) fn counters(&self) -> Option<Counters> {
        let Loaded::Plane(plane) = &self.loaded else {
            return None;
        };
        plane
            .counters()
            .inspect_err(|error| {
                tracing::error!(error = full(error), "BPF counters cannot be read")
            })
            .ok()
    }

    pub(super) fn log_events(&mut self, policy: &Policy) {
        let Loaded::Plane(plane) = &mut self.loaded else {
            return;
        };
        plane.drain(|event| self.log.add(&event, policy));
        self.log.finish_window(Instant::now());
    }

    pub(super) fn is_loaded(&self) -> bool {
        matches!(self.loaded, Loaded::Plane(_)) && self.problem().is_none()
    }

    /// Why it does not do what was asked of it.
    pub(super) fn problem(&self) -> Option<String> {
        match &self.loaded {
            Loaded::Missing(why) => Some(why.clone()),
            _ => self.not_updated.clone().or(self.not_attached.clone()),
        }
    }

    /// Every device and what came of it, those that are named and not there included.
    pub(super) fn devices(&self, devices: &Devices) -> Vec<DeviceStatus> {
        let status = |(index, device): (&u32, &crate::devices::Device)| {
            let attachment = self.attachments.iter().find(|it| it.index == *index);
            let is_named = self.interfaces.iter().any(|it| it.name == device.name);
            let (attached, problem) = match (attachment, device.nature) {
                (Some(attachment), _) => outcome(attachment),
                // Nobody misses it there who has not asked for it.
                (None, Nature::Bridged) if is_named => ("off", Some(BRIDGED.to_owned())),
                (None, Nature::NotEthernet) if is_named => {
                    ("off", Some(Refusal::NotEthernet.to_string()))
                }
                (None, _) => ("off", None),
            };
            DeviceStatus {
                name: device.name.clone(),
                attached: attached.to_owned(),
                problem,
            }
        };
        let mut all: Vec<DeviceStatus> = devices.links.iter().map(status).collect();
        for named in &self.interfaces {
            if !devices.links.values().any(|it| it.name == named.name) {
                all.push(DeviceStatus {
                    name: named.name.clone(),
                    attached: "off".to_owned(),
                    problem: Some(Refusal::Gone.to_string()),
                });
            }
        }
        all
    }
}

/// How a device is guarded, and why not as asked for.
fn outcome(attachment: &Attachment) -> (&'static str, Option<String>) {
    match &attachment.state {
        State::Attached(Mode::Tcx) => ("tcx", None),
        State::Attached(Mode::Xdp) => ("xdp", None),
        State::Fallback(why) => ("tcx", Some(format!("not xdp: {why}"))),
        State::Refused(why) => ("off", Some(why.to_string())),
    }
}

/// An error with its causes in one line.
fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
