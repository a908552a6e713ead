//! A runtime for clients.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// A runtime of one thread that ends without waiting for what blocks. Names are looked up by the
/// system, which cannot be told to stop: without a name server that takes as long as it likes, and
/// whoever is told to end has to end.
pub struct ClientRuntime(Option<Runtime>);

impl ClientRuntime {
    /// Starts it.
    ///
    /// # Errors
    /// When the system does not give what it needs.
    pub fn new() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs until the future ends.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let runtime = self.0.as_ref().expect("it is taken only when dropped");
        runtime.block_on(future)
    }
}

impl Drop for ClientRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn what_blocks_does_not_hold_up_the_end() {
        let (release, released) = channel();
        let (tell, told) = channel();
        let runtime = ClientRuntime::new().unwrap();
        runtime.block_on(async {
            tokio::task::spawn_blocking(move || {
                let in_time = released.recv_timeout(Duration::from_secs(20));
                tell.send(in_time).unwrap();
            });
        });
        drop(runtime);
        release.send(()).unwrap();
        assert_eq!(told.recv().unwrap(), Ok(()), "the end waits");
    }
}
