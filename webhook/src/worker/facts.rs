//! What is known of the images that a pod runs: by the digests that the kubelet pulled, for the platform of its node.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use dna::{Cause, Digest, Fact, ImageUse, PodSpec, SubjectFacts};
use jiff::Timestamp;
use oci::Reference;
use policies::{Needs, Review};

use super::{
    Worker, configuration,
    running::{Cluster, Named, Running, pulled},
};
use crate::rulebook::{self, Rulebook};

/// A pod to be asked about, and the rules for it.
pub(super) struct Asked {
    pub(super) pod: Running,
    pub(super) review: Review,
    pub(super) book: Arc<Rulebook>,
    pub(super) needs: Needs,
}

impl Worker {
    /// A pod as it is, with what the rules for it need; none where it is gone or at its end.
    pub(super) async fn asked(&self, cluster: &Cluster, named: &Named) -> Result<Option<Asked>, String> {
        let found = cluster.pod(named).await.map_err(|error| error.to_string())?;
        let Some(pod) = found.filter(|pod| !pod.has_ended()) else { return Ok(None) };
        let book = self.service.rulebook.load_full().ok_or("the rules are not read yet")?;
        let namespace = self.service.cluster.namespace(&named.namespace, Instant::now() + STEP).await;
        let namespace = namespace.map_err(|error| error.to_string())?;
        let audit_only = pod.is_mirror() || self.is_exempt(&named.namespace, &namespace);
        let review = super::asked(&pod.object, namespace.as_ref().clone(), audit_only);
        let needs = rulebook::needs(&book.rules.matching(&review), &spec(&pod)?, &review);
        Ok(Some(Asked { pod, review, book, needs }))
    }

    /// Facts of each image of the pod, under the names that the pod has for them.
    pub(super) async fn facts(&self, asked: &Asked, needs: &Needs) -> Result<Vec<SubjectFacts>, String> {
        let written = spec(&asked.pod)?;
        let mut spec = written.clone();
        if let Some(node) = self.nodes.load().get(asked.pod.node()) {
            spec.operating_systems = Some([node.os().to_owned()].into());
            spec.architectures = Some([node.architecture().to_owned()].into());
        }
        let (namespace, maps, started) = (&asked.review.request.namespace, self.maps.load(), asked.pod.started());
        for container in &mut spec.containers {
            let started = started.get(container.name.as_str()).copied();
            configuration::as_started(container, |name| maps.is_newer(namespace, name, started));
        }
        let asked_as_written = spec.clone();
        let ids = asked.pod.image_ids();
        for container in &mut spec.containers {
            if let Some(digest) = ids.get(container.name.as_str()).and_then(|id| pulled(id)) {
                container.image = pinned(&container.image, &digest);
            }
        }
        let mut subjects = self.gathered(asked, &spec, needs).await?;
        // The kubelet may name the platform's manifest, where people sign the index that the pod's tag leads to.
        let is_lone = |facts: &SubjectFacts| match &facts.resolved {
            Fact::Known(resolved) => resolved.index_digest.is_none(),
            Fact::Absent { .. } => true,
            Fact::Unknown { .. } => false,
        };
        if needs.who_vouches() && spec != asked_as_written && subjects.iter().any(is_lone) {
            let others = self.gathered(asked, &asked_as_written, needs).await?;
            for facts in subjects.iter_mut().filter(|facts| is_lone(facts)) {
                let same = others.iter().find(|other| same_image(other, facts));
                if let Some(other) = same {
                    facts.clone_from(other);
                }
            }
        }
        // Rules ask about the image as the pod names it.
        let uses: Vec<ImageUse> = written.images().collect();
        for facts in &mut subjects {
            let used =
                uses.iter().find(|used| (used.role, &used.name) == (facts.image.used.role, &facts.image.used.name));
            if let Some(used) = used {
                facts.image = crate::gather::name(used);
            }
        }
        Ok(subjects)
    }

    /// Asks until what takes long is done.
    async fn gathered(&self, asked: &Asked, spec: &PodSpec, needs: &Needs) -> Result<Vec<SubjectFacts>, String> {
        let until = Instant::now() + PATIENCE;
        let namespace = &asked.review.request.namespace;
        loop {
            let deadline = Instant::now() + STEP;
            let subjects = Box::pin(self.service.gather(namespace, spec, needs, &asked.book, deadline)).await?;
            let waits = subjects.iter().filter_map(pending).max();
            match waits {
                Some(wait) if Instant::now() < until => tokio::time::sleep(wait).await,
                _ => {
                    if let Some(recorder) = &self.service.recorder {
                        self.service.images.record(&subjects, recorder, Timestamp::now());
                    }
                    return Ok(subjects);
                }
            }
        }
    }
}

/// What the pod says of its containers.
pub(super) fn spec(pod: &Running) -> Result<PodSpec, String> {
    let spec = pod.object.get("spec").ok_or("it has no spec")?;
    PodSpec::read(spec).map_err(|error| error.to_string())
}

/// The same image as it was pulled; of what is no reference, its text.
fn pinned(image: &str, digest: &Digest) -> String {
    match image.parse::<Reference>() {
        Ok(reference) => format!("{}/{}@{digest}", reference.registry(), reference.repository()),
        Err(_) => image.to_owned(),
    }
}

/// How long to wait for what is being worked out.
fn pending(facts: &SubjectFacts) -> Option<Duration> {
    match &facts.dna {
        Fact::Unknown { cause: Cause::AnalysisPending { retry_seconds }, .. } => {
            Some(Duration::from_secs(retry_seconds.unwrap_or(5).clamp(1, 15)))
        }
        _ => None,
    }
}

fn same_image(one: &SubjectFacts, other: &SubjectFacts) -> bool {
    let is_place = (one.image.used.role, &one.image.used.name) == (other.image.used.role, &other.image.used.name);
    match (&one.resolved, &other.resolved) {
        (Fact::Known(one), Fact::Known(other)) => is_place && one.platform_digest == other.platform_digest,
        _ => false,
    }
}

/// For one step of the gathering.
const STEP: Duration = Duration::from_secs(60);

/// For the analyses of one pod's images: the largest take minutes.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_asked_for_where_the_pod_says_by_the_digest_that_was_pulled() {
        let digest = Digest::sha256(b"pulled");
        assert_eq!(pinned("nginx:1.27", &digest), format!("docker.io/library/nginx@{digest}"));
        let other = Digest::sha256(b"written");
        assert_eq!(pinned(&format!("r.example:5000/a/b:1@{other}"), &digest), format!("r.example:5000/a/b@{digest}"));
        assert_eq!(pinned("no reference!", &digest), "no reference!");
    }
}
