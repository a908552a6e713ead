//! An explanation for people.

use std::fmt::{self, Display, Formatter};

use super::{CertificateChoice, Explanation, FieldChanges, Outcome, UpstreamChoice};

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.url)?;
        if let Some(certificate) = &self.certificate {
            write!(f, "{certificate}")?;
        }
        self.rules(f)?;
        if let Some(upstream) = &self.upstream {
            write!(f, "{upstream}")?;
        }
        if let Some(fields) = &self.fields {
            write!(f, "{fields}")?;
        }
        writeln!(f, "{:<13}{}", "outcome", self.outcome)
    }
}

impl Explanation {
    fn rules(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut label = "rule";
        // In the order of the table: exact, then the longest suffix. The first that exists wins.
        for candidate in &self.candidates {
            let result = match (&candidate.tenant, &self.rule) {
                (None, _) => "no such rule".to_owned(),
                (Some(_), Some(rule)) if rule.host == candidate.host => {
                    let place = match (&rule.file, rule.line) {
                        (Some(file), Some(line)) => format!("{}:{line}", file.display()),
                        _ => format!("the {}", rule.source),
                    };
                    format!("tenant {}, {place}: first match, so it wins", rule.tenant)
                }
                (Some(tenant), Some(_)) => format!("tenant {tenant}: shorter, so it loses"),
                (Some(tenant), None) => format!("tenant {tenant}: not asked"),
            };
            writeln!(f, "{label:<13}{:<32} {result}", candidate.host)?;
            label = "";
        }
        Ok(())
    }
}

impl Display for CertificateChoice {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut label = "certificate";
        for shown in &self.shown {
            let over = if shown.expired { "EXPIRED on" } else { "until" };
            let (file, key, end) = (shown.file.display(), &shown.key, &shown.expires);
            writeln!(f, "{label:<13}{file} ({key}, {over} {end})")?;
            writeln!(f, "{:<13}  for {}", "", shown.names.join(", "))?;
            label = "";
        }
        writeln!(f, "{:<13}  because it is {}", "", because(&self.why))
    }
}

/// `holds the name x` reads as `one that holds the name x`; the default is a noun already.
fn because(why: &str) -> String {
    match why.strip_prefix("holds") {
        Some(rest) => format!("one that holds{rest}"),
        None => why.to_owned(),
    }
}

impl Display for UpstreamChoice {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let security = match &self.tls_server_name {
            Some(name) => format!("by TLS as {name}"),
            None => "in plain text".to_owned(),
        };
        let (name, protocol) = (&self.name, self.protocol);
        writeln!(f, "{:<13}{name}: {protocol} {security}", "upstream")?;
        for endpoint in &self.endpoints {
            writeln!(f, "{:<13}  {endpoint}", "")?;
        }
        Ok(())
    }
}

impl Display for FieldChanges {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let trust = if self.client_is_trusted {
            "the client is a trusted proxy: its forwarding fields are kept and added to"
        } else {
            "the client is not a trusted proxy: its forwarding fields are dropped"
        };
        writeln!(f, "{:<13}{trust}", "fields")?;
        // The parser has let no control bytes through.
        for line in &self.removed {
            writeln!(f, "{:<13}- {line}", "")?;
        }
        for line in &self.added {
            writeln!(f, "{:<13}+ {line}", "")?;
        }
        Ok(())
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forwarded { upgrade: None } => f.write_str("forwarded to one of the endpoints"),
            Self::Forwarded {
                upgrade: Some(protocol),
            } => write!(
                f,
                "forwarded to one of the endpoints, which may switch to {protocol}"
            ),
            Self::Redirected { status, location } => {
                write!(f, "{status} to {location}: plain HTTP is never forwarded")
            }
            Self::Refused {
                status,
                reason,
                why,
            } => write!(f, "{status} ({reason}): {why}"),
            Self::HandshakeRefused { why } => write!(f, "TLS handshake refused: {why}"),
        }
    }
}
