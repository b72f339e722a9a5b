//! A reference to its digest, and on to the images it is for.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use dna::{ConfigFacts, Digest, Platform, Resolved};
use moka::future::Cache;
use oci::{
    Config, Index, Manifest, Reference,
    registry::{Credentials, Host, Lookup, Pace, PullSecret, Repository, Requests, Settings},
};
use policies::{
    cel::glob,
    kinds::{Authentication, Limits},
};

use super::flight::Answer;

/// What a registry is shown on behalf of a pod.
#[derive(Debug, Clone)]
pub struct Keyring {
    /// Equal for equal credentials: who has the same may be told the same.
    pub identity: Digest,
    /// Of the pod's `imagePullSecrets`.
    pub pod: Vec<PullSecret>,
    /// Of its service account's.
    pub account: Vec<PullSecret>,
}

impl Keyring {
    /// Whatever the settings of the registry say.
    #[must_use]
    pub fn of_everyone() -> Self {
        static NOBODY: LazyLock<Digest> = LazyLock::new(|| Digest::sha256(b""));
        Self { identity: NOBODY.clone(), pod: Vec::new(), account: Vec::new() }
    }

    /// In the kubelet's order, or in that which is asked for; what is everyone's comes last.
    fn credentials(&self, everyones: &[Credentials], access: Option<&Access>) -> Vec<Credentials> {
        let pulled = |secrets: &[PullSecret]| match secrets {
            [] => None,
            secrets => Some(Credentials::PullSecrets(secrets.to_vec())),
        };
        let order = access.map_or(&[][..], |access| &access.authentication);
        if order.is_empty() {
            let own = [pulled(&self.pod), pulled(&self.account)].into_iter().flatten();
            return own.chain(everyones.iter().cloned()).collect();
        }
        let of = |place: &Authentication| match place {
            Authentication::PodSecrets => pulled(&self.pod).into_iter().collect(),
            Authentication::ServiceAccount => pulled(&self.account).into_iter().collect(),
            Authentication::Cloud => {
                everyones.iter().filter(|one| matches!(one, Credentials::Cloud(_))).cloned().collect()
            }
            Authentication::Secret => access.and_then(|access| pulled(access.secret.as_slice())).into_iter().collect(),
            Authentication::Anonymous => vec![Credentials::Anonymous],
        };
        order.iter().flat_map(|place| -> Vec<Credentials> { of(place) }).collect()
    }
}

/// How some registries are reached, as a `RegistryAccess` says.
#[derive(Debug, Clone)]
pub struct Access {
    /// Hosts, as globs.
    pub hosts: Vec<String>,
    /// Changes with anything it says.
    pub digest: Digest,
    /// How they are connected to.
    pub host: Host,
    /// How much of each is asked.
    pub limits: Limits,
    /// Where credentials come from, in this order; empty: as the kubelet does.
    pub authentication: Vec<Authentication>,
    /// What [`Authentication::Secret`] stands for.
    pub secret: Option<PullSecret>,
}

/// Repositories with the credentials they are asked with. Each is kept for a while: its connections and tokens serve again.
#[derive(Debug)]
pub(super) struct Places {
    settings: Settings,
    open: Cache<(String, Digest, Option<Digest>), Place>,
    /// By host and limits: how much was asked does not depend on who asks.
    paces: Mutex<BTreeMap<(String, Limits), Pace>>,
}

/// A repository, asked by somebody.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Registry and repository.
    pub(super) name: String,
    pub(super) identity: Digest,
    pub(super) repository: Repository,
    pub(super) settings: Arc<Settings>,
}

impl Places {
    pub(super) fn new(settings: Settings) -> Self {
        let open = Cache::builder().max_capacity(MAX_PLACES).time_to_live(PLACE_HOLDS).build();
        Self { settings, open, paces: Mutex::default() }
    }

    pub(super) fn requests(&self) -> &Requests {
        &self.settings.requests
    }

    pub(super) async fn open(
        &self,
        reference: &Reference,
        keyring: &Keyring,
        all: &[Access],
    ) -> Result<Place, oci::Error> {
        let registry = reference.registry();
        let access = all.iter().find(|access| access.hosts.iter().any(|host| glob(host, registry)));
        let name = format!("{registry}/{}", reference.repository());
        let key = (name.clone(), keyring.identity.clone(), access.map(|access| access.digest.clone()));
        if let Some(place) = self.open.get(&key).await {
            return Ok(place);
        }
        let mut settings = self.settings.clone();
        settings.credentials = keyring.credentials(&settings.credentials, access);
        if let Some(access) = access {
            let host = Host { pace: Some(self.pace(registry, access.limits)), ..access.host.clone() };
            settings.hosts.host.insert(registry.to_owned(), host);
        }
        let repository = Box::pin(Repository::open(reference, &settings)).await?;
        let place = Place { name, identity: keyring.identity.clone(), repository, settings: Arc::new(settings) };
        self.open.insert(key, place.clone()).await;
        Ok(place)
    }

    fn pace(&self, registry: &str, limits: Limits) -> Pace {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        if paces.len() >= MAX_PACES {
            paces.clear();
        }
        let made = || Pace::new(limits.requests_per_second, limits.in_flight);
        paces.entry((registry.to_owned(), limits)).or_insert_with(made).clone()
    }
}

impl Place {
    /// The repository, with time enough for one step.
    pub(super) fn ask(&self) -> Repository {
        self.repository.with_deadline(std::time::Instant::now() + STEP)
    }
}

/// What a digest leads to: one image, or several for different platforms.
#[derive(Debug, Clone)]
pub(super) struct Images {
    pub(super) root: Digest,
    pub(super) is_index: bool,
    pub(super) members: Vec<Member>,
}

/// An image's manifest, not read yet where it is one of an index.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) digest: Digest,
    /// As the index says; absent for an image that is in none.
    pub(super) platform: Option<Platform>,
    manifest: Option<Arc<[u8]>>,
}

/// One image.
#[derive(Debug, Clone)]
pub(super) struct Image {
    pub(super) digest: Digest,
    pub(super) platform: Platform,
    pub(super) config_digest: Digest,
    pub(super) config: ConfigFacts,
    /// Compressed bytes of its layers.
    pub(super) bytes: u64,
}

impl Images {
    pub(super) fn weight(&self) -> u32 {
        let manifests: usize = self.members.iter().filter_map(|member| Some(member.manifest.as_ref()?.len())).sum();
        u32::try_from(self.members.len() * 300 + manifests).unwrap_or(u32::MAX)
    }

    /// The images for these platforms; without an index the one there is, whatever it is for.
    pub(super) fn chosen<'a>(&'a self, platforms: Option<&'a [Platform]>) -> impl Iterator<Item = &'a Member> {
        self.members.iter().filter(move |member| match (&member.platform, platforms) {
            (None, _) | (_, None) => true,
            (Some(own), Some(wanted)) => wanted.iter().any(|wanted| {
                (own.os(), own.architecture()) == (wanted.os(), wanted.architecture())
                    && (wanted.variant().is_none() || own.variant().is_none() || own.variant() == wanted.variant())
            }),
        })
    }

    pub(super) fn resolved(&self, image: &Image) -> Resolved {
        Resolved {
            digest: self.root.clone(),
            index_digest: self.is_index.then(|| self.root.clone()),
            platform_digest: image.digest.clone(),
            platform: image.platform.clone(),
            config_digest: Some(image.config_digest.clone()),
            config: image.config.clone(),
        }
    }
}

impl Image {
    pub(super) fn weight(&self) -> u32 {
        let labels: usize = self.config.labels.iter().map(|(key, value)| key.len() + value.len() + 96).sum();
        let words: usize = self.config.entrypoint.iter().chain(&self.config.cmd).map(|word| word.len() + 24).sum();
        u32::try_from(400 + labels + words).unwrap_or(u32::MAX)
    }
}

/// The digest of a tag, now.
pub(super) async fn tag(place: &Place, tag: &str) -> Answer<Digest> {
    match place.ask().head(tag).await {
        Lookup::Present(descriptor) => Answer::known(descriptor.digest, TAG_HOLDS),
        Lookup::Absent => Answer::absent(vec![format!("{}:{tag}", place.name)]),
        Lookup::Unknown(error) => Answer::failed(&error),
    }
}

/// Whether the registry gives a manifest to these credentials.
pub(super) async fn may_read(place: &Place, digest: &Digest) -> Answer<()> {
    match place.ask().head(digest.as_str()).await {
        Lookup::Present(_) => Answer::known((), READABLE_HOLDS),
        Lookup::Absent => Answer::absent(vec![format!("{}@{digest}", place.name)]),
        Lookup::Unknown(error) => Answer::failed(&error),
    }
}

/// The images behind a digest.
pub(super) async fn images(place: &Place, digest: &Digest) -> Answer<Images> {
    let (descriptor, bytes) = match place.ask().manifest(digest.as_str()).await {
        Lookup::Present(found) => found,
        Lookup::Absent => return Answer::absent(vec![format!("{}@{digest}", place.name)]),
        Lookup::Unknown(error) => return Answer::failed(&error),
    };
    let root = descriptor.digest;
    let index = serde_json::from_slice::<Index>(&bytes).ok().filter(|index| !index.manifests.is_empty());
    let Some(index) = index else {
        let member = Member { digest: root.clone(), platform: None, manifest: Some(bytes.into()) };
        return Answer::known(Images { root, is_index: false, members: vec![member] }, FOREVER);
    };
    let members = index.manifests.into_iter().filter_map(|image| {
        // What BuildKit attests stands in an index as images for `unknown/unknown`.
        let platform = image.platform.as_ref().filter(|platform| !matches!(platform.os.as_str(), "" | "unknown"))?;
        let platform = Platform::new(&platform.os, &platform.architecture, platform.variant.as_deref());
        Some(Member { digest: image.digest, platform: Some(platform), manifest: None })
    });
    let members: Vec<Member> = members.take(MAX_MEMBERS).collect();
    Answer::known(Images { root, is_index: true, members }, FOREVER)
}

/// An image's manifest and config.
pub(super) async fn image(place: &Place, member: &Member) -> Answer<Image> {
    let repository = place.ask();
    let bytes = match &member.manifest {
        Some(bytes) => Arc::clone(bytes),
        None => match repository.manifest(member.digest.as_str()).await {
            Lookup::Present((_, bytes)) => bytes.into(),
            Lookup::Absent => return Answer::absent(vec![format!("{}@{}", place.name, member.digest)]),
            Lookup::Unknown(error) => return Answer::failed(&error),
        },
    };
    let malformed = |what: &str, reason: &dyn std::fmt::Display| {
        Answer::unknown(
            dna::Cause::Registry,
            format!("the {what} of {}@{} cannot be read: {reason}", place.name, member.digest),
        )
    };
    let manifest: Manifest = match serde_json::from_slice(&bytes) {
        Ok(manifest) => manifest,
        Err(error) => return malformed("manifest", &error),
    };
    let limit = dna::Limits::default().manifest_bytes;
    let config = match repository.blob(&manifest.config.digest, limit).await {
        Lookup::Present(bytes) => bytes,
        Lookup::Absent => return malformed("config", &"it is not there"),
        Lookup::Unknown(error) => return Answer::failed(&error),
    };
    let config: Config = match serde_json::from_slice(&config) {
        Ok(config) => config,
        Err(error) => return malformed("config", &error),
    };
    // A runtime takes a config that does not say for its own platform. Source: containerd, `platforms.Normalize`.
    let claimed = match (config.os.as_str(), config.architecture.as_str()) {
        ("", _) | (_, "") => Platform::host(),
        (os, architecture) => Platform::new(os, architecture, config.variant.as_deref()),
    };
    Answer::known(
        Image {
            digest: member.digest.clone(),
            platform: member.platform.clone().unwrap_or(claimed),
            bytes: manifest.layers.iter().map(|layer| layer.size).sum(),
            config_digest: manifest.config.digest,
            config: facts(config),
        },
        FOREVER,
    )
}

/// What rules may ask of a config, credentials taken out.
fn facts(config: Config) -> ConfigFacts {
    let run = config.config;
    let labels: BTreeMap<String, String> = run
        .labels
        .into_iter()
        .filter(|(name, _)| !dna::is_secret_name(name))
        .map(|(name, value)| (name, dna::redact(&value).into_owned()))
        .collect();
    ConfigFacts {
        user: run.user,
        entrypoint: dna::redact_argv(&run.entrypoint),
        cmd: dna::redact_argv(&run.cmd),
        labels,
        created: config.created,
    }
}

/// A tag may move: what it names is asked again after so long. What was decided rests on the digest, which the binding keeps.
const TAG_HOLDS: Duration = Duration::from_secs(15);

/// Credentials may be withdrawn.
const READABLE_HOLDS: Duration = Duration::from_secs(300);

/// What a digest names does not change; it is dropped for want of room only.
const FOREVER: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long an opened repository is used: tokens and secrets change.
const PLACE_HOLDS: Duration = Duration::from_secs(300);
const MAX_PLACES: u64 = 5_000;
const MAX_PACES: usize = 1_000;

/// Time for one step, whoever waits for it.
const STEP: Duration = Duration::from_secs(30);

/// Platforms of one image: the largest known have some twenty.
const MAX_MEMBERS: usize = 64;
