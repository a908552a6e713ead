//! The rival on pingora-proxy; its program is `src/bin/rival.rs`.

use std::path::Path;
use std::process::Command;

use crate::contender::{Launch, Place};
use crate::site::HOST;

pub(crate) fn launch(place: &Place, binary: &Path) -> Launch {
    let mut command = Command::new(binary);
    command.arg("--http").arg(place.http.to_string());
    command.arg("--https").arg(place.https.to_string());
    command.arg("--certificate").arg(&place.certificate);
    command.arg("--key").arg(&place.key);
    command.arg("--host").arg(HOST);
    command.arg("--upstream").arg(place.backend.to_string());
    let configuration = format!("{command:?}\n");
    Launch {
        command,
        configuration,
    }
}

/// The version that Cargo.lock pins; the rival has none of its own.
pub(crate) fn version() -> String {
    let lock = include_str!("../../../Cargo.lock");
    let version = |package: &str| {
        let entry = format!("name = \"{package}\"\nversion = \"");
        let rest = lock.split_once(&entry).map(|(_, rest)| rest);
        rest.and_then(|rest| rest.split('"').next())
            .unwrap_or("unknown")
            .to_owned()
    };
    format!(
        "pingora-proxy {} on rustls {} with aws-lc-rs {}, mimalloc",
        version("pingora-proxy"),
        version("rustls"),
        version("aws-lc-rs")
    )
}
