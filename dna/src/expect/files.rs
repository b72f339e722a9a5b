//! Files: what is predicted to be written against what can be.

use std::collections::BTreeSet;

use super::{Bound, failure, is_expected};
use crate::{
    ContainerSpec, Dna, Effect, Evidence, Finding, FindingCode, ImagePath, Known, Mount, RuntimeFacts, Volume, Write,
};

/// Places that can be written whatever the root is.
pub(super) fn writable(dna: &Dna, spec: &ContainerSpec, runtime: &RuntimeFacts) -> BTreeSet<ImagePath> {
    let mounts = spec.mounts.iter().filter(|mount| {
        let is_ours = matches!(mount.volume, Volume::EmptyDir | Volume::HostPath(_) | Volume::Other);
        is_ours && !mount.read_only
    });
    let mut places: BTreeSet<ImagePath> = mounts.map(|mount| mount.path.clone()).collect();
    if runtime.image_volumes_writable {
        places.extend(dna.start.volumes.iter().cloned());
    }
    places
}

pub(super) fn check(bound: &Bound<'_>) -> Vec<Finding> {
    if bound.spec.security.privileged && !bound.spec.security.read_only_root {
        return Vec::new();
    }
    let written: Vec<_> =
        bound.behavior.write.iter().filter(is_expected).filter(|item| is_on_disk(&item.what.path)).collect();
    let mut found: Vec<Finding> = Vec::new();
    if bound.spec.security.read_only_root {
        found.extend(written.iter().filter(|item| !is_writable(bound, &item.what.path)).map(|item| read_only(item)));
    }
    found.extend(written.iter().filter_map(|item| forbidden(bound, item)));
    found.extend(bound.spec.mounts.iter().filter_map(|mount| emptied(bound, mount, &written)));
    found
}

/// Below a place that can be written, and below no narrower one that cannot.
fn is_writable(bound: &Bound<'_>, path: &ImagePath) -> bool {
    let covers = |place: &&ImagePath| path.starts_with(place);
    let open = bound.writable.iter().filter(covers).map(|place| place.components().count()).max();
    let shut = bound.spec.mounts.iter().map(|mount| &mount.path).filter(|path| !bound.writable.contains(*path));
    let shut = shut.filter(covers).map(|place| place.components().count()).max();
    open.is_some_and(|open| shut.is_none_or(|shut| shut <= open))
}

fn read_only(item: &Known<Write>) -> Finding {
    let folder = item.what.path.folder();
    Finding {
        code: FindingCode::RootReadOnly,
        subject: item.what.path.to_string(),
        effect: failure(item.confidence),
        certainty: item.confidence,
        message: format!("{} is predicted to be written, and the root file system is read-only: EROFS", item.what.path),
        remedy: Some(format!("mount an emptyDir at {folder}")),
        evidence: item.evidence.clone(),
    }
}

/// A volume in which a folder of the image is missing that is written to.
fn emptied(bound: &Bound<'_>, mount: &Mount, written: &[&Known<Write>]) -> Option<Finding> {
    let is_empty = matches!(mount.volume, Volume::EmptyDir | Volume::Other) && mount.sub_path.is_empty();
    let is_lost = |folder: &ImagePath| {
        is_empty
            && *folder != mount.path
            && folder.starts_with(&mount.path)
            && bound.dna.folders.iter().any(|known| known.path == *folder)
    };
    let (item, lost) =
        written.iter().map(|item| (item, item.what.path.folder())).find(|(_, folder)| is_lost(folder))?;
    Some(Finding {
        code: FindingCode::FilesHidden,
        subject: lost.to_string(),
        effect: Effect::MayFail,
        certainty: item.confidence,
        message: format!(
            "the volume `{}` at {} has no folder {lost}, where {} is written",
            mount.name, mount.path, item.what.path
        ),
        remedy: Some(format!("mount it at {lost}")),
        evidence: item.evidence.clone(),
    })
}

/// The user may not write there, by owner and mode of the nearest folder that is known.
fn forbidden(bound: &Bound<'_>, item: &Known<Write>) -> Option<Finding> {
    let (path, identity) = (&item.what.path, &bound.identity);
    let uid = identity.uid.filter(|uid| *uid != 0)?;
    // Volumes have owners of their own.
    if bound.spec.mounts.iter().any(|mount| path.starts_with(&mount.path)) {
        return None;
    }
    let target = path.folder();
    let nearest = bound.dna.folders.iter().filter(|known| target.starts_with(&known.path));
    let nearest = nearest.max_by_key(|known| known.path.components().count())?;
    let bits = match () {
        () if nearest.uid == uid => nearest.mode >> 6,
        () if identity.groups.contains(&nearest.gid) => nearest.mode >> 3,
        () => nearest.mode,
    };
    (bits & 0o2 == 0).then(|| Finding {
        code: FindingCode::UserCannotWrite,
        subject: path.to_string(),
        // A file that is there, or a folder in between, may be the user's own.
        effect: failure(item.confidence).max(Effect::MayFail),
        certainty: item.confidence,
        message: format!(
            "user {uid} may not write {path}: {} belongs to {}:{} with mode {:04o}",
            nearest.path, nearest.uid, nearest.gid, nearest.mode
        ),
        remedy: Some(format!("mount an emptyDir at {target}, or run as the image's own user")),
        evidence: item.evidence.iter().take(MAX_EVIDENCE).cloned().collect::<Vec<Evidence>>(),
    })
}

/// Not of the kernel's own file systems, which the runtime mounts.
fn is_on_disk(path: &ImagePath) -> bool {
    let first = path.components().next().unwrap_or_default();
    !matches!(first, b"dev" | b"proc" | b"sys")
}

/// A few places tell enough.
const MAX_EVIDENCE: usize = 3;
