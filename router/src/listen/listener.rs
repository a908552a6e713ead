//! Listening sockets: one per worker and address, so that workers share nothing (SO_REUSEPORT).

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::observe::metrics::Listener;
use crate::worker::Worker;

/// Connections that the kernel keeps for us while we are busy. Its own limit (somaxconn) caps it.
const BACKLOG: i32 = 4096;
/// How long accepting pauses when the process is out of descriptors or over its limit.
const PAUSE: Duration = Duration::from_millis(50);

/// Binds one worker's socket for `address`. The kernel spreads connections over the workers.
pub(crate) fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // After a restart, connections of the old process may still be in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        // `[::]` and `0.0.0.0` are listed side by side; neither swallows the other.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until the future is dropped, and hands every connection to `handle`.
pub(crate) async fn serve<F>(
    listener: TcpListener,
    kind: Listener,
    worker: Rc<Worker>,
    handle: impl Fn(TcpStream, SocketAddr, Rc<Worker>) -> F,
) where
    F: Future<Output = ()> + 'static,
{
    loop {
        while worker.is_full() {
            tokio::time::sleep(PAUSE).await;
        }
        match listener.accept().await {
            Ok((stream, peer)) => {
                if stream.set_nodelay(true).is_err() {
                    continue;
                }
                let open = worker.open_connection(kind);
                let served = handle(stream, peer, Rc::clone(&worker));
                tokio::task::spawn_local(async move {
                    served.await;
                    drop(open);
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Whether `accept` failed because of the connection, not because of us (accept(2), ERRORS).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
