//! What all contenders share: a folder in memory, a certificate, ports.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rcgen::{CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

/// The host name of every request.
pub(crate) const HOST: &str = "bench.example.org";
/// What the hosts are called that stand in a registry.
const HOSTS: &str = "*.k8s.example.org";

// Below Linux' ephemeral ports, so that no client connection sits on a port before its server.
const PORTS: RangeInclusive<u16> = 21_000..=31_000;

/// The folder is removed when this is dropped.
pub(crate) struct Site {
    folder: TempDir,
    /// PEM certificate for [`HOST`] and [`HOSTS`], ECDSA P-256, signed by [`Site::authority`].
    pub(crate) certificate: PathBuf,
    /// Its PEM private key.
    pub(crate) key: PathBuf,
    /// The throw-away authority that signed it.
    pub(crate) authority: CertificateDer<'static>,
    ports: RangeInclusive<u16>,
}

impl Site {
    /// Makes the folder (in memory where `/dev/shm` exists) and the certificate.
    pub(crate) fn new() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("gatehouse-bench-")
            .tempdir_in(memory_folder())
            .context("temporary folder")?;
        let (certificate_pem, key_pem, authority) = certificate().context("certificate")?;
        let certificate = folder.path().join("bench.crt");
        let key = folder.path().join("bench.key");
        fs::write(&certificate, certificate_pem).context("certificate")?;
        fs::write(&key, key_pem).context("key")?;
        Ok(Site {
            folder,
            certificate,
            key,
            authority,
            ports: PORTS,
        })
    }

    /// A folder for one process.
    pub(crate) fn home(&self, name: &str) -> Result<PathBuf> {
        let home = self.folder.path().join(name);
        fs::create_dir_all(&home).with_context(|| format!("folder {}", home.display()))?;
        Ok(home)
    }

    /// A loopback address nobody listens on; never the same one twice.
    pub(crate) fn address(&mut self) -> Result<SocketAddr> {
        for port in self.ports.by_ref() {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if TcpListener::bind(address).is_ok() {
                return Ok(address);
            }
        }
        bail!(
            "no port is free between {} and {}",
            PORTS.start(),
            PORTS.end()
        )
    }
}

/// `/dev/shm` where it exists, so that no disk is measured.
pub(crate) fn memory_folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => memory.to_owned(),
        false => std::env::temp_dir(),
    }
}

fn certificate() -> Result<(String, String, CertificateDer<'static>)> {
    // KeyPair::generate makes ECDSA P-256, as Let's Encrypt clients do by default.
    let mut authority = CertificateParams::default();
    authority
        .distinguished_name
        .push(DnType::CommonName, "Gatehouse bench authority");
    authority.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let mut leaf = CertificateParams::new(vec![HOST.to_owned(), HOSTS.to_owned()])?;
    leaf.extended_key_usages
        .push(ExtendedKeyUsagePurpose::ServerAuth);
    let key = KeyPair::generate()?;
    let leaf = leaf.signed_by(&key, &authority)?;
    Ok((leaf.pem(), key.serialize_pem(), authority.der().clone()))
}
