//! Programs: whether what the pod starts is there, and stays in sight.

use super::{Beside, Bound, is_expected};
use crate::{Action, Confidence, ContainerSpec, Dna, Effect, Evidence, Finding, FindingCode, ImagePath, Mount, Volume};

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

/// Expected programs of the image below a mount, which hides them.
fn hidden(bound: &Bound<'_>) -> Vec<Finding> {
    let expected = bound.behavior.exec.iter().filter(is_expected);
    let over =
        |path: &ImagePath| bound.spec.mounts.iter().find(|mount| path.starts_with(&mount.path) && !is_laid(mount));
    expected
        .filter_map(|item| Some((item, over(&item.what.path)?)))
        .map(|(item, mount)| Finding {
            code: FindingCode::ProgramHidden,
            subject: item.what.path.to_string(),
            effect: Effect::MayFail,
            certainty: item.confidence,
            message: format!(
                "the volume `{}` at {} hides {}, which is predicted to run",
                mount.name, mount.path, item.what.path
            ),
            remedy: Some("mount it elsewhere, or only the files that it is to replace (subPath)".to_owned()),
            evidence: item.evidence.clone(),
        })
        .collect()
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
