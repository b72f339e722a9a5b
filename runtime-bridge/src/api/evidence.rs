//! An incident as one file, as far as the caller may read what it is made of.

use std::collections::BTreeSet;

use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    Extension,
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use dna::Digest;
use jiff::Timestamp;
use lineage::{Decision, RuleVersion};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Api, Who, alerts, blind::BlindView, images, incidents, problem::Problem};
use crate::{evidence::Evidence, incident::tree::trees};

/// A decision with its reasons.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Decided<'a> {
    id: Uuid,
    at: Timestamp,
    cluster: &'a str,
    namespace: &'a str,
    kind: &'a str,
    name: &'a str,
    user: &'a str,
    operation: &'a str,
    verdict: &'static str,
    has_unknowns: bool,
    images: &'a [lineage::DecisionImage],
    rules: &'a [RuleVersion],
    details: Box<RawValue>,
}

/// Gives the archive.
pub(super) async fn read(
    State(api): State<Api>,
    Extension(caller): Who,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let incident = incidents::readable(&api, &caller, &id)?;
    let mut evidence = Evidence::default();
    let wrong = |error: serde_json::Error| {
        tracing::error!(%error, "a part of evidence is not written");
        Problem::internal()
    };
    evidence.add("incident.json", &incident).map_err(wrong)?;
    let alerts = incidents::alerts(&api, &incident).await?;
    evidence.add("trees.json", &trees(&alerts)).map_err(wrong)?;
    let mut dnas: BTreeSet<Digest> = alerts.iter().filter_map(|alert| alert.grounds.as_ref()?.dna.clone()).collect();
    for alert in &alerts {
        let whole = alerts::whole(&api, &caller, &alert.id).await?;
        evidence.add(&format!("alerts/{}.json", alert.id), &whole).map_err(wrong)?;
    }
    let mut decisions = BTreeSet::new();
    for digest in incident.digests.iter().filter_map(|digest| digest.parse::<Digest>().ok()) {
        let Ok(image) = images::lineage(&api, &caller, &digest).await else { continue };
        dnas.extend(image.dna());
        decisions.extend(image.decisions());
        evidence.add(&format!("images/{}.json", digest.hex()), &image).map_err(wrong)?;
    }
    for id in decisions {
        let Some(decision) = api.ledger.decision(id).await? else { continue };
        evidence.add(&format!("decisions/{id}.json"), &decided(&decision)?).map_err(wrong)?;
    }
    let blind = api.ledger.blind(None, incident.first_seen, None, BLIND).await?;
    let blind: Vec<_> = blind
        .into_iter()
        .filter(|row| row.from <= incident.last_seen && caller.sees(&row.cluster))
        .map(BlindView::from)
        .collect();
    evidence.add("blind.json", &blind).map_err(wrong)?;
    // The largest last, so that nothing else has no room for them.
    for dna in dnas {
        if let Some(json) = api.ledger.dna(&dna).await? {
            evidence.put(&format!("dna/{}.json", dna.hex()), json);
        }
    }
    let name = incident.id.clone();
    let (for_whom, now) = (caller.name.clone(), Timestamp::now());
    let archive = tokio::task::spawn_blocking(move || evidence.archive(&name, &for_whom, now)).await;
    let archive = archive.ok().and_then(Result::ok).ok_or_else(Problem::internal)?;
    let sum = format!("sha-256=:{}:", STANDARD.encode(digest(&SHA256, &archive)));
    let file = format!("attachment; filename=\"incident-{}.tar.gz\"", incident.id);
    let headers = [
        (header::CONTENT_TYPE, "application/gzip".to_owned()),
        (header::CONTENT_DISPOSITION, file),
        // RFC 9530.
        (header::HeaderName::from_static("repr-digest"), sum),
    ];
    Ok((headers, archive).into_response())
}

fn decided(decision: &Decision) -> Result<Decided<'_>, Problem> {
    let details = String::from_utf8(decision.details.unpack()?).ok().and_then(|json| RawValue::from_string(json).ok());
    Ok(Decided {
        id: decision.id,
        at: decision.at,
        cluster: &decision.cluster,
        namespace: &decision.namespace,
        kind: &decision.kind,
        name: &decision.name,
        user: &decision.user,
        operation: &decision.operation,
        verdict: decision.verdict.as_str(),
        has_unknowns: decision.has_unknowns,
        images: &decision.images,
        rules: &decision.rules,
        details: details.ok_or_else(Problem::internal)?,
    })
}

/// Blind intervals of an incident, the latest.
const BLIND: u32 = 500;
