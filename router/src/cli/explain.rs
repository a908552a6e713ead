//! `router explain`.

use std::net::IpAddr;
use std::time::SystemTime;

use clap::Args;
use daemon::output;

use super::{ConfigArgs, FAILED, OK, mention_registry};
use crate::control::build::build_once;
use crate::explain::{InvalidQuestion, Question, explain as answer};

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The URL, for example https://www.example.org/path
    url: String,
    #[command(flatten)]
    config: ConfigArgs,
    /// Server name of the handshake, if it is not the URL's host: a browser may use a connection
    /// that it opened for another name
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// Address of the peer, which decides whether its forwarding fields are believed
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// Method of the request
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// A field of the request; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn explain(args: &ExplainArgs) -> anyhow::Result<u8> {
    let question = question(args)?;
    let now = SystemTime::now();
    let built = match build_once(&args.config.config, now) {
        Ok(built) => built,
        Err(errors) => {
            output::complain(&errors.report());
            return Ok(FAILED);
        }
    };
    let explanation = answer(&built.snapshot, &question, now);
    output::print(&if args.json {
        serde_json::to_string_pretty(&explanation)? + "\n"
    } else {
        explanation.to_string()
    })?;
    mention_registry(&built);
    Ok(OK)
}

fn question(args: &ExplainArgs) -> Result<Question, InvalidQuestion> {
    let mut question = Question::new(&args.url)?;
    if let Some(sni) = &args.sni {
        question.sni = Some(sni.clone());
    }
    if let Some(client) = args.client {
        question.client = client;
    }
    question.method.clone_from(&args.method);
    for header in &args.headers {
        question.field(header)?;
    }
    Ok(question)
}
