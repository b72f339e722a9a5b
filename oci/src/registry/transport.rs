//! HTTP with bounds: one request in, one answer or a named error out. Retries what may pass, waits as long as it is told
//! but not longer than it may, never reads a body beyond a limit, never follows from HTTPS to HTTP, and shows credentials to
//! nobody but whom they are for.

use std::{
    future::Future,
    io::Read as _,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use dna::Digest;
use reqwest::{
    Certificate, Client, ClientBuilder, Identity, Method, Proxy, Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderMap, LOCATION},
    redirect,
};
use tracing::debug;

use super::{
    Settings,
    requests::{Outcome, RequestKind},
};
use crate::{Error, error::clean};

/// A request, as often as it must be sent.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) kind: RequestKind,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Vec<u8>>,
    /// Whether sending it twice does no harm.
    pub(super) repeatable: bool,
}

impl Call {
    pub(super) fn get(kind: RequestKind, url: Url) -> Self {
        Self { kind, method: Method::GET, url, headers: HeaderMap::new(), body: None, repeatable: true }
    }
}

/// How often and how long may be tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience<'a> {
    pub(super) settings: &'a Settings,
    /// When the answer comes too late; none: whoever asks has a limit of their own.
    pub(super) deadline: Option<Instant>,
}

impl Patience<'_> {
    pub(super) fn is_over(self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// What comes of `work`, if it comes in time.
    pub(super) async fn wait<T, E: From<Error>>(
        self,
        what: &str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let Some(deadline) = self.deadline else { return work.await };
        let seconds = deadline.saturating_duration_since(Instant::now()).as_secs();
        match tokio::time::timeout_at(deadline.into(), work).await {
            Ok(done) => done,
            Err(_) => Err(Error::Timeout { what: what.to_owned(), seconds }.into()),
        }
    }

    /// Waits before the next attempt, or gives the error back where there is none: it would not help, was tried often
    /// enough, or the server asks for more patience than there is.
    pub(super) async fn pause(self, error: Error, told: Option<Duration>, attempt: u32) -> Result<(), Error> {
        let settings = self.settings;
        let passing = matches!(
            error,
            Error::Throttled { .. } | Error::Status { .. } | Error::Timeout { .. } | Error::Connection { .. }
        );
        let doubled = settings.backoff.saturating_mul(1 << attempt.min(10));
        // Some chance, so that many clients do not come back at once; the clock's last digits are enough of it.
        let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
        let chance = doubled.mul_f64(f64::from(nanos % 1000) / 2000.0);
        let wait = told.unwrap_or_else(|| doubled.saturating_add(chance).min(settings.max_wait));
        let late = self.deadline.is_some_and(|deadline| wait >= deadline.saturating_duration_since(Instant::now()));
        if !passing || attempt >= settings.retries || wait > settings.max_wait || late {
            return Err(error);
        }
        debug!(%error, attempt, ?wait, "trying again");
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// Clients for one registry. Elsewhere, where it sends a request on to, no client certificate is shown.
#[derive(Debug, Clone)]
pub(super) struct Clients {
    own: Client,
    elsewhere: Client,
}

/// What files of the settings hold.
#[derive(Default)]
pub(super) struct Files {
    ca: Vec<u8>,
    /// Certificates and a key.
    client: Option<Vec<u8>>,
}

impl Files {
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read.
    pub(super) fn read(settings: &Settings) -> Result<Self, Error> {
        let mut ca = settings.ca_file.as_deref().map(pem).transpose()?.unwrap_or_default();
        ca.extend(settings.ca_pem.iter().flat_map(|text| [b"\n", text.as_bytes()].concat()));
        let client = settings.client.as_ref().map(|(certificate, key)| {
            let newline = b"\n".to_vec();
            Ok::<_, Error>([pem(certificate)?, newline, pem(key)?].concat())
        });
        Ok(Self { ca, client: client.transpose()? })
    }
}

/// By digest: a key is in it.
impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let client = self.client.as_deref().map(Digest::sha256);
        f.debug_struct("Files").field("ca", &Digest::sha256(&self.ca)).field("client", &client).finish()
    }
}

impl From<Client> for Clients {
    fn from(client: Client) -> Self {
        Self { own: client.clone(), elsewhere: client }
    }
}

impl Clients {
    /// Clients with the settings' timeouts, certificates and proxies.
    ///
    /// # Errors
    /// [`Error::Malformed`] for files that hold no certificates or key and for a proxy that is no address, [`Error::Tls`] where
    /// these cannot be used.
    pub(super) fn new(settings: &Settings, files: &Files) -> Result<Self, Error> {
        let elsewhere = client(settings, files, false)?;
        let own = if files.client.is_some() { client(settings, files, true)? } else { elsewhere.clone() };
        Ok(Self { own, elsewhere })
    }
}

fn client(settings: &Settings, files: &Files, shown: bool) -> Result<Client, Error> {
    let certificates = match (&settings.ca_file, &settings.ca_pem) {
        (None, None) => Vec::new(),
        (path, _) => certificates(&files.ca, path.as_deref().unwrap_or(Path::new("the registry's authorities")))?,
    };
    let builder = || {
        let builder = builder(settings)?;
        Ok::<_, Error>(match &files.client {
            Some(pem) if shown => {
                let failed =
                    |_| Error::malformed("the client certificate", "its files hold no PEM certificate and key");
                builder.identity(Identity::from_pem(pem).map_err(failed)?)
            }
            _ => builder,
        })
    };
    match builder()?.tls_certs_merge(certificates.clone()).build() {
        Ok(client) => Ok(client),
        // A small container without certificates must still reach a registry that needs none.
        Err(_) if settings.plain_http => {
            let built = builder()?.tls_certs_only(certificates).build();
            built.map_err(|error| named(error, "the HTTP client", settings))
        }
        Err(error) => Err(named(error, "the HTTP client", settings)),
    }
}

fn builder(settings: &Settings) -> Result<ClientBuilder, Error> {
    let builder = Client::builder()
        .user_agent(concat!("mayfly/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(settings.connect_timeout)
        .read_timeout(settings.read_timeout)
        // See `exchange`.
        .redirect(redirect::Policy::none());
    match settings.proxy.as_deref() {
        // Its address may hold a password.
        Some(address) if !address.is_empty() => {
            let proxy = Proxy::all(address).map_err(|_| Error::malformed("the proxy", "it is no address"))?;
            Ok(builder.proxy(proxy))
        }
        None if settings.proxy_from_env => Ok(builder),
        _ => Ok(builder.no_proxy()),
    }
}

fn pem(path: &Path) -> Result<Vec<u8>, Error> {
    let what = path.display().to_string();
    let mut pem = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| Error::read(&*what, error))?;
    file.take(MAX_CA_BYTES).read_to_end(&mut pem).map_err(|error| Error::read(&*what, error))?;
    Ok(pem)
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<Certificate>, Error> {
    match Certificate::from_pem_bundle(pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(Error::malformed(path.display().to_string(), "it holds no PEM certificate")),
    }
}

/// Sends the request until there is an answer that trying again would not change. That answer may still be a refusal: see
/// [`refused`].
pub(super) async fn send(
    clients: &Clients,
    call: &Call,
    what: &str,
    patience: Patience<'_>,
) -> Result<Response, Error> {
    let settings = patience.settings;
    let mut attempt = 0;
    loop {
        let asking = async {
            let _turn = match &settings.pace {
                Some(pace) => pace.turn().await,
                None => None,
            };
            exchange(clients, call, what, settings).await
        };
        let answer = patience.wait(what, asking).await;
        let outcome = answer.as_ref().map_or(Outcome::Failed, |response| Outcome::of(response.status().as_u16()));
        settings.requests.count(call.kind, outcome);
        let (error, wait) = match answer {
            Ok(response) => {
                let wait = retry_after(response.headers());
                let error = match response.status() {
                    StatusCode::TOO_MANY_REQUESTS => Error::Throttled { what: what.to_owned(), retry_after: wait },
                    StatusCode::REQUEST_TIMEOUT
                    | StatusCode::INTERNAL_SERVER_ERROR
                    | StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT => {
                        patience.wait(what, async { Ok::<_, Error>(refused(response, call, what, "").await) }).await?
                    }
                    _ => return Ok(response),
                };
                (error, wait)
            }
            // A host that cannot be found or does not answer rarely comes up within seconds.
            Err(Unanswered { error, connecting: true }) if attempt >= CONNECT_RETRIES => return Err(error),
            Err(Unanswered { error, .. }) => (error, None),
        };
        if !call.repeatable {
            return Err(error);
        }
        patience.pause(error, wait, attempt).await?;
        attempt = attempt.saturating_add(1);
    }
}

/// Why a request got no answer.
struct Unanswered {
    error: Error,
    /// There was no connection yet.
    connecting: bool,
}

impl From<Error> for Unanswered {
    fn from(error: Error) -> Self {
        Self { error, connecting: false }
    }
}

/// One request, to wherever it is sent on.
async fn exchange(clients: &Clients, call: &Call, what: &str, settings: &Settings) -> Result<Response, Unanswered> {
    let mut url = call.url.clone();
    let mut headers = call.headers.clone();
    for _ in 0..=MAX_REDIRECTS {
        let client = if url.origin() == call.url.origin() { &clients.own } else { &clients.elsewhere };
        let mut builder = client.request(call.method.clone(), url.clone()).headers(headers.clone());
        if let Some(body) = &call.body {
            builder = builder.body(body.clone());
        }
        let response = builder.send().await.map_err(|error| {
            let connecting = error.is_connect();
            Unanswered { error: named(error, what, settings), connecting }
        })?;
        let Some(next) = onward(&response, call, what)? else { return Ok(response) };
        if next.origin() != url.origin() {
            headers.remove(AUTHORIZATION);
        }
        url = next;
    }
    Err(Error::Unsupported { what: what.to_owned(), reason: "too many redirects".to_owned() }.into())
}

/// Where an answer sends the request on to, if anywhere.
fn onward(response: &Response, call: &Call, what: &str) -> Result<Option<Url>, Error> {
    let follows = match response.status().as_u16() {
        307 | 308 => true,
        // The method would change.
        301..=303 => matches!(call.method, Method::GET | Method::HEAD),
        _ => false,
    };
    let Some(location) = response.headers().get(LOCATION).filter(|_| follows) else { return Ok(None) };
    let url = location.to_str().ok().and_then(|location| response.url().join(location).ok());
    let url = url.ok_or_else(|| Error::malformed(what, "it redirects to what is no address"))?;
    // "Look elsewhere" is how a registry whose web pages lie under the same paths says that it has no such API.
    let elsewhere = response.status() == StatusCode::SEE_OTHER && url.origin() != call.url.origin();
    if call.kind == RequestKind::Referrers && elsewhere {
        return Ok(None);
    }
    downgrade(response.url(), &url, "a redirect", what)?;
    Ok(Some(url))
}

/// Refuses to go from HTTPS to HTTP, or to what is neither.
pub(super) fn downgrade(from: &Url, to: &Url, by: &str, what: &str) -> Result<(), Error> {
    let reason = match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => return Ok(()),
        (_, "http") => format!("{by} leads from HTTPS to HTTP, where anyone on the way could read and change it"),
        _ => format!("{by} leads to what is neither HTTPS nor HTTP"),
    };
    Err(Error::Unsupported { what: what.to_owned(), reason })
}

/// The error that an answer without success is; `hint` says what to do about a 401 or 403. Only the server that was asked
/// can say that something is missing: where it sent the request on to, that server has none of its own to tell.
pub(super) async fn refused(response: Response, call: &Call, what: &str, hint: &str) -> Error {
    let status = response.status();
    let asked = response.url().origin() == call.url.origin();
    let retry_after = retry_after(response.headers());
    let what = what.to_owned();
    let code = status.as_u16();
    // What the server says helps people, but only if it comes soon and is short.
    let body = bounded(response, MAX_MESSAGE_BYTES, &what, None).await.unwrap_or_default();
    let message = message(&body);
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Denied { what, status: code, hint: hint.to_owned() },
        StatusCode::NOT_FOUND if asked => Error::Missing { what, hint: join("404", &message) },
        StatusCode::TOO_MANY_REQUESTS => Error::Throttled { what, retry_after },
        _ => Error::Status { what, status: code, message },
    }
}

/// A body of at most `limit` bytes. A larger one is refused before it is read; `name` is its limit's name, and without one
/// it is only cut off.
pub(super) async fn bounded(
    mut response: Response,
    limit: u64,
    what: &str,
    name: Option<&'static str>,
) -> Result<Vec<u8>, Error> {
    let exceeds = |bytes: u64| (bytes > limit).then_some(name).flatten();
    let error = |name| Error::Limit { what: format!("the size of {what}"), name, limit };
    if let Some(name) = exceeds(response.content_length().unwrap_or(0)) {
        return Err(error(name));
    }
    let mut body = Vec::new();
    loop {
        let chunk = response.chunk().await.map_err(|error| interrupted(error, what))?;
        let Some(chunk) = chunk else { return Ok(body) };
        body.extend_from_slice(&chunk);
        let bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
        if let Some(name) = exceeds(bytes) {
            return Err(error(name));
        }
        if bytes > limit {
            return Ok(body);
        }
    }
}

/// A transfer that ended too soon.
pub(super) fn interrupted(error: reqwest::Error, what: &str) -> Error {
    Error::Connection { what: what.to_owned(), reason: root_cause(&error.without_url()) }
}

/// The named error of a request that got no answer. URLs are left out: redirected ones are signed.
fn named(error: reqwest::Error, what: &str, settings: &Settings) -> Error {
    let error = error.without_url();
    let what = what.to_owned();
    if let Some(tls) = tls_cause(&error, MAX_CAUSES) {
        return Error::Tls { what, reason: clean(&tls.to_string()) };
    }
    if error.is_timeout() {
        let limit = if error.is_connect() { settings.connect_timeout } else { settings.read_timeout };
        return Error::Timeout { what, seconds: limit.as_secs() };
    }
    let reason = root_cause(&error);
    // A server that hangs up on the first bytes of TLS leaves no TLS error, only this text of tokio-rustls.
    if error.is_connect() && reason == "tls handshake eof" {
        return Error::Tls { what, reason };
    }
    Error::Connection { what, reason }
}

/// The TLS error among the causes. An [`std::io::Error`] does not name what it wraps as its source.
fn tls_cause<'a>(error: &'a (dyn std::error::Error + 'static), depth: u8) -> Option<&'a rustls::Error> {
    let depth = depth.checked_sub(1)?;
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error
        .downcast_ref::<rustls::Error>()
        .or_else(|| tls_cause(wrapped?, depth))
        .or_else(|| tls_cause(error.source()?, depth))
}

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    clean(&cause.to_string())
}

/// `Retry-After`, in seconds or as a date. Source: RFC 9110, section 10.2.3.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(reqwest::header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// What an error body says. Source: OCI distribution specification, "Error Codes".
fn message(body: &[u8]) -> String {
    match serde_json::from_slice::<oci_client::errors::OciEnvelope>(body) {
        Ok(envelope) => {
            clean(&envelope.errors.iter().map(|error| error.message.as_str()).collect::<Vec<_>>().join(", "))
        }
        // Load balancers and proxies answer in plain text, or with a page, which nobody wants to read here.
        Err(_) => {
            let text = std::str::from_utf8(body).unwrap_or_default().trim();
            clean(text.lines().next().filter(|line| !line.starts_with(['<', '{'])).unwrap_or_default())
        }
    }
}

fn join(status: &str, message: &str) -> String {
    if message.is_empty() { status.to_owned() } else { format!("{status}: {message}") }
}

const MAX_CAUSES: u8 = 12;
const CONNECT_RETRIES: u32 = 1;
const MAX_REDIRECTS: usize = 5;
const MAX_CA_BYTES: u64 = 4 << 20;
const MAX_MESSAGE_BYTES: u64 = 64 << 10;
