#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use std::{
    collections::VecDeque,
    io::Write as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::State as Shared,
    http::{HeaderMap, Method, StatusCode, Uri},
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, UdpSocket},
    sync::oneshot,
    task::JoinHandle,
};

use super::{body::*, *};
use crate::{
    Class, Deviation,
    alert::{self, Cause, Place},
    sensor::{self, Dialect, Told},
};

const AT: &str = "2026-11-30T07:00:00Z";
const PLANTED: &str = "hunter2-planted";

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// What Falco sends of a command with a password in it.
fn falco() -> dna::Activity {
    let event = serde_json::json!({
        "time": AT, "rule": "Terminal shell in container", "hostname": "node-1",
        "output_fields": {
            "container.id": "0123456789ab", "container.name": "web", "container.image.repository": "shop/web",
            "k8s.ns.name": "shop", "k8s.pod.name": "web-1", "k8s.pod.uid": "6f1f0a9e-0000-4000-8000-000000000001",
            "evt.type": "execve", "proc.name": "curl", "proc.exepath": "/usr/bin/curl", "proc.exe": "curl",
            "proc.args": format!("--password {PLANTED} https://user:{PLANTED}@files.example/x DB_PASSWORD={PLANTED}"),
            "proc.pname": "sh", "proc.pcmdline": format!("sh -c curl --token={PLANTED}"),
        },
    });
    match sensor::decode(Dialect::Falco, event.to_string().as_bytes()).expect("an event") {
        Told::Activity(activity) => std::sync::Arc::unwrap_or_clone(activity),
        told => panic!("{told:?}"),
    }
}

fn alert_of(subject: &str, message: &str, risk: f64) -> Alert {
    let place = Place {
        cluster: "eu".to_owned(),
        namespace: "shop".to_owned(),
        owner: "Deployment/web".to_owned(),
        container: "web".to_owned(),
        image: "shop/web:1".to_owned(),
        digest: format!("sha256:{}", "5".repeat(64)),
    };
    let deviation = Deviation {
        class: Class::ProgramNotReachable,
        subject: subject.to_owned(),
        message: message.to_owned(),
        after: Some("/usr/sbin/nginx".to_owned()),
        layer: Some(2),
        package: Some("curl".to_owned()),
        risk,
        drivers: Vec::new(),
        technique: "T1105".to_owned(),
        blocked: false,
    };
    let mut alert = None;
    alert::collate(&mut alert, &place, "web-1", &deviation, &falco(), [falco()].into_iter());
    let mut alert = alert.expect("an alert");
    alert.users.insert("alice@example.com".to_owned());
    alert.cause = Some(Cause { layer: Some(2), step: Some("RUN apt-get install curl".to_owned()), package: None });
    alert
}

fn notice(sink: &str, revision: u64) -> Notice {
    let argv = falco().process.argv.join(" ");
    let alert = alert_of("/usr/bin/curl", &format!("nothing leads to `{argv}` from the start command"), 0.8);
    Notice {
        id: format!("{}/{revision}", alert.id),
        sink: sink.to_owned(),
        change: Change::New,
        alert,
        by: None,
        incident: None,
        attempts: 0,
        made_at: at("2026-11-30T07:00:01.5Z"),
    }
}

fn resolved(notice: &Notice) -> Notice {
    let mut resolved = notice.clone();
    (resolved.change, resolved.alert.state) = (Change::Resolved, State::Resolved);
    resolved
}

/// The body of each kind.
fn bodies(notice: &Notice) -> Vec<(&'static str, String)> {
    vec![
        ("generic", generic(notice)),
        ("alertmanager", alertmanager(notice, SignedDuration::from_hours(24))),
        ("slack", slack(notice)),
        ("teams", teams(notice)),
        ("pagerduty", pagerduty(notice, "R0UTING")),
        ("otlp", otlp(notice)),
        ("event", event(notice, "bridge-0")),
        ("syslog", syslog(notice, "bridge-0", 2048)),
    ]
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn each_body_is_as_it_was() {
    let new = notice("all", 7);
    for (name, body) in bodies(&new) {
        match name {
            "syslog" => insta::assert_snapshot!(name, body),
            _ => insta::assert_json_snapshot!(name, json(&body)),
        }
    }
    let resolved = resolved(&new);
    insta::assert_json_snapshot!(
        "alertmanager_resolved",
        json(&alertmanager(&resolved, SignedDuration::from_hours(24)))
    );
    insta::assert_json_snapshot!("pagerduty_resolved", json(&pagerduty(&resolved, "R0UTING")));
    insta::assert_json_snapshot!("event_resolved", json(&event(&resolved, "bridge-0")));
}

#[test]
fn a_planted_secret_is_in_no_body() {
    assert!(falco().process.argv.iter().any(|word| word.contains("[redacted]")), "the event has credentials");
    for (name, body) in bodies(&notice("all", 7)) {
        assert!(!body.contains(PLANTED), "{name}: {body}");
        assert!(body.contains("curl"), "{name} tells of it at all");
    }
}

#[test]
fn severity_has_its_steps() {
    let steps = [0.0, 0.49, 0.5, 0.69, 0.7, 0.89, 0.9, 1.0].map(|risk| severity(risk).name());
    assert_eq!(steps, ["low", "low", "medium", "medium", "high", "high", "critical", "critical"]);
}

#[test]
fn labels_of_alertmanager_are_those_that_an_alert_keeps() {
    let first = notice("all", 1);
    let mut again = notice("all", 2);
    again.alert.pods.insert("web-2".to_owned());
    again.alert.count = 900;
    again.alert.last_seen = at("2026-12-02T00:00:00Z");
    again.made_at = at("2026-12-02T00:00:00Z");
    let labels = |notice| json(&alertmanager(notice, SignedDuration::from_hours(24)))[0]["labels"].clone();
    assert_eq!(labels(&first), labels(&again));
    let names: Vec<String> = labels(&first).as_object().expect("labels").keys().cloned().collect();
    assert_eq!(names, ["alertname", "class", "cluster", "container", "namespace", "owner", "severity"]);
}

/// Letters of an attacker in a file's name: terminal escapes, markup and calls of chats, the other direction of writing.
#[test]
fn what_steers_a_screen_or_a_chat_is_no_more_than_text() {
    let evil = "/tmp/\u{1b}]0;x\u{7}\u{9b}31m<!channel><https://evil.example|ok> **b** [a](http://e) @here <at>all</at> {{DATE(x)}} \u{202e}\"]\\";
    let mut notice = notice("all", 1);
    notice.alert = alert_of(evil, evil, 0.95);
    notice.alert.place.owner = evil.to_owned();
    notice.alert.samples[0].activity.process.argv = vec![evil.to_owned()];
    for (name, body) in bodies(&notice) {
        let steers = body.chars().find(|letter| letter.is_control() || ('\u{202a}'..='\u{202e}').contains(letter));
        assert_eq!(steers, None, "{name}: {body}");
    }
    let slack = json(&slack(&notice));
    assert_eq!(slack["blocks"][0]["text"]["type"], "plain_text");
    let slack = slack.to_string();
    assert!(!slack.contains('<') && !slack.contains("@here") && slack.contains("&lt;!channel&gt;"), "{slack}");
    let teams = teams(&notice);
    assert!(!teams.contains("\"TextBlock\"") && !teams.contains("<at>") && !teams.contains("{{"), "{teams}");
    let generic = json(&generic(&notice));
    assert_eq!(generic["alert"]["subject"], evil, "programs get all of it");
}

#[test]
fn bodies_are_bounded() {
    let mut notice = notice("all", 1);
    let long = "é<".repeat(50_000);
    notice.alert = alert_of(&long, &long, 0.95);
    notice.alert.users = (0..5000).map(|number| format!("user-{number}")).collect();
    notice.alert.samples = vec![notice.alert.samples[0].clone(); alert::SAMPLES];
    for sample in &mut notice.alert.samples {
        sample.before = vec![falco(); 12];
        sample.before.iter_mut().for_each(|activity| activity.process.argv = vec![long.clone(); 200]);
    }
    for (name, body) in bodies(&notice) {
        // Teams takes 28 KB, an Event's note 1,024 bytes, a datagram of syslog 2,048.
        let max = match name {
            "generic" => 256 << 10,
            "syslog" => 2048,
            _ => 24 << 10,
        };
        assert!(body.len() <= max, "{name}: {}", body.len());
    }
    let slack = json(&slack(&notice));
    for block in slack["blocks"].as_array().expect("blocks") {
        assert!(block["fields"].as_array().is_none_or(|fields| fields.len() <= 10));
        let letters = block["text"]["text"].as_str().map_or(0, |text| text.chars().count());
        assert!(letters <= if block["type"] == "header" { 150 } else { 3000 });
    }
    assert!(json(&event(&notice, "h"))["note"].as_str().expect("a note").len() <= 1024);
}

#[test]
fn an_event_is_about_the_pod_or_the_workload() {
    let mut notice = notice("all", 1);
    let regarding = json(&event(&notice, "h"))["regarding"].clone();
    assert_eq!((&regarding["kind"], &regarding["name"]), (&"Pod".into(), &"web-1".into()));
    assert_eq!(regarding["uid"], "6f1f0a9e-0000-4000-8000-000000000001");
    notice.alert.pods.insert("web-2".to_owned());
    let regarding = json(&event(&notice, "h"))["regarding"].clone();
    assert_eq!((&regarding["apiVersion"], &regarding["kind"]), (&"apps/v1".into(), &"Deployment".into()));
}

#[test]
fn news_above_the_floor_is_told_and_repetitions_once_in_a_while() {
    let sinks =
        sinks("[[sink]]\nname = \"a\"\nkind = \"webhook\"\nurl = \"http://x\"\ncluster = \"eu\"\nmin_risk = 0.7");
    let sink = sinks.iter().next().expect("one");
    let now = at(AT);
    let hours = |hours| Some(now - SignedDuration::from_hours(hours));
    let mut alert = alert_of("/x", "x", 0.8);
    assert!(sink.wants(&alert, Change::New, None, now));
    assert!(sink.wants(&alert, Change::Escalated, hours(1), now));
    assert!(sink.wants(&alert, Change::Reopened, hours(1), now));
    assert!(!sink.wants(&alert, Change::Repeated, hours(23), now));
    assert!(sink.wants(&alert, Change::Repeated, hours(24), now));
    assert!(sink.wants(&alert, Change::Repeated, None, now), "it rose above the floor since");
    assert!(sink.wants(&alert, Change::Resolved, hours(1), now));
    assert!(!sink.wants(&alert, Change::Resolved, None, now), "nobody there knows of it");
    alert.state = State::Acknowledged;
    assert!(!sink.wants(&alert, Change::Repeated, hours(99), now));
    assert!(sink.wants(&alert, Change::Escalated, hours(1), now));
    alert.state = State::Suppressed;
    assert!(!sink.wants(&alert, Change::Escalated, None, now));
    alert.state = State::Open;
    alert.risk = 0.69;
    assert!(!sink.wants(&alert, Change::New, None, now));
    alert.risk = 0.7;
    alert.place.cluster = "us".to_owned();
    assert!(!sink.wants(&alert, Change::New, None, now));
    let mut events = sink.clone();
    events.kind = Kind::KubernetesEvent;
    alert.place.cluster = "eu".to_owned();
    assert!(events.wants(&alert, Change::New, None, now));
    alert.place.namespace = String::new();
    assert!(!events.wants(&alert, Change::New, None, now), "an Event stands in a namespace");
}

#[test]
fn configurations_of_the_documentation_load() {
    let folder = TempDir::new().expect("a folder");
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    for name in ["am", "soar", "pagerduty", "token"] {
        std::fs::write(folder.path().join(name), "s3cret").expect("written");
    }
    for name in ["slack", "teams"] {
        std::fs::write(folder.path().join(name), "https://hooks.example/x").expect("written");
    }
    std::fs::write(folder.path().join("ca.crt"), certificate.cert.pem()).expect("written");
    let page = include_str!("../../../docs/sinks.md");
    let here = format!("{}/", folder.path().display());
    let blocks = page.split("```toml").skip(1).filter_map(|rest| rest.split("```").next());
    let all: String = blocks.map(|block| block.replace("/etc/mayfly/", &here)).collect();
    let sinks = sinks(&all);
    assert_eq!(sinks.iter().count(), 11);
    Delivery::new(&sinks, pace()).expect("all can be used");
}

/// Notices that wait, each with its next try.
#[derive(Default)]
struct Memory(
    Mutex<Vec<(Notice, Timestamp)>>,
    Mutex<Vec<(String, Option<Timestamp>, String)>>,
    Mutex<Vec<lineage::AlertHead>>,
);

impl Memory {
    fn of(notices: impl IntoIterator<Item = Notice>) -> Arc<Self> {
        let waiting = notices.into_iter().map(|notice| (notice, Timestamp::UNIX_EPOCH)).collect();
        Arc::new(Self(Mutex::new(waiting), Mutex::default(), Mutex::default()))
    }

    fn waiting(&self) -> Vec<(Notice, Timestamp)> {
        lock(&self.0).clone()
    }

    fn failures(&self) -> Vec<(String, Option<Timestamp>, String)> {
        lock(&self.1).clone()
    }
}

impl Outbox for Memory {
    async fn due(&self, sink: &str, hold: Duration, limit: u32, now: Timestamp) -> Result<Vec<Notice>, OutboxError> {
        let mut waiting = lock(&self.0);
        let due = waiting.iter_mut().filter(|(notice, next)| notice.sink == sink && *next <= now);
        let take = |(notice, next): &mut (Notice, Timestamp)| {
            notice.attempts += 1;
            *next = now + hold;
            notice.clone()
        };
        Ok(due.take(limit as usize).map(take).collect())
    }

    async fn done(&self, notice: &Notice) -> Result<(), OutboxError> {
        lock(&self.0).retain(|(waiting, _)| waiting.id != notice.id || waiting.sink != notice.sink);
        Ok(())
    }

    async fn failed(&self, notice: &Notice, next_try: Option<Timestamp>, why: &str) -> Result<(), OutboxError> {
        lock(&self.1).push((notice.id.clone(), next_try, why.to_owned()));
        let Some(next_try) = next_try else { return self.done(notice).await };
        let is_it = |waiting: &Notice| waiting.id == notice.id && waiting.sink == notice.sink;
        for (_, next) in lock(&self.0).iter_mut().filter(|(waiting, _)| is_it(waiting)) {
            *next = next_try;
        }
        Ok(())
    }

    async fn of_workload(
        &self,
        place: &Place,
        min_risk: f64,
        limit: u32,
    ) -> Result<Vec<lineage::AlertHead>, OutboxError> {
        let is_of = |head: &&lineage::AlertHead| head.owner == place.owner && head.risk >= min_risk;
        Ok(lock(&self.2).iter().filter(is_of).take(limit as usize).cloned().collect())
    }

    async fn oldest(&self, sink: &str) -> Result<Option<Timestamp>, OutboxError> {
        Ok(lock(&self.0).iter().filter(|(notice, _)| notice.sink == sink).map(|(notice, _)| notice.made_at).min())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request as it came in.
#[derive(Debug, Clone)]
struct Request {
    at: Instant,
    method: String,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).expect("the header").to_str().expect("text")
    }
}

/// A receiver that answers as it is told, and then 200.
#[derive(Clone, Default)]
struct Receiver {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    requests: Arc<Mutex<Vec<Request>>>,
}

#[derive(Clone)]
enum Answer {
    Status(u16),
    After(u16, String),
    Body(&'static str),
    Hang,
}

impl Receiver {
    async fn start(answers: impl IntoIterator<Item = Answer>) -> (Self, String) {
        let receiver = Self::default();
        lock(&receiver.answers).extend(answers);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let router = Router::new().fallback(answer).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, url)
    }

    fn requests(&self) -> Vec<Request> {
        lock(&self.requests).clone()
    }
}

async fn answer(
    Shared(receiver): Shared<Receiver>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, HeaderMap, &'static str) {
    let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default().to_owned());
    lock(&receiver.requests).push(Request {
        at: Instant::now(),
        method: method.to_string(),
        path,
        query,
        headers,
        body,
    });
    let answer = lock(&receiver.answers).pop_front();
    let status = |code| StatusCode::from_u16(code).expect("a status");
    match answer {
        None => (StatusCode::OK, HeaderMap::new(), ""),
        Some(Answer::Body(body)) => (StatusCode::OK, HeaderMap::new(), body),
        Some(Answer::Status(code)) => (status(code), HeaderMap::new(), "password=hunter2-answer \u{1b}[2J"),
        Some(Answer::After(code, after)) => {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", after.parse().expect("a value"));
            (status(code), headers, "")
        }
        Some(Answer::Hang) => std::future::pending().await,
    }
}

fn sinks(text: &str) -> Sinks {
    Sinks::parse(text, "sinks.toml").expect("sinks")
}

fn webhook(name: &str, url: &str) -> String {
    format!("[[sink]]\nname = \"{name}\"\nkind = \"webhook\"\nurl = \"{url}\"\n")
}

fn pace() -> Pace {
    Pace {
        look: Duration::from_millis(5),
        timeout: Duration::from_millis(500),
        first_rest: Duration::from_millis(40),
        longest_rest: Duration::from_millis(200),
        give_up: SignedDuration::from_hours(24 * 3650),
    }
}

struct Running(oneshot::Sender<()>, JoinHandle<()>);

impl Running {
    fn start(sinks: &Sinks, pace: Pace, outbox: &Arc<Memory>) -> Self {
        let delivery = Delivery::new(sinks, pace).expect("sinks");
        let (end, ended) = oneshot::channel::<()>();
        let outbox = outbox.clone();
        Self(end, tokio::spawn(async move { delivery.run(outbox, async { drop(ended.await) }).await }))
    }

    async fn end(self) {
        drop(self.0);
        self.1.await.expect("an end");
    }
}

/// Waits until something is so; a test that waits in vain fails.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(20), "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_notice_is_told_once_with_its_key_and_signature() {
    let (receiver, url) = Receiver::start([]).await;
    let folder = TempDir::new().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::File::create(&path).and_then(|mut file| file.write_all(text.as_bytes())).expect("written");
        path
    };
    let (secret, header) = (file("secret", "0ur-s3cret\n"), file("header", "Bearer t0ken\n"));
    let text = format!(
        "{}secret_file = {secret:?}\nheader_files = {{ Authorization = {header:?} }}\n",
        webhook("signed", &format!("{url}/hook"))
    );
    let outbox = Memory::of([notice("signed", 1)]);
    let running = Running::start(&sinks(&text), pace(), &outbox);
    until("it is told", || outbox.waiting().is_empty()).await;
    running.end().await;
    let requests = receiver.requests();
    assert_eq!(requests.len(), 1);
    let request = &requests[0];
    assert_eq!(request.path, "/hook");
    assert_eq!(request.header("idempotency-key"), notice("signed", 1).id);
    assert_eq!(request.header("authorization"), "Bearer t0ken");
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(json(std::str::from_utf8(&request.body).expect("text"))["key"], notice("signed", 1).id);

    let signature = request.header("x-mayfly-signature");
    let (time, sum) = signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).expect("two parts");
    let signed = [time.as_bytes(), b".", &request.body].concat();
    assert_eq!(sum, hmac_by_hand(b"0ur-s3cret", &signed));
    let age = Timestamp::now().as_second() - time.parse::<i64>().expect("seconds");
    assert!((0..60).contains(&age));
}

/// RFC 2104, from its definition.
fn hmac_by_hand(key: &[u8], message: &[u8]) -> String {
    let pad = |with: u8| (0..64).map(|at| key.get(at).copied().unwrap_or(0) ^ with).collect::<Vec<u8>>();
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    let outer = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_signature_is_that_of_rfc_4231() {
    // Test case 2 of the RFC signs this text; ours begins with a time, so it is checked by hand here.
    let sum = hmac_by_hand(b"Jefe", b"what do ya want for nothing?");
    assert_eq!(sum, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    let at = Timestamp::from_second(1_700_000_000).expect("a time");
    assert_eq!(signature(b"Jefe", at, b"{}"), format!("t=1700000000,v1={}", hmac_by_hand(b"Jefe", b"1700000000.{}")));
}

#[tokio::test]
async fn what_failed_is_told_again_with_the_same_key_and_body() {
    let (receiver, url) = Receiver::start([Answer::Status(500), Answer::Status(503), Answer::Status(408)]).await;
    let outbox = Memory::of([notice("again", 1)]);
    let running = Running::start(&sinks(&webhook("again", &url)), pace(), &outbox);
    until("it is told", || outbox.waiting().is_empty()).await;
    running.end().await;
    let requests = receiver.requests();
    assert_eq!(requests.len(), 4);
    for request in &requests {
        assert_eq!(request.header("idempotency-key"), requests[0].header("idempotency-key"));
        assert_eq!(request.body, requests[0].body);
    }
    let failures = outbox.failures();
    assert_eq!(failures.len(), 3);
    for (_, _, why) in &failures {
        assert!(!why.contains("hunter2") && !why.contains('\u{1b}'), "{why}");
    }
}

#[tokio::test]
async fn a_receiver_that_asks_for_time_gets_it() {
    let date = (Timestamp::now() + SignedDuration::from_secs(3)).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let (receiver, url) = Receiver::start([Answer::After(429, "1".to_owned()), Answer::After(503, date)]).await;
    // Two: the second is not tried while the sink rests.
    let mut second = notice("rests", 1);
    second.id = "another/1".to_owned();
    let outbox = Memory::of([notice("rests", 1), second]);
    let running = Running::start(&sinks(&webhook("rests", &url)), pace(), &outbox);
    until("both are told", || outbox.waiting().is_empty()).await;
    running.end().await;
    let requests = receiver.requests();
    assert_eq!(requests.len(), 4);
    let between = |a: usize, b: usize| requests[b].at - requests[a].at;
    assert!(between(0, 1) >= Duration::from_secs(1), "{:?}", between(0, 1));
    // Dates have whole seconds.
    assert!(between(1, 2) >= Duration::from_millis(500), "{:?}", between(1, 2));
}

#[tokio::test]
async fn what_is_refused_is_dead_after_one_try_and_holds_up_nothing() {
    for status in [400, 401, 404, 302] {
        let (receiver, url) = Receiver::start([Answer::Status(status)]).await;
        let mut second = notice("dead", 1);
        second.id = "another/1".to_owned();
        let outbox = Memory::of([notice("dead", 1), second]);
        let running = Running::start(&sinks(&webhook("dead", &url)), pace(), &outbox);
        until("both are done with", || outbox.waiting().is_empty()).await;
        running.end().await;
        assert_eq!(receiver.requests().len(), 2);
        let failures = outbox.failures();
        assert_eq!(failures.len(), 1);
        assert_eq!((&failures[0].0, failures[0].1), (&notice("dead", 1).id, None));
        assert!(failures[0].2.contains(&status.to_string()), "{}", failures[0].2);
    }
}

#[tokio::test]
async fn a_sink_that_hangs_holds_up_no_other() {
    let (_, hanging) = Receiver::start((0..100).map(|_| Answer::Hang)).await;
    let (receiver, url) = Receiver::start([]).await;
    let text = webhook("hangs", &hanging) + &webhook("well", &url);
    let outbox = Memory::of([notice("hangs", 1), notice("well", 1)]);
    let long = Pace { timeout: Duration::from_secs(3), ..pace() };
    let started = Instant::now();
    let running = Running::start(&sinks(&text), long, &outbox);
    until("the other is told", || !receiver.requests().is_empty()).await;
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    until("nothing comes of the one", || !outbox.failures().is_empty()).await;
    assert!(outbox.failures()[0].2.contains("no answer in time"), "{:?}", outbox.failures());
    running.end().await;
    assert_eq!(outbox.waiting().len(), 1, "it still waits");
}

#[tokio::test]
async fn a_refused_connection_is_tried_again_and_its_address_is_not_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let outbox = Memory::of([notice("gone", 1)]);
    let url = format!("http://{address}/services/hunter2");
    let running = Running::start(&sinks(&webhook("gone", &url)), pace(), &outbox);
    until("it was tried three times", || outbox.failures().len() >= 3).await;
    let receiver = Receiver::default();
    let router = Router::new().fallback(answer).with_state(receiver.clone());
    let listener = TcpListener::bind(address).await.expect("the same address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    until("it is told", || outbox.waiting().is_empty()).await;
    running.end().await;
    assert!(outbox.failures().iter().all(|(_, _, why)| why.contains("not reached") && !why.contains("hunter2")));
}

#[tokio::test]
async fn who_died_over_a_notice_tells_it_again_with_the_same_key() {
    let (receiver, url) = Receiver::start([Answer::Hang]).await;
    let outbox = Memory::of([notice("died", 1)]);
    let first =
        Running::start(&sinks(&webhook("died", &url)), Pace { timeout: Duration::from_secs(60), ..pace() }, &outbox);
    until("it is under way", || receiver.requests().len() == 1).await;
    first.1.abort();
    drop(first.1.await);
    // The time for which it was taken is over.
    lock(&outbox.0)[0].1 = Timestamp::UNIX_EPOCH;
    let second = Running::start(&sinks(&webhook("died", &url)), pace(), &outbox);
    until("it is told", || outbox.waiting().is_empty()).await;
    second.end().await;
    let requests = receiver.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].header("idempotency-key"), requests[1].header("idempotency-key"));
    assert_eq!(requests[0].body, requests[1].body);
}

#[tokio::test]
async fn an_older_state_is_not_told_after_a_later_one() {
    let (receiver, url) = Receiver::start([Answer::Status(500)]).await;
    let outbox = Memory::of([notice("order", 1), resolved(&notice("order", 2))]);
    let running = Running::start(&sinks(&webhook("order", &url)), pace(), &outbox);
    until("both are done with", || outbox.waiting().is_empty()).await;
    running.end().await;
    let keys: Vec<String> =
        receiver.requests().iter().map(|request| request.header("idempotency-key").to_owned()).collect();
    assert_eq!(keys, [notice("order", 1).id, notice("order", 2).id]);
}

#[tokio::test]
async fn what_is_too_old_is_given_up() {
    let (receiver, url) = Receiver::start([]).await;
    let outbox = Memory::of([notice("old", 1)]);
    let running = Running::start(
        &sinks(&webhook("old", &url)),
        Pace { give_up: SignedDuration::from_millis(1), ..pace() },
        &outbox,
    );
    until("it is given up", || outbox.waiting().is_empty()).await;
    running.end().await;
    assert!(receiver.requests().is_empty());
    assert_eq!(outbox.failures(), [(notice("old", 1).id, None, "too old".to_owned())]);
}

#[tokio::test]
async fn what_comes_of_notices_is_counted() {
    let (_, url) = Receiver::start([Answer::Status(500), Answer::Status(400)]).await;
    let named = |id: &str| Notice { id: id.to_owned(), ..notice("counted", 1) };
    let mut old = named("old/1");
    old.made_at = at("2000-01-01T00:00:00Z");
    let outbox = Memory::of([named("a/1"), named("b/1"), named("c/1"), old]);
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    // All tasks of this test are on its thread.
    let recorded = metrics::set_default_local_recorder(&recorder);
    let running = Running::start(&sinks(&webhook("counted", &url)), pace(), &outbox);
    until("the oldest is seen", || recorder.handle().render().contains("oldest")).await;
    let seen = recorder.handle().render();
    until("all are done with", || outbox.waiting().is_empty()).await;
    running.end().await;
    drop(recorded);
    let text = recorder.handle().render();
    for (what, count) in [("sent", 2), ("failed", 1), ("dead", 1), ("dropped", 1)] {
        let line = format!("mayfly_notices_{what}_total{{sink=\"counted\"}} {count}");
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let oldest = seen.lines().find_map(|line| line.strip_prefix("mayfly_notices_oldest_seconds{sink=\"counted\"} "));
    // More than 26 years.
    assert!(oldest.and_then(|seconds| seconds.parse::<f64>().ok()).is_some_and(|seconds| seconds > 8e8), "{seen}");
}

#[tokio::test]
async fn each_kind_speaks_to_its_own_path() {
    let (receiver, url) = Receiver::start([]).await;
    let folder = TempDir::new().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "t0ken").expect("written");
    let address = folder.path().join("url");
    std::fs::write(&address, format!("{url}/services/T/B/X\n")).expect("written");
    let ca = folder.path().join("ca.crt");
    let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(&ca, authority.cert.pem()).expect("written");
    let text = format!(
        r#"
        [[sink]]
        name = "alertmanager"
        kind = "alertmanager"
        url = "{url}/prefix/"
        [[sink]]
        name = "slack"
        kind = "slack"
        url_file = {address:?}
        [[sink]]
        name = "pagerduty"
        kind = "pagerduty"
        url = "{url}/v2/enqueue"
        secret_file = {secret:?}
        [[sink]]
        name = "otlp"
        kind = "otlp"
        url = "{url}"
        [[sink]]
        name = "kubernetes"
        kind = "kubernetes-event"
        url = "{url}"
        cluster = "eu"
        secret_file = {secret:?}
        ca_file = {ca:?}
        "#
    );
    let names = ["alertmanager", "slack", "pagerduty", "otlp", "kubernetes"];
    let outbox = Memory::of(names.map(|name| notice(name, 1)));
    let running = Running::start(&sinks(&text), pace(), &outbox);
    until("all are told", || outbox.waiting().is_empty()).await;
    running.end().await;
    let mut paths: Vec<String> = receiver.requests().iter().map(|request| request.path.clone()).collect();
    paths.sort();
    assert_eq!(
        paths,
        [
            "/apis/events.k8s.io/v1/namespaces/shop/events",
            "/prefix/api/v2/alerts",
            "/services/T/B/X",
            "/v1/logs",
            "/v2/enqueue"
        ]
    );
    let of =
        |path: &str| receiver.requests().into_iter().find(|request| request.path.contains(path)).expect("a request");
    assert_eq!(of("/apis/").header("authorization"), "Bearer t0ken");
    assert_eq!(json(std::str::from_utf8(&of("enqueue").body).expect("text"))["routing_key"], "t0ken");
}

#[tokio::test]
async fn answers_that_mean_something_else_are_understood() {
    // An Event that is there was told; a collector may say 200 and take nothing.
    let (_, exists) = Receiver::start([Answer::Status(409)]).await;
    let (_, took_none) =
        Receiver::start([Answer::Body(r#"{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"no"}}"#)]).await;
    let folder = TempDir::new().expect("a folder");
    let file = |name: &str, text: &str| {
        let path: PathBuf = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (secret, ca) = (file("secret", "t0ken"), file("ca.crt", &authority.cert.pem()));
    let text = format!(
        "[[sink]]\nname = \"event\"\nkind = \"kubernetes-event\"\nurl = \"{exists}\"\ncluster = \"eu\"\nsecret_file = \
         {secret:?}\nca_file = {ca:?}\n[[sink]]\nname = \"otlp\"\nkind = \"otlp\"\nurl = \"{took_none}\"\n"
    );
    let mut elsewhere = notice("event", 2);
    elsewhere.id = "elsewhere/1".to_owned();
    elsewhere.alert.place.namespace = "../../api/v1/secrets".to_owned();
    let outbox = Memory::of([notice("event", 1), notice("otlp", 1), elsewhere]);
    let running = Running::start(&sinks(&text), pace(), &outbox);
    until("all are done with", || outbox.waiting().is_empty()).await;
    running.end().await;
    let mut failures: Vec<String> = outbox.failures().into_iter().map(|(_, _, why)| why).collect();
    failures.sort();
    assert_eq!(failures, ["its namespace is no name of Kubernetes", "not taken: no"]);
}

#[tokio::test]
async fn syslog_by_udp() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("an address");
    let address = socket.local_addr().expect("bound");
    let outbox = Memory::of([notice("udp", 1)]);
    let text = format!("[[sink]]\nname = \"udp\"\nkind = \"syslog\"\naddress = \"udp://{address}\"\n");
    let running = Running::start(&sinks(&text), pace(), &outbox);
    let mut datagram = [0; 4096];
    let bytes = tokio::time::timeout(Duration::from_secs(20), socket.recv(&mut datagram)).await.expect("in time");
    let text = String::from_utf8_lossy(&datagram[..bytes.expect("a datagram")]).into_owned();
    assert!(text.starts_with("<35>1 2026-11-30T07:00:00.000000Z ") && text.contains("[mayfly@32473 key="), "{text}");
    until("it is done", || outbox.waiting().is_empty()).await;
    running.end().await;
}

/// Messages as RFC 6587 counts them.
fn counted(mut bytes: &[u8]) -> Vec<String> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ').expect("a count");
        let count: usize = std::str::from_utf8(&bytes[..space]).expect("digits").parse().expect("a number");
        messages.push(String::from_utf8(bytes[space + 1..][..count].to_vec()).expect("UTF-8"));
        bytes = &bytes[space + 1 + count..];
    }
    messages
}

#[tokio::test]
async fn syslog_by_tcp_counts_and_tries_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let address = listener.local_addr().expect("bound");
    let mut second = notice("tcp", 1);
    second.id = "another/1".to_owned();
    let outbox = Memory::of([notice("tcp", 1), second]);
    let text = format!("[[sink]]\nname = \"tcp\"\nkind = \"syslog\"\naddress = \"tcp://{address}\"\n");
    let running = Running::start(&sinks(&text), pace(), &outbox);
    // The first connection is torn down with what it carries unread: that is an error to the sender.
    let (stream, _) = listener.accept().await.expect("a connection");
    stream.readable().await.expect("something to read");
    drop(stream);
    let (mut stream, _) = listener.accept().await.expect("another connection");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("all of it");
    drop(stream);
    let messages = counted(&bytes);
    assert_eq!(messages.len(), 2);
    assert!(messages.iter().all(|message| message.starts_with("<35>1 ")));
    until("both are done", || outbox.waiting().is_empty()).await;
    running.end().await;
    assert_eq!(outbox.failures().len(), 2, "{:?}", outbox.failures());
}

/// A certificate for `localhost`, as PEM, and who serves with it.
fn served() -> (String, Arc<rustls::ServerConfig>) {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key.into())
        .expect("a configuration");
    (certificate.cert.pem(), Arc::new(config))
}

#[tokio::test]
async fn https_only_to_whom_the_authority_vouches_for() {
    let folder = TempDir::new().expect("a folder");
    let (pem, config) = served();
    let (stranger, _) = served();
    let receiver = Receiver::default();
    let router = Router::new().fallback(answer).with_state(receiver.clone());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("an address");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move { crate::door::serve(listener, Some(config), router, std::future::pending()).await });
    let ca = folder.path().join("ca.crt");
    let text = format!("{}ca_file = {ca:?}\n", webhook("https", &format!("https://localhost:{port}/")));
    let outbox = Memory::of([notice("https", 1)]);
    std::fs::write(&ca, &stranger).expect("written");
    let running = Running::start(&sinks(&text), pace(), &outbox);
    until("it fails", || !outbox.failures().is_empty()).await;
    running.end().await;
    assert!(receiver.requests().is_empty() && outbox.waiting().len() == 1);

    std::fs::write(&ca, &pem).expect("written");
    let running = Running::start(&sinks(&text), pace(), &outbox);
    until("it is told", || outbox.waiting().is_empty()).await;
    running.end().await;
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test]
async fn syslog_by_tls_only_to_whom_the_authority_vouches_for() {
    let folder = TempDir::new().expect("a folder");
    let (pem, config) = served();
    let (stranger, _) = served();
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let port = listener.local_addr().expect("bound").port();
    let ca = folder.path().join("ca.crt");
    let text = format!(
        "[[sink]]\nname = \"tls\"\nkind = \"syslog\"\naddress = \"tls://localhost:{port}\"\nca_file = {ca:?}\n"
    );
    let outbox = Memory::of([notice("tls", 1)]);
    let received = Arc::new(Mutex::new(Vec::new()));
    let into = received.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut bytes = Vec::new();
            drop(stream.read_to_end(&mut bytes).await);
            lock(&into).push(bytes);
        }
    });
    std::fs::write(&ca, &stranger).expect("written");
    let running = Running::start(&sinks(&text), pace(), &outbox);
    until("it fails", || !outbox.failures().is_empty()).await;
    running.end().await;
    assert!(lock(&received).iter().all(Vec::is_empty) && outbox.waiting().len() == 1);

    std::fs::write(&ca, &pem).expect("written");
    let running = Running::start(&sinks(&text), pace(), &outbox);
    until("it is told", || outbox.waiting().is_empty()).await;
    running.end().await;
    until("it is read", || lock(&received).iter().any(|bytes| !bytes.is_empty())).await;
    let bytes = lock(&received).last().cloned().expect("bytes");
    assert_eq!(counted(&bytes).len(), 1);
}

#[tokio::test]
async fn a_file_has_a_line_for_each() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("alerts.ndjson");
    let text = format!("[[sink]]\nname = \"file\"\nkind = \"file\"\nfile = {path:?}\n");
    let mut second = notice("file", 1);
    second.id = "another/1".to_owned();
    let outbox = Memory::of([notice("file", 1), second]);
    let running = Running::start(&sinks(&text), pace(), &outbox);
    until("both are written", || outbox.waiting().is_empty()).await;
    running.end().await;
    let text = std::fs::read_to_string(&path).expect("there");
    let keys: Vec<Value> = text.lines().map(|line| json(line)["key"].clone()).collect();
    assert_eq!(keys, [Value::from(notice("file", 1).id), "another/1".into()]);
}

/// A file with an authority, which an API server is known by.
fn authority(folder: &TempDir) -> PathBuf {
    let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let path = folder.path().join("ca.crt");
    std::fs::write(&path, authority.cert.pem()).expect("written");
    path
}

/// What the ledger has of an alert.
fn head(alert: &Alert) -> lineage::AlertHead {
    crate::stored::row(alert, 1).expect("packed").head
}

#[tokio::test]
async fn a_workload_has_one_policy_report_that_is_updated_and_removed() {
    let workload = Answer::Body(r#"{"metadata": {"uid": "d-1"}}"#);
    let answers = [workload.clone(), Answer::Status(200), Answer::Status(200), Answer::Status(403)];
    let (receiver, url) = Receiver::start(answers).await;
    let folder = TempDir::new().expect("a folder");
    let token = folder.path().join("token");
    std::fs::write(&token, "a-token").expect("written");
    let sinks = sinks(&format!(
        "[[sink]]\nname = \"report\"\nkind = \"policy-report\"\nurl = \"{url}\"\ncluster = \"eu\"\nsecret_file = \"{}\"\n\
         ca_file = \"{}\"",
        token.display(),
        authority(&folder).display(),
    ));
    let of = |subject: &str, revision: u64| {
        let alert = alert_of(subject, "nothing leads there", 0.8);
        Notice { id: format!("{}/{revision}", alert.id), alert, ..notice("report", revision) }
    };
    let (one, other) = (of("/usr/bin/nc", 1), of("/usr/bin/curl", 2));
    let outbox = Memory::of([one.clone(), other.clone()]);
    let suppressed = lineage::AlertHead { is_suppressed: true, ..head(&other.alert) };
    lock(&outbox.2).extend([head(&one.alert), suppressed]);
    let running = Running::start(&sinks, pace(), &outbox);
    until("both are told", || outbox.waiting().is_empty()).await;
    let asked = |receiver: &Receiver| -> Vec<(String, String)> {
        receiver.requests().into_iter().map(|request| (request.method, request.path)).collect()
    };
    let deployment = "/apis/apps/v1/namespaces/shop/deployments/web".to_owned();
    let path = "/apis/wgpolicyk8s.io/v1alpha2/namespaces/shop/policyreports/mayfly-runtime-deployment-web".to_owned();
    assert_eq!(asked(&receiver), [("GET".to_owned(), deployment.clone()), ("PATCH".to_owned(), path.clone())]);
    let written = &receiver.requests()[1];
    assert_eq!(written.query, "fieldManager=mayfly-bridge&force=true");
    assert_eq!(written.header("authorization"), "Bearer a-token");
    assert_eq!(written.header("content-type"), "application/apply-patch+yaml");
    let report: Value = serde_json::from_slice(&written.body).expect("JSON");
    assert_eq!(report["summary"], serde_json::json!({"pass": 0, "fail": 1, "warn": 0, "error": 0, "skip": 1}));
    assert_eq!(report["metadata"]["ownerReferences"][0]["uid"], "d-1");
    assert_eq!(
        (&report["results"][0]["rule"], &report["results"][0]["severity"]),
        (&"program-not-reachable".into(), &"high".into())
    );
    assert_eq!(report["results"][0]["properties"]["alert"], one.alert.id);

    // All is resolved: the report goes.
    lock(&outbox.2).clear();
    lock(&outbox.0).push((Notice { id: format!("{}/9", one.alert.id), ..resolved(&one) }, Timestamp::UNIX_EPOCH));
    until("it is told", || outbox.waiting().is_empty()).await;
    assert_eq!(asked(&receiver)[2..], [("DELETE".to_owned(), path.clone())]);
    // Without the right to read the workload, the report is nobody's.
    lock(&outbox.2).push(head(&one.alert));
    lock(&outbox.0).push((of("/usr/bin/nc", 10), Timestamp::UNIX_EPOCH));
    until("it is told", || outbox.waiting().is_empty()).await;
    let report: Value = serde_json::from_slice(&receiver.requests()[4].body).expect("JSON");
    assert_eq!(report["metadata"]["ownerReferences"], Value::Null);
    // It is gone: there is nothing to write, and nobody waits.
    lock(&receiver.answers).push_back(Answer::Status(404));
    lock(&outbox.0).push((of("/usr/bin/nc", 11), Timestamp::UNIX_EPOCH));
    until("it is told", || outbox.waiting().is_empty()).await;
    assert_eq!((receiver.requests().len(), outbox.failures().len()), (6, 0));
    running.end().await;
}

#[test]
fn a_report_s_path_has_nothing_of_a_stranger_s_choosing() {
    let paths = |namespace: &str, owner: &str| {
        let place = Place { namespace: namespace.to_owned(), owner: owner.to_owned(), ..Place::default() };
        report::paths(&place)
    };
    let found = paths("shop", "Rollout/web").expect("paths");
    assert_eq!(found.workload, None, "a kind that is not known is not asked for");
    assert!(found.report.ends_with("/policyreports/mayfly-runtime-rollout-web"));
    for (namespace, owner) in
        [("../x", "Pod/a"), ("shop", "Pod/../../secrets"), ("shop", "Pod/a/b"), ("", "Pod/a"), ("shop", "Po d/a")]
    {
        assert!(paths(namespace, owner).is_err(), "{namespace} {owner}");
    }
}

#[test]
fn what_a_person_did_is_told_with_who_and_why() {
    let by = crate::alert::By { actor: "alice".to_owned(), reason: "a drill".to_owned() };
    let mut done = Notice { change: Change::Acknowledged, by: Some(by), ..notice("all", 8) };
    done.alert.state = State::Acknowledged;
    for (name, body) in bodies(&done) {
        // PagerDuty takes nothing beside the act; Events and syslog have no place for it.
        if !matches!(name, "pagerduty" | "event" | "syslog") {
            assert!(body.contains("alice") && body.contains("a drill"), "{name}: {body}");
        }
    }
    assert_eq!(json(&pagerduty(&done, "k"))["event_action"], "acknowledge");
    assert_eq!(json(&event(&done, "h"))["reason"], "DeviationAcknowledged");
    done.change = Change::Suppressed;
    done.alert.state = State::Suppressed;
    assert_eq!(json(&pagerduty(&done, "k"))["event_action"], "resolve");
    let ended = json(&alertmanager(&done, SignedDuration::from_hours(24)));
    assert_eq!(ended[0]["endsAt"], "2026-11-30T07:00:01.5Z");
    let sinks = sinks("[[sink]]\nname = \"a\"\nkind = \"webhook\"\nurl = \"http://x\"");
    let sink = sinks.iter().next().expect("one");
    assert!(sink.wants(&done.alert, Change::Suppressed, Some(at(AT)), at(AT)));
    assert!(!sink.wants(&done.alert, Change::Suppressed, None, at(AT)), "nobody there knows of it");
}

/// The first alert's story, with a second one.
fn told_as_incident(change: Change) -> Notice {
    let mut notice = Notice { change, ..notice("all", 3) };
    let mut second = alert_of("/run/secrets/token", "reads <a secret> of @channel", 0.6);
    (second.class, second.technique) = (Class::SensitiveRead, "T1528".to_owned());
    let mut stories = crate::incident::Stories::default();
    stories.take(&notice.alert);
    stories.take(&second);
    let chapters = [&notice.alert, &second].map(crate::incident::Chapter::new);
    let incident = stories.incident(&second.id, |id| chapters.iter().find(|chapter| chapter.alert == id));
    let incident = incident.expect("an incident");
    notice.id = format!("incident-{}/3", incident.id);
    notice.incident = Some(Box::new(incident));
    notice
}

#[test]
fn an_incident_is_told_as_a_story_under_its_own_name() {
    let told = told_as_incident(Change::Escalated);
    let id = told.incident.as_ref().expect("one").id.clone();
    for (name, body) in bodies(&told) {
        for text in ["credential-access", "command-and-control"] {
            assert!(name == "syslog" || body.contains(text), "{name}: {body}");
        }
        assert!(body.contains("nothing leads to"), "{name}: {body}");
        assert!(name == "event" || body.contains(&id), "{name}: {body}");
    }
    let alertmanager = json(&alertmanager(&told, SignedDuration::from_hours(24)));
    assert_eq!(
        alertmanager[0]["labels"],
        serde_json::json!({
            "alertname": "MayflyIncident", "cluster": "eu", "incident": id, "severity": "critical"
        })
    );
    let pagerduty_body = json(&pagerduty(&told, "k"));
    assert_eq!((&pagerduty_body["dedup_key"], &pagerduty_body["event_action"]), (&Value::from(id), &"trigger".into()));
    assert_eq!(json(&event(&told, "h"))["reason"], "Incident");
    assert_eq!(json(&generic(&told))["kind"], "Incident");
    let done = told_as_incident(Change::Resolved);
    assert_eq!(json(&pagerduty(&done, "k"))["event_action"], "resolve");
    // However long it is.
    let mut long = told.clone();
    if let Some(incident) = &mut long.incident {
        let chapter = incident.chapters[0].clone();
        incident.chapters =
            (0..256).map(|_| crate::incident::Chapter { message: "é<".repeat(2000), ..chapter.clone() }).collect();
    }
    for (name, body) in bodies(&long) {
        assert!(body.len() <= 256 << 10, "{name}: {}", body.len());
    }
}
