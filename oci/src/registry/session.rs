//! One repository of one registry: requests in, answers out, with the authorization its registry asks for. Sources:
//! distribution, `spec/auth/token.md` and `oauth.md`; RFC 9110, section 11.

use http_auth::{ChallengeRef, parse_challenges};
use oci_client::token_cache::RegistryToken;
use reqwest::{
    Client, RequestBuilder, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE, WWW_AUTHENTICATE},
};
use tokio::sync::Mutex;

use super::{
    Settings,
    credentials::{self, Credential},
    transport::{self, bounded, refused},
};
use crate::{Error, Reference};

/// A repository, and how it is asked.
pub(super) struct Session {
    client: Client,
    pub(super) settings: Settings,
    pub(super) reference: Reference,
    credential: Option<Credential>,
    /// The header that the registry last wanted.
    authorization: Mutex<Option<HeaderValue>>,
}

/// What is asked of a repository.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    /// `manifests/…` or `blobs/…`.
    pub(super) path: &'a str,
    pub(super) accept: Option<&'a str>,
    /// The first byte wanted.
    pub(super) from: u64,
}

impl Session {
    /// Looks up credentials; connects to nothing yet.
    pub(super) async fn new(reference: Reference, settings: &Settings) -> Result<Self, Error> {
        let client = transport::client(settings)?;
        let files = settings.auth_files.clone().unwrap_or_else(credentials::default_files);
        let credential = credentials::find(&reference, &files, settings.helper_timeout).await?;
        Ok(Self { client, settings: settings.clone(), reference, credential, authorization: Mutex::new(None) })
    }

    /// A successful answer; `what` is what is asked for, for messages.
    pub(super) async fn get(&self, request: Request<'_>, what: &str) -> Result<Response, Error> {
        let shown = self.authorization.lock().await.clone();
        let response = self.send(request, shown.clone(), what).await?;
        let response = match response.status() {
            StatusCode::UNAUTHORIZED => match self.authorize(&response, shown).await? {
                Some(header) => self.send(request, Some(header), what).await?,
                None => response,
            },
            _ => response,
        };
        match response.status().is_success() {
            true => Ok(response),
            false => Err(refused(response, what, &self.denied_hint()).await),
        }
    }

    async fn send(&self, request: Request<'_>, header: Option<HeaderValue>, what: &str) -> Result<Response, Error> {
        let url = self.url(request.path)?;
        let build = || {
            let mut builder = self.client.get(url.clone());
            if let Some(accept) = request.accept {
                builder = builder.header(ACCEPT, accept);
            }
            if request.from > 0 {
                builder = builder.header(RANGE, format!("bytes={}-", request.from));
            }
            authorized(builder, header.clone())
        };
        transport::send(build, what, &self.settings).await
    }

    fn url(&self, path: &str) -> Result<Url, Error> {
        let scheme = if self.settings.plain_http { "http" } else { "https" };
        let host = match self.reference.registry() {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        let text = format!("{scheme}://{host}/v2/{}/{path}", self.reference.repository());
        Url::parse(&text).map_err(|error| Error::malformed(self.reference.to_string(), error))
    }

    /// The header that answers the challenge of a 401. None: there is nothing to answer it with. Where another request got
    /// a newer one meanwhile, that one.
    async fn authorize(&self, response: &Response, shown: Option<HeaderValue>) -> Result<Option<HeaderValue>, Error> {
        let mut current = self.authorization.lock().await;
        if *current != shown {
            return Ok(current.clone());
        }
        let text: Vec<_> = challenges(response.headers());
        let parsed: Vec<_> = text.iter().filter_map(|text| parse_challenges(text).ok()).flatten().collect();
        let find = |scheme: &str| parsed.iter().find(|challenge| challenge.scheme.eq_ignore_ascii_case(scheme));
        let header = match (&self.credential, find("bearer"), find("basic")) {
            (Some(Credential::Bearer(token)), _, _) => Some(format!("Bearer {token}")),
            (_, Some(challenge), _) => Some(self.token(challenge).await?),
            (Some(Credential::Basic { user, password }), None, Some(_)) => Some(basic(user, password)),
            _ => None,
        };
        let Some(mut header) = header.and_then(|text| HeaderValue::from_str(&text).ok()) else { return Ok(None) };
        header.set_sensitive(true);
        if shown.as_ref() == Some(&header) {
            return Ok(None);
        }
        *current = Some(header);
        Ok(current.clone())
    }

    /// A bearer token from the service the challenge names.
    async fn token(&self, challenge: &ChallengeRef<'_>) -> Result<String, Error> {
        let parameter = |name: &str| {
            let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        let what = format!("the token service of {}", self.reference.registry());
        let realm = parameter("realm").and_then(|realm| Url::parse(&realm).ok());
        let realm = realm.filter(|url| matches!(url.scheme(), "http" | "https") && url.username().is_empty());
        let mut url = realm.ok_or_else(|| Error::malformed(&*what, "the challenge names no valid realm"))?;
        if url.scheme() == "http" && !self.settings.plain_http {
            let reason = "it is reached by plain HTTP, which would show credentials and tokens; use --plain-http if that is meant";
            return Err(Error::Unsupported { what, reason: reason.to_owned() });
        }
        let scope = parameter("scope").unwrap_or_else(|| format!("repository:{}:pull", self.reference.repository()));
        let mut query = vec![("scope", scope)];
        query.extend(parameter("service").map(|service| ("service", service)));
        let refresh = match &self.credential {
            Some(Credential::Refresh(token)) => Some(token),
            _ => None,
        };
        let form = refresh.map(|token| {
            query.extend([
                ("grant_type", "refresh_token".to_owned()),
                ("client_id", "mayfly".to_owned()),
                ("refresh_token", token.clone()),
            ]);
            form(&query)
        });
        if form.is_none() {
            url.query_pairs_mut().extend_pairs(&query);
        }
        let build = || match (&form, &self.credential) {
            (Some(form), _) => self
                .client
                .post(url.clone())
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.clone()),
            (None, Some(Credential::Basic { user, password })) => {
                authorized(self.client.get(url.clone()), HeaderValue::from_str(&basic(user, password)).ok())
            }
            (None, _) => self.client.get(url.clone()),
        };
        let response = transport::send(build, &what, &self.settings).await?;
        if !response.status().is_success() {
            return Err(refused(response, &what, &self.denied_hint()).await);
        }
        let body = bounded(response, MAX_TOKEN_BYTES, &what, None).await?;
        // Neither the body nor what is wrong with it is shown: it is a secret.
        let token: RegistryToken = serde_json::from_slice(&body)
            .map_err(|_| Error::malformed(&*what, "its answer has neither `token` nor `access_token`"))?;
        Ok(token.bearer_token())
    }

    fn denied_hint(&self) -> String {
        let registry = self.reference.registry();
        match self.credential {
            None => {
                format!("no credentials for it were found: log in with `docker login {registry}`, or check the name")
            }
            Some(_) => {
                format!(
                    "the credentials for {registry} were not accepted: log in again with `docker login {registry}`, or check the name"
                )
            }
        }
    }
}

fn authorized(builder: RequestBuilder, header: Option<HeaderValue>) -> RequestBuilder {
    match header {
        Some(mut header) => {
            header.set_sensitive(true);
            builder.header(AUTHORIZATION, header)
        }
        None => builder,
    }
}

fn challenges(headers: &HeaderMap) -> Vec<String> {
    let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    texts.map(str::to_owned).collect()
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// `application/x-www-form-urlencoded`, which is what a URL's query is.
fn form(pairs: &[(&str, String)]) -> String {
    Url::parse_with_params("http://form", pairs).ok().and_then(|url| url.query().map(str::to_owned)).unwrap_or_default()
}

/// The largest tokens seen have some 10 KiB.
const MAX_TOKEN_BYTES: u64 = 1 << 20;
