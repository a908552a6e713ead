//! The node guard of one host: its files, its daemon, what it answers.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;
use nodeguard::control::{self, Answer, Question, ask};
use nodeguard::status::{DropStatus, Status};

use crate::client::Connection;
use crate::folder::{self, Folder};
use crate::namespace::{Host, Namespace};
use crate::process::Process;
use crate::program::binary;
use crate::tool::{Output, Tool};
use crate::wait;

/// A node as it is written into a peer file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: &'static str,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Peer {
    /// A host under its own name.
    #[must_use]
    pub fn of(host: &Host, role: &'static str) -> Self {
        Self {
            name: host.name.clone(),
            role,
            addresses: vec![host.v4, host.v6],
        }
    }
}

/// What stands in the files.
#[derive(Clone, Debug)]
pub struct Files {
    /// `cluster`, of `nodeguard.yaml` and of the peer file.
    pub cluster: String,
    /// `node`.
    pub node: String,
    /// `role`.
    pub role: &'static str,
    /// `addresses`.
    pub addresses: Vec<IpAddr>,
    /// `bpf`.
    pub bpf: &'static str,
    /// `extra_ports`, of all three protocols.
    pub extra_ports: Vec<u16>,
    /// More lines for the end of `nodeguard.yaml`.
    pub more: String,
    /// Nodes in `peers.d/cluster.yaml`.
    pub peers: Vec<Peer>,
    /// Routers there.
    pub routers: Vec<(&'static str, String)>,
}

/// A node guard, before, while and after its daemon runs.
#[derive(Debug)]
pub struct Guard {
    /// What [`Guard::write`] writes.
    pub files: Files,
    /// The program; another one is an upgrade.
    pub program: PathBuf,
    /// What the daemon is run by: a program and its arguments, such as `setpriv`.
    pub wrapper: Vec<&'static str>,
    namespace: Namespace,
    process: Option<Process>,
    folder: Folder,
}

/// The address of the metrics page in the host's own namespace.
#[must_use]
pub fn page() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9901))
}

impl Guard {
    /// The guard of `host`, a worker of `acme` that has no peers yet. Writes nothing.
    ///
    /// # Errors
    /// If the program has not been built.
    pub fn new(host: &Host, label: &str) -> Result<Self> {
        Self::inside(&host.namespace, Peer::of(host, "worker"), label)
    }

    /// The guard of a node that is on no [`crate::namespace::Network`]; otherwise as
    /// [`Guard::new`].
    ///
    /// # Errors
    /// As there.
    pub fn inside(namespace: &Namespace, node: Peer, label: &str) -> Result<Self> {
        Ok(Self {
            files: Files {
                cluster: "acme".to_owned(),
                node: node.name.clone(),
                role: node.role,
                addresses: node.addresses.clone(),
                bpf: "tcx",
                extra_ports: Vec::new(),
                more: String::new(),
                peers: vec![node],
                routers: Vec::new(),
            },
            program: binary("nodeguard")?,
            wrapper: Vec::new(),
            namespace: namespace.clone(),
            process: None,
            folder: Folder::new(label)?,
        })
    }

    /// Its files' folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `nodeguard.yaml`.
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.folder().join("nodeguard.yaml")
    }

    /// `peers.d/cluster.yaml`.
    #[must_use]
    pub fn peer_file(&self) -> PathBuf {
        self.folder().join("peers.d/cluster.yaml")
    }

    /// The runtime folder.
    #[must_use]
    pub fn runtime(&self) -> PathBuf {
        self.folder().join("run")
    }

    /// Where BPF is pinned.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.runtime().join("bpf")
    }

    /// Writes both files.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn write(&self) -> Result<()> {
        self.write_configuration()?;
        self.write_peers()
    }

    /// Writes `nodeguard.yaml`.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn write_configuration(&self) -> Result<()> {
        let it = &self.files;
        let mut text = format!(
            "cluster: {}\nnode: {}\nrole: {}\naddresses: {}\npods: {{ranges: [10.244.0.0/16]}}\n\
             bpf: {}\nmetrics: \"{}\"\nstate: state\nruntime: run\nextra_ports:",
            it.cluster,
            it.node,
            it.role,
            list(&it.addresses),
            it.bpf,
            page(),
        );
        if it.extra_ports.is_empty() {
            text.push_str(" []");
        }
        for port in &it.extra_ports {
            write!(text, "\n  - {{name: extra-{port}, port: {port}}}")?;
        }
        folder::write(&self.configuration(), format!("{text}\n{}", it.more))
    }

    /// Writes `peers.d/cluster.yaml`.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn write_peers(&self) -> Result<()> {
        let it = &self.files;
        let mut text = format!("cluster: {}\n", it.cluster);
        for (number, peer) in it.peers.iter().enumerate() {
            if number == 0 {
                text.push_str("nodes:\n");
            }
            let (name, role, addresses) = (&peer.name, peer.role, list(&peer.addresses));
            writeln!(
                text,
                "  - {{name: {name}, role: {role}, addresses: {addresses}}}"
            )?;
        }
        for (number, (name, addresses)) in it.routers.iter().enumerate() {
            if number == 0 {
                text.push_str("routers:\n");
            }
            writeln!(text, "  - {{name: {name}, addresses: [{addresses}]}}")?;
        }
        std::fs::create_dir_all(self.folder().join("peers.d"))?;
        folder::write(&self.peer_file(), text)
    }

    /// The daemon's command.
    fn command(&self, configuration: &Path) -> Command {
        let mut words = self.wrapper.iter().map(PathBuf::from).collect::<Vec<_>>();
        words.push(self.program.clone());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.args(["run", "--log-format", "json", "--config"]);
        command.arg(configuration);
        command
    }

    /// Starts the daemon and waits until it answers.
    ///
    /// # Errors
    /// If it ends instead, with its log.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_until_it_answers()
    }

    /// Starts the daemon without waiting.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn launch(&mut self) -> Result<()> {
        let folder = self.folder.path().to_owned();
        let command = self.command(&self.configuration());
        let process = Process::start("nodeguard", command, Some(&self.namespace), &folder)?;
        self.process = Some(process);
        Ok(())
    }

    /// Waits until the daemon that was launched answers.
    ///
    /// # Errors
    /// If it ends instead, with its log.
    pub fn wait_until_it_answers(&mut self) -> Result<()> {
        let runtime = self.runtime();
        let process = self.process.as_mut().context("nothing was launched")?;
        let pid = process.pid();
        let waited = wait::until("the guard to answer", wait::PATIENCE, || {
            let answer = ask(&runtime, Question::Status).ok().flatten();
            let it_answers = matches!(answer, Some(Answer::Status(status))
                if status.daemon.as_ref().is_some_and(|it| it.pid == pid));
            (it_answers || process.ended().is_some()).then_some(())
        });
        if let Some(status) = process.ended() {
            bail!("the guard ended at once ({status}):\n{}", process.log());
        }
        waited.with_context(|| format!("the guard's log:\n{}", self.log()))
    }

    /// Runs another daemon with this configuration to its end, which comes by itself.
    ///
    /// # Errors
    /// If it cannot be started, or runs on.
    pub fn run_second(&self, configuration: &Path) -> Result<(ExitStatus, String)> {
        let (command, namespace) = (self.command(configuration), Some(&self.namespace));
        let mut second = Process::start("second", command, namespace, self.folder())?;
        let status = second.wait(wait::PATIENCE)?;
        let log = second.log();
        Ok((status, log))
    }

    /// The running daemon.
    ///
    /// # Panics
    /// If none was started.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the guard runs")
    }

    /// Everything that the daemons logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.as_ref().map_or(String::new(), Process::log)
    }

    /// Waits until a line of the log holds all of `needles`; gives the line.
    ///
    /// # Errors
    /// With the log, if none does.
    pub fn wait_for_log(&self, needles: &[&str]) -> Result<String> {
        let what = format!("a log line with {needles:?}");
        wait::until(&what, wait::PATIENCE, || {
            let log = self.log();
            let mut lines = log.lines();
            let line = lines.find(|line| needles.iter().all(|needle| line.contains(needle)));
            line.map(str::to_owned)
        })
        .with_context(|| format!("the log was:\n{}", self.log()))
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// If it does not end, or not well.
    pub fn terminate(&mut self) -> Result<()> {
        let process = self.process();
        process.signal(Signal::SIGTERM);
        let status = process.wait(wait::PATIENCE)?;
        if !status.success() {
            bail!("the guard ended badly ({status}):\n{}", self.log());
        }
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process().crash();
    }

    /// How it is doing.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn status(&self) -> Result<Status> {
        match ask(&self.runtime(), Question::Status)? {
            Some(Answer::Status(status)) => Ok(*status),
            other => bail!("the guard answers with {other:?}"),
        }
    }

    /// Tells it to read its files now; `Err` holds what is wrong with them.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn reload(&self, force: bool) -> Result<Result<String, Vec<String>>> {
        match ask(&self.runtime(), Question::Reload { force })? {
            Some(Answer::Reloaded { summary }) => Ok(Ok(summary)),
            Some(Answer::Refused { reasons }) => Ok(Err(reasons)),
            other => bail!("the guard answers with {other:?}"),
        }
    }

    /// Whether a daemon listens at the control socket.
    #[must_use]
    pub fn has_socket(&self) -> bool {
        control::path(&self.runtime()).exists()
    }

    /// Runs the program on the host, with the guard's configuration.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        let configuration = self.configuration();
        let tool = Tool::new(&self.program.to_string_lossy()).args(arguments);
        let tool = tool.args(["--config", &configuration.to_string_lossy()]);
        tool.namespace(Some(&self.namespace)).run()
    }

    /// A page of the daemon.
    ///
    /// # Errors
    /// If there is none.
    pub fn page(&self, path: &str) -> Result<String> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:9901\r\nConnection: close\r\n\r\n");
        let response = self
            .namespace
            .run(|| Connection::plain(page())?.exchange(request))?;
        if response.status != 200 {
            bail!("{path}: {}: {}", response.status, response.text());
        }
        Ok(response.text())
    }

    /// All drops of a plane.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub fn dropped(&self, plane: &str) -> Result<u64> {
        Ok(sum(&self.status()?.drops, plane))
    }

    /// The guard's table without its counts and its owner, as the nft program shows it.
    ///
    /// # Errors
    /// If there is no table.
    pub fn table(&self) -> Result<String> {
        let words = ["--stateless", "list", "table", "inet", "nodeguard"];
        let nft = Tool::new("nft").args(words);
        let text = nft.namespace(Some(&self.namespace)).succeed()?;
        let text = text.replacen(" # progname nodeguard", "", 1);
        Ok(text.replacen("flags owner", "flags ", 1))
    }

    /// Insists that the table is what it was.
    ///
    /// # Panics
    /// If it is not, with the lines that came and went.
    #[track_caller]
    pub fn assert_table(&self, before: &str, when: &str) {
        let now = self.table().unwrap_or_default();
        let lines = |of: &str, other: &str, sign: &str| -> String {
            let only = of
                .lines()
                .filter(|line| !other.lines().any(|it| it == *line));
            only.take(10)
                .map(|line| format!("{sign} {line}\n"))
                .collect()
        };
        assert!(
            now == before,
            "{when}: the table is not what it was:\n{}{}",
            lines(before, &now, "-"),
            lines(&now, before, "+")
        );
    }

    /// Ends the daemon and all enforcement.
    ///
    /// # Errors
    /// If something stays.
    pub fn teardown(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.stop();
        }
        let output = self.run(&["teardown"])?;
        if !output.status.success() {
            bail!("teardown: {}{}", output.stdout, output.stderr);
        }
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Prints the log of a failed test, and ends.
        drop(self.process.take());
        // However the test went, the mount must not outlive its folder; it is gone after a teardown.
        let _ = umount2(&self.pins(), MntFlags::MNT_DETACH);
    }
}

/// All drops of a plane.
#[must_use]
pub fn sum(drops: &[DropStatus], plane: &str) -> u64 {
    let of = drops.iter().filter(|it| it.plane == plane);
    of.map(|it| it.packets).sum()
}

fn list(addresses: &[IpAddr]) -> String {
    let all: Vec<String> = addresses.iter().map(|it| format!("\"{it}\"")).collect();
    format!("[{}]", all.join(", "))
}
