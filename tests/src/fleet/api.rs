//! The registry's API, called the plain way: one request, one connection.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::client::{Connection, TlsClient};
use crate::namespace::Namespace;

/// Longer than the API's own deadlines, so that its answer is seen and not our impatience.
const PATIENCE: Duration = Duration::from_secs(20);

/// A caller, and the registry that it calls.
#[derive(Clone, Debug)]
pub struct Api {
    /// Whom it trusts, and its certificate if it has one.
    pub tls: TlsClient,
    /// Where it calls from.
    pub namespace: Namespace,
    /// Where the registry listens.
    pub address: SocketAddr,
    /// Its bearer token.
    pub token: Option<String>,
}

/// What the registry answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body; null when there is none.
    pub body: Value,
}

impl Answer {
    /// The reason that an error gives.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.body["reason"].as_str().unwrap_or_default()
    }
}

impl Api {
    /// Calls it.
    ///
    /// # Errors
    /// If no answer comes, or its body is no JSON.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        self.call_on(&mut self.connect()?, method, path, body)
    }

    /// Connects to it.
    ///
    /// # Errors
    /// If that fails.
    pub fn connect(&self) -> Result<Connection> {
        let name = self.address.ip().to_string();
        let connect = || self.tls.connect_within(self.address, &name, PATIENCE);
        self.namespace.run(connect)
    }

    /// As [`Api::call`], on a connection that was made before and ends with this call.
    ///
    /// # Errors
    /// As [`Api::call`].
    pub fn call_on(
        &self,
        connection: &mut Connection,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer> {
        let body = body.map_or_else(String::new, Value::to_string);
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n",
            self.address,
            body.len()
        );
        if !body.is_empty() {
            request.push_str("Content-Type: application/json\r\n");
        }
        if let Some(token) = &self.token {
            request.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        let request = format!("{request}\r\n{body}");
        let response = connection.exchange(request)?;
        let text = response.text();
        let body = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text)
                .with_context(|| format!("{method} {path}: not JSON: {text}"))?
        };
        Ok(Answer {
            status: response.status,
            body,
        })
    }

    /// Calls it and insists on success; gives the body.
    ///
    /// # Errors
    /// As [`Api::call`], and if the status is none of 200 to 299.
    pub fn succeed(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let answer = self.call(method, path, body)?;
        ensure!(
            (200..300).contains(&answer.status),
            "{method} {path}: {} {}",
            answer.status,
            answer.body
        );
        Ok(answer.body)
    }
}
