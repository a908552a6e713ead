//! `router.yaml`: what is accepted, what it means, and what is refused.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use config::router::{RedirectStatus, RouterConfig};

const MINIMAL: &str = "certificates:\n  directory: certs\nroutes: [routes.d]\n";

fn parse(text: &str) -> Result<RouterConfig, config::ConfigErrors> {
    RouterConfig::parse(text, Path::new("/etc/gatehouse/router.yaml"))
}

#[test]
fn ten_lines_are_enough() {
    let router = parse(MINIMAL).unwrap();
    assert_eq!(
        router.certificates.directory,
        PathBuf::from("/etc/gatehouse/certs")
    );
    assert_eq!(router.http.redirect, RedirectStatus::PermanentRedirect);
}
