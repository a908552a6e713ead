//! Where a body ends, and chunked coding (RFC 9112 sections 6 and 7).

use bytes::BufMut;

use super::head::Framing;
use super::response::ResponseFraming;
use super::trailers::TrailerSection;

/// The longest line with a chunk's size, in bytes, with extensions and without CRLF.
pub const MAX_CHUNK_LINE: usize = 256;
/// The most bytes of chunk extensions in one message. They mean nothing to us and cost an attacker
/// little, so a body of one-byte chunks with long extensions is not read for ever.
pub const MAX_EXTENSIONS: usize = 16 * 1024;
/// The most digits of a chunk's size: 15 hexadecimal digits stay below 2^60.
const MAX_SIZE_DIGITS: usize = 15;

/// What is wrong with a body. The connection it came by is closed: a request gets 400 if no answer
/// began, a response is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum BodyFault {
    /// No digits, other bytes than digits, or more than 15.
    #[error("bad chunk size")]
    BadChunkSize,
    /// Other than CRLF at the end of a line or after a chunk's data.
    #[error("chunk not ended by CRLF")]
    BadChunkEnd,
    /// A control byte in a chunk extension, or one beyond ASCII.
    #[error("bad byte in a chunk extension")]
    BadExtension,
    /// Longer than [`MAX_CHUNK_LINE`] or [`MAX_EXTENSIONS`].
    #[error("chunk extensions too long")]
    ExtensionTooLong,
    /// A trailer line that is no field line.
    #[error("bad trailer")]
    BadTrailer,
    /// Trailers over the limit in bytes or fields.
    #[error("trailers too long")]
    TrailersTooLong,
    /// The connection ended before the body.
    #[error("body cut off")]
    Truncated,
}

impl BodyFault {
    /// A word for logs and metrics that does not change between versions.
    pub fn reason(self) -> &'static str {
        match self {
            Self::BadChunkSize => "bad-chunk-size",
            Self::BadChunkEnd => "bad-chunk-end",
            Self::BadExtension => "bad-chunk-extension",
            Self::ExtensionTooLong => "chunk-extension-too-long",
            Self::BadTrailer => "bad-trailer",
            Self::TrailersTooLong => "trailers-too-long",
            Self::Truncated => "body-cut-off",
        }
    }
}

/// What one call of [`BodyDecoder::decode`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the input that are dealt with.
    pub consumed: usize,
    /// What they were.
    pub event: Event,
}

/// A step through a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The whole input is consumed and nothing came of it yet.
    NeedMore,
    /// A chunk of this many bytes begins; never 0.
    ChunkStart(u64),
    /// The last so many of the consumed bytes are payload; never 0.
    Data(usize),
    /// The chunk is complete.
    ChunkEnd,
    /// There are trailers: [`BodyDecoder::trailers`] gives them. `End` comes next.
    Trailers,
    /// The body is complete. What follows in the input belongs to the next message.
    End,
}

/// Finds the parts of a body in the bytes of a connection. Copies nothing but trailers.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    extensions: usize,
    trailers: Option<Box<TrailerSection>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    /// Before the next byte of a size; `digits` so far.
    Size {
        size: u64,
        digits: usize,
    },
    /// In an extension; `line` bytes of the line so far.
    Extension {
        size: u64,
        line: usize,
    },
    /// After the CR of a size line.
    SizeLf {
        size: u64,
    },
    ChunkData(u64),
    DataCr,
    DataLf,
    /// After the last chunk. `fresh` until the first byte.
    Trailers {
        fresh: bool,
    },
    /// After a CR that began the first line of the trailers.
    EmptyTrailerLf,
    /// Trailers are complete, `End` is still to be told.
    Ending,
    Done,
}

impl BodyDecoder {
    /// For a request's body.
    pub fn request(framing: Framing) -> Self {
        Self::new(match framing {
            Framing::None => State::Done,
            Framing::Length(length) => length_state(length),
            Framing::Chunked => CHUNK,
        })
    }

    /// For a response's body.
    pub fn response(framing: ResponseFraming) -> Self {
        Self::new(match framing {
            ResponseFraming::None => State::Done,
            ResponseFraming::Length(length) => length_state(length),
            ResponseFraming::Chunked => CHUNK,
            ResponseFraming::UntilClose => State::UntilClose,
        })
    }

    /// For what follows a switch of protocols: everything until the connection ends.
    pub fn until_close() -> Self {
        Self::new(State::UntilClose)
    }

    fn new(state: State) -> Self {
        Self {
            state,
            extensions: 0,
            trailers: None,
        }
    }

    /// Whether the body is complete. A body by length is done with its last byte, an empty one from
    /// the start; one that lasts until the connection ends never is.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of a body by length that are still to come; `None` for the other framings.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// Whether the connection may end here.
    ///
    /// # Errors
    /// [`BodyFault::Truncated`] if the body is not complete.
    pub fn end_of_stream(&self) -> Result<(), BodyFault> {
        match self.state {
            State::Done | State::Ending | State::UntilClose => Ok(()),
            _ => Err(BodyFault::Truncated),
        }
    }

    /// The trailers that may be passed on, once [`Event::Trailers`] was told.
    pub fn trailers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.trailers.iter().flat_map(|section| section.fields())
    }

    /// Takes the next step. Call again with the input that was not consumed; every event but
    /// `NeedMore` and `End` may be followed by another, also on empty input.
    ///
    /// # Errors
    /// After a fault the decoder is of no use.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, BodyFault> {
        match self.state {
            State::Length(left) if !input.is_empty() => {
                let n = take(input, left);
                self.state = length_state(left - n as u64);
                Ok(Decoded {
                    consumed: n,
                    event: Event::Data(n),
                })
            }
            State::UntilClose if !input.is_empty() => Ok(Decoded {
                consumed: input.len(),
                event: Event::Data(input.len()),
            }),
            State::Done => Ok(Decoded {
                consumed: 0,
                event: Event::End,
            }),
            _ => self.decode_chunked(input),
        }
    }

    fn decode_chunked(&mut self, input: &[u8]) -> Result<Decoded, BodyFault> {
        let mut at = 0;
        let event = loop {
            if self.state == State::Ending {
                self.state = State::Done;
                break Event::End;
            }
            let Some(&b) = input.get(at) else {
                break Event::NeedMore;
            };
            match self.state {
                State::ChunkData(left) => {
                    let n = take(&input[at..], left);
                    self.state = match left - n as u64 {
                        0 => State::DataCr,
                        left => State::ChunkData(left),
                    };
                    at += n;
                    break Event::Data(n);
                }
                State::Trailers { fresh: true } if b != b'\r' => {
                    self.state = State::Trailers { fresh: false };
                }
                State::Trailers { fresh: false } => {
                    let section = self.trailers.get_or_insert_default();
                    let (n, ended) = section.take(&input[at..])?;
                    at += n;
                    if ended {
                        self.state = State::Ending;
                        if !section.lines().is_empty() {
                            break Event::Trailers;
                        }
                    }
                }
                _ => {
                    at += 1;
                    if let Some(event) = self.byte(b)? {
                        break event;
                    }
                }
            }
        };
        Ok(Decoded {
            consumed: at,
            event,
        })
    }

    /// The bytes between the data of two chunks.
    fn byte(&mut self, b: u8) -> Result<Option<Event>, BodyFault> {
        self.state = match (self.state, b) {
            (State::Size { size, digits }, b) if b.is_ascii_hexdigit() => {
                if digits == MAX_SIZE_DIGITS {
                    return Err(BodyFault::BadChunkSize);
                }
                State::Size {
                    size: size << 4 | u64::from(hex_value(b)),
                    digits: digits + 1,
                }
            }
            (State::Size { digits: 0, .. }, _) => return Err(BodyFault::BadChunkSize),
            (State::Size { size, .. }, b'\r') => State::SizeLf { size },
            (State::Size { size, digits }, b';') => {
                self.count_extension()?;
                State::Extension {
                    size,
                    line: digits + 1,
                }
            }
            (State::Size { .. }, b'\n') => return Err(BodyFault::BadChunkEnd),
            (State::Size { .. }, _) => return Err(BodyFault::BadChunkSize),
            (State::Extension { size, .. }, b'\r') => State::SizeLf { size },
            (State::Extension { size, line }, b'\t' | b' '..=b'~') => {
                if line == MAX_CHUNK_LINE {
                    return Err(BodyFault::ExtensionTooLong);
                }
                self.count_extension()?;
                State::Extension {
                    size,
                    line: line + 1,
                }
            }
            (State::Extension { .. }, b'\n') => return Err(BodyFault::BadChunkEnd),
            (State::Extension { .. }, _) => return Err(BodyFault::BadExtension),
            (State::SizeLf { size: 0 }, b'\n') => State::Trailers { fresh: true },
            (State::SizeLf { size }, b'\n') => {
                self.state = State::ChunkData(size);
                return Ok(Some(Event::ChunkStart(size)));
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => {
                self.state = CHUNK;
                return Ok(Some(Event::ChunkEnd));
            }
            (State::Trailers { .. }, b'\r') => State::EmptyTrailerLf,
            (State::EmptyTrailerLf, b'\n') => {
                self.state = State::Done;
                return Ok(Some(Event::End));
            }
            (State::EmptyTrailerLf, _) => return Err(BodyFault::BadTrailer),
            (state @ (State::Length(_) | State::UntilClose), _) => state,
            _ => return Err(BodyFault::BadChunkEnd),
        };
        Ok(None)
    }

    fn count_extension(&mut self) -> Result<(), BodyFault> {
        self.extensions += 1;
        if self.extensions > MAX_EXTENSIONS {
            return Err(BodyFault::ExtensionTooLong);
        }
        Ok(())
    }
}

const CHUNK: State = State::Size { size: 0, digits: 0 };

/// Reads chunked coding from `input` and writes it again to `out` with the same chunks: sizes in
/// lower-case hexadecimal, no extensions, no forbidden trailers. Returns how much was consumed:
/// everything, unless the body ended before.
///
/// # Errors
/// As [`BodyDecoder::decode`]; what was written to `out` before is then to be thrown away with the
/// connection.
pub fn relay_chunked(
    decoder: &mut BodyDecoder,
    input: &[u8],
    out: &mut impl BufMut,
) -> Result<usize, BodyFault> {
    let mut at = 0;
    loop {
        let was_done = decoder.is_done();
        let Decoded { consumed, event } = decoder.decode(&input[at..])?;
        at += consumed;
        match event {
            Event::NeedMore => return Ok(at),
            Event::ChunkStart(size) => write_chunk_head(size, out),
            Event::Data(n) => out.put_slice(&input[at - n..at]),
            Event::ChunkEnd => out.put_slice(b"\r\n"),
            Event::Trailers => {}
            Event::End => {
                if !was_done {
                    write_last_chunk(decoder.trailers(), out);
                }
                return Ok(at);
            }
        }
    }
}

/// Writes the line before a chunk's data. The data and CRLF are to follow.
///
/// `size` is not 0: that would end the body.
pub fn write_chunk_head(size: u64, out: &mut impl BufMut) {
    debug_assert_ne!(size, 0);
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut line = [0; 18];
    line[16..].copy_from_slice(b"\r\n");
    let mut at = 16;
    let mut rest = size;
    loop {
        at -= 1;
        line[at] = DIGITS[(rest & 15) as usize];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&line[at..]);
}

/// Writes `data` as one chunk; nothing if it is empty.
pub fn write_chunk(data: &[u8], out: &mut impl BufMut) {
    if !data.is_empty() {
        write_chunk_head(data.len() as u64, out);
        out.put_slice(data);
        out.put_slice(b"\r\n");
    }
}

/// Writes the last chunk, trailers and the empty line. Names and values must have been checked.
pub fn write_last_chunk<'a>(
    trailers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    out: &mut impl BufMut,
) {
    out.put_slice(b"0\r\n");
    for (name, value) in trailers {
        out.put_slice(name);
        out.put_slice(b": ");
        out.put_slice(value);
        out.put_slice(b"\r\n");
    }
    out.put_slice(b"\r\n");
}

fn length_state(left: u64) -> State {
    match left {
        0 => State::Done,
        left => State::Length(left),
    }
}

fn take(input: &[u8], left: u64) -> usize {
    usize::try_from(left).map_or(input.len(), |left| left.min(input.len()))
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}
