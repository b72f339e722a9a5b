//! Intrusions in running containers against the images' own DNA: how many raise a deviation, and how many benign events do.
//!
//! A stream is what a kernel sensor saw, in Falco's JSON, `NAME.ndjson`, with a label beside each event that the comparison does not
//! look at. The yardstick is a profile that knows all that a benign run did: programs, ports, peers, written files. It is no more
//! than what a learned baseline could know at best.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
};

use anyhow::Context as _;
use dna::SeenContainer;
use runtime_bridge::{Expected, replay::Replay, sensor::Dialect};
use serde::Deserialize;
use serde_json::Value;

/// What came of one image's stream.
#[derive(Debug, Default)]
pub(crate) struct Detected {
    /// Attacks, and those of them that raised a deviation.
    pub(crate) attacks: BTreeMap<String, bool>,
    /// Benign events, and those of them that raised one.
    pub(crate) benign: u64,
    pub(crate) false_alerts: Vec<String>,
    /// The same attacks by the yardstick.
    pub(crate) by_profile: BTreeSet<String>,
    pub(crate) false_by_profile: u64,
}

#[derive(Deserialize)]
struct Event {
    rule: String,
    output_fields: Value,
    truth: Label,
}

#[derive(Deserialize)]
struct Label {
    label: String,
    attack: Option<String>,
}

/// Compares a stream with the DNA of its image, and with a profile of a benign run.
pub(crate) fn detect(dna: &dna::Dna, stream: &Path, profile: &Profile) -> anyhow::Result<Detected> {
    let expected = Arc::new(Expected::of_image(dna));
    let find = |_: &SeenContainer| Some(Arc::clone(&expected));
    let mut replay = Replay::new(&find);
    let mut detected = Detected::default();
    let text = fs::read_to_string(stream).with_context(|| format!("cannot read {}", stream.display()))?;
    for line in text.lines() {
        let found = replay.push(Dialect::Falco, line.as_bytes())?;
        let event: Event = serde_json::from_str(line)?;
        let is_outside = profile.is_outside(&event);
        match event.truth.attack.filter(|_| event.truth.label == "attack") {
            Some(attack) => {
                if is_outside {
                    detected.by_profile.insert(attack.clone());
                }
                *detected.attacks.entry(attack).or_default() |= !found.is_empty();
            }
            None => {
                detected.benign += 1;
                detected.false_by_profile += u64::from(is_outside);
                detected.false_alerts.extend(found.into_iter().map(|found| found.deviation.message));
            }
        }
    }
    Ok(detected)
}

/// All that a benign run did, as the recorder writes it.
#[derive(Debug, Deserialize)]
pub(crate) struct Profile {
    exec: BTreeSet<String>,
    listen: Vec<Port>,
    connect: Vec<Peer>,
    write: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
struct Port {
    proto: String,
    port: u64,
}

#[derive(Debug, Deserialize)]
struct Peer {
    port: Option<u64>,
}

impl Profile {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no recorded run", path.display()))
    }

    fn is_outside(&self, event: &Event) -> bool {
        let fields = &event.output_fields;
        let text = |name: &str| fields[name].as_str().unwrap_or_default();
        match event.rule.trim_start_matches("truth ") {
            "process" => {
                let is_new = |name: &str| fields[name].as_bool() == Some(true);
                !self.exec.contains(text("proc.exepath"))
                    || is_new("proc.is_exe_upper_layer")
                    || is_new("proc.is_exe_from_memfd")
            }
            "listening port" => {
                let port = (text("fd.l4proto"), fields["fd.lport"].as_u64());
                !self.listen.iter().any(|known| port == (known.proto.as_str(), Some(known.port)))
            }
            "outbound connection" if text("fd.type") != "unix" => {
                let port = fields["fd.rport"].as_u64();
                port != Some(53) && !self.connect.iter().any(|known| known.port == port)
            }
            "file written" | "file changed" => {
                let path = text("fd.name");
                let folder = |path: &str| path.rsplit_once('/').map(|(folder, _)| folder.to_owned());
                let is_known = |known: &String| tidy(known) == tidy(path) || folder(known) == folder(path);
                !path.starts_with("/proc/") && !self.write.iter().any(is_known)
            }
            _ => false,
        }
    }
}

/// Numbers in file names vary from run to run.
fn tidy(path: &str) -> String {
    let mut text = String::new();
    let mut run = String::new();
    for letter in path.chars().chain(['\0']) {
        if letter.is_ascii_hexdigit() {
            run.push(letter);
            continue;
        }
        if run.len() > 1 || run.chars().all(|letter| letter.is_ascii_digit()) && !run.is_empty() {
            text.push('N');
        } else {
            text.push_str(&run);
        }
        run.clear();
        text.push(letter);
    }
    text
}
