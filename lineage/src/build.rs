//! What is known at build: DNAs by their digest, and which DNA a subject has, by whose word.

use std::collections::BTreeSet;

use dna::{Digest, Dna};
use jiff::Timestamp;

use crate::{
    Among, Document, Error, Ledger,
    ledger::{change, clip, millis, read, timestamp},
};

/// A DNA in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnaRow {
    /// Its name: the SHA-256 of its canonical JSON.
    pub digest: Digest,
    /// Bytes of its JSON.
    pub bytes: u64,
    /// Programs in it.
    pub programs: u64,
    /// When it was last put.
    pub stored_at: Timestamp,
}

/// Which DNA a subject has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectDna {
    /// The platform's manifest digest.
    pub subject: Digest,
    /// The analyzer's rules that made the DNA.
    pub rules: Digest,
    /// By whose word.
    pub origin: Origin,
    /// The repository it was read from, `registry/repository`. Whether a reader may see what is in it is the reader's to check.
    pub repository: String,
    /// The DNA.
    pub dna: Digest,
    /// When it was last put.
    pub at: Timestamp,
}

/// By whose word a subject has a DNA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Our own analysis.
    Analyzed,
    /// An attestation, verified.
    Attested {
        /// Ids of those who signed it, which rules name.
        signers: BTreeSet<String>,
    },
}

impl Ledger {
    /// Keeps a DNA; `json` is its canonical JSON. Returns its name. One that is there is only marked as in use.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Deadline`], [`Error::Store`].
    pub async fn put_dna(&self, dna: &Dna, json: Vec<u8>, now: Timestamp) -> Result<Digest, Error> {
        let programs = i64::try_from(dna.programs.len()).unwrap_or(i64::MAX);
        let packing = tokio::task::spawn_blocking(move || Document::pack(&json));
        let document =
            packing.await.map_err(|error| Error::Pack { what: "a DNA", source: std::io::Error::other(error) })??;
        change!(
            self,
            "keeping a DNA",
            sqlx::query(
                "INSERT INTO dna (digest, packed, bytes, programs, stored_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (digest) DO UPDATE SET stored_at = excluded.stored_at"
            )
            .bind(document.digest().as_str())
            .bind(document.packed())
            .bind(document.stored_bytes())
            .bind(programs)
            .bind(millis(now))
        )?;
        Ok(document.digest().clone())
    }

    /// The canonical JSON of a DNA, its digest checked.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn dna(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let row: Option<(i64, Vec<u8>)> =
            read!(self, "reading a DNA", |db| sqlx::query_as("SELECT bytes, packed FROM dna WHERE digest = $1")
                .bind(digest.as_str())
                .fetch_optional(db)
                .await)?;
        row.map(|(bytes, packed)| Document::stored(digest.clone(), bytes, packed).unpack()).transpose()
    }

    /// DNAs by digest, those after one of them, at most `limit` and [`PAGE`].
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn dnas(&self, after: Option<&Digest>, limit: u32) -> Result<Vec<DnaRow>, Error> {
        let rows: Vec<(String, i64, i64, i64)> = read!(self, "listing DNAs", |db| sqlx::query_as(
            "SELECT digest, bytes, programs, stored_at FROM dna WHERE digest > $1 ORDER BY digest LIMIT $2"
        )
        .bind(after.map_or("", Digest::as_str))
        .bind(page(limit))
        .fetch_all(db)
        .await)?;
        let row = |(name, bytes, programs, at): (String, i64, i64, i64)| {
            Ok(DnaRow {
                digest: digest("DNA", name)?,
                bytes: u64::try_from(bytes).unwrap_or(0),
                programs: u64::try_from(programs).unwrap_or(0),
                stored_at: timestamp(at),
            })
        };
        rows.into_iter().map(row).collect()
    }

    /// Which subjects have which DNA, of all or of those that a pod was admitted with, what was put last first, at most `limit` and [`PAGE`].
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn latest_dnas(&self, among: Among, limit: u32) -> Result<Vec<(Digest, String, Digest)>, Error> {
        let text = match among {
            Among::All => "SELECT subject, repository, dna FROM subject_dna ORDER BY at DESC, subject, source LIMIT $1",
            // Not of what makes pods: it may be let in where its pods are not.
            Among::Admitted => {
                "SELECT subject, repository, dna FROM subject_dna WHERE EXISTS
                   (SELECT 1 FROM decision_images JOIN decisions ON decisions.id = decision_images.decision
                    WHERE decision_images.digest = subject_dna.subject AND decisions.kind = 'Pod' AND decisions.verdict <> 'deny')
                 ORDER BY at DESC, subject, source LIMIT $1"
            }
        };
        let rows: Vec<(String, String, String)> =
            read!(self, "listing the latest DNAs", |db| sqlx::query_as(text).bind(page(limit)).fetch_all(db).await)?;
        let link = |(subject, repository, dna)| Ok((digest("subject", subject)?, repository, digest("DNA", dna)?));
        rows.into_iter().map(link).collect()
    }

    /// Says which DNA a subject has; what was said by the same rules and the same word before gives way.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn link_dna(&self, link: &SubjectDna) -> Result<(), Error> {
        let (origin, signers) = match &link.origin {
            Origin::Analyzed => ("analyzed", String::new()),
            Origin::Attested { signers } => ("attested", signers.iter().cloned().collect::<Vec<_>>().join(" ")),
        };
        let source = Digest::sha256(format!("{origin}\n{signers}\n{}", link.repository).as_bytes());
        change!(
            self,
            "linking a DNA",
            sqlx::query(
                "INSERT INTO subject_dna (subject, rules, source, origin, signers, repository, dna, at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (subject, rules, source) DO UPDATE SET dna = excluded.dna, at = excluded.at
             WHERE excluded.at >= subject_dna.at"
            )
            .bind(link.subject.as_str())
            .bind(link.rules.as_str())
            .bind(source.hex())
            .bind(origin)
            .bind(&signers)
            .bind(clip(&link.repository))
            .bind(link.dna.as_str())
            .bind(millis(link.at))
        )?;
        Ok(())
    }

    /// The DNAs of a subject: those by these rules first, then the latest, at most 64.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn dnas_of(&self, subject: &Digest, rules: &Digest) -> Result<Vec<SubjectDna>, Error> {
        type Row = (String, String, String, String, String, i64);
        let rows: Vec<Row> = read!(self, "reading the DNAs of a subject", |db| sqlx::query_as(
            "SELECT rules, origin, signers, repository, dna, at FROM subject_dna WHERE subject = $1
             ORDER BY CASE WHEN rules = $2 THEN 0 ELSE 1 END, at DESC, source LIMIT 64"
        )
        .bind(subject.as_str())
        .bind(rules.as_str())
        .fetch_all(db)
        .await)?;
        let link = |(rules, origin, signers, repository, dna, at): Row| {
            let origin = match origin.as_str() {
                "analyzed" => Origin::Analyzed,
                _ => Origin::Attested { signers: signers.split_whitespace().map(str::to_owned).collect() },
            };
            let (rules, dna) = (digest("rules", rules)?, digest("DNA", dna)?);
            Ok(SubjectDna { subject: subject.clone(), rules, origin, repository, dna, at: timestamp(at) })
        };
        rows.into_iter().map(link).collect()
    }
}

/// A digest that the ledger kept.
pub(crate) fn digest(what: &'static str, text: String) -> Result<Digest, Error> {
    text.parse().map_err(|_| Error::Damaged { what, key: text, reason: "not a digest".to_owned() })
}

pub(crate) fn page(limit: u32) -> i64 {
    i64::from(limit.min(PAGE))
}

/// The most rows of one answer.
pub const PAGE: u32 = 1000;
