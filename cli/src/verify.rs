//! `mayfly verify`: rules from arguments, proof from the registry; who, when, by which log and on which digest out.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use dna::Digest;
use serde::Serialize;
use trust::{
    Answer, Attestation, By, Discovery, Evidence, Findings, Formats, Identity, Proof, PublicKey, Root, Signer, Text,
    Verified, Who, attested_dna, discover,
};

use crate::{
    args::{
        ExplainFormat,
        trust::{EvidenceArg, Verify},
    },
    output::{self, Destination},
    remote::{self, Remote},
    text,
};

/// All was looked at, and the answer is no.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotVerified(String);

/// What is printed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    reference: String,
    subjects: &'a [Digest],
    verified: bool,
    #[serde(flatten)]
    findings: &'a Findings,
    #[serde(flatten)]
    discovery: &'a Discovery,
}

/// Verifies what the arguments name.
pub(crate) fn run(args: &Verify) -> anyhow::Result<()> {
    let signers = signers(args)?;
    anyhow::ensure!(
        (1..=signers.len()).contains(&args.threshold),
        "--threshold is {}, but {} signers are named",
        args.threshold,
        signers.len()
    );
    let wanted = args.predicate_type.as_deref().or(args.dna_output.as_ref().map(|_| "dna")).map(predicate_type);
    anyhow::ensure!(
        args.dna_output.is_none() || wanted == Some(trust::DNA_PREDICATE),
        "--dna-output writes a DNA: leave out --type, or make it dna"
    );
    let settings = remote::settings(&args.registry)?;
    let limit = Duration::from_secs(args.timeout);
    let (remote, subjects, discovery) = remote::block_on(async {
        let remote = Remote::resolve(&args.source, &settings, limit).await?;
        let subjects = remote.subjects(args.platform.as_ref())?;
        let discovery = discover(&remote.repository, &subjects).await;
        Ok((remote, subjects, discovery))
    })?;
    let formats = Formats { legacy: !args.bundles_only };
    let findings = trust::verify(&discovery.candidates, &signers, formats);
    let count = match &wanted {
        None => findings.signers(),
        Some(wanted) => {
            findings.of_type(wanted).map(|found| &found.proof.signer).collect::<std::collections::BTreeSet<_>>().len()
        }
    };
    let verified = count >= args.threshold;
    let reference = remote.repository.reference().to_string();
    let printed = match args.format {
        ExplainFormat::Json => {
            let (subjects, findings, discovery) = (&subjects, &findings, &discovery);
            output::pretty(&Report { reference: reference.clone(), subjects, verified, findings, discovery })?
        }
        ExplainFormat::Human => {
            let refused = !verified;
            human(&reference, &subjects, &findings, &discovery, wanted, refused).into_bytes()
        }
    };
    Destination::default().write(&printed)?;
    if verified {
        return args.dna_output.as_ref().map_or(Ok(()), |file| {
            let image = subjects.last().unwrap_or(&remote.root.digest);
            write_dna(&remote, &findings, &discovery, image, args.threshold, file)
        });
    }
    let what = wanted.map_or("a signature".to_owned(), |wanted| format!("an attestation of type {wanted}"));
    no(&discovery, format!("{reference}: {count} of {} accepted signers gave {what}", args.threshold))
}

/// Writes the DNA of the image that counts.
fn write_dna(
    remote: &Remote,
    findings: &Findings,
    discovery: &Discovery,
    image: &Digest,
    threshold: usize,
    file: &Path,
) -> anyhow::Result<()> {
    let Some(newest) = findings.dna(image, threshold)? else {
        return no(discovery, format!("{image}: no DNA of it is attested by {threshold} of the accepted signers"));
    };
    if !discovery.is_complete() {
        bail!(
            "a DNA of {image} is attested, but not everything could be looked at: whether it is the newest is not known"
        );
    }
    let dna = remote::block_on(async { Ok(attested_dna(newest, &remote.repository).await.known()?) })?;
    let dna = dna.with_context(|| format!("{} states no DNA", newest.proof.origin.carrier))?;
    Destination(Some(file.to_owned())).write(&dna.to_canonical_json()?)
}

/// The answer no, where everything was looked at.
fn no(discovery: &Discovery, answer: String) -> anyhow::Result<()> {
    if discovery.is_complete() {
        return Err(NotVerified(answer).into());
    }
    bail!("{answer}, but not everything could be looked at: the answer is not known")
}

/// The rules that the arguments make.
fn signers(args: &Verify) -> anyhow::Result<Vec<Signer>> {
    let mut roots = Vec::new();
    for path in &args.trusted_root {
        let changed = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        let as_of = changed.and_then(|time| jiff::Timestamp::try_from(time).ok());
        roots.push(Root::from_json(&path.display().to_string(), &output::read(path)?, as_of)?);
    }
    if roots.is_empty() {
        roots = vec![Root::public_good()?, Root::github()?];
    }
    let evidence = match args.evidence {
        EvidenceArg::Log => Evidence::Log,
        EvidenceArg::Timestamp => Evidence::Timestamp,
        EvidenceArg::Signature => Evidence::Signature,
    };
    let mut signers = Vec::new();
    for path in &args.key {
        let who = Who::Key(public_key(path)?);
        signers.push(Signer { name: path.display().to_string(), who, evidence, roots: roots.clone() });
    }
    if let Some(identity) = identity(args)? {
        if evidence == Evidence::Signature {
            bail!("a certificate outlives its use by minutes: with one, --evidence is log or timestamp");
        }
        let name = identity.to_string();
        signers.push(Signer { name, who: Who::Identities(vec![identity]), evidence, roots });
    }
    if signers.is_empty() {
        bail!(
            "whose signature is accepted? name --key FILE, or --certificate-identity ID with --certificate-oidc-issuer URL"
        );
    }
    Ok(signers)
}

fn public_key(path: &Path) -> anyhow::Result<PublicKey> {
    let pem = String::from_utf8(output::read(path)?).ok().with_context(|| format!("{} is not text", path.display()))?;
    PublicKey::from_pem(&pem).with_context(|| path.display().to_string())
}

fn identity(args: &Verify) -> anyhow::Result<Option<Identity>> {
    let text = |exact: &Option<String>, pattern: &Option<String>| match (exact, pattern) {
        (Some(exact), _) => Ok(Some(Text::Exact(exact.clone()))),
        (None, Some(pattern)) => Text::pattern(pattern).map(Some),
        (None, None) => Ok(None),
    };
    let subject = text(&args.certificate_identity, &args.certificate_identity_regexp)?;
    let issuer = text(&args.certificate_oidc_issuer, &args.certificate_oidc_issuer_regexp)?;
    let mut claims = BTreeMap::new();
    for claim in &args.claims {
        let (name, value) =
            claim.split_once('=').with_context(|| format!("--claim {claim}: NAME=VALUE is expected"))?;
        if !trust::claim_names().any(|known| known == name) {
            bail!("--claim: {name} is none of: {}", trust::claim_names().collect::<Vec<_>>().join(", "));
        }
        claims.insert(name.to_owned(), Text::Exact(value.to_owned()));
    }
    match (subject, issuer) {
        (Some(subject), Some(issuer)) => Ok(Some(Identity { subject, issuer, claims })),
        (None, None) if claims.is_empty() => Ok(None),
        (None, _) => bail!("an issuer vouches for many: add --certificate-identity or --certificate-identity-regexp"),
        (_, None) => {
            bail!("anyone can be an issuer: add --certificate-oidc-issuer or --certificate-oidc-issuer-regexp")
        }
    }
}

/// Predicate types by the names that cosign gives them, and ours.
fn predicate_type(name: &str) -> &str {
    match name {
        "dna" => trust::DNA_PREDICATE,
        "slsaprovenance" | "slsaprovenance02" => "https://slsa.dev/provenance/v0.2",
        "slsaprovenance1" => "https://slsa.dev/provenance/v1",
        "cyclonedx" => "https://cyclonedx.org/bom",
        "spdx" | "spdxjson" => "https://spdx.dev/Document",
        "vuln" => "https://cosign.sigstore.dev/attestation/vuln/v1",
        "link" => "https://in-toto.io/Link/v1",
        other => other,
    }
}

fn human(
    reference: &str,
    subjects: &[Digest],
    findings: &Findings,
    discovery: &Discovery,
    wanted: Option<&str>,
    refused: bool,
) -> String {
    let mut out = String::new();
    let mut line = |text: String| _ = writeln!(out, "{}", text::clean(&text));
    line(format!("{reference}, {}", subjects.iter().map(Digest::as_str).collect::<Vec<_>>().join(" and ")));
    for signature in &findings.signatures {
        line(format!("signed    {}", proof(&signature.proof)));
    }
    let shown = |attestation: &&Verified<Attestation>| wanted.is_none_or(|wanted| attestation.predicate_type == wanted);
    for attestation in findings.attestations.iter().filter(shown) {
        line(format!("attested  {} {}", attestation.predicate_type, proof(&attestation.proof)));
    }
    // Nobody expects that everything is signed by everyone: only who finds nothing asks why.
    for refusal in findings.refusals.iter().filter(|_| refused) {
        let origin = &refusal.origin;
        let signer = refusal.signer.as_deref().map_or_else(String::new, |signer| format!("{signer}: "));
        line(format!("refused   {} {} ({}): {signer}{}", origin.format, origin.carrier, origin.place, refusal.reason));
    }
    for source in &discovery.sources {
        if let Answer::Unknown { reason, .. } = &source.answer {
            line(format!("unknown   {} of {}: {reason}", source.place, source.subject));
        }
    }
    for unread in &discovery.unread {
        line(format!("unread    {} ({}): {}", unread.digest, unread.place, unread.reason));
    }
    for capped in &discovery.capped {
        line(format!("capped    {}: {} of {} {}", capped.place, capped.taken, capped.found, capped.what));
    }
    out
}

fn proof(proof: &Proof) -> String {
    let by = match &proof.by {
        By::Key(fingerprint) => format!("by {} (key {fingerprint})", proof.signer),
        By::Certificate(certificate) => format!("by {certificate}"),
    };
    let time = proof.times.first().map_or_else(String::new, |time| format!(" at {time}"));
    let log = proof.log.iter().map(|entry| format!(", entry {} of log {}", entry.index, entry.log)).collect::<String>();
    let evidence = if proof.log.is_empty() { format!(", {}", proof.evidence) } else { String::new() };
    let root = proof.root.as_ref().map_or_else(String::new, |root| {
        let as_of = root.as_of.map_or_else(String::new, |as_of| format!(" as of {}", as_of.strftime("%Y-%m-%d")));
        format!(", trust root {}{as_of}", root.name)
    });
    format!("{by}{time} on {}{log}{evidence}{root}", proof.origin.subject)
}
