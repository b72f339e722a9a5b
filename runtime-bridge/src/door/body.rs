//! A request's body, whole: bounded in bytes, in time, and after inflation.

use std::{io::Read as _, sync::Arc, time::Duration};

use axum::{
    body::{Body, HttpBody as _},
    http::{HeaderMap, StatusCode, header},
};
use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Refusal, WAIT};

/// A body, and the memory it was given.
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    _room: OwnedSemaphorePermit,
    _inflated: Option<OwnedSemaphorePermit>,
}

pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    room: &Arc<Semaphore>,
    inflated: &Arc<Semaphore>,
) -> Result<Whole, Refusal> {
    let too_large = Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too large");
    let hint = body.size_hint().exact();
    if hint.is_some_and(|bytes| bytes > MAX_BODY as u64) {
        return Err(too_large);
    }
    let is_gzip = match headers.get(header::CONTENT_ENCODING).map(|encoding| encoding.as_bytes()) {
        None | Some(b"" | b"identity") => false,
        Some(encoding) if encoding.eq_ignore_ascii_case(b"gzip") || encoding.eq_ignore_ascii_case(b"x-gzip") => true,
        Some(_) => return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "an encoding other than gzip")),
    };
    let kib = u32::try_from(hint.unwrap_or(MAX_BODY as u64).div_ceil(1024)).unwrap_or(u32::MAX);
    let room = acquire(room, kib.max(1)).await?;
    let bytes = match tokio::time::timeout(READ, axum::body::to_bytes(body, MAX_BODY)).await {
        Ok(Ok(bytes)) => bytes,
        // The error's type does not say which of the two it is, but its cause's words do.
        Ok(Err(error)) if error.to_string().contains("length limit") => return Err(too_large),
        Ok(Err(_)) => return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body broke off")),
        Err(_) => return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    };
    if !is_gzip {
        return Ok(Whole { bytes, _room: room, _inflated: None });
    }
    let permit = acquire(inflated, 1).await?;
    let (bytes, permit) = tokio::task::spawn_blocking(move || (inflate(&bytes), permit))
        .await
        .map_err(|_| Refusal::later("it cannot be inflated now"))?;
    Ok(Whole { bytes: bytes?, _room: room, _inflated: Some(permit) })
}

async fn acquire(from: &Arc<Semaphore>, permits: u32) -> Result<OwnedSemaphorePermit, Refusal> {
    match tokio::time::timeout(WAIT, Arc::clone(from).acquire_many_owned(permits)).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Refusal::later("too many requests at once")),
    }
}

fn inflate(bytes: &[u8]) -> Result<Bytes, Refusal> {
    let mut inflated = Vec::new();
    let read = MultiGzDecoder::new(bytes).take(MAX_BODY as u64 + 1).read_to_end(&mut inflated);
    if inflated.len() > MAX_BODY {
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too large when inflated"));
    }
    read.map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "not gzip, as it says it is"))?;
    Ok(inflated.into())
}

/// A list of 400 audit events, each with its objects, stays below it.
pub(super) const MAX_BODY: usize = 8 << 20;

/// Time for a body to come in.
const READ: Duration = Duration::from_secs(10);
