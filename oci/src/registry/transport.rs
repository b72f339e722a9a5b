//! HTTP with bounds: one request in, one answer or a named error out. Retries what may pass, waits as long as it is told
//! but not longer than it may, never reads a body beyond a limit, never follows from HTTPS to HTTP.

use std::{
    io::Read as _,
    path::Path,
    time::{Duration, SystemTime},
};

use reqwest::{Certificate, Client, ClientBuilder, RequestBuilder, Response, StatusCode, header::HeaderMap, redirect};
use tracing::debug;

use super::Settings;
use crate::{Error, error::clean};

/// A client with the settings' timeouts, certificates and proxies.
///
/// # Errors
/// [`Error::Io`] for a certificate file that cannot be read, [`Error::Tls`] for one that holds none.
pub(super) fn client(settings: &Settings) -> Result<Client, Error> {
    let certificates = settings.ca_file.as_deref().map(certificates).transpose()?.unwrap_or_default();
    match builder(settings).tls_certs_merge(certificates.clone()).build() {
        Ok(client) => Ok(client),
        // A small container without certificates must still reach a registry that needs none.
        Err(_) if settings.plain_http => {
            let built = builder(settings).tls_certs_only(certificates).build();
            built.map_err(|error| named(error, "the HTTP client", settings))
        }
        Err(error) => Err(named(error, "the HTTP client", settings)),
    }
}

fn builder(settings: &Settings) -> ClientBuilder {
    let follow = redirect::Policy::custom(|attempt| {
        let secure_before = attempt.previous().iter().any(|url| url.scheme() == "https");
        if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error("too many redirects")
        } else if secure_before && attempt.url().scheme() != "https" {
            attempt.error("a redirect from HTTPS to HTTP")
        } else {
            attempt.follow()
        }
    });
    let builder = Client::builder()
        .user_agent(concat!("mayfly/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(settings.connect_timeout)
        .read_timeout(settings.read_timeout)
        .redirect(follow);
    if settings.proxy_from_env { builder } else { builder.no_proxy() }
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, Error> {
    let what = path.display().to_string();
    let mut pem = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| Error::read(&*what, error))?;
    file.take(MAX_CA_BYTES).read_to_end(&mut pem).map_err(|error| Error::read(&*what, error))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(Error::malformed(what, "it holds no PEM certificate")),
    }
}

/// Sends what `request` builds until there is an answer that trying again would not change. That answer may still be a
/// refusal: see [`refused`].
pub(super) async fn send(
    request: impl Fn() -> RequestBuilder,
    what: &str,
    settings: &Settings,
) -> Result<Response, Error> {
    let mut attempt = 0;
    loop {
        let (error, wait) = match request().send().await {
            Ok(response) => {
                let status = response.status();
                let wait = retry_after(response.headers());
                let error = match status {
                    StatusCode::TOO_MANY_REQUESTS => Error::Throttled { what: what.to_owned(), retry_after: wait },
                    StatusCode::REQUEST_TIMEOUT
                    | StatusCode::INTERNAL_SERVER_ERROR
                    | StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT => refused(response, what, "").await,
                    _ => return Ok(response),
                };
                (error, wait)
            }
            Err(error) => {
                // A host that cannot be found or does not answer rarely comes up within seconds.
                let last = error.is_connect() && attempt >= CONNECT_RETRIES;
                let error = named(error, what, settings);
                if last {
                    return Err(error);
                }
                (error, None)
            }
        };
        pause(error, wait, attempt, settings).await?;
        attempt = attempt.saturating_add(1);
    }
}

/// Waits before the next attempt, or gives the error back where there is none: it would not help, was tried often enough,
/// or the server asks for more patience than there is.
pub(super) async fn pause(
    error: Error,
    told: Option<Duration>,
    attempt: u32,
    settings: &Settings,
) -> Result<(), Error> {
    let passing = matches!(
        error,
        Error::Throttled { .. } | Error::Status { .. } | Error::Timeout { .. } | Error::Connection { .. }
    );
    if !passing || attempt >= settings.retries || told.is_some_and(|told| told > settings.max_wait) {
        return Err(error);
    }
    let doubled = settings.backoff.saturating_mul(1 << attempt.min(10));
    // Some chance, so that many clients do not come back at once; the clock's last digits are enough of it.
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    let chance = doubled.mul_f64(f64::from(nanos % 1000) / 2000.0);
    let wait = told.unwrap_or_else(|| doubled.saturating_add(chance).min(settings.max_wait));
    debug!(%error, attempt, ?wait, "trying again");
    tokio::time::sleep(wait).await;
    Ok(())
}

/// The error that an answer without success is; `hint` says what to do about a 401 or 403.
pub(super) async fn refused(response: Response, what: &str, hint: &str) -> Error {
    let status = response.status();
    let what = what.to_owned();
    let code = status.as_u16();
    // What the server says helps people, but only if it comes soon and is short.
    let body = bounded(response, MAX_MESSAGE_BYTES, &what, None).await.unwrap_or_default();
    let message = message(&body);
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Denied { what, status: code, hint: hint.to_owned() },
        StatusCode::NOT_FOUND => Error::Missing { what, hint: join("404", &message) },
        StatusCode::TOO_MANY_REQUESTS => Error::Throttled { what, retry_after: None },
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
    if error.is_redirect() {
        return Error::Unsupported { what, reason: root_cause(&error) };
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
