//! The backend: NGINX, as in the clusters, answering from memory.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};

use crate::process::{self, Cores, Process};

/// Path of an answer of [`SMALL_BYTES`].
pub(crate) const SMALL: &str = "/small";
/// Path of an answer of [`LARGE_BYTES`].
pub(crate) const LARGE: &str = "/large";
/// Path that answers with the forwarding fields of the request, one per line.
pub(crate) const FORWARDED: &str = "/forwarded";
/// Body of [`SMALL`].
pub(crate) const SMALL_BYTES: usize = 1024;
/// Body of [`LARGE`].
pub(crate) const LARGE_BYTES: usize = 64 * 1024;

/// Fields that every contender has to set.
const FIELDS: [&str; 5] = [
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "Forwarded",
];

/// Starts the backend on the client's core.
pub(crate) fn start(address: SocketAddr, home: &Path, cores: Cores) -> Result<Process> {
    fs::write(home.join("large"), vec![b'x'; LARGE_BYTES]).context("body")?;
    let path = home.join("nginx.conf");
    fs::write(&path, configuration(address, home)).context("nginx.conf")?;
    let mut command = process::command("nginx");
    command
        .arg("-p")
        .arg(home)
        .arg("-e")
        .arg("stderr")
        .arg("-c")
        .arg(&path);
    let mut backend = Process::start("backend", &command, cores.rig, home)?;
    backend.wait_for(address)?;
    Ok(backend)
}

fn configuration(address: SocketAddr, home: &Path) -> String {
    let home = home.display();
    let small = "x".repeat(SMALL_BYTES);
    let fields = FIELDS.map(|name| {
        let variable = name.to_ascii_lowercase().replace('-', "_");
        format!("{name}: $http_{variable}")
    });
    let fields = fields.join("\n");
    format!(
        "\
daemon off;
user root;
worker_processes 1;
pid {home}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    sendfile on;
    tcp_nopush on;
    open_file_cache max=16;
    keepalive_requests 1000000000;
    keepalive_time 24h;
    keepalive_timeout 75s;
    server {{
        listen {address};
        default_type text/plain;
        root {home};
        location = {SMALL} {{ return 200 \"{small}\"; }}
        location = {LARGE} {{ }}
        location = {FORWARDED} {{ return 200 '{fields}'; }}
        location / {{ return 404; }}
    }}
}}
"
    )
}
