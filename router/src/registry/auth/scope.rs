//! What a scoped credential may change: less than its tenant may. A stolen one is worth as much as
//! what it was issued for, not every name of the tenant.
//!
//! ```text
//!                     announce, withdraw         put, delete routes
//! no scope            as any instance            any
//! with `instance`     as this one                none
//! without `instance`  none                       within `patterns`
//! ```
//!
//! Names and endpoints must be within `patterns` and `addresses`, where there are any; what zones
//! say is judged besides.

use std::net::SocketAddr;

use config::route::HostMatch;

use crate::registry::claims::zone_covers;
use crate::registry::record::{Pattern, RouteSource, Scope};

/// What is beyond a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutsideScope {
    /// It is for an instance, and another one was named.
    Instance(String),
    /// It is for an instance, and a route was to be put or deleted.
    OnlyAnnounces,
    /// It is for routes, and something was to be announced or withdrawn.
    OnlyPuts,
    /// A name.
    Name(HostMatch),
    /// An address of a name's endpoint.
    Address(HostMatch, SocketAddr),
}

impl Scope {
    /// Whether it announces these as this instance.
    ///
    /// # Errors
    /// The first thing that is beyond it.
    pub fn announces(
        &self,
        instance: &str,
        routes: &[(HostMatch, RouteSource)],
    ) -> Result<(), OutsideScope> {
        self.withdraws(instance)?;
        let mut routes = routes.iter();
        routes.try_for_each(|(host, source)| self.holds(host, &source.endpoints))
    }

    /// Whether it withdraws what this instance announced.
    ///
    /// # Errors
    /// It is for another one, or for none.
    pub fn withdraws(&self, instance: &str) -> Result<(), OutsideScope> {
        match &self.instance {
            Some(own) if own == instance => Ok(()),
            Some(own) => Err(OutsideScope::Instance(own.clone())),
            None => Err(OutsideScope::OnlyPuts),
        }
    }

    /// Whether it puts, or with no endpoints deletes, this route.
    ///
    /// # Errors
    /// What is beyond it.
    pub fn puts(&self, host: &HostMatch, endpoints: &[SocketAddr]) -> Result<(), OutsideScope> {
        if self.instance.is_some() {
            return Err(OutsideScope::OnlyAnnounces);
        }
        self.holds(host, endpoints)
    }

    fn holds(&self, host: &HostMatch, endpoints: &[SocketAddr]) -> Result<(), OutsideScope> {
        let covers = |Pattern(pattern): &Pattern| zone_covers(pattern, host);
        if !self.patterns.is_empty() && !self.patterns.iter().any(covers) {
            return Err(OutsideScope::Name(host.clone()));
        }
        let stray = endpoints.iter().find(|endpoint| {
            let mut ranges = self.addresses.iter();
            !self.addresses.is_empty() && !ranges.any(|range| range.contains(endpoint.ip()))
        });
        match stray {
            Some(stray) => Err(OutsideScope::Address(host.clone(), *stray)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_limit_is_no_scope_at_all() {
        let read = |text| serde_json::from_str::<Scope>(text);
        assert_eq!(read("{}").unwrap(), Scope::default());
        assert!(
            read(r#"{"instance":"w1","patterns":["*.a.org"],"addresses":["10.0.0.0/8"]}"#).is_ok()
        );
        for wrong in [
            r#"{"methods":["GET"]}"#,
            r#"{"patterns":["*"]}"#,
            r#"{"addresses":["10.0.0.1/8"]}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
