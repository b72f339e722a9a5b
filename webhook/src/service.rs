//! One review, from its body to its answer.
//!
//! ```text
//! body ─read─► request ─► matching rules ─► what they need ─gather─► facts ─decide─► decision ─► answer
//!                  └─ never blocked, or unchanged: allowed at once                └─ ledger, behind its back
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use dna::{Fact, PodSpec, Role, SubjectFacts};
use jiff::Timestamp;
use lineage::{Binding, DecisionImage, Document, Recorder};
use policies::{Decision, Effect, Needs, Review, Verdict, Watch};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::{Instrument as _, info, warn};
use uuid::Uuid;

use crate::{
    cluster::Cluster,
    gather::{Gatherer, Origins, Pod, Wanted},
    images::Images,
    packed::Packed,
    quarantine::{self, Quarantine},
    review::{Response, Status},
    rulebook::{self, Rulebook, Standing},
    traces,
    worker::Template,
};

/// Reviews requests.
#[derive(Debug)]
pub struct Service {
    pub(crate) rulebook: ArcSwapOption<Rulebook>,
    /// What became of the objects that rules were read of last.
    pub(crate) standings: ArcSwap<Vec<Standing>>,
    pub(crate) gatherer: Arc<Gatherer>,
    pub(crate) cluster: Cluster,
    pub(crate) recorder: Option<Arc<Recorder>>,
    pub(crate) settings: Settings,
    /// Whether the certificate that is served is good; none where there is none to serve.
    pub(crate) serving: Option<certs::Serving>,
    /// Where templates go whose images are looked at before their pods come.
    pub(crate) ahead: OnceLock<mpsc::Sender<Template>>,
    pub(crate) packed: Packed,
    pub(crate) images: Images,
    pub(crate) watch: Arc<Watch>,
    /// Digests that no new pod may have.
    pub(crate) quarantine: Quarantine,
}

/// What a service is told once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names this cluster in the ledger.
    pub cluster: String,
    /// The webhook's own namespace, which is never reviewed: it must be able to start when it is down.
    pub own_namespace: Option<String>,
    /// Groups whose members may exempt a namespace, or take enforcement off it.
    pub exempting_groups: BTreeSet<String>,
    /// Compressed bytes of an image that is analyzed while a review waits.
    pub inline_bytes: u64,
}

impl Service {
    /// A service without rules yet: it is not ready, and refuses.
    #[must_use]
    pub fn new(
        gatherer: Arc<Gatherer>,
        cluster: Cluster,
        recorder: Option<Arc<Recorder>>,
        serving: Option<certs::Serving>,
        settings: Settings,
    ) -> Self {
        let (rulebook, standings) = (ArcSwapOption::empty(), ArcSwap::default());
        let (ahead, packed, images) = (OnceLock::new(), Packed::default(), Images::default());
        let watch = Arc::new(Watch::new(RULE_LIMIT));
        let quarantine = Quarantine::default();
        Self {
            rulebook,
            standings,
            gatherer,
            cluster,
            recorder,
            settings,
            serving,
            ahead,
            packed,
            images,
            watch,
            quarantine,
        }
    }

    /// The digests that no new pod may have.
    #[must_use]
    pub fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    /// Puts rules in force.
    pub fn arm(&self, rulebook: Rulebook) {
        self.rulebook.store(Some(Arc::new(rulebook)));
    }

    /// Why reviews should go elsewhere; none where they should not.
    #[must_use]
    pub fn unready(&self) -> Option<String> {
        if self.rulebook.load().is_none() {
            return Some("the rules are not read yet".to_owned());
        }
        let status = self.serving.as_ref().filter(|serving| !serving.is_ready());
        status.map(|_| "there is no certificate to serve yet".to_owned())
    }

    /// Answers a body: always, and by `deadline` but for the time that deciding takes.
    pub async fn review(&self, body: &[u8], deadline: Instant) -> Response {
        let started = Instant::now();
        let mut review = match policies::admission::read(body) {
            Ok(review) => review,
            Err(malformed) => {
                metrics::counter!("mayfly_reviews_total", "verdict" => "error", "reason" => "malformed").increment(1);
                warn!(reason = malformed.reason, "a body is no review");
                return Response::deny(&malformed.uid, Status::bad_request(malformed.reason));
            }
        };
        let id = Uuid::now_v7();
        let request = &review.request;
        let span = tracing::info_span!("review", %id, uid = request.uid, namespace = request.namespace,
            kind = request.kind.kind, name = request.name, operation = request.operation);
        traces::begin(&span, id);
        let (mut response, told) = self.answer(&mut review, id, deadline).instrument(span).await;
        let seconds = started.elapsed().as_secs_f64();
        metrics::histogram!("mayfly_review_seconds").record(seconds);
        metrics::counter!("mayfly_reviews_total", "verdict" => told.verdict(), "reason" => told.reason()).increment(1);
        if let Told::Decided(_, _) = told {
            response.audit_annotations.insert("decision".to_owned(), id.to_string());
        }
        response
    }

    async fn answer(&self, review: &mut Review, id: Uuid, deadline: Instant) -> (Response, Told) {
        let uid = review.request.uid.clone();
        if let Some(why) = self.passes(review) {
            return (Response::allow(&uid), Told::Passed(why));
        }
        if review.request.kind.group.is_empty() && review.request.kind.kind == "Namespace" {
            return self.namespace(review).await;
        }
        let Some(book) = self.rulebook.load_full() else {
            let status = Status::later("the rules are not read yet".to_owned(), 5);
            return (Response::deny(&uid, status), Told::Failed("not-ready"));
        };
        match self.cluster.namespace(&review.request.namespace, deadline).await {
            Ok(namespace) => review.namespace_object = namespace.as_ref().clone(),
            // Which rules apply is not known: nobody may pass by that.
            Err(unanswered) => {
                warn!(%unanswered, "a review is refused");
                return (Response::deny(&uid, Status::later(unanswered.to_string(), 2)), Told::Failed("cluster"));
            }
        }
        if let (Some(ahead), Some(template)) = (self.ahead.get(), Template::of(review)) {
            // Full: its pods will ask for themselves.
            let taken = if ahead.try_send(template).is_ok() { "taken" } else { "dropped" };
            metrics::counter!("mayfly_templates_total", "outcome" => taken).increment(1);
        }
        match Box::pin(self.consider(&book, review, deadline)).await {
            Considered::Passed(why) => (Response::allow(&uid), Told::Passed(why)),
            Considered::Unreadable { why, is_enforced } => {
                warn!(why, is_enforced, rules = %book.digest, "an object cannot be read");
                let response = match is_enforced {
                    true => Response::deny(&uid, Status::bad_request(why)),
                    false => {
                        let warning: String = format!("mayfly: {why}").chars().take(120).collect();
                        Response { warnings: vec![warning], ..Response::allow(&uid) }
                    }
                };
                (response, Told::Failed("unreadable"))
            }
            Considered::Failed(why) => (Response::deny(&uid, Status::later(why, 2)), Told::Failed("cluster")),
            Considered::Decided { decision, at } => {
                self.record(review, &decision, id, at);
                let response = answered(&uid, &decision);
                tell(&decision);
                let denial = decision.reasons.iter().find(|reason| reason.effect == Effect::Deny);
                let code = denial.map(|reason| reason.code.clone());
                (response, Told::Decided(decision.verdict, code))
            }
        }
    }

    /// Finds the rules that apply, gathers what they need to know by `deadline`, and decides.
    pub(crate) async fn consider(&self, book: &Rulebook, review: &mut Review, deadline: Instant) -> Considered {
        review.audit_only = is_mirror(review);
        let matching = book.rules.matching(review);
        let is_quarantining = !self.quarantine.is_empty() && !review.audit_only;
        if matching.is_empty() && !is_quarantining {
            return Considered::Passed("no-rule");
        }
        let pod = |object: &Value| book.rules.pod_spec(&review.request.kind, object).map(PodSpec::read);
        let spec = match pod(&review.object) {
            None => return Considered::Passed("no-pod"),
            Some(Ok(spec)) => spec,
            // A kind with pods in which none can be found: where a rule would be enforced, it is refused.
            Some(Err(error)) => {
                let is_enforced = matching.iter().any(|matching| matching.rule.is_in_force(review, Timestamp::now()));
                return Considered::Unreadable { why: error.to_string(), is_enforced };
            }
        };
        let images: BTreeSet<_> = spec.images().collect();
        let old = pod(&review.old_object).and_then(Result::ok);
        let old_images: BTreeSet<_> = old.iter().flat_map(PodSpec::images).collect();
        if book.rules.unchanged(review, &matching, &images, &old_images) {
            return Considered::Passed("unchanged");
        }
        let mut needs = rulebook::needs(&matching, &spec, review);
        needs.digest |= is_quarantining;
        let gathering = self.gather(&review.request.namespace, &spec, &needs, book, deadline);
        match Box::pin(gathering).await {
            Ok(subjects) => review.subjects = subjects,
            Err(why) => return Considered::Failed(why),
        }
        let refused = if is_quarantining { self.quarantine.reasons(&review.subjects) } else { Vec::new() };
        if matching.is_empty() && refused.is_empty() {
            return Considered::Passed("no-rule");
        }
        let now = Timestamp::now();
        let mut decision = self.decide(review, book, now);
        quarantine::deny(&mut decision, refused);
        Considered::Decided { decision: Box::new(decision), at: now }
    }

    /// Decides, under watch. It is done where it is asked for: to hand it to a thread that may be lost costs more than deciding does, and bounds
    /// at load keep an expression from taking long.
    pub(crate) fn decide(&self, review: &Review, book: &Rulebook, now: Timestamp) -> Decision {
        self.watch.decide(review, &book.rules, now)
    }

    /// Why a request is none of our business; none where it is.
    pub(crate) fn passes(&self, review: &Review) -> Option<&'static str> {
        let request = &review.request;
        let is_deleted = review.object.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null());
        match (request.operation.as_str(), request.sub_resource.as_str()) {
            ("CREATE" | "UPDATE", "" | "ephemeralcontainers") => {}
            ("CREATE" | "UPDATE", _) => return Some("subresource"),
            _ => return Some("operation"),
        }
        if is_deleted {
            return Some("deleting");
        }
        let own = self.settings.own_namespace.as_deref().filter(|own| !own.is_empty());
        (own == Some(request.namespace.as_str())).then_some("own-namespace")
    }

    /// Exempting a namespace is for few.
    async fn namespace(&self, review: &Review) -> (Response, Told) {
        let request = &review.request;
        self.cluster.forget_namespace(&request.name).await;
        let label = |object: &Value, name: &str| {
            object
                .pointer("/metadata/labels")
                .and_then(|labels| labels.get(name))
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let (new, old) = (&review.object, &review.old_object);
        let is_exempted = label(new, EXEMPT) != label(old, EXEMPT) && label(new, EXEMPT).is_some();
        let is_relaxed = request.operation == "UPDATE"
            && label(old, ENFORCE).is_some()
            && label(new, ENFORCE) != label(old, ENFORCE);
        let may = request.user_info.groups.iter().any(|group| self.settings.exempting_groups.contains(group));
        if (is_exempted || is_relaxed) && !may {
            let name = if is_exempted { EXEMPT } else { ENFORCE };
            let groups: Vec<&str> = self.settings.exempting_groups.iter().map(String::as_str).collect();
            let why = format!("only members of {} may change the label {name}", groups.join(", "));
            warn!(user = request.user_info.username, label = name, "a protected label is not changed");
            return (Response::deny(&request.uid, Status::forbidden(why)), Told::Failed("label"));
        }
        (Response::allow(&request.uid), Told::Passed("namespace"))
    }

    /// What is known of the pod's images in time.
    pub(crate) async fn gather(
        &self,
        namespace: &str,
        spec: &PodSpec,
        needs: &Needs,
        book: &Rulebook,
        deadline: Instant,
    ) -> Result<Vec<SubjectFacts>, String> {
        let keyring = self.cluster.keyring(namespace, spec, deadline);
        let maps = async {
            match needs.expectation {
                true => self.cluster.config_maps(namespace, &spec.containers, deadline).await,
                false => Ok(BTreeMap::new()),
            }
        };
        let (keyring, maps) = futures_util::future::join(keyring, maps).await;
        let keyring = keyring.map_err(|error| error.to_string())?;
        // What a ConfigMap holds is then not known, and what rests on it neither.
        let maps = maps.unwrap_or_else(|error| {
            warn!(%error, "configuration is not known");
            BTreeMap::new()
        });
        let (signers, gaps) = match needs.who_vouches() {
            true => {
                let (signers, gaps) = book.signers(&needs.signers.union(&needs.dna_signers).cloned().collect());
                (Some(signers), gaps)
            }
            false => (None, Vec::new()),
        };
        let wanted = Wanted {
            signers,
            dna: needs.dna.then(|| Origins {
                attested: needs.dna_signers.clone(),
                threshold: 1,
                analyzed: needs.dna_analyzed,
                inline_bytes: self.settings.inline_bytes,
            }),
            kinship: needs.kinship,
            expectation: needs.expectation,
            access: Arc::clone(&book.access),
        };
        let carriers: Vec<_> = spec.images().collect();
        let platforms = match needs.platforms.contains("*") {
            true => None,
            false => self.cluster.platforms(spec).map(|mut platforms| {
                platforms.extend(needs.platforms.iter().filter_map(|name| name.parse().ok()));
                platforms
            }),
        };
        let pod = Pod {
            carriers: &carriers,
            containers: &spec.containers,
            config_maps: &maps,
            platforms: platforms.as_deref(),
            keyring: &keyring,
        };
        let mut subjects = self.gatherer.subjects(&pod, &wanted, deadline).await;
        for subject in &mut subjects {
            subject.gaps.extend(gaps.iter().cloned());
            if needs.full_dna
                && let Fact::Known(fact) = &mut subject.dna
                && let Fact::Known(whole) = self.gatherer.whole(&fact.digest, deadline).await
            {
                (fact.document, fact.abridged) = (whole, false);
            }
        }
        Ok(subjects)
    }

    /// Leaves what was decided, and what containers are bound to; never waits.
    fn record(&self, review: &Review, decision: &Decision, id: Uuid, now: Timestamp) {
        let request = &review.request;
        let Some(recorder) = self.recorder.as_ref().filter(|_| !request.dry_run) else { return };
        let text =
            |pointer: &str| review.object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let name = match request.name.is_empty() {
            true => Some(text("/metadata/name"))
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| text("/metadata/generateName")),
            false => request.name.clone(),
        };
        let Some(record) = self.written(review, decision, (&request.kind.kind, &name), id, now) else { return };
        recorder.record(record);
        self.images.record(&review.subjects, recorder, now);
        let pod_uid = text("/metadata/uid");
        if !decision.is_allowed() || !review.is_pod() || pod_uid.is_empty() {
            return;
        }
        for subject in review.subjects.iter().filter(|subject| subject.image.used.role != Role::Volume) {
            let expectation = subject.expectation.known().and_then(|expectation| self.packed.document(expectation));
            recorder.record(Binding {
                cluster: self.settings.cluster.clone(),
                pod_uid: pod_uid.clone(),
                container: subject.image.used.name.clone(),
                platform: platform(subject),
                namespace: request.namespace.clone(),
                pod: name.clone(),
                owner: owner(&review.object),
                image: subject.image.used.reference.clone(),
                digest: subject.resolved.known().map(|resolved| resolved.platform_digest.clone()),
                expectation,
                decision: Some(id),
                at: now,
            });
        }
    }

    /// A decision as the ledger keeps it, about an object of this kind and name.
    pub(crate) fn written(
        &self,
        review: &Review,
        decision: &Decision,
        (kind, name): (&str, &str),
        id: Uuid,
        now: Timestamp,
    ) -> Option<lineage::Decision> {
        let details = json!({
            "reasons": decision.reasons, "unknown": decision.unknown, "exceptions": decision.exceptions,
            "findings": findings(&review.subjects),
        });
        let Ok(details) = Document::pack(details.to_string().as_bytes()) else {
            warn!("a decision is too large for the ledger");
            return None;
        };
        let images = review.subjects.iter().map(|subject| DecisionImage {
            name: subject.image.used.name.clone(),
            reference: subject.image.used.reference.clone(),
            digest: subject.resolved.known().map(|resolved| resolved.platform_digest.clone()),
        });
        Some(lineage::Decision {
            id,
            at: now,
            cluster: self.settings.cluster.clone(),
            namespace: review.request.namespace.clone(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            user: review.request.user_info.username.clone(),
            operation: review.request.operation.clone(),
            verdict: match decision.verdict {
                Verdict::Allow => lineage::Verdict::Allow,
                Verdict::Warn => lineage::Verdict::Warn,
                Verdict::Deny => lineage::Verdict::Deny,
            },
            is_dry_run: false,
            has_unknowns: !decision.unknown.is_empty(),
            images: images.collect(),
            rules: decision
                .rules
                .iter()
                .map(|rule| lineage::RuleVersion { name: rule.rule.clone(), version: rule.version.to_string() })
                .collect(),
            details,
        })
    }

    /// Sets the gauges, for whoever is about to read them.
    pub fn measure(&self) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        let gauge = |name: &'static str, value: u64| metrics::gauge!(name).set(value as f64);
        for (kind, outcome, count) in self.gatherer.requests() {
            #[expect(clippy::cast_precision_loss, reason = "a gauge")]
            let count = count as f64;
            metrics::gauge!("mayfly_registry_requests", "kind" => kind.name(), "outcome" => outcome.name()).set(count);
        }
        if let Some(recorder) = &self.recorder {
            let counts = recorder.counts();
            gauge("mayfly_ledger_records_accepted", counts.accepted);
            gauge("mayfly_ledger_records_written", counts.written);
            gauge("mayfly_ledger_records_lost", counts.lost());
            gauge("mayfly_ledger_spool_bytes", counts.spool_bytes);
            gauge("mayfly_ledger_behind", u64::from(counts.is_behind));
        }
        if let Some(book) = self.rulebook.load_full() {
            gauge("mayfly_rules", book.rules.len() as u64);
            gauge("mayfly_rules_disabled", book.rules.disabled().count() as u64);
            gauge("mayfly_rule_problems", book.problems.len() as u64);
            if let Some(as_of) = book.roots_as_of {
                let age = Timestamp::now().duration_since(as_of).as_secs();
                gauge("mayfly_trust_root_age_seconds", u64::try_from(age).unwrap_or_default());
            }
        }
        if let Some(serving) = &self.serving {
            let left = serving.status(Timestamp::now()).expires_in.unwrap_or_default();
            gauge("mayfly_certificate_expires_in_seconds", u64::try_from(left).unwrap_or_default());
        }
    }
}

/// What became of a request, before it is answered.
#[derive(Debug)]
pub enum Considered {
    /// It is allowed without a decision; why.
    Passed(&'static str),
    /// An object of a kind with pods in which none can be found.
    Unreadable {
        /// Why.
        why: String,
        /// Whether a rule that is about it is in force.
        is_enforced: bool,
    },
    /// What rules must know could not be asked for; why.
    Failed(String),
    /// It was decided.
    Decided {
        /// What comes of it.
        decision: Box<Decision>,
        /// When.
        at: Timestamp,
    },
}

/// How a review ended, for metrics.
#[derive(Debug)]
enum Told {
    /// Allowed without a decision.
    Passed(&'static str),
    /// Refused, or warned, without one.
    Failed(&'static str),
    /// Decided; of a denial its first code.
    Decided(Verdict, Option<String>),
}

impl Told {
    fn verdict(&self) -> &'static str {
        match self {
            Self::Passed(_) => "bypassed",
            Self::Failed(_) => "error",
            Self::Decided(Verdict::Allow, _) => "allowed",
            Self::Decided(Verdict::Warn, _) => "warned",
            Self::Decided(Verdict::Deny, _) => "denied",
        }
    }

    fn reason(&self) -> String {
        match self {
            Self::Passed(why) | Self::Failed(why) => (*why).to_owned(),
            Self::Decided(_, code) => code.clone().unwrap_or_default(),
        }
    }
}

/// Whether it is the API server's picture of a pod that a kubelet runs from its own files.
fn is_mirror(review: &Review) -> bool {
    review.object.pointer("/metadata/annotations").and_then(|all| all.get(MIRROR)).is_some()
        && review.request.user_info.groups.iter().any(|group| group == "system:nodes")
}

fn answered(uid: &str, decision: &Decision) -> Response {
    let mut response = match decision.verdict {
        Verdict::Allow | Verdict::Warn => Response::allow(uid),
        Verdict::Deny => {
            let status = match decision.retry_seconds {
                Some(seconds) => Status::later(decision.message(), u32::try_from(seconds).unwrap_or(u32::MAX)),
                None => Status::forbidden(decision.message()),
            };
            Response::deny(uid, status)
        }
    };
    response.warnings = decision.warnings();
    response.audit_annotations = decision.annotations();
    response
}

fn tell(decision: &Decision) {
    match decision.verdict {
        Verdict::Deny => info!(verdict = "deny", why = decision.message(), "decided"),
        Verdict::Warn => info!(verdict = "warn", reasons = decision.reasons.len(), "decided"),
        Verdict::Allow => tracing::debug!(verdict = "allow", audited = decision.reasons.len(), "decided"),
    }
}

/// Where images and pod do not fit, by container.
fn findings(subjects: &[SubjectFacts]) -> BTreeMap<&str, &[dna::Finding]> {
    subjects
        .iter()
        .filter_map(|subject| {
            Some((subject.image.used.name.as_str(), subject.expectation.known()?.findings.as_slice()))
        })
        .collect()
}

/// The platform of an image; empty where it is not known.
pub(crate) fn platform(subject: &SubjectFacts) -> String {
    subject.resolved.known().map(|resolved| resolved.platform.to_string()).unwrap_or_default()
}

/// The controller, as `Kind/name`.
pub(crate) fn owner(object: &Value) -> Option<String> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    let controller = owners.iter().find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))?;
    Some(format!("{}/{}", controller.get("kind")?.as_str()?, controller.get("name")?.as_str()?))
}

/// On pods that the kubelet runs from its own files: they run already, refusing them only hides them.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";

/// How long one rule may take for one review; bounds at load keep it below a millisecond.
const RULE_LIMIT: Duration = Duration::from_secs(3);

/// Labels of a namespace.
pub const EXEMPT: &str = "mayfly.dev/exempt";
/// Where rules are enforced; see `policies`.
pub const ENFORCE: &str = "mayfly.dev/enforce";
