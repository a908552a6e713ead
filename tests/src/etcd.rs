//! A real etcd cluster: Debian's etcd, one process per member, mutual TLS for clients and peers.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::address::Claim;
use crate::ca::{Ca, KeyKind};
use crate::folder;
use crate::namespace::{Host, Namespace};
use crate::process::Process;
use crate::tool::{Output, Tool};
use crate::wait;

const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

/// Where a member runs and listens.
#[derive(Clone, Debug)]
pub struct Place {
    /// The namespace it runs in; `None`: ours.
    pub namespace: Option<Namespace>,
    /// Its address, for clients and peers.
    pub ip: IpAddr,
    /// Port for clients.
    pub client_port: u16,
    /// Port for the other members.
    pub peer_port: u16,
}

impl Place {
    /// A member on a host, at etcd's usual ports.
    #[must_use]
    pub fn on(host: &Host) -> Self {
        Self {
            namespace: Some(host.namespace.clone()),
            ip: host.v4,
            client_port: CLIENT_PORT,
            peer_port: PEER_PORT,
        }
    }

    /// A member on a loopback address of its own; the claim must outlive it.
    #[must_use]
    pub fn at(claim: &Claim) -> Self {
        Self {
            namespace: None,
            ip: claim.port(0).ip(),
            client_port: CLIENT_PORT,
            peer_port: PEER_PORT,
        }
    }

    fn client(&self) -> String {
        format!("https://{}", SocketAddr::new(self.ip, self.client_port))
    }

    fn peer(&self) -> String {
        format!("https://{}", SocketAddr::new(self.ip, self.peer_port))
    }
}

/// A cluster; its members are killed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    ca: Ca,
    folder: PathBuf,
    arguments: Vec<String>,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    place: Place,
    process: Process,
    stopped: bool,
}

impl Cluster {
    /// Starts a member at each place and waits until all are healthy. Data, logs, and certificates
    /// go to `folder`; those for clients are `etcd-ca.crt`, `etcd-client.crt` and `etcd-client.key`.
    ///
    /// # Errors
    /// If etcd is not installed, or the members do not find each other.
    pub fn start(folder: &Path, places: &[Place]) -> Result<Self> {
        Self::start_with(folder, places, &[])
    }

    /// As [`Cluster::start`], with more arguments for every member.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_with(folder: &Path, places: &[Place], arguments: &[&str]) -> Result<Self> {
        let ca = Ca::new("Gatehouse test etcd CA")?;
        folder::write(&folder.join("etcd-ca.crt"), ca.pem())?;
        ca.issue_mutual(&["router"], KeyKind::Ecdsa)?
            .write(folder, "etcd-client")?;
        let everybody: Vec<String> = places
            .iter()
            .enumerate()
            .map(|(index, place)| format!("{}={}", name(index), place.peer()))
            .collect();
        let everybody = everybody.join(",");
        for (index, place) in places.iter().enumerate() {
            // etcd's gateway is a client of its own server, so that certificate is for both.
            ca.issue_mutual(&[&place.ip.to_string()], KeyKind::Ecdsa)?
                .write(folder, &format!("etcd-{}", name(index)))?;
        }
        let mut shared = vec!["--initial-cluster".to_owned(), everybody];
        shared.extend(arguments.iter().map(|&it| it.to_owned()));
        let members = places
            .iter()
            .enumerate()
            .map(|(index, place)| {
                Ok(Member {
                    place: place.clone(),
                    process: launch(folder, index, place, &shared)?,
                    stopped: false,
                })
            })
            .collect::<Result<_>>()?;
        let mut cluster = Self {
            ca,
            folder: folder.to_owned(),
            arguments: shared,
            members,
        };
        cluster.wait_healthy()?;
        Ok(cluster)
    }

    /// Addresses of all members, for clients.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|it| it.place.client()).collect()
    }

    /// The authority that signed everything, for further certificates.
    #[must_use]
    pub fn authority(&self) -> &Ca {
        &self.ca
    }

    /// PEM file of the authority.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.folder.join("etcd-ca.crt")
    }

    /// PEM file of the client certificate for routers.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("etcd-client.crt")
    }

    /// PEM file of its key.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.folder.join("etcd-client.key")
    }

    /// The member that leads.
    ///
    /// # Errors
    /// If there is none within half a minute.
    pub fn leader(&mut self) -> Result<usize> {
        wait::until("etcd to have a leader", wait::PATIENCE, || {
            self.leader_now()
        })
    }

    /// The member that leads, if one does.
    pub fn leader_now(&mut self) -> Option<usize> {
        let claims = self.running().into_iter().filter_map(|index| {
            let output = self.etcdctl_at(index, &["endpoint", "status", "-w", "json"]);
            let all: Value = serde_json::from_str(&output.ok()?.stdout).ok()?;
            let status = &all[0]["Status"];
            let leads = status["leader"] == status["header"]["member_id"];
            leads.then_some((status["raftTerm"].as_u64()?, index))
        });
        // One that was cut off may not know yet that it was replaced.
        claims.max().map(|(_, index)| index)
    }

    /// Waits until every member that runs takes part in the cluster.
    ///
    /// # Errors
    /// If that does not happen within half a minute, or one has ended.
    pub fn wait_healthy(&mut self) -> Result<()> {
        for index in 0..self.members.len() {
            if self.members[index].stopped {
                continue;
            }
            let what = format!("etcd member {} to be healthy", name(index));
            let patience = wait::PATIENCE;
            let ended = wait::until(&what, patience, || {
                if let Some(status) = self.members[index].process.ended() {
                    return Some(Some(status));
                }
                let output = self.etcdctl_at(index, &["endpoint", "health"]);
                output.is_ok_and(|it| it.status.success()).then_some(None)
            })
            .with_context(|| self.members[index].process.log())?;
            if let Some(status) = ended {
                let log = self.members[index].process.log();
                bail!("etcd member {} has ended ({status}):\n{log}", name(index));
            }
        }
        Ok(())
    }

    /// Kills a member without notice.
    pub fn kill(&mut self, index: usize) {
        let member = &mut self.members[index];
        member.process.crash();
        member.stopped = true;
    }

    /// Halts a member: its connections stay, and nothing on them is answered.
    pub fn stop(&mut self, index: usize) {
        let member = &mut self.members[index];
        member.process.signal(Signal::SIGSTOP);
        member.stopped = true;
    }

    /// Lets a halted member go on.
    pub fn cont(&mut self, index: usize) {
        let member = &mut self.members[index];
        member.process.signal(Signal::SIGCONT);
        member.stopped = false;
    }

    /// Starts a member that was killed, on its old data. Does not wait for it.
    ///
    /// # Errors
    /// If etcd cannot be started.
    pub fn restart(&mut self, index: usize) -> Result<()> {
        self.kill(index);
        let place = self.members[index].place.clone();
        let process = launch(&self.folder, index, &place, &self.arguments)?;
        let member = &mut self.members[index];
        member.process = process;
        member.stopped = false;
        Ok(())
    }

    /// Writes everything that the cluster holds to a file.
    ///
    /// # Errors
    /// If etcdctl fails.
    pub fn save(&self, file: &Path) -> Result<()> {
        let file = file.to_str().context("a path that is text")?;
        self.etcdctl(&["snapshot", "save", file]).map(drop)
    }

    /// Kills every member and starts all of them on new data: of a file that [`Cluster::save`] wrote,
    /// or on none, as a new cluster behind the same addresses. Waits until they are healthy.
    ///
    /// # Errors
    /// If etcd or etcdctl fails.
    pub fn replace(&mut self, saved: Option<&Path>) -> Result<()> {
        for index in 0..self.members.len() {
            self.kill(index);
        }
        for (index, member) in self.members.iter().enumerate() {
            let data = self.folder.join(format!("etcd-{}.data", name(index)));
            std::fs::remove_dir_all(&data)?;
            let Some(saved) = saved else { continue };
            Tool::new("etcdctl")
                .environment("ETCDCTL_API", "3")
                .args(["snapshot", "restore"])
                .args([saved])
                .args(["--name", &name(index)])
                .args(&self.arguments[..2])
                .args(["--initial-advertise-peer-urls", &member.place.peer()])
                .args(["--data-dir"])
                .args([&data])
                .succeed()?;
        }
        for index in 0..self.members.len() {
            self.restart(index)?;
        }
        self.wait_healthy()
    }

    /// Everything that a member printed.
    #[must_use]
    pub fn log(&self, index: usize) -> String {
        self.members[index].process.log()
    }

    /// Process id of a member.
    #[must_use]
    pub fn pid(&self, index: usize) -> u32 {
        self.members[index].process.pid()
    }

    /// Runs etcdctl against the first member that runs, and insists that it succeeds.
    ///
    /// # Errors
    /// If none runs or etcdctl fails.
    pub fn etcdctl(&self, arguments: &[&str]) -> Result<String> {
        let index = *self.running().first().context("no etcd member runs")?;
        self.caller(index).succeed(arguments)
    }

    fn running(&self) -> Vec<usize> {
        (0..self.members.len())
            .filter(|&index| !self.members[index].stopped)
            .collect()
    }

    fn etcdctl_at(&self, index: usize, arguments: &[&str]) -> Result<Output> {
        self.caller(index).run(arguments)
    }

    fn caller(&self, index: usize) -> Caller {
        Caller {
            place: self.members[index].place.clone(),
            folder: self.folder.clone(),
        }
    }

    /// A key of its own on a lease of its own, with nothing of Gatehouse around: what etcd itself
    /// takes to end a lease.
    ///
    /// # Errors
    /// As [`Cluster::etcdctl`].
    pub fn bare_lease(&self, ttl: Duration) -> Result<BareLease> {
        let index = *self.running().first().context("no etcd member runs")?;
        let caller = self.caller(index);
        let granted = caller.succeed(&["lease", "grant", &ttl.as_secs().to_string()])?;
        let lease = granted.split_whitespace().nth(1).context("a lease")?;
        let key = format!("/bare/{lease}");
        caller.succeed(&["put", &key, "", "--lease", lease])?;
        Ok(BareLease {
            lease: lease.to_owned(),
            key,
            caller,
        })
    }
}

/// Runs etcdctl against one member.
#[derive(Clone, Debug)]
struct Caller {
    place: Place,
    folder: PathBuf,
}

impl Caller {
    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let file = |name: &str| self.folder.join(name);
        Tool::new("etcdctl")
            .environment("ETCDCTL_API", "3")
            .args(["--endpoints", &self.place.client()])
            .args(["--dial-timeout=1s", "--command-timeout=2s", "--cacert"])
            .args([file("etcd-ca.crt")])
            .args(["--cert"])
            .args([file("etcd-client.crt")])
            .args(["--key"])
            .args([file("etcd-client.key")])
            .args(arguments)
            .namespace(self.place.namespace.as_ref())
            .run()
    }

    fn succeed(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        if !output.status.success() {
            bail!("etcdctl {arguments:?}: {}{}", output.stdout, output.stderr);
        }
        Ok(output.stdout)
    }
}

/// A lease that somebody else renews; see [`Cluster::bare_lease`].
#[derive(Debug)]
pub struct BareLease {
    lease: String,
    key: String,
    caller: Caller,
}

impl BareLease {
    /// Renews it for the last time, and waits on a thread until its key is gone: how long after the
    /// renewal that was seen.
    ///
    /// # Errors
    /// If it cannot be renewed.
    pub fn lapse(self) -> Result<JoinHandle<Result<Duration>>> {
        let Self { lease, key, caller } = self;
        caller.succeed(&["lease", "keep-alive", "--once", &lease])?;
        let since = Instant::now();
        Ok(std::thread::spawn(move || {
            let gone = || {
                let found = caller.run(&["get", &key]).ok()?;
                (found.status.success() && found.stdout.is_empty()).then(|| since.elapsed())
            };
            wait::until("a bare lease to end", 2 * wait::PATIENCE, gone)
        }))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Their data goes as well, and an orderly end would hand over the lead one by one.
        for member in &mut self.members {
            member.process.crash();
        }
    }
}

/// How long etcd waits for a leader's heartbeat before it elects another: its default.
pub const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);

fn name(index: usize) -> String {
    format!("m{index}")
}

fn launch(folder: &Path, index: usize, place: &Place, shared: &[String]) -> Result<Process> {
    let name = name(index);
    let (client, peer) = (place.client(), place.peer());
    let file = |suffix: &str| folder.join(format!("etcd-{name}{suffix}"));
    let mut command = Command::new("/usr/bin/etcd");
    // Go's HTTP client would ask a proxy of the machine.
    command.env_clear();
    command.args(["--name", &name, "--logger", "zap"]);
    // By default it writes to the journal if the parent is process 1.
    command.args(["--log-outputs", "stderr", "--data-dir"]);
    command.arg(file(".data"));
    for (flag, url) in [
        ("--listen-peer-urls", &peer),
        ("--initial-advertise-peer-urls", &peer),
        ("--listen-client-urls", &client),
        ("--advertise-client-urls", &client),
    ] {
        command.args([flag, url]);
    }
    command
        .args(["--initial-cluster-state", "new"])
        .args(shared);
    for prefix in ["--", "--peer-"] {
        command.arg(format!("{prefix}client-cert-auth"));
        command.arg(format!("{prefix}trusted-ca-file"));
        command.arg(folder.join("etcd-ca.crt"));
        command.arg(format!("{prefix}cert-file")).arg(file(".crt"));
        command.arg(format!("{prefix}key-file")).arg(file(".key"));
    }
    let log = format!("etcd-{name}");
    Process::start(&log, command, place.namespace.as_ref(), folder)
}
