//! `mayfly overlay`: a proposed overlay, shown to whoever signs it, and signed; a signed one, attached to its image.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use oci::registry::Repository;
use serde_json::{Value, value::RawValue};
use trust::{OVERLAY_PREDICATE, Older, OverlayPredicate, Statement};

use crate::{
    args::trust::{AttachOverlay, Overlay, SignOverlay},
    attest::Signer,
    output::{self, Destination},
    remote, text,
};

pub(crate) fn run(command: &Overlay) -> anyhow::Result<()> {
    match command {
        Overlay::Sign(args) => sign(args),
        Overlay::Attach(args) => attach(args),
    }
}

/// Signs what is proposed: a bundle for each, a line for each where there are several.
fn sign(args: &SignOverlay) -> anyhow::Result<()> {
    let file = || args.proposal.display().to_string();
    let proposal: Value = serde_json::from_slice(&output::read(&args.proposal)?).with_context(file)?;
    let proposed = statements(proposal).with_context(|| format!("{}: it proposes no overlay", file()))?;
    let mut payloads = Vec::new();
    for statement in proposed {
        let statement: Statement = serde_json::from_value(statement).with_context(file)?;
        let (image, overlay) = OverlayPredicate::of(&statement).with_context(file)?;
        if overlay.expires_at <= Timestamp::now() {
            bail!("{}: it ended {}", file(), overlay.expires_at);
        }
        // Who signs has read it: standard error, as standard output is the bundle.
        output::say(&text::clean(&told(&image, &overlay)));
        payloads.push(serde_json::to_vec(&statement)?);
    }
    let limit = Duration::from_secs(args.timeout);
    let signed = async {
        let (signer, mut bundles) = (Signer::of(&args.signing).await?, Vec::new());
        for payload in &payloads {
            bundles.push(signer.sign(payload).await?);
        }
        Ok(bundles)
    };
    let bundles = remote::block_on(remote::within(limit, signed))?;
    Destination(args.output.clone()).write(&match bundles.as_slice() {
        [bundle] => bundle.clone(),
        all => lines(all)?,
    })
}

/// The statements of a proposal: as the bridge gives one, or as a draft has several, or one alone. None where it is something else.
pub(crate) fn statements(proposal: Value) -> Option<Vec<Value>> {
    match proposal {
        Value::Object(mut fields) => match (fields.remove("overlays"), fields.remove("statement")) {
            (Some(Value::Array(all)), None) if !all.is_empty() => Some(all),
            (None, Some(statement)) => Some(vec![statement]),
            (None, None) if fields.contains_key("predicateType") => Some(vec![Value::Object(fields)]),
            _ => None,
        },
        _ => None,
    }
}

/// JSON documents, one a line.
fn lines(documents: &[Vec<u8>]) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    for document in documents {
        let document: &RawValue = serde_json::from_slice(document)?;
        // None of its lines is within a text: these have no raw line ends.
        text.extend(document.get().bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')));
        text.push(b'\n');
    }
    Ok(text)
}

/// Attaches what was signed to the images that it is about; nothing, where a bundle is none.
fn attach(args: &AttachOverlay) -> anyhow::Result<()> {
    let mut bundles = Vec::new();
    for file in &args.bundles {
        let (name, from) = (|| file.display().to_string(), bundles.len());
        for bundle in serde_json::Deserializer::from_slice(&output::read(file)?).into_iter::<Box<RawValue>>() {
            let bundle = bundle.with_context(name)?.get().as_bytes().to_vec();
            let claimed = trust::claimed_overlay(&bundle).with_context(name)?;
            bundles.push((bundle, claimed));
        }
        if bundles.len() == from {
            bail!("{}: there is no bundle in it", name());
        }
    }
    let settings = remote::settings(&args.registry)?;
    let limit = Duration::from_secs(args.timeout);
    let reference = remote::reference(&args.repository)?;
    let done = remote::block_on(remote::within(limit, async {
        let repository = Repository::open(&reference, &settings).await?.with_deadline(Instant::now() + limit);
        let mut done = Vec::new();
        for (bundle, (image, overlay)) in &bundles {
            let found = repository.manifest(image.as_str()).await.known()?;
            let (registry, path) = (reference.registry(), reference.repository());
            let (subject, _) = found.with_context(|| format!("{registry}/{path} has no {image}, which it is about"))?;
            let now = Timestamp::now();
            done.push(trust::attach(&repository, &subject, OVERLAY_PREDICATE, bundle, now, Older::Kept).await?);
            output::say(&text::clean(&told(image, overlay)));
        }
        Ok(done)
    }))?;
    Destination::default().write(&match done.as_slice() {
        [one] => output::pretty(one)?,
        all => output::pretty(&all)?,
    })
}

fn told(image: &dna::Digest, overlay: &OverlayPredicate) -> String {
    let scope = &overlay.scope;
    let places = [
        ("cluster", &scope.cluster),
        ("namespace", &scope.namespace),
        ("workload", &scope.owner),
        ("container", &scope.container),
    ];
    let places: Vec<String> =
        places.iter().filter_map(|(what, name)| Some(format!("{what} {}", name.as_ref()?))).collect();
    let places = if places.is_empty() { "everywhere".to_owned() } else { places.join(", ") };
    format!(
        "accepted as expected until {}: {} {} of {image}, {places}; {} says why: {}",
        overlay.expires_at, overlay.class, overlay.subject, overlay.actor, overlay.reason
    )
}
