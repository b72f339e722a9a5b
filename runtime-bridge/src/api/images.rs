//! What is known of an image digest, from build to run: its DNA and by whose word, what was decided, where it runs, its alerts.

use axum::{
    Extension, Json,
    extract::{Path, State},
};
use dna::Digest;
use jiff::Timestamp;
use lineage::{AlertQuery, BindingRow, DecisionQuery, DecisionRow, Origin, PAGE, SubjectDna};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Api, Who,
    alerts::{AlertView, within},
    problem::Problem,
};

/// The lineage of a digest, as far as the caller may read it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Image")]
pub(super) struct ImageView {
    /// The digest.
    digest: String,
    /// Its DNAs, the latest first.
    dna: Vec<DnaView>,
    /// What was decided about it, the latest first.
    decisions: Vec<DecisionView>,
    /// The containers that were admitted with it and whose pods live.
    bindings: Vec<BindingView>,
    /// What its containers did that was not expected, the last seen first.
    alerts: Vec<AlertView>,
    /// There are more decisions, bindings or alerts than the 100 of each that are shown.
    is_cut: bool,
}

/// A DNA of a digest.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ImageDna")]
struct DnaView {
    /// Its name.
    digest: String,
    /// The analyzer's rules that made it.
    rules: String,
    /// Those who attested it; absent where it is our own analysis.
    #[serde(skip_serializing_if = "Option::is_none")]
    signers: Option<Vec<String>>,
    /// The repository it was read from.
    repository: String,
    /// When it was last kept.
    #[schemars(with = "String")]
    at: Timestamp,
}

/// A decision about a digest.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Decision")]
struct DecisionView {
    /// Its name.
    id: String,
    /// When it was made.
    #[schemars(with = "String")]
    at: Timestamp,
    /// The cluster's name.
    cluster: String,
    /// The object's namespace.
    namespace: String,
    /// The object's kind.
    kind: String,
    /// The object's name.
    name: String,
    /// Who asked.
    user: String,
    /// `allow`, `warn` or `deny`.
    verdict: String,
    /// It was admitted without all facts, and is to be decided again.
    has_unknowns: bool,
}

/// A container that was admitted.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Binding")]
struct BindingView {
    /// The cluster's name.
    cluster: String,
    /// The pod's namespace.
    namespace: String,
    /// The pod's name; empty where the API server was yet to make one.
    pod: String,
    /// The pod's uid.
    pod_uid: String,
    /// The container's name.
    container: String,
    /// The controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// The image as the pod names it.
    image: String,
    /// The decision that admitted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<String>,
    /// When it was admitted.
    #[schemars(with = "String")]
    at: Timestamp,
}

impl From<SubjectDna> for DnaView {
    fn from(link: SubjectDna) -> Self {
        let signers = match link.origin {
            Origin::Analyzed => None,
            Origin::Attested { signers } => Some(signers.into_iter().collect()),
        };
        Self {
            digest: link.dna.to_string(),
            rules: link.rules.to_string(),
            signers,
            repository: link.repository,
            at: link.at,
        }
    }
}

impl From<DecisionRow> for DecisionView {
    fn from(row: DecisionRow) -> Self {
        Self {
            id: row.id.to_string(),
            at: row.at,
            cluster: row.cluster,
            namespace: row.namespace,
            kind: row.kind,
            name: row.name,
            user: row.user,
            verdict: row.verdict.as_str().to_owned(),
            has_unknowns: row.has_unknowns,
        }
    }
}

impl From<BindingRow> for BindingView {
    fn from(row: BindingRow) -> Self {
        Self {
            cluster: row.cluster,
            namespace: row.namespace,
            pod: row.pod,
            pod_uid: row.pod_uid,
            container: row.container,
            owner: row.owner,
            image: row.image,
            decision: row.decision.map(|id| id.to_string()),
            at: row.at,
        }
    }
}

/// Reads the lineage of a digest.
pub(super) async fn read(
    State(api): State<Api>,
    Extension(caller): Who,
    Path(digest): Path<String>,
) -> Result<Json<ImageView>, Problem> {
    let missing = || Problem::missing("such image");
    let wrong = |_| Problem::bad("the path names no digest", "give `sha256:` and 64 hexadecimal digits");
    let digest: Digest = digest.parse().map_err(wrong)?;
    let mut is_cut = false;

    let query = AlertQuery {
        digest: Some(digest.to_string()),
        limit: PAGE,
        ..within(&caller, None, None).ok_or_else(missing)?
    };
    let mut alerts = api.ledger.alerts(&query, Timestamp::now()).await?;
    let query = DecisionQuery {
        digest: Some(digest.clone()),
        cluster: caller.cluster.clone(),
        limit: PAGE,
        ..DecisionQuery::default()
    };
    let mut decisions = api.ledger.decisions(&query).await?;
    let mut bindings = api.ledger.bindings_to(&digest, None, PAGE).await?;
    // Of what is beyond a page of all namespaces nothing is known here, so that is told too.
    is_cut |= [alerts.len(), decisions.len(), bindings.len()].iter().any(|rows| *rows as u64 >= u64::from(PAGE));
    decisions.retain(|row| caller.may_read(&row.cluster, &row.namespace));
    bindings.retain(|row| caller.may_read(&row.cluster, &row.namespace));
    // A DNA is of a repository: whoever runs the image may read it, as may who reads everything.
    let is_known = !(alerts.is_empty() && decisions.is_empty() && bindings.is_empty());
    let reads_all = caller.cluster.is_none() && caller.read == super::auth::Namespaces::All;
    let dna = if is_known || reads_all { api.ledger.dnas_of(&digest, &digest).await? } else { Vec::new() };
    if !is_known && dna.is_empty() {
        return Err(missing());
    }
    is_cut |= [alerts.len(), decisions.len(), bindings.len()].iter().any(|rows| *rows > SHOWN);
    alerts.truncate(SHOWN);
    decisions.truncate(SHOWN);
    bindings.truncate(SHOWN);
    Ok(Json(ImageView {
        digest: digest.to_string(),
        dna: dna.into_iter().map(Into::into).collect(),
        decisions: decisions.into_iter().map(Into::into).collect(),
        bindings: bindings.into_iter().map(Into::into).collect(),
        alerts: alerts.into_iter().map(Into::into).collect(),
        is_cut,
    }))
}

/// Rows of each kind.
const SHOWN: usize = 100;
