//! One stream of one sensor's process, followed until it is followed no more.

use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use lineage::BlindRow;
use prost::Message;
use serde::Serialize;
use tokio::{sync::mpsc, time::Instant};
use tonic::{Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Endpoint};
use tonic_prost::ProstCodec;
use tracing::{info, warn};

use super::{kubearmor, pruned, tetragon};
use crate::{
    door::Sensor,
    log::Batch,
    stream::{self, Stream},
};

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    Tetragon,
    KubeArmor,
}

/// Follows one address.
pub(super) struct Follower {
    pub(super) endpoint: Result<Endpoint, String>,
    pub(super) place: String,
    pub(super) way: Way,
    pub(super) sensor: Sensor,
    pub(super) stream: Stream,
    pub(super) blind: mpsc::UnboundedSender<BlindRow>,
}

impl Follower {
    /// Never ends.
    pub(super) async fn run(self) {
        let endpoint = match &self.endpoint {
            Ok(endpoint) => endpoint,
            Err(reason) => {
                warn!(sensor = self.sensor.name, reason, "a sensor cannot be followed");
                return;
            }
        };
        let filter = kubearmor::Request { filter: "all".to_owned() };
        match self.way {
            Way::Tetragon => self.follow::<(), tetragon::Event>(endpoint, (), tetragon::EVENTS).await,
            Way::KubeArmor => {
                tokio::join!(
                    self.follow::<_, kubearmor::Alert>(endpoint, filter.clone(), kubearmor::ALERTS),
                    self.follow::<_, kubearmor::Log>(endpoint, filter, kubearmor::LOGS),
                );
            }
        }
    }

    /// Asks again and again, more and more seldom while there is no answer.
    async fn follow<Q, A>(&self, endpoint: &Endpoint, question: Q, method: &'static str)
    where
        Q: Message + Clone + 'static,
        A: Message + Default + Serialize + 'static,
    {
        let mut pause = LEAST_PAUSE;
        let mut away = Away { since: None, told: Instant::now(), follower: self, method };
        loop {
            let asked = Instant::now();
            let reason = self.once::<Q, A>(endpoint, question.clone(), method, &mut away).await;
            if away.since.is_none() {
                warn!(sensor = self.sensor.name, place = self.place, method, reason, "a sensor is not followed now");
            }
            away.tell(&reason);
            if asked.elapsed() > MOST_PAUSE {
                pause = LEAST_PAUSE;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MOST_PAUSE);
        }
    }

    /// Follows until the stream ends. Returns why it did.
    async fn once<Q, A>(&self, endpoint: &Endpoint, question: Q, method: &'static str, away: &mut Away<'_>) -> String
    where
        Q: Message + 'static,
        A: Message + Default + Serialize + 'static,
    {
        let channel = match endpoint.connect().await {
            Ok(channel) => channel,
            Err(error) => return told(&error),
        };
        let mut client = Grpc::new(channel).max_decoding_message_size(MOST_BYTES);
        if let Err(error) = client.ready().await {
            return told(&error);
        }
        let codec: ProstCodec<Q, A> = ProstCodec::default();
        let question = tonic::Request::new(question);
        let answers = match client.server_streaming(question, PathAndQuery::from_static(method), codec).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return said(&status),
        };
        info!(sensor = self.sensor.name, place = self.place, method, "a sensor is followed");
        away.end();
        let mut answers = answers.ready_chunks(AT_ONCE);
        while let Some(chunk) = answers.next().await {
            let (mut items, mut end) = (Vec::with_capacity(chunk.len()), None);
            for answer in chunk {
                match answer {
                    Ok(event) => items.push(json(&event)),
                    Err(status) => end = Some(said(&status)),
                }
            }
            self.keep(&items, away).await;
            if let Some(end) = end {
                return end;
            }
        }
        "the sensor ended the stream".to_owned()
    }

    /// Puts events where posts go; waits as long as there is no room.
    async fn keep(&self, items: &[Vec<u8>], away: &mut Away<'_>) {
        let items: Vec<&[u8]> = items.iter().map(Vec::as_slice).filter(|item| !item.is_empty()).collect();
        if items.is_empty() {
            return;
        }
        let Sensor { name, dialect, .. } = &self.sensor;
        let received = Timestamp::now();
        let batch = Batch { sensor: name, dialect, received, is_over_limit: false, items: &items };
        loop {
            match self.stream.append(&batch).await {
                Ok(()) => break,
                Err(
                    error @ (stream::Error::TooLarge { .. } | stream::Error::Log(crate::log::Error::TooLarge { .. })),
                ) => {
                    warn!(sensor = name, %error, "events of a sensor are lost");
                    metrics::counter!("mayfly_requests_refused_total", "sensor" => name.clone(), "reason" => "too large")
                        .increment(1);
                    return;
                }
                Err(error) => {
                    if away.since.is_none() {
                        warn!(sensor = name, %error, "a sensor is not read until its events are taken again");
                    }
                    away.tell(&format!("its events are not taken: {error}"));
                    tokio::time::sleep(LEAST_PAUSE).await;
                }
            }
        }
        away.end();
        let bytes: usize = items.iter().map(|item| item.len()).sum();
        metrics::counter!("mayfly_events_received_total", "sensor" => name.clone()).increment(items.len() as u64);
        metrics::counter!("mayfly_event_bytes_total", "sensor" => name.clone()).increment(bytes as u64);
    }
}

/// The interval in which a stream is not read.
struct Away<'a> {
    since: Option<(Timestamp, String)>,
    told: Instant,
    follower: &'a Follower,
    method: &'static str,
}

impl Away<'_> {
    /// It is away, since the first time that this is said; told now and then while it lasts.
    fn tell(&mut self, reason: &str) {
        let is_first = self.since.is_none();
        if is_first {
            self.since = Some((Timestamp::now(), reason.to_owned()));
        }
        if is_first || self.told.elapsed() > TOLD {
            self.send();
        }
    }

    /// It is back.
    fn end(&mut self) {
        if self.since.is_some() {
            self.send();
            self.since = None;
        }
    }

    fn send(&mut self) {
        let Some((from, reason)) = &self.since else { return };
        self.told = Instant::now();
        let method = self.method.rsplit('/').next().unwrap_or_default();
        // The loop ends before this only with the process.
        let _ = self.follower.blind.send(BlindRow {
            cluster: self.follower.sensor.cluster.clone(),
            node: String::new(),
            sensor: self.follower.sensor.name.clone(),
            cause: "away".to_owned(),
            from: *from,
            until: Timestamp::now(),
            count: None,
            reason: format!("{method} at {} was not followed: {reason}", self.follower.place),
        });
    }
}

/// A message as its sensor writes it; empty where it cannot be written.
pub(super) fn json<A: Serialize>(event: &A) -> Vec<u8> {
    let value = serde_json::to_value(event).map(|mut value| {
        pruned(&mut value);
        value
    });
    value.and_then(|value| serde_json::to_vec(&value)).unwrap_or_default()
}

fn said(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(cause) => format!("{:?}: {}", status.code(), told(cause)),
        None => format!("{:?}: {}", status.code(), status.message()),
    }
}

/// An error with what is behind it.
pub(super) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

const LEAST_PAUSE: Duration = Duration::from_secs(1);
const MOST_PAUSE: Duration = Duration::from_secs(30);
/// How often an interval that lasts is told of.
const TOLD: Duration = Duration::from_secs(30);
/// Messages that are kept at once.
const AT_ONCE: usize = 256;
/// The largest message that is read.
const MOST_BYTES: usize = 8 << 20;
