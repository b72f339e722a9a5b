//! An authority shared by replicas through a Secret, and the `caBundle` of webhook configurations that trust it.
//!
//! Every write names the version it was made from: of two replicas that want to write, one does, and the other reads what it
//! wrote.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::ValidatingWebhookConfiguration, core::v1::Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{Authority, Error, Lifetimes, Pair, Serving, Step};

/// Where the authority lives, and who trusts it.
#[derive(Clone)]
pub struct SecretSource {
    /// Of the API server.
    pub client: Client,
    /// The Secret's namespace.
    pub namespace: String,
    /// The Secret's name. One that is there must be of type `kubernetes.io/tls` or `Opaque`; other keys in it are left.
    pub name: String,
    /// DNS names of the server, such as `mayfly.mayfly-system.svc`.
    pub dns_names: BTreeSet<String>,
    /// `ValidatingWebhookConfiguration`s whose every `caBundle` is kept.
    pub webhooks: Vec<String>,
    /// How long certificates live.
    pub lifetimes: Lifetimes,
}

impl std::fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretSource({}/{}, {:?}, {:?})", self.namespace, self.name, self.dns_names, self.webhooks)
    }
}

/// What a replica remembers between two looks at the Secret.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// The bundle that every configuration had at the end of the last look.
    trusted: Option<String>,
}

impl SecretSource {
    /// Brings Secret, server and configurations to where they ought to be. Returns until when the authority is valid.
    pub(crate) async fn look(
        &self,
        serving: &Serving,
        memory: &mut Memory,
        now: Timestamp,
    ) -> Result<Timestamp, Error> {
        let authority = self.settled(memory, now).await?;
        let (chain, key) = authority.leaf();
        let place = format!("Secret {}/{}", self.namespace, self.name);
        let pair = Pair::parse(&place, chain.as_bytes(), key.as_bytes(), serving.provider())?;
        let until = pair.not_after();
        if serving.replace(pair) {
            tracing::info!(secret = %place, %until, "serving a new certificate");
        }
        let bundle = authority.bundle();
        memory.trusted = None;
        for name in &self.webhooks {
            self.trust(name, &bundle).await?;
        }
        memory.trusted = Some(bundle);
        Ok(authority.not_after())
    }

    /// The authority of the Secret, after all steps that are due.
    async fn settled(&self, memory: &Memory, now: Timestamp) -> Result<Authority, Error> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut lost = 0;
        while lost < ATTEMPTS {
            let found = secrets.get_opt(&self.name).await.map_err(|error| self.failed("get", error))?;
            let data = found.as_ref().and_then(|secret| secret.data.clone()).unwrap_or_default();
            let (mut authority, mut is_changed) = match Authority::read(&data) {
                Some(authority) => (authority, false),
                None => (Authority::begin(&self.dns_names, &self.lifetimes, now)?.trusting(&data, now), true),
            };
            for _ in 0..MAX_STEPS {
                let step = authority.state(&self.dns_names, &self.lifetimes, now);
                // Before anything is issued by it, every configuration had it for one look at least.
                let waits = step == Step::SwitchAuthority && memory.trusted.as_ref() != Some(&authority.bundle());
                if step == Step::Keep || waits {
                    break;
                }
                tracing::info!(secret = %self.name, ?step, "certificates change");
                authority = authority.after(step, &self.dns_names, &self.lifetimes, now)?;
                is_changed = true;
            }
            if !is_changed || self.is_written(&secrets, found, &authority).await? {
                return Ok(authority);
            }
            lost += 1;
        }
        Err(Error::Conflict { what: format!("Secret {}/{}", self.namespace, self.name), attempts: ATTEMPTS })
    }

    /// Writes the authority, unless another replica wrote since `found` was read.
    async fn is_written(
        &self,
        secrets: &Api<Secret>,
        found: Option<Secret>,
        authority: &Authority,
    ) -> Result<bool, Error> {
        let parameters = PostParams::default();
        let (verb, written) = match found {
            Some(mut secret) => {
                let data = secret.data.get_or_insert_default();
                data.retain(|key, _| key != NEXT_KEY);
                data.extend(authority.data());
                // The version that was read is in its metadata: the API server refuses when it is another by now.
                ("update", secrets.replace(&self.name, &parameters, &secret).await)
            }
            None => ("create", secrets.create(&parameters, &self.secret(authority.data())).await),
        };
        match written {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == CONFLICT => Ok(false),
            Err(error) => Err(self.failed(verb, error)),
        }
    }

    fn secret(&self, data: BTreeMap<String, ByteString>) -> Secret {
        let labels = BTreeMap::from([("app.kubernetes.io/name".to_owned(), "mayfly".to_owned())]);
        Secret {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(data),
            ..Secret::default()
        }
    }

    /// Puts the bundle into every webhook of a configuration, where it is another.
    async fn trust(&self, name: &str, bundle: &str) -> Result<(), Error> {
        let configurations: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let failed = |verb: &str, error| Error::Kubernetes {
            what: format!("{verb} of ValidatingWebhookConfiguration {name}"),
            source: Box::new(error),
        };
        for _ in 0..ATTEMPTS {
            let found = configurations.get_opt(name).await.map_err(|error| failed("get", error))?;
            let Some(found) = found else {
                tracing::warn!(name, "there is no such ValidatingWebhookConfiguration: nothing to keep");
                return Ok(());
            };
            let is_other = |ca: Option<&ByteString>| ca.is_none_or(|ca| ca.0 != bundle.as_bytes());
            let webhooks = found.webhooks.unwrap_or_default();
            let changed: Vec<_> = webhooks
                .iter()
                .filter(|webhook| is_other(webhook.client_config.ca_bundle.as_ref()))
                .map(|webhook| {
                    let bundle = ByteString(bundle.as_bytes().to_vec());
                    json!({"name": webhook.name, "clientConfig": {"caBundle": bundle}})
                })
                .collect();
            if changed.is_empty() {
                return Ok(());
            }
            // Webhooks are merged by name; what else is in them, newer fields too, is left as it is.
            let patch = json!({
                "metadata": {"resourceVersion": found.metadata.resource_version},
                "webhooks": changed,
            });
            match configurations.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(_) => {
                    tracing::info!(name, webhooks = changed.len(), "caBundle is written");
                    return Ok(());
                }
                Err(kube::Error::Api(status)) if status.code == CONFLICT => {}
                Err(error) => return Err(failed("patch", error)),
            }
        }
        Err(Error::Conflict { what: format!("ValidatingWebhookConfiguration {name}"), attempts: ATTEMPTS })
    }

    fn failed(&self, verb: &str, error: kube::Error) -> Error {
        let what = format!("{verb} of Secret {}/{}", self.namespace, self.name);
        Error::Kubernetes { what, source: Box::new(error) }
    }
}

const CONFLICT: u16 = 409;
/// To write what others write too.
const ATTEMPTS: u32 = 5;
/// That can be due at once: an authority added, switched to, and its leaf.
const MAX_STEPS: usize = 6;
const NEXT_KEY: &str = "next-ca.key";

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use std::time::Duration;

    use http::Method;
    use serde_json::Value;

    use super::*;
    use crate::{
        ServingOptions,
        probe::{BOTH, Cluster, client, shake},
    };

    const SECRET: &str = "/api/v1/namespaces/mayfly/secrets/tls";

    struct Replica {
        source: SecretSource,
        serving: Serving,
        memory: Memory,
    }

    impl Replica {
        fn new(cluster: &Cluster) -> Self {
            let source = SecretSource {
                client: cluster.client(),
                namespace: "mayfly".into(),
                name: "tls".into(),
                dns_names: ["a.svc".to_owned()].into(),
                webhooks: vec!["mayfly".into()],
                lifetimes: Lifetimes::default(),
            };
            let serving = Serving::new(&ServingOptions::default()).expect("TLS");
            Self { source, serving, memory: Memory::default() }
        }

        async fn look(&mut self, now: Timestamp) -> Result<Timestamp, Error> {
            self.source.look(&self.serving, &mut self.memory, now).await
        }

        fn is_trusted(&self, bundle: &str, now: Timestamp) -> bool {
            shake(self.serving.config(), client(bundle, None, now, BOTH)).is_ok()
        }
    }

    fn cluster() -> Cluster {
        let cluster = Cluster::default();
        cluster.configure("mayfly", &["one", "two"]);
        cluster
    }

    fn at(hour: u64) -> Timestamp {
        Timestamp::from_second(1_800_000_000).expect("a time") + Duration::from_secs(hour * 3600)
    }

    #[tokio::test]
    async fn an_authority_begins_and_is_trusted_by_every_webhook() {
        let cluster = cluster();
        let mut replica = Replica::new(&cluster);
        replica.look(at(0)).await.expect("settled");
        let bundles = cluster.bundles("mayfly");
        assert!(bundles.len() == 2 && bundles[0] == bundles[1] && replica.is_trusted(&bundles[0], at(0)));
        let secret = cluster.state().objects[SECRET].clone();
        assert_eq!(secret["type"], "kubernetes.io/tls");
        let webhooks = cluster.state().objects.values().find_map(|object| object["webhooks"].as_array().cloned());
        assert_eq!(webhooks.expect("webhooks")[1]["future"], 1, "what we do not know is left");

        // The next look reads, and writes nothing.
        let before = cluster.state().asked.len();
        replica.look(at(1)).await.expect("settled");
        assert!(cluster.state().asked[before..].iter().all(|asked| asked.starts_with("GET")));
    }

    #[tokio::test]
    async fn of_two_replicas_that_begin_at_once_one_wins_and_both_serve_its_certificate() {
        let cluster = cluster();
        let (mut one, mut two) = (Replica::new(&cluster), Replica::new(&cluster));
        let (first, second) = tokio::join!(one.look(at(0)), two.look(at(0)));
        assert_eq!(first.expect("settled"), second.expect("settled"));
        let asked = cluster.state().asked.clone();
        assert!(asked.iter().filter(|asked| asked.starts_with("POST")).count() == 2, "both tried: {asked:?}");
        let bundle = &cluster.bundles("mayfly")[0];
        assert!(bundle.matches("BEGIN").count() == 1 && one.is_trusted(bundle, at(0)) && two.is_trusted(bundle, at(0)));
    }

    #[tokio::test]
    async fn a_conflict_is_settled_by_what_the_other_wrote() {
        let cluster = cluster();
        let mut replica = Replica::new(&cluster);
        replica.look(at(0)).await.expect("settled");
        // Another replica renews, just before this one does.
        let renewed =
            Authority::begin(&["a.svc".to_owned()].into(), &Lifetimes::default(), at(24 * 61)).expect("issued");
        let mut secret = cluster.state().objects[SECRET].clone();
        secret["data"] = serde_json::to_value(renewed.data()).expect("JSON");
        cluster.state().races.push((Method::PUT, SECRET.into(), secret));
        cluster.state().races.push((Method::PATCH, "/elsewhere".into(), Value::Object(Default::default())));
        replica.look(at(24 * 61)).await.expect("settled");
        assert_eq!(cluster.bundles("mayfly"), [renewed.bundle(), renewed.bundle()]);
        assert!(replica.is_trusted(&renewed.bundle(), at(24 * 61)));
        // The same for a configuration that others write, and one that they never stop to.
        cluster.configure("mayfly", &["one"]);
        cluster.state().failures = vec![(Method::PATCH, 409); 2];
        replica.look(at(24 * 61)).await.expect("settled");
        cluster.configure("mayfly", &["one"]);
        cluster.state().failures = vec![(Method::PATCH, 409); 9];
        assert!(matches!(replica.look(at(24 * 61)).await, Err(Error::Conflict { .. })));
    }

    #[tokio::test]
    async fn a_refusal_says_what_right_is_missing_and_serves_on() {
        let cluster = cluster();
        let mut replica = Replica::new(&cluster);
        cluster.state().failures.push((Method::GET, 403));
        let error = replica.look(at(0)).await.expect_err("a refusal");
        assert_eq!(error.to_string(), "get of Secret mayfly/tls");
        replica.look(at(0)).await.expect("settled");
        let bundle = cluster.bundles("mayfly")[0].clone();
        cluster.state().failures.push((Method::GET, 500));
        assert!(replica.look(at(1)).await.is_err() && replica.is_trusted(&bundle, at(1)));
    }

    #[tokio::test]
    async fn a_secret_that_was_spoiled_begins_anew_and_keeps_what_is_not_ours() {
        let cluster = cluster();
        let mut replica = Replica::new(&cluster);
        replica.look(at(0)).await.expect("settled");
        cluster.state().objects.get_mut(SECRET).expect("the Secret")["data"] =
            json!({"ca.key": "AAAA", "notes": "AAAA"});
        replica.look(at(1)).await.expect("settled");
        assert!(replica.is_trusted(&cluster.bundles("mayfly")[1], at(1)));
        assert_eq!(cluster.state().objects[SECRET]["data"]["notes"], "AAAA");
    }

    #[tokio::test]
    async fn a_configuration_that_is_not_there_or_was_reverted_is_no_obstacle() {
        let cluster = Cluster::default();
        let mut replica = Replica::new(&cluster);
        replica.look(at(0)).await.expect("settled");
        cluster.configure("mayfly", &["one"]);
        replica.look(at(1)).await.expect("settled");
        assert!(replica.is_trusted(&cluster.bundles("mayfly")[0], at(1)));
    }

    /// A replica that cannot read the Secret from before the authority changes until its own certificate ends.
    #[tokio::test]
    async fn a_replica_that_does_not_learn_of_a_new_authority_is_trusted_as_long_as_its_certificate_is_valid() {
        let cluster = cluster();
        let (mut one, mut cut_off) = (Replica::new(&cluster), Replica::new(&cluster));
        // The last certificate of the first authority is made a day before the change.
        for day in [0, 60, 120, 180, 242] {
            one.look(at(day * 24)).await.expect("settled");
        }
        cut_off.look(at(242 * 24)).await.expect("settled");
        let first = cluster.bundles("mayfly")[0].clone();
        let (mut changed, mut dropped) = (None, None);
        for day in 243..400 {
            for hour in [0, 2] {
                let now = at(day * 24 + hour);
                one.look(now).await.expect("settled");
                let bundle = cluster.bundles("mayfly")[0].clone();
                assert!(one.is_trusted(&bundle, now), "day {day}");
                let is_valid = cut_off.serving.status(now).expires_in.is_some_and(|left| left >= 0);
                assert_eq!(cut_off.is_trusted(&bundle, now), is_valid, "day {day}");
                if changed.is_none() && !one.is_trusted(&first, now) {
                    changed = Some(day);
                }
                if dropped.is_none() && !bundle.contains(&first) {
                    dropped = Some(day);
                }
            }
        }
        assert_eq!((changed, dropped), (Some(244), Some(365)), "it issued, and it expired");
        // It learns of it: both serve the same.
        cut_off.look(at(400 * 24)).await.expect("settled");
        assert!(cut_off.is_trusted(&cluster.bundles("mayfly")[0], at(400 * 24)));
    }

    /// Two replicas and API servers that learn of a bundle late, for three years.
    #[tokio::test]
    async fn through_three_years_no_api_server_meets_a_certificate_that_it_does_not_trust() {
        let cluster = cluster();
        let mut replicas = [Replica::new(&cluster), Replica::new(&cluster)];
        replicas[0].look(at(0)).await.expect("settled");
        let (mut known, mut bundles) = (cluster.bundles("mayfly")[0].clone(), BTreeSet::new());
        for turn in 0..3 * 365 * 4 {
            let now = at(turn * 6);
            // One of them looks now and then only; every hundredth time the API server is away.
            for (n, replica) in replicas.iter_mut().enumerate() {
                if n == 0 || turn % 2 == 0 {
                    cluster.state().failures.extend((turn % 100 == 99).then_some((Method::PATCH, 500)));
                    let _ = replica.look(now).await;
                    cluster.state().failures.clear();
                }
                if turn > 0 {
                    assert!(replica.is_trusted(&known, now), "replica {n} at turn {turn}");
                }
            }
            known.clone_from(&cluster.bundles("mayfly")[1]);
            bundles.insert(known.clone());
        }
        assert!(bundles.len() >= 8, "authorities changed: {}", bundles.len());
    }
}
