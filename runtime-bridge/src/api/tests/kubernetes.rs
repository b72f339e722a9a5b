//! Callers that a cluster knows, by a fake of its API server.

use std::sync::Mutex;

use axum::http::{Request, Response};
use kube::{Client, client::Body};

use super::*;
use crate::api::Kubernetes;

/// What the API server was asked.
type Asked = Arc<Mutex<Vec<String>>>;

/// An API server that knows `eve`, who may read in `shop` and `bank` and change in `shop`, and `root`, who may do anything.
fn api_server() -> (Client, Asked) {
    let asked = Asked::default();
    let log = Arc::clone(&asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        let log = Arc::clone(&log);
        async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect_bytes().await.expect("a body");
            let mut review: Value = serde_json::from_slice(&body).expect("JSON");
            let spec = review["spec"].clone();
            let mut status = 201;
            if path.ends_with("/tokenreviews") {
                log.lock().expect("a log").push("token".to_owned());
                review["status"] = match spec["token"].as_str() {
                    Some("eve-token") => {
                        json!({ "authenticated": true, "user": { "username": "eve", "groups": ["g"] } })
                    }
                    Some("root-token") => json!({ "authenticated": true, "user": { "username": "root" } }),
                    Some("broken-token") => {
                        status = 500;
                        json!({})
                    }
                    _ => json!({ "authenticated": false, "user": { "username": "nobody" } }),
                };
            } else {
                assert!(path.ends_with("/subjectaccessreviews"), "{path}");
                let what = &spec["resourceAttributes"];
                assert_eq!((&what["group"], &what["resource"]), (&json!("mayfly.dev"), &json!("alerts")));
                let (verb, namespace) = (what["verb"].as_str().expect("a verb"), what["namespace"].as_str());
                log.lock().expect("a log").push(format!("{verb} {}", namespace.unwrap_or("*")));
                let allowed = match spec["user"].as_str() {
                    Some("root") => true,
                    Some("eve") => {
                        assert_eq!(spec["groups"], json!(["g"]));
                        matches!((verb, namespace), ("get", Some("shop" | "bank")) | ("update", Some("shop")))
                    }
                    _ => false,
                };
                review["status"] = json!({ "allowed": allowed });
            }
            let answer = Response::builder().status(status).body(Body::from(review.to_string().into_bytes()));
            Ok::<_, std::io::Error>(answer.expect("an answer"))
        }
    });
    (Client::new(service, "default"), asked)
}

#[tokio::test]
async fn the_roles_of_a_cluster_are_those_of_the_bridge() {
    let (ledger, folder) = ledger().await;
    let mut west = alert("shop", "tcp/4", 0.5, 4);
    (west.place.cluster, west.id) = ("west".into(), "w".into());
    let alerts = [alert("shop", "tcp/1", 0.5, 1), alert("bank", "tcp/2", 0.5, 2), alert("mine", "tcp/3", 0.5, 3), west];
    commit(&ledger, &alerts, &[]).await;
    let (client, asked) = api_server();
    let cluster = Kubernetes::new(client, "east".to_owned(), ledger.clone());
    let who: Vec<Arc<dyn Authenticate>> = vec![Arc::new(people()), Arc::new(cluster)];
    let server = serve(Api::new(ledger, who, Arc::new(sensors)), folder, None).await;
    let taken = || {
        let mut asked: Vec<String> = asked.lock().expect("a log").drain(..).collect();
        asked.sort();
        asked
    };

    assert_eq!(server.get("/alerts", READER).await.ids().len(), 4);
    assert!(taken().is_empty(), "who is known by configuration is not asked for");
    assert_eq!(server.get("/alerts", "eve-token").await.ids(), ["tcp/1", "tcp/2"]);
    assert_eq!(taken(), ["get *", "get bank", "get mine", "get shop", "token"]);
    assert_eq!(server.get("/alerts?namespace=shop", "eve-token").await.ids(), ["tcp/1"]);
    assert!(taken().is_empty(), "it holds for a minute");
    let why = json!({ "reason": "x" });
    assert_eq!(server.act(&alerts[0].id, "acknowledge", "eve-token", why.clone()).await.status, 200);
    assert!(taken().contains(&"update shop".to_owned()));
    server.act(&alerts[1].id, "acknowledge", "eve-token", why.clone()).await.problem(403);
    server.act(&alerts[2].id, "acknowledge", "eve-token", why.clone()).await.problem(404);
    let trail = server.get(&format!("/alerts/{}", alerts[0].id), "eve-token").await.json();
    assert_eq!(trail["audit"][0]["actor"], "eve");

    assert_eq!(server.get("/alerts", "root-token").await.ids(), ["tcp/1", "tcp/2", "tcp/3"], "of its own cluster");
    assert_eq!(server.act(&alerts[2].id, "resolve", "root-token", why.clone()).await.status, 200);
    server.act("w", "resolve", "root-token", why).await.problem(404);
    taken();
    server.get("/alerts", "unknown-token").await.problem(401);
    server.get("/alerts", "unknown-token").await.problem(401);
    assert_eq!(taken(), ["token"], "nor is a wrong token asked for each time");
    let failed = server.get("/alerts", "broken-token").await;
    assert!(failed.problem(503).contains("who you are"));
    assert!(!failed.text.contains("broken-token"));
    assert_eq!(server.get("/alerts", "broken-token").await.status, 503);
    assert_eq!(taken(), ["token", "token"], "a failure is not kept");
}
