//! Accept-as-expected: proposed at an alert, signed elsewhere, given back signed, revoked. Nothing counts that is not signed.

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
};
use dna::Digest;
use jiff::Timestamp;
use lineage::{Action, Document, MAX_OVERLAYS, OverlayRow};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use trust::{By, Overlay, OverlayPredicate, OverlayScope};

use super::{
    Api, Who,
    alerts::writable,
    auth::{Caller, Namespaces},
    problem::{Asked, Problem, Sent, is_within, reason},
};
use crate::{
    overlays::{Accepted, LONGEST, NotCounted, is_acceptable, keep},
    stored,
};

/// What is to be accepted of an alert.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "NewOverlay")]
pub(super) struct AcceptSent {
    /// Why, for whoever signs and for the audit trail: 1 to 1000 bytes.
    reason: String,
    /// When it ends: within a year.
    #[schemars(with = "String")]
    expires_at: Timestamp,
    /// Where it is accepted, the alert's place within it; the alert's cluster, namespace, workload and container where it is absent.
    #[serde(default)]
    scope: Option<OverlayScope>,
}

/// A proposed overlay: it counts when it is signed and given to `POST /overlays`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "OverlayProposal")]
pub(super) struct Proposal {
    /// The in-toto statement that is to be signed, as it is: `mayfly overlay sign` does.
    statement: Value,
}

/// An overlay.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Overlay")]
pub(super) struct OverlayView {
    /// Its name: SHA-256 of the statement that is signed.
    id: String,
    /// The image it is for.
    image: String,
    /// What is accepted, where and why; absent where it does not count any more, as nobody who may signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    accepts: Option<OverlayPredicate>,
    /// Who signed, as the bridge's settings call him.
    #[serde(skip_serializing_if = "Option::is_none")]
    signer: Option<String>,
    /// The key or the certificate's subject that signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    signed_by: Option<String>,
    /// Whether acts are expected by it now.
    state: OverlayState,
    /// When it ends.
    #[schemars(with = "String")]
    expires_at: Timestamp,
    /// When a bridge took it.
    #[schemars(with = "String")]
    accepted_at: Timestamp,
    /// Who gave it to the bridge.
    accepted_by: String,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    revoked_at: Option<Timestamp>,
    /// By whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_by: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_reason: Option<String>,
}

/// Whether an overlay counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum OverlayState {
    /// It does.
    InForce,
    /// Its time is over.
    Expired,
    /// Somebody ended it.
    Revoked,
    /// Nobody signed it who may now.
    Unsigned,
}

/// Overlays.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct OverlayList {
    /// Also those that ended, the latest first.
    overlays: Vec<OverlayView>,
    /// What is attached to images that run and does not count, as this bridge found it last: for who may read all.
    refused: Vec<RefusedView>,
}

/// Something attached to an image that does not count, or a registry that did not say what is.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "RefusedOverlay")]
struct RefusedView {
    /// The image.
    image: String,
    /// Where.
    repository: String,
    /// The manifest that carries it; absent where the registry did not say what there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    carrier: Option<String>,
    /// Why.
    reason: String,
}

/// Why an overlay is revoked.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RevokeAsked {
    /// For the audit trail: 1 to 1000 bytes.
    reason: String,
}

/// Proposes that what an alert tells of is expected from now on.
pub(super) async fn propose(
    State(api): State<Api>,
    Extension(caller): Who,
    Path(id): Path<String>,
    Sent(sent): Sent<AcceptSent>,
) -> Result<Json<Proposal>, Problem> {
    let row = writable(&api, &caller, &id).await?;
    let alert = stored::alert(&row)?;
    let (reason, now) = (reason(&sent.reason)?, Timestamp::now());
    if !is_acceptable(alert.class) {
        return Err(Problem::conflict(
            format!("`{}` is no act of the image: it cannot be accepted", alert.class.name()),
            "resolve the alert, or suppress it",
        ));
    }
    let image: Digest = alert.place.digest.parse().map_err(|_| {
        Problem::conflict(
            "the alert names no digest of an image".to_owned(),
            "an overlay is for one digest: have the webhook bind the pod",
        )
    })?;
    in_time(sent.expires_at, now)?;
    let place = &alert.place;
    let part = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let scope = sent.scope.unwrap_or_else(|| OverlayScope {
        cluster: part(&place.cluster),
        namespace: part(&place.namespace),
        owner: part(&place.owner),
        container: part(&place.container),
    });
    let is = |part: &Option<String>, text: &str| part.as_ref().is_none_or(|part| part == text);
    if !(is(&scope.cluster, &place.cluster)
        && is(&scope.namespace, &place.namespace)
        && is(&scope.owner, &place.owner)
        && is(&scope.container, &place.container))
    {
        return Err(Problem::bad(
            "the scope does not cover the alert it is made at",
            "name what the alert has, or nothing, for each part",
        ));
    }
    may_accept(&caller, &scope)?;
    let predicate = OverlayPredicate {
        class: alert.class.name().to_owned(),
        subject: alert.subject,
        scope,
        alert: id.clone(),
        reason: reason.clone(),
        actor: caller.name.clone(),
        made_at: now,
        expires_at: sent.expires_at,
    };
    let statement = serde_json::to_value(predicate.about(&image)).map_err(|_| Problem::internal())?;
    note(&api, &caller, &id, &format!("proposed that it is expected: {reason}"), now).await?;
    Ok(Json(Proposal { statement }))
}

/// Takes a signed overlay.
pub(super) async fn take(
    State(api): State<Api>,
    Extension(caller): Who,
    Sent(bundle): Sent<Box<RawValue>>,
) -> Result<(StatusCode, Json<OverlayView>), Problem> {
    if api.overlays.is_empty() {
        return Err(Problem::conflict(
            "nobody may sign overlays".to_owned(),
            "name the signers in a file, and start the bridge with --overlay-signers FILE",
        ));
    }
    let (signers, now) = (api.overlays.clone(), Timestamp::now());
    let document = Document::pack(bundle.get().as_bytes())?;
    let verified = tokio::task::spawn_blocking(move || signers.verify(bundle.get().as_bytes(), now)).await;
    let verified = verified.map_err(|_| Problem::internal())?;
    let overlay = verified.map_err(|why| {
        Problem::bad(
            format!("it is no overlay that counts: {why}"),
            "send the bundle that `mayfly overlay sign` wrote, by a signer of the bridge's settings",
        )
    })?;
    let said = &overlay.predicate;
    may_accept(&caller, &said.scope)?;
    let Some((row, is_new)) = keep(&api.ledger, &overlay, document, &caller.name, now).await? else {
        return Err(Problem::conflict(
            format!("{MAX_OVERLAYS} overlays hold already"),
            "revoke some, or make one with a wider scope in their place",
        ));
    };
    if row.revoked.is_some() {
        return Err(Problem::conflict(
            "this overlay was revoked".to_owned(),
            "propose another one, and have it signed",
        ));
    }
    if is_new {
        let by = signed_by(&overlay);
        note(
            &api,
            &caller,
            &said.alert,
            &format!("overlay {}, signed by {by}: it is expected from now on", row.id),
            now,
        )
        .await?;
        tracing::info!(overlay = %row.id, image = %row.image, signer = overlay.proof.signer, by = caller.name, "an act is expected from now on");
    }
    api.accepted();
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(view(row, Some(&overlay), now))))
}

/// Lists overlays that bear on what the caller may read.
pub(super) async fn list(State(api): State<Api>, Extension(caller): Who) -> Result<Json<OverlayList>, Problem> {
    let (rows, now) = (api.ledger.overlays().await?, Timestamp::now());
    let signers = api.overlays.clone();
    let verified = tokio::task::spawn_blocking(move || {
        let read = |row: OverlayRow| {
            let accepted = Accepted::of(&row, &signers).ok();
            (row, accepted)
        };
        rows.into_iter().map(read).collect::<Vec<_>>()
    });
    let all = verified.await.map_err(|_| Problem::internal())?;
    let seen = all.into_iter().filter(|(_, accepted)| bears_on(&caller, accepted.as_ref()));
    let overlays = seen.map(|(row, accepted)| view(row, accepted.as_ref().map(Accepted::overlay), now)).collect();
    // Of what does not count nothing is believed, and so no namespace.
    let refused = if bears_on(&caller, None) { api.refused_overlays() } else { Vec::new() };
    let refused = refused.into_iter().map(|NotCounted { image, repository, carrier, reason }| {
        let (image, carrier) = (image.to_string(), carrier.map(|carrier| carrier.to_string()));
        RefusedView { image, repository, carrier, reason }
    });
    Ok(Json(OverlayList { overlays, refused: refused.collect() }))
}

/// Reads one.
pub(super) async fn read(
    State(api): State<Api>,
    Extension(caller): Who,
    Path(id): Path<String>,
) -> Result<Json<OverlayView>, Problem> {
    let (row, accepted) = readable(&api, &caller, &id).await?;
    Ok(Json(view(row, accepted.as_ref().map(Accepted::overlay), Timestamp::now())))
}

/// Gives out what is signed, to be attached to the image or given to another bridge.
pub(super) async fn bundle(
    State(api): State<Api>,
    Extension(caller): Who,
    Path(id): Path<String>,
) -> Result<Json<Box<RawValue>>, Problem> {
    let (row, _) = readable(&api, &caller, &id).await?;
    let text = String::from_utf8(row.bundle.unpack()?).map_err(|_| Problem::internal())?;
    Ok(Json(RawValue::from_string(text).map_err(|_| Problem::internal())?))
}

/// Ends one before its time.
pub(super) async fn revoke(
    State(api): State<Api>,
    Extension(caller): Who,
    Path(id): Path<String>,
    Asked(asked): Asked<RevokeAsked>,
) -> Result<StatusCode, Problem> {
    let (reason, now) = (reason(&asked.reason)?, Timestamp::now());
    let (row, accepted) = readable(&api, &caller, &id).await?;
    match &accepted {
        Some(accepted) => may_accept(&caller, &accepted.overlay().predicate.scope)?,
        // Of one that nobody signed who may, nothing is believed, and so nobody's namespace.
        None => may_accept(&caller, &OverlayScope::default())?,
    }
    if !api.ledger.revoke_overlay(&row.id, &caller.name, &reason, now).await? {
        return Err(Problem::missing("such overlay in force"));
    }
    if let Some(accepted) = accepted {
        let alert = &accepted.overlay().predicate.alert;
        note(&api, &caller, alert, &format!("overlay {} revoked: {reason}", row.id), now).await?;
    }
    tracing::info!(overlay = %row.id, by = caller.name, "an overlay is revoked");
    api.accepted();
    Ok(StatusCode::NO_CONTENT)
}

async fn readable(api: &Api, caller: &Caller, id: &str) -> Result<(OverlayRow, Option<Accepted>), Problem> {
    let missing = || Problem::missing("such overlay");
    let id: Digest = id.parse().map_err(|_| missing())?;
    let row = api.ledger.overlay(&id).await?.ok_or_else(missing)?;
    let accepted = Accepted::of(&row, &api.overlays).ok();
    if !bears_on(caller, accepted.as_ref()) {
        return Err(missing());
    }
    Ok((row, accepted))
}

/// Into the audit trail of the alert that an overlay was made at, where that is there still.
async fn note(api: &Api, caller: &Caller, alert: &str, text: &str, now: Timestamp) -> Result<(), Problem> {
    api.ledger.act(alert, Action::Annotate, (&caller.name, text), None, now).await?;
    api.changed();
    Ok(())
}

fn in_time(expires_at: Timestamp, now: Timestamp) -> Result<(), Problem> {
    if is_within(expires_at, now, LONGEST) {
        return Ok(());
    }
    Err(Problem::bad("`expiresAt` is not within the next year", "give a time within it; accept again when it comes"))
}

/// Whether all that a scope reaches is the caller's to change.
fn may_accept(caller: &Caller, scope: &OverlayScope) -> Result<(), Problem> {
    if caller.may_write_all(scope.cluster.as_deref(), scope.namespace.as_deref()) {
        return Ok(());
    }
    Err(Problem::forbidden(
        "the scope reaches into namespaces or clusters that you may not change",
        "name a `namespace`, and the `cluster`, in the scope",
    ))
}

/// Whether an overlay may bear on what the caller may read. Of one that does not count nothing is believed: it is for who reads all.
fn bears_on(caller: &Caller, accepted: Option<&Accepted>) -> bool {
    match accepted.map(|accepted| &accepted.overlay().predicate.scope) {
        Some(scope) => caller.may_read_in(scope.cluster.as_deref(), scope.namespace.as_deref()),
        None => caller.cluster.is_none() && caller.read == Namespaces::All,
    }
}

fn view(row: OverlayRow, overlay: Option<&Overlay>, now: Timestamp) -> OverlayView {
    let state = match overlay {
        _ if row.revoked.is_some() => OverlayState::Revoked,
        _ if row.expires_at <= now => OverlayState::Expired,
        Some(_) => OverlayState::InForce,
        None => OverlayState::Unsigned,
    };
    let (revoked_at, revoked_by, revoked_reason) = match row.revoked {
        Some(revoked) => (Some(revoked.at), Some(revoked.by), Some(revoked.reason)),
        None => (None, None, None),
    };
    OverlayView {
        id: row.id.to_string(),
        image: row.image.to_string(),
        accepts: overlay.map(|overlay| overlay.predicate.clone()),
        signer: overlay.map(|overlay| overlay.proof.signer.clone()),
        signed_by: overlay.map(signed_by),
        state,
        expires_at: row.expires_at,
        accepted_at: row.accepted_at,
        accepted_by: row.accepted_by,
        revoked_at,
        revoked_by,
        revoked_reason,
    }
}

fn signed_by(overlay: &Overlay) -> String {
    match &overlay.proof.by {
        By::Key(key) => format!("key {key}"),
        By::Certificate(certificate) => certificate.subject.clone().unwrap_or_default(),
    }
}

/// Of a signed overlay: a certificate and proofs of logs are some 10 KiB.
pub(super) const MAX_BUNDLE: usize = 256 << 10;
