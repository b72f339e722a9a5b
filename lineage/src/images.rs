//! Images by all digests they go by: their manifest's, those of indexes that have them, their configuration's; and what was verified of them.

use dna::Digest;
use jiff::Timestamp;

use crate::{
    Document, Error, Ledger,
    build::{digest, page},
    ledger::{millis, read, timestamp},
};

/// An image, as it was seen in one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRow {
    /// The platform's manifest digest.
    pub digest: Digest,
    /// `registry/repository`.
    pub repository: String,
    /// The platform it is for; empty: not known.
    pub platform: String,
    /// Its configuration's digest: images with the same one have the same files.
    pub config: Option<Digest>,
    /// When it was first seen there.
    pub first_at: Timestamp,
    /// When it was last seen there.
    pub last_at: Timestamp,
    /// Who vouches for it and what it was built from, as JSON; absent where nobody looked.
    pub facts: Option<Document>,
}

impl Ledger {
    /// The images that a digest stands for, whatever it is of: a manifest, an index, a configuration. By digest and repository.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn images_named(&self, name: &str) -> Result<Vec<ImageRow>, Error> {
        let rows: Vec<Flat> = read!(self, "reading the images of a digest", |db| sqlx::query_as(NAMED)
            .bind(name)
            .bind(page(u32::MAX))
            .fetch_all(db)
            .await)?;
        rows.into_iter().map(row).collect()
    }

    /// The indexes that have an image.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn indexes_of(&self, image: &Digest) -> Result<Vec<Digest>, Error> {
        let rows: Vec<(String,)> = read!(self, "reading the indexes of an image", |db| sqlx::query_as(
            "SELECT DISTINCT digest FROM index_images WHERE image = $1 ORDER BY digest LIMIT $2"
        )
        .bind(image.as_str())
        .bind(page(u32::MAX))
        .fetch_all(db)
        .await)?;
        rows.into_iter().map(|(index,)| digest("index", index)).collect()
    }

    /// The image of the same repository and platform that was first seen last before this one.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn image_before(&self, image: &ImageRow) -> Result<Option<ImageRow>, Error> {
        let found: Option<Flat> = read!(self, "reading the image before", |db| sqlx::query_as(BEFORE)
            .bind(&image.repository)
            .bind(&image.platform)
            .bind(millis(image.first_at))
            .bind(image.digest.as_str())
            .fetch_optional(db)
            .await)?;
        found.map(row).transpose()
    }
}

type Flat = (String, String, String, Option<String>, i64, i64, String, i64, Vec<u8>);

fn row(
    (name, repository, platform, config, first_at, last_at, document, bytes, packed): Flat,
) -> Result<ImageRow, Error> {
    let facts = match document.is_empty() {
        true => None,
        false => Some(Document::stored(digest("image's facts", document)?, bytes, packed)),
    };
    Ok(ImageRow {
        digest: digest("image", name)?,
        repository,
        platform,
        config: config.map(|config| digest("configuration", config)).transpose()?,
        first_at: timestamp(first_at),
        last_at: timestamp(last_at),
        facts,
    })
}

macro_rules! columns {
    () => {
        "SELECT digest, repository, platform, config, first_at, last_at, document, bytes, packed FROM known_images "
    };
}

const NAMED: &str = concat!(
    columns!(),
    "WHERE digest = $1 OR config = $1 OR digest IN (SELECT image FROM index_images WHERE index_images.digest = $1)
     ORDER BY digest, repository LIMIT $2"
);
const BEFORE: &str = concat!(
    columns!(),
    "WHERE repository = $1 AND platform = $2 AND first_at < $3 AND digest <> $4 ORDER BY first_at DESC, digest LIMIT 1"
);
