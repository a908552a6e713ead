//! Whether the host at the other end of a connection is still there.
//!
//! A process that dies is told of by its kernel; a host that loses power says nothing. The kernel
//! here goes on retransmitting for a quarter of an hour (`net.ipv4.tcp_retries2`), and on a
//! connection on which nothing is under way it waits for ever. So the kernel is told to probe
//! ([`watch`]), and whoever waits for an answer looks now and then whether the request has been
//! acknowledged ([`Stream::is_unacknowledged`]).
//!
//! `TCP_USER_TIMEOUT` alone would do neither. It also ends connections to a living host that takes
//! no more for that long (window zero; tcp(7)), as uploads and tunnels may well meet, and it makes
//! one lost probe enough to end a silent one.

use std::io;
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, libc, sockopt_impl};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use super::connect::Wanted;
use super::stream::Stream;

/// Shorter than that, a host that is only busy would be taken for one that is gone.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// When the kernel begins to probe a connection that nothing moves on.
const PROBED_AFTER: Duration = Duration::from_secs(10);
/// Between two probes.
const PROBED_EVERY: Duration = Duration::from_secs(3);
/// Probes that may be lost, one after the other.
const PROBES: u32 = 3;

/// Retransmissions that may be lost, one after the other: a single loss is no silence.
const RETRANSMITS: u8 = 2;

sockopt_impl!(
    /// What the kernel knows of a connection.
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    libc::tcp_info
);

/// How long a host may leave what it was sent unacknowledged: as long as it may take to answer
/// when it is connected to.
pub(crate) fn patience(connect: Duration) -> Duration {
    connect.max(LEAST_PATIENCE)
}

/// Has the kernel notice that the host of a new connection is gone.
pub(super) fn watch(tcp: &TcpStream, wanted: Wanted, connect: Duration) -> io::Result<()> {
    let socket = SockRef::from(tcp);
    match wanted {
        Wanted::Http1 => socket.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(PROBED_AFTER)
                .with_interval(PROBED_EVERY)
                .with_retries(PROBES),
        ),
        // It probes by its own PING, and has flow control of its own: a window of zero is a fault.
        Wanted::Http2 => socket.set_tcp_user_timeout(Some(patience(connect))),
    }
}

/// Whether an error of a connection says that the host is gone, rather than that it has closed.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut};
    matches!(
        error.kind(),
        TimedOut | HostUnreachable | NetworkUnreachable | NetworkDown
    )
}

impl Stream {
    /// Whether the host has acknowledged nothing for so long, though it was sent something. A host
    /// whose window is closed acknowledges probes; nothing is under way to it.
    pub(crate) fn is_unacknowledged(&self, patience: Duration) -> bool {
        getsockopt(self.tcp(), TcpInfo).is_ok_and(|info| is_unacknowledged(&info, patience))
    }
}

fn is_unacknowledged(info: &libc::tcp_info, patience: Duration) -> bool {
    info.tcpi_unacked > 0
        && info.tcpi_retransmits >= RETRANSMITS
        && u128::from(info.tcpi_last_ack_recv) >= patience.as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn only_what_is_under_way_and_lost_again_and_again_is_silence() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tcp = TcpStream::connect(address).await.unwrap();
        watch(&tcp, Wanted::Http1, PATIENCE).unwrap();
        assert!(SockRef::from(&tcp).keepalive().unwrap());
        let mut info = getsockopt(&tcp, TcpInfo).unwrap();
        assert!(!is_unacknowledged(&info, Duration::ZERO));
        // A window that is closed: probes are acknowledged, and nothing is under way.
        (info.tcpi_retransmits, info.tcpi_last_ack_recv) = (9, 60_000);
        assert!(!is_unacknowledged(&info, PATIENCE));
        info.tcpi_unacked = 1;
        assert!(is_unacknowledged(&info, PATIENCE));
        for (retransmits, last_ack) in [(1, 60_000), (9, 999)] {
            (info.tcpi_retransmits, info.tcpi_last_ack_recv) = (retransmits, last_ack);
            assert!(!is_unacknowledged(&info, PATIENCE));
        }
    }

    #[test]
    fn a_host_has_as_long_as_for_a_connection_and_never_less_than_a_second() {
        let second = Duration::from_secs(1);
        assert_eq!(patience(second * 3), second * 3);
        assert_eq!(patience(second / 5), second);
    }
}
