//! `mayfly kin`: an image and known ones in; which of them it is like, and what no other of its software does, out.

use std::{collections::BTreeMap, fmt::Write as _, fs::File, io::Read as _, path::Path};

use anyhow::Context as _;
use dna::{Dna, Evidence, Kinship, Relative, Traits, kinship};

use crate::{
    args::{self, KinFormat},
    output::{self, Destination},
    question::{self, Question},
    text::clean,
};

/// It behaves unlike its family.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UnlikeItsFamily(String);

pub(crate) fn run(args: &args::Kin) -> anyhow::Result<()> {
    let question = Question::open(&args.source, &args.open)?;
    let named = args.repository.clone().or_else(|| repository(&args.source));
    let traits = Traits::of(question.dna(), named.as_deref());
    let destination = Destination(args.output.clone());
    if args.format == KinFormat::Traits {
        return destination.write(&output::pretty(&traits)?);
    }
    let known = known(&args.known)?;
    let kinship = kinship(&traits, &known);
    destination.write(&match args.format {
        KinFormat::Json => output::pretty(&kinship)?,
        _ => human(&question.name, &kinship).into_bytes(),
    })?;
    match kinship.is_unlike && args.strict {
        true => Err(UnlikeItsFamily(kinship.summary).into()),
        false => Ok(()),
    }
}

/// The repository of an image in a registry; other sources have none.
fn repository(source: &str) -> Option<String> {
    let bare = source.strip_prefix("docker://").or_else(|| source.strip_prefix("docker-daemon:")).unwrap_or(source);
    let is_file =
        ["oci:", "oci-archive:", "docker-archive:", "dir:", "dna:"].iter().any(|kind| source.starts_with(kind));
    let reference: oci::Reference = bare.parse().ok().filter(|_| !is_file && source != "-")?;
    Some(reference.repository().to_owned())
}

/// The DNAs of a folder, or their traits, each by its file's name.
fn known(folder: &Path) -> anyhow::Result<Vec<Relative>> {
    let cannot = || format!("cannot read {}, a folder of known DNAs", folder.display());
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        if path.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let traits =
            read(&path, &name).with_context(|| format!("{} is no DNA and no traits of one", path.display()))?;
        found.insert(name.clone(), Relative { name, traits });
    }
    anyhow::ensure!(
        !found.is_empty(),
        "{} has no DNA: write some with mayfly analyze IMAGE --format json -o {}/NAME.json",
        folder.display(),
        folder.display()
    );
    Ok(found.into_values().collect())
}

fn read(path: &Path, name: &str) -> anyhow::Result<Traits> {
    let mut json = Vec::new();
    File::open(path)?.take(question::MAX_BYTES + 1).read_to_end(&mut json)?;
    anyhow::ensure!(json.len() as u64 <= question::MAX_BYTES, "it has more than {} bytes", question::MAX_BYTES);
    // Each has a field that the other has not.
    match serde_json::from_slice::<KnownTraits>(&json) {
        Ok(known) => Ok(known.0),
        Err(_) => Ok(Traits::of(&Dna::from_json(&json)?, Some(name))),
    }
}

/// Traits, and nothing else.
struct KnownTraits(Traits);

impl<'de> serde::Deserialize<'de> for KnownTraits {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        if value.get("traits").is_none() {
            return Err(serde::de::Error::missing_field("traits"));
        }
        serde_json::from_value(value).map(Self).map_err(serde::de::Error::custom)
    }
}

fn human(source: &str, kinship: &Kinship) -> String {
    let mut text = format!("{}\n{}\n", clean(source), clean(&kinship.summary));
    // Writing to a string cannot fail.
    if kinship.is_unlike || !kinship.unlike.is_empty() {
        text.push_str("\nUnlike its family\n");
        for one in &kinship.unlike {
            let elsewhere = match one.elsewhere {
                0 => "nobody else known does".to_owned(),
                count => format!("{count} of other software do"),
            };
            let sure = format!("{:?}", one.confidence).to_lowercase();
            let _ = writeln!(text, "  {:.2}  {} ({sure}; {elsewhere})", one.weight, clean(&one.what));
            for evidence in &one.evidence {
                let _ = writeln!(text, "          {}", clean(&place(evidence)));
            }
        }
    }
    if !kinship.nearest.is_empty() {
        text.push_str("\nNearest known images\n");
        for near in &kinship.nearest {
            let says = near.says.as_deref().unwrap_or("an application");
            let _ = writeln!(text, "  {:.2}  {} ({})", near.similarity, clean(&near.name), clean(says));
        }
    }
    if !kinship.borrowed.is_empty() {
        text.push_str("\nBorrowed from its family, as its own bytes do not tell (no part of its DNA)\n");
        for one in &kinship.borrowed {
            let of = kinship.members.len();
            let _ = writeln!(text, "  {:<13} {} ({} of {of})", one.dimension, clean(&one.item), one.members);
        }
    }
    text
}

fn place(evidence: &Evidence) -> String {
    let (path, at, detail) = match evidence {
        Evidence::File { path, line, detail, .. } => (path, line.map(|line| format!(":{line}")), detail),
        Evidence::Binary { path, offset, detail, .. } => {
            (path, offset.map(|offset| format!(" at {offset:#x}")), detail)
        }
        Evidence::Config { key } => return format!("{key} of the image's configuration"),
        _ => return String::new(),
    };
    let detail = detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
    format!("{path}{}{detail}", at.unwrap_or_default())
}
