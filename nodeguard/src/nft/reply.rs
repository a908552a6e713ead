//! What the kernel answers, as values. Pure over bytes, and total: bytes of any kind give values
//! or [`Malformed`], never a panic.

use super::attributes::{Attributes, Malformed};
use super::message::{FAMILY_HEADER, HEADER};
use super::uapi::{ERROR_TEXT, SUBSYSTEM, control, flag};

/// One message of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply<'a> {
    /// Sequence number of the request that it answers; 0 for news that nobody asked for.
    pub(super) sequence: u32,
    pub(super) body: Body<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body<'a> {
    /// `NLMSG_ERROR`: how a request went.
    Verdict {
        /// 0 if it went well, else an `errno`.
        errno: i32,
        /// What the kernel says about it.
        text: Option<String>,
    },
    /// `NLMSG_DONE`: the end of a dump, with an `errno` if it is not whole.
    Done { errno: i32 },
    /// `NLMSG_OVERRUN`: something was lost.
    Overrun,
    /// An object of nftables.
    Object(Object<'a>),
    /// Something else.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object<'a> {
    /// `NFT_MSG_*`.
    pub(super) kind: u8,
    /// `NFPROTO_*`.
    pub(super) family: u8,
    /// The dump that this is part of met a change and must be done again.
    pub(super) interrupted: bool,
    attributes: &'a [u8],
}

impl<'a> Object<'a> {
    pub(super) fn attributes(&self) -> Attributes<'a> {
        Attributes::new(self.attributes)
    }
}

/// Reads the messages of a datagram; after a fault there is no next.
#[derive(Clone, Debug)]
pub(super) struct Replies<'a> {
    rest: &'a [u8],
}

impl<'a> Replies<'a> {
    pub(super) fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Replies<'a> {
    type Item = Result<Reply<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.rest);
        if bytes.is_empty() {
            return None;
        }
        let header = match Header::read(bytes) {
            Ok(header) => header,
            Err(malformed) => return Some(Err(malformed)),
        };
        let Some(payload) = bytes.get(HEADER..header.length) else {
            return Some(Err(Malformed));
        };
        self.rest = bytes
            .get(header.length.next_multiple_of(4)..)
            .unwrap_or(&[]);
        Some(body(&header, payload).map(|body| Reply {
            sequence: header.sequence,
            body,
        }))
    }
}

/// `struct nlmsghdr`.
struct Header {
    length: usize,
    kind: u16,
    flags: u16,
    sequence: u32,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let (length, rest) = bytes.split_first_chunk().ok_or(Malformed)?;
        let (kind, rest) = rest.split_first_chunk().ok_or(Malformed)?;
        let (flags, rest) = rest.split_first_chunk().ok_or(Malformed)?;
        let (sequence, _) = rest.split_first_chunk().ok_or(Malformed)?;
        Ok(Self {
            length: usize::try_from(u32::from_ne_bytes(*length)).or(Err(Malformed))?,
            kind: u16::from_ne_bytes(*kind),
            flags: u16::from_ne_bytes(*flags),
            sequence: u32::from_ne_bytes(*sequence),
        })
    }
}

fn body<'a>(header: &Header, payload: &'a [u8]) -> Result<Body<'a>, Malformed> {
    match header.kind {
        control::ERROR => verdict(header.flags, payload),
        // Older kernels end a dump without an errno.
        control::DONE => Ok(Body::Done {
            errno: errno(payload).unwrap_or(0),
        }),
        control::OVERRUN => Ok(Body::Overrun),
        kind if kind < control::FIRST_FREE => Ok(Body::Other),
        kind if kind >> 8 == SUBSYSTEM => {
            let (family_header, attributes) = payload
                .split_first_chunk::<FAMILY_HEADER>()
                .ok_or(Malformed)?;
            Ok(Body::Object(Object {
                kind: kind.to_be_bytes()[1],
                family: family_header[0],
                interrupted: header.flags & flag::DUMP_INTERRUPTED != 0,
                attributes,
            }))
        }
        _ => Ok(Body::Other),
    }
}

/// `struct nlmsgerr`: an errno, the header of the request, the rest of the request unless capped,
/// attributes if flagged.
fn verdict(flags: u16, payload: &[u8]) -> Result<Body<'_>, Malformed> {
    let errno = errno(payload)?;
    let quoted = payload.get(4..).ok_or(Malformed)?;
    let request = Header::read(quoted)?;
    let quoted_len = if flags & flag::CAPPED != 0 || errno == 0 {
        HEADER
    } else {
        request.length.next_multiple_of(4)
    };
    let mut text = None;
    if flags & flag::ACK_ATTRIBUTES != 0
        && let Some(attributes) = quoted.get(quoted_len..)
    {
        for attribute in Attributes::new(attributes) {
            let attribute = attribute?;
            if attribute.kind == ERROR_TEXT {
                text = Some(attribute.text());
            }
        }
    }
    Ok(Body::Verdict { errno, text })
}

/// The kernel writes an errno with its sign turned.
fn errno(payload: &[u8]) -> Result<i32, Malformed> {
    let (bytes, _) = payload.split_first_chunk().ok_or(Malformed)?;
    Ok(i32::from_ne_bytes(*bytes).wrapping_neg())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let length = u32::try_from(HEADER + payload.len()).unwrap();
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn all(datagram: &[u8]) -> Vec<Result<Reply<'_>, Malformed>> {
        Replies::new(datagram).collect()
    }

    #[test]
    fn an_error_comes_with_its_number_and_the_kernels_words() {
        let mut payload = (-17_i32).to_ne_bytes().to_vec();
        payload.extend(message(0xa03, 5, 7, &[]));
        payload.extend([9, 0, 1, 0, b'b', b'u', b's', b'y', 0, 0, 0, 0]);
        let flags = flag::CAPPED | flag::ACK_ATTRIBUTES;
        let datagram = message(control::ERROR, flags, 7, &payload);
        let expected = Reply {
            sequence: 7,
            body: Body::Verdict {
                errno: 17,
                text: Some("busy".to_owned()),
            },
        };
        assert_eq!(all(&datagram), [Ok(expected)]);
    }

    #[test]
    fn words_are_found_behind_a_request_that_is_quoted_whole() {
        let mut payload = (-1_i32).to_ne_bytes().to_vec();
        payload.extend(message(0xa03, 5, 7, &[1, 0, 0, 0, 8, 0, 1, 0, 1, 2, 3, 4]));
        payload.extend([6, 0, 1, 0, b'x', 0, 0, 0]);
        let datagram = message(control::ERROR, flag::ACK_ATTRIBUTES, 7, &payload);
        let replies = all(&datagram);
        let body = &replies[0].as_ref().unwrap().body;
        assert!(matches!(body, Body::Verdict { errno: 1, text: Some(text) } if text == "x"));
    }

    #[test]
    fn messages_of_a_datagram_are_read_in_order() {
        let object = message(0xa00, flag::DUMP_INTERRUPTED, 3, &[1, 0, 0, 0]);
        let done = message(control::DONE, 2, 3, &0_i32.to_ne_bytes());
        let datagram = [object, done, message(1, 0, 3, &[])].concat();
        let replies = all(&datagram);
        assert!(matches!(
            &replies[0].as_ref().unwrap().body,
            Body::Object(Object {
                kind: 0,
                family: 1,
                interrupted: true,
                ..
            })
        ));
        assert_eq!(replies[1].as_ref().unwrap().body, Body::Done { errno: 0 });
        assert_eq!(replies[2].as_ref().unwrap().body, Body::Other);
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let whole = message(0xa00, 0, 1, &[1, 0, 0, 0]);
        for cut in 1..whole.len() {
            assert_eq!(all(&whole[..cut]), [Err(Malformed)], "{cut} bytes");
        }
        let mut short = whole;
        short[0] = 15;
        assert_eq!(all(&short), [Err(Malformed)]);
        assert_eq!(all(&message(0xa00, 0, 1, &[1, 0])), [Err(Malformed)]);
        assert_eq!(
            all(&message(control::ERROR, 0, 1, &[0; 4])),
            [Err(Malformed)]
        );
    }
}
