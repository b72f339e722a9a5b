//! The door: what a sensor posts is on disk before it is answered.
//!
//! ```text
//! POST /v1/events/{sensor}            bearer token, or client certificate
//! POST /v1/events/{sensor}/{secret}   for sensors that can send no header (Falco, Tracee)
//!
//! who (admit) ─► body, inflated, bounded (body) ─► items (sensor) ─► Stream::append ─► 200 {}
//! ```
//!
//! | answer | when |
//! | --- | --- |
//! | 200 | all items that are JSON are on disk; no other success, since Tracee takes no other |
//! | 400 | nothing in the body is JSON; counted, and a sample is kept |
//! | 401, 403 | no credential, or a wrong one |
//! | 404 | no sensor of this name is configured |
//! | 408 | the body did not come in time |
//! | 413, 415 | the body, or what it inflates to, is too large; an encoding that is not gzip |
//! | 503 | the log does not take it, with the reason and `Retry-After` |
//!
//! **A sensor over its rate is still taken.** Falco ignores the status and Tracee does not send again: to refuse is to lose, and a flood is
//! what an attacker makes in order to be lost in it. So its records are marked and counted, and whoever judges them decides. Only when
//! what is unread takes half of the log's disk are sensors over their rate refused, before those that keep to theirs. Requests in flight
//! are bounded for each sensor by letting further ones wait, which slows the sensor down; one that waited too long is refused.
//!
//! Whatever was refused after the sensor was known opens a blind interval ([`Blind`]), until it is taken again. Neither paths nor headers
//! are logged: they hold secrets.

mod admit;
mod body;
mod sensors;
mod serve;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use jiff::Timestamp;
use tokio::sync::Semaphore;

use self::admit::{Denied, Shown};
pub use self::{
    sensors::{SecretDigest, Sensor, Sensors},
    serve::{ClientName, serve},
};
use crate::{
    log::{self, Batch},
    sensor::{Dialect, split},
    stream::{self, Stream},
};

/// Is told when a sensor's events are not taken.
pub trait Blind: Send + Sync {
    /// So many events of this sensor were refused and are lost; a request that was not read counts as one.
    fn refused(&self, sensor: &Sensor, events: u64);
    /// This sensor sent so many pieces that are no JSON objects, of which these are the first.
    fn malformed(&self, sensor: &Sensor, count: u64, samples: &[&[u8]]);
    /// From `at` on, events of this sensor are refused and lost.
    fn opened(&self, sensor: &Sensor, at: Timestamp, reason: &'static str);
    /// At `at`, they were taken again.
    fn closed(&self, sensor: &Sensor, at: Timestamp);
}

/// Takes what sensors post. Clones share all.
#[derive(Clone)]
pub struct Door(Arc<Inner>);

struct Inner {
    stream: Stream,
    sensors: HashMap<String, Served>,
    blind: Arc<dyn Blind>,
}

/// A sensor, and how it stands.
struct Served {
    sensor: Sensor,
    dialect: Dialect,
    in_flight: Semaphore,
    /// A permit for each KiB of its bodies that are being read or written: a part of its own, so that no other takes it.
    room: Arc<Semaphore>,
    /// A permit for each of its bodies that is inflated, until it is written.
    inflated: Arc<Semaphore>,
    rate: Mutex<Rate>,
    is_blind: AtomicBool,
    events: metrics::Counter,
    bytes: metrics::Counter,
    malformed: metrics::Counter,
    over_limit: metrics::Counter,
    append_seconds: metrics::Histogram,
}

impl Door {
    /// For these sensors, into this log or stream. The recorder of metrics must stand already.
    #[must_use]
    pub fn new(stream: impl Into<Stream>, sensors: Sensors, blind: Arc<dyn Blind>) -> Self {
        let sensors: Vec<Sensor> = sensors.into_iter().collect();
        let count = sensors.len().max(1);
        let sensors = sensors.into_iter().map(|sensor| (sensor.name.clone(), Served::new(sensor, count))).collect();
        Self(Arc::new(Inner { stream: stream.into(), sensors, blind }))
    }

    /// The paths.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/v1/events/{sensor}", post(events))
            .route("/v1/events/{sensor}/{secret}", post(events_with_secret))
            .with_state(self.clone())
    }

    async fn answer(&self, name: &str, shown: Shown<'_>, headers: &HeaderMap, body: Body) -> Response {
        let Some(served) = self.0.sensors.get(name) else {
            // Any name could be asked for: it is no label.
            return Refusal::new(StatusCode::NOT_FOUND, "no sensor of this name").response("unknown");
        };
        match self.take(served, shown, headers, body).await {
            Ok(()) => {
                if served.is_blind.swap(false, Ordering::Relaxed) {
                    self.0.blind.closed(&served.sensor, Timestamp::now());
                }
                (StatusCode::OK, [(header::CONTENT_TYPE, JSON)], "{}").into_response()
            }
            Err(refusal) => {
                if refusal.is_blind() {
                    self.0.blind.refused(&served.sensor, refusal.events);
                }
                if refusal.is_blind() && !served.is_blind.swap(true, Ordering::Relaxed) {
                    tracing::error!(sensor = name, reason = refusal.reason, "events of a sensor are refused and lost");
                    self.0.blind.opened(&served.sensor, Timestamp::now(), refusal.reason);
                }
                refusal.response(name)
            }
        }
    }

    async fn take(&self, served: &Served, shown: Shown<'_>, headers: &HeaderMap, body: Body) -> Result<(), Refusal> {
        let door = &*self.0;
        admit::admit(&served.sensor, &shown).map_err(|denied| match denied {
            Denied::NothingShown => Refusal::new(StatusCode::UNAUTHORIZED, "not authenticated"),
            Denied::Wrong => Refusal::new(StatusCode::FORBIDDEN, "not authenticated"),
        })?;
        let in_flight = tokio::time::timeout(WAIT, served.in_flight.acquire()).await;
        let Ok(Ok(_in_flight)) = in_flight else { return Err(Refusal::later("too many requests of this sensor")) };
        let body = body::read(headers, body, &served.room, &served.inflated).await?;

        let received = Timestamp::now();
        let split = split(served.dialect, &body.bytes);
        served.events.increment(split.items.len() as u64);
        served.bytes.increment(body.bytes.len() as u64);
        if split.malformed > 0 {
            served.malformed.increment(split.malformed);
            door.blind.malformed(&served.sensor, split.malformed, &split.samples);
        }
        if split.is_too_many {
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too many items at once"));
        }
        if split.items.is_empty() {
            // An empty list is fine; some senders ask with an empty body whether anybody is there.
            let is_json = split.malformed == 0;
            return is_json.then_some(()).ok_or(Refusal::new(StatusCode::BAD_REQUEST, "no JSON object"));
        }
        let is_over_limit = lock(&served.rate).is_over(body.bytes.len(), Instant::now());
        if is_over_limit {
            served.over_limit.increment(split.items.len() as u64);
            if door.stream.unread_part() > SHED_ABOVE {
                return Err(Refusal::later("over its rate while the log fills up").of(&split.items));
            }
        }
        let sensor = &served.sensor;
        let batch =
            Batch { sensor: &sensor.name, dialect: &sensor.dialect, received, is_over_limit, items: &split.items };
        let started = Instant::now();
        let appended = tokio::time::timeout(WAIT, door.stream.append(&batch)).await;
        served.append_seconds.record(started.elapsed().as_secs_f64());
        match appended {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(refused_by_stream(&sensor.name, &error).of(&split.items)),
            Err(_) => Err(Refusal::later("events are kept too slowly").of(&split.items)),
        }
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("stream", &self.0.stream).finish_non_exhaustive()
    }
}

impl Served {
    /// One of so many.
    fn new(sensor: Sensor, of: usize) -> Self {
        let name = || sensor.name.clone();
        // Settings with another do not load.
        let dialect = sensor.dialect.parse().unwrap_or(Dialect::Mayfly);
        Self {
            dialect,
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            room: Arc::new(Semaphore::new((MAX_BODIES_KIB / of).max(body::MAX_BODY >> 10))),
            inflated: Arc::new(Semaphore::new((MAX_INFLATED / of).max(1))),
            rate: Mutex::new(Rate::new(sensor.bytes_per_second)),
            is_blind: AtomicBool::new(false),
            events: metrics::counter!("mayfly_events_received_total", "sensor" => name()),
            bytes: metrics::counter!("mayfly_event_bytes_total", "sensor" => name()),
            malformed: metrics::counter!("mayfly_events_malformed_total", "sensor" => name()),
            over_limit: metrics::counter!("mayfly_events_over_limit_total", "sensor" => name()),
            append_seconds: metrics::histogram!("mayfly_append_seconds"),
            sensor,
        }
    }
}

async fn events(
    State(door): State<Door>,
    path: Result<Path<String>, PathRejection>,
    client: Option<Extension<Option<ClientName>>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let name = path.map(|Path(name)| name).unwrap_or_default();
    let shown = Shown {
        bearer: admit::bearer(&headers),
        secret: None,
        client: client.as_ref().and_then(|client| client.0.as_ref()),
    };
    door.answer(&name, shown, &headers, body).await
}

async fn events_with_secret(
    State(door): State<Door>,
    path: Result<Path<(String, String)>, PathRejection>,
    client: Option<Extension<Option<ClientName>>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let (name, secret) = path.map(|Path(both)| both).unwrap_or_default();
    let shown = Shown {
        bearer: admit::bearer(&headers),
        secret: Some(&secret),
        client: client.as_ref().and_then(|client| client.0.as_ref()),
    };
    door.answer(&name, shown, &headers, body).await
}

/// Why something is not taken.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    status: StatusCode,
    reason: &'static str,
    /// So many events; one where they were not counted.
    events: u64,
}

impl Refusal {
    fn new(status: StatusCode, reason: &'static str) -> Self {
        Self { status, reason, events: 1 }
    }

    /// Of these events.
    fn of(self, items: &[&[u8]]) -> Self {
        Self { events: items.len() as u64, ..self }
    }

    fn later(reason: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, reason)
    }

    /// Whether events that were well sent are lost.
    fn is_blind(&self) -> bool {
        matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::REQUEST_TIMEOUT)
    }

    fn response(self, sensor: &str) -> Response {
        let Self { status, reason, events: _ } = self;
        metrics::counter!("mayfly_requests_refused_total", "sensor" => sensor.to_owned(), "reason" => reason)
            .increment(1);
        let body = serde_json::json!({ "error": reason }).to_string();
        let mut response = (status, [(header::CONTENT_TYPE, JSON)], body).into_response();
        match status {
            StatusCode::SERVICE_UNAVAILABLE => drop(response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER)),
            StatusCode::UNAUTHORIZED => drop(response.headers_mut().insert(header::WWW_AUTHENTICATE, BEARER)),
            _ => {}
        }
        response
    }
}

/// The sensor is told what its owner can do something about; the log has the path and the system's words.
fn refused_by_stream(sensor: &str, error: &stream::Error) -> Refusal {
    let reason = match error {
        stream::Error::Log(log::Error::Full { .. }) => "the disk is full",
        stream::Error::Log(log::Error::Limit { .. }) => "the log is full of what is not read yet",
        stream::Error::Log(log::Error::TooLarge { .. }) | stream::Error::TooLarge { .. } => {
            return Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too large");
        }
        stream::Error::Log(_) => "the log cannot be written",
        stream::Error::Full { .. } => "the stream is full of what is not judged yet",
        stream::Error::Away { .. } => "the stream does not take events",
    };
    tracing::debug!(sensor, error = error as &dyn std::error::Error, "not appended");
    Refusal::later(reason)
}

/// Bytes that a sensor may still send: they come back with time, up to those of some seconds.
struct Rate {
    limit: Option<u64>,
    left: f64,
    at: Instant,
}

impl Rate {
    fn new(limit: Option<u64>) -> Self {
        Self { limit, left: limit.map_or(0.0, burst), at: Instant::now() }
    }

    fn is_over(&mut self, bytes: usize, now: Instant) -> bool {
        let Some(limit) = self.limit else { return false };
        let back = now.saturating_duration_since(self.at).as_secs_f64() / BURST.as_secs_f64() * burst(limit);
        #[expect(clippy::cast_precision_loss, reason = "bytes of one body")]
        let left = (self.left + back).min(burst(limit)) - bytes as f64;
        // A flood is forgotten as fast as a full allowance comes back.
        (self.left, self.at) = (left.max(-burst(limit)), now);
        left < 0.0
    }
}

fn burst(limit: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate that a person chose")]
    let limit = limit as f64;
    limit * BURST.as_secs_f64()
}

/// Each lock holds one value, changed in one step.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const JSON: &str = "application/json";
const BEARER: header::HeaderValue = header::HeaderValue::from_static("Bearer");

/// Seconds after which it is worth while to try again.
const RETRY_AFTER: header::HeaderValue = header::HeaderValue::from_static("5");

/// Bodies together: the memory that the door takes. Each sensor has its part of it, and always room for one body.
const MAX_BODIES_KIB: usize = 64 << 10;

/// Inflated bodies at once, each of up to the most that a body may have; each sensor has its part, and always one.
const MAX_INFLATED: usize = 8;

/// Requests of one sensor at once; further ones wait.
const MAX_IN_FLIGHT: usize = 64;

/// How long one waits for its turn, and for the disk. Falco sends nothing else meanwhile; Tracee gives up after 10 s.
const WAIT: Duration = Duration::from_secs(4);

/// Seconds of its rate that a sensor may send at once.
const BURST: Duration = Duration::from_secs(10);

/// Part of the log's disk, taken by what is unread, above which sensors over their rate are refused.
const SHED_ABOVE: f64 = 0.5;
