//! A model in a flat document of ours: what it was trained on, how well it does on images left out, and a forest of trees.
//!
//! A tree's node asks of one feature whether it is no more than a value; every node knows the share of attacks among what came to it in training.
//! The mean of the leaves that a deviation comes to is calibrated by a logistic curve (Platt). What each question on the way changed is what
//! drove it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::features::{COUNT, Features, NAMES};
use crate::{Class, Driver};

/// The format that this version reads.
const FORMAT: &str = "mayfly-risk/1";
/// The model of this version.
const SHIPPED: &str = include_str!("../../model/risk.json");
/// Features told of a deviation.
const DRIVERS: usize = 5;
/// Less than this moved nothing.
const LEAST: f64 = 0.05;
/// Nodes of a model at most.
const MOST_NODES: usize = 1 << 20;

/// A model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Model {
    /// `mayfly-risk/1`.
    pub format: String,
    /// In a few sentences.
    pub about: String,
    /// It beats what it is measured against, and is used.
    pub is_on: bool,
    /// What it was trained on.
    pub data: Data,
    /// How well it, rules alone and the class alone do, on images left out.
    pub figures: BTreeMap<String, Figures>,
    /// Classes that it has seen enough of; others are left to the rules.
    pub classes: BTreeSet<Class>,
    /// Names of the features, in order.
    pub features: Vec<String>,
    /// Constant and factor of the logistic curve, over the logarithm of the forest's odds.
    pub calibration: [f64; 2],
    /// Trees, each with its root first.
    pub trees: Vec<Vec<Node>>,
}

/// What a model was trained on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Data {
    /// The last day on which anything of it was recorded.
    pub recorded: String,
    /// Images.
    pub images: u64,
    /// Events of their streams.
    pub events: u64,
    /// Deviations among them, each once in an attack or a deed: examples.
    pub examples: u64,
    /// Examples that are parts of attacks.
    pub of_attacks: u64,
    /// Attacks that were run.
    pub attacks: u64,
    /// Benign deeds beside what the images do anyway.
    pub deeds: u64,
}

/// How well probabilities do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Figures {
    /// Area under the ROC curve: how often an attack's deviation ranks above a benign one.
    pub auc: f64,
    /// Average precision.
    pub average_precision: f64,
    /// Brier score: the mean squared error; less is better.
    pub brier: f64,
}

impl Figures {
    /// Whether these are better in all three ways.
    #[must_use]
    pub fn beat(&self, other: &Self) -> bool {
        self.auc > other.auc && self.average_precision > other.average_precision && self.brier < other.brier
    }
}

/// A node: its share of attacks, and what it asks, where it is no leaf: the feature's place, the value, and the nodes for no more than that and for more.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Node(pub f64, #[serde(default, skip_serializing_if = "Option::is_none")] pub Option<(u16, f64, u32, u32)>);

/// Why a model cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// It is no such document.
    #[error("it is no model for risks: {0}")]
    Damaged(String),
    /// It is of another version.
    #[error("its format is {0}, and this version reads {FORMAT}: train it anew with `accuracy risk`")]
    Format(String),
    /// It was trained on other features.
    #[error(
        "it was trained on other features than this version has, from {0:?} on: train it anew with `accuracy risk`"
    )]
    Features(String),
    /// A number or a tree that means nothing.
    #[error("{0}")]
    Meaningless(String),
}

impl Model {
    /// The model that this version is shipped with; none where it is shipped off.
    ///
    /// # Errors
    /// [`ModelError`], where this version was built with a broken one.
    pub fn shipped() -> Result<Option<Self>, ModelError> {
        Ok(Some(Self::parse(SHIPPED.as_bytes())?).filter(|model| model.is_on))
    }

    /// Reads a model and checks all of it.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn parse(json: &[u8]) -> Result<Self, ModelError> {
        #[derive(Deserialize)]
        struct Head {
            format: String,
        }
        let damaged = |error: serde_json::Error| ModelError::Damaged(error.to_string());
        let head: Head = serde_json::from_slice(json).map_err(damaged)?;
        if head.format != FORMAT {
            return Err(ModelError::Format(head.format));
        }
        let model: Self = serde_json::from_slice(json).map_err(damaged)?;
        model.check()?;
        Ok(model)
    }

    /// One of these parts, checked.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn new(
        about: String,
        data: Data,
        classes: BTreeSet<Class>,
        calibration: [f64; 2],
        trees: Vec<Vec<Node>>,
    ) -> Result<Self, ModelError> {
        let model = Self {
            format: FORMAT.to_owned(),
            about,
            is_on: false,
            data,
            figures: BTreeMap::new(),
            classes,
            features: NAMES.clone(),
            calibration,
            trees,
        };
        model.check()?;
        Ok(model)
    }

    fn check(&self) -> Result<(), ModelError> {
        let meaningless = |what: String| Err(ModelError::Meaningless(what));
        let is_other = |(one, other): &(&String, &String)| one != other;
        if let Some((_, other)) = self.features.iter().zip(NAMES.iter()).find(is_other) {
            return Err(ModelError::Features(other.clone()));
        }
        if self.features.len() != COUNT {
            return Err(ModelError::Features(format!("{} features", self.features.len())));
        }
        let [_, factor] = self.calibration;
        if !self.calibration.iter().all(|number| number.is_finite()) || factor <= 0.0 {
            return meaningless(format!("its calibration, {:?}, turns nothing into a probability", self.calibration));
        }
        if self.trees.is_empty() || self.trees.iter().map(Vec::len).sum::<usize>() > MOST_NODES {
            return meaningless(format!("it has no tree, or more than {MOST_NODES} nodes"));
        }
        for (number, tree) in self.trees.iter().enumerate() {
            if tree.is_empty() {
                return meaningless(format!("tree {number} has no node"));
            }
            for (place, Node(share, question)) in tree.iter().enumerate() {
                let is_within = |next: u32| (next as usize) > place && (next as usize) < tree.len();
                let is_question = |(feature, value, no_more, more): (u16, f64, u32, u32)| {
                    usize::from(feature) < COUNT && value.is_finite() && is_within(no_more) && is_within(more)
                };
                if !(0.0..=1.0).contains(share) || question.is_some_and(|question| !is_question(question)) {
                    return meaningless(format!("node {place} of tree {number} leads nowhere, or its share is none"));
                }
            }
        }
        Ok(())
    }

    /// Whether it has seen enough of this class.
    #[must_use]
    pub fn knows(&self, class: Class) -> bool {
        self.classes.contains(&class)
    }

    /// The probability that a deviation is part of an attack.
    #[must_use]
    pub fn probability(&self, features: &Features) -> f64 {
        let mut moved = [0.0; COUNT];
        self.curve(self.share(features, &mut moved))
    }

    /// What drove it, the strongest first.
    #[must_use]
    pub fn explain(&self, features: &Features) -> Vec<Driver> {
        let mut moved = [0.0; COUNT];
        self.share(features, &mut moved);
        let mut drivers: Vec<Driver> = self
            .features
            .iter()
            .zip(features)
            .zip(moved)
            .filter(|(_, weight)| weight.abs() >= LEAST)
            .map(|((feature, value), weight)| Driver {
                feature: feature.clone(),
                value: (value * 1e3).round() / 1e3,
                weight: (weight * 1e3).round() / 1e3,
            })
            .collect();
        drivers.sort_by(|one, other| other.weight.abs().total_cmp(&one.weight.abs()));
        drivers.truncate(DRIVERS);
        drivers
    }

    /// The mean over trees, and how far each feature moved it from what is usual.
    fn share(&self, features: &Features, moved: &mut Features) -> f64 {
        let ([_, factor], count) = (self.calibration, self.trees.len() as f64);
        let mut sum = 0.0;
        for tree in &self.trees {
            let Some(mut node) = tree.first() else { continue };
            while let Node(share, Some((feature, value, no_more, more))) = node {
                let feature = usize::from(*feature);
                let is_more = features.get(feature).is_some_and(|is| is > value);
                let Some(next) = tree.get(if is_more { *more } else { *no_more } as usize) else { break };
                if let Some(moved) = moved.get_mut(feature) {
                    *moved += factor * (odds(next.0) - odds(*share)) / count;
                }
                node = next;
            }
            sum += node.0;
        }
        sum / count
    }

    /// The logistic curve over the logarithm of the odds.
    fn curve(&self, share: f64) -> f64 {
        let [constant, factor] = self.calibration;
        1.0 / (1.0 + (-(constant + factor * odds(share))).exp())
    }
}

/// The logarithm of the odds, within what a forest can tell.
#[must_use]
pub fn odds(share: f64) -> f64 {
    let share = share.clamp(0.005, 0.995);
    (share / (1.0 - share)).ln()
}
