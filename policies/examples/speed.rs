//! How long a decision takes when everything is known: `cargo run --release -p policies --example speed`.

use std::time::Instant;

use policies::{Review, cases, decide, load, shipped};

#[expect(clippy::print_stdout, reason = "it is what it is for")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let shipped = shipped();
    let sets = [("restricted", vec![shipped[1]]), ("baseline", vec![shipped[0]]), ("all four", shipped.to_vec())];
    for (name, files) in sets {
        let rules = load(files).map_err(|errors| errors.first().map(ToString::to_string).unwrap_or_default())?;
        for count in [1, 3, 5] {
            let review = review(&rules, count)?;
            let now = jiff::Timestamp::UNIX_EPOCH;
            let rounds = 2_000;
            (0..200).for_each(|_| drop(decide(&review, &rules, now)));
            let start = Instant::now();
            let denied = (0..rounds).filter(|_| !decide(&review, &rules, now).is_allowed()).count();
            let each = start.elapsed() / rounds;
            println!("{name}, {count} containers: {each:?} a decision, {denied} denied");
        }
    }
    Ok(())
}

/// A pod as they are: environment, mounts, probes, resources; and of each image an expectation of usual size.
fn review(rules: &policies::Rules, count: usize) -> Result<Review, Box<dyn std::error::Error>> {
    let containers: Vec<_> = (0..count)
        .map(|at| {
            let env: Vec<_> = (0..20).map(|at| serde_json::json!({"name": format!("NAME_{at}"), "value": "a value"})).collect();
            serde_json::json!({"name": format!("c{at}"), "image": format!("registry.example.org/team/app{at}:1.2.3"), "env": env,
                "ports": [{"containerPort": 8080}], "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                "livenessProbe": {"httpGet": {"path": "/", "port": 8080}}, "volumeMounts": [{"name": "v", "mountPath": "/data"}],
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}})
        })
        .collect();
    let evidence = serde_json::json!([{"kind": "config", "key": "Entrypoint"}, {"kind": "binary", "path": "/usr/bin/app", "offset": 1234}]);
    let item = |name: String| serde_json::json!({"name": name, "confidence": "possible", "evidence": evidence});
    let syscalls: Vec<_> = (0..180).map(|at| item(format!("call{at}"))).collect();
    let exec: Vec<_> = (0..20)
        .map(|at| serde_json::json!({"path": format!("/usr/bin/p{at}"), "confidence": "likely", "evidence": evidence}))
        .collect();
    let findings: Vec<_> = (0..4).map(|at| serde_json::json!({"code": "port-not-declared", "effect": "none", "subject": at.to_string(), "message": "a port"})).collect();
    let image = serde_json::json!({"findings": findings, "expects": {"behavior": {"syscalls": syscalls, "exec": exec,
        "capabilities": [item("CAP_NET_BIND_SERVICE".to_owned()), item("CAP_CHOWN".to_owned())]}}});
    let images: serde_json::Map<_, _> = (0..count).map(|at| (format!("c{at}"), image.clone())).collect();
    let case = serde_json::json!({"name": "speed", "images": images, "expect": {"verdict": "Allow"}, "pod": {
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": containers, "volumes": [{"name": "v", "emptyDir": {}}]}});
    Ok(cases::review(rules, &serde_json::from_value(case)?)?)
}
