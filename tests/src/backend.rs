//! A backend made of a bare socket: writes down every byte it is sent, answers what it is told.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::namespace::Namespace;
use crate::wait;

/// A short answer that keeps the connection open.
pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A listening socket with a script; ends when dropped.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    connections: Mutex<Vec<Record>>,
    stopping: AtomicBool,
}

#[derive(Debug)]
struct Record {
    bytes: Vec<u8>,
    closed: bool,
    stream: TcpStream,
}

/// What a script has in hand: one connection.
#[derive(Debug)]
pub struct Conversation {
    /// How many connections came before this one.
    pub index: usize,
    stream: TcpStream,
    shared: Arc<Shared>,
    pending: Vec<u8>,
}

impl Backend {
    /// Listens and runs `script` for each connection, on a thread of its own.
    ///
    /// # Errors
    /// If the address is taken.
    pub fn start(
        address: SocketAddr,
        script: impl Fn(&mut Conversation) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind(address).with_context(|| format!("bind {address}"))?;
        Self::serve(listener, script)
    }

    /// As [`Backend::start`], inside a network namespace.
    ///
    /// # Errors
    /// If the address is taken.
    pub fn start_in(
        namespace: &Namespace,
        address: SocketAddr,
        script: impl Fn(&mut Conversation) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = namespace.run(|| TcpListener::bind(address));
        Self::serve(listener.with_context(|| format!("bind {address}"))?, script)
    }

    /// Answers every request with the same bytes.
    ///
    /// # Errors
    /// If the address is taken.
    pub fn answering(address: SocketAddr, answer: impl Into<Vec<u8>>) -> Result<Self> {
        let answer = answer.into();
        Self::start(address, move |conversation| {
            while conversation.request()?.is_some() {
                conversation.send(&answer)?;
            }
            Ok(())
        })
    }

    /// Holds every answer back until something comes down the channel: one answer for each.
    ///
    /// # Errors
    /// If the address is taken.
    pub fn gated(address: SocketAddr) -> Result<(Self, Sender<()>)> {
        let (go_on, script) = gate();
        Ok((Self::start(address, script)?, go_on))
    }

    /// As [`Backend::gated`], inside a network namespace.
    ///
    /// # Errors
    /// If the address is taken.
    pub fn gated_in(namespace: &Namespace, address: SocketAddr) -> Result<(Self, Sender<()>)> {
        let (go_on, script) = gate();
        Ok((Self::start_in(namespace, address, script)?, go_on))
    }

    fn serve(
        listener: TcpListener,
        script: impl Fn(&mut Conversation) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let script = Arc::new(script);
        let acceptor = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || accept(&listener, &shared, &script))
        };
        Ok(Self {
            address,
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections came.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.shared).len()
    }

    /// How many of them the other side has closed.
    #[must_use]
    pub fn closed(&self) -> usize {
        lock(&self.shared).iter().filter(|it| it.closed).count()
    }

    /// Every byte of every connection, in order of their arrival.
    #[must_use]
    pub fn received(&self) -> Vec<Vec<u8>> {
        lock(&self.shared)
            .iter()
            .map(|it| it.bytes.clone())
            .collect()
    }

    /// Every byte that came, as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.received().concat()).into_owned()
    }

    /// How often `needle` stands in what came.
    #[must_use]
    pub fn count(&self, needle: &str) -> usize {
        self.text().matches(needle).count()
    }

    /// Waits until `needle` has come.
    ///
    /// # Errors
    /// If it does not.
    pub fn wait_for(&self, needle: &str) -> Result<()> {
        wait::until_true(&format!("the backend to receive {needle:?}"), || {
            self.count(needle) > 0
        })
    }

    /// Cuts every connection that is open now.
    pub fn cut(&self) {
        for record in lock(&self.shared).iter() {
            let _ = record.stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.cut();
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Conversation {
    /// Reads one request, head and body; `None` when the peer has closed between two.
    ///
    /// # Errors
    /// If it closes in the middle of one.
    pub fn request(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(mut request) = self.head()? else {
            return Ok(None);
        };
        let head = String::from_utf8_lossy(&request).to_ascii_lowercase();
        if head.contains("\r\ntransfer-encoding:") {
            request.extend(
                self.through(b"0\r\n\r\n")?
                    .ok_or(ErrorKind::UnexpectedEof)?,
            );
        } else if let Some((_, rest)) = head.split_once("\r\ncontent-length:") {
            let length = rest.split("\r\n").next().unwrap_or_default().trim().parse();
            request.extend(self.exactly(length.unwrap_or(0))?);
        }
        Ok(Some(request))
    }

    /// Reads one head; `None` when the peer has closed before its end.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn head(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.through(b"\r\n\r\n")
    }

    /// Reads until `mark` has come; `None` when the peer closes before.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn through(&mut self, mark: &[u8]) -> io::Result<Option<Vec<u8>>> {
        loop {
            let found = self.pending.windows(mark.len()).position(|it| it == mark);
            if let Some(position) = found {
                let rest = self.pending.split_off(position + mark.len());
                return Ok(Some(std::mem::replace(&mut self.pending, rest)));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Reads exactly so many bytes.
    ///
    /// # Errors
    /// If the peer closes before.
    pub fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.pending.len() < length {
            if !self.fill()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let rest = self.pending.split_off(length);
        Ok(std::mem::replace(&mut self.pending, rest))
    }

    /// Reads whatever comes next; empty when the peer has closed.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.pending.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.pending))
    }

    /// Reads and drops `length` bytes without writing them down: for bodies beyond memory.
    ///
    /// # Errors
    /// If the peer closes before.
    pub fn swallow(&mut self, length: u64) -> io::Result<()> {
        let mut left = length - (self.pending.len() as u64).min(length);
        self.pending.clear();
        let mut chunk = vec![0; 256 * 1024];
        while left > 0 {
            let most = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let length = self.stream.read(&mut chunk[..most])?;
            if length == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            left -= length as u64;
        }
        Ok(())
    }

    /// Reads until the peer closes.
    ///
    /// # Errors
    /// If it does not within half a minute.
    pub fn until_closed(&mut self) -> io::Result<()> {
        while self.fill()? {}
        Ok(())
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// If the peer has closed.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 64 * 1024];
        let length = match self.stream.read(&mut chunk) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => return Err(error),
        };
        let mut connections = lock(&self.shared);
        let record = &mut connections[self.index];
        if length == 0 {
            record.closed = true;
            return Ok(false);
        }
        record.bytes.extend_from_slice(&chunk[..length]);
        drop(connections);
        self.pending.extend_from_slice(&chunk[..length]);
        Ok(true)
    }
}

fn gate() -> (
    Sender<()>,
    impl Fn(&mut Conversation) -> io::Result<()> + Send + Sync + 'static,
) {
    let (go_on, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let script = move |conversation: &mut Conversation| {
        while conversation.request()?.is_some() {
            let gate = gate.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = gate.recv_timeout(wait::PATIENCE);
            conversation.send(OK)?;
        }
        Ok(())
    };
    (go_on, script)
}

fn accept<F>(listener: &TcpListener, shared: &Arc<Shared>, script: &Arc<F>)
where
    F: Fn(&mut Conversation) -> io::Result<()> + Send + Sync + 'static,
{
    // Polled, so that a drop needs no connection of its own to be noticed.
    if listener.set_nonblocking(true).is_err() {
        return;
    }
    while !shared.stopping.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, _)) => {
                if let Ok(mut conversation) = begin(stream, shared) {
                    let script = Arc::clone(script);
                    std::thread::spawn(move || {
                        // A peer that closes early is a matter for the test's assertions.
                        let _ = script(&mut conversation);
                        let _ = conversation.stream.shutdown(Shutdown::Both);
                        if let Some(record) = lock(&conversation.shared).get_mut(conversation.index)
                        {
                            record.closed = true;
                        }
                    });
                }
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn begin(stream: TcpStream, shared: &Arc<Shared>) -> io::Result<Conversation> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(wait::PATIENCE))?;
    let mut connections = lock(shared);
    let index = connections.len();
    connections.push(Record {
        bytes: Vec::new(),
        closed: false,
        stream: stream.try_clone()?,
    });
    drop(connections);
    Ok(Conversation {
        index,
        stream,
        shared: Arc::clone(shared),
        pending: Vec::new(),
    })
}

fn lock(shared: &Shared) -> MutexGuard<'_, Vec<Record>> {
    shared
        .connections
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}
