//! Who sends: any one of the credentials that a sensor is configured with lets it in. Pure.

use axum::http::{HeaderMap, header};

use super::{ClientName, Sensor};

/// What a request shows.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) bearer: Option<&'a [u8]>,
    /// The last part of the path.
    pub(super) secret: Option<&'a str>,
    /// Of a certificate that TLS verified.
    pub(super) client: Option<&'a ClientName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    NothingShown,
    Wrong,
}

pub(super) fn admit(sensor: &Sensor, shown: &Shown<'_>) -> Result<(), Denied> {
    let is_token = sensor.token_sha256.zip(shown.bearer).is_some_and(|(digest, token)| digest.is_of(token));
    let is_secret =
        sensor.path_secret_sha256.zip(shown.secret).is_some_and(|(digest, secret)| digest.is_of(secret.as_bytes()));
    let is_client = sensor.client_cn.as_deref().zip(shown.client).is_some_and(|(name, client)| name == &*client.0);
    match is_token || is_secret || is_client {
        true => Ok(()),
        false if shown.bearer.is_none() && shown.secret.is_none() && shown.client.is_none() => {
            Err(Denied::NothingShown)
        }
        false => Err(Denied::Wrong),
    }
}

/// The bearer token of a request.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim_ascii())
}

const SCHEME: &[u8] = b"Bearer ";
