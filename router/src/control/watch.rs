//! Reloads when asked and when files changed.

use std::sync::Arc;

use daemon::watch::{WatchOptions, Watcher};
use tokio::signal::unix::Signal;

use super::Control;

/// Reloads on `hangup` (SIGHUP) and when files changed; ends when the runtime does.
pub async fn watch(control: Arc<Control>, hangup: Signal, options: WatchOptions) {
    let watcher = Watcher::new(hangup, options, control.sources());
    let reload = move || {
        // The control itself logs and shows the outcome.
        let _ = control.reload();
        control.sources()
    };
    watcher.reload_with(reload).await;
}
