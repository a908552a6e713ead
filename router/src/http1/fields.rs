//! The field lines of a parsed head: where they are kept, which are left out, and copying the rest.

use bytes::BytesMut;
use httparse::{EMPTY_HEADER, Header};

/// The most fields that a head can have; a configured limit may only be lower.
pub const MAX_FIELDS: usize = 256;

/// Enough for what browsers send (about 25 fields). Filling all [`MAX_FIELDS`] slots for every
/// request would cost more than parsing it.
const FEW: usize = 64;

/// Room for the fields of one head, on the stack unless a head has very many.
pub struct FieldSlots<'b> {
    pub(crate) few: [Header<'b>; FEW],
    pub(crate) many: Vec<Header<'b>>,
}

impl FieldSlots<'_> {
    /// Empty slots.
    #[inline]
    pub fn new() -> Self {
        Self {
            few: [EMPTY_HEADER; FEW],
            many: Vec::new(),
        }
    }

    /// How many fields fit before the heap is used.
    pub(crate) const FEW: usize = FEW;
}

impl Default for FieldSlots<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// A set of fields of one head, by index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldSet([u64; MAX_FIELDS / 64]);

impl FieldSet {
    #[inline]
    pub(crate) fn insert(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }

    #[inline]
    pub(crate) fn remove(&mut self, index: usize) {
        self.0[index / 64] &= !(1 << (index % 64));
    }

    pub(crate) fn contains(&self, index: usize) -> bool {
        self.0[index / 64] & (1 << (index % 64)) != 0
    }

    pub(crate) fn union(mut self, other: &Self) -> Self {
        for (a, b) in self.0.iter_mut().zip(other.0) {
            *a |= b;
        }
        self
    }

    /// In ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(word, &bits)| {
            let mut rest = bits;
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let bit = rest.trailing_zeros() as usize;
                    rest &= rest - 1;
                    word * 64 + bit
                })
            })
        })
    }
}

/// Where `part`, which lies in `buf`, begins there.
#[inline]
pub(crate) fn offset(buf: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr() - buf.as_ptr().addr()
}

/// Whether each line of the head `buf` ends with CRLF. `httparse` also takes a bare LF, but it
/// takes nothing else between two fields, so the two bytes before each name tell.
#[inline]
pub(crate) fn lines_end_with_crlf(buf: &[u8], fields: &[Header<'_>]) -> bool {
    let mut good = buf.ends_with(b"\r\n\r\n");
    for field in fields {
        let at = offset(buf, field.name.as_bytes());
        good &= at >= 2 && buf[at - 2..at] == *b"\r\n";
    }
    good
}

/// Copies the lines of all fields that are not in `left_out` as they came, run by run.
///
/// `buf` is the whole head, with the empty line at its end.
#[inline]
pub(crate) fn copy_kept(
    buf: &[u8],
    fields: &[Header<'_>],
    left_out: &FieldSet,
    out: &mut BytesMut,
) {
    let Some(first) = fields.first() else {
        return;
    };
    let mut run = offset(buf, first.name.as_bytes());
    for index in left_out.iter() {
        let at = offset(buf, fields[index].name.as_bytes());
        if at > run {
            out.extend_from_slice(&buf[run..at]);
        }
        run = match fields.get(index + 1) {
            Some(next) => offset(buf, next.name.as_bytes()),
            None => buf.len() - 2,
        };
    }
    out.extend_from_slice(&buf[run..buf.len() - 2]);
}
