//! A bridge's API, asked over HTTP.

use std::{io::Read as _, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use reqwest::{Certificate, Client, RequestBuilder, StatusCode, Url, header};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{args::api::Api as Args, output, text};

/// A bridge, and who asks it.
#[derive(Debug)]
pub(crate) struct Api {
    client: Client,
    base: Url,
    token: Option<String>,
}

/// What is wrong, as the bridge says it.
#[derive(Deserialize)]
struct Problem {
    detail: String,
    advice: String,
}

impl Api {
    /// By the arguments.
    pub(crate) fn new(args: &Args) -> anyhow::Result<Self> {
        let wrong =
            || format!("--api {}: give the address of the bridge's API, such as https://mayfly.example:8445", args.api);
        let base: Url = args.api.trim_end_matches('/').parse().with_context(wrong)?;
        if !matches!(base.scheme(), "https" | "http") || base.cannot_be_a_base() {
            bail!(wrong());
        }
        let token = args.token_file.as_deref().map(token).transpose()?;
        let is_far = !matches!(base.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if base.scheme() == "http" && token.is_some() && is_far {
            bail!("--api {}: a token would be sent in the open; give an https:// address", args.api);
        }
        let mut client =
            Client::builder().timeout(Duration::from_secs(args.timeout)).redirect(reqwest::redirect::Policy::none());
        if let Some(file) = &args.api_ca {
            let pem = output::read(file)?;
            let authorities = Certificate::from_pem_bundle(&pem).with_context(|| file.display().to_string())?;
            client = client.tls_certs_only(authorities);
        }
        Ok(Self { client: client.build().context("cannot speak TLS")?, base, token })
    }

    /// Asks for a document.
    pub(crate) async fn json<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<T> {
        let bytes = self.bytes(path, query, MAX_DOCUMENT).await?;
        serde_json::from_slice(&bytes).with_context(|| self.not_understood())
    }

    /// Asks for a file.
    pub(crate) async fn file(&self, path: &[&str]) -> anyhow::Result<Vec<u8>> {
        self.bytes(path, &[], MAX_FILE).await
    }

    /// Sends a document, for one.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &[&str], body: &impl Serialize) -> anyhow::Result<T> {
        let request = self.client.post(self.url(path, &[])).header(header::CONTENT_TYPE, "application/json");
        let bytes = self.answer(request.body(serde_json::to_vec(body)?), MAX_DOCUMENT).await?;
        serde_json::from_slice(&bytes).with_context(|| self.not_understood())
    }

    async fn bytes(&self, path: &[&str], query: &[(&str, &str)], most: usize) -> anyhow::Result<Vec<u8>> {
        self.answer(self.client.get(self.url(path, query)), most).await
    }

    fn not_understood(&self) -> String {
        format!("{}: not the answer of a bridge of this version", self.base)
    }

    fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    async fn answer(&self, request: RequestBuilder, most: usize) -> anyhow::Result<Vec<u8>> {
        let request = match &self.token {
            Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        };
        let mut response =
            request.send().await.with_context(|| format!("{}: the bridge does not answer", self.base))?;
        let (status, url) = (response.status(), response.url().clone());
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.with_context(|| format!("{url}: the answer breaks off"))? {
            if bytes.len() + chunk.len() > most {
                bail!("{url}: the answer is larger than {most} bytes");
            }
            bytes.extend_from_slice(&chunk);
        }
        match (status, serde_json::from_slice::<Problem>(&bytes)) {
            (status, _) if status.is_success() => Ok(bytes),
            (StatusCode::UNAUTHORIZED, _) if self.token.is_none() => {
                bail!("{}: it asks who you are; name a file with a token by --token-file", self.base)
            }
            (_, Ok(Problem { detail, advice })) => {
                bail!("{}: {}; {}", self.base, text::clean(&detail), text::clean(&advice))
            }
            (status, Err(_)) => bail!("{url}: {status}; is this the API of a bridge?"),
        }
    }
}

fn token(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(file).and_then(|file| file.take(MAX_TOKEN).read_to_string(&mut text));
    read.with_context(|| format!("cannot read {}", file.display()))?;
    let token = text.trim().to_owned();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("{}: no token; it is one line of visible letters", file.display());
    }
    Ok(token)
}

const MAX_TOKEN: u64 = 16 << 10;
const MAX_DOCUMENT: usize = 32 << 20;
/// [`runtime_bridge::evidence::MAX_BYTES`], packed at worst, with headers.
const MAX_FILE: usize = 2 * runtime_bridge::evidence::MAX_BYTES;
