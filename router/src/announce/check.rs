//! Checks of the instance's own endpoints.

mod http;
mod script;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::Duration;

use ::http::StatusCode;
use config::registrar::{Check, Probe};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Why a check has failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It took too long.
    #[error("no result within {0:?}")]
    Timeout(Duration),
    /// There is no connection.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The URL cannot be asked for, or nothing that could be understood was answered.
    #[error("{0}")]
    Http(String),
    /// The answer says that something is wrong.
    #[error("answered with {0}")]
    Status(StatusCode),
    /// The program cannot be started.
    #[error("cannot start: {0}")]
    Start(io::Error),
    /// The program says that something is wrong.
    #[error("ended with {0}")]
    Exit(ExitStatus),
}

/// Makes the check once.
///
/// # Errors
/// If the endpoint is not healthy, or did not say so in time.
pub async fn check(check: &Check, endpoint: SocketAddr) -> Result<(), CheckError> {
    let limit = check.timeout;
    let attempt = async {
        match &check.probe {
            Probe::Tcp { address } => tcp(address.unwrap_or(endpoint)).await,
            Probe::Http { url } => http::get(url, limit).await,
            Probe::Script { command } => script::run(command).await,
        }
    };
    timeout(limit, attempt)
        .await
        .unwrap_or(Err(CheckError::Timeout(limit)))
}

/// Makes the check again and again, and reports each result. Ends when it is dropped, whatever it
/// is in.
pub async fn repeat(
    wanted: &Check,
    endpoint: SocketAddr,
    mut report: impl FnMut(Result<(), CheckError>),
) {
    let mut ticks = interval(wanted.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        report(check(wanted, endpoint).await);
    }
}

async fn tcp(address: SocketAddr) -> Result<(), CheckError> {
    match TcpStream::connect(address).await {
        Ok(_) => Ok(()),
        Err(source) => Err(CheckError::Connect { address, source }),
    }
}
