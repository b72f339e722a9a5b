//! The API over real HTTP, with an SQLite ledger.

#![expect(clippy::indexing_slicing, reason = "a member that is missing fails its test")]

mod drafts;
mod incidents;
mod kubernetes;
mod overlays;
mod streams;
mod workloads;

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use axum::Extension;
use dna::{Act, Activity, Digest, Outcome, Process, SeenContainer};
use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use lineage::{
    Binding, BlindRow, Checkpoint, Committed, Decision, DecisionImage, Document, Ledger, Origin, SubjectDna, Verdict,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Api, SensorHealth,
    auth::{Access, Authenticate, Caller, Credentials, Fixed, Namespaces, Unavailable, sha256},
    openapi,
};
use crate::{
    Class, Deviation,
    alert::{self, Place},
    door::ClientName,
    outbox::LedgerOutbox,
    sinks::{Outbox as _, Sinks},
    stored,
};

/// Tokens of the server that tests ask.
const ADMIN: &str = "admin-token-4rT9";
const READER: &str = "reader-token-8kQ2";
const SHOP: &str = "shop-token-1zX7";
const SHOP_READER: &str = "shop-reader-token-5mB3";

struct Server {
    api: Api,
    address: SocketAddr,
    client: reqwest::Client,
    folder: tempfile::TempDir,
}

struct Answer {
    status: u16,
    kind: String,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The detail of a problem, which says what to do too.
    fn problem(&self, status: u16) -> String {
        assert_eq!((self.status, &*self.kind), (status, "application/problem+json"), "{}", self.text);
        let json = self.json();
        assert_eq!(json["status"], status);
        assert!(["title", "detail", "advice"].iter().all(|name| json[name].as_str().is_some_and(|s| !s.is_empty())));
        json["detail"].as_str().expect("a detail").to_owned()
    }

    fn ids(&self) -> Vec<String> {
        assert_eq!(self.status, 200, "{}", self.text);
        let json = self.json();
        let alerts = json["alerts"].as_array().expect("alerts").iter();
        alerts.map(|alert| alert["subject"].as_str().expect("a subject").to_owned()).collect()
    }
}

fn people() -> Fixed {
    let caller = |name: &str, cluster: Option<&str>, read, write| Caller {
        name: name.to_owned(),
        cluster: cluster.map(str::to_owned),
        read,
        write,
    };
    let shop = || Namespaces::Only(["shop".to_owned()].into());
    Fixed {
        tokens: [
            (ADMIN, caller("admin", None, Namespaces::All, Namespaces::All)),
            (READER, caller("reader", None, Namespaces::All, Namespaces::none())),
            (SHOP, caller("shop-writer", Some("east"), shop(), shop())),
            (SHOP_READER, caller("shop-reader", Some("east"), shop(), Namespaces::none())),
        ]
        .map(|(token, caller)| (sha256(token), caller))
        .into(),
        peers: [("ops".to_owned(), caller("ops", None, Namespaces::All, Namespaces::All))].into(),
    }
}

fn sensors() -> Vec<SensorHealth> {
    let health = |cluster: &str, name: &str| {
        let mut health = SensorHealth::new(cluster, name, "falco");
        (health.last_event, health.events, health.malformed) = (Some(Timestamp::UNIX_EPOCH), 7, 1);
        health.pack = Some(1);
        health.keep(Timestamp::UNIX_EPOCH, "no JSON object", b"<html>");
        health
    };
    vec![health("west", "b"), health("east", "a")]
}

async fn ledger() -> (Ledger, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", folder.path().join("ledger.db").display());
    (Ledger::open(&url).await.expect("a ledger"), folder)
}

async fn server() -> Server {
    let (ledger, folder) = ledger().await;
    let who: Vec<Arc<dyn Authenticate>> = vec![Arc::new(people())];
    serve(Api::new(ledger, who, Arc::new(sensors)), folder, None).await
}

async fn serve(api: Api, folder: tempfile::TempDir, peer: Option<ClientName>) -> Server {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    // As whoever serves it says it.
    let router = api.router().layer(Extension(peer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let (incidents, ledger, changed) = (api.incidents.clone(), api.ledger.clone(), api.when_changed());
    tokio::spawn(incidents.follow(ledger, Sinks::default(), changed, std::future::pending()));
    Server { api, address, client: reqwest::Client::new(), folder }
}

impl Server {
    async fn ask(&self, method: &str, path: &str, token: &str, body: Option<Value>) -> Answer {
        let method = method.parse().expect("a method");
        let mut request = self.client.request(method, format!("http://{}/api/v1{path}", self.address));
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        answer(request).await
    }

    async fn get(&self, path: &str, token: &str) -> Answer {
        self.ask("GET", path, token, None).await
    }

    async fn act(&self, id: &str, act: &str, token: &str, body: Value) -> Answer {
        self.ask("POST", &format!("/alerts/{id}/{act}"), token, Some(body)).await
    }

    /// Writes alerts, as the bridge does.
    async fn commit(&self, alerts: &[alert::Alert], blind: &[BlindRow]) -> Vec<u64> {
        commit(&self.api.ledger, alerts, blind).await
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    let kind = response.headers().get("content-type").map(|kind| kind.to_str().expect("text").to_owned());
    assert_eq!(response.headers()["cache-control"], "no-store");
    Answer {
        status: response.status().as_u16(),
        kind: kind.unwrap_or_default(),
        text: response.text().await.expect("a body"),
    }
}

async fn commit(ledger: &Ledger, alerts: &[alert::Alert], blind: &[BlindRow]) -> Vec<u64> {
    let rows: Vec<_> = alerts.iter().map(|alert| stored::row(alert, 0).expect("packed")).collect();
    let checkpoint = Checkpoint { bridge: "b".into(), epoch: 0, offset: 1, judged: Vec::new(), at: Timestamp::now() };
    match ledger.commit(&checkpoint, &rows, blind, &[]).await.expect("committed") {
        Committed::Done(revisions) => revisions,
        other => panic!("{other:?}"),
    }
}

/// An alert of something seen so many minutes ago.
fn alert(namespace: &str, subject: &str, risk: f64, minutes: i64) -> alert::Alert {
    let place = Place {
        cluster: "east".into(),
        namespace: namespace.into(),
        owner: "Deployment/web".into(),
        container: "web".into(),
        image: "registry.example/web:1".into(),
        digest: digest("web").to_string(),
    };
    let deviation = Deviation {
        class: Class::Listen,
        subject: subject.into(),
        message: format!("listens on {subject}, which the image does not"),
        after: None,
        layer: None,
        package: None,
        risk,
        drivers: Vec::new(),
        technique: "T1571".into(),
        blocked: false,
    };
    let activity = Activity {
        at: Timestamp::now() - SignedDuration::from_mins(minutes),
        sensor: "falco".into(),
        node: Some("n1".into()),
        container: SeenContainer::default(),
        process: Process::default(),
        ancestors: Vec::new(),
        act: Act::Exec { file: Some("/bin/nc".into()) },
        outcome: Outcome::default(),
        rule: None,
    };
    let mut alert = None;
    alert::collate(&mut alert, &place, "web-1", &deviation, &activity, std::iter::empty());
    alert.expect("an alert")
}

fn digest(of: &str) -> Digest {
    Digest::sha256(of.as_bytes())
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn alerts_are_filtered_and_sorted() {
    let server = server().await;
    let mut alerts: Vec<_> =
        (0..6).map(|n| alert("shop", &format!("tcp/{n}"), f64::from(n) / 10.0, n.into())).collect();
    alerts[1].place.cluster = "west".into();
    alerts[2].place.owner = "Job/x".into();
    alerts[3].place.digest = digest("other").to_string();
    alerts[4].class = Class::Write;
    alerts[5].state = alert::State::Resolved;
    alerts[5].count = 9;
    alerts[0].place.namespace = String::new();
    for (n, alert) in alerts.iter_mut().enumerate() {
        alert.id = format!("a{n}");
    }
    server.commit(&alerts, &[]).await;
    let digest = format!("digest={}", digest("other"));
    let since = format!("since={}", Timestamp::now() - SignedDuration::from_secs(150));
    for (query, expected) in [
        ("", &["tcp/0", "tcp/1", "tcp/2", "tcp/3", "tcp/4", "tcp/5"] as &[_]),
        ("cluster=west", &["tcp/1"]),
        ("cluster=north", &[]),
        ("namespace=bank", &[]),
        ("owner=Job/x", &["tcp/2"]),
        (&digest, &["tcp/3"]),
        ("class=write", &["tcp/4"]),
        ("state=resolved", &["tcp/5"]),
        ("state=open&minRisk=0.3", &["tcp/3", "tcp/4"]),
        ("state=suppressed", &[]),
        (&since, &["tcp/0", "tcp/1", "tcp/2"]),
        ("sort=risk&limit=2", &["tcp/5", "tcp/4"]),
        ("sort=risk&order=asc&limit=2", &["tcp/0", "tcp/1"]),
        ("sort=count&limit=1", &["tcp/5"]),
        ("sort=firstSeen&order=asc&limit=1", &["tcp/5"]),
    ] {
        assert_eq!(server.get(&format!("/alerts?{query}"), ADMIN).await.ids(), expected, "{query}");
    }
    let whole = server.get("/alerts/a4", ADMIN).await.json();
    assert_eq!(
        (&whole["class"], &whole["owner"], &whole["revision"], &whole["state"]),
        (&json!("write"), &json!("Deployment/web"), &json!(5), &json!("open"))
    );
    assert_eq!((&whole["samples"][0]["activity"]["act"]["file"], &whole["audit"]), (&json!("/bin/nc"), &json!([])));
    assert!(server.get("/alerts/nine", ADMIN).await.problem(404).contains("no such alert"));
}

#[tokio::test]
async fn pages_hold_when_alerts_come_in() {
    let server = server().await;
    let alerts: Vec<_> = (0..25).map(|n| alert("shop", &format!("tcp/{n:02}"), 0.5, n)).collect();
    server.commit(&alerts, &[]).await;
    let (mut seen, mut next, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = server.get(&format!("/alerts?limit=10{next}"), READER).await;
        seen.extend(page.ids());
        pages += 1;
        // New ones are first of all: what was begun goes on behind them.
        server.commit(&[alert("shop", &format!("udp/{pages}"), 0.5, -pages)], &[]).await;
        match page.json()["next"].as_str() {
            Some(cursor) => next = format!("&cursor={cursor}"),
            None => break,
        }
    }
    let expected: Vec<String> = (0..25).map(|n| format!("tcp/{n:02}")).collect();
    assert_eq!((seen, pages), (expected, 3));
    let first = server.get("/alerts?limit=10", READER).await;
    assert_eq!(first.ids()[..4], ["udp/3", "udp/2", "udp/1", "tcp/00"]);
    let cursor = first.json()["next"].as_str().expect("another").to_owned();
    let other = server.get(&format!("/alerts?sort=risk&cursor={cursor}"), READER).await;
    assert!(other.problem(400).contains("another order"));
    assert!(server.get("/alerts?cursor=abc", READER).await.problem(400).contains("cursor"));
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let server = server().await;
    let alert = alert("shop", "tcp/1", 0.5, 1);
    server.commit(std::slice::from_ref(&alert), &[]).await;
    for (query, word) in [
        ("sate=open", "sate"),
        ("state=opened", "opened"),
        ("class=listens", "listens"),
        ("minRisk=2", "minRisk"),
        ("minRisk=much", "minRisk"),
        ("since=yesterday", "since"),
        ("limit=0", "rows"),
        ("limit=501", "rows"),
    ] {
        let detail = server.get(&format!("/alerts?{query}"), ADMIN).await.problem(400);
        assert!(detail.contains(word) || detail.contains("invalid"), "{query}: {detail}");
    }
    assert!(server.get("/alert", ADMIN).await.problem(404).contains("/alert"));
    server.ask("PUT", "/alerts", ADMIN, Some(json!({}))).await.problem(405);
    server.get("/images/web", ADMIN).await.problem(400);
    server.act(&alert.id, "resolve", ADMIN, json!({})).await.problem(400);
    server.act(&alert.id, "resolve", ADMIN, json!({ "reason": " " })).await.problem(400);
    server.act(&alert.id, "resolve", ADMIN, json!({ "reason": "x".repeat(1001) })).await.problem(400);
    let why = server.act(&alert.id, "resolve", ADMIN, json!({ "reason": "x".repeat(20_000) })).await.problem(413);
    assert!(why.contains("16384 bytes"), "{why}");
    server.act(&alert.id, "resolve", ADMIN, json!({ "reason": "x", "force": true })).await.problem(400);
    let url = format!("http://{}/api/v1/alerts/{}/resolve", server.address, alert.id);
    let form = server.client.post(url).header("authorization", format!("Bearer {ADMIN}")).body("reason=x");
    answer(form).await.problem(415);
    server.get("/alerts", "").await.problem(401);
    server.get("/alerts", "wrong").await.problem(401);
    server.get("/nowhere", "").await.problem(401);
    // Nothing of that was written.
    assert_eq!(server.get(&format!("/alerts/{}", alert.id), ADMIN).await.json()["state"], "open");

    server.api.ledger.close().await;
    assert!(server.get("/alerts", ADMIN).await.problem(503).contains("ledger"));
}

#[tokio::test]
async fn a_failure_inside_is_a_problem_too() {
    let (ledger, folder) = ledger().await;
    let who: Vec<Arc<dyn Authenticate>> = vec![Arc::new(people())];
    let api = Api::new(ledger.clone(), who, Arc::new(|| panic!("a sensor's counts are gone")));
    let server = serve(api, folder, None).await;
    assert!(!server.get("/sensors", ADMIN).await.problem(500).contains("counts"));
    assert_eq!(server.get("/alerts", ADMIN).await.status, 200, "it goes on");

    struct Silent;
    impl Authenticate for Silent {
        fn caller<'a>(&'a self, _: &'a Credentials, _: Access) -> BoxFuture<'a, Result<Option<Caller>, Unavailable>> {
            Box::pin(std::future::pending())
        }
    }
    let mut api = Api::new(ledger, vec![Arc::new(Silent)], Arc::new(sensors));
    api.limits.answer = Duration::from_millis(50);
    let late = serve(api, tempfile::tempdir().expect("a folder"), None).await;
    assert!(late.get("/alerts", ADMIN).await.problem(503).contains("in time"));
}

#[tokio::test]
async fn people_act_and_are_written_down() {
    let server = server().await;
    let alert = alert("shop", "tcp/1", 0.5, 1);
    server.commit(std::slice::from_ref(&alert), &[]).await;
    let why = |reason: &str| json!({ "reason": reason });
    for (act, state, token) in [
        ("acknowledge", "acknowledged", SHOP),
        ("annotate", "acknowledged", ADMIN),
        ("resolve", "resolved", SHOP),
        ("reopen", "open", ADMIN),
    ] {
        let done = server.act(&alert.id, act, token, why(&format!("because {act}"))).await;
        assert_eq!((done.status, &done.json()["state"]), (200, &json!(state)), "{}", done.text);
    }
    let detail = server.act(&alert.id, "reopen", ADMIN, why("again")).await.problem(409);
    assert!(detail.contains("is open"), "{detail}");
    server.act("nine", "resolve", ADMIN, why("x")).await.problem(404);
    let whole = server.get(&format!("/alerts/{}", alert.id), ADMIN).await.json();
    let trail: Vec<_> = whole["audit"].as_array().expect("a trail").iter().collect();
    let acts: Vec<_> = trail.iter().map(|entry| format!("{} {}", entry["actor"], entry["action"])).collect();
    let expected = [
        r#""shop-writer" "acknowledge""#,
        r#""admin" "annotate""#,
        r#""shop-writer" "resolve""#,
        r#""admin" "reopen""#,
    ];
    assert_eq!(acts, expected);
    assert_eq!((&trail[3]["reason"], &whole["revision"]), (&json!("because reopen"), &trail[3]["revision"]));
}

#[tokio::test]
async fn a_caller_sees_and_changes_what_is_his() {
    let server = server().await;
    let mut west = alert("shop", "tcp/3", 0.5, 3);
    (west.place.cluster, west.id) = ("west".into(), "w".into());
    let (mine, other) = (alert("shop", "tcp/1", 0.5, 1), alert("bank", "tcp/2", 0.5, 2));
    let mut nowhere = alert("", "tcp/4", 0.5, 4);
    nowhere.id = "n".into();
    server.commit(&[mine.clone(), other.clone(), west, nowhere], &[]).await;
    assert_eq!(server.get("/alerts", READER).await.ids(), ["tcp/1", "tcp/2", "tcp/3", "tcp/4"]);
    for token in [SHOP, SHOP_READER] {
        assert_eq!(server.get("/alerts", token).await.ids(), ["tcp/1"]);
        assert!(server.get("/alerts?namespace=bank", token).await.ids().is_empty());
        assert!(server.get("/alerts?cluster=west", token).await.ids().is_empty());
        assert_eq!(server.get(&format!("/alerts/{}", mine.id), token).await.status, 200);
        for id in [&other.id, "w", "n"] {
            server.get(&format!("/alerts/{id}"), token).await.problem(404);
            server.act(id, "resolve", token, json!({ "reason": "x" })).await.problem(404);
        }
        let sensors = server.get("/sensors", token).await.json();
        assert_eq!(
            (sensors["sensors"].as_array().map(Vec::len), &sensors["sensors"][0]["name"]),
            (Some(1), &json!("a"))
        );
        assert!(sensors["sensors"][0].get("samples").is_none(), "what a sensor sent may be of another's namespace");
    }
    let all = server.get("/sensors", READER).await.json();
    assert_eq!((&all["sensors"][1]["cluster"], &all["sensors"][1]["events"]), (&json!("west"), &json!(7)));
    assert_eq!(all["sensors"][1]["samples"][0]["text"], "<html>");
    for (token, id) in [(SHOP_READER, &mine.id), (READER, &other.id)] {
        for act in ["acknowledge", "resolve", "reopen", "annotate"] {
            server.act(id, act, token, json!({ "reason": "x" })).await.problem(403);
        }
        let soon = Timestamp::now() + SignedDuration::from_hours(1);
        server.act(id, "suppress", token, json!({ "reason": "x", "expiresAt": soon })).await.problem(403);
    }
    assert_eq!(server.get("/alerts?state=open", READER).await.ids().len(), 4, "none of it was done");
}

#[tokio::test]
async fn a_suppression_has_a_scope_and_an_end() {
    let server = server().await;
    let (mine, more, other) =
        (alert("shop", "tcp/1", 0.5, 1), alert("shop", "tcp/2", 0.5, 2), alert("bank", "tcp/3", 0.5, 3));
    server.commit(&[mine.clone(), more.clone(), other.clone()], &[]).await;
    let hours = |hours| Timestamp::now() + SignedDuration::from_hours(hours);
    let body = |until: Timestamp, scope: Value| json!({ "reason": "known", "expiresAt": until, "scope": scope });
    let suppress = async |alert: &alert::Alert, token, body| server.act(&alert.id, "suppress", token, body).await;
    for until in [hours(-1), hours(24 * 90 + 1)] {
        assert!(suppress(&mine, SHOP, body(until, Value::Null)).await.problem(400).contains("90 days"));
    }
    let soon = hours(1);
    suppress(&mine, SHOP, json!({ "reason": "known" })).await.problem(400);
    suppress(&mine, SHOP, body(soon, json!({}))).await.problem(400);
    suppress(&mine, SHOP, body(soon, json!({ "namespace": "shop", "subject": "tcp/9" }))).await.problem(400);
    suppress(&mine, SHOP, body(soon, json!({ "class": "listen" }))).await.problem(403);
    suppress(&mine, SHOP, body(soon, json!({ "namespace": "shop" }))).await.problem(403);
    let states = async |token| server.get("/alerts?state=suppressed", token).await.ids();
    assert!(states(ADMIN).await.is_empty());

    let one = suppress(&mine, SHOP, body(soon, Value::Null)).await;
    assert_eq!((one.status, &one.json()["scope"]["subject"]), (201, &json!("tcp/1")));
    assert_eq!(states(ADMIN).await, ["tcp/1"]);
    let whole = server.get(&format!("/alerts/{}", mine.id), SHOP_READER).await.json();
    assert_eq!((&whole["state"], &whole["suppressions"][0]["id"]), (&json!("suppressed"), &one.json()["id"]));
    let wide = suppress(&mine, SHOP, body(soon, json!({ "cluster": "east", "namespace": "shop" }))).await;
    let all = suppress(&other, ADMIN, body(soon, json!({ "owner": "Deployment/web" }))).await;
    let bank = suppress(&other, ADMIN, body(soon, json!({ "namespace": "bank" }))).await;
    assert_eq!(states(ADMIN).await, ["tcp/1", "tcp/2", "tcp/3"]);

    let list = async |token| {
        let list = server.get("/suppressions", token).await.json();
        let ids = list["suppressions"].as_array().expect("a list").iter().map(|one| one["id"].clone());
        ids.collect::<Vec<_>>()
    };
    let id = |answer: &Answer| answer.json()["id"].clone();
    assert_eq!(list(READER).await, [id(&bank), id(&all), id(&wide), id(&one)]);
    assert_eq!(list(SHOP_READER).await, [id(&all), id(&wide), id(&one)], "also what covers his among others");
    let lift = async |answer: &Answer, token| {
        let path = format!("/suppressions/{}?reason=enough", id(answer).as_str().expect("an id"));
        server.ask("DELETE", &path, token, None).await
    };
    lift(&bank, SHOP).await.problem(404);
    lift(&all, SHOP).await.problem(403);
    lift(&wide, SHOP_READER).await.problem(403);
    server.ask("DELETE", "/suppressions/nine?reason=x", ADMIN, None).await.problem(404);
    let path = format!("/suppressions/{}", id(&wide).as_str().expect("an id"));
    server.ask("DELETE", &path, SHOP, None).await.problem(400);
    for (answer, token) in [(&wide, SHOP), (&all, ADMIN), (&bank, ADMIN)] {
        assert_eq!(lift(answer, token).await.status, 204);
        lift(answer, token).await.problem(404);
    }
    assert_eq!(states(ADMIN).await, ["tcp/1"]);
    let trail = server.get(&format!("/alerts/{}", mine.id), ADMIN).await.json()["audit"].clone();
    let acts: Vec<_> = trail.as_array().expect("a trail").iter().map(|entry| entry["action"].clone()).collect();
    assert_eq!(acts, ["suppress", "suppress", "lift"]);
}

#[tokio::test]
async fn an_image_has_its_lineage() {
    let server = server().await;
    let now = Timestamp::now();
    let web = digest("web");
    let link = |origin, second| SubjectDna {
        subject: web.clone(),
        rules: digest("rules"),
        origin,
        repository: "registry.example/web".into(),
        dna: digest("dna"),
        at: now - SignedDuration::from_secs(second),
    };
    server.api.ledger.link_dna(&link(Origin::Analyzed, 5)).await.expect("linked");
    server.api.ledger.link_dna(&link(Origin::Attested { signers: set(&["ci"]) }, 1)).await.expect("linked");
    server.get(&format!("/images/{web}"), SHOP).await.problem(404);
    assert_eq!(server.get(&format!("/images/{web}"), READER).await.json()["dna"].as_array().map(Vec::len), Some(2));

    let decision = |namespace: &str| Decision {
        id: Uuid::now_v7(),
        at: now,
        cluster: "east".into(),
        namespace: namespace.into(),
        kind: "Pod".into(),
        name: "web-1".into(),
        user: "system:serviceaccount:kube-system:replicaset-controller".into(),
        operation: "CREATE".into(),
        verdict: Verdict::Warn,
        is_dry_run: false,
        has_unknowns: true,
        images: vec![DecisionImage { name: "web".into(), reference: "web:1".into(), digest: Some(web.clone()) }],
        rules: Vec::new(),
        details: Document::pack(b"{}").expect("packed"),
    };
    let binding = |namespace: &str| Binding {
        cluster: "east".into(),
        pod_uid: format!("uid-{namespace}"),
        container: "web".into(),
        platform: String::new(),
        namespace: namespace.into(),
        pod: "web-1".into(),
        owner: None,
        image: "web:1".into(),
        digest: Some(web.clone()),
        expectation: None,
        decision: None,
        at: now,
    };
    let records = [decision("shop").into(), decision("bank").into(), binding("shop").into(), binding("bank").into()];
    server.api.ledger.write(&records, now).await.expect("written");
    server.commit(&[alert("shop", "tcp/1", 0.5, 1), alert("bank", "tcp/2", 0.5, 2)], &[]).await;
    let lengths = |image: &Value| {
        ["dna", "decisions", "bindings", "alerts"].map(|name| image[name].as_array().map_or(0, Vec::len))
    };
    let all = server.get(&format!("/images/{web}"), READER).await.json();
    assert_eq!((lengths(&all), &all["isCut"]), ([2, 2, 2, 2], &json!(false)));
    let mine = server.get(&format!("/images/{web}"), SHOP_READER).await.json();
    assert_eq!(lengths(&mine), [2, 1, 1, 1]);
    assert_eq!((&mine["dna"][0]["signers"], &mine["dna"][1]["signers"]), (&json!(["ci"]), &Value::Null));
    assert_eq!((&mine["decisions"][0]["verdict"], &mine["bindings"][0]["namespace"]), (&json!("warn"), &json!("shop")));
    assert!(!mine.to_string().contains("bank"));
    server.get(&format!("/images/{}", digest("none")), READER).await.problem(404);
}

#[tokio::test]
async fn an_image_is_found_by_its_index_with_who_vouches_for_it() {
    let server = server().await;
    let now = Timestamp::now();
    let voucher = json!({"signer": "ci", "subject": "https://ci.example/build", "evidence": "log", "about": digest("index"),
        "format": "bundle", "place": "referrersApi", "carrier": digest("bundle")});
    let mut attested = voucher.clone();
    attested["predicateType"] = "https://slsa.dev/provenance/v1".into();
    let commit = json!({"source": "git+https://git.example/web", "commit": "ab", "builder": "https://ci.example", "signer": "ci"});
    let facts = json!({"signatures": [voucher], "attestations": [attested], "commits": [commit]});
    let image = |name: &str, platform: &str, minutes: i64| lineage::Image {
        digest: digest(name),
        repository: "registry.example/web".into(),
        platform: platform.into(),
        index: Some(digest(if name == "old" { "old-index" } else { "index" })),
        config: Some(digest(&format!("{name}-config"))),
        facts: (name == "web").then(|| Document::pack(facts.to_string().as_bytes()).expect("packed")),
        at: now - SignedDuration::from_mins(minutes),
    };
    let images = [image("old", "linux/amd64", 9), image("web", "linux/amd64", 5), image("web-arm", "linux/arm64", 5)];
    server.api.ledger.write(&images.map(Into::into), now).await.expect("written");
    server.commit(&[alert("shop", "tcp/1", 0.5, 1)], &[]).await;
    for name in ["web", "index", "web-config"] {
        let image = server.get(&format!("/images/{}", digest(name)), READER).await.json();
        assert_eq!(image["alerts"][0]["subject"], "tcp/1", "{name}");
        let images = image["images"].as_array().expect("images");
        assert_eq!(images.len(), if name == "index" { 2 } else { 1 }, "{name}");
        let web = images.iter().find(|image| image["digest"] == digest("web").to_string()).expect("the image");
        assert_eq!((&web["before"], &web["indexes"][0]), (&json!(digest("old")), &json!(digest("index"))));
        assert_eq!(web["vouched"]["signatures"][0]["subject"], "https://ci.example/build");
        assert_eq!(web["vouched"]["attestations"][0]["predicateType"], "https://slsa.dev/provenance/v1");
        assert_eq!(web["vouched"]["commits"][0]["commit"], "ab");
    }
    // Who sees an alert of it may read it; who runs nothing of it may not.
    assert_eq!(server.get(&format!("/images/{}", digest("index")), SHOP).await.status, 200);
    server.get(&format!("/images/{}", digest("old-index")), SHOP).await.problem(404);
}

#[tokio::test]
async fn an_image_is_told_its_family() {
    let server = server().await;
    let now = Timestamp::now();
    // Builds of one software; the last one's code executes a shell.
    for build in 0..5_u8 {
        let run = json!({"program": "/bin/sh", "reason": "executes", "confidence": "likely",
            "evidence": [{"kind": "binary", "path": "/usr/sbin/webd", "offset": 64, "detail": "execv"}]});
        let program = |path: &str, runs: serde_json::Value| {
            json!({"path": path, "sha256": digest(&format!("{path}{build}")), "size": 1, "layer": 0, "uid": 0, "gid": 0, "mode": 0o755,
                "kind": "other", "package": format!("pkg:deb/debian/webd@{build}"), "runs": runs})
        };
        let runs = if build == 4 { json!([run]) } else { json!([]) };
        let dna: dna::Dna = serde_json::from_value(json!({
            "schema": dna::SCHEMA, "analyzer": {"name": "mayfly", "version": "0", "rules": digest("rules")},
            "image": {"platform": "linux/amd64"}, "layers": [], "start": {"argv": ["webd"], "program": "/usr/sbin/webd"},
            "programs": [program("/bin/sh", json!([])), program("/usr/sbin/webd", runs)],
            "accounts": {"users": [], "groups": []}, "folders": [], "behavior": {}, "unknowns": [],
        }))
        .expect("a DNA");
        let json = dna.to_canonical_json().expect("JSON");
        let name = server.api.ledger.put_dna(&dna, json, now).await.expect("put");
        let link = SubjectDna {
            subject: digest(&format!("image{build}")),
            rules: digest("rules"),
            origin: Origin::Analyzed,
            repository: "registry.example/webd".into(),
            dna: name,
            at: now,
        };
        server.api.ledger.link_dna(&link).await.expect("linked");
    }
    let kin = |build: u8| {
        let path = format!("/images/{}", digest(&format!("image{build}")));
        let server = &server;
        async move { server.get(&path, READER).await.json()["kin"].clone() }
    };
    let strange = kin(4).await;
    assert_eq!((&strange["lookedAt"], &strange["waiting"]), (&json!(4), &json!(0)));
    let kinship = &strange["kinship"];
    assert_eq!((&kinship["says"], &kinship["isUnlike"]), (&json!("webd"), &json!(true)));
    assert_eq!(kinship["members"].as_array().map(Vec::len), Some(4));
    assert_eq!(kinship["unlike"][0]["what"], "executes a shell in webd");
    assert_eq!(kinship["unlike"][0]["evidence"][0]["path"], "/usr/sbin/webd");
    assert_eq!(kin(0).await["kinship"]["isUnlike"], false);
}

#[tokio::test]
async fn what_people_do_is_told_to_the_sinks_that_know_of_it() {
    let (ledger, folder) = ledger().await;
    let sinks = "[[sink]]\nname = \"a\"\nkind = \"webhook\"\nurl = \"http://x\"\n[[sink]]\nname = \"b\"\nkind = \"webhook\"\nurl = \"http://x\"\n";
    let who: Vec<Arc<dyn Authenticate>> = vec![Arc::new(people())];
    let api = Api::new(ledger, who, Arc::new(sensors)).telling(Sinks::parse(sinks, "s").expect("sinks"));
    let server = serve(api, folder, None).await;
    let mut known = alert("shop", "tcp/1", 0.8, 1);
    known.told.insert("a".into(), Timestamp::now());
    server.commit(std::slice::from_ref(&known), &[]).await;
    let why = |reason: &str| json!({ "reason": reason });
    let until = Timestamp::now() + SignedDuration::from_hours(1);
    for (act, body) in [
        ("acknowledge", why("mine")),
        ("annotate", why("a note")),
        ("resolve", why("fixed")),
        ("reopen", why("not fixed")),
        ("suppress", json!({ "reason": "enough", "expiresAt": until })),
        ("resolve", why("done")),
    ] {
        let done = server.act(&known.id, act, ADMIN, body).await;
        assert!((200..300).contains(&done.status), "{act}: {}", done.text);
    }
    let told = async |sink| {
        let outbox = LedgerOutbox(server.api.ledger.clone());
        let later = Timestamp::now() + SignedDuration::from_secs(5);
        let due = outbox.due(sink, Duration::from_secs(60), 100, later).await.expect("read");
        let told = due.into_iter().map(|notice| {
            let by = notice.by.expect("somebody");
            (format!("{:?}", notice.change), notice.alert.state, by.actor, by.reason)
        });
        told.collect::<Vec<_>>()
    };
    let one = |change: &str, state, reason: &str| (change.to_owned(), state, "admin".to_owned(), reason.to_owned());
    use alert::State;
    let wanted = [
        one("Acknowledged", State::Acknowledged, "mine"),
        one("Resolved", State::Resolved, "fixed"),
        one("Reopened", State::Open, "not fixed"),
        one("Suppressed", State::Suppressed, "enough"),
        one("Resolved", State::Resolved, "done"),
    ];
    assert_eq!(told("a").await, wanted);
    assert_eq!(told("b").await, [wanted[2].clone()], "who knew nothing of it learns that it is open");
}

#[tokio::test]
async fn blind_intervals_are_listed_page_by_page() {
    let server = server().await;
    let now = Timestamp::now();
    let blind: Vec<_> = (0..5)
        .map(|n| BlindRow {
            cluster: if n == 2 { "west" } else { "east" }.into(),
            node: format!("n{n}"),
            sensor: "falco".into(),
            cause: "dropped".into(),
            // Three begin at once.
            from: now - SignedDuration::from_hours(if n < 3 { 1 } else { 30 }),
            until: now - SignedDuration::from_hours(if n == 4 { 29 } else { 0 }),
            count: (n == 0).then_some(12),
            reason: "ring buffer full".into(),
        })
        .collect();
    server.commit(&[], &blind).await;
    let (mut nodes, mut next) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("/blind?limit=1{next}"), READER).await.json();
        nodes.extend(page["blind"].as_array().expect("a list").iter().map(|row| row["node"].clone()));
        match page["next"].as_str() {
            Some(cursor) => next = format!("&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(nodes, ["n2", "n1", "n0", "n3"], "of the last day");
    let all = server.get("/blind?since=2000-01-01T00:00:00Z", SHOP).await.json();
    let nodes: Vec<_> = all["blind"].as_array().expect("a list").iter().map(|row| row["node"].clone()).collect();
    assert_eq!(nodes, ["n1", "n0", "n4", "n3"], "of his cluster");
    assert_eq!((&all["blind"][1]["count"], &all["blind"][0]["count"]), (&json!(12), &Value::Null));
    assert_eq!(server.get("/blind?cluster=west", SHOP).await.json()["blind"], json!([]));
}

#[tokio::test]
async fn a_client_certificate_is_an_identity() {
    let name = |names: &[&str]| {
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in names {
            params.distinguished_name.push(rcgen::DnType::CommonName, *name);
        }
        let key = rcgen::KeyPair::generate().expect("a key");
        ClientName::of(params.self_signed(&key).expect("a certificate").der())
    };
    assert_eq!((name(&[]), name(&[""]), ClientName::of(b"none")), (None, None, None));
    for (peer, status) in [("ops", 200), ("nobody", 401)] {
        let (ledger, folder) = ledger().await;
        let who: Vec<Arc<dyn Authenticate>> = vec![Arc::new(people())];
        let server = serve(Api::new(ledger, who, Arc::new(sensors)), folder, name(&[peer])).await;
        assert_eq!(server.get("/alerts", "").await.status, status, "{peer}");
    }
}

#[tokio::test]
async fn planted_secrets_are_nowhere() {
    let server = server().await;
    let alert = alert("shop", "tcp/1", 0.5, 1);
    server.commit(std::slice::from_ref(&alert), &[]).await;
    let planted = "hunter2-Zq81xV";
    let soon = Timestamp::now() + SignedDuration::from_hours(1);
    let mut told = String::new();
    for (act, body) in [
        ("annotate", json!({ "reason": format!("ran with --password {planted}") })),
        ("suppress", json!({ "reason": format!("DB_PASSWORD={planted}"), "expiresAt": soon })),
        ("resolve", json!({ "reason": "x", format!("token={planted}"): 1 })),
    ] {
        told += &server.act(&alert.id, act, ADMIN, body).await.text;
    }
    for (path, token) in [
        ("/alerts", planted),
        (&*format!("/alerts?password={planted}"), ADMIN),
        (&*format!("/alerts?state=token={planted}"), ADMIN),
        (&*format!("/password={planted}"), ADMIN),
        ("/suppressions", ADMIN),
        (&*format!("/alerts/{}", alert.id), ADMIN),
    ] {
        told += &server.get(path, token).await.text;
    }
    assert!(told.contains("[redacted]"), "{told}");
    server.api.ledger.close().await;
    for entry in std::fs::read_dir(server.folder.path()).expect("a folder") {
        told += &String::from_utf8_lossy(&std::fs::read(entry.expect("an entry").path()).expect("a file"));
    }
    for secret in [planted, ADMIN] {
        assert!(!told.contains(secret), "{secret} was told, or kept");
    }
}

#[tokio::test]
async fn every_route_is_described_and_the_stored_copy_is_the_same() {
    let server = server().await;
    let document = server.get("/openapi.json", "").await.json();
    assert_eq!(document, openapi());
    let mut described = 0;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        let path = path.strip_prefix("/api/v1").expect("of this version");
        for (method, operation) in methods.as_object().expect("methods") {
            described += 1;
            let own = operation["security"].is_array();
            assert_eq!(server.ask(&method.to_uppercase(), path, "", None).await.status, if own { 200 } else { 401 });
            let answer = tokio::time::timeout(Duration::from_secs(5), async {
                let url = format!("http://{}/api/v1{path}", server.address);
                let method = method.to_uppercase().parse().expect("a method");
                let request = server.client.request(method, url).header("authorization", format!("Bearer {ADMIN}"));
                request.send().await.expect("an answer").status().as_u16()
            });
            let status = answer.await.expect("in time");
            assert_ne!(status, 405, "{method} {path}");
        }
    }
    assert_eq!(described, 32);

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let text = format!("{:#}\n", openapi());
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(path, &text).expect("written");
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        stored == text,
        "the API has changed: run this test with UPDATE_OPENAPI=1, and look at what changes in openapi.json"
    );
}
