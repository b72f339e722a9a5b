//! Who the first process is, and whether the kubelet and the runtime let it be.

use std::collections::BTreeSet;

use super::Bound;
use crate::{Confidence, ContainerSpec, Dna, Effect, Evidence, Finding, FindingCode};

/// The first process's user and groups; none where they are not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) groups: BTreeSet<u32>,
}

/// The pod's word before the image's. A pod that gives only a user gets that user's group from the image's `/etc/passwd`,
/// or 0. Source: containerd, `oci.WithUserID`.
pub(super) fn identity(dna: &Dna, spec: &ContainerSpec) -> Identity {
    let start = &dna.start;
    let uid = spec.security.user.or(start.uid);
    let of_passwd = || dna.accounts.users.iter().find(|user| Some(user.uid) == uid).map_or(0, |user| user.gid);
    let own = if spec.security.user.is_some() { Some(of_passwd()) } else { start.gid };
    let gid = spec.security.group.or(own);
    let mut groups = spec.security.groups.clone();
    if spec.security.user.is_none() {
        groups.extend(&start.groups);
    } else if let Some(name) = dna.accounts.users.iter().find(|user| Some(user.uid) == uid).map(|user| &user.name) {
        groups.extend(dna.accounts.groups.iter().filter(|group| group.members.contains(name)).map(|group| group.gid));
    }
    groups.extend(gid);
    Identity { uid, gid, groups }
}

pub(super) fn check(bound: &Bound<'_>) -> Vec<Finding> {
    let (start, security) = (&bound.dna.start, &bound.spec.security);
    let finding = |code, effect, message: String, remedy: &str| Finding {
        code,
        subject: if start.user.is_empty() { "root".to_owned() } else { start.user.clone() },
        effect,
        certainty: Confidence::Certain,
        message,
        remedy: Some(remedy.to_owned()),
        evidence: vec![Evidence::Config { key: "User".to_owned() }],
    };
    let mut found = Vec::new();
    // Source: Kubernetes, `pkg/kubelet/kuberuntime/security_context.go`, verifyRunAsNonRoot.
    if security.run_as_non_root {
        let name = start.user.split(':').next().unwrap_or_default();
        let of_image = name.parse::<u32>().ok();
        match (security.user, of_image) {
            (Some(0), _) => found.push(finding(
                FindingCode::RunsAsRoot,
                Effect::Fails,
                "runAsNonRoot and runAsUser 0 contradict each other: the kubelet does not start the container".to_owned(),
                "remove one of the two",
            )),
            (Some(_), _) => {}
            (None, Some(0)) => found.push(root_image(&finding)),
            (None, None) if name.is_empty() => found.push(root_image(&finding)),
            (None, None) => found.push(finding(
                FindingCode::UserNotVerifiable,
                Effect::Fails,
                format!("the image names its user `{name}` by name, and runAsNonRoot needs a number: the kubelet does not start the container"),
                &bound.identity.uid.map_or("set runAsUser".to_owned(), |uid| format!("set runAsUser: {uid}")),
            )),
            (None, Some(_)) => {}
        }
    }
    if security.user.is_none() && start.uid.is_none() {
        found.push(finding(
            FindingCode::UserNotFound,
            Effect::Fails,
            format!(
                "the image's user `{}` is not in its /etc/passwd: the runtime cannot start the container",
                start.user
            ),
            "set runAsUser to a number",
        ));
    }
    found.extend(changed(bound));
    found
}

/// Another user than the image was made for, where that may matter beyond owners of files.
fn changed(bound: &Bound<'_>) -> Option<Finding> {
    let (own, uid) = (bound.dna.start.uid?, bound.spec.security.user?);
    let needed: Vec<_> = bound.behavior.capabilities.iter().filter(super::is_expected).collect();
    let (message, remedy) = match (own, uid) {
        _ if own == uid => return None,
        (0, _) => {
            let names: Vec<&str> = needed.iter().map(|item| item.what.name.as_str()).collect();
            needed.first()?;
            (
                format!("the image is made to start as root, with {}: user {uid} has none of it", names.join(", ")),
                "configure it to start without root, or let it start as root",
            )
        }
        (_, 0) => {
            ("the image is made for a user, and many servers refuse to run as root".to_owned(), "remove runAsUser: 0")
        }
        _ => return None,
    };
    Some(Finding {
        code: FindingCode::UserChanged,
        subject: uid.to_string(),
        effect: Effect::MayFail,
        certainty: needed.first().map_or(Confidence::Possible, |item| item.confidence),
        message,
        remedy: Some(remedy.to_owned()),
        evidence: needed.first().map(|item| item.evidence.clone()).unwrap_or_default(),
    })
}

fn root_image(finding: &impl Fn(FindingCode, Effect, String, &str) -> Finding) -> Finding {
    let message = "the image runs as root and the pod says runAsNonRoot: the kubelet does not start the container";
    finding(
        FindingCode::RunsAsRoot,
        Effect::Fails,
        message.to_owned(),
        "set runAsUser to a user that the image works as",
    )
}
