//! A DNA in outline: what a person asks of an image, and what two images of one software differ in.
//!
//! In: DNAs. Out: [`Outline`], a hundredth of the document; of two of them [`Difference`]s, sorted.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Behavior, Completenesses, Confidence, Digest, Dna, Exec, Known, Layer};

/// What is kept of a DNA.
#[derive(Debug, Clone, PartialEq)]
pub struct Outline {
    /// Its layers.
    pub layers: Vec<Layer>,
    /// Its programs, by path.
    pub programs: BTreeMap<String, File>,
    /// Versions of the packages that own programs, by package URL without them.
    pub packages: BTreeMap<String, BTreeSet<String>>,
    /// The items of each dimension of behavior, by name.
    pub items: BTreeMap<&'static str, BTreeSet<String>>,
    /// Programs that are executed, with the evidence for it.
    pub exec: Vec<Known<Exec>>,
    /// How far each dimension was worked out.
    pub completeness: Completenesses,
}

/// A program's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Digest of its contents.
    pub sha256: Digest,
    /// Index of its layer.
    pub layer: u32,
    /// Package URL of its package.
    pub package: Option<String>,
}

/// Something that differs between two images.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// What it is: `program`, `package`, or a dimension of behavior.
    pub of: String,
    /// Its name: a path, a package URL, a port.
    pub name: String,
    /// What became of it.
    pub how: How,
}

/// What became of something from one image to the next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum How {
    /// It was not there before.
    New,
    /// It is not there any more.
    Gone,
    /// It is another one.
    Changed {
        /// Before; of a file, its digest.
        from: String,
        /// Now.
        to: String,
    },
}

impl Behavior {
    /// The items of each dimension by name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, Vec<(String, Confidence)>); 8] {
        fn all<T>(items: &[Known<T>], name: impl Fn(&T) -> String) -> Vec<(String, Confidence)> {
            items.iter().map(|item| (name(&item.what), item.confidence)).collect()
        }
        let protocol = |protocol: crate::Protocol| format!("{protocol:?}").to_lowercase();
        [
            ("exec", all(&self.exec, |one| one.path.to_string())),
            ("load", all(&self.load, |one| one.path.to_string())),
            ("syscalls", all(&self.syscalls, |one| one.name.clone())),
            ("capabilities", all(&self.capabilities, |one| one.name.clone())),
            ("listen", all(&self.listen, |one| format!("{}/{}", protocol(one.protocol), one.port))),
            (
                "connect",
                all(&self.connect, |one| {
                    let port = one.port.map(|port| format!(":{port}")).unwrap_or_default();
                    format!("{}/{}{port}", protocol(one.protocol), one.host)
                }),
            ),
            ("write", all(&self.write, |one| one.path.to_string())),
            ("read", all(&self.read, |one| one.path.to_string())),
        ]
    }
}

impl Outline {
    /// Of a DNA and a behavior: its own, or that of a container of a pod.
    #[must_use]
    pub fn of(dna: &Dna, behavior: &Behavior) -> Self {
        let mut programs = BTreeMap::new();
        let mut packages: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for program in &dna.programs {
            let file = File { sha256: program.sha256.clone(), layer: program.layer, package: program.package.clone() };
            if let Some((name, version)) = program.package.as_deref().and_then(versioned) {
                packages.entry(name.to_owned()).or_default().insert(version.to_owned());
            }
            programs.insert(program.path.to_string(), file);
        }
        let named = behavior.named().into_iter();
        Self {
            layers: dna.layers.clone(),
            programs,
            packages,
            items: named.map(|(of, items)| (of, items.into_iter().map(|(name, _)| name).collect())).collect(),
            exec: behavior.exec.clone(),
            completeness: behavior.completeness.clone(),
        }
    }

    /// What differs in `after`.
    #[must_use]
    pub fn differences(&self, after: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        let digests = |outline: &Self| -> BTreeMap<String, String> {
            outline.programs.iter().map(|(path, file)| (path.clone(), file.sha256.to_string())).collect()
        };
        let versions = |outline: &Self| -> BTreeMap<String, String> {
            let joined = |all: &BTreeSet<String>| all.iter().cloned().collect::<Vec<_>>().join(", ");
            outline.packages.iter().map(|(name, all)| (name.clone(), joined(all))).collect()
        };
        differ("program", &digests(self), &digests(after), &mut found);
        differ("package", &versions(self), &versions(after), &mut found);
        for (of, before) in &self.items {
            let named = |items: &BTreeSet<String>| -> BTreeMap<String, String> {
                items.iter().map(|name| (name.clone(), String::new())).collect()
            };
            differ(of, &named(before), &after.items.get(of).map(named).unwrap_or_default(), &mut found);
        }
        found.sort();
        found
    }
}

fn differ(of: &str, before: &BTreeMap<String, String>, after: &BTreeMap<String, String>, found: &mut Vec<Difference>) {
    let mut put = |name: &str, how| found.push(Difference { of: of.to_owned(), name: name.to_owned(), how });
    for (name, now) in after {
        match before.get(name) {
            None => put(name, How::New),
            Some(then) if then != now => put(name, How::Changed { from: then.clone(), to: now.clone() }),
            Some(_) => {}
        }
    }
    before.keys().filter(|name| !after.contains_key(*name)).for_each(|name| put(name, How::Gone));
}

/// A package URL as name and version: `pkg:deb/debian/curl@7.88?arch=amd64`.
fn versioned(package: &str) -> Option<(&str, &str)> {
    let bare = package.split(['?', '#']).next()?;
    // The name may have `@` in it only where it is encoded.
    bare.rsplit_once('@')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dna(programs: &[(&str, &str, &str)], port: u16) -> Dna {
        let program = |(path, content, version): &(&str, &str, &str)| {
            json!({"path": path, "sha256": Digest::sha256(content.as_bytes()), "size": 1, "layer": 0, "uid": 0, "gid": 0,
                "mode": 0o755, "kind": "other", "package": format!("pkg:deb/debian/{}@{version}?arch=amd64", path.trim_start_matches("/usr/bin/"))})
        };
        let known = json!({"protocol": "tcp", "port": port, "confidence": "certain", "evidence": []});
        let document = json!({
            "schema": crate::SCHEMA, "analyzer": {"name": "mayfly", "version": "0", "rules": Digest::sha256(b"")},
            "image": {"platform": "linux/amd64"}, "layers": [], "start": {"argv": []},
            "programs": programs.iter().map(program).collect::<Vec<_>>(),
            "accounts": {"users": [], "groups": []}, "folders": [], "behavior": {"listen": [known]}, "unknowns": [],
        });
        serde_json::from_value(document).expect("a DNA")
    }

    #[test]
    fn what_differs_is_named_by_what_became_of_it() {
        let outline = |dna: Dna| Outline::of(&dna, &dna.behavior);
        let before =
            outline(dna(&[("/usr/bin/curl", "a", "7"), ("/usr/bin/nc", "b", "1"), ("/usr/bin/sh", "c", "1")], 80));
        let after =
            outline(dna(&[("/usr/bin/curl", "z", "8"), ("/usr/bin/sh", "c", "1"), ("/usr/bin/socat", "d", "1")], 8080));
        let told: Vec<String> = before
            .differences(&after)
            .iter()
            .map(|one| match &one.how {
                How::New => format!("+{} {}", one.of, one.name),
                How::Gone => format!("-{} {}", one.of, one.name),
                How::Changed { from, to } if one.of == "package" => format!("~{} {} {from} {to}", one.of, one.name),
                How::Changed { .. } => format!("~{} {}", one.of, one.name),
            })
            .collect();
        let wanted = [
            "-listen tcp/80",
            "+listen tcp/8080",
            "~package pkg:deb/debian/curl 7 8",
            "-package pkg:deb/debian/nc",
            "+package pkg:deb/debian/socat",
            "~program /usr/bin/curl",
            "-program /usr/bin/nc",
            "+program /usr/bin/socat",
        ];
        assert_eq!(told, wanted);
        assert_eq!(after.differences(&after), []);
    }
}
