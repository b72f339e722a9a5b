//! The loop: from the log on disk, or a partition of a stream, to alerts in the ledger.
//!
//! ```text
//! Source ─read─► decode ─► Engine ─Found─► Desk ─one transaction─► ledger: alerts, notices, how far
//!              pods ─watch─┘ └─Need─► Shelf
//! ```
//!
//! One task owns the engine, so that nothing in it is shared. After a start it reads again some of what was judged, so that it knows the
//! processes that run, and judges none of it twice.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dna::Activity;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1;
use lineage::BlindRow;
use policies::{Rules, Watch};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::Instant,
};
use tracing::{info, warn};

use crate::{
    api::{Api, SensorHealth},
    desk::{Desk, DeskError, Written},
    door::{Blind, Sensor, Sensors},
    engine::{Counts, Engine, Item, Out},
    identity::Container,
    known::Known,
    log::{self, Read, Record},
    overlays::Overlays,
    risk::Model,
    rules,
    sensor::{self, Dialect, Told},
    shelf::{Imaged, Shelf, Shelved},
    stream::{self, Origin, Source},
    watch::Seen,
};

/// How often what was found is written.
const WRITE: Duration = Duration::from_millis(500);
/// How often waiting events are looked at.
const TICK: Duration = Duration::from_millis(200);
/// How often it is looked who says nothing, and who is to be asked for again.
const LOOK: Duration = Duration::from_secs(5);
/// How long is read before all else has its turn, and what may come out meanwhile.
const TURN: Duration = Duration::from_millis(50);
const MOST_OUT: usize = 1_000;
/// How long an expectation is waited for: the webhook's records, and a first analysis.
const SHELVED: Duration = Duration::from_secs(30);
/// When a container without a DNA is asked for again.
const AGAIN: Duration = Duration::from_secs(60);
/// A sensor that was heard of and says nothing for so long is told to be silent.
const SILENT: Duration = Duration::from_secs(300);
/// Expectations that are looked for at once: each takes a DNA, unpacked.
const AT_ONCE: usize = 4;

/// How sensors do, by name; shared with the API.
pub type Healths = Arc<Mutex<BTreeMap<String, SensorHealth>>>;

/// What the loop needs.
#[derive(Debug)]
pub struct Parts {
    /// Where events are.
    pub origin: Origin,
    /// Where expectations are.
    pub shelf: Shelf,
    /// Where alerts go.
    pub desk: Desk,
    /// Who sends.
    pub sensors: Sensors,
    /// How long events wait for their pod; zero where no cluster tells of pods.
    pub patience: SignedDuration,
    /// What ranks deviations; without it, rules alone do.
    pub risk_model: Option<Arc<Model>>,
    /// What the clusters tell of pods.
    pub pods: mpsc::Receiver<Seen>,
    /// What the door tells of events it refused.
    pub refused: mpsc::UnboundedReceiver<BlindRow>,
    /// How sensors do.
    pub healths: Healths,
    /// Who follows alerts.
    pub api: Api,
    /// What people accept.
    pub overlays: watch::Receiver<Arc<Overlays>>,
    /// Rules of run time.
    pub rules: watch::Receiver<Arc<Rules>>,
    /// What looks for those that take too long.
    pub rule_watch: Arc<Watch>,
    /// Whether this loop reads all there is: then it knows which sensors are silent.
    pub is_alone: bool,
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
    /// The stream that bridges share is gone.
    #[error(transparent)]
    Stream(stream::Error),
    /// Another process has this bridge's name.
    #[error("another bridge was started with the name `{name}`: give each its own --name")]
    Displaced {
        /// The name.
        name: String,
    },
}

/// What was found of a container that was asked for.
struct Answer {
    container: Arc<Container>,
    imaged: Imaged,
    /// What is expected of it; none where only its image was asked for.
    shelved: Option<Option<Shelved>>,
}

struct Judging {
    engine: Engine,
    shelf: Shelf,
    desk: Desk,
    sensors: HashMap<String, (Arc<str>, Option<Dialect>)>,
    pods: HashMap<(String, String), Arc<v1::Pod>>,
    known: Known,
    unknown: HashMap<String, Instant>,
    answers: mpsc::UnboundedSender<Answer>,
    fetching: Arc<Semaphore>,
    looking: Arc<Semaphore>,
    keeping: Arc<Semaphore>,
    healths: Healths,
    rules: watch::Receiver<Arc<Rules>>,
    rule_watch: Arc<Watch>,
    is_alone: bool,
    clock: Clock,
    began: Timestamp,
    judged: (u64, Vec<Range<u64>>),
    position: u64,
    counted: Counts,
}

/// Judges until `shutdown`, then writes what it found.
///
/// # Errors
/// [`BridgeError`].
pub async fn judge(parts: Parts, shutdown: impl Future<Output = ()>) -> Result<(), BridgeError> {
    let Parts {
        origin,
        shelf,
        desk,
        sensors,
        patience,
        risk_model,
        mut pods,
        mut refused,
        healths,
        api,
        mut overlays,
        rules,
        rule_watch,
        is_alone,
    } = parts;
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
    let mut source = origin.open(judged.0)?;
    info!(from = judged.0, read_from = source.position(), "events are judged");
    let (answers, mut answered) = mpsc::unbounded_channel();
    let known = sensors.iter().map(|sensor| {
        let dialect = sensor.dialect.parse().ok();
        (sensor.name.clone(), (Arc::from(sensor.cluster.as_str()), dialect))
    });
    let sensors: HashMap<_, _> = known.collect();
    {
        let mut healths = healths.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, (cluster, dialect)) in &sensors {
            let kind = dialect.map(|dialect: Dialect| dialect.to_string()).unwrap_or_default();
            // The door may have refused something before.
            healths.entry(name.clone()).or_insert_with(|| SensorHealth::new(cluster, name, &kind));
        }
    }
    let mut changed_rules = rules.clone();
    let mut judging = Judging {
        engine: Engine::new(patience).ranked_by(risk_model),
        shelf,
        desk,
        sensors,
        pods: HashMap::new(),
        known: Known::default(),
        unknown: HashMap::new(),
        answers,
        fetching: Arc::new(Semaphore::new(AT_ONCE)),
        looking: Arc::new(Semaphore::new(1)),
        keeping: Arc::new(Semaphore::new(1)),
        healths,
        rules,
        rule_watch,
        is_alone,
        clock: Clock::start(),
        began: Timestamp::now(),
        position: source.position(),
        judged,
        counted: Counts::default(),
    };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut write_at = Instant::now() + WRITE;
    tokio::pin!(shutdown);
    loop {
        let mut out = Vec::new();
        let is_full = judging.desk.is_full();
        let mut is_ending = false;
        tokio::select! {
            biased;
            () = &mut shutdown => is_ending = true,
            Some(seen) = pods.recv() => judging.pod(seen),
            // Before containers that waited for it.
            Ok(()) = overlays.changed() => judging.engine.accept(Arc::clone(&overlays.borrow_and_update())),
            Ok(()) = changed_rules.changed() => judging.keep_for_rules(),
            Some(answer) = answered.recv() => judging.answer(answer, &mut out),
            Some(row) = refused.recv() => judging.desk.blind(row),
            _ = tick.tick() => judging.tick(&mut out),
            _ = look.tick() => {
                judging.look_for_silence();
                if let Err(error) = judging.desk.learn_blind(Timestamp::now()).await {
                    warn!(%error, "what other bridges could not see is not known");
                }
            }
            () = source.wait(), if !is_full => {
                tokio::task::block_in_place(|| judging.turn(&mut source, &mut out))?;
            }
        }
        if !out.is_empty() {
            // Rules are evaluated.
            tokio::task::block_in_place(|| judging.settle(out));
        }
        if Instant::now() >= write_at || is_ending || judging.desk.is_full() {
            match judging.write().await {
                Ok((done, written)) => {
                    source.commit(done)?;
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

/// The time by a clock that is never put back, nor jumps: what waits for seconds to pass is not to wait for hours.
#[derive(Debug, Clone, Copy)]
struct Clock {
    began: Timestamp,
    since: Instant,
}

impl Clock {
    fn start() -> Self {
        Self { began: Timestamp::now(), since: Instant::now() }
    }

    fn now(self) -> Timestamp {
        let passed = SignedDuration::try_from(self.since.elapsed()).unwrap_or(SignedDuration::MAX);
        self.began.saturating_add(passed).unwrap_or(Timestamp::MAX)
    }
}

impl Judging {
    fn tick(&mut self, out: &mut Vec<Out>) {
        tokio::task::block_in_place(|| self.engine.tick(self.clock.now(), out));
    }

    /// Reads what there is, for as long as a turn.
    fn turn(&mut self, source: &mut Source, out: &mut Vec<Out>) -> Result<(), log::Error> {
        let until = Instant::now() + TURN;
        while let Some(read) = source.read()? {
            self.read(read, out);
            self.position = source.position();
            if out.len() >= MOST_OUT || Instant::now() >= until {
                break;
            }
        }
        Ok(())
    }

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
            self.record(&record, out);
        }
    }

    fn record(&mut self, record: &Record, out: &mut Vec<Out>) {
        let Some((cluster, dialect)) = self.sensors.get(&*record.sensor) else { return };
        let Some(dialect) = dialect.or_else(|| record.dialect.parse().ok()) else { return };
        let cluster = Arc::clone(cluster);
        let told = sensor::decode_with_key(dialect, &record.body);
        let is_judged = self.is_judged(record.offset.0);
        let received = self.clock.now();
        {
            let mut healths = self.healths.lock().unwrap_or_else(PoisonError::into_inner);
            // Of each that is configured there is one from the beginning.
            let Some(health) = healths.get_mut(&*record.sensor) else { return };
            // A loop that begins reads what came long ago, while others are further.
            if !is_judged || health.last_received.is_none() {
                health.last_received = Some(record.received);
            }
            health.heard = Some(std::time::Instant::now());
            match &told {
                Ok((_, told)) => {
                    health.events += u64::from(!is_judged);
                    if let Told::Activity(activity) = told {
                        health.last_event = health.last_event.max(Some(activity.at));
                        let Activity { node, rule, at, .. } = &**activity;
                        if health.packs.see(node.as_deref(), rule.as_deref(), *at) {
                            tell_pack(health, dialect);
                        }
                    }
                    if let Told::Loss(loss) = told {
                        // What is read again after a start was counted then.
                        health.lost += if is_judged { 0 } else { loss.count.unwrap_or(1) };
                    }
                }
                Err(error) => {
                    if !is_judged {
                        health.malformed += 1;
                        health.keep(received, &error.reason, &record.body);
                    }
                    tracing::debug!(%error, sensor = &*record.sensor, "an item is no event of its sensor");
                }
            }
        }
        let Ok((key, told)) = told else {
            metrics::counter!("mayfly_bridge_malformed_total", "sensor" => record.sensor.to_string()).increment(1);
            return;
        };
        let (offset, is_old) = (record.offset.0, record.received < self.began);
        self.engine.take(Item { offset, cluster, key, received, is_judged, is_old, told }, out);
    }

    fn is_judged(&self, offset: u64) -> bool {
        let (low, ranges) = &self.judged;
        let after = ranges.partition_point(|range| range.end <= offset);
        offset < *low || ranges.get(after).is_some_and(|range| range.contains(&offset))
    }

    fn pod(&mut self, seen: Seen) {
        match seen {
            Seen::Pod(pod, whole) => {
                self.pods.insert((pod.cluster.clone(), pod.uid.clone()), whole);
                self.engine.pod(&pod);
                let now =
                    pod.containers.iter().filter_map(|one| self.engine.container(&pod.cluster, &pod.uid, &one.name));
                let renamed: Vec<_> = now.filter(|container| self.known.is_renamed(container)).collect();
                renamed.into_iter().for_each(|container| self.identify(container));
            }
            Seen::Gone { cluster, uid } => {
                self.engine.gone(&cluster, &uid, self.clock.now());
                self.known.gone(&cluster, &uid, Instant::now());
                self.pods.remove(&(cluster, uid));
            }
        }
    }

    fn answer(&mut self, answer: Answer, out: &mut Vec<Out>) {
        let Answer { container, imaged, shelved } = answer;
        let deviation = imaged.bound.deviation();
        let expected = shelved.as_ref().map(|shelved| shelved.as_ref().map(|shelved| Arc::clone(&shelved.expected)));
        let is_news = self.known.put(&container, imaged, shelved.as_ref().and_then(Option::as_ref), Instant::now());
        // Before what waits is judged.
        self.engine.image(&container, self.known.place(&container).digest);
        if let Some(expected) = expected {
            match expected {
                Some(_) => {
                    self.unknown.remove(&container.key());
                    if let Some(compared) = self.known.compared(&container) {
                        let at = container.started.unwrap_or_else(|| self.clock.now());
                        self.desk.started(&self.known.place(&container), &compared, at);
                    }
                }
                None => _ = self.unknown.insert(container.key(), Instant::now()),
            }
            self.engine.expect(&container, expected, out);
        }
        if let Some(deviation) = deviation.filter(|_| is_news) {
            self.engine.tell(&container, deviation, out);
        }
        // The kubelet may have told meanwhile what it pulled.
        let now = self.current(&container);
        if self.known.is_renamed(&now) {
            self.identify(now);
        }
    }

    /// The container as the cluster tells of it now.
    fn current(&self, container: &Arc<Container>) -> Arc<Container> {
        let place = &container.place;
        let now = self.engine.container(&place.cluster, &container.pod_uid, &place.container);
        now.unwrap_or_else(|| Arc::clone(container))
    }

    /// What the engine gave out.
    fn settle(&mut self, out: Vec<Out>) {
        let rules = Arc::clone(&self.rules.borrow());
        for out in out {
            match out {
                Out::Need(container) => self.fetch(container),
                Out::Found(mut found) => {
                    let mut context = self.known.context(&found);
                    let place = self.known.place(&found.container);
                    if place != found.container.place {
                        Arc::make_mut(&mut found.container).place = place;
                    }
                    let container = &found.container;
                    let pod = self.pods.get(&(container.place.cluster.clone(), container.pod_uid.clone()));
                    let expected = self.known.expected(container);
                    let place = (&container.place, container.pod.as_str());
                    let (deviation, activity) = (&mut found.deviation, &found.activity);
                    let rules = (&rules, &*self.rule_watch);
                    context.verdict =
                        rules::rule(rules, deviation, activity, place, pod.map(Arc::as_ref), expected.as_deref());
                    self.desk.found(*found, context);
                }
                Out::Used { container, used, at } => {
                    if let Some(compared) = self.known.compared(&container) {
                        self.desk.used(&self.known.place(&container), &compared, &used, at);
                    }
                }
                Out::Caller { container, class, subject, user } => {
                    self.desk.caller(&self.known.place(&container), class, &subject, user);
                }
                Out::Dropped { container, kind, dropped } => {
                    warn!(pod = container.pod, kind, count = dropped.count, "events of a flood were not compared");
                    self.desk.dropped(&self.known.place(&container), &container.pod, kind, dropped);
                }
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
        let (answers, fetching, rules) = (self.answers.clone(), Arc::clone(&self.fetching), self.rules.clone());
        let pod = self.pods.get(&(container.place.cluster.clone(), container.pod_uid.clone())).cloned();
        tokio::spawn(async move {
            let until = Instant::now() + SHELVED;
            loop {
                let turn = fetching.acquire().await;
                let found = async {
                    let imaged = shelf.image(&container).await?;
                    let wanted = rules::wanted(&rules.borrow());
                    let shelved = shelf.find(&container, &imaged, pod.as_deref(), wanted).await?;
                    Ok::<_, lineage::Error>((imaged, shelved))
                };
                let found = found.await;
                drop(turn);
                match found {
                    Ok((imaged, shelved)) if shelved.is_some() || Instant::now() >= until => {
                        if let Some(image) = &imaged.image {
                            shelf.overlays(image, &container.place.image).await;
                        }
                        let _ = answers.send(Answer { container, imaged, shelved: Some(shelved) });
                        return;
                    }
                    Ok(_) => {}
                    Err(error) => warn!(%error, pod = container.pod, "an expectation is not read yet"),
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }

    /// Asks again which image a container is of.
    fn identify(&self, container: Arc<Container>) {
        let (shelf, answers) = (self.shelf.clone(), self.answers.clone());
        tokio::spawn(async move {
            match shelf.image(&container).await {
                Ok(imaged) => _ = answers.send(Answer { container, imaged, shelved: None }),
                Err(error) => warn!(%error, pod = container.pod, "which image runs is not known yet"),
            }
        });
    }

    /// Sees that what rules read is kept of containers that were found before there were these rules.
    fn keep_for_rules(&self) {
        let wanted = rules::wanted(&self.rules.borrow());
        let lacking = self.known.lacking(wanted);
        if lacking.is_empty() {
            return;
        }
        let Ok(turn) = Arc::clone(&self.keeping).try_acquire_owned() else { return };
        let pod = |one: &Arc<Container>| self.pods.get(&(one.place.cluster.clone(), one.pod_uid.clone())).cloned();
        let lacking: Vec<_> = lacking.into_iter().map(|one| (pod(&one), one)).collect();
        let shelf = self.shelf.clone();
        tokio::spawn(async move {
            let _turn = turn;
            for (pod, container) in lacking {
                let kept = async {
                    let imaged = shelf.image(&container).await?;
                    shelf.find(&container, &imaged, pod.as_deref(), wanted).await
                };
                if let Err(error) = kept.await {
                    warn!(%error, pod = container.pod, "what rules read of a container is not known yet");
                    return;
                }
            }
        });
    }

    /// Looks for what was attached meanwhile to images that run.
    fn look_at_images(&self) {
        let Ok(turn) = Arc::clone(&self.looking).try_acquire_owned() else { return };
        let (shelf, images) = (self.shelf.clone(), self.known.images());
        tokio::spawn(async move {
            let _turn = turn;
            for (image, named) in images {
                shelf.overlays(&image, &named).await;
            }
        });
    }

    /// Sensors that say nothing any more, and containers that are to be asked for again.
    fn look_for_silence(&mut self) {
        if self.is_alone {
            silent(&self.healths).into_iter().for_each(|row| self.desk.blind(row));
        }
        let due: Vec<String> =
            self.unknown.iter().filter(|(_, since)| since.elapsed() > AGAIN).map(|(key, _)| key.clone()).collect();
        for key in due {
            self.unknown.remove(&key);
            self.engine.ask_again(&key);
        }
        let engine = &self.engine;
        self.unknown.retain(|key, _| engine.knows(key));
        self.known.forget(|key| engine.knows(key));
        self.look_at_images();
        self.keep_for_rules();
        self.known.due(Instant::now()).iter().for_each(|container| self.identify(self.current(container)));
        for (word, count) in self.known.counts() {
            metrics::gauge!("mayfly_bridge_containers", "image" => word)
                .set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
        }
    }

    /// Writes what was found; everything before the offset that comes back is done with.
    async fn write(&mut self) -> Result<(u64, Written), DeskError> {
        let open = self.engine.open();
        let reached = judged(&open, self.position, &self.judged);
        tell(self.engine.counts(), self.counted);
        self.counted = self.engine.counts();
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
    let unread = position.max(before.0)..end;
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

/// Says which sensor pack a sensor runs, and what is to be done about it.
fn tell_pack(health: &mut SensorHealth, dialect: Dialect) {
    let warnings = health.packs.warnings(dialect);
    for warning in warnings.iter().filter(|warning| !health.warnings.contains(warning)) {
        warn!(sensor = health.name, "{warning}");
    }
    health.pack = health.packs.oldest();
    health.warnings = warnings;
    let version = health.pack.map_or(f64::NAN, f64::from);
    metrics::gauge!("mayfly_sensor_pack_version", "sensor" => health.name.clone()).set(version);
}

/// Sensors that were heard of, and say nothing any more.
pub(crate) fn silent(healths: &Healths) -> Vec<BlindRow> {
    let now = Timestamp::now();
    let healths = healths.lock().unwrap_or_else(PoisonError::into_inner);
    let row = |(name, health): (&String, &SensorHealth)| {
        let last = health.last_received?;
        let is_silent = health.heard.is_some_and(|heard| heard.elapsed() > SILENT);
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
    };
    healths.iter().filter_map(row).collect()
}

/// Several loops count into the same.
fn tell(counts: Counts, before: Counts) {
    for (name, value, before) in [
        ("mayfly_bridge_judged_total", counts.judged, before.judged),
        ("mayfly_bridge_repeated_total", counts.repeated, before.repeated),
        ("mayfly_bridge_unattributed_total", counts.unattributed, before.unattributed),
        ("mayfly_bridge_without_dna_total", counts.without_dna, before.without_dna),
        ("mayfly_bridge_ignored_total", counts.ignored, before.ignored),
        ("mayfly_bridge_hurried_total", counts.hurried, before.hurried),
        ("mayfly_bridge_dropped_total", counts.dropped, before.dropped),
    ] {
        metrics::counter!(name).increment(value.saturating_sub(before));
    }
}

/// Tells the loop of events that the door refused.
#[derive(Debug)]
pub struct Refusals {
    /// To the loop.
    pub told: mpsc::UnboundedSender<BlindRow>,
    /// Where they are counted.
    pub healths: Healths,
    /// Since when events of a sensor are refused, and why.
    since: Mutex<BTreeMap<String, (Timestamp, &'static str)>>,
}

impl Refusals {
    /// Tells of them to the loop, and counts them there.
    #[must_use]
    pub fn new(told: mpsc::UnboundedSender<BlindRow>, healths: Healths) -> Self {
        Self { told, healths, since: Mutex::default() }
    }

    fn since(&self) -> MutexGuard<'_, BTreeMap<String, (Timestamp, &'static str)>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known of a sensor; nothing may be yet.
    fn note(&self, sensor: &Sensor, change: impl FnOnce(&mut SensorHealth)) {
        let mut healths = self.healths.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || SensorHealth::new(&sensor.cluster, &sensor.name, &sensor.dialect);
        change(healths.entry(sensor.name.clone()).or_insert_with(new));
    }

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
        let _ = self.told.send(row);
    }
}

impl Blind for Refusals {
    fn refused(&self, sensor: &Sensor, events: u64) {
        self.note(sensor, |health| health.refused += events);
    }

    fn malformed(&self, sensor: &Sensor, count: u64, samples: &[&[u8]]) {
        let now = Timestamp::now();
        self.note(sensor, |health| {
            health.malformed += count;
            samples.iter().for_each(|bytes| health.keep(now, "no JSON object", bytes));
        });
    }

    fn opened(&self, sensor: &Sensor, at: Timestamp, reason: &'static str) {
        self.since().insert(sensor.name.clone(), (at, reason));
        self.tell(sensor, at, at, reason);
    }

    fn closed(&self, sensor: &Sensor, at: Timestamp) {
        // One interval, told of again with its end. A clock that was put back meanwhile makes it none.
        let (from, reason) = self.since().remove(&sensor.name).unwrap_or((at, "events were refused"));
        self.tell(sensor, from, at.max(from), reason);
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
