//! One image against those that say they are the same software.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Near, Sort, Traits, nearest};
use crate::{Confidence, Evidence};

/// A known image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Relative {
    /// Its name.
    pub name: String,
    /// What is kept of its DNA.
    pub traits: Traits,
}

/// What known images say of one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Kinship {
    /// The software that it says it is; absent where it is an application of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
    /// Known images that say the same, builds that are alike counted once.
    pub members: Vec<String>,
    /// There are enough of them to judge by.
    pub is_known: bool,
    /// The nearest known images of all, the nearest first.
    pub nearest: Vec<Near>,
    /// What none of its family does, the most telling first.
    pub unlike: Vec<Unlike>,
    /// The sum of what these weigh.
    pub weight: f64,
    /// It behaves unlike any known image of its family.
    pub is_unlike: bool,
    /// What the family does where this image's own bytes do not tell: no part of its DNA.
    pub borrowed: Vec<Borrowed>,
    /// All of this in a sentence or two.
    pub summary: String,
}

/// Something that no known image of the family does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unlike {
    /// What it is: `executes a shell in nginx`.
    pub what: String,
    /// Its sort.
    pub sort: Sort,
    /// How sure it is predicted.
    pub confidence: Confidence,
    /// Known images of other families that do it.
    pub elsewhere: u32,
    /// How much it weighs.
    pub weight: f64,
    /// Where it shows.
    pub evidence: Vec<Evidence>,
}

/// What most of a family do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Borrowed {
    /// The dimension.
    pub dimension: String,
    /// What they do.
    pub item: String,
    /// How many of the family.
    pub members: u32,
}

/// What known images say of one. Those that are alike in all are counted once, and one that is this very image is no witness.
#[must_use]
pub fn kinship(traits: &Traits, known: &[Relative]) -> Kinship {
    let known: Vec<&Relative> = known.iter().filter(|one| one.traits.build() != traits.build()).collect();
    let family = members(traits.says.as_deref(), &known);
    let is_known = family.len() >= LEAST_MEMBERS;
    let mut unlike = if is_known { unlike(traits, &family, &known) } else { Vec::new() };
    if let Some(other) = traits.repository.as_deref().and_then(|name| misnamed(traits, name, &known)) {
        unlike.push(other);
    }
    unlike.sort_by(|one, other| other.weight.total_cmp(&one.weight).then_with(|| one.what.cmp(&other.what)));
    let of_sort = |wanted: bool| {
        let of = unlike.iter().filter(move |one| (one.sort == Sort::Kernel) == wanted);
        of.fold(0.0, |sum, one| sum + one.weight)
    };
    // However many system calls a version brings, they alone do not make it another software.
    let weight = of_sort(false) + of_sort(true).min(MOST_OF_KERNEL);
    let borrowed = if is_known { borrowed(traits, &family) } else { Vec::new() };
    let everyone: Vec<Relative> = known.iter().copied().cloned().collect();
    let mut kinship = Kinship {
        says: traits.says.clone(),
        members: family.iter().map(|one| one.name.clone()).collect(),
        is_known,
        nearest: nearest(traits, &everyone, MOST_NEAR),
        is_unlike: weight >= UNLIKE,
        unlike,
        weight,
        borrowed,
        summary: String::new(),
    };
    kinship.summary = summary(&kinship);
    kinship
}

impl Kinship {
    /// The same for who may not know which other images there are.
    #[must_use]
    pub fn without_names(self) -> Self {
        Self { members: Vec::new(), nearest: Vec::new(), ..self }
    }
}

impl Traits {
    /// What makes two images one build: all but the name that they were found by.
    fn build(&self) -> Self {
        Self { repository: None, ..self.clone() }
    }
}

/// Known images that say they are this software, each build once.
fn members<'a>(says: Option<&str>, known: &[&'a Relative]) -> Vec<&'a Relative> {
    let mut found: Vec<&Relative> = Vec::new();
    for one in known.iter().filter(|one| says.is_some() && one.traits.says.as_deref() == says) {
        if !found.iter().any(|other| other.traits.build() == one.traits.build()) {
            found.push(one);
        }
    }
    found
}

fn unlike(traits: &Traits, family: &[&Relative], known: &[&Relative]) -> Vec<Unlike> {
    let count = f64::from(u32::try_from(family.len()).unwrap_or(u32::MAX));
    // Rule of succession: few that do not are weaker evidence that none does.
    let sure = count / (count + 1.0);
    let strange = traits.traits.iter().filter(|(name, one)| {
        one.sort != Sort::Usual && !family.iter().any(|member| member.traits.traits.contains_key(*name))
    });
    strange
        .map(|(name, one)| {
            let elsewhere = known.iter().filter(|other| other.traits.traits.contains_key(name)).count();
            let novelty = if elsewhere == 0 { 1.0 } else { KNOWN_ELSEWHERE };
            Unlike {
                what: name.clone(),
                sort: one.sort,
                confidence: one.confidence,
                elsewhere: u32::try_from(elsewhere).unwrap_or(u32::MAX),
                weight: one.sort.weight() * believed(one.confidence) * novelty * sure,
                evidence: one.evidence.clone(),
            }
        })
        .collect()
}

/// Its repository is called as a known software, and nothing that it executes is that.
fn misnamed(traits: &Traits, repository: &str, known: &[&Relative]) -> Option<Unlike> {
    let family = members(Some(repository), known).len();
    let is_it = traits.says.as_deref() == Some(repository)
        || traits.programs.iter().chain(&traits.packages).any(|name| name == repository);
    (family >= LEAST_MEMBERS && !is_it).then(|| Unlike {
        what: format!("is called {repository} and executes no program of that name"),
        sort: Sort::Foreign,
        confidence: Confidence::Certain,
        elsewhere: 0,
        weight: Sort::Foreign.weight(),
        evidence: Vec::new(),
    })
}

fn borrowed(traits: &Traits, family: &[&Relative]) -> Vec<Borrowed> {
    let mut found = Vec::new();
    for dimension in &traits.unknown {
        let mut items: BTreeMap<&str, u32> = BTreeMap::new();
        for member in family {
            for item in member.traits.does.get(dimension).into_iter().flatten() {
                *items.entry(item).or_default() += 1;
            }
        }
        let most = items.into_iter().filter(|(_, members)| *members as usize * 2 > family.len());
        found.extend(most.map(|(item, members)| Borrowed {
            dimension: dimension.clone(),
            item: item.to_owned(),
            members,
        }));
    }
    found
}

fn believed(confidence: Confidence) -> f64 {
    match confidence {
        Confidence::Certain => 1.0,
        Confidence::Likely => 0.9,
        Confidence::Possible => 0.7,
    }
}

fn summary(kinship: &Kinship) -> String {
    if let Some(first) = kinship.unlike.first().filter(|_| kinship.is_unlike && !kinship.is_known) {
        return format!("It {}.", first.what);
    }
    let Some(says) = &kinship.says else {
        return "It runs an application of its own: which software it is, its bytes do not say.".to_owned();
    };
    let count = kinship.members.len();
    if !kinship.is_known {
        return format!(
            "It says it is {says}; {count} known builds say so, and {LEAST_MEMBERS} are needed to judge by."
        );
    }
    match kinship.unlike.first() {
        Some(first) if kinship.is_unlike => format!(
            "It says it is {says}, and behaves unlike any of {count} known builds: none of them {}; this one does.",
            first.what
        ),
        Some(_) => format!("It is {says} as {count} known builds are, with differences that builds have."),
        None => format!("It is {says} as {count} known builds are."),
    }
}

/// Builds that make a family.
pub const LEAST_MEMBERS: usize = 3;
/// What weighs this much together is no difference of builds.
const UNLIKE: f64 = 0.5;
const MOST_OF_KERNEL: f64 = 0.3;
/// Of what other software is known to do, such as a library that this build has and others of the family have not.
const KNOWN_ELSEWHERE: f64 = 0.3;
const MOST_NEAR: usize = 5;
