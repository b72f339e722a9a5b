//! What became of each rule, exception and whatever belongs to them, written into its `status`: for `kubectl get`.
//!
//! | condition | it is true where |
//! | --- | --- |
//! | `Loaded` | the object loads as it is written |
//! | `Ready` | it is in force, as it is written or as it was before |

use std::time::Duration;

use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, PostParams},
};
use serde_json::Value;
use tracing::{debug, warn};

use policies::objects::{Own, status};

use super::Worker;

impl Worker {
    /// Writes what is not written yet, again and again.
    pub(super) async fn keep_telling(&self) {
        let Some(client) = self.client() else { return };
        let mut told = String::new();
        loop {
            match self.tell_all(client).await {
                Ok(()) => told.clear(),
                Err(error) => {
                    if told != error {
                        warn!(error, "the status of rules is not written");
                    }
                    told = error;
                }
            }
            tokio::time::sleep(crate::rulebook::READ_AGAIN).await;
        }
    }

    pub(super) async fn tell_all(&self, client: &Client) -> Result<(), String> {
        let standings = self.service.standings.load_full();
        let Some(book) = self.service.rulebook.load_full() else { return Ok(()) };
        let disabled: Vec<String> = book.rules.disabled().collect();
        for standing in standings.iter() {
            let own = Own { problems: &book.problems, disabled: &disabled };
            if let Some(status) = status(standing, &own, Timestamp::now()) {
                write(client, &standing.object, status).await?;
            }
        }
        Ok(())
    }
}

async fn write(client: &Client, object: &Value, status: Value) -> Result<(), String> {
    let mut object: DynamicObject = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    let name = object.metadata.name.clone().unwrap_or_default();
    let types = object.types.clone().unwrap_or_default();
    let kind = types.kind.clone();
    if let Some(fields) = object.data.as_object_mut() {
        fields.insert("status".to_owned(), status);
    }
    let resource =
        ApiResource::from_gvk(&kube::core::GroupVersionKind::try_from(&types).map_err(|error| error.to_string())?);
    let api: Api<DynamicObject> = match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    // With the version it was read in: what was changed since is read again first.
    let written = tokio::time::timeout(PATIENCE, api.replace_status(&name, &PostParams::default(), &object)).await;
    match written {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(answer))) if answer.is_conflict() || answer.is_not_found() => {
            debug!(kind, name, "it was changed meanwhile");
            Ok(())
        }
        Ok(Err(error)) => Err(format!("{kind} {name}: {error}")),
        Err(late) => Err(format!("{kind} {name}: {late}")),
    }
}

/// Of one write.
const PATIENCE: Duration = Duration::from_secs(10);
