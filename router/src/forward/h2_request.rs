//! What a request of HTTP/2 says, checked. RFC 9113, section 8 says what it may look like; what the
//! h2 crate does not refuse itself is refused here, since an endpoint reads it as HTTP/1.1.

use bytes::BytesMut;
use h2::RecvStream;
use http::header::{EXPECT, HOST, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};

use super::respond::Answer;
use crate::http1::head::{Framing, declared_length};
use crate::http1::host::HostPort;
use crate::http1::rewrite::{self, Forwarding};
use crate::observe::access_log::RequestLine;

/// The host a request is for: `:authority`, or Host where that is absent. Both must agree (RFC
/// 9113, section 8.3.1).
pub(crate) fn authority(parts: &Parts) -> Result<HostPort<'_>, Answer> {
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        return Err(Answer::new(405, "method-not-allowed"));
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next().map(HeaderValue::as_bytes);
    if hosts.next().is_some() {
        return Err(Answer::new(400, "repeated-host"));
    }
    let pseudo = parts.uri.authority().map(|a| a.as_str().as_bytes());
    let parse = |text| HostPort::parse(text).ok_or(Answer::new(400, "invalid-host"));
    match (pseudo, host) {
        (Some(pseudo), Some(host)) => {
            let (pseudo, host) = (parse(pseudo)?, parse(host)?);
            if !pseudo.is_same_as(&host) {
                return Err(Answer::new(400, "host-contradicts-authority"));
            }
            Ok(pseudo)
        }
        (Some(text), None) | (None, Some(text)) => parse(text),
        (None, None) => Err(Answer::new(400, "missing-host")),
    }
}

/// The path as a request line may hold it.
pub(crate) fn path(parts: &Parts) -> Result<&str, Answer> {
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let fits = path.starts_with('/') || (path == "*" && parts.method == Method::OPTIONS);
    if !fits || !path.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Answer::new(400, "bad-target"));
    }
    Ok(path)
}

pub(crate) fn framing(parts: &Parts, body: &RecvStream) -> Result<Framing, Answer> {
    if let Some(expect) = parts.headers.get(EXPECT)
        && !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(Answer::new(417, "unknown-expectation"));
    }
    let length = declared_length(fields(&parts.headers))
        .map_err(|refusal| Answer::new(refusal.status(), refusal.reason()))?;
    Ok(match length {
        // h2 resets a stream whose body is not as long as this says.
        Some(length) => Framing::Length(length),
        None if body.is_end_stream() => Framing::None,
        None => Framing::Chunked,
    })
}

pub(crate) fn write_head(
    parts: &Parts,
    path: &str,
    framing: Framing,
    forwarding: &Forwarding<'_>,
    out: &mut BytesMut,
) {
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(path.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    rewrite::request_fields(fields(&parts.headers), forwarding, out);
    rewrite::request_framing(framing, out);
    out.extend_from_slice(b"\r\n");
}

/// The fields of a map, as the rules take them.
pub(crate) fn fields(map: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    map.iter()
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}

/// What the access log tells of a request of HTTP/2.
pub(crate) fn request_line(parts: &Parts) -> RequestLine<'_> {
    let text = |name| {
        parts
            .headers
            .get(name)
            .map_or(&b""[..], HeaderValue::as_bytes)
    };
    let authority = parts.uri.authority();
    RequestLine {
        method: parts.method.as_str().as_bytes(),
        host: authority.map_or_else(|| text(HOST), |a| a.as_str().as_bytes()),
        path: parts
            .uri
            .path_and_query()
            .map_or(b"", |p| p.as_str().as_bytes()),
        user_agent: text(USER_AGENT),
    }
}
