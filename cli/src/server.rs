//! What all servers of this program do alike.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

/// Waits until the process is told to end. Must be called within a runtime.
pub(crate) fn told_to_end() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
