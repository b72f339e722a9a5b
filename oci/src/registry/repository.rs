//! A repository and its questions: a tag or digest in, a checked answer out, in three values, so that "the registry would not
//! say" is never taken for "it is not there".

use std::{collections::BTreeMap, fmt, future::Future, sync::Arc, time::Instant};

use dna::{Digest, Limits};
use reqwest::{
    StatusCode,
    header::{CONTENT_LENGTH, HeaderMap},
};

use super::{
    Settings, goes_on, media_type,
    session::{Request, Session, Target, Verb},
    transport::{Patience, interrupted},
};
use crate::{
    Error, Reference,
    error::clean,
    manifest::{Descriptor, IMAGE_TYPES, INDEX_TYPES},
    reference::is_tag,
    verify::verify,
};

/// What a registry knows of something.
#[derive(Debug)]
#[must_use]
pub enum Lookup<T> {
    /// It is there.
    Present(T),
    /// The registry answered that it is not there: 404, from the registry itself.
    Absent,
    /// It did not say: access denied, too many requests, no or a malformed answer, bytes that are others than asked for.
    Unknown(Error),
}

impl<T> Lookup<T> {
    /// What is there, none where nothing is.
    ///
    /// # Errors
    /// The reason why it is not known.
    pub fn known(self) -> Result<Option<T>, Error> {
        match self {
            Self::Present(value) => Ok(Some(value)),
            Self::Absent => Ok(None),
            Self::Unknown(error) => Err(error),
        }
    }

    /// Another value where there is one.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Lookup<U> {
        match self {
            Self::Present(value) => Lookup::Present(change(value)),
            Self::Absent => Lookup::Absent,
            Self::Unknown(error) => Lookup::Unknown(error),
        }
    }

    /// The value, where there is one.
    pub fn present(&self) -> Option<&T> {
        match self {
            Self::Present(value) => Some(value),
            Self::Absent | Self::Unknown(_) => None,
        }
    }
}

impl<T> From<Result<T, Error>> for Lookup<T> {
    fn from(result: Result<T, Error>) -> Self {
        match result {
            Ok(value) => Self::Present(value),
            Err(Error::Missing { .. }) => Self::Absent,
            Err(error) => Self::Unknown(error),
        }
    }
}

/// One repository of one registry, asked with its own credentials, which no other [`Repository`] ever uses. Clones share
/// connections and tokens; all calls may run at once.
///
/// Each call ends by the deadline of [`with_deadline`](Self::with_deadline), without one within
/// [`Settings::total_timeout`]. What may pass (429, 5xx, a broken connection) is tried again as [`Settings`] say and as the
/// registry asks (`Retry-After`), unless it asks for more time than there is.
///
/// Mirrors that [`Hosts`](super::Hosts) name are asked first for what has a digest; it is absent where it is absent everywhere.
#[derive(Clone)]
pub struct Repository {
    pub(super) session: Arc<Session>,
    mirrors: Arc<[Arc<Session>]>,
    deadline: Option<Instant>,
    pub(super) limits: Limits,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reference = self.reference().to_string();
        f.debug_struct("Repository").field("reference", &reference).field("deadline", &self.deadline).finish()
    }
}

impl Repository {
    /// The repository of `reference`, with the credentials that `settings` lead to. Nothing is asked yet.
    ///
    /// # Errors
    /// [`Error::Credentials`] for a credential file or helper that does not work; [`Error::Io`], [`Error::Malformed`] and
    /// [`Error::Tls`] for certificates that cannot be used.
    pub async fn open(reference: &Reference, settings: &Settings) -> Result<Self, Error> {
        let session = Arc::new(Session::new(reference.clone(), settings).await?);
        let mirrors = Session::mirrors(reference, settings).await?.into();
        Ok(Self { session, mirrors, deadline: None, limits: Limits::default() })
    }

    /// How many answers of use came from where: the registry's host, and those of its mirrors. Clones count together.
    pub fn served(&self) -> BTreeMap<String, u64> {
        let mut served = BTreeMap::new();
        for session in self.mirrors.iter().chain([&self.session]).filter(|session| session.served() > 0) {
            *served.entry(session.reference.registry().to_owned()).or_default() += session.served();
        }
        served
    }

    /// What it was opened by. Only registry and repository count; its tag and digest are the caller's.
    pub fn reference(&self) -> &Reference {
        &self.session.reference
    }

    /// The same repository, asked until `deadline` at most.
    #[must_use]
    pub fn with_deadline(&self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self.clone() }
    }

    /// The same repository with other limits; `manifest_bytes` and `index_manifests` count.
    #[must_use]
    pub fn with_limits(&self, limits: &Limits) -> Self {
        Self { limits: limits.clone(), ..self.clone() }
    }

    /// What a tag or digest names: digest, size and media type (empty where the registry names none). For a tag, the
    /// registry's word is taken, as it decides what a tag is; where it does not give one, the manifest is fetched and hashed.
    pub async fn head(&self, name: &str) -> Lookup<Descriptor> {
        let ask = |session, patience| self.head_at(session, name, patience);
        self.first(&self.what(name), name.contains(':'), ask).await.into()
    }

    /// A manifest or index by tag or digest: its descriptor, with the media type that the registry names (empty where it
    /// names none), and its bytes, which have that digest.
    pub async fn manifest(&self, name: &str) -> Lookup<(Descriptor, Vec<u8>)> {
        let ask = |session, patience| self.fetch(session, name, patience);
        self.first(&self.what(name), name.contains(':'), ask).await.into()
    }

    /// The bytes of a blob, `limit` at most, verified.
    pub async fn blob(&self, digest: &Digest, limit: u64) -> Lookup<Vec<u8>> {
        let what = format!("blob {digest} of {}", self.name());
        let ask = |session, patience| fill(session, digest, limit, &what, patience);
        self.first(&what, true, ask).await.into()
    }

    async fn head_at(&self, session: &Session, name: &str, patience: Patience<'_>) -> Result<Descriptor, Error> {
        let digest = parsed(name)?;
        let (path, accept, what) = (format!("manifests/{name}"), accept(), self.what(name));
        let request = Request { target: Target::Path(&path), accept: Some(&accept), ..Request::default() };
        let response = match session.get(Verb::HEAD, &request, &what, patience).await {
            // Some know GET only.
            Err(Error::Status { status: 400 | 405 | 501, .. }) => None,
            response => Some(response?),
        };
        let told = response.as_ref().and_then(|response| {
            let headers = response.headers();
            let size = headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
            Some(Descriptor::new(&media_type(headers), told_digest(headers)?, size))
        });
        match (told, digest) {
            (None, _) => self.fetch(session, name, patience).await.map(|(descriptor, _)| descriptor),
            (Some(told), Some(expected)) if expected != told.digest => {
                Err(Error::Digest { what, expected, actual: told.digest })
            }
            (Some(told), _) => Ok(told),
        }
    }

    pub(super) async fn fetch(
        &self,
        session: &Session,
        name: &str,
        patience: Patience<'_>,
    ) -> Result<(Descriptor, Vec<u8>), Error> {
        let digest = parsed(name)?;
        let (path, accept, what) = (format!("manifests/{name}"), accept(), self.what(name));
        let request = Request { target: Target::Path(&path), accept: Some(&accept), ..Request::default() };
        let limit = (self.limits.manifest_bytes, "manifest_bytes");
        let answer = session.read(Verb::MANIFEST, &request, &what, limit, patience).await?;
        let media_type = media_type(&answer.headers);
        // What was asked for by tag has the digest that the registry gives it, where it gives one.
        let expected = digest.or_else(|| told_digest(&answer.headers));
        let digest = expected.unwrap_or_else(|| Digest::sha256(&answer.body));
        let descriptor = Descriptor::new(&media_type, digest, len(&answer.body));
        verify(&answer.body, &descriptor, &what)?;
        Ok((descriptor, answer.body))
    }

    /// The first answer that is one. Mirrors come first, for what is `fixed` by a digest or where they may say all; each has
    /// half of the time that is left. Nothing is missing before all said so.
    pub(super) async fn first<'a, T, F: Future<Output = Result<T, Error>>>(
        &'a self,
        what: &str,
        fixed: bool,
        ask: impl Fn(&'a Session, Patience<'a>) -> F,
    ) -> Result<T, Error> {
        let deadline = self.deadline();
        let mut reason = None;
        for mirror in self.mirrors.iter().filter(|_| fixed || self.session.mirrors_tags()) {
            let half = deadline.map(|end| end - end.saturating_duration_since(Instant::now()) / 2);
            let patience = mirror.patience(half);
            match patience.wait(what, ask(mirror, patience)).await {
                Ok(answer) => return Ok(answer),
                Err(Error::Missing { .. }) => {}
                Err(error) => reason = Some(error),
            }
        }
        let patience = self.session.patience(deadline);
        match (patience.wait(what, ask(&self.session, patience)).await, reason) {
            (Err(Error::Missing { .. }), Some(reason)) => Err(reason),
            (answer, _) => answer,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline.or_else(|| Instant::now().checked_add(self.session.settings.total_timeout))
    }

    /// Runs `work` until the deadline.
    pub(super) async fn until<'a, T, F: Future<Output = Result<T, Error>>>(
        &'a self,
        what: &str,
        work: impl FnOnce(Patience<'a>) -> F,
    ) -> Result<T, Error> {
        let patience = self.session.patience(self.deadline());
        patience.wait(what, work(patience)).await
    }

    /// `host/path`, for messages.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.reference().registry(), self.reference().repository())
    }

    pub(super) fn what(&self, name: &str) -> String {
        let separator = if name.contains(':') { '@' } else { ':' };
        format!("{}{separator}{}", self.name(), clean(name))
    }
}

/// A blob as it comes; an interrupted one goes on where it ended.
async fn fill(
    session: &Session,
    digest: &Digest,
    limit: u64,
    what: &str,
    patience: Patience<'_>,
) -> Result<Vec<u8>, Error> {
    let path = format!("blobs/{digest}");
    let too_large = || Error::Limit { what: format!("the size of {what}"), name: "blob_bytes", limit };
    let mut bytes = Vec::new();
    let mut attempt = 0;
    loop {
        let from = len(&bytes);
        let request = Request { target: Target::Path(&path), from, ..Request::default() };
        let mut response = match session.get(Verb::BLOB, &request, what, patience).await {
            // Nothing lies behind its end; whether it is whole, the digest says.
            Err(Error::Status { status, .. }) if from > 0 && status == StatusCode::RANGE_NOT_SATISFIABLE => break,
            response => response?,
        };
        if from > 0 && !goes_on(&response, from) {
            bytes.clear();
        }
        if response.content_length().is_some_and(|length| len(&bytes).saturating_add(length) > limit) {
            return Err(too_large());
        }
        let ended = loop {
            match response.chunk().await {
                Ok(None) => break Ok(()),
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Err(error) => break Err(interrupted(error, what)),
            }
            if len(&bytes) > limit {
                return Err(too_large());
            }
        };
        let Err(error) = ended else { break };
        patience.pause(error, None, attempt).await?;
        attempt = attempt.saturating_add(1);
    }
    verify(&bytes, &Descriptor::new("", digest.clone(), len(&bytes)), what)?;
    Ok(bytes)
}

/// The digest that a name is; none for a tag.
///
/// # Errors
/// [`Error::Malformed`] for what is neither, which must not become part of an address.
pub(super) fn parsed(name: &str) -> Result<Option<Digest>, Error> {
    match name.parse() {
        Ok(digest) => Ok(Some(digest)),
        Err(_) if is_tag(name) => Ok(None),
        Err(_) => Err(Error::malformed(format!("`{}`", clean(name)), "it is neither a tag nor a digest")),
    }
}

/// The digest that a registry gives what it answers.
pub(super) fn told_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.trim().parse().ok()
}

pub(super) fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn accept() -> String {
    let types: Vec<_> = IMAGE_TYPES.into_iter().chain(INDEX_TYPES).chain([ORAS_ARTIFACT]).collect();
    types.join(", ")
}

/// The artifact manifest of OCI 1.1's release candidates; some registries hold such.
const ORAS_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
