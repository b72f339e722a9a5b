//! Drafts of tighter profiles, made of what was seen, and held against the events that are stored before anybody applies them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use runtime_bridge::snapshot::{Snapshot, View};
use serde_json::{Map, Value, json};

use crate::args::api::Draft as Kind;

/// A draft, and what is to be known of it.
#[derive(Debug)]
pub(crate) struct Draft {
    /// YAML.
    pub(crate) text: String,
    /// What it would refuse of what is stored, and what it cannot say.
    pub(crate) remarks: Vec<String>,
}

/// `KEY=VALUE`.
pub(crate) fn label(text: &str) -> anyhow::Result<(String, String)> {
    let (key, value) = text.split_once('=').with_context(|| format!("--label {text}: give KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Makes a draft for pods with these labels.
pub(crate) fn draft(
    kind: Kind,
    snapshot: &Snapshot,
    labels: &[(String, String)],
    with_unused: bool,
) -> anyhow::Result<Draft> {
    if labels.is_empty() {
        bail!("a policy chooses pods by labels: name those of the workload's pods by --label KEY=VALUE");
    }
    let labels: Map<String, Value> =
        labels.iter().map(|(key, value)| (key.clone(), Value::from(value.clone()))).collect();
    let workload = &snapshot.workload;
    let name = workload.owner.rsplit('/').next().unwrap_or_default().to_lowercase();
    let name = format!("{name}-seen-by-mayfly");
    let mut remarks = vec![format!(
        "of {} containers of {} from {} to {}: what was not seen in this time is refused{}",
        workload.starts,
        workload.digest,
        workload.first_seen,
        workload.last_seen,
        if with_unused { ", but for what is predicted" } else { "" }
    )];
    let metadata = json!({"name": name, "namespace": workload.namespace});
    let document = match kind {
        Kind::NetworkPolicy => network_policy(snapshot, metadata, labels, with_unused, &mut remarks)?,
        Kind::Kubearmor => kubearmor(snapshot, metadata, labels, with_unused, &mut remarks)?,
        Kind::Rule | Kind::Overlay => bail!("a rule or overlay is drafted of alerts, by the bridge"),
    };
    Ok(Draft { text: serde_yaml_ng::to_string(&document)?, remarks })
}

fn view<'a>(snapshot: &'a Snapshot, dimension: &str) -> anyhow::Result<&'a View> {
    snapshot.dimensions.get(dimension).with_context(|| format!("the bridge says nothing of {dimension}"))
}

/// What was done that was expected, or that nobody is alerted of; with what is predicted and was never seen, where that is wanted.
fn allowed(view: &View, with_unused: bool) -> BTreeSet<&str> {
    let seen = view.confirmed.iter().chain(&view.not_predicted).map(|seen| seen.item.as_str());
    let unused = view.never_used.iter().filter(|_| with_unused).map(|one| one.item.as_str());
    seen.chain(unused).collect()
}

fn network_policy(
    snapshot: &Snapshot,
    metadata: Value,
    labels: Map<String, Value>,
    with_unused: bool,
    remarks: &mut Vec<String>,
) -> anyhow::Result<Value> {
    let (listen, connect) = (view(snapshot, "listen")?, view(snapshot, "connect")?);
    if !listen.is_observed && !connect.is_observed {
        bail!("no sensor told of ports or peers of this workload: a policy of nothing would cut it off");
    }
    let ports: Vec<Value> = allowed(listen, with_unused).into_iter().filter_map(port).collect();
    // Peers by port: names and private addresses are not what a NetworkPolicy can choose by.
    let (mut anywhere, mut blocks) = (BTreeSet::new(), BTreeMap::<String, BTreeSet<u16>>::new());
    for item in allowed(connect, with_unused) {
        let Some((host, port)) = item.rsplit_once(':') else {
            remarks.push(format!("{item} may be called at any port, which the draft does not allow"));
            continue;
        };
        let number: Option<u16> = port.rsplit('/').next().and_then(|number| number.parse().ok());
        match (host.trim_matches(['[', ']']).parse::<std::net::IpAddr>(), number) {
            (Ok(address), Some(port)) => {
                let length = if address.is_ipv4() { 32 } else { 128 };
                blocks.entry(format!("{address}/{length}")).or_default().insert(port);
            }
            (Err(_), Some(port)) => _ = anywhere.insert(port),
            (_, None) => remarks.push(format!("{item} is no peer that a policy can name")),
        }
    }
    let tcp =
        |ports: &BTreeSet<u16>| ports.iter().map(|port| json!({"protocol": "TCP", "port": port})).collect::<Vec<_>>();
    let mut egress = vec![json!({"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]})];
    if !anywhere.is_empty() {
        egress.push(json!({"ports": tcp(&anywhere)}));
    }
    for (block, ports) in &blocks {
        egress.push(json!({"to": [{"ipBlock": {"cidr": block}}], "ports": tcp(ports)}));
    }
    for alert in listen.alerts.iter().chain(&connect.alerts) {
        remarks.push(format!("would refuse: {} ({}, alert {})", alert.subject, alert.message, alert.alert));
    }
    Ok(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            "podSelector": {"matchLabels": labels},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": if ports.is_empty() { json!([]) } else { json!([{"ports": ports}]) },
            "egress": egress,
        },
    }))
}

fn port(item: &str) -> Option<Value> {
    let (protocol, port) = item.split_once('/')?;
    let port: u16 = port.parse().ok()?;
    Some(json!({"protocol": protocol.to_uppercase(), "port": port}))
}

fn kubearmor(
    snapshot: &Snapshot,
    metadata: Value,
    labels: Map<String, Value>,
    with_unused: bool,
    remarks: &mut Vec<String>,
) -> anyhow::Result<Value> {
    let exec = view(snapshot, "exec")?;
    if !exec.is_observed {
        bail!("no sensor told of programs of this workload: a policy of nothing would stop it");
    }
    let programs = allowed(exec, with_unused);
    for alert in &exec.alerts {
        // A step that was not predicted may lead to a program that is expected elsewhere.
        let is_refused = !programs.contains(alert.subject.split(" as ").next().unwrap_or_default());
        let verb = if is_refused { "would refuse" } else { "would not refuse" };
        remarks.push(format!("{verb}: {} ({}, alert {})", alert.subject, alert.message, alert.alert));
    }
    let paths: Vec<Value> = programs.into_iter().map(|path| json!({"path": path})).collect();
    Ok(json!({
        "apiVersion": "security.kubearmor.com/v1",
        "kind": "KubeArmorPolicy",
        "metadata": metadata,
        "spec": {
            "selector": {"matchLabels": labels},
            "process": {"matchPaths": paths},
            "action": "Allow",
        },
    }))
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let seen =
            |item: &str| json!({"item": item, "firstSeen": "2026-01-01T00:00:00Z", "lastSeen": "2026-01-02T00:00:00Z"});
        let view = |confirmed: &[&str], unused: &[&str], strange: &[&str], alerts: Value| {
            json!({"completeness": {"state": "partial", "reason": "a test"}, "isObserved": true,
                "confirmed": confirmed.iter().map(|item| seen(item)).collect::<Vec<_>>(),
                "neverUsed": unused.iter().map(|item| json!({"item": item, "confidence": "likely"})).collect::<Vec<_>>(),
                "notPredicted": strange.iter().map(|item| seen(item)).collect::<Vec<_>>(), "alerts": alerts})
        };
        let alert = |class: &str, subject: &str| {
            json!([{"alert": "a1", "class": class, "subject": subject, "message": "a message", "state": "open", "risk": 0.8, "count": 1,
                "lastSeen": "2026-01-02T00:00:00Z"}])
        };
        let json = json!({"id": "w", "cluster": "c", "namespace": "shop", "owner": "Deployment/web", "container": "app", "digest": "sha256:aa",
            "dna": "sha256:bb", "starts": 3, "firstSeen": "2026-01-01T00:00:00Z", "lastSeen": "2026-01-02T00:00:00Z", "dimensions": {
            "exec": view(&["/usr/sbin/served"], &["/usr/bin/helper"], &[], alert("program-not-in-image", "/tmp/x")),
            "listen": view(&["tcp/80"], &["tcp/443"], &[], alert("listen", "tcp/4444")),
            "connect": view(&["db:5432"], &[], &["private:tcp/6379", "192.0.2.7:443"], json!([])),
        }});
        serde_json::from_value(json).expect("a snapshot")
    }

    fn made(kind: Kind, with_unused: bool) -> (Value, String) {
        let labels = [("app".to_owned(), "web".to_owned())];
        let draft = draft(kind, &snapshot(), &labels, with_unused).expect("a draft");
        (serde_yaml_ng::from_str(&draft.text).expect("YAML"), draft.remarks.join("\n"))
    }

    #[test]
    fn a_network_policy_lets_through_what_was_seen() {
        let (policy, remarks) = made(Kind::NetworkPolicy, false);
        assert_eq!(policy["spec"]["ingress"], json!([{"ports": [{"protocol": "TCP", "port": 80}]}]));
        assert_eq!(
            policy["spec"]["egress"][1],
            json!({"ports": [{"protocol": "TCP", "port": 5432}, {"protocol": "TCP", "port": 6379}]})
        );
        assert_eq!(policy["spec"]["egress"][2]["to"], json!([{"ipBlock": {"cidr": "192.0.2.7/32"}}]));
        assert!(remarks.contains("would refuse: tcp/4444"), "{remarks}");
        let (policy, _) = made(Kind::NetworkPolicy, true);
        assert_eq!(policy["spec"]["ingress"][0]["ports"][0]["port"], 443);
    }

    #[test]
    fn a_kubearmor_policy_lets_run_what_ran() {
        let (policy, remarks) = made(Kind::Kubearmor, false);
        assert_eq!(policy["spec"]["process"]["matchPaths"], json!([{"path": "/usr/sbin/served"}]));
        assert_eq!(policy["spec"]["selector"]["matchLabels"], json!({"app": "web"}));
        assert!(remarks.contains("would refuse: /tmp/x"), "{remarks}");
    }

    #[test]
    fn without_labels_there_is_no_draft() {
        let error = draft(Kind::Kubearmor, &snapshot(), &[], false).expect_err("a refusal").to_string();
        assert!(error.contains("--label"), "{error}");
        assert!(label("app").is_err());
    }
}
