//! Buffers that are used again: an idle connection holds none.

use std::cell::RefCell;

use bytes::BytesMut;

use crate::forward::{MOST_BYTES, READ_BYTES};

/// Unused buffers kept per worker: 16 MiB at most.
const MOST_KEPT: usize = 256;

/// Unused buffers of one worker.
#[derive(Default)]
pub(crate) struct Buffers(RefCell<Vec<BytesMut>>);

impl Buffers {
    /// An empty buffer with room for a usual read.
    pub(crate) fn take(&self) -> BytesMut {
        self.0
            .borrow_mut()
            .pop()
            .unwrap_or_else(|| BytesMut::with_capacity(READ_BYTES))
    }

    /// Takes a buffer back, whatever it holds.
    pub(crate) fn give(&self, mut buffer: BytesMut) {
        let mut kept = self.0.borrow_mut();
        buffer.clear();
        // Moves the start back to the front of the allocation if nobody else holds a part of it.
        let whole = buffer.try_reclaim(READ_BYTES);
        if whole && buffer.capacity() <= 2 * MOST_BYTES && kept.len() < MOST_KEPT {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Buf;

    #[test]
    fn a_buffer_comes_back_empty_and_whole() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.extend_from_slice(&[1; READ_BYTES]);
        buffer.advance(READ_BYTES - 1);
        buffers.give(buffer);
        assert_eq!(buffers.0.borrow().len(), 1);
        let buffer = buffers.take();
        assert!(buffer.is_empty() && buffer.capacity() >= READ_BYTES);
    }

    #[test]
    fn what_is_shared_or_was_never_used_is_not_kept() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.extend_from_slice(&[1; READ_BYTES]);
        let _shared = buffer.split_to(READ_BYTES / 2);
        buffers.give(buffer);
        buffers.give(BytesMut::new());
        assert!(buffers.0.borrow().is_empty());
    }
}
