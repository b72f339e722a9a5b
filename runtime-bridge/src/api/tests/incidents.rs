//! Incidents, as callers see them and act on them.

use super::*;
use crate::Class;

/// An alert of another tactic.
fn reads(namespace: &str, minutes: i64) -> alert::Alert {
    let mut alert = alert(namespace, "/run/secrets/token", 0.6, minutes);
    (alert.class, alert.technique) = (Class::SensitiveRead, "T1528".into());
    alert.users.insert("alice".to_owned());
    alert
}

#[tokio::test]
async fn alerts_of_a_workload_are_an_incident_that_any_of_them_names() {
    let server = server().await;
    let (first, second) = (reads("shop", 9), alert("shop", "tcp/1", 0.9, 5));
    let revisions = server.commit(&[second.clone(), first.clone(), alert("bank", "tcp/2", 0.3, 1)], &[]).await;
    server.api.incidents.reached(*revisions.last().expect("three"), Duration::from_secs(5)).await;
    let list = server.get("/incidents", READER).await.json();
    let told: Vec<_> = list["incidents"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|incident| (incident["id"].as_str().expect("an id").to_owned(), incident["alerts"].clone()))
        .collect();
    assert_eq!(told.len(), 2);
    assert_eq!(told[0], (first.id.clone(), json!(2)), "the likeliest first, named by what it began with");
    for (filter, count) in [
        ("?minAlerts=2", 1),
        ("?namespace=bank", 1),
        ("?minRisk=0.95", 1),
        ("?cluster=west", 0),
        ("?state=resolved", 0),
        ("?limit=1", 1),
    ] {
        let list = server.get(&format!("/incidents{filter}"), READER).await.json();
        assert_eq!(list["incidents"].as_array().map(Vec::len), Some(count), "{filter}");
    }
    let page = server.get("/incidents?limit=1", READER).await.json();
    let cursor = page["next"].as_str().expect("another page");
    let page = server.get(&format!("/incidents?limit=1&cursor={cursor}"), READER).await.json();
    assert_eq!(page["incidents"][0]["workloads"], json!(["east/bank/Deployment/web"]));
    assert_eq!(page.get("next"), None);

    let whole = server.get(&format!("/incidents/{}", second.id), SHOP).await.json();
    let subjects: Vec<_> = whole["chapters"].as_array().expect("chapters").iter().map(|one| &one["subject"]).collect();
    assert_eq!(subjects, [&json!("/run/secrets/token"), &json!("tcp/1")]);
    let stages: Vec<_> = whole["stages"].as_object().expect("stages").keys().collect();
    assert_eq!(stages, ["command-and-control", "credential-access"]);
    assert_eq!((&whole["id"], &whole["root"]["users"]), (&json!(first.id), &json!(["alice"])));
    assert!(whole["trees"][0]["branches"][0]["deeds"].is_array(), "{whole}");
    assert_eq!(whole["pods"], json!(["web-1"]));
    // Of others' there is nothing.
    assert_eq!(server.get("/incidents", SHOP_READER).await.json()["incidents"].as_array().map(Vec::len), Some(1));
    server.get(&format!("/incidents/{}", told[1].0), SHOP_READER).await.problem(404);
    server.get("/incidents/none", ADMIN).await.problem(404);
    server.get("/incidents?minRisk=2", ADMIN).await.problem(400);
}

#[tokio::test]
async fn what_is_done_to_an_incident_is_done_to_its_alerts() {
    let server = server().await;
    let (first, second) = (reads("shop", 9), alert("shop", "tcp/1", 0.9, 5));
    let revisions = server.commit(&[second.clone(), first.clone()], &[]).await;
    server.api.incidents.reached(*revisions.last().expect("two"), Duration::from_secs(5)).await;
    let act = async |act: &str, token: &str| {
        let path = format!("/incidents/{}/{act}", second.id);
        server.ask("POST", &path, token, Some(json!({ "reason": "looked at" }))).await
    };
    act("resolve", SHOP_READER).await.problem(403);
    act("annul", SHOP).await.problem(404);
    for (what, state, count) in [
        ("acknowledge", "acknowledged", 2),
        ("acknowledge", "acknowledged", 0),
        ("resolve", "resolved", 2),
        ("reopen", "open", 2),
    ] {
        let done = act(what, SHOP).await;
        assert_eq!(done.json()["alerts"].as_array().map(Vec::len), Some(count), "{what}: {}", done.text);
        let whole = server.get(&format!("/incidents/{}", first.id), ADMIN).await.json();
        assert_eq!(whole["state"], state, "{what}");
        // What is resolved weighs nothing.
        assert_eq!(whole["risk"].as_f64() == Some(0.0), state == "resolved");
    }
    let trail = server.get(&format!("/alerts/{}", first.id), ADMIN).await.json();
    assert_eq!(trail["audit"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn evidence_is_one_file_that_can_be_verified_without_the_bridge() {
    let server = server().await;
    let (first, second) = (reads("shop", 9), alert("shop", "tcp/1", 0.9, 5));
    let revisions = server.commit(&[second.clone(), first.clone(), alert("bank", "tcp/2", 0.3, 1)], &[]).await;
    server.api.incidents.reached(*revisions.last().expect("three"), Duration::from_secs(5)).await;
    server.act(&first.id, "annotate", ADMIN, json!({ "reason": "looks bad" })).await;
    let url = format!("http://{}/api/v1/incidents/{}/evidence", server.address, second.id);
    let asked = server.client.get(&url).header("authorization", format!("Bearer {SHOP_READER}"));
    let response = asked.send().await.expect("an answer");
    assert_eq!(response.headers()["content-type"], "application/gzip");
    assert!(response.headers()["repr-digest"].to_str().expect("text").starts_with("sha-256=:"));
    let archive = response.bytes().await.expect("a body");
    let manifest = crate::evidence::verify(&*archive).expect("as it was made");
    assert_eq!((manifest.incident.as_str(), manifest.made_for.as_str()), (&*first.id, "shop-reader"));
    let mut paths: Vec<_> = manifest.files.iter().map(|file| file.path.as_str()).collect();
    paths.retain(|path| !path.starts_with("images/"));
    let alerts = [format!("alerts/{}.json", first.id), format!("alerts/{}.json", second.id)];
    let mut wanted = vec!["blind.json", "incident.json", "trees.json", &alerts[0], &alerts[1]];
    wanted.sort_unstable();
    assert_eq!(paths, wanted);
    server.get("/incidents/none/evidence", ADMIN).await.problem(404);
}
