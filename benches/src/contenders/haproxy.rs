//! HAProxy as the edge.

use std::fs;

use anyhow::{Context, Result};

use crate::contender::{Launch, Place, first_line};
use crate::process;
use crate::site::HOST;

/// Writes `haproxy.cfg` and the joined certificate and key that HAProxy wants.
pub(crate) fn launch(place: &Place) -> Result<Launch> {
    let pair = place.home.join("pair.pem");
    let certificate = fs::read_to_string(&place.certificate).context("certificate")?;
    let key = fs::read_to_string(&place.key).context("key")?;
    fs::write(&pair, certificate + &key).context("pair.pem")?;
    let configuration = configuration(place, &pair.display().to_string());
    let path = place.home.join("haproxy.cfg");
    fs::write(&path, &configuration).context("haproxy.cfg")?;
    let mut command = process::command("haproxy");
    command.arg("-db").arg("-f").arg(&path);
    Ok(Launch {
        command,
        configuration,
    })
}

pub(crate) fn version() -> String {
    format!(
        "{} ({})",
        first_line("haproxy", &["-v"]),
        process::openssl()
    )
}

fn configuration(place: &Place, pair: &str) -> String {
    let Place {
        http,
        https,
        backend,
        ..
    } = place;
    format!(
        "\
global
    nbthread 1
    maxconn 9500
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode http
    timeout connect 3s
    timeout client 600s
    timeout server 60s
    timeout http-keep-alive 600s
    timeout http-request 10s
    http-reuse always
frontend plain
    bind {http}
    http-request redirect scheme https code 308
frontend secure
    bind {https} ssl crt {pair} alpn h2,http/1.1
    http-request del-header X-Forwarded-For
    option forwardfor
    http-request set-header X-Forwarded-Proto https
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Port 443
    http-request set-header Forwarded for=%[src];host=%[req.hdr(host)];proto=https
    use_backend workers if {{ req.hdr(host),field(1,:) -m str {HOST} }}
    default_backend nobody
backend workers
    server worker {backend}
backend nobody
    http-request deny deny_status 404
"
    )
}
