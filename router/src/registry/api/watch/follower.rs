//! One client's place in the course of changes. Pure: it is shown the view, and says what to tell.

use std::collections::VecDeque;
use std::sync::Arc;

use config::route::HostMatch;
use serde::Serialize;

use crate::registry::change::represent;
use crate::registry::store::Revision;
use crate::registry::view::View;

/// Events of one step, at most: the view is locked meanwhile.
const AT_ONCE: usize = 500;
/// Bytes after which a step ends: they are kept until the client takes them.
const BYTES_AT_ONCE: usize = 256 << 10;
/// The id of whoever knows a part of a list. A break there begins anew, with `reset`: what vanished
/// meanwhile would otherwise never be told.
pub(super) const NOTHING: Revision = Revision(0);

/// See above.
pub(super) struct Follower {
    tenant: Option<Arc<str>>,
    state: State,
    /// Whether the client is still to be told that it has caught up.
    behind: bool,
}

/// What the client knows.
#[derive(Debug)]
enum State {
    /// Nothing yet.
    Nothing,
    /// Something that is void, and has not been told so.
    Void,
    /// Everything up to a rule, of a whole list that may change meanwhile: those changes are told
    /// after it, from `since` on.
    UpToHost { host: HostMatch, since: Revision },
    /// Everything up to `to`, but for these rules.
    AllBut {
        left: VecDeque<HostMatch>,
        to: Revision,
    },
    /// Everything.
    UpTo(Revision),
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) kind: &'static str,
    /// Only the last event of those that count together has one: whoever knows some of them knows no
    /// more than before, and is told all of them again after a break.
    pub(super) id: Option<Revision>,
    pub(super) data: String,
}

/// What is told at once.
#[derive(Default)]
struct Step {
    told: Vec<Told>,
    bytes: usize,
}

#[derive(Serialize)]
struct Gone {
    host: String,
}

#[derive(Serialize)]
struct Empty {}

impl Follower {
    /// Follows one tenant's routes or all, from the beginning or after an id that was told before.
    pub(super) fn new(tenant: Option<Arc<str>>, after: Option<Revision>) -> Self {
        Self {
            tenant,
            state: match after {
                None => State::Nothing,
                Some(NOTHING) => State::Void,
                Some(revision) => State::UpTo(revision),
            },
            behind: true,
        }
    }

    /// What is next; `None` if there is nothing new. An empty step leads to another one.
    pub(super) fn step(&mut self, view: &View) -> Option<Vec<Told>> {
        let mut step = Step::default();
        self.state = match std::mem::replace(&mut self.state, State::Void) {
            State::Void => {
                step.tell("reset", Some(NOTHING), &Empty {});
                State::Nothing
            }
            State::Nothing => self.list(view, None, view.revision(), &mut step),
            State::UpToHost { host, since } => self.list(view, Some(&host), since, &mut step),
            State::AllBut { left, to } => self.changes(view, left, to, &mut step),
            State::UpTo(known) if known == view.revision() && !self.behind => {
                self.state = State::UpTo(known);
                return None;
            }
            State::UpTo(known) => self.changes_since(view, known, &mut step),
        };
        Some(step.told)
    }

    /// The next part of the whole list.
    fn list(
        &mut self,
        view: &View,
        after: Option<&HostMatch>,
        since: Revision,
        step: &mut Step,
    ) -> State {
        self.behind = true;
        let mut last = None;
        for host in view.hosts_after(self.tenant.as_deref(), after) {
            if let (true, Some(last)) = (step.is_full(), last) {
                let host = HostMatch::clone(last);
                return State::UpToHost { host, since };
            }
            let id = (after.is_none() && last.is_none()).then_some(NOTHING);
            self.route(view, host, id, step);
            last = Some(host);
        }
        // What changed while the list was told may have been told as it was before.
        self.changes_since(view, since, step)
    }

    fn changes_since(&mut self, view: &View, since: Revision, step: &mut Step) -> State {
        let Some(changed) = view.changed_since(since) else {
            return State::Void;
        };
        let mine = |tenant: &Arc<str>| self.tenant.as_ref().is_none_or(|own| own == tenant);
        let left = changed.into_iter().filter(|(tenant, _)| mine(tenant));
        let left = left.map(|(_, host)| host).collect();
        self.changes(view, left, view.revision(), step)
    }

    /// As many changes as go into a step.
    fn changes(
        &mut self,
        view: &View,
        mut left: VecDeque<HostMatch>,
        to: Revision,
        step: &mut Step,
    ) -> State {
        while !step.is_full()
            && let Some(host) = left.pop_front()
        {
            if !self.route(view, &host, None, step) {
                let host = host.to_string();
                step.tell("gone", None, &Gone { host });
            }
        }
        if !left.is_empty() {
            return State::AllBut { left, to };
        }
        if std::mem::take(&mut self.behind) {
            step.tell("synced", Some(to), &Empty {});
        } else if let Some(last) = step.told.last_mut() {
            last.id = Some(to);
        }
        State::UpTo(to)
    }

    /// Tells a route, if there is one that the client may see.
    fn route(&self, view: &View, host: &HostMatch, id: Option<Revision>, step: &mut Step) -> bool {
        let route = represent(host, view.sources(host));
        let mine = |tenant: &str| self.tenant.as_ref().is_none_or(|own| **own == *tenant);
        match route.filter(|route| mine(&route.tenant)) {
            Some(route) => {
                step.tell("route", id, &route);
                true
            }
            None => false,
        }
    }
}

impl Step {
    fn tell(&mut self, kind: &'static str, id: Option<Revision>, data: &impl Serialize) {
        let data = serde_json::to_string(data).expect("these are JSON");
        self.bytes += data.len();
        self.told.push(Told { kind, id, data });
    }

    fn is_full(&self) -> bool {
        self.told.len() >= AT_ONCE || self.bytes >= BYTES_AT_ONCE
    }
}

#[cfg(test)]
mod tests;
