//! Records into the ledger: many in one transaction, each of them as often as one likes with the same result.

use std::collections::{BTreeMap, BTreeSet};

use dna::Digest;
use jiff::Timestamp;
use sqlx::QueryBuilder;

use crate::{
    Binding, Decision, Document, Error, Image, Ledger, Record,
    ledger::{clip, millis, transact},
};

impl Ledger {
    /// Writes records in one transaction: all of them are there, or none. A record that is there already changes nothing: of
    /// two bindings of one container for one platform the later admission holds, a decision is written once. Dry runs are left out.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`]; then nothing was written, or, where the connection was lost during the commit,
    /// perhaps all.
    pub async fn write(&self, records: &[Record], now: Timestamp) -> Result<(), Error> {
        let rows = Rows::of(records);
        transact!(self, "writing records", |tx| {
            async {
            for rows in chunks(&rows.expectations) {
                let mut query = QueryBuilder::<Db>::new("INSERT INTO expectations (digest, packed, bytes, stored_at) ");
                query.push_values(rows, |mut row, (digest, document)| {
                    row.push_bind(digest.as_str()).push_bind(document.packed());
                    row.push_bind(document.stored_bytes()).push_bind(millis(now));
                });
                // Marked as in use so that it is not removed, but seldom: every replica writes the same few rows.
                query.push(
                    " ON CONFLICT (digest) DO UPDATE SET stored_at = excluded.stored_at
                      WHERE expectations.stored_at < excluded.stored_at - 3600000",
                );
                query.build().persistent(false).execute(&mut *tx).await?;
            }
            for rows in chunks(&rows.bindings) {
                let mut query = QueryBuilder::<Db>::new(
                    "INSERT INTO bindings (cluster, pod_uid, container, platform, namespace, pod, owner, image, digest, expectation,
                     decision, at, written_at) ",
                );
                query.push_values(rows, |mut row, ([cluster, pod_uid, container, platform], binding)| {
                    row.push_bind(cluster.as_str()).push_bind(pod_uid.as_str()).push_bind(container.as_str());
                    row.push_bind(platform.as_str());
                    row.push_bind(clip(&binding.namespace)).push_bind(clip(&binding.pod));
                    row.push_bind(binding.owner.as_deref().map(clip)).push_bind(clip(&binding.image));
                    row.push_bind(binding.digest.as_ref().map(Digest::as_str));
                    row.push_bind(binding.expectation.as_ref().map(|document| document.digest().as_str()));
                    row.push_bind(binding.decision.map(|id| id.to_string()));
                    row.push_bind(millis(binding.at)).push_bind(millis(now));
                });
                query.push(
                    " ON CONFLICT (cluster, pod_uid, container, platform) DO UPDATE
                      SET namespace = excluded.namespace, pod = excluded.pod, owner = excluded.owner,
                          image = excluded.image, digest = excluded.digest, expectation = excluded.expectation,
                          decision = excluded.decision, at = excluded.at, written_at = excluded.written_at
                      WHERE excluded.at > bindings.at",
                );
                query.build().persistent(false).execute(&mut *tx).await?;
            }
            for rows in chunks(&rows.decisions) {
                let mut query = QueryBuilder::<Db>::new(
                    "INSERT INTO decisions (id, at, cluster, namespace, kind, name, requester, operation, verdict,
                     unknowns, images, rules, details, packed, bytes) ",
                );
                query.push_values(rows, |mut row, (id, decision)| {
                    row.push_bind(id.as_str()).push_bind(millis(decision.at));
                    row.push_bind(clip(&decision.cluster)).push_bind(clip(&decision.namespace));
                    row.push_bind(clip(&decision.kind)).push_bind(clip(&decision.name));
                    row.push_bind(clip(&decision.user)).push_bind(clip(&decision.operation));
                    row.push_bind(decision.verdict.as_str()).push_bind(i64::from(decision.has_unknowns));
                    row.push_bind(json(&decision.images)).push_bind(json(&decision.rules));
                    row.push_bind(decision.details.digest().as_str()).push_bind(decision.details.packed());
                    row.push_bind(decision.details.stored_bytes());
                });
                query.push(" ON CONFLICT (id) DO NOTHING");
                query.build().persistent(false).execute(&mut *tx).await?;
            }
            for rows in chunks(&rows.images) {
                let mut query = QueryBuilder::<Db>::new("INSERT INTO decision_images (digest, decision) ");
                query.push_values(rows, |mut row, (digest, decision)| {
                    row.push_bind(digest.as_str()).push_bind(decision.as_str());
                });
                query.push(" ON CONFLICT (digest, decision) DO NOTHING");
                query.build().persistent(false).execute(&mut *tx).await?;
            }
            for rows in chunks(&rows.known) {
                let mut query = QueryBuilder::<Db>::new(
                    "INSERT INTO known_images (digest, repository, platform, config, first_at, last_at, document, packed, bytes) ",
                );
                query.push_values(rows, |mut row, ((digest, repository), image)| {
                    let facts = image.facts.as_ref();
                    row.push_bind(digest.as_str()).push_bind(repository.as_str()).push_bind(clip(&image.platform));
                    row.push_bind(image.config.as_ref().map(Digest::as_str));
                    row.push_bind(millis(image.at)).push_bind(millis(image.at));
                    row.push_bind(facts.map_or("", |document| document.digest().as_str()));
                    row.push_bind(facts.map_or(&[][..], Document::packed));
                    row.push_bind(facts.map_or(0, Document::stored_bytes));
                });
                // What nobody looked for this time stays as it was.
                query.push(
                    " ON CONFLICT (digest, repository) DO UPDATE
                      SET platform = excluded.platform, config = COALESCE(excluded.config, known_images.config),
                          last_at = CASE WHEN excluded.last_at > known_images.last_at THEN excluded.last_at ELSE known_images.last_at END,
                          first_at = CASE WHEN excluded.first_at < known_images.first_at THEN excluded.first_at
                                     ELSE known_images.first_at END,
                          document = CASE WHEN excluded.document = '' THEN known_images.document ELSE excluded.document END,
                          packed = CASE WHEN excluded.document = '' THEN known_images.packed ELSE excluded.packed END,
                          bytes = CASE WHEN excluded.document = '' THEN known_images.bytes ELSE excluded.bytes END",
                );
                query.build().persistent(false).execute(&mut *tx).await?;
            }
            for rows in chunks(&rows.indexes) {
                let mut query = QueryBuilder::<Db>::new("INSERT INTO index_images (digest, platform, image) ");
                query.push_values(rows, |mut row, (index, platform, image)| {
                    row.push_bind(index.as_str()).push_bind(platform.as_str()).push_bind(image.as_str());
                });
                query.push(" ON CONFLICT (digest, platform, image) DO NOTHING");
                query.build().persistent(false).execute(&mut *tx).await?;
            }
            Ok(())
        }
        .await
        })
    }
}

/// Rows to write, each key once and in order: one statement must not change a row twice, and replicas that lock rows in one
/// order do not wait for each other in a circle.
#[derive(Default)]
struct Rows<'a> {
    expectations: Vec<(&'a Digest, &'a Document)>,
    bindings: Vec<([String; 4], &'a Binding)>,
    decisions: Vec<(String, &'a Decision)>,
    images: Vec<(&'a Digest, String)>,
    known: Vec<((String, String), &'a Image)>,
    indexes: Vec<(&'a Digest, String, &'a Digest)>,
}

impl<'a> Rows<'a> {
    fn of(records: &'a [Record]) -> Self {
        let mut expectations = BTreeMap::new();
        let mut bindings: BTreeMap<_, &Binding> = BTreeMap::new();
        let (mut decisions, mut images) = (BTreeMap::new(), BTreeSet::new());
        let (mut known, mut indexes) = (BTreeMap::<_, &Image>::new(), BTreeSet::new());
        for record in records.iter().filter(|record| !record.is_dry_run()) {
            match record {
                Record::Binding(binding) => {
                    expectations.extend(binding.expectation.iter().map(|document| (document.digest(), document)));
                    let key = [&binding.cluster, &binding.pod_uid, &binding.container, &binding.platform]
                        .map(|text| clip(text));
                    if bindings.get(&key).is_none_or(|earlier| earlier.at < binding.at) {
                        bindings.insert(key, binding);
                    }
                }
                Record::Decision(decision) => {
                    let digests = decision.images.iter().filter_map(|image| image.digest.as_ref());
                    images.extend(digests.map(|digest| (digest, decision.id.to_string())));
                    decisions.entry(decision.id.to_string()).or_insert(&**decision);
                }
                Record::Image(image) => {
                    let key = (image.digest.to_string(), clip(&image.repository));
                    // Of one writing the later word, and of two without facts and with them, the one that has them.
                    let rank = |image: &Image| (image.facts.is_some(), image.at);
                    if known.get(&key).is_none_or(|earlier| rank(earlier) < rank(image)) {
                        known.insert(key, image);
                    }
                    indexes.extend(image.index.iter().map(|index| (index, clip(&image.platform), &image.digest)));
                }
            }
        }
        Self {
            expectations: expectations.into_iter().collect(),
            bindings: bindings.into_iter().collect(),
            decisions: decisions.into_iter().collect(),
            images: images.into_iter().collect(),
            known: known.into_iter().collect(),
            indexes: indexes.into_iter().collect(),
        }
    }
}

/// A statement's rows: of the widest table, 250 have 3,750 parameters; PostgreSQL takes 65,535, SQLite 32,766.
fn chunks<T>(rows: &[T]) -> std::slice::Chunks<'_, T> {
    rows.chunks(250)
}

/// Lists of texts always have a JSON form; a NUL in them is escaped in it.
fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "[]".to_owned())
}
