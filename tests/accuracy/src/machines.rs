//! The same packages for two machines, and how alike the predictions are.
//!
//! The packages are downloaded and unpacked (mmdebstrap(1), variant `extract`); nothing of them is executed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use dna::Digest;
use serde::Deserialize;
use serde_json::{Value, json};

/// `machines.toml`.
#[derive(Debug, Deserialize)]
pub(crate) struct Machines {
    /// Packages that every image has.
    packages: Vec<String>,
    pub(crate) image: Vec<Image>,
    /// Names of system calls by a name that stands for them on both machines.
    families: BTreeMap<String, String>,
}

/// An image to make.
#[derive(Debug, Deserialize)]
pub(crate) struct Image {
    pub(crate) name: String,
    packages: Vec<String>,
    command: Vec<String>,
}

/// How alike two sets are.
#[derive(Debug, PartialEq)]
pub(crate) struct Likeness {
    /// Jaccard's index.
    pub(crate) jaccard: f64,
    /// Calls of the one alone, and of the other alone.
    pub(crate) one: Vec<String>,
    pub(crate) other: Vec<String>,
}

/// The machines by Debian's names, which are OCI's.
pub(crate) const PAIR: [&str; 2] = ["amd64", "arm64"];

/// How alike predictions should be, and what none may fall below.
pub(crate) const AIM: f64 = 0.95;
pub(crate) const FLOOR: f64 = 0.9;

impl Machines {
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        Ok(toml::from_str(&fs::read_to_string(file)?)?)
    }

    /// The layout of an image for a machine, made where it is missing.
    pub(crate) fn layout(&self, image: &Image, machine: &str, folder: &Path) -> anyhow::Result<PathBuf> {
        let layout = folder.join(&image.name).join(machine);
        if layout.join("index.json").exists() {
            return Ok(layout);
        }
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        let archive = layout.join("layer.tar");
        let packages: Vec<&str> = self.packages.iter().chain(&image.packages).map(String::as_str).collect();
        let done = Command::new("mmdebstrap")
            .args(["--quiet", "--variant=extract", "--format=tar"])
            .arg(format!("--architectures={machine}"))
            .arg(format!("--include={}", packages.join(",")))
            .arg(SUITE)
            .arg(&archive)
            .arg(std::env::var("MIRROR").unwrap_or_else(|_| MIRROR.to_owned()))
            .status()
            .context("running mmdebstrap")?;
        ensure!(done.success(), "mmdebstrap failed for {} on {machine}", image.name);
        let body = fs::read(&archive)?;
        let layer = Digest::sha256(&body);
        fs::rename(&archive, blobs.join(layer.hex()))?;
        let put = |value: Value| -> anyhow::Result<Value> {
            let body = value.to_string();
            let digest = Digest::sha256(body.as_bytes());
            fs::write(blobs.join(digest.hex()), &body)?;
            Ok(json!({"digest": digest.to_string(), "size": body.len()}))
        };
        let config = json!({
            "os": "linux", "architecture": machine, "config": {"Env": [PATH], "Cmd": image.command},
            "rootfs": {"type": "layers", "diff_ids": [layer.to_string()]},
        });
        let mut config = put(config)?;
        config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
        let layer = json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.to_string(), "size": body.len(),
        });
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let mut manifest = put(json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]}))?;
        manifest["mediaType"] = kind.into();
        manifest["platform"] = json!({"os": "linux", "architecture": machine});
        fs::write(layout.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string())?;
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest],
        });
        fs::write(layout.join("index.json"), index.to_string())?;
        Ok(layout)
    }

    /// The families of calls.
    pub(crate) fn families<'a>(&self, calls: impl IntoIterator<Item = &'a String>) -> BTreeSet<String> {
        calls.into_iter().map(|name| self.families.get(name).unwrap_or(name).clone()).collect()
    }
}

/// Compares calls by their families; those that the second machine has no call for are left out.
pub(crate) fn compare(one: &BTreeSet<String>, other: &BTreeSet<String>) -> Likeness {
    let has = |name: &&String| !ABSENT.contains(&name.as_str());
    let alone = |one: &BTreeSet<String>, other: &BTreeSet<String>| -> Vec<String> {
        one.difference(other).filter(has).cloned().collect()
    };
    let both = one.intersection(other).count() as f64;
    let (one, other) = (alone(one, other), alone(other, one));
    let all = both + one.len() as f64 + other.len() as f64;
    Likeness { jaccard: if all > 0.0 { both / all } else { 1.0 }, one, other }
}

/// Calls of x86-64 that AArch64 has nothing for: segments, ports, the old module interface. Source: as of the families.
const ABSENT: [&str; 6] = ["arch_prctl", "modify_ldt", "set_thread_area", "get_thread_area", "iopl", "ioperm"];

const SUITE: &str = "bookworm";
const MIRROR: &str = "http://deb.debian.org/debian";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn calls_are_compared_by_family() {
        let machines = Machines::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("machines.toml")).expect("reads");
        let one = machines.families(&names(&["open", "openat", "stat", "read", "arch_prctl"]));
        let other = machines.families(&names(&["openat", "newfstatat", "write"]));
        let likeness = compare(&one, &other);
        assert_eq!((likeness.one, likeness.other), (vec!["read".to_owned()], vec!["write".to_owned()]));
        assert_eq!(likeness.jaccard, 0.5);
    }

    #[test]
    fn no_family_stands_for_another() {
        let machines = Machines::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("machines.toml")).expect("reads");
        assert!(machines.families.values().all(|name| !machines.families.contains_key(name)));
    }
}
