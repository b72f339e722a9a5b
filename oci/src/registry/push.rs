//! Writing to a repository: blobs and manifests in, what the registry made of them out. Source: OCI distribution
//! specification, "Push" and "Content Management".

use dna::Digest;
use reqwest::{Response, header::LOCATION};

use super::{
    repository::{Repository, parsed, told_digest},
    session::{Request, Target, Verb},
    transport::{Patience, downgrade},
};
use crate::{Error, manifest::Descriptor, verify::verify};

/// A manifest that the registry took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// It.
    pub descriptor: Descriptor,
    /// The manifest that the registry now lists it as a referrer of, by its own word (`OCI-Subject`). Some give the word and
    /// have no referrers API: ask [`Repository::referrers`].
    pub subject: Option<Digest>,
}

/// What became of a manifest that was to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deletion {
    /// It is deleted.
    Deleted,
    /// There was none.
    Absent,
    /// The registry deletes nothing, or not for these credentials.
    Refused {
        /// The HTTP status: 400, 401, 403, 405 or 501.
        status: u16,
        /// What it said, shortened; may be empty.
        message: String,
    },
}

impl Repository {
    /// Uploads a blob in one piece, unless it is there already.
    ///
    /// # Errors
    /// [`Error::Denied`] without the right to push; [`Error::Unsupported`] where the registry sends the upload from HTTPS to
    /// HTTP; [`Error::Status`] and others where it does not take it.
    pub async fn push_blob(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, Error> {
        let descriptor = Descriptor::of(media_type, bytes);
        let what = format!("the upload of blob {} to {}", descriptor.digest, self.name());
        self.until(&what, |patience| self.upload(&descriptor, bytes, &what, patience)).await?;
        Ok(descriptor)
    }

    async fn upload(
        &self,
        descriptor: &Descriptor,
        bytes: &[u8],
        what: &str,
        patience: Patience<'_>,
    ) -> Result<(), Error> {
        let path = format!("blobs/{}", descriptor.digest);
        let request = Request { target: Target::Path(&path), ..Request::default() };
        // Whether it is there may be hidden from those who only push; that does not matter.
        if let Ok(response) = self.session.get(Verb::HEAD, &request, what, patience).await
            && told_digest(response.headers()).is_none_or(|digest| digest == descriptor.digest)
        {
            return Ok(());
        }
        let mut attempt = 0;
        loop {
            let start =
                Request { target: Target::Path("blobs/uploads/"), body: Some(("", Vec::new())), ..Request::default() };
            let started = self.session.get(Verb::START, &start, what, patience).await?;
            let mut place = location(&started, what)?;
            place.query_pairs_mut().append_pair("digest", descriptor.digest.as_str());
            let body = Some(("application/octet-stream", bytes.to_vec()));
            let finish = Request { target: Target::Url(&place), body, ..Request::default() };
            match self.session.get(Verb::FINISH, &finish, what, patience).await {
                Ok(_) => return Ok(()),
                // The upload is gone, not the repository: one starts anew.
                Err(Error::Missing { what, hint }) => {
                    patience.pause(Error::Status { what, status: 404, message: hint }, None, attempt).await?;
                }
                Err(Error::Throttled { what, retry_after }) => {
                    patience.pause(Error::Throttled { what, retry_after }, retry_after, attempt).await?;
                }
                Err(error @ Error::Status { status: ..500, .. }) => return Err(error),
                Err(error) => patience.pause(error, None, attempt).await?,
            }
            attempt = attempt.saturating_add(1);
        }
    }

    /// Stores a manifest, of whatever media type, under a tag or its digest. What it points at must be there before.
    ///
    /// # Errors
    /// As [`push_blob`](Self::push_blob); [`Error::Digest`] where `name` is another digest than that of `bytes`, or the
    /// registry stored other bytes.
    pub async fn push_manifest(&self, name: &str, media_type: &str, bytes: &[u8]) -> Result<Pushed, Error> {
        let what = self.what(name);
        let digest = parsed(name)?.unwrap_or_else(|| Digest::sha256(bytes));
        let descriptor = Descriptor { digest, ..Descriptor::of(media_type, bytes) };
        verify(bytes, &descriptor, &what)?;
        let path = format!("manifests/{name}");
        let body = Some((media_type, bytes.to_vec()));
        let request = Request { target: Target::Path(&path), body, ..Request::default() };
        let response = self.until(&what, |patience| self.session.get(Verb::PUT, &request, &what, patience)).await?;
        match told_digest(response.headers()) {
            Some(actual) if actual.algorithm() == descriptor.digest.algorithm() && actual != descriptor.digest => {
                return Err(Error::Digest { what, expected: descriptor.digest, actual });
            }
            _ => {}
        }
        let subject = response.headers().get("oci-subject").and_then(|value| value.to_str().ok()?.trim().parse().ok());
        Ok(Pushed { descriptor, subject })
    }

    /// Deletes a manifest by digest.
    ///
    /// # Errors
    /// Where it is not known what became of it: no answer, 429, 5xx.
    pub async fn delete_manifest(&self, digest: &Digest) -> Result<Deletion, Error> {
        let what = self.what(digest.as_str());
        let path = format!("manifests/{digest}");
        let request = Request { target: Target::Path(&path), ..Request::default() };
        match self.until(&what, |patience| self.session.get(Verb::DELETE, &request, &what, patience)).await {
            Ok(_) => Ok(Deletion::Deleted),
            Err(Error::Missing { .. }) => Ok(Deletion::Absent),
            Err(Error::Denied { status, .. }) => Ok(Deletion::Refused { status, message: String::new() }),
            Err(Error::Status { status: status @ (400 | 405 | 501), message, .. }) => {
                Ok(Deletion::Refused { status, message })
            }
            Err(error) => Err(error),
        }
    }
}

/// Where an upload goes on: on the registry, or elsewhere, where it goes without credentials.
fn location(response: &Response, what: &str) -> Result<reqwest::Url, Error> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let url = location.and_then(|location| response.url().join(location).ok());
    let url = url.ok_or_else(|| Error::malformed(what, "the registry does not say where to upload to"))?;
    downgrade(response.url(), &url, "the place to upload to", what)?;
    Ok(url)
}
