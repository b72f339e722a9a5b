//! The bridge as a user runs it: the program, sensors that post to it, and what stands in the ledger then. It is killed while it works, its
//! disk is full, its ledger away: the short forms of the command `soak`.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use dna::Digest;
use jiff::{SignedDuration, Timestamp};
use lineage::{Ledger, Origin, SubjectDna};
use oci::{
    Descriptor,
    registry::{Repository, Settings},
};
use serde_json::{Value, json};
use tests::{
    Access, Bridge, BridgeOptions, ImageBuilder, Layer, ReferrersRegistry, Registry, SECRET, Sensor, TAKEN, copy,
    counted, free_port, judgement, knows, mayfly_path, sensors, served, serves, soak, sqlite, starts, writes, written,
};

/// How long alerts are waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A ledger that knows the image's DNA.
async fn ledger(folder: &Path) -> Ledger {
    let ledger = Ledger::open(&sqlite(folder)).await.expect("a ledger");
    knows(&ledger, 0, &served(0)).await;
    ledger
}

/// The container starts and serves, a while ago.
fn begins(at: Timestamp) -> String {
    format!("{}\n{}\n", starts(at, 1, 0), serves(at + SignedDuration::from_millis(1), 1, 0))
}

#[test]
fn what_was_answered_is_judged_once_however_often_the_bridge_is_killed() {
    let kills: u64 = std::env::var("BRIDGE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    println!("{}", soak::kills(kills));
}

#[test]
fn a_full_disk_is_told_and_gone_through() {
    println!("{}", soak::full_disk());
}

#[test]
fn what_is_seen_while_the_ledger_is_away_is_judged_when_it_is_back() {
    println!("{}", soak::postgres_restarts(1, Duration::from_secs(3)));
}

#[test]
fn clocks_that_jump_hold_nothing_up() {
    println!("{}", soak::clock_jumps());
}

#[test]
fn containers_that_come_and_go_leave_no_memory_behind() {
    println!("{}", soak::containers(100, 300));
}

#[test]
fn a_month_of_small_steps_is_one_incident() {
    println!("{}", judgement::month(30, 1_000));
}

#[test]
fn a_fleet_that_is_replaced_all_day_has_one_intruder() {
    println!("{}", judgement::fleet(1_000, 10, 8));
}

#[test]
fn a_sensor_without_its_secret_is_refused_and_a_full_answer_tells_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let _ledger = Ledger::open(&sqlite(folder.path())).await.expect("a ledger");
        let bridge = Bridge::start(&BridgeOptions::new(folder.path(), free_port()));
        let client = reqwest::Client::new();
        let url = format!("http://127.0.0.1:{}/v1/events/falco/wrong", bridge.port);
        let body = writes(Timestamp::now(), 1, 0, "/etc/passwd").to_string();
        let answer = client.post(url).body(body).send().await.expect("an answer");
        assert_eq!(answer.status(), 403);
        assert!(!answer.text().await.expect("a body").contains(SECRET));
        bridge.end();
    });
}

#[test]
fn serve_is_the_webhook_and_the_bridge_in_one_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        path
    };
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    file("tls.crt", &cert.pem());
    file("tls.key", &signing_key.serialize_pem());
    let rule = "apiVersion: mayfly.dev/v1alpha1\nkind: ClusterImageRule\nmetadata: {name: digests}\nspec: {tags: RequireDigest}\n";
    let rules = file("rule.yaml", rule);
    let digest = Digest::sha256(SECRET.as_bytes());
    let callers = format!("[[caller]]\nname = \"admin\"\ntoken_sha256 = \"{}\"\nrole = \"read\"\n", digest.hex());
    let callers = file("callers.toml", &callers);
    let [reviews, events, api, status] = [(); 4].map(|()| free_port());
    let at = |port: u16| format!("127.0.0.1:{port}");
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let ledger = ledger(folder.path()).await;
        let mut command = Command::new(mayfly_path());
        command.args(["serve", "--no-cluster", "--cluster", "one", "--drain", "0", "--listen", &at(reviews)]);
        command.args(["--bridge-listen", &at(events), "--api-listen", &at(api), "--status-listen", &at(status)]);
        command.arg("--rules").arg(&rules).arg("--callers").arg(&callers);
        command.arg("--tls-dir").arg(folder.path()).arg("--data").arg(folder.path());
        command.arg("--sensors").arg(sensors(folder.path()));
        let serve = Bridge::spawn(command, events);
        let authority = reqwest::Certificate::from_pem(cert.pem().as_bytes()).expect("a certificate");
        let client = reqwest::Client::builder().tls_certs_only([authority]).build().expect("a client");
        let get = async |url: String| {
            let asked = client.get(url).bearer_auth(SECRET).timeout(Duration::from_secs(5)).send().await;
            asked.expect("an answer").text().await.expect("a body")
        };
        let until = Instant::now() + Duration::from_secs(30);
        while get(format!("http://127.0.0.1:{status}/readyz")).await != "ok" {
            assert!(Instant::now() < until, "it does not get ready");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // One certificate, for reviews, events and whoever asks.
        let url = format!("https://localhost:{events}/v1/events/falco/{SECRET}");
        let now = Timestamp::now();
        let body = format!("{}{}\n", begins(now), writes(now + SignedDuration::from_millis(2), 1, 0, "/etc/passwd"));
        let sent = client.post(url).body(body).send().await.expect("an answer");
        assert_eq!(sent.status(), 200);
        assert_eq!(counted(&ledger, 1, PATIENCE).await, BTreeMap::from([("/etc/passwd".to_owned(), 1)]));
        let alerts = get(format!("https://localhost:{api}/api/v1/alerts")).await;
        assert!(alerts.contains("/etc/passwd"), "{alerts}");
        assert_eq!(get(format!("https://localhost:{reviews}/readyz")).await, "ok");
        let token = file("token", SECRET).display().to_string();
        let asked = |args: &[&str]| {
            let (url, ca) = (format!("https://localhost:{api}"), folder.path().join("tls.crt").display().to_string());
            let more = ["--api", &url, "--token-file", &token, "--api-ca", &ca];
            mayfly_says(folder.path(), &[args, &more].concat())
        };
        let told = asked(&["incident", "list", "--all"]);
        assert!(told.starts_with("incident ") && told.contains("persistence"), "{told}");
        let id = told.split([' ', ':']).nth(1).expect("a name").to_owned();
        let told = asked(&["incident", "show", &id]);
        assert!(told.contains("/etc/passwd") && told.contains("processes of"), "{told}");
        let evidence = folder.path().join("evidence.tar.gz").display().to_string();
        asked(&["incident", "export", &id, "--output", &evidence]);
        mayfly_says(folder.path(), &["incident", "verify", &evidence]);
        let seen = ledger.workloads(&lineage::WorkloadQuery::default(), 10).await.expect("read");
        let workload = format!("{}/{}", seen[0].namespace, seen[0].owner);
        let told = asked(&["snapshot", &workload, "--format", "json"]);
        let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
        assert_eq!(told["dimensions"]["write"]["alerts"][0]["subject"], "/etc/passwd", "{told}");
        assert_eq!(told["dimensions"]["exec"]["confirmed"][0]["item"], "/usr/sbin/served", "{told}");
        // A rule of what was found, held against what is stored: as a draft, and as the file that somebody keeps.
        let alert = told["dimensions"]["write"]["alerts"][0]["alert"].as_str().expect("a name").to_owned();
        let draft = ["snapshot", &workload, "--draft", "rule", "--reason", "ours", "--until", "2d", "--alert", &alert];
        let rule = file("draft.yaml", &asked(&draft)).display().to_string();
        for places in [&[] as &[&str], &[workload.as_str()]] {
            let told = asked(&[&["snapshot", "--replay", &rule], places].concat());
            assert!(told.contains("silenced: 1 alerts, 1 deviations (write 1)"), "{told}");
        }
        let metrics = get(format!("http://127.0.0.1:{status}/metrics")).await;
        for name in ["mayfly_rules ", "mayfly_events_received_total{sensor=\"falco\"} 3"] {
            assert!(metrics.contains(name), "{name}: {metrics}");
        }
        serve.end();
    });
}

/// Runs the program to its end.
fn mayfly(folder: &Path, args: &[&str]) {
    mayfly_says(folder, args);
}

/// What it says.
fn mayfly_says(folder: &Path, args: &[&str]) -> String {
    let done = Command::new(mayfly_path())
        .args(args)
        .current_dir(folder)
        .env("MAYFLY_KEY_PASSWORD", "a password")
        .output()
        .expect("the program runs");
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("text")
}

#[test]
fn what_somebody_accepts_and_signs_is_expected_from_then_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let ledger = ledger(path).await;
        let (client, port, api) = (reqwest::Client::new(), free_port(), free_port());
        mayfly(path, &["keys", "generate", "--output-prefix", "overlay"]);
        let token = Digest::sha256(b"a-token");
        let callers = format!("[[caller]]\nname = \"soc\"\nrole = \"write\"\ntoken_sha256 = \"{}\"\n", token.hex());
        fs::write(path.join("callers.toml"), callers).expect("written");
        let key = path.join("overlay.pub");
        let signers = format!("[[signer]]\nname = \"soc\"\nkey_file = {key:?}\nevidence = \"signature\"\n");
        fs::write(path.join("signers.toml"), signers).expect("written");
        let of = |name: &str| path.join(name).display().to_string();
        let more = [
            "--api-listen".to_owned(),
            format!("127.0.0.1:{api}"),
            "--callers".to_owned(),
            of("callers.toml"),
            "--overlay-signers".to_owned(),
            of("signers.toml"),
        ];
        let bridge = Bridge::start(&BridgeOptions { more: more.into(), ..BridgeOptions::new(path, port) });
        let ask = async |method: reqwest::Method, route: &str, body: Option<String>| -> Value {
            let request = client.request(method, format!("http://127.0.0.1:{api}/api/v1/{route}"));
            let request = request.bearer_auth("a-token").header("content-type", "application/json");
            let answer = request.body(body.unwrap_or_default()).send().await.expect("an answer");
            let (status, text) = (answer.status(), answer.text().await.expect("a body"));
            assert!(status.is_success(), "{route}: {status} {text}");
            serde_json::from_str(&text).expect("JSON")
        };
        let mut sensor = Sensor::new(port);
        let mut post = async |body: String| assert_eq!(sensor.send(&Sensor::request(&body)).await, Some(200));
        // Writes that nothing in the image does: one alert for each of these files.
        let intrusion = |at: Timestamp| -> String {
            // A millisecond apart: events of one time and rule are one.
            let times = (0..).map(|number| at + SignedDuration::from_millis(number));
            TAKEN.iter().zip(times).map(|(file, at)| format!("{}\n", writes(at, 1, 0, file))).collect()
        };
        let began = Timestamp::now();
        post(begins(began)).await;
        post(intrusion(began + SignedDuration::from_millis(2))).await;
        assert_eq!(counted(&ledger, 4, PATIENCE).await.len(), 4);

        let alerts = ask(reqwest::Method::GET, "alerts?class=write", None).await;
        let alerts = alerts["alerts"].as_array().expect("alerts");
        let cron = alerts.iter().find(|alert| alert["subject"] == "/etc/cron.d/x").expect("the alert");
        let whole = ask(reqwest::Method::GET, &format!("alerts/{}", cron["id"].as_str().expect("an id")), None).await;
        let item = &whole["grounds"]["item"];
        assert_eq!((&item["of"], &item["isThere"]), (&json!("write"), &json!(false)), "{whole}");
        let (at, token) = (format!("http://127.0.0.1:{api}"), of("token"));
        fs::write(&token, "a-token").expect("written");
        let seen = ledger.workloads(&lineage::WorkloadQuery::default(), 10).await.expect("read");
        let workload = format!("{}/{}", seen[0].namespace, seen[0].owner);
        let draft = |kind: &str, file: &str| {
            let reason = ["snapshot", &workload, "--draft", kind, "--reason", "our own job", "--until", "1h"];
            let more = ["--alert", cron["id"].as_str().expect("an id"), "--api", &at, "--token-file", &token];
            fs::write(path.join(file), mayfly_says(path, &[&reason[..], &more].concat())).expect("written");
        };
        draft("rule", "rule.yaml");
        draft("overlay", "proposal.json");
        for file in ["rule.yaml", "proposal.json"] {
            let told = mayfly_says(path, &["snapshot", "--replay", file, "--api", &at, "--token-file", &token]);
            let is_alone = told.contains("silenced: 1 alerts, 1 deviations (write 1)\n  write /etc/cron.d/x of shop");
            assert!(is_alone && told.contains("stay: 3 alerts"), "{told}");
        }
        mayfly(path, &["overlay", "sign", "proposal.json", "--key", "overlay.key", "--output", "bundle.json"]);
        let bundle = fs::read_to_string(path.join("bundle.json")).expect("signed");
        let taken = ask(reqwest::Method::POST, "overlays", Some(bundle)).await;
        assert_eq!(taken["state"], "inForce", "{taken}");

        // The same acts again, later than that.
        tokio::time::sleep(Duration::from_secs(1)).await;
        post(intrusion(Timestamp::now())).await;
        let counts = counted(&ledger, 7, PATIENCE).await;
        assert_eq!(counts.get("/etc/cron.d/x"), Some(&1), "{counts:?}");
        assert_eq!(counts.values().sum::<u64>(), 7, "{counts:?}");
        bridge.end();
    });
}

/// An image in a registry, which knows a referrers API or does not, and what is signed about it.
struct Attaching<'a> {
    folder: &'a Path,
    /// Where the image is.
    reference: String,
    image: Digest,
    repository: Repository,
    subject: Descriptor,
}

impl<'a> Attaching<'a> {
    async fn push(folder: &'a Path, reference: String) -> Self {
        let layout = folder.join("image");
        ImageBuilder::new(json!({"Entrypoint": ["/usr/sbin/served"]})).layer(Layer::default()).write(&layout);
        copy(&format!("oci:{}:latest", layout.display()), &format!("{reference}:1"));
        let named = format!("{reference}:1").parse().expect("a reference");
        let settings = Settings { plain_http: true, ..Settings::default() };
        let repository = Repository::open(&named, &settings).await.expect("a repository");
        let (subject, _) = repository.manifest("1").await.known().expect("it answers").expect("it is there");
        Self { folder, reference, image: subject.digest.clone(), repository, subject }
    }

    fn at(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// A signed overlay that accepts a write, in a file.
    fn signed(&self, key: &str, image: &Digest, file: &str, more: Value) -> String {
        let now = Timestamp::now();
        let mut predicate = json!({"class": "write", "subject": file, "scope": {"cluster": "one", "namespace": "shop"},
            "reason": "our own job", "actor": "build", "madeAt": now, "expiresAt": now + SignedDuration::from_hours(1)});
        more.as_object().expect("members").iter().for_each(|(name, value)| predicate[name] = value.clone());
        let statement = json!({"_type": "https://in-toto.io/Statement/v1", "subject": [{"digest": {"sha256": image.hex()}}],
            "predicateType": trust::OVERLAY_PREDICATE, "predicate": predicate});
        let name = Digest::sha256(format!("{key}{statement}").as_bytes());
        let (proposal, bundle) = (self.at(name.hex()), self.at(&format!("{}.bundle", name.hex())));
        fs::write(&proposal, statement.to_string()).expect("written");
        mayfly(self.folder, &["overlay", "sign", &proposal, "--key", key, "--output", &bundle]);
        bundle
    }

    /// Attaches them as a user does.
    fn attach(&self, bundles: &[&str]) -> Value {
        let arguments = [&["overlay", "attach"][..], bundles, &[self.reference.as_str(), "--plain-http"]].concat();
        serde_json::from_str(&mayfly_says(self.folder, &arguments)).expect("JSON")
    }

    /// Attaches bytes as somebody does who may write to the repository.
    async fn forge(&self, bundle: &[u8]) {
        let now = Timestamp::now();
        let done =
            trust::attach(&self.repository, &self.subject, trust::OVERLAY_PREDICATE, bundle, now, trust::Older::Kept)
                .await;
        done.expect("attached");
    }

    /// An event of a container of this image.
    fn told(&self, mut event: Value) -> String {
        event["output_fields"]["container.image.digest"] = self.image.to_string().into();
        event["output_fields"]["container.image.repository"] = self.reference.clone().into();
        format!("{event}\n")
    }
}

#[test]
fn what_is_attached_to_an_image_is_expected_from_its_first_act() {
    let (plain, referrers) = (Registry::start(Access::Anonymous), ReferrersRegistry::start());
    for reference in [plain.reference("team/served"), referrers.reference("team/served")] {
        let folder = tempfile::tempdir().expect("a folder");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(attached_overlays_hold(folder.path(), reference));
    }
}

async fn attached_overlays_hold(folder: &Path, reference: String) {
    let image = Attaching::push(folder, reference).await;
    for name in ["own", "stranger"] {
        mayfly(folder, &["keys", "generate", "--output-prefix", name]);
    }
    let other = Digest::sha256(b"another image");
    let good = image.signed("own.key", &image.image, "/etc/cron.d/x", json!({}));
    let (first, again) = (image.attach(&[&good]), image.attach(&[&good]));
    assert_eq!((&first["unchanged"], &again["unchanged"]), (&json!(false), &json!(true)), "{first} {again}");
    let stranger = image.signed("stranger.key", &image.image, "/etc/passwd", json!({}));
    let wide = image.signed("own.key", &image.image, "/root/.ssh/authorized_keys", json!({"scope": {}}));
    let unknown = image.signed("own.key", &image.image, "/etc/passwd", json!({"class": "no-such"}));
    // Several at once: of several files, and of one that has two, a line each.
    let both = image.at("both.bundles");
    let two = [&wide, &unknown].map(|file| fs::read_to_string(file).expect("signed").replace('\n', ""));
    fs::write(&both, two.join("\n")).expect("written");
    let all = image.attach(&[&stranger, &both]);
    let is_new = |one: &Value| one["unchanged"] == false;
    assert!(all.as_array().is_some_and(|all| all.len() == 3 && all.iter().all(is_new)), "{all}");
    let about_other = image.signed("own.key", &other, "/etc/ld.so.preload", json!({}));
    let refused = Command::new(mayfly_path())
        .args(["overlay", "attach", &about_other, &image.reference, "--plain-http"])
        .output()
        .expect("the program runs");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains(&format!("has no {other}")), "{said}");
    image.forge(&fs::read(&about_other).expect("signed")).await;
    // What is signed is not what it says.
    let mut changed: Value = serde_json::from_slice(&fs::read(&good).expect("signed")).expect("JSON");
    let payload = changed["dsseEnvelope"]["payload"].as_str().expect("a payload");
    let payload = String::from_utf8(BASE64.decode(payload).expect("base64")).expect("text");
    let payload = payload.replace("/etc/cron.d/x", "/etc/passwd");
    changed["dsseEnvelope"]["payload"] = BASE64.encode(payload).into();
    image.forge(changed.to_string().as_bytes()).await;

    let ledger = Ledger::open(&sqlite(folder)).await.expect("a ledger");
    let (dna, now) = (served(0), Timestamp::now());
    let link = SubjectDna {
        subject: image.image.clone(),
        rules: dna.analyzer.rules.clone(),
        origin: Origin::Analyzed,
        repository: image.reference.clone(),
        dna: ledger.put_dna(&dna, dna.to_canonical_json().expect("JSON"), now).await.expect("kept"),
        at: now,
    };
    ledger.link_dna(&link).await.expect("linked");
    let token = Digest::sha256(b"a-token");
    let callers = format!("[[caller]]\nname = \"soc\"\nrole = \"write\"\ntoken_sha256 = \"{}\"\n", token.hex());
    let signers = format!(
        "[[signer]]\nname = \"build\"\nkey_file = {:?}\nevidence = \"signature\"\nattached = true\nnamespaces = [\"shop\"]\n",
        image.at("own.pub")
    );
    let (port, api) = (free_port(), free_port());
    let more = [
        "--plain-http",
        "--api-listen",
        &format!("127.0.0.1:{api}"),
        "--callers",
        &written(folder, "callers.toml", callers),
        "--overlay-signers",
        &written(folder, "signers.toml", signers),
    ];
    let more = more.map(str::to_owned).into();
    let bridge = Bridge::start(&BridgeOptions { more, ..BridgeOptions::new(folder, port) });
    let at = |milliseconds: i64| Timestamp::now() + SignedDuration::from_millis(milliseconds);
    let mut body = image.told(starts(at(0), 1, 0)) + &image.told(serves(at(1), 1, 0));
    (2..).zip(TAKEN).for_each(|(number, file)| body += &image.told(writes(at(number), 1, 0, file)));
    assert_eq!(Sensor::new(port).send(&Sensor::request(&body)).await, Some(200));
    let counts = counted(&ledger, 3, PATIENCE).await;
    assert_eq!(counts.values().sum::<u64>(), 3, "{counts:?}");
    assert!(!counts.contains_key("/etc/cron.d/x"), "{counts:?}");

    let url = format!("http://127.0.0.1:{api}/api/v1/overlays");
    let ask = async |url: &str| {
        let answer = reqwest::Client::new().get(url).bearer_auth("a-token").send().await.expect("an answer");
        answer.bytes().await.expect("a body")
    };
    let listed: Value = serde_json::from_slice(&ask(&url).await).expect("JSON");
    let [overlay] = listed["overlays"].as_array().expect("overlays").as_slice() else { panic!("{listed}") };
    assert_eq!((&overlay["state"], &overlay["signer"]), (&json!("inForce"), &json!("build")));
    assert_eq!(overlay["acceptedBy"], format!("attached in {}", image.reference));
    let refused = listed["refused"].as_array().expect("refused");
    for why in [
        "signed by key",
        "may not change",
        "no class of deviations",
        &format!("about the image {other}"),
        "does not verify",
    ] {
        let told = refused.iter().filter(|one| one["reason"].as_str().expect("text").contains(why));
        assert_eq!(told.count(), 1, "{why}: {listed}");
    }
    assert_eq!(refused.len(), 5, "{listed}");
    let said = bridge.said();
    assert_eq!(said.iter().filter(|line| line.contains("does not count")).count(), 5, "{said:#?}");
    // It goes out as it came.
    let given = ask(&format!("{url}/{}/bundle", overlay["id"].as_str().expect("an id"))).await;
    assert_eq!(given, fs::read(&good).expect("signed"));
    bridge.end();
}
