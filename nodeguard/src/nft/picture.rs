//! The whole of our table as the kernel has it at one moment.

use super::NftError;
use super::channel::{Channel, Question};
use super::reply::Object;
use super::seen::{self, SeenChain, SeenElement, SeenObject, SeenRule, SeenSet, SeenTable};
use super::uapi::{element, family, message, object, rule, set, table};
use crate::ruleset::TABLE;

/// So often a picture is begun anew because something changed while it was taken.
const ATTEMPTS: usize = 5;

/// A picture of the table.
#[derive(Clone, Debug, Default)]
pub(super) struct Picture {
    /// Whether nothing in all of nftables changed while it was taken. Else it is of one moment
    /// only if what changed was other tables.
    pub(super) steady: bool,
    /// Number of the ruleset's generation when it was begun: every transaction of anybody makes a
    /// new one.
    pub(super) generation: u32,
    pub(super) table: Option<SeenTable>,
    pub(super) chains: Vec<SeenChain>,
    pub(super) rules: Vec<SeenRule>,
    pub(super) sets: Vec<(SeenSet, Vec<SeenElement>)>,
    pub(super) objects: Vec<SeenObject>,
}

impl Picture {
    pub(super) fn take(channel: &mut Channel) -> Result<Self, NftError> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let mut picture = Self {
                generation: generation(channel)?,
                ..Self::default()
            };
            match picture.fill(channel) {
                // A set that went while we were at it.
                Err(NftError::Refused { error, .. }) if is_missing(&error) => continue,
                Err(error) => return Err(error),
                Ok(steady) => picture.steady = steady,
            }
            picture.steady &= generation(channel)? == picture.generation;
            if picture.steady {
                return Ok(picture);
            }
            last = Some(picture);
        }
        last.ok_or(NftError::Unsteady)
    }

    fn fill(&mut self, channel: &mut Channel) -> Result<bool, NftError> {
        self.table = our_table(channel)?;
        if self.table.is_none() {
            return Ok(true);
        }
        let mut steady = dump(channel, message::GETCHAIN, "chains", None, |message| {
            let chain = SeenChain::read(message)?;
            self.chains.extend((chain.table == TABLE).then_some(chain));
            Ok(())
        })?;
        steady &= dump(
            channel,
            message::GETRULE,
            "rules",
            Some(rule::TABLE),
            |message| {
                let rule = SeenRule::read(message)?;
                self.rules.extend((rule.table == TABLE).then_some(rule));
                Ok(())
            },
        )?;
        steady &= dump(
            channel,
            message::GETSET,
            "sets",
            Some(set::TABLE),
            |message| {
                let set = SeenSet::read(message)?;
                self.sets
                    .extend((set.table == TABLE).then(|| (set, Vec::new())));
                Ok(())
            },
        )?;
        for (set, elements) in &mut self.sets {
            steady &= elements_of(channel, &set.name, elements)?;
        }
        steady &= objects(channel, &mut self.objects)?;
        Ok(steady)
    }
}

/// Number of the current generation.
pub(super) fn generation(channel: &mut Channel) -> Result<u32, NftError> {
    let question = Question {
        kind: message::GETGEN,
        family: family::UNSPEC,
        dump: false,
        what: "the ruleset's generation",
        fill: &|_| {},
    };
    let mut number = None;
    channel.ask(&question, |reply| {
        if reply.kind == message::NEWGEN {
            number = seen::generation(reply)?;
        }
        Ok(())
    })?;
    number.ok_or(NftError::Unanswered)
}

/// Our table, or none of its name.
pub(super) fn our_table(channel: &mut Channel) -> Result<Option<SeenTable>, NftError> {
    let question = Question {
        kind: message::GETTABLE,
        family: family::INET,
        dump: false,
        what: "table inet nodeguard",
        fill: &|writer| writer.text(table::NAME, TABLE),
    };
    let mut found = None;
    let asked = channel.ask(&question, |reply| {
        if reply.kind == message::NEWTABLE {
            found = Some(SeenTable::read(reply)?);
        }
        Ok(())
    });
    match asked {
        Ok(_) => Ok(found),
        Err(NftError::Refused { error, .. }) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Elements of a set of our table.
pub(super) fn elements_of(
    channel: &mut Channel,
    set: &str,
    elements: &mut Vec<SeenElement>,
) -> Result<bool, NftError> {
    let what = format!("elements of set {set}");
    let question = Question {
        kind: message::GETSETELEM,
        family: family::INET,
        dump: true,
        what: &what,
        fill: &|writer| {
            writer.text(element::LIST_TABLE, TABLE);
            writer.text(element::LIST_SET, set);
        },
    };
    channel.ask(&question, |reply| {
        if reply.kind == message::NEWSETELEM {
            let (table, of, mut some) = seen::elements(reply)?;
            if table == TABLE && of == set {
                elements.append(&mut some);
            }
        }
        Ok(())
    })
}

/// Named objects of our table.
pub(super) fn objects(
    channel: &mut Channel,
    objects: &mut Vec<SeenObject>,
) -> Result<bool, NftError> {
    dump(
        channel,
        message::GETOBJ,
        "objects",
        Some(object::TABLE),
        |message| {
            let object = SeenObject::read(message)?;
            objects.extend((object.table == TABLE).then_some(object));
            Ok(())
        },
    )
}

/// Chains of every table, each with its family.
pub(super) fn all_chains(channel: &mut Channel) -> Result<Vec<(u8, SeenChain)>, NftError> {
    let question = Question {
        kind: message::GETCHAIN,
        family: family::UNSPEC,
        dump: true,
        what: "chains",
        fill: &|_| {},
    };
    for _ in 0..ATTEMPTS {
        let mut chains = Vec::new();
        let steady = channel.ask(&question, |reply| {
            if reply.kind == message::NEWCHAIN {
                chains.push((reply.family, SeenChain::read(reply)?));
            }
            Ok(())
        })?;
        if steady {
            return Ok(chains);
        }
    }
    Err(NftError::Unsteady)
}

/// Asks for objects of family inet, as far as the kernel can narrow it down of our table alone.
/// The answer to a question is of the kind before it.
fn dump(
    channel: &mut Channel,
    kind: u8,
    what: &str,
    table: Option<u16>,
    mut each: impl FnMut(&Object<'_>) -> Result<(), NftError>,
) -> Result<bool, NftError> {
    let question = Question {
        kind,
        family: family::INET,
        dump: true,
        what,
        fill: &|writer| {
            if let Some(attribute) = table {
                writer.text(attribute, TABLE);
            }
        },
    };
    channel.ask(&question, |reply| {
        if kind.checked_sub(1) == Some(reply.kind) && reply.family == family::INET {
            each(reply)
        } else {
            Ok(())
        }
    })
}

fn is_missing(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}
