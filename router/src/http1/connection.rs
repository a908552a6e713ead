//! The Connection field (RFC 9110 section 7.6.1).

use httparse::Header;

use super::fields::FieldSet;
use super::names;
use super::syntax::trim;

/// The most options besides the well-known ones. Each is compared with each field.
const MAX_OPTIONS: usize = 32;

/// What Connection fields ask for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
    /// Names of fields that are for the next hop only.
    nominated: usize,
}

impl Options {
    /// Adds the options of one Connection field.
    pub(crate) fn read(&mut self, value: &[u8]) {
        // What nearly every message says.
        if value.eq_ignore_ascii_case(b"keep-alive") {
            self.keep_alive = true;
            return;
        }
        for option in options(value) {
            match option.len() {
                5 if option.eq_ignore_ascii_case(b"close") => self.close = true,
                10 if option.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                7 if option.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
                // Handled whether they are listed or not.
                2 if option.eq_ignore_ascii_case(b"te") => {}
                14 if option.eq_ignore_ascii_case(b"http2-settings") => {}
                _ => self.nominated += 1,
            }
        }
    }

    /// More options than a message can have in good faith.
    pub(crate) fn too_many(&self) -> bool {
        self.nominated > MAX_OPTIONS
    }

    /// Adds the fields that Connection names to `dropped`, except those meant for the origin.
    #[inline]
    pub(crate) fn drop_nominated(&self, fields: &[Header<'_>], dropped: &mut FieldSet) {
        if self.nominated > 0 {
            drop_nominated(fields, dropped);
        }
    }
}

#[cold]
fn drop_nominated(fields: &[Header<'_>], dropped: &mut FieldSet) {
    let connections = fields
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("connection"));
    for option in connections.flat_map(|field| options(field.value)) {
        if names::is_end_to_end(option) {
            continue;
        }
        for (index, field) in fields.iter().enumerate() {
            if field.name.as_bytes().eq_ignore_ascii_case(option) {
                dropped.insert(index);
            }
        }
    }
}

fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&b| b == b',')
        .map(trim)
        .filter(|option| !option.is_empty())
}
