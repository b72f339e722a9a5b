//! Responses by the API server. Each needs its own right ([deploy/respond](../../../deploy/respond)).

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet, StatefulSet},
    core::v1::{Namespace, Pod},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use lineage::ResponseRow;
use policies::kinds::ResponseAction;
use serde_json::{Value, json};

use super::{Hands, ISOLATED, OPT_IN, Order, Undone};

/// The API server of the bridge's own cluster.
#[derive(Clone)]
pub struct KubeHands(Client);

impl std::fmt::Debug for KubeHands {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("KubeHands")
    }
}

impl KubeHands {
    /// By a client.
    #[must_use]
    pub fn new(client: Client) -> Arc<Self> {
        Arc::new(Self(client))
    }

    fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.0.clone(), namespace)
    }

    /// The pod of an order, where it is still that.
    async fn pod(&self, order: &Order) -> Result<Pod, Undone> {
        let pods: Api<Pod> = self.api(&order.namespace);
        let found = pods.get_opt(&order.target).await.map_err(failed)?;
        let pod = found.ok_or_else(|| Undone::Refused("the pod is gone".to_owned()))?;
        let is_other = match &order.pod_uid {
            Some(uid) => pod.uid().as_ref() != Some(uid),
            None => pod.creation_timestamp().is_some_and(|made| made.0.as_second() > Timestamp::as_second(order.seen)),
        };
        if is_other {
            return Err(Undone::Refused("the pod is gone; another has its name".to_owned()));
        }
        Ok(pod)
    }

    async fn isolate(&self, order: &Order) -> Result<Value, Undone> {
        self.pod(order).await?;
        let policies: Api<NetworkPolicy> = self.api(&order.namespace);
        let name = policy_name(&order.id);
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "mayfly"}},
            "spec": {"podSelector": {"matchLabels": {ISOLATED: order.id}}, "policyTypes": ["Ingress", "Egress"]},
        });
        let policy: NetworkPolicy =
            serde_json::from_value(policy).map_err(|error| Undone::Failed(error.to_string()))?;
        match policies.create(&PostParams::default(), &policy).await {
            Ok(_) => {}
            // Of a try before.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(failed(error)),
        }
        // Once the policy is there: a label that is not meant for anything would be forgotten.
        self.label(&order.namespace, &order.target, Some(&order.id)).await.map_err(failed)?;
        Ok(json!({"policy": name}))
    }

    async fn label(&self, namespace: &str, pod: &str, value: Option<&str>) -> kube::Result<()> {
        let pods: Api<Pod> = self.api(namespace);
        let patch = json!({"metadata": {"labels": {ISOLATED: value}}});
        pods.patch(pod, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ())
    }

    async fn delete(&self, order: &Order) -> Result<Value, Undone> {
        let pod = self.pod(order).await?;
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        let pods: Api<Pod> = self.api(&order.namespace);
        pods.delete(&order.target, &parameters).await.map_err(failed)?;
        Ok(Value::Null)
    }

    /// How many replicas there are, and then none, or so many again.
    async fn scale(&self, namespace: &str, owner: &str, replicas: i32) -> Result<i32, Undone> {
        let (kind, name) = owner.split_once('/').unwrap_or(("", owner));
        macro_rules! scale {
            ($kind:ty) => {{
                let api: Api<$kind> = self.api(namespace);
                let before = api.get_scale(name).await.map_err(failed)?;
                let before = before.spec.and_then(|spec| spec.replicas).unwrap_or(0);
                let patch = json!({"spec": {"replicas": replicas}});
                api.patch_scale(name, &PatchParams::default(), &Patch::Merge(patch)).await.map_err(failed)?;
                Ok(before)
            }};
        }
        match kind {
            "Deployment" => scale!(Deployment),
            "StatefulSet" => scale!(StatefulSet),
            "ReplicaSet" => scale!(ReplicaSet),
            _ => Err(Undone::Refused(format!("a {kind} cannot be scaled"))),
        }
    }
}

impl Hands for KubeHands {
    fn may<'a>(&'a self, namespace: &'a str) -> BoxFuture<'a, Result<bool, String>> {
        async move {
            let namespaces: Api<Namespace> = Api::all(self.0.clone());
            let found = namespaces.get_opt(namespace).await.map_err(|error| told(&error))?;
            let labels: BTreeMap<String, String> = found.map(|found| found.labels().clone()).unwrap_or_default();
            Ok(labels.get(OPT_IN).is_some_and(|value| value == "true"))
        }
        .boxed()
    }

    fn act<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<Value, Undone>> {
        async move {
            match order.action {
                ResponseAction::Isolate => self.isolate(order).await,
                ResponseAction::DeletePod => self.delete(order).await,
                ResponseAction::ScaleToZero => {
                    Ok(json!({"replicas": self.scale(&order.namespace, &order.target, 0).await?}))
                }
                // The webhook reads it from the ledger.
                ResponseAction::QuarantineDigest => Ok(Value::Null),
            }
        }
        .boxed()
    }

    fn undo<'a>(&'a self, row: &'a ResponseRow) -> BoxFuture<'a, Result<(), String>> {
        async move {
            let undo: Value = serde_json::from_str(&row.undo).unwrap_or_default();
            match row.action.as_str() {
                "Isolate" => {
                    let policies: Api<NetworkPolicy> = self.api(&row.namespace);
                    let name = policy_name(&row.id);
                    match policies.delete(&name, &DeleteParams::default()).await {
                        Ok(_) => {}
                        Err(kube::Error::Api(status)) if status.code == 404 => {}
                        Err(error) => return Err(told(&error)),
                    }
                    match self.label(&row.namespace, &row.target, None).await {
                        // The pod is gone.
                        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                        done => done.map_err(|error| told(&error)),
                    }
                }
                "ScaleToZero" => {
                    let replicas = undo.get("replicas").and_then(Value::as_i64);
                    let replicas = replicas.and_then(|replicas| i32::try_from(replicas).ok());
                    let replicas = replicas.ok_or("how many replicas there were is not known; scale it by hand")?;
                    match self.scale(&row.namespace, &row.target, replicas).await {
                        Ok(_) => Ok(()),
                        Err(Undone::Refused(why) | Undone::Failed(why)) => Err(why),
                    }
                }
                "DeletePod" => Err("a pod that was deleted does not come back; what owns it makes another".to_owned()),
                other => Err(format!("{other} is nothing that this version knows")),
            }
        }
        .boxed()
    }
}

fn policy_name(id: &str) -> String {
    format!("mayfly-isolate-{id}")
}

fn failed(error: kube::Error) -> Undone {
    Undone::Failed(told(&error))
}

/// An error, with what to do where it is a right that is missing.
fn told(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            format!("{}; apply deploy/respond, or its part for this", status.message)
        }
        other => other.to_string(),
    }
}
