//! The workloads of a cluster: every kind that holds pods, page by page, each workload once.

use dna::Workload;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use serde_json::Value;

use crate::cluster::Cluster;

impl Cluster {
    /// The workloads that run, of all namespaces: those that no other workload makes.
    ///
    /// # Errors
    /// What the API server would not list, and why; or that there is no cluster.
    pub async fn workloads(&self) -> Result<Vec<Value>, String> {
        let client = self.client().ok_or("there is no cluster")?;
        let mut found = Vec::new();
        for (group, kind) in Workload::all() {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            let mut page = ListParams::default().limit(PAGE);
            loop {
                let listed =
                    api.list(&page).await.map_err(|error| format!("{} cannot be listed: {error}", resource.plural))?;
                for item in listed.items {
                    let Ok(mut object) = serde_json::to_value(item) else { continue };
                    // Items of a list do not say what they are.
                    if let Some(fields) = object.as_object_mut() {
                        fields.insert("apiVersion".to_owned(), resource.api_version.clone().into());
                        fields.insert("kind".to_owned(), kind.into());
                    }
                    if is_top(&object) {
                        found.push(object);
                    }
                }
                match listed.metadata.continue_ {
                    Some(token) if !token.is_empty() => page.continue_token = Some(token),
                    _ => break,
                }
            }
        }
        Ok(found)
    }
}

/// Whether an object stands for itself: no workload makes it, and it has not ended.
#[must_use]
pub fn is_top(object: &Value) -> bool {
    let text = |object: &Value, field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let owner =
        owners.into_iter().flatten().find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true));
    let is_made = owner.is_some_and(|owner| {
        let version = text(owner, "apiVersion");
        let group = version.split_once('/').map_or("", |(group, _)| group);
        Workload::path(group, &text(owner, "kind")).is_some()
    });
    let phase = object.pointer("/status/phase").and_then(Value::as_str);
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let is_done = |condition: &Value| {
        matches!(text(condition, "type").as_str(), "Complete" | "Failed") && text(condition, "status") == "True"
    };
    let has_ended = match text(object, "kind").as_str() {
        "Pod" => matches!(phase, Some("Succeeded" | "Failed")),
        "Job" => conditions.into_iter().flatten().any(is_done),
        // What an operator of its own left behind of a former revision.
        "ReplicaSet" => owner.is_some() && object.pointer("/spec/replicas").and_then(Value::as_u64) == Some(0),
        _ => false,
    };
    !is_made && !has_ended
}

/// Objects in one answer of the API server.
const PAGE: u32 = 200;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{cluster::Permissions, worker::fake::Fake};

    fn owned(kind: &str, version: &str, name: &str, by: (&str, &str)) -> Value {
        json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "shop",
            "ownerReferences": [{"apiVersion": by.0, "kind": by.1, "name": "x", "uid": "u", "controller": true}]}})
    }

    #[test]
    fn what_a_workload_makes_is_that_workload_s() {
        for (object, expected) in [
            (owned("ReplicaSet", "apps/v1", "a", ("apps/v1", "Deployment")), false),
            (owned("Pod", "v1", "a", ("apps/v1", "ReplicaSet")), false),
            (owned("Job", "batch/v1", "a", ("batch/v1", "CronJob")), false),
            (owned("ReplicaSet", "apps/v1", "a", ("argoproj.io/v1alpha1", "Rollout")), true),
            // A kind of the same name in another group makes no pods that are known.
            (owned("Pod", "v1", "a", ("example.org/v1", "Job")), true),
            (owned("Pod", "v1", "a", ("v1", "Node")), true),
            (json!({"kind": "Pod", "status": {"phase": "Succeeded"}}), false),
            (json!({"kind": "Pod", "status": {"phase": "Running"}}), true),
            (json!({"kind": "Job", "status": {"conditions": [{"type": "Complete", "status": "True"}]}}), false),
            (json!({"kind": "Job", "status": {"conditions": [{"type": "Suspended", "status": "True"}]}}), true),
        ] {
            assert_eq!(is_top(&object), expected, "{object}");
        }
    }

    #[tokio::test]
    async fn all_kinds_are_listed_page_by_page() {
        let fake = Fake::default();
        for at in 0..230 {
            let object = json!({"metadata": {"name": format!("d{at}"), "namespace": "shop"}});
            fake.put(&format!("/apis/apps/v1/namespaces/shop/deployments/d{at}"), object);
        }
        fake.put("/apis/batch/v1/namespaces/shop/cronjobs/c", json!({"metadata": {"name": "c", "namespace": "shop"}}));
        fake.put(
            "/apis/apps/v1/namespaces/shop/replicasets/r",
            owned("ReplicaSet", "apps/v1", "r", ("apps/v1", "Deployment")),
        );
        let cluster = Cluster::new(Some(fake.client()), Permissions { secrets: false, config_maps: false });
        let found = cluster.workloads().await.expect("workloads");
        let of =
            |kind: &str| found.iter().filter(|object| object.get("kind").and_then(Value::as_str) == Some(kind)).count();
        assert_eq!((of("Deployment"), of("CronJob"), of("ReplicaSet"), found.len()), (230, 1, 0, 231));
        assert!(found.iter().all(|object| object.get("apiVersion").is_some()));
        fake.state().is_down = true;
        let error = cluster.workloads().await.expect_err("it is down");
        assert!(error.contains("pods cannot be listed"), "{error}");
    }
}
