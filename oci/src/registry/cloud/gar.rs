//! Google Artifact Registry and Container Registry: a machine's or pod's access token is the password. Source: Google Cloud,
//! "Configure authentication to Artifact Registry" and "About VM metadata".

use std::time::Duration;

use serde::Deserialize;

use super::{Asking, Fetched, get, header, json};
use crate::{Error, registry::credentials::Credential};

pub(super) fn serves(host: &str) -> bool {
    host == "gcr.io" || [".gcr.io", ".pkg.dev"].iter().any(|suffix| host.ends_with(suffix))
}

pub(super) async fn fetch(asking: &Asking<'_>) -> Result<Fetched, Error> {
    #[derive(Deserialize)]
    struct Token {
        access_token: String,
        expires_in: u64,
    }
    let what = "Google's metadata server";
    let host = asking.variable("GCE_METADATA_HOST").unwrap_or("metadata.google.internal");
    let path = "/computeMetadata/v1/instance/service-accounts/default/token";
    let url =
        format!("http://{host}{path}").parse().map_err(|_| Error::malformed("GCE_METADATA_HOST", "it is no host"))?;
    let mut call = get(url);
    header(&mut call, "metadata-flavor", "Google");
    let (headers, body) = asking.metadata(&call, what).await?;
    // Someone else may answer by that name where there is no such server.
    if headers.get("metadata-flavor").is_none_or(|flavor| flavor != "Google") {
        return Err(Error::malformed(what, "it does not say that it is one"));
    }
    let token: Token = json(&body, what)?;
    let credential = Credential::Basic { user: "oauth2accesstoken".to_owned(), password: token.access_token };
    Ok(Fetched { credential, life: Duration::from_secs(token.expires_in) })
}
