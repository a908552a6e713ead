//! NGINX as the edge.

use std::fs;

use anyhow::{Context, Result};

use crate::contender::{Launch, Place, first_line};
use crate::process;
use crate::site::HOST;

/// Writes `nginx.conf`. Response buffers hold a 64 KiB body, so that NGINX never writes one to
/// disk, which its defaults (32 KiB) would make it do.
pub(crate) fn launch(place: &Place) -> Result<Launch> {
    let configuration = configuration(place);
    let path = place.home.join("nginx.conf");
    fs::write(&path, &configuration).context("nginx.conf")?;
    let mut command = process::command("nginx");
    command
        .arg("-p")
        .arg(&place.home)
        .arg("-e")
        .arg("stderr")
        .arg("-c")
        .arg(&path);
    Ok(Launch {
        command,
        configuration,
    })
}

pub(crate) fn version() -> String {
    format!("{} ({})", first_line("nginx", &["-v"]), process::openssl())
}

fn configuration(place: &Place) -> String {
    let Place {
        http,
        https,
        backend,
        certificate,
        key,
        home,
    } = place;
    let (certificate, key, home) = (certificate.display(), key.display(), home.display());
    format!(
        "\
daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {home}/nginx.pid;
error_log stderr error;
events {{ worker_connections 19000; }}
http {{
    access_log off;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    keepalive_time 24h;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    upstream workers {{
        server {backend};
        keepalive 256;
        keepalive_requests 1000000000;
        keepalive_timeout 55s;
    }}
    server {{
        listen {http} default_server;
        return 308 https://$host$request_uri;
    }}
    server {{
        listen {https} default_server ssl http2;
        return 404;
    }}
    server {{
        listen {https} ssl http2;
        server_name {HOST};
        location / {{
            proxy_pass http://workers;
            proxy_http_version 1.1;
            proxy_buffers 32 8k;
            proxy_set_header Host $http_host;
            proxy_set_header Connection \"\";
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto https;
            proxy_set_header X-Forwarded-Host $host;
            proxy_set_header X-Forwarded-Port 443;
            proxy_set_header Forwarded \"for=$remote_addr;host=$host;proto=https\";
        }}
    }}
}}
"
    )
}
