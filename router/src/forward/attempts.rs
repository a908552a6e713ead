//! The attempts of one request: one, and a second where that is safe.

use std::sync::Arc;

use super::failure::Failure;
use super::respond::Answer;
use crate::snapshot::Settings;
use crate::upstream::{Lease, NoEndpoint, Pools, Tried, Upstream};

/// The attempts of one request.
#[derive(Default)]
pub(crate) struct Attempts {
    tried: Tried,
    again: bool,
}

impl Attempts {
    /// A connection for the next attempt. The second one never rides on a pooled connection, and
    /// goes to another endpoint if there is one.
    pub(crate) async fn lease(
        &mut self,
        pools: &Pools,
        upstream: &Arc<Upstream>,
        settings: &Settings,
    ) -> Result<Lease, Answer> {
        loop {
            match pools
                .http1(upstream, settings, &mut self.tried, self.again)
                .await
            {
                Ok(lease) => return Ok(lease),
                Err(NoEndpoint { last: None }) if !self.tried.is_empty() => {
                    // The only endpoint there is gets the second attempt, too.
                    self.tried = Tried::default();
                }
                Err(error) => return Err(Answer::new(503, error.reason())),
            }
        }
    }

    /// Whether a request whose attempt has failed may be sent once more: only if the connection
    /// died without a byte of answer, nothing of the request is lost with it, and doing it twice
    /// does what doing it once does (RFC 9110, section 9.2.2).
    pub(crate) fn again(
        &mut self,
        (pools, settings): (&Pools, &Settings),
        lease: &Lease,
        (failure, heard): (&Failure, bool),
        (bodyless, idempotent): (bool, bool),
    ) -> bool {
        if matches!(failure, Failure::UpstreamLost) {
            pools.lost(&lease.endpoint, settings.timeouts.endpoint_rest);
        }
        let repeatable = failure.is_of_connection() && !heard && bodyless && idempotent;
        if self.again || !repeatable {
            return false;
        }
        self.again = true;
        // It may have died because its endpoint did, and its siblings with it.
        lease.endpoint.distrust_idle();
        self.tried.add(&lease.endpoint);
        true
    }
}
