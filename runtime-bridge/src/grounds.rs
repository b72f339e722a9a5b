//! Why an alert is one: what of the DNA it rests on, where the file that acts comes from, and what changed.
//!
//! In: a deviation, the DNA that was compared in outline, and what the ledger knows of the image and of the one before it. Out: [`Grounds`],
//! made once, when an alert is new, and frozen with it: they stay when image, pod and DNA are gone.

use dna::{Commit, Completeness, Difference, Digest, Evidence, How, Outline};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Class, Deviation};

/// What an alert rests on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Grounds {
    /// The DNA that was compared; absent where there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub dna: Option<Digest>,
    /// The item of it, or its absence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<Item>,
    /// The program's file that it is about, else the one that acts, where the image has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<ImageFile>,
    /// The commits that the image was built from, as verified attestations say. Files of packages and base images have others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commits: Vec<Commit>,
    /// What changed against the last digest of the same repository; absent where none is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed: Option<Changed>,
    /// Why it is not known whether the image that runs is the one that was admitted; absent where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_unknown: Option<String>,
}

/// An item of a DNA, or its absence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// Where: `programs`, or a dimension of behavior, such as `exec`.
    pub of: String,
    /// What was looked for.
    pub name: String,
    /// Whether the DNA has it.
    pub is_there: bool,
    /// What it has in this dimension, the first of it.
    pub others: Vec<String>,
    /// How far the dimension was worked out: how much an absence says.
    pub completeness: Completeness,
    /// What the item rests on, where it is there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
}

/// A program's file in its image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageFile {
    /// Its path.
    pub path: String,
    /// Digest of its contents.
    #[schemars(with = "String")]
    pub sha256: Digest,
    /// Index of its layer.
    pub layer: u32,
    /// Digest of the layer's archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub diff_id: Option<Digest>,
    /// The build step that made the layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The package that owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
}

/// What changed against the image before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// The repository of both.
    pub repository: String,
    /// The image before.
    #[schemars(with = "String")]
    pub before: Digest,
    /// When that was first seen.
    #[schemars(with = "String")]
    pub before_at: Timestamp,
    /// When this one was.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// What bears on this alert: the program, its package, the dimension.
    pub bearing: Vec<Difference>,
    /// How much differs in all; absent where the DNA of the image before is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<u64>,
}

/// The item that a deviation rests on.
#[must_use]
pub fn item(deviation: &Deviation, outline: &Outline) -> Option<Item> {
    let (of, name) = looked_for(deviation)?;
    let completeness = &outline.completeness;
    let completeness = match of {
        "programs" | "exec" => &completeness.exec,
        "syscalls" => &completeness.syscalls,
        "capabilities" => &completeness.capabilities,
        "listen" => &completeness.listen,
        "connect" => &completeness.connect,
        "write" => &completeness.write,
        _ => &completeness.read,
    };
    let has = outline.items.get(of);
    let is_there = match of {
        "programs" => outline.programs.contains_key(&name),
        _ => has.is_some_and(|items| items.contains(&name)),
    };
    let executed = outline.exec.iter().find(|known| of == "exec" && known.what.path.to_string() == name);
    let evidence =
        executed.map(|known| known.evidence.iter().take(MAX_EVIDENCE).cloned().collect()).unwrap_or_default();
    let others = has.into_iter().flatten().filter(|other| **other != name).take(MAX_OTHERS).cloned().collect();
    Some(Item { of: of.to_owned(), name, is_there, others, completeness: completeness.clone(), evidence })
}

/// The file that a deviation is about, or of the program that acts.
#[must_use]
pub fn file(deviation: &Deviation, exe: Option<&str>, outline: &Outline) -> Option<ImageFile> {
    let find = |path: &str| {
        let merged = crate::expected::merged(path);
        let usual = merged.strip_prefix("/usr").unwrap_or(&merged);
        [path, &merged, usual].into_iter().find_map(|path| outline.programs.get_key_value(path))
    };
    let (path, file) = find(&deviation.subject).or_else(|| find(exe?))?;
    let layer = usize::try_from(file.layer).ok().and_then(|layer| outline.layers.get(layer));
    Some(ImageFile {
        path: path.clone(),
        sha256: file.sha256.clone(),
        layer: file.layer,
        diff_id: layer.and_then(|layer| layer.diff_id.clone()),
        step: layer.and_then(|layer| layer.created_by.clone()),
        package: file.package.clone(),
    })
}

/// Of what differs, what bears on a deviation: its subject, the file that acts and its package, then what else its dimension has.
#[must_use]
pub fn bearing(deviation: &Deviation, file: Option<&ImageFile>, all: &[Difference]) -> Vec<Difference> {
    let of = looked_for(deviation).map(|(of, _)| of);
    let package = file.and_then(|file| file.package.as_deref()).unwrap_or_default();
    let rank = |one: &Difference| match one.of.as_str() {
        "program" if one.name == deviation.subject => Some(0),
        "program" if file.is_some_and(|file| file.path == one.name) => Some(1),
        "package"
            if !one.name.is_empty() && package.strip_prefix(&one.name).is_some_and(|rest| rest.starts_with('@')) =>
        {
            Some(2)
        }
        other if Some(other) == of => Some(if one.name == deviation.subject { 0 } else { 3 }),
        _ => None,
    };
    let mut ranked: Vec<(u8, &Difference)> = all.iter().filter_map(|one| Some((rank(one)?, one))).collect();
    ranked.sort();
    ranked.into_iter().take(MAX_BEARING).map(|(_, one)| one.clone()).collect()
}

/// A difference in words.
#[must_use]
pub fn told(one: &Difference) -> String {
    match &one.how {
        How::New => format!("{} {} is new", one.of, one.name),
        How::Gone => format!("{} {} is gone", one.of, one.name),
        How::Changed { from, to } if one.of == "package" => format!("package {} was {from}, is {to}", one.name),
        How::Changed { .. } => format!("{} {} is another", one.of, one.name),
    }
}

/// Where a deviation's subject is looked for in a DNA, and by which name.
fn looked_for(deviation: &Deviation) -> Option<(&'static str, String)> {
    let subject = deviation.subject.clone();
    Some(match deviation.class {
        Class::ProgramNotInImage => ("programs", subject),
        Class::ProgramNotReachable | Class::StepNotPredicted | Class::CommandFromOutside => ("exec", subject),
        Class::Listen => ("listen", subject),
        Class::Connect => ("connect", subject),
        Class::Capability => ("capabilities", subject),
        Class::Syscall => ("syscalls", subject),
        Class::Write => ("write", subject),
        Class::SensitiveRead => ("read", subject),
        Class::Identity => ("capabilities", "CAP_SETUID".to_owned()),
        Class::NoDna | Class::BindingMismatch => return None,
    })
}

const MAX_OTHERS: usize = 8;
const MAX_EVIDENCE: usize = 3;
const MAX_BEARING: usize = 12;
