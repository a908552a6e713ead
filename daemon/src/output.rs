//! Writing to the terminal, where a reader may go away.

use std::io::{self, Write};

/// Writes to stdout. A reader that has seen enough (`| head`) is no failure.
///
/// # Errors
/// What else can go wrong with stdout, such as a full disk.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes to stderr. There is nowhere to report that it is closed.
pub fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
