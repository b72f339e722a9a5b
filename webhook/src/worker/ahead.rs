//! Images of pods to come: a template was reviewed, and what is worked out of its images now need not be waited for later.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use dna::PodSpec;
use policies::{Needs, Review};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::service::Service;

/// A template of pods.
#[derive(Debug)]
pub(crate) struct Template {
    namespace: String,
    /// A pod as it would be made.
    pod: Value,
}

impl Template {
    /// The template that a request is about to store; none where it brings none, or none that is new.
    pub(crate) fn of(review: &Review) -> Option<Self> {
        let request = &review.request;
        if request.dry_run {
            return None;
        }
        let path = dna::Workload::path(&request.kind.group, &request.kind.kind).filter(|path| !path.is_empty())?;
        let template = review.object.pointer(path)?;
        let spec = template.get("spec")?;
        if review.old_object.pointer(path).and_then(|old| old.get("spec")) == Some(spec) {
            return None;
        }
        let labels = template.pointer("/metadata/labels");
        let metadata = json!({"namespace": request.namespace, "labels": labels});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
        Some(Self { namespace: request.namespace.clone(), pod })
    }
}

/// Takes the templates that the service reviews from now on.
pub(crate) fn listen(service: &Service) -> mpsc::Receiver<Template> {
    let (sender, receiver) = mpsc::channel(MAX_TEMPLATES);
    // A service has one listener: a second one hears nothing.
    let _ = service.ahead.set(sender);
    receiver
}

/// Looks at the images of templates, one after the other, until `ended`.
pub(crate) async fn run(
    service: Arc<Service>,
    mut templates: mpsc::Receiver<Template>,
    ended: impl Future<Output = ()>,
) {
    let looking = async {
        while let Some(template) = templates.recv().await {
            if let Err(why) = look(&service, &template).await {
                tracing::debug!(why, namespace = template.namespace, "the images of a template are not known yet");
            }
        }
    };
    tokio::select! {
        () = looking => {}
        () = ended => {}
    }
}

async fn look(service: &Service, template: &Template) -> Result<(), String> {
    let deadline = Instant::now() + TIME;
    let book = service.rulebook.load_full().ok_or("the rules are not read yet")?;
    let namespace = service.cluster.namespace(&template.namespace, deadline).await;
    let namespace = namespace.map_err(|error| error.to_string())?;
    let review = super::asked(&template.pod, namespace.as_ref().clone(), false);
    let spec = template.pod.get("spec").ok_or("it has no spec")?;
    let spec = PodSpec::read(spec).map_err(|error| error.to_string())?;
    let mut needs = crate::rulebook::needs(&book.rules.matching(&review), &spec, &review);
    // What is bound to running pods is worked out anyway.
    if service.recorder.is_some() {
        (needs.digest, needs.dna) = (true, true);
        needs.dna_analyzed |= needs.dna_signers.is_empty();
    }
    if needs == Needs::default() {
        return Ok(());
    }
    service.gather(&template.namespace, &spec, &needs, &book, deadline).await.map(|_| ())
}

/// Templates that wait; of more, the pods ask for themselves.
const MAX_TEMPLATES: usize = 64;

/// For the images of one template. An analysis goes on when this is over.
const TIME: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: &str, group: &str, object: Value, old_object: Value) -> Review {
        let kind = json!({"group": group, "version": "v1", "kind": kind});
        let request =
            serde_json::from_value(json!({"uid": "u", "kind": kind, "namespace": "shop", "operation": "UPDATE"}));
        Review { request: request.expect("a request"), object, old_object, ..Review::default() }
    }

    #[test]
    fn templates_are_looked_at_when_they_are_new() {
        let deployment = |image: &str| {
            let spec = json!({"containers": [{"name": "c", "image": image}]});
            json!({"spec": {"template": {"metadata": {"labels": {"app": "web"}}, "spec": spec}}})
        };
        let template = Template::of(&request("Deployment", "apps", deployment("b"), deployment("a"))).expect("one");
        assert_eq!(template.pod.pointer("/spec/containers/0/image"), Some(&json!("b")));
        assert_eq!(template.pod.pointer("/metadata/labels/app"), Some(&json!("web")));
        assert!(Template::of(&request("Deployment", "apps", deployment("a"), deployment("a"))).is_none());
        assert!(Template::of(&request("Pod", "", deployment("a"), Value::Null)).is_none());
        let mut dry = request("Deployment", "apps", deployment("a"), Value::Null);
        dry.request.dry_run = true;
        assert!(Template::of(&dry).is_none());
        let job = json!({"spec": {"jobTemplate": deployment("a")}});
        assert!(Template::of(&request("CronJob", "batch", job, Value::Null)).is_some());
    }
}
