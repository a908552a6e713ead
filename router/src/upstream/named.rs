//! A TCP connection to a host that is given by its name.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// Looks the name up and connects to the first address that answers.
pub(crate) async fn connect(host: &str, port: u16, within: Duration) -> Result<TcpStream, String> {
    let addresses = look_up(host, port).await?;
    first_that_answers(&addresses, within).await
}

/// The addresses behind a name, at least one.
pub(crate) async fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let addresses = lookup_host((host, port))
        .await
        .map_err(|error| format!("cannot look up {host}: {error}"))?;
    let addresses: Vec<SocketAddr> = addresses.collect();
    if addresses.is_empty() {
        return Err(format!("{host} has no address"));
    }
    Ok(addresses)
}

/// Each address gets an equal share of the time, so that one that swallows packets does not hide the
/// others.
pub(crate) async fn first_that_answers(
    addresses: &[SocketAddr],
    within: Duration,
) -> Result<TcpStream, String> {
    let mut failure = "there is no address".to_owned();
    let share = within / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    for address in addresses {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                // Small messages, each waited for. Without it they are merely slower.
                let _ = tcp.set_nodelay(true);
                return Ok(tcp);
            }
            Ok(Err(error)) => failure = format!("cannot connect to {address}: {error}"),
            Err(_) => failure = format!("{address} does not answer within {share:?}"),
        }
    }
    Err(failure)
}
