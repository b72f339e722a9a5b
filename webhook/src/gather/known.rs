//! The DNA of an image: attested by somebody a rule names for that, kept in the ledger, or worked out here.

use std::{
    collections::BTreeSet,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use dna::{Cause, Digest, Dna, DnaFact, DnaSource, Fact};
use jiff::Timestamp;
use lineage::{Ledger, Origin, SubjectDna};
use oci::registry::Lookup;
use tracing::warn;

use super::{
    analyze::Analyzer,
    flight::{Answer, Flights},
    resolve::{Image, Place},
    vouch::Vouched,
};

/// Where a DNA may come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origins {
    /// Signers whose word for it counts, by id; none: nobody's.
    pub attested: BTreeSet<String>,
    /// How many of them must state the same.
    pub threshold: usize,
    /// It may be worked out here, now or earlier.
    pub analyzed: bool,
    /// Compressed bytes of an image that is worked out while a review waits; larger ones only in the background.
    pub inline_bytes: u64,
}

/// DNAs by image.
pub struct Known {
    analyzer: Arc<Analyzer>,
    ledger: Option<Ledger>,
    facts: Flights<(String, Origins), DnaFact>,
    whole: Flights<Digest, Dna>,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").finish_non_exhaustive()
    }
}

impl Known {
    pub(super) fn new(analyzer: Arc<Analyzer>, ledger: Option<Ledger>, bytes: u64) -> Self {
        let (facts, whole) = (Flights::packed("dna", bytes / 2), Flights::packed("dna-whole", bytes));
        Self { analyzer, ledger, facts, whole }
    }

    /// The image's DNA, abridged: what rules mostly ask of it, without programs and evidence.
    pub(super) async fn dna(
        &self,
        place: &Place,
        image: &Image,
        vouched: Option<&Vouched>,
        origins: &Origins,
        deadline: Instant,
    ) -> Fact<DnaFact> {
        if image.platform.os() != "linux" {
            return Fact::unknown(Cause::AnalysisFailed, format!("images for {} are not analyzed", image.platform));
        }
        let attested = match vouched {
            Some(vouched) if !origins.attested.is_empty() => stated(vouched, image, origins),
            _ => Stated::None,
        };
        let attested = match attested {
            Stated::One(attestation, signers) => Some((attestation, signers)),
            Stated::None => None,
            Stated::Undecided(why) => return Fact::unknown(Cause::AnalysisFailed, why),
        };
        // Another statement that counts is another answer.
        let name = match &attested {
            Some((attestation, _)) => format!("{} {}", image.digest, attestation.proof.origin.carrier),
            None => image.digest.to_string(),
        };
        let key = (name, origins.clone());
        let is_behind = image.bytes > origins.inline_bytes && attested.is_none();
        let deadline = if is_behind { deadline.min(Instant::now() + LOOK) } else { deadline };
        let step = || {
            let step = Step {
                place: place.clone(),
                image: image.clone(),
                analyzer: Arc::clone(&self.analyzer),
                ledger: self.ledger.clone(),
                may_analyze: origins.analyzed,
            };
            async move { step.run(attested).await }
        };
        let found = self.facts.get(key, deadline, step).await;
        waited(found, &self.analyzer, image)
    }

    /// A whole DNA by its digest.
    pub(super) async fn whole(&self, digest: &Digest, deadline: Instant) -> Fact<Arc<Dna>> {
        let (ledger, analyzer) = (self.ledger.clone(), Arc::clone(&self.analyzer));
        let wanted = digest.clone();
        let read = move || async move {
            if let Some(dna) = analyzer.recent(&wanted) {
                return Answer { fact: Fact::Known(dna.as_ref().clone()), holds: WHOLE_HOLDS };
            }
            let Some(ledger) = ledger else { return Answer::absent(vec!["memory".to_owned()]) };
            match ledger.dna(&wanted).await {
                Ok(Some(json)) => match Dna::from_json(&json) {
                    Ok(dna) => Answer::known(dna, WHOLE_HOLDS),
                    Err(error) => Answer::unknown(Cause::Ledger, error.to_string()),
                },
                Ok(None) => Answer::absent(vec!["the ledger".to_owned()]),
                Err(error) => Answer::unknown(Cause::Ledger, error.to_string()),
            }
        };
        self.whole.get(digest.clone(), deadline, read).await
    }
}

/// What took too long goes on, and says when to ask again.
fn waited(found: Fact<Arc<DnaFact>>, analyzer: &Analyzer, image: &Image) -> Fact<DnaFact> {
    match found {
        Fact::Unknown { cause: Cause::Deadline, .. } => {
            let seconds = analyzer.estimate(image.bytes).as_secs().max(1);
            let detail = format!("the image is being analyzed, which takes about {seconds} s: try again then");
            Fact::unknown(Cause::AnalysisPending { retry_seconds: Some(seconds) }, detail)
        }
        found => found.map(|fact| fact.as_ref().clone()),
    }
}

enum Stated {
    None,
    One(Box<trust::Verified<trust::Attestation>>, BTreeSet<String>),
    Undecided(String),
}

/// The statement that counts: by signers that a rule names for it, and by no others.
fn stated(vouched: &Vouched, image: &Image, origins: &Origins) -> Stated {
    let mut findings = trust::Findings::default();
    let counts = vouched.findings.attestations.iter().filter(|one| origins.attested.contains(&one.proof.signer));
    findings.attestations = counts.cloned().collect();
    match findings.dna(&image.digest, origins.threshold.max(1)) {
        Ok(Some(attestation)) => {
            let same = findings.attestations.iter().filter(|one| one.predicate == attestation.predicate);
            Stated::One(Box::new(attestation.clone()), same.map(|one| one.proof.signer.clone()).collect())
        }
        Ok(None) => Stated::None,
        Err(undecided) => Stated::Undecided(undecided.to_string()),
    }
}

/// One way to the DNA, to its end.
#[derive(Clone)]
struct Step {
    place: Place,
    image: Image,
    analyzer: Arc<Analyzer>,
    ledger: Option<Ledger>,
    may_analyze: bool,
}

impl Step {
    async fn run(
        self,
        attested: Option<(Box<trust::Verified<trust::Attestation>>, BTreeSet<String>)>,
    ) -> Answer<DnaFact> {
        if let Some((attestation, signers)) = attested {
            match trust::attested_dna(&attestation, &self.place.ask()).await {
                Lookup::Present(dna) => {
                    let outdated = dna.analyzer.rules != *self.analyzer.rules();
                    self.keep(&dna, Origin::Attested { signers: signers.clone() }).await;
                    if outdated && self.may_analyze {
                        // Newer rules may see more: worked out again without anyone waiting.
                        self.clone().in_background();
                    }
                    return self.fact(Arc::new(dna), DnaSource::Attested { signers });
                }
                Lookup::Absent => {}
                Lookup::Unknown(error) => return Answer::failed(&error),
            }
        }
        if !self.may_analyze {
            return Answer::absent(vec!["attestations by the signers that a rule names for it".to_owned()]);
        }
        if let Some(dna) = self.kept().await {
            return self.fact(Arc::new(dna), DnaSource::Ledger);
        }
        match self.analyzer.analyze(&self.place, &self.image).await {
            Ok(dna) => {
                self.keep(&dna, Origin::Analyzed).await;
                self.fact(dna, DnaSource::Analyzed)
            }
            Err(failure) => failure.answer(),
        }
    }

    fn in_background(self) {
        tokio::spawn(async move {
            match self.analyzer.analyze(&self.place, &self.image).await {
                Ok(dna) => self.keep(&dna, Origin::Analyzed).await,
                Err(failure) => {
                    warn!(image = %self.image.digest, %failure, "an attested DNA of older rules stays as it is")
                }
            }
        });
    }

    /// What was worked out here before, by the rules of now.
    async fn kept(&self) -> Option<Dna> {
        let ledger = self.ledger.as_ref()?;
        let links = ledger.dnas_of(&self.image.digest, self.analyzer.rules()).await;
        let links =
            links.inspect_err(|error| warn!(%error, "the ledger does not answer; the image is analyzed anew")).ok()?;
        let link = links
            .into_iter()
            .find(|link| matches!(link.origin, Origin::Analyzed) && link.rules == *self.analyzer.rules())?;
        let json = ledger.dna(&link.dna).await.ok()??;
        Dna::from_json(&json).ok()
    }

    async fn keep(&self, dna: &Dna, origin: Origin) {
        let Some(ledger) = &self.ledger else { return };
        let Ok(json) = dna.to_canonical_json() else { return };
        let now = Timestamp::now();
        let kept = async {
            let digest = ledger.put_dna(dna, json, now).await?;
            let link = SubjectDna {
                subject: self.image.digest.clone(),
                rules: dna.analyzer.rules.clone(),
                origin,
                repository: self.place.name.clone(),
                dna: digest,
                at: now,
            };
            ledger.link_dna(&link).await
        };
        if let Err(error) = kept.await {
            warn!(%error, image = %self.image.digest, "a DNA is not kept in the ledger");
        }
    }

    fn fact(&self, dna: Arc<Dna>, from: DnaSource) -> Answer<DnaFact> {
        let Ok(digest) = dna.digest() else {
            return Answer::unknown(Cause::AnalysisFailed, "the DNA has no canonical form");
        };
        let document = Arc::new(abridged(&dna));
        self.analyzer.remember(&digest, dna);
        Answer::known(DnaFact { digest, from, document, abridged: true }, FACT_HOLDS)
    }
}

/// Without programs, accounts, folders and evidence.
pub(super) fn abridged(dna: &Dna) -> Dna {
    Dna {
        programs: Vec::new(),
        accounts: dna::Accounts::default(),
        folders: Vec::new(),
        behavior: dna.behavior.without_evidence(),
        schema: dna.schema.clone(),
        analyzer: dna.analyzer.clone(),
        image: dna.image.clone(),
        layers: dna.layers.clone(),
        start: dna.start.clone(),
        unknowns: dna.unknowns.clone(),
    }
}

/// A DNA does not change with time; a newer attestation is seen when its flight is asked anew.
const FACT_HOLDS: Duration = Duration::from_secs(24 * 3600);
const WHOLE_HOLDS: Duration = Duration::from_secs(3600);

/// For an image that no review waits for: long enough to find what is kept.
const LOOK: Duration = Duration::from_millis(250);
