//! The protocol: `AdmissionReview` v1 in, `AdmissionReview` v1 out.
//!
//! Source: Kubernetes API, `k8s.io/api/admission/v1`; "Dynamic Admission Control". Whatever comes in, an answer goes out with
//! HTTP 200: another status is a failed call to the API server, and its failure policy then decides in our place.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the API server asks.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Names this review; the answer repeats it.
    pub uid: String,
    /// The kind of the object, as it is sent.
    pub kind: GroupVersionKind,
    /// The resource that is changed.
    #[serde(default)]
    pub resource: GroupVersionResource,
    /// `ephemeralcontainers`, `status` …; empty for the object itself.
    #[serde(default)]
    pub sub_resource: Option<String>,
    /// The object's name; empty where the API server will make one.
    #[serde(default)]
    pub name: String,
    /// Its namespace; empty for what has none.
    #[serde(default)]
    pub namespace: String,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: String,
    /// Who asks.
    #[serde(default)]
    pub user_info: UserInfo,
    /// The object as it would be stored; null for a deletion.
    #[serde(default)]
    pub object: Value,
    /// The object as it is.
    #[serde(default)]
    pub old_object: Value,
    /// Nothing will be stored, and nothing may be done.
    #[serde(default)]
    pub dry_run: Option<bool>,
    /// `CreateOptions` and the like.
    #[serde(default)]
    pub options: Value,
}

/// A kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupVersionKind {
    /// The API group; empty for the core's.
    #[serde(default)]
    pub group: String,
    /// The version.
    #[serde(default)]
    pub version: String,
    /// The kind.
    #[serde(default)]
    pub kind: String,
}

/// A resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupVersionResource {
    /// The API group; empty for the core's.
    #[serde(default)]
    pub group: String,
    /// The version.
    #[serde(default)]
    pub version: String,
    /// The resource.
    #[serde(default)]
    pub resource: String,
}

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserInfo {
    /// The name.
    #[serde(default)]
    pub username: String,
    /// The uid.
    #[serde(default)]
    pub uid: String,
    /// Groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// What the authenticator adds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

/// A body that is no review.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Malformed {
    /// The uid, where the body at least has one.
    pub uid: String,
    /// What is wrong.
    pub reason: String,
}

/// Reads a body.
///
/// # Errors
/// [`Malformed`], which is to be answered too.
pub fn read(body: &[u8]) -> Result<Request, Malformed> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Envelope {
        #[serde(default)]
        api_version: String,
        #[serde(default)]
        kind: String,
        #[serde(default)]
        request: Option<Request>,
    }
    let envelope: Envelope = serde_json::from_slice(body)
        .map_err(|error| Malformed { uid: uid(body), reason: format!("the body is no AdmissionReview: {error}") })?;
    let uid = envelope.request.as_ref().map(|request| request.uid.clone()).unwrap_or_default();
    if (envelope.api_version.as_str(), envelope.kind.as_str()) != (API_VERSION, KIND) {
        let found: String = format!("{} {}", envelope.api_version, envelope.kind).chars().take(80).collect();
        return Err(Malformed { uid, reason: format!("expected {API_VERSION} {KIND}, found `{found}`") });
    }
    let request = envelope.request.ok_or_else(|| Malformed { uid, reason: "the review has no request".to_owned() })?;
    if request.uid.is_empty() {
        return Err(Malformed { uid: String::new(), reason: "the request has no uid".to_owned() });
    }
    Ok(request)
}

/// The uid of a body that is no review; empty where it has none.
#[must_use]
pub fn uid(body: &[u8]) -> String {
    #[derive(Deserialize, Default)]
    struct Named {
        #[serde(default)]
        uid: String,
    }
    #[derive(Deserialize, Default)]
    struct Uid {
        #[serde(default)]
        request: Named,
    }
    serde_json::from_slice::<Uid>(body).map(|named| named.request.uid).unwrap_or_default()
}

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

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// What a webhook is given where its configuration says nothing.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// The API server allows no more.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);

/// A second for the API server's rounding, and the way back.
const MARGIN: Duration = Duration::from_millis(1200);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body(request: &Value) -> Vec<u8> {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
            .to_string()
            .into_bytes()
    }

    #[test]
    fn a_review_is_read_with_what_it_may_leave_out() {
        let request = json!({"uid": "u", "kind": {"version": "v1", "kind": "Pod"}, "operation": "CREATE",
            "object": {"spec": {}}, "newField": 1});
        let request = read(&body(&request)).expect("a request");
        assert_eq!((request.uid.as_str(), request.kind.group.as_str(), request.name.as_str()), ("u", "", ""));
        assert!(request.old_object.is_null() && request.dry_run.is_none());
    }

    #[test]
    fn what_is_no_review_says_why_and_keeps_the_uid() {
        let refused = |body: &[u8]| read(body).map(|_| ()).expect_err("it is refused");
        assert!(refused(b"x").reason.contains("no AdmissionReview"));
        assert!(refused(b"{}").reason.contains("expected admission.k8s.io/v1"));
        let old = br#"{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview",
            "request": {"uid": "u", "kind": {}, "operation": "CREATE"}}"#;
        assert_eq!(refused(old).uid, "u");
        assert_eq!(refused(&body(&json!({"uid": "u", "operation": 1, "kind": {}}))).uid, "u");
        assert!(refused(&body(&json!({"uid": "", "operation": "CREATE", "kind": {}}))).reason.contains("no uid"));
        assert!(refused(&body(&Value::Null)).reason.contains("no request"));
    }

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
