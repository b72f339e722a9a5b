//! Rules ready for reviews: what people wrote, with the trust roots and keys it names. One value, replaced whole; what does not
//! load is told and changes nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use dna::{Cause, Digest, Gap, PodSpec};
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, TypeMeta},
};
use lineage::{Kept, Ledger, Seal, Sealed};
use oci::registry::{Host, Mirror, PullSecret};
use policies::{
    AcceptedSigner, Matching, Material, Needs, Review, Rules,
    kinds::{API_VERSION, Evidence, Identity, ObjectRef, RegistryAccessSpec},
};
use serde_json::Value;
use trust::{PublicKey, Root, Signer, Text, Who};

use crate::{
    gather::{Access, Signers},
    roots::Renewed,
};

pub use policies::objects::{Objects, Standing};

/// Rules, and whom they accept.
#[derive(Debug)]
pub struct Rulebook {
    /// The rules.
    pub rules: Arc<Rules>,
    /// What does not load: for logs, and for whoever asks what is in force.
    pub problems: Vec<String>,
    signers: BTreeMap<String, Signer>,
    /// What rules call them, by id.
    names: BTreeMap<String, String>,
    /// Signers who cannot be judged now, and why.
    silent: BTreeMap<String, Gap>,
    /// How registries are reached that are not reached as all are, in the order of their names.
    pub access: Arc<[Access]>,
    /// When the oldest trust root in use is from.
    pub roots_as_of: Option<Timestamp>,
    /// Changes with any rule, exception, signer, root or access.
    pub digest: Digest,
}

/// What rules refer to beside themselves.
#[derive(Debug, Clone, Default)]
pub struct Beside {
    /// Keys in Secrets and ConfigMaps, PEM.
    pub keys: BTreeMap<ObjectRef, String>,
    /// Trust roots in ConfigMaps, by the `SignerTrust` that names them.
    pub roots: BTreeMap<String, String>,
    /// Trust roots as a repository has them now, by their `SignerTrust`.
    pub renewed: BTreeMap<String, Renewed>,
    /// Certificate authorities, PEM, by the `RegistryAccess` that names them.
    pub authorities: BTreeMap<String, String>,
    /// Pull secrets, by the `RegistryAccess` that names them.
    pub secrets: BTreeMap<String, PullSecret>,
}

impl Rulebook {
    /// Makes rules ready.
    #[must_use]
    pub fn new(mut rules: Rules, mut problems: Vec<String>, beside: &Beside, now: Timestamp) -> Self {
        let mut roots: BTreeMap<String, Root> = BTreeMap::new();
        let mut expired: BTreeMap<String, String> = BTreeMap::new();
        for (name, made) in [("public-good", Root::public_good()), ("github", Root::github())] {
            match made {
                Ok(root) => {
                    roots.insert(name.to_owned(), root);
                }
                Err(error) => problems.push(format!("trust root {name}: {error}")),
            }
        }
        for (name, spec) in rules.trusts() {
            let renewed = beside.renewed.get(name);
            let text = renewed.map(|root| &root.json).or(spec.trusted_root.as_ref());
            let Some(text) = text.or_else(|| beside.roots.get(name)) else {
                problems.push(format!(
                    "SignerTrust {name}: the ConfigMap that it names is not there, or has no such entry"
                ));
                continue;
            };
            match Root::from_json(name, text.as_bytes(), renewed.map(|root| root.as_of)) {
                Ok(root) => {
                    if let Some(why) = too_old(&root, spec.max_age.as_deref(), now) {
                        expired.insert(name.clone(), why);
                    }
                    roots.insert(name.clone(), root);
                }
                Err(error) => problems.push(format!("SignerTrust {name}: {error}")),
            }
        }
        let material = Material {
            roots: roots.iter().map(|(name, root)| (name.clone(), root.facts().digest.clone())).collect(),
            keys: beside.keys.clone(),
        };
        rules.refer(&material);
        let (mut signers, mut silent, mut used) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let mut names = BTreeMap::new();
        for (id, accepted) in rules.signers(&material) {
            names.insert(id.clone(), accepted.spec.name.clone());
            let trust = trust_of(&accepted);
            let old = trust.and_then(|name| expired.get(name));
            match (signer(&accepted, &roots), old) {
                (_, Some(why)) => {
                    silent.insert(id, Gap { cause: Cause::TrustExpired, detail: why.clone() });
                }
                (Ok(signer), None) => {
                    used.extend(trust.map(str::to_owned));
                    signers.insert(id, signer);
                }
                (Err(why), None) => {
                    problems.push(format!("signer {}: {why}", accepted.spec.name));
                    silent.insert(id, Gap { cause: Cause::TrustExpired, detail: why });
                }
            }
        }
        let roots_as_of = used.iter().filter_map(|name| roots.get(name)?.facts().as_of).min();
        let mut named: Vec<String> =
            rules.versions().map(|version| format!("{} {}", version.rule, version.version)).collect();
        named.extend(rules.exceptions().map(|(name, spec)| format!("{name} {spec:?}")));
        named.extend(signers.keys().cloned());
        named.extend(silent.keys().map(|id| format!("{id} silent")));
        let access: Vec<Access> =
            rules.access().iter().map(|(name, spec)| access(name, spec, beside, &mut problems)).collect();
        named.extend(access.iter().map(|access| format!("access {}", access.digest)));
        let digest = Digest::sha256(named.join("\n").as_bytes());
        let rules = Arc::new(rules);
        Self { roots_as_of, rules, problems, signers, names, silent, access: access.into(), digest }
    }

    /// What rules call a signer; of one whom none knows any more, the id.
    #[must_use]
    pub fn name<'a>(&'a self, id: &'a str) -> &'a str {
        self.names.get(id).map_or(id, String::as_str)
    }

    /// Those of these signers who can be judged, to look for; and why the others cannot.
    #[must_use]
    pub fn signers(&self, ids: &BTreeSet<String>) -> (Arc<Signers>, Vec<Gap>) {
        let rules: Vec<Signer> = ids.iter().filter_map(|id| self.signers.get(id)).cloned().collect();
        let known: BTreeSet<String> = rules.iter().map(|signer| signer.name.clone()).collect();
        let gaps = ids.iter().filter_map(|id| self.silent.get(id)).cloned().collect();
        let digest = Digest::sha256(known.iter().map(String::as_str).collect::<Vec<_>>().join("\n").as_bytes());
        (Arc::new(Signers { ids: known, rules, digest }), gaps)
    }
}

/// How registries are reached. What it names and is not there is told; without it, less is reached, never more.
fn access(name: &str, spec: &RegistryAccessSpec, beside: &Beside, problems: &mut Vec<String>) -> Access {
    let mut problem = |why: String| problems.push(format!("RegistryAccess {name}: {why}"));
    let ca_pem = beside.authorities.get(name).cloned();
    if spec.ca_bundle.is_some() && ca_pem.is_none() {
        problem("the ConfigMap of its caBundle is not there, or has no such entry".to_owned());
    }
    let secret = beside.secrets.get(name).cloned();
    if spec.pull_secret.is_some() && secret.is_none() {
        problem("its pullSecret is not there, or is none".to_owned());
    }
    let mut mirrors = Vec::new();
    for mirror in &spec.mirrors {
        match mirror.trim_start_matches("https://").trim_end_matches('/').parse::<Mirror>() {
            Ok(mirror) => mirrors.push(mirror),
            Err(error) => problem(error.to_string()),
        }
    }
    let parts = [
        serde_json::to_vec(spec).unwrap_or_default(),
        ca_pem.clone().unwrap_or_default().into_bytes(),
        secret.as_ref().map(|secret| secret.fingerprint().to_vec()).unwrap_or_default(),
    ];
    let digests: Vec<String> = parts.iter().map(|part| Digest::sha256(part).to_string()).collect();
    Access {
        hosts: spec.hosts.clone(),
        digest: Digest::sha256(digests.join("\n").as_bytes()),
        host: Host { ca_pem, plain_http: spec.plain_http, mirrors, ..Host::default() },
        limits: spec.limits,
        authentication: spec.authentication.clone(),
        secret,
    }
}

fn trust_of(accepted: &AcceptedSigner) -> Option<&str> {
    let spec = &accepted.spec;
    let keyless = spec.keyless.as_ref().map(|keyless| keyless.trust.as_str());
    keyless.or_else(|| spec.key.as_ref().and_then(|key| key.trust.as_deref()))
}

/// Why a root is not to be judged by any more.
fn too_old(root: &Root, max_age: Option<&str>, now: Timestamp) -> Option<String> {
    let max_age: SignedDuration = max_age?.parse().ok()?;
    let facts = root.facts();
    let as_of = facts.as_of?;
    (now.duration_since(as_of) > max_age)
        .then(|| format!("the trust root {} is of {as_of}, older than its maxAge {max_age}", facts.name))
}

/// A rule's signer as the verifier knows one, under its id.
fn signer(accepted: &AcceptedSigner, roots: &BTreeMap<String, Root>) -> Result<Signer, String> {
    let spec = &accepted.spec;
    let trust = match trust_of(accepted) {
        None => Vec::new(),
        Some(name) => {
            vec![roots.get(name).cloned().ok_or_else(|| format!("there is no SignerTrust {name} that can be read"))?]
        }
    };
    let who = match (&spec.keyless, &accepted.key) {
        (Some(keyless), _) => {
            let identities: Result<Vec<_>, String> = keyless.identities.iter().map(identity).collect();
            Who::Identities(identities?)
        }
        (None, Some(pem)) => Who::Key(PublicKey::from_pem(pem).map_err(|error| error.to_string())?),
        (None, None) => return Err("the object that holds its key is not there, or has no such entry".to_owned()),
    };
    let evidence = match spec.evidence {
        Evidence::Signature => trust::Evidence::Signature,
        Evidence::Timestamp => trust::Evidence::Timestamp,
        Evidence::Log => trust::Evidence::Log,
    };
    Ok(Signer { name: accepted.id.clone(), who, evidence, roots: trust })
}

fn identity(identity: &Identity) -> Result<trust::Identity, String> {
    let text = |exact: &Option<String>, pattern: &Option<String>| match (exact, pattern) {
        (Some(exact), _) => Ok(Text::Exact(exact.clone())),
        (None, Some(pattern)) => Text::pattern(pattern).map_err(|error| error.to_string()),
        (None, None) => Err("an identity says nothing of its issuer or subject".to_owned()),
    };
    Ok(trust::Identity {
        issuer: text(&identity.issuer, &identity.issuer_reg_exp)?,
        subject: text(&identity.subject, &identity.subject_reg_exp)?,
        claims: identity.claims.iter().map(|(name, value)| (name.clone(), Text::Exact(value.clone()))).collect(),
    })
}

/// What these rules must know of the images of a pod.
#[must_use]
pub fn needs(matching: &[Matching<'_>], spec: &PodSpec, review: &Review) -> Needs {
    let mut needs = Needs::default();
    for image in spec.images() {
        let named = crate::gather::name(&image);
        matching.iter().for_each(|matching| matching.needs(&named, review, &mut needs));
    }
    needs
}

/// Reads rule files: every file of the folders, and the files that are named.
///
/// # Errors
/// What does not load, a line each: files are loaded whole or not at all.
pub fn from_files(paths: &[PathBuf]) -> Result<Rules, Vec<String>> {
    policies::load_texts(&texts(paths).map_err(|error| vec![error])?)
}

/// Each of these files and its text: every file of the folders, and the files that are named.
///
/// # Errors
/// What cannot be read, and why.
pub fn texts(paths: &[PathBuf]) -> Result<Vec<(String, String)>, String> {
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok((file.display().to_string(), text))
    };
    yaml_files(paths)?.into_iter().map(read).collect()
}

/// The files that are named, and of folders those whose names end as YAML's or JSON's do, sorted.
///
/// # Errors
/// The folder that cannot be read, and why.
pub fn yaml_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = entries.map_err(|error| format!("{}: {error}", path.display()))?;
        let mut inside: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
        inside.retain(|file| file.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json"));
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

/// Objects of a kind are not known.
#[derive(Debug, thiserror::Error)]
#[error("objects of kind {kind}: {error}")]
pub struct Unread {
    kind: &'static str,
    error: Box<kube::Error>,
}

impl Unread {
    /// Whether another try would end alike: the cluster has no such kind, or whoever asks no right.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        matches!(self.error.as_ref(), kube::Error::Api(answer) if answer.is_not_found() || answer.is_forbidden())
    }
}

/// The objects of a cluster that say what is in force.
///
/// # Errors
/// [`Unread`]: which kind the API server would not list, and why.
pub async fn objects(client: &Client) -> Result<Vec<Value>, Unread> {
    let mut objects: Vec<Value> = Vec::new();
    for kind in KINDS {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("mayfly.dev", "v1alpha1", kind));
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        // From the API server's memory: it is asked often.
        let failed = |error: kube::Error| Unread { kind, error: Box::new(error) };
        let listed = api.list(&ListParams::default().match_any()).await.map_err(failed)?;
        for mut object in listed.items {
            // Items of a list do not say what they are.
            object.types = Some(TypeMeta { api_version: API_VERSION.to_owned(), kind: kind.to_owned() });
            objects.push(serde_json::to_value(object).map_err(|error| failed(kube::Error::SerdeError(error)))?);
        }
    }
    Ok(objects)
}

/// Kinds of rules and what belongs to them.
const KINDS: [&str; 5] = ["ClusterImageRule", "ImageRule", "RuleException", "SignerTrust", "RegistryAccess"];

/// What keeps rules over a restart: the last good version of each, in the ledger.
pub(crate) fn kept(ledger: Ledger, seal: Seal) -> Kept {
    Kept::new(Sealed::new(ledger, seal), "rule")
}

/// How often rules are read again.
pub const READ_AGAIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use policies::objects::Key;
    use serde_json::json;

    use super::*;

    fn rule(name: &str, expression: &str) -> Value {
        json!({"apiVersion": "mayfly.dev/v1alpha1", "kind": "ClusterImageRule", "metadata": {"name": name},
            "spec": {"validations": [{"name": "x", "expression": expression}]}})
    }

    #[tokio::test]
    async fn what_a_rule_was_survives_a_restart_and_is_believed_only_under_our_seal() {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger =
            lineage::Ledger::new(&format!("sqlite:{}", folder.path().join("ledger.db").display())).expect("a ledger");
        let kept = |name: &str| super::kept(ledger.clone(), Seal::kept_in(&folder.path().join(name)).expect("a key"));
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let made = |uid: &str, expression: &str| {
            let mut object = rule("two", expression);
            let metadata = object.pointer_mut("/metadata").and_then(Value::as_object_mut).expect("an object");
            metadata.insert("uid".to_owned(), uid.into());
            object
        };
        let good = [rule("one", "true"), made("a", "image.pinned")];
        let mut objects = Objects::default();
        let before = objects.read(&good).0.versions().map(|version| version.version.clone()).collect::<Vec<_>>();
        kept("seal").keep(objects.good(), now).await.expect("kept");

        // Another process, which sees it only once it is broken: as it is read now, and whose key it has.
        let read = async |objects: &mut Objects, kept: &Kept, broken: &[Value]| {
            objects.recall(broken, kept.last(objects.lost(broken), Key::name).await.expect("asked"));
            objects.read(broken).0.versions().map(|version| version.version.clone()).collect::<Vec<_>>()
        };
        let broken = [rule("one", "true"), made("a", "imaeg.pinned")];
        let mut restarted = Objects::default();
        for _ in 0..2 {
            assert_eq!(read(&mut restarted, &kept("seal"), &broken).await, before);
        }
        // It is kept on by the one that recalled it, and what is no rule any more is not.
        kept("seal").keep(restarted.good(), now + SignedDuration::from_hours(100)).await.expect("kept");
        let sealed = Sealed::new(ledger.clone(), Seal::kept_in(&folder.path().join("seal")).expect("a key"));
        let (at, _) = sealed.get("rule", "ClusterImageRule//two/a").await.expect("asked").expect("there");
        assert_eq!(at, now + SignedDuration::from_hours(100));
        // Deleted and made anew, with the mistake: it never was anything else.
        let anew = [rule("one", "true"), made("b", "imaeg.pinned")];
        assert_eq!(read(&mut Objects::default(), &kept("seal"), &anew).await.len(), 1);
        // Somebody else's word.
        assert_eq!(read(&mut Objects::default(), &kept("other"), &broken).await.len(), 1);
    }
}
