//! The answer to an `AdmissionReview` v1, and when it is due. The question is read by [`policies::admission`].
//!
//! Source: Kubernetes API, `k8s.io/api/admission/v1`; "Dynamic Admission Control". Whatever comes in, an answer goes out with
//! HTTP 200: another status is a failed call to the API server, and its failure policy then decides in our place.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use policies::admission::{API_VERSION, KIND};
use serde::Serialize;

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// The request's.
    pub uid: String,
    /// Whether the object may be stored.
    pub allowed: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Shown to whoever asked, allowed or not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// For the audit log; the API server puts the webhook's name before each key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub audit_annotations: BTreeMap<String, String>,
}

/// Why an object may not be stored. Source: `k8s.io/apimachinery`, `metav1.Status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The HTTP status that the client sees.
    pub code: u16,
    /// The same as one word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// When it is worthwhile to ask again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
}

/// Details of a [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Seconds to wait.
    pub retry_after_seconds: u32,
}

impl Status {
    /// A rule says no.
    pub fn forbidden(message: String) -> Self {
        Self { code: 403, reason: "Forbidden", message, details: None }
    }

    /// It cannot be told yet; asking again later is worthwhile.
    pub fn later(message: String, retry_after_seconds: u32) -> Self {
        let details = Some(Details { retry_after_seconds });
        Self { code: 503, reason: "ServiceUnavailable", message, details }
    }

    /// Something is wrong with us.
    pub fn internal(message: String) -> Self {
        Self { code: 500, reason: "InternalError", message, details: None }
    }

    /// The request cannot be read.
    pub fn bad_request(message: String) -> Self {
        Self { code: 400, reason: "BadRequest", message, details: None }
    }
}

impl Response {
    /// The object may be stored, and nothing is to be said.
    pub fn allow(uid: &str) -> Self {
        let (uid, allowed) = (uid.to_owned(), true);
        Self { uid, allowed, status: None, warnings: Vec::new(), audit_annotations: BTreeMap::new() }
    }

    /// The object may not be stored.
    pub fn deny(uid: &str, status: Status) -> Self {
        Self { allowed: false, status: Some(status), ..Self::allow(uid) }
    }

    /// The body to send.
    pub fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Envelope<'a> {
            api_version: &'static str,
            kind: &'static str,
            response: &'a Response,
        }
        // Maps of strings only: this cannot fail.
        serde_json::to_vec(&Envelope { api_version: API_VERSION, kind: KIND, response: self }).unwrap_or_default()
    }
}

/// When an answer must be given: half of the time the API server waits, or all of it but 1.2 s, whichever is later.
///
/// The API server tells in whole seconds, rounded up, so that up to a second of what it says may not be there.
pub fn deadline(now: Instant, query: Option<&str>) -> Instant {
    let value = query.into_iter().flat_map(|query| query.split('&')).find_map(|pair| pair.strip_prefix("timeout="));
    let timeout = value.and_then(seconds).unwrap_or(DEFAULT_TIMEOUT).clamp(Duration::from_secs(1), MAX_TIMEOUT);
    now + (timeout / 2).max(timeout.saturating_sub(MARGIN))
}

/// A duration as Go prints it, in whole seconds or less: `10s`, `1m0s`, `500ms`.
fn seconds(text: &str) -> Option<Duration> {
    if let Some(millis) = text.strip_suffix("ms") {
        return millis.parse().ok().map(Duration::from_millis);
    }
    let text = text.strip_suffix('s').unwrap_or(text);
    let (minutes, rest) = text.split_once('m').unwrap_or(("0", text));
    let rest = if rest.is_empty() { "0" } else { rest };
    let seconds: f64 = rest.parse().ok()?;
    let minutes: u32 = minutes.parse().ok()?;
    Duration::try_from_secs_f64(f64::from(minutes).mul_add(60.0, seconds)).ok()
}

/// What a webhook is given where its configuration says nothing.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// The API server allows no more.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);

/// A second for the API server's rounding, and the way back.
const MARGIN: Duration = Duration::from_millis(1200);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_answer_repeats_the_uid_and_says_what_the_protocol_asks() {
        let answer: Value = serde_json::from_slice(&Response::allow("u").to_json()).expect("JSON");
        let expected = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "response": {"uid": "u", "allowed": true}});
        assert_eq!(answer, expected);
        let later = Response::deny("u", Status::later("wait".to_owned(), 7));
        let answer: Value = serde_json::from_slice(&later.to_json()).expect("JSON");
        let status = json!({"code": 503, "reason": "ServiceUnavailable", "message": "wait",
            "details": {"retryAfterSeconds": 7}});
        assert_eq!(answer.pointer("/response/status"), Some(&status));
    }

    #[test]
    fn the_answer_is_due_before_the_api_server_gives_up() {
        let now = Instant::now();
        let due = |query: Option<&str>| deadline(now, query).duration_since(now).as_millis();
        assert_eq!(due(Some("timeout=10s")), 8_800);
        assert_eq!(due(Some("a=b&timeout=2s")), 1_000, "half is more than what the margin leaves");
        assert_eq!(due(Some("timeout=1s")), 500);
        assert_eq!(due(Some("timeout=1m0s")), 28_800, "no more than the API server allows");
        assert_eq!(due(Some("timeout=500ms")), 500, "at least a second is given");
        assert_eq!(due(None), 8_800);
        assert_eq!(due(Some("timeout=soon")), 8_800);
    }
}
