//! A question of the API server: `AdmissionReview` v1.
//!
//! Source: Kubernetes API, `k8s.io/api/admission/v1`; "Dynamic Admission Control".

use serde::Deserialize;
use serde_json::Value;

use crate::review::{GroupVersionKind, GroupVersionResource, Request, Review, UserInfo};

/// The request on the wire. What a newer API server adds is passed over.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    uid: String,
    kind: GroupVersionKind,
    #[serde(default)]
    resource: GroupVersionResource,
    /// `ephemeralcontainers`, `status` …; absent for the object itself.
    #[serde(default)]
    sub_resource: Option<String>,
    /// Empty where the API server will make one.
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    operation: String,
    #[serde(default)]
    user_info: UserInfo,
    /// The object as it would be stored; null for a deletion.
    #[serde(default)]
    object: Value,
    #[serde(default)]
    old_object: Value,
    #[serde(default)]
    dry_run: Option<bool>,
}

impl From<Wire> for Review {
    fn from(wire: Wire) -> Self {
        let request = Request {
            uid: wire.uid,
            kind: wire.kind,
            resource: wire.resource,
            sub_resource: wire.sub_resource.unwrap_or_default(),
            name: wire.name,
            namespace: wire.namespace,
            operation: wire.operation,
            user_info: wire.user_info,
            dry_run: wire.dry_run.unwrap_or_default(),
        };
        Self { request, object: wire.object, old_object: wire.old_object, ..Self::default() }
    }
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

/// Reads a body. Of the review the namespace and the facts are not known yet.
///
/// # Errors
/// [`Malformed`], which is to be answered too.
pub fn read(body: &[u8]) -> Result<Review, Malformed> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Envelope {
        #[serde(default)]
        api_version: String,
        #[serde(default)]
        kind: String,
        #[serde(default)]
        request: Option<Wire>,
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
    Ok(request.into())
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

/// The version of the protocol.
pub const API_VERSION: &str = "admission.k8s.io/v1";

/// What question and answer are.
pub const KIND: &str = "AdmissionReview";

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
        let review = read(&body(&request)).expect("a request");
        let request = &review.request;
        assert_eq!((request.uid.as_str(), request.kind.group.as_str(), request.name.as_str()), ("u", "", ""));
        assert!(review.old_object.is_null() && !request.dry_run);
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
}
