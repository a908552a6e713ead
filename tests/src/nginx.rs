//! A tenant worker's ingress: Debian's NGINX, with nothing of it outside its own folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::ca::Leaf;
use crate::folder;
use crate::namespace::Namespace;
use crate::process::Process;
use crate::wait;

/// The port on which an ingress takes plain HTTP.
pub const HTTP_PORT: u16 = 31380;

/// The port on which an ingress takes HTTPS.
pub const HTTPS_PORT: u16 = 31390;

/// Size of `/files/medium`.
pub const MEDIUM: usize = 64 * 1024;

/// Size of `/files/large`.
pub const LARGE: usize = 10 * 1024 * 1024;

/// What an ingress is to be like.
#[derive(Clone, Debug)]
pub struct Ingress<'a> {
    /// Who it answers for.
    pub tenant: &'a str,
    /// What it calls itself.
    pub worker: &'a str,
    /// Where it runs; `None` is the machine's own network.
    pub namespace: Option<&'a Namespace>,
    /// Where it takes plain HTTP.
    pub http: Vec<SocketAddr>,
    /// Where it takes HTTPS, and the certificate for it.
    pub https: Option<(Vec<SocketAddr>, &'a Leaf)>,
    /// `keepalive_timeout`, in seconds; NGINX's default is 75.
    pub keepalive_seconds: u32,
    /// Whether the plain port speaks HTTP/2 with prior knowledge, and nothing else.
    pub plain_http2: bool,
    /// Where `/ws` leads.
    pub websocket: Option<SocketAddr>,
}

impl<'a> Ingress<'a> {
    /// An ingress that takes plain HTTP at one address.
    #[must_use]
    pub fn plain(tenant: &'a str, worker: &'a str, address: SocketAddr) -> Self {
        Self {
            tenant,
            worker,
            namespace: None,
            http: vec![address],
            https: None,
            keepalive_seconds: 75,
            plain_http2: false,
            websocket: None,
        }
    }

    /// Starts it in `NAME/` beneath `folder` and waits until it listens.
    ///
    /// # Errors
    /// If NGINX is not installed or refuses its configuration.
    pub fn start(&self, folder: &Path) -> Result<Nginx> {
        let name = format!("nginx-{}-{}", self.tenant, self.worker);
        let home = folder.join(&name);
        std::fs::create_dir_all(home.join("files"))?;
        std::fs::create_dir_all(home.join("upload"))?;
        std::fs::write(home.join("files/medium"), pattern(MEDIUM))?;
        std::fs::write(home.join("files/large"), pattern(LARGE))?;
        if let Some((_, leaf)) = &self.https {
            leaf.write(&home, "ingress")?;
        }
        // A killed one leaves its pid file, and we wait for the new one's.
        let _ = std::fs::remove_file(home.join("nginx.pid"));
        let configuration = home.join("nginx.conf");
        folder::write(&configuration, self.configuration(&home))?;

        let mut command = Command::new("nginx");
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .arg("-p")
            .arg(&home)
            .arg("-e")
            .arg("stderr")
            .arg("-c")
            .arg(&configuration);
        let process = Process::start(&name, command, self.namespace, folder)
            .context("start NGINX: apt-get install nginx-light")?;
        let mut nginx = Nginx { process, home };
        nginx.wait_until_listening()?;
        Ok(nginx)
    }

    fn configuration(&self, home: &Path) -> String {
        let Self {
            tenant,
            worker,
            keepalive_seconds,
            ..
        } = self;
        let home = home.display();
        let mut listen = String::new();
        for address in &self.http {
            let http2 = if self.plain_http2 { " http2" } else { "" };
            listen.push_str(&format!("    listen {address}{http2};\n"));
        }
        if let Some((addresses, _)) = &self.https {
            for address in addresses {
                listen.push_str(&format!("    listen {address} ssl http2;\n"));
            }
            listen.push_str(&format!(
                "    ssl_certificate {home}/ingress.crt;\n    ssl_certificate_key {home}/ingress.key;\n"
            ));
        }
        let websocket = self.websocket.map_or_else(String::new, |address| {
            format!(
                r#"
    location = /ws {{
      proxy_pass http://{address};
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";
      proxy_set_header Host $host;
      proxy_read_timeout 1h;
    }}
"#
            )
        });
        // One process: the kernel kills a child with its parent, but not that child's children.
        // With root, NGINX would otherwise drop to www-data and lose sight of its folder.
        let user = if nix::unistd::geteuid().is_root() {
            "user root;\n"
        } else {
            ""
        };
        format!(
            r#"{user}daemon off;
master_process off;
worker_processes 1;
pid {home}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
  access_log {home}/access.log combined;
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  client_max_body_size 1g;
  keepalive_timeout {keepalive_seconds};
  keepalive_requests 1000000;
  server_tokens off;
  server {{
{listen}    server_name _;
    add_header X-Tenant {tenant} always;
    add_header X-Worker {worker} always;
    location / {{
      default_type application/json;
      return 200 '{{"tenant":"{tenant}","worker":"{worker}","method":"$request_method","uri":"$request_uri","protocol":"$server_protocol","host":"$http_host","x_forwarded_for":"$http_x_forwarded_for","x_forwarded_proto":"$http_x_forwarded_proto","x_forwarded_host":"$http_x_forwarded_host","x_forwarded_port":"$http_x_forwarded_port"}}\n';
    }}
    location = /hello {{
      default_type text/plain;
      return 200 'hello from worker {worker} of tenant {tenant}\n';
    }}
    location /files/ {{ root {home}; }}
    location /upload/ {{
      root {home};
      dav_methods PUT DELETE;
    }}{websocket}
  }}
}}
"#
        )
    }
}

/// A running NGINX.
#[derive(Debug)]
pub struct Nginx {
    /// Its one process.
    pub process: Process,
    home: PathBuf,
}

impl Nginx {
    /// How many requests it has answered so far.
    #[must_use]
    pub fn answered(&self) -> usize {
        let log = std::fs::read(self.home.join("access.log")).unwrap_or_default();
        log.iter().filter(|byte| **byte == b'\n').count()
    }

    /// What was uploaded under this name.
    ///
    /// # Errors
    /// If nothing was.
    pub fn uploaded(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.home.join("upload").join(name);
        std::fs::read(&path).with_context(|| format!("read {}", path.display()))
    }

    fn wait_until_listening(&mut self) -> Result<()> {
        let pid_file = self.home.join("nginx.pid");
        let process = &mut self.process;
        // NGINX opens its sockets before it writes the file.
        wait::until_true("NGINX to write its pid file", || {
            process.ended().is_some() || pid_file.exists()
        })?;
        if let Some(status) = process.ended() {
            anyhow::bail!("NGINX ended at once ({status}):\n{}", process.log());
        }
        Ok(())
    }
}

/// Bytes that repeat late, so that a lost, doubled or moved piece shows.
#[must_use]
pub fn pattern(length: usize) -> Vec<u8> {
    let mut state: u32 = 0x9e37_79b9;
    std::iter::repeat_with(|| {
        // xorshift32: any generator without a short period would do.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    })
    .flatten()
    .take(length)
    .collect()
}
