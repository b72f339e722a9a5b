//! Callers that a cluster knows: the API server says who a token is of, and what he may do with `alerts` of `mayfly.dev` in each
//! namespace, so that the cluster's roles are the bridge's.

use std::{collections::BTreeSet, time::Duration};

use dna::Digest;
use futures_util::{StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use lineage::Ledger;
use moka::future::Cache;

use super::auth::{Access, Authenticate, Caller, Credentials, Namespaces, Unavailable};

/// A cluster's API server.
pub struct Kubernetes {
    client: Client,
    cluster: String,
    ledger: Ledger,
    callers: Cache<(Digest, Access), Option<Caller>>,
}

impl std::fmt::Debug for Kubernetes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Kubernetes").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Kubernetes {
    /// Asks this API server, for what is in its own cluster; the ledger says in which namespaces there is anything.
    pub fn new(client: Client, cluster: String, ledger: Ledger) -> Self {
        let callers = Cache::builder().max_capacity(MAX_CALLERS).time_to_live(KEPT).build();
        Self { client, cluster, ledger, callers }
    }

    async fn ask(&self, token: &str, access: Access) -> Result<Option<Caller>, Unavailable> {
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_owned()), ..TokenReviewSpec::default() },
            ..TokenReview::default()
        };
        let reviewed = Api::all(self.client.clone()).create(&PostParams::default(), &review).await;
        let status = reviewed.map_err(|error| failed("TokenReview", &error))?.status.unwrap_or_default();
        let Some(user) = status.user.filter(|_| status.authenticated == Some(true)) else { return Ok(None) };
        let read = self.namespaces(&user, "get", None).await?;
        let write = match access {
            Access::Read => Namespaces::none(),
            Access::Write => self.namespaces(&user, "update", Some(&read)).await?,
        };
        let name = user.username.unwrap_or_default();
        Ok(Some(Caller { name, cluster: Some(self.cluster.clone()), read, write }))
    }

    /// Where a user may do this, of those namespaces that the ledger knows and that are `within`.
    async fn namespaces(
        &self,
        user: &UserInfo,
        verb: &str,
        within: Option<&Namespaces>,
    ) -> Result<Namespaces, Unavailable> {
        if self.may(user, verb, None).await? {
            return Ok(Namespaces::All);
        }
        let known = match within {
            Some(Namespaces::Only(names)) => names.clone(),
            _ => self.ledger.namespaces(MAX_NAMESPACES).await.map_err(|error| Unavailable(error.to_string()))?,
        };
        let named = known.into_iter().filter(|name| !name.is_empty());
        let allowed: BTreeSet<String> = stream::iter(named)
            .map(async |name| Ok(self.may(user, verb, Some(&name)).await?.then_some(name)))
            .buffer_unordered(AT_ONCE)
            .try_filter_map(async |name| Ok(name))
            .try_collect()
            .await?;
        Ok(Namespaces::Only(allowed))
    }

    async fn may(&self, user: &UserInfo, verb: &str, namespace: Option<&str>) -> Result<bool, Unavailable> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username.clone(),
                uid: user.uid.clone(),
                groups: user.groups.clone(),
                extra: user.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("mayfly.dev".to_owned()),
                    resource: Some("alerts".to_owned()),
                    verb: Some(verb.to_owned()),
                    namespace: namespace.map(str::to_owned),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviewed = Api::all(self.client.clone()).create(&PostParams::default(), &review).await;
        let status = reviewed.map_err(|error| failed("SubjectAccessReview", &error))?.status.unwrap_or_default();
        Ok(status.allowed && status.denied != Some(true))
    }
}

impl Authenticate for Kubernetes {
    fn caller<'a>(
        &'a self,
        credentials: &'a Credentials,
        access: Access,
    ) -> BoxFuture<'a, Result<Option<Caller>, Unavailable>> {
        Box::pin(async move {
            let Some(token) = credentials.token() else { return Ok(None) };
            let key = (Digest::sha256(token.as_bytes()), access);
            let asked = self.callers.try_get_with(key, async {
                let answer = tokio::time::timeout(ANSWER, self.ask(token, access)).await;
                answer.unwrap_or_else(|_| Err(Unavailable("the API server does not answer in time".to_owned())))
            });
            asked.await.map_err(|error| Unavailable::clone(&error))
        })
    }
}

/// What the API server said; never the token that was sent.
fn failed(what: &str, error: &kube::Error) -> Unavailable {
    let why = match error {
        kube::Error::Api(status) => format!("{}: {}", status.code, status.message),
        _ => "it cannot be reached".to_owned(),
    };
    Unavailable(format!("a {what} failed: {why}"))
}

/// A right that is taken away holds this long.
const KEPT: Duration = Duration::from_secs(60);
const MAX_CALLERS: u64 = 4096;
/// Namespaces that are asked for, one by one, where a user may not read all of them.
const MAX_NAMESPACES: u32 = 500;
const AT_ONCE: usize = 8;
const ANSWER: Duration = Duration::from_secs(10);
