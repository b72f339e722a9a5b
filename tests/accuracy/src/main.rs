//! How well the prediction matches what the kernel saw, and the training of the model for system calls. docs/accuracy.md is the
//! page to it; everything it needs but the images is in this folder.
//!
//! ```text
//! accuracy score IMAGES       analyzes the images of a folder and judges the prediction, beside two controls
//! accuracy traits IMAGES      analyzes the images of a folder and keeps how their code leads to calls (traits/)
//! accuracy train              makes the model (analyzer/data/syscall-model.toml) from truth/ and traits/
//! accuracy machines FOLDER    makes the same images for two machines in a folder, and compares the predictions
//! accuracy detect IMAGES RESULTS   compares recorded intrusions (RESULTS/attacks/NAME.ndjson) with the DNA of their images
//! accuracy risk-examples DNA OUT STREAM...   keeps what of labeled streams is a deviation, with its features, in place of what OUT has
//!                             of the same images
//! accuracy risk               makes the model for risks (runtime-bridge/model/risk.json) from runtime-bridge/model/examples.ndjson.gz
//! accuracy import RESULTS     keeps recorded runs (truth/), RESULTS as the recorder writes them: LIST/NAME.json
//! ```

mod detect;
mod glob;
mod machines;
mod risk;
mod score;
mod train;
mod traits;
mod truth;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
};

use analyzer::{
    Analysis,
    expect::{Container, Model},
};
use anyhow::{Context as _, bail, ensure};
use score::{DIMENSIONS, Lists, Score};
use train::Example;
use truth::Truth;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["score", images] => judge(Path::new(images)),
        ["traits", images] => keep_traits(Path::new(images)),
        ["train"] => train(),
        ["machines", folder] => compare_machines(Path::new(folder)),
        ["detect", images, results] => detect_attacks(Path::new(images), Path::new(results)),
        ["risk-examples", dna, out, streams @ ..] => keep_examples(Path::new(dna), Path::new(out), streams),
        ["risk"] => train_risk(),
        ["import", results] => import(Path::new(results)),
        _ => bail!(
            "accuracy score IMAGES | traits IMAGES | train | machines FOLDER | detect IMAGES RESULTS | \
             risk-examples DNA OUT STREAM... | risk | import RESULTS"
        ),
    }
}

/// Figures that the prediction must not fall below, over the open images: what this version reaches. docs/accuracy.md has the aims.
const FLOORS: &[(&str, f64)] = &[
    ("exec recall", 0.90),
    ("load recall", 0.95),
    ("syscalls recall", 0.98),
    ("syscalls f1", 0.80),
    ("syscalls f1 left out", 0.80),
    ("syscalls f1 over the control", 0.03),
];

/// Of the calls seen only at start-up, the share marked so, as a mean over images; none seen while serving may be.
const MIN_PHASES: f64 = 0.01;

/// Calls that are possible, on average: no more than this.
const MAX_SIZE: f64 = 150.0;

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The image layouts of a folder that the kernel's record is kept of.
fn layouts(folder: &Path) -> anyhow::Result<Vec<(Truth, PathBuf)>> {
    let all = Truth::all(&here().join("truth"))?.into_iter().map(|truth| {
        let layout = folder.join(&truth.image);
        (truth, layout)
    });
    let found: Vec<_> = all.filter(|(_, layout)| layout.join("index.json").exists()).collect();
    ensure!(!found.is_empty(), "no image in {}", folder.display());
    Ok(found)
}

fn analyze(layout: &Path) -> anyhow::Result<Analysis> {
    analyze_for(layout, None)
}

fn analyze_for(layout: &Path, machine: Option<&str>) -> anyhow::Result<Analysis> {
    let platform = machine.map(|machine| format!("linux/{machine}").parse()).transpose()?;
    let options = oci::Options { platform, ..oci::Options::default() };
    let images = oci::open(&format!("oci:{}", layout.display()).parse()?, &options)?;
    let image = images.first().context("no image")?;
    let progress = analyzer::Progress::start(&options.limits);
    Ok(analyzer::analyze(image, &options.limits, &progress)?)
}

/// Attacks of a hundred that must raise a deviation, and benign events of ten thousand that may.
const MIN_DETECTED: f64 = 0.92;
const MAX_FALSE: f64 = 5.0;

/// Recorded intrusions against the DNA of their images.
#[expect(clippy::print_stdout, reason = "the command's answer")]
fn detect_attacks(images: &Path, results: &Path) -> anyhow::Result<()> {
    let mut streams: Vec<PathBuf> =
        fs::read_dir(results.join("attacks"))?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    streams.retain(|stream| stream.extension().is_some_and(|ending| ending == "ndjson"));
    streams.sort();
    let (mut attacks, mut hits, mut by_profile, mut benign, mut false_alerts, mut false_by_profile) =
        (0, 0, 0, 0, 0, 0);
    for stream in &streams {
        let name = stream.file_stem().and_then(|name| name.to_str()).context("a name")?;
        let dna = analyze(&images.join(name))?.dna;
        let profile = detect::Profile::read(&results.join(format!("{name}.json")))?;
        let found = detect::detect(&dna, stream, &profile)?;
        let missed: Vec<&str> =
            found.attacks.iter().filter(|(_, hit)| !**hit).map(|(attack, _)| attack.as_str()).collect();
        println!(
            "{name:16} {:>2} of {:>2} attacks (a perfect profile: {:>2}), {} of {} benign events (a perfect profile: {}); missed: {}",
            found.attacks.len() - missed.len(),
            found.attacks.len(),
            found.by_profile.len(),
            found.false_alerts.len(),
            found.benign,
            found.false_by_profile,
            missed.join(" "),
        );
        for message in found.false_alerts.iter().take(5) {
            println!("  benign: {message}");
        }
        attacks += found.attacks.len();
        hits += found.attacks.len() - missed.len();
        by_profile += found.by_profile.len();
        benign += found.benign;
        false_alerts += found.false_alerts.len();
        false_by_profile += found.false_by_profile;
    }
    ensure!(attacks > 0 && benign > 0, "no stream in {}", results.display());
    #[expect(clippy::cast_precision_loss, reason = "counts of events")]
    let (share, noise, profile) = (
        hits as f64 / attacks as f64,
        false_alerts as f64 * 10_000.0 / benign as f64,
        by_profile as f64 / attacks as f64,
    );
    println!(
        "in all {share:.3} of {attacks} attacks (a perfect profile: {profile:.3}), {noise:.1} of 10,000 benign events ({false_by_profile} of {benign} by the profile)"
    );
    ensure!(share >= MIN_DETECTED, "fewer than {MIN_DETECTED} of the attacks raise a deviation");
    ensure!(noise <= MAX_FALSE, "more than {MAX_FALSE} of 10,000 benign events raise one");
    Ok(())
}

/// Deviations of labeled streams, which are named by their images.
#[expect(clippy::print_stdout, reason = "the command's answer")]
fn keep_examples(dna: &Path, out: &Path, streams: &[&str]) -> anyhow::Result<()> {
    let mut by_image: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for stream in streams.iter().map(PathBuf::from) {
        let image = stream.file_stem().and_then(|name| name.to_str()).context("a name")?;
        by_image.entry(image.to_owned()).or_default().push(stream);
    }
    let (mut about, mut examples) = risk::of_others(out, &by_image)?;
    for (image, streams) in &by_image {
        let of_image = risk::of_image(image, &dna.join(format!("{image}.json")), streams, &mut about)?;
        let attacks = of_image.iter().filter(|example| example.is_attack()).count();
        println!("{image:16} {:>4} examples, {attacks} of attacks", of_image.len());
        examples.extend(of_image);
    }
    // In order of images: equal examples make equal bytes.
    examples.sort_by(|one, other| one.image().cmp(other.image()));
    about.silent.sort();
    println!("{} examples, {:?}, silent: {:?}", examples.len(), about.episodes, about.silent);
    risk::write(out, &about, &examples)
}

/// The model for risks, and how well it does.
#[expect(clippy::print_stdout, reason = "the command's answer")]
fn train_risk() -> anyhow::Result<()> {
    let folder = here().join("../../runtime-bridge/model");
    let (about, examples) = risk::kept(&folder.join("examples.ndjson.gz"))?;
    let risk::Trained { model, ranks, reliability } = risk::train(&about, &examples, true)?;
    println!("{:?}\nclasses learned: {:?}", model.data, model.classes);
    for (name, figures) in &model.figures {
        println!(
            "{name:18} AUC {:.4}, average precision {:.4}, Brier score {:.4}",
            figures.auc, figures.average_precision, figures.brier
        );
    }
    for (name, rank) in &ranks {
        println!("{name:18} {rank:?}");
    }
    println!("  probability  examples  mean  attacks");
    for (index, (count, mean, attacks)) in reliability.iter().enumerate() {
        println!("  0.{index} and more {count:>8}  {mean:.2}  {attacks:.2}");
    }
    let mut text = serde_json::to_string(&model)?;
    text.push('\n');
    let file = folder.join("risk.json");
    fs::write(&file, text)?;
    let state = if model.is_on { "on" } else { "off" };
    println!("{} trees, switched {state}, written to {}", model.trees.len(), file.display());
    Ok(())
}

/// The same images for two machines.
#[expect(clippy::print_stdout, reason = "the command's answer")]
fn compare_machines(folder: &Path) -> anyhow::Result<()> {
    let machines = machines::Machines::read(&here().join("machines.toml"))?;
    let truths = Truth::all(&here().join("truth"))?;
    let mut under = Vec::new();
    for image in &machines.image {
        let mut sets = Vec::new();
        for machine in machines::PAIR {
            let layout = machines.layout(image, machine, folder)?;
            let dna = serde_json::to_value(&analyze_for(&layout, Some(machine))?.dna)?;
            let (mut wide, _) = score::lists(&dna);
            sets.push(machines.families(&wide.remove("syscalls").unwrap_or_default()));
        }
        let [one, other] = sets.as_slice() else { bail!("two machines") };
        let likeness = machines::compare(one, other);
        let short = if likeness.jaccard < machines::AIM { "  short of the aim" } else { "" };
        println!("{:16} {:.3}  {} and {} calls{short}", image.name, likeness.jaccard, one.len(), other.len());
        for (machine, alone) in machines::PAIR.iter().zip([&likeness.one, &likeness.other]) {
            if !alone.is_empty() {
                println!("  {machine} alone: {}", alone.join(" "));
            }
        }
        if let Some(truth) = truths.iter().find(|truth| truth.image == image.name) {
            let seen = machines.families(&truth.syscalls);
            for (machine, calls) in machines::PAIR.iter().zip(&sets) {
                let missed: Vec<&str> = seen.difference(calls).map(String::as_str).collect();
                println!("  {machine} lacks of what x86-64 was seen to call: {}", missed.join(" "));
            }
        }
        if likeness.jaccard < machines::FLOOR {
            under.push(format!("{} {:.3}", image.name, likeness.jaccard));
        }
    }
    ensure!(under.is_empty(), "less alike than {}: {}", machines::FLOOR, under.join(", "));
    Ok(())
}

/// Images with kept traits.
fn examples() -> anyhow::Result<Vec<Example>> {
    let mut examples = Vec::new();
    for truth in Truth::all(&here().join("truth"))? {
        let file = here().join("traits").join(format!("{}.txt", truth.image));
        if file.exists() {
            examples.push(Example::new(truth, traits::read(&file)?));
        }
    }
    Ok(examples)
}

#[expect(clippy::print_stdout, reason = "the command's answer")]
fn keep_traits(images: &Path) -> anyhow::Result<()> {
    let folder = here().join("traits");
    fs::create_dir_all(&folder)?;
    for (truth, layout) in layouts(images)? {
        let text = traits::write(&Container::new(&analyze(&layout)?.traits));
        fs::write(folder.join(format!("{}.txt", truth.image)), text)?;
        println!("{}", truth.image);
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the command's answer")]
fn train() -> anyhow::Result<()> {
    let examples = examples()?;
    let predicted = train::left_out(&examples)?;
    let open = train::figures(&examples, &predicted, "open");
    print_figures(&open);
    let about = "System calls of containers: logistic regression over how code leads to a call and how often containers of other \
                 families make it. Made by `cargo run --release -p accuracy -- train` from tests/accuracy/truth and \
                 tests/accuracy/traits (Debian 12 packages, x86-64, Linux 6.18, recorded in November 2026). The figures are of \
                 families left out.";
    let model = train::model(&examples, &predicted, about.to_owned())?;
    let file = here().join("../../analyzer/data/syscall-model.toml");
    fs::write(&file, text(&model))?;
    println!("{} images, threshold {}, written to {}", examples.len(), model.threshold, file.display());
    for (name, weight) in analyzer::expect::FEATURES.iter().zip(&model.weights) {
        println!("{weight:>10.4}  {name}");
    }
    Ok(())
}

/// The model as text: the same model gives the same bytes.
fn text(model: &Model) -> String {
    let list = |names: &BTreeSet<String>| {
        let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        quoted.join(", ")
    };
    let mut text = format!("about = {:?}\nthreshold = {:?}\n", model.about, model.threshold);
    text += &format!("constant = {:?}\nweights = {:?}\n\n[metrics]\n", model.constant, model.weights);
    for (name, value) in &model.metrics {
        text += &format!("{name} = {value:?}\n");
    }
    for seen in &model.seen {
        text += &format!("\n[[seen]]\nimage = {:?}\nkind = {:?}\n", seen.image, seen.kind);
        let ways: Vec<String> =
            seen.calls.iter().map(|(name, way)| format!("{name} = {:?}", String::from(*way))).collect();
        text += &format!("made = [{}]\ncalls = {{ {} }}\n", list(&seen.made), ways.join(", "));
    }
    text
}

#[expect(clippy::print_stdout, reason = "the command's answer")]
fn print_figures(figures: &train::Figures) {
    println!("system calls, family left out: F1 {:.3}, Brier score {:.3}", figures.f1, figures.brier);
    println!("  probability   calls  mean  made");
    for (index, (count, mean, made)) in figures.reliability.iter().enumerate() {
        println!("  0.{index} and more {count:>6}  {mean:.2}  {made:.2}");
    }
    let by_image: Vec<String> = figures.by_image.iter().map(|(image, f1)| format!("{image} {f1:.2}")).collect();
    println!("  {}", by_image.join(", "));
}

/// Keeps recorded runs, with the families that the corpora name.
#[expect(clippy::print_stdout, reason = "the command's answer")]
fn import(results: &Path) -> anyhow::Result<()> {
    let families = families()?;
    for list in fs::read_dir(results)? {
        let list = list?.path();
        let name = list.file_name().unwrap_or_default().to_owned();
        let mut files: Vec<PathBuf> = fs::read_dir(&list)?.filter_map(|file| Some(file.ok()?.path())).collect();
        files.sort();
        let folder = here().join("truth").join(name);
        fs::create_dir_all(&folder)?;
        for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "json")) {
            let Some(mut truth) = Truth::recorded(file)? else {
                println!("{}: its workload failed", file.display());
                continue;
            };
            truth.family = families.get(&truth.image).cloned().unwrap_or_default();
            fs::write(folder.join(format!("{}.json", truth.image)), serde_json::to_string(&truth)?)?;
        }
    }
    Ok(())
}

/// Families by image: of the open images by `families.toml`, of the others by their corpus.
fn families() -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    #[derive(serde::Deserialize)]
    struct Corpus {
        image: Vec<Image>,
    }
    #[derive(serde::Deserialize)]
    struct Image {
        name: String,
        family: BTreeSet<String>,
    }
    let mut families: BTreeMap<String, BTreeSet<String>> =
        toml::from_str(&fs::read_to_string(here().join("families.toml"))?)?;
    let corpus: Corpus = toml::from_str(&fs::read_to_string(here().join("corpus-more.toml"))?)?;
    families.extend(corpus.image.into_iter().map(|image| (image.name, image.family)));
    Ok(families)
}

/// Docker's default profile: the calls it allows with the default capabilities.
fn docker() -> anyhow::Result<BTreeSet<String>> {
    let table: toml::Table = toml::from_str(&fs::read_to_string(here().join("../../cli/src/profile/seccomp.toml"))?)?;
    let names = table.get("docker").and_then(|docker| docker.get("names")).and_then(toml::Value::as_array);
    let names: BTreeSet<String> =
        names.into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned())).collect();
    ensure!(!names.is_empty(), "no list of what Docker allows");
    Ok(names)
}

/// Means over images, by dimension.
#[derive(Default)]
struct Mean {
    count: f64,
    recall: f64,
    precision: f64,
    f1: f64,
    size: f64,
}

impl Mean {
    fn add(&mut self, score: &Score) {
        self.count += 1.0;
        self.recall += score.recall;
        self.precision += score.precision;
        self.f1 += score.f1;
        self.size += score.size as f64;
    }

    fn of(&self, sum: f64) -> f64 {
        if self.count > 0.0 { sum / self.count } else { 0.0 }
    }
}

#[expect(clippy::print_stdout, reason = "the command's answer")]
fn judge(images: &Path) -> anyhow::Result<()> {
    let (examples, docker) = (examples()?, docker()?);
    let mut means = BTreeMap::<&str, Mean>::new();
    let (mut prior, mut allowed) = (Mean::default(), Mean::default());
    let (mut missed, mut phases) = (Vec::new(), Vec::new());
    print!("{:16}", "image");
    DIMENSIONS.iter().for_each(|dimension| print!(" {:15}", format!("{dimension} R P F1")));
    println!();
    for (truth, layout) in layouts(images)?.into_iter().filter(|(truth, _)| truth.list == "open") {
        let dna = serde_json::to_value(&analyze(&layout)?.dna)?;
        let (wide, sure) = score::lists(&dna);
        let scores = score::score(&wide, &sure, &truth);
        phases.push((truth.image.clone(), score::phases(&dna, &truth)));
        print!("{:16}", truth.image);
        for (dimension, score) in &scores.iter().collect::<BTreeMap<_, _>>() {
            means.entry(dimension).or_default().add(score);
        }
        for dimension in DIMENSIONS {
            let Some(score) = scores.get(dimension) else { continue };
            print!(" {:15}", format!("{:.2} {:.2} {:.2}", score.recall, score.precision, score.f1));
            if !score.missed.is_empty() {
                let named: Vec<&str> = score.missed.iter().take(20).map(String::as_str).collect();
                missed.push(format!("  {} misses {dimension}: {}", truth.image, named.join(" ")));
            }
        }
        println!();
        if let Some(example) = examples.iter().find(|example| example.truth.image == truth.image) {
            let of = |names: BTreeSet<String>| -> Lists { [("syscalls", names)].into() };
            let names = of(train::control(&examples, example));
            score::score(&names, &names, &truth).values().for_each(|score| prior.add(score));
            let names = of(docker.clone());
            score::score(&names, &names, &truth).values().for_each(|score| allowed.add(score));
        }
    }
    print!("{:16}", "MEAN");
    for dimension in DIMENSIONS {
        let Some(mean) = means.get(dimension) else { continue };
        let (recall, precision, f1) = (mean.of(mean.recall), mean.of(mean.precision), mean.of(mean.f1));
        print!(" {:15}", format!("{recall:.3} {precision:.2} {f1:.2}"));
    }
    println!("\n{}", missed.join("\n"));
    let count = phases.len().max(1) as f64;
    let recall = phases.iter().map(|(_, scored)| scored.recall).sum::<f64>() / count;
    println!("phases of system calls: of those seen only at start-up, {recall:.3} are marked so");
    for (image, scored) in &phases {
        let wrong: Vec<&str> = scored.wrong.iter().map(String::as_str).collect();
        let wrong = if wrong.is_empty() { String::new() } else { format!(", seen while serving: {}", wrong.join(" ")) };
        println!("  {image} {:.2}{wrong}", scored.recall);
    }
    let wrong: usize = phases.iter().map(|(_, scored)| scored.wrong.len()).sum();
    let left_out = train::figures(&examples, &train::left_out(&examples)?, "open");
    let calls = means.get("syscalls").context("no image")?;
    println!(
        "system calls possible, on average {:.1}; F1 of the shipped model, which knows these images, {:.3}",
        calls.of(calls.size),
        calls.of(calls.f1)
    );
    print_figures(&left_out);
    let control = prior.of(prior.f1);
    println!("control: what half of the other families call, no image opened: F1 {control:.3}");
    println!(
        "control: Docker's default profile, {} calls: F1 {:.3}, recall {:.3}",
        docker.len(),
        allowed.of(allowed.f1),
        allowed.of(allowed.recall)
    );
    let reached = |name: &str| match name {
        "syscalls f1 left out" => left_out.f1,
        "syscalls f1 over the control" => left_out.f1 - control,
        name => name
            .split_once(' ')
            .and_then(|(dimension, what)| {
                let mean = means.get(dimension)?;
                Some(mean.of(if what == "recall" { mean.recall } else { mean.f1 }))
            })
            .unwrap_or_default(),
    };
    let mut under: Vec<String> = FLOORS
        .iter()
        .filter(|(name, floor)| reached(name) < *floor)
        .map(|(name, floor)| format!("{name} is {:.3}, the floor {floor}", reached(name)))
        .collect();
    if recall < MIN_PHASES || wrong > 0 {
        under.push(format!(
            "{recall:.3} of the calls made only at start-up are marked so, the floor {MIN_PHASES}; {wrong} wrongly"
        ));
    }
    if calls.of(calls.size) > MAX_SIZE {
        under.push(format!("{:.1} possible calls on average, at most {MAX_SIZE}", calls.of(calls.size)));
    }
    ensure!(under.is_empty(), "{}", under.join("; "));
    Ok(())
}
