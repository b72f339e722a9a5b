//! An image of the local Docker daemon: its name in, the archive that `docker save` would write out. Source: Docker Engine
//! API, `GET /images/{name}/get`.

use std::io::Write as _;

use reqwest::{Client, Url, redirect};

use super::{
    RequestKind, Settings,
    transport::{Call, Patience, interrupted, refused, send},
};
use crate::{Blob, Error, Options, spool};

/// Streams the archive to a spool file.
///
/// # Errors
/// [`Error::Connection`] where no daemon answers, [`Error::Missing`] where it has no such image.
pub(super) async fn archive(name: &str, options: &Options) -> Result<Blob, Error> {
    let settings = Settings { retries: 0, ..options.registry.clone() };
    let host = settings.docker_host.clone().or_else(|| std::env::var("DOCKER_HOST").ok().filter(|h| !h.is_empty()));
    let (client, base) = connect(host.as_deref().unwrap_or(DEFAULT_HOST), &settings)?;
    let what = format!("image {name} in the Docker daemon");
    let url = base.join(&format!("images/{}/get", escaped(name)));
    let url = url.map_err(|error| Error::malformed(&*what, error))?;
    let call = Call::get(RequestKind::Daemon, url);
    let patience = Patience { settings: &settings, deadline: None };
    let response = send(&client.into(), &call, &what, patience).await.map_err(|error| match error {
        Error::Connection { what, reason } => {
            Error::Connection { what, reason: format!("{reason}; is the daemon running, and DOCKER_HOST right?") }
        }
        other => other,
    })?;
    if !response.status().is_success() {
        return Err(refused(response, &call, &what, "the daemon's socket may need other rights").await);
    }
    spooled(response, &what, options).await
}

async fn spooled(mut response: reqwest::Response, what: &str, options: &Options) -> Result<Blob, Error> {
    let limit = options.limits.image_bytes;
    let mut file = spool::file()?;
    let mut len = 0u64;
    while let Some(chunk) = response.chunk().await.map_err(|error| interrupted(error, what))? {
        let count = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        len = len.saturating_add(count);
        if len > limit {
            return Err(Error::Limit { what: format!("the size of {what}"), name: "image_bytes", limit });
        }
        file.write_all(&chunk).map_err(|error| Error::write("a spool file", error))?;
        options.progress.expect(count);
        options.progress.add(count);
    }
    Ok(Blob::new(std::sync::Arc::new(file), 0, len))
}

fn connect(host: &str, settings: &Settings) -> Result<(Client, Url), Error> {
    let unsupported = |reason: &str| Error::Unsupported { what: "DOCKER_HOST".to_owned(), reason: reason.to_owned() };
    let builder = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .tls_certs_only([])
        .connect_timeout(settings.connect_timeout)
        .read_timeout(settings.read_timeout);
    let (builder, base) = match host.split_once("://") {
        Some(("unix", path)) => (builder.unix_socket(std::path::PathBuf::from(path)), "http://docker/".to_owned()),
        Some(("tcp" | "http", _)) if std::env::var_os("DOCKER_TLS_VERIFY").is_some_and(|value| !value.is_empty()) => {
            return Err(unsupported("a daemon with TLS is not supported; use `docker save NAME | mayfly analyze -`"));
        }
        Some(("tcp" | "http", address)) => (builder, format!("http://{}/", address.trim_end_matches('/'))),
        _ => {
            return Err(unsupported(
                "expected unix://PATH or tcp://HOST:PORT; else use `docker save NAME | mayfly analyze -`",
            ));
        }
    };
    let client = builder.build().map_err(|error| interrupted(error, "the HTTP client"))?;
    let base = Url::parse(&base).map_err(|_| unsupported("its address is malformed"))?;
    Ok((client, base))
}

/// A reference within a path: only `/`, `:` and `@` beside harmless characters are in one.
fn escaped(name: &str) -> String {
    name.replace(':', "%3A").replace('@', "%40")
}

const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
