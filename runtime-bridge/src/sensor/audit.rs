//! Audit events of the Kubernetes API server: who runs a command in a container, attaches to it, or opens a way into its pod.
//!
//! Source: kubernetes/apiserver `pkg/apis/audit/v1/types.go`. A list of events is taken apart by [`super::items`]. A call that lasts is told
//! of twice, as it begins and as it ends; both give the same [`Call`] and the same key ([`super::key`]), so one of them is enough, and a
//! policy may leave out either.

use jiff::Timestamp;
use serde::Deserialize;

use super::{
    Call, Malformed, Told,
    lenient::{Nested, Number, Text},
};
use crate::limits::WORDS;

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Event<'a> {
    #[serde(borrow, rename = "auditID")]
    id: Text<'a>,
    #[serde(borrow)]
    stage: Text<'a>,
    #[serde(borrow, rename = "requestURI")]
    uri: Text<'a>,
    #[serde(borrow)]
    verb: Text<'a>,
    #[serde(borrow)]
    user: Nested<User<'a>>,
    #[serde(borrow)]
    impersonated_user: Nested<User<'a>>,
    #[serde(borrow, rename = "sourceIPs")]
    source: Nested<Vec<Text<'a>>>,
    #[serde(borrow)]
    object_ref: Nested<Object<'a>>,
    response_status: Nested<Status>,
    #[serde(borrow)]
    request_object: Nested<Request<'a>>,
    #[serde(borrow)]
    request_received_timestamp: Text<'a>,
    #[serde(borrow)]
    annotations: Nested<Annotations<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct User<'a> {
    #[serde(borrow)]
    username: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Object<'a> {
    #[serde(borrow)]
    resource: Text<'a>,
    #[serde(borrow)]
    subresource: Text<'a>,
    #[serde(borrow)]
    namespace: Text<'a>,
    #[serde(borrow)]
    name: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    code: Number,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Annotations<'a> {
    #[serde(borrow, rename = "authorization.k8s.io/decision")]
    decision: Text<'a>,
}

/// The pod, or the change to it, where the audit policy keeps requests.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Request<'a> {
    #[serde(borrow)]
    spec: Nested<Spec<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Spec<'a> {
    #[serde(borrow, rename = "ephemeralContainers")]
    containers: Nested<Vec<Nested<Ephemeral<'a>>>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Ephemeral<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    command: Nested<Vec<Text<'a>>>,
    #[serde(borrow)]
    args: Nested<Vec<Text<'a>>>,
}

/// Reads one event.
///
/// # Errors
/// [`Malformed`] where it is not JSON, or not an audit event.
pub(crate) fn decode(item: &[u8]) -> Result<Told, Malformed> {
    let event: Event<'_> = serde_json::from_slice(item)
        .map_err(|error| Malformed::new(format!("not an audit event, one JSON object: {error}")))?;
    let (Some(id), Some(stage)) = (event.id.owned(), event.stage.as_deref()) else {
        return Err(Malformed::new("no `auditID` or no `stage`: not an event of audit.k8s.io/v1"));
    };
    let object = event.object_ref.as_ref();
    let subresource = object.and_then(|object| object.subresource.as_deref()).unwrap_or_default();
    let is_pod = object.and_then(|object| object.resource.as_deref()) == Some("pods");
    if !is_pod || !reaches_in(subresource, event.verb.as_deref().unwrap_or_default()) {
        return Ok(Told::Nothing("a request that reaches into no container"));
    }
    if stage == "RequestReceived" {
        return Ok(Told::Nothing("a request that is not answered yet"));
    }
    let at = event.request_received_timestamp.as_deref().and_then(|time| time.parse::<Timestamp>().ok());
    let Some(at) = at else { return Err(Malformed::new("no `requestReceivedTimestamp` of RFC 3339")) };
    let named = |name: fn(&Object<'_>) -> Option<String>| object.and_then(name);
    let (Some(namespace), Some(pod)) = (named(|object| object.namespace.owned()), named(|object| object.name.owned()))
    else {
        return Err(Malformed::new("`objectRef` names no pod"));
    };
    let (container, command) = match subresource {
        "ephemeralcontainers" => ephemeral(&event),
        _ => asked_for(event.uri.as_deref().unwrap_or_default()),
    };
    let username = |user: &Nested<User<'_>>| user.as_ref().and_then(|user| user.username.owned());
    let source = event.source.as_ref().map(Vec::as_slice).unwrap_or_default();
    Ok(Told::Call(Box::new(Call {
        at,
        id,
        user: username(&event.user).unwrap_or_default(),
        impersonated: username(&event.impersonated_user),
        subresource: subresource.to_owned(),
        namespace,
        pod,
        container,
        command: dna::redact_argv(&command),
        source: source.iter().filter_map(Text::owned).collect(),
        allowed: is_allowed(&event),
    })))
}

/// Streams are opened by `create` or, over a WebSocket, by `get`; to `get` ephemeral containers only reads them.
fn reaches_in(subresource: &str, verb: &str) -> bool {
    match subresource {
        "exec" | "attach" | "portforward" => matches!(verb, "create" | "get" | "connect"),
        "ephemeralcontainers" => matches!(verb, "create" | "patch" | "update"),
        _ => false,
    }
}

/// By the answer's code, and where there is none by the decision of the authorizer.
fn is_allowed(event: &Event<'_>) -> bool {
    match event.response_status.as_ref().and_then(|status| status.code.0) {
        Some(code) => (100..400).contains(&code),
        None => {
            let annotations = event.annotations.as_ref();
            annotations.and_then(|annotations| annotations.decision.as_deref()) == Some("allow")
        }
    }
}

/// Container and command of the request's query: `…/exec?command=%2Fbin%2Fsh&command=-c&container=app`.
fn asked_for(uri: &str) -> (Option<String>, Vec<String>) {
    let query = uri.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let values = |key: &'static str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(move |(name, _)| *name == key).map(|(_, value)| decoded(value))
    };
    (values("container").next().filter(|name| !name.is_empty()), values("command").take(WORDS + 1).collect())
}

/// The container that was added last: a pod's are never taken away.
fn ephemeral(event: &Event<'_>) -> (Option<String>, Vec<String>) {
    let spec = event.request_object.as_ref().and_then(|request| request.spec.as_ref());
    let containers = spec.and_then(|spec| spec.containers.as_ref()).map(Vec::as_slice).unwrap_or_default();
    let Some(added) = containers.iter().rev().find_map(Nested::as_ref) else { return (None, Vec::new()) };
    let lists = [&added.command, &added.args].into_iter().filter_map(Nested::as_ref).flatten();
    (added.name.owned(), lists.filter_map(Text::owned).take(WORDS + 1).collect())
}

/// A value of a query, percent-decoded; a plus is a space. What is no UTF-8 is shown as such.
fn decoded(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes().iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let pair = rest.as_slice().get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
                // `from_str_radix` takes a sign too.
                let pair = pair.filter(|pair| pair.bytes().all(|byte| byte.is_ascii_hexdigit()));
                match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
                    Some(decoded) => {
                        bytes.push(decoded);
                        rest = rest.as_slice().get(2..).unwrap_or_default().iter();
                    }
                    None => bytes.push(b'%'),
                }
            }
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded() {
        let uri = "/api/v1/namespaces/n/pods/p/exec?command=%2Fbin%2Fsh&command=-c&command=echo+a%2Bb%26c&container=app&tty=true";
        let (container, command) = asked_for(uri);
        assert_eq!(container.as_deref(), Some("app"));
        assert_eq!(command, ["/bin/sh", "-c", "echo a+b&c"]);
        assert_eq!(asked_for("/api"), (None, Vec::new()));
    }

    #[test]
    fn a_damaged_escape_stays() {
        assert_eq!(decoded("100%"), "100%");
        assert_eq!(decoded("%2"), "%2");
        assert_eq!(decoded("%+1"), "% 1");
        assert_eq!(decoded("%zz%41"), "%zzA");
        assert_eq!(decoded("%ff"), "\u{fffd}");
    }
}
