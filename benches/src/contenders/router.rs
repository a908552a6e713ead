//! Gatehouse's router.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::contender::{Launch, Place, first_line};
use crate::site::HOST;

/// Writes `router.yaml`, one route file and a certificate folder.
pub(crate) fn launch(place: &Place, binary: &Path) -> Result<Launch> {
    let certificates = place.home.join("certificates");
    let routes = place.home.join("routes.d");
    fs::create_dir_all(&certificates).context("certificate folder")?;
    fs::create_dir_all(&routes).context("route folder")?;
    fs::copy(&place.certificate, certificates.join("bench.crt")).context("certificate")?;
    let key = certificates.join("bench.key");
    fs::copy(&place.key, &key).context("key")?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).context("key")?;

    let settings = settings(place, &certificates);
    let route = route(place);
    let path = place.home.join("router.yaml");
    fs::write(&path, &settings).context("router.yaml")?;
    fs::write(routes.join("bench.yaml"), &route).context("route file")?;
    let mut command = Command::new(binary);
    command.arg("run").arg("--config").arg(&path);
    let configuration = format!("{settings}\n# routes.d/bench.yaml\n{route}");
    Ok(Launch {
        command,
        configuration,
    })
}

pub(crate) fn version(binary: &Path) -> String {
    first_line(binary, &["--version"])
}

fn settings(place: &Place, certificates: &Path) -> String {
    let Place { http, https, .. } = place;
    let certificates = certificates.display();
    format!(
        "\
http: {{addresses: [\"{http}\"], redirect: 308}}
https: {{addresses: [\"{https}\"]}}
certificates: {{directory: {certificates}, default: bench}}
routes: [routes.d]
workers: 1
access_log: false
timeouts: {{client_idle: 600s}}
limits: {{idle_per_endpoint: 256}}
"
    )
}

fn route(place: &Place) -> String {
    let backend = place.backend;
    format!(
        "\
tenant: bench
upstreams:
  workers: {{protocol: http1, endpoints: [\"{backend}\"]}}
routes:
  - {{host: \"{HOST}\", upstream: workers}}
"
    )
}
