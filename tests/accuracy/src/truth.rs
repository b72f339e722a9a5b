//! What the kernel saw of one image's container: `truth/LIST/NAME.json`, the part of a recorded run that scoring needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// A recorded run. The keys are the recorder's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Truth {
    pub(crate) image: String,
    /// The corpus that the image is of.
    pub(crate) list: String,
    /// Digest of the manifest that was run.
    pub(crate) digest: String,
    /// Products whose code it has: images that share one are left out together. None means its own name.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) family: BTreeSet<String>,
    pub(crate) exec: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) exec_aliases: BTreeMap<String, BTreeSet<String>>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) scripts: BTreeSet<String>,
    pub(crate) libs: BTreeSet<String>,
    pub(crate) syscalls: BTreeSet<String>,
    #[serde(default)]
    pub(crate) syscalls_by_phase: BTreeMap<String, BTreeSet<String>>,
    pub(crate) capabilities: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) capabilities_needed: Option<BTreeSet<String>>,
    pub(crate) listen: Vec<Port>,
    pub(crate) write: BTreeSet<String>,
}

/// A port listened on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Port {
    pub(crate) proto: String,
    pub(crate) port: u16,
    /// Chosen by the kernel.
    pub(crate) ephemeral: bool,
}

/// A run as the recorder writes it.
#[derive(Debug, Deserialize)]
struct Recorded {
    #[serde(flatten)]
    truth: Truth,
    run: Run,
}

#[derive(Debug, Deserialize)]
struct Run {
    workload_ok: bool,
}

impl Truth {
    /// The families that it is left out with.
    pub(crate) fn families(&self) -> BTreeSet<String> {
        if self.family.is_empty() { BTreeSet::from([self.image.clone()]) } else { self.family.clone() }
    }

    /// Shares code with another image.
    pub(crate) fn is_kin(&self, other: &Self) -> bool {
        !self.families().is_disjoint(&other.families())
    }

    /// A run from the recorder's own file; none where its workload failed.
    pub(crate) fn recorded(file: &Path) -> anyhow::Result<Option<Self>> {
        let recorded: Recorded = read(file)?;
        Ok(Some(recorded.truth).filter(|_| recorded.run.workload_ok))
    }

    /// All runs kept in a folder, with those of its sub-folders, by name.
    pub(crate) fn all(folder: &Path) -> anyhow::Result<Vec<Self>> {
        let mut files = Vec::new();
        for list in fs::read_dir(folder).with_context(|| format!("no folder {}", folder.display()))? {
            for file in fs::read_dir(list?.path())? {
                files.push(file?.path());
            }
        }
        files.sort();
        files.iter().map(|file| read(file)).collect()
    }
}

/// A JSON file.
pub(crate) fn read<T: for<'de> Deserialize<'de>>(file: &Path) -> anyhow::Result<T> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is not what was expected", file.display()))
}
