//! Callers, and the text of bearer tokens.

use std::fmt;
use std::sync::Arc;

use crate::registry::hex::{from_hex, to_hex};
use crate::registry::record::Scope;

/// Hexadecimal digits of a token's id.
pub const ID_DIGITS: usize = 16;
/// Hexadecimal digits of a token's secret: 256 random bits.
pub const SECRET_DIGITS: usize = 64;

/// Who makes a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The credential, for logs and limits: `certificate:spiffe://gatehouse/tenant/acme` or
    /// `token:0123456789abcdef`. Holds no secret.
    pub id: Arc<str>,
    /// What the credential stands for.
    pub role: Role,
    /// What it is good for, if not for everything that is the tenant's.
    pub scope: Option<Arc<Scope>>,
}

/// What a credential stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Whoever runs the routers; the name is for the audit log.
    Operator(Arc<str>),
    /// A tenant: names within its zones.
    Tenant(Arc<str>),
}

/// A bearer token, taken apart: `ghr_<id>_<secret>` of a tenant, `gho_<id>_<secret>` of an operator.
#[derive(Clone, PartialEq, Eq)]
pub struct BearerToken {
    /// Whose token it is.
    pub kind: TokenKind,
    /// [`ID_DIGITS`] hexadecimal digits in lower case; not secret.
    pub id: String,
    /// 256 random bits.
    pub secret: [u8; SECRET_DIGITS / 2],
}

/// The two kinds of token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// `ghr_`: kept in the store.
    Tenant,
    /// `gho_`: kept in the operators' file, so that it works while the store does not.
    Operator,
}

/// A text is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token of this registry: ghr_ or gho_, 16 hexadecimal digits, _, 64 of them")]
pub struct NotAToken;

impl Caller {
    /// The tenant, unless it is an operator.
    #[must_use]
    pub fn tenant(&self) -> Option<&Arc<str>> {
        match &self.role {
            Role::Tenant(tenant) => Some(tenant),
            Role::Operator(_) => None,
        }
    }

    /// Whether it is an operator.
    #[must_use]
    pub fn is_operator(&self) -> bool {
        matches!(self.role, Role::Operator(_))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator(name) => write!(f, "operator {name}"),
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
        }
    }
}

impl TokenKind {
    /// What its tokens begin with.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Tenant => "ghr_",
            Self::Operator => "gho_",
        }
    }
}

impl BearerToken {
    /// Takes the text of a token apart.
    ///
    /// # Errors
    /// It is none; the error does not repeat it.
    pub fn parse(text: &str) -> Result<Self, NotAToken> {
        let kind = [TokenKind::Tenant, TokenKind::Operator]
            .into_iter()
            .find(|kind| text.starts_with(kind.prefix()))
            .ok_or(NotAToken)?;
        let (id, secret) = text[kind.prefix().len()..]
            .split_once('_')
            .ok_or(NotAToken)?;
        let id_bytes: [u8; ID_DIGITS / 2] = from_hex(id).ok_or(NotAToken)?;
        let secret = from_hex(secret).ok_or(NotAToken)?;
        Ok(Self {
            kind,
            id: to_hex(&id_bytes),
            secret,
        })
    }

    /// The text to give to whoever shall use it. Whoever has it is them: shown once, kept nowhere.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{}{}_{}", self.kind.prefix(), self.id, to_hex(&self.secret))
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}_(secret)", self.kind.prefix(), self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef";

    fn text(prefix: &str) -> String {
        format!("{prefix}{ID}_{}", "5a".repeat(32))
    }

    #[test]
    fn tokens_come_apart_and_together_again() {
        for (prefix, kind) in [("ghr_", TokenKind::Tenant), ("gho_", TokenKind::Operator)] {
            let token = BearerToken::parse(&text(prefix)).unwrap();
            assert_eq!(
                (token.kind, &*token.id, token.secret),
                (kind, ID, [0x5a; 32])
            );
            assert_eq!(token.reveal(), text(prefix));
        }
    }

    #[test]
    fn whatever_else_is_no_token() {
        let right = text("ghr_");
        let wrong = [
            String::new(),
            "ghr_".to_owned(),
            format!("ghr_{ID}"),
            format!("{right}0"),
            right[..right.len() - 1].to_owned(),
            right.replace("ghr_", "ghx_"),
            right.replace('a', "A"),
            right.replace('a', "g"),
            right.replace("5a5a5a", "é5a5a"),
            format!(" {right}"),
            format!("{right}\n"),
            right.replace(ID, &ID[1..]),
        ];
        for wrong in wrong {
            assert_eq!(BearerToken::parse(&wrong), Err(NotAToken), "{wrong:?}");
        }
    }

    #[test]
    fn a_secret_is_not_shown_by_accident() {
        let token = BearerToken::parse(&text("ghr_")).unwrap();
        let shown = format!("{token:?}");
        assert!(shown.contains(ID) && !shown.contains("5a5a"), "{shown}");
    }
}
