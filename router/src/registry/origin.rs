//! Which store this is, and whether it is the one that the known routes came from. Pure.
//!
//! A store has a name, [`STORE_ID`]: text at random, written by whoever lists a store without one. A
//! store that was made anew behind the same addresses, or another prefix by mistake, has another name
//! or none. To take that for "all routes are gone" would end everybody's traffic on all routers at
//! once, so such a store counts as out of reach until an operator says otherwise.

use super::hex::to_hex;
use super::keys::STORE_ID;
use super::store::{Put, Range, Revision, Transaction};
use super::view::View;

/// Longest name.
const LONGEST: usize = 64;

/// Why a store is not the one that the known routes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// It has another name, or none.
    #[error("it is another store than the one that the known routes came from")]
    Other,
    /// It holds no route, and not the name either.
    #[error("it is empty, and does not have the name of the store that the known routes came from")]
    Empty,
}

/// Whether what was listed may take the place of what is known.
///
/// Without a route to lose anything goes. Routes whose store has no name yet (they were written down
/// by an older version) go on with any store that has routes. A store that has lost its name does not
/// count: one that was made anew fills by and by, as registrars come, and must not take everybody
/// else's routes away with the first of them.
///
/// # Errors
/// It may not.
pub fn check(known: &View, listed: &View) -> Result<(), Foreign> {
    if known.is_empty() {
        return Ok(());
    }
    match (known.store_id(), listed.store_id()) {
        (Some(known), Some(listed)) if known == listed => Ok(()),
        (Some(_), Some(_)) => Err(Foreign::Other),
        _ if listed.is_empty() => Err(Foreign::Empty),
        (Some(_), None) => Err(Foreign::Other),
        (None, _) => Ok(()),
    }
}

/// Gives a store a name that had none as of `since`; a conflict means that it has one by now.
#[must_use]
pub fn naming(random: [u8; 16], since: Revision) -> Transaction {
    Transaction {
        unchanged: vec![Range::key(STORE_ID)],
        since,
        puts: vec![Put {
            key: STORE_ID.to_owned(),
            value: to_hex(&random).into(),
            lease: None,
        }],
        ..Transaction::default()
    }
}

/// A name as it stands in a store; `None` if it is none.
#[must_use]
pub fn parse(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let plain = text
        .bytes()
        .all(|it| it.is_ascii_alphanumeric() || it == b'-');
    (plain && !text.is_empty() && text.len() <= LONGEST).then_some(text)
}

#[cfg(test)]
mod tests {
    use crate::registry::store::{KeyValue, Listing};

    use super::*;

    fn view(id: Option<&str>, routes: usize) -> View {
        let entry = |key: String, value: &str| KeyValue {
            key,
            value: value.to_owned().into(),
            created: Revision(1),
            modified: Revision(1),
            lease: None,
        };
        let routes = (0..routes).map(|it| {
            let key = format!("route/gro.x.{it}/acme/w1");
            entry(key, r#"{"endpoints":["10.0.0.1:1"]}"#)
        });
        // What routers write by themselves makes a store no less empty.
        let tickets = entry("ticket/fresh".to_owned(), "");
        let id = id.map(|id| entry(STORE_ID.to_owned(), id));
        View::of(Listing {
            revision: Revision(1),
            entries: routes.chain(id).chain([tickets]).collect(),
        })
    }

    #[test]
    fn only_the_same_store_takes_routes_away() {
        for (known, listed, expected) in [
            ((Some("x"), 2), (Some("x"), 2), Ok(())),
            // They were deleted, each by itself.
            ((Some("x"), 2), (Some("x"), 0), Ok(())),
            ((Some("x"), 2), (Some("y"), 2), Err(Foreign::Other)),
            ((Some("x"), 2), (Some("y"), 0), Err(Foreign::Other)),
            ((Some("x"), 2), (None, 0), Err(Foreign::Empty)),
            // Made anew, and the first registrars have come. Or restored from before it had a name.
            ((Some("x"), 2), (None, 1), Err(Foreign::Other)),
            // Written down by an older version.
            ((None, 2), (Some("y"), 2), Ok(())),
            ((None, 2), (None, 2), Ok(())),
            ((None, 2), (Some("y"), 0), Err(Foreign::Empty)),
            ((None, 2), (None, 0), Err(Foreign::Empty)),
            // Nothing to lose.
            ((Some("x"), 0), (Some("y"), 0), Ok(())),
            ((Some("x"), 0), (None, 0), Ok(())),
            ((None, 0), (None, 0), Ok(())),
            ((None, 0), (Some("y"), 2), Ok(())),
        ] {
            let verdict = check(&view(known.0, known.1), &view(listed.0, listed.1));
            assert_eq!(verdict, expected, "{known:?} {listed:?}");
        }
    }

    #[test]
    fn a_name_is_short_and_plain() {
        let longest = "a".repeat(LONGEST);
        for good in ["0f", "restored-1", &longest] {
            assert_eq!(parse(good.as_bytes()), Some(good));
        }
        for bad in ["", "a b", "\"", &format!("{longest}a")] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        let named = naming([7; 16], Revision(3));
        assert_eq!(parse(&named.puts[0].value), Some("07".repeat(16).as_str()));
    }
}
