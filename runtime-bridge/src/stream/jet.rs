//! Events in JetStream: one stream, a subject for each partition.
//!
//! ```text
//! STREAM.events.N     an item each; Nats-Msg-Id is sensor/key/N, so that what is sent again is kept once
//! STREAM.heard        kept by nobody: when each bridge last heard of each sensor
//! ```
//!
//! A message's number in the stream is its offset; a partition's offsets have gaps, where others' messages are. The stream refuses what
//! it has no room for (`discard: new`), and only what is judged is removed: an hour after, or at once where it is half full.
//!
//! The stream carries a mark, drawn when it was made: checkpoints are of this stream, not of another of the same name.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::{
    Client, ConnectOptions, Event, HeaderMap, Subscriber,
    connection::State,
    jetstream::{
        self, Context, ErrorCode,
        consumer::{AckPolicy, DeliverPolicy, pull},
        context::{
            CreateStreamError, CreateStreamErrorKind, GetStreamError, GetStreamErrorKind, PublishError,
            PublishErrorKind,
        },
        message::PublishMessage,
        stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
    },
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use serde::Serialize;
use tokio::{sync::mpsc, task::JoinHandle};
use tracing::{info, warn};

use super::{
    Error, Settings,
    place::{Place, place},
};
use crate::{
    log::{Batch, Offset, Read, Record},
    sensor::{self, Dialect},
};

/// A stream that several bridges share.
#[derive(Debug)]
pub struct JetStream {
    client: Client,
    context: Context,
    stream: jetstream::stream::Stream<()>,
    name: String,
    mark: String,
    partitions: u16,
    max_bytes: u64,
    filled: AtomicU64,
    /// Counts up whenever the connection is made: what was on its way is lost then.
    connections: Arc<AtomicU64>,
}

impl JetStream {
    /// Connects, and makes the stream where it is not there. Waits for servers that do not answer.
    ///
    /// # Errors
    /// [`Error::Away`]: waiting would not help.
    pub async fn open(settings: &Settings) -> Result<Self, Error> {
        let connections = Arc::new(AtomicU64::new(0));
        let client = connect(settings, &connections).await?;
        let context = jetstream::context::ContextBuilder::new()
            .timeout(ANSWER)
            .ack_timeout(ANSWER)
            .max_ack_inflight(MOST_UNANSWERED)
            .build(client.clone());
        let (mark, partitions) = loop {
            match made(&context, settings).await {
                Ok(made) => break made,
                Err(Opening::Never(reason)) => return Err(away(&settings.stream, reason)),
                Err(Opening::NotYet(reason)) => {
                    warn!(stream = settings.stream, reason, "JetStream does not answer; it is asked again");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        };
        let stream = context.get_stream_no_info(&settings.stream).await;
        let stream = stream.map_err(|error| away(&settings.stream, error.to_string()))?;
        Ok(Self {
            client,
            context,
            stream,
            name: settings.stream.clone(),
            mark,
            partitions,
            max_bytes: settings.max_bytes,
            filled: AtomicU64::new(0),
            connections,
        })
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// What the checkpoints of its partitions are called, but for the number.
    pub(super) fn checkpoints(&self) -> String {
        format!("{}/{}/", self.name, self.mark)
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    pub(super) fn unread_part(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a part of bytes on disks")]
        let part = self.filled.load(Ordering::Relaxed) as f64 / self.max_bytes.max(1) as f64;
        part.min(1.0)
    }

    /// Publishes each item, and waits until all are kept.
    pub(super) async fn append(&self, batch: &Batch<'_>) -> Result<(), Error> {
        let Ok(dialect) = batch.dialect.parse::<Dialect>() else {
            return Err(away(&self.name, format!("{:?} is no dialect", batch.dialect)));
        };
        // What was sent would wait for the connection, longer than its sender.
        if !self.is_connected() {
            return Err(away(&self.name, "there is no connection".to_owned()));
        }
        let mut answers = Vec::with_capacity(batch.items.len());
        for item in batch.items {
            self.publish(batch, dialect, item, &mut answers).await?;
        }
        for answer in answers {
            answer.await.map_err(|error| self.refused(&error))?;
        }
        Ok(())
    }

    async fn publish(
        &self,
        batch: &Batch<'_>,
        dialect: Dialect,
        item: &[u8],
        answers: &mut Vec<jetstream::context::PublishAckFuture>,
    ) -> Result<(), Error> {
        let key = sensor::key(dialect, item).to_string();
        let places = match place(dialect, item, &key, self.partitions) {
            Place::One(partition) => partition..partition + 1,
            Place::All => 0..self.partitions,
        };
        let body = Bytes::copy_from_slice(item);
        for partition in places {
            let mut headers = HeaderMap::new();
            headers.insert(SENSOR, batch.sensor);
            headers.insert(DIALECT, batch.dialect);
            headers.insert(RECEIVED, batch.received.as_microsecond().to_string());
            if batch.is_over_limit {
                headers.insert(OVER_LIMIT, "1");
            }
            let message = PublishMessage::build()
                .headers(headers)
                .payload(body.clone())
                .message_id(format!("{}/{key}/{partition}", batch.sensor));
            let sent = self.context.send_publish(self.subject(partition), message).await;
            answers.push(sent.map_err(|error| self.refused(&error))?);
        }
        Ok(())
    }

    fn subject(&self, partition: u16) -> String {
        format!("{}.events.{partition}", self.name)
    }

    fn refused(&self, error: &PublishError) -> Error {
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => Error::TooLarge { limit_bytes: self.client.max_payload() },
            _ if reason.contains("maximum bytes exceeded") => Error::Full { stream: self.name.clone(), reason },
            _ => away(&self.name, reason),
        }
    }

    /// Watches how full the stream is. Ends where it is gone, or another of its name is there: what was judged of it says nothing then.
    pub(super) async fn watch(&self) -> Error {
        loop {
            match self.context.get_stream(&self.name).await.map(|stream| stream.cached_info().clone()) {
                Ok(info) if info.config.metadata.get(MARK) != Some(&self.mark) => {
                    return away(
                        &self.name,
                        "it was made anew while this bridge ran; start the bridge again".to_owned(),
                    );
                }
                Ok(info) => {
                    self.filled.store(info.state.bytes, Ordering::Relaxed);
                    #[expect(clippy::cast_precision_loss, reason = "for a chart")]
                    metrics::gauge!("mayfly_stream_bytes").set(info.state.bytes as f64);
                }
                Err(error) if is_missing(&error) => {
                    return away(&self.name, "it was removed while this bridge ran; start the bridge again".to_owned());
                }
                Err(error) => tracing::debug!(%error, "the stream does not say how full it is"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Tells other bridges when this one last heard of sensors.
    pub(super) async fn tell_heard(&self, heard: &impl Serialize) {
        let Ok(body) = serde_json::to_vec(heard) else { return };
        if let Err(error) = self.client.publish(format!("{}.heard", self.name), body.into()).await {
            tracing::debug!(%error, "other bridges are not told of sensors");
        }
    }

    /// What other bridges heard; none where it cannot be followed now.
    pub(super) async fn heard(&self) -> Option<Subscriber> {
        self.client.subscribe(format!("{}.heard", self.name)).await.ok()
    }

    /// A reader of a partition that remembers nothing: whoever reads says from where.
    async fn consumer(&self, partition: u16, from: u64) -> Result<jetstream::consumer::PullConsumer, String> {
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from.max(1) },
            ack_policy: AckPolicy::None,
            filter_subject: self.subject(partition),
            inactive_threshold: FORGOTTEN,
            num_replicas: 1,
            memory_storage: true,
            ..pull::Config::default()
        };
        self.stream.create_consumer(config).await.map_err(|error| error.to_string())
    }

    async fn remove(&self, partition: u16, before: u64) -> Result<u64, String> {
        let removed = self.stream.purge().filter(self.subject(partition)).sequence(before).await;
        removed.map(|answer| answer.purged).map_err(|error| error.to_string())
    }
}

async fn connect(settings: &Settings, connections: &Arc<AtomicU64>) -> Result<Client, Error> {
    let files = [&settings.credentials, &settings.ca, &settings.client_certificate, &settings.client_key];
    for file in files.into_iter().flatten() {
        // Else it would be tried again and again.
        std::fs::read(file).map_err(|error| away(&settings.stream, format!("{}: {error}", file.display())))?;
    }
    let of_events = (Arc::clone(connections), Arc::new(Mutex::new(String::new())));
    let mut options =
        ConnectOptions::new().name("mayfly bridge").retry_on_initial_connect().event_callback(move |event| {
            let (connections, last) = of_events.clone();
            async move {
                match event {
                    Event::Connected => {
                        connections.fetch_add(1, Ordering::Relaxed);
                        info!("connected to NATS");
                    }
                    Event::Disconnected => warn!("NATS is away; events are refused until it is back"),
                    // It is tried again, and says the same again.
                    Event::ClientError(error) => {
                        let reason = error.to_string();
                        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                        if *last != reason {
                            warn!(reason, "no connection to NATS");
                            *last = reason;
                        }
                    }
                    // What it comes to is told where something is asked for.
                    event => tracing::debug!(%event, "NATS"),
                }
            }
        });
    if let Some(file) = &settings.credentials {
        let read =
            std::fs::read_to_string(file).and_then(|text| ConnectOptions::new().credentials(&text).map(|_| text));
        let text = read.map_err(|error| away(&settings.stream, format!("{}: {error}", file.display())))?;
        options = options.credentials(&text).map_err(|error| away(&settings.stream, error.to_string()))?;
    }
    if let Some(file) = &settings.ca {
        options = options.add_root_certificates(file.clone()).require_tls(true);
    }
    if let (Some(certificate), Some(key)) = (&settings.client_certificate, &settings.client_key) {
        options = options.add_client_certificate(certificate.clone(), key.clone()).require_tls(true);
    }
    let servers: Vec<_> =
        settings.url.split(',').map(|server| server.trim().parse::<async_nats::ServerAddr>()).collect();
    let servers = servers.into_iter().collect::<Result<Vec<_>, _>>();
    // The error may quote a password.
    let servers = servers.map_err(|_| away(&settings.stream, "a server of `url` cannot be read".to_owned()))?;
    let login = servers.iter().find_map(|server| Some((server.username()?, server.password()?)));
    if let Some((user, password)) = login {
        options = options.user_and_password(user.to_owned(), password.to_owned());
    }
    options.connect(servers).await.map_err(|error| away(&settings.stream, error.to_string()))
}

/// Why a stream is not there.
enum Opening {
    NotYet(String),
    Never(String),
}

/// The stream's mark and partitions; it is made where it is not there.
async fn made(context: &Context, settings: &Settings) -> Result<(String, u16), Opening> {
    let max_bytes = i64::try_from(settings.max_bytes).unwrap_or(i64::MAX);
    let info = match context.get_stream(&settings.stream).await {
        Ok(stream) => stream.cached_info().clone(),
        Err(error) if !is_missing(&error) => return Err(Opening::NotYet(error.to_string())),
        Err(_) => {
            let metadata = [
                (MARK.to_owned(), uuid::Uuid::now_v7().simple().to_string()),
                (PARTITIONS.to_owned(), settings.partitions.to_string()),
            ];
            let wanted = Config {
                name: settings.stream.clone(),
                description: Some("events of sensors, until they are judged".to_owned()),
                subjects: vec![format!("{}.events.*", settings.stream)],
                retention: RetentionPolicy::Limits,
                discard: DiscardPolicy::New,
                storage: StorageType::File,
                max_bytes,
                num_replicas: settings.replicas,
                duplicate_window: DUPLICATES,
                deny_delete: true,
                metadata: metadata.into_iter().collect(),
                ..Config::default()
            };
            let made = context.create_stream(wanted).await.map_err(|error| not_made(&error, settings))?;
            info!(stream = settings.stream, partitions = settings.partitions, "made a stream");
            made.cached_info().clone()
        }
    };
    let of = |name: &str| info.config.metadata.get(name).cloned();
    let partitions = of(PARTITIONS).and_then(|text| text.parse::<u16>().ok());
    let (Some(mark), Some(partitions)) = (of(MARK), partitions) else {
        return Err(Opening::Never("no bridge made this stream; name another by `stream`".to_owned()));
    };
    if partitions != settings.partitions {
        return Err(Opening::Never(format!(
            "it has {partitions} partitions and is to have {}; set `partitions` to {partitions}, or name another `stream`",
            settings.partitions
        )));
    }
    if (info.config.max_bytes, info.config.num_replicas) != (max_bytes, settings.replicas) {
        let changed = Config { max_bytes, num_replicas: settings.replicas, ..info.config };
        context.update_stream(changed).await.map_err(|error| not_made(&error, settings))?;
    }
    Ok((mark, partitions))
}

/// What a server that does not make a stream means. Another bridge may be faster, or a server not be there yet: then it is looked at
/// again. Room does not come by waiting.
fn not_made(error: &CreateStreamError, settings: &Settings) -> Opening {
    let reason = error.to_string();
    let CreateStreamErrorKind::JetStream(refusal) = error.kind() else { return Opening::NotYet(reason) };
    match refusal.error_code() {
        ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::MAXIMUM_STREAMS_LIMIT
        | ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED => Opening::Never(format!(
            "the server has no room for it: {reason}; lower `max_bytes`, which is {}, or let JetStream store more",
            settings.max_bytes
        )),
        ErrorCode::STREAM_SUBJECT_OVERLAP => {
            Opening::Never(format!("another stream has its subjects: {reason}; name another by `stream`"))
        }
        _ => Opening::NotYet(reason),
    }
}

fn is_missing(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn away(stream: &str, reason: String) -> Error {
    Error::Away { stream: stream.to_owned(), reason }
}

/// A partition that is read.
#[derive(Debug)]
pub struct Partition {
    records: mpsc::Receiver<Vec<Record>>,
    next: Option<Vec<Record>>,
    position: u64,
    judged: Arc<AtomicU64>,
    reading: JoinHandle<()>,
}

impl Partition {
    pub(super) fn open(stream: Arc<JetStream>, number: u16, from: u64) -> Self {
        // What is read ahead: two times what is asked for at once.
        let (told, records) = mpsc::channel(1);
        let judged = Arc::new(AtomicU64::new(0));
        let reading = Reading {
            stream,
            number,
            next: from,
            told,
            judged: Arc::clone(&judged),
            passed: VecDeque::new(),
            removed: 0,
        };
        Self { records, next: None, position: from, judged, reading: tokio::spawn(reading.run()) }
    }

    pub(super) async fn wait(&mut self) {
        if self.next.is_none() {
            match self.records.recv().await {
                Some(records) => self.next = Some(records),
                None => std::future::pending().await,
            }
        }
    }

    pub(super) fn read(&mut self) -> Option<Read> {
        let records = self.next.take().or_else(|| self.records.try_recv().ok())?;
        self.position = records.last().map_or(self.position, |record| record.offset.0 + 1);
        Some(Read::Records(records))
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn commit(&self, judged: u64) {
        self.judged.fetch_max(judged, Ordering::Relaxed);
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// The task that reads a partition ahead, and removes what is judged.
struct Reading {
    stream: Arc<JetStream>,
    number: u16,
    next: u64,
    told: mpsc::Sender<Vec<Record>>,
    judged: Arc<AtomicU64>,
    /// How far it was judged, and when that was seen; the oldest first.
    passed: VecDeque<(Instant, u64)>,
    removed: u64,
}

impl Reading {
    async fn run(mut self) {
        let mut is_failing = false;
        loop {
            match self.follow().await {
                // Nobody reads any more.
                Ok(()) if self.told.is_closed() => return,
                Ok(()) => is_failing = false,
                Err(reason) => {
                    if !is_failing {
                        warn!(partition = self.number, reason, "a partition is not read now; it is tried again");
                    }
                    is_failing = true;
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// Reads by one consumer, until another is better: after a while without events, or where something is missing between two.
    async fn follow(&mut self) -> Result<(), String> {
        let connections = self.stream.connections.load(Ordering::Relaxed);
        let consumer = self.stream.consumer(self.number, self.next).await?;
        let (mut consumed, mut heard, mut looked) = (0, Instant::now(), Instant::now());
        let mut is_drained = false;
        loop {
            // All there is, at once; where there is nothing, one, for which is waited.
            let mut messages = if is_drained {
                consumer.batch().max_messages(1).expires(WAIT).messages().await
            } else {
                let most_bytes = MOST_BYTES.max(2 * self.stream.client.max_payload());
                consumer.fetch().max_messages(MOST_MESSAGES).max_bytes(most_bytes).expires(WAIT).messages().await
            }
            .map_err(|error| error.to_string())?;
            let (mut records, mut end) = (Vec::new(), Ok(()));
            while let Some(message) = messages.next().await {
                let read = message.map_err(|error| error.to_string()).and_then(|message| {
                    let info = message.info().map_err(|error| error.to_string())?;
                    Ok((info.consumer_sequence, record(&message, info.stream_sequence)))
                });
                match read {
                    Ok((sequence, record)) if sequence == consumed + 1 => {
                        consumed = sequence;
                        records.push(record);
                    }
                    Ok(_) => {
                        end = Err("messages were lost on their way".to_owned());
                        break;
                    }
                    // Also told where so many bytes are there: what came before is whole.
                    Err(error) => {
                        end = if records.is_empty() { Err(error) } else { Ok(()) };
                        break;
                    }
                }
            }
            is_drained = records.is_empty() && !is_drained;
            if let Some(last) = records.last() {
                (self.next, heard) = (last.offset.0 + 1, Instant::now());
                if self.told.send(records).await.is_err() {
                    return Ok(());
                }
            }
            end?;
            if looked.elapsed() > LOOK {
                looked = Instant::now();
                self.clean().await;
            }
            let is_anew = self.stream.connections.load(Ordering::Relaxed) != connections;
            if is_anew || heard.elapsed() > SILENT || self.told.is_closed() {
                return Ok(());
            }
        }
    }

    /// Removes what was judged an hour ago, or all that is judged where room is short.
    async fn clean(&mut self) {
        let judged = self.judged.load(Ordering::Relaxed);
        if self.passed.back().is_none_or(|(at, last)| at.elapsed() > MINUTE && *last < judged) {
            self.passed.push_back((Instant::now(), judged));
        }
        let mut before = if self.stream.unread_part() > SHORT { judged } else { 0 };
        while let Some((_, passed)) = self.passed.pop_front_if(|(at, _)| at.elapsed() > KEPT) {
            before = before.max(passed);
        }
        if before > self.removed {
            match self.stream.remove(self.number, before).await {
                Ok(count) => {
                    self.removed = before;
                    tracing::debug!(partition = self.number, count, "what was judged is removed");
                }
                Err(error) => warn!(partition = self.number, error, "what was judged is not removed yet"),
            }
        }
    }
}

fn record(message: &jetstream::Message, offset: u64) -> Record {
    let headers = message.headers.as_ref();
    let text =
        |name: &str| headers.and_then(|headers| headers.get(name)).map(|value| value.as_str()).unwrap_or_default();
    let received = text(RECEIVED).parse().ok().and_then(|micros| Timestamp::from_microsecond(micros).ok());
    Record {
        offset: Offset(offset),
        sensor: text(SENSOR).into(),
        dialect: text(DIALECT).into(),
        received: received.unwrap_or_else(Timestamp::now),
        is_over_limit: !text(OVER_LIMIT).is_empty(),
        body: message.payload.clone(),
    }
}

const SENSOR: &str = "Mayfly-Sensor";
const DIALECT: &str = "Mayfly-Dialect";
const RECEIVED: &str = "Mayfly-Received";
const OVER_LIMIT: &str = "Mayfly-Over-Limit";
const MARK: &str = "mayfly-mark";
const PARTITIONS: &str = "mayfly-partitions";

/// How long the server remembers what it was sent: senders that try again do so within minutes.
const DUPLICATES: Duration = Duration::from_secs(600);
/// How long an answer of the server is waited for.
const ANSWER: Duration = Duration::from_secs(4);
/// Events on their way to the server, of all senders.
const MOST_UNANSWERED: usize = 8192;
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is looked how full the stream is, and what is to be removed.
const LOOK: Duration = Duration::from_secs(5);
/// Part of the stream's room from which on all that is judged is removed at once.
const SHORT: f64 = 0.4;
const KEPT: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
/// How long one event is waited for before it is looked around.
const WAIT: Duration = Duration::from_secs(2);
/// What is asked for at once.
const MOST_MESSAGES: usize = 512;
const MOST_BYTES: usize = 4 << 20;
/// A consumer that told nothing for so long is made anew: it may be gone with its server.
const SILENT: Duration = Duration::from_secs(30);
/// The server removes consumers that are not asked for so long.
const FORGOTTEN: Duration = Duration::from_secs(30);
