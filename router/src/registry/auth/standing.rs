//! Whether a caller still is who it was: for answers that take longer than a credential may last.

use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;

use super::credential::Caller;
use super::guard::{Guard, NotKnown, Peer, authenticate};

/// Who was let in, and by what; an extension of the answers of watches. Holds the token, as the
/// client does.
#[derive(Clone)]
pub struct Standing(Arc<Admitted>);

struct Admitted {
    guard: Arc<Guard>,
    caller: Caller,
    peer: Peer,
    /// The request's `Authorization`, if it had one.
    authorization: HeaderMap,
}

impl Standing {
    pub(super) fn new(
        guard: Arc<Guard>,
        caller: Caller,
        peer: Peer,
        authorization: HeaderMap,
    ) -> Self {
        Self(Arc::new(Admitted {
            guard,
            caller,
            peer,
            authorization,
        }))
    }

    /// Whether the credential would be let in again at `now`, as the same caller: it may have been
    /// revoked, or have expired. Asks memory alone.
    #[must_use]
    pub fn holds(&self, now: SystemTime) -> bool {
        let admitted = &*self.0;
        let tokens = &admitted.guard.tokens;
        let certificate = admitted.peer.certificate.as_ref();
        match authenticate(tokens, certificate, &admitted.authorization, now) {
            Ok(caller) => caller == admitted.caller,
            Err(NotKnown::NotReady(_)) => true,
            Err(NotKnown::Refused(why)) => {
                tracing::info!(
                    caller = %admitted.caller.id,
                    peer = %admitted.peer.address,
                    reason = %why,
                    "a watch ends: its caller is no longer known"
                );
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::Registry;
    use crate::registry::auth::audit::AuditLog;
    use crate::registry::auth::certificate::CertificateIdentity;
    use crate::registry::auth::credential::Role;
    use crate::registry::auth::limits::Limits;
    use crate::registry::auth::refusals::Refusals;
    use crate::registry::auth::tokens::{TokenSource, Tokens};
    use crate::registry::record::Token;
    use std::time::{Duration, UNIX_EPOCH};

    struct NoTokens;

    impl TokenSource for NoTokens {
        fn token(&self, _: &str) -> Option<Token> {
            None
        }
    }

    #[test]
    fn a_certificate_counts_until_it_ends() {
        let metrics = Arc::new(Registry::new(UNIX_EPOCH));
        let guard = Guard {
            tokens: Tokens::new(Arc::new(NoTokens), None),
            limits: Limits::new(1),
            refusals: Refusals::default(),
            audit: AuditLog::open(None, Arc::clone(&metrics)).unwrap(),
            metrics,
            deadline: Duration::from_secs(1),
        };
        let caller = Caller {
            id: "certificate:x".into(),
            role: Role::Tenant("acme".into()),
            scope: None,
        };
        let identity = CertificateIdentity {
            caller: caller.clone(),
            not_after: 100,
        };
        let peer = Peer {
            address: "192.0.2.1:5".parse().unwrap(),
            certificate: Some(Ok(identity)),
        };
        let standing = Standing::new(Arc::new(guard), caller, peer, HeaderMap::new());
        for (second, holds) in [(0, true), (100, true), (101, false)] {
            let now = UNIX_EPOCH + Duration::from_secs(second);
            assert_eq!(standing.holds(now), holds, "{second}");
        }
    }
}
