//! What is passed on: hop-by-hop fields out, the request's way written in (RFC 9110 section 7.6).
//!
//! What a message says about the connection it came by is taken out first, and what we say is
//! added after that, so that `Connection: X-Forwarded-For` cannot take ours out.

use std::net::IpAddr;

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::fields::copy_kept;
use super::head::{Framing, RequestHead, Version, is_plain, lists_trailers};
use super::names::{self, Claim, Name};
use super::response::{ResponseFraming, ResponseHead};

/// Something that fields are written to.
pub trait FieldSink {
    /// Whether this is an HTTP/1 head, which wants Host, one Cookie and the Connection field; or
    /// the fields of HTTP/2.
    const HTTP1: bool;

    /// Adds a field. The name is a token and the value has no control bytes.
    fn field(&mut self, name: &[u8], value: &[u8]);
}

impl FieldSink for BytesMut {
    const HTTP1: bool = true;

    #[inline]
    fn field(&mut self, name: &[u8], value: &[u8]) {
        write_line(self, name, value);
    }
}

impl FieldSink for Vec<u8> {
    const HTTP1: bool = true;

    fn field(&mut self, name: &[u8], value: &[u8]) {
        write_line(self, name, value);
    }
}

impl FieldSink for HeaderMap {
    const HTTP1: bool = false;

    fn field(&mut self, name: &[u8], value: &[u8]) {
        // Neither fails, as the parsers on both sides are stricter than `http`.
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            self.append(name, value);
        }
    }
}

/// Where a request came from, as the upstream is told. The scheme is always https.
#[derive(Clone, Copy, Debug)]
pub struct Forwarding<'a> {
    /// Address of the peer.
    pub client: IpAddr,
    /// Host or `:authority` as the client sent it, checked by
    /// [`HostPort::parse`](super::host::HostPort::parse).
    pub host: &'a str,
    /// Port that the client connected to.
    pub port: u16,
    /// Whether to believe what the peer says about the request's way, and to add to it.
    pub trusted: bool,
}

/// Writes the head of a request for an HTTP/1.1 upstream.
///
/// `upgrade` is the protocol to ask for; without it an Upgrade is left out. Other fields keep their
/// bytes and their order.
pub fn request_head(
    head: &RequestHead<'_, '_>,
    fwd: &Forwarding<'_>,
    upgrade: Option<&str>,
    out: &mut BytesMut,
) {
    out.reserve(head.raw.len() + 2 * fwd.host.len() + 384);
    out.extend_from_slice(head.method.as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(head.path.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    out.extend_from_slice(head.host.text.as_bytes());
    out.extend_from_slice(b"\r\n");

    let mut left_out = head.dropped;
    let mut way = Way::default();
    if fwd.trusted {
        for index in head.forwarding.iter() {
            let field = &head.fields[index];
            if !way.keep(field.name.as_bytes(), field.value) {
                left_out.insert(index);
            }
        }
    } else {
        left_out = left_out.union(&head.forwarding);
    }
    let plain_length = head
        .length_at
        .filter(|&index| is_plain(head.fields[index].value));
    match (plain_length, head.framing) {
        (Some(index), _) => left_out.remove(index),
        (None, framing) => request_framing(framing, out),
    }
    copy_kept(head.raw, head.fields, &left_out, out);

    let connection: &[u8] = match (upgrade, head.te_trailers) {
        (None, false) => b"",
        (None, true) => b"TE: trailers\r\nConnection: TE\r\n",
        (Some(_), false) => b"Connection: Upgrade\r\n",
        (Some(_), true) => b"TE: trailers\r\nConnection: Upgrade, TE\r\n",
    };
    out.extend_from_slice(connection);
    if let Some(protocol) = upgrade {
        out.field(b"Upgrade", protocol.as_bytes());
    }
    if fwd.trusted {
        way.write(fwd, out);
    } else {
        write_our_way(fwd, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Passes on the fields of a request that came by HTTP/2, or that goes by HTTP/2, under the policy
/// of [`request_head`].
///
/// Framing fields are left out; [`request_framing`] writes them. HTTP/1 gets Host first and the
/// cookies in one field (RFC 9113 section 8.2.3); the caller writes the request line before and the
/// empty line after. For an HTTP/1 head give [`RequestHead::end_to_end_fields`].
pub fn request_fields<'a, S: FieldSink>(
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    fwd: &Forwarding<'a>,
    sink: &mut S,
) {
    if S::HTTP1 {
        sink.field(b"Host", fwd.host.as_bytes());
    }
    let mut way = Way::default();
    let mut cookies = Values::new();
    let mut te_trailers = false;
    for (name, value) in fields {
        match names::classify(name) {
            Name::Other if S::HTTP1 && name.eq_ignore_ascii_case(b"cookie") => cookies.push(value),
            Name::Other | Name::Expect => sink.field(name, value),
            Name::Te => te_trailers |= lists_trailers(value),
            Name::Forwarding(_) if fwd.trusted && way.keep(name, value) => sink.field(name, value),
            _ => {}
        }
    }
    match cookies.as_slice() {
        [] => {}
        [cookie] => sink.field(b"Cookie", cookie),
        cookies => sink.field(b"Cookie", &cookies.join(&b"; "[..])),
    }
    if te_trailers {
        sink.field(b"te", b"trailers");
        if S::HTTP1 {
            sink.field(b"Connection", b"TE");
        }
    }
    way.write(fwd, sink);
}

/// Writes the framing field of a request; HTTP/2 has none for a body of unknown length.
pub fn request_framing<S: FieldSink>(framing: Framing, sink: &mut S) {
    match framing {
        Framing::None => {}
        Framing::Length(length) => sink.field(
            b"Content-Length",
            itoa::Buffer::new().format(length).as_bytes(),
        ),
        Framing::Chunked if S::HTTP1 => sink.field(b"Transfer-Encoding", b"chunked"),
        Framing::Chunked => {}
    }
}

/// Whether the client's connection lives on after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientPersistence {
    /// It does.
    KeepAlive,
    /// The client is told that it does not.
    Close,
}

/// How to frame for an HTTP/1 client what an upstream framed like this.
///
/// A body of unknown length is chunked for HTTP/1.1, so that its end is sure and the connection
/// lives on; HTTP/1.0 knows only the end of the connection.
pub fn client_framing(framing: ResponseFraming, client: Version) -> ResponseFraming {
    match (framing, client) {
        (ResponseFraming::UntilClose, Version::Http11) => ResponseFraming::Chunked,
        (ResponseFraming::Chunked, Version::Http10) => ResponseFraming::UntilClose,
        (framing, _) => framing,
    }
}

/// Writes the head of a response for an HTTP/1 client, always as HTTP/1.1 (RFC 9110 section 2.5).
///
/// `framing` is what the body is going to be sent in, see [`client_framing`]; with `None` the
/// Content-Length of an answer to HEAD or of a 304 is kept. Until close means `Connection: close`
/// whatever `persistence` says. Upgrade is kept in 101 and 426.
pub fn response_head(
    head: &ResponseHead<'_, '_>,
    client_version: Version,
    framing: ResponseFraming,
    persistence: ClientPersistence,
    out: &mut BytesMut,
) {
    out.reserve(head.raw.len() + 96);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&head.raw[9..12]);
    out.extend_from_slice(b" ");
    out.extend_from_slice(head.reason);
    out.extend_from_slice(b"\r\n");

    let mut left_out = head.dropped;
    let length = match framing {
        ResponseFraming::None => head.length,
        ResponseFraming::Length(length) => Some(length),
        ResponseFraming::Chunked | ResponseFraming::UntilClose => None,
    };
    if let Some(length) = length {
        let as_it_stands = head
            .length_at
            .filter(|&index| head.length == Some(length) && is_plain(head.fields[index].value));
        match as_it_stands {
            Some(index) => left_out.remove(index),
            None => out.field(
                b"Content-Length",
                itoa::Buffer::new().format(length).as_bytes(),
            ),
        }
    }
    copy_kept(head.raw, head.fields, &left_out, out);

    if framing == ResponseFraming::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    let upgrade = head.upgrade.filter(|_| matches!(head.status, 101 | 426));
    let close = persistence == ClientPersistence::Close || framing == ResponseFraming::UntilClose;
    if !head.is_interim() {
        let connection: &[u8] = match (upgrade, close && head.status != 101) {
            (Some(_), true) => b"Connection: Upgrade, close\r\n",
            (Some(_), false) => b"Connection: Upgrade\r\n",
            (None, true) => b"Connection: close\r\n",
            (None, false) if client_version == Version::Http10 => b"Connection: keep-alive\r\n",
            (None, false) => b"",
        };
        out.extend_from_slice(connection);
    }
    if let Some(protocol) = upgrade {
        out.field(b"Upgrade", protocol.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Passes on the fields of a response to an HTTP/2 client: all but those about the connection.
/// For an HTTP/1 head give [`ResponseHead::end_to_end_fields`].
pub fn response_fields<'a, S: FieldSink>(
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    sink: &mut S,
) {
    for (name, value) in fields {
        match names::classify(name) {
            Name::Other | Name::ContentLength | Name::Host | Name::Expect | Name::Forwarding(_) => {
                sink.field(name, value)
            }
            _ => {}
        }
    }
}

impl<'b> RequestHead<'_, 'b> {
    /// The fields for the origin, without those that Connection names; `TE: trailers` is among them
    /// if the client sent it, framing and Host are not.
    pub fn end_to_end_fields(&self) -> impl Iterator<Item = (&'b [u8], &'b [u8])> {
        self.fields
            .iter()
            .enumerate()
            .filter(|(index, _)| !self.dropped.contains(*index))
            .map(|(_, field)| (field.name.as_bytes(), field.value))
            .chain(self.te_trailers.then_some((&b"te"[..], &b"trailers"[..])))
    }
}

impl<'b> ResponseHead<'_, 'b> {
    /// The fields for the client, without those that Connection names; Content-Length is among
    /// them where it may stand.
    pub fn end_to_end_fields(&self) -> impl Iterator<Item = (&'b [u8], &'b [u8])> {
        let length_at = self.length_at.filter(|_| self.length.is_some());
        self.fields
            .iter()
            .enumerate()
            .filter(move |(index, _)| !self.dropped.contains(*index) || length_at == Some(*index))
            .map(|(_, field)| (field.name.as_bytes(), field.value))
    }
}

type Values<'a> = SmallVec<[&'a [u8]; 4]>;

/// What a trusted peer says about the way so far.
#[derive(Default)]
struct Way<'a> {
    forwarded_for: Values<'a>,
    forwarded: Values<'a>,
    has_proto: bool,
    has_host: bool,
    has_port: bool,
}

impl<'a> Way<'a> {
    /// Notes a forwarding field; whether it is passed on as it is.
    fn keep(&mut self, name: &[u8], value: &'a [u8]) -> bool {
        match names::classify(name) {
            Name::Forwarding(Claim::XForwardedFor) => self.forwarded_for.push(value),
            Name::Forwarding(Claim::Forwarded) => self.forwarded.push(value),
            Name::Forwarding(Claim::XForwardedProto) => self.has_proto = true,
            Name::Forwarding(Claim::XForwardedHost) => self.has_host = true,
            Name::Forwarding(Claim::XForwardedPort) => self.has_port = true,
            _ => {}
        }
        !matches!(
            names::classify(name),
            Name::Forwarding(Claim::XForwardedFor | Claim::Forwarded)
        )
    }

    /// Writes the way with ourselves at its end: X-Forwarded-* and Forwarded (RFC 7239).
    #[inline]
    fn write<S: FieldSink>(&self, fwd: &Forwarding<'_>, sink: &mut S) {
        let mut value: SmallVec<[u8; 256]> = SmallVec::new();
        let client = ClientText::new(fwd.client);

        append_list(&mut value, &self.forwarded_for);
        value.extend_from_slice(client.bytes());
        sink.field(b"X-Forwarded-For", &value);
        if !self.has_proto {
            sink.field(b"X-Forwarded-Proto", b"https");
        }
        if !self.has_host {
            sink.field(b"X-Forwarded-Host", fwd.host.as_bytes());
        }
        if !self.has_port {
            sink.field(
                b"X-Forwarded-Port",
                itoa::Buffer::new().format(fwd.port).as_bytes(),
            );
        }

        value.clear();
        append_list(&mut value, &self.forwarded);
        // RFC 7239 section 6: an IPv6 address stands in brackets and so in quotes.
        let (open, close): (&[u8], &[u8]) = if client.is_ipv6 {
            (b"for=\"[", b"]\";host=\"")
        } else {
            (b"for=", b";host=\"")
        };
        for part in [
            open,
            client.bytes(),
            close,
            fwd.host.as_bytes(),
            b"\";proto=https",
        ] {
            value.extend_from_slice(part);
        }
        sink.field(b"Forwarded", &value);
    }
}

fn append_list(out: &mut SmallVec<[u8; 256]>, values: &[&[u8]]) {
    for value in values.iter().filter(|value| !value.is_empty()) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
}

/// What [`Way::write`] writes for a peer that is not believed, in few pieces: this is the case of
/// nearly every request.
#[inline]
fn write_our_way(fwd: &Forwarding<'_>, out: &mut BytesMut) {
    let client = ClientText::new(fwd.client);
    let (open, close): (&[u8], &[u8]) = if client.is_ipv6 {
        (b"\r\nForwarded: for=\"[", b"]\";host=\"")
    } else {
        (b"\r\nForwarded: for=", b";host=\"")
    };
    let mut port = itoa::Buffer::new();
    for part in [
        b"X-Forwarded-For: ",
        client.bytes(),
        b"\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: ",
        fwd.host.as_bytes(),
        b"\r\nX-Forwarded-Port: ",
        port.format(fwd.port).as_bytes(),
        open,
        client.bytes(),
        close,
        fwd.host.as_bytes(),
        b"\";proto=https\r\n",
    ] {
        out.extend_from_slice(part);
    }
}

/// An address as text, without the machinery of `Display` for IPv4.
struct ClientText {
    text: [u8; 48],
    len: usize,
    is_ipv6: bool,
}

impl ClientText {
    #[inline]
    fn new(address: IpAddr) -> Self {
        let mut this = Self {
            text: [0; 48],
            len: 0,
            is_ipv6: false,
        };
        // A socket for both families shows IPv4 peers as IPv6.
        match address.to_canonical() {
            IpAddr::V4(address) => {
                for octet in address.octets() {
                    if octet >= 100 {
                        this.push(b'0' + octet / 100);
                    }
                    if octet >= 10 {
                        this.push(b'0' + octet / 10 % 10);
                    }
                    this.push(b'0' + octet % 10);
                    this.push(b'.');
                }
                this.len -= 1;
            }
            IpAddr::V6(address) => {
                this.is_ipv6 = true;
                // At most 45 bytes.
                for b in address.to_string().bytes() {
                    this.push(b);
                }
            }
        }
        this
    }

    #[inline]
    fn push(&mut self, b: u8) {
        self.text[self.len] = b;
        self.len += 1;
    }

    fn bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

#[inline]
fn write_line(out: &mut impl BufMut, name: &[u8], value: &[u8]) {
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}
