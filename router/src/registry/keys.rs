//! Where records stand in the store.
//!
//! A host rule is part of a key with its characters in reverse: `*-7.example.org` is
//! `gro.elpmaxe.7-*`. So everything within a suffix is one range of keys, and a claim can say in a
//! transaction that nothing in that range has changed.
//!
//! ```text
//! route/<reversed rule>/<tenant>/<source>   RouteSource   source: an instance, or @api
//! instance/<tenant>/<instance>              Instance
//! zone/<tenant>/<reversed pattern>          Zone
//! token/<id>                                Token
//! ticket/secrets                            TicketSecrets
//! ticket/fresh                              nothing; while it is there, the secrets are young
//! meta/store-id                             text at random: which store this is
//! ```

use config::route::HostMatch;

use super::store::Range;

/// The source of routes that were put by a call of the API rather than by a registrar.
pub const API_SOURCE: &str = "@api";
/// The secrets of session tickets.
pub const TICKET_SECRETS: &str = "ticket/secrets";
/// Hangs on a lease that lasts as long as the newest secret is young.
pub const TICKET_FRESH: &str = "ticket/fresh";
/// Which store this is: text at random, written once by whoever lists a store that has none.
pub const STORE_ID: &str = "meta/store-id";

/// A key, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// What one source adds to a route.
    Route {
        /// The host rule.
        host: HostMatch,
        /// Who holds it.
        tenant: &'a str,
        /// The instance, or [`API_SOURCE`].
        source: &'a str,
    },
    /// A registrar's announcement.
    Instance {
        /// Whose it is.
        tenant: &'a str,
        /// Its name.
        instance: &'a str,
    },
    /// A zone.
    Zone {
        /// Whom it is leased to.
        tenant: &'a str,
        /// The names it covers, as in a host rule.
        pattern: HostMatch,
    },
    /// A token.
    Token(&'a str),
    /// [`TICKET_SECRETS`].
    TicketSecrets,
    /// [`TICKET_FRESH`].
    TicketFresh,
    /// [`STORE_ID`].
    StoreId,
}

impl<'a> Key<'a> {
    /// Takes a key apart; `None` if it is not one of ours.
    #[must_use]
    pub fn parse(key: &'a str) -> Option<Self> {
        let (kind, rest) = key.split_once('/')?;
        match kind {
            "route" => {
                let mut parts = rest.splitn(3, '/');
                let (host, tenant, source) = (parts.next()?, parts.next()?, parts.next()?);
                let host = HostMatch::parse(&reversed(host)).ok()?;
                Some(Self::Route {
                    host,
                    tenant,
                    source,
                })
            }
            "instance" => {
                let (tenant, instance) = rest.split_once('/')?;
                Some(Self::Instance { tenant, instance })
            }
            "zone" => {
                let (tenant, pattern) = rest.split_once('/')?;
                let pattern = HostMatch::parse(&reversed(pattern)).ok()?;
                Some(Self::Zone { tenant, pattern })
            }
            "token" => Some(Self::Token(rest)),
            _ if key == TICKET_SECRETS => Some(Self::TicketSecrets),
            _ if key == TICKET_FRESH => Some(Self::TicketFresh),
            _ if key == STORE_ID => Some(Self::StoreId),
            _ => None,
        }
    }
}

/// What one source adds to a route.
#[must_use]
pub fn route(host: &HostMatch, tenant: &str, source: &str) -> String {
    format!("{}{tenant}/{source}", of_host(host))
}

/// A registrar's announcement.
#[must_use]
pub fn instance(tenant: &str, instance: &str) -> String {
    format!("instance/{tenant}/{instance}")
}

/// A zone.
#[must_use]
pub fn zone(tenant: &str, pattern: &HostMatch) -> String {
    format!("zone/{tenant}/{}", reversed(&pattern.to_string()))
}

/// A token.
#[must_use]
pub fn token(id: &str) -> String {
    format!("token/{id}")
}

/// Every source of a route, whoever's.
#[must_use]
pub fn sources(host: &HostMatch) -> Range {
    Range::prefix(&of_host(host))
}

/// Every zone of a tenant.
#[must_use]
pub fn zones(tenant: &str) -> Range {
    Range::prefix(&format!("zone/{tenant}/"))
}

/// Every zone.
#[must_use]
pub fn all_zones() -> Range {
    Range::prefix("zone/")
}

/// Every route.
#[must_use]
pub fn all_routes() -> Range {
    Range::prefix("route/")
}

/// Everything that lies within a suffix, itself included. Names of more labels are in it as well,
/// which a rule does not take.
#[must_use]
pub fn within(suffix: &str) -> Range {
    Range::prefix(&format!("route/{}", reversed(suffix)))
}

fn of_host(host: &HostMatch) -> String {
    format!("route/{}/", reversed(&host.to_string()))
}

fn reversed(text: &str) -> String {
    text.chars().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> HostMatch {
        HostMatch::parse(text).unwrap()
    }

    #[test]
    fn keys_come_apart_as_they_were_put_together() {
        for text in ["www.example.org", "*.example.org", "*-apps-7.example.org"] {
            let (key, host) = (route(&host(text), "acme", "w1"), host(text));
            let (tenant, source) = ("acme", "w1");
            let parts = Key::Route {
                host: host.clone(),
                tenant,
                source,
            };
            assert_eq!(Key::parse(&key), Some(parts));
            let pattern = host;
            let key = zone(tenant, &pattern);
            assert_eq!(Key::parse(&key), Some(Key::Zone { tenant, pattern }));
        }
        let key = instance("acme", "w1");
        let (tenant, instance) = ("acme", "w1");
        assert_eq!(Key::parse(&key), Some(Key::Instance { tenant, instance }));
        assert_eq!(Key::parse("token/x"), Some(Key::Token("x")));
        assert_eq!(Key::parse(TICKET_SECRETS), Some(Key::TicketSecrets));
        assert_eq!(Key::parse(STORE_ID), Some(Key::StoreId));
        for odd in ["", "route", "route/x", "route/gro.x/a", "other/x"] {
            assert_eq!(Key::parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_suffix_is_one_range() {
        let range = within("-7.example.org");
        for (text, inside) in [
            ("*-7.example.org", true),
            ("a-7.example.org", true),
            ("*-b-7.example.org", true),
            ("a7.example.org", false),
            ("*.example.org", false),
            ("a-7.example.net", false),
        ] {
            let key = route(&host(text), "acme", "w1");
            assert_eq!(range.contains(&key), inside, "{text}");
        }
    }
}
