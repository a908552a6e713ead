//! Parts that a router cannot do without, beside its workers: should one end, of a panic perhaps,
//! the process is to end as well, in good order, so that whoever watches over it starts it again.
//!
//! ```text
//! part -- Vital::part() --> Part, held as long as the part lives
//!                             | dropped, by a return or by a panic
//! whoever drains  <-- Ends::next() -- its name
//! ```

use tokio::sync::mpsc;

/// Makes the signs of life.
#[derive(Clone, Debug)]
pub struct Vital(mpsc::UnboundedSender<&'static str>);

/// Hears of the first end.
#[derive(Debug)]
pub struct Ends(mpsc::UnboundedReceiver<&'static str>);

/// A part lives as long as it holds this.
#[derive(Debug)]
pub struct Part {
    name: &'static str,
    ends: mpsc::UnboundedSender<&'static str>,
}

/// Both ends.
#[must_use]
pub fn vital() -> (Vital, Ends) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Vital(sender), Ends(receiver))
}

impl Vital {
    /// A part begins; `name` is for the log.
    #[must_use]
    pub fn part(&self, name: &'static str) -> Part {
        Part {
            name,
            ends: self.0.clone(),
        }
    }
}

impl Ends {
    /// Waits until a part has ended, and gives its name. Never comes without any part.
    pub async fn next(&mut self) -> &'static str {
        match self.0.recv().await {
            Some(name) => name,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        tracing::error!(
            part = self.name,
            panicked = std::thread::panicking(),
            "a part that the router cannot do without has ended"
        );
        // Nobody hears it if the process ends already.
        let _ = self.ends.send(self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_end_is_heard_of_whatever_ended_it() {
        let (vital, mut ends) = vital();
        let (one, two) = (vital.part("one"), vital.part("two"));
        let thread = std::thread::spawn(move || {
            let _alive = one;
            panic!("of a test");
        });
        assert_eq!(ends.next().await, "one");
        thread.join().unwrap_err();
        let task = tokio::spawn(async move {
            let _alive = two;
            tokio::task::yield_now().await;
            panic!("of a test");
        });
        assert_eq!(ends.next().await, "two");
        task.await.unwrap_err();
        let three = vital.part("three");
        drop(vital);
        drop(tokio::spawn(async move { drop(three) }));
        assert_eq!(ends.next().await, "three");
    }
}
