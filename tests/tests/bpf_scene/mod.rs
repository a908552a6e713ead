//! A node with a device to guard, a peer and a stranger, on a network of their own.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aya::programs::{SchedClassifier, TcAttachType};
use harness::folder::Folder;
use harness::namespace::{Host, Network};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendmsg, socket};
use nodeguard::bpf::{Device, Flags, Mode, Plane, State, Tables, teardown};

use crate::frames::*;

/// How long a connection may take; one that is dropped takes all of it.
const CONNECTING: Duration = Duration::from_millis(400);

/// A node that serves an isolated port and an open one, a peer of it, and a stranger.
pub(crate) struct Scene {
    pub(crate) node: Host,
    pub(crate) peer: Host,
    pub(crate) stranger: Host,
    pub(crate) tables: Tables,
    pub(crate) folder: Folder,
    pub(crate) device: u32,
    _listeners: Vec<TcpListener>,
    _network: Network,
}

impl Scene {
    pub(crate) fn new(label: &str) -> Self {
        let mut network = Network::new().unwrap();
        let stranger = network.host("stranger").unwrap();
        let node = network.host("node").unwrap();
        let peer = network.host("peer").unwrap();
        let mut tables = policy();
        tables.hosts.insert(peer.v4, Flags::PEER);
        tables.hosts.insert(peer.v6, Flags::PEER);
        for address in [node.v4, node.v6] {
            assert!(
                tables.destinations.contains_key(&address),
                "the cast has changed"
            );
        }
        let mut listeners = Vec::new();
        for address in [node.v4, node.v6] {
            for port in [KUBELET, OPEN] {
                let bind = || TcpListener::bind((address, port)).unwrap();
                listeners.push(node.namespace.run(bind));
            }
        }
        let device = node.namespace.run(|| if_nametoindex("eth0").unwrap());
        Self {
            node,
            peer,
            stranger,
            tables,
            folder: Folder::new(label).unwrap(),
            device,
            _listeners: listeners,
            _network: network,
        }
    }

    pub(crate) fn pins(&self) -> PathBuf {
        self.folder.path().join("ours")
    }

    pub(crate) fn eth0(&self, mode: Mode) -> Vec<Device> {
        vec![Device {
            index: self.device,
            name: "eth0".into(),
            mode,
        }]
    }

    /// A plane with the scene's policy, attached to nothing.
    pub(crate) fn load(&self) -> Plane {
        let mut plane = Plane::load(&self.pins()).unwrap();
        plane.loosen(&self.tables).unwrap();
        plane.tighten(&self.tables).unwrap();
        plane
    }

    pub(crate) fn attach(&self, plane: &mut Plane, mode: Mode) -> State {
        let devices = self.eth0(mode);
        let report = self.node.namespace.run(|| plane.attach(&devices)).unwrap();
        report.into_iter().next().unwrap().state
    }

    /// A plane with the scene's policy on the node's device.
    pub(crate) fn guard(&self, mode: Mode) -> Plane {
        let mut plane = self.load();
        let state = self.attach(&mut plane, mode);
        assert!(
            matches!(state, State::Attached(it) if it == mode),
            "{state:?}"
        );
        plane
    }

    pub(crate) fn reaches(&self, from: &Host, to: IpAddr, port: u16) -> bool {
        let to = SocketAddr::new(to, port);
        let connect = || TcpStream::connect_timeout(&to, CONNECTING);
        from.namespace.run(connect).is_ok()
    }

    /// Strangers are kept out, and nobody else.
    pub(crate) fn assert_enforced(&self) {
        for to in [self.node.v4, self.node.v6] {
            assert!(self.reaches(&self.peer, to, KUBELET), "the peer");
            assert!(self.reaches(&self.stranger, to, OPEN), "an open port");
            assert!(!self.reaches(&self.stranger, to, KUBELET), "a stranger");
        }
    }

    /// Names of the programs at the device's tcx ingress, in their order.
    pub(crate) fn at_tcx(&self) -> Vec<(u32, String)> {
        let query = || SchedClassifier::query_tcx("eth0", TcAttachType::Ingress).unwrap();
        let (_, programs) = self.node.namespace.run(query);
        let name = |it: &aya::programs::ProgramInfo| it.name_as_str().unwrap().to_owned();
        programs.iter().map(|it| (it.id(), name(it))).collect()
    }

    /// Puts frames on the stranger's wire, addressed to the node's device, until told to stop.
    pub(crate) fn flood(&self, frame: &[u8], sent: &AtomicU64, stop: impl Fn(u64) -> bool + Sync) {
        let to: [u8; 6] = self
            .node
            .namespace
            .run(|| hardware_address("eth0").addr().unwrap());
        let mut frame = frame.to_vec();
        frame[..6].copy_from_slice(&to);
        let send = || {
            let raw = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::empty(),
                None,
            );
            let (raw, device) = (raw.unwrap(), hardware_address("eth0"));
            let content = [IoSlice::new(&frame)];
            while !stop(sent.load(Ordering::Relaxed)) {
                let none = MsgFlags::empty();
                // ENOBUFS: a full queue, and this frame is not sent.
                if sendmsg(raw.as_raw_fd(), &content, &[], none, Some(&device)).is_ok() {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        self.stranger.namespace.run(send);
    }

    pub(crate) fn send(&self, frame: &[u8], count: u64) {
        self.flood(frame, &AtomicU64::new(0), |sent| sent >= count);
    }

    /// UDP packets that have come as far as the node's sockets.
    pub(crate) fn received(&self) -> u64 {
        let read = || std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
        let text = self.node.namespace.run(read);
        let mut lines = text.lines().filter(|line| line.starts_with("Udp:"));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let fields = names.split(' ').zip(values.split(' '));
        fields
            .filter(|(name, _)| ["InDatagrams", "NoPorts", "InErrors"].contains(name))
            .map(|(_, value)| value.parse::<u64>().unwrap())
            .sum()
    }

    /// A frame from the stranger to the node's isolated UDP port.
    pub(crate) fn datagram(&self) -> Packet {
        Packet::new(self.stranger.v4, self.node.v4, UDP, VXLAN)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for name in ["ours", "theirs"] {
            let removed = teardown(&self.folder.path().join(name));
            assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
        }
    }
}

/// Somebody else's programs: a second plane that knows no policy, so that it lets all pass.
pub(crate) fn foreign(scene: &Scene, mode: Mode) -> Plane {
    let mut plane = Plane::load(&scene.folder.path().join("theirs")).unwrap();
    let state = scene.attach(&mut plane, mode);
    assert!(
        matches!(state, State::Attached(it) if it == mode),
        "{state:?}"
    );
    plane
}

fn hardware_address(name: &str) -> LinkAddr {
    let mut entries = getifaddrs().unwrap();
    entries
        .find_map(|entry| {
            let address = entry.address.filter(|_| entry.interface_name == name)?;
            address.as_link_addr().copied()
        })
        .unwrap()
}
