//! Who a machine or pod is to its cloud: a registry's host in, credentials for it out, as the kubelet's credential providers
//! get them. Nothing is asked unless a caller names [`Cloud`] among its credentials and the host is that cloud's.

mod acr;
mod ecr;
mod gar;
mod sigv4;

use std::{
    collections::BTreeMap,
    fmt,
    io::Read as _,
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::{
    Method, Response, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use tokio::sync::Mutex;

use super::{
    RequestKind, Settings,
    credentials::Credential,
    token::{FORM, form},
    transport::{self, Call, Clients, Patience, bounded, refused},
};
use crate::Error;

/// The identity that a cloud gives a machine or pod, and what was got with it: clones share that. Amazon ECR
/// (`*.dkr.ecr.*.amazonaws.com`), Google Artifact and Container Registry (`*.pkg.dev`, `gcr.io`) and Azure Container Registry
/// (`*.azurecr.io`).
///
/// Everything is found as the clouds' own libraries find it, by the same variables: static keys, web identity, container
/// credentials (`AWS_…`) or the metadata service for Amazon; the metadata server (`GCE_METADATA_HOST`) for Google; a
/// federated token (`AZURE_…`) or the metadata service for Azure. These also name other endpoints, such as
/// `AWS_ENDPOINT_URL_ECR`.
#[derive(Clone)]
pub struct Cloud(Arc<Shared>);

struct Shared {
    variables: BTreeMap<String, String>,
    /// By host, each with a lock of its own, so that one cloud's silence holds up nobody else.
    held: Mutex<BTreeMap<String, Arc<Mutex<Option<Held>>>>>,
}

/// What came of asking, and until when that holds.
struct Held {
    credential: Result<Credential, String>,
    until: Instant,
}

/// Credentials, and how long they live.
struct Fetched {
    credential: Credential,
    life: Duration,
}

/// A registry of a cloud.
enum Registry<'a> {
    Ecr(ecr::Host),
    Gar,
    Acr(&'a str),
}

impl Cloud {
    /// The identity of this process.
    pub fn from_env() -> Self {
        let named = |name: &str| ["AWS_", "AZURE_", "GCE_"].iter().any(|prefix| name.starts_with(prefix));
        let variables =
            std::env::vars_os().filter_map(|(name, value)| name.into_string().ok().zip(value.into_string().ok()));
        Self::new(variables.filter(|(name, _)| named(name)))
    }

    /// The identity that these variables lead to, instead of those of the process.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let variables = variables.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        Self(Arc::new(Shared { variables, held: Mutex::default() }))
    }

    /// Whether the host is one of a cloud's registries.
    pub(super) fn serves(&self, host: &str) -> bool {
        Registry::of(host).is_some()
    }

    /// Credentials for `host`, fetched anew before they end. None: the host is no cloud's.
    ///
    /// # Errors
    /// [`Error::Credentials`] where the cloud gives none; that is remembered for a while too.
    pub(super) async fn credential(&self, host: &str, patience: Patience<'_>) -> Result<Option<Credential>, Error> {
        let Some(registry) = Registry::of(host) else { return Ok(None) };
        let place = Arc::clone(self.0.held.lock().await.entry(host.to_owned()).or_default());
        let mut held = place.lock().await;
        let failed = |reason: &str| Error::Credentials { registry: host.to_owned(), reason: reason.to_owned() };
        if let Some(held) = held.as_ref().filter(|held| Instant::now() < held.until) {
            return held.credential.clone().map(Some).map_err(|reason| failed(&reason));
        }
        let asking = Asking { variables: &self.0.variables, patience, direct: direct(patience.settings)? };
        let fetched = match &registry {
            Registry::Ecr(host) => ecr::fetch(&asking, host).await,
            Registry::Gar => gar::fetch(&asking).await,
            Registry::Acr(host) => acr::fetch(&asking, host).await,
        };
        let (credential, life) = match fetched {
            Ok(Fetched { credential, life }) => {
                (Ok(credential), life.saturating_sub(MARGIN.min(life / 2)).min(MAX_LIFE))
            }
            // A caller who had no time learned nothing of the cloud.
            Err(error @ Error::Timeout { .. }) if patience.is_over() => return Err(error),
            Err(error) => (Err(error.to_string()), FAILURE_LIFE),
        };
        let until = Instant::now().checked_add(life).unwrap_or_else(Instant::now);
        *held = Some(Held { credential: credential.clone(), until });
        credential.map(Some).map_err(|reason| failed(&reason))
    }

    /// Forgets credentials that the registry refused.
    pub(super) async fn forget(&self, host: &str) {
        self.0.held.lock().await.remove(host);
    }
}

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cloud(..)")
    }
}

impl PartialEq for Cloud {
    fn eq(&self, other: &Self) -> bool {
        self.0.variables == other.0.variables
    }
}

impl Eq for Cloud {}

impl<'a> Registry<'a> {
    fn of(host: &'a str) -> Option<Self> {
        if let Some(host) = ecr::Host::of(host) {
            Some(Self::Ecr(host))
        } else if gar::serves(host) {
            Some(Self::Gar)
        } else {
            acr::serves(host).then_some(Self::Acr(host))
        }
    }
}

/// What it takes to ask a cloud.
struct Asking<'a> {
    variables: &'a BTreeMap<String, String>,
    patience: Patience<'a>,
    /// For what is on this machine or beside it, and for everything that needs no proxy.
    direct: Clients,
}

impl Asking<'_> {
    fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The address that a variable names, or the usual one.
    fn endpoint(&self, name: &str, usual: &str) -> Result<Url, Error> {
        let text = self.variable(name).unwrap_or(usual);
        Url::parse(text).map_err(|_| Error::malformed(name, "it is no address"))
    }

    /// A short file that a variable names.
    fn file(&self, name: &str) -> Result<Option<String>, Error> {
        let Some(path) = self.variable(name) else { return Ok(None) };
        let failed = |error| Error::read(path, error);
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
        Ok(Some(text.trim().to_owned()))
    }

    /// A service of the cloud, over whatever proxy there is.
    async fn service(&self, call: &Call, what: &str) -> Result<(HeaderMap, Vec<u8>), Error> {
        let settings = self.patience.settings;
        self.send(&settings.connections.clients(settings)?, call, what).await
    }

    /// A metadata service: on this machine, and silent where there is none.
    async fn metadata(&self, call: &Call, what: &str) -> Result<(HeaderMap, Vec<u8>), Error> {
        self.send(&self.direct, call, what).await
    }

    async fn send(&self, clients: &Clients, call: &Call, what: &str) -> Result<(HeaderMap, Vec<u8>), Error> {
        let response: Response = transport::send(clients, call, what, self.patience).await?;
        let work = async {
            if !response.status().is_success() {
                // What such a service says may quote what it was sent.
                return Err(match refused(response, call, what, "the cloud refused").await {
                    Error::Status { what, status, .. } => Error::Status { what, status, message: String::new() },
                    Error::Missing { what, .. } => Error::Status { what, status: 404, message: String::new() },
                    error => error,
                });
            }
            let headers = response.headers().clone();
            Ok((headers, bounded(response, MAX_BYTES, what, Some("manifest_bytes")).await?))
        };
        self.patience.wait(what, work).await
    }
}

/// A client for metadata services: no proxy, no long wait.
fn direct(settings: &Settings) -> Result<Clients, Error> {
    let settings = Settings {
        proxy_from_env: false,
        proxy: None,
        connect_timeout: settings.connect_timeout.min(METADATA_TIMEOUT),
        read_timeout: settings.read_timeout.min(METADATA_TIMEOUT),
        ..settings.clone()
    };
    settings.connections.clients(&settings)
}

fn header(call: &mut Call, name: &'static str, value: &str) {
    if let Ok(mut value) = HeaderValue::from_str(value) {
        value.set_sensitive(true);
        call.headers.insert(HeaderName::from_static(name), value);
    }
}

fn get(url: Url) -> Call {
    Call::get(RequestKind::Token, url)
}

fn post(url: Url, pairs: &[(&str, &str)]) -> Call {
    let mut call = get(url);
    call.method = Method::POST;
    call.headers.insert(CONTENT_TYPE, HeaderValue::from_static(FORM));
    call.body = Some(form(pairs).into_bytes());
    call
}

/// A service's JSON. Neither it nor what is wrong with it is shown.
fn json<T: serde::de::DeserializeOwned>(body: &[u8], what: &str) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|_| Error::malformed(what, "its answer is not what was asked for"))
}

const METADATA_TIMEOUT: Duration = Duration::from_secs(2);
/// Credentials are replaced so long before their end, but not before half of their life.
const MARGIN: Duration = Duration::from_secs(300);
const MAX_LIFE: Duration = Duration::from_secs(12 * 3600);
/// So long a cloud that gave nothing is not asked again.
const FAILURE_LIFE: Duration = Duration::from_secs(30);
const MAX_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests;
