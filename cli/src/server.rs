//! What all servers of this program do alike.

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

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

/// Two servers of one process: both end when it is told to, or when one of them ends.
pub(crate) struct Together(watch::Sender<bool>);

impl Together {
    /// Until `ended`. Must be called within a runtime.
    pub(crate) fn new(ended: impl Future<Output = ()> + Send + 'static) -> Self {
        let end = watch::Sender::new(false);
        let told = end.clone();
        tokio::spawn(async move {
            ended.await;
            told.send_replace(true);
        });
        Self(end)
    }

    /// When a server is to end.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut end = self.0.subscribe();
        async move { drop(end.wait_for(|end| *end).await) }
    }

    /// Runs both to their ends; gives what went wrong first.
    pub(crate) async fn run(
        &self,
        one: impl Future<Output = anyhow::Result<()>>,
        other: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let (one, other) = tokio::join!(self.until(one), self.until(other));
        one.and(other)
    }

    /// Runs one to its end, which is the end of the other too.
    async fn until<T>(&self, server: impl Future<Output = T>) -> T {
        let done = server.await;
        self.0.send_replace(true);
        done
    }
}

#[cfg(test)]
mod tests {
    use std::{future, time::Duration};

    use anyhow::bail;

    use super::*;

    #[tokio::test]
    async fn both_end_when_they_are_told_to_or_when_one_does() {
        let waits = |together: &Together| {
            let ended = together.ended();
            async {
                ended.await;
                Ok(())
            }
        };
        let told = Together::new(tokio::time::sleep(Duration::from_millis(20)));
        told.run(waits(&told), waits(&told)).await.expect("no error");
        let broken = Together::new(future::pending());
        let breaks = async { bail!("it broke") };
        let error = broken.run(waits(&broken), breaks).await.expect_err("what the other said");
        assert_eq!(error.to_string(), "it broke");
    }
}
