//! A registry that answers from a script, over real TLS on loopback: for what a real one does not
//! do on demand, such as dying or refusing one of two routes.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::{Client, Credentials, Proof};
use crate::tls::pki::{self, Pair};

/// A tenant's token, one for each number.
pub(crate) fn token(number: u8) -> String {
    format!("ghr_{number:016x}_{number:064x}")
}

/// A throw-away authority, and what it signed, in a folder.
pub(crate) struct Authority {
    authority: pki::Authority,
    pub(crate) folder: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let authority = pki::Authority::new("throw-away");
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), &authority.pem).unwrap();
        Self { authority, folder }
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Writes a file that is for its owner alone.
    pub(crate) fn secret(&self, name: &str, text: &str) -> PathBuf {
        let file = self.folder.path().join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        file
    }

    /// Credentials of a client with a token.
    pub(crate) fn token(&self) -> Credentials {
        Credentials {
            ca: Some(self.ca()),
            proof: Proof::Token(self.secret("token", &token(1))),
        }
    }

    /// Credentials of a client with a certificate.
    pub(crate) fn certificate(&self) -> Credentials {
        let Pair { chain, key, .. } = self.authority.client(&[]);
        let certificate = self.folder.path().join("client.crt");
        fs::write(&certificate, chain).unwrap();
        let key = self.secret("client.key", &key);
        Credentials {
            ca: Some(self.ca()),
            proof: Proof::Certificate { certificate, key },
        }
    }
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) fields: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether the client has shown a certificate.
    pub(crate) certificate: bool,
    /// Counts connections.
    pub(crate) connection: usize,
}

impl Seen {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What is answered.
pub(crate) enum Reply {
    Answer(Response<Full<Bytes>>),
    /// Nothing, ever.
    Hang,
    /// The connection ends.
    Break,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Self::Answer(response)
    }

    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        let mut response = Response::new(Full::new(body.to_string().into()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Self::Answer(response)
    }

    pub(crate) fn problem(status: u16, reason: &str, host: Option<&str>) -> Self {
        let mut body = serde_json::json!({
            "type": "about:blank", "status": status, "reason": reason,
            "detail": format!("because of {reason}"),
        });
        if let Some(host) = host {
            body["host"] = host.into();
        }
        Self::json(status, &body)
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Self::Answer(response) = &mut self {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        self
    }
}

type Script = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

/// The server.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    acceptor: TlsAcceptor,
    script: Script,
    seen: Arc<Mutex<Vec<Seen>>>,
    serving: Option<JoinHandle<()>>,
}

impl Scripted {
    /// Serves on a port of its own.
    pub(crate) async fn start(
        authority: &Authority,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_as("127.0.0.1", authority, script).await
    }

    /// The same with a certificate for this name.
    pub(crate) async fn start_as(
        name: &str,
        authority: &Authority,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let (chain, key) = authority.authority.server(name).der();
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(authority.ca()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
            .allow_unauthenticated()
            .build()
            .unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .unwrap();
        let mut scripted = Self {
            address: "127.0.0.1:0".parse().unwrap(),
            acceptor: TlsAcceptor::from(Arc::new(config)),
            script: Arc::new(script),
            seen: Arc::default(),
            serving: None,
        };
        scripted.revive().await;
        scripted
    }

    /// `https://` and so on.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(crate) fn client(&self, credentials: Credentials) -> Client {
        Client::new(self.url().parse().unwrap(), credentials)
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until `enough` requests were seen.
    pub(crate) async fn wait_for(&self, enough: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let begun = Instant::now();
        loop {
            let seen = self.seen();
            if enough(&seen) {
                return seen;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "saw only {seen:#?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the listener and every connection, as a crash does.
    pub(crate) async fn kill(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
    }

    /// Listens again at the same address.
    pub(crate) async fn revive(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let serving = serve(
            listener,
            self.acceptor.clone(),
            Arc::clone(&self.script),
            Arc::clone(&self.seen),
        );
        self.serving = Some(tokio::spawn(serving));
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    script: Script,
    seen: Arc<Mutex<Vec<Seen>>>,
) {
    let mut connections = JoinSet::new();
    for number in 0.. {
        let (tcp, _) = listener.accept().await.unwrap();
        let (acceptor, script, seen) = (acceptor.clone(), Arc::clone(&script), Arc::clone(&seen));
        connections.spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else {
                return;
            };
            let certificate = tls.get_ref().1.peer_certificates().is_some();
            let service = service_fn(move |request: Request<Incoming>| {
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                async move {
                    let (head, body) = request.into_parts();
                    let request = Seen {
                        at: Instant::now(),
                        method: head.method,
                        path: head.uri.to_string(),
                        fields: head.headers,
                        body: body.collect().await.unwrap().to_bytes(),
                        certificate,
                        connection: number,
                    };
                    seen.lock().unwrap().push(request.clone());
                    match script(&request) {
                        Reply::Answer(response) => Ok(response),
                        Reply::Hang => std::future::pending().await,
                        Reply::Break => Err("broken"),
                    }
                }
            });
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(tls), service)
                .await;
        });
    }
}
