//! Acts that somebody accepted for an image, and signed: from then on, until it ends, they are expected there.
//!
//! In: signed statements that the ledger keeps, and the signers of the bridge's settings. Out: [`Accepted`], which the engine asks before it
//! calls an act a deviation. The ledger is not believed: what it has is verified here, each time a bridge reads it first.
//!
//! ```toml
//! [[signer]]
//! name = "security"                # in the audit trail
//! key_file = "/etc/mayfly/overlay.pub"
//! # or whom a certificate names, with the issuer who vouches for him:
//! # subject = "alice@example.com"
//! # issuer = "https://accounts.example.com"
//! evidence = "signature"           # or "timestamp", "log": what must stand behind it [default: log]
//! trusted_root_files = []          # of Sigstore instances [default: the public-good instance]
//! cluster = "eu"                   # where what he signs may hold; without it: in all
//! namespaces = ["shop"]            # without it: in all
//! attached = true                  # also where it is attached to the image in its registry, and nobody gave it to the API
//! ```

mod attached;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use dna::Digest;
use jiff::{SignedDuration, Timestamp};
use lineage::{Document, Ledger, MAX_OVERLAYS, OverlayRow};
use serde::Deserialize;
use tokio::sync::watch;
use trust::{Evidence, Identity, Overlay, OverlayPredicate, PublicKey, Root, Signer, Text, Verified, Who};

pub use self::attached::{Attached, NotCounted};
use crate::{
    Class, Deviation,
    alert::Place,
    api::auth::{Caller, Namespaces},
    settings::{self, SettingsError},
};

/// Who may sign overlays.
#[derive(Debug, Clone, Default)]
pub struct Signers(Arc<[MaySign]>);

/// Somebody who may.
#[derive(Debug, Clone)]
struct MaySign {
    signer: Signer,
    /// What he may change, as if he asked the API himself.
    reach: Caller,
    is_attaching: bool,
}

/// Why an overlay does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// It is none, or satisfies no signer.
    #[error(transparent)]
    Trust(#[from] trust::Reason),
    /// It is attached to another image than it is about.
    #[error("it is about the image {0}, not about the one that it is attached to")]
    OtherImage(Digest),
    /// It is about no act of an image.
    #[error("{0:?} is no class of deviations that can be accepted")]
    Class(String),
    /// It reaches further than its signer may.
    #[error("its scope reaches into namespaces or clusters that signer `{0}` may not change")]
    TooWide(String),
    /// It ended, or ends too late.
    #[error("its `expiresAt`, {0}, is not within the next year")]
    Time(Timestamp),
}

/// What is accepted of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    overlay: Verified<Overlay>,
    from: Timestamp,
}

/// All that is accepted now, by image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overlays(HashMap<String, Vec<Accepted>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    signer: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    key_file: Option<PathBuf>,
    subject: Option<String>,
    issuer: Option<String>,
    #[serde(default = "log")]
    evidence: Evidence,
    #[serde(default)]
    trusted_root_files: Vec<PathBuf>,
    cluster: Option<String>,
    namespaces: Option<BTreeSet<String>>,
    #[serde(default)]
    attached: bool,
}

const fn log() -> Evidence {
    Evidence::Log
}

impl Signers {
    /// Reads TOML, and the files that it names. `place` is where it is from, for the error.
    ///
    /// # Errors
    /// [`SettingsError`]: the first thing that is wrong.
    pub fn parse(text: &str, place: &str) -> Result<Self, SettingsError> {
        let document: File = settings::read(text, place)?;
        let mut names = BTreeSet::new();
        let mut signers = Vec::new();
        for entry in document.signer {
            let place = format!("{place}: signer {:?}", entry.name);
            let wrong = |reason: String| SettingsError { place: place.clone(), reason };
            if !names.insert(entry.name.clone()) {
                return Err(wrong("another signer has this name".to_owned()));
            }
            signers.push(entry.may().map_err(wrong)?);
        }
        Ok(Self(signers.into()))
    }

    /// Whether nobody may.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those whose overlays count also where they are attached to images.
    #[must_use]
    pub fn attaching(&self) -> Self {
        Self(self.0.iter().filter(|may| may.is_attaching).cloned().collect())
    }

    /// Holds a signed overlay against them. It is new: it must end within a year.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn verify(&self, bundle: &[u8], now: Timestamp) -> Result<Verified<Overlay>, Refused> {
        let overlay = self.signed(bundle)?;
        let left = overlay.predicate.expires_at.duration_since(now);
        let is_in_time = left.is_positive() && left <= LONGEST;
        if is_in_time { Ok(overlay) } else { Err(Refused::Time(overlay.predicate.expires_at)) }
    }

    /// The same of one that was new once.
    fn signed(&self, bundle: &[u8]) -> Result<Verified<Overlay>, Refused> {
        let signers: Vec<Signer> = self.0.iter().map(|may| may.signer.clone()).collect();
        let overlay = trust::overlay(bundle, &signers)?;
        let said = &overlay.predicate;
        let class = Class::ALL.into_iter().find(|class| class.name() == said.class);
        if !class.is_some_and(is_acceptable) {
            return Err(Refused::Class(said.class.clone()));
        }
        let (cluster, namespace) = (said.scope.cluster.as_deref(), said.scope.namespace.as_deref());
        let signer = &overlay.proof.signer;
        let may = |may: &MaySign| may.reach.name == *signer && may.reach.may_write_all(cluster, namespace);
        if self.0.iter().any(may) { Ok(overlay) } else { Err(Refused::TooWide(signer.clone())) }
    }
}

impl Entry {
    fn may(mut self) -> Result<MaySign, String> {
        let write = self.namespaces.take().map_or(Namespaces::All, Namespaces::Only);
        let reach = Caller { name: self.name.clone(), cluster: self.cluster.take(), read: Namespaces::none(), write };
        let is_attaching = self.attached;
        Ok(MaySign { signer: self.signer()?, reach, is_attaching })
    }

    fn signer(self) -> Result<Signer, String> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| format!("{}: it cannot be read: {error}", path.display()))
        };
        let who = match (&self.key_file, self.subject, self.issuer) {
            (Some(path), None, None) => {
                let pem = String::from_utf8(read(path)?).map_err(|_| format!("{}: no text", path.display()))?;
                Who::Key(PublicKey::from_pem(&pem).map_err(|error| format!("{}: {error}", path.display()))?)
            }
            (None, Some(subject), Some(issuer)) => {
                let [subject, issuer] = [subject, issuer].map(Text::Exact);
                Who::Identities(vec![Identity { subject, issuer, claims: BTreeMap::new() }])
            }
            _ => return Err("give it `key_file`, or both `subject` and `issuer`".to_owned()),
        };
        if matches!(who, Who::Identities(_)) && self.evidence == Evidence::Signature {
            return Err("a certificate outlives its use by minutes: `evidence` is \"log\" or \"timestamp\"".to_owned());
        }
        let mut roots = Vec::new();
        for path in &self.trusted_root_files {
            let name = path.display().to_string();
            roots.push(Root::from_json(&name, &read(path)?, None).map_err(|error| error.to_string())?);
        }
        if roots.is_empty() && self.evidence > Evidence::Signature {
            roots.push(Root::public_good().map_err(|error| error.to_string())?);
        }
        Ok(Signer { name: self.name, who, evidence: self.evidence, roots })
    }
}

impl Accepted {
    /// What was verified of a row of the ledger: that it is what its name says, and signed by who may.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn of(row: &OverlayRow, signers: &Signers) -> Result<Self, String> {
        let bundle = row.bundle.unpack().map_err(|error| error.to_string())?;
        let overlay = signers.signed(&bundle).map_err(|refused| refused.to_string())?;
        // What the ledger says beside it is a stranger's word.
        let is_end = overlay.predicate.expires_at.as_millisecond() == row.expires_at.as_millisecond();
        if overlay.id != row.id || overlay.image != row.image || !is_end {
            return Err("the ledger has it under another name, image or end than is signed".to_owned());
        }
        Ok(Self { overlay, from: row.accepted_at })
    }

    /// The overlay.
    #[must_use]
    pub fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// Whether it accepts a deviation of its image, there and then.
    fn covers(&self, place: &Place, deviation: &Deviation, at: Timestamp) -> bool {
        let said = &self.overlay.predicate;
        self.from <= at && at < said.expires_at && covers(said, place, deviation.class, &deviation.subject)
    }
}

/// Whether an overlay of the image accepts such an act at such a place.
#[must_use]
pub fn covers(said: &OverlayPredicate, place: &Place, class: Class, subject: &str) -> bool {
    let is = |part: &Option<String>, text: &str| part.as_ref().is_none_or(|part| part == text);
    said.class == class.name()
        && said.subject == subject
        && is(&said.scope.cluster, &place.cluster)
        && is(&said.scope.namespace, &place.namespace)
        && is(&said.scope.owner, &place.owner)
        && is(&said.scope.container, &place.container)
}

impl Overlays {
    /// Whether a deviation in a container of this image is accepted.
    #[must_use]
    pub fn accept(&self, image: &str, place: &Place, deviation: &Deviation, at: Timestamp) -> bool {
        let of_image = self.0.get(image).map(Vec::as_slice).unwrap_or_default();
        is_acceptable(deviation.class) && of_image.iter().any(|accepted| accepted.covers(place, deviation, at))
    }

    /// Whether an overlay of an image is among them.
    #[must_use]
    pub fn has(&self, image: &Digest, id: &Digest) -> bool {
        self.0.get(image.as_str()).is_some_and(|all| all.iter().any(|accepted| accepted.overlay.id == *id))
    }

    /// Those that hold of these rows; what does not count is said once, in `refused`.
    #[must_use]
    pub fn of(rows: &[OverlayRow], signers: &Signers, refused: &mut BTreeSet<Digest>) -> Self {
        let mut all: HashMap<String, Vec<Accepted>> = HashMap::new();
        for row in rows {
            match Accepted::of(row, signers) {
                Ok(accepted) => all.entry(row.image.to_string()).or_default().push(accepted),
                Err(why) if refused.insert(row.id.clone()) => {
                    tracing::warn!(overlay = %row.id, image = %row.image, why, "an overlay in the ledger does not count");
                }
                Err(_) => {}
            }
        }
        Self(all)
    }
}

/// Whether an act of a class can be accepted. That another image runs, and that nothing is known of one, are no acts.
#[must_use]
pub const fn is_acceptable(class: Class) -> bool {
    !matches!(class, Class::NoDna | Class::BindingMismatch)
}

/// Puts an overlay into the ledger, and returns what it has, and whether that is new: one that is there stays as it is. None: there is
/// no room.
///
/// # Errors
/// The ledger's.
pub async fn keep(
    ledger: &Ledger,
    overlay: &Verified<Overlay>,
    bundle: Document,
    by: &str,
    from: Timestamp,
) -> Result<Option<(OverlayRow, bool)>, lineage::Error> {
    if let Some(row) = ledger.overlay(&overlay.id).await? {
        return Ok(Some((row, false)));
    }
    if ledger.overlays_in_force(Timestamp::now()).await?.len() as u64 >= MAX_OVERLAYS {
        return Ok(None);
    }
    let row = OverlayRow {
        id: overlay.id.clone(),
        image: overlay.image.clone(),
        bundle,
        expires_at: overlay.predicate.expires_at,
        accepted_at: from,
        accepted_by: by.to_owned(),
        revoked: None,
    };
    let is_new = ledger.put_overlay(&row).await?;
    Ok(ledger.overlay(&overlay.id).await?.map(|row| (row, is_new)))
}

/// Keeps what is accepted as the ledger has it, until nobody asks any more. `changed` says that it is to be read now.
pub async fn follow(
    ledger: Ledger,
    signers: Signers,
    mut changed: watch::Receiver<()>,
    told: watch::Sender<Arc<Overlays>>,
) {
    let mut refused = BTreeSet::new();
    let mut last: Option<Vec<OverlayRow>> = None;
    while !told.is_closed() {
        match ledger.overlays_in_force(Timestamp::now()).await {
            // Signatures are costly: only what is new is looked at.
            Ok(rows) if last.as_ref() != Some(&rows) => {
                let (held, signers, mut known) = (rows.clone(), signers.clone(), std::mem::take(&mut refused));
                let verified = tokio::task::spawn_blocking(move || (Overlays::of(&held, &signers, &mut known), known));
                if let Ok((overlays, known)) = verified.await {
                    refused = known;
                    last = Some(rows);
                    told.send_replace(Arc::new(overlays));
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "what is accepted is not read anew"),
        }
        // Whoever may change it is gone with the API: then it is looked at in turn.
        if tokio::time::timeout(LOOK, changed.changed()).await.is_ok_and(|gone| gone.is_err()) {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// How long an overlay may hold.
pub(crate) const LONGEST: SignedDuration = SignedDuration::from_hours(366 * 24);
/// How often the ledger is looked at for what other bridges were given.
const LOOK: Duration = Duration::from_secs(5);
