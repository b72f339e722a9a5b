//! What is known of an image digest, from build to run: which images it stands for, who vouches for them, their DNA and by whose word, what
//! was decided, where they run, their alerts.

use std::collections::BTreeSet;

use axum::{
    Extension, Json,
    extract::{Path, State},
};
use dna::{Attested, Commit, Digest, Kinship, Voucher};
use jiff::Timestamp;
use lineage::{AlertQuery, Among, BindingRow, DecisionQuery, DecisionRow, ImageRow, Origin, PAGE, SubjectDna};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Api, Who,
    alerts::{AlertView, within},
    auth::Caller,
    problem::Problem,
};
use crate::explain;

/// The lineage of a digest, as far as the caller may read it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Image")]
pub(super) struct ImageView {
    /// The digest that was asked for.
    digest: String,
    /// The images that it stands for, as they were seen in repositories: of an index one for each platform. None where nobody resolved it.
    images: Vec<SeenView>,
    /// Its DNAs, the latest first.
    dna: Vec<DnaView>,
    /// Its family: what known images say of its latest DNA; absent where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    kin: Option<KinView>,
    /// What was decided about it, the latest first.
    decisions: Vec<DecisionView>,
    /// The containers that were admitted with it and whose pods live.
    bindings: Vec<BindingView>,
    /// What its containers did that was not expected, the last seen first.
    alerts: Vec<AlertView>,
    /// There are more decisions, bindings or alerts than the 100 of each that are shown.
    is_cut: bool,
}

/// What known images say of one.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Kin")]
struct KinView {
    /// The DNA that is held against them.
    dna: String,
    /// The DNAs of the ledger that were looked at.
    looked_at: u64,
    /// Those that are yet to be read: ask again.
    waiting: u64,
    /// The answer, once none waits. Who may not read every image is told no names of others.
    #[serde(skip_serializing_if = "Option::is_none")]
    kinship: Option<Kinship>,
}

/// An image, as it was seen in a repository.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SeenImage")]
struct SeenView {
    /// The digest of the platform's manifest: by it all else is found.
    digest: String,
    /// The platform.
    platform: String,
    /// The repository, with its registry.
    repository: String,
    /// The digest of its configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<String>,
    /// Indexes that have it.
    indexes: Vec<String>,
    /// The digest that was first seen there last before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
    /// When it was first seen there.
    #[schemars(with = "String")]
    first_at: Timestamp,
    /// When it was last seen there.
    #[schemars(with = "String")]
    last_at: Timestamp,
    /// Who vouches for it, by signers that rules name; absent where nobody looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    vouched: Option<VouchedView>,
}

/// Who vouches for an image.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Vouched")]
struct VouchedView {
    /// Signatures that hold.
    signatures: Vec<Voucher>,
    /// Attestations that hold, without what they say.
    attestations: Vec<Attested>,
    /// The commits that it was built from, as attestations of its build say.
    commits: Vec<Commit>,
}

/// A DNA of a digest.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ImageDna")]
struct DnaView {
    /// Its name.
    digest: String,
    /// The image that it is of.
    image: String,
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
    /// The digest that was admitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
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
            image: link.subject.to_string(),
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
            digest: row.digest.map(|digest| digest.to_string()),
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
    let wrong = |_| Problem::bad("the path names no digest", "give `sha256:` and 64 hexadecimal digits");
    let digest: Digest = digest.parse().map_err(wrong)?;
    let mut view = lineage(&api, &caller, &digest).await?;
    if let Some(link) = view.dna.first()
        && let Ok(name) = link.digest.parse::<Digest>()
    {
        let found = api.kin.of(&name, &link.repository, Among::All).await?;
        let reads_all = caller.cluster.is_none() && caller.read == super::auth::Namespaces::All;
        view.kin = found.map(|found| KinView {
            dna: name.to_string(),
            looked_at: found.looked_at,
            waiting: found.waiting,
            kinship: found.kinship.map(|kinship| if reads_all { kinship } else { kinship.without_names() }),
        });
    }
    Ok(Json(view))
}

/// The lineage of a digest, as far as a caller may read it.
pub(super) async fn lineage(api: &Api, caller: &Caller, digest: &Digest) -> Result<ImageView, Problem> {
    let missing = || Problem::missing("such image");
    let within = within(caller, None, None).ok_or_else(missing)?;
    let seen = api.ledger.images_named(digest.as_str()).await?;
    // The digest itself too: what nobody resolved is kept by what sensors call it.
    let names: BTreeSet<&Digest> = std::iter::once(digest).chain(seen.iter().map(|row| &row.digest)).collect();
    let mut is_cut = names.len() > MAX_IMAGES;

    let (mut alerts, mut decisions, mut bindings) = (Vec::new(), Vec::new(), Vec::new());
    for name in names.iter().take(MAX_IMAGES) {
        let query = AlertQuery { digest: Some(name.to_string()), limit: PAGE, ..within.clone() };
        let of_image = api.ledger.alerts(&query, Timestamp::now()).await?;
        let query = DecisionQuery {
            digest: Some(Digest::clone(name)),
            cluster: caller.cluster.clone(),
            limit: PAGE,
            ..DecisionQuery::default()
        };
        let decided = api.ledger.decisions(&query).await?;
        let bound = api.ledger.bindings_to(name, None, PAGE).await?;
        // Of what is beyond a page of all namespaces nothing is known here, so that is told too.
        is_cut |= [of_image.len(), decided.len(), bound.len()].iter().any(|rows| *rows as u64 >= u64::from(PAGE));
        alerts.extend(of_image);
        decisions.extend(decided);
        bindings.extend(bound);
    }
    alerts.sort_by(|one, other| other.last_seen.cmp(&one.last_seen).then_with(|| one.id.cmp(&other.id)));
    decisions.sort_by_key(|row| std::cmp::Reverse(row.id));
    decisions.dedup_by_key(|row| row.id);
    decisions.retain(|row| caller.may_read(&row.cluster, &row.namespace));
    bindings.retain(|row| caller.may_read(&row.cluster, &row.namespace));
    // A DNA is of a repository: whoever runs the image may read it, as may who reads everything.
    let is_known = !(alerts.is_empty() && decisions.is_empty() && bindings.is_empty());
    let reads_all = caller.cluster.is_none() && caller.read == super::auth::Namespaces::All;
    let (mut dna, mut images) = (Vec::new(), Vec::new());
    if is_known || reads_all {
        for name in names.iter().take(MAX_IMAGES) {
            dna.extend(api.ledger.dnas_of(name, name).await?);
        }
        for row in seen.into_iter().take(SHOWN) {
            images.push(self::seen(api, row).await?);
        }
    }
    if !is_known && dna.is_empty() && images.is_empty() {
        return Err(missing());
    }
    is_cut |= [alerts.len(), decisions.len(), bindings.len()].iter().any(|rows| *rows > SHOWN);
    alerts.truncate(SHOWN);
    decisions.truncate(SHOWN);
    bindings.truncate(SHOWN);
    Ok(ImageView {
        digest: digest.to_string(),
        images,
        dna: dna.into_iter().map(Into::into).collect(),
        kin: None,
        decisions: decisions.into_iter().map(Into::into).collect(),
        bindings: bindings.into_iter().map(Into::into).collect(),
        alerts: alerts.into_iter().map(Into::into).collect(),
        is_cut,
    })
}

impl ImageView {
    /// The names of its DNAs.
    pub(super) fn dna(&self) -> impl Iterator<Item = Digest> {
        self.dna.iter().filter_map(|dna| dna.digest.parse().ok())
    }

    /// The names of what was decided.
    pub(super) fn decisions(&self) -> impl Iterator<Item = uuid::Uuid> {
        self.decisions.iter().filter_map(|decision| decision.id.parse().ok())
    }
}

async fn seen(api: &Api, row: ImageRow) -> Result<SeenView, Problem> {
    let indexes = api.ledger.indexes_of(&row.digest).await?;
    let before = api.ledger.image_before(&row).await?;
    let vouched = explain::vouched(&row).map(|vouched| VouchedView {
        signatures: vouched.signatures,
        attestations: vouched.attestations,
        commits: vouched.commits,
    });
    Ok(SeenView {
        digest: row.digest.to_string(),
        platform: row.platform,
        repository: row.repository,
        config: row.config.map(|config| config.to_string()),
        indexes: indexes.into_iter().map(|index| index.to_string()).collect(),
        before: before.map(|before| before.digest.to_string()),
        first_at: row.first_at,
        last_at: row.last_at,
        vouched,
    })
}

/// Rows of each kind.
const SHOWN: usize = 100;
/// Images of one index that are looked at.
const MAX_IMAGES: usize = 16;
