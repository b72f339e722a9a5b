//! Programs: whether what the pod starts is there, and stays in sight.

use super::{Beside, Bound, is_expected};
use crate::{
    Action, Behavior, Confidence, ContainerSpec, Dna, Effect, Evidence, Finding, FindingCode, ImagePath, Mount,
    Program, Volume,
};

pub(super) fn check(bound: &Bound<'_>, beside: &[Beside]) -> Vec<Finding> {
    let mut found: Vec<Finding> = start(bound).into_iter().collect();
    found.extend(probes(bound, beside));
    found.extend(hidden(bound));
    found
}

/// The command's program is nowhere in the image.
fn start(bound: &Bound<'_>) -> Option<Finding> {
    let name = bound.dna.start.argv.first();
    if bound.dna.start.program.is_some() || name.is_some_and(|name| may_be_mounted(bound.spec, bound.dna, name)) {
        return None;
    }
    let (subject, message) = match name {
        None => ("command".to_owned(), "the image names no command and the pod gives none".to_owned()),
        Some(name) => (name.clone(), format!("the image has no executable file `{name}`: the container cannot start")),
    };
    Some(Finding {
        code: FindingCode::ProgramMissing,
        subject,
        effect: Effect::Fails,
        certainty: Confidence::Certain,
        message,
        remedy: Some("name a program of the image: mayfly analyze lists them".to_owned()),
        evidence: vec![Evidence::Config { key: "Entrypoint".to_owned() }],
    })
}

fn probes(bound: &Bound<'_>, beside: &[Beside]) -> Vec<Finding> {
    let mut found = Vec::new();
    for probe in &bound.spec.probes {
        let Action::Exec(command) = &probe.action else { continue };
        let Some(name) = command.first() else { continue };
        let runs = beside.iter().any(|one| one.field == probe.name && !one.exec.is_empty());
        if !runs && !may_be_mounted(bound.spec, bound.dna, name) {
            found.push(Finding {
                code: FindingCode::ProbeProgramMissing,
                subject: name.clone(),
                effect: if probe.name == "preStop" { Effect::None } else { Effect::MayFail },
                certainty: Confidence::Certain,
                message: format!("{} runs `{name}`, which the image does not have", probe.name),
                remedy: Some("use a program of the image, or another kind of probe".to_owned()),
                evidence: Vec::new(),
            });
        }
    }
    found
}

/// What the prediction rests on below a mount, which hides it: one finding for each mount.
fn hidden(bound: &Bound<'_>) -> Vec<Finding> {
    bound.spec.mounts.iter().filter(|mount| !is_laid(mount)).filter_map(|mount| over(bound, mount)).collect()
}

fn over(bound: &Bound<'_>, mount: &Mount) -> Option<Finding> {
    let below = |path: &&ImagePath| path.starts_with(&mount.path);
    // What an empty volume of this container alone hides, nobody brings back.
    let effect = match mount.volume {
        Volume::EmptyDir if !mount.shared => Effect::Fails,
        _ => Effect::MayFail,
    };
    let finding = |code, subject: String, effect, certainty, message: String| Finding {
        code,
        subject,
        effect,
        certainty,
        message,
        remedy: Some("mount it elsewhere, or only the files that it is to replace (subPath)".to_owned()),
        evidence: Vec::new(),
    };
    let all = &bound.dna.behavior;
    let programs = all.exec.iter().filter(is_expected).map(|item| (&item.what.path, item.confidence));
    let libraries = all.load.iter().filter(is_expected).map(|item| (&item.what.path, item.confidence));
    let started = bound.dna.start.program.iter().map(|path| (path, Confidence::Certain));
    // A command that is found nowhere may be what is hidden.
    let name = bound.dna.start.argv.first().map(String::as_str).filter(|_| bound.dna.start.program.is_none());
    let named = bound.dna.programs.iter().filter(|program| name.is_some_and(|name| is_called(program, name)));
    let named = named.map(|program| (&program.path, Confidence::Certain));
    let used = started.chain(named).chain(programs).chain(libraries).filter(|(path, _)| below(path));
    if let Some((path, certainty)) = used.min_by_key(|(_, confidence)| *confidence) {
        let message =
            format!("the volume `{}` at {} hides {path}, which is predicted to be used", mount.name, mount.path);
        let effect = if certainty == Confidence::Certain { effect } else { Effect::MayFail };
        return Some(finding(FindingCode::ProgramHidden, path.to_string(), effect, certainty, message));
    }
    // Accounts, resolver, certificates and configuration: hardly any program does without all of it.
    let is_etc = ETC.parse::<ImagePath>().is_ok_and(|etc| etc.starts_with(&mount.path));
    let rests = files_of(&bound.dna.behavior).find(|path| path.starts_with(&mount.path));
    let path = rests.map(ToString::to_string).or_else(|| is_etc.then(|| ETC.to_owned()))?;
    let message = format!("the volume `{}` at {} hides {path}, which is read", mount.name, mount.path);
    Some(finding(FindingCode::FilesHidden, path, Effect::MayFail, Confidence::Likely, message))
}

/// Files that expected items rest on.
fn files_of(all: &Behavior) -> impl Iterator<Item = &ImagePath> {
    let listen = all.listen.iter().filter(is_expected).flat_map(|item| &item.evidence);
    let write = all.write.iter().filter(is_expected).flat_map(|item| &item.evidence);
    let connect = all.connect.iter().filter(is_expected).flat_map(|item| &item.evidence);
    listen.chain(write).chain(connect).filter_map(|one| match one {
        Evidence::File { path, .. } => Some(path),
        _ => None,
    })
}

fn is_called(program: &Program, name: &str) -> bool {
    let names = std::iter::once(&program.path).chain(&program.aliases);
    let mut names = names.filter(|path| !name.contains('/') || path.to_string_lossy() == name);
    names.any(|path| name.contains('/') || path.file_name() == name.as_bytes())
}

/// Whether a mount's files were laid over the image, so that the prediction has seen them.
fn is_laid(mount: &Mount) -> bool {
    matches!(mount.volume, Volume::ConfigMaps(_))
}

/// A program that a volume may bring: at its path, or on the search path.
fn may_be_mounted(spec: &ContainerSpec, dna: &Dna, name: &str) -> bool {
    let below = |path: &ImagePath| {
        spec.mounts.iter().any(|mount| path.starts_with(&mount.path) || mount.path.starts_with(path))
    };
    let workdir = spec.workdir.clone().or_else(|| dna.start.workdir.clone()).unwrap_or_else(ImagePath::root);
    if name.contains('/') {
        return workdir.join(name.as_bytes()).is_ok_and(|path| below(&path));
    }
    let search = dna.start.env.iter().find(|known| known.name == "PATH").and_then(|known| known.value.as_deref());
    let folders =
        search.unwrap_or(DEFAULT_PATH).split(':').filter_map(|folder| ImagePath::normalize(folder.as_bytes()).ok());
    let mut folders = folders.filter(|folder| !folder.is_root());
    folders.any(|folder| {
        spec.mounts.iter().any(|mount| folder.starts_with(&mount.path) || mount.path.parent() == Some(folder.clone()))
    })
}

/// The search path where neither image nor pod sets one. Source: containerd, `oci.WithDefaultPathEnv`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const ETC: &str = "/etc";
