//! An API server for tests: objects by path, versions that go up, and what is to go wrong next.
#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::http::{Method, Request, Response, Uri};
use kube::{Client, client::Body};
use serde_json::{Value, json};

#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

#[derive(Default)]
pub(crate) struct State {
    pub(crate) objects: BTreeMap<String, Value>,
    version: u64,
    /// Method and path of what was asked, and the query of a list.
    pub(crate) asked: Vec<String>,
    /// So many writes are preceded by another replica's.
    pub(crate) races: u32,
    /// Everything fails.
    pub(crate) is_down: bool,
    /// Continued lists are too old, so many times.
    pub(crate) gone: u32,
}

impl Fake {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic")
    }

    pub(crate) fn client(&self) -> Client {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let fake = fake.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.expect("a body");
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let (code, answer) = fake.state().answer(&parts.method, &parts.uri, body);
                let response = Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
                Ok::<_, Infallible>(response.expect("a response"))
            }
        });
        Client::new(service, "default")
    }

    /// Puts an object at its path.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.state().put(path, object);
    }
}

impl State {
    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn answer(&mut self, method: &Method, uri: &Uri, body: Value) -> (u16, Value) {
        let (path, query) = (uri.path(), uri.query().unwrap_or_default());
        self.asked.push(format!("{method} {path}?{query}"));
        if self.is_down {
            return failure(500);
        }
        let is_write = *method != Method::GET;
        if is_write && self.races > 0 {
            self.races -= 1;
            if let Some(object) = self.objects.get(path).cloned() {
                self.put(path, object);
            }
        }
        match *method {
            Method::POST => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().expect("a name"));
                match self.objects.contains_key(&path) {
                    true => failure(409),
                    false => (201, self.put(&path, body)),
                }
            }
            Method::PUT => match self.objects.get(path) {
                None => failure(404),
                Some(found) if found["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] => {
                    failure(409)
                }
                Some(_) => (200, self.put(path, body)),
            },
            Method::DELETE => match self.objects.remove(path) {
                None => failure(404),
                Some(found) => (200, found),
            },
            // Server-side apply of the whole object.
            Method::PATCH => (200, self.put(path, body)),
            _ => match self.objects.get(path).cloned() {
                Some(found) => (200, found),
                None if LISTED.iter().any(|kind| path.rsplit('/').next() == Some(kind)) => self.list(path, query),
                None => failure(404),
            },
        }
    }

    /// A list in pages: what continues it is the number of objects before.
    fn list(&mut self, path: &str, query: &str) -> (u16, Value) {
        let of = |name: &str| {
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse::<usize>().ok())
        };
        let from = of("continue").unwrap_or_default();
        if from > 0 && self.gone > 0 {
            self.gone -= 1;
            return failure(410);
        }
        let kind = path.rsplit('/').next().unwrap_or_default();
        let wanted: Vec<&Value> =
            self.objects.iter().filter(|(path, _)| path.rsplit('/').nth(1) == Some(kind)).map(|(_, it)| it).collect();
        let end = wanted.len().min(from + of("limit").unwrap_or(usize::MAX));
        let next = if end < wanted.len() { end.to_string() } else { String::new() };
        let items: Vec<&Value> = wanted[from..end].to_vec();
        (200, json!({"metadata": {"continue": next, "resourceVersion": "1"}, "items": items}))
    }
}

/// Kinds that are listed where nothing is named.
const LISTED: [&str; 11] = [
    "configmaps",
    "nodes",
    "pods",
    "podtemplates",
    "replicationcontrollers",
    "daemonsets",
    "deployments",
    "replicasets",
    "statefulsets",
    "jobs",
    "cronjobs",
];

fn failure(code: u16) -> (u16, Value) {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        _ => "InternalError",
    };
    (code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "it fails"}))
}
