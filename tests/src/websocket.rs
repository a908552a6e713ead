//! WebSockets (RFC 6455): a client over any connection, and an echo server.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use crate::client::Connection;
use crate::namespace::Namespace;

/// A client's end.
#[derive(Debug)]
pub struct Client(WebSocket<Connection>);

impl Client {
    /// Shakes hands over an open connection; `url` starts with `wss://`.
    ///
    /// # Errors
    /// If the server does not switch protocols.
    pub fn open(url: &str, connection: Connection) -> Result<Self> {
        match tungstenite::client(url, connection) {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(error) => bail!("WebSocket handshake with {url}: {error}"),
        }
    }

    /// Sends a text and insists on getting it back.
    ///
    /// # Errors
    /// If something else or nothing comes back.
    pub fn echo(&mut self, text: &str) -> Result<()> {
        self.0
            .send(Message::text(text))
            .context("send a WebSocket message")?;
        match self.0.read().context("read a WebSocket message")? {
            Message::Text(answer) if answer.as_str() == text => Ok(()),
            other => bail!("sent {text:?} and got {other:?} back"),
        }
    }

    /// Says goodbye and waits for the answer.
    ///
    /// # Errors
    /// If the connection breaks before.
    pub fn close(mut self) -> Result<()> {
        self.0.close(None)?;
        loop {
            match self.0.read() {
                Ok(_) => {}
                Err(tungstenite::Error::ConnectionClosed) => return Ok(()),
                Err(error) => return Err(error).context("close a WebSocket"),
            }
        }
    }
}

/// Sends every message back; ends when dropped.
#[derive(Debug)]
pub struct EchoServer {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    acceptor: Option<std::thread::JoinHandle<()>>,
}

impl EchoServer {
    /// Listens, inside a network namespace if one is given.
    ///
    /// # Errors
    /// If the address is taken.
    pub fn start(namespace: Option<&Namespace>, address: SocketAddr) -> Result<Self> {
        let bind = || TcpListener::bind(address);
        let listener = namespace.map_or_else(bind, |it| it.run(bind))?;
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let stopping = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stopping);
        let acceptor = std::thread::spawn(move || {
            while !seen.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let seen = Arc::clone(&seen);
                        std::thread::spawn(move || echo(stream, seen));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        Ok(Self {
            address,
            stopping,
            acceptor: Some(acceptor),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn echo(stream: TcpStream, stopping: Arc<AtomicBool>) {
    let ready = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_nodelay(true))
        .and_then(|()| stream.set_read_timeout(Some(Duration::from_millis(200))));
    if ready.is_err() {
        return;
    }
    let Ok(mut socket) = tungstenite::accept(Patient { stream, stopping }) else {
        return;
    };
    while let Ok(message) = socket.read() {
        let answered = match message {
            Message::Text(_) | Message::Binary(_) => socket.send(message),
            // tungstenite answers pings and closes by itself; a flush sends what it wrote.
            _ => socket.flush(),
        };
        if answered.is_err() {
            break;
        }
    }
}

/// Waits through read timeouts until the server is told to stop.
struct Patient {
    stream: TcpStream,
    stopping: Arc<AtomicBool>,
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) && !self.stopping.load(Ordering::SeqCst) => {}
                done => return done,
            }
        }
    }
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
