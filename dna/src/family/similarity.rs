//! How near two images are: what they share of packages, programs and traits, weighed by how seldom each is.
//!
//! The sets have some hundred entries, so that they are compared as they are: an estimate from hashes would save nothing that is felt, and could
//! not weigh. Without weights the packages of the distribution would decide.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Relative, Traits};

/// A known image and how near it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Near {
    /// Its name.
    pub name: String,
    /// The software that it says it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
    /// From 0, nothing shared, to 1, the same.
    pub similarity: f64,
}

/// The nearest known images, the nearest first.
#[must_use]
pub fn nearest(traits: &Traits, known: &[Relative], most: usize) -> Vec<Near> {
    let features: Vec<BTreeSet<(u8, &str)>> = known.iter().map(|one| features(&one.traits)).collect();
    let own = self::features(traits);
    let mut seen: BTreeMap<(u8, &str), u32> = own.iter().map(|feature| (*feature, 1)).collect();
    for feature in features.iter().flatten() {
        *seen.entry(*feature).or_default() += 1;
    }
    let all = f64::from(u32::try_from(known.len()).unwrap_or(u32::MAX)) + 2.0;
    // Inverse document frequency: what all have weighs almost nothing.
    let weight = |feature: &(u8, &str)| (all / f64::from(seen.get(feature).copied().unwrap_or(1))).ln();
    let sum = |features: &mut dyn Iterator<Item = &(u8, &str)>| features.map(weight).sum::<f64>();
    let mut near: Vec<Near> = known
        .iter()
        .zip(&features)
        .map(|(one, other)| {
            let shared = sum(&mut own.intersection(other));
            let either = sum(&mut own.union(other));
            let similarity = if either > 0.0 { shared / either } else { 0.0 };
            Near { name: one.name.clone(), says: one.traits.says.clone(), similarity }
        })
        .collect();
    near.sort_by(|one, other| other.similarity.total_cmp(&one.similarity).then_with(|| one.name.cmp(&other.name)));
    near.truncate(most);
    near
}

fn features(traits: &Traits) -> BTreeSet<(u8, &str)> {
    let packages = traits.packages.iter().map(|name| (0, name.as_str()));
    let programs = traits.programs.iter().map(|name| (1, name.as_str()));
    packages.chain(programs).chain(traits.traits.keys().map(|name| (2, name.as_str()))).collect()
}
