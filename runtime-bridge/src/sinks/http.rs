//! One notice, one request, one answer. Redirects are not followed: whoever answers for an address would choose where alerts go.

use std::{path::Path, time::Duration};

use aws_lc_rs::hmac;
use jiff::{SignedDuration, Timestamp};
use lineage::AlertHead;
use reqwest::{
    Certificate, Client, RequestBuilder, Response, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER},
    redirect,
};

use super::{
    Notice, Pace, body,
    config::{self, Kind, Sink},
    deliver::Failure,
    report, text,
};
use crate::{alert::Place, settings::SettingsError};

/// A receiver.
pub(super) struct Http {
    sink: Sink,
    client: Client,
    host: String,
}

impl Http {
    pub(super) fn open(sink: &Sink, pace: &Pace, host: &str) -> Result<Self, SettingsError> {
        let error = |reason| sink.wrong(reason);
        let builder = || {
            Client::builder()
                .user_agent(concat!("mayfly/", env!("CARGO_PKG_VERSION")))
                .timeout(pace.timeout)
                .redirect(redirect::Policy::none())
        };
        let built = match &sink.ca_file {
            Some(path) => {
                let pem = config::read(path).map_err(error)?;
                let certificates = Certificate::from_pem_bundle(&pem)
                    .map_err(|_| error(format!("`ca_file` {}: no PEM certificate in it", path.display())))?;
                builder().tls_certs_only(certificates).build()
            }
            // A small container without certificates must still reach what needs none.
            None => builder().build().or_else(|_| builder().tls_certs_only([]).build()),
        };
        let client = built.map_err(|cause| error(format!("no HTTP client: {}", root_cause(&cause))))?;
        Ok(Self { sink: sink.clone(), client, host: host.to_owned() })
    }

    pub(super) async fn send(&self, notice: &Notice) -> Result<(), Failure> {
        // What is in files is wrong until somebody mends it: all that is to be told waits for that.
        let unreadable = Failure::all;
        let sink = &self.sink;
        let mut url = self.url()?;
        let secret = match &sink.secret_file {
            Some(path) => Some(secret(path).map_err(unreadable)?),
            None => None,
        };
        if let Some(path) = path(sink.kind, notice)? {
            url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
        }
        let body = match sink.kind {
            Kind::Alertmanager => body::alertmanager(notice, sink.repeat()),
            Kind::Slack => body::slack(notice),
            Kind::Teams => body::teams(notice),
            Kind::Pagerduty => body::pagerduty(notice, secret.as_deref().unwrap_or_default()),
            Kind::Otlp => body::otlp(notice),
            Kind::KubernetesEvent => body::event(notice, &self.host),
            Kind::Webhook | Kind::Syslog | Kind::File | Kind::PolicyReport => body::generic(notice),
        };
        let key = HeaderValue::try_from(&notice.id).map_err(|_| Failure::never("its key is no header".to_owned()))?;
        let request = self.client.post(url).header(CONTENT_TYPE, "application/json").header("Idempotency-Key", key);
        let mut request = self.with_headers(request)?;
        match (sink.kind, &secret) {
            (Kind::Webhook, Some(secret)) => {
                let signed = signature(secret.as_bytes(), Timestamp::now(), body.as_bytes());
                request = request.header("X-Mayfly-Signature", signed);
            }
            (Kind::KubernetesEvent, Some(token)) => request = bearer(request, token)?,
            _ => {}
        }
        match request.body(body).send().await {
            // Its own words hold the address, which may be a secret.
            Err(error) => Err(Failure::all(root_cause(&error.without_url()))),
            Ok(response) => self.answered(response).await,
        }
    }

    /// Writes the PolicyReport of a workload, or removes it where no alert is left.
    pub(super) async fn report(&self, place: &Place, alerts: &[AlertHead]) -> Result<(), Failure> {
        let paths = report::paths(place).map_err(Failure::never)?;
        let base = self.url()?;
        let token = match &self.sink.secret_file {
            Some(path) => secret(path).map_err(Failure::all)?,
            None => String::new(),
        };
        let at = |path: &str| {
            let mut url = base.clone();
            url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
            url
        };
        let send = async |request: RequestBuilder| {
            let request = bearer(self.with_headers(request)?, &token)?;
            request.send().await.map_err(|error| Failure::all(root_cause(&error.without_url())))
        };
        let mut uid = None;
        if let (Some(path), false) = (&paths.workload, alerts.is_empty()) {
            let answer = send(self.client.get(at(path))).await?;
            match answer.status() {
                // It is gone, and its report with it.
                StatusCode::NOT_FOUND => return Ok(()),
                status if status.is_success() => uid = uid_of(answer).await,
                // Without the right to read workloads a report is nobody's, and stays.
                StatusCode::FORBIDDEN => {}
                _ => return self.answered(answer).await,
            }
        }
        let mut url = at(&paths.report);
        let Some(body) = report::report(place, uid.as_deref(), alerts) else {
            let answer = send(self.client.delete(url)).await?;
            return if answer.status() == StatusCode::NOT_FOUND { Ok(()) } else { self.answered(answer).await };
        };
        url.set_query(Some("fieldManager=mayfly-bridge&force=true"));
        let request = self.client.patch(url).header(CONTENT_TYPE, "application/apply-patch+yaml").body(body);
        self.answered(send(request).await?).await
    }

    fn url(&self) -> Result<Url, Failure> {
        let url = match (&self.sink.url, &self.sink.url_file) {
            (_, Some(path)) => secret(path).map_err(Failure::all)?,
            (url, None) => url.clone().unwrap_or_default(),
        };
        config::parse_url(&url).map_err(Failure::all)
    }

    fn with_headers(&self, mut request: RequestBuilder) -> Result<RequestBuilder, Failure> {
        for (name, path) in &self.sink.header_files {
            let name = HeaderName::try_from(name.as_str()).map_err(|error| Failure::all(error.to_string()))?;
            let value = HeaderValue::try_from(secret(path).map_err(Failure::all)?)
                .map_err(|_| Failure::all(format!("{}: no value of a header", path.display())))?;
            request = request.header(name, sensitive(value));
        }
        Ok(request)
    }

    async fn answered(&self, response: Response) -> Result<(), Failure> {
        let status = response.status();
        // An Event of this name is there: it was told before.
        if self.sink.kind == Kind::KubernetesEvent && status == StatusCode::CONFLICT {
            return Ok(());
        }
        let after = retry_after(&response, Timestamp::now());
        let words = beginning(response).await;
        if status.is_success() {
            return match self.sink.kind {
                Kind::Otlp => all_taken(&words),
                _ => Ok(()),
            };
        }
        let words = dna::redact(&words).into_owned();
        let why = format!("answered {status}: {}", text::plain(words.trim(), 200));
        Err(match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Failure::all(why).after(after),
            _ if status == StatusCode::REQUEST_TIMEOUT || status.is_server_error() => Failure::one(why).after(after),
            _ => Failure::never(why),
        })
    }
}

/// `t=SECONDS,v1=HEX`: HMAC-SHA256 of `SECONDS.BODY`. The time is signed, so that a receiver can refuse what somebody recorded.
#[must_use]
pub fn signature(secret: &[u8], at: Timestamp, body: &[u8]) -> String {
    let seconds = at.as_second();
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    context.update(format!("{seconds}.").as_bytes());
    context.update(body);
    let hex: String = context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={seconds},v1={hex}")
}

fn bearer(request: RequestBuilder, token: &str) -> Result<RequestBuilder, Failure> {
    let value = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| Failure::all("`secret_file` holds no token".to_owned()))?;
    Ok(request.header(AUTHORIZATION, sensitive(value)))
}

/// The uid of an object that the API server gave.
async fn uid_of(mut response: Response) -> Option<String> {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_OBJECT {
            return None;
        }
    }
    let object: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    Some(object.pointer("/metadata/uid")?.as_str()?.to_owned())
}

/// What a receiver's address leaves out.
fn path(kind: Kind, notice: &Notice) -> Result<Option<String>, Failure> {
    Ok(match kind {
        Kind::Alertmanager => Some("/api/v2/alerts".to_owned()),
        Kind::Otlp => Some("/v1/logs".to_owned()),
        Kind::KubernetesEvent => {
            // A sensor may have named it: nothing else may become part of a path that our token opens.
            let namespace = &notice.alert.place.namespace;
            let is_label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if namespace.is_empty() || !namespace.bytes().all(is_label) {
                return Err(Failure::never("its namespace is no name of Kubernetes".to_owned()));
            }
            Some(format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events"))
        }
        _ => None,
    })
}

/// A collector may answer that all is well and that it took nothing. Source: OTLP specification, "Partial Success".
fn all_taken(answer: &str) -> Result<(), Failure> {
    let partial = serde_json::from_str::<serde_json::Value>(answer).unwrap_or_default();
    let partial = partial.get("partialSuccess").cloned().unwrap_or_default();
    let rejected = match partial.get("rejectedLogRecords") {
        Some(serde_json::Value::String(number)) => number != "0",
        Some(serde_json::Value::Number(number)) => number.as_u64() != Some(0),
        _ => false,
    };
    let words = partial.get("errorMessage").and_then(serde_json::Value::as_str).unwrap_or_default();
    if rejected { Err(Failure::never(format!("not taken: {}", text::plain(words, 200)))) } else { Ok(()) }
}

/// `Retry-After`, in seconds or as a date. Source: RFC 9110, section 10.2.3.
fn retry_after(response: &Response, now: Timestamp) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u32>() {
        Ok(seconds) => SignedDuration::from_secs(i64::from(seconds)),
        Err(_) => jiff::fmt::rfc2822::parse(text).ok()?.timestamp().duration_since(now),
    };
    Duration::try_from(wait).ok()
}

/// How an answer begins. The rest is not waited for.
async fn beginning(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_ANSWER {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            _ => break,
        }
    }
    bytes.truncate(MAX_ANSWER);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn secret(path: &Path) -> Result<String, String> {
    config::secret(path)
}

fn sensitive(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

fn root_cause(error: &reqwest::Error) -> String {
    let what = if error.is_timeout() { "no answer in time" } else { "not reached" };
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    format!("{what}: {}", text::plain(&cause.to_string(), 200))
}

const MAX_ANSWER: usize = 4096;
/// Of a workload; the API server's store takes objects of 1.5 MiB.
const MAX_OBJECT: usize = 4 << 20;
