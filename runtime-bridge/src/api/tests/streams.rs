//! Changes of alerts as they come.

use futures_util::StreamExt as _;
use tower::ServiceExt as _;

use super::*;

/// A stream that is open, and what came of it.
struct Stream {
    response: reqwest::Response,
    text: String,
    /// What was told of incidents meanwhile.
    incidents: Vec<Value>,
}

impl Stream {
    async fn open(server: &Server, path: &str, token: &str, last: Option<u64>) -> Self {
        let url = format!("http://{}/api/v1/events{path}", server.address);
        let mut request = server.client.get(url).header("authorization", format!("Bearer {token}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last.to_string());
        }
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new(), incidents: Vec::new() }
    }

    /// The next event: its id and what it says.
    async fn next(&mut self) -> Option<(u64, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                let Some(data) = field("data: ") else { continue };
                if field("event: ") == Some("incident") {
                    self.incidents.push(serde_json::from_str(data).expect("JSON"));
                    continue;
                }
                assert_eq!(field("event: "), Some("alert"));
                let id = field("id: ").expect("an id").parse().expect("a revision");
                return Some((id, serde_json::from_str(data).expect("JSON")));
            }
            let chunk = tokio::time::timeout(Duration::from_secs(5), self.response.chunk());
            let chunk = chunk.await.expect("in time").expect("more")?;
            self.text += std::str::from_utf8(&chunk).expect("text");
        }
    }

    /// What is told of incidents next.
    async fn incident(&mut self) -> Value {
        while self.incidents.is_empty() {
            // An event that is no incident is not asked for here.
            let chunk = tokio::time::timeout(Duration::from_secs(5), self.response.chunk()).await;
            self.text += std::str::from_utf8(&chunk.expect("in time").expect("more").expect("text")).expect("text");
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                if event.lines().any(|line| line == "event: incident") {
                    self.incidents.push(serde_json::from_str(data.expect("data")).expect("JSON"));
                }
                self.text = rest.to_owned();
            }
        }
        self.incidents.remove(0)
    }

    async fn subjects(&mut self, count: usize) -> Vec<(u64, String)> {
        let mut subjects = Vec::new();
        for _ in 0..count {
            let (id, data) = self.next().await.expect("an event");
            assert_eq!(data["revision"], id);
            subjects.push((id, data["subject"].as_str().expect("a subject").to_owned()));
        }
        subjects
    }
}

#[tokio::test]
async fn changes_are_told_as_they_come_and_none_is_missed() {
    let server = server().await;
    let first = alert("shop", "tcp/1", 0.5, 1);
    server.commit(&[first.clone(), alert("bank", "tcp/2", 0.9, 1)], &[]).await;
    let mut all = Stream::open(&server, "", READER, None).await;
    let mut shop = Stream::open(&server, "", SHOP_READER, None).await;
    let mut high = Stream::open(&server, "?minRisk=0.8", READER, None).await;
    let mut none = Stream::open(&server, "?namespace=bank", SHOP_READER, None).await;
    assert_eq!(server.api.followers(), 4);

    server.commit(&[alert("bank", "tcp/3", 0.9, 1), alert("shop", "tcp/4", 0.1, 1)], &[]).await;
    let named = |events: &[(u64, &str)]| events.iter().map(|(id, name)| (*id, (*name).to_owned())).collect::<Vec<_>>();
    assert_eq!(all.subjects(2).await, named(&[(3, "tcp/3"), (4, "tcp/4")]), "only what is new");
    assert_eq!(shop.subjects(1).await, named(&[(4, "tcp/4")]));
    assert_eq!(high.subjects(1).await, named(&[(3, "tcp/3")]));
    drop(all);

    // What a person does is told at once; a poll is a second away. A busy machine may be slow once, not three times.
    let mut took = Vec::new();
    for (revision, act, state) in
        [(5, "acknowledge", "acknowledged"), (6, "reopen", "open"), (7, "acknowledge", "acknowledged")]
    {
        let started = std::time::Instant::now();
        server.act(&first.id, act, ADMIN, json!({ "reason": "mine" })).await;
        let (id, told) = shop.next().await.expect("an event");
        assert_eq!((id, &told["state"]), (revision, &json!(state)));
        took.push(started.elapsed());
    }
    assert!(took.iter().any(|took| *took < Duration::from_millis(900)), "{took:?}");

    // Who was away is told each alert that changed, as it is now.
    let mut back = Stream::open(&server, "", READER, Some(3)).await;
    assert_eq!(back.subjects(2).await, named(&[(4, "tcp/4"), (7, "tcp/1")]));
    let mut other = Stream::open(&server, "", READER, Some(999)).await;
    assert_eq!(other.subjects(4).await.len(), 4, "the revision is of another ledger: all is new");
    let wrong = server.client.get(format!("http://{}/api/v1/events", server.address));
    let wrong = wrong.header("authorization", format!("Bearer {READER}")).header("last-event-id", "x");
    answer(wrong).await.problem(400);

    let silent = tokio::time::timeout(Duration::from_millis(1500), none.next()).await;
    assert!(silent.is_err(), "what he may not read is not told");
    drop((shop, high, none, back, other));
    for _ in 0..100 {
        if server.api.followers() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("a client that is gone holds its place");
}

#[tokio::test]
async fn who_takes_nothing_is_dropped_and_counted() {
    let (ledger, _folder) = ledger().await;
    let mut api = Api::new(ledger, vec![Arc::new(people())], Arc::new(sensors));
    api.limits.stall = Duration::from_millis(200);
    let open = async || {
        let request = axum::extract::Request::get("/api/v1/events")
            .header("authorization", format!("Bearer {READER}"))
            .body(axum::body::Body::empty())
            .expect("a request");
        let response = api.router().oneshot(request).await.expect("an answer");
        (response.status().as_u16(), response.into_body())
    };
    let (_, slow) = open().await;
    let (_, quick) = open().await;
    let reading = tokio::spawn(async move { quick.into_data_stream().take(40).count().await });
    let alerts: Vec<_> = (0..40).map(|n| alert("shop", &format!("tcp/{n}"), 0.5, n)).collect();
    commit(&api.ledger, &alerts, &[]).await;
    api.changed();
    assert_eq!(reading.await.expect("no panic"), 40, "others are told");
    for _ in 0..100 {
        if api.dropped_followers() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(api.dropped_followers(), 1);
    // What he was told until then he may still take; then the stream ends.
    assert_eq!(slow.into_data_stream().count().await, 16);

    let mut streams = Vec::new();
    for _ in 0..super::super::MAX_FOLLOWERS {
        streams.push(open().await);
    }
    assert!(streams.iter().all(|(status, _)| *status == 200));
    assert_eq!(open().await.0, 503, "one too many is told to come later");
}

#[tokio::test]
async fn an_incident_is_told_after_the_alert_that_changed_it() {
    let server = server().await;
    let mut all = Stream::open(&server, "", READER, None).await;
    let mut bank = Stream::open(&server, "?namespace=bank", READER, None).await;
    let first = alert("shop", "tcp/1", 0.5, 2);
    server.commit(std::slice::from_ref(&first), &[]).await;
    let told = all.incident().await;
    assert_eq!((&told["id"], &told["alerts"]), (&json!(first.id), &json!(1)));
    server.commit(&[alert("shop", "tcp/2", 0.5, 1)], &[]).await;
    let told = all.incident().await;
    assert_eq!((&told["id"], &told["alerts"], &told["state"]), (&json!(first.id), &json!(2), &json!("open")));
    server.commit(&[alert("bank", "tcp/3", 0.5, 1)], &[]).await;
    assert_eq!(bank.incident().await["workloads"], json!(["east/bank/Deployment/web"]));
    assert!(bank.incidents.is_empty());
}
