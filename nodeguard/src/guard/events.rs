//! Drops that BPF tells of one by one, in a log that a flood cannot fill.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ebpf_common::event::Event;

use crate::bpf;
use crate::policy::Policy;
use crate::verdict::Reason;

/// Whoever knocks is told of once in this time, and then how often it was.
const WINDOW: Duration = Duration::from_secs(10);

/// Knockers that are told of in a window; of more there is a number.
const MOST: usize = 20;

/// What was told in this window.
pub(super) struct EventLog {
    since: Instant,
    /// How often after the first time.
    again: BTreeMap<Knock, u64>,
    untold: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Knock {
    source: IpAddr,
    destination: IpAddr,
    protocol: Option<config::guard::Protocol>,
    port: u16,
    reason: Reason,
}

impl EventLog {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            again: BTreeMap::new(),
            untold: 0,
        }
    }

    /// Takes in an event; logs it if it is news.
    pub(super) fn add(&mut self, event: &Event, policy: &Policy) {
        let knock = Knock {
            source: event.source(),
            destination: event.destination(),
            protocol: bpf::protocol(event.transport),
            port: event.destination_port,
            reason: event.reason.into(),
        };
        if let Some(again) = self.again.get_mut(&knock) {
            *again += 1;
        } else if self.again.len() < MOST {
            self.again.insert(knock, 0);
            let name = knock
                .protocol
                .and_then(|it| policy.port_name(it, knock.port));
            tracing::info!(
                source = %knock.source,
                destination = %knock.destination,
                protocol = knock.protocol.map(tracing::field::display),
                port = knock.port,
                name,
                reason = %knock.reason,
                device = event.device,
                "dropped"
            );
        } else {
            self.untold += 1;
        }
    }

    /// Tells the rest of a window that is over. The numbers are of what BPF's budget let it tell;
    /// the counters have all.
    pub(super) fn finish_window(&mut self, now: Instant) {
        if now.duration_since(self.since) < WINDOW {
            return;
        }
        for (knock, times) in &self.again {
            if *times > 0 {
                let (source, port) = (knock.source, knock.port);
                tracing::info!(%source, port, reason = %knock.reason, times, "dropped again");
            }
        }
        if self.untold > 0 {
            tracing::info!(
                times = self.untold,
                "dropped, from more sources or to more ports"
            );
        }
        *self = Self::new(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebpf_common::packet::Flow;
    use ebpf_common::table::{Reason as WireReason, Transport};

    fn event(last: u8) -> Event {
        let mut flow = Flow::EMPTY;
        flow.transport = Transport::Tcp;
        flow.source[..4].copy_from_slice(&[198, 51, 100, last]);
        flow.destination_port = 2379;
        Event::new(&flow, WireReason::Stranger, 2)
    }

    #[test]
    fn a_flood_is_told_in_a_few_lines() {
        let begun = Instant::now();
        let policy = Policy::shut("acme", "m1", None);
        let mut log = EventLog::new(begun);
        for _ in 0..1_000 {
            log.add(&event(1), &policy);
        }
        assert_eq!(log.again.len(), 1);
        assert_eq!(log.again.values().sum::<u64>(), 999);
        for last in 0..=255 {
            log.add(&event(last), &policy);
        }
        assert_eq!((log.again.len(), log.untold), (MOST, 256 - MOST as u64));
        log.finish_window(begun);
        assert_eq!(log.again.len(), MOST, "the window is not over");
        log.finish_window(begun + WINDOW);
        assert!(log.again.is_empty() && log.untold == 0);
    }
}
