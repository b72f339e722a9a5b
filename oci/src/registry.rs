//! Images in registries: a [`Reference`] in, images with fetched layers out; and for all else a registry keeps, a
//! [`Repository`] to ask and to push to. Source: OCI distribution specification.
//!
//! `oci-client` gives types of the protocol; requests are made here: its client reads manifests, tokens and error bodies whole
//! before anyone can limit them, drops the headers that say when to try again, and takes a refusal for an absence.

mod cloud;
mod credentials;
mod daemon;
mod hosts;
mod keyring;
mod pace;
mod push;
mod referrers;
mod repository;
mod requests;
mod session;
mod time;
mod token;
mod transport;

use std::{
    collections::BTreeMap,
    io::{Seek as _, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use dna::{Digest, Limits};
use reqwest::{
    Response, StatusCode,
    header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap},
};
use tokio::{sync::Semaphore, task::JoinSet};
use tracing::debug;

pub use self::{
    cloud::Cloud,
    credentials::Credentials,
    hosts::{Connections, Host, Hosts, Mirror},
    keyring::PullSecret,
    pace::Pace,
    push::{Deletion, Pushed},
    referrers::{Referrers, referrers_tag},
    repository::{Lookup, Repository},
    requests::{Outcome, RequestKind, Requests},
};
use self::{
    session::{Request, Session, Target, Verb},
    transport::interrupted,
};
use crate::{
    Blob, Cache, Error, Image, Options, Progress, Reference, Select, Source,
    archive::Archive,
    manifest::{Descriptor, IMAGE_TYPES, INDEX_TYPES},
    open::{Opened, OpenedImage, docker, images, open_all},
    resolve::Resolve,
    spool,
    verify::Verifier,
};

/// How registries are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// HTTP without TLS, also for tokens: whoever is on the way sees and changes everything but digests. Never assumed,
    /// not even for localhost.
    pub plain_http: bool,
    /// PEM certificates of authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The same, as text.
    pub ca_pem: Option<String>,
    /// PEM files with a certificate and its key to be shown to registries that ask for one.
    pub client: Option<(PathBuf, PathBuf)>,
    /// The proxy to go through; empty: none; not given: as the environment says.
    pub proxy: Option<String>,
    /// What differs for some registries.
    pub hosts: Hosts,
    /// Where credentials are looked for. All that are found are tried in this order until the registry takes one; without any,
    /// it is asked without.
    pub credentials: Vec<Credentials>,
    /// Where the Docker daemon listens; none: `DOCKER_HOST`, else its usual socket.
    pub docker_host: Option<String>,
    /// Whether `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` count.
    pub proxy_from_env: bool,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Time between two pieces of an answer.
    pub read_timeout: Duration,
    /// Time for all of one image.
    pub total_timeout: Duration,
    /// Time for a credential helper to answer.
    pub helper_timeout: Duration,
    /// Further attempts after one that failed in a way that may pass.
    pub retries: u32,
    /// Wait before the first further attempt; doubled each time.
    pub backoff: Duration,
    /// Longest wait; a server that asks for more (`Retry-After`) is an error.
    pub max_wait: Duration,
    /// Layers fetched at once.
    pub parallel: usize,
    /// Keeps fetched blobs.
    pub cache: Option<Cache>,
    /// Keeps connections for the next one who asks.
    pub connections: Connections,
    /// Counts what is asked.
    pub requests: Requests,
    /// Bounds how much is asked.
    pub pace: Option<Pace>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            plain_http: false,
            ca_file: None,
            ca_pem: None,
            client: None,
            proxy: None,
            hosts: Hosts::default(),
            credentials: vec![Credentials::DefaultFiles],
            docker_host: None,
            proxy_from_env: true,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_secs(4 * 3600),
            helper_timeout: Duration::from_secs(30),
            retries: 4,
            backoff: Duration::from_millis(500),
            max_wait: Duration::from_secs(60),
            parallel: 4,
            cache: None,
            connections: Connections::default(),
            requests: Requests::default(),
            pace: None,
        }
    }
}

/// [`open`](crate::open) for callers that have a Tokio runtime (with time and I/O) themselves.
///
/// # Errors
/// As [`open`](crate::open).
pub async fn open_async(source: &Source, options: &Options) -> Result<Vec<Image>, Error> {
    open_remote(source, options).await.map(images)
}

/// Runs a remote source to its end on an own runtime.
pub(crate) fn block_on(source: &Source, options: &Options) -> Result<Opened, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime = runtime.map_err(|error| Error::Io {
        action: "start",
        what: "the network runtime".to_owned(),
        source: error,
    })?;
    let opened = runtime.block_on(open_remote(source, options));
    // Name lookups cannot be interrupted; nobody waits for one that takes long.
    runtime.shutdown_background();
    opened
}

async fn open_remote(source: &Source, options: &Options) -> Result<Opened, Error> {
    let limit = options.registry.total_timeout;
    let work = async {
        match source {
            Source::Registry(reference) => fetch(reference, options).await,
            Source::DockerDaemon(name) => {
                let blob = daemon::archive(name, options).await?;
                let archive = Archive::index(blob, &source.to_string(), &options.limits)?;
                docker(&archive, &Select::Only, &source.to_string(), options)
            }
            local => {
                let (source, options) = (local.clone(), options.clone());
                let opened = tokio::task::spawn_blocking(move || open_all(&source, &options)).await;
                opened.map_err(|error| Error::read(local.to_string(), std::io::Error::other(error)))?
            }
        }
    };
    let late = |_| Error::Timeout { what: source.to_string(), seconds: limit.as_secs() };
    tokio::time::timeout(limit, work).await.map_err(late)?
}

/// From the first of the mirrors and the registry that has all of it. What a tag stands for is the registry's to say.
async fn fetch(reference: &Reference, options: &Options) -> Result<Opened, Error> {
    let origin = Arc::new(Session::new(reference.clone(), &options.registry).await?);
    let mirrors = Session::mirrors(reference, &options.registry).await?;
    let known = match mirrors.is_empty() || reference.digest().is_some() || origin.mirrors_tags() {
        true => None,
        false => Some(root(&origin, &options.limits).await.map_err(|error| meant(error, reference))?),
    };
    for mirror in &mirrors {
        match assemble(mirror, known.clone(), reference, options).await {
            Ok(opened) => return Ok(opened),
            Err(error) => debug!(%error, mirror = %mirror.reference, "the next one is asked"),
        }
    }
    assemble(&origin, known, reference, options).await.map_err(|error| meant(error, reference))
}

async fn assemble(
    session: &Arc<Session>,
    known: Option<(Descriptor, Vec<u8>)>,
    reference: &Reference,
    options: &Options,
) -> Result<Opened, Error> {
    let limits = &options.limits;
    let whence = reference.to_string();
    let wanted = options.wanted();
    let (root, bytes) = match known {
        Some(known) => known,
        None => root(session, limits).await?,
    };
    let mut bytes = Some(bytes);
    let mut resolve = Resolve::new(root, &whence, &wanted, limits);
    while let Some(descriptor) = resolve.needs()? {
        let bytes = match bytes.take() {
            Some(bytes) => bytes,
            None if resolve.needs_config() => {
                let blob = blob(session, descriptor, &Progress::default()).await?;
                crate::layout::bounded(&blob, &whence, limits)?
            }
            None => {
                let request = format!("manifests/{}", descriptor.digest);
                manifest(session, &request, limits.manifest_bytes).await?.1
            }
        };
        resolve.give(bytes)?;
    }
    let resolved = resolve.finish()?;
    let mut needed = BTreeMap::new();
    for found in &resolved.found {
        found.check_size(&whence, limits)?;
        needed.extend(found.needed_layers().into_iter().map(|layer| (layer.digest.clone(), layer.clone())));
    }
    let bodies = blobs(session, needed.into_values(), &options.progress).await?;
    let images = resolved.found.into_iter().map(|found| OpenedImage {
        image: found.image(&whence, &bodies),
        manifest: Some((found.descriptor, found.manifest_bytes)),
        config: found.config_bytes,
    });
    let name = reference.tag().filter(|_| reference.digest().is_none()).map(str::to_owned);
    Ok(Opened { images: images.collect(), indexes: resolved.indexes, name })
}

/// Someone who typed a file's name without `oci-archive:` asked a registry; if that does not know it, the file was meant.
fn meant(error: Error, reference: &Reference) -> Error {
    let typed = reference.repository().strip_prefix("library/").unwrap_or(reference.repository());
    let meant = Some(typed).filter(|_| reference.registry() == "docker.io").and_then(Source::meant);
    match (error, meant) {
        (Error::Missing { what, hint }, Some(meant)) => Error::Missing { what, hint: format!("{hint}; {meant}") },
        (Error::Denied { what, status, hint }, Some(meant)) => {
            Error::Denied { what, status, hint: format!("{hint}; {meant}") }
        }
        (Error::Connection { what, reason }, Some(meant)) => {
            Error::Connection { what, reason: format!("{reason}; {meant}") }
        }
        (error, _) => error,
    }
}

/// What the reference names: a descriptor by its digest, and the bytes.
async fn root(session: &Session, limits: &Limits) -> Result<(Descriptor, Vec<u8>), Error> {
    let reference = &session.reference;
    let request = format!("manifests/{}", reference.wanted());
    let (media_type, bytes) = manifest(session, &request, limits.manifest_bytes).await?;
    let digest = reference.digest().cloned().unwrap_or_else(|| Digest::sha256(&bytes));
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    Ok((Descriptor::new(&media_type, digest, size), bytes))
}

/// A manifest's media type, empty where the registry names none of an image's, and its bytes: at most `limit`.
async fn manifest(session: &Session, path: &str, limit: u64) -> Result<(String, Vec<u8>), Error> {
    let what = session.reference.to_string();
    let accept = [IMAGE_TYPES, INDEX_TYPES].concat().join(", ");
    let request = Request { target: Target::Path(path), accept: Some(&accept), ..Request::default() };
    let limit = (limit, "manifest_bytes");
    let answer = session.read(Verb::MANIFEST, &request, &what, limit, session.patience(None)).await?;
    let media_type = media_type(&answer.headers);
    let known = IMAGE_TYPES.iter().chain(&INDEX_TYPES).any(|known| *known == media_type);
    Ok((if known { media_type } else { String::new() }, answer.body))
}

/// The media type of an answer, without its parameters; empty where there is none.
fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    text.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// Fetches blobs, some at once; the first error ends all.
async fn blobs(
    session: &Arc<Session>,
    needed: impl Iterator<Item = Descriptor>,
    progress: &Arc<Progress>,
) -> Result<BTreeMap<Digest, Blob>, Error> {
    let places = Arc::new(Semaphore::new(session.settings.parallel.clamp(1, MAX_PARALLEL)));
    let mut tasks = JoinSet::new();
    for descriptor in needed {
        progress.expect(descriptor.size);
        let (session, progress, places) = (Arc::clone(session), Arc::clone(progress), Arc::clone(&places));
        tasks.spawn(async move {
            let _place = places.acquire_owned().await;
            blob(&session, &descriptor, &progress).await.map(|blob| (descriptor.digest, blob))
        });
    }
    let mut bodies = BTreeMap::new();
    while let Some(done) = tasks.join_next().await {
        let failed = |error| Error::read(session.reference.to_string(), std::io::Error::other(error));
        bodies.extend([done.map_err(failed)??]);
    }
    Ok(bodies)
}

/// One blob, from the cache or fetched, verified to its last byte.
async fn blob(session: &Session, descriptor: &Descriptor, progress: &Progress) -> Result<Blob, Error> {
    let cache = session.settings.cache.clone();
    if let Some(cache) = cache.clone() {
        let descriptor = descriptor.clone();
        let size = descriptor.size;
        let cached = tokio::task::spawn_blocking(move || cache.take(&descriptor)).await.ok().flatten();
        if let Some(blob) = cached {
            progress.add(size);
            return Ok(blob);
        }
    }
    let file = match cache {
        None => {
            let mut file = spool::file()?;
            fill(session, descriptor, &mut file, progress).await?;
            file
        }
        Some(cache) => {
            let mut partial = cache.file()?;
            fill(session, descriptor, partial.as_file_mut(), progress).await?;
            let digest = descriptor.digest.clone();
            let kept = tokio::task::spawn_blocking(move || cache.put(partial, &digest)).await;
            kept.map_err(|error| Error::write("the cache", std::io::Error::other(error)))??
        }
    };
    Ok(Blob::new(Arc::new(file), 0, descriptor.size))
}

/// Writes a blob into `file` as it comes. An interrupted transfer goes on where it ended.
async fn fill(
    session: &Session,
    descriptor: &Descriptor,
    file: &mut std::fs::File,
    progress: &Progress,
) -> Result<(), Error> {
    let what = format!("blob {} of {}", descriptor.digest, session.reference);
    let mut verifier = Verifier::new(descriptor);
    let mut attempt = 0;
    loop {
        let before = verifier.seen();
        match stream(session, descriptor, &mut verifier, file, progress, &what).await {
            Ok(()) => return verifier.finish(&what),
            Err(error) => {
                // A large blob over a bad line needs many attempts; only those that bring nothing are counted.
                attempt = if verifier.seen() > before.saturating_add(WORTHWHILE_BYTES) { 0 } else { attempt };
                session.patience(None).pause(error, None, attempt).await?;
            }
        }
        attempt = attempt.saturating_add(1);
    }
}

/// Takes what one answer brings of a blob.
async fn stream(
    session: &Session,
    descriptor: &Descriptor,
    verifier: &mut Verifier,
    file: &mut std::fs::File,
    progress: &Progress,
    what: &str,
) -> Result<(), Error> {
    let from = verifier.seen();
    let path = format!("blobs/{}", descriptor.digest);
    let request = Request { target: Target::Path(&path), from, ..Request::default() };
    let mut response = session.get(Verb::BLOB, &request, what, session.patience(None)).await?;
    if from > 0 && !goes_on(&response, from) {
        file.set_len(0).and_then(|()| file.rewind()).map_err(|error| Error::write("a spool file", error))?;
        progress.again(from);
        *verifier = Verifier::new(descriptor);
    }
    let left = descriptor.size.saturating_sub(verifier.seen());
    if let Some(length) = response.content_length().filter(|length| *length != left) {
        let actual = verifier.seen().saturating_add(length);
        return Err(Error::Size { what: what.to_owned(), expected: descriptor.size, actual });
    }
    while let Some(chunk) = response.chunk().await.map_err(|error| interrupted(error, what))? {
        verifier.update(&chunk, what)?;
        file.write_all(&chunk).map_err(|error| Error::write("a spool file", error))?;
        progress.add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
    }
    Ok(())
}

/// Whether an answer brings the bytes from `from` on, as it was asked to, and not all of them.
fn goes_on(response: &Response, from: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or("");
    response.status() == StatusCode::PARTIAL_CONTENT && range.starts_with(&format!("bytes {from}-"))
}

/// Hashing keeps some processors busy, the network one.
const WORKERS: usize = 4;
const MAX_PARALLEL: usize = 64;
/// An attempt that brought so much was no failure.
const WORTHWHILE_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests;
