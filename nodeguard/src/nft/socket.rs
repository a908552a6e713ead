//! The kernel's end of a ruleset: puts it there, keeps others away from it, looks after it.

use std::io;

use super::NftError;
use super::channel::{Channel, Mode};
use super::counts::{self, Counts};
use super::drift::{self, Integrity};
use super::message::Batch;
use super::netlink::{self, Flags, OWNED};
use super::picture::{self, Picture};
use super::uapi::{chain, family, table};
use crate::ruleset::{Ruleset, TABLE};

/// Changes of elements beyond which a new table is cheaper. It costs the counters, so that an
/// ordinary cluster never comes here.
const MOST_ELEMENTS: usize = 2_000;

/// Whether the table is to be protected from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// If the kernel can keep the table when its owner goes (`NFT_TABLE_F_OWNER` together with
    /// `NFT_TABLE_F_PERSIST`, Linux 6.9). An owner without that is never asked for: the end of the
    /// process would be the end of the table.
    IfPersistent,
    /// Never, as on an older kernel.
    Never,
}

/// What an update came down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Nothing differed.
    Nothing,
    /// Elements were added and removed; counters go on counting.
    Elements {
        /// How many came.
        added: usize,
        /// How many went.
        removed: usize,
    },
    /// The table was replaced; counters begin at zero.
    Replaced,
}

/// A base chain of somebody else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignChain {
    /// Lower is earlier.
    pub priority: i32,
    /// `inet`, `ip` or `ip6`.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// `filter`, `nat` or `route`.
    pub kind: String,
}

/// Our table in the network namespace in which this was opened. To be used by threads of that
/// namespace: a socket that fails is opened anew.
#[derive(Debug)]
pub struct Nft {
    /// What owns the table, by its port: this very socket must stay open.
    owner: Channel,
    /// What asks. May be replaced.
    queries: Channel,
    flags: Flags,
    /// The generation at which the table was found to be as meant.
    intact_at: Option<u32>,
}

impl Nft {
    /// Opens the way to nftables, with [`Ownership::IfPersistent`]. Changes nothing.
    ///
    /// # Errors
    /// Without `CAP_NET_ADMIN`, or without nftables in the kernel.
    pub fn open() -> Result<Self, NftError> {
        Self::open_with(Ownership::IfPersistent)
    }

    /// Like [`Nft::open`].
    ///
    /// # Errors
    /// As there.
    pub fn open_with(ownership: Ownership) -> Result<Self, NftError> {
        let (owner, mut queries) = (Channel::open()?, Channel::open()?);
        picture::generation(&mut queries)?;
        let flags = match ownership {
            Ownership::IfPersistent if knows_persist(&mut queries)? => Flags::OwnedAndPersistent,
            _ => Flags::None,
        };
        Ok(Self {
            owner,
            queries,
            flags,
            intact_at: None,
        })
    }

    /// Whether the table is or will be ours alone.
    #[must_use]
    pub fn is_exclusive(&self) -> bool {
        self.flags == Flags::OwnedAndPersistent
    }

    /// Puts a ruleset in the place of whatever is there under our table's name, in one
    /// transaction: each packet meets all of the old or all of the new. Counters begin at zero.
    ///
    /// # Errors
    /// [`NftError::OwnedByAnother`] and [`NftError::Refused`]; nothing has changed then.
    pub fn replace(&mut self, ruleset: &Ruleset) -> Result<(), NftError> {
        self.commit(&netlink::replacement(ruleset, self.flags))?;
        if self.is_exclusive() && !self.protects()? {
            tracing::warn!("the kernel takes the owner of a table and does not protect it");
            self.flags = Flags::None;
            self.commit(&netlink::replacement(ruleset, self.flags))?;
        }
        Ok(())
    }

    /// Turns the ruleset that is there into another one, in one transaction. If just elements of
    /// sets differ, just they are added and removed. If the kernel refuses that, for example
    /// because somebody has changed the table, it is replaced.
    ///
    /// # Errors
    /// As [`Nft::replace`].
    pub fn update(&mut self, from: &Ruleset, to: &Ruleset) -> Result<Done, NftError> {
        if let Some(difference) = netlink::difference(from, to) {
            let (added, removed) = (difference.added, difference.removed);
            if (added, removed) == (0, 0) {
                return Ok(Done::Nothing);
            }
            if added + removed > MOST_ELEMENTS {
                return self.replace(to).map(|()| Done::Replaced);
            }
            match self.commit(&difference.batch) {
                Ok(()) => return Ok(Done::Elements { added, removed }),
                Err(NftError::Refused { object, error, .. }) => {
                    tracing::warn!(%object, %error, "an update was refused, so all is replaced");
                }
                Err(error) => return Err(error),
            }
        }
        self.replace(to).map(|()| Done::Replaced)
    }

    /// Makes a table ours that a process before us left behind, without touching what is in it;
    /// [`Nft::check`] then tells what that is. `false` if there is none of that kind: no table, or
    /// one that is open to everybody and that only [`Nft::replace`] makes ours.
    ///
    /// # Errors
    /// [`NftError::OwnedByAnother`].
    pub fn claim(&mut self) -> Result<bool, NftError> {
        if !self.is_exclusive() {
            return Ok(false);
        }
        let Some(table) = picture::our_table(&mut self.queries)? else {
            return Ok(false);
        };
        match table.owner {
            Some(port) if port == self.owner.port() => Ok(true),
            Some(port) => Err(NftError::OwnedByAnother { port }),
            None if table.flags & table::F_PERSIST == 0 => Ok(false),
            None => self.commit(&netlink::claim()).map(|()| true),
        }
    }

    /// Takes the table away, also one that a process before us left behind.
    ///
    /// # Errors
    /// [`NftError::OwnedByAnother`].
    pub fn remove(&mut self) -> Result<(), NftError> {
        self.commit(&netlink::removal())
    }

    /// Whether the table is what it was made to be by the last [`Nft::replace`] or
    /// [`Nft::update`]. Costs one question if nothing at all has changed in nftables since the
    /// last look, and else the reading of the whole table.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn check(&mut self, ruleset: &Ruleset) -> Result<Integrity, NftError> {
        if self.intact_at == Some(picture::generation(&mut self.queries)?) {
            return Ok(Integrity::Intact);
        }
        self.intact_at = None;
        let picture = Picture::take(&mut self.queries)?;
        let owner = self.is_exclusive().then(|| self.owner.port());
        let what = drift::compare(ruleset, &picture, owner);
        match (what.is_empty(), picture.steady) {
            (true, steady) => {
                self.intact_at = steady.then_some(picture.generation);
                Ok(Integrity::Intact)
            }
            (false, true) => Ok(Integrity::Drifted { what }),
            // Possibly two halves that are both right.
            (false, false) => Err(NftError::Unsteady),
        }
    }

    /// Whether there is a table of our name, whatever is in it.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn is_there(&mut self) -> Result<bool, NftError> {
        Ok(picture::our_table(&mut self.queries)?.is_some())
    }

    /// Like [`Nft::check`], for a table that need not be ours: whoever may have made it, and
    /// whoever owns it now.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn look(&mut self, ruleset: &Ruleset) -> Result<Integrity, NftError> {
        let picture = Picture::take(&mut self.queries)?;
        let owner = picture.table.as_ref().and_then(|table| table.owner);
        let mut what = drift::compare(ruleset, &picture, owner);
        what.retain(|it| !it.starts_with("table: has flags"));
        Ok(if what.is_empty() {
            Integrity::Intact
        } else {
            Integrity::Drifted { what }
        })
    }

    /// What the counters of a ruleset have counted.
    ///
    /// # Errors
    /// If the kernel cannot be asked, or if a counter is gone.
    pub fn counts(&mut self, ruleset: &Ruleset) -> Result<Counts, NftError> {
        counts::read(&mut self.queries, ruleset)
    }

    /// Base chains of others that see a packet in prerouting before a chain of that priority does,
    /// earliest first.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn base_chains_before(&mut self, priority: i32) -> Result<Vec<ForeignChain>, NftError> {
        let chains = picture::all_chains(&mut self.queries)?;
        let mut before: Vec<ForeignChain> = chains
            .into_iter()
            .filter_map(|(family, seen)| {
                let family = match family {
                    family::INET if seen.table == TABLE => return None,
                    family::INET => "inet",
                    family::IPV4 => "ip",
                    family::IPV6 => "ip6",
                    _ => return None,
                };
                let (hook, at) = seen.hook?;
                (hook == chain::PREROUTING && at < priority).then_some(ForeignChain {
                    priority: at,
                    family,
                    table: seen.table,
                    name: seen.name,
                    kind: seen.kind,
                })
            })
            .collect();
        before.sort();
        Ok(before)
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), NftError> {
        self.intact_at = None;
        let result = self.owner.transact(batch, Mode::Commit);
        if let Err(NftError::Refused { error, .. }) = &result
            && is_not_permitted(error)
            && let Some(seen) = picture::our_table(&mut self.queries)?
            && let Some(port) = seen.owner
            && port != self.owner.port()
        {
            return Err(NftError::OwnedByAnother { port });
        }
        result
    }

    /// Whether the table is ours in effect: another socket of ours, which to the kernel is a
    /// stranger, may not change it.
    fn protects(&mut self) -> Result<bool, NftError> {
        let seen = picture::our_table(&mut self.queries)?.unwrap_or_default();
        if seen.flags != OWNED || seen.owner != Some(self.owner.port()) {
            return Ok(false);
        }
        match self.queries.transact(&netlink::intrusion(), Mode::Rehearse) {
            Err(NftError::Refused { error, .. }) => Ok(is_not_permitted(&error)),
            Ok(()) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Whether the kernel takes both flags. Kernels refuse flags that they do not know.
fn knows_persist(channel: &mut Channel) -> Result<bool, NftError> {
    match channel.transact(&netlink::probe(), Mode::Rehearse) {
        Ok(()) => Ok(true),
        Err(NftError::Refused { error, .. })
            if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn is_not_permitted(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EPERM)
}
