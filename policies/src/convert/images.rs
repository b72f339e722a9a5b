//! Patterns of image names: theirs in, our globs out.
//!
//! Ours are held against the normalized name without its digest, with its tag and without: a pattern without a tag stands for all.
//! Where the two cannot mean the same, a pattern of what is meant becomes wider, and one of what is left out narrower.

use super::fields::Notes;

/// The glob of a `ClusterImagePolicy`. Source: sigstore/policy-controller, `pkg/apis/glob`: `*` stays within a component, `**` does not,
/// and Docker Hub is `index.docker.io`.
pub(super) fn of_policy_controller(glob: &str, path: &str, notes: &mut Notes) -> String {
    let glob = match glob {
        "*" => "docker.io/library/*".to_owned(),
        "*/*" => "docker.io/*/*".to_owned(),
        other => other.replacen("index.docker.io/", "docker.io/", 1),
    };
    included(&glob, path, notes)
}

/// A pattern of Kyverno, where `*` stands for anything.
pub(super) fn of_kyverno(pattern: &str, path: &str, notes: &mut Notes) -> Vec<String> {
    let made = included(&anything(pattern), path, notes);
    let short = made.strip_prefix("docker.io/").filter(|rest| !rest.contains('/') && !rest.starts_with("**"));
    // Kyverno leaves `docker.io/nginx` as it is; its name here is `docker.io/library/nginx`.
    let long = short.map(|rest| format!("docker.io/library/{rest}"));
    match long {
        Some(long) if !short.unwrap_or_default().contains("**") => vec![long],
        long => [Some(made), long].into_iter().flatten().collect(),
    }
}

/// A pattern of Kyverno for what is left out; none where nothing here says the same without saying more.
pub(super) fn left_out(pattern: &str, path: &str, notes: &mut Notes) -> Option<String> {
    if pattern.contains('@') {
        let why = format!("`{pattern}` leaves out digests, and names are compared without; nothing is left out by it");
        notes.stricter(path, why, "write a RuleException for the digest");
        return None;
    }
    let made = hub(&anything(pattern));
    // Without tag or wildcard it means `latest` only.
    Some(if has_tag(&made) || made.contains('*') { made } else { format!("{made}:latest") })
}

fn included(glob: &str, path: &str, notes: &mut Notes) -> String {
    let (name, digest) = glob.split_once('@').map_or((glob, None), |(name, digest)| (name, Some(digest)));
    if digest
        .is_some_and(|digest| !digest.trim_matches('*').is_empty() && digest != "sha256:**" && digest != "sha256:*")
    {
        notes.stricter(path, format!("names are compared without digests: `{glob}` stands for every digest of it"), "");
    }
    let made = hub(name);
    if !has_tag(&made) && !made.contains('*') && digest.is_none() {
        notes.stricter(
            path,
            format!("`{glob}` names no tag, and stands for every tag here"),
            "name the tag: `…:latest`",
        );
    }
    let untagged = made.strip_suffix(":**").or_else(|| made.strip_suffix(":*"));
    untagged.unwrap_or(&made).to_owned()
}

/// With the registry's name in front, where it is Docker Hub by its being left out.
fn hub(name: &str) -> String {
    match name.split_once('/') {
        None if name.starts_with('*') => name.to_owned(),
        None => format!("docker.io/library/{name}"),
        Some((first, _)) if first.contains(['.', ':', '*']) || first == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
    }
}

fn has_tag(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

/// `*` for anything, not for a component.
fn anything(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 4);
    let mut in_star = false;
    for c in pattern.chars() {
        if c != '*' {
            out.push(c);
        } else if !in_star {
            out.push_str("**");
        }
        in_star = c == '*';
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::Effect;

    fn notes() -> Notes {
        Notes::new("f", "o")
    }

    #[test]
    fn globs_of_policy_controller_mean_the_same_here() {
        for (theirs, ours) in [
            ("**", "**"),
            ("*", "docker.io/library/*"),
            ("*/*", "docker.io/*/*"),
            ("index.docker.io/library/nginx:*", "docker.io/library/nginx"),
            ("ghcr.io/team/*", "ghcr.io/team/*"),
            ("ghcr.io/team/**", "ghcr.io/team/**"),
            ("ghcr.io/team/app:1.*", "ghcr.io/team/app:1.*"),
            ("localhost:5000/app*", "localhost:5000/app*"),
            ("org/app*", "docker.io/org/app*"),
        ] {
            let mut notes = notes();
            assert_eq!(of_policy_controller(theirs, "p", &mut notes), ours);
            assert!(notes.all.is_empty(), "{theirs}: {:?}", notes.all);
        }
    }

    #[test]
    fn patterns_of_kyverno_cross_components() {
        for (theirs, ours) in [
            ("*", vec!["**"]),
            ("ghcr.io/team/app:*", vec!["ghcr.io/team/app"]),
            ("ghcr.io/team/app*", vec!["ghcr.io/team/app**"]),
            ("ghcr.io/*:v1", vec!["ghcr.io/**:v1"]),
            ("docker.io/nginx:1", vec!["docker.io/library/nginx:1"]),
            ("docker.io/ng*", vec!["docker.io/ng**", "docker.io/library/ng**"]),
            ("nginx:1", vec!["docker.io/library/nginx:1"]),
        ] {
            assert_eq!(of_kyverno(theirs, "p", &mut notes()), ours, "{theirs}");
        }
    }

    #[test]
    fn what_means_more_is_told_and_what_leaves_out_leaves_out_less() {
        let mut told = notes();
        assert_eq!(of_kyverno("ghcr.io/a/b@sha256:12", "p", &mut told), ["ghcr.io/a/b"]);
        assert_eq!(of_kyverno("ghcr.io/a/b", "p", &mut told), ["ghcr.io/a/b"]);
        assert_eq!(told.all.iter().filter(|note| note.effect == Effect::Stricter).count(), 2);
        assert_eq!(left_out("ghcr.io/a/b@sha256:12", "p", &mut told), None);
        assert_eq!(left_out("ghcr.io/a/b", "p", &mut told).as_deref(), Some("ghcr.io/a/b:latest"));
        assert_eq!(left_out("ghcr.io/a/b*", "p", &mut told).as_deref(), Some("ghcr.io/a/b**"));
    }
}
