//! An upstream's answer: parsed and checked with the same care as a request.

use httparse::{EMPTY_HEADER, Header};

use super::connection::Options;
use super::fields::{FieldSet, FieldSlots, MAX_FIELDS, lines_end_with_crlf, offset};
use super::head::{HeadLimits, Version, check_coding, parse_length, visible};
use super::names::{self, Name};
use super::refusal::Refusal;
use super::syntax::{self, FieldFault, Line};

/// How a response's body is delimited (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFraming {
    /// There is no body, whatever the fields say.
    None,
    /// This many bytes, at most `i64::MAX`.
    Length(u64),
    /// Chunked coding.
    Chunked,
    /// Everything until the connection ends.
    UntilClose,
}

/// What was asked; it decides whether a body follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// HEAD
    Head,
    /// CONNECT
    Connect,
    /// All other methods.
    Other,
}

/// A response head without a fault.
#[derive(Clone, Debug)]
pub struct ResponseHead<'h, 'b> {
    /// 100 to 999. 1xx other than 101 are interim: another head follows at `len`.
    pub status: u16,
    /// May be empty, may hold bytes that are no UTF-8.
    pub reason: &'b [u8],
    /// Version of the upstream.
    pub version: Version,
    /// All fields in their order.
    pub fields: &'h [Header<'b>],
    /// How the body is delimited.
    pub framing: ResponseFraming,
    /// Whether the connection can carry another request once the body is read.
    pub persistent: bool,
    /// Value of Upgrade where Connection lists `upgrade`.
    pub upgrade: Option<&'b str>,
    /// Bytes of the head with the empty line.
    pub len: usize,
    /// The head itself.
    pub(crate) raw: &'b [u8],
    /// Fields that are not passed on; Connection and Upgrade are among them.
    pub(crate) dropped: FieldSet,
    /// What Content-Length says, which for HEAD and 304 is not the framing.
    pub(crate) length: Option<u64>,
    /// Where Content-Length stands.
    pub(crate) length_at: Option<usize>,
}

impl ResponseHead<'_, '_> {
    /// Whether another head of the same answer follows (RFC 9110 section 15.2).
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }
}

/// Why an upstream's answer is not passed on. The client gets 502, and the upstream's connection is
/// closed, since what follows on it cannot be told apart from the next answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Not `HTTP/1.x SP 3DIGIT [SP reason]`.
    #[error("bad status line")]
    BadStatusLine,
    /// A well-formed version other than 1.0 and 1.1.
    #[error("unsupported protocol version")]
    UnsupportedVersion,
    /// A line ended by LF alone.
    #[error("line feed without carriage return")]
    BareLf,
    /// A CR that no LF follows.
    #[error("carriage return without line feed")]
    BareCr,
    /// A zero byte.
    #[error("zero byte in the head")]
    Nul,
    /// Another control byte than a tab.
    #[error("control byte in the head")]
    ControlByte,
    /// A field continued on a second line.
    #[error("folded field line")]
    ObsFold,
    /// A blank between a name and its colon; RFC 9112 section 5.1 would have it removed.
    #[error("blank before the colon of a field")]
    BlankBeforeColon,
    /// A field name that is no token, or a line without a colon.
    #[error("bad field name")]
    BadName,
    /// Both Content-Length and Transfer-Encoding.
    #[error("Content-Length together with Transfer-Encoding")]
    LengthWithCoding,
    /// More than one Content-Length, equal or not.
    #[error("more than one Content-Length")]
    RepeatedLength,
    /// A Content-Length that is no number below 2^63.
    #[error("bad Content-Length")]
    BadLength,
    /// A transfer coding other than `chunked` once.
    #[error("unknown or repeated transfer coding")]
    BadCoding,
    /// Transfer-Encoding in HTTP/1.0.
    #[error("Transfer-Encoding in HTTP/1.0")]
    CodingInHttp10,
    /// Connection names more fields than any server has.
    #[error("too many connection options")]
    TooManyOptions,
    /// Over the limit in bytes.
    #[error("head too long")]
    HeadTooLong,
    /// Over the limit in fields.
    #[error("too many fields")]
    TooManyFields,
}

impl Fault {
    /// Status code of the answer to the client.
    pub fn status(self) -> u16 {
        502
    }

    /// A word for logs and metrics that does not change between versions.
    pub fn reason(self) -> &'static str {
        match self {
            Self::BadStatusLine => "upstream-bad-status-line",
            Self::UnsupportedVersion => "upstream-unsupported-version",
            Self::BareLf => "upstream-bare-lf",
            Self::BareCr => "upstream-bare-cr",
            Self::Nul => "upstream-nul",
            Self::ControlByte => "upstream-control-byte",
            Self::ObsFold => "upstream-obs-fold",
            Self::BlankBeforeColon => "upstream-blank-before-colon",
            Self::BadName => "upstream-bad-name",
            Self::LengthWithCoding => "upstream-length-with-coding",
            Self::RepeatedLength => "upstream-repeated-length",
            Self::BadLength => "upstream-bad-length",
            Self::BadCoding => "upstream-bad-coding",
            Self::CodingInHttp10 => "upstream-coding-in-http10",
            Self::TooManyOptions => "upstream-too-many-options",
            Self::HeadTooLong => "upstream-head-too-long",
            Self::TooManyFields => "upstream-too-many-fields",
        }
    }
}

impl From<FieldFault> for Fault {
    fn from(fault: FieldFault) -> Self {
        match fault {
            FieldFault::BareLf => Self::BareLf,
            FieldFault::BareCr => Self::BareCr,
            FieldFault::Nul => Self::Nul,
            FieldFault::ControlByte => Self::ControlByte,
            FieldFault::ObsFold => Self::ObsFold,
            FieldFault::BlankBeforeColon => Self::BlankBeforeColon,
            FieldFault::BlankInName
            | FieldFault::BadName
            | FieldFault::EmptyName
            | FieldFault::MissingColon => Self::BadName,
            FieldFault::TooMany => Self::TooManyFields,
        }
    }
}

/// Parses and checks the head at the beginning of `buf`. `None` means that more bytes are needed.
///
/// # Errors
/// The first fault of the bytes in their order, or else of the meaning of the fields.
pub fn parse_response<'h, 'b>(
    buf: &'b [u8],
    slots: &'h mut FieldSlots<'b>,
    limits: &HeadLimits,
    kind: RequestKind,
) -> Result<Option<ResponseHead<'h, 'b>>, Fault> {
    let view = &buf[..buf.len().min(limits.bytes)];
    // `httparse` would pass over empty lines.
    if view.first().is_some_and(|&b| b != b'H') {
        return Err(Fault::BadStatusLine);
    }
    let max = limits.fields.min(MAX_FIELDS);

    let mut response = httparse::Response::new(&mut slots.few[..max.min(FieldSlots::FEW)]);
    let mut outcome = response.parse(view);
    if outcome == Err(httparse::Error::TooManyHeaders) && max > FieldSlots::FEW {
        slots.many.resize(max, EMPTY_HEADER);
        response = httparse::Response::new(&mut slots.many);
        outcome = response.parse(view);
    }
    let (Ok(httparse::Status::Complete(len)), Some(status), Some(minor)) =
        (outcome, response.code, response.version)
    else {
        return incomplete_or_bad(view, view.len() >= limits.bytes, max);
    };
    let raw = &view[..len];
    let fields: &'h [Header<'b>] = response.headers;
    if !lines_end_with_crlf(raw, fields) || status < 100 {
        return incomplete_or_bad(view, true, max);
    }
    let version = if minor == 0 {
        Version::Http10
    } else {
        Version::Http11
    };
    interpret(status, version, fields, raw, kind).map(Some)
}

fn interpret<'h, 'b>(
    status: u16,
    version: Version,
    fields: &'h [Header<'b>],
    raw: &'b [u8],
    kind: RequestKind,
) -> Result<ResponseHead<'h, 'b>, Fault> {
    let mut dropped = FieldSet::default();
    let mut length = None;
    let mut length_at = None;
    let mut chunked = false;
    let mut options = Options::default();
    let mut upgrade = None;
    for (index, field) in fields.iter().enumerate() {
        let value = field.value;
        match names::classify(field.name.as_bytes()) {
            Name::Other | Name::Host | Name::Expect | Name::Forwarding(_) => continue,
            Name::Connection => options.read(value),
            Name::ContentLength => {
                if length.is_some() {
                    return Err(Fault::RepeatedLength);
                }
                length = Some(parse_length(value).map_err(|refusal| match refusal {
                    Refusal::RepeatedLength => Fault::RepeatedLength,
                    _ => Fault::BadLength,
                })?);
                length_at = Some(index);
            }
            Name::TransferEncoding => {
                if chunked || check_coding(value).is_err() {
                    return Err(Fault::BadCoding);
                }
                chunked = true;
            }
            Name::Upgrade => upgrade = visible(value),
            Name::Te | Name::Dropped | Name::Ambiguous => {}
        }
        dropped.insert(index);
    }
    if chunked && length.is_some() {
        return Err(Fault::LengthWithCoding);
    }
    if chunked && version == Version::Http10 {
        return Err(Fault::CodingInHttp10);
    }
    if options.too_many() {
        return Err(Fault::TooManyOptions);
    }
    options.drop_nominated(fields, &mut dropped);

    let framing = match (status, kind) {
        (100..200 | 204 | 304, _) | (_, RequestKind::Head) => ResponseFraming::None,
        (200..300, RequestKind::Connect) => ResponseFraming::None,
        _ if chunked => ResponseFraming::Chunked,
        _ => length.map_or(ResponseFraming::UntilClose, ResponseFraming::Length),
    };
    // These may not announce a body (RFC 9110 sections 6.4.1 and 8.6). Whoever does may also send
    // it, and would have it taken for the next answer.
    let announces = match status {
        100..200 | 204 => chunked || length.is_some_and(|length| length > 0),
        304 => chunked,
        _ => false,
    };
    let persistent = framing != ResponseFraming::UntilClose
        && !announces
        && !options.close
        && (version == Version::Http11 || options.keep_alive);

    let line_end = fields.first().map_or(raw.len() - 4, |first| {
        offset(raw, first.name.as_bytes()) - 2
    });
    Ok(ResponseHead {
        status,
        // After `HTTP/1.1 200 `; the second blank may be missing.
        reason: raw.get(13..line_end).unwrap_or_default(),
        version,
        fields,
        framing,
        persistent,
        upgrade: upgrade.filter(|_| options.upgrade),
        len: raw.len(),
        raw,
        dropped,
        length: length.filter(|_| !matches!(status, 100..200 | 204)),
        length_at,
    })
}

/// The verdict on a head that is not known to be good: `Ok(None)` if its end is still to come.
#[cold]
fn incomplete_or_bad<T>(head: &[u8], full: bool, max: usize) -> Result<Option<T>, Fault> {
    match check(head, max)? {
        false if full => Err(Fault::HeadTooLong),
        false => Ok(None),
        // `httparse` found a fault that `check` does not see; there is none known.
        true => Err(Fault::BadStatusLine),
    }
}

/// Checks the bytes of a head in their order, independently of `httparse`; whether it is complete.
pub(crate) fn check(head: &[u8], max: usize) -> Result<bool, Fault> {
    let Some(fields) = check_status_line(head)? else {
        return Ok(false);
    };
    Ok(syntax::check_fields(head, fields, max)? == Line::End)
}

/// Where the line after the status line begins; `None` if it is incomplete.
fn check_status_line(head: &[u8]) -> Result<Option<usize>, Fault> {
    for (at, &b) in head.iter().take(12).enumerate() {
        let good = match at {
            0..5 => b == b"HTTP/"[at],
            5 | 7 => b.is_ascii_digit(),
            6 => b == b'.',
            8 => b == b' ',
            9 => (b'1'..=b'9').contains(&b),
            _ => b.is_ascii_digit(),
        };
        if !good {
            return Err(Fault::BadStatusLine);
        }
        if at == 7 && !matches!(&head[5..8], b"1.0" | b"1.1") {
            return Err(Fault::UnsupportedVersion);
        }
    }
    match head.get(12) {
        None => Ok(None),
        Some(b' ' | b'\r' | b'\n') => Ok(syntax::end_of_text(head, 12)?),
        Some(_) => Err(Fault::BadStatusLine),
    }
}
