//! Drafts, and what would become of stored alerts.

use super::{workloads::workload, *};

async fn shop() -> (Server, String) {
    let server = server().await;
    let dna = crate::compare::tests::dna();
    let json = dna.to_canonical_json().expect("JSON");
    let name = server.api.ledger.put_dna(&dna, json, Timestamp::now()).await.expect("kept");
    let mine = workload("shop", &name);
    server.api.ledger.add_used(std::slice::from_ref(&mine), &[]).await.expect("kept");
    let mut others = alert("shop", "tcp/7", 0.4, 1);
    others.place.container = "beside".into();
    others.id = "others".into();
    let alerts = [
        alert("shop", "tcp/9000", 0.6, 3),
        alert("shop", "tcp/4444", 0.9, 2),
        others,
        alert("bank", "tcp/9000", 0.6, 1),
    ];
    server.commit(&alerts, &[]).await;
    (server, mine.id)
}

fn soon(hours: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(hours)
}

/// Alerts of each part: silenced, in part, changed, staying.
fn parts(replayed: &Value) -> [u64; 4] {
    ["silenced", "partly", "changed", "stays"].map(|part| replayed[part]["alerts"].as_u64().expect("a count"))
}

#[tokio::test]
async fn a_rule_is_drafted_and_held_against_what_is_stored() {
    let (server, id) = shop().await;
    let draft =
        async |token: &str, body: Value| server.ask("POST", &format!("/workloads/{id}/draft"), token, Some(body)).await;
    let body = json!({"kind": "rule", "reason": "a debug port", "expiresAt": soon(24)});
    let made = draft(SHOP_READER, body.clone()).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let made = made.json();
    assert_eq!(parts(&made["replayed"]), [1, 0, 0, 2], "{made}");
    assert_eq!(made["replayed"]["silenced"]["samples"][0]["subject"], "tcp/9000");
    assert_eq!((&made["leftOut"][0]["subject"], made["rules"].as_array().map(Vec::len)), (&json!("tcp/4444"), Some(1)));
    // The same, given back as a file.
    let asked = json!({"rules": made["rules"][0].to_string(), "namespace": "shop"});
    let again = server.ask("POST", "/replay", READER, Some(asked)).await.json();
    assert_eq!(parts(&again), [1, 0, 0, 2], "{again}");

    let named = server.get("/alerts?sort=risk&limit=1", ADMIN).await.json()["alerts"][0]["id"].clone();
    let with = |name: &str, value: Value| {
        let mut body = body.clone();
        body[name] = value;
        body
    };
    let made = draft(SHOP_READER, with("alerts", json!([named]))).await.json();
    assert_eq!(made["replayed"]["silenced"]["samples"][0]["subject"], "tcp/4444");
    for (body, status, word) in [
        (with("alerts", json!(["none"])), 409, "no alert none"),
        (with("reason", json!(" ")), 400, "reason"),
        (with("reason", json!("x".repeat(513))), 400, "513 bytes"),
        (with("expiresAt", json!(soon(-1))), 400, "expiresAt"),
        (with("expiresAt", json!(soon(24 * 400))), 400, "expiresAt"),
        (with("kind", json!("profile")), 400, "profile"),
    ] {
        let why = draft(SHOP, body).await.problem(status);
        assert!(why.contains(word), "{why}");
    }
    server.ask("POST", "/workloads/none/draft", ADMIN, Some(body)).await.problem(404);
}

#[tokio::test]
async fn overlays_are_drafted_by_who_may_accept() {
    let (server, id) = shop().await;
    let path = format!("/workloads/{id}/draft");
    let body = json!({"kind": "overlay", "reason": "a debug port", "expiresAt": soon(24)});
    server.ask("POST", &path, SHOP_READER, Some(body.clone())).await.problem(403);
    let made = server.ask("POST", &path, SHOP, Some(body)).await.json();
    let predicate = &made["overlays"][0]["predicate"];
    assert_eq!(
        (&predicate["subject"], &predicate["actor"], &predicate["scope"]["container"]),
        (&json!("tcp/9000"), &json!("shop-writer"), &json!("web"))
    );
    assert_eq!(parts(&made["replayed"]), [1, 0, 0, 2], "{made}");
    let again = server.ask("POST", "/replay", SHOP_READER, Some(json!({"overlays": made["overlays"]}))).await.json();
    assert_eq!(parts(&again), [1, 0, 0, 2], "{again}");
    assert_eq!(server.api.ledger.overlays().await.expect("read"), [], "nothing is saved");
}

#[tokio::test]
async fn rules_are_held_against_what_who_asks_may_read() {
    let (server, _) = shop().await;
    let rule = |name: &str, spec: &str| {
        format!("apiVersion: mayfly.dev/v1alpha1\nkind: ClusterRuntimeRule\nmetadata: {{name: {name}}}\nspec: {spec}\n")
    };
    let raise =
        rule("raise", "{when: [{name: it, expression: \"dna.start.argv.size() >= 0\"}], then: {severity: Critical}}");
    let replay = async |token: &str, body: Value| server.ask("POST", "/replay", token, Some(body)).await;
    let all = replay(READER, json!({"rules": raise})).await.json();
    // The DNA of one container's image is known; of the others the rule fails, and says so.
    assert_eq!((parts(&all), &all["events"], &all["isCut"]), ([0, 0, 4, 0], &json!(4), &json!(false)), "{all}");
    let samples = all["changed"]["samples"].as_array().expect("samples");
    let is_raised = |subject: &str, namespace: &str| {
        let one = samples.iter().find(|one| one["subject"] == subject && one["namespace"] == namespace).expect("one");
        (one["newRisk"].as_f64(), one["told"][0].as_str().expect("told").contains("cannot be evaluated"))
    };
    assert_eq!(is_raised("tcp/9000", "shop"), (Some(0.9), false));
    assert_eq!(is_raised("tcp/9000", "bank"), (None, true));
    let mine = replay(SHOP_READER, json!({"rules": raise})).await.json();
    assert_eq!(parts(&mine), [0, 0, 3, 0], "{mine}");
    assert_eq!(parts(&replay(SHOP_READER, json!({"rules": raise, "namespace": "bank"})).await.json()), [0; 4]);
    let owner = json!({"rules": raise, "owner": "Deployment/other"});
    assert_eq!(parts(&replay(READER, owner).await.json()), [0; 4]);
    let since = json!({"rules": raise, "since": Timestamp::now() - SignedDuration::from_secs(90)});
    assert_eq!(parts(&replay(READER, since).await.json()), [0, 0, 2, 0]);

    let wrong = rule("wrong", "{when: [{name: it, expression: \"deviation.sort == ''\"}], then: {severity: Low}}");
    let image =
        "apiVersion: mayfly.dev/v1alpha1\nkind: ClusterImageRule\nmetadata: {name: x}\nspec: {tags: RequireDigest}\n";
    let many: String = (0..65).map(|n| format!("---\n{}", rule(&format!("r{n}"), "{then: {severity: Low}}"))).collect();
    for (body, status, word) in [
        (json!({"rules": wrong}), 400, "no field `sort`"),
        (json!({"rules": image}), 400, "0 rules of run time"),
        (json!({"rules": many}), 400, "65 rules"),
        (json!({}), 400, "0 rules"),
        (json!({"overlays": [{"predicateType": "x"}]}), 400, "no overlay"),
        (json!({"rules": "x".repeat(300_000)}), 413, "larger than 262144 bytes"),
    ] {
        let why = replay(READER, body).await.problem(status);
        assert!(why.contains(word), "{why}");
    }
}
