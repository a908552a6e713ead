//! Who a client certificate stands for.
//!
//! rustls has verified the chain by the time anything here is asked; what is left is the name. It is
//! a SPIFFE ID, and as there (X.509-SVID, section 2) a certificate holds exactly one URI.

use std::sync::Arc;

use config::net::kinds::check_label;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::credential::{Caller, Role};
use crate::registry::record::Scope;

/// What the URI of a tenant begins with; its name follows, and perhaps [`INSTANCE`] with a name.
pub const TENANT_URI: &str = "spiffe://gatehouse/tenant/";
/// What stands between a tenant's name and that of the only instance that a certificate is good for.
pub const INSTANCE: &str = "/instance/";
/// What the URI of an operator begins with; a name for the audit log follows.
pub const OPERATOR_URI: &str = "spiffe://gatehouse/operator/";

/// A client certificate that says who its holder is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateIdentity {
    /// Its holder.
    pub caller: Caller,
    /// Last second of its validity, in Unix time. A connection may outlive it.
    pub not_after: i64,
}

/// Why a client certificate stands for nobody. Its holder may still have a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoIdentity {
    /// It is not one, or holds an extension that cannot be read.
    #[error("the client certificate cannot be read: {0}")]
    Unreadable(String),
    /// It holds no URI, or several of them.
    #[error("the client certificate holds {0} URIs among its names; exactly one is needed")]
    NotOneUri(usize),
    /// Its URI is not one of ours.
    #[error(
        "the client certificate's URI is neither {TENANT_URI}NAME, perhaps with \
         {INSTANCE}NAME, nor {OPERATOR_URI}NAME with a NAME of lower-case letters, digits and hyphens"
    )]
    ForeignUri,
}

/// The holder of a certificate.
///
/// # Errors
/// It names nobody.
pub fn identify(certificate: &CertificateDer<'_>) -> Result<CertificateIdentity, NoIdentity> {
    let unreadable = |error: &dyn std::fmt::Display| NoIdentity::Unreadable(error.to_string());
    let (_, certificate) =
        X509Certificate::from_der(certificate).map_err(|error| unreadable(&error))?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| unreadable(&error))?;
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let uris: Vec<&str> = names
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    let [uri] = uris[..] else {
        return Err(NoIdentity::NotOneUri(uris.len()));
    };
    let (role, scope) = meaning(uri).ok_or(NoIdentity::ForeignUri)?;
    Ok(CertificateIdentity {
        caller: Caller {
            id: format!("certificate:{uri}").into(),
            role,
            scope: scope.map(Arc::new),
        },
        not_after: certificate.validity().not_after.timestamp(),
    })
}

/// Compared byte by byte: only the one way to write a URI counts.
fn meaning(uri: &str) -> Option<(Role, Option<Scope>)> {
    let label = |name: &str| check_label(name).ok().map(|()| Arc::from(name));
    let Some(tenant) = uri.strip_prefix(TENANT_URI) else {
        let operator = label(uri.strip_prefix(OPERATOR_URI)?)?;
        return Some((Role::Operator(operator), None));
    };
    let Some((tenant, instance)) = tenant.split_once(INSTANCE) else {
        return Some((Role::Tenant(label(tenant)?), None));
    };
    let scope = Scope {
        instance: Some(label(instance)?.to_string()),
        ..Scope::default()
    };
    Some((Role::Tenant(label(tenant)?), Some(scope)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType, date_time_ymd};

    fn certificate(names: &[SanType]) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names.to_vec();
        params.not_after = date_time_ymd(2040, 1, 1);
        params.self_signed(&key).unwrap().der().clone()
    }

    fn uri(uri: &str) -> SanType {
        SanType::URI(uri.try_into().unwrap())
    }

    #[test]
    fn the_uri_says_who_it_is() {
        let dns = SanType::DnsName("spiffe.gatehouse.example".try_into().unwrap());
        for (text, role) in [
            (
                "spiffe://gatehouse/tenant/acme",
                Role::Tenant("acme".into()),
            ),
            (
                "spiffe://gatehouse/operator/jane-1",
                Role::Operator("jane-1".into()),
            ),
        ] {
            let identity = identify(&certificate(&[dns.clone(), uri(text)])).unwrap();
            assert_eq!(identity.caller.role, role);
            assert_eq!(*identity.caller.id, *format!("certificate:{text}"));
            assert_eq!(identity.not_after, 2_208_988_800);
            assert_eq!(identity.caller.scope, None);
        }
    }

    #[test]
    fn a_certificate_may_be_good_for_one_instance_only() {
        let text = "spiffe://gatehouse/tenant/acme/instance/worker-1";
        let caller = identify(&certificate(&[uri(text)])).unwrap().caller;
        assert_eq!(caller.role, Role::Tenant("acme".into()));
        assert_eq!(caller.scope.unwrap().instance.as_deref(), Some("worker-1"));
    }

    #[test]
    fn whoever_is_not_named_exactly_once_is_nobody() {
        let acme = uri("spiffe://gatehouse/tenant/acme");
        let dns = SanType::DnsName("gatehouse.example".try_into().unwrap());
        for (names, count) in [
            (vec![], 0),
            (vec![dns], 0),
            (vec![acme.clone(), acme.clone()], 2),
            (
                vec![acme.clone(), uri("spiffe://gatehouse/operator/root")],
                2,
            ),
            (vec![uri("https://example.org"), acme], 2),
        ] {
            let error = identify(&certificate(&names)).unwrap_err();
            assert_eq!(error, NoIdentity::NotOneUri(count), "{names:?}");
        }
        for foreign in [
            "https://gatehouse/tenant/acme",
            "SPIFFE://gatehouse/tenant/acme",
            "spiffe://gatehouse.example/tenant/acme",
            "spiffe://gatehouse/tenant/",
            "spiffe://gatehouse/tenant/Acme",
            "spiffe://gatehouse/tenant/acme/",
            "spiffe://gatehouse/tenant/acme/x",
            "spiffe://gatehouse/tenant/acme/instance/",
            "spiffe://gatehouse/tenant/acme/instance/W1",
            "spiffe://gatehouse/tenant/acme/instance/w1/instance/w2",
            "spiffe://gatehouse/tenant//instance/w1",
            "spiffe://gatehouse/operator/jane/instance/w1",
            "spiffe://gatehouse/tenant/acme?x",
            "spiffe://gatehouse/tenant/%61cme",
            "spiffe://gatehouse/tenants/acme",
            "spiffe://gatehouse/acme",
        ] {
            let error = identify(&certificate(&[uri(foreign)])).unwrap_err();
            assert_eq!(error, NoIdentity::ForeignUri, "{foreign}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_nobody() {
        let garbage = CertificateDer::from(vec![0x30, 3, 1, 2, 3]);
        let error = identify(&garbage).unwrap_err();
        assert!(matches!(error, NoIdentity::Unreadable(_)), "{error}");
    }
}
