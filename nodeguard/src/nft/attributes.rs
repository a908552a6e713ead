//! Netlink attributes: length, kind, payload, padded to four bytes (`struct nlattr`).

use super::uapi::{KIND_MASK, NESTED};

/// Bytes of an attribute's own header.
const HEADER: usize = 4;

/// What attributes are appended to.
#[derive(Clone, Debug, Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    /// An attribute whose payload is as given.
    pub(super) fn raw(&mut self, kind: u16, payload: &[u8]) {
        let length = u16::try_from(HEADER + payload.len())
            .expect("names are short, and lists of elements are split");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        self.pad();
    }

    /// A number. Those of nfnetlink are big-endian on every machine.
    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.raw(kind, &value.to_be_bytes());
    }

    /// A text, with the NUL at its end that the kernel sends back, too.
    pub(super) fn text(&mut self, kind: u16, text: &str) {
        let mut payload = Vec::with_capacity(text.len() + 1);
        payload.extend_from_slice(text.as_bytes());
        payload.push(0);
        self.raw(kind, &payload);
    }

    /// An attribute of attributes.
    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.bytes.len() - start)
            .expect("rules are short, and lists of elements are split");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A length that does not fit what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a netlink message of the kernel does not add up")]
pub struct Malformed;

/// Reads attributes one after the other; after a fault there is no next.
#[derive(Clone, Debug)]
pub(super) struct Attributes<'a> {
    rest: &'a [u8],
}

/// One attribute, its kind without the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attribute<'a> {
    pub(super) kind: u16,
    pub(super) payload: &'a [u8],
}

impl<'a> Attributes<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.rest);
        if bytes.is_empty() {
            return None;
        }
        let Some(([l0, l1, k0, k1], _)) = bytes.split_first_chunk::<HEADER>() else {
            return Some(Err(Malformed));
        };
        let length = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let Some(payload) = bytes.get(HEADER..length) else {
            return Some(Err(Malformed));
        };
        // The last one may go without its padding.
        self.rest = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Ok(Attribute {
            kind: u16::from_ne_bytes([*k0, *k1]) & KIND_MASK,
            payload,
        }))
    }
}

impl<'a> Attribute<'a> {
    /// Its payload as a big-endian number of four bytes.
    pub(super) fn number(&self) -> Result<u32, Malformed> {
        self.payload
            .try_into()
            .map(u32::from_be_bytes)
            .or(Err(Malformed))
    }

    /// Its payload as a big-endian number of eight bytes.
    pub(super) fn long(&self) -> Result<u64, Malformed> {
        self.payload
            .try_into()
            .map(u64::from_be_bytes)
            .or(Err(Malformed))
    }

    /// Its payload as a text, without the NUL at its end and without faith in its encoding.
    pub(super) fn text(&self) -> String {
        let end = self.payload.iter().position(|byte| *byte == 0);
        let text = &self.payload[..end.unwrap_or(self.payload.len())];
        String::from_utf8_lossy(text).into_owned()
    }

    /// Its payload as attributes.
    pub(super) fn nested(&self) -> Attributes<'a> {
        Attributes::new(self.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_but_their_length_is_not() {
        let mut writer = Writer::default();
        writer.text(1, "ab");
        writer.number(2, 0x0102_0304);
        writer.nest(4, |inner| inner.raw(1, &[7]));
        let expected = [
            &[7, 0, 1, 0, b'a', b'b', 0, 0][..],
            &[8, 0, 2, 0, 1, 2, 3, 4],
            &[12, 0, 4, 0x80, 5, 0, 1, 0, 7, 0, 0, 0],
        ];
        assert_eq!(writer.bytes, expected.concat());
    }

    #[test]
    fn what_was_written_is_read_again() {
        let mut writer = Writer::default();
        writer.nest(3, |inner| {
            inner.text(1, "nodeguard");
            inner.number(2, 6);
        });
        let outer: Vec<_> = Attributes::new(&writer.bytes).map(Result::unwrap).collect();
        assert_eq!(outer.len(), 1);
        assert_eq!(outer[0].kind, 3);
        let inner: Vec<_> = outer[0].nested().map(Result::unwrap).collect();
        assert_eq!(inner[0].text(), "nodeguard");
        assert_eq!(inner[1].number(), Ok(6));
        assert_eq!(inner[1].long(), Err(Malformed));
    }

    #[test]
    fn a_length_that_lies_is_refused_and_ends_the_list() {
        for bytes in [
            &[9, 0, 1, 0, 1, 2, 3, 4][..],
            &[3, 0, 1, 0],
            &[0, 0, 1, 0],
            &[8, 0, 1],
        ] {
            let mut attributes = Attributes::new(bytes);
            assert_eq!(attributes.next(), Some(Err(Malformed)), "{bytes:?}");
            assert_eq!(attributes.next(), None, "{bytes:?}");
        }
    }
}
