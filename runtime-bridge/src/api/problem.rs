//! What is wrong with a request, and what to do: RFC 9457. And the parts of a request, read so that they end in one where they are
//! wrong.

use axum::{
    Extension,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Query, Request},
    http::{HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

use super::auth::Credentials;

/// A problem, `application/problem+json`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Problem {
    /// The meaning of the status.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What is wrong.
    detail: String,
    /// What to do.
    advice: String,
}

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error").to_owned();
        Self { title, status: status.as_u16(), detail: detail.into(), advice: advice.into() }
    }

    pub(super) fn bad(detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail, advice)
    }

    pub(super) fn conflict(detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail, advice)
    }

    pub(super) fn forbidden(detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail, advice)
    }

    /// It may be read by this caller, and not changed.
    pub(super) fn read_only(detail: &str) -> Self {
        Self::forbidden(
            detail,
            "ask for the role `write`, or in Kubernetes for the verb `update` on `alerts` of `mayfly.dev`",
        )
    }

    /// Not there, or not for this caller: he is not told which.
    pub(super) fn missing(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!("there is no {what}, or you may not read its namespace"),
            "look at its name; ask for the right to read where it is",
        )
    }

    /// Whether it is that something changed meanwhile, or is gone.
    pub(super) fn is_of_state(&self) -> bool {
        self.status == StatusCode::CONFLICT.as_u16() || self.status == StatusCode::NOT_FOUND.as_u16()
    }

    pub(super) fn unauthorized(credentials: &Credentials) -> Self {
        let detail = if credentials.is_empty() {
            "the request says not who you are"
        } else {
            "nobody knows these credentials, or they have expired"
        };
        Self::new(
            StatusCode::UNAUTHORIZED,
            detail,
            "send `Authorization: Bearer TOKEN` with a token that the bridge or its cluster knows, or a client certificate",
        )
    }

    pub(super) fn later(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail, "try again in some seconds; the bridge's log has more")
    }

    pub(super) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the bridge failed to answer",
            "look at the bridge's log, and report it",
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Texts and a number always have a JSON form.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

impl From<lineage::Error> for Problem {
    /// The log has what the store said; a caller is not told of its insides.
    fn from(error: lineage::Error) -> Self {
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        tracing::warn!(%error, source, "the ledger failed an API request");
        match error {
            lineage::Error::Damaged { what, .. } => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("a {what} in the ledger is damaged"),
                "look at the bridge's log for which, and at the ledger's disk",
            ),
            error if error.is_refusal() => Self::internal(),
            _ => Self::later("the ledger does not answer"),
        }
    }
}

pub(super) async fn no_route(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(
        StatusCode::NOT_FOUND,
        format!("there is no {}", dna::redact(&path)),
        "look at /api/v1/openapi.json for what there is",
    )
}

pub(super) async fn no_method(method: Method) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{method} does not fit here"),
        "look at /api/v1/openapi.json for what does",
    )
}

/// The query of a request.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                let why = source.unwrap_or_else(|| error.to_string());
                Err(Problem::bad(
                    format!("the query: {}", dna::redact(&why)),
                    "look at /api/v1/openapi.json for its parameters",
                ))
            }
        }
    }
}

/// The most bytes that a route takes.
#[derive(Clone, Copy)]
pub(super) struct BodyLimit(usize);

/// Lets a route take bodies of so many bytes, and say so of larger ones.
pub(super) fn at_most(bytes: usize) -> (DefaultBodyLimit, Extension<BodyLimit>) {
    (DefaultBodyLimit::max(bytes), Extension(BodyLimit(bytes)))
}

/// The JSON body of a request.
pub(super) struct Sent<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Sent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let is_json = request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| {
            kind.to_str().is_ok_and(|kind| kind.split(';').next().is_some_and(|kind| kind.trim() == "application/json"))
        });
        if !is_json {
            // Nor can a page of another origin send it, with a browser's certificate, unasked.
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body is not said to be JSON",
                "send `Content-Type: application/json`",
            ));
        }
        let limit = request.extensions().get::<BodyLimit>().map_or(super::MAX_BODY, |limit| limit.0);
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is larger than {limit} bytes, which is the most here"),
                "send less: a shorter reason, or fewer rules or overlays at once",
            ),
            _ => Problem::bad("the body cannot be read", "send it again"),
        })?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            let why = error.to_string();
            Problem::bad(format!("the body: {}", dna::redact(&why)), "look at /api/v1/openapi.json for its members")
        })
    }
}

/// Whether the lowest risk that was asked for is one.
pub(super) fn is_risk(asked: Option<f64>) -> Result<(), Problem> {
    match asked {
        Some(risk) if !(0.0..=1.0).contains(&risk) => {
            Err(Problem::bad("`minRisk` is not between 0 and 1", "give a risk of 0 to 1"))
        }
        _ => Ok(()),
    }
}

/// Rows of a page that was asked for.
pub(super) fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    match asked.unwrap_or(100) {
        limit @ 1..=MAX_PAGE => Ok(limit),
        _ => Err(Problem::bad(
            "this number of rows is not given at once",
            format!("ask for a `limit` of 1 to {MAX_PAGE}, and follow `next`"),
        )),
    }
}

/// A place in a list, as a caller hands it back.
pub(super) fn cursor<T: Serialize>(place: &T) -> Option<String> {
    serde_json::to_vec(place).ok().map(|json| URL_SAFE_NO_PAD.encode(json))
}

/// The place of a cursor.
pub(super) fn place<T: DeserializeOwned>(cursor: Option<&str>) -> Result<Option<T>, Problem> {
    let Some(cursor) = cursor else { return Ok(None) };
    let place = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|json| serde_json::from_slice(&json).ok());
    let wrong =
        || Problem::bad("the cursor is of no list like this", "send `next` of the page before, or begin without");
    place.map(Some).ok_or_else(wrong)
}

/// A reason, as it is kept: what looks like a credential is taken out.
pub(super) fn reason(text: &str) -> Result<String, Problem> {
    let text = text.trim();
    if text.is_empty() || text.len() > MAX_REASON {
        return Err(Problem::bad(
            format!("the reason has {} bytes", text.len()),
            format!("give a `reason` of 1 to {MAX_REASON}: it stands in the audit trail"),
        ));
    }
    Ok(dna::redact(text).into_owned())
}

/// Whether what somebody wants to hold until then ends, and not later than so long from now.
pub(super) fn is_within(expires_at: Timestamp, now: Timestamp, longest: SignedDuration) -> bool {
    let left = expires_at.duration_since(now);
    left.is_positive() && left <= longest
}

/// The most rows of a page.
pub(super) const MAX_PAGE: u32 = 500;
const MAX_REASON: usize = 1000;
