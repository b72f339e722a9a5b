//! The HTTP side: TLS, the paths, limits on what comes in, and an end that loses nothing.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{RawQuery, Request as HttpRequest, State},
    http::{StatusCode, header},
    response::{AppendHeaders, IntoResponse},
    routing::{get, post},
};
use axum_server::{
    Handle,
    accept::NoDelayAcceptor,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use certs::Patiently;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;

use crate::{
    Error,
    review::{self, Response, Status},
    service::Service,
};

/// What all paths share.
#[derive(Clone)]
struct Shared {
    service: Arc<Service>,
    metrics: PrometheusHandle,
    /// A permit for each KiB of bodies that are being read or reviewed.
    room: Arc<Semaphore>,
    draining: Arc<AtomicBool>,
}

/// The two servers: reviews by TLS, and what the node and the monitoring ask without it.
pub(crate) struct Servers {
    shared: Shared,
    reviews: (TcpListener, Arc<rustls::ServerConfig>),
    status: Option<TcpListener>,
    drain: Duration,
    /// Time for a connection's first bytes, for a header, and without a request.
    idle: Duration,
}

impl Servers {
    /// Takes the addresses.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub(crate) fn bind(
        service: Arc<Service>,
        metrics: PrometheusHandle,
        reviews: (SocketAddr, Arc<rustls::ServerConfig>),
        status: Option<SocketAddr>,
        drain: Duration,
    ) -> Result<Self, Error> {
        let listen = |address: SocketAddr| {
            let bound = TcpListener::bind(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                Ok(listener)
            });
            bound.map_err(|source| Error::Listen { address, source })
        };
        let shared = Shared {
            service,
            metrics,
            room: Arc::new(Semaphore::new(MAX_BODIES_KIB)),
            draining: Arc::new(AtomicBool::new(false)),
        };
        let (reviews, status) = ((listen(reviews.0)?, reviews.1), status.map(listen).transpose()?);
        Ok(Self { shared, reviews, status, drain, idle: IDLE })
    }

    /// Where reviews are served.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.reviews.0.local_addr().ok()
    }

    /// Serves until `shutdown`; then says that it is not ready, goes on for a while for those who have not heard, and ends what is
    /// still open.
    pub(crate) async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let router = Router::new()
            .route("/validate", post(validate))
            .route("/healthz", get(|| async { "ok" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self.shared.clone());
        let (listener, tls) = self.reviews;
        let failed = |source| Error::Serve { source };
        let handle: Handle<SocketAddr> = Handle::new();
        let idle = self.idle;
        let tls = RustlsAcceptor::new(RustlsConfig::from_config(tls)).acceptor(NoDelayAcceptor::new());
        let tls = Patiently::new(tls, idle);
        let mut reviews = axum_server::from_tcp(listener).map_err(failed)?.acceptor(tls).handle(handle.clone());
        reviews.http_builder().http1().timer(hyper_util::rt::TokioTimer::new()).header_read_timeout(idle);
        let reviews = tokio::spawn(reviews.serve(router.clone().into_make_service()));
        let status = match self.status {
            None => None,
            Some(listener) => {
                let plain = Patiently::new(NoDelayAcceptor::new(), idle);
                let mut server =
                    axum_server::from_tcp(listener).map_err(failed)?.acceptor(plain).handle(handle.clone());
                server.http_builder().http1().timer(hyper_util::rt::TokioTimer::new()).header_read_timeout(idle);
                Some(tokio::spawn(server.serve(router.into_make_service())))
            }
        };
        shutdown.await;
        self.shared.draining.store(true, Ordering::Relaxed);
        tracing::info!(seconds = self.drain.as_secs(), "draining");
        tokio::time::sleep(self.drain).await;
        handle.graceful_shutdown(Some(LAST));
        for server in [Some(reviews), status].into_iter().flatten() {
            match server.await {
                Ok(served) => served.map_err(failed)?,
                Err(panicked) => tracing::error!(%panicked, "a server ended"),
            }
        }
        Ok(())
    }
}

async fn validate(State(shared): State<Shared>, RawQuery(query): RawQuery, request: HttpRequest) -> impl IntoResponse {
    let started = Instant::now();
    let answer = match body(&shared, request.into_body()).await {
        Ok((bytes, room)) => {
            let (service, reviewed) = (Arc::clone(&shared.service), bytes.clone());
            let deadline = review::deadline(started, query.as_deref());
            // On its own: whatever happens to it, an answer goes out in time.
            let review = tokio::spawn(async move {
                let _room = room;
                // On the heap: the runtime moves a task several times before it begins.
                Box::pin(service.review(&reviewed, deadline)).await
            });
            let deny = |status| Response::deny(&policies::admission::uid(&bytes), status);
            match tokio::time::timeout_at((deadline + LATE).into(), review).await {
                Ok(Ok(response)) => response,
                Ok(Err(_)) => {
                    metrics::counter!("mayfly_panics_total").increment(1);
                    deny(Status::internal("the review panicked; the log has more".to_owned()))
                }
                Err(_) => deny(Status::later("the review does not come to its end; the log has more".to_owned(), 5)),
            }
        }
        Err(why) => Response::deny("", Status::bad_request(why)),
    };
    // The API server keeps its connections, and loses a review that it sends on one that is just being closed. Each is given up
    // with an answer instead, and what comes next goes to another replica.
    let is_last = shared.draining.load(Ordering::Relaxed).then_some([(header::CONNECTION, "close")]);
    ([(header::CONTENT_TYPE, "application/json")], AppendHeaders(is_last.into_iter().flatten()), answer.to_json())
}

/// The body, while there is room for it.
async fn body(shared: &Shared, body: Body) -> Result<(Bytes, tokio::sync::OwnedSemaphorePermit), String> {
    let hint = axum::body::HttpBody::size_hint(&body).exact();
    let kib = u32::try_from(hint.unwrap_or(MAX_BODY as u64).div_ceil(1024)).unwrap_or(u32::MAX);
    if hint.is_some_and(|bytes| bytes > MAX_BODY as u64) {
        return Err(format!("the body is larger than {MAX_BODY} bytes"));
    }
    let room = tokio::time::timeout(READ, Arc::clone(&shared.room).acquire_many_owned(kib.max(1))).await;
    let Ok(Ok(room)) = room else { return Err("too many reviews at once".to_owned()) };
    match tokio::time::timeout(READ, axum::body::to_bytes(body, MAX_BODY)).await {
        Ok(Ok(bytes)) => Ok((bytes, room)),
        Ok(Err(error)) => Err(format!("the body cannot be read: {error}")),
        Err(_) => Err("the body did not come in time".to_owned()),
    }
}

async fn ready(State(shared): State<Shared>) -> impl IntoResponse {
    if shared.draining.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining".to_owned());
    }
    match shared.service.unready() {
        None => (StatusCode::OK, "ok".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

async fn metrics(State(shared): State<Shared>) -> String {
    shared.service.measure();
    shared.metrics.render()
}

/// An update brings the object twice, each up to the API server's 3 MiB, and what surrounds them.
const MAX_BODY: usize = 8 << 20;

/// Bodies together.
const MAX_BODIES_KIB: usize = 64 << 10;

/// Time for a body to come in.
const READ: Duration = Duration::from_secs(10);

/// What a review may take beyond its deadline: deciding, and writing the answer.
const LATE: Duration = Duration::from_millis(300);

/// The API server keeps its connections for 90 s without use, also those that it made for a request that went another way.
const IDLE: Duration = Duration::from_secs(120);

/// Reviews that are still open at the end have this long.
const LAST: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dna::{Limits, RuntimeFacts};
    use metrics_exporter_prometheus::PrometheusBuilder;
    use rustls::pki_types::ServerName;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        sync::oneshot,
    };

    use super::*;
    use crate::{
        cluster::{Cluster, Permissions},
        gather::{self, Analyzer, Gatherer},
        service,
    };

    fn service() -> Arc<Service> {
        let limits = Limits::default();
        let analyzer = Arc::new(Analyzer::new(limits.clone(), None, 1 << 20).expect("an analyzer"));
        let settings = gather::Settings {
            registry: oci::registry::Settings::default(),
            runtime: RuntimeFacts::default(),
            limits,
            memory_bytes: 1 << 20,
            seal: None,
        };
        let cluster = Cluster::new(None, Permissions { secrets: false, config_maps: false });
        let settings_of_service = service::Settings {
            cluster: "test".to_owned(),
            own_namespace: None,
            exempting_groups: BTreeSet::new(),
            inline_bytes: 1 << 20,
        };
        let gatherer = Arc::new(Gatherer::new(settings, analyzer, None));
        Arc::new(Service::new(gatherer, cluster, None, None, settings_of_service))
    }

    /// A server's side of TLS, and a client that trusts it.
    fn tls() -> (Arc<rustls::ServerConfig>, tokio_rustls::TlsConnector) {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(cert.der().clone()).expect("an authority");
        let client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .expect("a configuration");
        (Arc::new(server), tokio_rustls::TlsConnector::from(Arc::new(client)))
    }

    #[tokio::test]
    async fn a_connection_that_is_silent_is_closed() {
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let (config, client) = tls();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut servers = Servers::bind(service(), metrics, (any, config), Some(any), Duration::ZERO).expect("bound");
        servers.idle = Duration::from_millis(300);
        let reviews = servers.address().expect("an address");
        let status = servers.status.as_ref().expect("it is asked for").local_addr().expect("an address");
        let (end, ended) = oneshot::channel::<()>();
        let serving = tokio::spawn(servers.run(async { drop(ended.await) }));
        let closes = async |stream: &mut (dyn tokio::io::AsyncRead + Unpin + Send)| {
            let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut Vec::new())).await;
            read.is_ok()
        };
        for begin in ["", "P", "POST /valid", "GET /healthz HTTP/1.1\r\nhost: x\r\n"] {
            let mut plain = TcpStream::connect(status).await.expect("connects");
            plain.write_all(begin.as_bytes()).await.expect("written");
            assert!(closes(&mut plain).await, "without TLS it is still open after {begin:?}");
            let stream = TcpStream::connect(reviews).await.expect("connects");
            let name = ServerName::try_from("localhost").expect("a name");
            let mut stream = client.connect(name, stream).await.expect("a handshake");
            stream.write_all(begin.as_bytes()).await.expect("written");
            assert!(closes(&mut stream).await, "by TLS it is still open after {begin:?}");
        }
        // Whoever speaks is answered.
        let mut plain = TcpStream::connect(status).await.expect("connects");
        plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("written");
        let mut answer = String::new();
        plain.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        drop(end);
        serving.await.expect("no panic").expect("served");
    }
}
