//! The model of `analyzer::expect`: trained on what the kernel saw, judged on families left out.
//!
//! For every family in turn the model is trained without it and predicts it; only such predictions are reported. In training too, an
//! image's features never see its own family. The probabilities are calibrated (Platt) and the threshold chosen on predictions of
//! families left out; the threshold that judges a family is chosen without it.

use std::collections::{BTreeMap, BTreeSet};

use analyzer::expect::{Container, FEATURES, Model, Others, Seen};
use anyhow::anyhow;
use smartcore::{
    linalg::basic::{arrays::Array, matrix::DenseMatrix},
    linear::logistic_regression::{LogisticRegression, LogisticRegressionParameters},
};

use crate::truth::Truth;

/// An image to learn from.
pub(crate) struct Example {
    pub(crate) truth: Truth,
    pub(crate) container: Container,
    seen: Seen,
}

/// A call, its probability and whether it was made.
type Judged = (String, f64, bool);

/// Predictions for each image by a model without its family.
pub(crate) type LeftOut = BTreeMap<String, Vec<Judged>>;

impl Example {
    pub(crate) fn new(truth: Truth, container: Container) -> Self {
        let seen = Seen {
            image: truth.image.clone(),
            kind: container.kind(),
            made: truth.syscalls.clone(),
            calls: container.ways(),
        };
        Self { truth, container, seen }
    }

    /// The features of each call, beside the images given that are no kin.
    fn rows(&self, others: &[&Self]) -> Vec<(String, [f64; FEATURES.len()], bool)> {
        let seen: Vec<&Seen> =
            others.iter().filter(|other| !other.truth.is_kin(&self.truth)).map(|other| &other.seen).collect();
        let weighed = Others::new(&self.container, &seen);
        let row = |name: &String| {
            let features = weighed.features(&self.container, name)?;
            Some((name.clone(), features, self.truth.syscalls.contains(name)))
        };
        self.container.calls.keys().filter_map(row).collect()
    }
}

/// A regression over rows: constant and weights.
pub(crate) fn fit<const N: usize>(rows: &[([f64; N], bool)], strength: f64) -> anyhow::Result<(f64, Vec<f64>)> {
    let count = rows.len().max(1) as f64;
    let mean: Vec<f64> = (0..N).map(|i| rows.iter().map(|(row, _)| row[i]).sum::<f64>() / count).collect();
    let spread: Vec<f64> = (0..N)
        .map(|i| (rows.iter().map(|(row, _)| (row[i] - mean[i]).powi(2)).sum::<f64>() / count).sqrt().max(1e-6))
        .collect();
    let scaled: Vec<Vec<f64>> =
        rows.iter().map(|(row, _)| (0..N).map(|i| (row[i] - mean[i]) / spread[i]).collect()).collect();
    let x = DenseMatrix::from_2d_vec(&scaled).map_err(|why| anyhow!("{why}"))?;
    let y: Vec<i32> = rows.iter().map(|(_, made)| i32::from(*made)).collect();
    let parameters = LogisticRegressionParameters::default().with_alpha(strength);
    let fitted = LogisticRegression::fit(&x, &y, parameters).map_err(|why| anyhow!("{why}"))?;
    let weights: Vec<f64> = (0..N).map(|i| *fitted.coefficients().get((0, i)) / spread[i]).collect();
    let shift: f64 = weights.iter().zip(&mean).map(|(weight, mean)| weight * mean).sum();
    Ok((*fitted.intercept().get((0, 0)) - shift, weights))
}

fn learn(examples: &[&Example]) -> anyhow::Result<(f64, Vec<f64>)> {
    let rows: Vec<_> = examples
        .iter()
        .flat_map(|example| example.rows(examples))
        .map(|(_, features, made)| (features, made))
        .collect();
    fit(&rows, STRENGTH)
}

/// Predicts every image by a model without its family.
pub(crate) fn left_out(examples: &[Example]) -> anyhow::Result<LeftOut> {
    let mut predicted = LeftOut::new();
    let mut models = BTreeMap::<BTreeSet<String>, (f64, Vec<f64>)>::new();
    for example in examples {
        let others: Vec<&Example> = examples.iter().filter(|other| !other.truth.is_kin(&example.truth)).collect();
        let families = example.truth.families();
        if !models.contains_key(&families) {
            models.insert(families.clone(), learn(&others)?);
        }
        let Some((constant, weights)) = models.get(&families) else { continue };
        let judge = |(name, features, made): (String, [f64; FEATURES.len()], bool)| {
            let sum = weights.iter().zip(&features).fold(*constant, |sum, (weight, feature)| sum + weight * feature);
            (name, 1.0 / (1.0 + (-sum).exp()), made)
        };
        predicted.insert(example.truth.image.clone(), example.rows(&others).into_iter().map(judge).collect());
    }
    Ok(predicted)
}

/// The threshold with the best mean F1 over images.
pub(crate) fn threshold<'a>(examples: impl Iterator<Item = &'a Example> + Clone, predicted: &LeftOut) -> f64 {
    let mean = |at: f64| -> f64 { examples.clone().map(|example| f1(example, predicted, at)).sum() };
    let mut best = (f64::MIN, 0.5);
    for step in 30..=65 {
        let at = f64::from(step) / 100.0;
        let score = mean(at);
        if score > best.0 + 1e-9 {
            best = (score, at);
        }
    }
    best.1
}

/// F1 of one image at a threshold.
pub(crate) fn f1(example: &Example, predicted: &LeftOut, at: f64) -> f64 {
    let mut expected: BTreeSet<&str> = BTreeSet::from(["execve"]);
    let judged = predicted.get(&example.truth.image).into_iter().flatten();
    expected.extend(judged.filter(|(_, probability, _)| *probability >= at).map(|(name, ..)| name.as_str()));
    let hits = expected.iter().filter(|name| example.truth.syscalls.contains(**name)).count() as f64;
    2.0 * hits / (expected.len() + example.truth.syscalls.len()) as f64
}

/// Mean squared error of the probabilities of some images, and the reliability by tenths: count, mean probability, share made.
pub(crate) fn calibration<'a>(
    judged: impl Iterator<Item = &'a (String, f64, bool)> + Clone,
) -> (f64, Vec<(usize, f64, f64)>) {
    let error = |(_, probability, made): &Judged| (probability - if *made { 1.0 } else { 0.0 }).powi(2);
    let count = judged.clone().count().max(1) as f64;
    let brier = judged.clone().map(error).sum::<f64>() / count;
    let tenth = |index: usize| {
        let of = |(_, probability, _): &&Judged| ((probability * 10.0) as usize).min(9) == index;
        let some: Vec<&Judged> = judged.clone().filter(of).collect();
        let count = some.len().max(1) as f64;
        let mean = some.iter().map(|(_, probability, _)| probability).sum::<f64>() / count;
        let made = some.iter().filter(|(_, _, made)| *made).count() as f64 / count;
        (some.len(), mean, made)
    };
    (brier, (0..10).map(tenth).collect())
}

/// The figures of a list of images, left out.
pub(crate) struct Figures {
    pub(crate) f1: f64,
    pub(crate) brier: f64,
    pub(crate) reliability: Vec<(usize, f64, f64)>,
    pub(crate) by_image: BTreeMap<String, f64>,
}

/// Judges the images of a list by predictions without their families; the threshold too is chosen without them.
pub(crate) fn figures(examples: &[Example], predicted: &LeftOut, list: &str) -> Figures {
    let mut by_image = BTreeMap::new();
    for example in examples.iter().filter(|example| example.truth.list == list) {
        let others = examples.iter().filter(|other| !other.truth.is_kin(&example.truth));
        by_image.insert(example.truth.image.clone(), f1(example, predicted, threshold(others, predicted)));
    }
    let judged = predicted.iter().filter(|(image, _)| by_image.contains_key(*image)).flat_map(|(_, judged)| judged);
    let (brier, reliability) = calibration(judged);
    let f1 = by_image.values().sum::<f64>() / by_image.len().max(1) as f64;
    Figures { f1, brier, reliability, by_image }
}

/// The control that opens no image: calls that at least half of the images of other families made.
pub(crate) fn control(examples: &[Example], example: &Example) -> BTreeSet<String> {
    let others: Vec<&Example> = examples.iter().filter(|other| !other.truth.is_kin(&example.truth)).collect();
    let mut counts = BTreeMap::<&str, usize>::new();
    for name in others.iter().flat_map(|other| &other.truth.syscalls) {
        *counts.entry(name).or_default() += 1;
    }
    counts.into_iter().filter(|(_, count)| count * 2 >= others.len()).map(|(name, _)| name.to_owned()).collect()
}

/// The model to ship: of all images, calibrated on the predictions of families left out.
pub(crate) fn model(examples: &[Example], predicted: &LeftOut, about: String) -> anyhow::Result<Model> {
    let all: Vec<&Example> = examples.iter().collect();
    let (constant, weights) = learn(&all)?;
    let odds = |probability: f64| (probability / (1.0 - probability).max(1e-9)).max(1e-9).ln();
    let rows: Vec<([f64; 1], bool)> =
        predicted.values().flatten().map(|(_, probability, made)| ([odds(*probability)], *made)).collect();
    let (shift, scale) = fit(&rows, 0.0)?;
    let scale = scale.first().copied().unwrap_or(1.0);
    let calibrate = |probability: f64| 1.0 / (1.0 + (-(shift + scale * odds(probability))).exp());
    let at = calibrate(threshold(examples.iter(), predicted));
    let open = figures(examples, predicted, "open");
    let rounded = |value: f64, digits: i32| (value * 10f64.powi(digits)).round() / 10f64.powi(digits);
    let judged = predicted.values().flatten();
    let metrics = [
        ("images", examples.len() as f64),
        ("families", examples.iter().map(|it| it.truth.families()).collect::<BTreeSet<_>>().len() as f64),
        ("brier_all", rounded(calibration(judged).0, 4)),
        ("brier_open", rounded(open.brier, 4)),
        ("f1_open", rounded(open.f1, 4)),
        ("calibration_scale", rounded(scale, 4)),
        ("calibration_shift", rounded(shift, 4)),
    ];
    Ok(Model {
        about,
        metrics: metrics.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        threshold: rounded(at, 2),
        constant: rounded(shift + scale * constant, 6),
        weights: weights.into_iter().map(|weight| rounded(scale * weight, 6)).collect(),
        seen: examples.iter().map(|example| example.seen.clone()).collect(),
    })
}

/// How strongly weights are held back (L2).
const STRENGTH: f64 = 10.0;
