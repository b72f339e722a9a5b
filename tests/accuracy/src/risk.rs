//! The training of the model for risks: from labeled streams to `runtime-bridge/model/risk.json`.
//!
//! ```text
//! streams + DNA ─examples─► runtime-bridge/model/examples.ndjson.gz ─train─► runtime-bridge/model/risk.json
//! ```
//!
//! An example is an alert of an episode: the first deviation of its class and subject. Episodes are attacks, benign deeds, and all else that a
//! container did, its workload. They were recorded within seconds of each other; here each begins with nothing earlier, as if hours lay
//! between. Streams of one image are containers beside each other: what the workload of one raises is known when the other raises it.

mod forest;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::train::fit;
use anyhow::{Context as _, ensure};
use dna::{Activity, Dna};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use forest::Growth;
use jiff::SignedDuration;
use runtime_bridge::{
    Class, Expected, History, judge_accepting,
    risk::{Data, Features, Figures, Model, NAMES, Node, Past, Whose, features, odds},
    sensor::{self, Dialect, Told},
};
use serde::{Deserialize, Serialize};

/// What all examples have in common.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct About {
    /// The last day of the streams.
    pub(crate) recorded: String,
    /// Names of the features, in order.
    pub(crate) features: Vec<String>,
    /// Events recorded, of which few are deviations; of an image recorded again, both times.
    pub(crate) events: u64,
    /// Attacks and deeds, and those of them that raised nothing.
    pub(crate) episodes: BTreeMap<Kind, u64>,
    pub(crate) silent: Vec<Episode>,
}

/// What a container was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Attack,
    Deed,
    Workload,
}

/// A part of a stream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Episode {
    pub(crate) image: String,
    pub(crate) stream: u8,
    pub(crate) kind: Kind,
    pub(crate) name: String,
}

/// An alert of an episode.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Example {
    #[serde(flatten)]
    pub(crate) episode: Episode,
    pub(crate) class: Class,
    /// Only what is not 0, by place.
    values: BTreeMap<usize, f64>,
}

impl Example {
    pub(crate) const fn is_attack(&self) -> bool {
        matches!(self.episode.kind, Kind::Attack)
    }

    pub(crate) fn image(&self) -> &str {
        &self.episode.image
    }

    pub(crate) fn features(&self) -> Features {
        std::array::from_fn(|place| self.values.get(&place).copied().unwrap_or_default())
    }

    /// The risk by rules alone.
    pub(crate) fn rules(&self) -> f64 {
        self.values.get(&0).copied().unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct Line {
    truth: Label,
}

#[derive(Deserialize)]
struct Label {
    attack: Option<String>,
    #[serde(default)]
    deed: Option<String>,
}

struct Item {
    after: SignedDuration,
    activity: Activity,
    episode: Episode,
}

/// The examples of one image's streams.
pub(crate) fn of_image(
    image: &str,
    dna: &Path,
    streams: &[PathBuf],
    about: &mut About,
) -> anyhow::Result<Vec<Example>> {
    let json = fs::read(dna).with_context(|| format!("cannot read {}", dna.display()))?;
    let expected = Expected::of_image(&Dna::from_json(&json)?);
    let mut items = Vec::new();
    for (number, stream) in streams.iter().enumerate() {
        items.extend(read(image, u8::try_from(number)?, stream, about)?);
    }
    // Containers that run beside each other.
    items.sort_by_key(|item| item.after);
    let mut histories: BTreeMap<u8, History> = BTreeMap::new();
    let (mut past, mut told) = (Past::default(), BTreeSet::new());
    let mut examples = Vec::new();
    let mut episodes: BTreeMap<Episode, bool> = BTreeMap::new();
    for Item { activity, episode, .. } in &items {
        let history = histories.entry(episode.stream).or_default();
        let judged = judge_accepting(&expected, history, activity, |_| false);
        *episodes.entry(episode.clone()).or_default() |= !judged.deviations.is_empty();
        let whose = Whose { owner: number(episode), image: 0, container: u64::from(episode.stream) };
        past.meet(whose, activity.at);
        for deviation in &judged.deviations {
            let earlier = past.earlier(whose, deviation, activity.at);
            // Others do not know of what was done to this container: it was done to it alone.
            let image = if episode.kind == Kind::Workload { whose.image } else { number(episode) };
            past.keep(Whose { image, ..whose }, deviation, activity.at);
            if !told.insert((episode.clone(), deviation.class, deviation.subject.clone())) {
                continue;
            }
            let rounded = |value: f64| (value * 1e4).round() / 1e4;
            let values = features(deviation, &judged.scene, &earlier).into_iter().map(rounded).enumerate();
            let values = values.filter(|(_, value)| *value != 0.0).collect();
            examples.push(Example { episode: episode.clone(), class: deviation.class, values });
        }
    }
    for (episode, is_told) in episodes {
        *about.episodes.entry(episode.kind).or_default() += 1;
        if !is_told {
            about.silent.push(episode);
        }
    }
    Ok(examples)
}

fn read(image: &str, number: u8, stream: &Path, about: &mut About) -> anyhow::Result<Vec<Item>> {
    let text = fs::read_to_string(stream).with_context(|| format!("cannot read {}", stream.display()))?;
    let mut items = Vec::new();
    let mut began = None;
    for (index, line) in text.lines().enumerate() {
        let place = || format!("{}:{}", stream.display(), index + 1);
        let Line { truth: Label { attack, deed } } = serde_json::from_str(line).with_context(place)?;
        about.events += 1;
        let Told::Activity(activity) = sensor::decode(Dialect::Falco, line.as_bytes()).with_context(place)? else {
            continue;
        };
        let (kind, name) = match (attack, deed) {
            (Some(attack), _) => (Kind::Attack, attack),
            (None, Some(deed)) => (Kind::Deed, deed),
            (None, None) => (Kind::Workload, String::new()),
        };
        let day = activity.at.strftime("%Y-%m-%d").to_string();
        if day > about.recorded {
            about.recorded = day;
        }
        let began = *began.get_or_insert(activity.at);
        let episode = Episode { image: image.to_owned(), stream: number, kind, name };
        items.push(Item {
            after: activity.at.duration_since(began),
            activity: Arc::unwrap_or_clone(activity),
            episode,
        });
    }
    Ok(items)
}

/// The same on every machine.
fn number(episode: &Episode) -> u64 {
    let mut hasher = DefaultHasher::new();
    episode.hash(&mut hasher);
    hasher.finish()
}

/// Keeps examples: the first line is about all of them.
pub(crate) fn write(file: &Path, about: &About, examples: &[Example]) -> anyhow::Result<()> {
    let mut text = GzEncoder::new(Vec::new(), Compression::best());
    serde_json::to_writer(&mut text, about)?;
    for example in examples {
        text.write_all(b"\n")?;
        serde_json::to_writer(&mut text, example)?;
    }
    fs::write(file, text.finish()?).with_context(|| format!("cannot write {}", file.display()))
}

/// Reads what was kept.
pub(crate) fn kept(file: &Path) -> anyhow::Result<(About, Vec<Example>)> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut text = String::new();
    GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).with_context(|| file.display().to_string())?;
    let mut lines = text.lines();
    let about: About = serde_json::from_str(lines.next().context("no example")?)?;
    ensure!(
        about.features == *NAMES,
        "{} has other features than this version: remove it, and make it anew with `accuracy risk-examples`",
        file.display()
    );
    let examples = lines.map(|line| Ok(serde_json::from_str(line)?)).collect::<anyhow::Result<_>>()?;
    Ok((about, examples))
}

/// What was kept of other images than these; nothing where there is no file.
pub(crate) fn of_others(file: &Path, images: &BTreeMap<String, Vec<PathBuf>>) -> anyhow::Result<(About, Vec<Example>)> {
    if !file.exists() {
        return Ok((About { features: NAMES.clone(), ..About::default() }, Vec::new()));
    }
    let (mut about, mut examples) = kept(file)?;
    let is_again = |episode: &Episode| images.contains_key(&episode.image);
    let again: BTreeSet<Episode> = examples
        .iter()
        .map(|example| &example.episode)
        .chain(&about.silent)
        .filter(|episode| is_again(episode))
        .cloned()
        .collect();
    for episode in again {
        about.episodes.entry(episode.kind).and_modify(|count| *count -= 1);
    }
    about.silent.retain(|episode| !is_again(episode));
    examples.retain(|example| !is_again(&example.episode));
    Ok((about, examples))
}

/// Images are left out in so many turns, and kinds of attacks and deeds in so many within each.
const FOLDS: usize = 8;
const FOLDS_OF_KINDS: usize = 4;
/// Examples of a class from which on it is learned.
const LEAST: usize = 30;
/// Deeper trees with smaller leaves do better on attacks and deeds that they know, and worse on others.
const GROWTH: Growth = Growth { trees: 60, depth: 6, leaf: 20, tried: 8, seed: 7 };

/// What training came to.
pub(crate) struct Trained {
    pub(crate) model: Model,
    pub(crate) ranks: Vec<(&'static str, Rank)>,
    /// By tenths of probability: examples, their mean, and the share of attacks.
    pub(crate) reliability: Vec<(usize, f64, f64)>,
}

/// How episodes rank, by the highest of their examples.
#[derive(Debug, Default)]
pub(crate) struct Rank {
    /// Attacks that raise anything, and those that raise something above all that is benign: in the workload of their image, in deeds too, in
    /// all that is benign in their own container.
    pub(crate) attacks: usize,
    pub(crate) above_workload: usize,
    pub(crate) above_all: usize,
    pub(crate) above_container: usize,
    /// Containers with attacks, and those where the highest of them is above all that is benign there.
    pub(crate) attacked: usize,
    pub(crate) attacked_above: usize,
    /// Attacks that are told at once, and images of whose workload, or deeds, anything is.
    pub(crate) told: usize,
    pub(crate) images: usize,
    pub(crate) noisy_workload: usize,
    pub(crate) noisy_deeds: usize,
    /// Deeds of which anything is told, of all that raise anything.
    pub(crate) deeds: usize,
    pub(crate) told_deeds: usize,
}

/// Trains the model, and judges it on images left out.
pub(crate) fn train(about: &About, examples: &[Example], is_thorough: bool) -> anyhow::Result<Trained> {
    let images: BTreeSet<&str> = examples.iter().map(Example::image).collect();
    let place: BTreeMap<&str, usize> =
        images.iter().enumerate().map(|(index, image)| (*image, index % FOLDS)).collect();
    let fold = |example: &Example| place.get(example.image()).copied().unwrap_or_default();
    let all: Vec<&Example> = examples.iter().collect();
    let shares = left_out(examples, fold, |_| 0, 1)?;
    let calibrated = calibrated(examples, &shares, fold)?;
    let rules: Vec<f64> = examples.iter().map(Example::rules).collect();
    let by_class: Vec<f64> = examples.iter().map(|example| class_alone(&all, example, fold)).collect();
    let mut ways = vec![("rules", rules), ("class", by_class), ("model", calibrated)];
    if is_thorough {
        // Of attacks and deeds of the same name, in whatever image, nothing was seen either.
        let names: BTreeSet<(Kind, &str)> =
            examples.iter().map(|example| (example.episode.kind, example.episode.name.as_str())).collect();
        let of_kind: BTreeMap<_, usize> =
            names.into_iter().enumerate().map(|(index, name)| (name, index % FOLDS_OF_KINDS)).collect();
        let kind = |example: &Example| {
            of_kind.get(&(example.episode.kind, example.episode.name.as_str())).copied().unwrap_or_default()
        };
        let strict = left_out(examples, fold, kind, FOLDS_OF_KINDS)?;
        ways.push(("modelOfOtherKinds", self::calibrated(examples, &strict, fold)?));
    }
    let mut counts: BTreeMap<Class, usize> = BTreeMap::new();
    for example in examples {
        *counts.entry(example.class).or_default() += 1;
    }
    let classes = counts.into_iter().filter(|(_, count)| *count >= LEAST).map(|(class, _)| class).collect();
    let calibration = curve(examples.iter().zip(shares.iter().copied()))?;
    let of = |kind| about.episodes.get(&kind).copied().unwrap_or_default();
    let data = Data {
        recorded: about.recorded.clone(),
        images: images.len() as u64,
        events: about.events,
        examples: examples.len() as u64,
        of_attacks: examples.iter().filter(|example| example.is_attack()).count() as u64,
        attacks: of(Kind::Attack),
        deeds: of(Kind::Deed),
    };
    let text = format!(
        "Probability that a deviation is part of an attack: a random forest over features of the deviation, the DNA, the process's \
         ancestry and what came earlier, calibrated by a logistic curve. Made by `cargo run --release -p accuracy -- risk` from \
         runtime-bridge/model/examples.ndjson.gz (recorded in containers of Debian 12 packages, x86-64, Linux 6.18, until {}). The figures are \
         of images left out.",
        about.recorded
    );
    let mut model = Model::new(text, data, classes, calibration, forest(&all))?;
    for (name, probabilities) in &ways {
        model.figures.insert((*name).to_owned(), figures(examples, probabilities));
    }
    let beats = |other: &str| {
        model.figures.get("model").zip(model.figures.get(other)).is_some_and(|(one, other)| one.beat(other))
    };
    model.is_on = beats("rules") && beats("class");
    let reliability = ways.iter().find(|(name, _)| *name == "model").map(|(_, way)| reliability(examples, way));
    let ranks = ways.iter().map(|(name, way)| (*name, rank(examples, way))).collect();
    Ok(Trained { model, ranks, reliability: reliability.unwrap_or_default() })
}

/// The share that a forest gives each example which saw neither its image nor, of kinds in several folds, its kind.
fn left_out(
    examples: &[Example],
    fold: impl Fn(&Example) -> usize,
    kind: impl Fn(&Example) -> usize,
    kinds: usize,
) -> anyhow::Result<Vec<f64>> {
    let mut shares = vec![0.5; examples.len()];
    for turn in 0..FOLDS {
        for part in 0..kinds {
            // A workload has no kind: all of its images learn from others' workloads.
            let is_kept =
                |example: &Example| kinds == 1 || example.episode.kind == Kind::Workload || kind(example) != part;
            let seen: Vec<&Example> =
                examples.iter().filter(|example| fold(example) != turn && is_kept(example)).collect();
            ensure!(!seen.is_empty(), "fewer than two images");
            let trees = Model::new(String::new(), Data::default(), BTreeSet::new(), [0.0, 1.0], forest(&seen))?;
            for (share, example) in shares.iter_mut().zip(examples) {
                if fold(example) == turn && (kinds == 1 || kind(example) == part) {
                    *share = trees.probability(&example.features());
                }
            }
        }
    }
    Ok(shares)
}

fn forest(examples: &[&Example]) -> Vec<Vec<Node>> {
    let rows: Vec<(Features, bool)> =
        examples.iter().map(|example| (example.features(), example.is_attack())).collect();
    forest::grow(&rows, GROWTH)
}

/// Constant and factor of the logistic curve that fits shares best.
fn curve<'a>(judged: impl Iterator<Item = (&'a Example, f64)>) -> anyhow::Result<[f64; 2]> {
    let rows: Vec<([f64; 1], bool)> = judged.map(|(example, share)| ([odds(share)], example.is_attack())).collect();
    let (constant, factors) = fit(&rows, 0.0)?;
    let rounded = |value: f64| (value * 1e6).round() / 1e6;
    Ok([rounded(constant), rounded(factors.first().copied().unwrap_or(1.0))])
}

/// The curve that judges an image is fitted without it.
fn calibrated(examples: &[Example], shares: &[f64], fold: impl Fn(&Example) -> usize) -> anyhow::Result<Vec<f64>> {
    let mut probabilities = vec![0.5; examples.len()];
    for turn in 0..FOLDS {
        let judged = examples.iter().zip(shares.iter().copied());
        let [constant, factor] = curve(judged.filter(|(example, _)| fold(example) != turn))?;
        for ((probability, share), example) in probabilities.iter_mut().zip(shares).zip(examples) {
            if fold(example) == turn {
                *probability = 1.0 / (1.0 + (-(constant + factor * odds(*share))).exp());
            }
        }
    }
    Ok(probabilities)
}

/// The share of attacks of the class among other images.
fn class_alone(all: &[&Example], example: &Example, fold: impl Fn(&Example) -> usize) -> f64 {
    let of_class = all.iter().filter(|other| other.class == example.class && fold(other) != fold(example));
    let (count, attacks) =
        of_class.fold((0, 0), |(count, attacks), other| (count + 1, attacks + i32::from(other.is_attack())));
    (f64::from(attacks) + 1.0) / (f64::from(count) + 2.0)
}

fn figures(examples: &[Example], probabilities: &[f64]) -> Figures {
    let mut judged: Vec<(f64, bool)> =
        probabilities.iter().copied().zip(examples.iter().map(Example::is_attack)).collect();
    judged.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    let attacks = judged.iter().filter(|(_, is_attack)| *is_attack).count() as f64;
    let benign = judged.len() as f64 - attacks;
    let (mut hits, mut misses, mut ordered, mut precision) = (0.0, 0.0, 0.0, 0.0);
    // Those of one probability stand in no order.
    for equal in judged.chunk_by(|(one, _), (other, _)| one == other) {
        let of_attacks = equal.iter().filter(|(_, is_attack)| *is_attack).count() as f64;
        let of_benign = equal.len() as f64 - of_attacks;
        ordered += of_attacks * (benign - misses - of_benign / 2.0);
        (hits, misses) = (hits + of_attacks, misses + of_benign);
        precision += of_attacks / attacks * hits / (hits + misses);
    }
    let error = |(probability, is_attack): &(f64, bool)| (probability - if *is_attack { 1.0 } else { 0.0 }).powi(2);
    let rounded = |value: f64| (value * 1e4).round() / 1e4;
    Figures {
        auc: rounded(ordered / (attacks * benign)),
        average_precision: rounded(precision),
        brier: rounded(judged.iter().map(error).sum::<f64>() / judged.len() as f64),
    }
}

fn reliability(examples: &[Example], probabilities: &[f64]) -> Vec<(usize, f64, f64)> {
    let tenth = |index: usize| {
        let is_of = |(probability, _): &(&f64, &Example)| ((**probability * 10.0) as usize).min(9) == index;
        let some: Vec<(&f64, &Example)> = probabilities.iter().zip(examples).filter(is_of).collect();
        let count = some.len().max(1) as f64;
        let attacks = some.iter().filter(|(_, example)| example.is_attack()).count() as f64;
        (some.len(), some.iter().map(|(probability, _)| **probability).sum::<f64>() / count, attacks / count)
    };
    (0..10).map(tenth).collect()
}

fn rank(examples: &[Example], probabilities: &[f64]) -> Rank {
    let mut highest: BTreeMap<&Episode, f64> = BTreeMap::new();
    for (example, probability) in examples.iter().zip(probabilities) {
        let highest = highest.entry(&example.episode).or_default();
        *highest = highest.max(*probability);
    }
    // Streams of an image are containers of it: an attack is to stand out in any.
    let of = |image: &str, stream: Option<u8>, kinds: &[Kind]| {
        let is_of = |episode: &Episode| {
            episode.image == image
                && stream.is_none_or(|stream| episode.stream == stream)
                && kinds.contains(&episode.kind)
        };
        highest.iter().filter(|(episode, _)| is_of(episode)).map(|(_, highest)| *highest).fold(0.0, f64::max)
    };
    const BENIGN: [Kind; 2] = [Kind::Workload, Kind::Deed];
    let mut rank = Rank::default();
    for (episode, highest) in &highest {
        let is_told = *highest >= runtime_bridge::alert::NOTIFY;
        match episode.kind {
            Kind::Attack => {
                rank.attacks += 1;
                rank.told += usize::from(is_told);
                rank.above_workload += usize::from(*highest > of(&episode.image, None, &[Kind::Workload]));
                rank.above_all += usize::from(*highest > of(&episode.image, None, &BENIGN));
                rank.above_container += usize::from(*highest > of(&episode.image, Some(episode.stream), &BENIGN));
            }
            Kind::Deed => {
                rank.deeds += 1;
                rank.told_deeds += usize::from(is_told);
            }
            Kind::Workload => {}
        }
    }
    let images: BTreeSet<&str> = examples.iter().map(Example::image).collect();
    let noisy = |kind| images.iter().filter(|image| of(image, None, &[kind]) >= runtime_bridge::alert::NOTIFY).count();
    let containers: BTreeSet<(&str, u8)> =
        highest.keys().map(|episode| (episode.image.as_str(), episode.stream)).collect();
    for (image, stream) in containers {
        let highest = of(image, Some(stream), &[Kind::Attack]);
        rank.attacked += usize::from(highest > 0.0);
        rank.attacked_above += usize::from(highest > of(image, Some(stream), &BENIGN));
    }
    rank.images = images.len();
    rank.noisy_workload = noisy(Kind::Workload);
    rank.noisy_deeds = noisy(Kind::Deed);
    rank
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Anybody can make the shipped model from what is kept.
    #[test]
    fn what_is_kept_makes_the_shipped_model() -> anyhow::Result<()> {
        let folder = crate::here().join("../../runtime-bridge/model");
        let (about, examples) = kept(&folder.join("examples.ndjson.gz"))?;
        let trained = train(&about, &examples, false)?;
        let mut shipped = Model::parse(&fs::read(folder.join("risk.json"))?)?;
        // It takes most of the time, and is no part of the model.
        shipped.figures.remove("modelOfOtherKinds");
        assert!(trained.model == shipped, "`accuracy risk` makes another model");
        Ok(())
    }

    #[test]
    fn an_image_recorded_again_takes_the_place_of_its_own() -> anyhow::Result<()> {
        let file = crate::here().join("../../runtime-bridge/model/examples.ndjson.gz");
        let (all, examples) = kept(&file)?;
        let silent = all.silent.iter().map(|episode| episode.image.as_str());
        let images: BTreeSet<&str> = examples.iter().map(Example::image).chain(silent).collect();
        let others = images.into_iter().filter(|image| *image != "nginx");
        let (about, of_nginx) = of_others(&file, &others.map(|image| (image.to_owned(), Vec::new())).collect())?;
        assert!(of_nginx.iter().all(|example| example.image() == "nginx"));
        assert_eq!(of_nginx.len(), examples.iter().filter(|example| example.image() == "nginx").count());
        // Two containers of it.
        assert_eq!(about.episodes.get(&Kind::Workload), Some(&2));
        assert!(about.episodes.get(&Kind::Attack) < all.episodes.get(&Kind::Attack));
        assert!(about.silent.iter().all(|episode| episode.image == "nginx"));
        Ok(())
    }

    #[test]
    fn figures_are_those_of_their_definitions() {
        let example = |kind| Example {
            episode: Episode { image: String::new(), stream: 0, kind, name: String::new() },
            class: Class::Write,
            values: BTreeMap::new(),
        };
        let examples: Vec<Example> = [Kind::Attack, Kind::Deed, Kind::Attack, Kind::Workload].map(example).into();
        let perfect = figures(&examples, &[0.9, 0.1, 0.8, 0.2]);
        assert_eq!(perfect, Figures { auc: 1.0, average_precision: 1.0, brier: 0.025 });
        // Of pairs of one each: two are in order, one is not, one is a tie. Precision at hits: 1 of 1, 2 of 4 at a tie.
        let mixed = figures(&examples, &[0.9, 0.8, 0.3, 0.3]);
        assert_eq!(mixed, Figures { auc: 0.625, average_precision: 0.75, brier: 0.3075 });
        let equal = figures(&examples, &[0.5; 4]);
        assert_eq!(equal, Figures { auc: 0.5, average_precision: 0.5, brier: 0.25 });
    }
}
