//! Who a bearer token stands for.
//!
//! Only the SHA-256 of a secret is kept anywhere. A secret has 256 random bits, so there is nothing
//! to guess and nothing slower is needed.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

use super::credential::{BearerToken, Caller, ID_DIGITS, Role, TokenKind};
use super::operators::{Digest, OperatorsFile, operators_line};
use crate::registry::hex::{from_hex, to_hex};
use crate::registry::record::{self, Scope};

/// Random bytes that make a token: its id and its secret.
pub const TOKEN_BYTES: usize = ID_DIGITS / 2 + 32;

/// Where tenants' tokens are found. Asked on every call, so it answers from memory.
pub trait TokenSource: Send + Sync + 'static {
    /// The record of a token; `None` if there is none of that id.
    fn token(&self, id: &str) -> Option<record::Token>;

    /// Whether it knows the tokens at all. A router that has not read the store yet does not, and a
    /// registrar must not take that for a refusal.
    fn is_ready(&self) -> bool {
        true
    }
}

/// Looks tokens up, the operators' and the tenants'.
pub struct Tokens {
    tenants: Arc<dyn TokenSource>,
    operators: Option<OperatorsFile>,
}

/// Why a token stands for nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// No such token, or another secret: which of both is not told.
    #[error("the token is not known")]
    Unknown,
    /// The right secret, too late.
    #[error("the token has expired")]
    Expired,
    /// The tokens are not known yet.
    #[error("this router has not read the registry's store yet")]
    NotReady,
}

impl Tokens {
    /// Looks into these two.
    pub fn new(tenants: Arc<dyn TokenSource>, operators: Option<OperatorsFile>) -> Self {
        Self { tenants, operators }
    }

    /// The operators' file, if there is one.
    pub fn operators(&self) -> Option<&OperatorsFile> {
        self.operators.as_ref()
    }

    /// The holder of a token, by the clock at `now`.
    ///
    /// An unknown id costs the same digest and the same comparison as a wrong secret.
    ///
    /// # Errors
    /// It stands for nobody.
    pub fn check(&self, token: &BearerToken, now: SystemTime) -> Result<Caller, TokenRefused> {
        let found = match token.kind {
            TokenKind::Tenant => self.tenant(&token.id),
            TokenKind::Operator => self.operator(&token.id),
        };
        let (expected, role, expires, scope) = match found {
            Some(found) => (found.digest, Some(found.role), found.expires, found.scope),
            None => ([0; 32], None, None, None),
        };
        let same = verify_slices_are_equal(&digest_of(&token.secret), &expected).is_ok();
        match role {
            Some(role) if same => {
                if expires.is_some_and(|expires| seconds(now) >= expires) {
                    return Err(TokenRefused::Expired);
                }
                Ok(Caller {
                    id: format!("token:{}", token.id).into(),
                    role,
                    scope,
                })
            }
            None if token.kind == TokenKind::Tenant && !self.tenants.is_ready() => {
                Err(TokenRefused::NotReady)
            }
            _ => Err(TokenRefused::Unknown),
        }
    }

    fn tenant(&self, id: &str) -> Option<Found> {
        let record = self.tenants.token(id)?;
        let Some(digest) = from_hex(&record.sha256) else {
            tracing::error!(
                id,
                "a token's record in the store holds no digest: it is not valid"
            );
            return None;
        };
        Some(Found {
            digest,
            role: Role::Tenant(record.tenant.into()),
            expires: record.expires,
            scope: record.scope.map(Arc::new),
        })
    }

    fn operator(&self, id: &str) -> Option<Found> {
        let tokens = self.operators.as_ref()?.tokens();
        let token = tokens.token(id)?;
        Some(Found {
            digest: token.digest,
            role: Role::Operator(Arc::clone(&token.name)),
            expires: None,
            scope: None,
        })
    }
}

/// What is known about an id.
struct Found {
    digest: Digest,
    role: Role,
    /// Seconds since 1970.
    expires: Option<u64>,
    scope: Option<Arc<Scope>>,
}

/// A token that was just made. The secret is in `token` alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// What its holder gets; [`BearerToken::reveal`] is its text.
    pub token: BearerToken,
    /// What is kept.
    digest: Digest,
}

/// Makes a token out of fresh random bytes of the system.
#[must_use]
pub fn new_token(kind: TokenKind, random: &[u8; TOKEN_BYTES]) -> NewToken {
    let (id, secret) = random
        .split_first_chunk::<{ ID_DIGITS / 2 }>()
        .expect("the id is shorter than the whole");
    let secret = secret.try_into().expect("the rest is the secret");
    NewToken {
        token: BearerToken {
            kind,
            id: to_hex(id),
            secret,
        },
        digest: digest_of(&secret),
    }
}

impl NewToken {
    /// What the store keeps of a tenant's token that is good for everything. Times are in seconds since 1970.
    #[must_use]
    pub fn record(
        &self,
        tenant: &str,
        note: &str,
        created: u64,
        expires: Option<u64>,
    ) -> record::Token {
        record::Token {
            tenant: tenant.to_owned(),
            sha256: to_hex(&self.digest),
            note: note.to_owned(),
            created,
            expires,
            scope: None,
        }
    }

    /// The line of an operator's token in the operators' file, with its end.
    #[must_use]
    pub fn operators_line(&self, name: &str) -> String {
        operators_line(name, &self.token.id, &self.digest)
    }
}

/// SHA-256 of the secret as it stands in the token, so that `printf %s SECRET | sha256sum` gives
/// the same.
fn digest_of(secret: &[u8; 32]) -> Digest {
    let digest = digest(&SHA256, to_hex(secret).as_bytes());
    digest.as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    struct Store(HashMap<String, record::Token>, bool);

    impl TokenSource for Store {
        fn token(&self, id: &str) -> Option<record::Token> {
            self.0.get(id).cloned()
        }

        fn is_ready(&self) -> bool {
            self.1
        }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn tenants(records: &[(&BearerToken, record::Token)]) -> Tokens {
        let records = records.iter().cloned();
        let records = records.map(|(token, record)| (token.id.clone(), record));
        Tokens::new(Arc::new(Store(records.collect(), true)), None)
    }

    #[test]
    fn the_digest_is_what_a_shell_says() {
        let new = new_token(TokenKind::Tenant, &[0; TOKEN_BYTES]);
        assert_eq!(
            new.token.reveal(),
            format!("ghr_{}_{}", "0".repeat(16), "0".repeat(64))
        );
        // printf %064d 0 | sha256sum
        let expected = "60e05bd1b195af2f94112fa7197a5c88289058840ce7c6df9693756bc6250f55";
        let expected = record::Token {
            tenant: "acme".to_owned(),
            sha256: expected.to_owned(),
            note: "CI".to_owned(),
            created: 7,
            expires: Some(9),
            scope: None,
        };
        assert_eq!(new.record("acme", "CI", 7, Some(9)), expected);
    }

    #[test]
    fn a_token_stands_for_its_tenant_until_it_expires_or_is_revoked() {
        let new = new_token(TokenKind::Tenant, &[7; TOKEN_BYTES]);
        let tokens = tenants(&[(&new.token, new.record("acme", "", 0, Some(100)))]);
        let caller = tokens.check(&new.token, at(99)).unwrap();
        assert_eq!(caller.role, Role::Tenant("acme".into()));
        assert_eq!(&*caller.id, "token:0707070707070707");
        let late = tokens.check(&new.token, at(100));
        assert_eq!(late, Err(TokenRefused::Expired));
        let revoked = tenants(&[]).check(&new.token, at(99));
        assert_eq!(revoked, Err(TokenRefused::Unknown));
    }

    #[test]
    fn an_unknown_id_a_wrong_secret_and_a_broken_record_look_the_same() {
        let new = new_token(TokenKind::Tenant, &[7; TOKEN_BYTES]);
        let record = new.record("acme", "", 0, Some(100));
        let tokens = tenants(&[(&new.token, record.clone())]);
        let (mut wrong, mut unknown, mut operator) =
            (new.token.clone(), new.token.clone(), new.token.clone());
        wrong.secret[31] ^= 1;
        unknown.id = "0".repeat(16);
        operator.kind = TokenKind::Operator;
        for token in [&wrong, &unknown, &operator] {
            // Not even that it has expired is told.
            assert_eq!(tokens.check(token, at(200)), Err(TokenRefused::Unknown));
        }
        let mut broken = record;
        broken.sha256 = "0".repeat(63);
        let tokens = tenants(&[(&new.token, broken)]);
        assert_eq!(tokens.check(&new.token, at(0)), Err(TokenRefused::Unknown));
    }

    #[test]
    fn while_tokens_are_not_known_nobody_is_refused_for_good() {
        let new = new_token(TokenKind::Tenant, &[7; TOKEN_BYTES]);
        let tokens = Tokens::new(Arc::new(Store(HashMap::new(), false)), None);
        assert_eq!(tokens.check(&new.token, at(0)), Err(TokenRefused::NotReady));
    }

    #[test]
    fn operators_are_found_in_their_file_and_only_there() {
        let new = new_token(TokenKind::Operator, &[9; TOKEN_BYTES]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("operators");
        fs::write(&path, new.operators_line("jane")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let store = Store(
            HashMap::from([(new.token.id.clone(), new.record("acme", "", 0, None))]),
            true,
        );
        let tokens = Tokens::new(Arc::new(store), Some(OperatorsFile::open(&path).unwrap()));
        let caller = tokens.check(&new.token, at(0)).unwrap();
        assert_eq!(caller.role, Role::Operator("jane".into()));
        fs::write(&path, "").unwrap();
        tokens.operators().unwrap().reload();
        let gone = tokens.check(&new.token, at(0));
        assert_eq!(gone, Err(TokenRefused::Unknown));
    }
}
