//! Azure Container Registry: a token of Entra ID is exchanged for the registry's refresh token. Sources: Azure,
//! `acr/docs/AAD-OAuth.md`; "Microsoft identity platform and the OAuth 2.0 client credentials flow", federated credential;
//! "Azure Instance Metadata Service", identity.

use std::time::Duration;

use reqwest::Url;
use serde::{Deserialize, Deserializer};

use super::{Asking, Fetched, get, header, json, post};
use crate::{Error, registry::credentials::Credential};

#[derive(Deserialize)]
struct Token {
    access_token: String,
    #[serde(default, deserialize_with = "seconds")]
    expires_in: u64,
}

pub(super) fn serves(host: &str) -> bool {
    [".azurecr.io", ".azurecr.cn", ".azurecr.us"].iter().any(|suffix| host.ends_with(suffix))
}

pub(super) async fn fetch(asking: &Asking<'_>, host: &str) -> Result<Fetched, Error> {
    let scheme = if asking.patience.settings.plain_http { "http" } else { "https" };
    let url = format!("{scheme}://{host}/oauth2/exchange").parse();
    exchange(asking, host, url.map_err(|_| Error::malformed(host, "it is no host"))?).await
}

async fn exchange(asking: &Asking<'_>, host: &str, url: Url) -> Result<Fetched, Error> {
    #[derive(Deserialize)]
    struct Answer {
        refresh_token: String,
    }
    let token = entra(asking).await?;
    let what = format!("the token exchange of {host}");
    let mut pairs = vec![("grant_type", "access_token"), ("service", host), ("access_token", &token.access_token)];
    pairs.extend(asking.variable("AZURE_TENANT_ID").map(|tenant| ("tenant", tenant)));
    let (_, body) = asking.service(&post(url, &pairs), &what).await?;
    let answer: Answer = json(&body, &what)?;
    // The registry's own token lives for three hours; what it came from may be taken back sooner.
    let life = Duration::from_secs(token.expires_in.clamp(60, 3600));
    Ok(Fetched { credential: Credential::Refresh(answer.refresh_token), life })
}

/// An access token for registries: of the pod's federated identity where it has one, else of the machine.
async fn entra(asking: &Asking<'_>) -> Result<Token, Error> {
    let assertion = asking.file("AZURE_FEDERATED_TOKEN_FILE")?;
    let client = asking.variable("AZURE_CLIENT_ID");
    if let (Some(assertion), Some(client), Some(tenant)) = (assertion, client, asking.variable("AZURE_TENANT_ID")) {
        let what = "Entra ID";
        let mut url = asking.endpoint("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com/")?;
        url.path_segments_mut()
            .map_err(|()| Error::malformed("AZURE_AUTHORITY_HOST", "it is no address"))?
            .pop_if_empty()
            .extend([tenant, "oauth2", "v2.0", "token"]);
        let pairs = [
            ("client_id", client),
            ("grant_type", "client_credentials"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", &assertion),
            ("scope", "https://containerregistry.azure.net/.default"),
        ];
        let (_, body) = asking.service(&post(url, &pairs), what).await?;
        return json(&body, what);
    }
    let what = "Azure's metadata service";
    let mut url = asking.endpoint("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://169.254.169.254/")?;
    url.set_path("/metadata/identity/oauth2/token");
    url.query_pairs_mut()
        .extend_pairs([("api-version", "2018-02-01"), ("resource", "https://containerregistry.azure.net")]);
    if let Some(client) = client {
        url.query_pairs_mut().append_pair("client_id", client);
    }
    let mut call = get(url);
    header(&mut call, "metadata", "true");
    let (_, body) = asking.metadata(&call, what).await?;
    json(&body, what)
}

/// A number, which the metadata service writes as a string.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Text(String),
    }
    match Either::deserialize(deserializer)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => text.parse().map_err(|_| serde::de::Error::custom("no number")),
    }
}

#[cfg(test)]
pub(super) async fn exchange_at(asking: &Asking<'_>, host: &str, url: Url) -> Result<Fetched, Error> {
    exchange(asking, host, url).await
}
