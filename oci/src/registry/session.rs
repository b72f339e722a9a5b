//! One repository of one registry: requests in, answers out, with the authorization its registry asks for. Several
//! credentials are tried in turn, as a kubelet does.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use reqwest::{
    Method, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE},
};
use tokio::sync::Mutex;

use super::{
    Cloud, Credentials, RequestKind, Settings,
    credentials::{self, Credential},
    keyring,
    token::{self, Action, Challenge, Token},
    transport::{self, Call, Clients, Patience, bounded, refused},
};
use crate::{Error, Reference};

/// A repository, and how it is asked.
pub(super) struct Session {
    clients: Clients,
    /// How many answers were of use.
    served: AtomicU64,
    pub(super) settings: Settings,
    pub(super) reference: Reference,
    /// In the order to be tried. Never empty.
    credentials: Vec<Holder>,
    state: Mutex<State>,
}

/// What is shown to the registry, or who knows it.
enum Holder {
    Known(Credential),
    Cloud(Cloud),
    /// Nothing.
    Anonymous,
}

/// What was learned of the registry.
#[derive(Default)]
struct State {
    /// The credential that was of use last.
    preferred: usize,
    /// Whether it was of use at all.
    proven: bool,
    challenge: Option<Challenge>,
    /// By credential.
    tokens: BTreeMap<(usize, Action), Token>,
}

/// What is asked of a repository.
#[derive(Debug, Clone, Default)]
pub(super) struct Request<'a> {
    /// `manifests/…`, `blobs/…` …, or where a registry said that an upload goes.
    pub(super) target: Target<'a>,
    pub(super) accept: Option<&'a str>,
    /// The first byte wanted.
    pub(super) from: u64,
    /// What is sent, and its media type; where there is nothing to send but it is an upload, empty.
    pub(super) body: Option<(&'a str, Vec<u8>)>,
}

#[derive(Debug, Clone)]
pub(super) enum Target<'a> {
    Path(&'a str),
    Url(&'a Url),
}

impl Default for Target<'_> {
    fn default() -> Self {
        Self::Path("")
    }
}

/// What a request does, in HTTP and to the repository.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verb {
    pub(super) kind: RequestKind,
    pub(super) method: &'static Method,
    pub(super) action: Action,
    pub(super) repeatable: bool,
}

impl Verb {
    pub(super) const MANIFEST: Self = Self::get(RequestKind::Manifest, &Method::GET);
    pub(super) const BLOB: Self = Self::get(RequestKind::Blob, &Method::GET);
    pub(super) const REFERRERS: Self = Self::get(RequestKind::Referrers, &Method::GET);
    pub(super) const HEAD: Self = Self::get(RequestKind::Head, &Method::HEAD);
    pub(super) const START: Self = Self::upload(&Method::POST, true);
    /// An upload can be finished once.
    pub(super) const FINISH: Self = Self::upload(&Method::PUT, false);
    pub(super) const PUT: Self = Self::upload(&Method::PUT, true);
    pub(super) const DELETE: Self =
        Self { kind: RequestKind::Delete, method: &Method::DELETE, action: Action::Delete, repeatable: true };

    const fn get(kind: RequestKind, method: &'static Method) -> Self {
        Self { kind, method, action: Action::Pull, repeatable: true }
    }

    const fn upload(method: &'static Method, repeatable: bool) -> Self {
        Self { kind: RequestKind::Upload, method, action: Action::Push, repeatable }
    }
}

/// A whole answer.
pub(super) struct Answer {
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Session {
    /// Looks up credentials; connects to nothing yet.
    pub(super) async fn new(reference: Reference, settings: &Settings) -> Result<Self, Error> {
        let settings = &settings.of(reference.registry());
        let clients = settings.connections.clients(settings)?;
        let mut credentials = Vec::new();
        for source in &settings.credentials {
            let file = async |files: &[PathBuf]| credentials::find(&reference, files, settings.helper_timeout).await;
            match source {
                Credentials::DefaultFiles => {
                    credentials.extend(file(&credentials::default_files()).await?.map(Holder::Known));
                }
                Credentials::Files(files) => credentials.extend(file(files).await?.map(Holder::Known)),
                Credentials::PullSecrets(secrets) => {
                    credentials.extend(keyring::matching(secrets, &reference).into_iter().map(Holder::Known));
                }
                Credentials::Cloud(cloud) if cloud.serves(reference.registry()) => {
                    credentials.push(Holder::Cloud(cloud.clone()));
                }
                Credentials::Cloud(_) => {}
                Credentials::Anonymous => credentials.push(Holder::Anonymous),
            }
        }
        credentials.truncate(MAX_CREDENTIALS);
        if credentials.is_empty() {
            credentials.push(Holder::Anonymous);
        }
        let (settings, state) = (settings.clone(), Mutex::default());
        let served = AtomicU64::new(0);
        Ok(Self { clients, served, settings, reference, credentials, state })
    }

    /// Those of the mirrors of its registry, in order. They are tried once more at most, since there is another to ask.
    pub(super) async fn mirrors(reference: &Reference, settings: &Settings) -> Result<Vec<Arc<Self>>, Error> {
        let mut sessions = Vec::new();
        for mirror in settings.hosts.host.get(reference.registry()).map_or(&[][..], |host| &host.mirrors) {
            let settings = Settings { retries: settings.retries.min(1), ..settings.clone() };
            sessions.push(Arc::new(Self::new(mirror.of(reference)?, &settings).await?));
        }
        Ok(sessions)
    }

    /// Whether mirrors are asked for more than what has a digest.
    pub(super) fn mirrors_tags(&self) -> bool {
        self.settings.hosts.host.get(self.reference.registry()).is_some_and(|host| host.mirror_tags)
    }

    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    pub(super) fn patience(&self, deadline: Option<Instant>) -> Patience<'_> {
        Patience { settings: &self.settings, deadline }
    }

    /// A successful answer; `what` is what is asked for, for messages.
    pub(super) async fn get(
        &self,
        verb: Verb,
        request: &Request<'_>,
        what: &str,
        patience: Patience<'_>,
    ) -> Result<Response, Error> {
        let call = self.call(verb, request)?;
        let (preferred, proven) = {
            let state = self.state.lock().await;
            (state.preferred, state.proven)
        };
        let mut missing = None;
        let mut denied = None;
        for step in 0..self.credentials.len() {
            let at = (preferred + step) % self.credentials.len();
            let response = match self.attempt(at, &call, verb.action, what, patience).await {
                Err(error @ (Error::Denied { .. } | Error::Credentials { .. })) => {
                    denied.get_or_insert(error);
                    continue;
                }
                response => response?,
            };
            if response.status().is_success() {
                let mut state = self.state.lock().await;
                (state.preferred, state.proven) = (at, true);
                self.served.fetch_add(1, Ordering::Relaxed);
                return Ok(response);
            }
            let hint = self.denied_hint();
            let error = patience.wait(what, async { Ok::<_, Error>(refused(response, &call, what, &hint).await) });
            match error.await? {
                // Some registries hide what a credential is not meant to see; one that showed something is believed.
                error @ Error::Missing { .. } if !(proven && step == 0) => _ = missing.get_or_insert(error),
                error @ Error::Denied { .. } => _ = denied.get_or_insert(error),
                error => return Err(error),
            }
        }
        let nobody = || Error::Denied { what: what.to_owned(), status: 401, hint: self.denied_hint() };
        Err(missing.or(denied).unwrap_or_else(nobody))
    }

    /// A whole answer of at most `limit` bytes, `name` being the limit's name; an interrupted one is asked for again.
    pub(super) async fn read(
        &self,
        verb: Verb,
        request: &Request<'_>,
        what: &str,
        (limit, name): (u64, &'static str),
        patience: Patience<'_>,
    ) -> Result<Answer, Error> {
        let mut attempt = 0;
        loop {
            let response = self.get(verb, request, what, patience).await?;
            let (url, headers) = (response.url().clone(), response.headers().clone());
            match patience.wait(what, bounded(response, limit, what, Some(name))).await {
                Ok(body) => return Ok(Answer { url, headers, body }),
                Err(error) => patience.pause(error, None, attempt).await?,
            }
            attempt = attempt.saturating_add(1);
        }
    }

    /// One request with one credential, and a second one where the registry wants a token that it did not have.
    async fn attempt(
        &self,
        at: usize,
        call: &Call,
        action: Action,
        what: &str,
        patience: Patience<'_>,
    ) -> Result<Response, Error> {
        // Uploads may go elsewhere; what is the registry's stays with it.
        let own = self.url("").is_ok_and(|url| url.origin() == call.url.origin());
        let host = self.reference.registry();
        let credential = match self.credentials.get(at) {
            Some(Holder::Known(credential)) if own => Some(credential.clone()),
            Some(Holder::Cloud(cloud)) if own => cloud.credential(host, patience).await?,
            _ => None,
        };
        let credential = credential.as_ref();
        let shown = if own { self.shown((at, action), credential, patience).await? } else { None };
        let response = transport::send(&self.clients, &authorized(call, shown.as_ref()), what, patience).await?;
        let asked = response.url().origin() == call.url.origin();
        if response.status() != StatusCode::UNAUTHORIZED || !own || !asked {
            return Ok(response);
        }
        let headers = response.headers();
        let response = match self.authorize((at, action), credential, headers, shown.as_ref(), patience).await {
            Ok(Some(header)) => transport::send(&self.clients, &authorized(call, Some(&header)), what, patience).await,
            Ok(None) => Ok(response),
            Err(error) => Err(error),
        };
        if let (Some(Holder::Cloud(cloud)), true) = (self.credentials.get(at), is_denied(&response)) {
            cloud.forget(host).await;
        }
        response
    }

    fn call(&self, verb: Verb, request: &Request<'_>) -> Result<Call, Error> {
        let mut headers = HeaderMap::new();
        let mut text = |name, text: &str| {
            headers.extend(HeaderValue::from_str(text).ok().map(|value| (name, value)));
        };
        if let Some(accept) = request.accept {
            text(ACCEPT, accept);
        }
        if request.from > 0 {
            text(RANGE, &format!("bytes={}-", request.from));
        }
        if let Some((media_type, _)) = request.body.as_ref().filter(|(media_type, _)| !media_type.is_empty()) {
            text(CONTENT_TYPE, media_type);
        }
        let url = match request.target {
            Target::Path(path) => self.url(path)?,
            Target::Url(url) => url.clone(),
        };
        let body = request.body.as_ref().map(|(_, body)| body.clone());
        Ok(Call { kind: verb.kind, method: verb.method.clone(), url, headers, body, repeatable: verb.repeatable })
    }

    pub(super) fn url(&self, path: &str) -> Result<Url, Error> {
        let scheme = if self.settings.plain_http { "http" } else { "https" };
        let host = match self.reference.registry() {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        let text = format!("{scheme}://{host}/v2/{}/{path}", self.reference.repository());
        Url::parse(&text).map_err(|error| Error::malformed(self.reference.to_string(), error))
    }

    /// The header to ask with from the start, as far as it is known what the registry wants. A token that is about to end is
    /// replaced.
    async fn shown(
        &self,
        key: (usize, Action),
        credential: Option<&Credential>,
        patience: Patience<'_>,
    ) -> Result<Option<HeaderValue>, Error> {
        let mut state = self.state.lock().await;
        let state = &mut *state;
        match &state.challenge {
            None => Ok(None),
            Some(challenge) => self.answer(key, credential, challenge, &mut state.tokens, false, patience).await,
        }
    }

    /// The header that answers the challenge of a 401. None: there is nothing to answer it with. Where another request got
    /// a newer one meanwhile, that one.
    async fn authorize(
        &self,
        key: (usize, Action),
        credential: Option<&Credential>,
        headers: &HeaderMap,
        shown: Option<&HeaderValue>,
        patience: Patience<'_>,
    ) -> Result<Option<HeaderValue>, Error> {
        let mut state = self.state.lock().await;
        let state = &mut *state;
        let held = state.tokens.get(&key).filter(|token| token.is_fresh()).map(|token| &token.header);
        if held.is_some() && held != shown {
            return Ok(held.cloned());
        }
        let Some(challenge) = Challenge::of(headers, self.settings.plain_http, &self.token_service())? else {
            return Ok(None);
        };
        let header = self.answer(key, credential, &challenge, &mut state.tokens, true, patience).await?;
        state.challenge = Some(challenge);
        Ok(header.filter(|header| shown != Some(header)))
    }

    /// What answers a challenge: for a `renewed` one, a new token.
    async fn answer(
        &self,
        key: (usize, Action),
        credential: Option<&Credential>,
        challenge: &Challenge,
        tokens: &mut BTreeMap<(usize, Action), Token>,
        renewed: bool,
        patience: Patience<'_>,
    ) -> Result<Option<HeaderValue>, Error> {
        match (credential, challenge) {
            (Some(Credential::Bearer(token)), _) => Ok(token::bearer(token)),
            (Some(Credential::Basic { user, password }), Challenge::Basic) => Ok(token::basic(user, password)),
            (_, Challenge::Basic) => Ok(None),
            (_, Challenge::Bearer(bearer)) => {
                if let Some(token) = tokens.get(&key).filter(|token| token.is_fresh() && !renewed) {
                    return Ok(Some(token.header.clone()));
                }
                let call = bearer.call(self.reference.repository(), key.1, credential);
                let token = self.token(&call, patience).await?;
                let header = token.header.clone();
                tokens.insert(key, token);
                Ok(Some(header))
            }
        }
    }

    async fn token(&self, call: &Call, patience: Patience<'_>) -> Result<Token, Error> {
        let what = self.token_service();
        let response = transport::send(&self.clients, call, &what, patience).await?;
        if !response.status().is_success() {
            let error = async { Ok::<_, Error>(refused(response, call, &what, &self.denied_hint()).await) };
            return Err(match patience.wait(&what, error).await? {
                // That there is no token service does not say that there is no image.
                Error::Missing { what, hint } => Error::Status { what, status: 404, message: hint },
                error => error,
            });
        }
        let body = patience.wait(&what, bounded(response, MAX_TOKEN_BYTES, &what, None)).await?;
        Token::parse(&body, &what)
    }

    fn token_service(&self) -> String {
        format!("the token service of {}", self.reference.registry())
    }

    fn denied_hint(&self) -> String {
        let registry = self.reference.registry();
        match self.credentials.iter().any(|holder| !matches!(holder, Holder::Anonymous)) {
            false => {
                format!("no credentials for it were found: log in with `docker login {registry}`, or check the name")
            }
            true => {
                format!(
                    "the credentials for {registry} were not accepted: log in again with `docker login {registry}`, or check the name"
                )
            }
        }
    }
}

fn is_denied(answer: &Result<Response, Error>) -> bool {
    match answer {
        Ok(response) => matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN),
        Err(error) => matches!(error, Error::Denied { .. }),
    }
}

fn authorized(call: &Call, header: Option<&HeaderValue>) -> Call {
    let mut call = call.clone();
    call.headers.extend(header.map(|header| (AUTHORIZATION, header.clone())));
    call
}

/// More than that are no longer a few secrets of a pod.
const MAX_CREDENTIALS: usize = 32;
/// The largest tokens seen have some 10 KiB.
const MAX_TOKEN_BYTES: u64 = 1 << 20;
