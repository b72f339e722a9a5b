//! What refers to a manifest: signatures, attestations. A digest in, descriptors out, from both places where they are
//! listed. Source: OCI distribution specification, "Listing Referrers" and "Referrers Tag Schema".

use std::collections::BTreeSet;

use dna::Digest;
use reqwest::{
    Url,
    header::{HeaderMap, LINK},
};

use super::{
    media_type,
    repository::{Lookup, Repository},
    session::{Request, Session, Target, Verb},
    transport::Patience,
};
use crate::{
    Error,
    manifest::{Descriptor, INDEX_TYPES, Index, OCI_INDEX, within},
};

/// What refers to a manifest, by where it is listed: descriptors of manifests, in the registry's order. Each list is whole,
/// or unknown. A listing proves nothing: `artifactType`, annotations and even the subject are to be read in the manifest
/// itself.
#[derive(Debug)]
pub struct Referrers {
    /// By the referrers API; absent where the registry has no such API.
    pub api: Lookup<Vec<Descriptor>>,
    /// In the index that clients keep at the tag `sha256-…`, which registries that got the API later still have.
    pub tag: Lookup<Vec<Descriptor>>,
}

impl Referrers {
    /// What either lists, each digest once; with the reason why that may not be all.
    pub fn all(self) -> (Vec<Descriptor>, Option<Error>) {
        let (mut all, mut seen, mut reason) = (Vec::new(), BTreeSet::new(), None);
        for listed in [self.api, self.tag] {
            match listed {
                Lookup::Present(listed) => {
                    all.extend(listed.into_iter().filter(|descriptor| seen.insert(descriptor.digest.clone())));
                }
                Lookup::Absent => {}
                Lookup::Unknown(error) => _ = reason.get_or_insert(error),
            }
        }
        (all, reason)
    }
}

impl Repository {
    /// Everything that refers to `subject`, unfiltered; both sources are asked at once.
    pub async fn referrers(&self, subject: &Digest) -> Referrers {
        let what = format!("referrers of {subject} in {}", self.name());
        let api = async |session: &Session, patience: Patience<'_>| match self
            .referrers_api(session, subject, patience)
            .await
        {
            Err(Error::Status { what, status: 303 | 400 | 405 | 406, .. }) => Err(no_api(what)),
            listed => listed,
        };
        let tag = |session, patience| self.referrers_tag(session, subject, patience);
        let both = futures_util::future::join(self.first(&what, false, api), self.first(&what, false, tag));
        let (api, tag) = both.await;
        Referrers { api: api.into(), tag: tag.into() }
    }

    async fn referrers_tag(
        &self,
        session: &Session,
        subject: &Digest,
        patience: Patience<'_>,
    ) -> Result<Vec<Descriptor>, Error> {
        let tag = referrers_tag(subject);
        let (descriptor, bytes) = self.fetch(session, &tag, patience).await?;
        let what = self.what(&tag);
        let index = index(&bytes, &what)?;
        let named = [&descriptor.media_type, &index.media_type];
        if !named.iter().any(|name| INDEX_TYPES.contains(&name.as_str())) {
            return Err(Error::malformed(what, "it is no index"));
        }
        self.within(index.manifests.len(), &what)?;
        Ok(index.manifests)
    }

    async fn referrers_api(
        &self,
        session: &Session,
        subject: &Digest,
        patience: Patience<'_>,
    ) -> Result<Vec<Descriptor>, Error> {
        let what = format!("referrers of {subject} in {}", self.name());
        let mut listed = Vec::new();
        let mut page = session.url(&format!("referrers/{subject}"))?;
        let first = page.clone();
        for number in 0..MAX_PAGES {
            let request = Request { target: Target::Url(&page), accept: Some(OCI_INDEX), ..Request::default() };
            let limit = (self.limits.manifest_bytes, "manifest_bytes");
            let answer = match session.read(Verb::REFERRERS, &request, &what, limit, patience).await {
                // A page that another one led to is not "no such API".
                Err(Error::Missing { what, hint }) if number > 0 => return Err(broken(what, 404, hint)),
                Err(Error::Status { what, status, message }) if number > 0 => {
                    return Err(broken(what, status, message));
                }
                answer => answer?,
            };
            let index = match (media_type(&answer.headers).as_str(), index(&answer.body, &what)) {
                (_, Ok(index)) => index,
                (OCI_INDEX, Err(error)) => return Err(error),
                // JSON of another kind is an API that knows no referrers; a page of text is some proxy's or login's.
                ("application/json", Err(_)) if number == 0 && is_json(&answer.body) => {
                    return Err(no_api(what));
                }
                (_, Err(_)) => return Err(Error::malformed(what, "the answer is no index")),
            };
            listed.extend(index.manifests);
            self.within(listed.len(), &what)?;
            let Some(next) = next(&answer.headers, &answer.url) else { return Ok(listed) };
            page = next
                .filter(|next| next.origin() == first.origin())
                .ok_or_else(|| Error::malformed(&*what, "its next page is on another server"))?;
        }
        Err(Error::malformed(what, format!("it has more than {MAX_PAGES} pages")))
    }

    fn within(&self, count: usize, what: &str) -> Result<(), Error> {
        within(count, self.limits.index_manifests, "index_manifests", format!("the number of entries of {what}"))
    }
}

/// Where clients list what refers to `subject`, if the registry does not: the algorithm's first 32 characters and the
/// digest's first 64.
#[must_use]
pub fn referrers_tag(subject: &Digest) -> String {
    let part = |text: &str, max: usize| text.get(..max).unwrap_or(text).to_owned();
    format!("{}-{}", part(subject.algorithm(), 32), part(subject.hex(), 64))
}

/// An index by its content, whatever it was announced as.
fn index(bytes: &[u8], what: &str) -> Result<Index, Error> {
    let index: Index = serde_json::from_slice(bytes).map_err(|error| Error::json(what, &error))?;
    let known = index.media_type.is_empty() || INDEX_TYPES.contains(&index.media_type.as_str());
    match index.schema_version {
        2 if known => Ok(index),
        _ => Err(Error::malformed(what, "it is no index")),
    }
}

fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
}

/// The page after this one: none where it is the last, none within where what it names is no address. Source: RFC 8288.
fn next(headers: &HeaderMap, from: &Url) -> Option<Option<Url>> {
    let links = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    let mut targets = links.flat_map(|text| text.split('<').skip(1)).filter_map(|link| link.split_once('>'));
    let is_next = |parameters: &str| {
        parameters.split([';', ',']).filter_map(|parameter| parameter.split_once('=')).any(|(name, value)| {
            let mut relations = value.trim().trim_matches('"').split_whitespace();
            name.trim().eq_ignore_ascii_case("rel") && relations.any(|relation| relation.eq_ignore_ascii_case("next"))
        })
    };
    let (target, _) = targets.find(|(_, parameters)| is_next(parameters))?;
    Some(from.join(target).ok())
}

fn no_api(what: String) -> Error {
    Error::Missing { what, hint: "its registry has no referrers API".to_owned() }
}

/// A list that ends in the middle.
fn broken(what: String, status: u16, message: String) -> Error {
    Error::Malformed { what, reason: format!("its next page is answered {status} {message}").trim_end().to_owned() }
}

/// Registries give 100 to 1,000 entries a page.
const MAX_PAGES: usize = 64;

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;
    use sha2::Digest as _;

    use super::*;

    #[test]
    fn the_next_page_is_the_one_so_related() {
        let from = Url::parse("https://host.io/v2/a/referrers/d?n=1").expect("a URL");
        let found = |links: &[&'static str]| {
            let headers = links.iter().map(|link| (LINK, HeaderValue::from_static(link))).collect();
            next(&headers, &from).map(|url| url.map_or_else(|| "none".to_owned(), |url| url.to_string()))
        };
        let want = Some("https://host.io/v2/x?p=2".to_owned());
        assert_eq!(found(&["</v2/x?p=2>; rel=\"next\""]), want);
        assert_eq!(found(&["<x>; rel=prev, </v2/x?p=2>; title=\"a\"; REL=next"]), want);
        assert_eq!(found(&["<x>; rel=prev", "</v2/x?p=2>; rel=\"last next\""]), want);
        assert_eq!(found(&["<x>; rel=\"prev\"", "rel=next", "<x"]), None);
        assert_eq!(found(&["<//>; rel=next"]), Some("none".to_owned()));
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn the_tag_is_the_digest_cut_off() {
        let long = Digest::from_sha512(sha2::Sha512::digest(b"").into());
        assert_eq!(referrers_tag(&Digest::sha256(b"")), Digest::sha256(b"").as_str().replace(':', "-"));
        assert_eq!(referrers_tag(&long), format!("sha512-{}", long.hex().get(..64).expect("64 digits")));
    }
}
