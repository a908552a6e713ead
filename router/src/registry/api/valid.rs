//! From what was sent to what it means, or why it means nothing.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use config::announcement::{MOST_PEM_BYTES, MOST_ROUTES, TTL_SECONDS};
use config::net::IpRange;
use config::net::kinds::check_label;
use config::route::HostMatch;
use rustls::pki_types::ServerName;

use super::problem::{Problem, reason};
use super::types::{AnnouncedRoute, Announcement, MAX_ENDPOINTS, RouteSpec};
use super::types::{TokenSpec, ZoneSpec};
use crate::registry::auth::scope::OutsideScope;
use crate::registry::auth::{Caller, Role};
use crate::registry::record::{Check, RouteSource, Scope, Tls, Trust, Zone};
use crate::tls::authorities;

/// Address ranges of a zone.
const MAX_RANGES: usize = 256;
/// Patterns of a token's scope.
const MAX_PATTERNS: usize = 32;
/// Characters of a token's note.
const MAX_NOTE: usize = 200;
/// Ten years.
const LONGEST_TOKEN: u32 = 315_360_000;

/// A host rule of the path.
pub(super) fn host(text: &str) -> Result<HostMatch, Problem> {
    HostMatch::parse(text).map_err(|wrong| Problem::invalid(format!("host: {}", wrong.message)))
}

/// A tenant's or an instance's name.
pub(super) fn label<'a>(what: &str, text: &'a str) -> Result<&'a str, Problem> {
    match check_label(text) {
        Ok(()) => Ok(text),
        Err(wrong) => {
            let help = wrong.help.unwrap_or_default();
            Err(Problem::invalid(format!(
                "{what}: {}: {help}",
                wrong.message
            )))
        }
    }
}

/// The tenant that a caller may act for: its own, or for an operator any.
pub(super) fn acting_for<'a>(caller: &'a Caller, tenant: &'a str) -> Result<&'a str, Problem> {
    match &caller.role {
        Role::Operator(_) => label("tenant", tenant),
        Role::Tenant(own) if **own == *tenant => Ok(tenant),
        Role::Tenant(own) => {
            let detail = format!("the credential is tenant {own}'s");
            Err(Problem::forbidden(reason::WRONG_TENANT, detail))
        }
    }
}

/// Passes whoever has no scope, and whoever's allows it.
pub(super) fn in_scope(
    caller: &Caller,
    allows: impl FnOnce(&Scope) -> Result<(), OutsideScope>,
) -> Result<(), Problem> {
    let Some(Err(outside)) = caller.scope.as_deref().map(allows) else {
        return Ok(());
    };
    let problem = |detail| Problem::forbidden(reason::OUTSIDE_SCOPE, detail);
    Err(match outside {
        OutsideScope::Instance(own) => {
            problem(format!("the credential is good for instance {own} only"))
        }
        OutsideScope::OnlyAnnounces => problem(
            "the credential is an instance's: it announces, and neither puts nor deletes routes"
                .to_owned(),
        ),
        OutsideScope::OnlyPuts => problem(
            "the credential is good for no instance: it neither announces nor withdraws".to_owned(),
        ),
        OutsideScope::Name(host) => {
            problem(format!("{host} is none of the credential's names")).about(host)
        }
        OutsideScope::Address(host, endpoint) => {
            problem(format!("{endpoint} is none of the credential's addresses")).about(host)
        }
    })
}

/// The tenant to which a list is limited: its own for a tenant, any or none for an operator.
pub(super) fn limited_to<'a>(
    caller: &'a Caller,
    asked: Option<&'a str>,
) -> Result<Option<&'a str>, Problem> {
    match (asked, caller.tenant()) {
        (Some(tenant), _) => acting_for(caller, tenant).map(Some),
        (None, own) => Ok(own.map(|own| &**own)),
    }
}

/// Only operators pass.
pub(super) fn operator(caller: &Caller) -> Result<(), Problem> {
    if caller.is_operator() {
        return Ok(());
    }
    let detail = "only operators may do this";
    Err(Problem::forbidden(reason::OPERATORS_ONLY, detail))
}

/// How many entries a page has.
pub(super) fn page(limit: Option<u32>) -> Result<usize, Problem> {
    match limit.unwrap_or(100) {
        limit @ 1..=1000 => Ok(limit as usize),
        _ => Err(Problem::malformed("query: limit: must be from 1 to 1000")),
    }
}

/// A route that is put.
pub(super) fn route(host: &HostMatch, spec: RouteSpec) -> Result<RouteSource, Problem> {
    if spec.endpoints.is_empty() || spec.endpoints.len() > MAX_ENDPOINTS {
        let detail = format!("endpoints: must be 1 to {MAX_ENDPOINTS}");
        return Err(Problem::invalid(detail));
    }
    let mut endpoints = Vec::with_capacity(spec.endpoints.len());
    for (index, given) in spec.endpoints.iter().enumerate() {
        let field = format!("endpoints[{index}]");
        let endpoint = endpoint(&field, *given)?;
        if endpoints.contains(&endpoint) {
            return Err(Problem::invalid(format!("{field}: stands there twice")));
        }
        endpoints.push(endpoint);
    }
    if let Some(ttl) = spec.ttl {
        time_to_live(ttl)?;
    }
    if let Some(check) = &spec.check {
        router_check(check)?;
    }
    if let Some(given) = &spec.tls {
        tls("tls", given)?;
    }
    shared("shared", host, spec.shared)?;
    Ok(RouteSource {
        endpoints,
        protocol: spec.protocol,
        tls: spec.tls,
        shared: spec.shared,
        check: spec.check,
        ttl: spec.ttl,
        credential: None,
    })
}

/// Everything that an instance announces.
pub(super) fn announcement(given: &Announcement) -> Result<Vec<(HostMatch, RouteSource)>, Problem> {
    time_to_live(given.ttl)?;
    if given.routes.is_empty() || given.routes.len() > MOST_ROUTES {
        let detail = format!("routes: must be 1 to {MOST_ROUTES}");
        return Err(Problem::invalid(detail));
    }
    let mut seen = HashSet::new();
    let mut routes: Vec<(HostMatch, RouteSource)> = Vec::with_capacity(given.routes.len());
    for (index, route) in given.routes.iter().enumerate() {
        let field = format!("routes[{index}]");
        let (host, source) =
            announced(&field, route, given.ttl).map_err(|problem| problem.about(&route.host))?;
        if !seen.insert((host.clone(), source.endpoints[0])) {
            let detail = format!("{field}: this route stands there twice");
            return Err(Problem::invalid(detail).about(host));
        }
        // One instance may offer a name at several ports.
        match routes.iter_mut().find(|it| it.0 == host) {
            None => routes.push((host, source)),
            Some((_, known)) => {
                let same = (known.protocol, &known.tls, known.shared)
                    == (source.protocol, &source.tls, source.shared);
                if !same {
                    let detail = format!(
                        "{field}: another route for this host differs in protocol, tls or shared"
                    );
                    return Err(Problem::invalid(detail).about(host));
                }
                known.endpoints.extend(source.endpoints);
            }
        }
    }
    Ok(routes)
}

/// A zone.
pub(super) fn zone(given: &ZoneSpec) -> Result<Zone, Problem> {
    if given.addresses.is_empty() || given.addresses.len() > MAX_RANGES {
        let detail = format!("addresses: must be 1 to {MAX_RANGES}");
        return Err(Problem::invalid(detail));
    }
    let mut addresses = Vec::with_capacity(given.addresses.len());
    for (index, text) in given.addresses.iter().enumerate() {
        let wrong = |rule: &str| Problem::invalid(format!("addresses[{index}]: {rule}"));
        let range = IpRange::parse(text).map_err(|reason| wrong(&reason.message))?;
        if range.prefix() == 0 {
            return Err(wrong(
                "is every address there is: name the tenant's own nodes",
            ));
        }
        if addresses.contains(&range) {
            return Err(wrong("stands there twice"));
        }
        addresses.push(range);
    }
    Ok(Zone {
        addresses,
        shared: given.shared,
    })
}

/// A token that is asked for.
pub(super) fn token(given: &TokenSpec) -> Result<(), Problem> {
    label("tenant", &given.tenant)?;
    if given.note.chars().count() > MAX_NOTE || given.note.chars().any(char::is_control) {
        let detail = format!("note: must be at most {MAX_NOTE} characters, none of control");
        return Err(Problem::invalid(detail));
    }
    if let Some(seconds) = given.expires_in
        && !(1..=LONGEST_TOKEN).contains(&seconds)
    {
        let detail = format!("expires_in: must be from 1 to {LONGEST_TOKEN} seconds");
        return Err(Problem::invalid(detail));
    }
    if let Some(scope) = &given.scope {
        if *scope == Scope::default() {
            let detail = "scope: limits nothing: leave it out, or say what the token is for";
            return Err(Problem::invalid(detail));
        }
        if let Some(instance) = &scope.instance {
            label("scope.instance", instance)?;
        }
        for (field, count, most) in [
            ("patterns", scope.patterns.len(), MAX_PATTERNS),
            ("addresses", scope.addresses.len(), MAX_RANGES),
        ] {
            if count > most {
                let detail = format!("scope.{field}: must be at most {most}");
                return Err(Problem::invalid(detail));
            }
        }
        let twice = has_twice(&scope.patterns) || has_twice(&scope.addresses);
        if twice {
            return Err(Problem::invalid("scope: something stands there twice"));
        }
    }
    Ok(())
}

fn has_twice(items: &[impl PartialEq]) -> bool {
    let mut earlier = items.iter().enumerate();
    earlier.any(|(index, item)| items[..index].contains(item))
}

fn announced(
    field: &str,
    given: &AnnouncedRoute,
    ttl: u32,
) -> Result<(HostMatch, RouteSource), Problem> {
    let host = HostMatch::parse(&given.host)
        .map_err(|wrong| Problem::invalid(format!("{field}.host: {}", wrong.message)))?;
    if let Some(given) = &given.tls {
        tls(&format!("{field}.tls"), given)?;
    }
    shared(&format!("{field}.shared"), &host, given.shared)?;
    let source = RouteSource {
        endpoints: vec![endpoint(&format!("{field}.endpoint"), given.endpoint)?],
        protocol: given.protocol,
        tls: given.tls.clone(),
        shared: given.shared,
        check: None,
        ttl: Some(ttl),
        credential: None,
    };
    Ok((host, source))
}

/// IPv4 in one form, so that no address has two spellings.
fn endpoint(field: &str, given: SocketAddr) -> Result<SocketAddr, Problem> {
    let ip = given.ip().to_canonical();
    let multicast = match ip {
        IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_multicast(),
    };
    if ip.is_unspecified() || multicast || given.port() == 0 {
        let detail = format!("{field}: {given} is no address of an endpoint");
        return Err(Problem::invalid(detail));
    }
    Ok(SocketAddr::new(ip, given.port()))
}

fn time_to_live(ttl: u32) -> Result<(), Problem> {
    if TTL_SECONDS.contains(&ttl) {
        return Ok(());
    }
    let (least, most) = (TTL_SECONDS.start(), TTL_SECONDS.end());
    let detail = format!("ttl: must be from {least} to {most} seconds");
    Err(Problem::invalid(detail))
}

fn shared(field: &str, host: &HostMatch, shared: bool) -> Result<(), Problem> {
    if shared && matches!(host, HostMatch::Exact(_)) {
        let detail = format!("{field}: only a suffix can be shared: nothing lies beneath a name");
        return Err(Problem::invalid(detail));
    }
    Ok(())
}

fn router_check(check: &Check) -> Result<(), Problem> {
    let wrong = |field: &str, rule: &str| Err(Problem::invalid(format!("check.{field}: {rule}")));
    if !(1..=3600).contains(&check.interval) {
        return wrong("interval", "must be from 1 to 3600 seconds");
    }
    if !(1..=check.interval.min(Check::LONGEST)).contains(&check.timeout) {
        let rule = format!(
            "must be from 1 second to the interval, and at most {}",
            Check::LONGEST
        );
        return wrong("timeout", &rule);
    }
    if !(1..=100).contains(&check.failures) {
        return wrong("failures", "must be from 1 to 100");
    }
    if let Some(path) = &check.path {
        let right = path.starts_with('/')
            && path.len() <= 1024
            && path
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !right {
            return wrong(
                "path",
                "must begin with / and hold visible ASCII, at most 1024",
            );
        }
    }
    Ok(())
}

fn tls(field: &str, given: &Tls) -> Result<(), Problem> {
    if ServerName::try_from(given.server_name.as_str()).is_err() {
        let detail = format!("{field}.server_name: is neither a DNS name nor an address");
        return Err(Problem::invalid(detail));
    }
    let Trust::CaPem(pem) = &given.trust else {
        return Ok(());
    };
    let wrong = |rule: &str| Err(Problem::invalid(format!("{field}.trust.ca-pem: {rule}")));
    if pem.len() > MOST_PEM_BYTES {
        return wrong(&format!("is longer than {} KiB", MOST_PEM_BYTES >> 10));
    }
    if let Err(reason) = authorities(pem.as_bytes()) {
        return wrong(&reason);
    }
    Ok(())
}
