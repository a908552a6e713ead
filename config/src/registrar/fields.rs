//! The fields of `registrar.yaml`, and what must fit together in it.

use std::time::Duration;

use serde_json::json;

use super::{Announcement, Check, Credentials, Probe, RegistrarConfig};
use crate::announcement::{MOST_ROUTES, TTL_SECONDS};
use crate::error::{InvalidValue, quoted};
use crate::net::kinds::{duration, label, socket_address};
use crate::net::url::{https_url, url};
use crate::reader::kinds::{
    Boolean, FilePath, Placed, choice, integer, list, mapping, placed, refuse_twice, text, values,
};
use crate::reader::{Fields, Mapping};
use crate::route::{HostMatch, UpstreamProtocol};

impl Mapping for RegistrarConfig {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let tenant = f.required("tenant", "The tenant whose names are announced.", label());
        let instance = f.optional(
            "instance",
            "This instance's name among the tenant's. The host's name when absent.",
            label(),
        );
        let registries = f.required(
            "registries",
            "https:// addresses of every registry; all are tried.",
            list(placed(https_url())).of_length(1..=16),
        );
        let ca = f.optional(
            "ca",
            "PEM file of the authorities that sign the registries' certificates. The system's \
             when absent.",
            FilePath,
        );
        let credentials = f.required(
            "credentials",
            "What proves the tenant: `certificate` and `key`, or `token`.",
            mapping::<Credentials>(),
        );
        let [shortest, longest] = [TTL_SECONDS.start(), TTL_SECONDS.end()]
            .map(|&seconds| Duration::from_secs(seconds.into()));
        let ttl = f.defaulted(
            "ttl",
            "How long an announcement holds without renewal, 5s to 1h.",
            duration().within(shortest, longest),
            json!("60s"),
        );
        let renew = f.defaulted(
            "renew",
            "How often it is renewed; at most half of `ttl`.",
            duration().within(Duration::from_secs(1), longest),
            json!("20s"),
        );
        let admin = f.optional(
            "admin",
            "Address of the page with metrics and health; loopback only. None when absent.",
            placed(socket_address()),
        );
        let routes = f.required(
            "routes",
            "What is announced; 1 to 32.",
            list(placed(mapping::<Announcement>())).of_length(1..=MOST_ROUTES),
        );
        if let Some(Some(admin)) = &admin
            && !admin.value.ip().is_loopback()
        {
            let message = format!("{} is not a loopback address", admin.value.ip());
            let help = "the page has no access control: use 127.0.0.1 or [::1]";
            f.refuse_item(admin, InvalidValue::new(message).help(help));
        }
        if let Some(registries) = &registries {
            refuse_twice(f, registries, "this registry", |url| {
                url.to_ascii_lowercase()
            });
        }
        if let Some(routes) = &routes {
            refuse_twice(f, routes, "this route", |route| {
                (route.host.clone(), route.endpoint)
            });
            refuse_discord(f, routes);
        }
        if let (Some(ttl), Some(renew)) = (ttl, renew)
            && renew > ttl / 2
        {
            let reason = InvalidValue::new("must be at most half of `ttl`");
            f.refuse(
                "renew",
                reason.help("one lost renewal must not withdraw the route"),
            );
        }
        Some(Self {
            tenant: tenant?,
            instance: instance?,
            registries: values(registries?),
            ca: ca?,
            credentials: credentials?,
            ttl: ttl?,
            renew: renew?,
            admin: admin?.map(|admin| admin.value),
            routes: values(routes?),
        })
    }
}

/// The registry keeps one record for each name that an instance announces: endpoints are several
/// in it, what is spoken towards them is not.
fn refuse_discord(f: &mut Fields<'_>, routes: &[Placed<Announcement>]) {
    for (index, later) in routes.iter().enumerate() {
        let spoken = |route: &Announcement| (route.protocol, route.tls.clone(), route.shared);
        let discord = routes[..index].iter().find(|earlier| {
            earlier.value.host == later.value.host && spoken(&earlier.value) != spoken(&later.value)
        });
        if let Some(earlier) = discord {
            let reason = InvalidValue::new(format!(
                "{} is announced otherwise in line {}",
                quoted(&later.value.host.to_string()),
                earlier.position.line
            ));
            let help = "endpoints of one name must agree on `protocol`, `tls` and `shared`";
            f.refuse_item(later, reason.help(help));
        }
    }
}

impl Mapping for Credentials {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let certificate = f.optional("certificate", "PEM file of the client's chain.", FilePath);
        let key = f.optional("key", "PEM file of the client's private key.", FilePath);
        let token = f.optional("token", "File that holds a bearer token.", FilePath);
        match (certificate?, key?, token?) {
            (Some(certificate), Some(key), None) => Some(Self::Certificate { certificate, key }),
            (None, None, Some(token)) => Some(Self::Token(token)),
            (_, _, Some(_)) => {
                f.refuse(
                    "token",
                    InvalidValue::new("stands beside a certificate or key")
                        .help("give either `certificate` and `key`, or `token`"),
                );
                None
            }
            _ => {
                f.refuse_all(
                    InvalidValue::new("is incomplete")
                        .help("give either `certificate` and `key`, or `token`"),
                );
                None
            }
        }
    }
}

impl Mapping for Announcement {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let host = f.required(
            "host",
            "Which hosts the route takes: a name, or a star with a suffix.",
            HostMatch::kind(),
        );
        let endpoint = f.required(
            "endpoint",
            "This instance's endpoint, as routers reach it.",
            placed(socket_address()),
        );
        let protocol = f.defaulted(
            "protocol",
            "The HTTP version spoken towards the endpoint.",
            UpstreamProtocol::kind(),
            json!("http1"),
        );
        let tls = f.optional(
            "tls",
            "TLS towards the endpoint; plain text when absent.",
            mapping(),
        );
        let shared = f.defaulted(
            "shared",
            "Whether other tenants may hold narrower names beneath this suffix.",
            Boolean,
            json!(false),
        );
        let check = f.required(
            "check",
            "When the endpoint counts as healthy.",
            mapping::<Check>(),
        );
        if let Some(endpoint) = &endpoint
            && endpoint.value.ip().is_unspecified()
        {
            let reason = InvalidValue::new("is no address that a router could reach");
            f.refuse_item(endpoint, reason.help("write this instance's own address"));
        }
        Some(Self {
            host: host?,
            endpoint: endpoint?.value,
            protocol: protocol?,
            tls: tls?,
            shared: shared?,
            check: check?,
        })
    }
}

/// The word that says which probe is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ProbeWord {
    Tcp,
    Http,
    Script,
}

impl Mapping for Check {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let word = f.required(
            "kind",
            "What is tried: a connection, a GET, or a program.",
            choice(&[
                ("tcp", ProbeWord::Tcp),
                ("http", ProbeWord::Http),
                ("script", ProbeWord::Script),
            ]),
        );
        let address = f.optional(
            "address",
            "With `tcp`: where to. The endpoint when absent.",
            socket_address(),
        );
        let url = f.optional(
            "url",
            "With `http`: what to GET; 200 to 399 is healthy.",
            url(),
        );
        let command = f.optional(
            "command",
            "With `script`: an absolute path and arguments; status 0 is healthy. No shell.",
            list(text("an argument", None, argument)).of_length(1..=64),
        );
        let interval = f.defaulted(
            "interval",
            "From the start of one check to the start of the next.",
            duration(),
            json!("5s"),
        );
        let timeout = f.defaulted(
            "timeout",
            "How long one check may take.",
            duration(),
            json!("2s"),
        );
        let failures = f.defaulted(
            "failures",
            "Failures in a row until the route is withdrawn: with the defaults, after 5 to 10 s.",
            integer(1..=100),
            json!(2),
        );
        let successes = f.defaulted(
            "successes",
            "Successes in a row until a route that was not healthy is announced again. After a start \
             the first result counts.",
            integer(1..=100),
            json!(1),
        );
        if let (Some(interval), Some(timeout)) = (interval, timeout)
            && timeout > interval
        {
            f.refuse("timeout", InvalidValue::new("must be at most `interval`"));
        }
        if let Some(Some(command)) = &command
            && !command[0].starts_with('/')
        {
            let reason =
                InvalidValue::new(format!("{} is not an absolute path", quoted(&command[0])));
            f.refuse("command", reason);
        }
        let (word, address, url, command) = (word?, address?, url?, command?);
        for (name, given, its) in [
            ("address", address.is_some(), ProbeWord::Tcp),
            ("url", url.is_some(), ProbeWord::Http),
            ("command", command.is_some(), ProbeWord::Script),
        ] {
            if given && word != its {
                f.refuse(
                    name,
                    InvalidValue::new("does not belong to this kind of check"),
                );
            }
        }
        let probe = match (word, url, command) {
            (ProbeWord::Tcp, ..) => Probe::Tcp { address },
            (ProbeWord::Http, Some(url), _) => Probe::Http { url },
            (ProbeWord::Script, _, Some(command)) => Probe::Script { command },
            (ProbeWord::Http, None, _) => {
                f.refuse_all(InvalidValue::new("a check of kind `http` needs `url`"));
                return None;
            }
            (ProbeWord::Script, _, None) => {
                f.refuse_all(InvalidValue::new(
                    "a check of kind `script` needs `command`",
                ));
                return None;
            }
        };
        Some(Self {
            probe,
            interval: interval?,
            timeout: timeout?,
            failures: u32::try_from(failures?).ok()?,
            successes: u32::try_from(successes?).ok()?,
        })
    }
}

fn argument(value: &str) -> Result<String, InvalidValue> {
    Ok(value.to_owned())
}
