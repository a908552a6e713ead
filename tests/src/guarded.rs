//! A guarded worker among others: its master, another cluster's host, and servers on its ports.

pub mod range;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use nix::net::if_::if_nametoindex;
use serde_json::Value;

use crate::guard::{Guard, Peer};
use crate::namespace::{Host, Network};
use crate::tool::{Output, Tool};

/// An isolated port of a worker with a server behind it.
pub const KUBELET: u16 = 10250;
/// A port that nobody isolates, with a server behind it.
pub const OPEN: u16 = 4000;
/// A repair is promised within a second; a busy machine may take longer.
pub const MENDED: Duration = Duration::from_secs(5);
/// How long a connection may take; one that is dropped takes all of it.
const CONNECTING: Duration = Duration::from_millis(400);

/// A worker, its master, and a stranger, on one switch.
#[derive(Debug)]
pub struct Scene {
    /// The guarded one.
    pub worker: Host,
    /// Its peer.
    pub master: Host,
    /// Nobody's.
    pub stranger: Host,
    /// The switch.
    pub network: Network,
    /// The worker's guard; its files name the worker and the master.
    pub guard: Guard,
}

impl Scene {
    /// Three hosts, servers on the worker, and files that are not written yet.
    ///
    /// # Errors
    /// Without root, or if nodeguard has not been built.
    pub fn new(label: &str) -> Result<Self> {
        let mut network = Network::new()?;
        let worker = network.host("w1")?;
        let master = network.host("m1")?;
        let stranger = network.host("stranger")?;
        let mut guard = Guard::new(&worker, label)?;
        guard.files.peers.push(Peer::of(&master, "master"));
        for address in [worker.v4, worker.v6] {
            for port in [KUBELET, OPEN] {
                let listener = worker
                    .namespace
                    .run(|| TcpListener::bind((address, port)))?;
                std::thread::spawn(move || serve(&listener));
            }
        }
        Ok(Self {
            worker,
            master,
            stranger,
            network,
            guard,
        })
    }

    /// The same with a daemon.
    ///
    /// # Errors
    /// As [`Scene::new`], and if the daemon does not start.
    pub fn guarded(label: &str) -> Result<Self> {
        let mut scene = Self::new(label)?;
        scene.guard.write()?;
        scene.guard.start()?;
        Ok(scene)
    }

    /// Whether `from` can connect to a port of the worker and is answered.
    #[must_use]
    pub fn reaches(&self, from: &Host, to: IpAddr, port: u16) -> bool {
        from.namespace.run(|| {
            let to = SocketAddr::new(to, port);
            TcpStream::connect_timeout(&to, CONNECTING).is_ok_and(|it| echoes(it, b"hello"))
        })
    }

    /// Strangers are kept out of the isolated port, and nobody else is kept out of anything.
    ///
    /// # Panics
    /// If that is not so.
    #[track_caller]
    pub fn assert_enforced(&self) {
        for to in [self.worker.v4, self.worker.v6] {
            assert!(self.reaches(&self.master, to, KUBELET), "the peer to {to}");
            assert!(self.reaches(&self.stranger, to, OPEN), "an open port");
            assert!(!self.reaches(&self.stranger, to, KUBELET), "a stranger");
        }
    }

    /// A connection of the master's to the isolated port.
    ///
    /// # Errors
    /// If there is none.
    pub fn connect(&self, from: &Host) -> Result<TcpStream> {
        let to = SocketAddr::new(self.worker.v4, KUBELET);
        let stream = from
            .namespace
            .run(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Runs a program on the worker and insists that it succeeds.
    ///
    /// # Panics
    /// If it does not.
    pub fn on_worker(&self, line: &str) -> String {
        let output = self.try_on_worker(line);
        assert!(
            output.status.success(),
            "{line}: {}{}",
            output.stdout,
            output.stderr
        );
        output.stdout
    }

    /// Runs a program on the worker.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn try_on_worker(&self, line: &str) -> Output {
        let mut words = line.split(' ');
        let program = words.next().expect("a program");
        let tool = Tool::new(program).args(words);
        tool.namespace(Some(&self.worker.namespace))
            .run()
            .expect("it can be started")
    }

    /// Where the link of BPF to the worker's `eth0` is pinned, attached by `mode`: `tcx` or `xdp`.
    ///
    /// # Panics
    /// If the worker has no `eth0`.
    #[must_use]
    pub fn pin(&self, mode: &str) -> PathBuf {
        let index = self
            .worker
            .namespace
            .run(|| if_nametoindex("eth0").expect("a host has an eth0"));
        let links = self.guard.pins().join("links");
        links.join(format!("{mode}-{index}"))
    }

    /// Ends all enforcement, which must work after every test.
    ///
    /// # Panics
    /// If it does not, or if anything stays pinned.
    #[track_caller]
    pub fn finish(mut self) {
        self.guard.teardown().expect("all enforcement ends");
        assert!(!self.guard.pins().exists(), "BPF stays pinned");
    }
}

/// What bpftool says of the link that is pinned there; nothing, if there is none.
///
/// # Panics
/// If bpftool is not installed.
#[must_use]
pub fn pinned_link(pin: &Path) -> Option<Value> {
    let words = ["-j", "link", "show", "pinned"];
    let tool = Tool::new("bpftool").args(words).args([pin]);
    let output = tool.run().expect("bpftool is installed");
    let json: Value = serde_json::from_str(&output.stdout).ok()?;
    Some(match json {
        Value::Array(mut all) => all.pop()?,
        one => one,
    })
}

/// Whether what is sent comes back within a moment.
#[must_use]
pub fn echoes(mut stream: TcpStream, bytes: &[u8]) -> bool {
    let mut back = vec![0; bytes.len()];
    stream.set_read_timeout(Some(CONNECTING)).is_ok()
        && stream.write_all(bytes).is_ok()
        && stream.read_exact(&mut back).is_ok()
        && back == bytes
}

/// Echoes, until the process ends.
fn serve(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            let mut stream = stream;
            let mut buffer = [0; 64 * 1024];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
        });
    }
}
