//! The DNA that an attestation states: which of several counts, and its document.

use std::collections::{BTreeMap, BTreeSet};

use dna::{Digest, Dna};
use jiff::Timestamp;
use oci::{
    Error,
    registry::{Lookup, Repository},
};

use crate::{
    predicate::{DNA_PREDICATE, Predicate},
    proof::{Attestation, Verified},
    verify::Findings,
};

/// Several DNAs of one image, of which none is the newest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{count} DNAs are attested to {subject}, and no signed time says which is the newest")]
pub struct Undecided {
    subject: Digest,
    count: usize,
}

impl Findings {
    /// The attestation of the image's DNA that counts: of those that at least `threshold` signers state, each of one and the
    /// same DNA, the one with the newest signed time. None where no DNA has so many.
    ///
    /// # Errors
    /// [`Undecided`] where two are as new, or none has a time: a key's signature alone has none.
    pub fn dna(&self, image: &Digest, threshold: usize) -> Result<Option<&Verified<Attestation>>, Undecided> {
        let mut stated: BTreeMap<Digest, Vec<&Verified<Attestation>>> = BTreeMap::new();
        for attestation in self.of_type(DNA_PREDICATE).filter(|found| found.proof.origin.subject == *image) {
            if let Predicate::Dna(dna) = attestation.typed()
                && let Some(digest) = dna.digest
            {
                stated.entry(digest).or_default().push(attestation);
            }
        }
        stated.retain(|_, by| by.iter().map(|one| &one.proof.signer).collect::<BTreeSet<_>>().len() >= threshold);
        let newest = stated.values().filter_map(|by| by.iter().copied().max_by_key(|one| signed(one)));
        let mut newest: Vec<_> = newest.collect();
        newest.sort_by_key(|one| signed(one));
        match newest.as_slice() {
            [.., before, last] if signed(before) == signed(last) => {
                Err(Undecided { subject: image.clone(), count: newest.len() })
            }
            newest => Ok(newest.last().copied()),
        }
    }
}

/// When it was signed, by the earliest time that someone vouches for.
fn signed(attestation: &Attestation) -> Option<Timestamp> {
    attestation.proof.times.first().copied()
}

/// The DNA that an attestation states: the document in it, or the blob of the digest that it names. Either has that digest.
///
/// Absent: it states none, but those of an index' images, or something else than a DNA. Unknown: its document is not the one it
/// names, or could not be read; a blob that is named and not there is no answer either.
pub async fn attested_dna(attestation: &Verified<Attestation>, repository: &Repository) -> Lookup<Dna> {
    let Predicate::Dna(predicate) = attestation.typed() else { return Lookup::Absent };
    let what = format!("the DNA that {} states", attestation.proof.origin.carrier);
    let malformed = |reason: String| Lookup::Unknown(Error::Malformed { what: what.clone(), reason });
    let (digest, found) = match (&predicate.digest, predicate.document()) {
        (None, Ok(None)) => return Lookup::Absent,
        (_, Err(reason)) => return malformed(reason),
        (Some(digest), Ok(found)) => (digest, found),
        (None, Ok(Some(_))) => return malformed("it names no digest".to_owned()),
    };
    if let Some(dna) = found {
        return Lookup::Present(dna);
    }
    let json = match repository.blob(digest, MAX_DNA_BYTES).await {
        Lookup::Present(json) => json,
        Lookup::Absent => {
            return Lookup::Unknown(Error::Missing {
                what,
                hint: format!("the blob {digest} is not in the repository"),
            });
        }
        Lookup::Unknown(error) => return Lookup::Unknown(error),
    };
    match Dna::from_json(&json) {
        Ok(dna) if dna.digest().is_ok_and(|actual| actual == *digest) => Lookup::Present(dna),
        Ok(_) => malformed("its JSON is not canonical".to_owned()),
        Err(error) => malformed(crate::refusal::clean(&error.to_string())),
    }
}

/// Bytes of one DNA beside its statement: those of images with ten thousand programs have some 20 MiB.
const MAX_DNA_BYTES: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        evidence::Evidence,
        place::{Format, Origin, Place},
        proof::{By, Proof},
    };

    fn stated(signer: &str, image: &str, dna: &str, time: Option<i64>) -> Verified<Attestation> {
        let of = |text: &str| Digest::sha256(text.as_bytes());
        let origin =
            Origin { subject: of(image), place: Place::ReferrersApi, carrier: of("carrier"), format: Format::Bundle };
        let times = time.map(|seconds| Timestamp::from_second(seconds).expect("a time")).into_iter().collect();
        let (signer, by, evidence) = (signer.to_owned(), By::Key(of(signer)), Evidence::Timestamp);
        let proof =
            Proof { signer, by, evidence, times, log: Vec::new(), certificate_logged: false, root: None, origin };
        let predicate = json!({"schema": dna::SCHEMA, "digest": of(dna)});
        Verified::by_check(Attestation { proof, predicate_type: DNA_PREDICATE.to_owned(), predicate })
    }

    fn chosen(attestations: Vec<Verified<Attestation>>, threshold: usize) -> Result<Option<String>, usize> {
        let findings = Findings { attestations, ..Findings::default() };
        let found = findings.dna(&Digest::sha256(b"image"), threshold).map_err(|undecided| undecided.count)?;
        let digest = |found: &Verified<Attestation>| found.predicate.get("digest")?.as_str().map(str::to_owned);
        let names = ["old", "new"].map(|name| (Digest::sha256(name.as_bytes()).to_string(), name.to_owned()));
        Ok(found.and_then(digest).and_then(|digest| BTreeMap::from(names).remove(&digest)))
    }

    #[test]
    fn the_newest_that_enough_signers_state_counts() {
        let old = |signer| stated(signer, "image", "old", Some(10));
        let new = |signer| stated(signer, "image", "new", Some(20));
        let some = |name: &str| Ok(Some(name.to_owned()));
        assert_eq!(chosen(vec![new("a"), old("a")], 1), some("new"));
        assert_eq!(chosen(vec![old("a"), new("b"), old("b")], 2), some("old"), "two state the old one");
        assert_eq!(chosen(vec![old("a"), new("b")], 2), Ok(None), "two signers, of different DNAs");
        assert_eq!(chosen(vec![new("a"), new("a")], 2), Ok(None), "one signer twice");
        assert_eq!(chosen(vec![stated("a", "another image", "new", Some(20))], 1), Ok(None));
        assert_eq!(chosen(Vec::new(), 1), Ok(None));
    }

    #[test]
    fn two_as_new_decide_nothing() {
        let at = |dna, time| stated("a", "image", dna, time);
        assert_eq!(chosen(vec![at("old", Some(20)), at("new", Some(20))], 1), Err(2));
        assert_eq!(chosen(vec![at("old", None), at("new", None)], 1), Err(2));
        assert_eq!(chosen(vec![at("new", None), at("new", None)], 1), Ok(Some("new".to_owned())));
        assert_eq!(chosen(vec![at("old", None), at("new", Some(1))], 1), Ok(Some("new".to_owned())));
    }
}
