//! From the outbox to the sinks: one task for each, which takes what is due, tells it, and says what came of it.
//!
//! | what came of it | then |
//! | --- | --- |
//! | taken | done |
//! | not reached, no answer in time, 429, 503, a file that cannot be written | the sink rests; what else was due is put off with it |
//! | another 5xx, 408 | this notice is put off, the next is tried |
//! | any other answer | the notice is dead: it would be refused again |
//!
//! A rest is twice as long from failure to failure, never shorter than a receiver asks for by `Retry-After`, and cut at random, so that
//! several bridges do not come back at once. A notice older than [`Pace::give_up`] is dropped. Both are errors in the log, and counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use lineage::AlertHead;
use tokio::{sync::watch, task::JoinSet};

use super::{
    Notice, body,
    config::{Kind, Sink, Sinks},
    file,
    http::Http,
    syslog::Syslog,
};
use crate::{alert::Place, settings::SettingsError};

/// Where notices wait until their sink took them.
pub trait Outbox: Send + Sync + 'static {
    /// Notices of a sink whose time has come, those made first first, at most `limit`. Nobody else gets them for `hold`; whoever dies over them
    /// gets them again after it.
    fn due(
        &self,
        sink: &str,
        hold: Duration,
        limit: u32,
        now: Timestamp,
    ) -> impl Future<Output = Result<Vec<Notice>, OutboxError>> + Send;

    /// The sink took it.
    fn done(&self, notice: &Notice) -> impl Future<Output = Result<(), OutboxError>> + Send;

    /// The sink did not take it, and why. Without a next try it will not be tried again.
    fn failed(
        &self,
        notice: &Notice,
        next_try: Option<Timestamp>,
        why: &str,
    ) -> impl Future<Output = Result<(), OutboxError>> + Send;

    /// The alerts of a workload that are not resolved and weigh as much, the gravest first, at most `limit`.
    fn of_workload(
        &self,
        place: &Place,
        min_risk: f64,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<AlertHead>, OutboxError>> + Send;

    /// When the oldest notice of a sink was made that still waits, due or not.
    fn oldest(&self, sink: &str) -> impl Future<Output = Result<Option<Timestamp>, OutboxError>> + Send;
}

/// What an outbox says when it cannot be read or written.
pub type OutboxError = Box<dyn std::error::Error + Send + Sync>;

/// How fast, how often and how long.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Pace {
    /// How often one looks for what is due.
    pub look: Duration,
    /// For one answer.
    pub timeout: Duration,
    /// The rest after a first failure.
    pub first_rest: Duration,
    /// The longest rest that is not asked for.
    pub longest_rest: Duration,
    /// The age at which a notice is given up.
    pub give_up: SignedDuration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            look: Duration::from_secs(1),
            timeout: Duration::from_secs(10),
            first_rest: Duration::from_secs(5),
            longest_rest: Duration::from_mins(15),
            give_up: SignedDuration::from_hours(72),
        }
    }
}

/// Tells sinks what is due.
pub struct Delivery {
    sinks: Vec<(Sink, Target)>,
    pace: Pace,
}

impl Delivery {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// [`SettingsError`] where a file that a sink names cannot be used.
    pub fn new(sinks: &Sinks, pace: Pace) -> Result<Self, SettingsError> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let open = |sink: &Sink| Ok((sink.clone(), Target::open(sink, &pace, host.trim())?));
        let sinks = sinks.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { sinks, pace })
    }

    /// Until `shutdown`; what is under way then has as long as any answer.
    pub async fn run<O: Outbox>(self, outbox: Arc<O>, shutdown: impl Future<Output = ()>) {
        let (end, ended) = watch::channel(false);
        let last = self.pace.timeout;
        let mut tasks = JoinSet::new();
        for (sink, target) in self.sinks {
            let worker = Worker::new(sink, target, self.pace.clone(), outbox.clone(), ended.clone());
            tasks.spawn(worker.run());
        }
        drop(ended);
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(Err(error)) = tasks.join_next() => {
                    tracing::error!(%error, "the task of a sink broke off: nothing is told there until the next start");
                }
            }
        }
        end.send_replace(true);
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(last, all).await.is_err() {
            tracing::warn!("a sink does not answer; what it was told last is told again after the next start");
        }
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.sinks.iter().map(|(sink, _)| sink)).finish()
    }
}

/// What a sink is reached by.
enum Target {
    Http(Box<Http>),
    Syslog(Syslog, String),
    File,
}

impl Target {
    fn open(sink: &Sink, pace: &Pace, host: &str) -> Result<Self, SettingsError> {
        Ok(match sink.kind {
            Kind::File => Self::File,
            Kind::Syslog => Self::Syslog(Syslog::open(sink)?, host.to_owned()),
            _ => Self::Http(Box::new(Http::open(sink, pace, host)?)),
        })
    }

    /// How many are taken at once.
    const fn batch(&self) -> u32 {
        match self {
            // As many as are surely told, one after the other, before others may take them.
            Self::Http(_) => 16,
            Self::Syslog(..) | Self::File => 256,
        }
    }
}

/// Why a notice was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    why: String,
    then: Then,
    after: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The sink takes nothing now.
    Rest,
    /// It may take others.
    Next,
    /// It will never take this one.
    Never,
}

impl Failure {
    pub(super) fn all(why: String) -> Self {
        Self { why, then: Then::Rest, after: None }
    }

    pub(super) fn one(why: String) -> Self {
        Self { why, then: Then::Next, after: None }
    }

    pub(super) fn never(why: String) -> Self {
        Self { why, then: Then::Never, after: None }
    }

    pub(super) fn after(self, after: Option<Duration>) -> Self {
        Self { after, ..self }
    }

    /// The rest that the receiver asks for.
    fn asked(&self) -> Duration {
        self.after.unwrap_or_default().min(LONGEST_ASKED)
    }
}

struct Worker<O> {
    sink: Sink,
    target: Target,
    pace: Pace,
    outbox: Arc<O>,
    ended: watch::Receiver<bool>,
    /// Failures of the sink, not of a notice, since something was taken.
    failures: u32,
    /// Until when it rests.
    rests: Option<Instant>,
    /// The last revision of each alert that was told, so that an older one, which was put off, is not told after it.
    told: BTreeMap<String, u64>,
    sent: metrics::Counter,
    failed: metrics::Counter,
    dead: metrics::Counter,
    dropped: metrics::Counter,
    oldest: metrics::Gauge,
}

impl<O: Outbox> Worker<O> {
    fn new(sink: Sink, target: Target, pace: Pace, outbox: Arc<O>, ended: watch::Receiver<bool>) -> Self {
        let name = || sink.name.clone();
        Self {
            failures: 0,
            rests: None,
            told: BTreeMap::new(),
            sent: metrics::counter!("mayfly_notices_sent_total", "sink" => name()),
            failed: metrics::counter!("mayfly_notices_failed_total", "sink" => name()),
            dead: metrics::counter!("mayfly_notices_dead_total", "sink" => name()),
            dropped: metrics::counter!("mayfly_notices_dropped_total", "sink" => name()),
            oldest: metrics::gauge!("mayfly_notices_oldest_seconds", "sink" => name()),
            sink,
            target,
            pace,
            outbox,
            ended,
        }
    }

    async fn run(mut self) {
        while !*self.ended.borrow() {
            let wait = match self.turn().await {
                Ok(true) => Duration::ZERO,
                Ok(false) => self.pace.look,
                Err(error) => {
                    tracing::error!(
                        sink = self.sink.name,
                        error = &*error,
                        "the outbox cannot be used; it is tried again"
                    );
                    self.pace.first_rest
                }
            };
            let ended = self.ended.wait_for(|ended| *ended);
            if tokio::time::timeout(wait, ended).await.is_ok() {
                break;
            }
        }
    }

    /// Tells what is due. Whether there may be more.
    async fn turn(&mut self) -> Result<bool, OutboxError> {
        let now = Timestamp::now();
        let oldest = self.outbox.oldest(&self.sink.name).await?;
        self.oldest.set(oldest.map_or(0.0, |made_at| now.duration_since(made_at).as_secs_f64().max(0.0)));
        if self.rests.is_some_and(|until| Instant::now() < until) {
            return Ok(false);
        }
        let due = self.outbox.due(&self.sink.name, HOLD, self.target.batch(), now).await?;
        let is_full = due.len() >= self.target.batch() as usize;
        let mut fresh = Vec::new();
        for notice in due {
            if now.duration_since(notice.made_at) > self.pace.give_up {
                self.dropped.increment(1);
                tracing::error!(
                    sink = self.sink.name,
                    notice = notice.id,
                    attempts = notice.attempts,
                    "a notice is given up"
                );
                self.outbox.failed(&notice, None, "too old").await?;
            } else if self.is_overtaken(&notice) {
                self.outbox.done(&notice).await?;
            } else {
                fresh.push(notice);
            }
        }
        if fresh.is_empty() {
            return Ok(is_full);
        }
        match &self.target {
            Target::Http(_) => self.one_by_one(fresh).await?,
            Target::Syslog(..) | Target::File => self.all_at_once(fresh).await?,
        }
        Ok(is_full && self.rests.is_none())
    }

    async fn one_by_one(&mut self, notices: Vec<Notice>) -> Result<(), OutboxError> {
        let mut notices = notices.into_iter();
        // A report has all alerts of its workload: what is due of the others is told with it.
        let mut reported: BTreeSet<Place> = BTreeSet::new();
        while let Some(notice) = notices.next() {
            // Of those that came with it, one may be newer and told already.
            if self.is_overtaken(&notice) {
                self.outbox.done(&notice).await?;
                continue;
            }
            let Target::Http(http) = &self.target else { return Ok(()) };
            let sent = match self.sink.kind {
                Kind::PolicyReport => {
                    let place = workload(&notice.alert.place);
                    if reported.contains(&place) {
                        self.outbox.done(&notice).await?;
                        continue;
                    }
                    let alerts = self.outbox.of_workload(&place, self.sink.min_risk, MOST_REPORTED).await?;
                    let sent = http.report(&place, &alerts).await;
                    if sent.is_ok() {
                        reported.insert(place);
                    }
                    sent
                }
                _ => http.send(&notice).await,
            };
            match sent {
                Ok(()) => self.taken(&notice).await?,
                Err(failure) if failure.then == Then::Rest => {
                    self.failed.increment(1);
                    return self.rest([notice].into_iter().chain(notices), &failure).await;
                }
                Err(failure) => self.refused(&notice, failure).await?,
            }
            if *self.ended.borrow() {
                return self.put_off(notices, Duration::ZERO, "the bridge ends").await;
            }
        }
        Ok(())
    }

    async fn all_at_once(&mut self, notices: Vec<Notice>) -> Result<(), OutboxError> {
        let told = match &self.target {
            Target::Syslog(syslog, host) => {
                let message = |notice| body::syslog(notice, host, syslog.max_bytes());
                let messages: Vec<String> = notices.iter().map(message).collect();
                match tokio::time::timeout(self.pace.timeout, syslog.send(&messages)).await {
                    Ok(sent) => sent.map_err(|error| error.to_string()),
                    Err(_) => Err("not taken in time".to_owned()),
                }
            }
            Target::File => {
                let lines: Vec<String> = notices.iter().map(body::generic).collect();
                let path = self.sink.file.clone().unwrap_or_default();
                let max_bytes = u64::from(self.sink.max_mib.unwrap_or(MIB)) << 20;
                let keep = self.sink.keep.unwrap_or(KEEP);
                let written = tokio::task::spawn_blocking(move || file::append(&path, &lines, max_bytes, keep)).await;
                match written {
                    Ok(written) => written.map_err(|error| error.to_string()),
                    Err(error) => Err(error.to_string()),
                }
            }
            Target::Http(_) => return Ok(()),
        };
        if let Err(why) = told {
            self.failed.increment(notices.len() as u64);
            return self.rest(notices.into_iter(), &Failure::all(why)).await;
        }
        for notice in &notices {
            self.taken(notice).await?;
        }
        Ok(())
    }

    async fn taken(&mut self, notice: &Notice) -> Result<(), OutboxError> {
        self.sent.increment(1);
        if std::mem::take(&mut self.failures) > 0 {
            tracing::info!(sink = self.sink.name, "a sink takes notices again");
        }
        self.rests = None;
        if let Some((alert, revision)) = revision(notice) {
            if self.told.len() >= MOST_TOLD {
                self.told.clear();
            }
            self.told.insert(alert.to_owned(), revision);
        }
        self.outbox.done(notice).await
    }

    /// This notice was not taken; others may be.
    async fn refused(&mut self, notice: &Notice, failure: Failure) -> Result<(), OutboxError> {
        let (sink, why) = (&self.sink.name, &failure.why);
        if failure.then == Then::Never {
            self.dead.increment(1);
            tracing::error!(sink, notice = notice.id, why, "a sink refuses a notice, which is not told");
            return self.outbox.failed(notice, None, why).await;
        }
        self.failed.increment(1);
        let rest = rest(&self.pace, notice.attempts).max(failure.asked());
        tracing::warn!(sink, notice = notice.id, why, seconds = rest.as_secs(), "a sink did not take a notice");
        self.put_off([notice.clone()].into_iter(), rest, why).await
    }

    /// The sink takes nothing: neither these nor any other, for a while.
    async fn rest(&mut self, notices: impl Iterator<Item = Notice>, failure: &Failure) -> Result<(), OutboxError> {
        self.failures = self.failures.saturating_add(1);
        let rest = rest(&self.pace, self.failures).max(failure.asked());
        self.rests = Instant::now().checked_add(rest);
        tracing::warn!(
            sink = self.sink.name,
            why = failure.why,
            seconds = rest.as_secs(),
            "a sink takes nothing and rests"
        );
        self.put_off(notices, rest, &failure.why).await
    }

    async fn put_off(
        &self,
        notices: impl Iterator<Item = Notice>,
        rest: Duration,
        why: &str,
    ) -> Result<(), OutboxError> {
        let next = later(Timestamp::now(), rest);
        for notice in notices {
            self.outbox.failed(&notice, Some(next), why).await?;
        }
        Ok(())
    }

    /// Whether a later state of the same alert was told.
    fn is_overtaken(&self, notice: &Notice) -> bool {
        let told = |(alert, revision)| self.told.get(alert).is_some_and(|told| *told > revision);
        revision(notice).is_some_and(told)
    }
}

fn revision(notice: &Notice) -> Option<(&str, u64)> {
    let (alert, revision) = notice.id.rsplit_once('/')?;
    Some((alert, revision.parse().ok()?))
}

/// Half of it is certain, the other half by chance.
fn rest(pace: &Pace, failures: u32) -> Duration {
    let doubled = pace.first_rest.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    let whole = doubled.min(pace.longest_rest);
    let mut chance = [0];
    // Without chance it is the whole.
    let part = aws_lc_rs::rand::fill(&mut chance).map_or(u8::MAX, |()| chance[0]);
    whole / 2 + whole / 2 * u32::from(part) / u32::from(u8::MAX)
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// How long what was taken from the outbox is nobody else's: longer than a batch takes.
const HOLD: Duration = Duration::from_mins(5);

/// The longest that a receiver may ask for.
const LONGEST_ASKED: Duration = Duration::from_hours(24);

/// Alerts whose last revision is known.
const MOST_TOLD: usize = 10_000;

/// MiB of a file, and files put aside, where nothing is said.
const MIB: u32 = 100;
const KEEP: u32 = 5;

/// Where a workload is, whatever its containers.
fn workload(place: &Place) -> Place {
    let (cluster, namespace, owner) = (place.cluster.clone(), place.namespace.clone(), place.owner.clone());
    Place { cluster, namespace, owner, ..Place::default() }
}

/// Alerts that a report counts.
const MOST_REPORTED: u32 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_double_up_to_a_limit_and_are_never_less_than_half() {
        let pace = Pace::default();
        for (failures, whole) in [(0, 5), (1, 5), (2, 10), (5, 80), (9, 900), (u32::MAX, 900)] {
            let rest = rest(&pace, failures);
            let whole = Duration::from_secs(whole);
            assert!((whole / 2..=whole).contains(&rest), "{failures}: {rest:?}");
        }
    }
}
