//! Images worked out here: as many at once as memory allows, each in a thread of its own.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use dna::{Cause, Digest, Dna, Limits};
use moka::future::Cache;
use oci::{Options, Source};
use tokio::sync::Semaphore;

use super::{
    flight::Answer,
    resolve::{Image, Place},
};

/// Works out DNAs.
pub struct Analyzer {
    limits: Limits,
    cache: Option<oci::Cache>,
    rules: Digest,
    /// A permit for each [`UNIT`] of compressed image.
    room: Arc<Semaphore>,
    units: u32,
    speed: Mutex<Speed>,
    /// Those of the last images, until the ledger has been asked for them.
    recent: Mutex<VecDeque<(Digest, Arc<Dna>)>>,
    /// One flight for all who need an image analyzed, whatever their rules take for it: by image, place and credentials.
    flights: Cache<(Digest, String, Digest), Arc<Dna>>,
}

impl fmt::Debug for Analyzer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Analyzer").field("units", &self.units).finish_non_exhaustive()
    }
}

/// How fast analyses went, so that the next can be estimated.
#[derive(Debug, Clone, Copy)]
struct Speed {
    bytes_per_second: f64,
    waiting_bytes: u64,
}

/// No DNA.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Registry(#[from] oci::Error),
    #[error(transparent)]
    Analysis(#[from] analyzer::Error),
    #[error("{0}")]
    Other(String),
}

impl Failure {
    pub(super) fn answer<V>(&self) -> Answer<V> {
        match self {
            Self::Registry(error) => Answer::failed(error),
            // The same image will fail again.
            Self::Analysis(error) => Answer {
                fact: dna::Fact::unknown(Cause::AnalysisFailed, error.to_string()),
                holds: super::flight::ABSENT,
            },
            Self::Other(why) => Answer::unknown(Cause::AnalysisFailed, why.clone()),
        }
    }
}

impl Analyzer {
    /// Holds at most `memory_bytes` of images at once; an image takes about as much as its compressed layers. Layers and what was
    /// worked out of them are kept in `cache`.
    ///
    /// # Errors
    /// [`analyzer::Error`] where the limits cannot be written down, which does not happen.
    pub fn new(limits: Limits, cache: Option<oci::Cache>, memory_bytes: u64) -> Result<Self, analyzer::Error> {
        let units = u32::try_from(memory_bytes / UNIT).unwrap_or(u32::MAX).max(1);
        Ok(Self {
            rules: analyzer::rules(&limits)?,
            limits,
            cache,
            room: Arc::new(Semaphore::new(units as usize)),
            units,
            speed: Mutex::new(Speed { bytes_per_second: FIRST_GUESS, waiting_bytes: 0 }),
            recent: Mutex::default(),
            flights: Cache::builder().max_capacity(RECENT as u64).time_to_live(LANDED).build(),
        })
    }

    /// The digest of the rules that DNAs made here are made by.
    pub(super) fn rules(&self) -> &Digest {
        &self.rules
    }

    /// Fetches and analyzes an image, once for all who ask at the same time.
    pub(super) async fn analyze(&self, place: &Place, image: &Image) -> Result<Arc<Dna>, Arc<Failure>> {
        let key = (image.digest.clone(), place.name.clone(), place.identity.clone());
        self.flights.try_get_with(key, async { self.fetched(place, image).await.map(Arc::new) }).await
    }

    async fn fetched(&self, place: &Place, image: &Image) -> Result<Dna, Failure> {
        let bytes = image.bytes;
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, self.units);
        self.speed(|speed| speed.waiting_bytes = speed.waiting_bytes.saturating_add(bytes));
        let _waiting = Waiting { analyzer: self, bytes };
        let room = Arc::clone(&self.room).acquire_many_owned(units).await;
        let room = room.map_err(|_| Failure::Other("the analyzer is shut down".to_owned()))?;
        let started = Instant::now();
        let source: Source = format!("docker://{}@{}", place.name, image.digest)
            .parse()
            .map_err(|error| Failure::Other(format!("{}@{}: {error}", place.name, image.digest)))?;
        let mut settings = place.settings.as_ref().clone();
        settings.cache.clone_from(&self.cache);
        settings.total_timeout = FETCH;
        let options = Options { limits: self.limits.clone(), registry: settings, ..Options::default() };
        let images = oci::open_async(&source, &options).await?;
        let [opened] =
            <[oci::Image; 1]>::try_from(images).map_err(|_| Failure::Other("it holds several images".to_owned()))?;
        let (limits, cache) = (self.limits.clone(), self.cache.clone());
        let work = tokio::task::spawn_blocking(move || {
            let progress = analyzer::Progress::start(&limits);
            let mounted = analyzer::Mounted::default();
            let found = analyzer::analyze_with(&opened, &mounted, cache.as_ref(), &limits, &progress);
            drop(room);
            found
        });
        let analysis = work.await.map_err(|error| Failure::Other(format!("the analysis panicked: {error}")))??;
        let seconds = started.elapsed().as_secs_f64().max(0.05);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        self.speed(|speed| speed.bytes_per_second += 0.3 * (bytes as f64 / seconds - speed.bytes_per_second));
        metrics::histogram!("mayfly_analysis_seconds").record(seconds);
        Ok(analysis.dna)
    }

    /// How long an image of so many compressed bytes will take from now, what waits before it included.
    #[must_use]
    pub fn estimate(&self, bytes: u64) -> Duration {
        let Speed { bytes_per_second, waiting_bytes } = self.speed(|speed| *speed);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let seconds = waiting_bytes.max(bytes) as f64 / bytes_per_second.max(1.0);
        Duration::from_secs_f64(seconds.clamp(1.0, 3600.0))
    }

    pub(super) fn remember(&self, digest: &Digest, dna: Arc<Dna>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.iter().all(|(known, _)| known != digest) {
            recent.push_back((digest.clone(), dna));
        }
        while recent.len() > RECENT {
            recent.pop_front();
        }
    }

    pub(super) fn recent(&self, digest: &Digest) -> Option<Arc<Dna>> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().find(|(known, _)| known == digest).map(|(_, dna)| Arc::clone(dna))
    }

    fn speed<T>(&self, change: impl FnOnce(&mut Speed) -> T) -> T {
        change(&mut self.speed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// An image that waits or is being worked out; it stops waiting however that ends.
struct Waiting<'a> {
    analyzer: &'a Analyzer,
    bytes: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.analyzer.speed(|speed| speed.waiting_bytes = speed.waiting_bytes.saturating_sub(self.bytes));
    }
}

/// Memory is given out in pieces of this size.
const UNIT: u64 = 1 << 20;

/// Until an analysis was measured.
const FIRST_GUESS: f64 = 20e6;

/// Time to fetch one image, whoever waits for it.
const FETCH: Duration = Duration::from_secs(15 * 60);

/// How long an analysis that is done counts for one that is about to begin.
const LANDED: Duration = Duration::from_secs(10);

/// Whole DNAs that wait to be bound.
const RECENT: usize = 8;
