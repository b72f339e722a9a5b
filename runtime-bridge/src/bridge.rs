//! The loop: from the log on disk to alerts in the ledger.
//!
//! ```text
//! log ─read─► decode ─► Engine ─Found─► Desk ─one transaction─► ledger: alerts, notices, how far
//!              pods ─watch─┘ └─Need─► Shelf
//! ```
//!
//! One task owns the engine, so that nothing in it is shared. After a start it reads again some of what was judged, so that it knows the
//! processes that run, and judges none of it twice.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1;
use lineage::BlindRow;
use tokio::{sync::mpsc, time::Instant};
use tracing::{info, warn};

use crate::{
    alert::Cause,
    api::{Api, SensorHealth},
    desk::{Desk, DeskError, Written},
    door::{Blind, Sensor, Sensors},
    engine::{Counts, Engine, Found, Item, Out},
    identity::Container,
    log::{self, Log, Offset, Read, Record},
    sensor::{self, Dialect, Malformed, Told},
    shelf::{Shelf, Shelved},
    watch::Seen,
};

/// Records read again after a start, to know the processes that run.
const WARM: u64 = 200_000;
/// How often what was found is written.
const WRITE: Duration = Duration::from_millis(500);
/// How often waiting events are looked at.
const TICK: Duration = Duration::from_millis(200);
/// How often it is looked who says nothing, and who is to be asked for again.
const LOOK: Duration = Duration::from_secs(5);
/// How long is read before all else has its turn.
const TURN: Duration = Duration::from_millis(50);
/// How long an expectation is waited for: the webhook's records, and a first analysis.
const SHELVED: Duration = Duration::from_secs(30);
/// When a container without a DNA is asked for again.
const AGAIN: Duration = Duration::from_secs(60);
/// A sensor that was heard of and says nothing for so long is told to be silent.
const SILENT: Duration = Duration::from_secs(300);
/// Expectations that are kept for alerts' causes.
const MOST_CAUSES: usize = 20_000;

/// How sensors do, by name; shared with the API.
pub type Healths = Arc<Mutex<BTreeMap<String, SensorHealth>>>;

/// What the loop needs.
#[derive(Debug)]
pub struct Parts {
    /// Where events are.
    pub log: Log,
    /// Where expectations are.
    pub shelf: Shelf,
    /// Where alerts go.
    pub desk: Desk,
    /// Who sends.
    pub sensors: Sensors,
    /// How long events wait for their pod; zero where no cluster tells of pods.
    pub patience: SignedDuration,
    /// What the clusters tell of pods.
    pub pods: mpsc::Receiver<Seen>,
    /// What the door tells of events it refused.
    pub refused: mpsc::UnboundedReceiver<BlindRow>,
    /// How sensors do.
    pub healths: Healths,
    /// Who follows alerts.
    pub api: Api,
}

/// Why the loop ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BridgeError {
    /// What was found cannot be written, and trying again would not help.
    #[error(transparent)]
    Desk(#[from] DeskError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] log::Error),
}

struct Judging {
    engine: Engine,
    shelf: Shelf,
    desk: Desk,
    sensors: HashMap<String, (String, Option<Dialect>)>,
    pods: HashMap<(String, String), Arc<v1::Pod>>,
    causes: HashMap<String, Arc<Shelved>>,
    unknown: HashMap<String, Instant>,
    answers: mpsc::UnboundedSender<(Arc<Container>, Option<Shelved>)>,
    healths: Healths,
    judged: (u64, Vec<Range<u64>>),
    position: u64,
}

/// Judges until `shutdown`, then writes what it found.
///
/// # Errors
/// [`BridgeError`].
pub async fn judge(parts: Parts, shutdown: impl Future<Output = ()>) -> Result<(), BridgeError> {
    let Parts { log, shelf, desk, sensors, patience, mut pods, mut refused, healths, api } = parts;
    let checkpoint = loop {
        match desk.checkpoint().await {
            Ok(checkpoint) => break checkpoint,
            Err(error) => {
                warn!(%error, "the ledger does not answer; events are kept, and judged when it does");
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }
    };
    let judged = checkpoint.map_or((0, Vec::new()), |checkpoint| (checkpoint.offset, checkpoint.judged));
    // The log removes nothing that this cursor has not passed.
    let mut cursor = log.cursor("judge")?;
    let mut reader = log.reader(Offset(judged.0.saturating_sub(WARM)));
    info!(from = judged.0, end = log.end().0, "events are judged");
    let (answers, mut answered) = mpsc::unbounded_channel();
    let known = sensors.iter().map(|sensor| {
        let dialect = sensor.dialect.parse().ok();
        (sensor.name.clone(), (sensor.cluster.clone(), dialect))
    });
    let sensors: HashMap<_, _> = known.collect();
    {
        let mut healths = healths.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, (cluster, dialect)) in &sensors {
            let kind = dialect.map(|dialect: Dialect| dialect.to_string()).unwrap_or_default();
            healths.insert(name.clone(), SensorHealth::new(cluster, name, &kind));
        }
    }
    let mut judging = Judging {
        engine: Engine::new(patience),
        shelf,
        desk,
        sensors,
        pods: HashMap::new(),
        causes: HashMap::new(),
        unknown: HashMap::new(),
        answers,
        healths,
        position: reader.position().0,
        judged,
    };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut write_at = Instant::now() + WRITE;
    tokio::pin!(shutdown);
    loop {
        let mut out = Vec::new();
        let is_full = judging.desk.is_full() || judging.engine.is_full();
        let mut is_ending = false;
        tokio::select! {
            biased;
            () = &mut shutdown => is_ending = true,
            Some(seen) = pods.recv() => judging.pod(seen),
            Some((container, shelved)) = answered.recv() => judging.answer(&container, shelved, &mut out),
            Some(row) = refused.recv() => judging.desk.blind(row),
            _ = tick.tick() => judging.engine.tick(Timestamp::now(), &mut out),
            _ = look.tick() => judging.look_for_silence(),
            () = reader.wait(), if !is_full => {
                let until = Instant::now() + TURN;
                while let Some(read) = tokio::task::block_in_place(|| reader.read())? {
                    judging.read(read, &mut out);
                    if judging.desk.is_full() || judging.engine.is_full() || Instant::now() >= until {
                        break;
                    }
                }
                judging.position = reader.position().0;
            }
        }
        judging.settle(out);
        if Instant::now() >= write_at || is_ending || judging.desk.is_full() {
            match judging.write().await {
                Ok((done, written)) => {
                    cursor.commit(Offset(done))?;
                    if written.alerts > 0 {
                        api.changed();
                    }
                }
                Err(error @ DeskError::Overtaken { .. }) => return Err(error.into()),
                Err(error) => warn!(%error, "what was found is not written; it is kept"),
            }
            write_at = Instant::now() + WRITE;
        }
        if is_ending {
            return Ok(());
        }
    }
}

impl Judging {
    /// Records of the log.
    fn read(&mut self, read: Read, out: &mut Vec<Out>) {
        let records = match read {
            Read::Records(records) => records,
            Read::Damaged(damage) => {
                warn!(?damage, "events are lost: the disk gave back other bytes than were written");
                let now = Timestamp::now();
                self.desk.blind(BlindRow {
                    cluster: String::new(),
                    node: String::new(),
                    sensor: "bridge".to_owned(),
                    cause: "damaged".to_owned(),
                    from: now,
                    until: now,
                    count: None,
                    reason: format!("the bridge's log was damaged: {damage:?}"),
                });
                return;
            }
        };
        for record in records {
            self.record(record, out);
        }
    }

    fn record(&mut self, record: Record, out: &mut Vec<Out>) {
        let Some((cluster, dialect)) = self.sensors.get(&*record.sensor) else { return };
        let Some(dialect) = dialect.or_else(|| record.dialect.parse().ok()) else { return };
        let cluster = cluster.clone();
        // The API server sends lists of events; all others send events.
        if dialect == Dialect::KubernetesAudit {
            for item in sensor::items(&record.body) {
                self.item(&cluster, dialect, &record, item, out);
            }
        } else {
            self.item(&cluster, dialect, &record, Ok(&record.body), out);
        }
    }

    fn item(
        &mut self,
        cluster: &str,
        dialect: Dialect,
        record: &Record,
        item: Result<&[u8], Malformed>,
        out: &mut Vec<Out>,
    ) {
        let told = item.and_then(|item| Ok((sensor::key(dialect, item), sensor::decode(dialect, item)?)));
        let is_judged = self.is_judged(record.offset.0);
        {
            let mut healths = self.healths.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || SensorHealth::new(cluster, &record.sensor, dialect.name());
            let health = healths.entry(record.sensor.to_string()).or_insert_with(new);
            health.last_received = health.last_received.max(Some(record.received));
            match &told {
                Ok((_, told)) => {
                    health.events += u64::from(!is_judged);
                    if let Told::Activity(activity) = told {
                        health.last_event = health.last_event.max(Some(activity.at));
                    }
                    if let Told::Loss(loss) = told {
                        health.lost += loss.count.unwrap_or(1);
                    }
                }
                Err(error) => {
                    health.malformed += u64::from(!is_judged);
                    tracing::debug!(%error, sensor = &*record.sensor, "an item is no event of its sensor");
                }
            }
        }
        let Ok((key, told)) = told else {
            metrics::counter!("mayfly_bridge_malformed_total", "sensor" => record.sensor.to_string()).increment(1);
            return;
        };
        let (offset, received) = (record.offset.0, record.received);
        let cluster = cluster.to_owned();
        self.engine.take(Item { offset, cluster, key: key.to_string(), received, is_judged, told }, out);
    }

    fn is_judged(&self, offset: u64) -> bool {
        offset < self.judged.0 || self.judged.1.iter().any(|range| range.contains(&offset))
    }

    fn pod(&mut self, seen: Seen) {
        match seen {
            Seen::Pod(pod, whole) => {
                self.pods.insert((pod.cluster.clone(), pod.uid.clone()), Arc::new(*whole));
                self.engine.pod(&pod);
            }
            Seen::Gone { cluster, uid } => {
                self.engine.gone(&cluster, &uid, Timestamp::now());
                self.pods.remove(&(cluster, uid));
            }
        }
    }

    fn answer(&mut self, container: &Arc<Container>, shelved: Option<Shelved>, out: &mut Vec<Out>) {
        let key = container.key();
        match &shelved {
            Some(_) => _ = self.unknown.remove(&key),
            None => _ = self.unknown.insert(key.clone(), Instant::now()),
        }
        let expected = shelved.as_ref().map(|shelved| Arc::clone(&shelved.expected));
        if let Some(shelved) = shelved {
            if self.causes.len() >= MOST_CAUSES {
                self.causes.clear();
            }
            self.causes.insert(key, Arc::new(shelved));
        }
        self.engine.expect(container, expected, out);
    }

    /// What the engine gave out.
    fn settle(&mut self, out: Vec<Out>) {
        for out in out {
            match out {
                Out::Need(container) => self.fetch(container),
                Out::Found(found) => {
                    let cause = self.cause(&found);
                    self.desk.found(*found, cause);
                }
                Out::Caller { container, subject, user } => self.desk.caller(&container.place, &subject, user),
                Out::Blind { cluster, loss } => self.desk.blind(BlindRow {
                    cluster,
                    node: loss.node.unwrap_or_default(),
                    sensor: "sensor".to_owned(),
                    cause: "dropped".to_owned(),
                    from: loss.at,
                    until: loss.at,
                    count: loss.count,
                    reason: loss.reason,
                }),
            }
        }
    }

    /// Asks for the expectation of a container, for as long as it may still come.
    fn fetch(&self, container: Arc<Container>) {
        let shelf = self.shelf.clone();
        let answers = self.answers.clone();
        let pod = self.pods.get(&(container.place.cluster.clone(), container.pod_uid.clone())).cloned();
        tokio::spawn(async move {
            let until = Instant::now() + SHELVED;
            loop {
                match shelf.find(&container, pod.as_deref()).await {
                    Ok(Some(shelved)) => {
                        let _ = answers.send((container, Some(shelved)));
                        return;
                    }
                    Ok(None) if Instant::now() >= until => {
                        let _ = answers.send((container, None));
                        return;
                    }
                    Ok(None) => {}
                    Err(error) => warn!(%error, pod = container.pod, "an expectation is not read yet"),
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }

    /// Where the file that acts comes from.
    fn cause(&self, found: &Found) -> Option<Cause> {
        let (layer, package) = (found.deviation.layer, found.deviation.package.clone());
        if layer.is_none() && package.is_none() {
            return None;
        }
        let shelved = self.causes.get(&found.container.key());
        let step = layer.and_then(|layer| shelved?.steps.get(usize::try_from(layer).ok()?)?.clone());
        Some(Cause { layer, step, package })
    }

    /// Sensors that say nothing any more, and containers that are to be asked for again.
    fn look_for_silence(&mut self) {
        let now = Timestamp::now();
        let healths = self.healths.lock().unwrap_or_else(PoisonError::into_inner);
        let silent: Vec<BlindRow> = healths
            .iter()
            .filter_map(|(name, health)| {
                let last = health.last_received?;
                let is_silent = now.duration_since(last).unsigned_abs() > SILENT;
                is_silent.then(|| BlindRow {
                    cluster: health.cluster.clone(),
                    node: String::new(),
                    sensor: name.clone(),
                    cause: "silent".to_owned(),
                    from: last,
                    until: now,
                    count: None,
                    reason: "nothing was heard of it".to_owned(),
                })
            })
            .collect();
        drop(healths);
        silent.into_iter().for_each(|row| self.desk.blind(row));
        let due: Vec<String> =
            self.unknown.iter().filter(|(_, since)| since.elapsed() > AGAIN).map(|(key, _)| key.clone()).collect();
        for key in due {
            self.unknown.remove(&key);
            self.engine.ask_again(&key);
        }
    }

    /// Writes what was found; everything before the offset that comes back is done with.
    async fn write(&mut self) -> Result<(u64, Written), DeskError> {
        let open = self.engine.open();
        let reached = judged(&open, self.position, &self.judged);
        tell(self.engine.counts());
        if reached == self.judged && self.desk.is_empty() {
            return Ok((reached.0, Written::default()));
        }
        let written = self.desk.write(reached.0, reached.1.clone(), Timestamp::now()).await?;
        self.judged = reached;
        metrics::counter!("mayfly_bridge_alerts_written_total").increment(written.alerts as u64);
        Ok((self.judged.0, written))
    }
}

/// How far the log is judged: all below an offset, and ranges above it.
fn judged(open: &BTreeSet<u64>, position: u64, before: &(u64, Vec<Range<u64>>)) -> (u64, Vec<Range<u64>>) {
    // While it warms up, the loop reads what was judged already.
    let end = position.max(before.0).max(before.1.last().map_or(0, |range| range.end));
    let is_open = |offset: u64| offset >= before.0 && !before.1.iter().any(|range| range.contains(&offset));
    let mut ranges = Vec::new();
    let mut from = 0;
    // Between what was read and what was judged before, only that is judged.
    let unread = position..end;
    for offset in open.iter().copied().chain(unread).filter(|offset| is_open(*offset)) {
        if offset > from {
            ranges.push(from..offset);
        }
        from = offset + 1;
    }
    if end > from {
        ranges.push(from..end);
    }
    match ranges.first() {
        Some(first) if first.start == 0 => {
            let low = first.end;
            ranges.remove(0);
            (low, ranges)
        }
        _ => (0, ranges),
    }
}

fn tell(counts: Counts) {
    for (name, value) in [
        ("mayfly_bridge_judged_total", counts.judged),
        ("mayfly_bridge_repeated_total", counts.repeated),
        ("mayfly_bridge_unattributed_total", counts.unattributed),
        ("mayfly_bridge_without_dna_total", counts.without_dna),
        ("mayfly_bridge_ignored_total", counts.ignored),
    ] {
        metrics::counter!(name).absolute(value);
    }
}

/// Tells the loop of events that the door refused.
#[derive(Debug)]
pub struct Refusals(pub mpsc::UnboundedSender<BlindRow>);

impl Refusals {
    fn tell(&self, sensor: &Sensor, from: Timestamp, until: Timestamp, reason: &str) {
        let row = BlindRow {
            cluster: sensor.cluster.clone(),
            node: String::new(),
            sensor: sensor.name.clone(),
            cause: "full".to_owned(),
            from,
            until,
            count: None,
            reason: reason.to_owned(),
        };
        // The loop ends before the door only with the process.
        let _ = self.0.send(row);
    }
}

impl Blind for Refusals {
    fn opened(&self, sensor: &Sensor, at: Timestamp, reason: &'static str) {
        self.tell(sensor, at, at, reason);
    }

    fn closed(&self, sensor: &Sensor, at: Timestamp) {
        self.tell(sensor, at, at, "events are taken again");
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "one range is meant")]
mod tests {
    use super::*;

    #[test]
    fn what_is_judged_is_told_apart_from_what_waits() {
        let open = |offsets: &[u64]| offsets.iter().copied().collect();
        let none = (0, Vec::new());
        assert_eq!(judged(&open(&[]), 10, &none), (10, vec![]));
        assert_eq!(judged(&open(&[4, 5, 8]), 10, &none), (4, vec![6..8, 9..10]));
        assert_eq!(judged(&open(&[0]), 3, &none), (0, vec![1..3]));
        // Read again up to 6 after a start: all below 4, and 6 to 8, were judged.
        assert_eq!(judged(&open(&[2, 5]), 6, &(4, vec![6..8])), (5, vec![6..8]));
        assert_eq!(judged(&open(&[]), 2, &(4, vec![6..8])), (4, vec![6..8]));
    }
}
