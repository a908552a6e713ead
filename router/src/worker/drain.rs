//! How the workers are told to stop.

use std::time::Duration;

use tokio::sync::watch;

/// What the workers are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Serve,
    /// Accept nothing more; end each connection with the request it is in.
    Drain(Duration),
}

/// Tells all workers to drain.
#[derive(Clone, Debug)]
pub struct Drain(watch::Sender<Order>);

impl Drain {
    pub(crate) fn new() -> (Self, watch::Receiver<Order>) {
        let (sender, receiver) = watch::channel(Order::Serve);
        (Self(sender), receiver)
    }

    /// What is ordered, for others that end with the workers.
    pub(crate) fn orders(&self) -> watch::Receiver<Order> {
        self.0.subscribe()
    }

    /// Stops listening and ends every connection with the request it is in; what is left after
    /// `deadline` is cut off. Called again, with a shorter one, it hurries.
    pub fn begin(&self, deadline: Duration) {
        self.0.send_replace(Order::Drain(deadline));
    }
}
