//! The HTTPS listener: handshake, then the mouth that ALPN chose.

use std::net::SocketAddr;
use std::rc::Rc;

use rustls::{HandshakeKind, ProtocolVersion};
use tokio::net::TcpStream;

use crate::forward::{self, Client};
use crate::observe::access_log::Tls;
use crate::observe::metrics::Handshake;
use crate::tls::{AcceptError, accept};
use crate::worker::Worker;

/// Serves one connection.
pub(crate) async fn serve(tcp: TcpStream, peer: SocketAddr, worker: Rc<Worker>) {
    let Ok(local) = tcp.local_addr() else {
        return;
    };
    let timeout = worker.snapshot().settings.timeouts.handshake;
    let select = |sni: Option<&str>| worker.snapshot().certificates.select(sni);
    // Boxed, like the mouths below: each phase takes only the memory it needs itself.
    let accepted = match Box::pin(accept(tcp, select, timeout)).await {
        Ok(accepted) => {
            worker.metrics.handshake(Handshake::Ok);
            accepted
        }
        Err(error) => {
            worker.metrics.handshake(outcome(&error));
            tracing::debug!(%peer, %error, "no TLS connection");
            return;
        }
    };
    let session = accepted.stream.get_ref().1;
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    if resumed {
        worker.metrics.handshakes_resumed.increment();
    }
    let tls = Tls {
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            _ => "1.3",
        },
        sni: session.server_name().is_some(),
        resumed,
    };
    let client = Client {
        peer,
        local_port: local.port(),
        certificate: accepted.certificate,
        trusted: worker.snapshot().settings.trusts(peer.ip()),
        tls,
    };
    if accepted.http2 {
        Box::pin(forward::h2::serve(accepted.stream, client, worker)).await;
    } else {
        Box::pin(forward::h1::serve(accepted.stream, client, worker)).await;
    }
}

fn outcome(error: &AcceptError) -> Handshake {
    match error {
        AcceptError::Timeout => Handshake::Timeout,
        AcceptError::NotTls { .. } => Handshake::NotTls,
        AcceptError::UnknownName(_) => Handshake::UnknownName,
        AcceptError::Handshake(_) => Handshake::Failed,
        AcceptError::Empty | AcceptError::Io(_) => Handshake::Io,
    }
}
