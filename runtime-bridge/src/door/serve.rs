//! The connections: TLS where there is a certificate, the client's name where it shows one, and an end that answers what it has.

use std::{io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use axum::{Extension, Router, middleware::AddExtension};
use axum_server::{
    Handle,
    accept::{Accept, NoDelayAcceptor},
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use certs::Patiently;
use tokio::net::TcpStream;
use tower::Layer as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Common name of a client's certificate, which TLS verified: an extension of its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientName(pub Arc<str>);

impl ClientName {
    /// Of a verified certificate; none where it has no common name, or several.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let mut names = certificate.subject().iter_common_name();
        let name = names.next()?.as_str().ok()?;
        (names.next().is_none() && !name.is_empty()).then(|| Self(name.into()))
    }
}

/// Serves until `shutdown`, and then what is under way, for a while. Without TLS, only where something before it speaks TLS, or in the
/// machine itself: secrets are in the requests.
///
/// # Errors
/// What the listener says.
pub async fn serve(
    listener: std::net::TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    serve_within(HEADER, listener, tls, router, shutdown).await
}

/// [`serve`], where a request's header has so long to come in.
pub(super) async fn serve_within(
    header: Duration,
    listener: std::net::TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let handle: Handle<SocketAddr> = Handle::new();
    let mut server = axum_server::from_tcp(listener)?.handle(handle.clone());
    server.http_builder().http1().timer(hyper_util::rt::TokioTimer::new()).header_read_timeout(header);
    let service = router.into_make_service();
    let served = match tls {
        None => tokio::spawn(server.acceptor(Patiently::new(NoDelayAcceptor::new(), header)).serve(service)),
        Some(config) => {
            let tls = RustlsAcceptor::new(RustlsConfig::from_config(config)).handshake_timeout(HANDSHAKE);
            let named = Named(tls.acceptor(NoDelayAcceptor::new()));
            tokio::spawn(server.acceptor(Patiently::new(named, header)).serve(service))
        }
    };
    shutdown.await;
    handle.graceful_shutdown(Some(LAST));
    served.await.map_err(io::Error::other)?
}

/// Shakes hands, and puts the client's name with its requests.
#[derive(Clone)]
struct Named(RustlsAcceptor<NoDelayAcceptor>);

impl<S: Send + 'static> Accept<TcpStream, S> for Named {
    type Stream = <RustlsAcceptor<NoDelayAcceptor> as Accept<TcpStream, S>>::Stream;
    type Service = AddExtension<S, Option<ClientName>>;
    type Future = Accepting<Self::Stream, Self::Service>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let accepting = self.0.accept(stream, service);
        Box::pin(async move {
            let (stream, service) = accepting.await?;
            let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let name = leaf.and_then(|leaf| ClientName::of(leaf));
            Ok((stream, Extension(name).layer(service)))
        })
    }
}

type Accepting<I, S> = Pin<Box<dyn Future<Output = io::Result<(I, S)>> + Send>>;

const HANDSHAKE: Duration = Duration::from_secs(10);

/// Time for a header to come in, and for a connection to stay without a request: a sensor that sends rarely and keeps its connection
/// must not often send while it is being closed, since it does not send again.
const HEADER: Duration = Duration::from_secs(60);

/// Requests that are under way at the end have this long.
const LAST: Duration = Duration::from_secs(20);
