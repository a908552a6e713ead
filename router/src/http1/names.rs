//! Which fields the edge acts on.
//!
//! Names are told apart by length and first letter before anything is compared, since nearly all
//! fields of a request are none of these. An underscore counts as a hyphen: backends that turn
//! names into variables (CGI, WSGI) cannot tell the two apart, so `X_Forwarded_For` would pass a
//! rule on `X-Forwarded-For`.

/// What a field is to the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// Passed on as it is.
    Other,
    Host,
    Connection,
    ContentLength,
    TransferEncoding,
    Upgrade,
    Expect,
    Te,
    /// Never passed on: RFC 9110 section 7.6.1, proxy credentials, `Proxy`, and spellings with
    /// underscores of everything that is dropped or set here.
    Dropped,
    /// Says where a request came from: believed from trusted peers only.
    Forwarding(Claim),
    /// Imitates a framing field by an underscore.
    Ambiguous,
}

/// Which claim about a request's way a forwarding field makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    XForwardedFor,
    XForwardedProto,
    XForwardedHost,
    XForwardedPort,
    Forwarded,
    Other,
}

#[inline]
pub(crate) fn classify(name: &[u8]) -> Name {
    let Some(first) = name.first() else {
        return Name::Other;
    };
    match (name.len(), first | 0x20) {
        (2, b't') => exact(name, b"te", Name::Te),
        (4, b'h') => exact(name, b"host", Name::Host),
        (5, b'p') => exact(name, b"proxy", Name::Dropped),
        (6, b'e') => exact(name, b"expect", Name::Expect),
        (7, b'u') => exact(name, b"upgrade", Name::Upgrade),
        (9, b'f') => exact(name, b"forwarded", Name::Forwarding(Claim::Forwarded)),
        (10, b'c') => exact(name, b"connection", Name::Connection),
        (10, b'k') => exact(name, b"keep-alive", Name::Dropped),
        (14, b'c') => framing(name, b"content-length", Name::ContentLength),
        (14, b'h') => exact(name, b"http2-settings", Name::Dropped),
        (14, b't') => exact(name, b"true-client-ip", Name::Forwarding(Claim::Other)),
        (16, b'p') => exact(name, b"proxy-connection", Name::Dropped),
        (17, b't') => framing(name, b"transfer-encoding", Name::TransferEncoding),
        (18, b'p') => exact(name, b"proxy-authenticate", Name::Dropped),
        (19, b'p') => exact(name, b"proxy-authorization", Name::Dropped),
        (25, b'p') => exact(name, b"proxy-authentication-info", Name::Dropped),
        (9.., b'x') => forwarding(name),
        _ => Name::Other,
    }
}

/// Fields that `Connection` may not take out of a message: they are meant for the origin
/// (RFC 9110 section 7.6.1 forbids to list such), and taking them out is a known attack.
pub(crate) fn is_end_to_end(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 15] = [
        b"authorization",
        b"cache-control",
        b"cookie",
        b"date",
        b"etag",
        b"expect",
        b"host",
        b"location",
        b"origin",
        b"range",
        b"referer",
        b"set-cookie",
        b"strict-transport-security",
        b"vary",
        b"www-authenticate",
    ];
    starts_with(name, b"content-")
        || NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
        || matches!(classify(name), Name::Forwarding(_))
}

/// Fields that may not stand in a trailer (RFC 9110 section 6.5.1): framing, routing, conditions,
/// credentials, how to read the content, and everything that is dropped from heads.
pub(crate) fn is_forbidden_in_trailers(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 9] = [
        b"age",
        b"expires",
        b"if-match",
        b"if-none-match",
        b"max-forwards",
        b"pragma",
        b"retry-after",
        b"trailer",
        b"warning",
    ];
    classify(name) != Name::Other
        // The digest of the content is what trailers are for.
        || (is_end_to_end(name) && !starts_with(name, b"content-digest") && !name.eq_ignore_ascii_case(b"etag"))
        || starts_with(name, b"if-")
        || NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

pub(crate) fn starts_with(name: &[u8], prefix: &[u8]) -> bool {
    name.len() >= prefix.len() && folded(&name[..prefix.len()], prefix).is_some()
}

#[inline]
fn exact(name: &[u8], known: &[u8], meaning: Name) -> Name {
    match folded(name, known) {
        None => Name::Other,
        Some(Spelling::Hyphens) => meaning,
        Some(Spelling::Underscores) => Name::Dropped,
    }
}

fn framing(name: &[u8], known: &[u8], meaning: Name) -> Name {
    match folded(name, known) {
        None => Name::Other,
        Some(Spelling::Hyphens) => meaning,
        Some(Spelling::Underscores) => Name::Ambiguous,
    }
}

fn forwarding(name: &[u8]) -> Name {
    const CLAIMS: [(&[u8], Claim); 8] = [
        (b"x-forwarded-for", Claim::XForwardedFor),
        (b"x-forwarded-proto", Claim::XForwardedProto),
        (b"x-forwarded-host", Claim::XForwardedHost),
        (b"x-forwarded-port", Claim::XForwardedPort),
        (b"x-real-ip", Claim::Other),
        (b"x-client-ip", Claim::Other),
        (b"x-cluster-client-ip", Claim::Other),
        (b"x-rewrite-url", Claim::Other),
    ];
    for (known, claim) in CLAIMS {
        if name.len() == known.len() {
            match folded(name, known) {
                None => {}
                Some(Spelling::Hyphens) => return Name::Forwarding(claim),
                Some(Spelling::Underscores) => return Name::Dropped,
            }
        }
    }
    for prefix in [&b"x-forwarded"[..], b"x-original-"] {
        if starts_with(name, prefix) {
            return if name.contains(&b'_') {
                Name::Dropped
            } else {
                Name::Forwarding(Claim::Other)
            };
        }
    }
    Name::Other
}

#[derive(Clone, Copy)]
enum Spelling {
    Hyphens,
    Underscores,
}

/// Compares with a lower-case name of the same length.
#[inline]
fn folded(name: &[u8], known: &[u8]) -> Option<Spelling> {
    let mut spelling = Spelling::Hyphens;
    for (&b, &k) in name.iter().zip(known) {
        if b.to_ascii_lowercase() != k {
            if b == b'_' && k == b'-' {
                spelling = Spelling::Underscores;
            } else {
                return None;
            }
        }
    }
    Some(spelling)
}
