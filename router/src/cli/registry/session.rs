//! Asks one registry after the other until one answers.

use std::fmt::Write as _;

use anyhow::Context as _;
use config::net::kinds::check_label;
use config::net::parse_duration;
use daemon::output;
use serde::Serialize;

use super::ConnectionArgs;
use crate::registry::client::{Client, ClientError, ClientRuntime, Credentials, Proof};

/// clients of every registry, and a runtime for them.
pub(super) struct Session {
    pub(super) clients: Vec<Client>,
    pub(super) runtime: ClientRuntime,
    json: bool,
}

/// What is missing on the command line; the process then ends with 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(in crate::cli) struct WrongUsage(pub(super) &'static str);

impl Session {
    pub(super) fn open(args: &ConnectionArgs) -> anyhow::Result<Self> {
        if args.registry.is_empty() {
            return Err(WrongUsage(
                "which registry? Give --registry URL, or set GATEHOUSE_REGISTRY",
            )
            .into());
        }
        let proof = match (&args.certificate, &args.key, &args.token_file) {
            (Some(certificate), Some(key), _) => Proof::Certificate {
                certificate: certificate.clone(),
                key: key.clone(),
            },
            (None, None, Some(file)) => Proof::Token(file.clone()),
            (None, None, None) => {
                let what = "who asks? Give --token-file FILE, set GATEHOUSE_TOKEN_FILE, or give \
                            --certificate FILE --key FILE";
                return Err(WrongUsage(what).into());
            }
            _ => return Err(WrongUsage("--certificate and --key belong together").into()),
        };
        let credentials = Credentials {
            ca: args.ca.clone(),
            proof,
        };
        let client = |address: &_| Client::new(Clone::clone(address), credentials.clone());
        Ok(Self {
            clients: args.registry.iter().map(client).collect(),
            runtime: ClientRuntime::new().context("no runtime")?,
            json: args.json,
        })
    }

    /// The first answer. What others have failed with is part of the error, and of nothing else.
    pub(super) fn ask<T>(
        &self,
        question: impl AsyncFn(&Client) -> Result<T, ClientError>,
    ) -> anyhow::Result<T> {
        self.runtime.block_on(async {
            let mut failures = String::new();
            for client in &self.clients {
                match question(client).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => {
                        let separator = if failures.is_empty() { "" } else { "; " };
                        // Writing to a String cannot fail.
                        let _ = write!(failures, "{separator}{error}");
                        if !error.is_worth_another_registry() {
                            break;
                        }
                    }
                }
            }
            anyhow::bail!(failures)
        })
    }

    /// Prints as JSON or for people, whichever is wanted.
    pub(super) fn print(
        &self,
        value: &impl Serialize,
        for_people: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        let text = if self.json {
            serde_json::to_string_pretty(value)? + "\n"
        } else {
            for_people()
        };
        Ok(output::print(&text)?)
    }

    pub(super) fn is_json(&self) -> bool {
        self.json
    }
}

/// Reads a duration of whole seconds.
pub(super) fn seconds(text: &str) -> Result<u32, String> {
    let duration = parse_duration(text).map_err(|error| error.to_string())?;
    if duration.subsec_millis() != 0 || duration.is_zero() {
        return Err("whole seconds are expected, such as 90s or 1h".to_owned());
    }
    u32::try_from(duration.as_secs()).map_err(|_| "is too long".to_owned())
}

/// Reads the name of a tenant or an operator.
pub(super) fn name(text: &str) -> Result<String, String> {
    match check_label(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
