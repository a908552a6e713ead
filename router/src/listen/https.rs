//! The HTTPS listener: handshake, then the mouth that ALPN chose.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::TcpStream;

use crate::forward::{self, Client};
use crate::tls::accept::accept;
use crate::worker::Worker;

/// Serves one connection.
pub(crate) async fn serve(tcp: TcpStream, peer: SocketAddr, worker: Rc<Worker>) {
    let Ok(local) = tcp.local_addr() else {
        return;
    };
    let accepted = {
        let snapshot = worker.snapshot();
        let timeout = snapshot.settings.timeouts.handshake;
        accept(tcp, &snapshot.certificates, timeout).await
    };
    worker.metrics.handshake(accepted.as_ref().map(|_| ()));
    let accepted = match accepted {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::debug!(%peer, %error, "TLS handshake failed");
            return;
        }
    };
    let trusted = worker.snapshot().settings.trusts(peer.ip());
    let client = Client {
        peer,
        local_port: local.port(),
        certificate: accepted.certificate,
        trusted,
    };
    if accepted.http2 {
        forward::h2::serve(accepted.stream, client, worker).await;
    } else {
        forward::h1::serve(accepted.stream, client, worker).await;
    }
}
