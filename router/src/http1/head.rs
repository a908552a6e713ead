//! A request head: parsed, checked, and taken apart for those who route and pass it on.

use httparse::{EMPTY_HEADER, Header};

use super::connection::Options;
use super::fields::{FieldSet, FieldSlots, MAX_FIELDS, lines_end_with_crlf};
use super::host::HostPort;
use super::names::{self, Name};
use super::refusal::Refusal;
use super::syntax::{self, Line, trim};

/// The longest method, in bytes. The longest registered one has 18.
pub const MAX_METHOD: usize = 32;

/// How large a head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes with all line ends; beyond that 431, or 414 if the first line alone is longer.
    pub bytes: usize,
    /// Field lines, at most [`MAX_FIELDS`]; beyond that 431.
    pub fields: usize,
}

/// HTTP/1 versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// How a request's body is delimited (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body and no length announced.
    None,
    /// This many bytes, at most `i64::MAX`.
    Length(u64),
    /// Chunked coding.
    Chunked,
}

/// A request head without a fault.
#[derive(Clone, Debug)]
pub struct RequestHead<'h, 'b> {
    /// A token of at most [`MAX_METHOD`] bytes.
    pub method: &'b str,
    /// Path and query, beginning with `/`; or `*` (OPTIONS). Of an absolute target only this part.
    pub path: &'b str,
    /// Version of the client.
    pub version: Version,
    /// All fields in their order.
    pub fields: &'h [Header<'b>],
    /// The only Host.
    pub host: HostPort<'b>,
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the client lets the connection live on.
    pub persistent: bool,
    /// Value of Upgrade where Connection lists `upgrade`; never in HTTP/1.0.
    pub upgrade: Option<&'b str>,
    /// Whether the client waits for `100 Continue`; never in HTTP/1.0.
    pub expect_continue: bool,
    /// Bytes of the head with the empty line, and with an empty line before it if there was one.
    pub len: usize,
    /// The head itself, from the request line to the empty line.
    pub(crate) raw: &'b [u8],
    /// Fields that are not passed on.
    pub(crate) dropped: FieldSet,
    /// Fields that are passed on only if the peer is trusted.
    pub(crate) forwarding: FieldSet,
    /// Where Content-Length stands.
    pub(crate) length_at: Option<usize>,
    /// Whether TE lists `trailers`.
    pub(crate) te_trailers: bool,
}

/// Parses and checks the head at the beginning of `buf`.
///
/// `None` means that more bytes are needed. The verdict on a head does not depend on how it arrives
/// in pieces: a refusal before the end is the refusal that the whole would get.
///
/// # Errors
/// The first fault of the bytes in their order, or else of the meaning of the fields.
pub fn parse_request<'h, 'b>(
    buf: &'b [u8],
    slots: &'h mut FieldSlots<'b>,
    limits: &HeadLimits,
) -> Result<Option<RequestHead<'h, 'b>>, Refusal> {
    let view = &buf[..buf.len().min(limits.bytes)];
    let skipped = if view.starts_with(b"\r\n") { 2 } else { 0 };
    let head = &view[skipped..];
    match head.first() {
        Some(b'\r') if skipped > 0 => return Err(Refusal::EmptyLine),
        Some(b'\n') => return Err(Refusal::BareLf),
        _ => {}
    }
    let max = limits.fields.min(MAX_FIELDS);

    let mut request = httparse::Request::new(&mut slots.few[..max.min(FieldSlots::FEW)]);
    let mut outcome = request.parse(head);
    if outcome == Err(httparse::Error::TooManyHeaders) && max > FieldSlots::FEW {
        slots.many.resize(max, EMPTY_HEADER);
        request = httparse::Request::new(&mut slots.many);
        outcome = request.parse(head);
    }
    let (Ok(httparse::Status::Complete(len)), Some(method), Some(target), Some(minor)) =
        (outcome, request.method, request.path, request.version)
    else {
        return incomplete_or_bad(head, view.len() >= limits.bytes, max);
    };
    let raw = &head[..len];
    let fields: &'h [Header<'b>] = request.headers;
    // A fault here is a fault that `check` reports; it knows which one comes first.
    if !lines_end_with_crlf(raw, fields) || method.len() > MAX_METHOD || !is_target(target) {
        return incomplete_or_bad(head, true, max);
    }
    let version = if minor == 0 {
        Version::Http10
    } else {
        Version::Http11
    };
    let mut head = interpret(method, target, version, fields, raw)?;
    head.len = skipped + len;
    Ok(Some(head))
}

/// Reads the Content-Length of a request that came by HTTP/2, under the same rules.
///
/// # Errors
/// As for HTTP/1.
pub fn declared_length<'a>(
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<Option<u64>, Refusal> {
    let mut length = None;
    for (name, value) in fields {
        match names::classify(name) {
            Name::ContentLength if length.is_some() => return Err(Refusal::RepeatedLength),
            Name::ContentLength => length = Some(parse_length(value)?),
            Name::TransferEncoding => return Err(Refusal::UnknownCoding),
            Name::Ambiguous => return Err(Refusal::AmbiguousName),
            _ => {}
        }
    }
    Ok(length)
}

/// The meaning of a head whose bytes are in order.
#[inline]
fn interpret<'h, 'b>(
    method: &'b str,
    target: &'b str,
    version: Version,
    fields: &'h [Header<'b>],
    raw: &'b [u8],
) -> Result<RequestHead<'h, 'b>, Refusal> {
    match method {
        "CONNECT" => return Err(Refusal::Connect),
        "TRACE" => return Err(Refusal::Trace),
        _ => {}
    }

    let mut dropped = FieldSet::default();
    let mut forwarding = FieldSet::default();
    let mut host = None;
    let mut length = None;
    let mut length_at = None;
    let mut chunked = false;
    let mut options = Options::default();
    let mut upgrade = None;
    let mut upgrades = 0;
    let mut expect = false;
    let mut te_trailers = false;
    for (index, field) in fields.iter().enumerate() {
        let value = field.value;
        match names::classify(field.name.as_bytes()) {
            Name::Other => continue,
            Name::Host => {
                if host.is_some() {
                    return Err(Refusal::RepeatedHost);
                }
                host = Some(HostPort::parse(value).ok_or(Refusal::BadHost)?);
            }
            Name::Connection => options.read(value),
            Name::ContentLength => {
                if length.is_some() {
                    return Err(Refusal::RepeatedLength);
                }
                length = Some(parse_length(value)?);
                length_at = Some(index);
            }
            Name::TransferEncoding => {
                if chunked {
                    return Err(Refusal::RepeatedCoding);
                }
                check_coding(value)?;
                chunked = true;
            }
            Name::Upgrade => {
                upgrades += 1;
                upgrade = visible(value);
            }
            Name::Expect => {
                if expect || !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Refusal::Expectation);
                }
                expect = true;
                // RFC 9110 section 10.1.1 has it ignored in HTTP/1.0, and we speak 1.1 upstream.
                if version == Version::Http11 {
                    continue;
                }
            }
            Name::Te => te_trailers |= lists_trailers(value),
            Name::Dropped => {}
            Name::Forwarding(_) => {
                forwarding.insert(index);
                continue;
            }
            Name::Ambiguous => return Err(Refusal::AmbiguousName),
        }
        dropped.insert(index);
    }

    let framing = match (length, chunked) {
        (Some(_), true) => return Err(Refusal::LengthWithCoding),
        (None, true) if version == Version::Http10 => return Err(Refusal::CodingInHttp10),
        (None, true) => Framing::Chunked,
        (Some(length), false) => Framing::Length(length),
        (None, false) => Framing::None,
    };
    let host = host.ok_or(Refusal::NoHost)?;
    let path = origin_form(method, target, &host)?;
    if options.too_many() {
        return Err(Refusal::TooManyOptions);
    }
    options.drop_nominated(fields, &mut dropped);
    let http11 = version == Version::Http11;
    Ok(RequestHead {
        method,
        path,
        version,
        fields,
        host,
        framing,
        persistent: !options.close && (http11 || options.keep_alive),
        upgrade: upgrade.filter(|_| http11 && options.upgrade && upgrades == 1),
        expect_continue: expect && http11,
        len: raw.len(),
        raw,
        dropped,
        forwarding,
        length_at,
        te_trailers,
    })
}

/// Finds the path in a target, and holds an absolute target against Host.
fn origin_form<'b>(method: &str, target: &'b str, host: &HostPort<'_>) -> Result<&'b str, Refusal> {
    if target.starts_with('/') {
        return Ok(target);
    }
    if target == "*" {
        return if method == "OPTIONS" {
            Ok(target)
        } else {
            Err(Refusal::AsteriskForm)
        };
    }
    let rest = after_scheme(target).ok_or(Refusal::BadTarget)?;
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let authority = HostPort::parse(authority.as_bytes()).ok_or(Refusal::BadTarget)?;
    if !authority.is_same_as(host) {
        return Err(Refusal::HostMismatch);
    }
    match path.as_bytes() {
        // RFC 9112 section 3.2.4.
        [] if method == "OPTIONS" => Ok("*"),
        [] => Ok("/"),
        [b'/', ..] => Ok(path),
        // A query without a path; clients have to send the slash.
        _ => Err(Refusal::BadTarget),
    }
}

fn after_scheme(target: &str) -> Option<&str> {
    ["https://", "http://"].into_iter().find_map(|scheme| {
        let start = target.get(..scheme.len())?;
        start
            .eq_ignore_ascii_case(scheme)
            .then(|| &target[scheme.len()..])
    })
}

/// Content-Length of RFC 9110 section 8.6, without the lists that RFC 9112 section 6.3 lets a
/// recipient mend.
pub(crate) fn parse_length(value: &[u8]) -> Result<u64, Refusal> {
    match value {
        [] => return Err(Refusal::EmptyLength),
        [b'+' | b'-', ..] => return Err(Refusal::SignedLength),
        _ if value.contains(&b',') => return Err(Refusal::RepeatedLength),
        _ if !value.iter().all(u8::is_ascii_digit) => return Err(Refusal::BadLength),
        _ => {}
    }
    let mut length = 0u64;
    for digit in value {
        length = length
            .checked_mul(10)
            .and_then(|length| length.checked_add(u64::from(digit - b'0')))
            .filter(|&length| i64::try_from(length).is_ok())
            .ok_or(Refusal::LengthOverflow)?;
    }
    Ok(length)
}

/// Whether a length is written without leading zeros.
pub(crate) fn is_plain(value: &[u8]) -> bool {
    value.len() == 1 || !value.starts_with(b"0")
}

/// `chunked`, once, and nothing else.
pub(crate) fn check_coding(value: &[u8]) -> Result<(), Refusal> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut codings = value.split(|&b| b == b',').map(trim);
    if codings.clone().count() > 1 && codings.all(|coding| coding.eq_ignore_ascii_case(b"chunked"))
    {
        return Err(Refusal::RepeatedCoding);
    }
    Err(Refusal::UnknownCoding)
}

/// Text of visible ASCII and blanks.
pub(crate) fn visible(value: &[u8]) -> Option<&str> {
    if value.is_empty() || !value.iter().all(|b| matches!(b, b' '..=b'~')) {
        return None;
    }
    std::str::from_utf8(value).ok()
}

pub(crate) fn lists_trailers(value: &[u8]) -> bool {
    value
        .split(|&b| b == b',')
        .any(|coding| trim(coding).eq_ignore_ascii_case(b"trailers"))
}

fn is_target(target: &str) -> bool {
    // Without a branch per byte, so that it is done many bytes at a time.
    target
        .bytes()
        .fold(true, |good, b| good & (b > b' ') & (b < 0x7f) & (b != b'#'))
}

/// The verdict on a head that is not known to be good: `Ok(None)` if its end is still to come.
#[cold]
fn incomplete_or_bad<T>(head: &[u8], full: bool, max: usize) -> Result<Option<T>, Refusal> {
    match check(head, max)? {
        Progress::RequestLine if full => Err(Refusal::TargetTooLong),
        Progress::Fields if full => Err(Refusal::HeadTooLong),
        Progress::RequestLine | Progress::Fields => Ok(None),
        // `httparse` found a fault that `check` does not see; there is none known.
        Progress::Complete => Err(Refusal::BadName),
    }
}

/// How far a head without a fault goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    RequestLine,
    Fields,
    Complete,
}

/// Checks the bytes of a head in their order, independently of `httparse`.
pub(crate) fn check(head: &[u8], max: usize) -> Result<Progress, Refusal> {
    let Some(fields) = check_request_line(head)? else {
        return Ok(Progress::RequestLine);
    };
    Ok(match syntax::check_fields(head, fields, max)? {
        Line::End => Progress::Complete,
        Line::Field { .. } | Line::Incomplete => Progress::Fields,
    })
}

/// Where the line after the request line begins; `None` if it is incomplete.
fn check_request_line(head: &[u8]) -> Result<Option<usize>, Refusal> {
    let mut at = 0;
    loop {
        match head.get(at) {
            None => return Ok(None),
            Some(b' ' | b'\t') if at == 0 => return Err(Refusal::BlankInRequestLine),
            Some(b' ') => break,
            Some(_) if at == MAX_METHOD => return Err(Refusal::BadMethod),
            Some(&b) if syntax::is_token(b) => at += 1,
            Some(_) => return stray(head, at, Refusal::BadMethod),
        }
    }
    at += 1;
    let target = at;
    loop {
        match head.get(at) {
            None => return Ok(None),
            Some(b' ') if at == target => return Err(Refusal::BlankInRequestLine),
            Some(b' ') => break,
            Some(b'\t') => return Err(Refusal::BlankInRequestLine),
            Some(b'#') => return Err(Refusal::Fragment),
            // HTTP/0.9 had no version.
            Some(b'\r') => return stray(head, at, Refusal::BadVersion),
            Some(b) if b.is_ascii_graphic() => at += 1,
            Some(_) => return stray(head, at, Refusal::BadTarget),
        }
    }
    at += 1;
    for known in b"HTTP/" {
        match head.get(at) {
            None => return Ok(None),
            Some(b) if b == known => at += 1,
            Some(b' ' | b'\t') => return Err(Refusal::BlankInRequestLine),
            Some(_) => return stray(head, at, Refusal::BadVersion),
        }
    }
    match &head[at..head.len().min(at + 3)] {
        [] => return Ok(None),
        [d] if d.is_ascii_digit() => return Ok(None),
        [d, b'.'] if d.is_ascii_digit() => return Ok(None),
        b"1.0" | b"1.1" => at += 3,
        [a, b'.', b] if a.is_ascii_digit() && b.is_ascii_digit() => {
            return Err(Refusal::UnsupportedVersion);
        }
        part => {
            let good = part
                .iter()
                .enumerate()
                .take_while(|(i, b)| {
                    if *i == 1 {
                        **b == b'.'
                    } else {
                        b.is_ascii_digit()
                    }
                })
                .count();
            return stray(head, at + good, Refusal::BadVersion);
        }
    }
    match head.get(at) {
        None => Ok(None),
        Some(b'\r') if head.get(at + 1) == Some(&b'\n') => Ok(Some(at + 2)),
        Some(b' ' | b'\t') => Err(Refusal::BlankInRequestLine),
        Some(_) => stray(head, at, Refusal::BadVersion),
    }
}

/// The fault of the byte at `at`, which may not stand there; `otherwise` if there is none closer.
fn stray(head: &[u8], at: usize, otherwise: Refusal) -> Result<Option<usize>, Refusal> {
    match &head[at..] {
        [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => Err(otherwise),
        [b'\r', ..] => Err(Refusal::BareCr),
        [b'\n', ..] => Err(Refusal::BareLf),
        [0, ..] => Err(Refusal::Nul),
        [b, ..] if b.is_ascii_control() && *b != b'\t' => Err(Refusal::ControlByte),
        _ => Err(otherwise),
    }
}
