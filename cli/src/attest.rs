//! `mayfly attest` and `mayfly sign`: a statement about an image, signed and attached to it.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use dna::{Digest, Dna};
use jiff::Timestamp;
use oci::{Descriptor, Manifest, Source};
use serde_json::Value;
use trust::{
    Attached, COSIGN_SIGN, DNA_MEDIA_TYPE, DNA_PREDICATE, DnaPredicate, Evidence, Older, PlatformDna, Services,
    SigningKey, Statement, attach, attach_document, attached,
};

use crate::{
    analyze,
    args::trust::{Attest, Sign, Signing},
    keys,
    output::{self, Destination},
    question,
    remote::{self, Remote},
};

/// Who signs, ready to.
pub(crate) enum Signer {
    Key(Box<SigningKey>, Option<Services>),
    Keyless(Services, String),
}

impl Signer {
    pub(crate) async fn of(args: &Signing) -> anyhow::Result<Self> {
        let services = match &args.signing_config {
            Some(path) => Some(Services::from_json(&output::read(path)?, args.rekor_version)?),
            None => None,
        };
        match (&args.key, services) {
            (Some(path), services) => Ok(Self::Key(Box::new(keys::read(path)?), services)),
            (None, Some(services)) => Ok(Self::Keyless(services, token(args.identity_token.as_deref()).await?)),
            (None, None) => bail!("--keyless needs the services that sign along: name them with --signing-config"),
        }
    }

    /// The statement, signed, as a bundle.
    pub(crate) async fn sign(&self, statement: &[u8]) -> anyhow::Result<Vec<u8>> {
        Ok(match self {
            Self::Key(key, services) => trust::sign(key, services.as_ref(), statement).await?,
            Self::Keyless(services, token) => services.keyless(token, statement).await?,
        })
    }
}

async fn token(file: Option<&Path>) -> anyhow::Result<String> {
    if let Some(path) = file {
        return String::from_utf8(output::read(path)?).ok().with_context(|| format!("{} is not text", path.display()));
    }
    if let Some(token) = std::env::var("SIGSTORE_ID_TOKEN").ok().filter(|token| !token.is_empty()) {
        return Ok(token);
    }
    trust::ambient_token().await?.context(
        "there is no identity token: name a file with --identity-token, or set SIGSTORE_ID_TOKEN; in GitHub Actions the job \
         needs `permissions: id-token: write`",
    )
}

/// Signs an image.
pub(crate) fn sign(args: &Sign) -> anyhow::Result<()> {
    let settings = remote::settings(&args.registry)?;
    let limit = Duration::from_secs(args.timeout);
    let done = remote::block_on(remote::within(limit, async {
        let remote = Remote::resolve(&args.source, &settings, limit).await?;
        let signer = Signer::of(&args.signing).await?;
        let mut done = Vec::new();
        for subject in [&remote.root].into_iter().chain(remote.images.iter().filter(|_| args.recursive)) {
            let predicate = Value::Object(serde_json::Map::new());
            done.push(state(&remote, &signer, subject, COSIGN_SIGN, predicate).await?);
        }
        Ok(done)
    }))?;
    told(&done)
}

/// Attests the DNA of an image, or of each of an index.
pub(crate) fn attest(args: &Attest) -> anyhow::Result<()> {
    let limits = analyze::limits(&args.open)?;
    let mut options = analyze::options(&args.open, &limits)?;
    let limit = Duration::from_secs(args.timeout);
    let given = args.dna.iter().map(|path| {
        let file = path.display().to_string();
        question::read(&file).with_context(|| format!("cannot read the DNA {file}"))
    });
    let given = given.collect::<anyhow::Result<Vec<_>>>()?;
    let remote = remote::block_on(Remote::resolve(&args.source, &options.registry, limit))?;
    let pinned = Source::Registry(remote::reference(&remote.pinned())?);
    let mut known: BTreeMap<Digest, Dna> = BTreeMap::new();
    if given.is_empty() {
        options.all_platforms = !remote.images.is_empty() && args.open.platform.is_none();
        for image in analyze::open(&pinned, &options)? {
            let manifest = image.digests.manifest.clone().context("the registry gave no manifest")?;
            known.insert(manifest, analyze::analyze(&image, &limits, options.registry.cache.as_ref())?.dna);
        }
    }
    let done = remote::block_on(remote::within(limit, async {
        let signer = Signer::of(&args.signing).await?;
        let remote = remote.again(limit);
        let images = if remote.images.is_empty() { vec![&remote.root] } else { remote.images.iter().collect() };
        let mut platforms = Vec::new();
        let mut done = Vec::new();
        for image in &images {
            let dna = match known.get(&image.digest) {
                Some(dna) => dna,
                None if given.is_empty() => continue,
                None => match of_image(&remote, image, &given).await? {
                    Some(dna) => dna,
                    None => continue,
                },
            };
            done.push(state_dna(&remote, &signer, image, dna).await?);
            let (platform, manifest) = (dna.image.platform.to_string(), image.digest.clone());
            platforms.push(PlatformDna { platform, manifest, dna: dna.digest()? });
        }
        if platforms.is_empty() {
            bail!("none of the images of {} is the one that the DNA is of", remote.repository.reference());
        }
        // An index is spoken for only as a whole.
        if !remote.images.is_empty() && platforms.len() == images.len() {
            let (digest, document) = (None, None);
            let predicate = DnaPredicate { schema: dna::SCHEMA.to_owned(), digest, document, platforms };
            let predicate = serde_json::to_value(predicate)?;
            done.push(state(&remote, &signer, &remote.root, DNA_PREDICATE, predicate).await?);
        } else if !remote.images.is_empty() {
            output::say("mayfly: note: the index itself is not attested: not all of its images were");
        }
        Ok(done)
    }))?;
    told(&done)
}

/// The DNA among `given` that is of this image: by its config's digest.
async fn of_image<'a>(remote: &Remote, image: &Descriptor, given: &'a [Dna]) -> anyhow::Result<Option<&'a Dna>> {
    let found = remote.repository.manifest(image.digest.as_str()).await.known()?;
    let (_, bytes) = found.with_context(|| format!("the manifest {} is not there", image.digest))?;
    let manifest: Manifest = serde_json::from_slice(&bytes).context("the manifest cannot be read")?;
    Ok(given.iter().find(|dna| dna.image.config.as_ref() == Some(&manifest.config.digest)))
}

async fn state_dna(remote: &Remote, signer: &Signer, image: &Descriptor, dna: &Dna) -> anyhow::Result<Attached> {
    let predicate = DnaPredicate::of(dna)?;
    if predicate.document.is_none() {
        attach_document(&remote.repository, image, DNA_MEDIA_TYPE, &dna.to_canonical_json()?).await?;
    }
    state(remote, signer, image, DNA_PREDICATE, serde_json::to_value(predicate)?).await
}

async fn state(
    remote: &Remote,
    signer: &Signer,
    subject: &Descriptor,
    predicate_type: &str,
    predicate: Value,
) -> anyhow::Result<Attached> {
    let statement = serde_json::to_vec(&Statement::about(&subject.digest, predicate_type, predicate))?;
    if let Signer::Key(key, services) = signer {
        let evidence = services.as_ref().map_or(Evidence::Signature, Services::evidence);
        let there = attached(&remote.repository, subject, predicate_type, &statement, key.public(), evidence).await?;
        if let Some(there) = there {
            return Ok(there);
        }
    }
    let bundle = signer.sign(&statement).await?;
    Ok(attach(&remote.repository, subject, predicate_type, &bundle, Timestamp::now(), Older::Replaced).await?)
}

fn told(done: &[Attached]) -> anyhow::Result<()> {
    for attached in done {
        for replaced in &attached.replaced {
            if let Some(reason) = &replaced.kept {
                let line = format!("mayfly: note: the older {} is still there: {reason}", replaced.manifest);
                output::say(&crate::text::clean(&line));
            }
        }
    }
    Destination::default().write(&output::pretty(&done)?)
}
