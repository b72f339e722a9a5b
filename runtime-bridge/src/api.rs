//! What people and programs ask of the bridge, over HTTP under `/api/v1`.
//!
//! ```text
//! request ─auth─► Caller ─► handler ─► ledger
//!                   │          │
//!     what he may see, and do  └─► JSON, or a problem: what is wrong and what to do
//! ```
//!
//! Every list holds what the caller may read and nothing else; what he may not read is not there (404). The API keeps no state but the
//! streams that are open: any number of bridges may serve one ledger.

mod access;
mod alerts;
pub mod auth;
mod blind;
mod drafts;
mod events;
mod evidence;
mod images;
mod incidents;
mod kubernetes;
mod openapi;
mod overlays;
mod problem;
mod responses;
mod suppressions;
mod workloads;

#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    extract::{Request, State},
    http::{HeaderValue, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{delete, get, post},
};
use lineage::{Kin, Ledger};
use tokio::sync::{Semaphore, watch};
use tower_http::catch_panic::CatchPanicLayer;

use self::{
    auth::{Access, Authenticate, Caller, Credentials},
    problem::{Problem, at_most},
};
pub use self::{blind::SensorHealth, kubernetes::Kubernetes, openapi::openapi};
use crate::{
    incidents::Incidents,
    overlays::{Attached, NotCounted, Signers},
    response::Responder,
    sinks::Sinks,
};

/// The health of the sensors, as it is when it is asked for.
pub type Sensors = Arc<dyn Fn() -> Vec<SensorHealth> + Send + Sync>;

/// What the API answers from. Clones share it.
#[derive(Clone)]
pub struct Api {
    ledger: Ledger,
    authenticate: Arc<[Arc<dyn Authenticate>]>,
    sensors: Sensors,
    sinks: Arc<Sinks>,
    overlays: Signers,
    attached: Option<Attached>,
    incidents: Incidents,
    kin: Kin,
    responder: Option<Responder>,
    changed: watch::Sender<()>,
    accepted: watch::Sender<()>,
    followers: Arc<Semaphore>,
    replays: Arc<Semaphore>,
    dropped: Arc<AtomicU64>,
    limits: Limits,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// An answer.
    answer: Duration,
    /// A client that follows, to take an event.
    stall: Duration,
    /// A stream: a client comes again, and is asked anew who he is.
    stream: Duration,
    /// Until the ledger is looked at again for what other bridges wrote.
    poll: Duration,
}

const LIMITS: Limits = Limits {
    answer: Duration::from_secs(20),
    stall: Duration::from_secs(10),
    stream: Duration::from_secs(900),
    poll: Duration::from_secs(1),
};

impl std::fmt::Debug for Api {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Api").field("ledger", &self.ledger).finish_non_exhaustive()
    }
}

impl Api {
    /// An API that asks these, in their order, who a caller is.
    pub fn new(ledger: Ledger, authenticate: Vec<Arc<dyn Authenticate>>, sensors: Sensors) -> Self {
        Self {
            kin: Kin::new(ledger.clone()),
            ledger,
            authenticate: authenticate.into(),
            sensors,
            sinks: Arc::default(),
            overlays: Signers::default(),
            attached: None,
            incidents: Incidents::default(),
            responder: None,
            changed: watch::Sender::new(()),
            accepted: watch::Sender::new(()),
            followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
            replays: Arc::new(Semaphore::new(drafts::AT_A_TIME)),
            dropped: Arc::new(AtomicU64::new(0)),
            limits: LIMITS,
        }
    }

    /// The same, with sinks that are told what people do.
    #[must_use]
    pub fn telling(self, sinks: Sinks) -> Self {
        Self { sinks: Arc::new(sinks), ..self }
    }

    /// The same, with whose signature makes an act an expected one.
    #[must_use]
    pub fn accepting(self, overlays: Signers) -> Self {
        Self { overlays, ..self }
    }

    /// The same, with what is found at images.
    #[must_use]
    pub fn looking(self, attached: Attached) -> Self {
        Self { attached: Some(attached), ..self }
    }

    fn refused_overlays(&self) -> Vec<NotCounted> {
        self.attached.as_ref().map(Attached::refused).unwrap_or_default()
    }

    /// The same, with the incidents that the ledger's alerts are.
    #[must_use]
    pub fn telling_of(self, incidents: Incidents) -> Self {
        Self { incidents, ..self }
    }

    /// The same, with who takes responses back.
    #[must_use]
    pub fn responding(self, responder: Responder) -> Self {
        Self { responder: Some(responder), ..self }
    }

    /// Tells when alerts were written.
    #[must_use]
    pub fn when_changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Tells when something was accepted, or is not any more; whoever accepts something tells it there.
    #[must_use]
    pub fn when_accepted(&self) -> watch::Sender<()> {
        self.accepted.clone()
    }

    fn accepted(&self) {
        self.accepted.send_replace(());
    }

    /// Says that alerts were written: who follows them is told now, and not with the next look at the ledger.
    pub fn changed(&self) {
        self.changed.send_replace(());
    }

    /// Streams that are open.
    pub fn followers(&self) -> usize {
        MAX_FOLLOWERS.saturating_sub(self.followers.available_permits())
    }

    /// Streams that were ended since their clients took nothing.
    pub fn dropped_followers(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The routes. [`crate::door::serve`] says whose certificate a connection showed.
    pub fn router(&self) -> Router {
        let known = Router::new()
            .route("/alerts", get(alerts::list))
            .route("/alerts/{id}", get(alerts::read))
            .route("/alerts/{id}/acknowledge", post(alerts::acknowledge))
            .route("/alerts/{id}/resolve", post(alerts::resolve))
            .route("/alerts/{id}/reopen", post(alerts::reopen))
            .route("/alerts/{id}/annotate", post(alerts::annotate))
            .route("/alerts/{id}/suppress", post(suppressions::make))
            .route("/alerts/{id}/accept", post(overlays::propose))
            .route("/overlays", get(overlays::list).post(overlays::take).layer(at_most(overlays::MAX_BUNDLE)))
            .route("/overlays/{id}", get(overlays::read).delete(overlays::revoke))
            .route("/overlays/{id}/bundle", get(overlays::bundle))
            .route("/suppressions", get(suppressions::list))
            .route("/suppressions/{id}", delete(suppressions::lift))
            .route("/incidents", get(incidents::list))
            .route("/incidents/{id}", get(incidents::read))
            .route("/incidents/{id}/evidence", get(evidence::read))
            .route("/incidents/{id}/acknowledge", post(incidents::acknowledge))
            .route("/incidents/{id}/resolve", post(incidents::resolve))
            .route("/incidents/{id}/reopen", post(incidents::reopen))
            .route("/responses", get(responses::list))
            .route("/responses/{id}/undo", post(responses::undo))
            .route("/workloads", get(workloads::list))
            .route("/workloads/{id}", get(workloads::read))
            .route("/workloads/{id}/draft", post(drafts::make))
            .route("/replay", post(drafts::replay).layer(at_most(drafts::MAX_SENT)))
            .route("/images/{digest}", get(images::read))
            .route("/sensors", get(blind::sensors))
            .route("/blind", get(blind::list))
            .route("/events", get(events::follow))
            .fallback(problem::no_route)
            .method_not_allowed_fallback(problem::no_method)
            .layer(middleware::from_fn_with_state(self.clone(), authenticated));
        let open = Router::new().route("/openapi.json", get(async || Json(openapi())));
        Router::new()
            .nest("/api/v1", open.merge(known))
            .with_state(self.clone())
            .layer(at_most(MAX_BODY))
            .layer(CatchPanicLayer::custom(|_| {
                tracing::error!("an API request panicked");
                Problem::internal().into_response()
            }))
            .layer(middleware::from_fn_with_state(self.limits.answer, in_time))
    }
}

/// Lets through whom one of the authenticators knows, with what he may do.
async fn authenticated(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let credentials = Credentials::of(&request);
    let access = if request.method().is_safe() { Access::Read } else { Access::Write };
    for authenticate in &*api.authenticate {
        match authenticate.caller(&credentials, access).await {
            Ok(Some(caller)) => {
                request.extensions_mut().insert(Arc::new(caller));
                return next.run(request).await;
            }
            Ok(None) => {}
            Err(unavailable) => {
                tracing::warn!(error = %unavailable, "a caller cannot be authenticated");
                return Problem::later("who you are cannot be found out now").into_response();
            }
        }
    }
    Problem::unauthorized(&credentials).into_response()
}

/// An answer, or that there was none in time. None of them may be kept by anybody in between.
async fn in_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    let mut response = match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::later("there was no answer in time").into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Who asks, as a handler has it.
type Who = Extension<Arc<Caller>>;

/// A reason and a scope.
const MAX_BODY: usize = 16 << 10;
/// Streams at once.
const MAX_FOLLOWERS: usize = 64;
