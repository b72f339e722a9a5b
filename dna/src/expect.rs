//! A DNA bound to a pod: what this container may do, and where pod and image do not fit. Pure.
//!
//! The DNA that comes in already answers for the pod's own command and files (`analyzer::refine`); here it meets users,
//! capabilities, mounts, ports and the runtime.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Behavior, Condition, Confidence, ContainerSpec, Digest, Dna, Effect, Exec, Finding, HostNamespaces, ImagePath,
    Known, RuntimeFacts, Unknown,
};

mod capabilities;
mod files;
mod ports;
mod programs;
mod users;

/// What one container is expected to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Expectation {
    /// Digest of the image's DNA, as it was before the pod was laid over it.
    pub dna: Digest,
    /// The command line, credentials taken out.
    pub argv: Vec<String>,
    /// The user of the first process; absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// The bounding set of capabilities.
    pub granted: BTreeSet<String>,
    /// It is privileged: nothing below is enforced on it.
    pub privileged: bool,
    /// No program can gain rights that its parent does not have.
    pub no_new_privileges: bool,
    /// Namespaces of the node it shares.
    pub host: HostNamespaces,
    /// Its root file system cannot be written.
    pub read_only_root: bool,
    /// Folders and files that can be written though the root may not.
    pub writable: BTreeSet<ImagePath>,
    /// What it may do. Evidence stands in the DNA.
    pub behavior: Behavior,
    /// What probes and hooks run in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<Beside>,
    /// Where pod and image do not fit, worst first.
    pub findings: Vec<Finding>,
    /// What could not be known for this pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknowns: Vec<Unknown>,
}

impl Expectation {
    /// Whether the container comes up: the worst effect of its findings.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.findings.iter().map(|finding| finding.effect).min().unwrap_or(Effect::None)
    }
}

/// A command that the kubelet runs in the container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Beside {
    /// The field it stands in: `livenessProbe` …
    pub field: String,
    /// The command line, credentials taken out.
    pub argv: Vec<String>,
    /// Programs it executes.
    pub exec: Vec<Known<Exec>>,
}

/// Binds a DNA to a container of a pod.
///
/// `refined` is the DNA with the pod's command, environment and files laid over; `dna` names the document it was made from.
#[must_use]
pub fn expect(
    dna: &Digest,
    refined: &Dna,
    beside: Vec<Beside>,
    spec: &ContainerSpec,
    runtime: &RuntimeFacts,
) -> Expectation {
    let identity = users::identity(refined, spec);
    let behavior = behavior(refined, spec, runtime, identity.uid);
    let bound = Bound {
        dna: refined,
        spec,
        runtime,
        identity,
        granted: runtime.granted(spec),
        port_start: runtime.unprivileged_port_start(spec),
        writable: files::writable(refined, spec, runtime),
        behavior,
    };
    let mut findings = programs::check(&bound, &beside);
    findings.extend(users::check(&bound));
    findings.extend(capabilities::check(&bound));
    findings.extend(files::check(&bound));
    findings.extend(ports::check(&bound));
    findings.sort_by(|a, b| (a.effect, a.code, &a.subject).cmp(&(b.effect, b.code, &b.subject)));
    Expectation {
        dna: dna.clone(),
        argv: refined.start.argv.clone(),
        uid: bound.identity.uid,
        gid: bound.identity.gid,
        privileged: spec.security.privileged,
        no_new_privileges: bound.no_new_privileges(),
        host: spec.host,
        read_only_root: spec.security.read_only_root,
        behavior: bound.behavior.without_evidence(),
        granted: bound.granted,
        writable: bound.writable,
        beside,
        findings,
        unknowns: refined.unknowns.clone(),
    }
}

/// Everything that the findings are worked out from.
struct Bound<'a> {
    dna: &'a Dna,
    spec: &'a ContainerSpec,
    runtime: &'a RuntimeFacts,
    identity: users::Identity,
    granted: BTreeSet<String>,
    port_start: u16,
    writable: BTreeSet<ImagePath>,
    behavior: Behavior,
}

impl Bound<'_> {
    /// Source: Kubernetes, `AddNoNewPrivileges`: not where the container is privileged or has `CAP_SYS_ADMIN`.
    fn no_new_privileges(&self) -> bool {
        self.spec.security.allow_privilege_escalation == Some(false) && !self.spec.security.privileged
    }

    /// Whether a process of the container's user holds a capability: those of others are lost at execve(2).
    fn holds(&self, capability: &str) -> bool {
        self.identity.uid == Some(0) && self.granted.contains(capability)
    }
}

/// The behavior without what cannot happen here.
fn behavior(dna: &Dna, spec: &ContainerSpec, runtime: &RuntimeFacts, uid: Option<u32>) -> Behavior {
    let port_start = u64::from(runtime.unprivileged_port_start(spec));
    let may = |condition: &Condition| match condition {
        Condition::Uid { equals, negated } => uid.is_none_or(|uid| (uid == *equals) != *negated),
        Condition::Sysctl { name, exceeds } if name == "net.ipv4.ip_unprivileged_port_start" => port_start > *exceeds,
        _ => true,
    };
    fn keep<T: Clone>(items: &[Known<T>], may: impl Fn(&Condition) -> bool) -> Vec<Known<T>> {
        items.iter().filter(|item| item.when.iter().all(&may)).cloned().collect()
    }
    let all = &dna.behavior;
    Behavior {
        exec: keep(&all.exec, may),
        load: keep(&all.load, may),
        syscalls: keep(&all.syscalls, may),
        capabilities: keep(&all.capabilities, may),
        listen: keep(&all.listen, may),
        connect: keep(&all.connect, may),
        write: keep(&all.write, may),
        read: keep(&all.read, may),
        completeness: all.completeness.clone(),
    }
}

/// Whether an item is expected in normal operation.
fn is_expected<T>(item: &&Known<T>) -> bool {
    item.confidence <= Confidence::Likely
}

/// What comes of it when something with this confidence cannot be done.
fn failure(confidence: Confidence) -> Effect {
    match confidence {
        Confidence::Certain => Effect::Fails,
        Confidence::Likely => Effect::MayFail,
        Confidence::Possible => Effect::None,
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{FindingCode, PodSpec, SCHEMA};

    /// A server of root that becomes `www` (33), opens port 80, writes its folders; its file `/usr/sbin/web`.
    fn web() -> Value {
        let evidence = json!([{"kind": "config", "key": "Cmd"}]);
        let item = |mut what: Value, confidence: &str| {
            let fields = what.as_object_mut().expect("an object");
            fields.insert("confidence".to_owned(), confidence.into());
            fields.insert("evidence".to_owned(), evidence.clone());
            what
        };
        let port = json!({"name": "CAP_NET_BIND_SERVICE",
            "when": [{"on": "sysctl", "name": "net.ipv4.ip_unprivileged_port_start", "exceeds": 80}]});
        let partial = json!({"state": "partial", "reason": "a test"});
        let dimensions = ["exec", "load", "syscalls", "capabilities", "listen", "connect", "write", "read"];
        let completeness: serde_json::Map<String, Value> =
            dimensions.iter().map(|name| ((*name).to_owned(), partial.clone())).collect();
        json!({
            "schema": SCHEMA,
            "analyzer": {"name": "mayfly", "version": "0", "rules": Digest::sha256(b"")},
            "image": {"platform": "linux/amd64"},
            "layers": [],
            "start": {"argv": ["web"], "entrypoint": 1, "program": "/usr/sbin/web", "user": "", "uid": 0, "gid": 0},
            "programs": [{"path": "/usr/sbin/web", "sha256": Digest::sha256(b"x"), "size": 1, "layer": 0, "uid": 0, "gid": 0,
                "mode": 0o755, "kind": "other"}],
            "accounts": {"users": [{"name": "www", "uid": 33, "gid": 33, "home": "/", "shell": "/bin/false"}], "groups": []},
            "folders": [{"path": "/var/log/web", "uid": 0, "gid": 0, "mode": 0o755},
                {"path": "/var/cache/web", "uid": 33, "gid": 33, "mode": 0o700}],
            "behavior": {
                "exec": [item(json!({"path": "/usr/sbin/web"}), "certain")],
                "capabilities": [item(json!({"name": "CAP_SETUID"}), "certain"), item(port, "certain"),
                    item(json!({"name": "CAP_CHOWN"}), "possible")],
                "syscalls": [item(json!({"name": "mount"}), "likely"), item(json!({"name": "read"}), "certain")],
                "listen": [item(json!({"protocol": "tcp", "port": 80}), "certain")],
                "write": [item(json!({"path": "/var/log/web/access.log"}), "certain"),
                    item(json!({"path": "/var/cache/web/**"}), "likely"), item(json!({"path": "/x"}), "possible")],
                "completeness": completeness,
            },
            "unknowns": [],
        })
    }

    fn bound(container: Value, pod: Value, runtime: &RuntimeFacts, dna: &Value) -> Expectation {
        let mut spec = json!({"containers": [{"name": "c", "image": "web"}]});
        for (into, from) in [("/containers/0", container), ("", pod)] {
            let into = spec.pointer_mut(into).and_then(Value::as_object_mut).expect("an object");
            into.extend(from.as_object().expect("an object").clone());
        }
        let spec = PodSpec::read(&spec).expect("a pod");
        let dna = Dna::from_json(dna.to_string().as_bytes()).expect("a DNA");
        let beside = Vec::new();
        expect(&Digest::sha256(b"dna"), &dna, beside, spec.containers.first().expect("one"), runtime)
    }

    /// Codes, subjects and effects.
    fn found(container: Value) -> Vec<(FindingCode, String, Effect)> {
        let expectation = bound(container, json!({}), &RuntimeFacts::default(), &web());
        expectation.findings.into_iter().map(|one| (one.code, one.subject, one.effect)).collect()
    }

    fn one(code: FindingCode, subject: &str, effect: Effect) -> Vec<(FindingCode, String, Effect)> {
        vec![(code, subject.to_owned(), effect)]
    }

    #[test]
    fn a_pod_that_asks_for_nothing_fits() {
        assert_eq!(found(json!({})), []);
        let all = bound(json!({}), json!({}), &RuntimeFacts::default(), &web());
        assert_eq!((all.uid, all.granted.len(), all.effect()), (Some(0), 14, Effect::None));
        assert!(all.behavior.exec.iter().all(|item| item.evidence.is_empty()), "evidence stands in the DNA");
    }

    #[test]
    fn what_is_dropped_and_needed_is_told() {
        let drop = json!({"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}}});
        assert_eq!(found(drop.clone()), one(FindingCode::CapabilityMissing, "CAP_SETUID", Effect::Fails));
        let strict = RuntimeFacts { unprivileged_port_start: 1024, ..RuntimeFacts::default() };
        let expectation = bound(drop, json!({}), &strict, &web());
        let names: Vec<_> = expectation.findings.iter().map(|finding| finding.subject.as_str()).collect();
        assert_eq!(names, ["CAP_NET_BIND_SERVICE", "CAP_SETUID"]);
    }

    #[test]
    fn what_is_added_and_not_needed_is_told() {
        let add = json!({"securityContext": {"capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}}});
        assert_eq!(found(add), one(FindingCode::CapabilityNotNeeded, "CAP_SYS_ADMIN", Effect::None));
        let privileged = json!({"securityContext": {"privileged": true}});
        assert_eq!(found(privileged), one(FindingCode::PrivilegedNotNeeded, "privileged", Effect::None));
    }

    #[test]
    fn a_read_only_root_is_held_against_writes() {
        let root = json!({"securityContext": {"readOnlyRootFilesystem": true}});
        let both = [
            (FindingCode::RootReadOnly, "/var/log/web/access.log".to_owned(), Effect::Fails),
            (FindingCode::RootReadOnly, "/var/cache/web/**".to_owned(), Effect::MayFail),
        ];
        assert_eq!(found(root.clone()), both);
        let mut container = root.clone();
        let pod = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
        let mut with = |mounts: Value| {
            container["volumeMounts"] = mounts;
            let found = bound(container.clone(), pod.clone(), &RuntimeFacts::default(), &web()).findings;
            found.into_iter().map(|one| (one.code, one.subject)).collect::<Vec<_>>()
        };
        let both = json!([{"name": "v", "mountPath": "/var/log/web"}, {"name": "v", "mountPath": "/var/cache/web"}]);
        assert_eq!(with(both), []);
        let above = with(json!([{"name": "v", "mountPath": "/var"}]));
        assert_eq!(above, [(FindingCode::FilesHidden, "/var/log/web".to_owned())], "the volume has no such folder");
        let read_only = with(json!([{"name": "v", "mountPath": "/var/log/web", "readOnly": true},
            {"name": "v", "mountPath": "/var/cache/web", "readOnly": true}]));
        assert_eq!(read_only.len(), 2);
        let mut declared = web();
        declared["start"]["volumes"] = json!(["/var/log/web", "/var/cache"]);
        assert_eq!(bound(root, json!({}), &RuntimeFacts::default(), &declared).findings, []);
    }

    #[test]
    fn another_user_is_held_against_owners_and_ports() {
        let user = json!({"securityContext": {"runAsUser": 33}});
        let expected = [
            (FindingCode::UserCannotWrite, "/var/log/web/access.log".to_owned(), Effect::MayFail),
            (FindingCode::UserChanged, "33".to_owned(), Effect::MayFail),
        ];
        assert_eq!(found(user.clone()), expected);
        let strict = RuntimeFacts { unprivileged_port_start: 1024, ..RuntimeFacts::default() };
        let codes: Vec<_> =
            bound(user, json!({}), &strict, &web()).findings.into_iter().map(|one| (one.code, one.effect)).collect();
        let expected = [
            (FindingCode::PortNotPermitted, Effect::Fails),
            (FindingCode::UserCannotWrite, Effect::MayFail),
            (FindingCode::UserChanged, Effect::MayFail),
        ];
        assert_eq!(codes, expected);
    }

    #[test]
    fn the_kubelet_s_own_refusals_are_foreseen() {
        let of = |user: &str, uid: Option<u32>, security: Value| {
            let mut dna = web();
            dna["start"]["user"] = user.into();
            dna["start"]["uid"] = uid.map_or(Value::Null, Value::from);
            let container = json!({"securityContext": security});
            let all = bound(container, json!({}), &RuntimeFacts::default(), &dna).findings;
            all.into_iter().find(|one| one.effect == Effect::Fails).map(|one| one.code)
        };
        let strict = json!({"runAsNonRoot": true});
        assert_eq!(of("", Some(0), strict.clone()), Some(FindingCode::RunsAsRoot));
        assert_eq!(of("0:0", Some(0), strict.clone()), Some(FindingCode::RunsAsRoot));
        assert_eq!(of("www", Some(33), strict.clone()), Some(FindingCode::UserNotVerifiable));
        assert_eq!(of("33", Some(33), strict.clone()), None);
        assert_eq!(of("", Some(0), json!({"runAsNonRoot": true, "runAsUser": 33})), None);
        assert_eq!(of("", Some(0), json!({"runAsNonRoot": true, "runAsUser": 0})), Some(FindingCode::RunsAsRoot));
        assert_eq!(of("nobody", None, json!({})), Some(FindingCode::UserNotFound));
    }

    #[test]
    fn ports_are_held_against_each_other() {
        let ports = json!({"ports": [{"containerPort": 81}], "readinessProbe": {"httpGet": {"port": 82}}});
        let expected = [
            (FindingCode::ProbePortNotServed, "82/tcp".to_owned(), Effect::MayFail),
            (FindingCode::PortNotServed, "81/tcp".to_owned(), Effect::None),
            (FindingCode::PortNotDeclared, "80/tcp".to_owned(), Effect::None),
        ];
        let mut found = found(ports);
        found.sort();
        let mut expected = expected.to_vec();
        expected.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_program_that_is_not_there_fails_unless_a_volume_may_bring_it() {
        let mut dna = web();
        dna["start"]["argv"] = json!(["/opt/app"]);
        dna["start"]["program"] = Value::Null;
        let none = bound(json!({}), json!({}), &RuntimeFacts::default(), &dna).findings;
        assert_eq!(none.first().map(|one| (one.code, one.effect)), Some((FindingCode::ProgramMissing, Effect::Fails)));
        let pod = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
        let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/opt"}]});
        assert_eq!(bound(mounts, pod.clone(), &RuntimeFacts::default(), &dna).findings, []);
        let over = json!({"volumeMounts": [{"name": "v", "mountPath": "/usr/sbin"}]});
        let hidden = bound(over, pod, &RuntimeFacts::default(), &web()).findings;
        assert_eq!(hidden.first().map(|one| one.code), Some(FindingCode::ProgramHidden));
    }

    #[test]
    fn the_runtime_s_seccomp_profile_is_held_against_calls() {
        let security = |value: Value| json!({"securityContext": value});
        let default = json!({"seccompProfile": {"type": "RuntimeDefault"}});
        assert_eq!(found(security(default.clone())), one(FindingCode::SeccompDenies, "mount", Effect::MayFail));
        let mut with = default;
        with["capabilities"] = json!({"add": ["SYS_ADMIN"]});
        assert!(found(security(with)).iter().all(|one| one.0 != FindingCode::SeccompDenies));
    }
}
