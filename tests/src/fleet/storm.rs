//! A storm: many registrars that begin at the same moment, and end at the same moment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::Fleet;
use super::door::Door;
use crate::folder;
use crate::process::Process;
use crate::program::binary;

/// How many registrars there are, and of whom.
#[derive(Clone, Copy, Debug)]
pub struct StormPlan {
    /// Tenants; each has a host, a token and a zone.
    pub tenants: usize,
    /// Registrars of each tenant. Every second one announces two names, the others one.
    pub instances: usize,
    /// How long an announcement holds, in whole seconds.
    pub ttl: Duration,
    /// How often it is renewed, in whole seconds.
    pub renew: Duration,
}

/// Port of what the registrars of a host check: one for all, since only they are of interest.
const CHECKED: u16 = 19_999;

/// The registrars.
#[derive(Debug)]
pub struct Storm {
    /// Rules and endpoints that every router has when all of them are heard.
    pub wanted: BTreeMap<String, BTreeSet<SocketAddr>>,
    gate: PathBuf,
    /// One for each tenant.
    processes: Vec<Process>,
}

impl Storm {
    /// Gives each tenant a host, a zone and a token, and starts its registrars up to the point where
    /// they would begin.
    ///
    /// # Errors
    /// If a part does not come up.
    pub fn prepare(fleet: &mut Fleet, plan: &StormPlan) -> Result<Self> {
        let home = fleet.home().join("storm");
        std::fs::create_dir(&home)?;
        let mut storm = Self {
            wanted: BTreeMap::new(),
            gate: home.join("gate"),
            processes: Vec::new(),
        };
        let registries: Vec<SocketAddr> = fleet.routers.iter().map(Door::api).collect();
        let registries: Vec<String> = registries
            .iter()
            .map(|it| format!("\"https://{it}\""))
            .collect();
        let registries = registries.join(", ");
        for tenant in 1..=plan.tenants {
            let host = fleet.network.host(&format!("storm-{tenant}"))?;
            let everything = format!("*-storm-{tenant}.k8s.example.org");
            let operator = fleet.operator(tenant % fleet.routers.len());
            operator.succeed(
                "PUT",
                &format!("/v1/zones/storm-{tenant}/{everything}"),
                Some(&json!({"addresses": [host.v4]})),
            )?;
            let made = operator.succeed(
                "POST",
                "/v1/tokens",
                Some(&json!({"tenant": format!("storm-{tenant}"), "note": "registrars"})),
            )?;
            let token = made["token"].as_str().context("a new token")?;
            let token_file = format!("token-{tenant}");
            folder::write_secret(&home.join(&token_file), token)?;
            let mut command = Command::new(binary("registrars")?);
            let checked = SocketAddr::new(host.v4, CHECKED);
            command.arg(&storm.gate).arg(checked.to_string());
            for instance in 1..=plan.instances {
                let port = 20_000 + u16::try_from(instance).context("a port for each")?;
                let endpoint = SocketAddr::new(host.v4, port);
                let mut names = vec![format!("w{instance}-storm-{tenant}.k8s.example.org")];
                if instance % 2 == 0 {
                    names.push(everything.clone());
                }
                let mut text = format!(
                    "tenant: storm-{tenant}\ninstance: w{instance}\nregistries: [{registries}]\n\
                     ca: ../ca.pem\ncredentials:\n  token: {token_file}\n\
                     ttl: {}s\nrenew: {}s\nroutes:\n",
                    plan.ttl.as_secs(),
                    plan.renew.as_secs(),
                );
                for name in names {
                    text.push_str(&format!(
                        "  - host: \"{name}\"\n    endpoint: \"{endpoint}\"\n    check:\n      \
                         kind: tcp\n      address: \"{checked}\"\n      interval: 5s\n"
                    ));
                    storm.wanted.entry(name).or_default().insert(endpoint);
                }
                let file = home.join(format!("{tenant}-{instance}.yaml"));
                folder::write(&file, text)?;
                command.arg(file);
            }
            let (label, inside) = (format!("registrars-{tenant}"), Some(&host.namespace));
            storm
                .processes
                .push(Process::start(&label, command, inside, &home)?);
        }
        Ok(storm)
    }

    /// Lets all of them begin; gives the moment.
    ///
    /// # Errors
    /// If one has ended, or the gate cannot be opened.
    pub fn begin(&mut self) -> Result<Instant> {
        if let Some(ended) = self.processes.iter_mut().find_map(|it| {
            let ended = it.ended()?;
            Some(format!("registrars have ended ({ended}): {}", it.log()))
        }) {
            bail!(ended);
        }
        let now = Instant::now();
        folder::write(&self.gate, "")?;
        Ok(now)
    }

    /// Kills all of them without notice; gives the moment.
    pub fn kill(&mut self) -> Instant {
        let now = Instant::now();
        for process in &mut self.processes {
            process.signal(nix::sys::signal::Signal::SIGKILL);
        }
        for process in &mut self.processes {
            process.crash();
        }
        now
    }

    /// Memory of all of them together, in bytes.
    ///
    /// # Errors
    /// If one has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.processes.iter().map(Process::resident_bytes).sum()
    }
}
