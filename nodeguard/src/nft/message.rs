//! Netlink messages, and the batch of them that is one transaction.

use super::attributes::Writer;
use super::uapi::{BATCH_BEGIN, BATCH_END, SUBSYSTEM, family, flag};

/// Bytes of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
/// Bytes of `struct nfgenmsg`: family, version, resource.
pub(super) const FAMILY_HEADER: usize = 4;
/// Offset of the flags in `struct nlmsghdr`.
const FLAGS: usize = 6;

/// Messages that the kernel carries out together or not at all.
///
/// The first message has sequence number 0 and says only that a batch begins; by its sequence
/// number an error finds back to the object that it is about.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    writer: Writer,
    /// Where the last message begins.
    last: usize,
    objects: Vec<String>,
}

impl Batch {
    pub(super) fn new() -> Self {
        let mut writer = Writer::default();
        control(&mut writer, BATCH_BEGIN, 0);
        Self {
            writer,
            last: 0,
            objects: Vec::new(),
        }
    }

    /// Appends a message about an object of the inet family.
    pub(super) fn push(
        &mut self,
        kind: u8,
        flags: u16,
        object: impl Into<String>,
        fill: impl FnOnce(&mut Writer),
    ) {
        self.objects.push(object.into());
        let sequence = number(self.objects.len());
        self.last = self.writer.bytes.len();
        write(
            &mut self.writer,
            kind,
            family::INET,
            flag::REQUEST | flags,
            sequence,
            fill,
        );
    }

    /// The bytes of the whole transaction. Its last message asks for an answer, so that silence
    /// is never taken for success.
    #[must_use]
    pub(super) fn committed(&self) -> Vec<u8> {
        let mut writer = Writer {
            bytes: self.rehearsed(),
        };
        control(&mut writer, BATCH_END, number(self.objects.len() + 1));
        writer.bytes
    }

    /// The same without its end: the kernel judges every message and takes all of them back.
    #[must_use]
    pub(super) fn rehearsed(&self) -> Vec<u8> {
        let mut bytes = self.writer.bytes.clone();
        if !self.objects.is_empty() {
            let place = self.last + FLAGS;
            let flags = u16::from_ne_bytes([bytes[place], bytes[place + 1]]) | flag::ACK;
            bytes[place..place + 2].copy_from_slice(&flags.to_ne_bytes());
        }
        bytes
    }

    /// What the message of a sequence number is about.
    #[must_use]
    pub(super) fn object(&self, sequence: u32) -> &str {
        let index = usize::try_from(sequence)
            .ok()
            .and_then(|n| n.checked_sub(1));
        index
            .and_then(|index| self.objects.get(index))
            .map_or("the transaction", String::as_str)
    }

    /// Sequence number of the message whose answer means that all went well.
    pub(super) fn last_sequence(&self) -> u32 {
        number(self.objects.len())
    }
}

/// A request outside of a transaction.
pub(super) fn request(
    kind: u8,
    family: u8,
    flags: u16,
    sequence: u32,
    fill: impl FnOnce(&mut Writer),
) -> Vec<u8> {
    let mut writer = Writer::default();
    write(
        &mut writer,
        kind,
        family,
        flag::REQUEST | flags,
        sequence,
        fill,
    );
    writer.bytes
}

fn write(
    writer: &mut Writer,
    kind: u8,
    family: u8,
    flags: u16,
    sequence: u32,
    fill: impl FnOnce(&mut Writer),
) {
    let start = writer.bytes.len();
    header(
        writer,
        SUBSYSTEM << 8 | u16::from(kind),
        flags,
        sequence,
        [family, 0, 0, 0],
    );
    fill(writer);
    let length = number(writer.bytes.len() - start);
    writer.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

fn control(writer: &mut Writer, kind: u16, sequence: u32) {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    header(
        writer,
        kind,
        flag::REQUEST,
        sequence,
        [family::UNSPEC, 0, high, low],
    );
}

fn header(
    writer: &mut Writer,
    kind: u16,
    flags: u16,
    sequence: u32,
    family_header: [u8; FAMILY_HEADER],
) {
    let length = number(HEADER + FAMILY_HEADER);
    let bytes = &mut writer.bytes;
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    // To and from the kernel: port 0.
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&family_header);
}

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("no batch comes near 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_framed_numbered_and_asks_for_one_answer() {
        let mut batch = Batch::new();
        batch.push(0, flag::CREATE, "one", |writer| writer.number(2, 6));
        batch.push(2, 0, "two", |_| {});
        #[rustfmt::skip]
        let expected = [
            20, 0, 0, 0, 0x10, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10,
            28, 0, 0, 0, 0, 10, 1, 4, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 8, 0, 2, 0, 0, 0, 0, 6,
            20, 0, 0, 0, 2, 10, 5, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0,
            20, 0, 0, 0, 0x11, 0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10,
        ];
        assert_eq!(batch.committed(), expected);
        assert_eq!(batch.rehearsed(), expected[..expected.len() - 20]);
        assert_eq!(batch.object(1), "one");
        assert_eq!(batch.object(2), "two");
        assert_eq!(batch.object(0), "the transaction");
        assert_eq!(batch.object(3), "the transaction");
    }
}
