//! Why a request is refused.

use super::syntax::FieldFault;

/// A reason to refuse a request. The connection is closed after the answer, because where the
/// next request would begin is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// More than the one empty line that RFC 9112 section 2.2 lets a client send first.
    #[error("empty lines before the request line")]
    EmptyLine,
    /// A line ended by LF alone, or an LF inside a line.
    #[error("line feed without carriage return")]
    BareLf,
    /// A CR that no LF follows.
    #[error("carriage return without line feed")]
    BareCr,
    /// A zero byte.
    #[error("zero byte in the head")]
    Nul,
    /// A control byte other than a tab in a value.
    #[error("control byte in the head")]
    ControlByte,
    /// A field continued on a second line (RFC 9112 section 5.2).
    #[error("folded field line")]
    ObsFold,
    /// A blank between a field's name and its colon (RFC 9112 section 5.1).
    #[error("blank before the colon of a field")]
    BlankBeforeColon,
    /// A blank inside a field's name.
    #[error("blank in a field name")]
    BlankInName,
    /// A field name with a byte that is no token character.
    #[error("bad byte in a field name")]
    BadName,
    /// A field line that begins with its colon.
    #[error("empty field name")]
    EmptyName,
    /// A field line without a colon.
    #[error("field line without a colon")]
    MissingColon,
    /// A name that a backend could take for a framing field, such as `Content_Length`.
    #[error("field name that imitates a framing field")]
    AmbiguousName,
    /// No token, or longer than [`MAX_METHOD`](super::head::MAX_METHOD).
    #[error("bad method")]
    BadMethod,
    /// Other than one space between the parts of the request line, or blanks around them.
    #[error("stray blank in the request line")]
    BlankInRequestLine,
    /// A target in none of the forms of RFC 9112 section 3.2, or with bytes outside visible ASCII.
    #[error("bad request target")]
    BadTarget,
    /// A target with `#`, which clients never send.
    #[error("fragment in the request target")]
    Fragment,
    /// `*` for another method than OPTIONS.
    #[error("asterisk as the target of a method other than OPTIONS")]
    AsteriskForm,
    /// No version, or none in the form of RFC 9112 section 2.3.
    #[error("bad protocol version")]
    BadVersion,
    /// Both Content-Length and Transfer-Encoding (RFC 9112 section 6.1).
    #[error("Content-Length together with Transfer-Encoding")]
    LengthWithCoding,
    /// Two Content-Length fields, or a list in one, equal or not.
    #[error("more than one Content-Length")]
    RepeatedLength,
    /// Content-Length with a sign.
    #[error("signed Content-Length")]
    SignedLength,
    /// Content-Length without a value.
    #[error("empty Content-Length")]
    EmptyLength,
    /// Content-Length with other bytes than digits.
    #[error("Content-Length is not a number")]
    BadLength,
    /// Content-Length above 2^63 - 1.
    #[error("Content-Length is too large")]
    LengthOverflow,
    /// Transfer-Encoding twice, or `chunked` twice.
    #[error("repeated transfer coding")]
    RepeatedCoding,
    /// A transfer coding other than `chunked`.
    #[error("unknown transfer coding")]
    UnknownCoding,
    /// Transfer-Encoding in HTTP/1.0 (RFC 9112 section 6.1).
    #[error("Transfer-Encoding in HTTP/1.0")]
    CodingInHttp10,
    /// No Host.
    #[error("no Host")]
    NoHost,
    /// Two Hosts.
    #[error("more than one Host")]
    RepeatedHost,
    /// A Host that is no host with an optional port.
    #[error("bad Host")]
    BadHost,
    /// An absolute target for another host than Host says.
    #[error("the target contradicts Host")]
    HostMismatch,
    /// Connection names more fields than any client has.
    #[error("too many connection options")]
    TooManyOptions,
    /// CONNECT: this is no forward proxy.
    #[error("CONNECT is not served")]
    Connect,
    /// TRACE would echo fields that scripts must not see (RFC 9110 section 9.3.8).
    #[error("TRACE is not served")]
    Trace,
    /// The request line alone is over the limit.
    #[error("request line too long")]
    TargetTooLong,
    /// An expectation other than `100-continue`.
    #[error("unknown expectation")]
    Expectation,
    /// The head is over the limit.
    #[error("head too long")]
    HeadTooLong,
    /// More fields than the limit.
    #[error("too many fields")]
    TooManyFields,
    /// A well-formed version other than 1.0 and 1.1, the HTTP/2 preface among them.
    #[error("unsupported protocol version")]
    UnsupportedVersion,
}

impl Refusal {
    /// Status code of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::Connect | Self::Trace => 405,
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::HeadTooLong | Self::TooManyFields => 431,
            Self::UnsupportedVersion => 505,
            _ => 400,
        }
    }

    /// A word for logs and metrics that does not change between versions.
    pub fn reason(self) -> &'static str {
        match self {
            Self::EmptyLine => "empty-line",
            Self::BareLf => "bare-lf",
            Self::BareCr => "bare-cr",
            Self::Nul => "nul",
            Self::ControlByte => "control-byte",
            Self::ObsFold => "obs-fold",
            Self::BlankBeforeColon => "blank-before-colon",
            Self::BlankInName => "blank-in-name",
            Self::BadName => "bad-name",
            Self::EmptyName => "empty-name",
            Self::MissingColon => "missing-colon",
            Self::AmbiguousName => "ambiguous-name",
            Self::BadMethod => "bad-method",
            Self::BlankInRequestLine => "blank-in-request-line",
            Self::BadTarget => "bad-target",
            Self::Fragment => "fragment",
            Self::AsteriskForm => "asterisk-form",
            Self::BadVersion => "bad-version",
            Self::LengthWithCoding => "length-with-coding",
            Self::RepeatedLength => "repeated-length",
            Self::SignedLength => "signed-length",
            Self::EmptyLength => "empty-length",
            Self::BadLength => "bad-length",
            Self::LengthOverflow => "length-overflow",
            Self::RepeatedCoding => "repeated-coding",
            Self::UnknownCoding => "unknown-coding",
            Self::CodingInHttp10 => "coding-in-http10",
            Self::NoHost => "no-host",
            Self::RepeatedHost => "repeated-host",
            Self::BadHost => "bad-host",
            Self::HostMismatch => "host-mismatch",
            Self::TooManyOptions => "too-many-options",
            Self::Connect => "connect",
            Self::Trace => "trace",
            Self::TargetTooLong => "target-too-long",
            Self::Expectation => "expectation",
            Self::HeadTooLong => "head-too-long",
            Self::TooManyFields => "too-many-fields",
            Self::UnsupportedVersion => "unsupported-version",
        }
    }
}

impl From<FieldFault> for Refusal {
    fn from(fault: FieldFault) -> Self {
        match fault {
            FieldFault::BareLf => Self::BareLf,
            FieldFault::BareCr => Self::BareCr,
            FieldFault::Nul => Self::Nul,
            FieldFault::ControlByte => Self::ControlByte,
            FieldFault::ObsFold => Self::ObsFold,
            FieldFault::BlankBeforeColon => Self::BlankBeforeColon,
            FieldFault::BlankInName => Self::BlankInName,
            FieldFault::BadName => Self::BadName,
            FieldFault::EmptyName => Self::EmptyName,
            FieldFault::MissingColon => Self::MissingColon,
            FieldFault::TooMany => Self::TooManyFields,
        }
    }
}
