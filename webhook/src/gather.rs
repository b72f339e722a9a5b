//! From the images of a pod to facts about them, within a deadline.
//!
//! ```text
//! reference ──resolve──► digest, platforms, configs ──┬─ vouch ──► who signed, what is attested
//!            registry                                 └─ dna ────► attested → ledger → analyzed here ──bind──► expectation
//! ```
//!
//! Facts are kept by digest and shared; every step has one flight for all who ask at once, which goes on when one of them has no
//! time left. What the registry would not say is never kept, and what is private is given only to those whose credentials the
//! registry took.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use analyzer::ConfigMaps;
use dna::{
    Cause, ContainerSpec, Digest, Dna, DnaFact, Fact, ImageUse, Last, Limits, NamedImage, Platform, Resolved, Role,
    RuntimeFacts, SubjectFacts,
};
use futures_util::future;
use lineage::{Ledger, Seal, Sealed};
use moka::future::Cache;
use oci::{Reference, registry};

mod analyze;
mod bind;
mod flight;
mod kin;
mod known;
mod last;
mod resolve;
mod vouch;

pub use analyze::Analyzer;
pub use known::{Known, Origins};
pub use resolve::{Access, Keyring};
pub use vouch::Signers;

use flight::Flights;
use last::Lasts;
use resolve::{Image, Images, Member, Place, Places};
use vouch::Vouched;

/// What is to be known of each image.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Whose signatures and attestations count; none: they are not looked for.
    pub signers: Option<Arc<Signers>>,
    /// Where a DNA may come from; none: it is not needed.
    pub dna: Option<Origins>,
    /// The DNA is to be held against those of known images.
    pub kinship: bool,
    /// The DNA is to be bound to the pod.
    pub expectation: bool,
    /// How registries are reached that are not reached as all are.
    pub access: Arc<[Access]>,
}

/// One pod to be asked about.
#[derive(Debug)]
pub struct Pod<'a> {
    /// Its images.
    pub carriers: &'a [ImageUse],
    /// Its containers.
    pub containers: &'a [ContainerSpec],
    /// What its ConfigMaps hold, as far as they may be read.
    pub config_maps: &'a ConfigMaps,
    /// Platforms it may land on; none: all an image has.
    pub platforms: Option<&'a [Platform]>,
    /// What the registry is shown.
    pub keyring: &'a Keyring,
}

/// Knows images.
#[derive(Debug)]
pub struct Gatherer {
    places: Places,
    tags: Flights<(String, String, Digest), Digest>,
    readable: Flights<(String, String, Digest), ()>,
    images: Flights<(String, String), Images>,
    members: Flights<(String, String), Image>,
    vouched: Flights<(String, Vec<Digest>, Digest), Vouched>,
    known: Known,
    bindings: bind::Bindings,
    kinships: kin::Kinships,
    lasts: Lasts,
    /// What was wholly known a moment ago, by reference and by what was asked: the pods of a rollout come together.
    fresh: Cache<(String, Digest), Arc<[SubjectFacts]>>,
}

/// How images are known.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How registries are reached; credentials in it are those of everyone.
    pub registry: registry::Settings,
    /// What the nodes add.
    pub runtime: RuntimeFacts,
    /// Limits on what is read.
    pub limits: Limits,
    /// Bytes of memory for what is kept.
    pub memory_bytes: u64,
    /// What the ledger keeps of facts is sealed with it; none: facts of before are in memory only.
    pub seal: Option<Seal>,
}

impl Gatherer {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(settings: Settings, analyzer: Arc<Analyzer>, ledger: Option<Ledger>) -> Self {
        let part = settings.memory_bytes / 4;
        Self {
            tags: Flights::new("tags", part / 16, |_| KEY_BYTES),
            readable: Flights::new("readable", part / 16, |_| KEY_BYTES),
            images: Flights::new("images", part / 8, Images::weight),
            members: Flights::new("members", part / 4, Image::weight),
            vouched: Flights::new("vouched", part / 2, Vouched::weight),
            lasts: Lasts::new(
                ledger.clone().zip(settings.seal).map(|(ledger, seal)| Sealed::new(ledger, seal)),
                part / 8,
            ),
            kinships: kin::Kinships::new(ledger.clone(), part / 16),
            known: Known::new(analyzer, ledger, part),
            bindings: bind::Bindings::new(settings.runtime, settings.limits, part),
            places: Places::new(settings.registry),
            fresh: Cache::builder().max_capacity(MAX_FRESH).time_to_live(FRESH).build(),
        }
    }

    /// What is known of every image of a pod by `deadline`, in the order the pod names them; an image for several platforms
    /// gives one for each.
    pub async fn subjects(&self, pod: &Pod<'_>, wanted: &Wanted, deadline: Instant) -> Vec<SubjectFacts> {
        // Containers that share an image ask once.
        let references: BTreeSet<&str> = pod.carriers.iter().map(|used| used.reference.as_str()).collect();
        let asked = asked(pod, wanted);
        let found = references.iter().map(|reference| {
            let key = (String::from(*reference), asked.clone());
            async move {
                if let Some(facts) = self.fresh.get(&key).await {
                    return (*reference, facts);
                }
                // On the heap: the steps behind it are deep, and a thread's stack is not.
                (*reference, Box::pin(self.reference(key, pod, wanted, deadline)).await)
            }
        });
        let found: BTreeMap<&str, Arc<[SubjectFacts]>> = future::join_all(found).await.into_iter().collect();
        let mut subjects = Vec::new();
        for used in pod.carriers {
            for mut facts in found.get(used.reference.as_str()).into_iter().flat_map(|facts| facts.iter().cloned()) {
                facts.image.used.clone_from(used);
                if wanted.kinship {
                    let repository = format!("{}/{}", facts.image.registry, facts.image.repository);
                    facts.kinship = self.kinships.of(&facts.dna, &repository, deadline).await;
                }
                facts.expectation = match pod.containers.iter().find(|one| one.name == used.name) {
                    Some(spec) if wanted.expectation && used.role != Role::Volume => {
                        self.bindings.bind(&facts.dna, &self.known, spec, pod.config_maps, deadline).await
                    }
                    _ => Fact::not_asked(),
                };
                subjects.push(facts);
            }
        }
        subjects
    }

    /// What is known of a reference for those who ask the same, by platform.
    async fn reference(
        &self,
        key: (String, Digest),
        pod: &Pod<'_>,
        wanted: &Wanted,
        deadline: Instant,
    ) -> Arc<[SubjectFacts]> {
        let (reference, asked) = &key;
        let facts = self.image(reference, pod, wanted, deadline).await;
        let whole = Digest::sha256(format!("{reference}\n{asked}").as_bytes());
        let facts: Arc<[SubjectFacts]> = self.lasts.settle(whole, facts, &self.known, deadline).await.into();
        if facts.iter().all(last::is_whole) {
            self.fresh.insert(key, Arc::clone(&facts)).await;
        }
        facts
    }

    /// What is known of one image, by platform.
    async fn image(&self, text: &str, pod: &Pod<'_>, wanted: &Wanted, deadline: Instant) -> Vec<SubjectFacts> {
        let unresolved = |image: NamedImage, resolved: Fact<Resolved>| vec![unknown(image, resolved, wanted)];
        let reference: Reference = match text.parse() {
            Ok(reference) => reference,
            Err(error) => {
                let why = format!("`{text}` is no image reference: {error}");
                return unresolved(name(&anywhere(text)), Fact::unknown(Cause::Registry, why));
            }
        };
        let image = name(&anywhere(text));
        let place = match self.places.open(&reference, pod.keyring, &wanted.access).await {
            Ok(place) => place,
            Err(error) => return unresolved(image, Fact::unknown(trust::cause(&error), error.to_string())),
        };
        let images = match self.resolve(&place, &reference, deadline).await {
            Fact::Known(images) => images,
            other => return unresolved(image, other.missing()),
        };
        let chosen: Vec<&Member> = images.chosen(pod.platforms).collect();
        if chosen.is_empty() {
            let names = images.members.iter().filter_map(|member| member.platform.as_ref());
            let tried = names.map(|name| format!("{} for {name}", images.root)).collect();
            return unresolved(image, Fact::Absent { tried });
        }
        // On the heap here too: a step is moved several times before it begins.
        let each = chosen
            .into_iter()
            .map(|member| Box::pin(self.member(blank(image.clone()), &place, &images, member, wanted, deadline)));
        future::join_all(each).await
    }

    /// What is known of the image for one platform.
    async fn member(
        &self,
        mut facts: SubjectFacts,
        place: &Place,
        images: &Images,
        member: &Member,
        wanted: &Wanted,
        deadline: Instant,
    ) -> SubjectFacts {
        let read = {
            let key = (place.name.clone(), member.digest.to_string());
            self.members.get(key, deadline, || {
                let (place, member) = (place.clone(), member.clone());
                async move { resolve::image(&place, &member).await }
            })
        };
        let vouched = async {
            match &wanted.signers {
                Some(signers) => Some(self.vouch(place, images, member, signers, deadline).await),
                None => None,
            }
        };
        let (image, vouched) = future::join(read, vouched).await;
        if let (Some(vouched), Some(signers)) = (&vouched, &wanted.signers) {
            facts.signers.clone_from(&signers.ids);
            vouch::tell(vouched, &mut facts);
        }
        if let (Some(origins), Fact::Known(image)) = (&wanted.dna, &image) {
            let vouched = vouched.as_ref().and_then(Fact::known);
            facts.dna = self.known.dna(place, image, vouched.map(AsRef::as_ref), origins, deadline).await;
        }
        match image {
            Fact::Known(image) => facts.resolved = Fact::Known(images.resolved(&image)),
            other => return unknown(facts.image, other.missing(), wanted),
        }
        facts
    }

    /// The digest of a reference, and what it leads to.
    async fn resolve(&self, place: &Place, reference: &Reference, deadline: Instant) -> Fact<Arc<Images>> {
        let digest = match reference.digest() {
            Some(digest) => digest.clone(),
            None => {
                let tag = reference.wanted().to_owned();
                let key = (place.name.clone(), tag.clone(), place.identity.clone());
                let asked = || {
                    let place = place.clone();
                    async move { resolve::tag(&place, &tag).await }
                };
                match self.tags.get(key, deadline, asked).await {
                    Fact::Known(digest) => digest.as_ref().clone(),
                    other => return other.missing(),
                }
            }
        };
        // What was fetched for another one is told only to those whom the registry would give it to.
        let key = (place.name.clone(), digest.to_string(), place.identity.clone());
        let may_read = self.readable.get(key, deadline, || {
            let (place, digest) = (place.clone(), digest.clone());
            async move { resolve::may_read(&place, &digest).await }
        });
        let key = (place.name.clone(), digest.to_string());
        let images = self.images.get(key, deadline, || {
            let (place, digest) = (place.clone(), digest.clone());
            async move { resolve::images(&place, &digest).await }
        });
        match future::join(may_read, images).await {
            (Fact::Known(_), images) => images,
            (refused, _) => refused.missing(),
        }
    }

    async fn vouch(
        &self,
        place: &Place,
        images: &Images,
        member: &Member,
        signers: &Arc<Signers>,
        deadline: Instant,
    ) -> Fact<Arc<Vouched>> {
        let mut subjects = vec![images.root.clone()];
        if member.digest != images.root {
            subjects.push(member.digest.clone());
        }
        let key = (place.name.clone(), subjects.clone(), signers.digest.clone());
        let asked = || {
            let (place, signers) = (place.clone(), Arc::clone(signers));
            async move { vouch::vouch(&place, &subjects, &signers).await }
        };
        self.vouched.get(key, deadline, asked).await
    }

    /// Requests to registries so far, by kind and outcome.
    #[must_use]
    pub fn requests(&self) -> Vec<(registry::RequestKind, registry::Outcome, u64)> {
        self.places.requests().counts()
    }

    /// The whole DNA of a digest, where it is still known.
    pub async fn whole(&self, dna: &Digest, deadline: Instant) -> Fact<Arc<Dna>> {
        self.known.whole(dna, deadline).await
    }
}

/// An image as rules tell it; of what is no reference, nothing but its text.
#[must_use]
pub fn name(used: &ImageUse) -> NamedImage {
    let reference = used.reference.parse::<Reference>().ok();
    let reference = reference.as_ref();
    NamedImage {
        used: used.clone(),
        registry: reference.map(|one| one.registry().to_owned()).unwrap_or_default(),
        repository: reference.map(|one| one.repository().to_owned()).unwrap_or_default(),
        tag: reference.and_then(|one| one.tag()).map(str::to_owned),
        digest: reference.and_then(|one| one.digest()).cloned(),
    }
}

/// What follows from the DNA that is known; from that of before, and as old as it, where there is only that.
async fn following<'d, T, F: Future<Output = Fact<Arc<T>>>>(
    dna: &'d Fact<DnaFact>,
    of: impl FnOnce(&'d DnaFact) -> F,
) -> Fact<Arc<T>> {
    match dna {
        Fact::Known(dna) => of(dna).await,
        Fact::Unknown { cause, detail, last: Some(Last { value, as_of }) } => {
            let last = of(value).await.known().map(|value| Last { value: Arc::clone(value), as_of: as_of.clone() });
            Fact::Unknown { cause: *cause, detail: detail.clone(), last }
        }
        other => other.missing(),
    }
}

/// A reference before it is known where the pod has it.
fn anywhere(text: &str) -> ImageUse {
    ImageUse { role: Role::Container, name: String::new(), reference: text.to_owned() }
}

/// Names what is asked, by whom and for what: an answer to another question is none to this one.
fn asked(pod: &Pod<'_>, wanted: &Wanted) -> Digest {
    let signers = wanted.signers.as_ref().map(|signers| &signers.digest);
    let origins = wanted.dna.as_ref().map(|origins| (&origins.attested, origins.threshold, origins.analyzed));
    let platforms: Option<Vec<String>> =
        pod.platforms.map(|platforms| platforms.iter().map(ToString::to_string).collect());
    let identity = &pod.keyring.identity;
    Digest::sha256(format!("{identity}\n{signers:?}\n{origins:?}\n{platforms:?}").as_bytes())
}

/// Of an image that is not resolved, everything that was asked is as unknown as its digest.
fn unknown(image: NamedImage, resolved: Fact<Resolved>, wanted: &Wanted) -> SubjectFacts {
    let mut facts = blank(image);
    if let Some(signers) = &wanted.signers {
        facts.signers.clone_from(&signers.ids);
        (facts.signatures, facts.attestations) = (resolved.missing(), resolved.missing());
    }
    if wanted.dna.is_some() {
        facts.dna = resolved.missing();
    }
    SubjectFacts { resolved, ..facts }
}

fn blank(image: NamedImage) -> SubjectFacts {
    SubjectFacts {
        image,
        resolved: Fact::not_asked(),
        signers: BTreeSet::new(),
        signatures: Fact::not_asked(),
        attestations: Fact::not_asked(),
        gaps: Vec::new(),
        refusals: Vec::new(),
        dna: Fact::not_asked(),
        kinship: Fact::not_asked(),
        expectation: Fact::not_asked(),
    }
}

/// What an entry takes whose value is small.
const KEY_BYTES: u32 = 400;

/// A moment: what may be kept for minutes is kept beside it for as long, so that nothing is believed for longer than that and this.
const FRESH: Duration = Duration::from_secs(1);
/// References known a moment ago.
const MAX_FRESH: u64 = 128;
