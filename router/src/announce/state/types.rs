//! What goes into the state and comes out of it.

use std::time::{Duration, Instant};

use super::Refusal;
use crate::registry::api::types::Announcement;

/// How often, for how long, and to how many registries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long an announcement holds without renewal.
    pub ttl: Duration,
    /// How often it is renewed.
    pub renew: Duration,
    /// How many registries there are; at least one.
    pub registries: usize,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Call a registry.
    Call(Call),
    /// Give up the call that is under way.
    Abandon,
    /// Nothing, until then or until something happens.
    Wait(Option<Instant>),
}

/// A call of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which, as a place in the list of them.
    pub registry: usize,
    /// How long it may take.
    pub deadline: Duration,
    /// What is announced; `None` withdraws everything.
    pub announcement: Option<Announcement>,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Accepted {
        /// Whether nothing but the time has changed in the registry.
        renewed: bool,
    },
    /// The registry refuses what is announced; another would, too.
    Refused(Refusal),
    /// The registry refuses the caller; another may not.
    Unwelcome(Refusal),
    /// The credential has asked too often.
    Busy(Option<Duration>),
    /// It failed; whether it was done is not known.
    Failed {
        /// Why, for people.
        error: String,
        /// When to try again.
        retry_after: Option<Duration>,
        /// Whether another registry may do better.
        elsewhere: bool,
    },
}

/// Something to tell of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Other routes are announced than before, or the same after some trouble.
    Announced {
        /// How many.
        routes: usize,
        /// By which registry.
        registry: usize,
    },
    /// The same routes were announced once more.
    Renewed {
        /// By which registry.
        registry: usize,
    },
    /// Renewals find something else in the registry than was announced last.
    Contended,
    /// Nothing is announced any more.
    Withdrawn {
        /// By which registry.
        registry: usize,
    },
    /// A route is left out, or left out for another reason than before.
    LeftOut {
        /// Its host rule.
        host: String,
        /// Why.
        refusal: Refusal,
    },
    /// The whole announcement is refused, or refused for another reason than before.
    Refused {
        /// By which registry.
        registry: usize,
        /// Why.
        refusal: Refusal,
    },
    /// A registry does not do what it is asked, or does not for another reason than before.
    Failing {
        /// Which registry.
        registry: usize,
        /// Why.
        error: String,
    },
}
