//! Who sends: sockets and wires of every place, and the sentinels that tell when all is quiet.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, bail};
use config::guard::Protocol;
use nodeguard::ruleset::Family;
use socket2::{Socket, Type};

use super::case::{Case, Means};
use super::ears::{Ears, domain};
use super::frames::{self, MAGIC, Request, Shape};
use super::place::Place;
use super::topology::Topology;
use super::wire::Wire;

/// A port that nobody isolates and nobody listens at: sentinels only have to come by.
const DISCARD: u16 = 9;

/// The means of all places to send.
#[derive(Debug)]
pub struct Senders {
    wires: BTreeMap<Place, Wire>,
    sentinels: BTreeMap<Place, UdpSocket>,
}

impl Senders {
    /// Opens what sends frames and sentinels.
    ///
    /// # Errors
    /// If a socket cannot be made.
    pub fn new(topology: &Topology) -> Result<Self> {
        let mut senders = Self {
            wires: BTreeMap::new(),
            sentinels: BTreeMap::new(),
        };
        for place in Place::ALL {
            let (wire, sentinel) = topology.at(place).run(|| {
                let wire = Wire::open("eth0")?;
                let sentinel = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                sentinel.set_nonblocking(true)?;
                anyhow::Ok((wire, sentinel))
            })?;
            senders.wires.insert(place, wire);
            senders.sentinels.insert(place, sentinel);
        }
        Ok(senders)
    }

    /// Sends the requests of one place's cases; clients' sockets go to the ears.
    ///
    /// # Errors
    /// If the sender's own host refuses.
    pub fn send(
        &self,
        topology: &Topology,
        from: Place,
        cases: &[(u32, &Case)],
        ears: &mut Ears,
    ) -> Result<()> {
        topology.at(from).run(|| {
            for (marker, case) in cases {
                self.send_one(*marker, case, ears)
                    .with_context(|| case.name.clone())?;
            }
            Ok(())
        })
    }

    fn send_one(&self, marker: u32, case: &Case, ears: &mut Ears) -> Result<()> {
        let to = SocketAddr::new(case.to.0, case.to.1);
        // Of its own for a while, and not isolated: an answer to it must not be taken for a request.
        let port = 33_000 + u16::try_from(marker % 20_000)?;
        let request = |source: IpAddr| Request {
            source: SocketAddr::new(source, port),
            destination: to,
            protocol: case.protocol,
            marker,
        };
        match case.means {
            Means::Client { source } => {
                let sent = client(case, source, to, marker)?;
                if let Some(socket) = sent {
                    ears.add_caller(marker, case.protocol, socket)?;
                }
            }
            Means::Frames { shape, source, hop } => {
                let wire = &self.wires[&case.from];
                for frame in frames::frames(shape, &request(source), case.from.mac(), hop) {
                    wire.send(&frame)?;
                }
            }
            Means::Vxlan { to, source } => {
                let inner = frames::frames(
                    Shape::Plain,
                    &request(source),
                    other_vtep(to).vtep_mac(),
                    to.vtep_mac(),
                );
                let outer = Request {
                    source: SocketAddr::new(case.from.v4().into(), port),
                    destination: SocketAddr::new(to.v4().into(), 8472),
                    protocol: Protocol::Udp,
                    marker,
                };
                let frame = frames::vxlan(&inner[0], &outer, case.from.mac(), to.mac());
                self.wires[&case.from].send(&frame)?;
            }
        }
        Ok(())
    }

    /// Sends a sentinel along every way that a request can go, and gives who has to see which.
    ///
    /// # Errors
    /// If the sender's own host refuses.
    pub fn sentinels(&self, mut marker: impl FnMut() -> u32) -> Result<Vec<(Place, u32)>> {
        let mut sent = Vec::new();
        for from in Place::ALL {
            for to in Place::ALL {
                if !has_way(from, to) {
                    continue;
                }
                let marker = marker();
                let mut bytes = MAGIC.to_vec();
                bytes.extend_from_slice(&marker.to_be_bytes());
                let socket = &self.sentinels[&from];
                match socket.send_to(&bytes, (to.v4(), DISCARD)) {
                    Ok(_) => {}
                    // What came back from an earlier one: nobody listens there.
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                        socket.send_to(&bytes, (to.v4(), DISCARD))?;
                    }
                    Err(error) => bail!("sentinel {from} -> {to}: {error}"),
                }
                sent.push((to, marker));
            }
        }
        Ok(sent)
    }
}

fn has_way(from: Place, to: Place) -> bool {
    match (from.home(), to.home()) {
        (None, None) => from != to || from.role().is_some(),
        (Some(home), None) => home == to,
        (None, Some(home)) => home == from,
        (Some(one), Some(other)) => {
            from != to && Place::ACME.contains(&one) && Place::ACME.contains(&other)
        }
    }
}

/// Asks by a socket of the current namespace; gives the socket if an answer is to come by it.
fn client(
    case: &Case,
    source: Option<IpAddr>,
    to: SocketAddr,
    marker: u32,
) -> Result<Option<Socket>> {
    let kind = match case.protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
        Protocol::Sctp => Type::RAW,
    };
    let number = (case.protocol == Protocol::Sctp).then(|| 132.into());
    let socket = Socket::new(domain(case.family), kind, number)?;
    socket.set_nonblocking(true)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match case.protocol {
        Protocol::Tcp => {
            // Ends without a word that could be counted later.
            socket.set_linger(Some(std::time::Duration::ZERO))?;
            match socket.connect(&to.into()) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {}
                Err(error) => return Err(error.into()),
            }
            Ok(Some(socket))
        }
        Protocol::Udp => {
            let mut bytes = MAGIC.to_vec();
            bytes.extend_from_slice(&marker.to_be_bytes());
            socket.connect(&to.into())?;
            socket.send(&bytes)?;
            Ok(Some(socket))
        }
        Protocol::Sctp => {
            let any: IpAddr = match case.family {
                Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
                Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
            };
            let request = Request {
                source: SocketAddr::new(any, 33_000 + u16::try_from(marker % 20_000)?),
                destination: to,
                protocol: case.protocol,
                marker,
            };
            // A raw socket's address has no port.
            let address = SocketAddr::new(to.ip(), 0);
            socket.send_to(&frames::transport(&request), &address.into())?;
            Ok(None)
        }
    }
}

/// A VXLAN device drops what bears its own address.
fn other_vtep(to: Place) -> Place {
    if to == Place::W2 {
        Place::W1
    } else {
        Place::W2
    }
}
