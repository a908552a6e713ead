//! TLS clients that accept any certificate and tell what they saw.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion, version,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tls::{AcceptError, Accepted, CertificateStore, accept};

pub(super) const TLS12: &[&SupportedProtocolVersion] = &[&version::TLS12];
pub(super) const TLS13: &[&SupportedProtocolVersion] = &[&version::TLS13];

pub(super) const ECDSA_SCHEMES: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];
pub(super) const RSA_SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PKCS1_SHA256,
];

/// A client of some versions and signature schemes.
pub(super) fn client_of(
    versions: &[&'static SupportedProtocolVersion],
    schemes: &[SignatureScheme],
) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions of the provider")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous(schemes.to_vec())))
        .with_no_client_auth()
}

/// A client that can do everything.
pub(super) fn client() -> ClientConfig {
    client_of(
        &[&version::TLS13, &version::TLS12],
        &[ECDSA_SCHEMES, RSA_SCHEMES].concat(),
    )
}

pub(super) fn client_with_alpn(protocols: &[&str]) -> ClientConfig {
    let mut config = client();
    config.alpn_protocols = protocols.iter().map(|&protocol| protocol.into()).collect();
    config
}

pub(super) type Served = Result<Accepted<DuplexStream>, AcceptError>;
pub(super) type Connected = io::Result<TlsStream<DuplexStream>>;

/// One handshake, both ends. A byte goes from server to client, so that tickets arrive.
pub(super) async fn shake(
    store: &CertificateStore,
    client: &Arc<ClientConfig>,
    name: &str,
) -> (Served, Connected) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let server = async {
        let mut served = accept(near, |sni| store.select(sni), Duration::from_secs(20)).await;
        if let Ok(accepted) = &mut served {
            // A client that did not like the certificate is gone by now.
            let _ = accepted.stream.write_all(b"!").await;
            let _ = accepted.stream.flush().await;
        }
        served
    };
    let name = ServerName::try_from(name.to_owned()).expect("a server name");
    let client = async {
        let mut stream = TlsConnector::from(Arc::clone(client))
            .connect(name, far)
            .await?;
        stream.read_u8().await?;
        Ok(stream)
    };
    tokio::join!(server, client)
}

/// The pair a client was shown.
pub(super) fn shown(store: &CertificateStore, connected: &TlsStream<DuplexStream>) -> String {
    let leaf = &connected
        .get_ref()
        .1
        .peer_certificates()
        .expect("a server shows one")[0];
    let pair = store
        .iter()
        .find(|certificate| certificate.key().cert[0] == *leaf);
    pair.expect("it is one of the store's").pair().to_owned()
}

/// What rustls says went wrong.
pub(super) fn tls_error<T>(result: io::Result<T>) -> rustls::Error {
    let error = result.err().expect("a failed handshake");
    error.downcast::<rustls::Error>().expect("an error of TLS")
}

#[derive(Debug)]
struct Credulous(Vec<SignatureScheme>);

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
