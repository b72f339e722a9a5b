//! The task that looks after certificates: at once, then again and again until it is told to stop.

use std::time::Duration;

use jiff::Timestamp;

use crate::{Error, FileSource, SecretSource, Serving, files::read, secret::Memory};

/// Where certificates come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Our own authority, in a Secret.
    Secret(Box<SecretSource>),
    /// Mounted files.
    Files(FileSource),
}

/// Looks after what `serving` serves until `shutdown`. No failure ends it: what was good is served on, the failure is logged, stands
/// in [`Serving::status`], and it is tried again.
pub async fn run(source: Source, serving: Serving, shutdown: impl Future<Output = ()>) {
    run_every(source, serving, LOOK_EVERY, shutdown).await;
}

/// [`run`], with the time from one look to the next.
pub async fn run_every(source: Source, serving: Serving, every: Duration, shutdown: impl Future<Output = ()>) {
    let mut memory = Memory::default();
    let mut pause = every;
    let looking = async {
        loop {
            pause = match look(&source, &serving, &mut memory).await {
                Ok(()) => every,
                // Soon again at first: at start nothing is served yet.
                Err(_) if pause >= every => FIRST_PAUSE.min(every),
                Err(_) => (pause * 2).min(every),
            };
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! {
        () = looking => {}
        () = shutdown => {}
    }
}

async fn look(source: &Source, serving: &Serving, memory: &mut Memory) -> Result<(), Error> {
    let looked = tokio::time::timeout(LOOK_LIMIT, async {
        let clients = clients(serving).await;
        let now = Timestamp::now();
        let until = match source {
            Source::Secret(source) => Some(source.look(serving, memory, now).await?),
            Source::Files(files) => files.look(serving).await.map(|()| None)?,
        };
        clients.map(|()| until)
    });
    let (until, problem, result) = match looked.await {
        Ok(Ok(until)) => (until, None, Ok(())),
        Ok(Err(error)) => (None, Some(chain(&error)), Err(error)),
        Err(_) => {
            let what = "certificates were not looked after in time".to_owned();
            (None, Some(what.clone()), Err(Error::Conflict { what, attempts: 1 }))
        }
    };
    if let Some(problem) = &problem
        && serving.status(Timestamp::now()).problem.as_ref() != Some(problem)
    {
        tracing::warn!(error = %problem, is_serving = serving.is_ready(), "certificates cannot be looked after; tried again");
    }
    serving.note(until, problem);
    result
}

async fn clients(serving: &Serving) -> Result<(), Error> {
    let Some(path) = serving.client_authorities() else { return Ok(()) };
    serving.replace_client_authorities(&path.display().to_string(), &read(path).await?)
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The kubelet takes a minute or two to exchange mounted files.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const LOOK_LIMIT: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
