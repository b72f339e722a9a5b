//! For tests: a client that shakes hands in memory, at any time of day, and an API server that is a map.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use http::{Method, Request, Response};
use jiff::Timestamp;
use kube::{Client, client::Body};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _},
    time_provider::TimeProvider,
};
use serde_json::{Value, json};

#[derive(Debug)]
struct At(Timestamp);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.as_second()).expect("after 1970");
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// A client that trusts a bundle at a time, and shows a certificate where it has one.
pub(crate) fn client(bundle: &str, identity: Option<(&str, &str)>, now: Timestamp, versions: Versions) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(certificate.expect("PEM")).expect("an authority");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_details(provider, Arc::new(At(now)))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match identity {
        Some((chain, key)) => builder
            .with_client_auth_cert(
                CertificateDer::pem_slice_iter(chain.as_bytes()).map(|c| c.expect("PEM")).collect(),
                PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key"),
            )
            .expect("an identity"),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

pub(crate) type Versions = &'static [&'static rustls::SupportedProtocolVersion];
pub(crate) const BOTH: Versions = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// Shakes hands in memory. Returns the server's certificate, and the protocol that was agreed on.
pub(crate) fn shake(
    server: Arc<ServerConfig>,
    client: ClientConfig,
) -> Result<(CertificateDer<'static>, Option<Vec<u8>>), rustls::Error> {
    let mut client = ClientConnection::new(Arc::new(client), "a.svc".try_into().expect("a name"))?;
    let mut server = ServerConnection::new(server)?;
    for _ in 0..16 {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).expect("memory");
        feed(&wire, |bytes| server.read_tls(bytes));
        let refused = server.process_new_packets();
        let mut wire = Vec::new();
        server.write_tls(&mut wire).expect("memory");
        feed(&wire, |bytes| client.read_tls(bytes));
        client.process_new_packets()?;
        refused?;
        if !client.is_handshaking() && !server.is_handshaking() && !client.wants_write() && !server.wants_write() {
            break;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    let leaf = client.peer_certificates().and_then(|chain| chain.first()).expect("a certificate").clone().into_owned();
    Ok((leaf, client.alpn_protocol().map(<[u8]>::to_vec)))
}

fn feed(wire: &[u8], mut read: impl FnMut(&mut dyn io::Read) -> io::Result<usize>) {
    let mut left = wire;
    while !left.is_empty() {
        read(&mut left).expect("memory");
    }
}

/// An API server: objects by path, versions that go up, and what is to go wrong next.
#[derive(Clone, Default)]
pub(crate) struct Cluster(Arc<Mutex<State>>);

#[derive(Default)]
pub(crate) struct State {
    pub(crate) objects: BTreeMap<String, Value>,
    version: u64,
    /// Method and path of what was asked.
    pub(crate) asked: Vec<String>,
    /// Answers to be given in place of the real ones: to which method, which code.
    pub(crate) failures: Vec<(Method, u16)>,
    /// Another replica's write that comes before the next write of this method.
    pub(crate) races: Vec<(Method, String, Value)>,
}

impl Cluster {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic")
    }

    pub(crate) fn client(&self) -> Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let cluster = cluster.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.expect("a body");
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let (code, answer) = cluster.state().answer(&parts.method, parts.uri.path(), body);
                let response = Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
                Ok::<_, Infallible>(response.expect("a response"))
            }
        });
        Client::new(service, "default")
    }

    /// Puts a configuration with webhooks of these names.
    pub(crate) fn configure(&self, name: &str, webhooks: &[&str]) {
        let webhooks: Vec<_> = webhooks
            .iter()
            .map(|name| {
                json!({"name": name, "clientConfig": {"service": {"name": "s", "namespace": "n"}}, "future": 1,
                "sideEffects": "None", "admissionReviewVersions": ["v1"]})
            })
            .collect();
        let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": name}, "webhooks": webhooks});
        self.state().put(&configuration(name), object);
    }

    /// The bundles of a configuration's webhooks, decoded.
    pub(crate) fn bundles(&self, name: &str) -> Vec<String> {
        let object = self.state().objects[&configuration(name)].clone();
        let webhooks = object["webhooks"].as_array().expect("webhooks").clone();
        webhooks
            .iter()
            .map(|webhook| {
                let bytes: k8s_openapi::ByteString =
                    serde_json::from_value(webhook["clientConfig"]["caBundle"].clone()).unwrap_or_default();
                String::from_utf8(bytes.0).expect("text")
            })
            .collect()
    }
}

fn configuration(name: &str) -> String {
    format!("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{name}")
}

impl State {
    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn answer(&mut self, method: &Method, path: &str, body: Value) -> (u16, Value) {
        self.asked.push(format!("{method} {path}"));
        if let Some(at) = self.failures.iter().position(|(failing, _)| failing == method) {
            return failure(self.failures.remove(at).1);
        }
        if let Some(at) = self.races.iter().position(|(racing, ..)| racing == method) {
            let (_, path, object) = self.races.remove(at);
            self.put(&path, object);
        }
        let version = body["metadata"]["resourceVersion"].clone();
        if *method == Method::POST {
            let path = format!("{path}/{}", body["metadata"]["name"].as_str().expect("a name"));
            return match self.objects.contains_key(&path) {
                true => failure(409),
                false => (201, self.put(&path, body)),
            };
        }
        let Some(found) = self.objects.get(path).cloned() else { return failure(404) };
        if *method == Method::GET {
            return (200, found);
        }
        assert!(version.is_string(), "a write without the version it was made from");
        if version != found["metadata"]["resourceVersion"] {
            return failure(409);
        }
        if *method == Method::PUT {
            return (200, self.put(path, body));
        }
        // A strategic merge patch: webhooks are merged by name.
        let mut merged = found;
        for patch in body["webhooks"].as_array().expect("webhooks") {
            let webhooks = merged["webhooks"].as_array_mut().expect("webhooks");
            let webhook = webhooks.iter_mut().find(|webhook| webhook["name"] == patch["name"]).expect("a webhook");
            webhook["clientConfig"]["caBundle"] = patch["clientConfig"]["caBundle"].clone();
        }
        (200, self.put(path, merged))
    }
}

fn failure(code: u16) -> (u16, Value) {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        _ => "InternalError",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason});
    (code, status)
}
