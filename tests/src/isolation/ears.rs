//! Who listens: raw sockets that see what a host's rules let in, and servers that answer.
//!
//! Everything is one epoll set that [`Ears::pump`] empties. Nothing here waits.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result};
use config::guard::Protocol;
use config::ports::{self, FLANNEL_VXLAN};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nodeguard::ruleset::Family;
use socket2::{Domain, Socket, Type};

use super::frames::{ANSWER, MAGIC, number, recognise};
use super::place::Place;
use super::topology::Topology;

/// A request that came out somewhere: where, by which protocol, at which port.
pub type Arrival = (Place, Protocol, u16);

/// What was heard, by the markers of requests.
#[derive(Debug, Default)]
pub struct Heard {
    /// Where requests came out.
    pub arrivals: BTreeMap<u32, BTreeSet<Arrival>>,
    /// Requests whose sender got its answer.
    pub answered: BTreeSet<u32>,
    /// Connections that were refused, and how.
    pub refused: BTreeMap<u32, ErrorKind>,
}

/// All open ears.
#[derive(Debug)]
pub struct Ears {
    epoll: Epoll,
    ears: Vec<Option<Ear>>,
    free: Vec<usize>,
    /// What was heard so far.
    pub heard: Heard,
}

#[derive(Debug)]
enum Ear {
    /// Sees every packet of a protocol that is delivered to a host.
    Raw {
        place: Place,
        family: Family,
        protocol: Protocol,
        socket: Socket,
    },
    /// Takes TCP connections.
    Listener {
        place: Place,
        port: u16,
        socket: Socket,
    },
    /// Sends back what it is sent.
    Accepted {
        place: Place,
        port: u16,
        socket: Socket,
    },
    /// Answers datagrams.
    Datagrams { socket: UdpSocket },
    /// The client's end of a case.
    Caller {
        marker: u32,
        protocol: Protocol,
        socket: Socket,
    },
}

impl Ear {
    fn socket(&self) -> BorrowedFd<'_> {
        match self {
            Self::Raw { socket, .. }
            | Self::Listener { socket, .. }
            | Self::Accepted { socket, .. }
            | Self::Caller { socket, .. } => socket.as_fd(),
            Self::Datagrams { socket } => socket.as_fd(),
        }
    }
}

impl Ears {
    /// Opens ears everywhere.
    ///
    /// # Errors
    /// If a socket cannot be made.
    pub fn new(topology: &Topology) -> Result<Self> {
        // Some 400 sockets listen, and each case of a wave may need two more.
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        let mut ears = Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            ears: Vec::new(),
            free: Vec::new(),
            heard: Heard::default(),
        };
        for place in Place::ALL {
            let opened = topology
                .at(place)
                .run(|| open_all(place))
                .with_context(|| format!("open the ears of {place}"))?;
            for ear in opened {
                ears.add(ear, EpollFlags::EPOLLIN)?;
            }
        }
        Ok(ears)
    }

    /// Listens to a client's socket from now on: one that connects, or has sent a datagram.
    ///
    /// # Errors
    /// If there are too many.
    pub fn add_caller(&mut self, marker: u32, protocol: Protocol, socket: Socket) -> Result<()> {
        let events = match protocol {
            Protocol::Tcp => EpollFlags::EPOLLOUT,
            _ => EpollFlags::EPOLLIN,
        };
        let caller = Ear::Caller {
            marker,
            protocol,
            socket,
        };
        self.add(caller, events)
    }

    /// Hangs up every client and forgets what was heard.
    pub fn forget(&mut self) {
        for index in 0..self.ears.len() {
            if matches!(self.ears[index], Some(Ear::Caller { .. })) {
                self.close(index);
            }
        }
        self.heard = Heard::default();
    }

    /// Takes in everything that is there, and gives how many events that were.
    ///
    /// # Errors
    /// If epoll fails.
    pub fn pump(&mut self) -> Result<usize> {
        let mut total = 0;
        loop {
            let mut events = [EpollEvent::empty(); 256];
            let count = self.epoll.wait(&mut events, EpollTimeout::ZERO)?;
            if count == 0 {
                return Ok(total);
            }
            total += count;
            for event in &events[..count] {
                let index = usize::try_from(event.data()).expect("an index of ours");
                self.serve(index)?;
            }
        }
    }

    fn add(&mut self, ear: Ear, events: EpollFlags) -> Result<()> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.ears.push(None);
            self.ears.len() - 1
        });
        let data = u64::try_from(index)?;
        self.epoll
            .add(ear.socket(), EpollEvent::new(events, data))?;
        self.ears[index] = Some(ear);
        Ok(())
    }

    fn close(&mut self, index: usize) {
        // Closing takes it out of the epoll set as well.
        if self.ears[index].take().is_some() {
            self.free.push(index);
        }
    }

    fn serve(&mut self, index: usize) -> Result<()> {
        let Some(mut ear) = self.ears[index].take() else {
            return Ok(());
        };
        let mut accepted = Vec::new();
        let stays = match &mut ear {
            Ear::Raw {
                place,
                family,
                protocol,
                socket,
            } => {
                raw(*place, *family, *protocol, socket, &mut self.heard);
                true
            }
            Ear::Listener {
                place,
                port,
                socket,
            } => {
                while let Ok((socket, _)) = socket.accept() {
                    socket.set_nonblocking(true)?;
                    accepted.push(Ear::Accepted {
                        place: *place,
                        port: *port,
                        socket,
                    });
                }
                true
            }
            Ear::Accepted {
                place,
                port,
                socket,
            } => echo(*place, *port, socket, &mut self.heard),
            Ear::Datagrams { socket } => {
                answer(socket);
                true
            }
            Ear::Caller {
                marker,
                protocol: Protocol::Tcp,
                socket,
            } => {
                let stays = call(*marker, socket, &mut self.heard);
                if stays {
                    // Writable once is enough; what counts now is the answer.
                    let mut event = EpollEvent::new(EpollFlags::EPOLLIN, u64::try_from(index)?);
                    self.epoll.modify(socket.as_fd(), &mut event)?;
                }
                stays
            }
            Ear::Caller { marker, socket, .. } => {
                let mut bytes = [0; 64];
                while let Ok(length) = (&*socket).read(&mut bytes) {
                    if bytes[..length].get(4..8) == Some(&marker.to_be_bytes()) {
                        self.heard.answered.insert(*marker);
                    }
                }
                true
            }
        };
        if stays {
            self.ears[index] = Some(ear);
        } else {
            self.free.push(index);
        }
        for ear in accepted {
            self.add(ear, EpollFlags::EPOLLIN)?;
        }
        Ok(())
    }
}

fn raw(place: Place, family: Family, protocol: Protocol, socket: &Socket, heard: &mut Heard) {
    let mut bytes = [0; 2048];
    while let Ok(length) = (&*socket).read(&mut bytes) {
        // IPv4 comes with its header, IPv6 without.
        let start = match family {
            Family::V4 => usize::from(bytes[0] & 0xf) * 4,
            Family::V6 => 0,
        };
        let seen = bytes[..length].get(start..).unwrap_or_default();
        if let Some((port, marker)) = recognise(protocol, seen) {
            let arrivals = heard.arrivals.entry(marker).or_default();
            arrivals.insert((place, protocol, port));
        }
    }
}

fn echo(place: Place, port: u16, socket: &Socket, heard: &mut Heard) -> bool {
    let mut bytes = [0; 8];
    loop {
        match (&*socket).read(&mut bytes) {
            Ok(8) => {
                let marker = u32::from_be_bytes(bytes[4..].try_into().expect("four bytes"));
                let arrivals = heard.arrivals.entry(marker).or_default();
                arrivals.insert((place, Protocol::Tcp, port));
                if (&*socket).write_all(&bytes).is_err() {
                    return false;
                }
            }
            Ok(_) => return false,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

fn answer(socket: &UdpSocket) {
    let mut bytes = [0; 64];
    while let Ok((length, from)) = socket.recv_from(&mut bytes) {
        // Otherwise the raw socket of the sender would take it for the request.
        bytes[..4].copy_from_slice(&ANSWER);
        // Whoever does not get it says so: the case fails for want of an answer.
        let _ = socket.send_to(&bytes[..length], from);
    }
}

fn call(marker: u32, socket: &Socket, heard: &mut Heard) -> bool {
    let mut bytes = [0; 8];
    match (&*socket).read(&mut bytes) {
        Ok(8) if bytes[4..] == marker.to_be_bytes() => {
            heard.answered.insert(marker);
            true
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            let mut request = MAGIC.to_vec();
            request.extend_from_slice(&marker.to_be_bytes());
            (&*socket).write_all(&request).is_ok()
        }
        Ok(_) => false,
        Err(error) => {
            heard.refused.insert(marker, error.kind());
            false
        }
    }
}

fn open_all(place: Place) -> Result<Vec<Ear>> {
    let mut ears = Vec::new();
    for protocol in Protocol::ALL {
        for family in [Family::V4, Family::V6] {
            let kind = i32::from(number(protocol)).into();
            let socket = Socket::new(domain(family), Type::RAW, Some(kind))?;
            socket.set_nonblocking(true)?;
            // Room for all that a wave can bring at once, duplicates and answers too.
            socket.set_recv_buffer_size(8 << 20)?;
            ears.push(Ear::Raw {
                place,
                family,
                protocol,
                socket,
            });
        }
    }
    for port in served(place) {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
        socket.set_only_v6(false)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
        socket.listen(1024)?;
        ears.push(Ear::Listener {
            place,
            port,
            socket,
        });
        // The kernel's own, where there is a VXLAN device; each address has a socket of its own,
        // so that answers bear the address that was asked.
        if place.role().is_some() && port != FLANNEL_VXLAN {
            for address in [
                place.v4().into(),
                place.v6().into(),
                IpAddr::from(Ipv4Addr::LOCALHOST),
                Ipv6Addr::LOCALHOST.into(),
            ] {
                let socket = UdpSocket::bind((address, port))?;
                socket.set_nonblocking(true)?;
                ears.push(Ear::Datagrams { socket });
            }
        }
    }
    Ok(ears)
}

/// Ports that somebody answers at.
fn served(place: Place) -> Vec<u16> {
    if place.home().is_some() {
        return vec![22, 80, 8080, 10250];
    }
    let Some(role) = place.role() else {
        return vec![22];
    };
    let mut ports: BTreeSet<u16> = ports::of(role).map(|entry| entry.port).collect();
    // Others than the role's too: 2379 and 10250 are isolated on some nodes only.
    ports.extend([22, 80, 2379, 10250]);
    ports.into_iter().collect()
}

/// The domain of a family's sockets.
#[must_use]
pub fn domain(family: Family) -> Domain {
    match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    }
}
